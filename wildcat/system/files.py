"""Atomic writes: after a crash at any moment, a file is complete, or is as it was before.

Devices, named pipes and the names of open files (``/dev/stdout``, ``/dev/fd/3``) are never replaced: what is written to
them goes straight into them.
"""

import contextlib
import errno
import io
import json
import os
import platform
import re
import shutil
import stat
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

from wildcat.errors import WildcatError

LARGEST_JSON = 256 << 20  # bytes of a JSON file that is read
UNFINISHED = ".*.tmp"  # a glob pattern for names of `unfinished`; other files may match it too: see `is_unfinished`
_WRITTEN_BY = re.compile(r"\..+\.(\d{1,9})-([0-9a-f]{8})\.tmp", re.DOTALL)
_STANDARD_STREAMS = {"/dev/stdin": 0, "/dev/stdout": 1, "/dev/stderr": 2}
_MAX_LINKS = 40  # as Linux: a longer chain of links is a loop


def unfinished(file: Path) -> Path:
    """The name of a file while this process writes it: hidden, in the same folder, with process and machine."""
    return file.with_name(f".{file.name}.{os.getpid()}-{_machine()}.tmp")


def open_without_links(file: Path, flags: int) -> io.FileIO:
    """Open a file for bytes, but no link in its place: in a folder of others it could lead to any file of the user's.

    Args:
        file: the file; links in the path to its folder are followed.
        flags: of :func:`os.open`: ``os.O_RDONLY``, or ``os.O_RDWR`` with others.

    Raises:
        OSError: as :func:`os.open`; ELOOP (on BSD: EMLINK) for a link.
    """
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    flags |= getattr(os, "O_NONBLOCK", 0)  # a pipe would wait for its other end
    descriptor = os.open(file, flags, 0o666)
    return io.FileIO(descriptor, "r+" if flags & os.O_RDWR else "r")


def is_unfinished(file: Path) -> bool:
    """Whether a file has a name of :func:`unfinished`, of any process that writes it or was killed while it did."""
    return _WRITTEN_BY.fullmatch(file.name) is not None


def is_written_in_place(file: Path) -> bool:
    """Whether a file is written into instead of being replaced: what exists and is no regular file or folder.

    These are devices, pipes and sockets, the names of open files, which may be regular ones (``/dev/stdout`` of
    ``> out.txt``), and links to any of them.

    >>> is_written_in_place(Path("/dev/null")), is_written_in_place(Path("out.json"))
    (True, False)
    """
    if _open_file(file) is not None:
        return True
    try:
        mode = file.stat().st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def open_in_place(file: Path) -> BinaryIO:
    """Open what :func:`is_written_in_place` is true for; a named pipe waits for its reader.

    Raises:
        OSError: if it cannot be opened.
    """
    descriptor = _open_file(file)
    # A copy of the descriptor shares its position: a second opening would begin at the start of a regular file.
    descriptor = os.open(file, os.O_WRONLY) if descriptor is None else os.dup(descriptor)
    return io.BufferedWriter(_NamedFile(descriptor, file))


def is_standard_output(file: Path) -> bool:
    """Whether a path names standard output: ``/dev/stdout``, ``/dev/fd/1``, or a link to it."""
    return _open_file(file) == 1


def _open_file(file: Path) -> int | None:
    """The descriptor of this process that a path names, directly or through links; None for all other paths."""
    path = os.path.abspath(file)  # noqa: PTH100 - links are followed one by one, because the last one leads nowhere
    for _ in range(_MAX_LINKS):
        if path in _STANDARD_STREAMS:
            return _STANDARD_STREAMS[path]
        if name := re.fullmatch(rf"/(?:dev|proc/(?:self|thread-self|{os.getpid()}))/fd/(\d{{1,9}})", path):
            return int(name[1])
        try:
            target = os.readlink(path)  # noqa: PTH115
        except (OSError, ValueError):
            return None
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120
    return None


