"""PASCAL VOC 2007 and 2012 from the devkit's own layout: classification, segmentation and action classification.

Facts: the VOC 2007 and 2012 development kit documents (Everingham et al.). VOC's pixels are 1-based and a box holds its
last pixel; here, and only here, they become continuous 0-based edges: x1 = xmin - 1, x2 = xmax.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image

from wildcat.data.sample import MAX_COORDINATE, Dataset, Sample, require_path
from wildcat.errors import WildcatError, check_choice

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
ACTIONS = (
    *("jumping", "phoning", "playinginstrument", "reading", "ridingbike"),
    *("ridinghorse", "running", "takingphoto", "usingcomputer", "walking"),
)
SPLITS = ("train", "val", "trainval", "test")
_LAYOUT = "give the folder that holds VOCdevkit, or VOCdevkit, or VOC{year} itself"


@dataclass(frozen=True, slots=True)
class _Object:
    name: str
    difficult: bool
    box: tuple[float, float, float, float]  # 0-based continuous edges


class _NoDoctype(ElementTree.TreeBuilder):
    """Rejects files with a DOCTYPE, where entities could be declared; no VOC file has one."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise WildcatError("a DOCTYPE is not allowed")


def find_root(path: Path, year: int) -> Path:
    """Find the folder VOC<year>: at the given path, or below it."""
    layout = _LAYOUT.format(year=year)
    require_path(path, layout)
    for root in (path / "VOCdevkit" / f"VOC{year}", path / f"VOC{year}"):
        if (root / "ImageSets").is_dir():
            return root
    if (path / "ImageSets").is_dir():
        if re.fullmatch(r"VOC\d{4}", path.name) and path.name != f"VOC{year}":
            raise WildcatError(f"{path}: this is not VOC{year}; {layout}")
        return path
    raise WildcatError(f"{path}: holds no VOC{year} with an ImageSets folder; {layout}")


def download(path: Path, year: int, split: str) -> None:
    """Download and unpack a split below `path` with torchvision, which checks the MD5 sums of the archives.

    VOC 2012's test images need a log-in at the server of the challenge, so they cannot be downloaded.
    """
    split = split.removeprefix("seg-")
    check_choice(split, SPLITS if year == 2007 else SPLITS[:3], f"VOC {year}: a split for download")
    from torchvision.datasets import VOCSegmentation

    path.mkdir(parents=True, exist_ok=True)
    # One archive contains all tasks; of the two classes of torchvision, this one also checks that masks exist.
    VOCSegmentation(str(path), year=str(year), image_set=split, download=True)


def _lines(path: Path) -> list[list[str]]:
    try:
        return [fields for line in path.read_text(encoding="utf-8").splitlines() if (fields := line.split())]
    except (OSError, UnicodeDecodeError) as error:
        raise WildcatError(f"{path}: cannot be read as text in UTF-8: {error}") from None


def _bad_entry(path: Path, number: int, allowed: str) -> WildcatError:
    return WildcatError(f"{path}: entry {number + 1} cannot be read; it must be {allowed}")


def _read_column(path: Path, keys: int) -> dict[tuple[str, ...], int]:
    """One class's label file: `keys` columns of names, then 1, 0 or -1."""
    column = {}
    for number, fields in enumerate(_lines(path)):
        if len(fields) != keys + 1 or fields[-1] not in ("1", "0", "-1"):
            raise _bad_entry(path, number, f"{'image object' if keys == 2 else 'image'} label, the label 1, 0 or -1")
        column[tuple(fields[:keys])] = int(fields[-1])
    return column


def read_label_files(folder: Path, split: str) -> tuple[list[str], npt.NDArray[np.int8]]:
    """Read `<class>_<split>.txt` of all 20 classes in ImageSets/Main -> names, labels (N, 20).

    Raises:
        WildcatError: a file is missing, broken, or lists other images than the first one.
    """
    columns = []
    for name in CLASSES:
        path = folder / f"{name}_{split}.txt"
        require_path(path, f"each of the {len(CLASSES)} classes needs its label file")
        columns.append(_read_column(path, 1))
        if columns[-1].keys() != columns[0].keys():
            other = min(columns[-1].keys() ^ columns[0].keys())[0]
            raise WildcatError(f"{path}: lists other images than {CLASSES[0]}_{split}.txt, the first one is {other}")
    names = [key[0] for key in columns[0]]
    labels = [[column[(name,)] for column in columns] for name in names]
    return names, np.array(labels, dtype=np.int8).reshape(-1, len(CLASSES))


