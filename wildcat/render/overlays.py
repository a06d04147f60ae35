"""Arrays in, images out: heatmaps, points, masks, palettes.

Images are PIL images or uint8 arrays (H, W, 3); what comes in is never changed. Points are (x, y) in pixels of the
image they belong to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from wildcat.render.canvas import PAPER, SUPERSAMPLING, TEXT, ImageLike, as_pil, fitted, resized, rounded
from wildcat.render.colours import Colour, as_colour, class_colours, heat_palette
from wildcat.render.text import one_line

_Box = tuple[float, float, float, float]  # x1, y1, x2, y2

MARK: Colour = (22, 38, 92)
VOID = 255  # label of pixels that do not count
LARGEST_SIDE = 1280  # mask_overlay shows larger images reduced to this
_LEAST_RANGE = 1e-30  # of a map that shows heat: CPUs may take what is much smaller for 0
_SMALLEST_SIDE = 320  # the longer side of a small image is enlarged to this, so that a legend has room


# ---- Overlays of the size of the image --------------------------------------------------------------------------


def undecided(class_maps: npt.ArrayLike) -> float:
    """Where heat begins: at 0, where a model is undecided; at the lowest value of maps that are on one side of it.

    Stretched from the minimum instead, what speaks neither for nor against a class would be warm wherever something
    else speaks against it.
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
    """The image with a class map laid over it, enlarged bilinearly; the size of the image.

    Args:
        image: the image.
        class_map: (h, w), any unit, finite.
        opacity: of the highest values, 0 to 1; lower values are more transparent.
        vmin: value shown as lowest; the map's own minimum by default. Give both to compare maps with each other.
        vmax: value shown as highest; the map's own maximum by default. A map without a range shows no heat.

    Raises:
        ValueError: a map that is not (h, w), empty or not finite; an opacity outside [0, 1].
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
    level = np.clip((values - low) / (high - low), 0, 1) if high - low > _LEAST_RANGE else np.zeros_like(values)
    enlarged = np.asarray(Image.fromarray(level).resize(canvas.size, Image.Resampling.BILINEAR))
    heat = heat_palette()[np.round(enlarged * 255).astype(np.uint8)].astype(np.float32)
    alpha = heat[..., 3:] * np.float32(opacity / 255)
    ground = np.asarray(canvas, dtype=np.float32)
    return Image.fromarray(np.round(ground + (heat[..., :3] - ground) * alpha).astype(np.uint8))


def draw_points(image: ImageLike, points: npt.ArrayLike, labels: Sequence[str] | None = None) -> Image.Image:
    """The image with a ring and a cross at every point, and a tag beside it; the size of the image.

    Args:
        image: the image.
        points: (K, 2), x and y in pixels; pixel i covers [i, i + 1).
        labels: text of the K tags, such as ``"dog 97 %"``. A tag wider than the image is left out.

    Raises:
        ValueError: points that are not (K, 2), or another number of labels.
    """
    canvas = as_pil(image)
    array = np.asarray(points, dtype=np.float64)
    if array.size and (array.ndim != 2 or array.shape[1] != 2):
        raise ValueError(f"points must have the shape (K, 2), not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("points hold values that are not finite")
    spots: list[tuple[float, float]] = [(x, y) for x, y in array.reshape(-1, 2).tolist()]
    if labels is not None and len(labels) != len(spots):
        raise ValueError(f"{len(spots)} points need as many labels, not {len(labels)}")
    radius = min(max(0.034 * math.sqrt(canvas.width * canvas.height), 5.0), 150.0)
    for spot in spots:
        _stamp_mark(canvas, spot, radius)
    if labels is not None:
        taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in spots]
        for spot, label in zip(spots, labels, strict=True):
            _stamp_tag(canvas, spot, radius, label, taken)
    return canvas


def _stamp_mark(image: Image.Image, spot: tuple[float, float], radius: float) -> None:
    """A ring with a cross in it: the mark's colour inside, a white rim, and a dark one that shows on white."""
    x, y = spot
    reach = math.ceil(radius * 1.6)
    left, top = math.floor(x) - reach, math.floor(y) - reach
    side = (2 * reach + 1) * SUPERSAMPLING
    canvas = Image.new("RGBA", (side, side), (*MARK, 0))
    draw = ImageDraw.Draw(canvas)
    cx, cy, r = (x - left) * SUPERSAMPLING, (y - top) * SUPERSAMPLING, radius * SUPERSAMPLING

    def around(dx: float, dy: float) -> _Box:
        # Pillow fills up to and with the last pixel: one less keeps the mark centred.
        return round(cx - dx), round(cy - dy), round(cx + dx) - 1, round(cy + dy) - 1

    for colour, width in (((20, 20, 28, 110), 0.52), ((255, 255, 255, 255), 0.42), ((*MARK, 255), 0.2)):
        half = width * r / 2
        arm = 0.42 * r + 0.6 * half
        draw.ellipse(around(r + half, r + half), outline=colour, width=round(2 * half))
        draw.rectangle(around(arm, half), fill=colour)
        draw.rectangle(around(half, arm), fill=colour)
    mark = canvas.reduce(SUPERSAMPLING)
    image.paste(mark, (left, top), mark)


