"""Arrays in, pictures out: heatmaps, points, masks, palettes, and the sheets that ``wildcat predict`` writes.

Pictures are PIL images or uint8 arrays (H, W, 3); what comes in is never changed. Points are (x, y) in pixels of the
picture they belong to. Text uses the scalable font that comes with Pillow, which covers Latin letters.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from wildcat.colours import Colour, as_colour, class_colours, heat_palette

Picture = Image.Image | npt.NDArray[np.uint8]
_Box = tuple[float, float, float, float]  # x1, y1, x2, y2

PAPER: Colour = (250, 249, 247)
TEXT: Colour = (44, 46, 54)
QUIET: Colour = (134, 136, 146)
TRACK: Colour = (230, 229, 226)
MARK: Colour = (22, 38, 92)
BAR: Colour = (242, 108, 79)
VOID = 255  # label of pixels that do not count
LARGEST_SIDE = 1280  # mask_overlay shows larger pictures reduced to this
PANEL_AREA = 400 * 400  # pixels of a panel of prediction_overlay, whatever the shape of the picture
PANEL_SIDE = 800
_SMALLEST_SIDE = 320  # the longer side of a small picture is enlarged to this, so that a legend has room
_NARROWEST = 160  # a cell of a sheet, so that its caption has room
_SUPERSAMPLING = 4


# ---- Overlays of the size of the picture --------------------------------------------------------------------------


def undecided(class_maps: npt.ArrayLike) -> float:
    """Where heat begins: at 0, where a model is undecided; at the lowest value of maps that are on one side of it.

    Stretched from the minimum instead, what speaks neither for nor against a class would be warm wherever something
    else speaks against it.
    """
    low, high = float(np.min(class_maps)), float(np.max(class_maps))
    return 0.0 if low < 0 < high else low


def heatmap_overlay(
    image: Picture,
    class_map: npt.ArrayLike,
    *,
    opacity: float = 0.85,
    vmin: float | None = None,
    vmax: float | None = None,
) -> Image.Image:
    """The picture with a class map laid over it, enlarged bilinearly; the size of the picture.

    Args:
        image: the picture.
        class_map: (h, w), any unit, finite.
        opacity: of the highest values, 0 to 1; lower values are more transparent.
        vmin: value shown as lowest; the map's own minimum by default. Give both to compare maps with each other.
        vmax: value shown as highest; the map's own maximum by default. A map without a range shows no heat.

    Raises:
        ValueError: a map that is not (h, w), empty or not finite; an opacity outside [0, 1].
    """
    picture = as_picture(image)
    values = np.asarray(class_map, dtype=np.float32)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"class_map must have the shape (h, w) with at least one cell, not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("class_map holds values that are not finite")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must lie in [0, 1], not {opacity}")
    low = float(values.min()) if vmin is None else vmin
    high = float(values.max()) if vmax is None else vmax
    level = np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)
    enlarged = np.asarray(Image.fromarray(level).resize(picture.size, Image.Resampling.BILINEAR))
    heat = heat_palette()[np.round(enlarged * 255).astype(np.uint8)].astype(np.float32)
    alpha = heat[..., 3:] * np.float32(opacity / 255)
    ground = np.asarray(picture, dtype=np.float32)
    return Image.fromarray(np.round(ground + (heat[..., :3] - ground) * alpha).astype(np.uint8))


def draw_points(image: Picture, points: npt.ArrayLike, labels: Sequence[str] | None = None) -> Image.Image:
    """The picture with a ring and a cross at every point, and a tag beside it; the size of the picture.

    Args:
        image: the picture.
        points: (K, 2), x and y in pixels; pixel i covers [i, i + 1).
        labels: text of the K tags, such as ``"dog 97 %"``. A tag wider than the picture is left out.

    Raises:
        ValueError: points that are not (K, 2), or another number of labels.
    """
    picture = as_picture(image)
    array = np.asarray(points, dtype=np.float64)
    if array.size and (array.ndim != 2 or array.shape[1] != 2):
        raise ValueError(f"points must have the shape (K, 2), not {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("points hold values that are not finite")
    spots: list[tuple[float, float]] = [(x, y) for x, y in array.reshape(-1, 2).tolist()]
    if labels is not None and len(labels) != len(spots):
        raise ValueError(f"{len(spots)} points need as many labels, not {len(labels)}")
    radius = min(max(0.034 * math.sqrt(picture.width * picture.height), 5.0), 150.0)
    for spot in spots:
        _stamp_mark(picture, spot, radius)
    if labels is not None:
        taken = [(x - radius, y - radius, x + radius, y + radius) for x, y in spots]
        for spot, label in zip(spots, labels, strict=True):
            _stamp_tag(picture, spot, radius, label, taken)
    return picture


def _stamp_mark(picture: Image.Image, spot: tuple[float, float], radius: float) -> None:
    """A ring with a cross in it: the mark's colour inside, a white rim, and a dark one that shows on white."""
    x, y = spot
    reach = math.ceil(radius * 1.6)
    left, top = math.floor(x) - reach, math.floor(y) - reach
    side = (2 * reach + 1) * _SUPERSAMPLING
    canvas = Image.new("RGBA", (side, side), (*MARK, 0))
    draw = ImageDraw.Draw(canvas)
    cx, cy, r = (x - left) * _SUPERSAMPLING, (y - top) * _SUPERSAMPLING, radius * _SUPERSAMPLING

    def around(dx: float, dy: float) -> _Box:
        # Pillow fills up to and with the last pixel: one less keeps the mark centred.
        return round(cx - dx), round(cy - dy), round(cx + dx) - 1, round(cy + dy) - 1

    for colour, width in (((20, 20, 28, 110), 0.52), ((255, 255, 255, 255), 0.42), ((*MARK, 255), 0.2)):
        half = width * r / 2
        arm = 0.42 * r + 0.6 * half
        draw.ellipse(around(r + half, r + half), outline=colour, width=round(2 * half))
        draw.rectangle(around(arm, half), fill=colour)
        draw.rectangle(around(half, arm), fill=colour)
    mark = canvas.reduce(_SUPERSAMPLING)
    picture.paste(mark, (left, top), mark)


