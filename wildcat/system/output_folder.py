"""A folder of results that knows which files are its own, and replaces no others.

``wildcat-files.jsonl`` in the folder lists them: a line per file with the checksum of its content, written before the
file gets its name. So a process that is killed at any moment leaves no file of its own that is not in the list. A file
that is not in the list, or has another content than the listed one, is somebody else's, and stays.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from wildcat._version import __version__
from wildcat.errors import WildcatError, shorten
from wildcat.system.files import unfinished, write_atomically

LIST = "wildcat-files.jsonl"
_CHUNK = 1 << 20


class OutputFolder:
    """The files of one command in a folder.

    Args:
        path: the folder; it is created with the first file.
        overwrite: replace files that are not its own, too.

    Attributes:
        path: the folder.
        overwrite: as given.
        about: what the list says of the results: the values of the last :meth:`begin`; empty for a new folder.

    Raises:
        WildcatError: if the folder has a file with the list's name that is no such list.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp())
    >>> OutputFolder(path).write("mask/a.png", b"mine")
    >>> _ = (path / "notes.txt").write_text("yours")
    >>> OutputFolder(path).foreign(["mask/a.png", "notes.txt", "new.txt"])
    ['notes.txt']
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        self.path, self.overwrite = path, overwrite
        self.about: dict[str, Any] = {}
        self._listed: dict[str, set[str]] = {}  # name -> the checksums that its content had
        self._checked: set[str] = set()
        content = _list_content(path)
        self._exists = content is not None
        self._is_torn = content is not None and not content.endswith(b"\n")  # by a process that was killed
        for entry in [] if content is None else _entries(path, content):
            if "about" in entry:
                self.about = entry["about"]
            elif "file" in entry:
                self._listed.setdefault(entry["file"], set()).add(entry["content"])

    def own(self) -> Iterator[str]:
        """The listed files that exist with a listed content, relative to the folder; each is read for that."""
        return (name for name in self._listed if self._is_own(name))

    def foreign(self, names: Iterable[str]) -> list[str]:
        """Those of some names under which the folder has a file that is not its own."""
        return [name for name in names if os.path.lexists(self.path / name) and not self._is_own(name)]

    def check(self, names: Iterable[str]) -> None:
        """Check that files can be written under these names. Each name is checked once: before any work, if possible.

        Raises:
            WildcatError: if other files have one of the names, and `overwrite` is off.
        """
        if self.path.exists() and not self.path.is_dir():
            raise WildcatError(f"{self.path} is no directory; choose another one for the results")
        names = [name for name in names if name not in self._checked]
        if not self.overwrite and (taken := self.foreign(names)):
            raise WildcatError(
                f"{self.path} holds files that wildcat has not written, or that were changed since: {shorten(taken)}; "
                "choose another directory, or replace them with --overwrite"
            )
        self._checked.update(names)

    def begin(self, about: dict[str, Any]) -> None:
        """Note what the results are of, before the first file."""
        self.about = about
        self._append({"about": about})

    def clear(self) -> None:
        """Remove the folder's own files."""
        for name in list(self.own()):
            with contextlib.suppress(OSError):
                (self.path / name).unlink()

    def write(self, name: str, content: bytes) -> None:
        """Write a file atomically.

        Args:
            name: relative to the folder, with "/"; its folders are created.
            content: of the file.

        Raises:
            WildcatError: if another file has the name and `overwrite` is off, or it cannot be written.
        """
        self.check([name])
        self.note(name, f"{zlib.crc32(content):08x}")
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)

    def link(self, name: str, target: Path) -> bool:
        """Make a symbolic link, unless something else has its name.

        Returns:
            Whether the link, or a file, has the name now. Some systems allow no links.
        """
        file = self.path / name
        if os.path.lexists(file) and not (file.is_symlink() and self._is_own(name)):
            return True
        self.note(name, _link_content(str(target)))
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = unfinished(file)
        try:
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(target)
            temporary.replace(file)
        except OSError:
            return False
        return True

    def note(self, name: str, content: str) -> None:
        """Add a file to the list, before it gets its name; `content` is :func:`checksum` of what it will hold."""
        if content not in self._listed.get(name, ()):
            self._append({"file": name, "content": content})
            self._listed.setdefault(name, set()).add(content)

    def _is_own(self, name: str) -> bool:
        listed = self._listed.get(name)
        if not listed:
            return False
        file = self.path / name
        try:
            return (_link_content(os.readlink(file)) if file.is_symlink() else checksum(file)) in listed  # noqa: PTH115
        except OSError:
            return False

    def _append(self, entry: dict[str, Any]) -> None:
        line = (json.dumps(entry) + "\n").encode()
        file = self.path / LIST
        if not self._exists:
            self.path.mkdir(parents=True, exist_ok=True)
            head = json.dumps({"wildcat": __version__, "files": "written by wildcat; all others are left alone"}) + "\n"
            write_atomically(file, head.encode() + line)
            self._exists = True
            return
        try:
            descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0))
            with os.fdopen(descriptor, "ab") as stream:
                stream.write(b"\n" + line if self._is_torn else line)
            self._is_torn = False
        except OSError as error:
            raise WildcatError(f"{file} cannot be written: {error.strerror}") from error


def checksum(file: Path) -> str:
    """The CRC-32 of a file's content, in hexadecimal digits.

    Raises:
        OSError: if it cannot be read.
    """
    value = 0
    with file.open("rb") as stream:
        while block := stream.read(_CHUNK):
            value = zlib.crc32(block, value)
    return f"{value:08x}"


def listed_files(folder: Path) -> set[str]:
    """The files that a folder's list names, relative to the folder; none for a folder without a list.

    >>> listed_files(Path("not/there"))
    set()
    """
    try:
        content = _list_content(folder)
        return set() if content is None else {entry["file"] for entry in _entries(folder, content) if "file" in entry}
    except WildcatError:
        return set()


def _link_content(target: str) -> str:
    return f"link {zlib.crc32(os.fsencode(target)):08x}"


def _list_content(folder: Path) -> bytes | None:
    """The content of a folder's list; None for a folder without a list."""
    file = folder / LIST
    try:
        return file.read_bytes() if file.is_file() and not file.is_symlink() else None
    except OSError as error:
        raise WildcatError(f"{file} cannot be read: {error.strerror}") from error


def _entries(folder: Path, content: bytes) -> list[dict[str, Any]]:
    """The lines of a folder's list that are whole and valid; a killed process may have left a part of the last one."""
    lines = content.decode("utf-8", "replace").splitlines()
    entries = [entry for line in lines if isinstance(entry := _parsed(line), dict)]
    if not entries or not isinstance(entries[0].get("wildcat"), str):
        raise WildcatError(f"{folder / LIST} is not the list of files that wildcat writes; choose another directory")
    return [entry for entry in entries if _is_valid(entry)]


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _is_valid(entry: dict[str, Any]) -> bool:
    """Whether a line may be used: a list may come from somebody else, and name files outside of the folder."""
    if "file" not in entry:
        return isinstance(entry.get("about", {}), dict)
    name = entry["file"]
    if not isinstance(name, str) or not isinstance(entry.get("content"), str) or "\0" in name:
        return False
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and name != LIST
