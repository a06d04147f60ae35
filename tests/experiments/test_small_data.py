"""The comparison on few images: which images a draw has, the probe, and the table."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from experiments.small_data import _fit_probe, chosen_images, markdown, scored_images

ROW = {"data": "rooms", "size": "224", "per_class": "10", "images": "30", "tested": "300", "metric": "accuracy"}
ROW |= {"cpu_seconds": "60", "commit": "abc", "cores": "2", "cpu": "some CPU"}


def one_label(count: int, classes: int) -> np.ndarray:
    return np.where(np.arange(count)[:, None] % classes == np.arange(classes), 1, -1).astype(np.int8)


def test_a_draw_has_that_many_images_of_each_class() -> None:
    labels = one_label(100, 4)
    chosen = chosen_images(labels, False, 7, draw=0)
    assert (labels[chosen] == 1).sum(axis=0).tolist() == [7] * 4 and chosen == sorted(set(chosen))
    assert chosen == chosen_images(labels, False, 7, draw=0) != chosen_images(labels, False, 7, draw=1)
    several = labels.copy()
    several[:10] = 1
    counts = (several[chosen_images(several, True, 7, draw=0)] == 1).sum(axis=0)
    assert (counts >= 7).all() and len(chosen_images(several, True, 1000, draw=0)) == 100


def test_the_test_images_are_always_the_same() -> None:
    assert scored_images(50, None) == list(range(50)) and scored_images(50, 80) == list(range(50))
    assert scored_images(50, 9) == scored_images(50, 9) and len(set(scored_images(50, 9))) == 9


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_scikit_learns(classes: int) -> None:
    labels = one_label(30, classes)
    features = (np.random.default_rng(0).normal(size=(30, 5)) + labels[:, :1]).astype(np.float32)
    weights, bias = _fit_probe(features, labels, False, 0.1)
    known = features.astype(np.float64), labels.argmax(axis=1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=300)).fit(*known)
    assert ((known[0] @ weights.T + bias).argmax(axis=1) == model.predict(known[0])).all()


def test_the_table_has_means_and_paired_differences() -> None:
    scores = [("80.00", "79.00", "78.00"), ("84.00", "81.00", "82.00")]
    rows = [
        {**ROW, "draw": str(draw), **dict(zip(("default", "features", "probe"), each, strict=True))}
        for draw, each in enumerate(scores)
    ]
    line = markdown(rows, "command").strip().splitlines()[-1]
    assert "82.0 ± 2.8 | 80.0 ± 1.4 | 80.0 ± 2.8" in line and "+2.0 ± 1.4 (features)" in line and "| 2 |" in line
    assert "80.0 | 79.0 | 78.0 | +1.0 (features)" in markdown(rows[:1], "command")
