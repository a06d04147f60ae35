"""Reads a JSON of COCO instances as COCO and annotation tools write it, and checks every value that is used.

Labels need ``image_id`` and ``category_id`` alone. What only points or masks need (bbox, segmentation, area, the size
of the image) may be missing or null. Ids may be whole numbers, floats that are whole, or text.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wildcat.data.outlines import OutlinedObject, check_polygons, outline_area, polygon_box
from wildcat.data.sample import MAX_COORDINATE
from wildcat.errors import WildcatError

_TRUTH = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


class CocoImage(NamedTuple):
    """An image and its annotations; ``size`` is (width, height), or None if the file does not say it."""

    file: str
    size: tuple[int, int] | None
    objects: list[OutlinedObject]


class CocoContent(NamedTuple):
    """What a JSON holds: classes in the order of their ids, and images in the file's order."""

    classes: list[str]
    images: list[CocoImage]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and -MAX_COORDINATE < value < MAX_COORDINATE


def _is_id(value: object) -> bool:
    if isinstance(value, float):
        return value.is_integer()
    return (isinstance(value, int) and not isinstance(value, bool)) or _is_name(value)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_side(value: object) -> bool:
    return value is None or (_is_id(value) and not isinstance(value, str) and 0 < float(str(value)) < MAX_COORDINATE)


def _is_box(value: object) -> bool:
    if value is None or value == []:
        return True
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)) and min(value[2:]) >= 0


def _is_shape(value: object) -> bool:
    if value is None:
        return True
    if isinstance(value, dict):
        return {"size", "counts"} <= value.keys()
    return isinstance(value, list) and all(
        isinstance(polygon, list) and len(polygon) % 2 == 0 and all(map(_is_number, polygon)) for polygon in value
    )


def _is_truth(value: object) -> bool:
    return value is None or str(value).strip().lower().removesuffix(".0") in _TRUTH


# The values used of each entry: key -> (whether it is needed, check, allowed values in words).
_ENTRIES: dict[str, dict[str, tuple[bool, Callable[[Any], bool], str]]] = {
    "images": {
        "id": (True, _is_id, "a whole number or text"),
        "file_name": (True, _is_name, "text"),
        "width": (False, _is_side, "a whole number above 0"),
        "height": (False, _is_side, "a whole number above 0"),
    },
    "annotations": {
        "image_id": (True, _is_id, "a whole number or text"),
        "category_id": (True, _is_id, "a whole number or text"),
        "bbox": (False, _is_box, "x, y, width and height, four numbers below 1e9"),
        "area": (False, lambda value: value is None or _is_number(value), "a number"),
        "segmentation": (False, _is_shape, "a list of polygons, each a list of x and y, or run lengths"),
        "iscrowd": (False, _is_truth, "0 or 1"),
    },
    "categories": {"id": (True, _is_id, "a whole number or text"), "name": (True, _is_name, "text")},
}


def _key(value: Any) -> str:
    """An id as text, so that 7, 7.0 and "7" are one."""
    return str(int(value)) if isinstance(value, float) else str(value).strip()


