"""Sheets of several images with captions and scores: the overlay of a prediction, and contact sheets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from wildcat.render.canvas import MUTED_TEXT, PAPER, TEXT, ImageLike, as_pil, resized, rounded, scaled
from wildcat.render.colours import Colour
from wildcat.render.overlays import class_overlay
from wildcat.render.text import font_of, one_line

BAR_BACKGROUND: Colour = (230, 229, 226)
BAR: Colour = (242, 108, 79)
PANEL_AREA = 400 * 400  # pixels of a panel of prediction_overlay, for images of any shape
MAX_PANEL_SIDE = 800  # pixels
_MIN_CELL_WIDTH = 160  # pixels, so that a caption has room
_ONE_ROW = 3  # up to this number of panels stand in one row,
_WIDE = 3  # unless width / height of the image is at least this


@dataclass(frozen=True, slots=True)
class Entry:
    """One class of :func:`prediction_overlay`.

    Attributes:
        name: name of the class.
        score: probability, 0 to 1.
        class_map: (h, w), any unit, finite.
        point: (x, y) in pixels of the image, or None.

    >>> Entry("dog", 0.97, np.array([[0.1, 2.3], [-1.0, 0.4]]), point=(300.0, 120.0)).name
    'dog'
    """

    name: str
    score: float
    class_map: npt.NDArray[np.floating]
    point: tuple[float, float] | None = None


def prediction_overlay(image: ImageLike, entries: Sequence[Entry], *, title: str = "image") -> Image.Image:
    """A sheet of panels: the image, then heatmap, point, name and probability (in per cent) of each class.

    Panels have ``PANEL_AREA`` pixels for images of any size; no side is longer than ``MAX_PANEL_SIDE``.

    Args:
        image: PIL image, or uint8 array (H, W, 3).
        entries: the classes to show, in order; may be empty.
        title: caption of the panel of the image.

    Returns:
        An RGB image.

    >>> entry = Entry("dog", 0.97, np.array([[0.1, 2.3], [-1.0, 0.4]]), point=(300.0, 120.0))
    >>> sheet = prediction_overlay(Image.new("RGB", (400, 300)), [entry], title="rex.jpg")
    >>> sheet.width > 2 * 400
    True
    """
    canvas = as_pil(image)
    size = _panel_size(canvas.size)
    view = resized(canvas, size)
    panels = [_Panel(view, title, None)]
    for entry in entries:
        points = [] if entry.point is None else [entry.point]
        panel = class_overlay(view, entry.class_map, size=canvas.size, points=points)
        panels.append(_Panel(panel, entry.name, entry.score))
    return _grid(panels, _columns(len(panels), size))


def contact_sheet(
    images: Sequence[ImageLike], columns: int, captions: Sequence[str] | None = None, *, side: int | None = 256
) -> Image.Image:
    """A grid of images of any shapes, with captions below them.

    Args:
        images: PIL images or uint8 arrays (H, W, 3), row by row.
        columns: images per row, at least 1.
        captions: one per image, or None.
        side: length in pixels to which the longer side of each image is scaled; None keeps the sizes.

    Returns:
        An RGB image.

    Raises:
        ValueError: no images, no columns, or another number of captions.

    >>> images = [Image.new("RGB", (60, 40)), Image.new("RGB", (40, 60))]
    >>> sheet = contact_sheet(images, 2, ["cat", "dog"], side=200)
    >>> sheet.width > 200 + 160 and sheet.height > 200
    True
    """
    if not images:
        raise ValueError("a contact sheet needs at least one image")
    if columns < 1:
        raise ValueError(f"columns must be at least 1, not {columns}")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"captions must be one per image, {len(images)}; got {len(captions)}")
    views = [as_pil(image) if side is None else scaled(image, side, smallest=side) for image in images]
    return _grid([_Panel(v, c, None) for v, c in zip(views, captions or [""] * len(views), strict=True)], columns)


@dataclass(frozen=True, slots=True)
class _Panel:
    image: Image.Image
    caption: str
    score: float | None


def _columns(count: int, size: tuple[int, int]) -> int:
    """The number of columns that makes a grid of ``count`` panels most similar to 16:10, with few empty cells.

    Up to three panels stand in one row, unless they are very wide.
    """
    if count <= _ONE_ROW and size[0] < _WIDE * size[1]:
        return count

    def cost(columns: int) -> float:
        rows = math.ceil(count / columns)
        shape = columns * max(size[0], _MIN_CELL_WIDTH) / (rows * (size[1] + 50))
        return abs(math.log(shape / 1.6)) + 2 * (rows * columns - count) / count

    return min(range(1, count + 1), key=cost)


def _grid(panels: Sequence[_Panel], columns: int) -> Image.Image:
    """Panels with rounded corners in a grid, each with its caption and score below.

    A row is as high as its highest panel, a column as wide as its widest.
    """
    columns = min(columns, len(panels))
    widths = [max(_MIN_CELL_WIDTH, *(p.image.width for p in panels[column::columns])) for column in range(columns)]
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
        start = left if score else corner[0]  # a score bar is as wide as its cell
        room = left + width - start - (font.getlength(score) + size if score else 0)
        caption, caption_font = one_line(panel.caption, size, room)
        draw.text((start, middle), caption, TEXT if score else MUTED_TEXT, caption_font, anchor="lm")
        draw.text((left + width, middle), score, MUTED_TEXT, font, anchor="rm")
        if panel.score is not None:
            _score_bar(sheet, left, bottom + line, width, panel.score)
    return sheet


def _score_bar(sheet: Image.Image, left: int, top: int, width: int, score: float) -> None:
    """Draw a thin bar whose filled part is the score, 0 to 1."""
    sheet.paste(BAR_BACKGROUND, (left, top), rounded((width, 4), 2))
    filled = round(width * min(max(score, 0), 1))
    if filled >= 4:
        sheet.paste(BAR, (left, top), rounded((filled, 4), 2))


def _panel_size(size: tuple[int, int]) -> tuple[int, int]:
    scale = math.sqrt(PANEL_AREA / (size[0] * size[1]))
    scale = min(scale, MAX_PANEL_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