def create_new(file: Path) -> BinaryIO:
    """Create a file for writing; what has its name is removed, and a link of that name is not followed.

    For temporary files: their names can be guessed, and in a shared folder somebody could lay a link there.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(file, flags, 0o666)
    except FileExistsError:
        file.unlink()
        descriptor = os.open(file, flags, 0o666)
    return io.BufferedWriter(_NamedFile(descriptor, file))


class _NamedFile(io.FileIO):
    """An open file whose errors name it: the system's, when a disk is full, do not."""

    def __init__(self, descriptor: int, file: Path) -> None:
        super().__init__(descriptor, "wb")
        self._file = file

    def write(self, content: Any) -> int:
        """Write bytes."""
        try:
            return super().write(content)
        except OSError as error:
            error.filename = str(self._file)
            raise


def check_output(file: Path) -> None:
    """Check that a file can be written, before the work whose result it will hold.

    Raises:
        WildcatError: if it is a folder, or its folder is missing or must not be written to.
    """
    if is_written_in_place(file):
        return
    if file.is_dir():
        raise WildcatError(f"{file} cannot be written: it is a directory; give the name of a file")
    if not file.parent.is_dir():
        raise WildcatError(f"{file} cannot be written: there is no directory {file.parent}")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise WildcatError(f"{file} cannot be written: no permission to write in {file.parent}")


def write_atomically(file: Path, content: bytes, keep: Path | None = None) -> None:
    """Write a file so that after a crash at any moment it has either all of its old content or all of the new.

    A device, a pipe or the name of an open file is written into, see :func:`is_written_in_place`.

    Args:
        file: the file.
        content: its new content.
        keep: a name in the same folder under which to keep the old file. After a crash between the two renamings the
            old file has this name only.

    Raises:
        WildcatError: if the file cannot be written (disk full, read-only); the old file is intact then.
        BrokenPipeError: if the reader of a pipe has ended.
    """
    temporary = unfinished(file)
    try:
        if is_written_in_place(file):
            with open_in_place(file) as stream:
                stream.write(content)
            return
        with create_new(temporary) as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if keep is not None and file.exists():
            file.replace(keep)
        temporary.replace(file)
        _flush_names(file.parent)
    except BrokenPipeError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise WildcatError(f"{file} cannot be written: {reason}") from error


def move_into_place(finished: Path, file: Path) -> None:
    """Give a complete file its name, or write its content into a device, a pipe or an open file of that name.

    Args:
        finished: the complete file, in the same file system; gone afterwards.
        file: its name.

    Raises:
        OSError: if that is not possible.
    """
    if not is_written_in_place(file):
        finished.replace(file)
        return
    with finished.open("rb") as source, open_in_place(file) as target:
        shutil.copyfileobj(source, target)
    finished.unlink()


def write_json(file: Path, values: dict[str, Any]) -> None:
    """Write a JSON object atomically, indented."""
    write_atomically(file, json_bytes(values))


def json_bytes(values: dict[str, Any]) -> bytes:
    """A JSON object as a file holds it, indented."""
    return (json.dumps(values, indent=2) + "\n").encode()


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
        WildcatError: if the file is missing, larger than :data:`LARGEST_JSON`, or does not hold an object.
    """
    try:
        values = json.loads(read_bounded(file, LARGEST_JSON).decode("utf-8"))
    except WildcatError:
        raise
    except OSError as error:
        raise WildcatError(f"{file} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise WildcatError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise WildcatError(f"{file} must hold a JSON object; got {type(values).__name__}")
    return values


def read_bounded(file: Path, largest: int) -> bytes:
    """The content of a regular file of at most ``largest`` bytes.

    Raises:
        WildcatError: if the file is larger.
        OSError: if it cannot be read.
    """
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > largest:
            raise WildcatError(f"{file} is larger than {largest >> 20} MB: it is not a file of this package")
        return stream.read(size)


def writable_folder(folders: Iterable[Path]) -> Path:
    """The first folder, made if need be, in which files can be made.

    Raises:
        OSError: of the last folder, if there is none.
    """
    failure = OSError(errno.ENOENT, os.strerror(errno.ENOENT))
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            failure = error
            continue
        if os.access(folder, os.W_OK | os.X_OK):
            return folder
        failure = PermissionError(errno.EACCES, "no permission to write, or a read-only disk", str(folder))
    raise failure
