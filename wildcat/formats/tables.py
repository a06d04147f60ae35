"""JSON lines and CSV."""

import csv
import json
from pathlib import Path

from wildcat.formats.picture import Growing, Picture


class JsonWriter:
    """``predictions.jsonl``: scores in per cent, points in pixels of the picture."""

    def __init__(self, out: Path, classes: tuple[str, ...]) -> None:
        self._lines = Growing(out / "predictions.jsonl")
        self.finish, self.discard = self._lines.finish, self._lines.discard

    def add(self, picture: Picture) -> None:
        """Write a line."""
        self._lines.stream.write(json.dumps(picture.prediction.to_dict(picture.threshold)) + "\n")


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
