"""Paths and URLs: one name for each file, its version, and reads that are tried again and end.

A read of a store that fails for a reason that may pass (no connection, no answer, an error of the server) is tried
again a few times. It fails for good in less than a minute without an answer, so one address cannot hold up a worker.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar, cast

from fsspec.core import url_to_fs
from fsspec.spec import AbstractBufferedFile

from wildcat.errors import WildcatError, first_line

Result = TypeVar("Result")

MAX_FILE_BYTES = 2**30  # of an encoded image that is held in memory: more than any image of MAX_PIXELS
CONNECT_SECONDS, STALL_SECONDS = 15, 20  # HTTP: until there is a connection; without a byte
PAUSES = (0.5, 1.0, 2.0)  # seconds before the second try, the third, the fourth
RETRY_SECONDS = 30.0  # after that time there is no other try
IMAGE_SECONDS = 120.0  # of one try to read an image, however slowly its bytes arrive

_HTTP = ("http", "https")
# What stores say about the content of a file, besides its size. A server's own clock and counters are not among them.
_VERSION_KEYS = (
    *("ETag", "etag", "md5Hash", "content_md5", "crc32c", "generation", "version_id", "VersionId", "blob_id"),
    *("mtime", "LastModified", "last_modified", "modified", "updated", "created"),
)


def normal_name(name: str) -> str:
    """The one name under which a file is known: an absolute path without "." and "..", or the URL as it is.

    ``file://`` URLs become paths. Links are kept, except those before a ".." that leads elsewhere than in the text.

    >>> normal_name("/data/./b/../a.png"), normal_name("file:///data/a.png"), normal_name("s3://bucket/a.png")
    ('/data/a.png', '/data/a.png', 's3://bucket/a.png')
    """
    scheme, separator, rest = name.partition("://")
    if separator:
        if scheme not in ("file", "local"):
            return name
        name = rest.removeprefix("localhost")
        if "%" in name and not os.path.lexists(name):
            name = urllib.parse.unquote(name)
    short = os.path.abspath(name)  # noqa: PTH100 - symbolic links are kept
    if ".." not in name.split("/") or "\0" in name or os.path.realpath(name) == os.path.realpath(short):
        return short
    folder, _, last = name.rpartition("/")
    return os.path.realpath(name if last == ".." else folder) + ("" if last == ".." else f"/{last}")


def suffix(name: str) -> str:
    """The suffix of a path or URL in lower case, without the query of a URL.

    >>> suffix("https://host/shard.TAR?key=1"), suffix("/data/a.b/c")
    ('.tar', '')
    """
    return Path(without_query(name)).suffix.lower()


def without_query(name: str) -> str:
    """A URL of an HTTP server without what follows "?" or "#"; any other name as it is."""
    return re.split("[?#]", name, maxsplit=1)[0] if name.partition("://")[0] in _HTTP else name


def printable(name: str) -> str:
    """A name as UTF-8 can hold it: bytes of file names that are no UTF-8 become escapes.

    >>> print(printable(b"caf\\xe9.png".decode(errors="surrogateescape")))
    caf\\udce9.png
    """
    return name if name.isascii() else name.encode("utf-8", "backslashreplace").decode()


@contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Raise errors of any type, as each store has its own, as WildcatErrors with the name of the file."""
    try:
        yield
    except WildcatError:
        raise
    except Exception as error:
        reason = _reason(error)
        silent = isinstance(reason, asyncio.TimeoutError)
        message = "the store does not answer" if silent else first_line(reason)
        raise WildcatError(f"{name} cannot be read: {message}") from error


