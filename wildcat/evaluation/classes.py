"""A dataset in the classes of a model: other order, classes that it lacks, classes that the model lacks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from wildcat.data import Dataset
from wildcat.data.names import clean_name
from wildcat.data.registry import without_path
from wildcat.data.sample import Sample
from wildcat.errors import WildcatError, shorten

VOID = 255  # label of the pixels of a mask that are not scored


def with_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """Check that a dataset has exactly the model's classes, in the model's order.

    Raises:
        WildcatError: naming the first classes that differ.
    """
    if dataset.classes != tuple(classes):
        missing = sorted(set(classes) - set(dataset.classes))
        unknown = sorted(set(dataset.classes) - set(classes))
        message = f"{dataset.spec} has other classes than the model: "
        if not missing and not unknown:
            raise WildcatError(f"{message}the order differs")
        raise WildcatError(f"{message}the dataset lacks {shorten(missing)}, the model lacks {shorten(unknown)}")
    return dataset


def in_model_classes(dataset: Dataset, classes: Sequence[str]) -> tuple[Dataset, list[str]]:
    """A dataset with the model's classes in the model's order.

    Labels, boxes and masks of classes that the model lacks are not scored: such pixels are void, and where each image
    has exactly one class, images of these classes are left out. Of a class that the dataset lacks, no image is
    positive, so that it has no score.

    Args:
        dataset: the dataset, which is not changed.
        classes: the model's, in the order of its scores.

    Returns:
        The dataset, and sentences that name the classes that differ; the same dataset if it has these classes.

    Raises:
        WildcatError: if the model lacks most classes of the dataset, which is then one of other things, or no image is
            left.
    """
    classes = tuple(classes)
    dataset = _with_names_of(dataset, classes)
    if dataset.classes == classes:
        return dataset, []
    lacking = [name for name in classes if name not in dataset.classes]
    unknown = [name for name in dataset.classes if name not in classes]
    if 2 * len(unknown) > len(dataset.classes):
        with_classes(dataset, classes)  # raises
    warnings, data = [], without_path(dataset.spec)  # warnings are shared with the scores
    if lacking:
        warnings.append(f"{data} lacks {_classes(lacking)} of the model, which cannot be scored on it")
    if unknown:
        columns = [dataset.classes.index(name) for name in unknown]
        affected = int((dataset.labels[:, columns] == 1).any(axis=1).sum())
        end = f"they are not scored ({affected} of {len(dataset)} images hold one)"
        if not dataset.multi_label:
            kept = [i for i, sample in enumerate(dataset.samples) if (sample.labels[columns] != 1).all()]
            if not kept:
                raise WildcatError(
                    f"{dataset.spec} {dataset.split}: the model lacks the classes of all images: {shorten(unknown)}"
                )
            end = f"{affected} of {len(dataset)} images are of them and are not scored"
            dataset = dataset.subset(kept)
        warnings.append(f"the model lacks {_classes(unknown)} of {data}: {end}")
    return _InModelClasses(dataset, classes), warnings


def _with_names_of(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """A dataset whose classes are named as the model's that look the same, such as the other form of "é"."""
    alike = {clean_name(name): name for name in classes}
    names = tuple(name if name in classes else alike.get(clean_name(name), name) for name in dataset.classes)
    if names == dataset.classes or len(set(names)) < len(names):
        return dataset
    renamed = copy.copy(dataset)
    renamed.classes = names
    return renamed


def _classes(names: Sequence[str]) -> str:
    return f"{len(names)} class{'es' * (len(names) > 1)} ({shorten(names)})"


class _InModelClasses(Dataset):
    """A dataset whose labels, boxes and masks have the numbers of a model's classes."""

    def __init__(self, source: Dataset, classes: tuple[str, ...]) -> None:
        numbers = [classes.index(name) if name in classes else -1 for name in source.classes]
        self._source = source
        super().__init__(
            source.spec,
            source.split,
            classes,
            (_renumbered(sample, numbers, len(classes)) for sample in source.samples),
            multi_label=source.multi_label,
            upright=source.upright,
            zeros_unknown=source.zeros_unknown,
        )
        self._labels_of_masks = np.full(256, VOID, np.uint8)
        if self.has_masks:
            self._labels_of_masks[: 1 + len(numbers)] = [0, *(VOID if number < 0 else 1 + number for number in numbers)]

    @property
    def has_boxes(self) -> bool:
        return self._source.has_boxes

    @property
    def has_masks(self) -> bool:
        return self._source.has_masks and len(self.classes) < VOID  # a mask of a dataset has 8 bits

    def image(self, index: int, draft_size: int | None = None) -> Image.Image:
        return self._source.image(index, draft_size)

    def is_crop(self, index: int) -> bool:
        return self._source.is_crop(index)

    def has_mask(self, index: int) -> bool:
        return self.has_masks and self._source.has_mask(index)

    def mask(self, index: int) -> npt.NDArray[np.uint8] | None:
        mask = self._source.mask(index)
        return None if mask is None else self._labels_of_masks[mask]

    def subset(self, indices: Iterable[int]) -> _InModelClasses:
        chosen = list(indices)
        part = copy.copy(self)
        part.samples = [self.samples[index] for index in chosen]
        part._source = self._source.subset(chosen)
        return part


def _renumbered(sample: Sample, numbers: Sequence[int], count: int) -> Sample:
    """A sample whose labels and boxes have other class numbers; -1 is a class that is left out."""
    labels = np.full(count, -1, np.int8)
    for number, label in zip(numbers, sample.labels, strict=True):
        if number >= 0:
            labels[number] = label
    if sample.boxes is None or sample.box_classes is None or sample.box_difficult is None:
        return replace(sample, labels=labels)
    box_classes = np.array(numbers, np.int64)[sample.box_classes]
    kept = box_classes >= 0
    return replace(
        sample,
        labels=labels,
        boxes=sample.boxes[kept],
        box_classes=box_classes[kept],
        box_difficult=sample.box_difficult[kept],
        parts=None,  # they refer to all boxes
    )
