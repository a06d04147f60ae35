"""The background cue: against slow loops, cases computed by hand, and properties."""

import numpy as np
import pytest
from PIL import Image

from wildcat.background_cue import (
    CELL,
    COLOUR_RANGE,
    COMPACTNESS,
    ITERATIONS,
    background_cue,
    boundary_probability,
    cielab,
    superpixels,
)
from wildcat.errors import WildcatError


def photo(width, height, seed=0):
    """Smooth random colours with an object in the middle."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(90, 105, (4, 5, 3), dtype=np.uint8))
    image = np.array(small.resize((width, height), Image.Resampling.BICUBIC))
    image[height // 3 : 2 * height // 3, width // 3 : width // 2] = (220, 40, 30)
    return image


def test_superpixels_equal_the_loop():
    colours = cielab(np.array(Image.fromarray(photo(80, 60)).resize((4 * CELL, 3 * CELL))))
    height, width = colours.shape[:2]
    rows, columns = height // CELL, width // CELL
    points = {
        (y, x): np.array([*colours[y, x], y * COMPACTNESS / CELL, x * COMPACTNESS / CELL], np.float64)
        for y in range(height)
        for x in range(width)
    }
    owner = {(y, x): (y // CELL, x // CELL) for y, x in points}
    for _ in range(ITERATIONS):
        members = {}
        for place, cell in owner.items():
            members.setdefault(cell, []).append(points[place])
        centres = {cell: np.mean(each, axis=0) for cell, each in members.items()}
        for y, x in points:
            near = [
                (i, j)
                for i in range(max(y // CELL - 1, 0), min(y // CELL + 2, rows))
                for j in range(max(x // CELL - 1, 0), min(x // CELL + 2, columns))
            ]
            owner[y, x] = min(near, key=lambda cell, p=points[y, x]: ((centres[cell] - p) ** 2).sum())
    expected = np.array([[owner[y, x][0] * columns + owner[y, x][1] for x in range(width)] for y in range(height)])
    assert len(np.unique(expected)) > 1 and not np.array_equal(expected, np.indices((height, width))[0] // CELL)
    assert np.array_equal(superpixels(colours), np.unique(expected, return_inverse=True)[1].reshape(height, width))


def test_boundary_probability_of_a_case_computed_by_hand():
    # Two superpixels at the border of one colour, one inside that differs by 21. The nearest colours are 0, 0 and 21
    # away, 7 on average, so the step inwards is 14: similarity exp(-14 ** 2 / (2 * 7 ** 2)) = exp(-2) = 0.1353.
    labels = np.array([[0, 0, 0, 1, 1], [0, 0, 2, 1, 1], [0, 0, 0, 1, 1]])
    colours = np.zeros((3, 5, 3), np.float32)
    colours[1, 2] = (0, 21, 0)
    outside = 2 / (2 + np.exp(-2)) ** 0.5
    inside = 2 * np.exp(-2) / (1 + 2 * np.exp(-2)) ** 0.5
    expected = [1 - np.exp(-(c**2) / 2) for c in (outside, outside, inside)]
    assert COLOUR_RANGE == 7
    np.testing.assert_allclose(boundary_probability(colours, labels), expected, atol=1e-6)


def test_boundary_probability_equals_the_loop():
    rng = np.random.default_rng(3)
    labels = 4 * np.array([[0], [1], [1], [2], [2], [0]]) + np.arange(8) // 2
    colours = rng.normal(scale=6, size=(6, 8, 3)).astype(np.float32)
    count = labels.max() + 1
    mean = [colours[labels == k].mean(axis=0) for k in range(count)]
    apart = [[float(np.linalg.norm(mean[i] - mean[j])) for j in range(count)] for i in range(count)]
    least = np.mean([min(apart[i][j] for j in range(count) if j != i) for i in range(count)])
    border = {int(labels[y, x]) for y in range(6) for x in range(8) if y in (0, 5) or x in (0, 7)}
    path = np.full((count, count), np.inf)
    for i in range(count):
        path[i, i] = 0
        for j in border if i in border else ():
            path[i, j] = max(apart[i][j] - least, 0)
    for y in range(6):
        for x in range(8):
            for v, u in ((y + 1, x), (y, x + 1)):
                if v < 6 and u < 8 and labels[y, x] != labels[v, u]:
                    i, j = labels[y, x], labels[v, u]
                    path[i, j] = path[j, i] = max(apart[i][j] - least, 0)
    for k in range(count):  # the shortest paths
        for i in range(count):
            for j in range(count):
                path[i, j] = min(path[i, j], path[i, k] + path[k, j])
    expected = []
    for i in range(count):
        similar = [np.exp(-(path[i, j] ** 2) / (2 * COLOUR_RANGE**2)) for j in range(count)]
        connectivity = sum(similar[j] for j in border) / sum(similar) ** 0.5
        expected.append(1 - np.exp(-(connectivity**2) / 2))
    assert 0 < len(border) < count
    np.testing.assert_allclose(boundary_probability(colours, labels), expected, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (700, 2), (30, 40), (500, 375), (2000, 1500)])
def test_any_size_gives_a_bounded_grid(size):
    cue = background_cue(photo(max(size[0], 3), max(size[1], 3))[: size[1], : size[0]])
    assert cue.dtype == np.float32 and 0 <= cue.min() <= cue.max() <= 1
    assert cue.size <= 1.3 * 196 * CELL**2


def test_the_mirrored_image_has_the_mirrored_cue():
    image = photo(200, 150)
    cue, turned = background_cue(image), background_cue(image[:, ::-1].copy())
    assert np.abs(cue - turned[:, ::-1]).mean() < 0.03
    assert np.abs(cue - turned).mean() > 0.05, "the object is not in the middle"


def test_an_object_differs_from_the_ground_and_one_colour_is_all_alike():
    cue = background_cue(photo(240, 180))
    height, width = cue.shape
    inside = cue[int(0.4 * height) : int(0.6 * height), int(0.37 * width) : int(0.46 * width)]
    assert inside.max() < 0.1 < 0.9 < min(cue[0].min(), cue[-1].min(), cue[:, 0].min(), cue[:, -1].min())
    assert np.ptp(background_cue(np.full((90, 120, 3), 77, np.uint8))) < 1e-6


@pytest.mark.parametrize("image", [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3)), np.zeros((0, 5, 3), np.uint8)])
def test_other_arrays_are_rejected(image):
    with pytest.raises(WildcatError, match="background_cue takes an RGB image"):
        background_cue(image)
