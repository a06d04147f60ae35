"""Reads a CSV as spreadsheets and other programs write it: columns, rows, and which column holds what."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wildcat.data.files import IMAGE_SUFFIXES
from wildcat.data.likely_kind import likely_kind
from wildcat.data.names import brief, clean_name, is_missing, usual_split
from wildcat.data.records import RECORD_SUFFIXES, Records, read_records
from wildcat.data.sample import require_path
from wildcat.errors import WildcatError, check_choice, shorten

_DELIMITERS = ",\t;"  # spreadsheets write a semicolon where the decimal sign is a comma
_SEP_LINE = re.compile(r'"?sep=(.)"?\r?\n?', re.IGNORECASE)  # the first line that Excel reads as "the delimiter is"
_ENCODINGS = {  # by byte order mark; that of UTF-32 begins as that of UTF-16
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
}

_OTHER_SUFFIXES = (".json", ".xml", ".yaml", ".yml")  # of annotation tools
_IMAGE_COLUMNS = ("picture", "image", "path", "file", "filename", "file_name")
_TAG_COLUMNS = ("tags", "labels", "tag", "label", "predicted")
_CLASS_COLUMNS = ("class", "classes", "category", "categories", "target", "targets")
_TAG_WORDS = frozenset([*_TAG_COLUMNS, *_CLASS_COLUMNS])
_INDEX_NAMES = re.compile(r"(?:unnamed: \d+)?", re.IGNORECASE)  # that of pandas.read_csv and to_csv
_LONGEST_NAME = 500  # characters of a column's name; a longer one is no name, but a cell of a table without names
_SAMPLED = 200  # rows that are looked at to guess what a column holds
_SHARE = 0.9  # of the cells, from which on a column holds splits although some are misspelt


@dataclass(frozen=True)
class Table:
    """A CSV: cells are stripped of blanks at both ends; rows and columns without content are left out.

    Attributes:
        path: the file.
        header: names of the columns, unique.
        rows: cells, as many in each row as there are columns.
        delimiter: what separates the columns.
        left_out: descriptions of the columns that are left out.
        are_numbers: the tags were numbers, for which the file has names: -1 is none.
        image_root: the folder to which names of images are relative, if it is not that of the file.
    """

    path: Path
    header: list[str]
    rows: list[list[str]]
    delimiter: str
    left_out: list[str] = field(default_factory=list)
    are_numbers: bool = False
    image_root: Path | None = None

    def column(self, index: int) -> list[str]:
        """The cells of a column."""
        return [row[index] for row in self.rows]


@dataclass(frozen=True)
class Columns:
    """Which column of a table holds what, by position.

    Attributes:
        image: names of images.
        split: names of splits; None if there is no such column.
        tags: tags of each image; None if each class has a column.
        classes: columns of 0 and 1, a class each; empty if `tags` is given.
        unused: columns that are not read.
    """

    image: int
    split: int | None
    tags: int | None
    classes: tuple[int, ...]
    unused: tuple[int, ...]


def _text_of(path: Path) -> str:
    """The text of a CSV in UTF-8, or in UTF-16 with a byte order mark."""
    require_path(path, "give a CSV file with an image column and a tags column, or one 0/1 column per class")
    try:
        content = path.read_bytes()
        encoding = next((name for mark, name in _ENCODINGS.items() if content.startswith(mark)), "utf-8-sig")
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        hint = ""
        if content.startswith(b"PK\x03\x04"):
            hint = "; it is an Excel workbook or another archive: save the table as CSV UTF-8"
        elif b"\0" not in content and not content.startswith(b"\x89PNG"):
            line = content.count(b"\n", 0, error.start) + 1
            hint = f" (line {line}); if it comes from Excel, save it as CSV UTF-8"
        raise WildcatError(f"{path}: cannot be read as a CSV in UTF-8: {error}{hint}") from None
    except OSError as error:
        raise WildcatError(f"{path}: cannot be read as a CSV in UTF-8: {error}") from None


def read_table(path: Path) -> Table:
    """Read a table: a CSV, or a file of JSON lines or Parquet (:mod:`wildcat.data.records`).

    The first line of a CSV names its columns, separated by comma, tab or semicolon. Columns without a name are left out
    if they hold nothing, or if the first one numbers the rows.

    Raises:
        WildcatError: for a file that is no such table; the message names the line.
    """
    if path.suffix.lower() in RECORD_SUFFIXES:
        records = read_records(path)
        return table_of(records)
    if path.is_file() and path.suffix.lower() in _OTHER_SUFFIXES:
        raise WildcatError(f"{path}: is no CSV; did you mean {likely_kind(path)}:{path}?")
    text = _text_of(path)
    named = _SEP_LINE.match(text)
    if named is not None:
        text, delimiter = text[named.end() :], named[1]
    else:
        first = text.partition("\n")[0]
        delimiter = max(_DELIMITERS, key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except (csv.Error, ValueError, TypeError) as error:  # ValueError, TypeError: "sep=" names what cannot separate
        raise WildcatError(f"{path}: cannot be read as a CSV in UTF-8: {error}") from None
    header = [clean_name(name) for name in rows[0]] if rows else []
    if len(header) < 2:
        raise WildcatError(
            f"{path}: the first line must name at least two columns, separated by comma, tab or semicolon: image,tags"
        )
    if long := next((number for number, name in enumerate(header, 1) if len(name) > _LONGEST_NAME), None):
        raise WildcatError(
            f"{path}: the first line must name the columns; column {long} has {len(header[long - 1])} characters there"
        )
    start = 3 if named is not None else 2
    body = []
    for number, row in enumerate(rows[1:], start=start):
        cells = [cell.strip() for cell in row]
        if len(cells) > len(header) and not any(cells[len(header) :]):
            cells = cells[: len(header)]  # trailing delimiters
        if row and len(cells) != len(header):
            message = f"{path}: line {number} has {len(row)} columns, the first line {len(header)}"
            hint = "; several tags of an image are separated by ;" if len(row) > len(header) else ""
            raise WildcatError(message + hint)
        if any(cells):
            body.append(cells)
    return _without_empty_columns(path, header, body, delimiter)


def table_of(records: Records) -> Table:
    """The table of records, with all values as text."""
    header = [clean_name(name) for name in records.columns]
    return Table(
        records.path, header, records.cells(), ",", are_numbers=bool(records.class_names), image_root=records.image_root
    )


def _without_empty_columns(path: Path, header: list[str], rows: list[list[str]], delimiter: str) -> Table:
    """Leave out columns without a name that hold nothing or number the rows; check that other names are unique."""
    left_out, kept = [], []
    for index, name in enumerate(header):
        if _INDEX_NAMES.fullmatch(name):
            cells = [row[index] for row in rows]
            if not name and not any(cells):
                left_out.append(f"column {index + 1} (empty)")
                continue
            if index == 0 and _numbers_rows(cells):
                left_out.append("column 1 (row numbers)")
                continue
        kept.append(index)
    names = [header[index] for index in kept]
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise WildcatError(f"{path}: the column {twice[0]!r} occurs twice")
    if left_out:
        rows = [[row[index] for index in kept] for row in rows]
    return Table(path, names, rows, delimiter, left_out)


def _numbers_rows(cells: Sequence[str]) -> bool:
    """Whether cells are whole numbers that rise: the index that pandas and R write first."""
    if not all(cell.isascii() and cell.isdecimal() and len(cell) < 19 for cell in cells):
        return False
    numbers = [int(cell) for cell in cells]
    return bool(numbers) and all(one < other for one, other in itertools.pairwise(numbers))


def find_columns(
    table: Table, image_column: str | None = None, label_column: str | None = None, split_column: str | None = None
) -> Columns:
    """Find which column holds what: by the options, by its name, or by what it holds.

    Args:
        table: the table.
        image_column: name of the column of images.
        label_column: name of the column of tags, or the names of 0/1 columns joined by "+".
        split_column: name of the column of splits.

    Raises:
        WildcatError: if a column is not there, or if it is not clear which columns are the classes.
    """
    header, path = table.header, table.path
    labels = _labels_given(table, label_column)
    split = _named(table, split_column, "split_column")
    if split is None:
        split = _by_name(header, ["split"])
    tags = _by_name(header, [*_TAG_COLUMNS, *_CLASS_COLUMNS]) if labels is None else _tags_given(table, labels)
    image = _named(table, image_column, "image_column")
    if image is None:
        image = _image_column(table, {split, tags, *(labels or ())})
    free = [index for index in range(len(header)) if index not in (image, split, tags)]
    if split is None:
        split = next((i for i in free if i not in (labels or ()) and _holds_splits(table.column(i))), None)
        free = [index for index in free if index != split]
    if labels is None and tags is None:
        tags = _tags_by_content(table, free, image)
    if tags is not None:
        return Columns(image, split, tags, (), tuple(index for index in free if index != tags))
    classes = tuple(free) if labels is None else tuple(labels)
    for index in classes:
        if not header[index]:
            raise WildcatError(f"{path}: column {index + 1} has no name in the first line; it is the name of a class")
    return Columns(image, split, None, classes, tuple(index for index in free if index not in classes))


def _named(table: Table, name: str | None, option: str) -> int | None:
    """Position of the column that an option names, in any case."""
    if name is None:
        return None
    found = _by_name(table.header, [clean_name(name).lower()])
    if found is None:
        check_choice(name, [column for column in table.header if column], f"{table.path}: {option}")
    return found


def _labels_given(table: Table, label_column: str | None) -> list[int] | None:
    """Positions of the columns that the option label_column names: one, or several joined by "+"."""
    if label_column is None:
        return None
    whole = _by_name(table.header, [clean_name(label_column).lower()])
    if whole is not None:
        return [whole]
    found = [_named(table, name, "label_column") for name in label_column.split("+")]
    return [index for index in found if index is not None]


def _tags_given(table: Table, labels: Sequence[int]) -> int | None:
    """The column of tags if the option label_column names one; None if it names 0/1 columns."""
    name = table.header[labels[0]].lower()
    is_class = len(labels) > 1 or (name not in _TAG_WORDS and _is_binary(table.column(labels[0])))
    return None if is_class else labels[0]


def _by_name(header: Sequence[str], names: Sequence[str]) -> int | None:
    """Position of the first column with one of these names, in any case; earlier names come first."""
    lower = [column.lower() for column in header]
    return next((lower.index(name) for name in names if name in lower), None)


def _image_column(table: Table, taken: set[int | None]) -> int:
    """Position of the image column: by its name, else by file names in it, else the first that is free."""
    named = _by_name(table.header, _IMAGE_COLUMNS)
    if named is not None and named not in taken:
        return named
    free = [index for index in range(len(table.header)) if index not in taken]
    if not free:
        raise WildcatError(
            f"{table.path}: the first line names no column of images; it holds {', '.join(table.header)}"
        )
    for index in free:
        cells = [cell for cell in table.column(index)[:_SAMPLED] if cell]
        if cells and sum(map(_names_image, cells)) > len(cells) / 2:
            return index
    return free[0]


def _names_image(text: str) -> bool:
    return Path(text).suffix.lower() in IMAGE_SUFFIXES


def _holds_splits(cells: Sequence[str]) -> bool:
    """Whether a column holds names of splits, "train" and another one; some may be missing or misspelt."""
    filled = Counter(usual_split(cell) for cell in cells[:_SAMPLED] if not is_missing(cell))
    known = sum(count for name, count in filled.items() if name is not None)
    return "train" in filled and len([name for name in filled if name]) > 1 and known >= _SHARE * filled.total()


def _is_binary(cells: Sequence[str]) -> bool:
    """Whether a column holds 0 and 1, in one of the spellings of :func:`read_binary`, and nothing else."""
    return all(read_binary(cell) is not None for cell in set(cells))


def _tags_by_content(table: Table, free: Sequence[int], image: int) -> int | None:
    """The one column of text that must hold the tags; None if the columns are 0/1 columns.

    Raises:
        WildcatError: if some columns hold 0 and 1 and others do not, or several hold text.
    """
    header, path = table.header, table.path
    if any(_names_image(name) for name in header):
        raise WildcatError(
            f"{path}: the first line must name the columns, as in image,tags; it holds {shorten(header, 4)}"
        )
    binary = [index for index in free if _is_binary(table.column(index))]
    text = [index for index in free if index not in binary]
    if not text or not table.rows:
        return None
    worded = [index for index in text if _TAG_WORDS & set(re.findall("[a-z]+", header[index].lower()))]
    if len(worded) == 1:
        return worded[0]
    if not binary and len(text) == 1:
        return text[0]
    index = text[0]
    row = next(row for row in table.rows if read_binary(row[index]) is None)
    suggestion = "+".join(header[i] for i in binary) if binary else header[text[-1]]
    raise WildcatError(
        f"{path}: {brief(row[image])}: column {header[index]!r} holds {brief(row[index])!r}; allowed are"
        " 0 and 1, or a column named tags with tags separated by ; (the first line names the columns). Other columns"
        " are left out with label_column=NAME, or label_column=NAME+NAME for several 0/1 columns:"
        f" tags:{path},label_column={suggestion}"
    )


_BINARY = {
    **dict.fromkeys(["1", "true", "t", "yes", "y", "x", "\u2713", "\u2714"], 1),
    **dict.fromkeys(["0", "false", "f", "no", "n"], 0),
}


def read_binary(cell: str) -> int | None:
    """The value of a cell of a 0/1 column: 1, 0, or -1 as it stands; a missing value is 0; None for another text.

    >>> [read_binary(cell) for cell in ("1.0", "False", "", "1,0", "-1", "2", "cat")]
    [1, 0, 0, 1, -1, None, None]
    """
    text = clean_name(cell).lower()
    if text in _BINARY:
        return _BINARY[text]
    if is_missing(text):
        return 0
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return int(value) if value in (1.0, 0.0, -1.0) else None


_ESCAPED = re.compile(r"'(?='*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20])")  # so that no spreadsheet takes it for a formula


def with_threshold(table: Table, threshold: float) -> Table:
    """The table with 0/1 columns instead of columns of probabilities, as those of scores.csv.

    Raises:
        WildcatError: for a threshold outside of 0 to 1, and if no column holds probabilities.
    """
    if not 0 <= threshold <= 1:
        raise WildcatError(f"{table.path}: threshold must be a probability, from 0 to 1; got {threshold:g}")
    header = [_ESCAPED.sub("", name, count=1) for name in table.header]
    columns = []
    for index, name in enumerate(header):
        cells = table.column(index)
        numbers = [_probability(cell) for cell in cells]
        if cells and all(number is not None for number in numbers) and name.lower() not in _IMAGE_COLUMNS:
            cells = [str(int(number >= threshold)) for number in numbers if number is not None]
            header[index] = name.removeprefix("class:")
        else:
            cells = [_ESCAPED.sub("", cell, count=1) for cell in cells]
        columns.append(cells)
    if header == table.header and columns == [table.column(index) for index in range(len(header))]:
        raise WildcatError(f"{table.path}: no column holds probabilities, to which threshold={threshold:g} applies")
    rows = [list(row) for row in zip(*columns, strict=True)]
    return dataclasses.replace(table, header=header, rows=rows)


def _probability(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if 0 <= value <= 1 else None