def _stamp_tag(image: Image.Image, spot: tuple[float, float], radius: float, label: str, taken: list[_Box]) -> None:
    """A tag beside a mark, where it covers the fewest of the boxes taken, to which its own is added.

    A tag that does not fit into the image is left out.
    """
    x, y = spot
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

    def covered(box: _Box) -> int:
        return sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)

    away = 1.7 * radius
    right, left = box_at(x + away, y - height / 2), box_at(x - away - width, y - height / 2)
    above, below = box_at(x - width / 2, y - away - height), box_at(x - width / 2, y + away)
    box = min(right, left, above, below, key=covered)  # the first of equals
    taken.append(box)
    corner = (int(box[0]), int(box[1]))
    image.paste(PAPER, corner, rounded((width, height), height / 2).point(lambda v: v * 0.94))
    ImageDraw.Draw(image).text((corner[0] + pad, corner[1] + pad / 2), text, TEXT, font)


# ---- Masks --------------------------------------------------------------------------------------------------------


def voc_palette() -> npt.NDArray[np.uint8]:
    """The 256 colours (256, 3) of PASCAL VOC masks.

    Bits 0, 3, 6 of a label give red its highest bits first; bits 1, 4, 7 green; bits 2, 5 blue (the devkit's
    ``VOClabelcolormap``): class 1 is (128, 0, 0), void 255 is (224, 224, 192).
    """
    labels = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for digit in range(3):
        for channel in range(3):
            bit = (labels >> (3 * digit + channel)) & 1
            palette[:, channel] |= (bit << (7 - digit)).astype(np.uint8)
    return palette


def mask_png(label_map: npt.ArrayLike) -> Image.Image:
    """A label map (H, W) as an image whose pixels hold the labels.

    It has the PASCAL VOC palette (mode "P", labels up to 255), or is grey of 16 bits where the map is uint16.
    """
    labels = _as_labels(label_map)
    image = Image.fromarray(labels)
    if labels.dtype == np.uint8:
        image.putpalette(voc_palette().tobytes())
    return image


def mask_overlay(
    image: ImageLike, label_map: npt.ArrayLike, classes: Sequence[str], *, opacity: float = 0.5
) -> Image.Image:
    """The image with its labelled regions tinted and outlined, above a legend of the classes that are there.

    Args:
        image: the image; shown with its longer side between 320 and ``LARGEST_SIDE`` pixels.
        label_map: (H, W) of the size of the image: 0 background, 1 to C classes, 255 void (veiled in grey); where it
            is uint16, there is no void.
        classes: the C names.
        opacity: of the tint, 0 to 1; outlines are always opaque.

    Raises:
        ValueError: a map that does not fit the image, or a label without a name.
    """
    canvas = as_pil(image)
    labels = _as_labels(label_map)
    if labels.shape != (canvas.height, canvas.width):
        raise ValueError(f"label_map is {labels.shape} and the image {(canvas.height, canvas.width)}; they must agree")
    void = VOID if labels.dtype == np.uint8 else None
    present = [int(v) for v in np.unique(labels) if v != 0]
    unnamed = [v for v in present if v > len(classes) and v != void]
    if unnamed:
        raise ValueError(f"label_map holds the label {unnamed[0]}, but there are {len(classes)} classes")
    size = fitted(canvas.size, _SMALLEST_SIDE, LARGEST_SIDE)
    view = resized(canvas, size)
    sigma = max(1.0, max(size) / 400)  # of the blur that rounds the steps of pixels off
    colours = class_colours(len(classes))
    legend = []
    for label in present:
        colour = (225, 225, 228) if label == void else as_colour(colours[label - 1])
        region = Image.fromarray(((labels == label) * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
        soft = region.filter(ImageFilter.GaussianBlur(sigma))
        view.paste(colour, (0, 0), soft.point(lambda v: v * opacity))
        if label != void:
            view.paste(colour, (0, 0), soft.point(lambda v: 255 * min(max(2.4 - abs(v / 255 - 0.5) * 7.5, 0), 1)))
            legend.append((classes[label - 1], colour))
    return _with_legend(view, legend)


def _with_legend(view: Image.Image, legend: Sequence[tuple[str, Colour]]) -> Image.Image:
    """The image above rows of colour chips with names; as many as fit in a row."""
    if not legend:
        return view
    size = round(min(max(max(view.size) / 40, 13), 22))
    chip, row = round(size * 0.9), round(size * 1.8)
    pad = round(size * 0.8)
    places, x, y = [], pad, pad // 2
    for name, colour in legend:
        text, font = one_line(name, size, view.width - 2 * pad - chip * 1.5)
        wide = round(chip * 1.5 + font.getlength(text))
        if x > pad and x + wide > view.width - pad:
            x, y = pad, y + row
        places.append((x, y, text, font, colour))
        x += wide + round(size * 1.4)
    sheet = Image.new("RGB", (view.width, view.height + y + row + pad // 2), PAPER)
    sheet.paste(view, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for x, y, text, font, colour in places:
        middle = view.height + y + row / 2
        sheet.paste(colour, (x, round(middle - chip / 2)), rounded((chip, chip), chip * 0.3))
        draw.text((x + chip * 1.5, middle), text, TEXT, font, anchor="lm")
    return sheet


def _as_labels(label_map: npt.ArrayLike) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """The labels as bytes, or as they are where they are uint16: masks of more classes than bytes can number."""
    labels = np.asarray(label_map)
    if labels.ndim != 2 or labels.size == 0:
        raise ValueError(f"label_map must have the shape (H, W), not {labels.shape}")
    if labels.dtype == np.uint16:
        return labels
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() > 255:
        raise ValueError(
            f"label_map must hold whole numbers from 0 to 255, not {labels.dtype} {labels.min()}...{labels.max()}"
        )
    return labels.astype(np.uint8)
