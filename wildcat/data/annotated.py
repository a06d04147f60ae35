"""What the readers of annotation tools have in common: a record of each image, and the dataset made from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from wildcat.data.class_list import find_class_list, read_class_list
from wildcat.data.hold_out import RANDOM_SPLITS, split_by_labels
from wildcat.data.names import clean_name, usual_split
from wildcat.data.outlines import Outline, OutlinedDataset, OutlinedObject, outline_area
from wildcat.data.sample import Sample
from wildcat.data.tool_images import ToolImages
from wildcat.errors import WildcatError, check_choice

Box: TypeAlias = "tuple[float, float, float, float]"
"""x1, y1, x2, y2 in pixels of the image, pixel edges."""

_USUAL = ("train", "val", "test")


@dataclass(frozen=True)
class Shape:
    """An object that was marked in an image.

    Attributes:
        label: its class.
        box: around it; None for a point, which has no extent.
        outline: None if it is not annotated.
        difficult: it counts neither as present nor as absent.
    """

    label: str
    box: Box | None
    outline: Outline | None = None
    difficult: bool = False


@dataclass(frozen=True)
class AnnotatedImage:
    """What a tool says about an image.

    Attributes:
        file: name of the image as the tool writes it.
        size: (width, height), or None if the tool does not say it.
        tags: classes of the whole image.
        shapes: objects in it.
        unknown: classes of which it is not known whether they are there, such as those on which annotators disagree.
        split: name of its split, "" if the tool names none.
        is_complete: the tool says that it was annotated, so that without labels there is nothing in it.
    """

    file: str
    size: tuple[int, int] | None
    tags: Sequence[str] = ()
    shapes: Sequence[Shape] = ()
    unknown: Iterable[str] = ()
    split: str = ""
    is_complete: bool = False

    @property
    def labels(self) -> set[str]:
        """All classes that are named."""
        return {*self.tags, *(shape.label for shape in self.shapes)}


@dataclass
class Content:
    """What a reader found in the file of a tool.

    Attributes:
        source: the file.
        images: in its order.
        classes: the tool's classes in its order; None if it lists none, and they are those of the images.
        notes: how the file was read, for the log.
        warnings: what in it may be a mistake.
        files: (name, file) of each image by its name in the tool, where the reader knows them already.
    """

    source: Path
    images: list[AnnotatedImage]
    classes: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    files: dict[str, tuple[str, Path]] | None = None


@dataclass(frozen=True)
class Choices:
    """The options that all readers of tools have.

    Attributes:
        images: the folder of the images.
        class_list: a file with the names of the classes.
        exclusive: each image has exactly one class.
        empty: of images without annotations, which may be those that nobody has annotated: "keep" takes them as
            negatives of all classes, "drop" leaves them out.
        test: fraction to hold out if the tool names no splits.
        seed: of the random split.
    """

    images: str | None = None
    class_list: str | None = None
    exclusive: bool = False
    empty: str = "keep"
    test: float = 0.2
    seed: int = 0


def splits_of(content: Content) -> tuple[str, ...]:
    """The splits that the images name, else those of a random split."""
    named = {_split_name(image.split) for image in content.images} - {""}
    if not named:
        return RANDOM_SPLITS
    return (*(name for name in _USUAL if name in named), *sorted(named - set(_USUAL)))


def _split_name(text: str) -> str:
    return usual_split(text) or clean_name(text)


def annotated_dataset(spec: str, split: str, content: Content, choices: Choices) -> OutlinedDataset:
    """One split of the images of a tool.

    Boxes of an image are given if every class that it has is marked by a box or an outline. Its mask is given if every
    object and every class of it has an outline.

    Args:
        spec: the specification, as given.
        split: one of :func:`splits_of`.
        content: what the reader found.
        choices: the user's.

    Raises:
        WildcatError: for an unknown split, images that are not found, a class that the list of classes lacks, and
            images with another number of classes than one if they are exclusive.
    """
    source, notes, warnings = content.source, list(content.notes), list(content.warnings)
    allowed = splits_of(content)
    split = split if split in allowed else _split_name(split)
    check_choice(split, allowed, f"{spec}: split")
    images = content.images
    nothing = [image for image in images if not image.labels and not tuple(image.unknown)]
    bare = {image.file for image in nothing if not image.is_complete}
    if len(bare) < len(nothing):
        count = len(nothing) - len(bare)
        notes.append(f"{count} of {len(images)} images were annotated as empty and are negatives of all classes")
    if bare and choices.empty == "drop":
        images = [image for image in images if image.file not in bare]
        notes.append(f"{len(bare)} of {len(content.images)} images have no annotation and are left out")
    elif bare:
        notes.append(
            f"{len(bare)} of {len(images)} images have no annotation and are taken as negatives of all classes; "
            "empty=drop leaves them out"
        )
    if not images:
        raise WildcatError(f"{source}: none of its {len(content.images)} images is annotated")
    classes = _classes(content, images, choices)
    if choices.exclusive:
        _check_exclusive(source, images)
    elif len(classes) > 1 and images and all(len(image.labels) == 1 and not image.shapes for image in images):
        notes.append("each image has one class; exclusive=yes trains one class out of all, as for folders")
    files = content.files
    if files is None or choices.images is not None:
        files = ToolImages(spec.partition(":")[0], source, choices.images, _USUAL).find([i.file for i in images])
    has_boxes = any(shape.box is not None for image in images for shape in image.shapes)
    outlined: dict[str, list[OutlinedObject]] = {}
    samples: dict[str, Sample] = {}
    in_split: set[str] = set()
    for image in images:
        name, path = files[image.file]
        if name in samples:
            raise WildcatError(f"{source}: {image.file} is listed twice")
        samples[name] = _sample(name, path, image, classes, has_boxes)
        if (objects := _outlined(image, classes)) is not None:
            outlined[name] = objects
        if _split_name(image.split) == split:
            in_split.add(name)
    if allowed == RANDOM_SPLITS:
        labels = {name: sample.labels for name, sample in samples.items()}
        in_split = split_by_labels(labels, split, choices.test, choices.seed, spec)
        if not in_split:
            raise WildcatError(
                f"{spec}: no image is held out: there is one; give the images to score a file of their own"
            )
    chosen = [sample for name, sample in samples.items() if name in in_split]
    dataset = OutlinedDataset(
        spec,
        split,
        classes,
        chosen,
        multi_label=not choices.exclusive,
        zeros_unknown=any(tuple(image.unknown) for image in images),
        notes=[f"{source}: {'; '.join(notes)}"] if notes else [],
        warnings=[f"{source}: {warning}" for warning in warnings],
    )
    dataset.outlined = outlined if any(items for items in outlined.values()) else {}
    return dataset


def _classes(content: Content, images: Sequence[AnnotatedImage], choices: Choices) -> list[str]:
    """The classes: those of the option class_list, those that the tool lists, or those of the images, sorted."""
    found = {label for image in images for label in (*image.labels, *image.unknown)}
    if choices.class_list is not None:
        classes = read_class_list(find_class_list(choices.class_list, content.source.parent))
        for label in sorted(found - set(classes)):
            check_choice(label, classes, f"{content.source}: class_list={choices.class_list} lacks a class; class")
    else:
        classes = content.classes or sorted(found)
    if not classes:
        raise WildcatError(
            f"{content.source}: none of its {len(content.images)} images has a label; class_list=FILE names classes"
        )
    return classes


def _check_exclusive(source: Path, images: Iterable[AnnotatedImage]) -> None:
    for image in images:
        if len(image.labels) != 1:
            raise WildcatError(
                f"{source}: {image.file} has {len(image.labels)} classes; exclusive=yes allows exactly one"
            )


def _sample(name: str, path: Path, image: AnnotatedImage, classes: Sequence[str], has_boxes: bool) -> Sample:
    column: Mapping[str, int] = {label: index for index, label in enumerate(classes)}
    row = np.full(len(classes), -1, np.int8)
    unsure = [*image.unknown, *(shape.label for shape in image.shapes)]
    row[[column[label] for label in unsure]] = 0
    sure = [*image.tags, *(shape.label for shape in image.shapes if not shape.difficult)]
    row[[column[label] for label in sure]] = 1
    boxed = [shape for shape in image.shapes if shape.box is not None]
    if not has_boxes or image.labels != {shape.label for shape in boxed}:
        return Sample(name, path, row, stated_size=image.size)
    return Sample(
        name,
        path,
        row,
        boxes=np.array([shape.box for shape in boxed], np.float32).reshape(-1, 4),
        box_classes=np.array([column[shape.label] for shape in boxed], np.int64),
        box_difficult=np.array([shape.difficult for shape in boxed], bool),
        stated_size=image.size,
    )


def _outlined(image: AnnotatedImage, classes: Sequence[str]) -> list[OutlinedObject] | None:
    """The outlines of the objects of an image; None if an object or a class has none."""
    objects = []
    for shape in image.shapes:
        if shape.outline is not None:
            area = outline_area(shape.outline)
            objects.append(OutlinedObject(classes.index(shape.label), None, area, shape.difficult, shape.outline))
        elif shape.box is not None:
            return None
    has_all = {classes[item.category] for item in objects} == image.labels
    return objects if has_all else None


def polygon_of(points: npt.NDArray[np.float64]) -> list[npt.NDArray[np.float64]]:
    """The outline of a polygon of (P, 2) points; without an area if there are fewer than three."""
    return [points.reshape(-1)] if len(points) >= 3 else []
