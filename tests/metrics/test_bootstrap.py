"""The interval of a score."""

import math

import numpy as np
import pytest

from wildcat.metrics.bootstrap import bootstrap_interval


@pytest.mark.parametrize(("images", "share"), [(200, 0.8), (1000, 0.5)])
def test_as_the_normal_approximation_of_a_proportion(images: int, share: float) -> None:
    right = np.arange(images) < share * images
    low, high = bootstrap_interval(lambda rows: float(right[rows].mean()), images, samples=2000)
    half = 1.96 * math.sqrt(share * (1 - share) / images)
    assert (low, high) == pytest.approx((share - half, share + half), abs=0.15 * half)


def test_narrower_with_more_images_and_always_the_same() -> None:
    def interval(images: int) -> tuple[float, float]:
        return bootstrap_interval(lambda rows: float((rows % 2).mean()), images)

    assert interval(400) == interval(400)
    assert interval(400)[1] - interval(400)[0] < interval(40)[1] - interval(40)[0]


def test_scores_that_are_not_defined_are_left_out() -> None:
    low, high = bootstrap_interval(lambda rows: math.nan if rows[0] % 2 else 0.5, 10)
    assert (low, high) == (0.5, 0.5)
    assert all(map(math.isnan, bootstrap_interval(lambda rows: math.nan, 10)))
