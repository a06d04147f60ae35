"""Checks of a dataset before training: missing and unreadable images, repeated names, classes that cannot be learnt."""

from __future__ import annotations

import hashlib
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from wildcat.data.files import is_file
from wildcat.data.images import image_size, load_image
from wildcat.data.sample import Dataset, Sample
from wildcat.errors import WildcatError, check_choice, shorten

_NAMES_SHOWN = 5  # of each kind of finding, in messages
_LONGEST_SHOWN = 300  # characters of a name with its reason; longer ones are cut, line ends are escaped
_CLASSES_COUNTED = 8  # up to so many classes, the number of images of each is shown
_WORKERS = 4  # Pillow releases the lock while it decodes; more do not help on small machines

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class CheckReport:
    """The findings of :func:`check_dataset`; ``str(report)`` is a text with counts and the first names.

    Attributes:
        data: specification and split of the dataset.
        images: number of samples that were checked.
        missing: names of samples whose file does not exist.
        unreadable: (name, reason) of samples whose file cannot be read.
        duplicate_names: names that occur more than once.
        classes_without_positives: classes in no usable sample: they cannot be learnt, and have no average precision.
        only_difficult: those of these classes that have difficult objects or crowds.
        other_sizes: (name, reason) of images of another size than their annotations say: points and masks cannot be
            scored on them.
        cut: names of JPEGs that were cut and are read as far as they go, with ``on_bad_image="partial"``.
    """

    data: str
    images: int
    missing: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    duplicate_names: tuple[str, ...] = ()
    classes_without_positives: tuple[str, ...] = ()
    only_difficult: tuple[str, ...] = ()
    other_sizes: tuple[tuple[str, str], ...] = ()
    cut: tuple[str, ...] = ()

    @property
    def has_bad_images(self) -> bool:
        """Whether samples must be left out or repaired before the dataset can be used."""
        return bool(self.missing or self.unreadable or self.duplicate_names)

    def __str__(self) -> str:
        """Return one line per kind of finding."""
        findings = [
            ("file is missing", "files are missing", self.missing),
            ("image cannot be read", "images cannot be read", [f"{n} ({reason})" for n, reason in self.unreadable]),
            ("image was cut and is read in part", "images were cut and are read in part", self.cut),
            ("name occurs more than once", "names occur more than once", self.duplicate_names),
            (
                "class has no positive image",
                "classes have no positive image",
                [name for name in self.classes_without_positives if name not in self.only_difficult],
            ),
            (
                "class has only difficult objects or crowds",
                "classes have only difficult objects or crowds",
                self.only_difficult,
            ),
            (
                "image has another size than its annotation says, so that points and masks cannot be scored",
                "images have other sizes than their annotations say, so that points and masks cannot be scored",
                [f"{n} ({reason})" for n, reason in self.other_sizes],
            ),
        ]
        lines = [
            f"  {len(names)} {singular if len(names) == 1 else plural}: {_shown(names)}"
            for singular, plural, names in findings
            if names
        ]
        head = f"{self.data}: {self.images} image{'' if self.images == 1 else 's'} checked"
        return "\n".join([head + ("" if lines else ", all good"), *lines])


def _shown(names: Sequence[str]) -> str:
    """The first names for a message, on one line."""
    shown = [name if name.isprintable() and len(name) <= _LONGEST_SHOWN else reprlib.repr(name) for name in names]
    return shorten(shown, _NAMES_SHOWN)


def map_in_threads(function: Callable[[T], R], items: Sequence[T], title: str, progress: bool) -> list[R]:
    """The results of a function, in the order of the items; with `progress`, a bar of this title is shown."""
    from tqdm import tqdm

    with ThreadPoolExecutor(_WORKERS) as pool:
        return list(tqdm(pool.map(function, items), title, len(items), disable=not progress, unit="image", leave=False))


