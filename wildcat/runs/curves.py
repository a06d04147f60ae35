"""Reads ``metrics.csv`` of a run: the curves of its training."""

from __future__ import annotations

import csv
import io
import math
import reprlib
from pathlib import Path

from wildcat.errors import WildcatError
from wildcat.system.files import read_bounded

LARGEST = 64 << 20  # bytes of a file that is read: more than a million epochs have


def read_curves(file: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv, one per epoch: a number for each column, NaN where a cell is empty.

    Raises:
        WildcatError: if the file is missing or damaged; the message names the line and the column.

    >>> read_curves(Path("runs/mine/metrics.csv"))[0]["train_loss"]  # doctest: +SKIP
    0.69
    """
    try:
        text = read_bounded(file, LARGEST).decode("utf-8")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except OSError as error:
        raise WildcatError(f"{file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise WildcatError(f"{file} is damaged: it is not a CSV in UTF-8 ({error})") from error
    if not rows:
        return []
    names = rows[0]
    curves = []
    for number, row in enumerate(rows[1:], start=2):
        if not row:  # a line without text
            continue
        if len(row) != len(names):
            raise WildcatError(f"{file} is damaged: line {number} has {len(row)} cells instead of {len(names)}")
        curves.append(
            {
                name: _number(cell, f"{file} is damaged: line {number}, {name}")
                for name, cell in zip(names, row, strict=True)
            }
        )
    return curves


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell or "nan")
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise WildcatError(f"{where} must be a finite number; got {reprlib.repr(cell)}")
    return value
