"""Finds what a folder VOC<year> holds: lists of names, images of any suffix, masks in folders, and its classes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from wildcat.data.files import IMAGE_SUFFIXES, image_files_below, is_file
from wildcat.data.names import usual_split
from wildcat.errors import WildcatError

SPLITS = ("train", "val", "trainval", "test")
_LABEL_FILE = re.compile(r".+_(?:train|val|trainval|test|default)")
_CLASS_LISTS = ("labels.txt", "labelmap.txt")  # of this package (and others), of CVAT
_BACKGROUND = ("background", "__background__", "_background_", "__ignore__")


def read_lines(path: Path) -> list[list[str]]:
    """The fields of each line of a text file that is not empty."""
    return [line.split() for line in _read_text(path).splitlines() if line.strip()]


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WildcatError(f"{path}: cannot be read as text in UTF-8: {error}") from None


def find_lists(root: Path, task: str = "Main") -> dict[str, list[Path]]:
    """Split -> files that list the names of its images; all lists of other names, such as CVAT's default, are ""."""
    lists: dict[str, list[Path]] = {}
    for file in sorted((root / "ImageSets" / task).glob("*.txt")):
        if not _LABEL_FILE.fullmatch(file.stem):
            split = file.stem if file.stem in SPLITS else usual_split(file.stem) or ""
            lists.setdefault(split, []).append(file)
    return lists


def label_files(root: Path, split: str) -> dict[str, Path]:
    """Class -> the file of its labels in a split, "dog_train.txt"."""
    files = sorted((root / "ImageSets" / "Main").glob(f"*_{split}.txt"))
    return {file.stem.removesuffix(f"_{split}"): file for file in files}


def annotation_file(root: Path, name: str) -> Path:
    """The annotation of an image."""
    return root / "Annotations" / f"{name}.xml"


def listed_names(root: Path, files: Iterable[Path]) -> list[str]:
    """The names in lists, each once: what comes before a blank, unless a name holds blanks; without suffix."""
    names: dict[str, None] = {}
    for file in files:
        for line in map(str.strip, _read_text(file).splitlines()):
            if not line:
                continue
            name = line if " " in line and is_file(annotation_file(root, line)) else line.split()[0]
            suffix = Path(name).suffix
            if suffix.lower() in IMAGE_SUFFIXES and not is_file(annotation_file(root, name)):
                name = name.removesuffix(suffix)
            names[name] = None
    return list(names)


def _by_name(folder: Path, preferred: str) -> dict[str, Path]:
    """Name without suffix -> image file, at any depth; of several suffixes the preferred one."""
    files: dict[str, Path] = {}
    for inside in image_files_below(folder) if folder.is_dir() else ():
        path = folder / inside
        name = inside.removesuffix(path.suffix)
        if name not in files or path.suffix == preferred:
            files[name] = path
    return files


def find_images(root: Path, folder: Path | None = None) -> dict[str, Path]:
    """Name -> image, in JPEGImages or in another folder."""
    return _by_name(folder or root / "JPEGImages", ".jpg")


def find_own_root(path: Path) -> Path:
    """The folder with ImageSets at or below a path: itself, VOC<year>, or VOCdevkit/VOC<year>.

    Raises:
        WildcatError: if there is none, or several.
    """
    for places in ([path], path.glob("VOC*"), path.glob("VOCdevkit/VOC*")):
        roots = sorted(place for place in places if (place / "ImageSets").is_dir())
        if len(roots) > 1:
            raise WildcatError(f"{path}: holds {len(roots)} folders of VOC; give one of them: voc:{roots[0]}")
        if roots:
            return roots[0]
    raise WildcatError(f"{path}: holds no folder with ImageSets")


def find_masks(root: Path) -> dict[str, Path]:
    """Name -> mask of classes."""
    return _by_name(root / "SegmentationClass", ".png")


def mask_colours(root: Path) -> dict[tuple[int, int, int], int]:
    """Red, green, blue -> label of masks in colour, as CVAT writes them: those of labelmap.txt, else VOC's own colours.

    Raises:
        WildcatError: for a colour that is not three numbers.
    """
    from wildcat.render.masks import voc_palette

    palette: list[list[int]] = voc_palette().tolist()
    colours = {(red, green, blue): label for label, (red, green, blue) in enumerate(palette)}
    file = root / "labelmap.txt"
    if not file.is_file():
        return colours
    lines = [line.strip().split(":") for line in _read_text(file).splitlines() if line.strip()[:1] not in ("", "#")]
    given: dict[tuple[int, int, int], int] = {}
    label = 0
    for fields in lines:
        if fields[0].lower() not in _BACKGROUND:
            label += 1
        if len(fields) > 1 and fields[1]:
            try:
                red, green, blue = map(int, fields[1].split(","))
            except ValueError:
                raise WildcatError(f"{file}: {fields[0]}: a colour must be red,green,blue; got {fields[1]!r}") from None
            given[red, green, blue] = 0 if fields[0].lower() in _BACKGROUND else label
    return given | {colour: label for colour, label in colours.items() if label == 255} if given else colours


def listed_classes(root: Path) -> list[str] | None:
    """The classes in the order of the values of masks, without the background, if a file of the folder names them.

    Raises:
        WildcatError: for a file in which no class or a class occurs twice.
    """
    file = next((root / name for name in _CLASS_LISTS if (root / name).is_file()), None)
    if file is None:
        return None
    lines = [line.strip() for line in _read_text(file).splitlines()]
    names = [line.split(":")[0] if file.name == "labelmap.txt" else line for line in lines if line[:1] not in ("", "#")]
    classes = [name for name in names if name.lower() not in _BACKGROUND]
    if not classes or len(set(classes)) != len(classes):
        raise WildcatError(f"{file}: must name each class once, one a line; got {len(classes)} names")
    return classes
