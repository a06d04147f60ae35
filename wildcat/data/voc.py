"""PASCAL VOC 2007 and 2012 from the devkit's own layout: classification, segmentation and action classification.

Facts: the VOC 2007 and 2012 development kit documents (Everingham et al.).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from wildcat.data.files import is_file
from wildcat.data.hold_out import RANDOM_SPLITS, split_by_labels
from wildcat.data.images import image_size
from wildcat.data.sample import Dataset, Parts, Sample, require_path
from wildcat.data.voc_annotations import Annotation, VocObject, read_annotation, read_column
from wildcat.data.voc_folder import (
    SPLITS,
    annotation_file,
    find_images,
    find_lists,
    find_masks,
    find_own_root,
    label_files,
    listed_classes,
    listed_names,
    mask_colours,
    read_lines,
)
from wildcat.errors import WildcatError, check_choice, shorten

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
ACTIONS = (
    *("jumping", "phoning", "playinginstrument", "reading", "ridingbike"),
    *("ridinghorse", "running", "takingphoto", "usingcomputer", "walking"),
)
_LAYOUT = "give the folder that holds VOCdevkit, or VOCdevkit, or VOC{year} itself"


def find_root(path: Path, year: int | None) -> Path:
    """Find the folder VOC<year>: at the given path, or below it; without a year, the only one."""
    if year is None:
        return find_own_root(path)
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


def read_label_files(
    folder: Path, split: str, classes: Sequence[str] = CLASSES
) -> tuple[list[str], npt.NDArray[np.int8]]:
    """Read `<class>_<split>.txt` of all classes, those of VOC unless given, in ImageSets/Main -> names, labels (N, C).

    Raises:
        WildcatError: a file is missing, broken, or lists other images than the first one.
    """
    columns = []
    for name in classes:
        path = folder / f"{name}_{split}.txt"
        require_path(path, f"each of the {len(classes)} classes needs its label file")
        columns.append(read_column(path, 1))
        if columns[-1].keys() != columns[0].keys():
            other = min(columns[-1].keys() ^ columns[0].keys())[0]
            raise WildcatError(f"{path}: lists other images than {classes[0]}_{split}.txt, the first one is {other}")
    names = [key[0] for key in columns[0]]
    labels = [[column[(name,)] for column in columns] for name in names]
    return names, np.array(labels, dtype=np.int8).reshape(-1, len(classes))


def _labels_of(objects: Sequence[VocObject], classes: Sequence[str]) -> npt.NDArray[np.int8]:
    """Labels by the devkit's rule: 1 at least one object that is not difficult, 0 only difficult ones, -1 none."""
    row = np.full(len(classes), -1, dtype=np.int8)
    for item in objects:
        index = classes.index(item.name)
        row[index] = max(row[index], 0 if item.difficult else 1)
    return row


def _parts_of(objects: Sequence[VocObject]) -> Parts | None:
    """The parts of all objects of an image; None if it has none."""
    found = [(name, box, number) for number, item in enumerate(objects) for name, box in item.parts]
    if not found:
        return None
    kinds, boxes, numbers = zip(*found, strict=True)
    return Parts(np.array(boxes, np.float32), kinds, np.array(numbers, np.int64))


def splits(path: Path, year: int | None) -> tuple[str, ...]:
    """The splits that the folder has; "seg-train" and so on are those of ImageSets/Segmentation.

    Those of a random split if all lists have other names, as CVAT's default.txt; and, without a year, if there is one
    list alone.
    """
    root = find_root(path, year)
    lists = find_lists(root)
    main = tuple(split for split in SPLITS if split in lists or label_files(root, split))
    if (not main and lists) or (year is None and len(main) == 1):
        return RANDOM_SPLITS
    segmentation = find_lists(root, "Segmentation")
    return (*main, *(f"seg-{split}" for split in SPLITS if split in segmentation))


