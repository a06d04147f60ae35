"""The scores of a dataset in per cent, as ``results.json`` holds them: typed sections, from and to plain values.

A score that is not defined, such as the average precision of a class without positives, is NaN in Python and null in
JSON. Keys that are not known are ignored when values are read, so that files of later versions can be opened.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from wildcat.system.json_object import JsonObject

Task: TypeAlias = Literal["classification", "pointing", "segmentation"]
TASKS: tuple[Task, ...] = get_args(Task)


def _percent(values: JsonObject, key: str) -> float:
    """A score in per cent; NaN where it is null or missing. Rounding may lift a mean a little above 100."""
    return values.number(key, math.nan, 0, 100 + 1e-9)


def _interval(values: JsonObject, key: str) -> tuple[float, float] | None:
    """Two bounds in per cent; None where there are none, NaN for null."""
    if key not in values:
        return None
    bounds = values.any(key)
    if not isinstance(bounds, list | tuple) or len(bounds) != 2:
        raise values.error(key, "two numbers")
    low, high = (
        JsonObject({key: bound}, values.file, values.path).number(key, math.nan, 0, 100 + 1e-9) for bound in bounds
    )
    return low, high


def _json(value: float) -> float | None:
    return None if math.isnan(value) else value


@dataclass(frozen=True)
class ClassClassification:
    """Classification of one class; scores in per cent.

    Attributes:
        ap_area: average precision, area under the monotone envelope; of multi-label data, as the next two.
        ap_11point: average precision as VOC 2007 computes it.
        ap_step: average precision without interpolation, as scikit-learn computes it.
        accuracy: share of the class's images that are classified correctly; of data with one class per image.
        positives: images that hold the class.
        ignored: images whose label is 0 for the class; of multi-label data.
    """

    ap_area: float = math.nan
    ap_11point: float = math.nan
    ap_step: float = math.nan
    accuracy: float = math.nan
    positives: int = 0
    ignored: int = 0


@dataclass(frozen=True)
class ClassificationScores:
    """Classification of a dataset; scores in per cent.

    Attributes:
        multi_label: whether an image may have several classes. If so, average precision is measured, otherwise
            accuracy; the scores of the other kind are NaN and not written.
        map_area: mean of ``ap_area`` over the classes with positives, as are the next two of theirs.
        map_11point: mean of ``ap_11point``.
        map_step: mean of ``ap_step``.
        accuracy: share of images whose highest score is that of their class.
        mean_class_accuracy: mean of the accuracy within each class.
        classes_without_positives: classes that no image holds; they are left out of the means.
        per_class: the scores of each class by name.
    """

    multi_label: bool = True
    map_area: float = math.nan
    map_11point: float = math.nan
    map_step: float = math.nan
    accuracy: float = math.nan
    mean_class_accuracy: float = math.nan
    classes_without_positives: tuple[str, ...] = ()
    per_class: Mapping[str, ClassClassification] = field(default_factory=dict)

    @classmethod
    def read(cls, values: JsonObject) -> ClassificationScores:
        """From the part "classification" of results.json."""
        return cls(
            multi_label="accuracy" not in values,
            map_area=_percent(values, "map_area"),
            map_11point=_percent(values, "map_11point"),
            map_step=_percent(values, "map_step"),
            accuracy=_percent(values, "accuracy"),
            mean_class_accuracy=_percent(values, "mean_class_accuracy"),
            classes_without_positives=values.texts("classes_without_positives", ()),
            per_class={
                name: ClassClassification(
                    ap_area=_percent(each, "area"),
                    ap_11point=_percent(each, "11point"),
                    ap_step=_percent(each, "step"),
                    accuracy=_percent(each, "accuracy"),
                    positives=each.count("positives", 0),
                    ignored=each.count("ignored", 0),
                )
                for name, each in values.child("per_class").children().items()
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """The part "classification" of results.json."""
        if self.multi_label:
            scores = {
                "map_area": _json(self.map_area),
                "map_11point": _json(self.map_11point),
                "map_step": _json(self.map_step),
            }
        else:
            scores = {"accuracy": _json(self.accuracy), "mean_class_accuracy": _json(self.mean_class_accuracy)}
        return {
            **scores,
            "classes_without_positives": list(self.classes_without_positives),
            "per_class": {name: self._class_to_dict(each) for name, each in self.per_class.items()},
        }

    def _class_to_dict(self, each: ClassClassification) -> dict[str, Any]:
        if not self.multi_label:
            return {"accuracy": _json(each.accuracy), "positives": each.positives}
        return {
            "area": _json(each.ap_area),
            "11point": _json(each.ap_11point),
            "step": _json(each.ap_step),
            "positives": each.positives,
            "ignored": each.ignored,
        }


@dataclass(frozen=True)
class ClassPointing:
    """Pointwise localization of one class; scores in per cent.

    Attributes:
        ap: average precision of the points, boxes enlarged by the tolerance.
        ap_tolerance_0: the same with boxes as they are annotated.
        accuracy: ``correct`` / ``positives``.
        correct: images that hold the class and whose point is in a box of it.
        positives: images that hold the class and are not ignored.
        ignored: images ignored for the class.
    """

    ap: float = math.nan
    ap_tolerance_0: float = math.nan
    accuracy: float = math.nan
    correct: int = 0
    positives: int = 0
    ignored: int = 0


@dataclass(frozen=True)
class PointingScores:
    """Pointwise localization of a dataset; scores in per cent.

    Attributes:
        map: mean of ``ap`` over the classes with positives, as are the next two of theirs.
        map_tolerance_0: mean of ``ap_tolerance_0``.
        accuracy: mean of the accuracy of each class.
        accuracy_pairs: share of correct points among all pairs of an image and a class that it holds.
        tolerance: pixels by which each side of a box is moved outwards.
        classes_without_positives: classes that no image holds; they are left out of the means.
        decisions: how cases are scored about which the source is silent, a sentence each.
        per_class: the scores of each class by name.
    """

    map: float = math.nan
    map_tolerance_0: float = math.nan
    accuracy: float = math.nan
    accuracy_pairs: float = math.nan
    tolerance: float = math.nan
    classes_without_positives: tuple[str, ...] = ()
    decisions: tuple[str, ...] = ()
    per_class: Mapping[str, ClassPointing] = field(default_factory=dict)

    @classmethod
    def read(cls, values: JsonObject) -> PointingScores:
        """From the part "pointing" of results.json."""
        return cls(
            map=_percent(values, "map"),
            map_tolerance_0=_percent(values, "map_tolerance_0"),
            accuracy=_percent(values, "accuracy"),
            accuracy_pairs=_percent(values, "accuracy_pairs"),
            tolerance=values.number("tolerance", math.nan, 0),
            classes_without_positives=values.texts("classes_without_positives", ()),
            decisions=values.texts("decisions", ()),
            per_class={
                name: ClassPointing(
                    ap=_percent(each, "ap"),
                    ap_tolerance_0=_percent(each, "ap_tolerance_0"),
                    accuracy=_percent(each, "accuracy"),
                    correct=each.count("correct", 0),
                    positives=each.count("positives", 0),
                    ignored=each.count("ignored", 0),
                )
                for name, each in values.child("per_class").children().items()
            },
        )

    def to_dict(self) -> dict[str, Any]:
        """The part "pointing" of results.json."""
        return {
            "map": _json(self.map),
            "map_tolerance_0": _json(self.map_tolerance_0),
            "accuracy": _json(self.accuracy),
            "accuracy_pairs": _json(self.accuracy_pairs),
            "tolerance": _json(self.tolerance),
            "classes_without_positives": list(self.classes_without_positives),
            "decisions": list(self.decisions),
            "per_class": {
                name: {
                    "ap": _json(each.ap),
                    "ap_tolerance_0": _json(each.ap_tolerance_0),
                    "accuracy": _json(each.accuracy),
                    "correct": each.correct,
                    "positives": each.positives,
                    "ignored": each.ignored,
                }
                for name, each in self.per_class.items()
            },
        }


@dataclass(frozen=True)
class ClassSegmentation:
    """Segmentation of one class, in per cent.

    Attributes:
        iou: intersection over union.
        iou_crf: the same of masks refined by the dense CRF; NaN where that was not measured.
    """

    iou: float = math.nan
    iou_crf: float = math.nan


@dataclass(frozen=True)
class SegmentationScores:
    """Segmentation of a dataset; scores in per cent.

    Attributes:
        miou: mean of the IoU over the classes, background included, that occur in the true or the predicted masks.
        miou_all: mean over all classes, those that do not occur counted as 0.
        pixel_accuracy: share of scored pixels with the right label.
        classes_absent: classes that occur neither in the true nor in the predicted masks.
        per_class: the scores of each class by name, "background" first.
        miou_crf: as ``miou``, of masks refined by the dense CRF; None where that was not measured.
        background: mode and constant of the background of the masks, such as "threshold 0.15".
        labels: which classes a mask may hold: "predicted", or "image" for those of the true labels.
        images: how many images with a true mask were scored.
        miou_interval: bounds of the 95 % interval of ``miou`` (bootstrap over images); None where it is not known.
        miou_crf_interval: the same of ``miou_crf``.
    """

    miou: float = math.nan
    miou_all: float = math.nan
    pixel_accuracy: float = math.nan
    classes_absent: tuple[str, ...] = ()
    per_class: Mapping[str, ClassSegmentation] = field(default_factory=dict)
    miou_crf: float | None = None
    background: str | None = None
    labels: str | None = None
    images: int | None = None
    miou_interval: tuple[float, float] | None = None
    miou_crf_interval: tuple[float, float] | None = None

    @classmethod
    def read(cls, values: JsonObject) -> SegmentationScores:
        """From the part "segmentation" of results.json."""
        plain, refined = values.child("per_class"), values.child("per_class_crf")
        images = "images" if "images" in values else "pictures"  # the key of the first versions
        return cls(
            miou=_percent(values, "miou"),
            miou_all=_percent(values, "miou_all"),
            pixel_accuracy=_percent(values, "pixel_accuracy"),
            classes_absent=values.texts("classes_absent", ()),
            per_class={
                name: ClassSegmentation(_percent(plain, name), _percent(refined, name)) for name in plain.values
            },
            miou_crf=_percent(values, "miou_crf") if "miou_crf" in values else None,
            background=values.text("background") if "background" in values else None,
            labels=values.text("labels") if "labels" in values else None,
            images=values.count(images) if images in values else None,
            miou_interval=_interval(values, "miou_interval"),
            miou_crf_interval=_interval(values, "miou_crf_interval"),
        )

    def to_dict(self) -> dict[str, Any]:
        """The part "segmentation" of results.json."""
        content: dict[str, Any] = {
            "miou": _json(self.miou),
            "miou_all": _json(self.miou_all),
            "pixel_accuracy": _json(self.pixel_accuracy),
            "classes_absent": list(self.classes_absent),
            "per_class": {name: _json(each.iou) for name, each in self.per_class.items()},
        }
        if self.miou_crf is not None:
            content["miou_crf"] = _json(self.miou_crf)
            content["per_class_crf"] = {name: _json(each.iou_crf) for name, each in self.per_class.items()}
        for name in ("miou_interval", "miou_crf_interval"):
            if (interval := getattr(self, name)) is not None:
                content[name] = [_json(bound) for bound in interval]
        known = {"background": self.background, "labels": self.labels, "images": self.images}
        return content | {key: value for key, value in known.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class Scores:
    """The scores of one model on a dataset: a section per task, None for a task that was not scored.

    >>> scores = Scores.from_dict({"classification": {"map_area": 89.5}})
    >>> scores.classification.map_area, scores.pointing
    (89.5, None)
    """

    classification: ClassificationScores | None = None
    pointing: PointingScores | None = None
    segmentation: SegmentationScores | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], file: str = "results") -> Scores:
        """From plain values, as :meth:`to_dict` gives them.

        Args:
            values: the sections; other keys are ignored.
            file: name of the file that they come from, for error messages.

        Raises:
            WildcatError: naming the file, the key and what is allowed, if a value is not of the format.
        """
        return cls(**read_sections(JsonObject(values, file)))

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks that were scored."""
        return tuple(task for task in TASKS if getattr(self, task) is not None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold: a section per task that was scored."""
        return {task: getattr(self, task).to_dict() for task in self.tasks}


def read_sections(values: JsonObject) -> dict[str, Any]:
    """The section of each task that an object holds, by task."""
    readers = {
        "classification": ClassificationScores.read,
        "pointing": PointingScores.read,
        "segmentation": SegmentationScores.read,
    }
    return {task: read(values.child(task)) for task, read in readers.items() if task in values}
