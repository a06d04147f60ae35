"""MS COCO (Lin et al. 2014), and JSONs in its format: classification, pointing and segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wildcat.data.coco_json import CocoContent, read_coco
from wildcat.data.coco_layouts import (
    OFFICIAL_SPLITS,
    YEARS,
    ImageFiles,
    Location,
    find_images,
    find_locations,
    official_folder,
    official_json,
    official_year,
)
from wildcat.data.hold_out import RANDOM_SPLITS, split_by_labels
from wildcat.data.outlines import OutlinedDataset, OutlinedObject
from wildcat.data.sample import Sample, require_path
from wildcat.errors import WildcatError, check_choice

_HOST = "http://images.cocodataset.org"
_MD5 = {
    "zips/train2014.zip": "0da8c0bd3d6becc4dcb32757491aca88",
    "zips/val2014.zip": "a3d79f5ed8d289b7a7554ce06a5782b3",
    "annotations/annotations_trainval2014.zip": "0a379cfc70b0e71301e0f377548639bd",
    "zips/train2017.zip": "cced6f7f71b7629ddf16f17bbcfab6b2",
    "zips/val2017.zip": "442b8da7639aecaf257c1dceb8ba8c80",
    "annotations/annotations_trainval2017.zip": "f4bbac642086de4f52a3fdda2de5fa2c",
}


class CocoDataset(OutlinedDataset):
    """COCO images; masks are rendered from the annotations when they are read."""

    @property
    def has_boxes(self) -> bool:
        """Whether every object has a box, or an outline from which it follows."""
        return bool(self.samples) and all(sample.boxes is not None for sample in self.samples)


def _official(path: Path, year: str | None) -> str | None:
    """The year of COCO's own layout, if the path holds that or a year is given."""
    require_path(
        path,
        "give the folder that holds annotations/instances_train2014.json and train2014/, or those of 2017, or a JSON",
    )
    return year or official_year(path)


def splits(path: Path, *, year: str | None = None) -> tuple[str, ...]:
    """The splits whose annotations and images exist; those of a random split for one JSON alone."""
    year = _official(path, year)
    if year is None:
        return tuple(split for split in find_locations(path) if split) or RANDOM_SPLITS
    return tuple(
        split
        for split in OFFICIAL_SPLITS
        if official_json(path, split, year).is_file() and official_folder(path, split, year).is_dir()
    )


def download(path: Path, split: str, *, year: str | None = None) -> None:
    """Download images and annotations of a split from the official host (2014: 13 and 6 GB), and check the MD5 sums."""
    check_choice(split, OFFICIAL_SPLITS, "COCO: a split for download")
    from torchvision.datasets.utils import download_and_extract_archive

    year = year or YEARS[0]
    path.mkdir(parents=True, exist_ok=True)
    for archive in (f"annotations/annotations_trainval{year}.zip", f"zips/{split}{year}.zip"):
        download_and_extract_archive(f"{_HOST}/{archive}", str(path), md5=_MD5[archive])


def _short_names(files: Sequence[str]) -> list[str]:
    """Unique names of image files: stems if these differ, else with their folders, else in full.

    >>> _short_names(["a/1.jpg", "a/2.jpg"]), _short_names(["a/1.jpg", "b/1.jpg"]), _short_names(["1.jpg", "1.png"])
    (['1', '2'], ['a/1', 'b/1'], ['1.jpg', '1.png'])
    """
    stems = [Path(file).stem for file in files]
    with_folders = [file.removesuffix(Path(file).suffix) for file in files]
    return next((names for names in (stems, with_folders) if len(set(names)) == len(files)), list(files))