def _classes_of(root: Path, annotations: dict[Path, Annotation], is_own: bool) -> tuple[Sequence[str], bool]:
    """(the classes, whether the order of the values of masks is known).

    They are those of a file labels.txt or labelmap.txt; those of the label files; or those of all annotations, which
    are added to `annotations`. If the latter are all out of the 20 classes of VOC, they are these 20; of own images,
    only if most of the 20 are there.
    """
    listed = listed_classes(root)
    if listed is not None:
        return listed, True
    labelled = {name for split in SPLITS for name in label_files(root, split)}
    if labelled:  # VOC's own, perhaps without some, or own classes of which one may be called person
        return (CLASSES, True) if len(labelled & set(CLASSES)) > len(CLASSES) // 2 else (sorted(labelled), False)
    annotations |= {file: read_annotation(file) for file in (root / "Annotations").rglob("*.xml")}
    found = {item.name for _, objects in annotations.values() for item in objects}
    is_voc = found <= set(CLASSES) and (not is_own or len(found) > len(CLASSES) // 2)
    return (CLASSES, True) if is_voc else (sorted(found), False)


def open_voc(
    spec: str,
    path: Path,
    split: str,
    *,
    year: int | None,
    test: float = 0.2,
    seed: int = 0,
    image_folder: Path | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Classification, pointing and segmentation data of VOC, or of own classes in its layout.

    Labels come from the label files of ImageSets/Main if the split has them, else from the objects of the annotations;
    boxes come from the annotations, masks from SegmentationClass. Images and masks may have any suffix and lie in
    folders. A test split without label files and annotations (VOC 2012) has labels of 0 throughout, `zeros_unknown`,
    and no boxes. If the lists of ImageSets/Main have other names than those of splits, all their images are split at
    random into train and test.

    Args:
        spec: the specification, as given.
        path: the folder that holds VOCdevkit, or VOC<year> itself.
        split: one of :func:`splits`.
        year: of the challenge; None for own images in its layout.
        test: fraction to hold out where there are no splits.
        seed: of the random split.
        image_folder: the folder of the images, instead of JPEGImages.
        class_names: the classes, in the order of the values of masks, instead of those that are found.
    """
    root = find_root(path, year)
    allowed = splits(path, year)
    check_choice(split, allowed, f"{spec}: split")
    task, _, part = split.rpartition("-")
    is_random = "all" in allowed
    annotations: dict[Path, Annotation] = {}
    classes, masks_are_known = _classes_of(root, annotations, year is None)
    if class_names is not None:
        classes, masks_are_known = class_names, True
    labels: npt.NDArray[np.int8] | None = None
    if not task and not is_random and label_files(root, part):
        names, labels = read_label_files(root / "ImageSets" / "Main", part, classes)
    else:
        lists = find_lists(root, "Segmentation" if task else "Main")
        names = listed_names(root, chain.from_iterable(lists.values()) if is_random else lists[part])
    is_test = labels is None and part == "test" and not is_random
    unlabelled = is_test and not any(is_file(annotation_file(root, name)) for name in names)
    images, masks, warnings = find_images(root, image_folder), find_masks(root), []
    if masks and not masks_are_known:
        masks = {}
        warnings.append(
            f"{root}: masks are not used: {root / 'labels.txt'} must name the class of each of their values, one "
            "a line from background (0) on"
        )
    samples: list[Sample] = []
    missing: list[str] = []  # own images without an annotation
    for number, name in enumerate(names):
        image, mask = images.get(name, root / "JPEGImages" / f"{name}.jpg"), masks.get(name)
        if unlabelled:
            samples.append(Sample(name, image, np.zeros(len(classes), dtype=np.int8), mask_path=mask))
            continue
        file = annotation_file(root, name)
        if year is None and file not in annotations and not file.exists():
            missing.append(name)
            annotations[file] = (None, [])
        size, objects = annotations.get(file) or read_annotation(file)
        for item in objects:
            check_choice(item.name, classes, f"{file}: class")
        samples.append(
            Sample(
                name,
                image,
                _labels_of(objects, classes) if labels is None else labels[number],
                boxes=np.array([item.box for item in objects], dtype=np.float32).reshape(-1, 4),
                box_classes=np.array([classes.index(item.name) for item in objects], dtype=np.int64),
                box_difficult=np.array([item.difficult for item in objects], dtype=bool),
                mask_path=mask,
                stated_size=size,
                parts=_parts_of(objects),
            )
        )
    if is_random:
        chosen = split_by_labels({sample.name: sample.labels for sample in samples}, split, test, seed, spec)
        samples = [sample for sample in samples if sample.name in chosen]
    if masks:
        warnings += _mask_warnings(root, samples, masks, images, bool(task))
    notes = [] if tuple(classes) == CLASSES else [f"{spec}: the classes are its own: {shorten(classes, 8)}"]
    if missing:
        if len(missing) == len(names):
            raise WildcatError(f"{annotation_file(root, missing[0])}: the annotation is missing, as are all others")
        notes.append(
            f"{spec}: {len(missing)} of {len(names)} listed images have no XML file, as CVAT writes none for images "
            f"without objects, and are negatives of all classes: {shorten(missing)}"
        )
    # Annotations refer to the pixels as stored.
    dataset = Dataset(
        spec, split, classes, samples, upright=False, zeros_unknown=unlabelled, notes=notes, warnings=warnings
    )
    if year is None and masks:
        dataset.mask_colours = mask_colours(root)
    return dataset


def _mask_warnings(
    root: Path, samples: Sequence[Sample], masks: Mapping[str, Path], images: Mapping[str, Path], is_segmentation: bool
) -> list[str]:
    """Warnings about masks of images that are not there, and about images that should have one."""
    warnings = []
    strangers = [name for name in masks if name not in images]
    if images and strangers:
        warnings.append(
            f"{root}: {len(strangers)} of {len(masks)} masks have the name of no image and are not used: "
            f"{shorten(strangers)}"
        )
    without = [sample.name for sample in samples if sample.mask_path is None]
    if is_segmentation and without:
        warnings.append(
            f"{root}: {len(without)} of {len(samples)} images that ImageSets/Segmentation lists have no mask in "
            f"SegmentationClass, and are not scored: {shorten(without)}"
        )
    return warnings


class ActionDataset(Dataset):
    """Persons of VOC 2012 Action: the unit is a person instance, "2010_006215_1", not an image.

    `crops`: sample name -> (left, top, right, bottom) of the crop in the image; other samples are whole images.
    """

    crops: dict[str, tuple[int, int, int, int]]

    def is_crop(self, index: int) -> bool:
        """Whether a person of the image is the sample, and not the whole image."""
        return self.samples[index].name in self.crops

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
            for (image, person), label in read_column(file, 2).items():
                rows.setdefault((image, person), np.zeros(len(ACTIONS), dtype=np.int8))[index] = label
    else:
        for fields in read_lines(folder / f"{split}.txt"):
            persons = fields[1:2]
            if not persons:
                _, objects = read_annotation(annotation_file(root, fields[0]))
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
    samples, crops, rows, images = [], {}, _action_labels(root, split), find_images(root)
    for (image, person), labels in rows.items():
        stated, objects = read_annotation(annotation_file(root, image))
        if not (re.fullmatch("[0-9]{1,9}", person) and 1 <= int(person) <= len(objects)):
            raise WildcatError(f"{annotation_file(root, image)}: has no object {person}, only {len(objects)} objects")
        file = images.get(image, root / "JPEGImages" / f"{image}.jpg")
        x1, y1, x2, y2 = objects[int(person) - 1].box
        name, left, top = f"{image}_{person}", 0, 0
        if mode == "crop":
            width, height = stated or image_size(file, upright=False)
            dx, dy = (context - 1) / 2 * (x2 - x1), (context - 1) / 2 * (y2 - y1)
            left, top = max(int(np.floor(x1 - dx)), 0), max(int(np.floor(y1 - dy)), 0)
            crops[name] = (left, top, min(int(np.ceil(x2 + dx)), width), min(int(np.ceil(y2 + dy)), height))
        present = np.flatnonzero(labels == 1)
        box = np.array([x1 - left, y1 - top, x2 - left, y2 - top], dtype=np.float32)
        samples.append(
            Sample(
                name,
                file,
                labels,
                boxes=np.tile(box, (len(present), 1)),
                box_classes=present,
                box_difficult=np.zeros(len(present), dtype=bool),
            )
        )
    dataset = ActionDataset(spec, split, ACTIONS, samples, upright=False, zeros_unknown=True)
    dataset.crops = crops
    return dataset
