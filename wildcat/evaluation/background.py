"""Fitting the background of masks on images with true masks."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

from wildcat import metrics
from wildcat.data import Dataset
from wildcat.data.truth import truth_problem
from wildcat.errors import WildcatError
from wildcat.evaluation.scoring import open_scored
from wildcat.masks import Background, Mode, fit_background
from wildcat.prediction.items import dataset_items
from wildcat.prediction.predictor import Predictor


def fit_masks(
    predictor: Predictor, data: str, split: str, mode: Mode, on_bad_image: str = "error"
) -> tuple[Background, float]:
    """Choose the constant of the background that gives the highest mIoU on the true masks of a split.

    Masks hold the predicted classes. The constants of :data:`wildcat.masks.GRIDS` are tried.

    Args:
        predictor: from :func:`wildcat.load`.
        data: a dataset with masks, kind:path.
        split: the split, usually the one of the training.
        mode: how the background arises: "threshold", "power" or "class".
        on_bad_image: "error", "skip" or "partial", as for :func:`wildcat.evaluation.scoring.open_scored`.

    Returns:
        The background, and its mIoU on these masks in per cent.

    Raises:
        WildcatError: if the split has no masks, or the mode is "class" and the model has no background class.

    >>> import wildcat
    >>> fit_masks(wildcat.load("runs/mine"), "voc12:data", "seg-train", "threshold")  # doctest: +SKIP
    (Background(mode='threshold', constant=0.22), 45.1)
    """
    predictor.settings.check_background(mode)
    dataset = with_masks(open_scored(data, split, predictor.settings.classes, on_bad_image))
    if (problem := truth_problem(dataset, "segmentation")) is not None:
        raise WildcatError(problem)
    best, miou = fit_background(
        mode, predicted_and_true_masks(predictor, dataset), len(dataset.classes), metrics.mean_iou
    )
    return best, 100 * miou


def with_masks(dataset: Dataset) -> Dataset:
    """The part of a dataset that has true masks.

    Raises:
        WildcatError: if no image has one.
    """
    if not dataset.has_masks:
        raise WildcatError(f"{dataset.spec} {dataset.split} has no masks")
    # A synthetic image has no file, and its mask is made with it.
    return dataset.subset([i for i, s in enumerate(dataset.samples) if s.path is None or dataset.has_mask(i)])


def predicted_and_true_masks(
    predictor: Predictor, dataset: Dataset
) -> Iterator[tuple[torch.Tensor, list[int], npt.NDArray[np.uint8]]]:
    """Maps, predicted classes and true mask of each image, as :func:`wildcat.masks.fit_background` takes them."""
    bar = tqdm(total=len(dataset), desc=f"predicting {dataset.split}", unit=" images", disable=None)
    for index, prediction in enumerate(predictor.stream(dataset_items(dataset), multi_maps=False)):
        truth = dataset.mask(index)
        if truth is not None:
            yield prediction.mask_maps, prediction.candidates(), truth
        bar.update()
    bar.close()
