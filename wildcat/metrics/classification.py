"""Average precision in three named forms, and accuracies of data with one class per image.

Labels are 1 (the image holds the class), 0 (ignored: VOC's "only difficult objects") and -1 (it does not). Results are
proportions in [0, 1]; `scores`, `to_dict` and `table` give per cent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

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
from wildcat.metrics.scores import ClassClassification, ClassificationScores

Method = Literal["area", "11point", "step"]


@dataclass(frozen=True, eq=False)
class PrecisionRecallCurve:
    """One class's images from the highest score to the lowest, ignored ones left out; all arrays (n,).

    Counts come first and ratios are computed from them. Equal scores keep the order in which they were given.
    """

    thresholds: FloatArray
    """The scores, falling."""
    true_positives: IntArray
    """Positives among the first 1, 2, ... n images."""
    positives: int
    """All positives; more than the last of `true_positives` if images are missed because their points are wrong."""

    @classmethod
    def from_hits(cls, scores: FloatArray, hits: BoolArray, positives: int) -> "PrecisionRecallCurve":
        """Rank `hits` (n,) by `scores` (n,), highest first, equal scores in the order given."""
        order = np.argsort(-scores, kind="stable")
        return cls(scores[order], np.cumsum(hits[order], dtype=np.int64), positives)

    @property
    def precision(self) -> FloatArray:
        """Share of positives among the first 1, 2, ... n images."""
        return self.true_positives / np.arange(1, len(self.true_positives) + 1)

    @property
    def recall(self) -> FloatArray:
        """Share of all positives that are among the first 1, 2, ... n images; NaN if there are none."""
        if self.positives == 0:
            return np.full(len(self.true_positives), np.nan)
        return self.true_positives / self.positives

    @property
    def envelope(self) -> FloatArray:
        """The highest precision at this recall or a higher one: the monotone envelope of the curve."""
        return np.maximum.accumulate(self.precision[::-1])[::-1]

    def average_precision(self, method: Method = "area") -> float:
        """Average precision in [0, 1], NaN without positives; see `average_precision` for the three methods."""
        if method not in get_args(Method):
            raise ValueError(f"method must be one of {', '.join(get_args(Method))}, not {method!r}")
        if self.positives == 0:
            return float("nan")
        if method == "11point":
            # Recall >= k / 10 in whole numbers: 0.1 * 3 > 3 / 10 in floating point would miss the level.
            first = np.searchsorted(10 * self.true_positives, self.positives * np.arange(11))
            return float(np.append(self.envelope, 0.0)[first].sum() / 11)
        if method == "step":
            last_of_equals = np.append(self.thresholds[1:] != self.thresholds[:-1], True)
            gained = np.diff(self.true_positives[last_of_equals], prepend=0)
            return float((gained * self.precision[last_of_equals]).sum() / self.positives)
        gained = np.diff(self.true_positives, prepend=0)
        return float((gained * self.envelope).sum() / self.positives)


def precision_recall_curve(scores: Any, labels: Any) -> PrecisionRecallCurve:
    """Precision and recall over the ranking of one class.

    Args:
        scores: (N,) any finite numbers, higher = more certain.
        labels: (N,) 1, 0 (ignored) or -1.

    Raises:
        ValueError: shapes differ, a label is something else, or a score is not finite.

    >>> precision_recall_curve([0.9, 0.4, 0.6], [1, 1, -1]).recall.tolist()
    [0.5, 0.5, 1.0]
    """
    scores, labels = _check(to_numpy(scores), to_numpy(labels), None)
    if scores.ndim != 1:
        raise ValueError(f"a curve belongs to one class, so scores must be (N,), not {scores.shape}")
    return _curve(scores, labels)


def average_precision(scores: Any, labels: Any, method: Method = "area") -> Any:
    """Average precision of each class.

    * ``area``: area under the monotone envelope of the precision-recall curve, as PASCAL VOC from 2010 on.
    * ``11point``: mean of that envelope at recall 0, 0.1, ... 1, as VOC 2007. Recall 3 of 10 reaches level
      0.3 exactly, whatever 0.1 * 3 rounds to.
    * ``step``: sum of precision x gain in recall, without interpolation, as scikit-learn and torchmetrics.

    Equal scores: `area` and `11point` rank them in the order given (a stable sort); `step` takes them as one threshold,
    as those two libraries do, so that it does not depend on the order.

    Args:
        scores: (N,) or (N, C) finite numbers, higher = more certain; logits and probabilities give the same ranking.
        labels: same shape; 1, 0 (the image is ignored for this class) or -1.
        method: "area", "11point" or "step".

    Returns:
        A float for (N,), an array (C,) for (N, C); in [0, 1], NaN for a class without positives.

    Raises:
        ValueError: unknown method, shapes differ, a label is something else, or a score is not finite.

    >>> average_precision([0.9, 0.8, 0.7], [1, -1, 1])
    0.8333333333333333
    """
    scores, labels = _check(to_numpy(scores), to_numpy(labels), None)
    if scores.ndim == 1:
        return _curve(scores, labels).average_precision(method)
    return np.array([curve.average_precision(method) for curve in _curves(scores, labels)], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class ClassificationResult(PerClassResult):
    """Average precision of a multi-label dataset; arrays (C,) in [0, 1], NaN for a class without positives."""

    classes: tuple[str, ...]
    images: int
    ap_area: FloatArray
    ap_11point: FloatArray
    ap_step: FloatArray
    positives: IntArray
    """Images labelled 1."""
    ignored: IntArray
    """Images labelled 0."""

    @property
    def map_area(self) -> float:
        """Mean of `ap_area` over the classes with positives."""
        return mean_defined(self.ap_area)

    @property
    def map_11point(self) -> float:
        """Mean of `ap_11point` over the classes with positives."""
        return mean_defined(self.ap_11point)

    @property
    def map_step(self) -> float:
        """Mean of `ap_step` over the classes with positives."""
        return mean_defined(self.ap_step)

    @property
    def classes_without_positives(self) -> tuple[str, ...]:
        """Classes that no image holds; they are left out of the means."""
        return self._names_where(self.positives == 0)

    def scores(self) -> ClassificationScores:
        """The section "classification" of the results, in per cent."""
        return ClassificationScores(
            multi_label=True,
            map_area=100 * self.map_area,
            map_11point=100 * self.map_11point,
            map_step=100 * self.map_step,
            classes_without_positives=self.classes_without_positives,
            per_class=self._per_class(
                ClassClassification,
                ap_area=100 * self.ap_area,
                ap_11point=100 * self.ap_11point,
                ap_step=100 * self.ap_step,
                positives=self.positives,
                ignored=self.ignored,
            ),
        )

    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        return {
            "AP area": self.ap_area,
            "AP 11point": self.ap_11point,
            "AP step": self.ap_step,
            "positives": self.positives,
            "ignored": self.ignored,
        }

    def _totals(self) -> list[tuple[object, ...]]:
        counts = (self.positives.sum(), self.ignored.sum())
        return [("mean", self.map_area, self.map_11point, self.map_step, *counts)]

    def _notes(self) -> list[str]:
        notes = [f"average precision in per cent over {self.images} images"]
        if self.classes_without_positives:
            notes.append(f"no positives, left out of the mean: {', '.join(self.classes_without_positives)}")
        return notes


def classification_result(scores: Any, labels: Any, classes: Sequence[str]) -> ClassificationResult:
    """Average precision of all classes in its three forms.

    Args:
        scores: (N, C) finite numbers, higher = more certain.
        labels: (N, C); 1, 0 (the image is ignored for this class) or -1.
        classes: C different names.

    Raises:
        ValueError: shapes or names do not fit, a label is something else, or a score is not finite (class
            and row are named).

    >>> round(classification_result([[0.9], [0.4], [0.6]], [[1], [1], [-1]], ["cat"]).map_area, 3)
    0.833
    """
    scores, labels = _check_table(scores, labels, classes)
    curves = _curves(scores, labels)
    ap = {method: np.array([curve.average_precision(method) for curve in curves]) for method in get_args(Method)}
    return ClassificationResult(
        classes=tuple(classes),
        images=len(scores),
        ap_area=ap["area"],
        ap_11point=ap["11point"],
        ap_step=ap["step"],
        positives=np.count_nonzero(labels == 1, axis=0),
        ignored=np.count_nonzero(labels == 0, axis=0),
    )


@dataclass(frozen=True, eq=False)
class MultiClassResult(PerClassResult):
    """Accuracies of data with one class per image (MIT67, 15-Scene)."""

    classes: tuple[str, ...]
    confusion: IntArray
    """(C, C) images; rows are true classes, columns predicted ones."""

    @property
    def images(self) -> int:
        """Images scored."""
        return int(self.confusion.sum())

    @property
    def positives(self) -> IntArray:
        """(C,) images of each true class."""
        return np.asarray(self.confusion.sum(axis=1))

    @property
    def accuracy(self) -> float:
        """Share of images whose highest score is that of their class, in [0, 1]; NaN without images."""
        return float(np.trace(self.confusion) / self.images) if self.images else float("nan")

    @property
    def class_accuracy(self) -> FloatArray:
        """(C,) the same within the images of each true class; NaN for a class without images."""
        return np.where(self.positives > 0, np.diag(self.confusion) / np.maximum(self.positives, 1), np.nan)

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of `class_accuracy` over the classes with images."""
        return mean_defined(self.class_accuracy)

    @property
    def classes_without_positives(self) -> tuple[str, ...]:
        """Classes without images; they are left out of the mean."""
        return self._names_where(self.positives == 0)

    def scores(self) -> ClassificationScores:
        """The section "classification" of the results, in per cent."""
        return ClassificationScores(
            multi_label=False,
            accuracy=100 * self.accuracy,
            mean_class_accuracy=100 * self.mean_class_accuracy,
            classes_without_positives=self.classes_without_positives,
            per_class=self._per_class(
                ClassClassification, accuracy=100 * self.class_accuracy, positives=self.positives
            ),
        )

    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        return {"accuracy": self.class_accuracy, "images": self.positives}

    def _totals(self) -> list[tuple[object, ...]]:
        return [("mean over classes", self.mean_class_accuracy, ""), ("all images", self.accuracy, self.images)]

    def _notes(self) -> list[str]:
        missing = self.classes_without_positives
        return [f"no images, left out of the mean: {', '.join(missing)}"] if missing else []


