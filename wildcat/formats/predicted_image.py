"""One predicted image with its mask and regions, as writers of formats receive it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from wildcat.formats.names import safe_suffix
from wildcat.prediction.result import SCORE_DIGITS, Labels, Prediction, Threshold, class_labels

SMALLEST_REGION = 0.001  # of the image's area; smaller connected parts of a mask get no box if there are larger ones


@dataclass(frozen=True)
class Region:
    """A connected part of the mask of a class; pixels are connected to their eight neighbours.

    Attributes:
        label: index of the class.
        box: (x1, y1, x2, y2) in pixels of the image, pixel edges.
        pixels: (y2 - y1, x2 - x1) bool, the pixels of the region in its box.

    >>> Region(0, (10, 20, 12, 22), np.array([[True, True], [False, True]])).area
    3
    """

    label: int
    box: tuple[int, int, int, int]
    pixels: npt.NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(self.pixels.sum())


@dataclass(frozen=True)
class PredictedImage:
    """One predicted image, as writers of formats receive it.

    Attributes:
        name: path of the image's file relative to the folder of all images, with "/": "a/cat.jpg".
        stem: unique and safe name without suffix, for output files: "a/cat".
        prediction: the prediction for the image.
        threshold: probability from which a class counts as predicted, for all classes or by class.
        crf: refine masks with the dense CRF.
        files: files that are written for the image, by format, relative to the output folder: "mask" and "overlay".
    """

    name: str
    stem: str
    prediction: Prediction
    threshold: Threshold
    crf: bool
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """Suffix of the image's file: ".jpg"."""
        return safe_suffix(self.name)

    @property
    def source(self) -> Path | None:
        """The image's file, with an absolute path; None for an image that is no file."""
        name = self.prediction.name
        return None if "\0" in name or not os.path.isfile(name) else Path(os.path.abspath(name))  # noqa: PTH100, PTH113

    @cached_property
    def present(self) -> list[int]:
        """Indices of the predicted classes, the most probable first; may be empty."""
        return self.prediction.present(self.threshold)

    @cached_property
    def _ranks(self) -> Labels:
        """(H, W): 0 background, otherwise 1 + position in :attr:`present`."""
        part = replace(
            self.prediction,
            settings=replace(self.prediction.settings, classes=tuple(map(self.class_of, self.present))),
            class_maps=self.prediction.class_maps[self.present],
            probabilities=self.prediction.probabilities[self.present],
        )
        return part.mask(crf=self.crf, allowed=range(len(self.present)))

    def inside(self, label: int) -> npt.NDArray[np.bool_]:
        """The pixels of a predicted class, (H, W) bool."""
        inside: npt.NDArray[np.bool_] = self._ranks == 1 + self.present.index(label)
        return inside

    @cached_property
    def mask(self) -> Labels:
        """The mask (H, W): 0 background, otherwise 1 + class, of the predicted classes; uint16 above 254 classes."""
        return class_labels(self._ranks, self.present, len(self.prediction.settings.classes))

    @cached_property
    def regions(self) -> list[Region]:
        """The regions of the mask, class by class; regions smaller than 0.1 % of the image are omitted.

        A class that has no other region has its largest one, or the pixel of its point: every predicted class has one.
        """
        smallest = SMALLEST_REGION * self._ranks.size
        found: list[Region] = []
        for label in self.present:
            parts = list(_connected(self.inside(label), label))
            large = [region for region in parts if region.area >= smallest]
            found += large or [max(parts, key=lambda region: region.area, default=self._point_region(label))]
        return found

    def _point_region(self, label: int) -> Region:
        """The pixel of the point of a class."""
        width, height = self.prediction.size
        x, y = (
            int(min(max(value, 0), side - 1)) for value, side in zip(self.point_of(label), (width, height), strict=True)
        )
        return Region(label, (x, y, x + 1, y + 1), np.ones((1, 1), np.bool_))

    def class_of(self, label: int) -> str:
        """The name of a class."""
        return self.prediction.settings.classes[label]

    def score_of(self, label: int) -> float:
        """The probability of a class, 0 to 1, rounded as in all files."""
        return round(float(self.prediction.probabilities[label]), SCORE_DIGITS)

    def point_of(self, label: int) -> tuple[float, float]:
        """The point (x, y) of a class in pixels of the image."""
        x, y = self.prediction.point_array[label]
        return float(x), float(y)


def _connected(inside: npt.NDArray[np.bool_], label: int) -> Iterator[Region]:
    from scipy import ndimage

    numbers, _ = ndimage.label(inside, structure=np.ones((3, 3)))
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbers), start=1):
        box = (columns.start, rows.start, columns.stop, rows.stop)
        yield Region(label, box, numbers[rows, columns] == number)