def _stamp_tag(picture: Image.Image, spot: tuple[float, float], radius: float, label: str, taken: list[_Box]) -> None:
    """A tag beside a mark, where it covers the fewest of the boxes taken, to which its own is added.

    A tag that does not fit into the picture is left out.
    """
    x, y = spot
    text = " ".join(label.split())
    font = _font(round(min(max(1.2 * radius, 11), 120)))
    ascent, descent = font.getmetrics()
    pad = round(0.45 * font.size)
    width, height = math.ceil(font.getlength(text)) + 2 * pad, ascent + descent + pad
    if width > picture.width or height > picture.height:
        return

    def box_at(left: float, top: float) -> _Box:
        left = round(min(max(left, 0), picture.width - width))
        top = round(min(max(top, 0), picture.height - height))
        return left, top, left + width, top + height

    def covered(box: _Box) -> int:
        return sum(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken)

    away = 1.7 * radius
    right, left = box_at(x + away, y - height / 2), box_at(x - away - width, y - height / 2)
    above, below = box_at(x - width / 2, y - away - height), box_at(x - width / 2, y + away)
    box = min(right, left, above, below, key=covered)  # the first of equals
    taken.append(box)
    corner = (int(box[0]), int(box[1]))
    picture.paste(PAPER, corner, _rounded((width, height), height / 2).point(lambda v: v * 0.94))
    ImageDraw.Draw(picture).text((corner[0] + pad, corner[1] + pad / 2), text, TEXT, font)


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
    """A label map (H, W) as a picture whose pixels hold the labels.

    It has the PASCAL VOC palette (mode "P", labels up to 255), or is grey of 16 bits where the map is uint16.
    """
    if isinstance(label_map, np.ndarray) and label_map.dtype == np.uint16 and label_map.ndim == 2:
        return Image.fromarray(label_map)
    picture = Image.fromarray(_as_labels(label_map))
    picture.putpalette(voc_palette().tobytes())
    return picture


