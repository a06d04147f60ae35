"""MS COCO (Lin et al. 2014): classification, pointing and segmentation from the official instance annotations."""

from __future__ import annotations

import json
import reprlib
import warnings
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from wildcat.data.sample import MAX_COORDINATE, Dataset, Sample, require_path
from wildcat.errors import WildcatError, check_choice

YEARS = ("2014", "2017")
SPLITS = ("train", "val")

_HOST = "http://images.cocodataset.org"
_MD5 = {
    "zips/train2014.zip": "0da8c0bd3d6becc4dcb32757491aca88",
    "zips/val2014.zip": "a3d79f5ed8d289b7a7554ce06a5782b3",
    "annotations/annotations_trainval2014.zip": "0a379cfc70b0e71301e0f377548639bd",
    "zips/train2017.zip": "cced6f7f71b7629ddf16f17bbcfab6b2",
    "zips/val2017.zip": "442b8da7639aecaf257c1dceb8ba8c80",
    "annotations/annotations_trainval2017.zip": "f4bbac642086de4f52a3fdda2de5fa2c",
}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and -MAX_COORDINATE < value < MAX_COORDINATE


def _is_id(value: object) -> bool:
    return isinstance(value, int)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_box(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and all(map(_is_number, value)) and min(value[2:]) >= 0


def _is_shape(value: object) -> bool:
    if isinstance(value, dict):
        return {"size", "counts"} <= value.keys()
    return isinstance(value, list) and all(
        isinstance(polygon, list) and len(polygon) % 2 == 0 and all(map(_is_number, polygon)) for polygon in value
    )


# The values used of each entry: key -> (check, allowed values in words).
_ENTRIES: dict[str, dict[str, tuple[Callable[[Any], bool], str]]] = {
    "images": {
        "id": (_is_id, "a whole number"),
        "file_name": (_is_name, "text"),
        "width": (lambda value: _is_id(value) and value > 0, "a whole number above 0"),
        "height": (lambda value: _is_id(value) and value > 0, "a whole number above 0"),
    },
    "annotations": {
        "image_id": (_is_id, "a whole number"),
        "category_id": (_is_id, "a whole number"),
        "bbox": (_is_box, "x, y, width and height, four numbers below 1e9"),
        "area": (_is_number, "a number"),
        "segmentation": (_is_shape, "a list of polygons, each a list of x and y, or run lengths"),
    },
    "categories": {"id": (_is_id, "a whole number"), "name": (_is_name, "text")},
}

# Keys by which entries are identified: their values must be unique.
_UNIQUE = {"images": ("id", "file_name"), "categories": ("id", "name")}


class _Segment(NamedTuple):
    label: int  # 1 ... C
    area: float
    crowd: bool
    shape: list[npt.NDArray[np.float64]] | npt.NDArray[np.int64]  # polygons, each (2 P,), or run lengths


class CocoDataset(Dataset):
    """COCO images; masks are rendered from the instances when they are read."""

    segments: dict[str, list[_Segment]]
    sizes: dict[str, tuple[int, int]]

    @property
    def has_masks(self) -> bool:
        """True: every image has a mask."""
        return bool(self.samples)

    def mask(self, index: int) -> npt.NDArray[np.uint8]:
        """Label map (H, W): crowds are void (255); where instances overlap, the smaller one is in front."""
        try:
            from pycocotools import mask as coco_mask
        except ImportError:
            raise WildcatError("COCO masks need pycocotools: pip install 'wildcat-wsl[coco]'") from None
        name = self.samples[index].name
        height, width = self.sizes[name]
        out = np.zeros((height, width), dtype=np.uint8)
        for segment in sorted(self.segments.get(name, []), key=lambda s: (not s.crowd, -s.area)):
            if isinstance(segment.shape, np.ndarray):  # run lengths down the columns; the first run is outside
                inside = np.arange(len(segment.shape)) % 2 == 1
                pixels = np.repeat(inside, segment.shape).reshape(width, height).T
            else:
                runs = coco_mask.merge(coco_mask.frPyObjects(segment.shape, height, width))
                with warnings.catch_warnings():
                    # pycocotools 2.0 makes arrays in a way that NumPy 2 deprecates.
                    warnings.simplefilter("ignore", DeprecationWarning)
                    pixels = coco_mask.decode(runs) > 0
            out[pixels] = 255 if segment.crowd else segment.label
        return out


def _annotations(path: Path, split: str, year: str) -> Path:
    return path / "annotations" / f"instances_{split}{year}.json"


def _year(path: Path, year: str | None) -> str:
    require_path(
        path, "give the folder that holds annotations/instances_train2014.json and train2014/, or those of 2017"
    )
    years = [year] if year else [y for y in YEARS if any(_annotations(path, s, y).is_file() for s in SPLITS)]
    if not years:
        raise WildcatError(f"{path}: holds no annotations/instances_<train or val><2014 or 2017>.json")
    return years[0]


def splits(path: Path, *, year: str | None = None) -> tuple[str, ...]:
    """The splits whose annotations and images exist."""
    year = _year(path, year)
    return tuple(s for s in SPLITS if _annotations(path, s, year).is_file() and (path / f"{s}{year}").is_dir())


def download(path: Path, split: str, *, year: str | None = None) -> None:
    """Download images and annotations of a split from the official host (2014: 13 and 6 GB), and check the MD5 sums."""
    check_choice(split, SPLITS, "COCO: a split for download")
    from torchvision.datasets.utils import download_and_extract_archive

    year = year or YEARS[0]
    path.mkdir(parents=True, exist_ok=True)
    for archive in (f"annotations/annotations_trainval{year}.zip", f"zips/{split}{year}.zip"):
        download_and_extract_archive(f"{_HOST}/{archive}", str(path), md5=_MD5[archive])


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise WildcatError(f"{path}: cannot be read as JSON: {error}") from None
    missing = _ENTRIES.keys() - (content.keys() if isinstance(content, dict) else set())
    if missing:
        raise WildcatError(f"{path}: has no {' and no '.join(sorted(missing))}; it is not a file of COCO instances")
    for kind, needed in _ENTRIES.items():
        if not isinstance(content[kind], list):
            raise WildcatError(f"{path}: {kind} must be a list; got {type(content[kind]).__name__}")
        for number, item in enumerate(content[kind], start=1):
            for key, (is_valid, allowed) in needed.items():
                if not (isinstance(item, dict) and key in item and is_valid(item[key])):
                    value = reprlib.repr(item[key]) if isinstance(item, dict) and key in item else "nothing"
                    raise WildcatError(f"{path}: {kind}: {key} of entry {number} must be {allowed}; got {value}")
    for kind, keys in _UNIQUE.items():
        for key in keys:
            values = set()
            for number, item in enumerate(content[kind], start=1):
                if item[key] in values:
                    message = f"{key} of entry {number} must be unique; got {reprlib.repr(item[key])}"
                    raise WildcatError(f"{path}: {kind}: {message}")
                values.add(item[key])
    known = {item["id"] for item in content["categories"]}
    for number, item in enumerate(content["annotations"], start=1):
        if item["category_id"] not in known:
            raise WildcatError(
                f"{path}: annotations: category_id of entry {number} must be the id of a category; "
                f"got {item['category_id']}"
            )
    return dict(content)


def _segment(item: dict[str, Any], label: int, height: int, width: int) -> _Segment:
    """Read an instance and check its shape, because the tools that render it do not.

    Raises:
        ValueError: for run lengths of another size, and polygons that extend far outside the image.
    """
    shape = item["segmentation"]
    outline: list[npt.NDArray[np.float64]] | npt.NDArray[np.int64]
    if isinstance(shape, dict):
        counts = shape["counts"]
        counts = _unpack(counts) if isinstance(counts, str) else counts
        is_valid = isinstance(counts, list) and all(_is_id(count) and 0 <= count <= height * width for count in counts)
        if not is_valid or shape["size"] != [height, width] or sum(counts) != height * width:
            raise ValueError(f"run lengths must be those of {height} x {width} pixels")
        outline = np.array(counts, dtype=np.int64)
    else:
        # A polygon has three corners; the tools would take four numbers for a box.
        outline = [np.array(polygon, dtype=np.float64) for polygon in shape if len(polygon) >= 6]
        if any(np.abs(polygon).max() > 10 * max(height, width) for polygon in outline):
            raise ValueError(f"a polygon extends far outside the image of {height} x {width} pixels")
    return _Segment(label, float(item["area"]), bool(item.get("iscrowd", 0)), outline)


def _unpack(text: str) -> list[int]:
    """Run lengths from COCO's packed text: five bits a character from 48 on, differences to the last but one."""
    counts: list[int] = []
    number = shift = 0
    for character in text:
        bits = ord(character) - 48
        number |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                number -= 1 << shift
            counts.append(number + counts[-2] if len(counts) > 2 else number)
            number = shift = 0
    return counts


def _short_names(files: Sequence[str]) -> list[str]:
    """Unique names of image files: stems if these differ, else with their folders, else in full.

    >>> _short_names(["a/1.jpg", "a/2.jpg"]), _short_names(["a/1.jpg", "b/1.jpg"]), _short_names(["1.jpg", "1.png"])
    (['1', '2'], ['a/1', 'b/1'], ['1.jpg', '1.png'])
    """
    stems = [Path(file).stem for file in files]
    with_folders = [file.removesuffix(Path(file).suffix) for file in files]
    return next((names for names in (stems, with_folders) if len(set(names)) == len(files)), list(files))


def open_coco(spec: str, path: Path, split: str, *, year: str | None = None, empty: str = "keep") -> CocoDataset:
    """Official layout: annotations/instances_<split><year>.json and <split><year>/.

    Classes are the categories in the order of their ids (80; the ids have gaps). A crowd counts as difficult: an image
    that has only a crowd of a class gets the label 0 for it. A sample is named by its file, without the suffix.

    Args:
        spec: the specification, as given.
        path: the folder that holds annotations.
        split: train or val.
        year: "2014" or "2017"; by default the first one that exists.
        empty: "keep" takes images without any annotation as negatives of all classes, "drop" leaves them out.
    """
    year = _year(path, year)
    check_choice(split, SPLITS, f"{spec}: split")
    folder = path / f"{split}{year}"
    for needed in (_annotations(path, split, year), folder):
        require_path(needed, f"the split {split} of {year} needs it")
    content = _load(_annotations(path, split, year))
    categories = sorted(content["categories"], key=lambda item: int(item["id"]))
    columns = {item["id"]: index for index, item in enumerate(categories)}
    by_image = defaultdict(list)
    for item in content["annotations"]:
        by_image[item["image_id"]].append(item)

    samples: list[Sample] = []
    segments: dict[str, list[_Segment]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    names = _short_names([image["file_name"] for image in content["images"]])
    for name, image in zip(names, content["images"], strict=True):
        items = by_image[image["id"]]
        if empty == "drop" and not items:
            continue
        classes = np.array([columns[item["category_id"]] for item in items], dtype=np.int64)
        crowd = np.array([bool(item.get("iscrowd", 0)) for item in items], dtype=bool)
        boxes = np.array([item["bbox"] for item in items], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]  # x, y, width, height -> x1, y1, x2, y2
        labels = np.full(len(columns), -1, dtype=np.int8)
        labels[classes] = 0
        labels[classes[~crowd]] = 1
        samples.append(Sample(name, folder / image["file_name"], labels, boxes.astype(np.float32), classes, crowd))
        height, width = sizes[name] = (int(image["height"]), int(image["width"]))
        try:
            instances = [
                _segment(item, int(label) + 1, height, width) for item, label in zip(items, classes, strict=True)
            ]
        except ValueError as error:
            raise WildcatError(f"{_annotations(path, split, year)}: {image['file_name']}: {error}") from None
        segments[name] = [segment for segment in instances if len(segment.shape)]

    # Annotations refer to the pixels as stored.
    dataset = CocoDataset(spec, split, [item["name"] for item in categories], samples, upright=False)
    dataset.segments = segments
    dataset.sizes = sizes
    return dataset
