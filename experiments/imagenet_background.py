"""The background of masks of the embedded ImageNet classifier, fitted on masks of VOC's training images.

    python -m experiments.imagenet_background --data voc07:DIR voc12:DIR

The constant of models that were trained with several labels per image gives masks that are too large for this
classifier. There are no masks for its 1,000 classes, but many classes of VOC are groups of ImageNet's (dogs of 118
breeds). An image is used if the group of its most probable class is among its true labels; its mask is then that of the
class, and all other pixels are background. The constants are fitted on the training splits of all datasets together
(`wildcat.evaluation.background_fit`); the scoring splits only show their effect. `wildcat/prediction/loading.py` holds
the constants; imagenet_background.md has the scores, and `python -m experiments.ledger` includes it in README.md of
this folder.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from experiments.ledger import RESULTS, label_of
from wildcat.data import Dataset
from wildcat.data.registry import default_splits, open_dataset
from wildcat.evaluation.background import with_masks
from wildcat.evaluation.background_fit import MaskedImage, fit_background
from wildcat.masks import Background
from wildcat.metrics import ConfusionMatrix, mean_iou
from wildcat.prediction.items import dataset_items
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor
from wildcat.prediction.result import Prediction

GROUPS = {  # class of VOC -> indices of lines in wildcat/imagenet_classes.txt
    "aeroplane": [404, 895],
    "bicycle": [444, 671],
    "bird": [*range(7, 25), *range(80, 101), *range(127, 147)],
    "boat": [472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 871, 914],
    "bottle": [440, 720, 737, 898, 907],
    "bus": [654, 779, 874],
    "car": [407, 436, 468, 511, 609, 627, 656, 661, 751, 817],
    "cat": [*range(281, 286)],
    "chair": [423, 559, 765],
    "cow": [345],
    "diningtable": [532],
    "dog": [*range(151, 269)],
    "horse": [339],
    "motorbike": [665, 670],
    "pottedplant": [738],
    "sheep": [348, 349],
    "sofa": [831],
    "train": [466, 547, 705, 820],
    "tvmonitor": [664, 782, 851],
}
GROUP_OF = {label: name for name, labels in GROUPS.items() for label in labels}

Case = tuple[Prediction, npt.NDArray[np.uint8]]  # prediction of one class, and its mask: 1 object, 255 void, 0 else


def cases(predictor: Predictor, dataset: Dataset) -> Iterator[Case]:
    """The images whose most probable class is of a group that the image holds."""
    dataset = with_masks(dataset)
    for index, prediction in enumerate(predictor.stream(dataset_items(dataset), multi_maps=False)):
        best = prediction.candidates()[0]
        group = GROUP_OF.get(best)
        truth = dataset.mask(index)
        if group is None or truth is None:
            continue
        label = dataset.classes.index(group)
        if dataset.samples[index].labels[label] == 1:
            yield prediction.only([best]), np.where(truth == 255, 255, truth == 1 + label).astype(np.uint8)


def as_fitted(images: Sequence[Case], cue: bool) -> Iterator[MaskedImage]:
    """The images for :func:`wildcat.evaluation.background_fit.fit_background`, with or without their background cue."""
    for prediction, truth in images:
        of_image = torch.from_numpy(prediction.background_cue) if cue else None
        yield MaskedImage(torch.from_numpy(prediction.class_maps), [0], truth, of_image)


def miou(images: Sequence[Case], background: Background, crf: bool) -> float:
    """Mean IoU of object and background, from 0 to 1."""
    confusion = ConfusionMatrix(2)
    for prediction, truth in images:
        placed = replace(prediction, settings=replace(prediction.settings, background=background))
        confusion.update(placed.mask(allowed=[0], crf=crf), truth, prediction.name)
    return mean_iou(confusion.counts)


def measure(specs: Sequence[str]) -> str:
    """The section of the ledger: the fitted background, and the scores with it on the scoring splits."""
    predictor = load("imagenet")
    fitted_on, scored_on = (
        {label_of(s): list(cases(predictor, open_dataset(s, default_splits(s)[part]))) for s in specs}
        for part in (0, 1)
    )
    masks = [*chain(*fitted_on.values())]
    without_cue, _ = fit_background("threshold", as_fitted(masks, cue=False), 1)
    best, score = fit_background("threshold", as_fitted(masks, cue=True), 1)
    counts = ", ".join(f"{len(images)} of {name}" for name, images in fitted_on.items())
    lines = ["| scored on | images | background | mIoU | mIoU with CRF |", "|---|---|---|---|---|"]
    for name, images in scored_on.items():
        for background in dict.fromkeys((Background(), without_cue, best)):
            plain, refined = (100 * miou(images, background, crf) for crf in (False, True))
            lines.append(f"| {name} | {len(images)} | {background} | {plain:.1f} | {refined:.1f} |")
    given = " ".join(f"{spec.partition(':')[0]}:DIR/{label_of(spec)}" for spec in specs)
    return (
        f"## Masks of the embedded ImageNet classifier\n\n"
        f"Fitted on training images ({counts}): background {best}, mIoU {100 * score:.1f} there. Mean IoU of object "
        f"and background, over images that hold their most probable class. Written by\n\n"
        f"    python -m experiments.imagenet_background --data {given}\n\n" + "\n".join(lines) + "\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", nargs="+", required=True, metavar="SPEC", help="datasets with VOC's classes and masks"
    )
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of imagenet_background.md")
    chosen = parser.parse_args(arguments)
    section = measure(chosen.data)
    (chosen.out / "imagenet_background.md").write_text(section, encoding="utf-8")
    print(section)


if __name__ == "__main__":
    main()
