"""A user's own images in a CSV of images and tags (`tags:`)."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wildcat.data.class_list import find_class_list, read_class_list
from wildcat.data.finder import FileFinder
from wildcat.data.hold_out import RANDOM_SPLITS, random_split, split_by_labels
from wildcat.data.names import brief, clean_name, is_missing, usual_split
from wildcat.data.sample import Dataset, Sample
from wildcat.data.table import Columns, Table, find_columns, read_binary, read_table, with_threshold
from wildcat.data.tag_cells import read_tags
from wildcat.data.tool_images import ToolImages, is_foreign
from wildcat.errors import WildcatError, check_choice, guess, shorten

_UNKNOWN = "-1"  # among tags that are numbers, or were before they got names
_LIKE_METADATA = re.compile(r"(?:is|has)_.*|.*_id|id|index|valid|validation|test|fold", re.IGNORECASE)
_USUAL_SPLITS = ("train", "val", "test")


def tags_splits(
    path: Path,
    image_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
    threshold: float | None = None,
) -> tuple[str, ...]:
    """The splits of a CSV: the values of its split column, else those of a random split."""
    table = read_table(path)
    if threshold is not None:
        table = with_threshold(table, threshold)
    return _splits(table, find_columns(table, image_column, label_column, split_column))


def _splits(table: Table, columns: Columns) -> tuple[str, ...]:
    if columns.split is None:
        return RANDOM_SPLITS
    return tuple(sorted({_split_of(cell) for cell in set(table.column(columns.split))} - {""}))


def _split_of(cell: str) -> str:
    """The split that a cell names: "train", "val", "test" in all their spellings, or a name of its own; "" for none."""
    return "" if is_missing(cell) else usual_split(cell) or clean_name(cell)


@dataclass(frozen=True)
class TableOptions:
    """The options of tables of images and tags.

    Attributes:
        test: fraction to hold out where there is no split column.
        seed: of the random split.
        exclusive: each image has exactly one tag: train and score as one class out of C.
        sep: what separates tags, or "none" for one tag in a cell; found unless given.
        image_column: name of the image column; found unless given.
        label_column: name of the tags column, or of 0/1 columns joined by "+"; found unless given.
        split_column: name of the split column; found unless given.
        images: the folder that paths are relative to, instead of the table's.
        balanced: off to hold out without regard to the tags, as earlier versions did.
        class_list: a file with the names of the classes, in their order; if tags are numbers, they count its names.
        empty: "drop" leaves out images without tags, which nobody may have tagged; "keep" takes them as negatives.
        blank: what a blank cell of a 0/1 column says of its class: "absent" or "unknown".
        threshold: columns of probabilities are read as 0/1 columns: 1 from this value on.
    """

    test: float = 0.2
    seed: int = 0
    exclusive: bool = False
    sep: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    split_column: str | None = None
    images: str | None = None
    balanced: bool = True
    class_list: str | None = None
    empty: str = "keep"
    blank: str = "absent"
    threshold: float | None = None


def open_tags(spec: str, path: Path, split: str, **options: Any) -> Dataset:
    """A CSV whose first line names its columns: image and tags ("cat;dog"), or image and one 0/1 column per class.

    Columns are separated by comma or tab; or by semicolon, and tags by comma. An image in several lines has the tags
    of all of them.

    The image column is named image, path, file or filename, else it is the first that holds names of images;
    paths are relative to the CSV's folder. A column `split` names the split of each row; without it a fraction `test`
    is held out at random, so that every class with two images is in both parts. An image without tags is a negative
    for all classes. Classes are those of the whole file, whatever the split.

    In 0/1 columns, -1 means unknown (label 0: neither trained on nor scored) if the table has zeros as well, else
    absent; blank cells are 0, or unknown with ``blank=unknown``. If tags are whole numbers, -1 is no tag, but says that
    the tag is not known: such images are left out.

    A file of JSON lines or a Parquet table is read in the same way; lists in it are tags.

    Args:
        spec: the specification, as given.
        path: the CSV file.
        split: a value of the split column, or train, test, all.
        options: those of :class:`TableOptions`.

    Raises:
        WildcatError: for a file that is no such table, and where it is not clear which columns are the classes.
    """
    return open_table(spec, read_table(path), split, TableOptions(**options))


def open_table(spec: str, table: Table, split: str, options: TableOptions) -> Dataset:
    """The dataset of a table, as :func:`open_tags` makes it of a file."""
    path = table.path
    if options.threshold is not None:
        table = with_threshold(table, options.threshold)
    columns = find_columns(table, options.image_column, options.label_column, options.split_column)
    splits = _splits(table, columns)
    split = split if split in splits else _split_of(split)
    check_choice(split, splits, f"{spec}: split")
    labels = _read_labels(table, columns, options.sep, options.exclusive, options.blank)
    if options.class_list is not None:
        labels = _in_given_classes(path, labels, options.class_list)
    rows = _merge_rows(table, columns, labels)
    # Of 0/1 columns with -1, images of which nothing is known stay: earlier runs have them.
    _leave_out(rows, labels, options.empty == "drop", columns.tags is not None or options.blank == "unknown")
    if columns.split is None:
        if options.balanced:
            chosen = split_by_labels(rows.labels, split, options.test, options.seed, spec)
        else:
            chosen = set(random_split(list(rows.labels), split, options.test, options.seed, spec))
        if not chosen:
            raise WildcatError(f"{spec}: no image is held out: there is one; give test images in a column split")
    else:
        chosen = {name for name, part in rows.splits.items() if part == split}
    if options.exclusive:
        _check_exclusive(path, rows, chosen)
    folder = table.image_root if options.images is None and table.image_root else _image_folder(path, options.images)
    finder, elsewhere = FileFinder(folder), ToolImages(spec.partition(":")[0], folder / path.name, None)
    samples = []
    foreign: dict[Path, str] = {}
    for name, row in rows.labels.items():
        if name in chosen:
            file = finder.find(name)
            if not os.path.exists(file):  # noqa: PTH110 - False also for what cannot be a name
                if is_foreign(name) and (found := elsewhere.file(name)) is not None:
                    file = found
                    if foreign.setdefault(file, name) != name:
                        raise WildcatError(f"{path}: {brief(foreign[file])} and {brief(name)} are both found as {file}")
                elif options.images is None and os.path.isfile(name):  # noqa: PTH113 - relative to the current folder
                    file = Path(name)
            samples.append(Sample(name, file, row))
    notes, warnings = _findings(table, columns, labels, rows, finder.others)
    return Dataset(
        spec,
        split,
        labels.classes,
        samples,
        multi_label=not options.exclusive,
        zeros_unknown=any((sample.labels == 0).any() for sample in samples),
        notes=notes,
        warnings=warnings,
    )


def _image_folder(path: Path, images: str | None) -> Path:
    """The folder that paths of images are relative to; `images` is given, or lies in the CSV's folder.

    Raises:
        WildcatError: if there is no such folder.
    """
    if images is None:
        return path.parent
    given = Path(images).expanduser()
    found = next((folder for folder in (given, path.parent / given) if folder.is_dir()), None)
    if found is None:
        raise WildcatError(f"{path}: images={images}: no such folder, neither here nor beside the CSV")
    return found


@dataclass
class _Labels:
    """The labels of the rows of a table.

    Attributes:
        classes: C names.
        rows: (N, C) int8: 1, 0 unknown, -1.
        notes: how they were read.
        warnings: what may be meant otherwise.
    """

    classes: list[str]
    rows: npt.NDArray[np.int8]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def _read_labels(table: Table, columns: Columns, sep: str | None, exclusive: bool, blank: str) -> _Labels:
    """The labels of every row, from the tags column or from 0/1 columns.

    Raises:
        WildcatError: if no row has a tag, or a 0/1 column holds another value.
    """
    if columns.tags is None:
        return _read_binary_columns(table, columns, blank)
    usual = "," if table.delimiter == ";" else ";"
    tags = read_tags(table.column(columns.tags), usual, sep, keep_none=exclusive)
    classes = sorted(set().union(*tags.rows)) if tags.rows else []
    unknown = np.zeros(len(tags.rows), np.bool_)
    is_number = table.are_numbers or all(name == _UNKNOWN or name.isdecimal() for name in classes)
    if _UNKNOWN in classes and len(classes) > 1 and is_number:
        classes.remove(_UNKNOWN)
        unknown = np.array([_UNKNOWN in names for names in tags.rows])
        tags.notes.append(f"-1 is no tag: the tags of {int(unknown.sum())} rows are unknown")
    if not classes:
        raise WildcatError(f"{table.path}: no row has a tag")
    index_of = {name: index for index, name in enumerate(classes)}
    labels = np.full((len(table.rows), len(classes)), -1, np.int8)
    for row, names in zip(labels, tags.rows, strict=True):
        row[[index_of[name] for name in names if name in index_of]] = 1
    labels[unknown & (labels == -1).all(axis=1)] = 0
    notes = [f"classes are the values of column {table.header[columns.tags]!r}"]
    if not exclusive and len(classes) > 1 and all(len(names) == 1 for names in tags.rows):
        notes.append("each image has one tag; exclusive=yes trains one class out of all, as for folders")
    return _Labels(classes, labels, [*notes, *tags.notes], tags.warnings)


def _read_binary_columns(table: Table, columns: Columns, blank_means: str) -> _Labels:
    header, path = table.header, table.path
    classes = [header[index] for index in columns.classes]
    if not classes or not table.rows:
        raise WildcatError(f"{path}: no row has a tag")
    labels = np.full((len(table.rows), len(classes)), -1, np.int8)
    blank = 0
    for column, index in enumerate(columns.classes):
        cells = table.column(index)
        counts = Counter(cells)
        values = {cell: value for cell in counts if (value := read_binary(cell)) is not None}
        if len(values) < len(counts):
            row = next(row for row in table.rows if row[index] not in values)
            raise WildcatError(
                f"{path}: {brief(row[columns.image])}: column {header[index]!r} holds {brief(row[index])!r}; allowed"
                " are 0 and 1, or a column named tags with tags separated by ; (the first line names the columns)"
            )
        labels[:, column] = [values[cell] for cell in cells]
        blank += sum(count for cell, count in counts.items() if is_missing(cell))
    notes = [f"classes are the 0/1 columns {shorten(classes, 8)}; others are chosen with label_column=NAME+NAME"]
    is_blank = np.zeros_like(labels, np.bool_)
    if blank and blank_means == "unknown":
        is_blank = np.array([[is_missing(row[index]) for index in columns.classes] for row in table.rows])
        notes.append(f"{blank} blank cells of them are unknown: they are neither trained on nor scored")
    unknown, absent = labels == -1, (labels == 0) & ~is_blank
    if unknown.any() and absent.any():
        notes.append(f"{int(unknown.sum())} cells of -1 are unknown: they are neither trained on nor scored")
        labels[unknown], labels[absent] = 0, -1
    else:
        if unknown.any():
            notes.append("-1 means absent, as no cell holds 0")
        labels[absent] = -1
    labels[is_blank] = 0
    if blank and blank_means == "absent":
        notes.append(f"{blank} blank cells of them mean 0; blank=unknown leaves them out of training and scores")
    doubtful = [name for name in classes if _LIKE_METADATA.fullmatch(name)]
    warnings = []
    if doubtful and len(doubtful) < len(classes):
        rest = "+".join(name for name in classes if name not in doubtful)
        warnings.append(
            f"{shorten(doubtful)} {'is' if len(doubtful) == 1 else 'are'} taken for"
            f" {'a class' if len(doubtful) == 1 else 'classes'} too; if not: label_column={rest}"
        )
    return _Labels(classes, labels, notes, warnings)


def _in_given_classes(path: Path, labels: _Labels, class_list: str) -> _Labels:
    """The labels with the classes of the option class_list, in its order; tags that are numbers count its names.

    Raises:
        WildcatError: for a tag that the list lacks.
    """
    given = read_class_list(find_class_list(class_list, path.parent))
    names = labels.classes
    if not set(names) <= set(given) and all(name.isdecimal() and int(name) < len(given) for name in names):
        names = [given[int(name)] for name in names]
    for name in names:
        check_choice(name, given, f"{path}: class_list={class_list} lacks a tag; tag")
    rows = np.full((len(labels.rows), len(given)), -1, np.int8)
    # A row of which nothing is known, as with the tag -1, stays so.
    rows[(labels.rows == 0).all(axis=1)] = 0
    rows[:, [given.index(name) for name in names]] = labels.rows
    return _Labels(given, rows, labels.notes, labels.warnings)


def _leave_out(rows: _Rows, labels: _Labels, drop_empty: bool, drop_unknown: bool) -> None:
    """Remove images without a tag, and those of which no label is known."""
    unknown = [name for name, row in rows.labels.items() if drop_unknown and not row.any()]
    bare = [name for name, row in rows.labels.items() if drop_empty and row.any() and not (row == 1).any()]
    for name in (*unknown, *bare):
        del rows.labels[name]
        rows.splits.pop(name, None)
    if unknown:
        labels.notes.append(f"{len(unknown)} images without a known label are left out")
    if bare:
        labels.notes.append(f"{len(bare)} images without a tag are left out")


@dataclass
class _Rows:
    """The rows of a table, joined by image.

    Attributes:
        labels: image -> (C,) labels of all its lines.
        splits: image -> its split, "" if none is named.
    """

    labels: dict[str, npt.NDArray[np.int8]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)


def _merge_rows(table: Table, columns: Columns, labels: _Labels) -> _Rows:
    """Join the lines of each image: a class is there if one line says so, and unknown before it is absent.

    Raises:
        WildcatError: for a row without an image, and an image in two splits.
    """
    path, result = table.path, _Rows()
    name_of: dict[str, str] = {}  # the same file in other words -> its first name
    for row, values in zip(table.rows, labels.rows, strict=True):
        if is_missing(row[columns.image]):
            raise WildcatError(f"{path}: a row has no image: {brief(', '.join(row))}")
        given = row[columns.image]
        name = name_of.setdefault(_same_file(given), given)
        if name in result.labels:
            result.labels[name] = np.maximum(result.labels[name], values)
        else:
            result.labels[name] = values
        if columns.split is not None:
            part = _split_of(row[columns.split])
            if result.splits.setdefault(name, part) != part:
                raise WildcatError(f"{path}: {brief(name)} is in two splits, {result.splits[name]!r} and {part!r}")
    return result


def _same_file(name: str) -> str:
    """A key that is equal for "a.jpg" and "./a.jpg", and for both normal forms of Unicode."""
    return os.path.normpath(name if name.isascii() else unicodedata.normalize("NFC", name))


def _check_exclusive(path: Path, rows: _Rows, chosen: set[str]) -> None:
    for name, labels in rows.labels.items():
        count = int((labels == 1).sum())
        if name in chosen and count != 1:
            raise WildcatError(f"{path}: {brief(name)} has {count} tags; exclusive=yes allows exactly one")


def _findings(
    table: Table, columns: Columns, labels: _Labels, rows: _Rows, found_otherwise: Sequence[str]
) -> tuple[list[str], list[str]]:
    """(notes, warnings) about what was read, and what may be meant otherwise."""
    header = table.header
    notes = [f"images are named by column {header[columns.image]!r}", *labels.notes]
    if columns.split is not None:
        notes.append(f"splits are named by column {header[columns.split]!r}")
    if columns.unused or table.left_out:
        notes.append(f"not read: {shorten([*(header[index] for index in columns.unused), *table.left_out], 8)}")
    if found_otherwise:
        notes.append(
            f"{len(found_otherwise)} files are found under names that differ in case, normal form or suffix:"
            f" {shorten(found_otherwise)}"
        )
    warnings = [*labels.warnings, *_odd_splits(rows)]
    return [f"{table.path}: {'; '.join(notes)}"], [f"{table.path}: {warning}" for warning in warnings]


def _odd_splits(rows: _Rows) -> list[str]:
    """Warnings about images whose split is missing or not one of train, val, test, where others have those."""
    counts = Counter(rows.splits.values())
    if "train" not in counts:
        return []
    warnings = []
    for part in sorted(set(counts) - set(_USUAL_SPLITS)):
        first = next(name for name, split in rows.splits.items() if split == part)
        what = f"have the split {part!r}" if part else "have no split"
        warnings.append(
            f"{counts[part]} of {len(rows.splits)} images {what} and are neither trained on nor scored by default, the"
            f" first one is {first}{guess(part, _USUAL_SPLITS) if part else ''}"
        )
    return warnings
