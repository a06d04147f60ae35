"""Annotations of CVAT in its format "CVAT for images 1.1" (`cvat:`): tags, boxes, polygons, masks, points."""

from __future__ import annotations

import itertools
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wildcat.data.annotated import (
    AnnotatedImage,
    Choices,
    Content,
    Shape,
    annotated_dataset,
    polygon_of,
    splits_of,
)
from wildcat.data.names import clean_name
from wildcat.data.outlines import MOST_PIXELS, OutlinedDataset, polygon_box
from wildcat.data.safe_xml import read_xml
from wildcat.data.sample import MAX_COORDINATE, require_path
from wildcat.errors import WildcatError, shorten

_WHAT = 'give the annotations.xml of an export as "CVAT for images 1.1", or the folder that holds it'
_ELLIPSE = 64  # corners of the polygon that stands for an ellipse


@dataclass(frozen=True)
class RowMask:
    """A mask as CVAT stores it: the run lengths of the pixels of its box, row by row, of which the first is outside."""

    left: int
    top: int
    width: int
    height: int
    runs: npt.NDArray[np.int64]

    @property
    def area(self) -> float:
        """Number of pixels."""
        return float(self.runs[1::2].sum())

    def pixels(self, width: int, height: int) -> npt.NDArray[np.bool_]:
        """The pixels (H, W) of the object; raises a ValueError if the mask does not fit the image."""
        right, bottom = self.left + self.width, self.top + self.height
        if self.left < 0 or self.top < 0 or right > width or bottom > height:
            raise ValueError(f"a mask extends outside the image of {height} x {width} pixels")
        out = np.zeros((height, width), np.bool_)
        out[self.top : bottom, self.left : right] = self.part()
        return out

    def part(self) -> npt.NDArray[np.bool_]:
        """The pixels of its box."""
        inside: npt.NDArray[np.bool_] = np.repeat(np.arange(len(self.runs)) % 2 == 1, self.runs)
        return inside.reshape(self.height, self.width)


def find_xml(path: Path) -> Path:
    """The annotations at a path: the file itself, or annotations.xml in a folder."""
    require_path(path, _WHAT)
    if not path.is_dir():
        return path
    if (path / "annotations.xml").is_file():
        return path / "annotations.xml"
    files = sorted(path.glob("*.xml"))
    if len(files) != 1:
        raise WildcatError(f"{path}: holds {len(files) or 'no'} XML files and no annotations.xml; {_WHAT}")
    return files[0]


def read_cvat(path: Path) -> Content:
    """Read the annotations of a job, a task or a project.

    Raises:
        WildcatError: for another file, and for a value that cannot be read; the message names the image.
    """
    file = find_xml(path)
    root = read_xml(file, "the annotation")
    if root.tag == "annotation":
        raise WildcatError(f"{file}: is an annotation of PASCAL VOC, not of CVAT; use voc:FOLDER")
    if root.tag != "annotations":
        raise WildcatError(f"{file}: is no file of CVAT, whose outermost element is annotations; got {root.tag!r}")
    if root.find("track") is not None:
        raise WildcatError(f'{file}: is "CVAT for video"; export the task as "CVAT for images 1.1"')
    elements = root.findall("image")
    if not elements:
        raise WildcatError(f"{file}: holds no image; export a task with annotated images")
    classes = list(dict.fromkeys(_label_names(root)))
    used: Counter[str] = Counter()
    images = [_image(file, element, used) for element in elements]
    images = _by_subset(images)
    content = Content(file, images, classes or None)
    if classes:
        strangers = sorted({label for image in images for label in image.labels} - set(classes))
        if strangers:
            raise WildcatError(f"{file}: label {strangers[0]!r} is not among those of its meta: {shorten(classes, 8)}")
    if used["polyline"] or used["cuboid"]:
        content.notes.append("of polylines and cuboids only the label is read")
    return content


def _by_subset(images: list[AnnotatedImage]) -> list[AnnotatedImage]:
    """Images of one name in several subsets of a project have the subset before it, as in the folder of images."""
    counts = Counter(image.file for image in images)
    return [
        replace(image, file=f"{image.split}/{image.file}") if image.split and counts[image.file] > 1 else image
        for image in images
    ]


def _label_names(root: ElementTree.Element) -> list[str]:
    """The labels of the job, task or project, without those of the parts of skeletons."""
    names = []
    for kind in ("job", "task", "project"):
        for label in root.iterfind(f"meta/{kind}/labels/label"):
            if not label.findtext("parent"):
                names.append(clean_name(label.findtext("name", "")))
    return [name for name in names if name]


def _image(file: Path, element: ElementTree.Element, used: Counter[str]) -> AnnotatedImage:
    name = element.get("name", "")
    if not name:
        raise WildcatError(f"{file}: image {element.get('id', '?')} has no name")
    size: tuple[int, int] | None = None
    if "width" in element.attrib and "height" in element.attrib:
        try:
            size = (int(element.attrib["width"]), int(element.attrib["height"]))
        except ValueError:
            size = (0, 0)
        if not all(0 < side < MAX_COORDINATE for side in size):
            raise WildcatError(f"{file}: {name}: width and height must be whole numbers above 0")
    tags: dict[str, None] = {}
    shapes = []
    for item in element:
        label = clean_name(item.get("label", ""))
        if item.tag not in ("tag", *_SHAPES):
            raise WildcatError(f"{file}: {name}: {item.tag!r} is unknown; allowed: tag, {', '.join(_SHAPES)}")
        if not label:
            raise WildcatError(f"{file}: {name}: a {item.tag} has no label")
        used[item.tag] += 1
        if item.tag == "tag":
            tags[label] = None
            continue
        try:
            shapes.append(_SHAPES[item.tag](item, label))
        except (ValueError, KeyError, OverflowError) as error:
            reason = f"has no {error}" if isinstance(error, KeyError) else f"cannot be read: {error}"
            raise WildcatError(f"{file}: {name}: a {item.tag} {reason}") from None
    return AnnotatedImage(name, size, tuple(tags), shapes, split=_subset(element))


