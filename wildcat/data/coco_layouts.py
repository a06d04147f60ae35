"""Finds JSONs of COCO instances and their images in the folders that annotation tools write.

Known are COCO's own layout, and those of CVAT (annotations/instances_default.json, images/default), Roboflow
(train/_annotations.coco.json beside the images), Label Studio (result.json, images), FiftyOne (labels.json, data), and
others in which a JSON and its images lie near each other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from wildcat.data.files import is_file
from wildcat.data.finder import FileFinder
from wildcat.data.sample import require_path
from wildcat.errors import WildcatError, shorten

YEARS = ("2014", "2017")
OFFICIAL_SPLITS = ("train", "val")

_PATTERNS = ("*.json", "annotations/*.json", "labels/*.json", "*/*.json", "*/annotations/*.json")
_SPLIT_WORD = re.compile(r"(?<![a-z])(?:(train|training)|(val|valid|validation)|(test|testing))(?![a-z])")
_NOT_INSTANCES = (".", "captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")  # COCO's other files
_SNIFFED = 2**24  # bytes at each end of a JSON that are searched for its keys
_TRIED = 100  # names of images by which a folder is chosen


class Location(NamedTuple):
    """A JSON, the split that its name says (None if it says none), and the folders that may hold its images."""

    json: Path
    split: str | None
    folders: tuple[Path, ...]


def official_json(path: Path, split: str, year: str) -> Path:
    """The JSON of a split in COCO's own layout."""
    return path / "annotations" / f"instances_{split}{year}.json"


def official_folder(path: Path, split: str, year: str) -> Path:
    """The images of a split in COCO's own layout, or below a folder images."""
    own, below = path / f"{split}{year}", path / "images" / f"{split}{year}"
    return below if below.is_dir() and not own.is_dir() else own


def official_year(path: Path) -> str | None:
    """The first year of which COCO's own layout has annotations."""
    has = (year for year in YEARS if any(official_json(path, split, year).is_file() for split in OFFICIAL_SPLITS))
    return next(has, None)


def find_locations(path: Path) -> dict[str, Location]:
    """The JSONs at a path: split -> JSON. One JSON alone has the key "", whatever its name.

    Raises:
        WildcatError: if there is none, or if the names of several do not tell which split each is.
    """
    require_path(path, "give a JSON of COCO instances, or the folder that holds one and its images")
    if path.is_file():
        return {"": _location(path, path.parent)}
    files = {file: None for pattern in _PATTERNS for file in sorted(path.glob(pattern)) if _is_instances(file)}
    if not files:
        raise WildcatError(
            f"{path}: holds no annotations/instances_<train or val><2014 or 2017>.json and no other JSON of COCO "
            "instances; give the folder that holds one, or coco:FILE.json,images=FOLDER"
        )
    locations = [_location(file, path) for file in files]
    if len(locations) == 1:
        return {"": locations[0]}
    by_split = {location.split: location for location in locations if location.split is not None}
    if len(by_split) != len(locations):
        names = [location.json.relative_to(path).as_posix() for location in locations]
        raise WildcatError(
            f"{path}: holds {len(names)} JSONs of COCO instances, whose names do not tell the splits train, val and "
            f"test apart: {shorten(names)}; give one: coco:{locations[0].json},images=FOLDER"
        )
    return {split: by_split[split] for split in ("train", "val", "test") if split in by_split}


def _is_instances(file: Path) -> bool:
    """Whether a JSON has the keys of COCO instances at its beginning or end: captions have no categories."""
    if file.name.startswith(_NOT_INSTANCES) or not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            text = stream.read(_SNIFFED)
            stream.seek(max(file.stat().st_size - _SNIFFED, len(text)))
            text += stream.read(_SNIFFED)
    except OSError:
        return False
    return b'"categories"' in text and (b'"images"' in text or b'"annotations"' in text)


def _split_of(text: str) -> str | None:
    match = _SPLIT_WORD.search(text.lower())
    return None if match is None else ("train", "val", "test")[(match.lastindex or 1) - 1]


def _location(file: Path, root: Path) -> Location:
    """A JSON in a folder, and where its images may be, the likeliest folders first."""
    subset = re.sub(r"^instances?_|[._]?annotations?(?:\.coco)?$", "", file.stem)
    inside = file.parent.relative_to(root).parts
    split = _split_of(file.stem) or next((found for part in reversed(inside) if (found := _split_of(part))), None)
    top = root.parent if root.name in ("annotations", "labels") else root
    names = [name for name in (subset, split, *(["valid", "validation"] if split == "val" else [])) if name]
    bases = dict.fromkeys([file.parent, top, root])
    folders = [base for base in bases if base.name not in ("annotations", "labels")]
    folders += [base / name for base in bases for name in ("images", "data", "imgs", "JPEGImages")]
    near = [base / kind / name for base in bases for name in names for kind in ("images", "data", "")]
    near += [base / name / "images" for base in bases for name in names]
    return Location(file, split, tuple(dict.fromkeys(folder for folder in [*near, *folders] if folder.is_dir())))


class ImageFiles:
    """The images in a folder, also where the JSON writes a name in another way, as :class:`FileFinder` finds it.

    Args:
        folder: that holds them.
        by_last_part: whether the folders in the names of the JSON are those of another machine, and are left out.
    """

    def __init__(self, folder: Path, by_last_part: bool = False) -> None:
        self._finder = FileFinder(folder)
        self._by_last_part = by_last_part

    def path(self, file_name: str) -> Path:
        """The path of an image as its JSON names it."""
        name = file_name.replace("\\", "/").rpartition("/")[2] if self._by_last_part else file_name
        return self._finder.find(name)


def find_images(location: Location, file_names: Sequence[str], given: str | None) -> ImageFiles:
    """The folder that holds all images of a JSON that are looked for, or else most of them.

    Args:
        location: the JSON.
        file_names: as the JSON names its images.
        given: the folder, if the user names it: absolute, or relative to the current directory or to the JSON.

    Raises:
        WildcatError: if no folder holds any.
    """
    folders = location.folders
    if given is not None:
        own = Path(given).expanduser()
        folders = (own if own.is_dir() or own.is_absolute() else location.json.parent / own,)
        require_path(folders[0], "the option images names the folder of the images")
    step = max(len(file_names) // _TRIED, 1)
    tried = file_names[::step]
    best, most = ImageFiles(next(iter(folders), location.json.parent)), 0
    for choice in (ImageFiles(folder, by_last_part) for by_last_part in (False, True) for folder in folders):
        count = sum(is_file(choice.path(name)) for name in tried)
        if count > most:
            best, most = choice, count
        if most == len(tried):
            break
    if most or not tried:
        return best
    searched = shorten([str(folder) for folder in folders], 5)
    raise WildcatError(
        f"{location.json}: none of its {len(file_names)} images is in {searched}, the first one is {file_names[0]}; "
        f"name their folder: coco:{location.json},images=FOLDER"
    )
