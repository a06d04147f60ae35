"""Which images of a class are worth a look: where the model fails, and where it is at its best."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from wildcat.evaluation.scoring import ScoreAccumulator
from wildcat.metrics.pointing import TOLERANCE, points_in_boxes

Kind: TypeAlias = Literal["missed", "false alarm", "wrong point", "found"]
PRESENT = 0.5  # probability from which a class of multi-label data counts as predicted


@dataclass(frozen=True)
class Choice:
    """An image of the dataset, chosen for a class.

    Attributes:
        index: of the sample.
        label: index of the class.
        kind: "missed": it holds the class, which is not predicted. "false alarm": the other way round. "wrong point":
            it is predicted, but the point is outside every box of the class. "found": predicted, and the point, where
            boxes are known, inside.
        score: probability of the class.
    """

    index: int
    label: int
    kind: Kind
    score: float


def failures(observed: ScoreAccumulator, label: int, count: int) -> list[Choice]:
    """Up to ``count`` failures of a class: the worst of each kind in turn."""
    probabilities, predicted = observed.probabilities[:, label], is_predicted(observed)[:, label]
    truth = observed.dataset.labels[:, label]
    hits = _point_is_inside(observed, label)
    severity: dict[Kind, list[tuple[float, int]]] = {"missed": [], "false alarm": [], "wrong point": []}
    for index, probability in enumerate(probabilities.tolist()):
        if truth[index] == 1 and not predicted[index]:
            severity["missed"].append((1 - probability, index))
        elif truth[index] == -1 and predicted[index]:
            severity["false alarm"].append((probability, index))
        elif truth[index] == 1 and hits[index] is False:
            severity["wrong point"].append((probability, index))
    ranked = {kind: sorted(found, key=lambda entry: (-entry[0], entry[1])) for kind, found in severity.items()}
    chosen: list[Choice] = []
    for place in range(count):
        for kind, found in ranked.items():
            if place < len(found) and len(chosen) < count:
                index = found[place][1]
                chosen.append(Choice(index, label, kind, float(probabilities[index])))
    return sorted(chosen, key=lambda choice: list(ranked).index(choice.kind))


def successes(observed: ScoreAccumulator, label: int, count: int) -> list[Choice]:
    """Up to ``count`` images in which the class is found with the highest probability."""
    probabilities, predicted = observed.probabilities[:, label], is_predicted(observed)[:, label]
    truth = observed.dataset.labels[:, label]
    hits = _point_is_inside(observed, label)
    good = [i for i in range(len(truth)) if truth[i] == 1 and predicted[i] and hits[i] is not False]
    good.sort(key=lambda index: (-float(probabilities[index]), index))
    return [Choice(index, label, "found", float(probabilities[index])) for index in good[:count]]


def is_predicted(observed: ScoreAccumulator) -> npt.NDArray[np.bool_]:
    """(N, C): the most probable class where each image has exactly one, else those from :data:`PRESENT`."""
    probabilities = observed.probabilities
    if observed.dataset.multi_label:
        return np.asarray(probabilities >= PRESENT)
    return np.asarray(probabilities.argmax(axis=1)[:, None] == np.arange(probabilities.shape[1]))


def _point_is_inside(observed: ScoreAccumulator, label: int) -> list[bool | None]:
    """Whether each image's point is in a box of the class; None where its boxes are not known."""
    inside: list[bool | None] = []
    for sample, point in zip(observed.dataset.samples, observed.points[:, label], strict=True):
        if sample.boxes is None or sample.box_classes is None:
            inside.append(None)
            continue
        boxes = sample.boxes[sample.box_classes == label]
        inside.append(bool(points_in_boxes(point, boxes, TOLERANCE).any()) if len(boxes) else None)
    return inside
