"""Lists the image files of folders, without what no user put there: hidden files, folders of the system, thumbnails."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from wildcat.errors import WildcatError, shorten
from wildcat.system.output_folder import LIST, listed_files

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff"),
        *(".webp", ".avif", ".heic", ".heif", ".jp2", ".ppm", ".pgm", ".qoi"),
    ]
)

# Folders that macOS, Windows, Linux and network storage (Synology, QNAP) make by themselves; in lower case.
_SYSTEM_FOLDERS = frozenset(
    [
        *("__macosx", "network trash folder", "temporary items", "$recycle.bin", "recycler", "found.000"),
        *("system volume information", "lost+found", "#recycle", "#snapshot", "@eadir", "@tmp", "@recycle"),
        *("@recently-snapshot", "@__thumb", "@sharebin", "__pycache__"),
    ]
)
_SYSTEM_FILES = frozenset(["thumbs.db", "desktop.ini", "ehthumbs.db", "icon\r"])  # beside hidden ones; in lower case
_THUMBNAIL_FOLDERS = frozenset(["thumbnails", "thumbnail", "thumbs", "_thumbs", "_thumbnails"])
_THUMBNAIL = re.compile(
    r"(?:(?:thumb|thumbnail|tn)[-_. ](?P<after>.+)|(?P<before>.+)(?:[-_. ](?:thumb|thumbnail|tn)|-\d{2,4}x\d{2,4}))",
    re.IGNORECASE,
)

# Files that only the package writes, and what the folder that holds all of them is.
_OUTPUTS = (
    (frozenset(["config.json", "model.safetensors"]), "a run directory"),
    (frozenset(["config.json", "metrics.csv"]), "a run directory"),
    (frozenset(["scales.json"]), "a run directory"),
    (frozenset(["predictions.jsonl"]), "predictions"),
    (frozenset(["scores.csv", "mask-labels.txt"]), "predictions"),
    (frozenset(["mask-labels.txt", "mask"]), "predictions"),
    (frozenset(["batch.json"]), "predictions"),
)

_SIGNATURES = (
    *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*", b"qoif", b"\0\0\0\x0cjP  "),
)
# The first brand of a file, behind "ftyp" (ISO/IEC 23008-12, AVIF specification).
HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
AVIF_BRANDS = (b"avif", b"avis")
_MOST_SNIFFED = 1000  # files whose first bytes are read; more would only lengthen a list that is cut anyway


@dataclass
class Skipped:
    """What a listing did not take for images, as paths relative to the listed folder.

    Attributes:
        others: files whose names have no suffix of an image.
        thumbnails: folders of thumbnails, and thumbnails beside the image they are made from.
        outputs: folders that the package wrote: run directories and predictions.
        loops: links to folders that are read already, or that lead back to a folder above.
        closed: folders that cannot be read.
        beside: folders beside the split folders that are left out.
    """

    others: list[str] = field(default_factory=list)
    thumbnails: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    beside: list[str] = field(default_factory=list)

    def add(self, other: Skipped, folder: str) -> None:
        """Add what was skipped in a folder below; "" for the folder itself."""
        start = f"{folder}/" if folder else ""
        for name, paths in vars(other).items():
            getattr(self, name).extend((start + path).rstrip("/") for path in paths)


def is_user_folder(name: str) -> bool:
    """Whether a folder of this name may hold a user's files: it is not hidden, and not made by the system.

    >>> is_user_folder("cat"), is_user_folder("__MACOSX"), is_user_folder(".git"), is_user_folder("@eaDir")
    (True, False, False, False)
    """
    return not name.startswith(".") and name.lower() not in _SYSTEM_FOLDERS


def is_user_path(path: str) -> bool:
    """Whether no part of a path with "/", of which ".." is none, is hidden or made by the system.

    >>> is_user_path("../cat/1.jpg"), is_user_path("cat/._1.jpg"), is_user_path("@eaDir/1.jpg")
    (True, False, False)
    """
    return all(part == ".." or is_user_folder(part) for part in PurePosixPath(path).parts)


def is_thumbnail_folder(name: str) -> bool:
    """Whether a folder is named as programs name their folders of thumbnails."""
    return name.lower() in _THUMBNAIL_FOLDERS


def output_kind(names: Iterable[str]) -> str | None:
    """What the package wrote into a folder that holds these files: "a run directory", "predictions" or None.

    >>> output_kind(["config.json", "model.safetensors", "metrics.csv"]), output_kind(["a.jpg"])
    ('a run directory', None)
    """
    names = set(names)
    return next((kind for files, kind in _OUTPUTS if files <= names), None)


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without those of the system.

    Raises:
        WildcatError: if the folder cannot be read.
    """
    return sorted(folder / entry.name for entry in _entries(folder) if is_user_folder(entry.name) and _is_folder(entry))


def images_in(folder: Path) -> list[str]:
    """The names of the images that lie in a folder itself, sorted.

    Raises:
        WildcatError: if the folder cannot be read.
    """
    return sorted(entry.name for entry in _entries(folder) if is_image_name(entry.name) and not _is_folder(entry))


def output_in(folder: Path) -> str | None:
    """What the package wrote into a folder: "a run directory", "predictions" or None.

    Raises:
        WildcatError: if the folder cannot be read.
    """
    return output_kind(entry.name for entry in _entries(folder))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as scan:
            return list(scan)
    except OSError as error:
        raise WildcatError(f"{folder}: cannot be read as a folder: {error.strerror}") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link to itself is not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_file(path: Path) -> bool:
    """Whether there is a file of this name; ``Path.is_file`` raises for names that no file can have.

    >>> is_file(Path("a" * 300)), is_file(Path("a\\0"))
    (False, False)
    """
    return os.path.isfile(path)  # noqa: PTH113


