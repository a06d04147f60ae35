"""How much a score would vary with other images: the bootstrap (Efron 1979)."""

import math
from collections.abc import Callable

import numpy as np

from wildcat.metrics._common import BoolArray, FloatArray, IntArray

LEVEL = 0.95


def bootstrap_interval(
    score: Callable[[IntArray], float], images: int, *, samples: int = 400, level: float = LEVEL, seed: int = 0
) -> tuple[float, float]:
    """The interval in which a score lies with a probability, if the scored images are a random choice.

    The score is computed again for images that are chosen at random, with replacement; the interval is that of the
    percentiles.

    Args:
        score: from indices (images,) of images to the score of these; it may be NaN, which is left out.
        images: number of images, at least 1.
        samples: how often images are chosen.
        level: the probability.
        seed: of the choices.

    Returns:
        The bounds, in the unit of the score; NaN where no choice has a score.

    >>> right = np.arange(100) < 80
    >>> low, high = bootstrap_interval(lambda rows: right[rows].mean(), 100)
    >>> 0.7 < low < 0.75 < 0.85 < high < 0.9
    True
    """
    generator = np.random.default_rng(seed)
    scores = np.array([score(generator.integers(images, size=images)) for _ in range(samples)], dtype=np.float64)
    scores = scores[np.isfinite(scores)]
    if not scores.size:
        return math.nan, math.nan
    tail = (1 - level) / 2
    low, high = np.quantile(scores, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_counts(images: int, *, samples: int = 400, seed: int = 0) -> IntArray:
    """How often each image is in each of some random choices of as many images, with replacement: (samples, images).

    Scores of several models over the same choices can be compared: their differences are paired.

    >>> bootstrap_counts(5, samples=2).sum(axis=1).tolist()
    [5, 5]
    """
    chosen = np.random.default_rng(seed).integers(images, size=(samples, images))
    return np.stack([np.bincount(row, minlength=images) for row in chosen])


def average_precision_samples(
    scores: FloatArray, hits: BoolArray, positive: BoolArray, counted: BoolArray, counts: IntArray
) -> FloatArray:
    """Average precision (area) of one class for each choice of images.

    Args:
        scores: (N,), finite.
        hits: (N,) whether the image counts as found: it has the class, or its point is in a box of it.
        positive: (N,) whether the image has the class.
        counted: (N,) whether the image is in the ranking.
        counts: (S, N) of :func:`bootstrap_counts`.

    Returns:
        (S,) in [0, 1]; NaN for a choice without positives.

    >>> everyone, has = np.ones(3, bool), np.array([True, False, True])
    >>> average_precision_samples(np.array([0.9, 0.8, 0.7]), has, has, everyone, np.array([[1, 1, 1], [1, 2, 1]]))
    array([0.83333333, 0.75      ])
    """
    order = np.flatnonzero(counted)[np.argsort(-scores[counted], kind="stable")]
    order = order[: 1 + np.flatnonzero(hits[order]).max(initial=-1)]  # behind the last hit nothing is gained
    weights = counts[:, order].astype(np.float64)
    found = weights * hits[order]
    precision = np.cumsum(found, axis=1) / np.maximum(np.cumsum(weights, axis=1), 1)
    # Equal images stand side by side; the envelope of the last of them is that of all.
    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    positives = counts @ positive.astype(np.int64)
    gained = (found * envelope).sum(axis=1)
    return np.where(positives > 0, gained / np.maximum(positives, 1), np.nan)
