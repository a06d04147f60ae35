"""Inputs of a batch: images in folders, lists, object stores, Parquet files and shards, split into parts.

A part only describes where its images are. It is sent to a worker, which reads the images.
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

from wildcat.data.files import IMAGE_SUFFIXES, image_files_below
from wildcat.data.images import load_image
from wildcat.errors import WildcatError

Load: TypeAlias = Callable[[int | None], Image.Image]
"""Reads an image, with at least the given shorter side in pixels; None reads it in full size."""

# Column names of a Parquet file; the first one that exists is read.
BYTES_COLUMNS = ("bytes", "image", "picture", "content", "jpg", "png")  # encoded images
PATH_COLUMNS = ("path", "url", "file", "file_name", "filename")  # paths or URLs


@dataclass(frozen=True)
class InputPart:
    """A part of the inputs: some images, which one worker reads in order.

    Attributes:
        kind: "images": images by path or URL; "rows": encoded images of a Parquet file; "shard": images of a tar file.
        names: paths or URLs of the images, or of the one Parquet or tar file.
        row_group: index of the row group in the Parquet file.
        first_row: index of the row group's first row in the Parquet file.
    """

    kind: Literal["images", "rows", "shard"]
    names: tuple[str, ...]
    row_group: int = 0
    first_row: int = 0

    @property
    def id(self) -> str:
        """An id that is the same for the same images."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=10).hexdigest()

    def __str__(self) -> str:
        """A description for messages."""
        if self.kind == "images":
            return self.names[0] if len(self.names) == 1 else f"{len(self.names)} images from {self.names[0]} on"
        return self.names[0] if self.kind == "shard" else f"row group {self.row_group} of {self.names[0]}"

    def to_json(self) -> str:
        """The part as JSON, for :meth:`from_json`."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> InputPart:
        """The part that :meth:`to_json` wrote."""
        values = json.loads(text)
        return cls(**{**values, "names": tuple(values["names"])})

    def images(self) -> Iterator[tuple[str, Load]]:
        """The name of each image, and a function that reads it.

        Raises:
            WildcatError: the Parquet file or shard cannot be read.
        """
        if self.kind == "images":
            for name in self.names:
                yield name, _read_url(name) if "://" in name else _read_file(name)
        elif self.kind == "rows":
            yield from self._rows()
        else:
            yield from self._members()

    def _rows(self) -> Iterator[tuple[str, Load]]:
        (name,) = self.names
        with _open_parquet(name) as file, _named_errors(name):
            column = _first_existing(BYTES_COLUMNS, file.schema_arrow.names)
            # A few rows at a time, as a row group may not fit into memory.
            batches = file.iter_batches(16, row_groups=[self.row_group], columns=[column])
            for number, value in enumerate((value for batch in batches for value in batch[column]), self.first_row):
                content = value.as_py()
                if isinstance(content, dict):  # {"bytes", "path"}, as the library `datasets` writes images
                    content = content.get("bytes")
                image_name = f"{name}#{number}"
                yield image_name, _decode(content or b"", image_name)

    def _members(self) -> Iterator[tuple[str, Load]]:
        (name,) = self.names
        with _open(name) as stream, _named_errors(name), tarfile.open(fileobj=stream, mode="r|*") as shard:
            for member in shard:
                if member.isfile() and Path(member.name).suffix.lower() in IMAGE_SUFFIXES:
                    content = cast(IO[bytes], shard.extractfile(member)).read()
                    image_name = f"{name}#{member.name}"
                    yield image_name, _decode(content, image_name)


def _read_file(name: str) -> Load:
    return lambda size: load_image(name, draft_size=size)


def _read_url(name: str) -> Load:
    def load(size: int | None) -> Image.Image:
        with _open(name) as stream, _named_errors(name):
            content = stream.read()
        return _decode(content, name)(size)

    return load


def _decode(content: bytes, name: str) -> Load:
    def load(size: int | None) -> Image.Image:
        try:
            return load_image(content, draft_size=size)
        except WildcatError as error:
            raise WildcatError(f"{name}: {error}") from error

    return load


def _store(name: str) -> tuple[Any, str]:
    """The file system of a path or URL, and the path in it."""
    if "://" in name and (scheme := name.partition("://")[0]) != "file":
        try:
            system, path = url_to_fs(name)
        except (ImportError, ValueError) as error:  # its package is not installed; unknown scheme
            raise WildcatError(f"{name}: addresses of {scheme}:// cannot be opened: {error}") from error
        return system, path
    return LocalFileSystem(), name.removeprefix("file://")


@contextmanager
def _named_errors(name: str) -> Iterator[None]:
    """Raise errors of any type, as each store has its own, as WildcatErrors with the name of the file."""
    try:
        yield
    except WildcatError:
        raise
    except Exception as error:
        raise WildcatError(f"{name} cannot be read: {str(error) or type(error).__name__}") from error


def _open(name: str) -> IO[bytes]:
    system, path = _store(name)
    with _named_errors(name):
        return cast(IO[bytes], system.open(path, "rb"))


@contextmanager
def _open_parquet(name: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with _open(name) as stream:
        with _named_errors(name):
            file = pq.ParquetFile(stream)
        yield file


def _first_existing(candidates: Sequence[str], names: Collection[str]) -> str | None:
    return next((name for name in candidates if name in names), None)


def split_inputs(inputs: Iterable[str], size: int, finished: Collection[str] = frozenset()) -> list[InputPart]:
    """Split inputs into parts.

    The split does not depend on which images are finished: finished images are removed from the parts afterwards. So
    the same inputs always give the same parts.

    Args:
        inputs: images, folders of images, lists (``.txt``, a path or URL per line), Parquet files (``.parquet``),
            WebDataset shards (``.tar``); each a path, or a URL that fsspec can open.
        size: images per part, for images that are files of their own; at least 1. A row group of a Parquet file and a
            shard are one part each.
        finished: names of images that are omitted.

    Raises:
        WildcatError: an input does not exist, cannot be read or has no images.
    """
    if size < 1:
        raise WildcatError(f"the size of a part must be at least 1 image; got {size}")
    names: dict[str, None] = {}  # an ordered set
    parts: dict[str, InputPart] = {}
    for given in inputs:
        name = given if "://" in given else os.path.abspath(given)  # noqa: PTH100 - symbolic links are kept
        suffix = Path(name).suffix.lower()
        if suffix in (".parquet", ".tar"):
            file_parts = [InputPart("shard", (name,))] if suffix == ".tar" else _parts_of_parquet(name, names)
            parts.update((part.id, part) for part in file_parts)
        else:
            names.update(dict.fromkeys(_image_names(name, suffix)))
    rest = iter(names)
    while chunk := tuple(itertools.islice(rest, size)):
        if unfinished := tuple(name for name in chunk if name not in finished):
            part = InputPart("images", unfinished)
            parts[part.id] = part
    return list(parts.values())


def _image_names(name: str, suffix: str) -> list[str]:
    """The images of an image file, a list or a folder."""
    if suffix in IMAGE_SUFFIXES:
        return [name]
    system, path = _store(name)
    with _named_errors(name):
        if suffix == ".txt":
            with _open(name) as stream, io.TextIOWrapper(stream, encoding="utf-8") as text:
                images = [_resolve(name, line.strip()) for line in text if line.strip()]
            if not images:
                raise WildcatError(f"{name} is empty; a list has a path or URL per line")
            return images
        if not system.exists(path):
            raise WildcatError(f"{name} does not exist")
        if "://" not in name:
            images = [str(Path(name) / inside) for inside in image_files_below(Path(name))]
        else:
            images = sorted(system.unstrip_protocol(file) for file in system.find(path))
            images = [file for file in images if Path(file).suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise WildcatError(f"{name} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return images


def _parts_of_parquet(name: str, names: dict[str, None]) -> list[InputPart]:
    """A part per row group, for a column of encoded images. For a column of paths, adds these to ``names``."""
    with _open_parquet(name) as file, _named_errors(name):
        columns = file.schema_arrow.names
        if _first_existing(BYTES_COLUMNS, columns):
            counts = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            starts = list(itertools.accumulate(counts, initial=0))[:-1]
            return [InputPart("rows", (name,), group, start) for group, start in enumerate(starts)]
        column = _first_existing(PATH_COLUMNS, columns)
        if column is None:
            raise WildcatError(
                f"{name} has no column of images: {', '.join(BYTES_COLUMNS)} (encoded) or {', '.join(PATH_COLUMNS)} "
                f"(paths or URLs); it has {', '.join(columns)}"
            )
        for batch in file.iter_batches(columns=[column]):
            names.update(dict.fromkeys(_resolve(name, str(value)) for value in batch[column].to_pylist()))
        return []


def _resolve(file: str, name: str) -> str:
    """A path or URL in a file, which may be relative to the folder of the file."""
    if "://" in name or os.path.isabs(name):  # noqa: PTH117 - faster, called for each image
        return name
    return f"{file.rpartition('/')[0]}/{name}"
