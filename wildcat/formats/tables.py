"""JSON lines, CSV, and lines of text for people."""

import csv
import json
from pathlib import Path
from typing import IO

from wildcat.formats.incremental import IncrementalFile
from wildcat.formats.predicted_image import PredictedImage
from wildcat.prediction.result import SCORE_DIGITS


class JsonLines:
    """Writes JSON lines to an open stream, one per image and flushed immediately.

    Scores are probabilities, 0 to 1; points are in pixels of the image.

    Args:
        stream: text stream; it is not closed.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def add(self, image: PredictedImage) -> None:
        """Write the line of an image."""
        print(json.dumps(image.prediction.to_dict(image.threshold)), file=self._stream, flush=True)

    def finish(self) -> None:
        """Do nothing: the stream stays open."""

    def discard(self) -> None:
        """Do nothing: lines that were written cannot be withdrawn."""


class ConsoleWriter:
    """Writes one line of text per image to a stream, at the end: ``cat.jpg: tabby 64 % at (120, 88)``.

    Args:
        stream: text stream; it is not closed.
        max_lines: further images are only counted.
    """

    def __init__(self, stream: IO[str], max_lines: int) -> None:
        self._stream = stream
        self._max_lines = max_lines
        self._lines: list[str] = []
        self._count = 0

    def add(self, image: PredictedImage) -> None:
        """Format the line of an image."""
        self._count += 1
        if len(self._lines) < self._max_lines:
            present = [
                f"{_class_score(image, c)} at ({x:.0f}, {y:.0f})" for c in image.present for x, y in [image.point_of(c)]
            ]
            best = image.prediction.candidates(image.threshold)[0]
            message = ", ".join(present) or f"no class above the threshold; most probable: {_class_score(image, best)}"
            self._lines.append(f"{' '.join(image.name.split())}: {message}")

    def finish(self) -> None:
        """Write the lines."""
        if self._count > len(self._lines):
            self._lines.append(f"... and {self._count - len(self._lines):,} more")
        self._stream.write("\n".join(self._lines or ["no image could be read"]) + "\n")

    def discard(self) -> None:
        """Do nothing: nothing was written yet."""


def _class_score(image: PredictedImage, label: int) -> str:
    return f"{image.class_of(label)} {100 * image.score_of(label):.0f} %"


class JsonFile:
    """Writes JSON lines to a file, as :class:`JsonLines`.

    Args:
        file: path of the file, which appears when it is complete.
    """

    def __init__(self, file: Path) -> None:
        lines = IncrementalFile(file)
        self.add, self.finish, self.discard = JsonLines(lines.stream).add, lines.finish, lines.discard


class CsvWriter:
    """Writes ``scores.csv``: a row per image, a column per class, its probability from 0 to 1."""

    def __init__(self, out: Path, classes: tuple[str, ...]) -> None:
        self._rows = IncrementalFile(out / "scores.csv")
        self._csv = csv.writer(self._rows.stream, lineterminator="\n")
        self._csv.writerow(["file", *classes])
        self.finish, self.discard = self._rows.finish, self._rows.discard

    def add(self, image: PredictedImage) -> None:
        """Write the row of an image."""
        prediction = image.prediction
        self._csv.writerow([prediction.name, *(f"{float(p):.{SCORE_DIGITS}f}" for p in prediction.probabilities)])
