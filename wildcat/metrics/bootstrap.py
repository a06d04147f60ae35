"""How much a score would vary with other images: the bootstrap (Efron 1979)."""

import math
from collections.abc import Callable

import numpy as np

from wildcat.metrics._common import IntArray

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
