"""Parquet files as inputs: a column of encoded images, or one of paths and URLs."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from wildcat.apps.batch.stores import named_errors, open_file
from wildcat.errors import WildcatError

# Column names; the first one that exists and has a fitting type is read.
BYTES_COLUMNS = ("bytes", "image", "picture", "content", "jpg", "png")  # encoded images
PATH_COLUMNS = ("path", "url", "file", "file_name", "filename")  # paths or URLs

_ROWS = 16  # read at a time, as a row group may not fit into memory


def row_groups(name: str) -> list[tuple[int, int]] | None:
    """Index and first row of each row group of a file with encoded images; None for one with paths.

    Raises:
        WildcatError: the file cannot be read, or has no rows or no column of images.
    """
    with _opened(name) as file:
        if not file.metadata.num_rows:
            raise WildcatError(f"{name} has no rows")
        if _image_column(name, file.schema_arrow)[1] == "paths":
            return None
        counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
        return list(enumerate(itertools.accumulate(counts[:-1], initial=0)))


def image_paths(name: str) -> Iterator[str | None]:
    """The path or URL in each row of a file with paths; None where a row has none.

    Raises:
        WildcatError: the file cannot be read.
    """
    with _opened(name) as file:
        column, _ = _image_column(name, file.schema_arrow)
        for batch in file.iter_batches(columns=[column]):
            yield from (_text(value) for value in _bytes_of(batch[column], len(batch)))


def encoded_images(name: str, row_group: int) -> Iterator[bytes | str | None]:
    """The image in each row of a row group: its bytes, or its path or URL where it has no bytes; None without both.

    Raises:
        WildcatError: the file cannot be read.
    """
    with _opened(name) as file:
        schema = file.schema_arrow
        column, _ = _image_column(name, schema)
        beside = _path_column(schema)
        columns = [column] if beside is None else [column, beside]
        for batch in file.iter_batches(_ROWS, row_groups=[row_group], columns=columns):
            contents = batch[column]
            paths = None if beside is None else batch[beside]
            if _is_struct(contents.type):  # as the library `datasets` writes: bytes, or the path of a file, or both
                fields = {contents.type.field(i).name: part for i, part in enumerate(contents.flatten())}
                contents, paths = fields.get("bytes"), fields.get("path", paths)
            for content, path in zip(_bytes_of(contents, len(batch)), _bytes_of(paths, len(batch)), strict=True):
                yield content or _text(path)


@contextmanager
def _opened(name: str) -> Iterator[Any]:
    """The opened file; errors in the context, of any type, become WildcatErrors with its name."""
    import pyarrow.parquet as pq

    with open_file(name) as stream, named_errors(name):
        yield pq.ParquetFile(stream)


def _image_column(name: str, schema: Any) -> tuple[str, Literal["bytes", "paths"]]:
    types = dict(zip(schema.names, schema.types, strict=True))
    for column in BYTES_COLUMNS:
        if column in types and _holds_images(types[column]):
            return column, "bytes"
    path_column = _path_column(schema) or next(
        (column for column in BYTES_COLUMNS if _is_text(types.get(column))), None
    )
    if path_column is not None:
        return path_column, "paths"
    for column in (*BYTES_COLUMNS, *PATH_COLUMNS):
        if column in types:
            if str(types[column]) == "null":  # of a column without any value
                return column, "paths"
            raise WildcatError(
                f"{name}: column {column!r} holds values of type {types[column]}; encoded images are binary, paths text"
            )
    raise WildcatError(
        f"{name} has no column of images: {', '.join(BYTES_COLUMNS)} (encoded) or {', '.join(PATH_COLUMNS)} "
        f"(paths or URLs); it has {', '.join(schema.names)}"
    )


def _path_column(schema: Any) -> str | None:
    types = dict(zip(schema.names, schema.types, strict=True))
    return next((column for column in PATH_COLUMNS if _is_text(types.get(column))), None)


def _holds_images(kind: Any) -> bool:
    """Whether values of an Arrow type can be encoded images, or structs with the bytes or the path of an image."""
    if _is_struct(kind):
        return any(kind.field(i).name in ("bytes", "path") for i in range(kind.num_fields))
    return "binary" in str(_value_type(kind))


def _is_text(kind: Any) -> bool:
    """Whether values of an Arrow type can be paths; bytes are, as some programs write text so."""
    return kind is not None and not _is_struct(kind) and _is_text_or_bytes(kind)


def _is_text_or_bytes(kind: Any) -> bool:
    return str(_value_type(kind)).startswith(("string", "large_string", "binary", "large_binary", "fixed_size_binary"))


def _is_struct(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_struct(kind))


def _value_type(kind: Any) -> Any:
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _bytes_of(array: Any, length: int) -> list[bytes | None]:
    """The values of an array of text or bytes, as bytes: text need not be valid UTF-8. None for other arrays."""
    import pyarrow as pa

    if array is None or not _is_text_or_bytes(array.type):
        return [None] * length
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if "string" in str(array.type):
        array = array.cast(pa.large_binary())
    values: list[bytes | None] = array.to_pylist()
    return values


def _text(value: bytes | None) -> str | None:
    return value.decode("utf-8", "surrogateescape") if value and value.strip() else None
