"""Datasets of YOLO (`yolo:`): boxes, polygons or key points in text files, or class folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wildcat.data.annotated import AnnotatedImage, Choices, Content, Shape, annotated_dataset, polygon_of
from wildcat.data.folders import folder_splits, open_folder
from wildcat.data.hold_out import RANDOM_SPLITS
from wildcat.data.images import image_size
from wildcat.data.outlines import polygon_box
from wildcat.data.sample import Dataset
from wildcat.data.yolo_layouts import YoloFiles, find_yolo, is_class_folders
from wildcat.errors import WildcatError, check_choice, shorten

_SLACK = 0.01  # of the image, by which rounded values may lie outside of it


def _values(file: Path, number: int, line: str, classes: Sequence[str], has_points: bool) -> tuple[int, list[float]]:
    """(class, coordinates) of a line.

    Raises:
        WildcatError: for a line that is none of YOLO's; the message names file and line.
    """
    where = f"{file}: line {number}"
    try:
        label, *values = map(float, line.split())
    except ValueError:
        raise WildcatError(
            f"{where} must hold a class and coordinates, numbers with blanks; got {line[:80]!r}"
        ) from None
    if not label.is_integer() or not 0 <= label < len(classes):
        raise WildcatError(
            f"{where}: class {label:g} must be a number from 0 to {len(classes) - 1}, as names lists them"
        )
    if has_points or len(values) == 5:
        values = values[:4]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise WildcatError(f"{where} has {len(values)} coordinates; a box has 4, a polygon 6 or more")
    if not all(-_SLACK <= value <= 1 + _SLACK for value in values):
        raise WildcatError(f"{where}: coordinates must be fractions of the image, from 0 to 1; got {line[:80]!r}")
    return int(label), values


def _shape(label: str, values: Sequence[float], size: tuple[int, int] | None) -> Shape:
    """An object of an image of (width, height); without its place if the size is not known."""
    if size is None:
        return Shape(label, None)
    if len(values) == 4:
        x, y, width, height = np.array(values) * [*size, *size]
        return Shape(label, (x - width / 2, y - height / 2, x + width / 2, y + height / 2))
    points = np.array(values).reshape(-1, 2) * size
    return Shape(label, polygon_box([points.reshape(-1)]), polygon_of(points))


def _size_of(image: Path) -> tuple[int, int] | None:
    """The size of an image; None if it cannot be read, which the check of the dataset reports."""
    try:
        return image_size(image, upright=True)
    except (WildcatError, OSError):
        return None


def read_yolo(found: YoloFiles, split: str) -> Content:
    """Read the labels of one split.

    Boxes and polygons are fractions of the image, so the header of each image with objects is read.

    Raises:
        WildcatError: for a broken line, and if no image has a file of labels.
    """
    classes = found.classes
    files: dict[str, tuple[str, Path]] = {}
    content = Content(found.source, [], classes, files=files)
    if found.note:
        content.notes.append(found.note)
    missing = 0
    for name, path in found.images(split).items():
        labels = found.labels_of(path)
        shapes: list[Shape] = []
        if labels is None:
            missing += 1
        else:
            try:
                lines = labels.read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise WildcatError(f"{labels}: cannot be read as text in UTF-8: {error}") from None
            read = [
                _values(labels, number, line, classes, found.has_points)
                for number, line in enumerate(lines, start=1)
                if line.strip()
            ]
            size = _size_of(path) if read else None
            shapes = [_shape(classes[label], values, size) for label, values in read]
        content.images.append(AnnotatedImage(name, None, shapes=shapes, split=split, is_complete=labels is not None))
        files[name] = (name, path)
    if content.images and missing == len(content.images):
        first = next(iter(files.values()))[1]
        which = f"{missing} images of {split}" if split else f"{missing} images"
        raise WildcatError(
            f"{found.source}: none of the {which} has a file of labels, such as {found.expected_labels(first)}"
        )
    return content


def yolo_splits(path: Path, class_list: str | None = None) -> tuple[str, ...]:
    """The splits that data.yaml names, if there are two; else those of a random split."""
    if is_class_folders(path):
        return folder_splits(path)
    return find_yolo(path, class_list).splits


def open_yolo(spec: str, path: Path, split: str, **options: Any) -> Dataset:
    """A data.yaml of YOLO, a folder that holds one, or folders of images and labels; or class folders.

    As in YOLO, an image without a file of labels shows no object; ``empty=drop`` leaves such images out, but keeps
    those whose file is empty. ``class_list`` names the classes where no other file does.

    Args:
        spec: the specification, as given.
        path: data.yaml, obj.data, or a folder.
        split: train, val or test; without splits, train, test or all.
        options: those of :class:`wildcat.data.annotated.Choices`.
    """
    choices = Choices(**options)
    if is_class_folders(path):
        return open_folder(spec, path, split, test=choices.test, seed=choices.seed)
    found = find_yolo(path, choices.class_list)
    check_choice(split, found.splits, f"{spec}: split")
    if found.splits == RANDOM_SPLITS:
        content = read_yolo(found, "")
    else:
        content = read_yolo(found, split)
        if not content.images:
            raise WildcatError(f"{found.source}: {split} names no images: {shorten(found.entries(split))}")
    return annotated_dataset(spec, split, content, replace(choices, class_list=None))
