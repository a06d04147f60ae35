"""Images with a label map for each (`masks:`), as `wildcat predict --formats mask` and other tools write them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wildcat.data.class_list import find_class_list, read_class_list
from wildcat.data.files import image_files_below
from wildcat.data.hold_out import RANDOM_SPLITS, split_by_labels
from wildcat.data.outlines import VOID
from wildcat.data.sample import Dataset, Sample, read_mask, require_path
from wildcat.errors import WildcatError, check_choice, shorten

_MASKS = ("mask", "masks", "SegmentationClass", "annotations", "labels")
_NAMES = ("mask-labels.txt", "labels.txt", "labelmap.txt", "classes.txt")
_WHAT = "give a folder with a folder mask or masks, and mask-labels.txt with the names of their values"


def masks_splits(path: Path) -> tuple[str, ...]:
    """Those of a random split."""
    require_path(path, _WHAT)
    return RANDOM_SPLITS


def open_masks(
    spec: str,
    path: Path,
    split: str,
    *,
    images: str | None = None,
    class_list: str | None = None,
    test: float = 0.2,
    seed: int = 0,
) -> Dataset:
    """Images and their label maps: 0 is the background, 1 ... C are the classes, 255 is void.

    An image has the classes of the pixels of its mask; without a mask it was not annotated, and is left out. Image and
    mask have the same name, apart from the suffix.

    Args:
        spec: the specification, as given.
        path: a folder with a folder of masks and a file of class names.
        split: train, test or all.
        images: the folder of the images; "images" in the folder, or else the folder itself.
        class_list: a file with the names of the classes, in the order of the values of masks.
        test: fraction to hold out.
        seed: of the random split.
    """
    require_path(path, _WHAT)
    check_choice(split, RANDOM_SPLITS, f"{spec}: split")
    folder = next((path / name for name in _MASKS if (path / name).is_dir()), None)
    if folder is None:
        raise WildcatError(f"{path}: holds no folder {', '.join(_MASKS[:3])}; {_WHAT}")
    classes = _classes(path, folder, class_list)
    places = _images(path, folder, images)
    by_name = _by_stem(folder)
    samples, ambiguous, missing = [], [], []
    for name, masks in sorted(by_name.items()):
        found = places.get(name, [])
        if len(masks) > 1 or len(found) > 1:
            ambiguous.append(name)
        elif not found:
            missing.append(name)
        else:
            stored = masks[0] if len(classes) < VOID else None  # label maps of a dataset have 8 bits
            samples.append(Sample(name, found[0], _labels(masks[0], len(classes)), mask_path=stored))
    if ambiguous:
        raise WildcatError(
            f"{path}: images or masks that differ only in suffix cannot be distinguished: {shorten(ambiguous)}"
        )
    if not samples:
        raise WildcatError(
            f"{path}: none of its {len(missing)} masks belongs to an image: {shorten(missing)}; name the folder of the "
            f"images: masks:{path},images=FOLDER"
        )
    annotated = len(samples)
    chosen = split_by_labels({sample.name: sample.labels for sample in samples}, split, test, seed, spec)
    notes, warnings = [], []
    if without := len(places) - annotated:
        notes.append(f"{path}: {without} of {len(places)} images have no mask: they are not annotated and left out")
    if missing:
        warnings.append(f"{path}: {len(missing)} masks belong to no image: {shorten(missing)}")
    return Dataset(spec, split, classes, [s for s in samples if s.name in chosen], notes=notes, warnings=warnings)


def _classes(path: Path, folder: Path, class_list: str | None) -> list[str]:
    if class_list is not None:
        return read_class_list(find_class_list(class_list, path))
    places = [place / name for place in (path, folder) for name in _NAMES]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise WildcatError(f"{path}: no file names the classes of the masks; class_list=FILE does")
    return read_class_list(file)


def _images(path: Path, folder: Path, given: str | None) -> dict[str, list[Path]]:
    """Name without suffix -> images."""
    if given is not None:
        own = Path(given).expanduser()
        place = own if own.is_dir() or own.is_absolute() else path / own
        require_path(place, "the option images names the folder of the images")
        return _by_stem(place)
    place = path / "images" if (path / "images").is_dir() else path
    return {
        name: files
        for name, found in _by_stem(place).items()
        if (files := [file for file in found if not file.is_relative_to(folder)])
    }


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    """Path below a folder without suffix -> files."""
    found: dict[str, list[Path]] = {}
    for inside in image_files_below(folder):
        file = folder / inside
        found.setdefault(inside.removesuffix(file.suffix), []).append(file)
    return found


def _labels(mask: Path, num_classes: int) -> npt.NDArray[np.int8]:
    """1 for the classes that a mask shows, -1 for others."""
    row = np.full(num_classes, -1, np.int8)
    present = _values(mask, num_classes)
    row[[value - 1 for value in present if 0 < value <= num_classes]] = 1
    return row


def _values(mask: Path, num_classes: int) -> Sequence[int]:
    values: list[int]
    if num_classes < VOID:
        values = np.unique(read_mask(mask, num_classes)).tolist()
        return values
    try:
        with Image.open(mask) as image:  # of 16 bits, without void
            values = np.unique(np.asarray(image)).tolist()
    except OSError as error:
        raise WildcatError(f"{mask}: the mask cannot be read: {error}") from error
    if values[-1] > num_classes:
        raise WildcatError(f"{mask}: the mask holds {values[-1]}; allowed are 0 (background) and 1...{num_classes}")
    return values