def _problem(path: Path | None, decode: bool, partial: bool = False) -> str | None:
    """Why a file cannot be used: "" if it is missing, None if it can be used. With `partial`, a JPEG may be cut."""
    if path is None:
        return None
    try:
        if not path.exists():
            return ""
        if decode:
            # Decodes all of the file; a JPEG at 1/8 of its size, which is faster.
            load_image(path, draft_size=1, partial=partial)
        else:
            image_size(path)
    except WildcatError as error:
        return str(error).removeprefix(f"{path}: ")
    except OSError as error:  # a name that is no valid file name
        return error.strerror
    return None


def size_difference(dataset: Dataset, index: int) -> str | None:
    """What is wrong about the size of an image that its annotation says; None if nothing is, or it says none."""
    stated, path = dataset.samples[index].stated_size, dataset.samples[index].path
    if stated is None or path is None:
        return None
    actual = image_size(path, upright=dataset.upright)
    if actual == stated:
        return None
    turned = ""
    if stated == actual[::-1] and stated == image_size(path):
        turned = ", which is it turned by its EXIF orientation"
        if dataset.spec.startswith("coco:"):
            turned += ": add upright=yes"
    return f"annotated as {stated[0]} x {stated[1]}{turned}; the image is {actual[0]} x {actual[1]}"


def difficult_warnings(dataset: Dataset, difficult: str) -> list[str]:
    """A warning about classes that have only difficult objects or crowds; an empty list if there are none.

    Args:
        dataset: the training images.
        difficult: the setting: what labels of 0 count as in the loss, "positive" or "ignore".

    >>> import numpy as np
    >>> label = np.array([[1, 0], [1, -1]], np.int8)
    >>> samples = [Sample(str(i), None, row) for i, row in enumerate(label)]
    >>> difficult_warnings(Dataset("mine:x", "train", ["cat", "dog"], samples), "ignore")[0][:55]
    '1 of 2 classes have only difficult objects or crowds (d'
    """
    labels = dataset.labels
    if dataset.zeros_unknown or not len(labels):
        return []
    only = (labels == 0).any(axis=0) & ~(labels == 1).any(axis=0)
    names = [
        f"{name} {count}"
        for name, count, is_so in zip(dataset.classes, (labels == 0).sum(0), only, strict=True)
        if is_so
    ]
    if not names:
        return []
    what = (
        "in training they count as positives (--difficult positive), but the classes are not scored on such images"
        if difficult == "positive"
        else "training ignores them (--difficult ignore), so that the classes cannot be learnt"
    )
    crowds = "; crowds=objects takes crowds as objects" if dataset.spec.startswith("coco:") else ""
    return [
        f"{len(names)} of {len(dataset.classes)} classes have only difficult objects or crowds ({_shown(names)} "
        f"images): {what}{crowds}"
    ]


def _files(samples: Iterable[Sample]) -> list[tuple[Path, str]]:
    return [(sample.path, sample.name) for sample in samples if sample.path is not None and is_file(sample.path)]


def _digest(path: Path) -> bytes:
    return hashlib.blake2b(path.read_bytes()).digest()


def _equal_files(first: Iterable[Sample], second: Iterable[Sample], progress: bool) -> list[tuple[str, str]]:
    """Pairs of names, one of each side, whose files are equal; only files of a size that both sides have are read."""
    sides = [[(path, path.stat().st_size, name) for path, name in _files(samples)] for samples in (first, second)]
    sizes = {size for _, size, _ in sides[0]} & {size for _, size, _ in sides[1]}
    candidates = [[(path, name) for path, size, name in side if size in sizes] for side in sides]
    digests = map_in_threads(lambda item: _digest(item[0]), candidates[0] + candidates[1], "comparing files", progress)
    count = len(candidates[0])
    second_names = {digest: name for digest, (_, name) in zip(digests[count:], candidates[1], strict=True)}
    return [
        (name, second_names[digest])
        for digest, (_, name) in zip(digests[:count], candidates[0], strict=True)
        if digest in second_names
    ]


