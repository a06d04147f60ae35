"""Choosing the images of a class that the page shows: the worst failures and the best predictions."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from wildcat.evaluation.scoring import ScoreAccumulator
from wildcat.metrics.pointing import TOLERANCE, points_in_boxes

Kind: TypeAlias = Literal["missed", "false positive", "wrong point", "correct"]
PREDICTED_FROM = 0.5  # probability from which a class of multi-label data counts as predicted


@dataclass(frozen=True)
class Choice:
    """An image of the dataset, chosen for a class.

    Attributes:
        index: of the sample.
        label: index of the class.
        kind: "missed": the image holds the class, but it is not predicted. "false positive": the class is predicted,
            but the image does not hold it. "wrong point": the class is predicted correctly, but its point is outside
            every true box. "correct": the class is predicted correctly, and so is its point if there are boxes.
        score: probability of the class.
    """

    index: int
    label: int
    kind: Kind
    score: float


def failures(score: ScoreAccumulator, label: int, count: int) -> list[Choice]:
    """Up to ``count`` failures of a class: the worst of each kind in turn, sorted by kind."""
    probabilities, predicted = score.probabilities[:, label], is_predicted(score)[:, label]
    truth = score.dataset.labels[:, label]
    hits = _point_is_inside(score, label)
    severity: dict[Kind, list[tuple[float, int]]] = {"missed": [], "false positive": [], "wrong point": []}
    for index, probability in enumerate(probabilities.tolist()):
        if truth[index] == 1 and not predicted[index]:
            severity["missed"].append((1 - probability, index))
        elif truth[index] == -1 and predicted[index]:
            severity["false positive"].append((probability, index))
        elif truth[index] == 1 and hits[index] is False:
            severity["wrong point"].append((probability, index))
    ranked = {kind: sorted(entries, key=lambda entry: (-entry[0], entry[1])) for kind, entries in severity.items()}
    chosen: list[Choice] = []
    for place in range(count):
        for kind, entries in ranked.items():
            if place < len(entries) and len(chosen) < count:
                index = entries[place][1]
                chosen.append(Choice(index, label, kind, float(probabilities[index])))
    return sorted(chosen, key=lambda choice: list(ranked).index(choice.kind))


def best_predictions(score: ScoreAccumulator, label: int, count: int) -> list[Choice]:
    """Up to ``count`` correct predictions of a class, those with the highest probability first."""
    probabilities, predicted = score.probabilities[:, label], is_predicted(score)[:, label]
    truth = score.dataset.labels[:, label]
    hits = _point_is_inside(score, label)
    good = [i for i in range(len(truth)) if truth[i] == 1 and predicted[i] and hits[i] is not False]
    good.sort(key=lambda index: (-float(probabilities[index]), index))
    return [Choice(index, label, "correct", float(probabilities[index])) for index in good[:count]]


def is_predicted(score: ScoreAccumulator) -> npt.NDArray[np.bool_]:
    """(N, C) whether each class is predicted in each image.

    Where each image has exactly one class, that is the most probable one, otherwise every class with a probability of
    at least :data:`PREDICTED_FROM`.
    """
    probabilities = score.probabilities
    if score.dataset.multi_label:
        return np.asarray(probabilities >= PREDICTED_FROM)
    return np.asarray(probabilities.argmax(axis=1)[:, None] == np.arange(probabilities.shape[1]))


def _point_is_inside(score: ScoreAccumulator, label: int) -> list[bool | None]:
    """Whether the point of the class is in one of its boxes, for each image; None where there are no boxes."""
    if score.pointing is None:
        return [None] * len(score.dataset)
    inside: list[bool | None] = []
    for sample, point in zip(score.dataset.samples, score.pointing.points[:, label], strict=True):
        if sample.boxes is None or sample.box_classes is None:
            inside.append(None)
            continue
        boxes = sample.boxes[sample.box_classes == label]
        inside.append(bool(points_in_boxes(point, boxes, TOLERANCE).any()) if len(boxes) else None)
    return inside
