"""One report on a dataset before hours are spent on it: what is missing, broken, doubled or cannot be learnt."""

from __future__ import annotations

import hashlib
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from wildcat.data.images import image_size, load_image
from wildcat.data.sample import Dataset, Sample
from wildcat.errors import WildcatError, check_choice

_SHOWN = 5  # names of each kind in the printed report
_LONGEST_SHOWN = 300  # characters of a name and what is said of it; longer ones are cut, line ends are escaped
_FEW_CLASSES = 8  # each is named
_WORKERS = 4  # Pillow releases the lock while it decodes; more do not help on small machines

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class CheckReport:
    """What `check_dataset` found. `str(report)` is for people: counts and the first names.

    Attributes:
        data: the dataset in one line.
        images: how many samples were checked.
        missing: names of samples whose file is not there.
        unreadable: (name, reason) of samples whose file cannot be read.
        duplicate_names: names that stand in the list more than once.
        classes_without_positives: no good sample has them: they cannot be learnt, and have no average precision.
    """

    data: str
    images: int
    missing: tuple[str, ...] = ()
    unreadable: tuple[tuple[str, str], ...] = ()
    duplicate_names: tuple[str, ...] = ()
    classes_without_positives: tuple[str, ...] = ()

    @property
    def has_bad_images(self) -> bool:
        """Whether samples must be left out, or mended, before the data can be used."""
        return bool(self.missing or self.unreadable or self.duplicate_names)

    def __str__(self) -> str:
        """Return one line per kind of finding."""
        findings = [
            ("file is missing", "files are missing", self.missing),
            ("image cannot be read", "images cannot be read", [f"{n} ({reason})" for n, reason in self.unreadable]),
            ("name is there more than once", "names are there more than once", self.duplicate_names),
            (
                "class has no positive image",
                "classes have no positive image",
                self.classes_without_positives,
            ),
        ]
        lines = [
            f"  {len(names)} {one if len(names) == 1 else several}: {_first(names)}"
            for one, several, names in findings
            if names
        ]
        head = f"{self.data}: {self.images} image{'' if self.images == 1 else 's'} checked"
        return "\n".join([head + ("" if lines else ", all good"), *lines])


def _first(names: Sequence[str]) -> str:
    shown = [
        name if name.isprintable() and len(name) <= _LONGEST_SHOWN else reprlib.repr(name) for name in names[:_SHOWN]
    ]
    return ", ".join(shown) + (", ..." if len(names) > _SHOWN else "")


def _map(function: Callable[[T], R], items: Sequence[T], title: str, progress: bool) -> list[R]:
    from tqdm import tqdm

    with ThreadPoolExecutor(_WORKERS) as pool:
        return list(tqdm(pool.map(function, items), title, len(items), disable=not progress, unit="image", leave=False))


def _problem(path: Path | None, decode: bool) -> str | None:
    """Why a file cannot be used: "" if it is missing, None if it is good."""
    if path is None:
        return None
    try:
        if not path.exists():
            return ""
        if decode:
            load_image(path, draft_size=1)  # all of the file's data, but a JPEG only at 1/8 of its size
        else:
            image_size(path)
    except WildcatError as error:
        return str(error).removeprefix(f"{path}: ")
    except OSError as error:  # a name that no file can have
        return error.strerror
    return None


def _files(samples: Iterable[Sample]) -> list[tuple[Path, str]]:
    return [(sample.path, sample.name) for sample in samples if sample.path is not None and sample.path.is_file()]


def _digest(path: Path) -> bytes:
    return hashlib.blake2b(path.read_bytes()).digest()


def _shared_files(here: Iterable[Sample], held_out: Iterable[Sample], progress: bool) -> tuple[tuple[str, str], ...]:
    """Pairs of names with equal files; only files whose size occurs on both sides are read."""
    sides = [[(path, path.stat().st_size, name) for path, name in _files(samples)] for samples in (here, held_out)]
    sizes = {size for _, size, _ in sides[0]} & {size for _, size, _ in sides[1]}
    ours, theirs = ([(path, name) for path, size, name in side if size in sizes] for side in sides)
    digests = _map(lambda item: _digest(item[0]), ours + theirs, "looking for shared files", progress)
    owner = {digest: name for digest, (_, name) in zip(digests[len(ours) :], theirs, strict=True)}
    return tuple((name, owner[d]) for d, (_, name) in zip(digests, ours, strict=False) if d in owner)


