"""What a batch reads: images of folders, lists, object stores, Parquet files and shards, cut into parts.

A part is a small note of where its images are; it is sent to whoever reads them, and the images themselves are not.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeAlias, cast

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from wildcat.data.images import IMAGE_SUFFIXES, image_files_below, load_image
from wildcat.errors import WildcatError

Load: TypeAlias = Callable[[int | None], Image.Image]

# Columns of a Parquet file, the first that is there: encoded images; or where the images are.
BYTES_COLUMNS = ("bytes", "image", "picture", "content", "jpg", "png")
PATH_COLUMNS = ("path", "url", "file", "file_name", "filename")


@dataclass(frozen=True)
class Part:
    """Some of the images, read one after another.

    Attributes:
        kind: "images": paths and URLs; "rows": encoded images of a Parquet file; "shard": images of a tar file.
        names: the images; or the one file.
        row_group: of the Parquet file.
        first_row: number in the file of the row group's first row.
    """

    kind: Literal["images", "rows", "shard"]
    names: tuple[str, ...]
    row_group: int = 0
    first_row: int = 0

    @property
    def id(self) -> str:
        """The same for the same images."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=10).hexdigest()

    def __str__(self) -> str:
        """For messages."""
        if self.kind == "images":
            return self.names[0] if len(self.names) == 1 else f"{len(self.names)} images, {self.names[0]} the first"
        return self.names[0] if self.kind == "shard" else f"row group {self.row_group} of {self.names[0]}"

    def to_json(self) -> str:
        """For :meth:`from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Part:
        """What :meth:`to_json` has written."""
        values = json.loads(text)
        return cls(**{**values, "names": tuple(values["names"])})

    def images(self) -> Iterator[tuple[str, Load]]:
        """Name of each image, and how it is read.

        Raises:
            WildcatError: if the Parquet file or shard cannot be read.
        """
        if self.kind == "images":
            for name in self.names:
                yield name, _remote(name) if "://" in name else _local(name)
        elif self.kind == "rows":
            yield from self._rows()
        else:
            yield from self._members()

    def _rows(self) -> Iterator[tuple[str, Load]]:
        (name,) = self.names
        with _parquet(name) as file, _message(name):
            column = _first(BYTES_COLUMNS, file.schema_arrow.names)
            # A few rows at a time: a row group may be larger than memory.
            batches = file.iter_batches(16, row_groups=[self.row_group], columns=[column])
            for number, value in enumerate((value for batch in batches for value in batch[column]), self.first_row):
                content = value.as_py()
                if isinstance(content, dict):  # {"bytes", "path"}, as the library `datasets` writes images
                    content = content.get("bytes")
                yield (found := f"{name}#{number}"), _held(content or b"", found)

    def _members(self) -> Iterator[tuple[str, Load]]:
        (name,) = self.names
        with _open(name) as stream, _message(name), tarfile.open(fileobj=stream, mode="r|*") as shard:
            for member in shard:
                if member.isfile() and Path(member.name).suffix.lower() in IMAGE_SUFFIXES:
                    content = cast(IO[bytes], shard.extractfile(member)).read()
                    yield (found := f"{name}#{member.name}"), _held(content, found)


def _local(name: str) -> Load:
    return lambda size: load_image(name, draft_size=size)


def _remote(name: str) -> Load:
    def load(size: int | None) -> Image.Image:
        with _open(name) as stream, _message(name):
            content = stream.read()
        return _held(content, name)(size)

    return load


def _held(content: bytes, name: str) -> Load:
    def load(size: int | None) -> Image.Image:
        try:
            return load_image(content, draft_size=size)
        except WildcatError as error:
            raise WildcatError(f"{name}: {error}") from error

    return load


def _store(name: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the name there."""
    if "://" in name and (scheme := name.partition("://")[0]) != "file":
        try:
            system, path = url_to_fs(name)
        except (ImportError, ValueError) as error:  # a package for this kind of store is missing; no such kind
            raise WildcatError(f"{name}: addresses of {scheme}:// cannot be opened: {error}") from error
        return system, path
    return LocalFileSystem(), name.removeprefix("file://")


