"""A user's own images: a folder per class (`folder:`), or a CSV of images and tags (`tags:`)."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wildcat.data.files import image_files_below
from wildcat.data.sample import Dataset, Sample, one_label, require_path, shuffled
from wildcat.errors import WildcatError, check_choice

_RANDOM_SPLITS = ("train", "test", "all")
_SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_IMAGE_COLUMNS = ("picture", "image", "path", "file", "filename")
_DELIMITERS = ",\t;"  # spreadsheets write a semicolon where the decimal sign is a comma
_TAG_COLUMNS = ("tags", "labels", "tag", "label")


def _random_split(names: Sequence[str], split: str, test: float, seed: int, spec: str) -> list[str]:
    """The names of a random split: the same for the same names, fraction and seed on every machine."""
    if not 0 < test < 1:
        raise WildcatError(f"{spec}: test must be a fraction between 0 and 1; got {test:g}")
    if split == "all":
        return sorted(names)
    order = shuffled(names, seed)
    # At least one name in each of the two, if there are two names.
    held_out = min(max(round(test * len(order)), 1), len(order) - 1)
    return sorted(order[:held_out] if split == "test" else order[held_out:])


def _subfolders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _split_folders(path: Path) -> dict[str, Path]:
    """Split -> folder, if all top folders are train, val and test; otherwise an empty dict."""
    require_path(path, "give a folder that holds a folder per class, or train, val, test with a folder per class each")
    folders = _subfolders(path) if path.is_dir() else []
    by_split = {_SPLIT_FOLDERS.get(folder.name.lower(), ""): folder for folder in folders}
    return by_split if "train" in by_split and "" not in by_split else {}


def folder_splits(path: Path) -> tuple[str, ...]:
    """The splits of a folder: its top folders, else those of a random split."""
    own = _split_folders(path)
    return tuple(part for part in ("train", "val", "test") if part in own) or _RANDOM_SPLITS


def open_folder(spec: str, path: Path, split: str, *, test: float = 0.2, seed: int = 0) -> Dataset:
    """A folder per class, with images at any depth below it; one class per image.

    Folders train, val and test at the top are the splits, and the classes are those of all of them. Without them, a
    fraction `test` of each class is held out at random ("all" takes every image). A sample is named by its path
    below the folder, or below the split's folder.
    """
    check_choice(split, folder_splits(path), f"{spec}: split")
    own = _split_folders(path)
    tops = list(own.values()) or [path]
    classes = sorted({folder.name for top in tops for folder in _subfolders(top)})
    if not classes:
        raise WildcatError(f"{path}: holds no folder; each class needs a folder with its images")
    for top in tops:
        outside = [name for name in image_files_below(top) if "/" not in name]
        if outside:
            raise WildcatError(
                f"{top}: {len(outside)} images lie outside the class folders, the first one is {outside[0]};"
                " each class needs a folder with its images"
            )
    root = own.get(split, path)
    samples = []
    for index, label in enumerate(classes):
        images = [f"{label}/{name}" for name in image_files_below(root / label)]
        if not own:
            images = _random_split(images, split, test, seed, spec) if images else []
        samples += [Sample(name, root / name, one_label(index, len(classes))) for name in images]
    if not samples:
        raise WildcatError(f"{root}: holds no images below its class folders")
    return Dataset(spec, split, classes, samples, multi_label=False)


def _read_table(path: Path) -> tuple[list[str], list[list[str]], str]:
    """(column names, rows, separator of the tags in a cell)."""
    require_path(path, "give a CSV file with an image column and a tags column, or one 0/1 column per class")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = file.readline()
            file.seek(0)
            delimiter = max(_DELIMITERS, key=first.count)
            rows = list(csv.reader(file, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WildcatError(f"{path}: cannot be read as a CSV in UTF-8: {error}") from None
    header = [name.strip() for name in rows[0]] if rows else []
    if len(header) < 2:
        raise WildcatError(
            f"{path}: the first line must name at least two columns, separated by comma, tab or semicolon: image,tags"
        )
    for number, row in enumerate(rows[1:], start=2):
        if row and len(row) != len(header):
            message = f"{path}: line {number} has {len(row)} columns, the first line {len(header)}"
            hint = "; several tags of an image are separated by ;" if len(row) > len(header) else ""
            raise WildcatError(message + hint)
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise WildcatError(f"{path}: the column {twice[0]!r} occurs twice")
    stripped = [[cell.strip() for cell in row] for row in rows[1:]]
    return header, [row for row in stripped if any(row)], "," if delimiter == ";" else ";"


def _column(header: list[str], names: Sequence[str]) -> int | None:
    """Position of the first column with one of these names, in any case."""
    lower = [column.lower() for column in header]
    return next((lower.index(name) for name in names if name in lower), None)


def _image_column(path: Path, header: list[str]) -> int:
    """Position of the image column: by its name, else the first column that is neither split nor tags."""
    named = _column(header, _IMAGE_COLUMNS)
    if named is not None:
        return named
    others = set(range(len(header))) - {_column(header, ["split"]), _column(header, _TAG_COLUMNS)}
    if not others:
        raise WildcatError(f"{path}: the first line names no column of images; it holds {', '.join(header)}")
    return min(others)


def tags_splits(path: Path) -> tuple[str, ...]:
    """The splits of a CSV: the values of its split column, else those of a random split."""
    header, rows, _ = _read_table(path)
    column = _column(header, ["split"])
    return _RANDOM_SPLITS if column is None else tuple(sorted({row[column] for row in rows}))


def _tags_of_rows(
    path: Path, header: list[str], rows: list[list[str]], separator: str, image: int, split: int | None
) -> tuple[list[str], list[set[str]]]:
    """(classes, the tags of each row), from the tags column or from 0/1 columns."""
    column = _column(header, _TAG_COLUMNS)
    if column is not None:
        tags = [{tag.strip() for tag in row[column].split(separator)} - {""} for row in rows]
        return sorted(set().union(*tags)), tags
    classes = {index: name for index, name in enumerate(header) if index not in (image, split)}
    for index, name in classes.items():
        if not name:
            raise WildcatError(f"{path}: column {index + 1} has no name in the first line; it is the name of a class")
    for row in rows:
        for index, name in classes.items():
            if row[index] not in ("0", "1"):
                raise WildcatError(
                    f"{path}: {row[image]}: column {name!r} holds {row[index]!r}; allowed are 0 and 1, or a column"
                    f" named tags with tags separated by ; (the first line names the columns)"
                )
    return list(classes.values()), [{name for index, name in classes.items() if row[index] == "1"} for row in rows]


def open_tags(
    spec: str, path: Path, split: str, *, test: float = 0.2, seed: int = 0, exclusive: bool = False
) -> Dataset:
    """A CSV whose first line names its columns: image and tags ("cat;dog"), or image and one 0/1 column per class.

    Columns are separated by comma or tab; or by semicolon, and tags by comma. An image in several lines has the tags
    of all of them.

    The image column is named image, image, path, file or filename, else it is the first that is neither split nor
    tags; paths are relative to the CSV's folder. A column `split` names the split of each row; without it a fraction
    `test` is held out at random. An image without tags is a negative for all classes. Classes are those of the whole
    file, whatever the split.

    Args:
        spec: the specification, as given.
        path: the CSV file.
        split: a value of the split column, or train, test, all.
        test: fraction to hold out where there is no split column.
        seed: of the random split.
        exclusive: each image has exactly one tag: train and score as one class out of C.
    """
    check_choice(split, tags_splits(path), f"{spec}: split")
    header, rows, separator = _read_table(path)
    split_column = _column(header, ["split"])
    image = _image_column(path, header)
    classes, tags = _tags_of_rows(path, header, rows, separator, image, split_column)
    if not classes:
        raise WildcatError(f"{path}: no row has a tag")
    tags_of: dict[str, set[str]] = {}
    split_of: dict[str, str] = {}
    for row, row_tags in zip(rows, tags, strict=True):
        name = row[image]
        if not name:
            raise WildcatError(f"{path}: a row has no image: {', '.join(row)}")
        tags_of.setdefault(name, set()).update(row_tags)
        if split_column is not None and split_of.setdefault(name, row[split_column]) != row[split_column]:
            raise WildcatError(f"{path}: {name} is in two splits, {split_of[name]!r} and {row[split_column]!r}")
    if split_column is None:
        chosen = set(_random_split(sorted(tags_of), split, test, seed, spec))
    else:
        chosen = {name for name, part in split_of.items() if part == split}
    samples = []
    for name in (name for name in tags_of if name in chosen):
        if exclusive and len(tags_of[name]) != 1:
            raise WildcatError(f"{path}: {name} has {len(tags_of[name])} tags; exclusive=yes allows exactly one")
        labels = np.array([1 if label in tags_of[name] else -1 for label in classes], dtype=np.int8)
        samples.append(Sample(name, path.parent / name, labels))
    return Dataset(spec, split, classes, samples, multi_label=not exclusive)
