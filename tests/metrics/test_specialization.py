"""Measures of the M maps of a class against slow loops, and by hand."""

import itertools
import math
from typing import Any

import numpy as np
import pytest

from wildcat.metrics import SpecializationAccumulator
from wildcat.metrics.specialization import APART, effective_number, mean_correlation


def peak(row: int, column: int, height: int = 6, width: int = 8, value: float = 1.0) -> np.ndarray:
    """A map with one highest cell."""
    values = np.full((height, width), min(value, 0.0) - 1)
    values[row, column] = value
    return values


def measured(maps: list[np.ndarray], *boxes: list[float], **parts: Any) -> Any:
    """The result for one image of 80 x 60 pixels, in cells of 10, with boxes of the only class."""
    accumulator = SpecializationAccumulator(["cat"])
    count = len(boxes)
    accumulator.update(np.stack(maps)[None], (80, 60), list(boxes), [0] * count, [False] * count, **parts)
    return accumulator.result()


WHOLE = [0, 0, 80, 60]


@pytest.mark.parametrize(
    ("maps", "boxes", "expected"),
    [
        ([peak(1, 1), peak(1, 3)], [WHOLE], 1),
        ([peak(1, 1), peak(3, 1)], [WHOLE], 1),
        ([peak(1, 1), peak(2, 2)], [WHOLE], 0),  # neighbours
        ([peak(1, 1), peak(1, 1)], [WHOLE], 0),
        ([peak(1, 1), peak(1, 5)], [[0, 0, 40, 60]], 0),  # one outside of the box
        ([peak(1, 1), peak(1, 5)], [[0, 0, 40, 60], [40, 0, 80, 60]], 0),  # in two objects
        ([peak(1, 1), peak(1, 5, value=-0.5)], [WHOLE], 0),  # the second map is evidence for nothing
        ([peak(1, 1), peak(1, 1), peak(5, 7)], [WHOLE], 1),
        ([peak(1, 1)], [WHOLE], 0),
    ],
)
def test_two_peaks_apart_in_one_box(maps: list[np.ndarray], boxes: list[list[float]], expected: int) -> None:
    assert APART == 2
    result = measured(maps, *boxes)
    assert (result.apart[0], result.positives[0], result.share_apart) == (expected, 1, expected)
    assert result.with_parts[0] == 0 and math.isnan(result.share_on_parts)


HEAD, HAND = [10, 10, 20, 20], [50, 40, 60, 50]


@pytest.mark.parametrize(
    ("maps", "kinds", "owners", "expected"),
    [
        ([peak(1, 1), peak(4, 5)], ("head", "hand"), [0, 0], 1),
        ([peak(1, 0), peak(4, 6)], ("head", "hand"), [0, 0], 1),  # half a cell outside of the boxes
        ([peak(1, 1), peak(4, 7)], ("head", "hand"), [0, 0], 0),  # further outside
        ([peak(1, 1), peak(1, 2)], ("head", "hand"), [0, 0], 0),  # both at the head
        ([peak(1, 1), peak(4, 5, value=-1)], ("head", "hand"), [0, 0], 0),
        ([peak(1, 1), peak(4, 5)], ("hand", "hand"), [0, 0], None),  # parts of one kind
        ([peak(1, 1), peak(4, 5)], ("head", "hand"), [0, 1], None),  # of two objects
    ],
)
def test_two_maps_on_parts_of_two_kinds(
    maps: list[np.ndarray], kinds: tuple[str, ...], owners: list[int], expected: int | None
) -> None:
    parts = {"part_boxes": [HEAD, HAND], "part_kinds": kinds, "part_objects": owners}
    result = measured(maps, WHOLE, WHOLE, **parts)
    assert result.with_parts[0] == (expected is not None) and result.on_parts[0] == (expected or 0)


def test_a_place_where_two_parts_overlap_is_not_two_parts() -> None:
    parts = {"part_boxes": [HEAD, [0, 0, 80, 60]], "part_kinds": ("head", "body"), "part_objects": [0, 0]}
    assert measured([peak(1, 1), peak(1, 1)], WHOLE, **parts).on_parts[0] == 0
    assert measured([peak(1, 1), peak(4, 5)], WHOLE, **parts).on_parts[0] == 0  # nothing points at the head alone


def slow_correlation(maps: np.ndarray) -> float:
    pairs = itertools.combinations(maps.reshape(len(maps), -1), 2)
    return float(np.mean([np.corrcoef(first, second)[0, 1] for first, second in pairs]))


def test_all_measures_of_random_images_against_loops() -> None:
    generator = np.random.default_rng(0)
    accumulator = SpecializationAccumulator(["cat", "dog"])
    maps = generator.normal(size=(30, 2, 4, 3, 5))
    correlations: list[list[float]] = [[], []]
    strongest: list[list[int]] = [[], []]
    for image in maps:
        label, difficult = int(generator.integers(2)), bool(generator.random() < 0.3)
        accumulator.update(image, (50, 30), [[0, 0, 50, 30]], [label], [difficult])
        if not difficult:
            correlations[label].append(slow_correlation(image[label]))
            strongest[label].append(max(range(4), key=lambda m, of=image[label]: float(of[m].max())))
    result = accumulator.result()
    assert result.positives.tolist() == [len(each) for each in correlations] and (result.positives > 0).all()
    np.testing.assert_allclose(result.correlation, [np.mean(each) for each in correlations])
    for c in range(2):
        shares = [strongest[c].count(m) / len(strongest[c]) for m in range(4)]
        entropy = -sum(share * math.log(share) for share in shares if share)
        assert result.maps_used[c] == pytest.approx(math.exp(entropy))
    assert result.mean_correlation == pytest.approx(result.correlation.mean())


def test_no_image_and_a_single_map() -> None:
    empty = SpecializationAccumulator(["cat"]).result()
    assert all(math.isnan(value) for value in (empty.mean_correlation, empty.mean_maps_used, empty.share_apart))
    single = measured([peak(1, 1)], WHOLE)
    assert math.isnan(single.mean_correlation) and single.mean_maps_used == 1.0
    assert mean_correlation([[[0.0, 0.0]], [[0.0, 1.0]]]) == 0.0  # a constant map
    assert math.isnan(effective_number([], 4))


def test_maps_of_other_classes_are_rejected() -> None:
    with pytest.raises(ValueError, match=r"multi_maps must be \(1, M, h, w\); got shape \(2, 1, 3, 3\)"):
        SpecializationAccumulator(["cat"]).update(np.zeros((2, 1, 3, 3)), (9, 9), [], [], [])