def multi_class_result(scores: Any, labels: Any, classes: Sequence[str]) -> MultiClassResult:
    """Overall and per-class accuracy where each image has exactly one class.

    The prediction is the class with the highest score, the first of them if several are equal.

    Args:
        scores: (N, C) finite numbers.
        labels: (N, C); exactly one 1 in a row, the others -1.
        classes: C different names.

    Raises:
        ValueError: shapes or names do not fit, a row has not exactly one 1, or a score is not finite.

    >>> multi_class_result([[2.0, 1.0], [0.0, 3.0]], [[1, -1], [1, -1]], ["cat", "dog"]).accuracy
    0.5
    """
    scores, labels = _check_table(scores, labels, classes)
    unusual = np.flatnonzero(((labels == 1).sum(axis=1) != 1) | (labels == 0).any(axis=1))
    if unusual.size:
        row = int(unusual[0])
        raise ValueError(
            f"row {row} of the labels has {int((labels[row] == 1).sum())} classes labelled 1 and "
            f"{int((labels[row] == 0).sum())} labelled 0; accuracy needs exactly one 1 and otherwise -1"
        )
    count = len(classes)
    # argmax of an array without columns is an error even if it has no rows
    cells = labels.argmax(axis=1) * count + scores.argmax(axis=1) if count else np.zeros(0, dtype=np.int64)
    return MultiClassResult(tuple(classes), np.bincount(cells, minlength=count**2).reshape(count, count))


