"""Inputs of a batch: images in folders, lists, object stores, Parquet files and shards, split into parts.

A part only describes where its images are. It is sent to a worker, which reads the images.
"""

from __future__ import annotations

import codecs
import hashlib
import io
import itertools
import json
import os
import posixpath
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from PIL import Image

from wildcat.apps.batch.parquet import encoded_images, image_paths, row_groups
from wildcat.apps.batch.shards import SHARD_SUFFIXES, Shard
from wildcat.apps.batch.stores import (
    is_url,
    named_errors,
    normal_name,
    open_file,
    printable,
    read_image,
    store_of,
    suffix,
    version_of,
    without_query,
)
from wildcat.data.files import IMAGE_SUFFIXES, image_files_below, is_user_path
from wildcat.data.images import load_image
from wildcat.errors import WildcatError

Load: TypeAlias = Callable[[int | None], Image.Image]
"""Reads an image, with at least the given shorter side in pixels; None reads it in full size."""

_CONNECTIONS = 16  # that ask stores for versions at the same time
_ENCODINGS = {  # by byte order mark
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",  # after UTF-32, whose mark begins with the same bytes
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class InputPart:
    """A part of the inputs: some images, which one worker reads in order.

    Attributes:
        kind: "images": images by path or URL; "rows": encoded images of a Parquet file; "shard": images of a tar file;
            "no images": rows of a Parquet file of paths that have none.
        names: paths or URLs of the images, or of the one Parquet or tar file; "FILE#row" for rows without images.
        row_group: index of the row group in the Parquet file.
        first_row: index of the row group's first row in the Parquet file.
        version: of the Parquet or tar file, as :func:`wildcat.apps.batch.stores.version_of` gives it; None if unknown.
    """

    kind: Literal["images", "rows", "shard", "no images"]
    names: tuple[str, ...]
    row_group: int = 0
    first_row: int = 0
    version: str | None = None

    @property
    def id(self) -> str:
        """An id that is the same for the same images, or the same place in the same file."""
        values = {key: value for key, value in asdict(self).items() if key != "version"}
        return hashlib.blake2b(json.dumps(values).encode(), digest_size=10).hexdigest()

    @property
    def source(self) -> str | None:
        """The Parquet or tar file, None for images that are files of their own."""
        if self.kind == "images":
            return None
        return self.names[0].rpartition("#")[0] if self.kind == "no images" else self.names[0]

    def __str__(self) -> str:
        """A description for messages."""
        if self.kind in ("images", "no images"):
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

    def images(
        self, hidden: Callable[[int], Any] | None = None, *, partial: bool = False
    ) -> Iterator[tuple[str, Load]]:
        """The name of each image, and a function that reads it.

        Args:
            hidden: is called with the number of hidden images of a shard, which are skipped, after the others.
            partial: read JPEGs that were cut as far as they go.

        Raises:
            WildcatError: the Parquet file or shard cannot be read to its end, or changed while it was read.
        """
        if self.kind == "images":
            for name in self.names:
                yield name, _read(name, partial)
            return
        if self.kind == "no images":
            for name in self.names:
                yield name, _fail(f"{self.source}: row {name.rpartition('#')[2]} has no image")
            return
        yield from self._rows(partial) if self.kind == "rows" else self._members(hidden, partial)
        (name,) = self.names
        # Not over HTTP, where servers behind one address may give a file different dates.
        if self.version is not None and not name.startswith("http") and version_of(name) != self.version:
            raise WildcatError(f"{name} changed while it was read")

    def _rows(self, partial: bool) -> Iterator[tuple[str, Load]]:
        (file,) = self.names
        for number, content in enumerate(encoded_images(file, self.row_group), self.first_row):
            name = f"{file}#{number}"
            if content is None:
                yield name, _fail(f"{file}: row {number} has no image")
            elif isinstance(content, bytes):
                yield name, _decode(content, name, partial)
            else:
                yield name, _read(_resolve(file, content), partial)

    def _members(self, hidden: Callable[[int], Any] | None, partial: bool) -> Iterator[tuple[str, Load]]:
        (file,) = self.names
        with open_file(file) as stream, named_errors(file):
            shard = Shard(stream)
            try:
                for member in shard:
                    name = f"{file}#{member.name}"
                    if isinstance(member.content, bytes):
                        yield name, _decode(member.content, name, partial)
                    else:
                        yield name, _fail(f"{name}: {member.content}")
            except WildcatError as error:
                raise WildcatError(f"{file} cannot be read: {error}") from error
            finally:
                if hidden is not None and shard.hidden:
                    hidden(shard.hidden)


def _read(name: str, partial: bool) -> Load:
    if is_url(name):
        return lambda size: _decode(read_image(name), name, partial)(size)
    return lambda size: load_image(name, draft_size=size, partial=partial)


def _fail(message: str) -> Load:
    def load(_: int | None) -> Image.Image:
        raise WildcatError(message)

    return load


def _decode(content: bytes, name: str, partial: bool) -> Load:
    def load(size: int | None) -> Image.Image:
        try:
            return load_image(content, draft_size=size, partial=partial)
        except WildcatError as error:
            raise WildcatError(f"{name}: {error}") from error

    return load


def split_inputs(inputs: Iterable[str], size: int, finished: Collection[str] = frozenset()) -> list[InputPart]:
    """Split inputs into parts.

    The split does not depend on which images are finished: finished images are removed from the parts afterwards. So
    the same inputs always give the same parts. An image that is named in several ways is in one part, once.

    Args:
        inputs: images, folders of images, lists (``.txt``, a path or URL per line), Parquet files (``.parquet``),
            WebDataset shards (``.tar``, ``.tar.gz``, ``.tgz``, ``.tar.bz2``, ``.tar.xz``); each a path, or a URL that
            fsspec can open.
        size: images per part, for images that are files of their own; at least 1. A row group of a Parquet file and a
            shard are one part each.
        finished: printable names of images that are omitted.

    Raises:
        WildcatError: an input does not exist, cannot be read or has no images.
    """
    if size < 1:
        raise WildcatError(f"the size of a part must be at least 1 image; got {size}")
    names: dict[str, None] = {}  # an ordered set
    parts: dict[str, InputPart] = {}
    for given in inputs:
        name = normal_name(given)
        if is_source(name):
            file_parts = _parts_of_parquet(name, names) if suffix(name) == ".parquet" else [InputPart("shard", (name,))]
            parts.update((part.id, part) for part in file_parts)
        else:
            names.update(dict.fromkeys(_image_names(name)))
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        sources = list(dict.fromkeys(part.source for part in parts.values() if part.source is not None))
        versions = dict(zip(sources, pool.map(version_of, sources), strict=True))
    parts = {key: replace(part, version=versions.get(part.source or "")) for key, part in parts.items()}
    rest = iter(names)
    while chunk := tuple(itertools.islice(rest, size)):
        if unfinished := tuple(name for name in chunk if printable(name) not in finished):
            part = InputPart("images", unfinished)
            parts[part.id] = part
    return list(parts.values())


def is_source(name: str) -> bool:
    """Whether an input is a Parquet file or a shard, which hold many images."""
    return without_query(name).lower().endswith((".parquet", *SHARD_SUFFIXES))


def _image_names(name: str) -> list[str]:
    """The images of an image file, a list or a folder."""
    kind = suffix(name)
    if kind in IMAGE_SUFFIXES:
        return [name]
    with named_errors(name):
        if kind == ".txt":
            images = [_resolve(name, line) for line in _lines(name)]
            if not images:
                raise WildcatError(f"{name} is empty; a list has a path or URL per line")
            return images
        if is_url(name):
            system, path = store_of(name)
            if not system.exists(path):
                raise WildcatError(f"{name} does not exist")
            found = (file for file in system.find(path) if is_user_path(file.removeprefix(path)))
            images = sorted(map(system.unstrip_protocol, found))
            images = [file for file in images if suffix(file) in IMAGE_SUFFIXES]
        else:
            if not os.path.lexists(name):
                raise WildcatError(f"{name} does not exist")
            images = [str(Path(name) / inside) for inside in image_files_below(Path(name))]
    if not images:
        raise WildcatError(f"{name} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
    return images


def _lines(name: str) -> Iterator[str]:
    """The lines of a list that are not blank: in UTF-8, or as its byte order mark says (editors of Windows write one).

    Bytes that are no UTF-8 are kept, as names of files need not be UTF-8.
    """
    with open_file(name) as stream:
        start = stream.read(4)
    encoding = next((encoding for mark, encoding in _ENCODINGS.items() if start.startswith(mark)), "utf-8")
    with open_file(name) as stream, io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape") as text:
        for line in text:
            if stripped := line.strip("\ufeff \t\r\n"):
                yield stripped


def _parts_of_parquet(name: str, names: dict[str, None]) -> list[InputPart]:
    """A part per row group, for a column of encoded images. For a column of paths, adds these to ``names``."""
    groups = row_groups(name)
    if groups is not None:
        return [InputPart("rows", (name,), group, first_row) for group, first_row in groups]
    empty = []
    for row, path in enumerate(image_paths(name)):
        if path is None:
            empty.append(f"{name}#{row}")
        else:
            names[_resolve(name, path)] = None
    return [InputPart("no images", tuple(empty))] if empty else []


def _resolve(file: str, name: str) -> str:
    """The normal name of a path or URL in a file, which may be relative to the folder of the file."""
    if "://" in name or os.path.isabs(name):  # noqa: PTH117 - faster, called for each image
        return normal_name(name)
    folder = file.rpartition("/")[0]
    if is_url(file):
        scheme, _, place = folder.partition("://")
        return f"{scheme}://{posixpath.normpath(f'{place}/{name}')}"
    return normal_name(f"{folder}/{name}")
