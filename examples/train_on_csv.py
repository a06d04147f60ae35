"""Train on a CSV file of images and tags, evaluate on held-out images, and list the most confident mistakes.

python examples/train_on_csv.py images.csv runs/mine --epochs 15

The file has the columns `image` (a path relative to it) and `tags` (separated by `;`).
"""

import argparse

import numpy as np

from wildcat import TrainConfig, load, open_dataset
from wildcat.evaluation.scoring import evaluate
from wildcat.evaluation.summary import summary
from wildcat.prediction.items import dataset_items
from wildcat.training.launch import train

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("csv")
parser.add_argument("out", help="run directory; a second call resumes the training")
parser.add_argument("--epochs", type=int, default=15)
parser.add_argument("--image-size", type=int, default=320)
arguments = parser.parse_args()

data = f"tags:{arguments.csv}"  # one image in five is held out
config = TrainConfig(data=data, epochs=arguments.epochs, image_size=arguments.image_size)
predictor = load(train(config, arguments.out, resume=True))
print(summary(evaluate(predictor, data)))

# The most confident mistakes: predicted classes without a tag, and tags of classes that are not predicted.
held_out = open_dataset(data, "test")
predictions = list(predictor.stream(dataset_items(held_out), multi_maps=False))
errors = np.abs(np.stack([prediction.probabilities for prediction in predictions]) - (held_out.labels > 0))
for image, c in zip(*np.unravel_index(np.argsort(-errors, axis=None)[:5], errors.shape), strict=True):
    tagged = "tagged" if held_out.labels[image, c] > 0 else "not tagged"
    probability = 100 * predictions[image].probabilities[c]
    print(f"{held_out.samples[image].name}: {tagged} {held_out.classes[c]}, predicted with {probability:.0f} %")
