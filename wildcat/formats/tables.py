"""JSON lines and CSV."""

import csv
import json
from pathlib import Path
from typing import IO

from wildcat.formats.base import Growing, PredictedImage


class JsonLines:
    """JSON lines into an open stream, each as soon as it is known: scores in per cent, points in pixels."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def add(self, image: PredictedImage) -> None:
        """Write a line."""
        print(json.dumps(image.prediction.to_dict(image.threshold)), file=self._stream, flush=True)

    def finish(self) -> None:
        """The stream is its owner's."""

    def discard(self) -> None:
        """What was written has been read."""


class ConsoleWriter:
    """What is found, in words, of the first images: ``cat.jpg: tabby 64 % at (120, 88)``; printed at the end."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lines: list[str] = []
        self._count = 0

    def add(self, image: PredictedImage) -> None:
        """Note a line."""
        self._count += 1
        if len(self._lines) < self._most:
            found = [
                f"{_message(image, c)} at ({x:.0f}, {y:.0f})" for c in image.present for x, y in [image.point_of(c)]
            ]
            best = image.prediction.candidates(image.threshold)[0]
            message = ", ".join(found) or f"nothing; most likely {_message(image, best)}"
            self._lines.append(f"{' '.join(image.name.split())}: {message}")

    def finish(self) -> None:
        """Print the lines."""
        if self._count > len(self._lines):
            self._lines.append(f"... and {self._count - len(self._lines):,} more")
        print("\n".join(self._lines) if self._lines else "no image could be read")

    def discard(self) -> None:
        """Nothing was written."""


def _message(image: PredictedImage, label: int) -> str:
    return f"{image.class_of(label)} {100 * image.score_of(label):.0f} %"


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

    def add(self, image: PredictedImage) -> None:
        """Write a row."""
        prediction = image.prediction
        self._csv.writerow([prediction.name, *(f"{100 * float(p):.3f}" for p in prediction.probabilities)])
