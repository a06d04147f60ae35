"""Text files that grow image by image and get their name when they are complete."""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from wildcat.system.files import create_new, is_written_in_place, open_in_place, remove_leftovers, unfinished
from wildcat.system.output_folder import OutputFolder, checksum


class IncrementalFile:
    """A text file that is written bit by bit under a temporary name and renamed when it is complete.

    A device, a pipe or the name of an open file is written into at once; see
    :func:`wildcat.system.files.is_written_in_place`. Letters that UTF-8 does not have (file names that are not UTF-8)
    are written as escapes, ``\\udce9``.

    Args:
        file: its final path; folders are created.
        before_renaming: called with the complete file before it gets its final name.

    Attributes:
        file: the final path.
        stream: the open file to write to.
    """

    def __init__(self, file: Path, before_renaming: Callable[[Path], None] | None = None) -> None:
        self.file = file
        self._before_renaming = before_renaming
        self._part: Path | None = None
        if is_written_in_place(file):
            target = open_in_place(file)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            remove_leftovers(file.parent.glob(f".{glob.escape(file.name)}.*.tmp"))
            self._part = unfinished(file)
            target = create_new(self._part)
        self.stream: IO[str] = io.TextIOWrapper(target, encoding="utf-8", errors="backslashreplace", newline="\n")

    def finish(self) -> None:
        """Close the file and rename it to its final path."""
        self.stream.flush()
        if self._part is not None:
            os.fsync(self.stream.fileno())
        self.stream.close()
        if self._part is not None:
            if self._before_renaming is not None:
                self._before_renaming(self._part)
            self._part.replace(self.file)

    @classmethod
    def within(cls, folder: OutputFolder, name: str) -> IncrementalFile:
        """A file of an output folder, which lists it.

        Raises:
            WildcatError: if another file has its name, and must not be replaced.
        """
        folder.check([name])
        return cls(folder.path / name, lambda part: folder.note(name, checksum(part)))

    def append(self, other: IncrementalFile) -> None:
        """Append the contents of another incremental file, and remove that one."""
        other.stream.close()
        if other._part is not None:
            with other._part.open(encoding="utf-8", newline="") as source:
                shutil.copyfileobj(source, self.stream)
        other.discard()

    def discard(self) -> None:
        """Remove the file unless it is finished."""
        with contextlib.suppress(OSError):  # closing flushes the buffer, and the disk may be full
            self.stream.close()
        if self._part is not None:
            self._part.unlink(missing_ok=True)


class JsonList:
    """Writes a JSON list to a text stream, one entry per line."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._stream.write("[")
        self._empty = True

    def add(self, value: Any) -> None:
        """Write one entry."""
        self._stream.write(("\n" if self._empty else ",\n") + json.dumps(value))
        self._empty = False

    def end(self) -> None:
        """End the list."""
        self._stream.write("\n]")