def mask_overlay(
    image: Picture, label_map: npt.ArrayLike, classes: Sequence[str], *, opacity: float = 0.5
) -> Image.Image:
    """The picture with its labelled regions tinted and outlined, above a legend of the classes that are there.

    Args:
        image: the picture; shown with its longer side between 320 and ``LARGEST_SIDE`` pixels.
        label_map: (H, W) of the size of the picture: 0 background, 1 to C classes, 255 void (veiled in grey).
        classes: the C names.
        opacity: of the tint, 0 to 1; outlines are always opaque.

    Raises:
        ValueError: a map that does not fit the picture, or a label without a name.
    """
    picture = as_picture(image)
    labels = _as_labels(label_map)
    if labels.shape != (picture.height, picture.width):
        raise ValueError(
            f"label_map is {labels.shape} and the picture {(picture.height, picture.width)}; they must agree"
        )
    present = [int(v) for v in np.unique(labels) if v != 0]
    unnamed = [v for v in present if v > len(classes) and v != VOID]
    if unnamed:
        raise ValueError(f"label_map holds the label {unnamed[0]}, but there are {len(classes)} classes")
    size = _fitted(picture.size, _SMALLEST_SIDE, LARGEST_SIDE)
    view = _resized(picture, size)
    sigma = max(1.0, max(size) / 400)  # of the blur that rounds the steps of pixels off
    colours = class_colours(len(classes))
    legend = []
    for label in present:
        colour = (225, 225, 228) if label == VOID else as_colour(colours[label - 1])
        region = Image.fromarray(((labels == label) * 255).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
        soft = region.filter(ImageFilter.GaussianBlur(sigma))
        view.paste(colour, (0, 0), soft.point(lambda v: v * opacity))
        if label != VOID:
            view.paste(colour, (0, 0), soft.point(lambda v: 255 * min(max(2.4 - abs(v / 255 - 0.5) * 7.5, 0), 1)))
            legend.append((classes[label - 1], colour))
    return _with_legend(view, legend)


# ---- Sheets -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """What ``prediction_overlay`` shows of one class.

    Attributes:
        name: of the class.
        score: probability, 0 to 1.
        class_map: (h, w), any unit.
        point: (x, y) in pixels of the picture, or None.
    """

    name: str
    score: float
    class_map: npt.NDArray[np.floating]
    point: tuple[float, float] | None = None


def prediction_overlay(image: Picture, entries: Sequence[Entry], *, title: str = "picture") -> Image.Image:
    """One sheet: the picture, then a panel for each class with its heatmap, point, name and score in per cent.

    Panels have ``PANEL_AREA`` pixels whatever the size of the picture, but no side above ``PANEL_SIDE``.

    Args:
        image: the picture.
        entries: the classes to show, in order; may be empty.
        title: caption of the picture itself.
    """
    picture = as_picture(image)
    size = _panel_size(picture.size)
    view = _resized(picture, size)
    scale = (size[0] / picture.width, size[1] / picture.height)
    panels = [_Panel(view, title, None)]
    for entry in entries:
        panel = heatmap_overlay(view, entry.class_map, vmin=undecided(entry.class_map))
        if entry.point is not None:
            panel = draw_points(panel, [(entry.point[0] * scale[0], entry.point[1] * scale[1])])
        panels.append(_Panel(panel, entry.name, entry.score))
    return _grid(panels, _columns(len(panels), size))


def contact_sheet(
    pictures: Sequence[Picture], columns: int, captions: Sequence[str] | None = None, *, side: int = 256
) -> Image.Image:
    """Pictures of any shapes in rows, each within ``side`` pixels, with captions below.

    Raises:
        ValueError: no pictures, no columns, or another number of captions.
    """
    if not pictures:
        raise ValueError("a contact sheet needs at least one picture")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, not {columns}")
    if captions is not None and len(captions) != len(pictures):
        raise ValueError(f"{len(pictures)} pictures need as many captions, not {len(captions)}")
    views = [_resized(p, _fitted(p.size, side, side)) for p in map(as_picture, pictures)]
    return _grid([_Panel(v, c, None) for v, c in zip(views, captions or [""] * len(views), strict=True)], columns)


@dataclass(frozen=True, slots=True)
class _Panel:
    picture: Image.Image
    caption: str
    score: float | None


def _columns(count: int, size: tuple[int, int]) -> int:
    """Columns that bring a grid of ``count`` panels nearest to 16:10, empty places counting against it."""

    def badness(columns: int) -> float:
        rows = math.ceil(count / columns)
        shape = columns * max(size[0], _NARROWEST) / (rows * (size[1] + 50))
        return abs(math.log(shape / 1.6)) + 2 * (rows * columns - count) / count

    return min(range(1, count + 1), key=badness)


def _grid(panels: Sequence[_Panel], columns: int) -> Image.Image:
    """Panels in rows of equal cells on paper, each with rounded corners, its caption and its score below."""
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    cell_width = max(_NARROWEST, *(p.picture.width for p in panels))
    cell_height = max(p.picture.height for p in panels)
    font = _font(round(min(max(cell_width / 20, 13), 19)))
    gap = max(12, cell_width // 22)
    captioned = any(p.caption for p in panels)
    scored = any(p.score is not None for p in panels)
    line = round(font.size * 1.75) if captioned else 0
    foot = line + (round(font.size * 0.5) if scored else 0)
    width = columns * cell_width + (columns + 1) * gap
    height = rows * (cell_height + foot) + (rows + 1) * gap
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, panel in enumerate(panels):
        left = gap + (index % columns) * (cell_width + gap)
        top = gap + (index // columns) * (cell_height + foot + gap)
        corner = (left + (cell_width - panel.picture.width) // 2, top + (cell_height - panel.picture.height) // 2)
        sheet.paste(panel.picture, corner, _rounded(panel.picture.size, min(8.0, min(panel.picture.size) / 8)))
        middle = top + cell_height + line * 0.55
        score = "" if panel.score is None else f"{100 * panel.score:.0f} %"
        room = cell_width - (font.getlength(score) + font.size if score else 0)
        draw.text((left, middle), _shortened(panel.caption, font, room), TEXT if score else QUIET, font, anchor="lm")
        draw.text((left + cell_width, middle), score, QUIET, font, anchor="rm")
        if panel.score is not None:
            _score_bar(sheet, left, top + cell_height + line, cell_width, panel.score)
    return sheet


def _score_bar(sheet: Image.Image, left: int, top: int, width: int, score: float) -> None:
    """A thin bar that shows a score from 0 to 1."""
    sheet.paste(TRACK, (left, top), _rounded((width, 4), 2))
    filled = round(width * min(max(score, 0), 1))
    if filled >= 4:
        sheet.paste(BAR, (left, top), _rounded((filled, 4), 2))


def _with_legend(view: Image.Image, legend: Sequence[tuple[str, Colour]]) -> Image.Image:
    """The picture above rows of colour chips with names; as many as fit in a row."""
    if not legend:
        return view
    font = _font(round(min(max(max(view.size) / 40, 13), 22)))
    chip, row = round(font.size * 0.9), round(font.size * 1.8)
    pad = round(font.size * 0.8)
    places, x, y = [], pad, pad // 2
    for name, colour in legend:
        text = _shortened(name, font, view.width - 2 * pad - chip * 1.5)
        wide = round(chip * 1.5 + font.getlength(text))
        if x > pad and x + wide > view.width - pad:
            x, y = pad, y + row
        places.append((x, y, text, colour))
        x += wide + round(font.size * 1.4)
    sheet = Image.new("RGB", (view.width, view.height + y + row + pad // 2), PAPER)
    sheet.paste(view, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for x, y, text, colour in places:
        middle = view.height + y + row / 2
        sheet.paste(colour, (x, round(middle - chip / 2)), _rounded((chip, chip), chip * 0.3))
        draw.text((x + chip * 1.5, middle), text, TEXT, font, anchor="lm")
    return sheet


# ---- Small tools --------------------------------------------------------------------------------------------------


def as_picture(image: Picture) -> Image.Image:
    """A new RGB PIL image of a PIL image or of a uint8 array (H, W, 3).

    Raises:
        ValueError: an array of another shape or type.
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"a picture is a uint8 array (H, W, 3), not {image.dtype} {image.shape}")
    return Image.fromarray(np.ascontiguousarray(image))


