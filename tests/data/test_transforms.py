"""The geometry of views, and of cells."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests import unusual
from wildcat.data.transforms import View, cell_centres, random_view, warp

RGB = unusual.photo()

views = st.builds(
    lambda seed, low, flip: random_view(np.random.default_rng(seed), crop_area=low, flip=flip),
    st.integers(0, 2**32),
    st.floats(0.2, 1),
    st.booleans(),
)


def test_the_square_warp_keeps_no_aspect() -> None:
    out = warp(Image.fromarray(RGB), 20)
    assert out.shape == (20, 20, 3) and out.dtype == np.uint8 and out.flags.writeable
    # Anti-aliased bilinear is a triangle of two output pixels: in the inside it keeps a linear ramp.
    ramp = np.tile(np.arange(0, 120, dtype=np.uint8)[None, :, None], (30, 1, 3))
    assert warp(ramp, 30)[5, 3:-3, 0].tolist() == [round(4 * i + 1.5 + 0.01) for i in range(3, 27)]
    assert np.array_equal(warp(RGB[:, :40], 40), RGB[:, :40])


@given(view=views)
@settings(max_examples=40, deadline=None)
def test_a_view_shows_its_part(view: View) -> None:
    """A bright rectangle is where its edges are moved to, by hand."""
    image = np.zeros((160, 240, 3), dtype=np.uint8)
    image[40:100, 30:150] = 255
    size = 96
    x1, x2 = ((x / 240 - view.left) / view.width for x in (30, 150))
    y1, y2 = ((y / 160 - view.top) / view.height for y in (40, 100))
    x1, x2 = (1 - x2, 1 - x1) if view.flip else (x1, x2)
    x1, y1, x2, y2 = (round(min(max(edge, 0), 1) * size) for edge in (x1, y1, x2, y2))
    inside = np.zeros((size, size), dtype=bool)
    inside[y1:y2, x1:x2] = True
    seen = view.image(image, size)[:, :, 0] > 127
    # At most one pixel off along the outline.
    assert (seen != inside).sum() <= 2 * (x2 - x1 + y2 - y1) + 4


def test_views_by_hand() -> None:
    view = View(left=0.25, top=0.5, width=0.5, height=0.5, flip=True)
    assert np.array_equal(view.image(RGB[:, :40], 20), RGB[20:, 10:30][:, ::-1])
    assert np.array_equal(View(flip=True).image(RGB[:, :40], 40), RGB[:, :40][:, ::-1])


def test_a_cached_square_warp_gives_nearly_the_same_view() -> None:
    large = unusual.photo(300, 200)
    view = View(left=0.1, top=0.2, width=0.7, height=0.6)
    direct, cached = view.image(large, 64), view.image(warp(large, 128), 64)
    assert np.abs(direct.astype(int) - cached).max() <= 4


def test_random_views_are_inside_and_repeatable() -> None:
    views = [random_view(np.random.default_rng(5), crop_area=0.4) for _ in range(2)]
    assert views[0] == views[1]
    rng = np.random.default_rng(0)
    many = [random_view(rng, crop_area=0.4) for _ in range(400)]
    areas = [view.width * view.height for view in many]
    assert 0.39 <= min(areas) < 0.45 and 0.9 < max(areas) <= 1
    assert all(3 / 4 <= v.width / v.height <= 4 / 3 for v in many)
    assert min(v.width / v.height for v in many) < 0.8 < 1.2 < max(v.width / v.height for v in many)
    assert all(0 <= v.left <= 1 - v.width and 0 <= v.top <= 1 - v.height for v in many)
    assert 150 < sum(view.flip for view in many) < 250
    assert random_view(rng, flip=False) == View()
    # The stream does not depend on the settings.
    a, b = np.random.default_rng(1), np.random.default_rng(1)
    random_view(a, flip=False), random_view(b, crop_area=0.3)
    assert a.random() == b.random()


@pytest.mark.parametrize("area", [0, -0.5, 1.1, float("nan")])
def test_impossible_crops_are_rejected(area: float) -> None:
    with pytest.raises(ValueError, match="crop_area"):
        random_view(np.random.default_rng(0), crop_area=area)


def test_cells_by_hand() -> None:
    # A 2 x 4 map over an image 200 wide, 100 high: cells of 50 x 50.
    assert cell_centres(np.array([1, 2]), (2, 4), (200, 100)).tolist() == [125, 75]


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), width=st.integers(1, 900), height=st.integers(1, 900))
def test_a_cells_centre_lies_in_the_cell(rows: int, columns: int, width: int, height: int) -> None:
    cells = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    points = cell_centres(cells, (rows, columns), (width, height))
    assert np.array_equal(np.floor(points[..., ::-1] * np.array([rows / height, columns / width])), cells)
