"""Finds the local files of images that annotation tools name by URLs, by paths of a server, or of another machine."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from wildcat.data.files import walk_images
from wildcat.data.finder import FileFinder
from wildcat.data.names import brief
from wildcat.data.sample import require_path
from wildcat.errors import WildcatError, shorten

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://|/[^?]*\?")  # with a host, or with a query behind a path
_DRIVE = re.compile(r"[A-Za-z]:(?=[/\\])")
_UPLOAD = re.compile(r"[0-9a-f]{8}-(?=.)")  # Label Studio puts it before the name of an uploaded file
_NEAR = ("", "images", "data", "img", "JPEGImages", "media", "upload")  # folders beside the file of a tool
_SHOWN = 3


def local_names(name: str) -> list[str]:
    """The relative paths that the name of an image may mean, the longest first; none leads out of a folder.

    >>> local_names("/data/local-files/?d=photos/a%20b.jpg")
    ['photos/a b.jpg', 'a b.jpg']
    >>> local_names("C:\\\\photos\\\\cat.jpg")
    ['photos/cat.jpg', 'cat.jpg']
    >>> local_names("/data/upload/3/0a1b2c3d-cat.jpg")[-2:]
    ['0a1b2c3d-cat.jpg', 'cat.jpg']
    """
    texts = [name]
    if _URL.match(name):
        try:
            parts = urlsplit(name)
            texts = parse_qs(parts.query).get("d", [])
            if not (texts and parts.path.rstrip("/").endswith("/local-files")):  # Label Studio's address of local files
                texts.append(unquote(parts.path))
        except ValueError:  # no valid URL
            pass
    elif "%" in name:
        texts.append(unquote(name))
    found: dict[str, None] = {}
    shortened: dict[str, None] = {}
    for text in texts:
        # Without "..", so that names cannot lead out of the folder; its parts are tried without those before them too.
        text = _DRIVE.sub("", text).replace("\\", "/")
        steps = [part for part in text.split("/") if part not in ("", ".", "..") and "\0" not in part]
        for start in range(len(steps)):
            found["/".join(steps[start:])] = None
        if steps and _UPLOAD.match(steps[-1]):
            shortened[_UPLOAD.sub("", steps[-1], count=1)] = None
    return list({**found, **shortened})


def is_foreign(name: str) -> bool:
    """Whether a name is a URL or an absolute path, perhaps one of another machine.

    >>> [is_foreign(name) for name in ("s3://bucket/a.jpg", "C:\\\\a.jpg", "/data/a.jpg", "photos/a.jpg")]
    [True, True, True, False]
    """
    return name.startswith(("/", "\\")) or bool(_URL.match(name) or _DRIVE.match(name))


class _Folder:
    """A folder that may hold images, and all of its images by their last part, as :func:`_plain` writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.finder = FileFinder(path)

    @cached_property  # read only if a name is not found otherwise
    def by_last_part(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for name in walk_images(self.path):
            names.setdefault(_plain(name.rpartition("/")[2]), []).append(name)
        return names


def _plain(name: str) -> str:
    """A name as web servers store it: blanks are underscores, and other characters are left out; in lower case.

    >>> _plain("My cat (1).JPG")
    'my_cat_1.jpg'
    """
    return re.sub(r"[^\w.-]", "", name.strip().replace(" ", "_")).lower()


class ToolImages:
    """The local files of the images that a file of a tool names.

    Args:
        kind: of the dataset, for messages: "cvat".
        source: the file of the tool.
        given: the folder of the images, if the user names it: absolute, or relative to the current folder or to the
            file's.
        near: names of further folders beside the file, such as splits.

    Raises:
        WildcatError: if the given folder does not exist.
    """

    def __init__(self, kind: str, source: Path, given: str | None, near: Sequence[str] = ()) -> None:
        self._kind, self._source, self._is_given = kind, source, given is not None
        if given is not None:
            own = Path(given).expanduser()
            folders = [own if own.is_dir() or own.is_absolute() else source.parent / own]
            require_path(folders[0], "the option images names the folder of the images")
        else:
            names = [*_NEAR, *(f"images/{name}" for name in near), *near]
            folders = [source.parent / name for name in dict.fromkeys(names) if (source.parent / name).is_dir()]
        self._folders = [_Folder(folder) for folder in folders]

    def find(self, names: Sequence[str]) -> dict[str, tuple[str, Path]]:
        """Name as the tool writes it -> (short name, file) of each image; a file may be missing, but not all.

        Raises:
            WildcatError: if no image is found, or one file for two names.
        """
        found = {name: self._file(name) for name in dict.fromkeys(names)}
        if names and not any(place is not None for place in found.values()):
            folders = shorten([str(folder.path) for folder in self._folders], 5)
            examples = shorten([brief(name, 100) for name in found], _SHOWN)
            raise WildcatError(
                f"{self._source}: none of its {len(found)} images is in {folders}: {examples}; name the folder that "
                f"holds them: {self._kind}:{self._source},images=FOLDER"
            )
        names_of: dict[Path, str] = {}
        for name, place in found.items():
            if place is not None and names_of.setdefault(place[1], name) != name:
                raise WildcatError(
                    f"{self._source}: {brief(names_of[place[1]])} and {brief(name)} are both found as {place[1]}; name "
                    f"a folder in which they differ: {self._kind}:{self._source},images=FOLDER"
                )
        result = {name: place or self._expected(name) for name, place in found.items()}
        short = [shortest for shortest, _ in result.values()]
        if len(set(short)) < len(short):
            result = {name: (name, path) for name, (_, path) in result.items()}
        return result

    def _expected(self, name: str) -> tuple[str, Path]:
        """(short name, file) of an image that is not there."""
        local = next(iter(local_names(name)), "unnamed")
        folder = self._folders[0].path if self._folders else self._source.parent
        return local, folder / local

    def file(self, name: str) -> Path | None:
        """The file of an image; None if it is not found."""
        found = self._file(name)
        return None if found is None else found[1]

    def _file(self, name: str) -> tuple[str, Path] | None:
        """(short name, file) of an image; None if it is not found."""
        if not self._is_given and os.path.isabs(name) and _is_file(Path(name)):  # noqa: PTH117 - any text
            return name, Path(name)
        wanted = local_names(name)
        for local, folder in self._places(wanted):
            path = folder.finder.find(local)
            if _is_file(path):
                return local, path
        for local, folder in self._places([local for local in wanted if "/" not in local]):
            inside = folder.by_last_part.get(_plain(local), [])
            if len(inside) == 1:
                return inside[0], folder.path / inside[0]
        if not self._is_given and ".." not in name and _is_file(Path(name)):  # relative to the current folder
            return name, Path(name)
        return None

    def _places(self, names: Sequence[str]) -> Iterator[tuple[str, _Folder]]:
        return ((name, folder) for name in names for folder in self._folders)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that is too long, or no name
        return False
