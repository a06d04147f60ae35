"""Where earlier workers were when they ended: what a worker that takes over a part of a batch has to know.

A worker may be killed by an image, whose decoder crashes or wants more memory than there is, or by something else,
such as a machine that is switched off. Somebody else gets its part in both cases. A file of notes tells them apart.
"""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from pathlib import Path

MAX_CRASHES_PER_IMAGE = 2  # workers that ended at an image; then it is left out
MAX_CRASHES_PER_PART = 6  # workers that ended in a part, not at the same image; then it is given up


class Attempts:
    """The notes about one part: a line when a worker begins with it, and one before each image that it names.

    A line is written at once, so it is there when its writer has been killed. One that is not whole, as a machine that
    is switched off may leave it, says nothing.

    Args:
        folder: of the notes of all parts; it exists.
        part: its id.

    Attributes:
        ended: for each worker that began and did not finish, the image that it named last, if any.
    """

    def __init__(self, folder: Path, part: str) -> None:
        self._file = folder / f"{part}.jsonl"
        self.ended: list[str | None] = []
        if self._file.is_file():
            for line in self._file.read_bytes().splitlines():
                try:
                    note = json.loads(line)
                except ValueError:
                    continue
                if "process" in note:
                    self.ended.append(None)
                elif self.ended:  # else a worker that was taken for dead resumes in a file that has been removed
                    self.ended[-1] = note["image"]

    @property
    def deadly(self) -> set[str]:
        """Images that are to be left out."""
        return {
            name for name, count in Counter(self.ended).items() if name is not None and count >= MAX_CRASHES_PER_IMAGE
        }

    @property
    def hopeless(self) -> bool:
        """Whether workers keep ending here, at no image in particular."""
        deadly = self.deadly
        return sum(name not in deadly for name in self.ended) >= MAX_CRASHES_PER_PART

    def begin(self) -> None:
        """This process begins with the part, on a line of its own."""
        if self._file.is_file() and not self._file.read_bytes().endswith(b"\n"):
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write("\n")
        self._write({"process": os.getpid(), "machine": socket.gethostname()})

    def reading(self, image: str) -> None:
        """It is going to read an image."""
        self._write({"image": image})

    def forget(self) -> None:
        """The part is finished."""
        self._file.unlink(missing_ok=True)

    def _write(self, note: dict[str, object]) -> None:
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(note) + "\n")