class ClassificationAccumulator:
    """Collects scores and labels batch by batch, and scores them at the end: average precision needs all of a ranking.

    Args:
        classes: C different names.
        multi_label: whether an image may have several classes (average precision) or has exactly one (accuracy).

    >>> accumulator = ClassificationAccumulator(["cat", "dog"])
    >>> accumulator.update([0.9, 0.2], [1, -1])
    >>> accumulator.update([[0.1, 0.8], [0.3, 0.4]], [[-1, 1], [1, -1]])
    >>> accumulator.result().ap_area.tolist()
    [1.0, 1.0]
    """

    def __init__(self, classes: Sequence[str], multi_label: bool = True) -> None:
        """Start with no images."""
        self.classes, self.multi_label = tuple(classes), multi_label
        self._scores: list[npt.NDArray[Any]] = []
        self._labels: list[npt.NDArray[Any]] = []

    def update(self, scores: Any, labels: Any) -> None:
        """Add one image or a batch.

        Args:
            scores: (C,) or (N, C) finite numbers, higher = more certain.
            labels: same shape; 1, 0 (ignored) or -1.

        Raises:
            ValueError: shapes differ or do not fit the classes. Nothing was added then.
        """
        scores, labels = np.atleast_2d(to_numpy(scores)), np.atleast_2d(to_numpy(labels))
        if scores.shape != labels.shape or scores.shape[1:] != (len(self.classes),):
            raise ValueError(
                f"scores and labels must be (C,) or (N, C) of {len(self.classes)} classes, "
                f"not {scores.shape} and {labels.shape}"
            )
        self._scores.append(scores)
        self._labels.append(labels)

    @property
    def scores(self) -> npt.NDArray[Any]:
        """(N, C) scores so far, in the order in which they were added."""
        return np.concatenate(self._scores or [np.empty((0, len(self.classes)))])

    @property
    def labels(self) -> npt.NDArray[Any]:
        """(N, C) labels so far."""
        return np.concatenate(self._labels or [np.empty((0, len(self.classes)), np.int8)])

    def result(self) -> ClassificationResult | MultiClassResult:
        """As :func:`classification_result`, or :func:`multi_class_result`, of all images so far."""
        score = classification_result if self.multi_label else multi_class_result
        return score(self.scores, self.labels, self.classes)


