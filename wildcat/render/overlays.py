"""Heatmaps, boxes and points over an image.

Images are PIL images or uint8 arrays (H, W, 3). Inputs are not modified; results are new RGB images. Points are (x, y)
in pixels; pixel i covers [i, i + 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from wildcat.render.canvas import PAPER, SUPERSAMPLING, TEXT, ImageLike, as_pil, rounded
from wildcat.render.colours import Colour, heat_palette
from wildcat.render.text import one_line

_Box = tuple[float, float, float, float]  # x1, y1, x2, y2

POINT_COLOUR: Colour = (22, 38, 92)
_SMALLEST_RANGE = 1e-30  # of a map with visible values: CPUs may flush much smaller numbers to 0


def undecided(class_maps: npt.ArrayLike) -> float:
    """The value at which a heatmap starts: 0 if the maps have both signs, else their minimum.

    Class maps are evidence: positive values speak for the class, negative ones against it, and at 0 the model is
    undecided. A heatmap that started at the minimum would colour neutral regions of an image in which any other region
    speaks against the class.

    Args:
        class_maps: array of any shape, any unit.

    >>> undecided([[-4.0, 0.0, 2.0]]), undecided([[1.0, 3.0]])
    (0.0, 1.0)
    """
    low, high = float(np.min(class_maps)), float(np.max(class_maps))
    return 0.0 if low < 0 < high else low


def heatmap_overlay(
    image: ImageLike,
    class_map: npt.ArrayLike,
    *,
    opacity: float = 0.85,
    vmin: float | None = None,
    vmax: float | None = None,
) -> Image.Image:
    """The image with a class map over it as a heatmap, upsampled bilinearly to the size of the image.

    Args:
        image: PIL image, or uint8 array (H, W, 3).
        class_map: (h, w), any unit, finite.
        opacity: of the highest values, 0 to 1; lower values are more transparent.
        vmin: value of the lowest colour; None is the map's minimum. Set both bounds to compare several maps.
        vmax: value of the highest colour; None is the map's maximum. If it is not above ``vmin``, the heatmap is empty.

    Returns:
        An RGB image of the size of ``image``.

    Raises:
        ValueError: a map that is not (h, w), empty or not finite; an opacity outside [0, 1].

    >>> heatmap_overlay(Image.new("RGB", (64, 48)), [[0.0, 1.0], [0.5, 0.2]]).size
    (64, 48)
    """
    canvas = as_pil(image)
    values = np.asarray(class_map, dtype=np.float32)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"class_map must have the shape (h, w) with at least one cell, not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("class_map holds values that are not finite")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must lie in [0, 1], not {opacity}")
    low = float(values.min()) if vmin is None else vmin
    high = float(values.max()) if vmax is None else vmax
    level = np.clip((values - low) / (high - low), 0, 1) if high - low > _SMALLEST_RANGE else np.zeros_like(values)
    enlarged = np.asarray(Image.fromarray(level).resize(canvas.size, Image.Resampling.BILINEAR))
    heat = heat_palette()[np.round(enlarged * 255).astype(np.uint8)].astype(np.float32)
    alpha = heat[..., 3:] * np.float32(opacity / 255)
    ground = np.asarray(canvas, dtype=np.float32)
    return Image.fromarray(np.round(ground + (heat[..., :3] - ground) * alpha).astype(np.uint8))


def class_overlay(
    view: ImageLike,
    class_map: npt.ArrayLike,
    *,
    size: tuple[int, int],
    boxes: npt.ArrayLike = (),
    points: npt.ArrayLike = (),
    opacity: float = 0.85,
) -> Image.Image:
    """The evidence for a class over a scaled image: heatmap, boxes, points.

    The heatmap starts where the model is undecided, see :func:`undecided`.

    Args:
        view: the image at the scale at which it is shown: PIL image, or uint8 array (H, W, 3).
        class_map: (h, w), any unit, finite.
        size: (width, height) of the original image. Boxes and points refer to its pixels.
        boxes: (B, 4), x1, y1, x2, y2, pixel edges.
        points: (K, 2), x and y.
        opacity: of the highest values, 0 to 1.

    Returns:
        An RGB image of the size of ``view``.

    Raises:
        ValueError: as :func:`heatmap_overlay`, :func:`draw_boxes` and :func:`draw_points`.

    >>> view = Image.new("RGB", (64, 48))
    >>> class_overlay(view, [[0.0, 1.0]], size=(640, 480), points=[(320, 240)]).size
    (64, 48)
    """
    canvas = heatmap_overlay(view, class_map, opacity=opacity, vmin=undecided(class_map))
    scale = np.array([canvas.width / size[0], canvas.height / size[1]])
    boxes, points = np.asarray(boxes, dtype=np.float64), np.asarray(points, dtype=np.float64)
    if boxes.size:
        canvas = draw_boxes(canvas, boxes * np.tile(scale, 2))
    return draw_points(canvas, points * scale) if points.size else canvas


def draw_boxes(image: ImageLike, boxes: npt.ArrayLike) -> Image.Image:
    """The image with the outline of every box: white between two dark lines, visible on any image.

    Args:
        image: PIL image, or uint8 array (H, W, 3).
        boxes: (B, 4), x1, y1, x2, y2 in pixels of the image, pixel edges: a box of pixel 0 alone is 0, 0, 1, 1.

    Returns:
        An RGB image of the size of ``image``.

    Raises:
        ValueError: boxes that are not (B, 4).

    >>> draw_boxes(Image.new("RGB", (64, 48)), [(10, 10, 50, 40)]).getpixel((10, 20))
    (255, 255, 255)
    """
    canvas = as_pil(image)
    array = np.asarray(boxes, dtype=np.float64)
    if array.size and (array.ndim != 2 or array.shape[1] != 4):
        raise ValueError(f"boxes must have the shape (B, 4), not {array.shape}")
    draw = ImageDraw.Draw(canvas)
    for x1, y1, x2, y2 in array.reshape(-1, 4).tolist():
        for colour, width, margin in (((20, 20, 28), 4, 1), ((255, 255, 255), 2, 0)):
            left, top = max(x1 - margin, 0), max(y1 - margin, 0)
            right, bottom = min(x2 - 1 + margin, canvas.width - 1), min(y2 - 1 + margin, canvas.height - 1)
            if right > left and bottom > top:
                draw.rectangle((left, top, right, bottom), outline=colour, width=width)
    return canvas


def draw_points(image: ImageLike, points: npt.ArrayLike, labels: Sequence[str] | None = None) -> Image.Image:
    """The image with a ring and a cross at every point, and a label beside it.

    Args:
        image: PIL image, or uint8 array (H, W, 3).
        points: (K, 2), x and y in pixels of the image.
        labels: the K labels, such as ``"dog 97 %"``. A label wider than the image is omitted.

    Returns:
        An RGB image of the size of ``image``.

    Raises:
        ValueError: points that are not (K, 2) or not finite, or another number of labels.

    >>> draw_points(Image.new("RGB", (64, 48)), [(20.5, 30.5)], ["dog"]).size
    (64, 48)
    """
    canvas = as_pil(image)
    array = np.asarray(points, dtype=np.float64)
    if array.size and (array.ndim != 2 or array.shape[1] != 2):
        raise ValueError(f"points must have the shape (K, 2), not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("points hold values that are not finite")
    centres: list[tuple[float, float]] = [(x, y) for x, y in array.reshape(-1, 2).tolist()]
    if labels is not None and len(labels) != len(centres):
        raise ValueError(f"labels must be one per point, {len(centres)}; got {len(labels)}")
    radius = min(max(0.034 * math.sqrt(canvas.width * canvas.height), 5.0), 150.0)
    for centre in centres:
        _draw_marker(canvas, centre, radius)
    if labels is not None:
        occupied = [(x - radius, y - radius, x + radius, y + radius) for x, y in centres]
        for centre, label in zip(centres, labels, strict=True):
            _draw_label(canvas, centre, radius, label, occupied)
    return canvas


def _draw_marker(image: Image.Image, centre: tuple[float, float], radius: float) -> None:
    """Draw a ring with a cross in it: dark blue with a white rim, and a dark outer rim that is visible on white."""
    x, y = centre
    reach = math.ceil(radius * 1.6)
    left, top = math.floor(x) - reach, math.floor(y) - reach
    side = (2 * reach + 1) * SUPERSAMPLING
    canvas = Image.new("RGBA", (side, side), (*POINT_COLOUR, 0))
    draw = ImageDraw.Draw(canvas)
    cx, cy, r = (x - left) * SUPERSAMPLING, (y - top) * SUPERSAMPLING, radius * SUPERSAMPLING

    def around(dx: float, dy: float) -> _Box:
        # Pillow includes the last pixel; without the -1 the marker would not be centred.
        return round(cx - dx), round(cy - dy), round(cx + dx) - 1, round(cy + dy) - 1

    for colour, width in (((20, 20, 28, 110), 0.52), ((255, 255, 255, 255), 0.42), ((*POINT_COLOUR, 255), 0.2)):
        half = width * r / 2
        arm = 0.42 * r + 0.6 * half
        draw.ellipse(around(r + half, r + half), outline=colour, width=round(2 * half))
        draw.rectangle(around(arm, half), fill=colour)
        draw.rectangle(around(half, arm), fill=colour)
    marker = canvas.reduce(SUPERSAMPLING)
    image.paste(marker, (left, top), marker)


def _draw_label(
    image: Image.Image, centre: tuple[float, float], radius: float, label: str, occupied: list[_Box]
) -> None:
    """Draw a label beside a marker, on the side where it overlaps the fewest occupied boxes, and add its own box.

    A label that does not fit into the image is omitted.
    """
    x, y = centre
    text, font = one_line(label, round(min(max(1.2 * radius, 11), 120)))
    ascent, descent = font.getmetrics()
    pad = round(0.45 * font.size)
    width, height = math.ceil(font.getlength(text)) + 2 * pad, ascent + descent + pad
    if width > image.width or height > image.height:
        return

    def box_at(left: float, top: float) -> _Box:
        left = round(min(max(left, 0), image.width - width))
        top = round(min(max(top, 0), image.height - height))
        return left, top, left + width, top + height

    def overlaps(box: _Box) -> int:
        return sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in occupied)

    distance = 1.7 * radius
    right, left = box_at(x + distance, y - height / 2), box_at(x - distance - width, y - height / 2)
    above, below = box_at(x - width / 2, y - distance - height), box_at(x - width / 2, y + distance)
    box = min(right, left, above, below, key=overlaps)  # the first of equals
    occupied.append(box)
    corner = (int(box[0]), int(box[1]))
    image.paste(PAPER, corner, rounded((width, height), height / 2).point(lambda v: v * 0.94))
    ImageDraw.Draw(image).text((corner[0] + pad, corner[1] + pad / 2), text, TEXT, font)
