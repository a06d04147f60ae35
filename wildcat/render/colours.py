"""Colours: OKLCH coordinates, the palette of heatmaps, one colour per class."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Colour = tuple[int, int, int]  # red, green, blue, 0 to 255


def oklch(lightness: npt.ArrayLike, chroma: npt.ArrayLike, hue: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Convert OKLCH coordinates to sRGB. Equal steps of lightness look equal.

    Source: Ottosson 2020, *A perceptual color space for image processing*, including the two matrices.

    Args:
        lightness: 0 (black) to 1 (white).
        chroma: 0 (grey) to about 0.3.
        hue: degrees; 30 is red, 110 yellow, 145 green, 260 blue. The three arguments broadcast.

    Returns:
        (..., 3) uint8; colours outside sRGB are clipped.

    >>> oklch([0.0, 1.0], 0.0, 0.0).tolist()
    [[0, 0, 0], [255, 255, 255]]
    """
    light, chroma, hue = np.broadcast_arrays(*(np.asarray(v, dtype=np.float64) for v in (lightness, chroma, hue)))
    a, b = chroma * np.cos(np.radians(hue)), chroma * np.sin(np.radians(hue))
    cone = np.stack([light, a, b], axis=-1) @ _OKLAB_TO_CONE.T
    linear = np.clip(cone**3 @ _CONE_TO_RGB.T, 0, 1)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours: npt.NDArray[np.uint8] = np.round(encoded * 255).astype(np.uint8)
    return colours


_OKLAB_TO_CONE = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_CONE_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


@cache
def heat_palette() -> npt.NDArray[np.uint8]:
    """The 256 colours of a heatmap, (256, 4) uint8 RGBA: violet, rose, amber, pale yellow.

    Lightness rises evenly, so the order of values is visible without colour vision. Opacity rises with the value, so
    that the image stays visible where the map is low.
    """
    t = np.linspace(0, 1, 256)
    stops = (0.0, 0.25, 0.5, 0.75, 1.0)
    hue = np.interp(t, stops, (290, 335, 380, 418, 460))
    chroma = np.interp(t, stops, (0.16, 0.2, 0.19, 0.17, 0.13))
    colours = oklch(0.36 + 0.56 * t, chroma, hue)
    alpha = np.round(255 * _smooth_step((t - 0.15) / 0.65)).astype(np.uint8)
    palette = np.concatenate([colours, alpha[:, None]], axis=1)
    palette.setflags(write=False)
    return palette


def _smooth_step(t: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def class_colours(count: int) -> npt.NDArray[np.uint8]:
    """``count`` distinguishable colours, (count, 3) uint8, in a fixed order.

    The hue advances by the golden angle, so that the first few are always far apart; three lightnesses alternate.
    """
    index = np.arange(count)
    return oklch(0.78 - 0.12 * (index % 3), 0.15, 25 + 137.508 * index)


def as_colour(rgb: npt.NDArray[np.uint8]) -> Colour:
    """A colour (3,) as a tuple of integers, as Pillow expects it."""
    return int(rgb[0]), int(rgb[1]), int(rgb[2])