def label_warnings(dataset: Dataset, known: Sequence[str] = ()) -> list[str]:
    """Warnings about labels from which a class cannot be learnt: in no image, in every image, or under two names.

    Args:
        dataset: the training images.
        known: classes without images that need no warning, because the report names them already.

    >>> label_warnings(open_dataset("synthetic:count=40,size=64", "train"))  # doctest: +SKIP
    []
    """
    positive = (dataset.labels == 1).sum(axis=0)
    by_lower_case: dict[str, list[str]] = {}
    for name in dataset.classes:
        by_lower_case.setdefault(name.casefold(), []).append(name)
    same_but_case = [" = ".join(names) for names in by_lower_case.values() if len(names) > 1]
    difficult = (dataset.labels == 0).any(axis=0) & (not dataset.zeros_unknown)  # difficult_warnings names these
    absent = [
        name
        for name, count, has_difficult in zip(dataset.classes, positive, difficult, strict=True)
        if count == 0 and name not in known and not has_difficult
    ]
    everywhere = [name for name, count in zip(dataset.classes, positive, strict=True) if count == len(dataset)]
    total, images = len(dataset.classes), f"the {len(dataset)} training images"
    warnings = []
    if absent:
        warnings.append(
            f"{len(absent)} of {total} classes are in none of {images} and cannot be learnt: {_shown(absent)}"
        )
    if everywhere:
        warnings.append(
            f"{len(everywhere)} of {total} classes are in every one of {images} and cannot be learnt: "
            f"{_shown(everywhere)}"
        )
    if same_but_case:
        warnings.append(f"classes whose names differ only in case are different classes: {_shown(same_but_case)}")
    return warnings


def require_two_classes(dataset: Dataset) -> None:
    """Raise a WildcatError if every image has the same one class, so that nothing can be learnt.

    Only where each image has exactly one class: a single class out of several labels is in some images and not in
    others.

    >>> require_two_classes(open_dataset("folder:my_images", "train"))  # doctest: +SKIP
    """
    if dataset.multi_label:
        return
    present = [
        name for name, any_image in zip(dataset.classes, (dataset.labels == 1).any(axis=0), strict=True) if any_image
    ]
    if len(present) == 1:
        raise WildcatError(
            f"{dataset.spec} {dataset.split}: all {len(dataset)} images are of one class, {present[0]}: a model needs a"
            " second class, such as a folder with images that do not show it"
        )


def class_counts(dataset: Dataset) -> str:
    """One line with the number of images of each class; of more than eight classes, the largest and the smallest.

    >>> from wildcat.data import open_dataset
    >>> class_counts(open_dataset("synthetic:count=40,size=64", "train"))[:24]
    '40 images of 8 classes: '
    """
    positive = (dataset.labels == 1).sum(axis=0).tolist()
    counts = sorted(zip(positive, dataset.classes, strict=True), key=lambda pair: -pair[0])
    if len(counts) <= _CLASSES_COUNTED:
        shown = ", ".join(f"{name} {count}" for count, name in counts)
    else:
        (most, first), (least, last) = counts[0], counts[-1]
        shown = f"from {most} of {first} to {least} of {last}"
    return f"{len(dataset)} images of {len(counts)} class{'es' * (len(counts) != 1)}: {shown}"


def shared_image_warnings(dataset: Dataset, held_out: Dataset, what: str, *, progress: bool = False) -> list[str]:
    """A warning if images of a held-out set are also training images; an empty list if none is.

    Samples of the same split are compared by name, others by the content of their files.

    Args:
        dataset: the training images.
        held_out: the images that are scored.
        what: what these are called in the warning: "validation".
        progress: show a bar.

    >>> from wildcat.data import open_dataset
    >>> dataset = open_dataset("synthetic:count=2,size=32", "train")
    >>> shared_image_warnings(dataset, open_dataset("synthetic:count=2,size=32", "val"), "validation")
    []
    """
    if (dataset.spec, dataset.split) == (held_out.spec, held_out.split):
        names = {sample.name for sample in dataset.samples}
        pairs = [(sample.name, sample.name) for sample in held_out.samples if sample.name in names]
    else:
        pairs = _equal_files(held_out.samples, dataset.samples, progress)
    return shared_warning(pairs, len(held_out), what)


