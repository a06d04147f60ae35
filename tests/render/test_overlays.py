"""Images of results: sizes, palettes, positions, unmodified inputs, errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from wildcat import render
from wildcat.render.canvas import as_pil
from wildcat.render.colours import class_colours, heat_palette, oklch

GREY = np.full((60, 90, 3), 128, np.uint8)


def ramp(width: int = 64) -> np.ndarray:
    return np.linspace(-3.0, 5.0, width, dtype=np.float32)[None]


def luminance(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=float) @ [0.2126, 0.7152, 0.0722]


# ---- Colours ------------------------------------------------------------------------------------------------------


def test_oklch_known_colours() -> None:
    """Published OKLCH coordinates of the sRGB primaries."""
    known = {(1.0, 0.0, 0.0): (255, 255, 255), (0.0, 0.0, 0.0): (0, 0, 0), (0.62796, 0.25768, 29.234): (255, 0, 0)}
    known |= {(0.86644, 0.29483, 142.495): (0, 255, 0), (0.45201, 0.31321, 264.052): (0, 0, 255)}
    for coordinates, expected in known.items():
        np.testing.assert_allclose(oklch(*coordinates).astype(int), expected, atol=1)


def test_oklch_broadcasts() -> None:
    assert oklch([[0.3], [0.6]], 0.1, [0, 120, 240]).shape == (2, 3, 3)


def test_heat_palette_is_ordered() -> None:
    palette = heat_palette().astype(float)
    assert palette.shape == (256, 4)
    encoded = palette[:, :3] / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16  # CIE L*, 0 to 100
    assert (np.diff(lightness) > 0).all() and lightness[-1] - lightness[0] > 60
    assert (np.diff(palette[:, 3]) >= 0).all() and (palette[0, 3], palette[-1, 3]) == (0, 255)


def test_class_colours_are_distinct_and_stable() -> None:
    colours = class_colours(20).astype(int)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=2) + 1e9 * np.eye(20)
    assert distances.min() > 20 and distances[:8, :8].min() > 60
    np.testing.assert_array_equal(class_colours(5), colours[:5])


def test_voc_palette_known_values() -> None:
    """The twenty-one colours and the void of the PASCAL VOC development kit."""
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 5: (128, 0, 128)}
    known |= {6: (0, 128, 128), 7: (128, 128, 128), 8: (64, 0, 0), 9: (192, 0, 0), 10: (64, 128, 0), 11: (192, 128, 0)}
    known |= {12: (64, 0, 128), 13: (192, 0, 128), 14: (64, 128, 128), 15: (192, 128, 128), 16: (0, 64, 0)}
    known |= {17: (128, 64, 0), 18: (0, 192, 0), 19: (128, 192, 0), 20: (0, 64, 128), 255: (224, 224, 192)}
    palette = render.voc_palette()
    assert palette.shape == (256, 3) and palette.dtype == np.uint8
    for label, colour in known.items():
        assert tuple(palette[label]) == colour
    assert len({tuple(c) for c in palette}) == 256


def test_voc_palette_equals_that_of_real_masks(real_data) -> None:
    folder = real_data / "voc07-mini" / "VOCdevkit" / "VOC2007" / "SegmentationClass"
    with Image.open(sorted(folder.glob("*.png"))[0]) as mask:
        stored = np.array(mask.getpalette()).reshape(-1, 3)
    np.testing.assert_array_equal(render.voc_palette()[: len(stored)], stored)


# ---- Heatmaps -----------------------------------------------------------------------------------------------------


def test_heatmap_keeps_the_size_and_is_transparent_where_it_is_low() -> None:
    overlay = render.heatmap_overlay(GREY, ramp())
    assert (overlay.mode, overlay.size) == ("RGB", (90, 60))
    shown = np.asarray(overlay)
    np.testing.assert_array_equal(shown[:, :9], GREY[:, :9])
    high = heat_palette()[-1, :3].astype(float)
    np.testing.assert_allclose(shown[30, -1], 128 + (high - 128) * 0.85, atol=3)


def test_heatmap_peak_lies_at_the_centre_of_its_cell() -> None:
    values = np.zeros((3, 5))
    values[1, 3] = 1.0
    shown = np.asarray(render.heatmap_overlay(np.zeros((60, 100, 3), np.uint8), values)).sum(2)
    y, x = np.nonzero(shown == shown.max())
    assert (x.mean() + 0.5, y.mean() + 0.5) == pytest.approx((70, 30), abs=1.0)  # (3 + 0.5) * 20, (1 + 0.5) * 20


def test_heatmaps_start_where_the_model_is_undecided() -> None:
    for values, floor in (([[-4, 0, 2]], 0), ([[1, 2, 3]], 1), ([[-3, -2, 0]], -3), ([[0, 0, 0]], 0)):
        assert render.undecided(np.array(values)) == floor
    image = np.full((100, 300, 3), 128, np.uint8)
    with_negative, without = (
        np.asarray(render.prediction_overlay(image, [render.Entry("cat", 0.9, np.array([[low, 0.0, 2.0]]))]))
        for low in (-4.0, 0.0)
    )
    np.testing.assert_array_equal(with_negative, without)  # negative evidence does not colour neutral regions


def test_heatmap_common_range() -> None:
    low, high = np.array([[0.0, 1.0]]), np.array([[0.0, 4.0]])
    assert render.heatmap_overlay(GREY, low) == render.heatmap_overlay(GREY, high)  # each to its own range
    assert render.heatmap_overlay(GREY, high, vmin=0, vmax=8) == render.heatmap_overlay(GREY, low, vmin=0, vmax=2)
    assert render.heatmap_overlay(GREY, low, vmin=0, vmax=4) != render.heatmap_overlay(GREY, high, vmin=0, vmax=4)
    np.testing.assert_array_equal(np.asarray(render.heatmap_overlay(GREY, low, vmin=5, vmax=9)), GREY)


@pytest.mark.parametrize("values", [np.full((4, 4), 3.0), np.zeros((1, 1))])
def test_a_constant_map_does_not_change_the_image(values: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(render.heatmap_overlay(GREY, values)), GREY)


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=st.floats(-1e6, 1e6, width=32)
    )
)
def test_any_finite_map_is_accepted(values: np.ndarray) -> None:
    assert render.heatmap_overlay(GREY, values).size == (90, 60)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (np.zeros((1, 4, 4)), {}, r"shape \(h, w\).*\(1, 4, 4\)"),
        (np.zeros((0, 4)), {}, r"\(0, 4\)"),
        (np.array([[0.0, np.nan]]), {}, "not finite"),
        (np.array([[0.0, 1.0]]), {"opacity": 1.5}, "opacity.*1.5"),
    ],
)
def test_bad_heatmaps_are_rejected(values: np.ndarray, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render.heatmap_overlay(GREY, values, **options)


# ---- Points -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("background", [0, 64, 128, 192, 255])
def test_a_point_is_visible_on_any_background_and_centred(background: int) -> None:
    plain = np.full((120, 160, 3), background, np.uint8)
    shown = luminance(render.draw_points(plain, [(70.5, 40.5)]))
    changed = np.abs(shown - background) > 60
    y, x = np.nonzero(changed)
    assert changed.sum() > 30
    assert (x.mean() + 0.5, y.mean() + 0.5) == pytest.approx((70.5, 40.5), abs=0.5)
    assert np.hypot(x - 70, y - 40).max() < 12


def test_points_anywhere_and_none_at_all() -> None:
    np.testing.assert_array_equal(np.asarray(render.draw_points(GREY, [])), GREY)
    np.testing.assert_array_equal(np.asarray(render.draw_points(GREY, np.zeros((0, 2)), [])), GREY)
    assert render.draw_points(GREY, [(0, 0), (90, 60), (-50, 300)], ["a", "b", "c"]).size == (90, 60)


def test_labels_lie_within_the_image_and_do_not_overlap() -> None:
    plain = np.zeros((300, 400, 3), np.uint8)
    shown = render.draw_points(plain, [(395, 150), (5, 150)], ["dog 97 %", "cat 12 %"])
    labels = np.asarray(shown).min(2) > 200
    assert labels[:, :200].sum() == pytest.approx(labels[:, 200:].sum(), rel=0.2)  # one on either side, complete
    together = np.asarray(render.draw_points(plain, [(200, 150), (204, 150)], ["dog 97 %", "cat 12 %"])).min(2) > 200
    assert together.sum() > 0.9 * labels.sum()  # they do not overlap


def test_a_label_too_large_for_the_image_is_omitted() -> None:
    tiny = np.zeros((16, 16, 3), np.uint8)
    assert render.draw_points(tiny, [(8, 8)], ["a long name"]) == render.draw_points(tiny, [(8, 8)])


@pytest.mark.parametrize(
    ("points", "labels", "message"),
    [
        ([1.0, 2.0], None, r"\(K, 2\), not \(2,\)"),
        ([[1.0, 2.0, 3.0]], None, r"\(1, 3\)"),
        ([[np.nan, 2.0]], None, "not finite"),
        ([[1.0, 2.0]], ["a", "b"], r"one per point, 1; got 2"),
    ],
)
def test_bad_points_are_rejected(points: list, labels: list[str] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render.draw_points(GREY, points, labels)


def test_boxes_are_outlined_at_their_edges() -> None:
    shown = np.asarray(render.draw_boxes(GREY, [(20, 10, 60, 40)]))
    white = (shown == 255).all(axis=2)
    y, x = np.nonzero(white)
    assert (x.min(), y.min(), x.max() + 1, y.max() + 1) == (20, 10, 60, 40)
    np.testing.assert_array_equal(shown[15:35, 25:55], GREY[15:35, 25:55])  # the inside
    with pytest.raises(ValueError, match=r"\(B, 4\), not \(1, 2\)"):
        render.draw_boxes(GREY, [(1, 2)])


@pytest.mark.parametrize("factor", [1, 2, 5])
def test_class_overlay_scales_boxes_and_points_of_the_original(factor: int) -> None:
    """Positions in a larger original give the same overlay of the same view."""
    values = ramp()
    expected = render.heatmap_overlay(GREY, values, vmin=0.0)
    expected = render.draw_points(render.draw_boxes(expected, [(20, 10, 60, 40)]), [(30.0, 20.0)])
    boxes = np.array([(20, 10, 60, 40)]) * factor
    size = (90 * factor, 60 * factor)
    assert expected == render.class_overlay(GREY, values, size=size, boxes=boxes, points=[(30 * factor, 20 * factor)])
    assert render.class_overlay(GREY, values, size=size) == render.heatmap_overlay(GREY, values, vmin=0.0)


@pytest.mark.parametrize(
    ("size", "bounds", "expected"),
    [
        ((400, 300), (200, 1), (200, 150)),
        ((300, 400), (200, 1), (150, 200)),
        ((40, 30), (200, 1), (40, 30)),
        ((40, 30), (200, 80), (80, 60)),
        ((1000, 1), (100, 1), (100, 1)),
    ],
)
def test_scaled(size: tuple[int, int], bounds: tuple[int, int], expected: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    view = render.scaled(image, bounds[0], smallest=bounds[1])
    assert view.size == expected and view is not image


# ---- Masks --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_mask_png_round_trip(tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray) -> None:
    path = tmp_path_factory.mktemp("masks") / "mask.png"
    render.mask_png(labels).save(path)
    with Image.open(path) as stored:
        assert stored.mode == "P"
        np.testing.assert_array_equal(np.array(stored), labels)
        np.testing.assert_array_equal(np.array(stored.convert("RGB")), render.voc_palette()[labels])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((2, 2, 1), np.uint8), r"\(2, 2, 1\)"),
        (np.zeros((2, 2)), "whole numbers"),
        (np.array([[256]]), "256"),
        (np.array([[-1]]), "-1"),
    ],
)
def test_bad_label_maps_are_rejected(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render.mask_png(labels)


def test_mask_overlay_has_tint_outline_and_legend() -> None:
    labels = np.zeros((300, 400), np.int64)
    labels[100:200, 100:300] = 2
    grey = np.full((300, 400, 3), 128, np.uint8)
    shown = np.asarray(render.mask_overlay(grey, labels, ["cat", "dog"])).astype(int)
    colour = class_colours(2)[1].astype(int)
    assert shown.shape[1] == 400 and shown.shape[0] > 300  # the legend lies below
    np.testing.assert_allclose(shown[150, 200], (128 + colour) / 2, atol=2)
    np.testing.assert_array_equal(shown[50, 50], [128, 128, 128])
    np.testing.assert_allclose(shown[100, 200], colour, atol=12)  # the outline
    assert (np.abs(shown[300:] - colour).sum(2) < 6).any()  # the chip of the class in the mask
    assert not (np.abs(shown[300:] - class_colours(2)[0]).sum(2) < 6).any()


def test_mask_overlay_without_objects_or_with_void() -> None:
    grey = np.full((330, 330, 3), 128, np.uint8)
    np.testing.assert_array_equal(np.asarray(render.mask_overlay(grey, np.zeros((330, 330), int), ["cat"])), grey)
    tinted = np.asarray(render.mask_overlay(grey, np.full((330, 330), 255), ["cat"]))
    assert tinted.shape == grey.shape and (tinted > 150).all()


@pytest.mark.parametrize(("side", "shown"), [(32, 320), (500, 500), (2000, render.LARGEST_SIDE)])
def test_mask_overlay_scales_the_image(side: int, shown: int) -> None:
    labels = np.ones((side // 2, side), np.uint8)
    overlay = render.mask_overlay(np.zeros((side // 2, side, 3), np.uint8), labels, ["cat"])
    assert overlay.width == shown and overlay.height > shown // 2


def test_mask_overlay_with_many_and_long_names() -> None:
    labels = np.arange(1, 31, dtype=np.uint8).reshape(5, 6).repeat(64, 0).repeat(64, 1)
    overlay = render.mask_overlay(
        np.zeros((320, 384, 3), np.uint8), labels, [f"class {'long ' * 20}{i}" for i in range(30)]
    )
    assert overlay.width == 384 and overlay.height > 320 + 30 * 13


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.zeros((60, 91), int), r"\(60, 91\).*\(60, 90\)"), (np.full((60, 90), 2), "label 2.*1 classes")],
)
def test_bad_mask_overlays_are_rejected(labels: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        render.mask_overlay(GREY, labels, ["cat"])


# ---- All functions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["array", "image"])
def test_inputs_are_not_modified(kind: str) -> None:
    array = np.full((340, 360, 3), 77, np.uint8)
    image = array if kind == "array" else Image.fromarray(array)
    values, labels = np.arange(12.0).reshape(3, 4), np.ones((340, 360), np.uint8)
    points = np.array([[30.0, 20.0]])
    render.heatmap_overlay(image, values)
    render.draw_points(image, points, ["dog"])
    render.mask_overlay(image, labels, ["dog"])
    render.prediction_overlay(image, [render.Entry("dog", 0.5, values, (30, 20))])
    render.contact_sheet([image], 1, ["dog"], side=360)
    mask = render.mask_png(labels)
    mask.putpixel((0, 0), 9)
    assert (np.asarray(image) == 77).all()
    assert (values == np.arange(12.0).reshape(3, 4)).all() and (labels == 1).all() and (points == [[30, 20]]).all()


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_images_of_any_mode(mode: str) -> None:
    assert render.heatmap_overlay(Image.new(mode, (30, 20)), ramp()).mode == "RGB"


@pytest.mark.parametrize("array", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3))])
def test_bad_images_are_rejected(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"uint8 array \(H, W, 3\), not"):
        as_pil(array)
