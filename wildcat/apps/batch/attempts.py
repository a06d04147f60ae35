"""A log of what each worker was doing when it ended, for the worker that takes over its part of a batch.

A worker process may be killed by an image, whose decoder crashes or needs more memory than there is, or by something
else, for example a machine that is switched off. In both cases another worker gets the part. The log tells the two
cases apart.
"""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from pathlib import Path

MAX_CRASHES_PER_IMAGE = 2  # workers that ended at the same image; then the image is skipped
MAX_CRASHES_PER_PART = 6  # workers that ended in a part at different images; then the batch ends with an error


class AttemptLog:
    """The log of one part: a line when a worker starts with it, and one before each image that may crash the worker.

    Lines are written immediately, so they survive a killed writer. Incomplete lines, which a machine that is switched
    off may leave, are ignored.

    Args:
        folder: folder of the logs of all parts; it exists.
        part_id: id of the part.

    Attributes:
        crashes: for each worker that started and did not finish, the last image that it recorded, or None.
    """

    def __init__(self, folder: Path, part_id: str) -> None:
        self._file = folder / f"{part_id}.jsonl"
        self.crashes: list[str | None] = []
        if self._file.is_file():
            for line in self._file.read_bytes().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue
                if "process" in entry:
                    self.crashes.append(None)
                elif self.crashes:  # else a worker that was believed dead has recreated the file
                    self.crashes[-1] = entry["image"]

    @property
    def crashing_images(self) -> set[str]:
        """Images at which so many workers ended that they are skipped."""
        counts = Counter(self.crashes)
        return {name for name, count in counts.items() if name is not None and count >= MAX_CRASHES_PER_IMAGE}

    @property
    def too_many_crashes(self) -> bool:
        """Whether too many workers ended in this part, not counting those at crashing images."""
        crashing = self.crashing_images
        return sum(name not in crashing for name in self.crashes) >= MAX_CRASHES_PER_PART

    def start(self) -> None:
        """Record, on a new line, that this process starts with the part."""
        if self._file.is_file() and not self._file.read_bytes().endswith(b"\n"):
            with self._file.open("a", encoding="utf-8") as stream:
                stream.write("\n")
        self._write({"process": os.getpid(), "machine": socket.gethostname()})

    def record_image(self, name: str) -> None:
        """Record the image that this process is about to read."""
        self._write({"image": name})

    def remove(self) -> None:
        """Delete the log, as the part is finished."""
        self._file.unlink(missing_ok=True)

    def _write(self, entry: dict[str, object]) -> None:
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")