def shared_warning(pairs: Sequence[tuple[str, str]], count: int, what: str) -> list[str]:
    """The warning of :func:`shared_image_warnings` for pairs of a held-out image and the equal training image.

    >>> shared_warning([("a.jpg", "a.jpg"), ("b.jpg", "c.jpg")], 9, "scored")[0].partition(" (")[0]
    '2 of 9 scored images were trained on'
    """
    if not pairs:
        return []
    shared = [held if held == trained else f"{held} = {trained}" for held, trained in pairs]
    return [
        f"{len(pairs)} of {count} {what} images were trained on (equal files), so that scores on them are "
        f"too high: {_shown(shared)}"
    ]


def check_dataset(
    dataset: Dataset,
    *,
    on_bad_image: str = "error",
    decode: bool = True,
    progress: bool = False,
) -> tuple[Dataset, CheckReport]:
    """Check every file once; return the usable part of a dataset, and the report.

    Args:
        dataset: the images to train on or to score; it is not changed.
        on_bad_image: what to do about missing or unreadable images and repeated names. "error": raise; "skip": leave
            them out (the first of a repeated name stays). "partial": read JPEGs that were cut as far as they go, and
            raise for others. Classes without positives are only reported.
        decode: decode the images, which finds truncated files; otherwise read only their headers, which is faster.
        progress: show a bar.

    Raises:
        WildcatError: with the report as its message, if images are bad and on_bad_image is "error", or if no image can
            be used.

    >>> from wildcat.data import open_dataset
    >>> usable, report = check_dataset(open_dataset("synthetic:count=40,size=64", "train"))
    >>> print(report)
    synthetic:count=40,size=64 train: 40 images checked, all good
    """
    check_choice(on_bad_image, ("error", "skip", "partial"), "on_bad_image")
    problems = map_in_threads(
        lambda sample: _problem(sample.path, decode), dataset.samples, "checking images", progress
    )
    cut = []
    if on_bad_image == "partial":
        for index, sample in enumerate(dataset.samples):
            if problems[index] and _problem(sample.path, decode, partial=True) is None:
                problems[index] = None
                cut.append(sample.name)
    named = list(zip((sample.name for sample in dataset.samples), problems, strict=True))
    usable, seen = [], set()
    for index, (name, problem) in enumerate(named):
        if problem is None and name not in seen:
            usable.append(index)
            seen.add(name)
    part = dataset.subset(usable)
    part.partial = on_bad_image == "partial"
    positives, difficult = ((part.labels == value).any(axis=0) for value in (1, 0))
    sizes = map_in_threads(lambda index: size_difference(part, index), range(len(part)), "checking sizes", progress)
    report = CheckReport(
        data=f"{dataset.spec} {dataset.split}",
        images=len(dataset),
        missing=tuple(name for name, problem in named if problem == ""),
        cut=tuple(cut),
        only_difficult=tuple(
            c
            for c, any_image, any_difficult in zip(dataset.classes, positives, difficult, strict=True)
            if any_difficult and not any_image and not dataset.zeros_unknown
        ),
        other_sizes=tuple(
            (sample.name, reason) for sample, reason in zip(part.samples, sizes, strict=True) if reason is not None
        ),
        unreadable=tuple((name, problem) for name, problem in named if problem),
        duplicate_names=tuple(name for name, count in Counter(name for name, _ in named).items() if count > 1),
        classes_without_positives=tuple(
            c for c, any_image in zip(dataset.classes, positives, strict=True) if not any_image
        ),
    )
    if not usable or (report.has_bad_images and on_bad_image != "skip"):
        hint = "repair or remove them, or skip them with --on-bad-image skip" if usable else "no image can be used"
        if on_bad_image == "error" and any("truncated" in problem for problem in problems if problem):
            hint += "; --on-bad-image partial reads JPEGs that were cut as far as they go"
        if len(report.missing) == len(dataset) and dataset.spec.startswith("tags:"):
            hint += "; names are relative to the folder of the CSV, or to images=DIR behind its name"
        raise WildcatError(f"{report}\n  {hint}")
    return part, report