def _subset(element: ElementTree.Element) -> str:
    subset = element.get("subset", "")
    return "" if subset.lower() == "default" else subset


def _numbers(item: ElementTree.Element, *names: str) -> list[float]:
    values = [float(item.attrib[name]) for name in names]
    _check_range(values)
    return values


def _check_range(values: Sequence[float]) -> None:
    if not all(-MAX_COORDINATE < value < MAX_COORDINATE for value in values):
        raise ValueError("a coordinate is out of range")


def _rotation(item: ElementTree.Element) -> float:
    """Radians, clockwise."""
    degrees = float(item.get("rotation", "0"))
    _check_range([degrees])
    return float(np.deg2rad(degrees))


def _points(item: ElementTree.Element) -> npt.NDArray[np.float64]:
    """The points (P, 2) of "x,y;x,y"."""
    pairs = [pair.split(",") for pair in item.attrib["points"].split(";")]
    values = [float(value) for x, y in pairs for value in (x, y)]
    _check_range(values)
    return np.array(values, np.float64).reshape(-1, 2)


def _box(item: ElementTree.Element, label: str) -> Shape:
    x1, y1, x2, y2 = _numbers(item, "xtl", "ytl", "xbr", "ybr")
    if x1 > x2 or y1 > y2:
        raise ValueError("it ends before it begins")
    angle = _rotation(item)
    if angle:  # about its centre
        dx, dy = (x2 - x1) / 2, (y2 - y1) / 2
        half_width = abs(dx * np.cos(angle)) + abs(dy * np.sin(angle))
        half_height = abs(dx * np.sin(angle)) + abs(dy * np.cos(angle))
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        x1, y1, x2, y2 = x - half_width, y - half_height, x + half_width, y + half_height
    return Shape(label, (x1, y1, x2, y2))


def _polygon(item: ElementTree.Element, label: str) -> Shape:
    points = _points(item)
    return Shape(label, polygon_box([points.reshape(-1)]), polygon_of(points))


def _ellipse(item: ElementTree.Element, label: str) -> Shape:
    x, y, a, b = _numbers(item, "cx", "cy", "rx", "ry")
    turn = _rotation(item)
    angles = np.linspace(0, 2 * np.pi, _ELLIPSE, endpoint=False)
    along, across = a * np.cos(angles), b * np.sin(angles)
    points = np.stack(
        [x + along * np.cos(turn) - across * np.sin(turn), y + along * np.sin(turn) + across * np.cos(turn)], axis=1
    )
    return Shape(label, polygon_box([points.reshape(-1)]), polygon_of(points))


def _mask(item: ElementTree.Element, label: str) -> Shape:
    left, top, width, height = (int(item.attrib[name]) for name in ("left", "top", "width", "height"))
    _check_range([left, top, width, height])
    runs = np.array([int(run) for run in item.attrib["rle"].split(",")], np.int64)
    if width < 1 or height < 1 or ((runs < 0) | (runs > width * height)).any() or runs.sum() != width * height:
        raise ValueError(f"its run lengths are not those of {height} x {width} pixels")
    if width * height > MOST_PIXELS:
        raise ValueError(f"a mask of {width} x {height} pixels is too large")
    mask = RowMask(left, top, width, height, runs)
    inside = mask.part()
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        return Shape(label, None, mask)
    # The box of the pixels: some programs store the whole image.
    box = (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)
    return Shape(label, (float(box[0]), float(box[1]), float(box[2]), float(box[3])), mask)


def _point(item: ElementTree.Element, label: str) -> Shape:
    _points(item)
    return Shape(label, None)


def _skeleton(item: ElementTree.Element, label: str) -> Shape:
    return Shape(label, None)


def _cuboid(item: ElementTree.Element, label: str) -> Shape:
    names = ["".join(part) + number for number in "12" for part in itertools.product(("xt", "xb"), "lr")]
    xs = _numbers(item, *names)
    ys = _numbers(item, *("y" + name[1:] for name in names))
    return Shape(label, (min(xs), min(ys), max(xs), max(ys)))


_SHAPES: dict[str, Callable[[ElementTree.Element, str], Shape]] = {
    "box": _box,
    "polygon": _polygon,
    "mask": _mask,
    "points": _point,
    "polyline": _point,
    "ellipse": _ellipse,
    "cuboid": _cuboid,
    "skeleton": _skeleton,
}


def cvat_splits(path: Path) -> tuple[str, ...]:
    """The subsets of a project, else the splits of a random split."""
    return splits_of(read_cvat(path))


def open_cvat(spec: str, path: Path, split: str, **options: Any) -> OutlinedDataset:
    """The annotations.xml of CVAT, with its images beside it or in the folder that `images` names.

    Labels are those of tags and of shapes of all kinds. Classes are those of the task, in its order. CVAT lists images
    that nobody annotated as those on which there is nothing: `empty` says what they are.

    Args:
        spec: the specification, as given.
        path: the file, or the folder that holds it.
        split: a subset of a project; or train, test, all.
        options: those of :class:`wildcat.data.annotated.Choices`.
    """
    return annotated_dataset(spec, split, read_cvat(path), Choices(**options))