def is_image_name(name: str) -> bool:
    """Whether a file of this name is an image to read: it has a suffix of an image and is not hidden."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")  # noqa: PTH122 - fast


def written_files(folder: Path) -> set[str]:
    """The paths of the files in a folder, and below it, that predictions of the package are."""
    return {os.path.normpath(folder / name) for name in listed_files(folder)}


def walk_images(folder: Path, skipped: Skipped | None = None, written: Collection[str] = ()) -> Iterator[str]:
    """Paths, relative to `folder` and with "/", of all images at any depth, in any order.

    Links to folders are followed, after the folders themselves; a folder is read once. What predictions have written
    into an output folder (overlays, masks) is left out.

    Args:
        folder: where to start.
        skipped: leave out thumbnails, run directories and other outputs too, and add here what is left out.
        written: paths of files to leave out: those of :func:`written_files` of folders above.
    """
    written = set(written)
    start = os.path.realpath(folder)
    visited: set[str] = set()
    stack: list[tuple[str, str, str]] = [(os.fspath(folder), start, "")]  # path, without links, name in `folder`
    links: list[tuple[str, str, str]] = []
    while stack or links:
        if stack:
            where, real, inside = stack.pop()
        else:
            where, above, inside = links.pop(0)
            real = os.path.realpath(where)
            if real in visited or f"{above}/".startswith(f"{real.rstrip('/')}/"):
                if skipped is not None:
                    skipped.loops.append(inside[:-1])
                continue
        if real in visited:
            continue
        visited.add(real)
        try:
            with os.scandir(where) as scan:
                entries = [entry for entry in scan if not entry.name.startswith(".")]
        except OSError as error:
            logger.warning("%s: cannot be read: %s", where, error.strerror)
            if skipped is not None:
                skipped.closed.append(inside[:-1])
            continue
        if any(entry.name == LIST for entry in entries):
            written |= written_files(Path(where))
            if skipped is not None:
                skipped.outputs.append(inside[:-1])
        elif skipped is not None and inside and output_kind(entry.name for entry in entries):
            skipped.outputs.append(inside[:-1])
            continue
        images = []
        for entry in entries:
            name = entry.name
            if not _is_folder(entry):
                if written and os.path.normpath(entry.path) in written:
                    continue
                if is_image_name(name):
                    images.append(name)
                elif skipped is not None and name.lower() not in _SYSTEM_FILES:
                    skipped.others.append(inside + name)
            elif not is_user_folder(name):
                continue
            elif skipped is not None and is_thumbnail_folder(name):
                skipped.thumbnails.append(inside + name)
            elif entry.is_symlink():
                links.append((entry.path, real, f"{inside}{name}/"))
            else:
                stack.append((entry.path, f"{real.rstrip('/')}/{name}", f"{inside}{name}/"))
        if skipped is not None:
            thumbnails = _thumbnails(images)
            skipped.thumbnails += [inside + name for name in thumbnails]
            images = [name for name in images if name not in thumbnails] if thumbnails else images
        yield from (inside + name for name in images)


def _thumbnails(names: Sequence[str]) -> set[str]:
    """Names such as a_thumb.jpg, thumb-a.png and a-150x150.jpg that lie beside an image named a."""
    matches = [(name, match) for name in names if (match := _THUMBNAIL.fullmatch(name[: name.rindex(".")]))]
    if not matches:
        return set()
    stems = {name[: name.rindex(".")].lower() for name in names}
    return {name for name, match in matches if (match["after"] or match["before"]).lower() in stems}


def image_files_below(folder: Path) -> list[str]:
    """Paths, relative to `folder` and with "/", of all images at any depth, sorted.

    Hidden files and folders are left out, folders that the system makes, and what wildcat has written into an output
    folder (overlays, masks). Links to folders are followed, unless they lead back.
    """
    return sorted(walk_images(folder))


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


def unnamed_images(folder: Path, names: Sequence[str]) -> list[str]:
    """Those of the files in a folder, of the first thousand, whose content is an image although their name is not."""
    return [name for name in names[:_MOST_SNIFFED] if _begins_as_image(folder / name)]


def _begins_as_image(path: Path) -> bool:
    try:
        if not path.is_file():  # reading a pipe may never end
            return False
        with path.open("rb") as file:
            content = file.read(16)
    except OSError:
        return False
    brand = content[8:12]
    is_webp = content.startswith(b"RIFF") and brand == b"WEBP"
    is_heif = content[4:8] == b"ftyp" and brand in (*HEIC_BRANDS, *AVIF_BRANDS)
    return content.startswith(_SIGNATURES) or is_webp or is_heif


def count_suffixes(names: Iterable[str]) -> str:
    """How many files there are of each suffix: ".txt 12, .json 1, without suffix 3".

    >>> count_suffixes(["a.txt", "b.TXT", "c"])
    '.txt 2, without suffix 1'
    """
    counts: dict[str, int] = {}
    for name in names:
        suffix = Path(name).suffix.lower() or "without suffix"
        counts[suffix] = counts.get(suffix, 0) + 1
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return shorten([f"{suffix} {count}" for suffix, count in ordered], 5)
