"""Scene data sets of the paper: MIT Indoor 67 and 15-Scene. One folder a class, one class a picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wildcat.data.sample import Dataset, Sample, check_choice, one_label, pictures_below, require_path, shuffled
from wildcat.errors import WildcatError

SPLITS = ("train", "test")
_MIT67_LISTS = {"train": "TrainImages.txt", "test": "TestImages.txt"}
_MIT67_LAYOUT = "the folder must hold Images, TrainImages.txt and TestImages.txt"
_SCENE15_LAYOUT = "give the folder with a folder per class"
_PER_CLASS = 100  # training pictures a class of 15-Scene (Lazebnik et al. 2006)


def _read_list(path: Path, needed: str) -> list[str]:
    require_path(path, needed)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise WildcatError(f"{path}: cannot be read as text in UTF-8: {error}") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    for name in names:
        if "/" not in name:
            raise WildcatError(f"{path}: {name!r} is not of the form class/picture.jpg")
    return names


def _dataset(spec: str, split: str, folder: Path, names: Iterable[str], classes: list[str]) -> Dataset:
    columns = {name: index for index, name in enumerate(classes)}
    samples = [Sample(name, folder / name, one_label(columns[name.split("/")[0]], len(columns))) for name in names]
    return Dataset(spec, split, classes, samples, multi_label=False)


def _classes_of(names: Iterable[str]) -> list[str]:
    return sorted({name.split("/")[0] for name in names})


def mit67_splits(path: Path) -> tuple[str, ...]:
    """Both, in a folder that is complete."""
    for name in ("Images", *_MIT67_LISTS.values()):
        require_path(path / name, _MIT67_LAYOUT)
    return SPLITS


def open_mit67(spec: str, path: Path, split: str) -> Dataset:
    """MIT Indoor 67 (Quattoni and Torralba 2009): Images/<class>/ and the fixed TrainImages.txt, TestImages.txt."""
    require_path(path / "Images", _MIT67_LAYOUT)
    check_choice(split, SPLITS, f"{spec}: split")
    lists = {part: _read_list(path / file, _MIT67_LAYOUT) for part, file in _MIT67_LISTS.items()}
    classes = _classes_of(lists["train"] + lists["test"])
    return _dataset(spec, split, path / "Images", lists[split], classes)


def scene15_splits(path: Path) -> tuple[str, ...]:
    """Both, in a folder that holds folders."""
    require_path(path, _SCENE15_LAYOUT)
    if not any(entry.is_dir() for entry in path.iterdir()):
        raise WildcatError(f"{path}: holds no folders; {_SCENE15_LAYOUT}")
    return SPLITS


def open_scene15(spec: str, path: Path, split: str, *, seed: int | None = None) -> Dataset:
    """15-Scene: a folder a class, 100 training pictures of each, the others for testing.

    Without `seed`, train.txt and test.txt are the lists where both exist; with it, or without lists, the training
    pictures are drawn at random, by name, from all pictures (seed 0 if none is given).
    """
    require_path(path, _SCENE15_LAYOUT)
    check_choice(split, SPLITS, f"{spec}: split")
    files = {part: path / f"{part}.txt" for part in SPLITS}
    if seed is None and all(file.is_file() for file in files.values()):
        lists = {part: _read_list(file, "") for part, file in files.items()}
        return _dataset(spec, split, path, lists[split], _classes_of(lists["train"] + lists["test"]))
    classes = sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    names = []
    for name in classes:
        pictures = [f"{name}/{picture}" for picture in pictures_below(path / name)]
        if len(pictures) <= _PER_CLASS:
            raise WildcatError(
                f"{path / name}: holds {len(pictures)} pictures; a random split needs more than {_PER_CLASS}"
            )
        mixed = shuffled(pictures, seed or 0)
        names += sorted(mixed[:_PER_CLASS] if split == "train" else mixed[_PER_CLASS:])
    return _dataset(spec, split, path, names, classes)
