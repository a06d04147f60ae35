"""Whether the M maps of a class show different things: their correlation, how many are used, and where they point.

A map points at its highest cell. One without a value above 0 is evidence for its class nowhere, so it points at
nothing. The measures are of pairs of an image and a class that it holds.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wildcat.metrics._common import BoolArray, FloatArray, IntArray, mean_defined, to_float, to_numpy
from wildcat.metrics.pointing import points_in_boxes

APART = 2  # cells between two peaks, in rows or columns, from which they are at different places


@dataclass(frozen=True, eq=False)
class SpecializationResult:
    """How much the maps of the classes specialize; shares are proportions in [0, 1], NaN where nothing is counted."""

    classes: tuple[str, ...]
    correlation: FloatArray
    """(C,) mean correlation over the cells of two maps of the class, over pairs of maps and images; in [-1, 1]."""
    maps_used: FloatArray
    """(C,) effective number of maps in use, 1 to M: exp of the entropy of how often each map has the highest peak."""
    apart: IntArray
    """(C,) images in which two maps point at different places of one object: :data:`APART` cells or more apart."""
    positives: IntArray
    """(C,) images that hold an object of the class that is not difficult."""
    on_parts: IntArray
    """(C,) images in which two maps point at parts of different kinds of one object."""
    with_parts: IntArray
    """(C,) images with an object that has parts of two kinds annotated."""

    @property
    def mean_correlation(self) -> float:
        """Mean of `correlation` over the classes with images."""
        return mean_defined(self.correlation)

    @property
    def mean_maps_used(self) -> float:
        """Mean of `maps_used` over the classes with images."""
        return mean_defined(self.maps_used)

    @property
    def share_apart(self) -> float:
        """Share of the pairs of an image and a class in which two maps point at different places of one object."""
        return _share(self.apart.sum(), self.positives.sum())

    @property
    def share_on_parts(self) -> float:
        """Share of the images with annotated parts in which two maps point at different kinds of parts."""
        return _share(self.on_parts.sum(), self.with_parts.sum())


def _share(count: int, total: int) -> float:
    return float(count / total) if total else float("nan")


class SpecializationAccumulator:
    """Collects the maps of images, one after the other.

    Args:
        classes: C names.

    Two maps of one class, with peaks in the left and in the right half of the box of a cat:

    >>> accumulator = SpecializationAccumulator(["cat"])
    >>> maps = [[[[9, 0, 0, 0]], [[0, 0, 0, 9]]]]  # (C, M, h, w)
    >>> accumulator.update(maps, (40, 10), boxes=[[0, 0, 40, 10]], box_classes=[0], box_difficult=[False])
    >>> result = accumulator.result()
    >>> result.share_apart, round(result.mean_correlation, 3)
    (1.0, -0.333)
    """

    def __init__(self, classes: Sequence[str]) -> None:
        """Start with no images."""
        self.classes = tuple(classes)
        self._correlations: list[list[float]] = [[] for _ in self.classes]
        self._strongest: list[list[int]] = [[] for _ in self.classes]
        self._counts = np.zeros((4, len(self.classes)), np.int64)  # apart, positives, on parts, with parts
        self._num_maps = 0

    def update(
        self,
        multi_maps: Any,
        size: tuple[int, int],
        boxes: Any,
        box_classes: Any,
        box_difficult: Any,
        part_boxes: Any = (),
        part_kinds: Sequence[str] = (),
        part_objects: Any = (),
    ) -> None:
        """Add one image.

        Args:
            multi_maps: (C, M, h, w), finite.
            size: (width, height) of the image, in whose pixels the boxes are.
            boxes: (B, 4) x1, y1, x2, y2 of its true boxes; B may be 0.
            box_classes: (B,) index of the class of each.
            box_difficult: (B,) whether each is marked difficult.
            part_boxes: (P, 4) boxes of parts.
            part_kinds: P names of kinds, "head", "hand", ...
            part_objects: (P,) index of the box of the object that each is a part of.

        Raises:
            ValueError: maps that do not fit the classes.
        """
        maps = to_float(multi_maps)
        if maps.ndim != 4 or maps.shape[0] != len(self.classes) or maps.shape[1] < 1:
            raise ValueError(f"multi_maps must be ({len(self.classes)}, M, h, w); got shape {maps.shape}")
        self._num_maps = max(self._num_maps, maps.shape[1])
        boxes = to_float(boxes).reshape(-1, 4)
        labels, difficult = to_numpy(box_classes).astype(np.int64), to_numpy(box_difficult).astype(bool)
        parts = to_float(part_boxes).reshape(-1, 4)
        kinds, owners = np.array(part_kinds, dtype=object), to_numpy(part_objects).astype(np.int64)
        for c in np.unique(labels[~difficult]):
            peaks = _Peaks(maps[c], size)
            self._correlations[c].append(mean_correlation(maps[c]))
            self._strongest[c].append(peaks.strongest)
            own = np.flatnonzero((labels == c) & ~difficult)
            annotated = [(parts[owners == i], kinds[owners == i]) for i in own if len(set(kinds[owners == i])) > 1]
            self._counts[:, c] += (
                any(peaks.apart_in(boxes[i]) for i in own),
                1,
                any(peaks.on_two_kinds(*each) for each in annotated),
                bool(annotated),
            )

    def result(self) -> SpecializationResult:
        """The measures of all images so far."""
        apart, positives, on_parts, with_parts = self._counts
        return SpecializationResult(
            classes=self.classes,
            correlation=np.array([np.nanmean(r) if not np.isnan(r).all() else np.nan for r in self._correlations]),
            maps_used=np.array([effective_number(each, self._num_maps) for each in self._strongest]),
            apart=apart,
            positives=positives,
            on_parts=on_parts,
            with_parts=with_parts,
        )


def mean_correlation(maps: Any) -> float:
    """Mean correlation over the cells of two of M maps (M, h, w), over all pairs; a constant map correlates with none.

    NaN for a single map.

    >>> round(mean_correlation([[[0, 1]], [[0, 2]], [[3, 0]]]), 4)  # of 1, -1 and -1
    -0.3333
    """
    flat = to_float(maps).reshape(len(maps), -1)
    if len(flat) < 2:
        return float("nan")
    flat = flat - flat.mean(axis=1, keepdims=True)
    norms = np.sqrt((flat**2).sum(axis=1, keepdims=True))
    flat = flat / np.where(norms > 0, norms, 1)
    return float((flat @ flat.T)[np.triu_indices(len(flat), 1)].mean())


def effective_number(chosen: Sequence[int], total: int) -> float:
    """Exp of the entropy of how often each of ``total`` things was chosen: 1 if always the same; NaN for no choice.

    >>> effective_number([0, 1, 0, 1], total=4), effective_number([3, 3], total=4)
    (2.0, 1.0)
    """
    if not len(chosen):
        return float("nan")
    shares = np.bincount(np.asarray(chosen, np.int64), minlength=total) / len(chosen)
    used = shares[shares > 0]
    return float(np.exp(-(used * np.log(used)).sum()))


class _Peaks:
    """The highest cells of the M maps (M, h, w) of a class in an image of a (width, height)."""

    def __init__(self, maps: FloatArray, size: tuple[int, int]) -> None:
        count, height, width = maps.shape
        flat = maps.reshape(count, -1)
        self.strongest = int(flat.max(axis=1).argmax())
        self.points_somewhere: BoolArray = flat.max(axis=1) > 0
        self.cells: IntArray = np.stack(np.unravel_index(flat.argmax(axis=1), (height, width)), axis=1)  # row, column
        self.cell_size = np.array([size[0] / width, size[1] / height])
        self.places: FloatArray = (self.cells[:, ::-1] + 0.5) * self.cell_size  # (M, 2): x, y

    def apart_in(self, box: FloatArray) -> bool:
        """Whether two maps point at different places in a box."""
        inside = self.cells[points_in_boxes(self.places, box) & self.points_somewhere]
        distance = np.abs(inside[:, None] - inside[None]).max(axis=2, initial=0)  # in cells
        return bool((distance >= APART).any())

    def on_two_kinds(self, boxes: FloatArray, kinds: Any) -> bool:
        """Whether two maps point at parts of different kinds, each at no part of the other's kind.

        A part may be smaller than a cell, so its box is enlarged by half a cell on each side.
        """
        margin = np.concatenate([-self.cell_size, self.cell_size]) / 2
        inside = points_in_boxes(self.places[:, None], boxes + margin) & self.points_somewhere[:, None]  # (M, P)
        on = {kind: inside[:, kinds == kind].any(axis=1) for kind in set(kinds)}  # (M,) each
        return any((on[a] & ~on[b]).any() and (on[b] & ~on[a]).any() for a, b in itertools.combinations(on, 2))