def _read_xml(path: Path) -> ElementTree.Element:
    try:
        parser = ElementTree.XMLParser(target=_NoDoctype())
        return ElementTree.parse(path, parser).getroot()
    except FileNotFoundError:
        raise WildcatError(f"{path}: the annotation is missing") from None
    except (WildcatError, ElementTree.ParseError, OSError, ValueError, LookupError) as error:  # LookupError: encodings
        raise WildcatError(f"{path}: the annotation cannot be read: {error}") from None


def _read_annotation(path: Path) -> tuple[tuple[int, int], list[_Object]]:
    """((width, height), all objects in the file's order)."""
    root = _read_xml(path)
    try:
        # Values are floats in a few files of VOC 2012.
        size = (int(float(root.findtext("size/width", ""))), int(float(root.findtext("size/height", ""))))
        objects = []
        for item in root.iterfind("object"):
            # Only the box of the object itself: its parts (head, hand, foot) have boxes too.
            x1, y1, x2, y2 = (float(item.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
            if not (-MAX_COORDINATE < x1 <= x2 < MAX_COORDINATE and -MAX_COORDINATE < y1 <= y2 < MAX_COORDINATE):
                raise WildcatError(
                    f"{path}: a bndbox ends before it begins, or is out of range: xmin {x1:g}, ymin {y1:g}, "
                    f"xmax {x2:g}, ymax {y2:g}"
                )
            difficult = (item.findtext("difficult") or "0").strip() == "1"
            objects.append(_Object(item.findtext("name", "").strip(), difficult, (x1 - 1, y1 - 1, x2, y2)))
    except WildcatError:
        raise
    except (ValueError, OverflowError):
        raise WildcatError(f"{path}: a size or a bndbox is missing or not a number") from None
    return size, objects


def _labels_of(objects: Sequence[_Object]) -> npt.NDArray[np.int8]:
    """Labels by the devkit's rule: 1 at least one object that is not difficult, 0 only difficult ones, -1 none."""
    row = np.full(len(CLASSES), -1, dtype=np.int8)
    for item in objects:
        index = CLASSES.index(item.name)
        row[index] = max(row[index], 0 if item.difficult else 1)
    return row


def splits(path: Path, year: int) -> tuple[str, ...]:
    """The splits that the folder has; "seg-train" and so on are those of ImageSets/Segmentation."""
    sets = find_root(path, year) / "ImageSets"
    main = [
        s for s in SPLITS if any((sets / "Main" / name).is_file() for name in (f"{s}.txt", f"{CLASSES[0]}_{s}.txt"))
    ]
    return (*main, *(f"seg-{s}" for s in SPLITS if (sets / "Segmentation" / f"{s}.txt").is_file()))


def open_voc(spec: str, path: Path, split: str, *, year: int) -> Dataset:
    """Classification, pointing and segmentation data of VOC.

    Labels come from the label files of ImageSets/Main if the split has them, else from the objects of the annotations;
    boxes come from the annotations, masks from SegmentationClass. A test split without
    label files and annotations (VOC 2012) has labels of 0 throughout, `zeros_unknown`, and no boxes.
    """
    root = find_root(path, year)
    check_choice(split, splits(path, year), f"{spec}: split")
    task, _, part = split.rpartition("-")
    main = root / "ImageSets" / "Main"
    labels: npt.NDArray[np.int8] | None = None
    if not task and any(main.glob(f"*_{part}.txt")):
        names, labels = read_label_files(main, part)
    else:
        names = [
            fields[0] for fields in _lines(root / "ImageSets" / ("Segmentation" if task else "Main") / f"{part}.txt")
        ]
    unlabelled = labels is None and part == "test" and not any(_annotation(root, name).exists() for name in names)
    masks = {file.stem: file for file in (root / "SegmentationClass").glob("*.png")}
    samples = []
    for number, name in enumerate(names):
        image, mask = root / "JPEGImages" / f"{name}.jpg", masks.get(name)
        if unlabelled:
            samples.append(Sample(name, image, np.zeros(len(CLASSES), dtype=np.int8), mask_path=mask))
            continue
        annotation = _annotation(root, name)
        _, objects = _read_annotation(annotation)
        for item in objects:
            check_choice(item.name, CLASSES, f"{annotation}: class")
        samples.append(
            Sample(
                name,
                image,
                _labels_of(objects) if labels is None else labels[number],
                boxes=np.array([item.box for item in objects], dtype=np.float32).reshape(-1, 4),
                box_classes=np.array([CLASSES.index(item.name) for item in objects], dtype=np.int64),
                box_difficult=np.array([item.difficult for item in objects], dtype=bool),
                mask_path=mask,
            )
        )
    # Annotations refer to the pixels as stored.
    return Dataset(spec, split, CLASSES, samples, upright=False, zeros_unknown=unlabelled)


def _annotation(root: Path, name: str) -> Path:
    return root / "Annotations" / f"{name}.xml"


class ActionDataset(Dataset):
    """Persons of VOC 2012 Action: the unit is a person instance, "2010_006215_1", not an image.

    `crops`: sample name -> (left, top, right, bottom) of the crop in the image; other samples are whole images.
    """

    crops: dict[str, tuple[int, int, int, int]]

    def image(self, index: int, draft_size: int | None = None) -> Image.Image:
        """The crop of the person, or the whole image; `draft_size` applies to whole images only."""
        crop = self.crops.get(self.samples[index].name)
        if crop is None:
            return super().image(index, draft_size)
        return super().image(index).crop(crop)


def action_splits(path: Path) -> tuple[str, ...]:
    """The splits of ImageSets/Action."""
    folder = find_root(path, 2012) / "ImageSets" / "Action"
    return tuple(s for s in SPLITS if (folder / f"{s}.txt").is_file() or any(folder.glob(f"*_{s}.txt")))


def _action_labels(root: Path, split: str) -> dict[tuple[str, str], npt.NDArray[np.int8]]:
    """(image, object number) -> labels, sorted; 0 where a class's file does not list the instance.

    The files differ: "jumping" came in 2011, so persons of 2010 were never annotated for it. Without label
    files (test), the persons are those listed in <split>.txt, or, if that names images only, all in the annotations.
    """
    folder = root / "ImageSets" / "Action"
    files = {name: folder / f"{name}_{split}.txt" for name in ACTIONS}
    rows: dict[tuple[str, str], npt.NDArray[np.int8]] = {}
    if any(file.is_file() for file in files.values()):
        for index, file in enumerate(files.values()):
            require_path(file, f"each of the {len(ACTIONS)} actions needs its label file")
            for (image, person), label in _read_column(file, 2).items():
                rows.setdefault((image, person), np.zeros(len(ACTIONS), dtype=np.int8))[index] = label
    else:
        for fields in _lines(folder / f"{split}.txt"):
            persons = fields[1:2]
            if not persons:
                _, objects = _read_annotation(_annotation(root, fields[0]))
                persons = [str(i + 1) for i, item in enumerate(objects) if item.name == "person"]
            for person in persons:
                rows[fields[0], person] = np.zeros(len(ACTIONS), dtype=np.int8)
    return dict(sorted(rows.items(), key=lambda row: (row[0][0], len(row[0][1]), row[0][1])))


def open_action(spec: str, path: Path, split: str, *, mode: str = "crop", context: float = 1.5) -> ActionDataset:
    """VOC 2012 Action: 10 actions of given persons; a person with none of them is negative for all.

    Args:
        spec: the specification, as given.
        path: as for VOC 2012.
        split: train, val, trainval or test (without labels).
        mode: "crop" shows the person's box, its sides enlarged by `context` about its centre and clipped to the
            image; "whole" shows the whole image, the same one for each of its persons.
        context: 1 is the box itself.

    The box of the person, in pixels of the crop or of the image, occurs once for each action of the person.
    """
    if context < 1:
        raise WildcatError(f"{spec}: context must be 1 (the box of the person) or more; got {context:g}")
    root = find_root(path, 2012)
    check_choice(split, action_splits(path), f"{spec}: split")
    samples, crops, rows = [], {}, _action_labels(root, split)
    for (image, person), labels in rows.items():
        (width, height), objects = _read_annotation(_annotation(root, image))
        if not (re.fullmatch("[0-9]{1,9}", person) and 1 <= int(person) <= len(objects)):
            raise WildcatError(f"{_annotation(root, image)}: has no object {person}, only {len(objects)} objects")
        x1, y1, x2, y2 = objects[int(person) - 1].box
        name, left, top = f"{image}_{person}", 0, 0
        if mode == "crop":
            dx, dy = (context - 1) / 2 * (x2 - x1), (context - 1) / 2 * (y2 - y1)
            left, top = max(int(np.floor(x1 - dx)), 0), max(int(np.floor(y1 - dy)), 0)
            crops[name] = (left, top, min(int(np.ceil(x2 + dx)), width), min(int(np.ceil(y2 + dy)), height))
        present = np.flatnonzero(labels == 1)
        box = np.array([x1 - left, y1 - top, x2 - left, y2 - top], dtype=np.float32)
        samples.append(
            Sample(
                name,
                root / "JPEGImages" / f"{image}.jpg",
                labels,
                boxes=np.tile(box, (len(present), 1)),
                box_classes=present,
                box_difficult=np.zeros(len(present), dtype=bool),
            )
        )
    dataset = ActionDataset(spec, split, ACTIONS, samples, upright=False, zeros_unknown=True)
    dataset.crops = crops
    return dataset
