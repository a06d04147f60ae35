"""Fits the background of masks on images whose masks are known."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from wildcat import metrics
from wildcat.data import Dataset
from wildcat.errors import WildcatError
from wildcat.evaluation.scoring import open_scored
from wildcat.masks import Background, Mode, fit_background
from wildcat.prediction.items import dataset_items
from wildcat.prediction.predictor import Predictor


def fit_masks(
    predictor: Predictor, data: str, split: str, mode: Mode, on_bad_image: str = "error"
) -> tuple[Background, float]:
    """Choose the background's constant on the masks of a training split, with the classes predicted.

    Returns:
        The background, and its mIoU there in per cent.

    Raises:
        WildcatError: if the split has no masks, or the model no background class for the mode "class".
    """
    predictor.settings.check_background(mode)
    dataset = with_masks(open_scored(data, split, predictor.settings.classes, on_bad_image))
    best, miou = fit_background(mode, read_masks(predictor, dataset), len(dataset.classes), metrics.mean_iou)
    return best, 100 * miou


def with_masks(dataset: Dataset) -> Dataset:
    """The images of a dataset that have a mask.

    Raises:
        WildcatError: if none has.
    """
    if not dataset.has_masks:
        raise WildcatError(f"{dataset.spec} {dataset.split} has no masks")
    # An image without a file is drawn, and its mask with it.
    return dataset.subset([i for i, s in enumerate(dataset.samples) if s.path is None or s.mask_path is not None])


def read_masks(
    predictor: Predictor, dataset: Dataset
) -> Iterator[tuple[torch.Tensor, list[int], npt.NDArray[np.uint8]]]:
    """What :func:`wildcat.masks.fit_background` is given: maps, classes predicted and true mask of each image."""
    bar = tqdm(total=len(dataset), desc=f"reading {dataset.split}", unit=" images", disable=None)
    for index, prediction in enumerate(predictor.stream(dataset_items(dataset), multi_maps=False)):
        truth = dataset.mask(index)
        if truth is not None:
            yield prediction.mask_maps, prediction.candidates(), truth
        bar.update()
    bar.close()
