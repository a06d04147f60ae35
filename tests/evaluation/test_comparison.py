"""Comparison of models, on scores made up for it."""

import math

import numpy as np
import pytest

from wildcat import metrics
from wildcat.errors import WildcatError
from wildcat.evaluation.comparison import ScoredImages, compare

CLASSES = ("cat", "dog")


def made_up(multi_label: bool = True) -> tuple[np.ndarray, list[ScoredImages], list[str]]:
    """Labels, and three models: a good one, the same again, and one by chance."""
    generator = np.random.default_rng(0)
    labels = np.where(generator.random((80, 2)) < 0.5, 1, -1).astype(np.int8)
    if not multi_label:
        labels[:, 1] = -labels[:, 0]
    good = (0.5 + 0.3 * labels + 0.1 * generator.random((80, 2))).astype(np.float32)
    chance = generator.random((80, 2)).astype(np.float32)
    models = [ScoredImages("good", good), ScoredImages("same", good.copy()), ScoredImages("chance", chance)]
    return labels, models, [f"{i}.png" for i in range(80)]


@pytest.mark.parametrize("multi_label", [True, False])
def test_metrics_and_their_differences(multi_label: bool) -> None:
    labels, models, names = made_up(multi_label)
    found = compare(models, labels, CLASSES, names, multi_label=multi_label, samples=50)
    (metric,) = found.metrics
    assert metric.name == ("mAP" if multi_label else "accuracy") and found.images == 80
    for model, value in zip(models, metric.values, strict=True):
        if multi_label:
            expected = metrics.classification_result(model.probabilities, labels, CLASSES).map_area
        else:
            expected = np.mean(labels[np.arange(80), model.probabilities.argmax(axis=1)] == 1)
        assert value == pytest.approx(100 * expected)
    assert metric.values[0] == 100 and metric.differences[:2] == [0, 0]
    assert metric.difference_intervals[1] == (0, 0)  # the same images are chosen for both
    low, high = metric.difference_intervals[2]
    assert low <= metric.differences[2] <= high < 0
    assert metric.intervals[2][0] < metric.values[2] < metric.intervals[2][1]
    assert list(found.per_class) == list(CLASSES) and all(row[0] == row[1] == 100 for row in found.per_class.values())


def test_points_are_compared_where_all_have_them() -> None:
    labels, models, names = made_up()
    hits = np.full((80, 2), np.nan, np.float32)
    hits[:40, 0], hits[:20, 0] = 0, 1
    pointed = [ScoredImages(model.name, model.probabilities, hits) for model in models]
    found = compare(pointed, labels, CLASSES, names, multi_label=True, samples=20)
    assert found.metrics[1].values == [50, 50, 50]
    some = [*pointed[:2], models[2]]
    assert len(compare(some, labels, CLASSES, names, multi_label=True, samples=20).metrics) == 1


def test_images_on_which_they_disagree_come_first() -> None:
    labels, models, names = made_up()
    other = models[0].probabilities.copy()
    other[7, 1], other[9, 0] = 1 - other[7, 1], other[9, 0] - 0.2
    labels[9, 0] = 0
    pair = [models[0], ScoredImages("other", other)]
    first, second = compare(pair, labels, CLASSES, names, multi_label=True, most=2, samples=5).disagreements
    assert (first.image, first.label, first.is_there) == ("7.png", "dog", bool(labels[7, 1] == 1))
    assert (second.image, second.label, second.is_there) == ("9.png", "cat", None)
    assert second.spread == pytest.approx(0.2, abs=1e-3) and len(second.probabilities) == 2


def test_classes_without_images_are_none_in_json() -> None:
    labels, models, names = made_up()
    labels[:, 1] = -1
    values = compare(models, labels, CLASSES, names, multi_label=True, samples=5).to_dict()
    assert values["per_class"]["dog"] == [None] * 3 and not math.isnan(values["metrics"][0]["values"][0])


def test_what_cannot_be_compared() -> None:
    labels, models, names = made_up()
    with pytest.raises(WildcatError, match="at least two runs; got 1"):
        compare(models[:1], labels, CLASSES, names, multi_label=True)
    empty = [ScoredImages(model.name, model.probabilities[:0]) for model in models]
    with pytest.raises(WildcatError, match="no image is scored by all"):
        compare(empty, labels[:0], CLASSES, [], multi_label=True)
