"""Average precision in three named forms, and accuracies of multi-class data.

Labels are 1 (holds the class), 0 (ignored: VOC's "only difficult objects") and -1 (does not). Everything is in [0, 1];
`to_dict` and `table` turn it into per cent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from wildcat.metrics._common import (
    BoolArray,
    FloatArray,
    IntArray,
    check_classes,
    check_finite,
    format_table,
    mean_defined,
    percent,
    to_float,
    to_numpy,
)

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
    """Positives to be found: more than the last of `true_positives` where a wrong point leaves its image missed."""

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
        """Share of all positives found among the first 1, 2, ... n images; NaN if there are none."""
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
    """
    scores, labels = _check(to_numpy(scores), to_numpy(labels), None)
    if scores.ndim != 1:
        raise ValueError(f"a curve is drawn for one class, scores (N,), but scores have shape {scores.shape}")
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
        scores: (N,) or (N, C) finite numbers, higher = more certain; logits and probabilities rank alike.
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
class ClassificationResult:
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
        """Classes that no image holds, left out of the means."""
        return tuple(name for name, count in zip(self.classes, self.positives, strict=True) if count == 0)

    def to_dict(self) -> dict[str, Any]:
        """The part "classification" of results.json, in per cent."""
        per_class = {
            name: {
                "area": percent(self.ap_area[c]),
                "11point": percent(self.ap_11point[c]),
                "step": percent(self.ap_step[c]),
                "positives": int(self.positives[c]),
                "ignored": int(self.ignored[c]),
            }
            for c, name in enumerate(self.classes)
        }
        return {
            "map_area": percent(self.map_area),
            "map_11point": percent(self.map_11point),
            "map_step": percent(self.map_step),
            "classes_without_positives": list(self.classes_without_positives),
            "per_class": per_class,
        }

    def table(self) -> str:
        """One line a class and the mean, in per cent."""
        columns = (self.classes, self.ap_area, self.ap_11point, self.ap_step, self.positives, self.ignored)
        rows: list[Sequence[object]] = list(zip(*columns, strict=True))
        rows.append(("mean", self.map_area, self.map_11point, self.map_step, self.positives.sum(), self.ignored.sum()))
        notes = [f"average precision in per cent over {self.images} images"]
        if self.classes_without_positives:
            notes.append(f"no positives, left out of the mean: {', '.join(self.classes_without_positives)}")
        return format_table(("class", "AP area", "AP 11point", "AP step", "positives", "ignored"), rows, notes)


def classification_result(scores: Any, labels: Any, classes: Sequence[str]) -> ClassificationResult:
    """Average precision of all classes in its three forms.

    Args:
        scores: (N, C) finite numbers, higher = more certain.
        labels: (N, C); 1, 0 (the image is ignored for this class) or -1.
        classes: C different names.

    Raises:
        ValueError: shapes or names do not fit, a label is something else, or a score is not finite (class
            and row are named).
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
class MultiClassResult:
    """Accuracies of data with one class an image (MIT67, 15-Scene)."""

    classes: tuple[str, ...]
    confusion: IntArray
    """(C, C) images; rows are true classes, columns predicted ones."""

    @property
    def images(self) -> int:
        """Images scored."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of images whose highest score is that of their class, in [0, 1]; NaN without images."""
        return float(np.trace(self.confusion) / self.images) if self.images else float("nan")

    @property
    def class_accuracy(self) -> FloatArray:
        """(C,) the same within the images of each true class; NaN for a class without images."""
        totals = self.confusion.sum(axis=1)
        return np.where(totals > 0, np.diag(self.confusion) / np.maximum(totals, 1), np.nan)

    @property
    def mean_class_accuracy(self) -> float:
        """Mean of `class_accuracy` over the classes with images."""
        return mean_defined(self.class_accuracy)

    @property
    def classes_without_positives(self) -> tuple[str, ...]:
        """Classes without images, left out of the mean."""
        return tuple(name for name, count in zip(self.classes, self.confusion.sum(axis=1), strict=True) if count == 0)

    def to_dict(self) -> dict[str, Any]:
        """The part "classification" of results.json for one class an image, in per cent."""
        totals = self.confusion.sum(axis=1)
        per_class = {
            name: {"accuracy": percent(self.class_accuracy[c]), "positives": int(totals[c])}
            for c, name in enumerate(self.classes)
        }
        return {
            "accuracy": percent(self.accuracy),
            "mean_class_accuracy": percent(self.mean_class_accuracy),
            "classes_without_positives": list(self.classes_without_positives),
            "per_class": per_class,
        }

    def table(self) -> str:
        """One line a class, the mean over classes, and the accuracy over all images, in per cent."""
        totals = self.confusion.sum(axis=1)
        rows: list[Sequence[object]] = list(zip(self.classes, self.class_accuracy, totals, strict=True))
        rows.append(("mean over classes", self.mean_class_accuracy, ""))
        rows.append(("all images", self.accuracy, self.images))
        notes = []
        if self.classes_without_positives:
            notes.append(f"no images, left out of the mean: {', '.join(self.classes_without_positives)}")
        return format_table(("class", "accuracy", "images"), rows, notes)


def multi_class_result(scores: Any, labels: Any, classes: Sequence[str]) -> MultiClassResult:
    """Overall and per-class accuracy where each image has exactly one class.

    The prediction is the class with the highest score, the first of them if several are equal.

    Args:
        scores: (N, C) finite numbers.
        labels: (N, C); exactly one 1 in a row, the others -1.
        classes: C different names.

    Raises:
        ValueError: shapes or names do not fit, a row has not exactly one 1, or a score is not finite.
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
