"""Lists the image files of folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from wildcat.errors import WildcatError

IMAGE_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff"),
        *(".webp", ".avif", ".heic", ".heif", ".jp2", ".ppm", ".pgm", ".qoi"),
    ]
)


def image_files_below(folder: Path, without: Iterable[Path] = ()) -> list[str]:
    """Paths, relative to `folder` and with "/", of all images at any depth, sorted.

    Hidden files and folders are left out, and the folders `without`.
    """
    images = []
    excluded = {os.path.realpath(path) for path in without}
    for where, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not (excluded and os.path.realpath(Path(where, name)) in excluded)
        ]
        inside = Path(where).relative_to(folder)
        images += [
            (inside / name).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
    return sorted(images)


def image_files_at(paths: Iterable[str | Path], without: Sequence[Path] = ()) -> list[Path]:
    """The given files, and the images below the given folders.

    Args:
        paths: of files and folders.
        without: folders below those given that are left out.

    Raises:
        WildcatError: for a path that does not exist, and for a folder without images.
    """
    images: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = image_files_below(path, without)
            if not inside:
                raise WildcatError(f"{path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
            images += [path / name for name in inside]
        elif path.exists():
            images.append(path)
        else:
            raise WildcatError(f"{path} does not exist")
    return images
