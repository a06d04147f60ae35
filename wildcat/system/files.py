"""Atomic writes: after a crash at any moment, a file is complete, or is as it was before."""

import contextlib
import json
import os
import platform
import re
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wildcat.errors import WildcatError

UNFINISHED = ".*.tmp"  # a glob pattern for names of `unfinished`; other files may match it too: see `is_unfinished`
_WRITTEN_BY = re.compile(r"\..+\.(\d{1,9})-([0-9a-f]{8})\.tmp")


def unfinished(file: Path) -> Path:
    """The name of a file while this process writes it: hidden, in the same folder, with process and machine."""
    return file.with_name(f".{file.name}.{os.getpid()}-{_machine()}.tmp")


def is_unfinished(file: Path) -> bool:
    """Whether a file has a name of :func:`unfinished`, of any process that writes it or was killed while it did."""
    return _WRITTEN_BY.fullmatch(file.name) is not None


def write_atomically(file: Path, content: bytes, keep: Path | None = None) -> None:
    """Write a file so that after a crash at any moment it has either all of its old content or all of the new.

    Args:
        file: the file.
        content: its new content.
        keep: a name in the same folder under which to keep the old file. After a crash between the two renamings the
            old file has this name only.

    Raises:
        WildcatError: if the file cannot be written (disk full, read-only); the old file is intact then.
    """
    temporary = unfinished(file)
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if keep is not None and file.exists():
            file.replace(keep)
        temporary.replace(file)
        _flush_names(file.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise WildcatError(f"{file} cannot be written: {error.strerror}") from error


def write_json(file: Path, values: dict[str, Any]) -> None:
    """Write a JSON object atomically, indented."""
    write_atomically(file, (json.dumps(values, indent=2) + "\n").encode())


def remove_leftovers(files: Iterable[Path]) -> None:
    """Remove files with names of :func:`unfinished` whose writer was a process of this machine that has ended.

    Files of other machines, in a shared folder, are left alone: their writers may still run.
    """
    for file in files:
        writer = _WRITTEN_BY.fullmatch(file.name)
        if writer and writer[2] == _machine() and not _is_running(int(writer[1])):
            with contextlib.suppress(OSError):
                file.unlink()


def _machine() -> str:
    """A short name of this machine."""
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _is_running(process: int) -> bool:
    """Whether a process of this machine runs, or may run."""
    if os.name != "posix":  # on Windows, signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it runs, for another user
        return True
    return True


def _flush_names(folder: Path) -> None:
    """Flush the names in a folder to disk where the system can: a power cut may otherwise undo the renaming."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems do not support it
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        WildcatError: if the file is missing or does not hold an object.
    """
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise WildcatError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WildcatError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise WildcatError(f"{file} must hold a JSON object; got {type(values).__name__}")
    return values