@contextmanager
def _message(name: str) -> Iterator[None]:
    """Have errors of whatever kind, each store has its own, name the file."""
    try:
        yield
    except WildcatError:
        raise
    except Exception as error:
        raise WildcatError(f"{name} cannot be read: {str(error) or type(error).__name__}") from error


def _open(name: str) -> IO[bytes]:
    system, path = _store(name)
    with _message(name):
        return cast(IO[bytes], system.open(path, "rb"))


@contextmanager
def _parquet(name: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with _open(name) as stream:
        with _message(name):
            file = pq.ParquetFile(stream)
        yield file


def _first(wanted: Sequence[str], names: Collection[str]) -> str | None:
    return next((column for column in wanted if column in names), None)


def parts_of(inputs: Iterable[str], size: int, finished: Collection[str] = frozenset()) -> list[Part]:
    """Cut inputs into parts.

    Parts are cut before the finished images are left out, so the same inputs give the same parts, whatever is
    finished by then: a part that two processes were to write is one file.

    Args:
        inputs: images, folders of images, lists (``.txt``, a path or URL per line), Parquet files (``.parquet``),
            WebDataset shards (``.tar``); each a path, or a URL that fsspec opens.
        size: images per part, where they are files of their own.
        finished: images that are left out, by name.

    Raises:
        WildcatError: for an input that is not there or holds nothing.
    """
    if size < 1:
        raise WildcatError(f"a part must hold at least 1 image; got {size}")
    names: dict[str, None] = {}  # in order, each once
    parts: dict[str, Part] = {}
    for given in inputs:
        name = given if "://" in given else os.path.abspath(given)  # noqa: PTH100 - links stay as they are named
        suffix = Path(name).suffix.lower()
        if suffix in (".parquet", ".tar"):
            found = [Part("shard", (name,))] if suffix == ".tar" else _of_parquet(name, names)
            parts.update((part.id, part) for part in found)
        else:
            names.update(dict.fromkeys(_listed(name, suffix)))
    rest = iter(names)
    while chunk := tuple(itertools.islice(rest, size)):
        if left := tuple(name for name in chunk if name not in finished):
            part = Part("images", left)
            parts[part.id] = part
    return list(parts.values())


def _listed(name: str, suffix: str) -> list[str]:
    """Images of an image file, a list or a folder."""
    if suffix in IMAGE_SUFFIXES:
        return [name]
    system, path = _store(name)
    with _message(name):
        if suffix == ".txt":
            with _open(name) as stream, io.TextIOWrapper(stream, encoding="utf-8") as text:
                found = [_below(name, line.strip()) for line in text if line.strip()]
            if not found:
                raise WildcatError(f"{name} is empty: a list holds a path or URL per line")
            return found
        if not system.exists(path):
            raise WildcatError(f"{name} does not exist")
        if "://" not in name:
            found = [str(Path(name) / inside) for inside in image_files_below(Path(name))]
        else:
            found = sorted(system.unstrip_protocol(file) for file in system.find(path))
            found = [file for file in found if Path(file).suffix.lower() in IMAGE_SUFFIXES]
    if not found:
        raise WildcatError(f"{name} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return found


def _of_parquet(name: str, names: dict[str, None]) -> list[Part]:
    """A part per row group of encoded images; or none, and the paths of a column added to names."""
    with _parquet(name) as file, _message(name):
        columns = file.schema_arrow.names
        if _first(BYTES_COLUMNS, columns):
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            starts = list(itertools.accumulate(counts, initial=0))[:-1]
            return [Part("rows", (name,), group, start) for group, start in enumerate(starts)]
        column = _first(PATH_COLUMNS, columns)
        if column is None:
            raise WildcatError(
                f"{name} has no column of images: {', '.join(BYTES_COLUMNS)} (encoded) or {', '.join(PATH_COLUMNS)} "
                f"(paths or URLs); it has {', '.join(columns)}"
            )
        for batch in file.iter_batches(columns=[column]):
            names.update(dict.fromkeys(_below(name, str(value)) for value in batch[column].to_pylist()))
        return []


def _below(file: str, name: str) -> str:
    """A name that a file holds, which may be relative to the file's folder."""
    if "://" in name or os.path.isabs(name):  # noqa: PTH117 - of text, millions of times
        return name
    return f"{file.rpartition('/')[0]}/{name}"
