"""Sheets of images with captions and scores: what ``wildcat predict`` writes of an image, and contact sheets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from wildcat.render.canvas import PAPER, QUIET, TEXT, ImageLike, as_pil, fitted, resized, rounded
from wildcat.render.colours import Colour
from wildcat.render.overlays import draw_points, heatmap_overlay, undecided
from wildcat.render.text import font_of, one_line

TRACK: Colour = (230, 229, 226)
BAR: Colour = (242, 108, 79)
PANEL_AREA = 400 * 400  # pixels of a panel of prediction_overlay, whatever the shape of the image
PANEL_SIDE = 800
_NARROWEST = 160  # a cell of a sheet, so that its caption has room
_ROW, _VERY_WIDE = 3, 3  # panels that stand in a row; width over height from which they need not


@dataclass(frozen=True, slots=True)
class Entry:
    """What :func:`prediction_overlay` shows of one class.

    Attributes:
        name: of the class.
        score: probability, 0 to 1.
        class_map: (h, w), any unit.
        point: (x, y) in pixels of the image, or None.
    """

    name: str
    score: float
    class_map: npt.NDArray[np.floating]
    point: tuple[float, float] | None = None


def prediction_overlay(image: ImageLike, entries: Sequence[Entry], *, title: str = "image") -> Image.Image:
    """One sheet: the image, then a panel for each class with its heatmap, point, name and score in per cent.

    Panels have ``PANEL_AREA`` pixels whatever the size of the image, but no side above ``PANEL_SIDE``.

    Args:
        image: the image.
        entries: the classes to show, in order; may be empty.
        title: caption of the image itself.
    """
    canvas = as_pil(image)
    size = _panel_size(canvas.size)
    view = resized(canvas, size)
    scale = (size[0] / canvas.width, size[1] / canvas.height)
    panels = [_Panel(view, title, None)]
    for entry in entries:
        panel = heatmap_overlay(view, entry.class_map, vmin=undecided(entry.class_map))
        if entry.point is not None:
            panel = draw_points(panel, [(entry.point[0] * scale[0], entry.point[1] * scale[1])])
        panels.append(_Panel(panel, entry.name, entry.score))
    return _grid(panels, _columns(len(panels), size))


def contact_sheet(
    images: Sequence[ImageLike], columns: int, captions: Sequence[str] | None = None, *, side: int | None = 256
) -> Image.Image:
    """Images of any shapes in rows, with captions below.

    Args:
        images: in the order of reading.
        columns: images of a row.
        captions: of each image.
        side: what the longer side of each image is brought to; None leaves images as they are.

    Raises:
        ValueError: no images, no columns, or another number of captions.
    """
    if not images:
        raise ValueError("a contact sheet needs at least one image")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, not {columns}")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(images)} images need as many captions, not {len(captions)}")
    views = [p if side is None else resized(p, fitted(p.size, side, side)) for p in map(as_pil, images)]
    return _grid([_Panel(v, c, None) for v, c in zip(views, captions or [""] * len(views), strict=True)], columns)


@dataclass(frozen=True, slots=True)
class _Panel:
    image: Image.Image
    caption: str
    score: float | None


def _columns(count: int, size: tuple[int, int]) -> int:
    """Columns that bring a grid of ``count`` panels nearest to 16:10, empty places counting against it.

    Up to three panels stand in one row, unless they are very wide.
    """
    if count <= _ROW and size[0] < _VERY_WIDE * size[1]:
        return count

    def badness(columns: int) -> float:
        rows = math.ceil(count / columns)
        shape = columns * max(size[0], _NARROWEST) / (rows * (size[1] + 50))
        return abs(math.log(shape / 1.6)) + 2 * (rows * columns - count) / count

    return min(range(1, count + 1), key=badness)


def _grid(panels: Sequence[_Panel], columns: int) -> Image.Image:
    """Panels on paper, each with rounded corners, its caption and its score below.

    A row is as high as its highest panel, a column as wide as its widest.
    """
    columns = min(columns, len(panels))
    widths = [max(_NARROWEST, *(p.image.width for p in panels[column::columns])) for column in range(columns)]
    heights = [max(p.image.height for p in panels[i : i + columns]) for i in range(0, len(panels), columns)]
    size = round(min(max(max(widths) / 20, 13), 19))
    font = font_of(size)
    gap = max(12, max(widths) // 22)
    captioned = any(p.caption for p in panels)
    scored = any(p.score is not None for p in panels)
    line = round(size * 1.75) if captioned else 0
    foot = line + (round(size * 0.5) if scored else 0)
    lefts = list(accumulate((width + gap for width in widths), initial=gap))
    tops = list(accumulate((height + foot + gap for height in heights), initial=gap))
    sheet = Image.new("RGB", (lefts[-1], tops[-1]), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, panel in enumerate(panels):
        row, column = divmod(index, columns)
        left, width, top, bottom = lefts[column], widths[column], tops[row], tops[row] + heights[row]
        corner = (left + (width - panel.image.width) // 2, (top + bottom - panel.image.height) // 2)
        sheet.paste(panel.image, corner, rounded(panel.image.size, min(8.0, min(panel.image.size) / 8)))
        middle = bottom + line * 0.55
        score = "" if panel.score is None else f"{100 * panel.score:.0f} %"
        start = left if score else corner[0]  # a bar is as wide as its cell
        room = left + width - start - (font.getlength(score) + size if score else 0)
        caption, its_font = one_line(panel.caption, size, room)
        draw.text((start, middle), caption, TEXT if score else QUIET, its_font, anchor="lm")
        draw.text((left + width, middle), score, QUIET, font, anchor="rm")
        if panel.score is not None:
            _score_bar(sheet, left, bottom + line, width, panel.score)
    return sheet


def _score_bar(sheet: Image.Image, left: int, top: int, width: int, score: float) -> None:
    """A thin bar that shows a score from 0 to 1."""
    sheet.paste(TRACK, (left, top), rounded((width, 4), 2))
    filled = round(width * min(max(score, 0), 1))
    if filled >= 4:
        sheet.paste(BAR, (left, top), rounded((filled, 4), 2))


def _panel_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = math.sqrt(PANEL_AREA / (size[0] * size[1]))
    scale = min(scale, PANEL_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
