"""What every score is called, its unit and where it stands: the one table that summary, model card, report, tables of
``wildcat reproduce`` and ledger read.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from wildcat.errors import WildcatError, guess, shorten
from wildcat.metrics.scores import Scores, Task


class Detail(IntEnum):
    """How much of the scores is shown: each level includes those before it."""

    TABLE = 1
    """Columns of comparison tables and of the ledger: one or two scores per task."""
    HEADLINE = 2
    """Model card and report."""
    SUMMARY = 3
    """The summary that is printed."""
    FULL = 4
    """results.json alone."""


@dataclass(frozen=True)
class Metric:
    """A score of a whole dataset.

    Attributes:
        task: section of :class:`wildcat.metrics.scores.Scores`.
        key: field of the section, and key in results.json.
        name: what it is called everywhere; unique.
        about: what it is, in a few words.
        detail: from which level of detail on it is shown.
        unit: "%".
        former_names: what tables that were written by earlier versions call it.
    """

    task: Task
    key: str
    name: str
    about: str
    detail: Detail
    unit: str = "%"
    former_names: tuple[str, ...] = ()

    def value(self, scores: Scores) -> float:
        """The score in its unit; NaN where it was not measured or is not defined."""
        section = getattr(scores, self.task)
        value = None if section is None else getattr(section, self.key)
        return math.nan if value is None else float(value)

    def interval(self, scores: Scores) -> tuple[float, float] | None:
        """Bounds of the 95 % interval (bootstrap over images) in the metric's unit; None where it was not measured."""
        bounds: tuple[float, float] | None = getattr(getattr(scores, self.task), f"{self.key}_interval", None)
        return None if bounds is None or any(map(math.isnan, bounds)) else bounds

    def text(self, scores: Scores) -> str:
        """The score with one decimal, and its interval where there is one.

        >>> scores = Scores.from_dict({"segmentation": {"miou": 42.25, "miou_interval": [38.1, 46.0]}})
        >>> metric_named("mIoU").text(scores)
        '42.2 (95 %: 38.1 to 46.0)'
        """
        bounds = self.interval(scores)
        shown = "" if bounds is None else f" (95 %: {bounds[0]:.1f} to {bounds[1]:.1f})"
        return f"{self.value(scores):.1f}{shown}"


METRICS = (
    Metric("classification", "map_area", "mAP", "area under the precision-recall curve", Detail.TABLE),
    Metric("classification", "map_11point", "11-point mAP", "as VOC 2007 computes it", Detail.SUMMARY),
    Metric("classification", "map_step", "step mAP", "without interpolation", Detail.SUMMARY),
    Metric("classification", "accuracy", "accuracy", "of all images", Detail.TABLE),
    Metric("classification", "mean_class_accuracy", "mean class accuracy", "mean over the classes", Detail.HEADLINE),
    Metric("pointing", "map", "pointing mAP", "average precision of points", Detail.TABLE, former_names=("points",)),
    Metric("pointing", "map_tolerance_0", "pointing mAP without tolerance", "boxes as annotated", Detail.SUMMARY),
    Metric("pointing", "accuracy", "pointing accuracy", "points inside a true box", Detail.HEADLINE),
    Metric("pointing", "accuracy_pairs", "pointing accuracy of all pairs", "not averaged by class", Detail.FULL),
    Metric("segmentation", "miou", "mIoU", "mean over classes and background", Detail.TABLE),
    Metric("segmentation", "miou_all", "mIoU of all classes", "absent classes count as 0", Detail.FULL),
    Metric("segmentation", "pixel_accuracy", "pixel accuracy", "pixels with the right label", Detail.FULL),
    Metric(
        "segmentation",
        "miou_crf",
        "mIoU with CRF",
        "masks refined by the dense CRF",
        Detail.TABLE,
        former_names=("mIoU CRF",),
    ),
)
"""Every score of a dataset, in the order in which scores are shown."""


def metrics_shown(detail: Detail, tasks: Sequence[Task] | None = None) -> tuple[Metric, ...]:
    """The metrics of a level of detail, of some tasks or of all.

    >>> [metric.name for metric in metrics_shown(Detail.TABLE)]
    ['mAP', 'accuracy', 'pointing mAP', 'mIoU', 'mIoU with CRF']
    """
    return tuple(m for m in METRICS if m.detail <= detail and (tasks is None or m.task in tasks))


def measured(scores: Scores, detail: Detail) -> list[tuple[Metric, float]]:
    """The metrics of a level of detail that have a value, each with it."""
    values = [(metric, metric.value(scores)) for metric in metrics_shown(detail)]
    return [(metric, value) for metric, value in values if not math.isnan(value)]


_NOT_SCORED = {
    "classification": ("classes_without_positives", "without a positive image"),
    "pointing": ("classes_without_positives", "without an object"),
    "segmentation": ("classes_absent", "in no true and no predicted mask"),
}


def not_scored(scores: Scores, task: Task) -> str:
    """A sentence about the classes that the means of a task leave out; "" if there are none.

    >>> content = {"classes_without_positives": ["dog"], "per_class": {"cat": {"positives": 3}, "dog": {}}}
    >>> not_scored(Scores.from_dict({"classification": content}), "classification")
    'mean over 1 of 2 classes; 1 not scored, without a positive image: dog'
    """
    section, (key, why) = getattr(scores, task), _NOT_SCORED[task]
    names = () if section is None else getattr(section, key)
    if not names:
        return ""
    count = len(section.per_class)
    return f"mean over {count - len(names)} of {count} classes; {len(names)} not scored, {why}: {shorten(names)}"


def metric_named(name: str) -> Metric:
    """The metric of a name, or of a name that an earlier version gave it.

    >>> metric_named("points").name
    'pointing mAP'

    Raises:
        WildcatError: for another name.
    """
    for metric in METRICS:
        if name == metric.name or name in metric.former_names:
            return metric
    raise WildcatError(f"there is no metric {name!r}{guess(name, [metric.name for metric in METRICS])}")


@dataclass(frozen=True)
class ClassMetric:
    """A score, or a count, of each class.

    Attributes:
        task: section of :class:`wildcat.metrics.scores.Scores`.
        key: field of the entries of the section's ``per_class``.
        name: heading of its column; unique.
        about: what it is.
        unit: "%" or "images".
    """

    task: Task
    key: str
    name: str
    about: str
    unit: str = "%"

    def values(self, scores: Scores, classes: Sequence[str]) -> list[float]:
        """One value per class in its unit, NaN where it was not measured or is not defined."""
        section = getattr(scores, self.task)
        per_class = {} if section is None else section.per_class
        return [float(getattr(per_class[name], self.key)) if name in per_class else math.nan for name in classes]


CLASS_METRICS = (
    ClassMetric("classification", "ap_area", "AP", "average precision: area under the monotone envelope"),
    ClassMetric("classification", "ap_11point", "11-point AP", "average precision as VOC 2007 computes it"),
    ClassMetric("classification", "accuracy", "Accuracy", "share of the class's images that are classified correctly"),
    ClassMetric("pointing", "ap", "Pointing AP", "average precision of points, boxes enlarged by the tolerance"),
    ClassMetric("pointing", "accuracy", "Pointing accuracy", "share of the class's images whose point is in a box"),
    ClassMetric("segmentation", "iou", "IoU", "intersection over union of masks"),
    ClassMetric("segmentation", "iou_crf", "IoU with CRF", "the same for masks refined by the dense CRF"),
    ClassMetric("classification", "positives", "Images", "images that hold the class", "images"),
)
"""Every score of a class, in the order of the columns of the report."""
