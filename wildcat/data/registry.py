"""Datasets by a short specification: `open_dataset("voc07:data", "trainval")`.

A specification is `kind:path`, with options behind: `kind:path,key=value,key=value`. Kinds and options:

* `voc07:`, `voc12:` the folder that holds VOCdevkit; splits train, val, trainval, test, and seg-train and so on
* `action12:` the same folder; `mode=crop|whole`, `context=1.5`
* `coco:` the folder that holds annotations; `year=2014|2017`, `empty=keep|drop`
* `mit67:`, `scene15:` the folder that holds the class folders (scene15: `seed=0` for a random split)
* `folder:` a folder per class; `test=0.2`, `seed=0`
* `tags:` a CSV of images and tags; `test=0.2`, `seed=0`, `exclusive=yes|no`
* `synthetic` drawn on demand; `synthetic:count=200,seed=3,size=256`
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from wildcat.data import coco, scenes, tags, voc
from wildcat.data.sample import Dataset
from wildcat.data.synthetic import COUNTS as _SYNTHETIC_SPLITS
from wildcat.data.synthetic import synthetic
from wildcat.errors import WildcatError, check_choice


def _choice(*allowed: str) -> Callable[[str], str]:
    def convert(text: str) -> str:
        if text not in allowed:
            raise ValueError(f"one of {', '.join(allowed)}")
        return text

    return convert


def _yes_no(text: str) -> bool:
    return _choice("yes", "no")(text) == "yes"


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise ValueError("a whole number from 0")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError("a number") from None


@dataclass(frozen=True)
class _Kind:
    """How to open one kind of dataset. `splits` and `download` take those of the options that they name.

    `usual` are the splits to train on and to score that a download gives.
    """

    open: Callable[..., Dataset]
    splits: Callable[..., tuple[str, ...]]
    options: Mapping[str, Callable[[str], Any]] = field(default_factory=dict)
    download: Callable[..., None] | None = None
    split_options: tuple[str, ...] = ()
    has_path: bool = True
    usual: tuple[str, str] = ("", "")
    scored_without_test: bool = False  # the test split has no public labels


def _open_synthetic(spec: str, path: Path, split: str, **options: int) -> Dataset:
    return synthetic(split, **options)


_RANDOM: dict[str, Callable[[str], Any]] = {"test": _number, "seed": _whole}


_KINDS = {
    "voc07": _Kind(
        partial(voc.open_voc, year=2007),
        partial(voc.splits, year=2007),
        download=partial(voc.download, year=2007),
        usual=("trainval", "test"),
    ),
    "voc12": _Kind(
        partial(voc.open_voc, year=2012),
        partial(voc.splits, year=2012),
        download=partial(voc.download, year=2012),
        usual=("train", "val"),
        scored_without_test=True,
    ),
    "action12": _Kind(
        voc.open_action,
        voc.action_splits,
        {"mode": _choice("crop", "whole"), "context": _number},
        download=partial(voc.download, year=2012),
        usual=("train", "val"),
        scored_without_test=True,
    ),
    "coco": _Kind(
        coco.open_coco,
        coco.splits,
        {"year": _choice(*coco.YEARS), "empty": _choice("keep", "drop")},
        download=coco.download,
        usual=("train", "val"),
        split_options=("year",),
    ),
    "mit67": _Kind(scenes.open_mit67, scenes.mit67_splits, download=scenes.download_mit67, usual=("train", "test")),
    "scene15": _Kind(
        scenes.open_scene15,
        scenes.scene15_splits,
        {"seed": _whole},
        download=scenes.download_scene15,
        usual=("train", "test"),
    ),
    "folder": _Kind(tags.open_folder, tags.folder_splits, _RANDOM),
    "tags": _Kind(tags.open_tags, tags.tags_splits, {**_RANDOM, "exclusive": _yes_no}),
    "synthetic": _Kind(
        _open_synthetic,
        lambda path: tuple(_SYNTHETIC_SPLITS),
        {"count": _whole, "seed": _whole, "size": _whole},
        has_path=False,
    ),
}


_OPTION = re.compile(r"(?:^|,)([A-Za-z_]+)=([^,=]*)$")


# Training split, scoring split: the first pair of which a dataset has both.
_PAIRS = (
    ("trainval", "test"),
    ("train", "test"),
    ("train", "val"),
    ("seg-trainval", "seg-test"),
    ("seg-train", "seg-val"),
)


def _parse(spec: str) -> tuple[_Kind, Path, dict[str, Any]]:
    name, _, rest = spec.partition(":")
    if spec and name not in _KINDS and Path(spec).exists():
        guess = "tags" if Path(spec).is_file() else "folder"
        raise WildcatError(f"data {spec!r} has no kind; did you mean '{guess}:{spec}'? Kinds: {', '.join(_KINDS)}")
    check_choice(name, _KINDS, f"data {spec!r}: kind")
    kind = _KINDS[name]
    options: dict[str, Any] = {}
    while match := _OPTION.search(rest):
        key, text = match.groups()
        check_choice(key, kind.options, f"data {spec!r}: option")
        if key in options:
            raise WildcatError(f"data {spec!r}: option {key!r} is given twice")
        try:
            options[key] = kind.options[key](text)
        except ValueError as error:
            raise WildcatError(f"data {spec!r}: option {key}={text} is not allowed; it is {error}") from None
        rest = rest[: match.start()]
    if kind.has_path and not rest:
        raise WildcatError(f"data {spec!r}: the path is missing; write {name}:PATH")
    if rest and not kind.has_path:
        raise WildcatError(f"data {spec!r}: {rest!r} is no option; write {name}:key=value,key=value")
    return kind, Path(rest).expanduser(), options


def _some(kind: _Kind, options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key in kind.split_options}


def open_dataset(spec: str, split: str) -> Dataset:
    """Open one split of a dataset; annotations are read, images are not.

    Args:
        spec: `kind:path` with options, as the module's head lists them.
        split: one of `available_splits(spec)`.

    Raises:
        WildcatError: an unknown kind, option or split, a missing path, a broken annotation: the message says what is
            wrong, where, and what is allowed.
    """
    kind, path, options = _parse(spec)
    return kind.open(spec, path, split, **options)


def download_dataset(spec: str) -> None:
    """Fetch what is not there yet of the splits that are usually trained on and scored. Nothing else ever fetches data.

    Raises:
        WildcatError: for a kind that cannot be fetched, without network, or for a wrong checksum.
    """
    kind, path, options = _parse(spec)
    if kind.download is None:
        can = ", ".join(name for name, other in _KINDS.items() if other.download)
        raise WildcatError(f"data {spec!r} cannot be downloaded; those that can: {can}")
    for split in kind.usual:
        if not _is_there(kind, path, split, options):
            try:
                kind.download(path, split=split, **_some(kind, options))
            except (OSError, RuntimeError) as error:
                raise WildcatError(f"data {spec!r}: the download failed: {error}") from error


def _is_there(kind: _Kind, path: Path, split: str, options: dict[str, Any]) -> bool:
    try:
        return split in kind.splits(path, **_some(kind, options))
    except WildcatError:
        return False


def available_splits(spec: str) -> tuple[str, ...]:
    """Return the splits that the dataset at hand has."""
    kind, path, options = _parse(spec)
    return kind.splits(path, **_some(kind, options))


def default_splits(spec: str) -> tuple[str, str]:
    """Return (training split, scoring split) where the user names none.

    VOC 2007: trainval, test. VOC 2012, whose test labels are not public: train, val. COCO: train, val. Others: train,
    and test or else val.
    """
    kind, _, _ = _parse(spec)
    there = available_splits(spec)
    for train, score in _PAIRS:
        if train in there and score in there and not (kind.scored_without_test and score.endswith("test")):
            return train, score
    raise WildcatError(f"data {spec!r} has the splits {', '.join(there)}: name the ones to train on and to score")


def without_path(spec: str) -> str:
    """The specification as others may see it: of the path its last part alone.

    >>> without_path("voc07:/home/me/data"), without_path("synthetic:count=24")
    ('voc07:data', 'synthetic:count=24')
    """
    kind, colon, path = spec.partition(":")
    return f"{kind}:{path.rstrip('/').rpartition('/')[2]}" if colon and "/" in path else spec
