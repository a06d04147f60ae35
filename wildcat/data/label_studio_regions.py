"""Labels and objects from the results of an annotation of Label Studio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from wildcat.data.annotated import Box, Shape, polygon_of
from wildcat.data.label_studio_masks import read_brush
from wildcat.data.names import brief, clean_name
from wildcat.data.outlines import Outline, polygon_box
from wildcat.data.sample import MAX_COORDINATE

# Types of results that carry labels of a region: the key of its value has the same name.
_REGION_LABELS = (
    *("labels", "rectanglelabels", "polygonlabels", "brushlabels", "keypointlabels", "ellipselabels"),
    *("bitmasklabels", "vectorlabels"),
)
_TAGS = ("choices", "taxonomy")
_NO_IMAGES = ("hypertextlabels", "paragraphlabels", "timeserieslabels", "videorectangle", "timelinelabels")
_ELLIPSE = 64  # corners of the polygon that stands for an ellipse


@dataclass
class Labelled:
    """Labels and objects of one annotation; the size of the image is (width, height), or None if it is not stated."""

    tags: list[str] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    size: tuple[int, int] | None = None

    @property
    def labels(self) -> set[str]:
        """All labels."""
        return {*self.tags, *(shape.label for shape in self.shapes)}


@dataclass
class _Region:
    """The results with the same id: its place from any of them, its labels from those that carry some."""

    labels: dict[str, None] = field(default_factory=dict)
    attributes: dict[str, None] = field(default_factory=dict)  # choices about the region
    place: dict[str, Any] | None = None
    frame: dict[str, Any] | None = None


def read_results(results: Sequence[Any], controls: Sequence[str], found: Counter[str]) -> Labelled:
    """Read the results of an annotation.

    Choices about a region are its labels only if it has no other ones.

    Args:
        results: as the JSON has them.
        controls: names of the controls to read; all if empty.
        found: counts what was found: "control NAME", "type NAME" that is not read, "unlabelled", "turned",
            "attributes", "text".

    Raises:
        ValueError: for a result that cannot be read.
    """
    labelled = Labelled()
    regions: dict[str, _Region] = {}
    for number, item in enumerate(results):
        if not isinstance(item, dict):
            raise ValueError("a result must be an object")
        kind, value, control = str(item.get("type")).lower(), item.get("value"), str(item.get("from_name", ""))
        if kind in ("relation", "none"):
            continue
        if not isinstance(value, dict):
            raise ValueError(f"a result of the type {kind} has no value")
        if kind in _NO_IMAGES:
            raise ValueError(f"it has results of the type {kind}, which are not those of an image")
        labelled.size = labelled.size or _size(item)
        if kind == "text":
            found["text"] += 1
            continue
        carries = kind in _TAGS or kind in _REGION_LABELS
        if carries:
            found[f"control {control}"] += 1
        elif not _is_place(value):
            found[f"type {kind}"] += 1
            continue
        labels = _labels(value, kind) if carries and (not controls or control in controls) else []
        if not _is_place(value):
            labelled.tags += labels
            continue
        region = regions.setdefault(str(item.get("id") or f"#{number}"), _Region())
        (region.attributes if kind in _TAGS else region.labels).update(dict.fromkeys(labels))
        if region.place is None or kind not in _TAGS:
            region.place, region.frame = value, item
    for region in regions.values():
        if region.labels and region.attributes:
            found["attributes"] += len(region.attributes)
        names = list(region.labels or region.attributes)
        if not names:
            found["unlabelled"] += not controls
            continue
        box, outline = _placed(region, found)
        labelled.shapes += [Shape(name, box, outline) for name in names]
    labelled.tags = list(dict.fromkeys(labelled.tags))
    return labelled


def _labels(value: dict[str, Any], kind: str) -> list[str]:
    """The labels of a value; of a path in a taxonomy, the last part."""
    given = value.get(kind, value.get("labels", []))
    if not isinstance(given, list):
        raise ValueError(f"{kind} must be a list; got {brief(str(given), 80)}")
    if kind == "taxonomy":
        given = [path[-1] for path in given if isinstance(path, list) and path]
    if not all(isinstance(label, str) and clean_name(label) for label in given):
        raise ValueError(f"{kind} must hold names; got {brief(str(given), 80)}")
    return [clean_name(label) for label in given]


def _is_place(value: dict[str, Any]) -> bool:
    return "x" in value or "points" in value or "vertices" in value or "rle" in value or "imageDataURL" in value


def _size(item: dict[str, Any]) -> tuple[int, int] | None:
    """(width, height) of the image as the annotator saw it."""
    width, height = item.get("original_width"), item.get("original_height")
    if width is None or height is None:
        return None
    if not all(isinstance(side, int) and 0 < side < MAX_COORDINATE for side in (width, height)):
        raise ValueError("original_width and original_height must be whole numbers above 0")
    return width, height


def _placed(region: _Region, found: Counter[str]) -> tuple[Box | None, Outline | None]:
    """The box and the outline of a region, in pixels."""
    value, frame = region.place or {}, region.frame or {}
    if frame.get("image_rotation"):
        found["turned"] += 1
        return None, None
    size = _size(frame)
    if "rle" in value or "imageDataURL" in value:
        if size is None:
            raise ValueError("a brush has no original_width and original_height")
        return read_brush(value, size)
    is_point = "points" not in value and "radiusX" not in value and "height" not in value
    if is_point or "vertices" in value:
        return None, None
    if size is None:
        raise ValueError("a region has no original_width and original_height")
    scale = np.array(size) / 100  # values are per cent of the sides
    if "points" in value:
        points = _array(value["points"]).reshape(-1, 2) * scale
        if not len(points):
            return None, None
        return polygon_box([points.reshape(-1)]), polygon_of(points)
    turn = np.deg2rad(_number(value, "rotation", 0))
    corner = np.array([_number(value, "x"), _number(value, "y")]) * scale
    if "radiusX" in value:
        a, b = np.array([_number(value, "radiusX"), _number(value, "radiusY")]) * scale
        angles = np.linspace(0, 2 * np.pi, _ELLIPSE, endpoint=False)
        points = corner + _turned(np.stack([a * np.cos(angles), b * np.sin(angles)], axis=1), turn)
        return polygon_box([points.reshape(-1)]), polygon_of(points)
    width, height = np.array([_number(value, "width"), _number(value, "height")]) * scale
    # A rectangle is turned about its first corner.
    points = corner + _turned(np.array([[0, 0], [width, 0], [width, height], [0, height]]), turn)
    return polygon_box([points.reshape(-1)]), None


def _turned(points: npt.NDArray[np.float64], turn: float) -> npt.NDArray[np.float64]:
    """Points (P, 2) turned clockwise about the origin, by radians."""
    x, y = points.T
    return np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=1)


def _number(value: dict[str, Any], key: str, default: float | None = None) -> float:
    number = value.get(key, default)
    if not isinstance(number, int | float) or not -MAX_COORDINATE < number < MAX_COORDINATE:
        raise ValueError(f"{key} of a region must be a number; got {brief(str(number), 80)}")
    return float(number)


def _array(points: Any) -> npt.NDArray[np.float64]:
    try:
        values = np.array(points, np.float64)
    except (TypeError, ValueError):
        values = np.empty(0)
        points = None
    is_pairs = points is not None and (not values.size or (values.ndim == 2 and values.shape[1] == 2))
    if not is_pairs or not (np.abs(values) < MAX_COORDINATE).all():
        raise ValueError("points of a polygon must be pairs of numbers")
    return values
