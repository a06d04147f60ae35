"""Reads tables that hold more than text: JSON lines and Parquet, as Hugging Face datasets has them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wildcat.data.sample import require_path
from wildcat.errors import WildcatError, first_line

RECORD_SUFFIXES = frozenset([".jsonl", ".ndjson", ".parquet"])
_TEXT_KEYS = ("class", "name", "label")  # of an object that stands for a name, as in predictions.jsonl
_SUFFIXES = {
    b"\xff\xd8\xff": ".jpg",
    b"\x89PNG": ".png",
    b"RIFF": ".webp",
    b"GIF8": ".gif",
    b"BM": ".bmp",
    b"II*\0": ".tif",
}


@dataclass(frozen=True)
class Records:
    """A table of values.

    Attributes:
        path: the file.
        columns: names of the columns.
        rows: values, as many in each row as there are columns; None where there is none.
        class_names: column -> names of the classes that its numbers mean.
        image_root: the folder to which names of images are relative, if the table held them; else that of the file.
    """

    path: Path
    columns: list[str]
    rows: list[list[Any]]
    class_names: dict[str, list[str]] = field(default_factory=dict)
    image_root: Path | None = None

    def cells(self) -> list[list[str]]:
        """The rows as text: lists as JSON, numbers of classes as their names."""
        names = [self.class_names.get(column) for column in self.columns]
        return [
            [_text(_named(value, known)) for value, known in zip(row, names, strict=True)]
            for row in self.rows
            if any(value is not None for value in row)
        ]


def _named(value: Any, names: Sequence[str] | None) -> Any:
    """A value, or the values of a list, with the names of classes for their numbers; -1 stays as it is."""
    if names is None:
        return value
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return names[value] if 0 <= value < len(names) else value
    return value


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, list):
        items = [
            next((item[key] for key in _TEXT_KEYS if key in item), item) if isinstance(item, dict) else item
            for item in value
        ]
        return json.dumps([item for item in items if item is not None], ensure_ascii=False, default=str)
    if isinstance(value, dict):
        if isinstance(value.get("path"), str):  # an image of Hugging Face
            return str(value["path"])
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value).strip()


def read_records(path: Path) -> Records:
    """Read JSON lines or a Parquet table. Images that a Parquet table holds are unpacked into a folder of the cache.

    Raises:
        WildcatError: for a file that is no such table; the message names the line.
    """
    require_path(path, "give a CSV, a file of JSON lines or a Parquet table, with an image and its tags in each row")
    return _read_parquet(path) if path.suffix.lower() == ".parquet" else _read_lines(path)


def _read_lines(path: Path) -> Records:
    columns: dict[str, None] = {}
    read: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise WildcatError(f"{path}: cannot be read as text in UTF-8: {error}") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise WildcatError(f"{path}: line {number} cannot be read as JSON: {error}") from None
        if not isinstance(values, dict):
            raise WildcatError(
                f'{path}: line {number} must be an object, such as {{"file_name": "a.jpg", "label": "cat"}}'
            )
        read.append(values)
        columns.update(dict.fromkeys(values))
    if len(columns) < 2:
        raise WildcatError(f"{path}: its lines must name an image and its tags; they have {len(columns)} keys")
    names = list(columns)
    return Records(path, names, [[values.get(name) for name in names] for values in read])


def _read_parquet(path: Path) -> Records:
    try:
        import pyarrow as pa
        import pyarrow.parquet as parquet
    except ImportError:
        raise WildcatError(f"{path}: Parquet tables need pyarrow: pip install 'wildcat-wsl[parquet]'") from None
    try:
        table = parquet.ParquetFile(path)
        columns, names = list(table.schema_arrow.names), _class_names(table.schema_arrow.metadata or {})
        stored = [index for index, field_ in enumerate(table.schema_arrow) if _holds_bytes(pa, field_.type)]
        rows: list[list[Any]] = []
        has_images = False
        for batch in table.iter_batches(batch_size=256):
            for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                values = list(row)
                for index in stored:
                    content, name = _stored(values[index])
                    has_images |= content is not None
                    values[index] = name if content is None else _unpacked(path, content, name, len(rows))
                rows.append(values)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise WildcatError(f"{path}: cannot be read as Parquet: {first_line(error)}") from None
    if len(columns) < 2:
        raise WildcatError(
            f"{path}: must have a column of images and one of tags; it has {', '.join(columns) or 'none'}"
        )
    return Records(path, columns, rows, names, cache_folder() if has_images else None)


def _holds_bytes(pa: Any, kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(inner.name == "bytes" and _holds_bytes(pa, inner.type) for inner in kind)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Column -> names of its classes, from the description that the library datasets adds to a table."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {column: found for column, feature in features.items() if (found := _names_of(feature))}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _names_of(feature: Any) -> list[str]:
    """The names of a feature ClassLabel, or of that inside of a list or of an object."""
    if isinstance(feature, list):
        return _names_of(feature[0]) if feature and isinstance(feature[0], dict) else []
    if feature.get("_type") == "ClassLabel":
        return [str(name) for name in feature["names"]]
    inner = (_names_of(value) for value in feature.values() if isinstance(value, dict | list))
    return next((names for names in inner if names), [])


def _stored(value: Any) -> tuple[bytes | None, str | None]:
    """(content, path) of an image of a row: either may be missing."""
    if isinstance(value, dict):
        return value.get("bytes"), value.get("path")
    return value, None


def _unpacked(path: Path, content: bytes, name: str | None, number: int) -> str:
    """The name, below the cache, of the file of an image that is stored in a row.

    The name is the same on every machine, because random splits depend on it.
    """
    known = next((suffix for mark, suffix in _SUFFIXES.items() if content.startswith(mark)), None)
    suffix = known or Path(name or "").suffix or ".png"
    # By content, so that a table that was written again brings its new images.
    digest = hashlib.blake2b(content, digest_size=12).hexdigest()
    folder = cache_folder() / path.stem
    file = folder / f"{number:07}-{digest}{suffix}"
    if not file.is_file() or file.stat().st_size != len(content):
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"{file.name}.{os.getpid()}.tmp")
        unfinished.write_bytes(content)
        unfinished.replace(file)
    return file.relative_to(cache_folder()).as_posix()


def cache_folder() -> Path:
    """Where images of Parquet tables are unpacked: wildcat/images in the user's folder of caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wildcat" / "images"


def joined(parts: Iterator[Records] | Sequence[Records], path: Path) -> Records:
    """The rows of several tables, with all of their columns."""
    tables = list(parts)
    columns = list(dict.fromkeys(column for table in tables for column in table.columns))
    rows: list[list[Any]] = []
    for table in tables:
        at = {column: index for index, column in enumerate(table.columns)}
        rows += [[row[at[column]] if column in at else None for column in columns] for row in table.rows]
    names = {column: known for table in tables for column, known in table.class_names.items()}
    root = next((table.image_root for table in tables if table.image_root is not None), None)
    return Records(path, columns, rows, names, root)
