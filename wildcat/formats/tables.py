"""JSON lines, CSV, and lines of text for people."""

import csv
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO

from wildcat.formats.incremental import IncrementalFile
from wildcat.formats.predicted_image import PredictedImage
from wildcat.prediction.result import SCORE_DIGITS
from wildcat.system.output_folder import OutputFolder


class JsonLines:
    """Writes JSON lines to an open stream, one per image and flushed immediately.

    Scores are probabilities, 0 to 1; points are in pixels of the image. The overlay and the mask that are written for
    the image are named relative to the output folder.

    Args:
        stream: text stream; it is not closed.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def add(self, image: PredictedImage) -> None:
        """Write the line of an image."""
        values = image.prediction.to_dict(image.threshold) | dict(image.files)
        print(json.dumps(values), file=self._stream, flush=True)

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
            self._lines.append(" ".join(f"{image.name}: {message}".split()))

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
        file: path of the file, which appears when it is complete; or the incremental file itself.
    """

    def __init__(self, file: Path | IncrementalFile) -> None:
        lines = file if isinstance(file, IncrementalFile) else IncrementalFile(file)
        self.add, self.finish, self.discard = JsonLines(lines.stream).add, lines.finish, lines.discard


class CsvWriter:
    """Writes ``scores.csv``: a row per image, with its file, its overlay and mask where they are written, its scores.

    There is a column per class, its probability from 0 to 1. A class with the name of another column gets "class:"
    before its name. Text that a spreadsheet would take for a formula gets an apostrophe before it (:func:`as_text`).
    """

    files = ("scores.csv",)

    def __init__(self, out: OutputFolder, classes: tuple[str, ...], columns: Sequence[str] = ()) -> None:
        self._rows = IncrementalFile.within(out, "scores.csv")
        self._csv = csv.writer(self._rows.stream, lineterminator="\n")
        self._columns = columns
        before = ["file", *columns]
        self._csv.writerow([*before, *(as_text(name) for name in unlike(classes, before))])
        self.finish, self.discard = self._rows.finish, self._rows.discard

    def add(self, image: PredictedImage) -> None:
        """Write the row of an image."""
        prediction = image.prediction
        texts = [prediction.name, *(image.files[name] for name in self._columns)]
        scores = [f"{float(p):.{SCORE_DIGITS}f}" for p in prediction.probabilities]
        self._csv.writerow([*map(as_text, texts), *scores])


def unlike(names: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Names of columns, with "class:" before those that are taken, or begin with it.

    >>> unlike(["cat", "file"], ["file"])
    ['cat', 'class:file']
    """
    taken = set(taken)
    return [f"class:{name}" if name in taken or name.startswith("class:") else name for name in names]


def as_text(value: str) -> str:
    """A cell of a CSV that no spreadsheet takes for a formula: an apostrophe before one that begins like one.

    Source: OWASP, "CSV Injection". A program that reads the file removes one apostrophe from a cell that begins
    with one or more of them and one of the characters = + - @, tab or line end behind them: that restores any text.

    >>> as_text("=1+1"), as_text("'=1+1"), as_text("cat")
    ("'=1+1", "''=1+1", 'cat')
    """
    return f"'{value}" if re.match(r"'*[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]", value) else value
