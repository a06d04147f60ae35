"""Compares models that were scored on the same images: metrics with intervals, paired differences, disagreement."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from wildcat import metrics
from wildcat.errors import WildcatError
from wildcat.metrics.bootstrap import bootstrap_interval

_POINTING = "pointing accuracy of all pairs"


@dataclass(frozen=True)
class ScoredImages:
    """What a model says about N images and C classes.

    Attributes:
        name: of the model.
        probabilities: (N, C).
        hits: (N, C) 1 where the point of a class lies in a true box, 0 where in none, NaN where the image has no box
            of the class; None if points were not compared.
    """

    name: str
    probabilities: npt.NDArray[np.float32]
    hits: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class ComparedMetric:
    """A metric of all models, in per cent; NaN where it is not defined.

    Attributes:
        name: of the metric.
        values: one per model.
        intervals: of each value: 95 % bootstrap over images.
        differences: of each value to that of the first model.
        difference_intervals: of each difference, over the same choices of images for both: if 0 lies outside, the
            difference is probably none of chance.
    """

    name: str
    values: list[float]
    intervals: list[tuple[float, float]]
    differences: list[float]
    difference_intervals: list[tuple[float, float]]


@dataclass(frozen=True)
class Disagreement:
    """An image and a class on which two models disagree.

    Attributes:
        image: its name.
        label: the class.
        is_there: whether the image has it; None if that is not known.
        probabilities: of each model, 0 to 1.
        spread: the largest minus the smallest of them.
    """

    image: str
    label: str
    is_there: bool | None
    probabilities: list[float]
    spread: float


@dataclass(frozen=True)
class Comparison:
    """Models compared on the same images.

    Attributes:
        runs: names of the models.
        data: dataset and split.
        images: how many.
        metrics: of all images.
        class_metric: "AP" or "accuracy".
        per_class: class -> that metric of each model, in per cent.
        disagreements: the images on which they disagree most, the first ones first; each image once.
        notes: sentences about what was compared.
    """

    runs: list[str]
    data: str
    images: int
    metrics: list[ComparedMetric]
    class_metric: str
    per_class: dict[str, list[float]]
    disagreements: list[Disagreement]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not defined is None."""
        found: dict[str, Any] = _plain(asdict(self))
        return found


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def compare(
    models: Sequence[ScoredImages],
    labels: npt.NDArray[np.int8],
    classes: Sequence[str],
    names: Sequence[str],
    *,
    multi_label: bool,
    data: str = "",
    most: int = 20,
    notes: Sequence[str] = (),
    samples: int = 400,
) -> Comparison:
    """Compare models.

    Args:
        models: two or more; differences are to the first one.
        labels: (N, C) 1, 0 (ignored) or -1.
        classes: C names.
        names: N names of images.
        multi_label: whether an image may have several classes: mAP is compared, else the accuracy.
        data: dataset and split, for the result.
        most: how many images on which they disagree are named.
        notes: for the result.
        samples: of the bootstrap.

    Raises:
        WildcatError: for fewer than two models, or no image.
    """
    if len(models) < 2:
        raise WildcatError(f"a comparison needs at least two runs; got {len(models)}")
    if not len(labels):
        raise WildcatError("no image is scored by all of the runs")
    metric = "mAP" if multi_label else "accuracy"
    compared = [
        _compared(
            metric, [_classification(model, labels, classes, multi_label) for model in models], len(labels), samples
        )
    ]
    if all(model.hits is not None for model in models):
        compared.append(_compared(_POINTING, [_pointing(model) for model in models], len(labels), samples))
    return Comparison(
        runs=[model.name for model in models],
        data=data,
        images=len(labels),
        metrics=compared,
        class_metric="AP" if multi_label else "accuracy",
        per_class=_per_class(models, labels, classes, multi_label),
        disagreements=_disagreements(models, labels, classes, names, most),
        notes=list(notes),
    )


_Score = Callable[[npt.NDArray[np.int64]], float]


def _compared(name: str, scores: Sequence[_Score], images: int, samples: int) -> ComparedMetric:
    everything = np.arange(images)
    values = [score(everything) for score in scores]
    first = scores[0]

    def difference(score: _Score) -> _Score:
        return lambda rows: score(rows) - first(rows)

    return ComparedMetric(
        name,
        values,
        [bootstrap_interval(score, images, samples=samples) for score in scores],
        [value - values[0] for value in values],
        [
            (0.0, 0.0) if score is first else bootstrap_interval(difference(score), images, samples=samples)
            for score in scores
        ],
    )


def _classification(
    model: ScoredImages, labels: npt.NDArray[np.int8], classes: Sequence[str], multi_label: bool
) -> _Score:
    def score(rows: npt.NDArray[np.int64]) -> float:
        if multi_label:
            return 100 * metrics.classification_result(model.probabilities[rows], labels[rows], classes).map_area
        return 100 * metrics.multi_class_result(model.probabilities[rows], labels[rows], classes).accuracy

    return score


def _pointing(model: ScoredImages) -> _Score:
    hits = model.hits

    def score(rows: npt.NDArray[np.int64]) -> float:
        known = hits[rows] if hits is not None else np.empty(0)
        known = known[np.isfinite(known)]
        return 100 * float(known.mean()) if known.size else math.nan

    return score


def _per_class(
    models: Sequence[ScoredImages], labels: npt.NDArray[np.int8], classes: Sequence[str], multi_label: bool
) -> dict[str, list[float]]:
    columns = []
    for model in models:
        if multi_label:
            columns.append(100 * np.asarray(metrics.average_precision(model.probabilities, labels)))
        else:
            right = model.probabilities.argmax(axis=1)[:, None] == np.arange(len(classes))
            counts = (labels == 1).sum(axis=0)
            with np.errstate(invalid="ignore"):
                columns.append(100 * (right & (labels == 1)).sum(axis=0) / np.where(counts, counts, np.nan))
    return {name: [float(column[index]) for column in columns] for index, name in enumerate(classes)}


def _disagreements(
    models: Sequence[ScoredImages],
    labels: npt.NDArray[np.int8],
    classes: Sequence[str],
    names: Sequence[str],
    most: int,
) -> list[Disagreement]:
    probabilities = np.stack([model.probabilities for model in models])  # (R, N, C)
    spread = np.ptp(probabilities, axis=0)
    worst = spread.argmax(axis=1)
    order = np.argsort(-spread.max(axis=1), kind="stable")[:most]
    known = {1: True, -1: False}
    return [
        Disagreement(
            names[image],
            classes[worst[image]],
            known.get(int(labels[image, worst[image]])),
            [round(float(p), 4) for p in probabilities[:, image, worst[image]]],
            round(float(spread[image, worst[image]]), 4),
        )
        for image in order.tolist()
    ]
