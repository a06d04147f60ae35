"""Checks boxes and masks against the images that they belong to, before a model is scored with them."""

from __future__ import annotations

import numpy as np

from wildcat.data.checks import map_in_threads, size_difference
from wildcat.data.images import image_size
from wildcat.data.sample import Dataset
from wildcat.errors import WildcatError, shorten


def truth_problem(dataset: Dataset, task: str, *, progress: bool = False) -> str | None:
    """What prevents the scoring of a task on a dataset, in one sentence that names images; None if nothing does.

    Images must have the size that their annotations say, and masks that of their images. Only headers of images are
    read, but masks are decoded.

    Args:
        dataset: with readable images.
        task: "pointing" or "segmentation"; nothing is checked for others.
        progress: show a bar.
    """
    if task not in ("pointing", "segmentation"):
        return None

    def check(index: int) -> str | None:
        try:
            return _size_problem(dataset, index) or (_mask_problem(dataset, index) if task == "segmentation" else None)
        except WildcatError as error:
            return str(error)

    found = map_in_threads(check, range(len(dataset)), f"checking {task}", progress)
    wrong = [
        f"{sample.name} ({problem})"
        for sample, problem in zip(dataset.samples, found, strict=True)
        if problem is not None
    ]
    if not wrong:
        return None
    what = "masks" if task == "segmentation" else "boxes"
    return (
        f"{dataset.spec} {dataset.split}: {what} of {len(wrong)} of {len(dataset)} images do not fit the images: "
        f"{shorten(wrong)}"
    )


def _actual_size(dataset: Dataset, index: int) -> tuple[int, int] | None:
    path = dataset.samples[index].path
    return None if path is None else image_size(path, upright=dataset.upright)


def _size_problem(dataset: Dataset, index: int) -> str | None:
    """Why the boxes of an image do not fit it."""
    if dataset.samples[index].stated_size is not None:
        return size_difference(dataset, index)
    boxes = dataset.samples[index].boxes
    if dataset.is_crop(index) or boxes is None or not len(boxes):
        return None
    actual = _actual_size(dataset, index)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    if actual is not None and ((centres < 0) | (centres > np.array(actual))).any():
        return f"a box lies outside the image of {actual[0]} x {actual[1]}"
    return None


def _mask_problem(dataset: Dataset, index: int) -> str | None:
    mask = dataset.mask(index)
    actual = None if mask is None else _actual_size(dataset, index)
    if mask is None or actual is None or mask.shape == actual[::-1]:
        return None
    return f"a mask of {mask.shape[1]} x {mask.shape[0]}, but the image is {actual[0]} x {actual[1]}"