def _as_labels(label_map: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    labels = np.asarray(label_map)
    if labels.ndim != 2 or labels.size == 0:
        raise ValueError(f"label_map must have the shape (H, W), not {labels.shape}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() > 255:
        raise ValueError(
            f"label_map must hold whole numbers from 0 to 255, not {labels.dtype} {labels.min()}...{labels.max()}"
        )
    return labels.astype(np.uint8)


def _fitted(size: tuple[int, int], smallest: int, largest: int) -> tuple[int, int]:
    """The size with its longer side brought between two bounds; the shape is kept."""
    longer = max(size)
    scale = min(max(longer, smallest), largest) / longer
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _panel_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = math.sqrt(PANEL_AREA / (size[0] * size[1]))
    scale = min(scale, PANEL_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _resized(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    return picture if picture.size == size else picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _rounded(size: tuple[int, int], radius: float) -> Image.Image:
    """Coverage (L) of a rectangle with rounded corners."""
    big = Image.new("L", (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING))
    ImageDraw.Draw(big).rounded_rectangle((0, 0, big.width - 1, big.height - 1), radius * _SUPERSAMPLING, fill=255)
    return big.reduce(_SUPERSAMPLING)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, so it has no scalable font; install a build with it")
    return font


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """The text on one line, or its beginning and an ellipsis where the whole is wider than ``width`` pixels."""
    text = " ".join(text.split())[:10_000]  # no picture is so wide, and Pillow refuses much longer ones
    if font.getlength(text) <= width:
        return text
    fits = bisect.bisect_right(range(1, len(text)), width, key=lambda count: font.getlength(text[:count] + "…"))
    return text[:fits] + "…"
