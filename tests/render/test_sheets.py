"""Overlays of predictions and contact sheets: sizes, contents, errors."""

import numpy as np
import pytest
from PIL import Image

from wildcat.render.sheets import PANEL_AREA, Entry, contact_sheet, prediction_overlay

GREY = np.full((60, 90, 3), 128, np.uint8)


def entries(count: int, width: int, height: int) -> list[Entry]:
    values = np.arange(12, dtype=np.float32).reshape(3, 4)
    return [Entry(f"class {k}", 1 - k / 10, values, (width * 7 / 8, height * 5 / 6)) for k in range(count)]


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 3, 8, 13])
@pytest.mark.parametrize("size", [(32, 32), (640, 427), (427, 640), (20, 900), (900, 20), (1, 1)])
def test_prediction_overlay_of_any_shape(count: int, size: tuple[int, int]) -> None:
    sheet = prediction_overlay(np.full((size[1], size[0], 3), 90, np.uint8), entries(count, *size))
    assert sheet.mode == "RGB"
    assert 160 <= sheet.width <= 5 * 1000 and max(sheet.size) < 12000
    assert sheet.width * sheet.height > (count + 1) * min(20_000, PANEL_AREA)


def test_prediction_overlay_has_the_same_size_for_small_and_huge_images() -> None:
    sizes = {prediction_overlay(Image.new("RGB", (w, h)), entries(2, w, h)).size for w, h in ((40, 30), (4000, 3000))}
    assert len(sizes) == 1


def test_prediction_overlay_takes_the_point_in_pixels_of_the_image() -> None:
    """Twice the image and twice the point give the same sheet."""
    small = Image.new("RGB", (200, 150), (90, 90, 90))
    large = small.resize((400, 300))
    values = np.zeros((3, 4))
    one = prediction_overlay(small, [Entry("dog", 0.5, values, (50, 75))])
    two = prediction_overlay(large, [Entry("dog", 0.5, values, (100, 150))])
    assert one == two
    assert one != prediction_overlay(large, [Entry("dog", 0.5, values, (50, 75))])
    assert one != prediction_overlay(large, [Entry("dog", 0.5, values)])


def test_prediction_overlay_shows_name_and_score() -> None:
    image, values = Image.new("RGB", (200, 150)), np.zeros((3, 4))
    sheets = [prediction_overlay(image, [Entry(n, s, values)]) for n, s in (("dog", 0.5), ("cat", 0.5), ("dog", 0.9))]
    assert sheets[0].size == sheets[1].size == sheets[2].size
    assert sheets[0] != sheets[1] and sheets[0] != sheets[2]
    prediction_overlay(image, [Entry("two\nlines " * 30, 0.5, values)])


@pytest.mark.parametrize("size", [(500, 332), (500, 375), (375, 500), (640, 360), (1600, 900)])
def test_image_and_two_classes_stand_in_one_row(size: tuple[int, int]) -> None:
    one, two = (prediction_overlay(Image.new("RGB", size), entries(count, *size)) for count in (1, 2))
    assert two.height == one.height
    assert two.width / one.width == pytest.approx(3 / 2, abs=0.02)


def test_rows_and_columns_fit_their_largest_image() -> None:
    flat, high, narrow = (Image.new("RGB", size, (90, 90, 90)) for size in ((400, 50), (400, 300), (200, 50)))
    sheet = np.asarray(contact_sheet([flat, narrow, high, narrow], 2, side=None))
    ink = (sheet == 90).all(axis=2)
    rows, columns = (np.flatnonzero(np.diff(ink.any(axis=axis).astype(int))) + 1 for axis in (1, 0))
    assert (rows[1::2] - rows[::2]).tolist() == [50, 300]
    assert (columns[1::2] - columns[::2]).tolist() == [400, 200]
    gaps = {*np.diff(rows)[1::2].tolist(), *np.diff(columns)[1::2].tolist(), int(rows[0]), int(columns[0])}
    assert len(gaps) == 1 and max(gaps) < 30


def test_contact_sheet() -> None:
    images = [Image.new("RGB", size, (90, 90, 90)) for size in ((100, 50), (50, 100), (600, 600), (8, 8))]
    plain = contact_sheet(images, 2, side=200)
    named = contact_sheet(images, 2, ["a", "b", "c", "d"], side=200)
    assert plain.width == named.width and named.height > plain.height > 2 * 200
    assert contact_sheet(images, 4).height < contact_sheet(images, 1).height
    assert contact_sheet(images[:1], 5).size == contact_sheet(images[:1], 1).size


def test_captions_are_aligned_with_their_images() -> None:
    narrow, wide = Image.new("RGB", (100, 200)), Image.new("RGB", (200, 100))
    plain, named = (
        np.asarray(contact_sheet([narrow, wide], 1, captions, side=200), int) for captions in (["", ""], ["H", "H"])
    )
    text = [np.nonzero((part != part[0, 0]).any(axis=(0, 2)))[0][0] for part in (named[216:230], named[-38:-14])]
    assert plain.shape[1] == named.shape[1] == 224
    assert text[0] == pytest.approx(12 + 50, abs=3) and text[1] == pytest.approx(12, abs=3)


def test_bad_contact_sheets_are_rejected() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([], 2)
    with pytest.raises(ValueError, match=r"columns.*0"):
        contact_sheet([GREY], 0)
    with pytest.raises(ValueError, match=r"one per image, 1; got 2"):
        contact_sheet([GREY], 1, ["a", "b"])
