"""Rows of a CSV file that an experiment completes call by call."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wildcat.system.files import write_atomically

Row = dict[str, Any]


def read_rows(file: Path) -> list[Row]:
    """The rows of a CSV file, with all values as text; none if the file is missing."""
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def write_rows(file: Path, rows: Sequence[Row]) -> None:
    """The inverse of `read_rows`."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(file, text.getvalue().encode())
