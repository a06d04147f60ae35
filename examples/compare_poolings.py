"""Train the same model with different poolings and compare the results on held-out images.

python examples/compare_poolings.py folder:my_images runs/poolings --seeds 0 1 2

The score is mAP, or accuracy if every image has exactly one class. Differences smaller than the spread over seeds are
not significant, so use several seeds.
"""

import argparse
from pathlib import Path

import numpy as np

from wildcat import TrainConfig, load
from wildcat.evaluation.scoring import evaluate
from wildcat.training.launch import train

POOLINGS = {
    "max": {"pooling": "max", "num_maps": 1},
    "average": {"pooling": "average", "num_maps": 1},
    "weldon": {"pooling": "weldon", "num_maps": 1},
    "wildcat": {"pooling": "wildcat", "num_maps": 4, "alpha": 0.7},
}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("data", help="kind:path")
parser.add_argument("out", type=Path)
parser.add_argument("--seeds", type=int, nargs="+", default=[0])
parser.add_argument("--epochs", type=int, default=10)
parser.add_argument("--image-size", type=int, default=320)
arguments = parser.parse_args()

rows = []
for name, settings in POOLINGS.items():
    scores = []
    for seed in arguments.seeds:
        config = TrainConfig(
            data=arguments.data, seed=seed, epochs=arguments.epochs, image_size=arguments.image_size, **settings
        )
        run = train(config, arguments.out / f"{name}-seed{seed}", resume=True)
        measured = evaluate(load(run), arguments.data, tasks=["classification"]).classification
        scores.append(measured.map_area if measured.multi_label else measured.accuracy)
    rows.append(f"{name:<10}{np.mean(scores):6.1f} ± {np.std(scores):.1f}")
print("pooling    score", *rows, sep="\n")