def open_coco(
    spec: str,
    path: Path,
    split: str,
    *,
    year: str | None = None,
    images: str | None = None,
    empty: str = "keep",
    crowds: str | None = None,
    unlisted: str = "error",
    upright: bool = False,
    test: float = 0.2,
    seed: int = 0,
) -> CocoDataset:
    """COCO's own layout (annotations/instances_<split><year>.json, <split><year>/), or a JSON with images near it.

    Classes are the categories in the order of their ids (80 in COCO; the ids have gaps). A sample is named by its file,
    without the suffix. A JSON alone is split at random into train and test; "all" takes every image.

    Args:
        spec: the specification, as given.
        path: the folder that holds annotations, or a JSON.
        split: train, val or test; of a JSON alone train, test or all.
        year: "2014" or "2017"; by default the first one that exists.
        images: the folder of the images, if it is not found by itself.
        empty: "keep" takes images without any annotation as negatives of all classes, "drop" leaves them out.
        crowds: what annotations with iscrowd 1 are. "difficult": groups, as in COCO; an image that has only a crowd of
            a class gets the label 0 for it. "objects": objects as others, as CVAT marks all that were annotated as
            masks. "difficult" by default, unless all are crowds.
        unlisted: "drop" leaves out annotations whose image is not listed.
        upright: annotations refer to the image turned by its EXIF orientation, instead of the pixels as stored.
        test: fraction to hold out of a JSON alone.
        seed: of the random split.

    Raises:
        WildcatError: for a broken JSON, images that are not found, and annotations that are all crowds unless `crowds`
            is given.
    """
    year = _official(path, year)
    locations = {} if year is not None else find_locations(path)
    if year is not None:
        check_choice(split, OFFICIAL_SPLITS, f"{spec}: split")
        file, folder = official_json(path, split, year), official_folder(path, split, year)
        for needed in (file,) if images is not None else (file, folder):
            require_path(needed, f"the split {split} of {year} needs it")
        location = Location(file, split, (folder,))
    else:
        check_choice(split, tuple(part for part in locations if part) or RANDOM_SPLITS, f"{spec}: split")
        location = locations.get("") or locations[split]
    content = read_coco(location.json, drop_unlisted=unlisted == "drop")
    if crowds is None:
        _check_crowds(location.json, content)
    listed = [image for image in content.images if image.objects or empty == "keep"]
    names = dict(zip((i.file for i in content.images), _short_names([i.file for i in content.images]), strict=True))
    if year is not None and images is None:
        files = ImageFiles(location.folders[0])
    else:
        files = find_images(location, [image.file for image in content.images], images)

    samples: list[Sample] = []
    outlined: dict[str, list[OutlinedObject]] = {}
    for image in listed:
        name = names[image.file]
        items = image.objects
        if crowds == "objects":
            items = [item._replace(crowd=False) for item in items]
        if all(item.outline is not None for item in items):
            outlined[name] = items
        classes = np.array([item.category for item in items], dtype=np.int64)
        crowd = np.array([item.crowd for item in items], dtype=bool)
        labels = np.full(len(content.classes), -1, dtype=np.int8)
        labels[classes] = 0  # only crowds, unless the next line says 1
        labels[classes[~crowd]] = 1
        boxes = None
        if all(item.box is not None for item in items):
            edges = np.array([item.box for item in items], dtype=np.float64).reshape(-1, 4)
            edges[:, 2:] += edges[:, :2]  # x, y, width, height -> x1, y1, x2, y2
            boxes = edges.astype(np.float32)
        samples.append(Sample(name, files.path(image.file), labels, boxes, classes, crowd, stated_size=image.size))
    if "" in locations:
        chosen = split_by_labels({sample.name: sample.labels for sample in samples}, split, test, seed, spec)
        samples = [sample for sample in samples if sample.name in chosen]
        if not samples:
            raise WildcatError(
                f"{spec}: no image is held out: there is one; give the images to score a JSON of their own"
            )
    dataset = CocoDataset(spec, split, content.classes, samples, upright=upright)
    dataset.outlined = outlined
    return dataset


def _check_crowds(file: Path, content: CocoContent) -> None:
    crowds = [item.crowd for image in content.images for item in image.objects]
    if crowds and all(crowds):
        raise WildcatError(
            f"{file}: all {len(crowds)} objects are crowds (iscrowd 1, as CVAT writes masks), which do not count as "
            "objects of their class; crowds=objects takes them as objects, crowds=difficult leaves them crowds"
        )
