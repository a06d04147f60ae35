"""Reads the files of VOC: annotations in XML, and label files.

VOC's pixels are 1-based and a box holds its last pixel; here, and only here, they become continuous 0-based edges: x1 =
xmin - 1, x2 = xmax.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from wildcat.data.safe_xml import read_xml
from wildcat.data.sample import MAX_COORDINATE
from wildcat.data.voc_folder import read_lines
from wildcat.errors import WildcatError

_TRUTH = {"": False, "0": False, "false": False, "unspecified": False, "1": True, "true": True}


Box: TypeAlias = tuple[float, float, float, float]  # 0-based continuous edges


@dataclass(frozen=True, slots=True)
class VocObject:
    """An object of an annotation: its class, whether it is difficult, its box (x1, y1, x2, y2), and its parts."""

    name: str
    difficult: bool
    box: Box
    parts: tuple[tuple[str, Box], ...] = ()  # names, such as head, hand and foot, and boxes


Annotation: TypeAlias = "tuple[tuple[int, int] | None, list[VocObject]]"
"""(width, height) of the image, if the file says it, and all objects in the file's order."""


def _bad_entry(path: Path, number: int, allowed: str) -> WildcatError:
    return WildcatError(f"{path}: entry {number + 1} cannot be read; it must be {allowed}")


def read_column(path: Path, keys: int) -> dict[tuple[str, ...], int]:
    """One class's label file: `keys` columns of names, then 1, 0 or -1."""
    column = {}
    for number, fields in enumerate(read_lines(path)):
        if len(fields) != keys + 1 or fields[-1] not in ("1", "0", "-1"):
            raise _bad_entry(path, number, f"{'image object' if keys == 2 else 'image'} label, the label 1, 0 or -1")
        column[tuple(fields[:keys])] = int(fields[-1])
    return column


def read_annotation(path: Path) -> Annotation:
    """Read the annotation of an image.

    Raises:
        WildcatError: for a file that is missing or broken, or holds a value that is not allowed.
    """
    return _annotation(path, read_xml(path, "the annotation"))


def read_named_annotation(path: Path) -> tuple[str, Annotation] | None:
    """(name of the image, its annotation); None if the file is XML of another kind.

    Raises:
        WildcatError: as :func:`read_annotation` does.
    """
    root = read_xml(path, "the annotation")
    if root.tag != "annotation":
        return None
    return root.findtext("filename", "").strip(), _annotation(path, root)


def _annotation(path: Path, root: ElementTree.Element) -> Annotation:
    try:
        # Values are floats in a few files of VOC 2012; some tools write sizes of 0.
        sides = [
            int(float(text)) for side in ("width", "height") if (text := root.findtext(f"size/{side}", "").strip())
        ]
        objects = []
        for item in root.iterfind("object"):
            # The box of the object itself: its parts (head, hand, foot) have boxes too.
            x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
            if not (-MAX_COORDINATE < x1 <= x2 < MAX_COORDINATE and -MAX_COORDINATE < y1 <= y2 < MAX_COORDINATE):
                raise WildcatError(
                    f"{path}: a bndbox ends before it begins, or is out of range: xmin {x1:g}, ymin {y1:g}, "
                    f"xmax {x2:g}, ymax {y2:g}"
                )
            name, difficult = item.findtext("name", "").strip(), item.findtext("difficult", "").strip().lower()
            if not name:
                raise WildcatError(f"{path}: an object has no name, which is its class")
            if difficult not in _TRUTH:
                raise WildcatError(f"{path}: difficult must be 0 or 1; got {difficult!r}")
            objects.append(VocObject(name, _TRUTH[difficult], (x1 - 1, y1 - 1, x2, y2), _parts(item)))
    except WildcatError:
        raise
    except (ValueError, OverflowError):
        raise WildcatError(f"{path}: a size or a bndbox is missing or not a number") from None
    size = (sides[0], sides[1]) if len(sides) == 2 and min(sides) > 0 else None
    return size, objects


def _parts(item: ElementTree.Element) -> tuple[tuple[str, Box], ...]:
    """The parts of an object. One without a name or a box is left out: nothing but measurements of parts needs them."""
    parts = []
    for part in item.iterfind("part"):
        name = part.findtext("name", "").strip()
        try:
            x1, y1, x2, y2 = (float(part.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            continue
        if name and -MAX_COORDINATE < x1 <= x2 < MAX_COORDINATE and -MAX_COORDINATE < y1 <= y2 < MAX_COORDINATE:
            parts.append((name, (x1 - 1, y1 - 1, x2, y2)))
    return tuple(parts)
