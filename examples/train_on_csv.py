"""Train on a CSV of images and tags, score what was held out, and name the images to look at first.

python examples/train_on_csv.py images.csv runs/mine --epochs 15

The CSV has the columns `image` (a path relative to it) and `tags` (separated by `;`).
"""

import argparse

import numpy as np

from wildcat import TrainConfig, load, open_dataset
from wildcat.evaluation.results import summary
from wildcat.evaluation.scoring import evaluate
from wildcat.prediction.items import dataset_items
from wildcat.training.launch import train

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("csv")
parser.add_argument("out", help="folder of the run; called again, the training resumes where it was")
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--image-size", type=int, default=320)
arguments = parser.parse_args()

data = f"tags:{arguments.csv}"  # one row in five is held out
config = TrainConfig(data=data, epochs=arguments.epochs, image_size=arguments.image_size)
predictor = load(train(config, arguments.out, resume=True))
print(summary(evaluate(predictor, data)))

# The surest mistakes: a class said to be there that the tags do not have, or the other way round.
held_out = open_dataset(data, "test")
found = list(predictor.stream(dataset_items(held_out), multi_maps=False))
doubt = np.abs(np.stack([one.probabilities for one in found]) - (held_out.labels > 0))
for image, c in zip(*np.unravel_index(np.argsort(-doubt, axis=None)[:5], doubt.shape), strict=True):
    tagged = "tagged" if held_out.labels[image, c] > 0 else "not tagged"
    share = 100 * found[image].probabilities[c]
    print(f"{held_out.samples[image].name}: {tagged} {held_out.classes[c]}, the model says {share:.0f} %")