def _curve(scores: FloatArray, labels: IntArray) -> PrecisionRecallCurve:
    counted = labels != 0
    hits = labels[counted] == 1
    return PrecisionRecallCurve.from_hits(scores[counted], hits, int(np.count_nonzero(hits)))


def _curves(scores: FloatArray, labels: IntArray) -> list[PrecisionRecallCurve]:
    return [_curve(*columns) for columns in zip(scores.T, labels.T, strict=True)]


def _check_table(scores: Any, labels: Any, classes: Sequence[str]) -> tuple[FloatArray, IntArray]:
    scores, labels = to_numpy(scores), to_numpy(labels)
    if scores.ndim != 2:
        raise ValueError(f"scores must have shape (N, C), not {scores.shape}")
    return _check(scores, labels, check_classes(classes, scores.shape[1]))


def _check(scores: Any, labels: Any, classes: Sequence[str] | None) -> tuple[FloatArray, IntArray]:
    if scores.shape != labels.shape or scores.ndim not in (1, 2):
        raise ValueError(
            f"scores and labels must both have shape (N,) or both (N, C), not {scores.shape} and {labels.shape}"
        )
    if labels.dtype == bool:
        raise ValueError("labels must be 1, 0 (ignored) or -1; booleans would make every False an ignored image")
    known = np.isin(labels, (-1, 0, 1))
    if not known.all():
        place = np.argwhere(~known)[0].tolist()
        raise ValueError(f"labels must be 1, 0 (ignored) or -1, but at {place} stands {labels[tuple(place)]}")
    scores = to_float(scores)
    check_finite(scores, "score", classes)
    return scores, labels
