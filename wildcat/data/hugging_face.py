"""Datasets in the layouts of Hugging Face (`hf:`): images with a file metadata, and Parquet tables that hold images."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from wildcat.data.annotated import AnnotatedImage, Box, Choices, Content, Shape, annotated_dataset, splits_of
from wildcat.data.class_list import find_class_list, read_class_list
from wildcat.data.folders import folder_splits, open_folder
from wildcat.data.names import clean_name, usual_split
from wildcat.data.outlines import OutlinedDataset
from wildcat.data.records import Records, joined, read_records
from wildcat.data.sample import MAX_COORDINATE, Dataset, require_path
from wildcat.data.table import find_columns, read_table, table_of
from wildcat.data.tags import TableOptions, open_table
from wildcat.errors import WildcatError, shorten

_WHAT = "give a folder with images and metadata.csv, metadata.jsonl or metadata.parquet, or with Parquet tables"
_METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
_SHARD = re.compile(r"(?P<split>.+?)(?:-\d+-of-\d+)?(?:-[0-9a-f]{16,})?", re.IGNORECASE)
_SPLIT = "split"  # the name of the column that is added
_BOXES, _CLASSES = ("bbox", "bboxes", "boxes"), ("categories", "category", "labels", "label", "classes", "class")


def _files(path: Path) -> dict[Path, str]:
    """The tables at a path -> the split that each is, or "".

    Raises:
        WildcatError: if there are none.
    """
    require_path(path, _WHAT)
    if path.is_file():
        return {path: ""}
    found: dict[Path, str] = {}
    for pattern in (*_METADATA, *(f"*/{name}" for name in _METADATA), *(f"data/*/{name}" for name in _METADATA)):
        for file in sorted(path.glob(pattern)):
            found[file] = usual_split(file.parent.name) or "" if file.parent != path else ""
    if found:
        return found
    for pattern in ("*.parquet", "data/*.parquet", "*/*.parquet"):
        for file in sorted(path.glob(pattern)):
            match = _SHARD.fullmatch(file.stem)
            name = match["split"] if match is not None else file.stem
            found[file] = usual_split(name) or usual_split(file.parent.name) or ""
        if found:
            return found
    return {}


def _records(file: Path) -> Records:
    """A table of any kind, with images as paths relative to the folder of the file, or absolute ones."""
    if file.suffix.lower() == ".csv":
        table = read_table(file)
        return Records(file, table.header, [[cell or None for cell in row] for row in table.rows])
    return read_records(file)


def _read(path: Path, image_column: str | None) -> tuple[Records, int]:
    """All rows of the tables at a path with a column of their split, and the position of the column of images.

    Names of images are relative to the folder of all tables.
    """
    files = _files(path)
    top = path if path.is_dir() else path.parent
    named = {split for split in files.values() if split}
    parts = []
    for file, split in files.items():
        records = _records(file)
        image = _image_column(records, image_column)
        inside = file.parent.relative_to(top).as_posix()
        if inside != "." and records.image_root is None:
            for row in records.rows:
                if isinstance(row[image], str):
                    row[image] = f"{inside}/{row[image]}" if not Path(row[image]).is_absolute() else row[image]
        if len(named) > 1:
            records = Records(
                file,
                [*(name for name in records.columns if name != _SPLIT), _SPLIT],
                [
                    [*(v for v, n in zip(row, records.columns, strict=True) if n != _SPLIT), split]
                    for row in records.rows
                ],
                records.class_names,
                records.image_root,
            )
        parts.append(records)
    source = next(iter(files)) if len(files) == 1 else top / "metadata"
    everything = joined(parts, source)
    if not everything.rows:
        raise WildcatError(f"{path}: holds no row; {_WHAT}")
    return everything, _image_column(everything, image_column)


def _image_column(records: Records, given: str | None) -> int:
    if given is None:
        for name in ("file_name", "image", "image_file_name", "img"):
            if name in records.columns:
                return records.columns.index(name)
    return find_columns(table_of(records), given, records.columns[-1]).image


def _is_folders(path: Path) -> bool:
    """Whether a folder holds no table, and is one of class folders."""
    return path.is_dir() and not _files(path) and any(entry.is_dir() for entry in path.iterdir())


def hf_splits(path: Path, image_column: str | None = None, split_column: str | None = None) -> tuple[str, ...]:
    """The splits that folders, names of tables or a column name; else those of a random split."""
    if _is_folders(path):
        return folder_splits(path)
    records, image = _read(path, image_column)
    column = records.columns.index(split_column or _SPLIT) if (split_column or _SPLIT) in records.columns else None
    images = [
        AnnotatedImage(str(row[image]), None, split=str(row[column] or "") if column is not None else "")
        for row in records.rows
    ]
    return splits_of(Content(records.path, images))


def open_hf(spec: str, path: Path, split: str, *, boxes: str = "xywh", **options: Any) -> Dataset:
    """A folder of images with metadata, Parquet tables, or class folders, as Hugging Face datasets has them.

    The options are those of :class:`wildcat.data.tags.TableOptions`. A column of objects, each with bbox and category,
    gives labels and boxes. Images that a Parquet table holds are unpacked into the user's cache.

    Args:
        spec: the specification, as given.
        path: the folder, or a table.
        split: one of :func:`hf_splits`.
        boxes: how boxes are given, in pixels: "xywh", corner and size, or "xyxy", two corners.
        options: of the table.
    """
    given = TableOptions(**options)
    if _is_folders(path):
        return open_folder(spec, path, split, test=given.test, seed=given.seed)
    if path.is_dir() and not _files(path):
        raise WildcatError(f"{path}: holds no metadata and no Parquet table; {_WHAT}")
    records, image = _read(path, given.image_column)
    objects = _objects_column(records, given.label_column)
    if objects is not None:
        root = given.images
        if root is None and records.image_root is not None:
            root = str(records.image_root)
        choices = Choices(root, given.class_list, given.exclusive, given.empty, given.test, given.seed)
        return _with_objects(spec, records, image, objects, split, given.split_column, boxes, choices)
    if given.image_column is None:
        given = replace(given, image_column=records.columns[image])
    if given.split_column is None and _SPLIT in records.columns:
        given = replace(given, split_column=_SPLIT)
    return open_table(spec, table_of(records), split, given)


def _objects_column(records: Records, label_column: str | None) -> int | None:
    """Position of the column of objects: of dictionaries, or lists of them, with boxes."""
    for index, name in enumerate(records.columns):
        if label_column is not None and name != label_column:
            continue
        value = next((row[index] for row in records.rows if row[index]), None)
        first = value[0] if isinstance(value, list) else value
        if isinstance(first, dict) and _key(first, _BOXES) is not None:
            return index
    return None


def _key(value: dict[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in value), None)


def _with_objects(
    spec: str,
    records: Records,
    image: int,
    objects: int,
    split: str,
    split_column: str | None,
    boxes: str,
    choices: Choices,
) -> OutlinedDataset:
    column = split_column or _SPLIT
    at = records.columns.index(column) if column in records.columns else None
    names = records.class_names.get(records.columns[objects])
    if names is None and choices.class_list is not None:
        names = read_class_list(find_class_list(choices.class_list, records.path.parent))
    images = []
    for number, row in enumerate(records.rows, start=1):
        try:
            shapes = [Shape(label, box) for label, box in _read_objects(row[objects], names, boxes)]
        except (ValueError, TypeError, KeyError, IndexError) as error:
            raise WildcatError(f"{records.path}: row {number}: {error}") from None
        if not isinstance(row[image], str) or not row[image].strip():
            raise WildcatError(f"{records.path}: row {number} names no image in {records.columns[image]!r}")
        part = "" if at is None else str(row[at] or "")
        images.append(
            AnnotatedImage(str(row[image]), None, shapes=shapes, split=part, is_complete=row[objects] is not None)
        )
    content = Content(records.path, images)
    if names is not None:
        content.classes = [clean_name(name) for name in names]
    labels = sorted({label for one in images for label in one.labels})
    if labels and all(label.isdecimal() for label in labels):
        content.classes = sorted(labels, key=int)
        content.notes.append(f"categories are numbers ({shorten(labels)}); class_list=FILE names them")
    return annotated_dataset(spec, split, content, choices)


def _read_objects(value: Any, names: Sequence[str] | None, boxes: str) -> list[tuple[str, Box]]:
    """(class, box) of each object: a dictionary of lists, or a list of dictionaries."""
    if not value:
        return []
    if isinstance(value, list):
        items = [(item[_key(item, _CLASSES) or "categories"], item[_key(item, _BOXES) or "bbox"]) for item in value]
    else:
        categories, given = value[_key(value, _CLASSES) or "categories"], value[_key(value, _BOXES) or "bbox"]
        if len(categories) != len(given):
            raise ValueError(f"objects have {len(given)} boxes, but {len(categories)} categories")
        items = list(zip(categories, given, strict=True))
    read = []
    for category, box in items:
        edges = np.array(box, np.float64)
        if edges.shape != (4,) or not (np.abs(edges) < MAX_COORDINATE).all():
            raise ValueError(f"a bbox must be four numbers; got {box!r}")
        if boxes == "xywh":
            edges[2:] += edges[:2]
        x1, y1, x2, y2 = edges.tolist()
        if x1 > x2 or y1 > y2:
            raise ValueError(f"a bbox ends before it begins: {box!r}; boxes=xywh or boxes=xyxy says how they are given")
        label = category
        if names is not None and isinstance(category, int) and 0 <= category < len(names):
            label = names[category]
        read.append((clean_name(str(label)), (x1, y1, x2, y2)))
    return read
