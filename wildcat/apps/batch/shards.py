"""Reads WebDataset shards: tar files, plain or compressed, as streams and to their very end.

Python's tarfile takes a file that is cut between two members, or in the header of one, for a complete one. Here a shard
must end with the mark of the end of an archive, which every writer of tar files adds: a block of zeros.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from wildcat.apps.batch.stores import MAX_FILE_BYTES
from wildcat.data.files import IMAGE_SUFFIXES, is_user_path
from wildcat.errors import WildcatError

SHARD_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")

_BUFFER = 2**18
_MAGIC: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_ZSTD = b"\x28\xb5\x2f\xfd"


@dataclass(frozen=True)
class Member:
    """An image of a shard.

    Attributes:
        name: of the member.
        content: its bytes, or the error that says why it is not read.
    """

    name: str
    content: bytes | WildcatError


class Shard:
    """The images of a shard, read from a stream.

    Attributes:
        hidden: hidden images so far, which are skipped, as in folders: those whose name, or a folder's in their path,
            begins with ".", such as the ``._`` files of macOS, and those in folders of the system, as ``__MACOSX``.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.hidden = 0

    def __iter__(self) -> Iterator[Member]:
        """The images in order, and at the end of the stream an error if it is not the end of an archive."""
        header = _header_type()
        images = 0
        with tarfile.open(
            fileobj=_decompressed(self._stream), mode="r|", bufsize=_BUFFER, tarinfo=header, ignore_zeros=True
        ) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined] # they would stay in memory
                if Path(member.name).suffix.lower() not in IMAGE_SUFFIXES or member.isdir():
                    continue
                if not is_user_path(member.name):
                    self.hidden += 1
                    continue
                images += 1
                yield Member(member.name, _content(archive, member))
        if not header.at_end:
            raise WildcatError(
                "it ends without the mark of the end of a tar file, so that it was cut, or its writer was not closed"
            )
        if not images:
            raise WildcatError(f"it holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes | WildcatError:
    if member.issym() or member.islnk():
        return WildcatError("it is a link to another member, and links in shards are not followed")
    if not member.isfile():
        return WildcatError("it is not a file")
    if member.size > MAX_FILE_BYTES:
        return WildcatError(f"an image file of more than {MAX_FILE_BYTES} bytes is not read")
    return cast(IO[bytes], archive.extractfile(member)).read()


def _header_type() -> Any:
    """A type of headers for one shard that notices where it ends, and rejects what tarfile takes for an end."""

    class Header(tarfile.TarInfo):
        at_end = False  # the last block was a block of zeros

        @classmethod
        def frombuf(cls, buf: Any, encoding: str, errors: str) -> Any:
            if len(buf) == tarfile.BLOCKSIZE:
                cls.at_end = not any(buf)
            elif any(buf):
                raise tarfile.ReadError("it is cut in the header of a member")
            try:
                return super().frombuf(buf, encoding, errors)
            except tarfile.HeaderError as error:
                if buf and not cls.at_end:
                    raise tarfile.ReadError(f"the header of a member is damaged: {error}") from error
                raise

    return Header


def _decompressed(stream: IO[bytes]) -> IO[bytes]:
    """The stream itself, or what it holds in compressed form; a compressed stream that is cut raises an EOFError."""
    buffered = io.BufferedReader(_Raw(stream), _BUFFER)
    start = buffered.peek(8)[:8]
    if start.startswith(_ZSTD):
        raise WildcatError("it is compressed with zstd, which is not supported: unpack it, or compress it with gzip")
    for magic, opened in _MAGIC.items():
        if start.startswith(magic):
            return cast(IO[bytes], opened(buffered))
    return buffered


class _Raw(io.RawIOBase):
    """The reads of any stream, for a BufferedReader."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._stream.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)
