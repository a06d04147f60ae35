"""Lists the image files of folders."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from wildcat.errors import WildcatError
from wildcat.system.output_folder import LIST, listed_files

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff"),
        *(".webp", ".avif", ".heic", ".heif", ".jp2", ".ppm", ".pgm", ".qoi"),
    ]
)


def image_files_below(folder: Path) -> list[str]:
    """Paths, relative to `folder` and with "/", of all images at any depth, sorted.

    Hidden files and folders are left out, and what wildcat has written into an output folder (overlays, masks).
    """
    images: list[str] = []
    written: set[str] = set()
    for where, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inside = Path(where).relative_to(folder)
        images += [
            (inside / name).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
        if LIST in files:
            written |= {(inside / name).as_posix() for name in listed_files(Path(where))}
    return sorted(set(images) - written)


def image_files_at(paths: Iterable[str | Path]) -> list[Path]:
    """The given files, and the images below the given folders.

    Args:
        paths: of files and folders. A file that is there twice (overlapping folders, other spellings, links to one of
            the files) is returned once.

    Raises:
        WildcatError: for a path that does not exist, and for a folder without images.
    """
    images: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = image_files_below(path)
            if not inside:
                raise WildcatError(f"{path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
            images += [path / name for name in inside]
        elif path.exists():
            images.append(path)
        else:
            raise WildcatError(f"{path} does not exist")
    once = _once(images)
    if len(once) < len(images):
        logger.info("%d of %d images are given more than once: each is read once", len(images) - len(once), len(images))
    return once


def _once(files: Iterable[Path]) -> list[Path]:
    """Each file once, under its first name. Links to files that are not among the others stay, all of them."""
    folders: dict[Path, str] = {}
    places: dict[str, Path] = {}
    for file in files:
        if file.parent not in folders:
            folders[file.parent] = os.path.realpath(file.parent)
        places.setdefault(os.path.join(folders[file.parent], file.name), file)  # noqa: PTH118 - of texts, as keys
    return [file for place, file in places.items() if not (file.is_symlink() and os.path.realpath(file) in places)]
