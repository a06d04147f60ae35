"""A user's own images in a folder per class (`folder:`)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wildcat.data.files import (
    Skipped,
    count_suffixes,
    images_in,
    is_thumbnail_folder,
    output_in,
    subfolders,
    unnamed_images,
    walk_images,
    written_files,
)
from wildcat.data.hold_out import RANDOM_SPLITS, random_split
from wildcat.data.names import readable_name, usual_split
from wildcat.data.sample import Dataset, Sample, one_label, require_path
from wildcat.errors import WildcatError, check_choice, shorten

# Folders of `wildcat predict --out`; each is one only in a folder that holds predictions.
_PREDICTED = frozenset(["overlay", "mask", "coco", "yolo", "voc", "cvat", "label-studio"])


def _holds_images(folder: Path, written: Collection[str] = ()) -> bool:
    return next(walk_images(folder, Skipped(), written), None) is not None


def _data_folders(path: Path, skipped: Skipped) -> list[Path]:
    """The folders in a folder that may be classes or splits; thumbnails and outputs of the package are not."""
    folders = subfolders(path)
    names = {folder.name for folder in folders}
    has_predictions = output_in(path) == "predictions"
    kept = []
    for folder in folders:
        # A class may be called mask: an output repeats the names of the classes beside it.
        is_predicted = (
            has_predictions
            and folder.name in _PREDICTED
            and any(inside.name in names - _PREDICTED for inside in subfolders(folder))
        )
        if is_predicted or output_in(folder):
            skipped.outputs.append(folder.name)
        elif is_thumbnail_folder(folder.name):
            skipped.thumbnails.append(folder.name)
        else:
            kept.append(folder)
    return kept


def _split_folders(path: Path, splits: bool | None, skipped: Skipped) -> dict[str, Path]:
    """Split -> folder, if the top folders are the splits; otherwise an empty dict."""
    require_path(path, "give a folder that holds a folder per class, or train, val, test with a folder per class each")
    if splits is False or not path.is_dir():
        return {}
    folders = _data_folders(path, skipped)
    named = [(part, folder) for folder in folders if (part := usual_split(folder.name)) is not None]
    by_split = dict(named)
    if "train" not in by_split:
        if splits:
            raise WildcatError(f"{path}: splits=yes needs a folder train; it holds {shorten(_names(folders), 5)}")
        return {}
    written = written_files(path)
    others = [folder for folder in folders if usual_split(folder.name) is None and _holds_images(folder, written)]
    if others and not splits:
        if images_in(by_split["train"]) or not _holds_images(by_split["train"], written):
            return {}  # a class that is called train
        raise WildcatError(
            f"{path}: holds images in {shorten(_names(others), 5)} beside the split folders"
            f" {', '.join(_names([folder for _, folder in named]))}; move or delete what is not data. To leave other"
            f" folders out: folder:{path},splits=yes; if each of all these folders is a class:"
            f" folder:{path},splits=no"
        )
    skipped.beside += _names(others)
    for part, folder in named:
        if by_split[part] != folder:
            raise WildcatError(f"{path}: the folders {folder.name} and {by_split[part].name} are both the split {part}")
    return {part: by_split[part] for part in ("train", "val", "test") if part in by_split}


def _names(folders: Sequence[Path]) -> list[str]:
    return [readable_name(folder.name) for folder in folders]


def folder_splits(path: Path, splits: bool | None = None) -> tuple[str, ...]:
    """The splits of a folder: its top folders, else those of a random split."""
    return tuple(_split_folders(path, splits, Skipped())) or RANDOM_SPLITS


def open_folder(
    spec: str, path: Path, split: str, *, test: float = 0.2, seed: int = 0, splits: bool | None = None
) -> Dataset:
    """A folder per class, with images at any depth below it; one class per image.

    Folders train, val and test at the top are the splits, and the classes are those of all of them. Without them, a
    fraction `test` of each class is held out at random ("all" takes every image). A sample is named by its path
    below the folder, or below the split's folder. Folders without images are no classes; folders whose names look the
    same are one class.

    Args:
        spec: the specification, as given.
        path: the folder.
        split: a split folder, or train, test, all.
        test: fraction of each class to hold out where there are no split folders.
        seed: of the random split.
        splits: True if the top folders are splits and others are left out, False if they are classes; unless given,
            their names and contents decide.

    Raises:
        WildcatError: for a folder without class folders or images, images beside the class folders, and folders
            with images beside the split folders.
    """
    beside = Skipped()  # what lies beside the split folders
    own = _split_folders(path, splits, beside)
    check_choice(split, tuple(own) or RANDOM_SPLITS, f"{spec}: split")
    folders = [_read_classes(top) for top in own.values() or [path]]
    classes = sorted(set().union(*(each.images for each in folders)))
    if not classes and not any(each.empty for each in folders):
        raise WildcatError(f"{path}: holds no folder; each class needs a folder with its images")
    chosen = folders[list(own).index(split)] if own else folders[0]
    samples = []
    for index, label in enumerate(classes):
        names = chosen.images.get(label, [])
        names = random_split(names, split, test, seed, spec) if names and not own else sorted(names)
        samples += [Sample(name, chosen.top / name, one_label(index, len(classes))) for name in names]
    if not samples and chosen.images:
        raise WildcatError(
            f"{spec}: no image is held out: each class has one; a class needs two images, or give the images to score"
            " as a folder of their own"
        )
    if not samples:
        others = f"; other files: {count_suffixes(chosen.skipped.others)}" if chosen.skipped.others else ""
        raise WildcatError(f"{chosen.top}: holds no images below its class folders{others}")
    notes, warnings = _findings(path, folders, beside, images_in(path) if own else [])
    return Dataset(spec, split, classes, samples, multi_label=False, notes=notes, warnings=warnings)


@dataclass
class _ClassFolders:
    """What is in the class folders of a folder.

    Attributes:
        top: the folder.
        images: class -> paths of its images below `top`; only classes with images.
        spellings: class -> names of its folders.
        empty: folders without images.
        skipped: what is not read, by paths below `top`.
    """

    top: Path
    images: dict[str, list[str]] = field(default_factory=dict)
    spellings: dict[str, list[str]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)


def _read_classes(top: Path) -> _ClassFolders:
    """Read the class folders in a folder.

    Raises:
        WildcatError: if images lie beside them.
    """
    result, written = _ClassFolders(top), written_files(top)
    for folder in _data_folders(top, result.skipped):
        skipped, label = Skipped(), readable_name(folder.name)
        names = [f"{folder.name}/{name}" for name in walk_images(folder, skipped, written)]
        result.skipped.add(skipped, folder.name)
        if names:
            result.images.setdefault(label, []).extend(names)
            result.spellings.setdefault(label, []).append(folder.name)
        elif written and folder.name in _PREDICTED:
            result.skipped.outputs.append(folder.name)
        elif not skipped.outputs:
            result.empty.append(label + (f" ({count_suffixes(skipped.others)})" if skipped.others else ""))
    if outside := images_in(top):
        raise WildcatError(
            f"{top}: {len(outside)} images lie outside the class folders, the first one is {outside[0]};"
            " each class needs a folder with its images"
        )
    return result


def _findings(
    path: Path, folders: Sequence[_ClassFolders], beside: Skipped, images_beside: Sequence[str]
) -> tuple[list[str], list[str]]:
    """(notes, warnings) about what is not read or may be meant otherwise."""
    skipped = Skipped()
    for each in folders:
        skipped.add(each.skipped, each.top.name if each.top != path else "")
    if folders[0].top != path:
        skipped.add(beside, "")
    parts = {
        "thumbnails": skipped.thumbnails,
        "folders that wildcat wrote": skipped.outputs,
        "links to folders that are read already": skipped.loops,
        "folders that cannot be opened": skipped.closed,
        "folders beside the split folders": skipped.beside,
    }
    left_out = [f"{len(names)} {what} ({shorten(names)})" for what, names in parts.items() if names]
    if skipped.others:
        left_out.append(f"files without a suffix of an image ({count_suffixes(skipped.others)})")
    notes = [f"{path}: not read: {'; '.join(left_out)}"] if left_out else []
    merged = {tuple(sorted(names)) for each in folders for names in each.spellings.values() if len(names) > 1}
    notes += [f"{path}: folders whose names look the same are one class: {' = '.join(names)}" for names in merged]
    warnings = []
    classes = set().union(*(each.images for each in folders))
    if empty := sorted({name for each in folders for name in each.empty if name not in classes}):
        warnings.append(f"{path}: {len(empty)} folders without images are no classes: {shorten(empty, 5)}")
    if images_beside:
        warnings.append(
            f"{path}: {len(images_beside)} images beside the split folders are not used, the first one is"
            f" {images_beside[0]}"
        )
    if unnamed := unnamed_images(path, skipped.others):
        warnings.append(
            f"{path}: images without a suffix of an image are not read: {len(unnamed)} ({shorten(unnamed, 5)}); rename"
            " them to .jpg, .png or what they are"
        )
    return notes, [*warnings, *_nested(folders)]


def _nested(folders: Sequence[_ClassFolders]) -> list[str]:
    """A warning if no class folder holds an image itself, so that the classes may be the folders below."""
    inside = [name.split("/") for each in folders for names in each.images.values() for name in names]
    if any(len(parts) == 2 for parts in inside):
        return []
    classes = sorted({parts[0] for parts in inside})
    below = sorted({parts[1] for parts in inside})
    if len(below) < 2:  # cat/images, dog/images
        return []
    top = folders[0].top
    if len(classes) == 1:
        return [
            f"{top}: the only folder with images is {classes[0]}, which holds the folders {shorten(below, 5)}: if these"
            f" are the classes, give folder:{top / classes[0]}"
        ]
    return [
        f"{top}: no image lies in a class folder itself: the classes are {shorten(classes, 5)}, and not the folders"
        f" below them ({shorten(below, 5)}); if those are the classes, give the folder that holds them"
    ]