def _load(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The entries of the file, each checked by itself."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise WildcatError(f"{path}: cannot be read as JSON: {error}") from None
    missing = _ENTRIES.keys() - (content.keys() if isinstance(content, dict) else set())
    if missing:
        raise WildcatError(f"{path}: has no {' and no '.join(sorted(missing))}; it is not a file of COCO instances")
    for kind, keys in _ENTRIES.items():
        if not isinstance(content[kind], list):
            raise WildcatError(f"{path}: {kind} must be a list; got {type(content[kind]).__name__}")
        for number, item in enumerate(content[kind], start=1):
            for key, (is_needed, is_valid, allowed) in keys.items():
                if isinstance(item, dict) and (is_valid(item[key]) if key in item else not is_needed):
                    continue
                value = reprlib.repr(item[key]) if isinstance(item, dict) and key in item else "nothing"
                raise WildcatError(f"{path}: {kind}: {key} of entry {number} must be {allowed}; got {value}")
    return {kind: content[kind] for kind in _ENTRIES}


def _check_unique(path: Path, kind: str, key: str, values: Iterable[Any]) -> None:
    seen = set()
    for number, value in enumerate(values, start=1):
        if value in seen:
            raise WildcatError(f"{path}: {kind}: {key} of entry {number} must be unique; got {reprlib.repr(value)}")
        seen.add(value)


def read_coco(path: Path, *, drop_unlisted: bool = False) -> CocoContent:
    """Read a JSON of COCO instances.

    Args:
        path: the JSON.
        drop_unlisted: leave out annotations whose image is not listed.

    Raises:
        WildcatError: for a broken file, a value that is not allowed, annotations of images or categories that are not
            listed, and outlines that do not fit their image; the message names file and entry.
    """
    content = _load(path)
    images, annotations = content["images"], content["annotations"]
    _check_unique(path, "images", "id", (_as_read(item["id"]) for item in images))
    _check_unique(path, "images", "file_name", (item["file_name"] for item in images))
    used = {_key(item["category_id"]) for item in annotations}
    classes = _categories(path, content["categories"], used)
    columns = {key: column for column, (key, _) in enumerate(classes)}
    for number, item in enumerate(annotations, start=1):
        if _key(item["category_id"]) not in columns:
            raise WildcatError(
                f"{path}: annotations: category_id of entry {number} must be the id of a category; "
                f"got {item['category_id']}"
            )
    by_image: dict[str, list[dict[str, Any]]] = {_key(item["id"]): [] for item in images}
    unlisted = [number for number, item in enumerate(annotations, start=1) if _key(item["image_id"]) not in by_image]
    if unlisted and not drop_unlisted:
        value = annotations[unlisted[0] - 1]["image_id"]
        raise WildcatError(
            f"{path}: annotations: image_id of {len(unlisted)} of {len(annotations)} entries is no id of images, the "
            f"first is entry {unlisted[0]} with {reprlib.repr(value)}; if ids were counted from another number, all "
            "labels are wrong; if images were left out, unlisted=drop leaves these entries out"
        )
    for item in annotations:
        by_image.get(_key(item["image_id"]), []).append(item)
    read = []
    for image in images:
        width, height = image.get("width"), image.get("height")
        size = None if width is None or height is None else (int(width), int(height))
        try:
            objects = [_object(item, columns[_key(item["category_id"])], size) for item in by_image[_key(image["id"])]]
        except ValueError as error:
            raise WildcatError(f"{path}: {image['file_name']}: {error}") from None
        read.append(CocoImage(image["file_name"], size, objects))
    return CocoContent([name for _, name in classes], read)


def _as_read(value: Any) -> int | str:
    """An id as it is compared, and shown in messages: whole numbers as such."""
    key = _key(value)
    return int(key) if key.isdecimal() and len(key) < 20 and str(int(key)) == key else key


def _categories(path: Path, categories: list[dict[str, Any]], used: set[str]) -> list[tuple[str, str]]:
    """(id, name) of the classes in the order of their ids.

    Roboflow lists the project as a category of its own, perhaps with the name of a class: a category that no annotation
    uses gives way to another of its name.
    """
    _check_unique(path, "categories", "id", (_as_read(item["id"]) for item in categories))
    names = [item["name"] for item in categories]
    kept = [item for item in categories if names.count(item["name"]) == 1 or _key(item["id"]) in used]
    kept += [
        next(item for item in categories if item["name"] == name)
        for name in dict.fromkeys(names)
        if name not in {item["name"] for item in kept}
    ]
    _check_unique(path, "categories", "name", (item["name"] for item in kept))
    entries = [(_as_read(item["id"]), str(item["name"])) for item in kept]
    if all(isinstance(key, int) for key, _ in entries):
        entries.sort(key=lambda entry: int(entry[0]))
    else:
        entries.sort(key=lambda entry: str(entry[0]))
    return [(str(key), name) for key, name in entries]


def _object(item: dict[str, Any], category: int, size: tuple[int, int] | None) -> OutlinedObject:
    """Read an annotation.

    Raises:
        ValueError: for an outline that does not fit its image.
    """
    crowd = _TRUTH[str(item.get("iscrowd") or "").strip().lower().removesuffix(".0")]
    x, y, width, height = item.get("bbox") or (0.0, 0.0, 0.0, 0.0)
    has_box = bool(item.get("bbox"))
    shape = item.get("segmentation")
    if isinstance(shape, dict) and size is None:
        size = _rle_size(shape["size"])
    outline = _outline(shape, size)
    area = item.get("area")
    if outline is not None and len(outline) == 0 and ((area or 0) > 0 or width * height > 0):
        outline = None  # it was not annotated, as the object has pixels
    if not has_box and outline is not None and len(outline):
        x, y, width, height = _bounds(outline, size)
        has_box = True
    if area is None:
        area = outline_area(outline) if outline is not None else width * height
    return OutlinedObject(category, (x, y, width, height) if has_box else None, float(area), crowd, outline)


def _outline(shape: Any, size: tuple[int, int] | None) -> list[npt.NDArray[np.float64]] | npt.NDArray[np.int64] | None:
    """Check an outline, because the tools that render it do not."""
    if shape is None:
        return None
    if isinstance(shape, dict) and size is not None:
        width, height = size
        counts = shape["counts"]
        counts = _unpack(counts) if isinstance(counts, str) else counts
        is_valid = isinstance(counts, list) and all(
            isinstance(count, int) and 0 <= count <= height * width for count in counts
        )
        if not is_valid or shape["size"] != [height, width] or sum(counts) != height * width:
            raise ValueError(f"run lengths must be those of {height} x {width} pixels")
        return np.array(counts, dtype=np.int64)
    # A polygon has three corners; the tools would take four numbers for a box.
    polygons = [np.array(polygon, dtype=np.float64) for polygon in shape if len(polygon) >= 6]
    if size is not None:
        check_polygons(polygons, size)
    return polygons


def _rle_size(size: Any) -> tuple[int, int]:
    is_valid = isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) and side > 0 for side in size)
    if not is_valid or size[0] * size[1] > MAX_COORDINATE:
        raise ValueError(f"the size of run lengths must be height and width; got {reprlib.repr(size)}")
    return size[1], size[0]


def _bounds(
    outline: list[npt.NDArray[np.float64]] | npt.NDArray[np.int64], size: tuple[int, int] | None
) -> tuple[float, float, float, float]:
    """The box around an outline: x, y, width, height."""
    if isinstance(outline, list):
        x1, y1, x2, y2 = polygon_box(outline)
        return x1, y1, x2 - x1, y2 - y1
    height = size[1] if size is not None else 0
    ends = np.cumsum(outline)
    starts = (ends - outline)[1::2]
    pixels = np.concatenate([np.arange(a, b) for a, b in zip(starts, ends[1::2], strict=True)] or [np.empty(0, int)])
    if not height or not len(pixels):
        return 0.0, 0.0, 0.0, 0.0
    columns, rows = pixels // height, pixels % height
    return float(columns.min()), float(rows.min()), float(np.ptp(columns) + 1), float(np.ptp(rows) + 1)


def _unpack(text: str) -> list[int]:
    """Run lengths from COCO's packed text: five bits a character from 48 on, differences to the last but one."""
    counts: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                number -= 1 << shift
            counts.append(number + counts[-2] if len(counts) > 2 else number)
            number = shift = 0
    return counts
