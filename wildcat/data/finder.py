"""Finds the files that a table names, also where their names are written in another way."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from wildcat.data.files import is_image_name
from wildcat.data.names import clean_name


class _Names:
    """The names in a folder, as they are on the disk."""

    def __init__(self, names: list[str]) -> None:
        self.exact = frozenset(names)
        self._names = names

    @cached_property  # most tables name every file as it is
    def alike(self) -> dict[str, list[str]]:
        """Clean name in lower case -> names on the disk."""
        alike: dict[str, list[str]] = {}
        for name in self._names:
            alike.setdefault(_key(name), []).append(name)
        return alike

    @cached_property
    def stems(self) -> dict[str, list[str]]:
        """The same without suffix -> names of images."""
        stems: dict[str, list[str]] = {}
        for name in filter(is_image_name, self._names):
            stems.setdefault(_key(name).rpartition(".")[0], []).append(name)
        return stems


def _key(name: str) -> str:
    return clean_name(name).lower()


class FileFinder:
    """Finds files by names relative to a folder.

    A name that is not on the disk is found if exactly one file looks the same: its name differs in the normal form of
    Unicode, in invisible characters, in case, in "\\" for "/", or the suffix of the image is missing.

    Args:
        folder: to which names are relative.

    Attributes:
        others: names that were found under another name.
    """

    def __init__(self, folder: Path) -> None:
        self.others: list[str] = []
        self._folder = folder
        self._names: dict[str, _Names | None] = {}

    def find(self, name: str) -> Path:
        """The path of a file; where none is found, the path that the name says."""
        path = os.path.join(self._folder, name)  # noqa: PTH118 - a hundred thousand times
        where, base = os.path.split(path)
        names = self._names_in(where)
        if names is not None and base in names.exact:
            return Path(path)
        found = self._found(self._folder / name.replace("\\", "/"))
        if found is None:
            return Path(path)
        self.others.append(name)
        return found

    def _found(self, path: Path) -> Path | None:
        """The file that looks the same, in folders that look the same."""
        current = Path(path.anchor)
        for part in path.parts[1 if path.anchor else 0 :]:
            if os.path.lexists(current / part):
                current /= part
                continue
            names = self._names_in(os.fspath(current))
            if names is None:
                return None
            key = _key(part)
            candidates = names.alike.get(key, []) or ([] if is_image_name(part) else names.stems.get(key, []))
            if len(candidates) != 1:
                return None
            current /= candidates[0]
        return current

    def _names_in(self, folder: str) -> _Names | None:
        if folder not in self._names:
            self._names[folder] = _read_names(folder)
        return self._names[folder]


def _read_names(folder: str) -> _Names | None:
    try:
        return _Names(os.listdir(folder or "."))  # noqa: PTH208 - names only
    except (OSError, ValueError):
        return None
