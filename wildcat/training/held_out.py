"""Scores what a training held out, at its end."""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from wildcat import metrics
from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.data.registry import default_splits, open_dataset
from wildcat.errors import WildcatError
from wildcat.evaluation.classes import in_model_classes
from wildcat.metrics.bootstrap import bootstrap_interval
from wildcat.prediction.items import dataset_items
from wildcat.prediction.loading import load
from wildcat.prediction.result import Prediction
from wildcat.runs.held_out import HeldOutScore, save_held_out

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class HeldOutImages:
    """The images that are scored at the end of a training.

    Attributes:
        images: at most ``held_out_images`` of them, chosen at random and always the same.
        available: how many images their split has.
        work: of scoring one image, in units of an image at the training's size.
    """

    images: Dataset
    available: int
    work: float


def open_held_out(config: TrainConfig, classes: tuple[str, ...]) -> HeldOutImages | None:
    """Open the images that the training holds out: those that ``wildcat evaluate`` scores, or some of them.

    Args:
        config: the settings.
        classes: of the model.

    Returns:
        The images; None if nothing is held out, or it cannot be opened, which is logged.
    """
    if config.held_out_images == 0:
        return None
    try:
        train_split, split = default_splits(config.data)
        used = config.train_split or train_split
        if used in (split, "all"):
            return None
        dataset, _ = in_model_classes(open_dataset(config.data, split), classes)
    except WildcatError as error:
        logger.info("nothing will be scored after the training: %s", error)
        return None
    if not len(dataset) or not (dataset.labels == 1).any():
        return None
    order = np.random.default_rng(0).permutation(len(dataset))[: config.held_out_images]
    views = 2 if config.mirror else 1
    work = views * sum((size / config.image_size) ** 2 for size in config.score_sizes)
    return HeldOutImages(dataset.subset(sorted(order.tolist())), len(dataset), work)


def score_held_out(
    folder: Path, held_out: HeldOutImages, device: torch.device, after_image: Callable[[], None] = lambda: None
) -> HeldOutScore | None:
    """Score images with a finished run as ``wildcat evaluate`` does, and keep the score in its directory.

    Args:
        folder: of the run.
        held_out: the images; those that cannot be read are left out.
        device: on which the network runs.
        after_image: called after each image.

    Returns:
        The score; None where it is not defined.

    Raises:
        WildcatError: if a file cannot be read or written.
    """
    part = held_out.images
    predictions = load(folder, device=device).stream(
        dataset_items(part), on_error="yield", multi_maps=False, maps=False
    )
    rows, read = [], []
    for index, prediction in enumerate(predictions):
        if isinstance(prediction, Prediction):
            rows.append(prediction.probabilities)
            read.append(index)
        after_image()
    return save_score(folder, held_out, part.subset(read), np.stack(rows)) if rows else None


def save_score(
    folder: Path, held_out: HeldOutImages, part: Dataset, probabilities: npt.NDArray[np.float32]
) -> HeldOutScore | None:
    """Score probabilities of held-out images, and keep the score in the directory of a run.

    Args:
        folder: of the run.
        held_out: where the images come from.
        part: the images that were read.
        probabilities: (N, C) of these.

    Returns:
        The score; None where it is not defined.

    Raises:
        WildcatError: if the file cannot be written.
    """
    labels = part.labels
    result = metrics.classification_result if part.multi_label else metrics.multi_class_result

    def score(indices: npt.NDArray[np.int64]) -> float:
        found = result(probabilities[indices], labels[indices], part.classes)
        return 100 * (found.map_area if isinstance(found, metrics.ClassificationResult) else found.accuracy)

    value = score(np.arange(len(part)))
    if math.isnan(value):
        return None
    low, high = bootstrap_interval(score, len(part))
    metric = "mAP" if part.multi_label else "accuracy"
    scored = HeldOutScore(metric, value, low, high, len(part), held_out.available, part.split)
    save_held_out(folder, scored)
    return scored
