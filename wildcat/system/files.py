"""Files that are there whole or not at all, whatever ends the process that writes them."""

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

UNFINISHED = ".*.tmp"  # finds files that are being written, or were when a process was killed, and perhaps others
_WRITTEN_BY = re.compile(r"\..+\.(\d{1,9})-([0-9a-f]{8})\.tmp")


def unfinished(file: Path) -> Path:
    """The name that a file has while this process writes it, in the same folder: hidden, with process and machine."""
    return file.with_name(f".{file.name}.{os.getpid()}-{_machine()}.tmp")


def is_unfinished(file: Path) -> bool:
    """Whether a file has a name of :func:`unfinished`, of any process: it is being written, or was at a kill."""
    return _WRITTEN_BY.fullmatch(file.name) is not None


def write_atomically(file: Path, content: bytes, keep: Path | None = None) -> None:
    """Write a file so that after any crash it is either the old one or the new one, whole.

    Args:
        file: what to write.
        content: all of it.
        keep: a name in the same folder for the old file. A crash between the two renamings leaves the old file there
            and none under its own name.

    Raises:
        WildcatError: if the disk rejects (full, read-only); the old file is intact then.
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
    """Remove those that have names of :func:`unfinished` and whose writers, of this machine, are no more.

    What other machines write, into a folder that they share, is left alone: whether they still do is unknown.
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
    """Whether a process of this machine is there, or may be."""
    if os.name != "posix":  # elsewhere the signal 0 would end it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        return True
    return True


def _flush_names(folder: Path) -> None:
    """Have the disk hold the folder's new names too, where the system can: a power cut may otherwise undo them."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some network file systems reject
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
