"""Entries of a JSON object, checked while they are read."""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wildcat.errors import WildcatError
from wildcat.system.files import read_json

LONGEST_TEXT = 10_000
LARGEST_SIZE = 100_000  # side of an image in pixels


class JsonObject:
    """A JSON object whose entries are checked while they are read; an error names the file and the key.

    Every method takes the key, and a default for a missing entry where the format allows that; without a default a
    missing entry is an error. Values in error messages are shortened, however large the file.

    Args:
        values: the object.
        file: name of the file, for error messages.
        path: keys that lead from the top of the file to this object.

    >>> values = JsonObject({"images": 24, "pointing": {"map": None}}, "results.json")
    >>> values.count("images"), values.child("pointing").number("map")
    (24, nan)
    >>> values.text("split")
    Traceback (most recent call last):
        ...
    wildcat.errors.WildcatError: results.json has no entry 'split'
    """

    def __init__(self, values: Mapping[str, Any], file: str, path: tuple[str, ...] = ()) -> None:
        self.values, self.file, self.path = values, file, path

    @classmethod
    def read(cls, file: Path) -> JsonObject:
        """The object that a file holds.

        Raises:
            WildcatError: if the file is missing, is not JSON or does not hold an object.
        """
        return cls(read_json(file), str(file))

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def check_format(self, known: int) -> None:
        """Check the entry "format" of a file; files without it are of the first format.

        Raises:
            WildcatError: for another format, of a later version of the package.
        """
        found = self.count("format", 1)
        if found != known:
            raise WildcatError(
                f"{self.file} has format {found}, of another version of wildcat; this one reads format {known}"
            )

    def any(self, key: str) -> Any:
        """A value of any type, unchecked."""
        return self._get(key, None)

    def number(self, key: str, default: float | None = None, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number from ``low`` to ``high``; NaN where the file has null."""
        if key not in self.values and default is not None:
            return default
        value = self._get(key, None)
        if value is None or value != value:  # Python writes and reads NaN, which is not JSON
            return math.nan
        largest = sys.float_info.max
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not max(low, -largest) <= value <= min(high, largest):
            raise self.error(key, _describe(low, high))
        return float(value)

    def count(self, key: str, default: int | None = None) -> int:
        """A whole number from 0."""
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**53:
            raise self.error(key, "a whole number from 0")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """True or false."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string of at most :data:`LONGEST_TEXT` characters."""
        value = self._get(key, default)
        if not isinstance(value, str):
            raise self.error(key, "a text")
        if len(value) > LONGEST_TEXT:
            raise self.error(key, f"a text of at most {LONGEST_TEXT} characters")
        return value

    def texts(self, key: str, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """A list of strings."""
        value = self._get(key, default)
        if not isinstance(value, list | tuple) or not all(isinstance(item, str) for item in value):
            raise self.error(key, "a list of names")
        return tuple(value)

    def sizes(self, key: str, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """A list of whole numbers above 0 and at most :data:`LARGEST_SIZE`."""
        value = self._get(key, default)
        if not isinstance(value, list | tuple) or not all(type(item) is int and item > 0 for item in value):
            raise self.error(key, "a list of whole numbers above 0")
        if max(value, default=1) > LARGEST_SIZE:
            raise self.error(key, f"a list of whole numbers up to {LARGEST_SIZE}")
        return tuple(value)

    def numbers(self, key: str, high: float, low: float = -math.inf) -> tuple[float, float, float]:
        """A list of three numbers above ``low``, of a size up to ``high``; one per colour channel."""
        value = self._get(key, None)
        is_triple = isinstance(value, list | tuple) and len(value) == 3
        if not is_triple or not all(type(v) in (int, float) and low < v < math.inf for v in value):
            raise self.error(key, "three finite numbers" + ("" if low == -math.inf else f" above {low:g}"))
        if max(map(abs, value)) > high:
            raise self.error(key, f"three numbers up to {high:g}")
        return (float(value[0]), float(value[1]), float(value[2]))

    def child(self, key: str) -> JsonObject:
        """An object inside this one; an empty one where it is missing."""
        value = self.values.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "an object")
        return JsonObject(value, self.file, (*self.path, key))

    def children(self) -> dict[str, JsonObject]:
        """The objects inside this one, by key; every entry must be one."""
        return {key: self.child(key) for key in self.values}

    def objects(self, key: str, most: int) -> list[JsonObject]:
        """A list of at most so many objects; an empty one where it is missing."""
        value = self.values.get(key, [])
        is_list = isinstance(value, list | tuple) and len(value) <= most
        if not is_list or not all(isinstance(each, dict) for each in value):
            raise self.error(key, f"a list of at most {most} objects")
        return [JsonObject(each, self.file, (*self.path, f"{key}[{i}]")) for i, each in enumerate(value)]

    def error(self, key: str, allowed: str) -> WildcatError:
        """The error that says what an entry must be, and what it is."""
        name = ".".join((*self.path, key))
        return WildcatError(f"{self.file}: {name} must be {allowed}; got {reprlib.repr(self.values.get(key))}")

    def _get(self, key: str, default: Any) -> Any:
        if key in self.values:
            return self.values[key]
        if default is None:
            raise WildcatError(f"{self.file} has no entry {'.'.join((*self.path, key))!r}")
        return default


def _describe(low: float, high: float) -> str:
    """What :meth:`JsonObject.number` allows, in words."""
    if high < math.inf:
        return f"a number from {low:g} to {high:g}, or null"
    return "a finite number, or null" if low == -math.inf else f"a finite number from {low:g}, or null"
