"""Datasets by a short specification: ``open_dataset("voc07:data", "trainval")``; a registry for further kinds.

A specification is ``kind:path``, with options behind: ``kind:path,key=value,key=value``. Kinds and options:

* ``voc07:``, ``voc12:`` the folder that holds VOCdevkit; splits train, val, trainval, test, and seg-train and so on;
  ``test=0.2``, ``seed=0`` where its lists have other names
* ``action12:`` the same folder; ``mode=crop|whole``, ``context=1.5``
* ``coco:`` the folder that holds annotations, or a JSON; ``year=2014|2017``, ``images=DIR``, ``empty=keep|drop``,
  ``crowds=difficult|objects``, ``unlisted=error|drop``, ``upright=yes|no``, ``test=0.2``, ``seed=0``
* ``mit67:``, ``scene15:`` the folder that holds the class folders (scene15: ``seed=0`` for a random split)
* ``folder:`` a folder per class; ``test=0.2``, ``seed=0``, ``splits=yes|no`` whether the top folders are splits
* ``tags:`` a CSV (or JSON lines, or Parquet) of images and tags; ``test=0.2``, ``seed=0``, ``exclusive=yes|no``,
  ``sep=comma|space|pipe|...|none``,
  ``image_column=NAME``, ``label_column=NAME+NAME``, ``split_column=NAME``, ``images=DIR``, ``balanced=yes|no``,
  ``class_list=FILE``, ``empty=keep|drop``, ``blank=absent|unknown``, ``threshold=P``
* ``hf:`` a folder of images with metadata.csv, .jsonl or .parquet, or Parquet tables, as Hugging Face datasets has
  them; the options of ``tags:``, and ``boxes=xywh|xyxy``
* ``labelstudio:`` an export of Label Studio as JSON or JSON_MIN; the options of all tools, which are ``images=DIR``,
  ``class_list=FILE``, ``exclusive=yes|no``, ``empty=keep|drop``, ``test=0.2``, ``seed=0``; and
  ``annotations=latest|union|agreed``, ``predictions=yes|no``, ``controls=NAME+NAME``, ``image_column=KEY``
* ``cvat:`` the annotations.xml of CVAT, or its folder; the options of all tools
* ``yolo:`` a data.yaml of YOLO, or its folder; the options of all tools
* ``voc:`` own images in the layouts of VOC, or beside XML files; ``images=DIR``, ``class_list=FILE``, ``test=0.2``,
  ``seed=0``
* ``masks:`` a folder with images and label maps; ``images=DIR``, ``class_list=FILE``, ``test=0.2``, ``seed=0``
* ``synthetic`` rendered on demand; ``synthetic:count=200,seed=3,size=256``

:func:`register_dataset` adds a kind.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from wildcat.data import coco, cvat, folders, hugging_face, label_studio, mask_folder, scenes, tags, voc, voc_own, yolo
from wildcat.data.coco_layouts import YEARS
from wildcat.data.likely_kind import likely_kind
from wildcat.data.options import Converter, choice, number, whole_number, yes_no
from wildcat.data.sample import Dataset
from wildcat.data.synthetic import COUNTS as _SYNTHETIC_SPLITS
from wildcat.data.synthetic import synthetic
from wildcat.data.tag_cells import separator
from wildcat.errors import WildcatError, check_choice, check_new_name


@dataclass(frozen=True)
class _Kind:
    """What :func:`register_dataset` was given for a kind."""

    open: Callable[..., Dataset]
    splits: Callable[..., tuple[str, ...]]
    options: Mapping[str, Converter]
    download: Callable[..., None] | None
    downloaded: tuple[str, ...]
    has_path: bool
    test_is_unlabelled: bool


@dataclass(frozen=True)
class _Specification:
    """A specification in its parts."""

    kind: _Kind
    path: Path
    options: dict[str, Any]

    def splits(self) -> tuple[str, ...]:
        return self.kind.splits(self.path, **self._options_of(self.kind.splits))

    def has(self, split: str) -> bool:
        try:
            return split in self.splits()
        except WildcatError:
            return False

    def download(self, split: str) -> None:
        if self.kind.download is not None:
            self.kind.download(self.path, split=split, **self._options_of(self.kind.download))

    def _options_of(self, function: Callable[..., object]) -> dict[str, Any]:
        """The options that a function takes."""
        parameters = inspect.signature(function).parameters
        return {key: value for key, value in self.options.items() if key in parameters}


_KINDS: dict[str, _Kind] = {}
_BUILT_IN: set[str] = set()  # those that come with the package

_OPTION = re.compile(r"(?:^|,)([A-Za-z_]+)=([^,=]*)$")

# (training split, scoring split): the first pair of which a dataset has both.
_DEFAULT_SPLITS = (
    ("trainval", "test"),
    ("train", "test"),
    ("train", "val"),
    ("seg-trainval", "seg-test"),
    ("seg-train", "seg-val"),
)


def register_dataset(
    kind: str,
    open: Callable[..., Dataset],  # noqa: A002 - what it does
    splits: Callable[..., tuple[str, ...]],
    *,
    options: Mapping[str, Converter] | None = None,
    download: Callable[..., None] | None = None,
    downloaded: tuple[str, ...] = (),
    has_path: bool = True,
    test_is_unlabelled: bool = False,
) -> None:
    """Make datasets of your own known by a kind, for :func:`open_dataset`, ``TrainConfig(data="kind:path")`` and so on.

    Register it in every process that trains on such a dataset or scores it, before it does. Registering a kind once
    more replaces it.

    Args:
        kind: letters, digits, "-" and "_"; not a kind of the package.
        open: called as ``open(spec, path, split, **options)`` with the specification as given, its path and a split;
            returns a :class:`Dataset` of that split. It raises :class:`wildcat.WildcatError` for what a user can mend.
        splits: called as ``splits(path)``, and with those options that it has parameters for; returns the names of
            the splits that are there. "train" and "test" (or "val") are trained on and scored by default.
        options: name -> function that converts the option's text to its value, or raises ValueError with what is
            allowed as its message; :mod:`wildcat.data.options` has some.
        download: called as ``download(path, split=split)``, and with those options that it has parameters for.
        downloaded: the splits that :func:`download_dataset` fetches.
        has_path: False for data without files: the specification is then ``kind`` or ``kind:key=value``.
        test_is_unlabelled: never score the test split by default, because its labels are not public.

    Raises:
        ValueError: if the kind belongs to the package or holds other characters.

    >>> import numpy as np
    >>> from wildcat.data import Dataset, Sample, open_dataset, register_dataset
    >>> def open_by_name(spec, path, split, *, suffix=".jpg"):
    ...     # images below path/split; the class is the file name up to the first "_"
    ...     files = sorted((path / split).glob(f"*{suffix}"))
    ...     names = [file.name.partition("_")[0] for file in files]
    ...     classes = sorted(set(names))
    ...     labels = np.where(np.array(names)[:, None] == classes, 1, -1).astype(np.int8)
    ...     samples = [Sample(file.name, file, row) for file, row in zip(files, labels)]
    ...     return Dataset(spec, split, classes, samples, multi_label=False)
    >>> register_dataset(
    ...     "by-name", open_by_name, lambda path: ("train", "test"), options={"suffix": str}
    ... )  # doctest: +SKIP
    >>> open_dataset("by-name:my_images,suffix=.png", "train")  # doctest: +SKIP
    Dataset('by-name:my_images,suffix=.png', 'train': 120 images, 3 classes)
    """
    check_new_name(kind, "dataset kind", _BUILT_IN)
    _KINDS[kind] = _Kind(open, splits, dict(options or {}), download, downloaded, has_path, test_is_unlabelled)


def _parts_of(spec: str) -> tuple[str, str, list[tuple[str, str]]]:
    """(kind, path, options as they are written) of a specification; nothing is checked."""
    kind, _, rest = spec.partition(":")
    options = []
    while match := _OPTION.search(rest):
        options.append((match[1], match[2]))
        rest = rest[: match.start()]
    return kind, rest, options[::-1]


def _joined(kind: str, path: str, options: Iterable[tuple[str, str]]) -> str:
    """The specification of these parts."""
    rest = ",".join([*filter(None, [path]), *(f"{key}={text}" for key, text in options)])
    return f"{kind}:{rest}" if rest else kind


def _specification(spec: str) -> _Specification:
    """Take a specification apart and check it."""
    name, path, written = _parts_of(spec)
    if spec and name not in _KINDS and Path(spec).exists():
        meant = likely_kind(Path(spec))
        raise WildcatError(f"data {spec!r} has no kind; did you mean '{meant}:{spec}'? Kinds: {', '.join(_KINDS)}")
    check_choice(name, _KINDS, f"data {spec!r}: kind")
    kind = _KINDS[name]
    options: dict[str, Any] = {}
    for key, text in written:
        check_choice(key, kind.options, f"data {spec!r}: option")
        if key in options:
            raise WildcatError(f"data {spec!r}: option {key!r} is given twice")
        try:
            options[key] = kind.options[key](text)
        except ValueError as error:
            raise WildcatError(f"data {spec!r}: option {key}={text} is not allowed; it must be {error}") from None
    if kind.has_path and not path:
        raise WildcatError(f"data {spec!r}: the path is missing; write {name}:PATH")
    if name in _BUILT_IN and path.lower().endswith(".zip") and Path(path).is_file():
        raise WildcatError(f"data {spec!r}: {path} is a ZIP archive; unpack it, and give the folder or a file of it")
    if path and not kind.has_path:
        raise WildcatError(f"data {spec!r}: {path!r} is not an option; write {name}:key=value,key=value")
    return _Specification(kind, Path(path).expanduser(), options)


def open_dataset(spec: str, split: str) -> Dataset:
    """Open one split of a dataset: read its annotations, but no image.

    Args:
        spec: ``kind:path`` with options, as the module's head lists them, or of a kind that was registered.
        split: one of ``available_splits(spec)``.

    Raises:
        WildcatError: for an unknown kind, option or split, a missing path, a damaged annotation; the message says
            what is wrong, where, and what is allowed.

    >>> dataset = open_dataset("synthetic:count=8,size=64", "train")
    >>> len(dataset), dataset.classes[:2], dataset.image(0).size
    (8, ('fish', 'house'), (64, 64))
    """
    parts = _specification(spec)
    return parts.kind.open(spec, parts.path, split, **parts.options)


def download_dataset(spec: str) -> None:
    """Download the splits that are trained on and scored by default, unless they are there already.

    Nothing else in the package downloads datasets.

    Raises:
        WildcatError: for a kind that cannot be downloaded, without network, or for a wrong checksum.

    >>> download_dataset("voc07:data")  # doctest: +SKIP
    """
    parts = _specification(spec)
    if parts.kind.download is None:
        able = ", ".join(name for name, other in _KINDS.items() if other.download)
        raise WildcatError(f"data {spec!r} cannot be downloaded; kinds that can: {able}")
    for split in parts.kind.downloaded:
        if not parts.has(split):
            try:
                parts.download(split)
            except (OSError, RuntimeError) as error:
                raise WildcatError(f"data {spec!r}: the download failed: {error}") from error


def available_splits(spec: str) -> tuple[str, ...]:
    """The splits that a dataset has on this disk.

    >>> available_splits("synthetic")
    ('train', 'val', 'test')
    """
    return _specification(spec).splits()


def default_splits(spec: str) -> tuple[str, str]:
    """The splits to train on and to score unless the user names them.

    VOC 2007: trainval, test. VOC 2012, whose test labels are not public: train, val. COCO: train, val. Others: train,
    and test or else val.

    Raises:
        WildcatError: if the dataset has no such pair.

    >>> default_splits("synthetic")
    ('train', 'test')
    """
    parts = _specification(spec)
    available = parts.splits()
    for train, score in _DEFAULT_SPLITS:
        unlabelled = parts.kind.test_is_unlabelled and score.endswith("test")
        if train in available and score in available and not unlabelled:
            return train, score
    if available == ("train",):
        own = "; a share is held out if its folder alone is given" if spec.startswith("folder:") else ""
        raise WildcatError(f"data {spec!r} has one split, train: --train-split train trains on all of it{own}")
    raise WildcatError(f"data {spec!r} has the splits {', '.join(available)}: name those to train on and to score")


def path_of(spec: str) -> Path | None:
    """The path of a specification; None for data without files.

    >>> path_of("tags:my/images.csv,exclusive=yes").as_posix(), path_of("synthetic:count=24")
    ('my/images.csv', None)
    """
    parts = _specification(spec)
    return parts.path if parts.kind.has_path else None


def options_of(spec: str) -> dict[str, str]:
    """The options at the end of a specification, as they are written.

    >>> options_of("tags:my/images.csv,exclusive=yes,test=0.3"), options_of("voc07:data")
    ({'exclusive': 'yes', 'test': '0.3'}, {})
    """
    return dict(_parts_of(spec)[2])


def with_options(spec: str, options: Mapping[str, str]) -> str:
    """The same dataset with other options than those of its specification.

    >>> with_options("folder:my_images,seed=3", {"test": "0.3"})
    'folder:my_images,test=0.3'
    >>> with_options("synthetic:count=24", {"size": "64"})
    'synthetic:size=64'
    """
    kind, path, _ = _parts_of(spec)
    return _joined(kind, path, options.items())


def without_path(spec: str) -> str:
    """The specification with only the last part of its path, for files that are given to others.

    >>> without_path("voc07:/home/me/data"), without_path("synthetic:count=24")
    ('voc07:data', 'synthetic:count=24')
    >>> without_path("coco:/home/me/a.json,images=/home/me/photos,seed=1")
    'coco:a.json,images=photos,seed=1'
    """
    kind, path, options = _parts_of(spec)
    return _joined(kind, _last_part(path), ((key, _last_part(text)) for key, text in options))


def _last_part(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


# The kinds that come with the package


def _open_synthetic(spec: str, path: Path, split: str, **options: int) -> Dataset:
    return synthetic(split, **options)


def _synthetic_splits(path: Path) -> tuple[str, ...]:
    return tuple(_SYNTHETIC_SPLITS)


_RANDOM_SPLIT: dict[str, Converter] = {"test": number, "seed": whole_number}

register_dataset(
    "voc07",
    partial(voc.open_voc, year=2007),
    partial(voc.splits, year=2007),
    options=_RANDOM_SPLIT,
    download=partial(voc.download, year=2007),
    downloaded=("trainval", "test"),
)
register_dataset(
    "voc12",
    partial(voc.open_voc, year=2012),
    partial(voc.splits, year=2012),
    options=_RANDOM_SPLIT,
    download=partial(voc.download, year=2012),
    downloaded=("train", "val"),
    test_is_unlabelled=True,
)
register_dataset(
    "action12",
    voc.open_action,
    voc.action_splits,
    options={"mode": choice("crop", "whole"), "context": number},
    download=partial(voc.download, year=2012),
    downloaded=("train", "val"),
    test_is_unlabelled=True,
)
register_dataset(
    "coco",
    coco.open_coco,
    coco.splits,
    options={
        **_RANDOM_SPLIT,
        "year": choice(*YEARS),
        "images": str,
        "empty": choice("keep", "drop"),
        "crowds": choice("difficult", "objects"),
        "unlisted": choice("error", "drop"),
        "upright": yes_no,
    },
    download=coco.download,
    downloaded=("train", "val"),
)
register_dataset(
    "mit67", scenes.open_mit67, scenes.mit67_splits, download=scenes.download_mit67, downloaded=("train", "test")
)
register_dataset(
    "scene15",
    scenes.open_scene15,
    scenes.scene15_splits,
    options={"seed": whole_number},
    download=scenes.download_scene15,
    downloaded=("train", "test"),
)
register_dataset("folder", folders.open_folder, folders.folder_splits, options={**_RANDOM_SPLIT, "splits": yes_no})
_OF_TABLES: dict[str, Converter] = {
    **_RANDOM_SPLIT,
    "exclusive": yes_no,
    "balanced": yes_no,
    "sep": separator,
    "empty": choice("keep", "drop"),
    "blank": choice("absent", "unknown"),
    "threshold": number,
    **dict.fromkeys(["image_column", "label_column", "split_column", "images", "class_list"], str),
}
register_dataset(
    "tags",
    tags.open_tags,
    tags.tags_splits,
    options=_OF_TABLES,
)
register_dataset(
    "hf", hugging_face.open_hf, hugging_face.hf_splits, options={**_OF_TABLES, "boxes": choice("xywh", "xyxy")}
)
_OF_TOOLS: dict[str, Converter] = {
    **_RANDOM_SPLIT,
    "images": str,
    "class_list": str,
    "exclusive": yes_no,
    "empty": choice("keep", "drop"),
}
register_dataset(
    "labelstudio",
    label_studio.open_label_studio,
    label_studio.label_studio_splits,
    options={
        **_OF_TOOLS,
        "annotations": choice(*label_studio.SEVERAL),
        "predictions": yes_no,
        "controls": str,
        "image_column": str,
    },
)
register_dataset("cvat", cvat.open_cvat, cvat.cvat_splits, options=_OF_TOOLS)
register_dataset("yolo", yolo.open_yolo, yolo.yolo_splits, options=_OF_TOOLS)
register_dataset(
    "masks",
    mask_folder.open_masks,
    mask_folder.masks_splits,
    options={**_RANDOM_SPLIT, "images": str, "class_list": str},
)
register_dataset(
    "voc", voc_own.open_own, voc_own.own_splits, options={**_RANDOM_SPLIT, "images": str, "class_list": str}
)
register_dataset(
    "synthetic",
    _open_synthetic,
    _synthetic_splits,
    options={"count": whole_number, "seed": whole_number, "size": whole_number},
    has_path=False,
)
_BUILT_IN.update(_KINDS)
