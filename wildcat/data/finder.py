"""Finds the files that a table names, also where their names are written in another way."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from wildcat.data.files import is_image_name
from wildcat.data.names import clean_name


@dataclass(frozen=True)
class _Names:
    """The names in a folder.

    Attributes:
        exact: as they are on the disk.
        alike: clean name in lower case -> names on the disk.
        stems: the same without suffix -> names of images.
    """

    exact: frozenset[str]
    alike: dict[str, list[str]]
    stems: dict[str, list[str]]


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
            key = clean_name(part).lower()
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
        listed = os.listdir(folder or ".")  # noqa: PTH208 - names only
    except (OSError, ValueError):
        return None
    alike: dict[str, list[str]] = {}
    stems: dict[str, list[str]] = {}
    for name in listed:
        key = clean_name(name).lower()
        alike.setdefault(key, []).append(name)
        if is_image_name(name):
            stems.setdefault(key.rpartition(".")[0], []).append(name)
    return _Names(frozenset(listed), alike, stems)
