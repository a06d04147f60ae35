"""Pointwise localization (Oquab, Bottou, Laptev, Sivic, CVPR 2015): one point per image and class.

Points are ranked by class score; one is correct if it lies in a box of its class enlarged by 18 pixels on each side.
`DECISIONS` lists how this module treats cases that the source does not define; it is part of every result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wildcat.metrics._common import (
    BoolArray,
    FloatArray,
    IntArray,
    PerClassResult,
    check_classes,
    check_finite,
    mean_defined,
    to_float,
    to_numpy,
)
from wildcat.metrics.classification import PrecisionRecallCurve
from wildcat.metrics.scores import ClassPointing, PointingScores

TOLERANCE = 18.0  # pixels; Oquab et al. 2015

DECISIONS = (
    "points are ranked by the pooled class score of their image, equal scores in the order given",
    "average precision is the area under the monotone envelope (VOC 2010 and later)",
    "means are over the classes with positives",
    "a wrong point is a false positive, and its image remains a missed positive",
    "a class of which an image holds only difficult boxes is ignored for that image",
    "a point that misses every normal box but hits a difficult one is ignored, and its image with it, for that class",
    "COCO's iscrowd boxes count as difficult",
    "accuracy is the share of correct points among the images that hold the class and are not ignored",
)


def points_in_boxes(points: Any, boxes: Any, tolerance: float = 0.0) -> BoolArray:
    """Whether x1 - tolerance <= x <= x2 + tolerance, and the same for y.

    Args:
        points: (..., 2) x, y in pixels.
        boxes: (..., 4) x1, y1, x2, y2 in the same pixels; leading axes broadcast against those of `points`.
        tolerance: pixels >= 0 by which each side is moved outwards.

    Returns:
        Booleans of the broadcast leading shape: `points_in_boxes(points[:, None], boxes)` is every point x every box.

    Raises:
        ValueError: last axis is not 2 or 4, or the tolerance is negative or not a number.

    >>> points_in_boxes([[5, 5], [25, 5]], [0, 0, 10, 10]).tolist()
    [True, False]
    """
    points, boxes = to_float(points), to_float(boxes)
    if points.shape[-1:] != (2,) or boxes.shape[-1:] != (4,):
        raise ValueError(f"points must be (..., 2) and boxes (..., 4), not {points.shape} and {boxes.shape}")
    if not tolerance >= 0:
        raise ValueError(f"tolerance must be a number of pixels >= 0, not {tolerance}")
    inside = (boxes[..., :2] - tolerance <= points) & (points <= boxes[..., 2:] + tolerance)
    return np.asarray(inside.all(axis=-1))


@dataclass(frozen=True, eq=False)
class PointingResult(PerClassResult):
    """Pointwise localization of a dataset; per-class arrays (C,), proportions in [0, 1], NaN without positives."""

    classes: tuple[str, ...]
    tolerance: float
    """Pixels by which boxes were enlarged for everything but `ap_tolerance_0`."""
    ap: FloatArray
    ap_tolerance_0: FloatArray
    correct: IntArray
    """Images that hold the class and whose point is correct."""
    positives: IntArray
    """Images that hold the class and are not ignored."""
    ignored: IntArray
    """Images ignored for the class."""

    @property
    def map(self) -> float:
        """Mean of `ap` over the classes with positives."""
        return mean_defined(self.ap)

    @property
    def map_tolerance_0(self) -> float:
        """The same with boxes as they are."""
        return mean_defined(self.ap_tolerance_0)

    @property
    def class_accuracy(self) -> FloatArray:
        """(C,) `correct` / `positives`."""
        return np.where(self.positives > 0, self.correct / np.maximum(self.positives, 1), np.nan)

    @property
    def accuracy(self) -> float:
        """Mean of `class_accuracy` over the classes with positives."""
        return mean_defined(self.class_accuracy)

    @property
    def accuracy_pairs(self) -> float:
        """Share of correct points among all pairs of an image and a class it holds, without regard to the class."""
        pairs = self.positives.sum()
        return float(self.correct.sum() / pairs) if pairs else float("nan")

    @property
    def classes_without_positives(self) -> tuple[str, ...]:
        """Classes that no image holds; they are left out of the means."""
        return self._names_where(self.positives == 0)

    @property
    def decisions(self) -> tuple[str, ...]:
        """How cases are scored about which the source is silent, a sentence each; to be shown with the result."""
        return (f"boxes are enlarged by {self.tolerance:g} pixels on each side, edges included", *DECISIONS)

    def scores(self) -> PointingScores:
        """The section "pointing" of the results, in per cent."""
        return PointingScores(
            map=100 * self.map,
            map_tolerance_0=100 * self.map_tolerance_0,
            accuracy=100 * self.accuracy,
            accuracy_pairs=100 * self.accuracy_pairs,
            tolerance=float(self.tolerance),
            classes_without_positives=self.classes_without_positives,
            decisions=self.decisions,
            per_class=self._per_class(
                ClassPointing,
                ap=100 * self.ap,
                ap_tolerance_0=100 * self.ap_tolerance_0,
                accuracy=100 * self.class_accuracy,
                correct=self.correct,
                positives=self.positives,
                ignored=self.ignored,
            ),
        )

    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        return {
            f"AP {self.tolerance:g} px": self.ap,
            "AP 0 px": self.ap_tolerance_0,
            "accuracy": self.class_accuracy,
            "positives": self.positives,
            "ignored": self.ignored,
        }

    def _totals(self) -> list[tuple[object, ...]]:
        counts = (self.positives.sum(), self.ignored.sum())
        return [("mean", self.map, self.map_tolerance_0, self.accuracy, *counts)]

    def _notes(self) -> list[str]:
        notes = list(self.decisions)
        if self.classes_without_positives:
            notes.append(f"no positives, left out of the mean: {', '.join(self.classes_without_positives)}")
        return notes


def pointing_result(
    points: Any,
    scores: Any,
    boxes: Sequence[Any],
    box_classes: Sequence[Any],
    box_difficult: Sequence[Any],
    classes: Sequence[str],
    tolerance: float = TOLERANCE,
) -> PointingResult:
    """Score one point per image and class against the boxes of N images.

    Args:
        points: (N, C, 2) x, y in pixels of the original image; finite.
        scores: (N, C) the pooled class scores; finite.
        boxes: N arrays (B, 4) x1, y1, x2, y2 in the same pixels; B differs and may be 0.
        box_classes: N arrays (B,) of class numbers 0 ... C - 1.
        box_difficult: N arrays (B,) of booleans.
        classes: C different names.
        tolerance: pixels by which each box is enlarged on each side.

    Raises:
        ValueError: shapes, lengths, names or class numbers do not fit, a box is not x1 <= x2, y1 <= y2, or a number
            is not finite; the message names the image by its number.

    >>> points, scores, boxes = [[[5, 5]]], [[0.9]], [[[0, 0, 10, 10]]]
    >>> pointing_result(points, scores, boxes, [[0]], [[False]], ["cat"]).map
    1.0
    """
    truth = _Truth.check(points, scores, boxes, box_classes, box_difficult, classes)
    verdict = truth.judge(tolerance)
    return PointingResult(
        classes=tuple(classes),
        tolerance=float(tolerance),
        ap=verdict.average_precision(truth.scores),
        ap_tolerance_0=truth.judge(0.0).average_precision(truth.scores),
        correct=np.count_nonzero(verdict.correct, axis=0),
        positives=np.count_nonzero(verdict.positive, axis=0),
        ignored=np.count_nonzero(verdict.ignored, axis=0),
    )


def pointing_average_precision(
    points: Any,
    scores: Any,
    boxes: Sequence[Any],
    box_classes: Sequence[Any],
    box_difficult: Sequence[Any],
    tolerance: float = TOLERANCE,
) -> FloatArray:
    """Average precision (area) of the points of each class: (C,) in [0, 1], NaN for a class without positives.

    Arguments and errors as `pointing_result`.

    >>> points, scores, boxes = [[[5, 5]]], [[0.9]], [[[0, 0, 10, 10]]]
    >>> pointing_average_precision(points, scores, boxes, [[0]], [[False]]).tolist()
    [1.0]
    """
    truth = _Truth.check(points, scores, boxes, box_classes, box_difficult, None)
    return truth.judge(tolerance).average_precision(truth.scores)


def point_verdicts(
    points: Any,
    scores: Any,
    boxes: Sequence[Any],
    box_classes: Sequence[Any],
    box_difficult: Sequence[Any],
    tolerance: float = TOLERANCE,
) -> "PointVerdicts":
    """Whether the point of each image and class is correct; arguments and errors as `pointing_result`.

    >>> point_verdicts([[[5, 5]]], [[0.9]], [[[0, 0, 10, 10]]], [[0]], [[False]]).correct.tolist()
    [[True]]
    """
    return _Truth.check(points, scores, boxes, box_classes, box_difficult, None).judge(tolerance)


class PointingAccumulator:
    """Collects points, scores and boxes image by image, and scores them at the end.

    Args:
        classes: C different names.
        tolerance: pixels by which each side of a box is moved outwards.

    >>> accumulator = PointingAccumulator(["cat"], tolerance=0)
    >>> accumulator.update([[5, 5]], [0.9], boxes=[[0, 0, 9, 9]], box_classes=[0], box_difficult=[False])
    >>> accumulator.result().accuracy
    1.0
    """

    def __init__(self, classes: Sequence[str], tolerance: float = TOLERANCE) -> None:
        """Start with no images."""
        self.classes, self.tolerance = tuple(classes), tolerance
        self._points: list[FloatArray] = []
        self._scores: list[FloatArray] = []
        self._boxes: list[tuple[Any, Any, Any]] = []

    def update(self, points: Any, scores: Any, boxes: Any, box_classes: Any, box_difficult: Any) -> None:
        """Add one image.

        Args:
            points: (C, 2) x, y of the point of each class, in pixels of the image.
            scores: (C,) scores by which the points are ranked.
            boxes: (B, 4) x1, y1, x2, y2 of the image's true boxes; B may be 0.
            box_classes: (B,) index of the class of each.
            box_difficult: (B,) whether each is marked difficult.

        Raises:
            ValueError: points or scores do not fit the classes. Nothing was added then.
        """
        points, scores = to_float(points), to_float(scores)
        count = len(self.classes)
        if points.shape != (count, 2) or scores.shape != (count,):
            raise ValueError(
                f"points must be ({count}, 2) and scores ({count},), not {points.shape} and {scores.shape}"
            )
        self._points.append(points)
        self._scores.append(scores)
        self._boxes.append((boxes, box_classes, box_difficult))

    @property
    def points(self) -> FloatArray:
        """(N, C, 2) points so far, in the order in which they were added."""
        return np.stack(self._points) if self._points else np.empty((0, len(self.classes), 2))

    def result(self) -> PointingResult:
        """As :func:`pointing_result`, of all images so far."""
        scores = np.stack(self._scores) if self._scores else np.empty((0, len(self.classes)))
        boxes, box_classes, box_difficult = ([each[i] for each in self._boxes] for i in range(3))
        return pointing_result(self.points, scores, boxes, box_classes, box_difficult, self.classes, self.tolerance)


@dataclass(frozen=True, eq=False)
class PointVerdicts:
    """Whether each point is correct; all arrays are (N, C), and no pair is both positive and ignored."""

    positive: BoolArray
    """The image holds the class and counts."""
    correct: BoolArray
    """Positive, and the point is in a normal box."""
    ignored: BoolArray

    def average_precision(self, scores: FloatArray) -> FloatArray:
        """Average precision (C,) of the points ranked by scores (N, C), in [0, 1]; NaN without positives."""
        values = []
        columns = zip(scores.T, self.positive.T, self.correct.T, self.ignored.T, strict=True)
        for score, positive, correct, ignored in columns:
            # A wrong point counts as a false positive in the ranking, and its image still counts as a positive.
            curve = PrecisionRecallCurve.from_hits(score[~ignored], correct[~ignored], int(np.count_nonzero(positive)))
            values.append(curve.average_precision("area"))
        return np.array(values, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Truth:
    """Checked input, with the T boxes of all images in one array."""

    points: FloatArray  # (N, C, 2)
    scores: FloatArray  # (N, C)
    boxes: FloatArray  # (T, 4)
    image: IntArray  # (T,)
    label: IntArray  # (T,)
    difficult: BoolArray  # (T,)

    @classmethod
    def check(
        cls,
        points: Any,
        scores: Any,
        boxes: Sequence[Any],
        box_classes: Sequence[Any],
        box_difficult: Sequence[Any],
        classes: Sequence[str] | None,
    ) -> "_Truth":
        points, scores = to_float(points), to_float(scores)
        if scores.ndim != 2 or points.shape != (*scores.shape, 2):
            raise ValueError(f"points must be (N, C, 2) and scores (N, C), not {points.shape} and {scores.shape}")
        images, count = scores.shape
        names = check_classes(classes, count) if classes is not None else None
        check_finite(scores, "score", names)
        check_finite(points, "point", names)
        lengths = {"boxes": len(boxes), "box_classes": len(box_classes), "box_difficult": len(box_difficult)}
        for what, length in lengths.items():
            if length != images:
                raise ValueError(f"{what} has {length} entries for {images} images")
        all_boxes, labels, difficult = [np.zeros((0, 4))], [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=bool)]
        for i in range(images):
            box, label, hard = to_float(boxes[i]), to_numpy(box_classes[i]), to_numpy(box_difficult[i])
            box = box.reshape(0, 4) if box.size == 0 else box
            if box.shape != (len(box), 4) or label.shape != box.shape[:1] or hard.shape != box.shape[:1]:
                raise ValueError(
                    f"image {i} must have boxes (B, 4), classes (B,) and difficult (B,), "
                    f"not {box.shape}, {label.shape} and {hard.shape}"
                )
            if not (np.isfinite(box).all() and (box[:, :2] <= box[:, 2:]).all()):
                raise ValueError(f"image {i} has a box that is not x1 <= x2, y1 <= y2 in finite numbers")
            if not np.isin(label, np.arange(count)).all():
                raise ValueError(f"image {i} has a box of a class outside 0 to {count - 1}: {label.tolist()}")
            all_boxes.append(box)
            labels.append(label.astype(np.int64))
            difficult.append(hard.astype(bool))
        image = np.repeat(np.arange(images), np.array([len(label) for label in labels[1:]], dtype=np.int64))
        return cls(points, scores, np.concatenate(all_boxes), image, np.concatenate(labels), np.concatenate(difficult))

    def judge(self, tolerance: float) -> PointVerdicts:
        inside = points_in_boxes(self.points[self.image, self.label], self.boxes, tolerance)
        present = self._any(~self.difficult)
        in_normal = self._any(~self.difficult & inside)
        in_difficult = self._any(self.difficult & inside)
        ignored = (self._any(self.difficult) & ~present) | (in_difficult & ~in_normal)
        return PointVerdicts(positive=present & ~ignored, correct=in_normal, ignored=ignored)

    def _any(self, chosen: BoolArray) -> BoolArray:
        """(N, C): whether any of the `chosen` (T,) boxes belongs to the image and class."""
        pairs = np.zeros(self.scores.shape, dtype=bool)
        pairs[self.image[chosen], self.label[chosen]] = True
        return pairs