def label_warnings(dataset: Dataset, known: Sequence[str] = ()) -> list[str]:
    """Sentences, with numbers, about labels from which a class cannot be learnt: in no image, or in every one, or
    perhaps one class under two names.

    Args:
        dataset: what is to be trained on.
        known: classes in no image that have been told already.
    """
    positive = (dataset.labels == 1).sum(axis=0)
    folded: dict[str, list[str]] = {}
    for name in dataset.classes:
        folded.setdefault(name.casefold(), []).append(name)
    alike = [" = ".join(names) for names in folded.values() if len(names) > 1]
    absent = [name for name, count in zip(dataset.classes, positive, strict=True) if count == 0 and name not in known]
    everywhere = [name for name, count in zip(dataset.classes, positive, strict=True) if count == len(dataset)]
    total, images = len(dataset.classes), f"the {len(dataset)} training images"
    doubts = []
    if absent:
        doubts.append(
            f"{len(absent)} of {total} classes are in none of {images} and cannot be learnt: {_first(absent)}"
        )
    if everywhere:
        doubts.append(
            f"{len(everywhere)} of {total} classes are in every one of {images}, so that these labels say nothing: "
            f"{_first(everywhere)}"
        )
    if alike:
        doubts.append(f"classes whose names differ in their case alone are different classes: {_first(alike)}")
    return doubts


def counted(dataset: Dataset) -> str:
    """How many images show each class, in a line: each of a few classes, the range of many."""
    positive = (dataset.labels == 1).sum(axis=0).tolist()
    found = sorted(zip(positive, dataset.classes, strict=True), key=lambda pair: -pair[0])
    if len(found) <= _FEW_CLASSES:
        shown = ", ".join(f"{name} {count}" for count, name in found)
    else:
        (most, first), (least, last) = found[0], found[-1]
        shown = f"{first} in most images, {most}, {last} in fewest, {least}"
    return f"{len(dataset)} images of {len(found)} classes: {shown}"


def shared_image_warnings(dataset: Dataset, held_out: Dataset, what: str, *, progress: bool = False) -> list[str]:
    """A sentence, with numbers, about training images that are also among the ``what`` ("validation") ones.

    Those of one split are told by their names, others by equal files.
    """
    if (dataset.spec, dataset.split) == (held_out.spec, held_out.split):
        known = {sample.name for sample in dataset.samples}
        pairs = [(sample.name, sample.name) for sample in held_out.samples if sample.name in known]
    else:
        pairs = list(_shared_files(held_out.samples, dataset.samples, progress))
    if not pairs:
        return []
    names = [ours if ours == theirs else f"{ours} = {theirs}" for ours, theirs in pairs]
    return [
        f"{len(pairs)} of {len(held_out)} {what} images were trained on (equal files), so that scores on them are "
        f"too high: {_first(names)}"
    ]


def check_dataset(
    dataset: Dataset,
    *,
    on_bad_image: str = "error",
    decode: bool = True,
    progress: bool = False,
) -> tuple[Dataset, CheckReport]:
    """Look at every file once, and return the dataset that can be used, with the report.

    Args:
        dataset: what is to be trained on or scored.
        on_bad_image: what to do about missing or unreadable images and repeated names. "error": raise; "skip": leave
            them out (of a repeated name the first stays). Classes without positives are reported only.
        decode: read the images' data, which finds truncated files; without it the headers only,
            about five times faster on images of VOC's size (0.2 against 1.3 ms).
        progress: show a bar.

    Raises:
        WildcatError: with the report as its message: bad images and "error", or no good image at all.
    """
    check_choice(on_bad_image, ("error", "skip"), "on_bad_image")
    problems = _map(lambda sample: _problem(sample.path, decode), dataset.samples, "checking images", progress)
    named = list(zip((sample.name for sample in dataset.samples), problems, strict=True))
    good, seen = [], set()
    for index, (name, problem) in enumerate(named):
        if problem is None and name not in seen:
            good.append(index)
            seen.add(name)
    kept = dataset.subset(good)
    positives = (kept.labels == 1).any(axis=0)
    report = CheckReport(
        data=f"{dataset.spec} {dataset.split}",
        images=len(dataset),
        missing=tuple(name for name, problem in named if problem == ""),
        unreadable=tuple((name, problem) for name, problem in named if problem),
        duplicate_names=tuple(name for name, count in Counter(name for name, _ in named).items() if count > 1),
        classes_without_positives=tuple(c for c, found in zip(dataset.classes, positives, strict=True) if not found),
    )
    if not good or (report.has_bad_images and on_bad_image == "error"):
        hint = "mend or remove them, or skip them with --on-bad-image skip" if good else "no image is good"
        raise WildcatError(f"{report}\n  {hint}")
    return kept, report
