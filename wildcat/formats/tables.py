"""JSON lines and CSV."""

import csv
import json
from pathlib import Path
from typing import IO

from wildcat.formats.base import Growing, Picture


class JsonLines:
    """JSON lines into an open stream, each as soon as it is known: scores in per cent, points in pixels."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def add(self, picture: Picture) -> None:
        """Write a line."""
        print(json.dumps(picture.prediction.to_dict(picture.threshold)), file=self._stream, flush=True)

    def finish(self) -> None:
        """The stream is its owner's."""

    def discard(self) -> None:
        """What was written has been read."""


class Told:
    """What is found, in words, of the first pictures: ``cat.jpg: tabby 64 % at (120, 88)``; printed at the end."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: list[str] = []
        self._count = 0

    def add(self, picture: Picture) -> None:
        """Note a line."""
        self._count += 1
        if len(self._lines) < self._most:
            found = [
                f"{_told(picture, c)} at ({x:.0f}, {y:.0f})" for c in picture.present for x, y in [picture.point_of(c)]
            ]
            best = picture.prediction.candidates(picture.threshold)[0]
            told = ", ".join(found) or f"nothing; most likely {_told(picture, best)}"
            self._lines.append(f"{' '.join(picture.name.split())}: {told}")

    def finish(self) -> None:
        """Print the lines."""
        if self._count > len(self._lines):
            self._lines.append(f"... and {self._count - len(self._lines):,} more")
        print("\n".join(self._lines) if self._lines else "no picture could be read")

    def discard(self) -> None:
        """Nothing was written."""


def _told(picture: Picture, label: int) -> str:
    return f"{picture.class_of(label)} {100 * picture.score_of(label):.0f} %"


class JsonFile:
    """The same as a file."""

    def __init__(self, file: Path) -> None:
        lines = Growing(file)
        self.add, self.finish, self.discard = JsonLines(lines.stream).add, lines.finish, lines.discard


class CsvWriter:
    """``scores.csv``: scores in per cent."""

    def __init__(self, out: Path, classes: tuple[str, ...]) -> None:
        self._rows = Growing(out / "scores.csv")
        self._csv = csv.writer(self._rows.stream, lineterminator="\n")
        self._csv.writerow(["file", *classes])
        self.finish, self.discard = self._rows.finish, self._rows.discard

    def add(self, picture: Picture) -> None:
        """Write a row."""
        prediction = picture.prediction
        self._csv.writerow([prediction.name, *(f"{100 * float(p):.3f}" for p in prediction.probabilities)])
