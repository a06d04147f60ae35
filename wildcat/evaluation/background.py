"""Fitting the background of masks on images with true masks."""

from collections.abc import Iterator

import torch
from tqdm import tqdm

from wildcat.data import Dataset
from wildcat.data.truth import truth_problem
from wildcat.errors import WildcatError
from wildcat.evaluation.background_fit import MaskedImage, fit_background
from wildcat.evaluation.scoring import open_scored
from wildcat.masks import Background, Mode
from wildcat.prediction.items import dataset_items
from wildcat.prediction.predictor import Predictor


def fit_masks(
    predictor: Predictor, data: str, split: str, mode: Mode, on_bad_image: str = "error", *, cue: bool = True
) -> tuple[Background, float]:
    """Choose the constants of the background, the cue's exponent among them, on the true masks of a split.

    Masks hold the predicted classes. :func:`wildcat.evaluation.background_fit.fit_background` says how they are chosen.

    Args:
        predictor: from :func:`wildcat.load`.
        data: a dataset with masks, kind:path.
        split: the split, usually the one of the training.
        mode: how the background arises: "threshold", "power" or "class".
        on_bad_image: "error", "skip" or "partial", as for :func:`wildcat.evaluation.scoring.open_scored`.
        cue: fit the exponent of the background cue too; otherwise masks are made without it, as in the paper.

    Returns:
        The background, and its mIoU on these masks in per cent.

    Raises:
        WildcatError: if the split has no masks, or the mode is "class" and the model has no background class.

    >>> import wildcat
    >>> fit_masks(wildcat.load("runs/mine"), "voc12:data", "seg-train", "threshold")  # doctest: +SKIP
    (Background(mode='threshold', constant=0.06, cue_exponent=0.75), 45.1)
    """
    predictor.settings.check_background(mode)
    dataset = with_masks(open_scored(data, split, predictor.settings.classes, on_bad_image))
    if (problem := truth_problem(dataset, "segmentation")) is not None:
        raise WildcatError(problem)
    best, miou = fit_background(mode, masked_images(predictor, dataset, cue), len(dataset.classes))
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


def masked_images(predictor: Predictor, dataset: Dataset, cue: bool = True) -> Iterator[MaskedImage]:
    """Maps, predicted classes, true mask and, if asked for, background cue of each image that has a true mask."""
    bar = tqdm(total=len(dataset), desc=f"predicting {dataset.split}", unit=" images", disable=None)
    for index, prediction in enumerate(predictor.stream(dataset_items(dataset), multi_maps=False)):
        truth = dataset.mask(index)
        if truth is not None:
            of_image = torch.from_numpy(prediction.background_cue) if cue else None
            yield MaskedImage(prediction.mask_maps, prediction.candidates(), truth, of_image)
        bar.update()
    bar.close()