def store_of(name: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        WildcatError: for an unknown scheme, or one whose package is not installed.
    """
    scheme = name.partition("://")[0]
    options = {"client_kwargs": {"timeout": _http_timeout()}} if scheme in _HTTP else {}
    try:
        system, path = url_to_fs(name, **options)
    except (ImportError, ValueError) as error:
        raise WildcatError(f"{name}: addresses of {scheme}:// cannot be opened: {error}") from error
    return system, path


def _http_timeout() -> Any:
    try:
        import aiohttp
    except ImportError:  # fsspec says what to install
        return None
    return aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS)


def is_url(name: str) -> bool:
    """Whether a normal name is a URL, not a path."""
    return "://" in name


def open_file(name: str) -> IO[bytes]:
    """Open a path or URL for reading.

    Raises:
        WildcatError: it cannot be opened.
    """
    with named_errors(name):
        if not is_url(name):
            return Path(name).open("rb")
        system, path = store_of(name)
        stream = try_again(lambda: system.open(path, "rb"))
        if isinstance(stream, AbstractBufferedFile) and stream.size is not None:
            return cast(IO[bytes], io.BufferedReader(_PatientFile(stream)))
        return cast(IO[bytes], stream)


class _PatientFile(io.RawIOBase):
    """A file of a store that reads a block again if that fails. For files that are read by position."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        return int(self._stream.tell())

    def readinto(self, buffer: Any) -> int:
        place = self._stream.tell()

        def read() -> bytes:
            self._stream.seek(place)
            return cast(bytes, self._stream.read(len(buffer)))

        content = try_again(read)
        if not content and place < self._stream.size:
            raise OSError(f"it ends after {place} of {self._stream.size} bytes")
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._stream.close()
        super().close()


def read_image(name: str) -> bytes:
    """The bytes of an image at a URL.

    Raises:
        WildcatError: it cannot be read, is larger than ``MAX_FILE_BYTES``, or takes longer than ``IMAGE_SECONDS``.
    """
    system, path = store_of(name)
    # Of HTTP servers the file is asked for once, as a stream; fsspec would ask for its size first.
    options = {"block_size": 0, "size": 1} if name.partition("://")[0] in _HTTP else {}

    def read() -> bytes:
        end = time.monotonic() + IMAGE_SECONDS
        with system.open(path, "rb", **options) as stream:
            size = getattr(stream, "size", None)
            content = bytearray()
            while chunk := stream.read(2**20 if size is None else min(size, MAX_FILE_BYTES + 1)):
                content += chunk
                if len(content) > MAX_FILE_BYTES:
                    raise WildcatError(f"{name}: an image file of more than {MAX_FILE_BYTES} bytes is not read")
                if time.monotonic() > end:
                    raise WildcatError(f"{name} cannot be read: not complete after {IMAGE_SECONDS:g} seconds")
        if size is not None and len(content) != size:
            raise OSError(f"{len(content)} of {size} bytes were received")
        return bytes(content)

    with named_errors(name):
        return try_again(read)


def try_again(action: Callable[[], Result]) -> Result:
    """The result of an action on a store, which is tried again if it fails for a reason that may pass."""
    start = time.monotonic()
    for pause in PAUSES:
        try:
            return action()
        except Exception as error:
            if not _may_pass(error) or time.monotonic() - start > RETRY_SECONDS:
                raise
        time.sleep(pause)
    return action()


def _reason(error: BaseException) -> BaseException:
    """The error itself, or its cause: where an HTTP server gives no size, for any reason, fsspec finds no file."""
    return error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ is not None else error


def _may_pass(error: BaseException) -> bool:
    """Whether the same action may succeed later."""
    error = _reason(error)
    status = getattr(error, "status", None)
    if isinstance(status, int):  # of an HTTP server
        return status >= 500 or status in (408, 425, 429)
    if isinstance(error, FileNotFoundError | PermissionError | IsADirectoryError | NotADirectoryError):
        return False
    return not isinstance(error, WildcatError | ImportError | ValueError | TypeError | NotImplementedError)


def version_of(name: str) -> str | None:
    """What tells the content of a file from another under the same name: its size, and when it was changed or its ETag.

    None if that cannot be found out, as for a file that does not exist.
    """
    try:
        if not is_url(name):
            return local_version(name)
        system, path = store_of(name)
        info = try_again(lambda: system.info(path))
    except Exception:
        return None
    keys: tuple[str, ...] = _VERSION_KEYS
    if name.partition("://")[0] in _HTTP:  # one of the two, as servers behind one address may differ in ETags
        keys = next(((key,) for key in ("Last-Modified", "ETag") if info.get(key)), ())
    known = [f"{key} {info[key]}" for key in keys if info.get(key) is not None]
    return " ".join([f"size {info.get('size')}", *known])


def local_version(path: str) -> str | None:
    """The version of a local file, as for :func:`version_of`."""
    try:
        state = os.stat(path)  # noqa: PTH116 - faster, called for each image
    except (OSError, ValueError):
        return None
    return f"size {state.st_size} mtime {state.st_mtime_ns}"
