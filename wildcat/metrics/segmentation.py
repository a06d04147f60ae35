"""Intersection over union from one confusion matrix over the whole dataset (never a mean over images)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from wildcat.errors import WildcatError
from wildcat.metrics._common import FloatArray, IntArray, PerClassResult, check_classes, mean_defined, to_numpy
from wildcat.metrics.bootstrap import bootstrap_interval
from wildcat.metrics.scores import ClassSegmentation, SegmentationScores


class ConfusionMatrix:
    """Pixels of each true class (row) that were given each predicted class (column), added up mask by mask.

    Args:
        num_classes: K, background included; label values are 0 ... K - 1.
        void: the value of ground-truth pixels that are not scored; outside 0 ... K - 1.

    Attributes:
        counts: (K, K) int64.

    >>> confusion = ConfusionMatrix(2)
    >>> confusion.update([[0, 1], [1, 1]], [[0, 1], [0, 255]])
    >>> confusion.counts.tolist()
    [[1, 1], [0, 1]]
    """

    def __init__(self, num_classes: int, void: int = 255) -> None:
        """Start with no pixels."""
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, not {num_classes}")
        if 0 <= void < num_classes:
            raise ValueError(f"void must lie outside the labels 0 to {num_classes - 1}, not {void}")
        self.num_classes = num_classes
        self.void = void
        self.counts: IntArray = np.zeros((num_classes, num_classes), dtype=np.int64)
        # Of each mask, the labels in it, and their pixels of intersection and union: a few numbers
        self._masks: list[tuple[IntArray, IntArray, IntArray]] = []

    def update(self, prediction: Any, truth: Any, name: str = "") -> None:
        """Add one mask or a batch of masks.

        Args:
            prediction: integers of any shape, usually (H, W); 0 ... K - 1 wherever `truth` is not void.
            truth: integers of the same shape; 0 ... K - 1 or void.
            name: the image, for error messages.

        Raises:
            ValueError: shapes differ, values are not integers, or a value is not a label. Nothing was added then.
        """
        prediction, truth = to_numpy(prediction), to_numpy(truth)
        where = f" of {name}" if name else ""
        if prediction.shape != truth.shape:
            raise ValueError(
                f"the predicted mask{where} has shape {prediction.shape} and the ground truth {truth.shape}; "
                "predict at the size of the ground truth"
            )
        for what, mask in (("predicted", prediction), ("ground-truth", truth)):
            if not np.issubdtype(mask.dtype, np.integer):
                raise ValueError(f"the {what} mask{where} must hold integer labels, not {mask.dtype}")
        scored = truth != self.void
        true, predicted = truth[scored], prediction[scored]
        self._check_labels(predicted, f"predicted mask{where}", "")
        self._check_labels(true, f"ground-truth mask{where}", f" or {self.void} (void)")
        cells = true.astype(np.int64) * self.num_classes + predicted.astype(np.int64)
        counts = np.bincount(cells, minlength=self.counts.size).reshape(self.counts.shape)
        self.counts += counts
        intersection, union = _overlap(counts)
        labels = np.flatnonzero(union)
        self._masks.append((labels, intersection[labels], union[labels]))

    def miou_interval(self) -> tuple[float, float]:
        """Bounds of the 95 % interval of the mean IoU, in [0, 1]: how much it varies with the choice of the masks.

        Each call of :meth:`update` counts as one image of the bootstrap
        (:func:`wildcat.metrics.bootstrap.bootstrap_interval`). NaN without masks.

        >>> confusion = ConfusionMatrix(2)
        >>> for predicted in ([0, 1], [1, 1], [0, 0], [0, 1]):
        ...     confusion.update(predicted, [0, 1])
        >>> low, high = confusion.miou_interval()
        >>> low < mean_iou(confusion) < high
        True
        """
        if not self._masks:
            return math.nan, math.nan
        from scipy.sparse import coo_matrix  # here, because few who import this module need it

        rows = np.repeat(np.arange(len(self._masks)), [len(labels) for labels, _, _ in self._masks])
        columns, both, either = (np.concatenate(parts) for parts in zip(*self._masks, strict=True))
        shape = (len(self._masks), self.num_classes)
        intersections, unions = (coo_matrix((pixels, (rows, columns)), shape).tocsr() for pixels in (both, either))

        def score(images: IntArray) -> float:
            weights = np.bincount(images, minlength=shape[0])
            return mean_defined(_ratio(weights @ intersections, weights @ unions))

        return bootstrap_interval(score, shape[0])

    def result(self, classes: Sequence[str]) -> "SegmentationResult":
        """As :func:`segmentation_result`, of all masks so far, with the interval of the mean IoU."""
        return replace(segmentation_result(self, classes), interval=self.miou_interval() if self._masks else None)

    def __repr__(self) -> str:
        """Settings and the number of pixels so far."""
        return f"ConfusionMatrix(num_classes={self.num_classes}, void={self.void}, pixels={int(self.counts.sum())})"

    def _check_labels(self, values: npt.NDArray[Any], what: str, also: str) -> None:
        if not values.size:
            return
        for value in (int(values.min()), int(values.max())):
            if not 0 <= value < self.num_classes:
                raise WildcatError(f"the {what} holds the value {value}; allowed are 0 to {self.num_classes - 1}{also}")


@dataclass(frozen=True, eq=False)
class SegmentationResult(PerClassResult):
    """Intersection over union of a dataset; proportions in [0, 1]."""

    classes: tuple[str, ...]
    """K names, background included."""
    confusion: IntArray
    """(K, K) pixels; rows are true classes, columns predicted ones."""
    iou: FloatArray
    """(K,) TP / (TP + FP + FN); NaN for a class that is neither in the ground truth nor in any prediction."""
    interval: tuple[float, float] | None = None
    """Bounds of the 95 % interval of ``miou`` (bootstrap over masks); None for a mere confusion matrix."""

    @property
    def miou(self) -> float:
        """Mean over the classes present in ground truth or prediction."""
        return mean_defined(self.iou)

    @property
    def miou_all(self) -> float:
        """Mean over all K classes, an absent one counting as 0."""
        return float(np.nan_to_num(self.iou).mean())

    @property
    def pixel_accuracy(self) -> float:
        """Share of scored pixels with the right label; NaN without pixels."""
        pixels = self.confusion.sum()
        return float(np.trace(self.confusion) / pixels) if pixels else float("nan")

    @property
    def classes_absent(self) -> tuple[str, ...]:
        """Classes neither in the ground truth nor in any prediction."""
        return self._names_where(np.isnan(self.iou))

    def scores(self) -> SegmentationScores:
        """The section "segmentation" of the results, in per cent."""
        return SegmentationScores(
            miou=100 * self.miou,
            miou_interval=None if self.interval is None else (100 * self.interval[0], 100 * self.interval[1]),
            miou_all=100 * self.miou_all,
            pixel_accuracy=100 * self.pixel_accuracy,
            classes_absent=self.classes_absent,
            per_class=self._per_class(ClassSegmentation, iou=100 * self.iou),
        )

    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        return {"IoU": self.iou}

    def _totals(self) -> list[tuple[object, ...]]:
        return [("mean of present", self.miou), (f"mean of all {len(self.classes)}", self.miou_all)]

    def _notes(self) -> list[str]:
        notes = [f"pixel accuracy {100 * self.pixel_accuracy:.1f}"] if self.confusion.any() else []
        if self.classes_absent:
            notes.append(f"absent, 0 in the mean of all: {', '.join(self.classes_absent)}")
        return notes


def class_iou(confusion: Any) -> FloatArray:
    """Intersection over union of each class, TP / (TP + FP + FN).

    Args:
        confusion: a `ConfusionMatrix`, or counts (K, K) with true classes in rows.

    Returns:
        (K,) in [0, 1]; NaN for a class that is neither in the ground truth nor in any prediction.

    Raises:
        ValueError: the counts are not a square of whole numbers >= 0.

    >>> class_iou([[3, 1], [0, 4]]).tolist()
    [0.75, 0.8]
    """
    return _ratio(*_overlap(_counts(confusion)))


def _overlap(counts: IntArray) -> tuple[IntArray, IntArray]:
    """Pixels (K,) of intersection and union of each class, from counts (K, K)."""
    both = np.diag(counts)
    return both, counts.sum(axis=0) + counts.sum(axis=1) - both


def _ratio(both: IntArray, either: IntArray) -> FloatArray:
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def mean_iou(confusion: Any) -> float:
    """Mean of `class_iou` over the classes present in ground truth or prediction, in [0, 1]; NaN if none is.

    >>> mean_iou([[3, 1], [0, 4]])
    0.775
    """
    return mean_defined(class_iou(confusion))


def segmentation_result(confusion: Any, classes: Sequence[str]) -> SegmentationResult:
    """Per-class IoU, both means and pixel accuracy of a whole dataset.

    Args:
        confusion: a `ConfusionMatrix`, or counts (K, K) with true classes in rows.
        classes: K different names, "background" first.

    Raises:
        ValueError: the counts are not a square of whole numbers >= 0, or the names do not fit.

    >>> segmentation_result([[3, 1], [0, 4]], ["background", "cat"]).miou
    0.775
    """
    counts = _counts(confusion)
    return SegmentationResult(check_classes(classes, len(counts)), counts, class_iou(counts))


def _counts(confusion: Any) -> IntArray:
    counts = to_numpy(confusion.counts if isinstance(confusion, ConfusionMatrix) else confusion)
    square = counts.ndim == 2 and counts.shape[0] == counts.shape[1] > 0
    if not square or not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
        raise ValueError(
            f"a confusion matrix is a square of pixel counts (K, K), not {counts.dtype} of shape {counts.shape}"
            f"{' with negative values' if counts.size and (counts < 0).any() else ''}"
        )
    return counts.astype(np.int64)  # a copy: later updates of the accumulator must not change the result
