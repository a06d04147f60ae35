"""The images of the page, as JPEG files inside the HTML."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from wildcat import render
from wildcat.apps.report.selection import Choice
from wildcat.data import Sample
from wildcat.prediction.result import Prediction

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

CARD_SIDE, MAP_SIDE = 360, 200  # longer sides in pixels
_QUALITY = 80


@dataclass(frozen=True)
class Shown:
    """An image of the page.

    Attributes:
        uri: the JPEG as a data URI.
        width: in pixels.
        height: in pixels.
        alt: description for screen readers.
        caption: text below the image.
        kind: kind of the choice that the image belongs to, or "".
        score: probability of the class in per cent, or None.
    """

    uri: str
    width: int
    height: int
    alt: str
    caption: str
    kind: str = ""
    score: float | None = None


def card(choice: Choice, prediction: Prediction, sample: Sample) -> Shown:
    """The image with the heatmap of a class, its true boxes and the predicted point."""
    name = prediction.settings.classes[choice.label]
    x, y = prediction.point_array[choice.label]
    boxes: npt.NDArray[np.float32] | tuple[()] = ()
    if sample.boxes is not None and sample.box_classes is not None:
        boxes = sample.boxes[sample.box_classes == choice.label]
    image = render.class_overlay(
        render.scaled(prediction.image, CARD_SIDE),
        prediction.class_maps[choice.label],
        size=prediction.size,
        boxes=boxes,
        points=[(x, y)],
        opacity=0.7,
    )
    caption = f"{_name(prediction)}: heatmap of {name}, its point at {x:.0f}, {y:.0f}"
    caption += f", and {len(boxes)} true box{'es' if len(boxes) > 1 else ''}" if len(boxes) else ""
    return _shown(image, caption, _name(prediction), choice.kind, 100 * choice.score)


def _name(prediction: Prediction) -> str:
    """The name of the image in its dataset, without the folders of an absolute path, for privacy."""
    path = Path(prediction.name)
    return path.name if path.is_absolute() else prediction.name


def map_strip(choice: Choice, prediction: Prediction) -> list[Shown]:
    """The image, then a heatmap of each of the M maps of the class, all on the same colour scale.

    The scale starts at 0, where a map is evidence neither for nor against the class, so a map without positive values
    shows no heat.

    Raises:
        ValueError: if the prediction has no multi-maps.
    """
    if prediction.multi_maps is None:
        raise ValueError("the prediction has no multi-maps")
    name = prediction.settings.classes[choice.label]
    count = len(prediction.multi_maps) // len(prediction.class_maps)
    maps: npt.NDArray[np.float32] = prediction.multi_maps[choice.label * count : (choice.label + 1) * count]
    view = render.scaled(prediction.image, MAP_SIDE)
    strip = [_shown(view, f"{_name(prediction)}, the image", "image")]
    highest = max(float(maps.max()), 1e-6)
    for number, values in enumerate(maps, start=1):
        image = render.heatmap_overlay(view, values, vmin=0.0, vmax=highest)
        caption = f"{_name(prediction)}: map {number} of the {count} maps of {name}, highest value {values.max():.2f}"
        strip.append(_shown(image, caption, f"map {number}"))
    return strip


def _shown(image: Image.Image, alt: str, caption: str, kind: str = "", score: float | None = None) -> Shown:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True, progressive=False)
    uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
    return Shown(uri, image.width, image.height, alt, caption, kind, score)
