"""The base class of datasets: a list of samples, with access to their images and masks. Free of PyTorch."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from wildcat.data.images import load_image
from wildcat.errors import WildcatError, guess

Self = TypeVar("Self", bound="Dataset")

MAX_COORDINATE = 1e9  # pixels from an image's corner; larger ones lose precision in float32 and in sums


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """Parts of the objects of an image, such as the head and the hands of persons; for measurements alone.

    Attributes:
        boxes: (P, 4) float32, as those of objects.
        kinds: P names: "head", "hand", "hand", ...
        objects: (P,) int64, indices of the objects' boxes in the sample.
    """

    boxes: npt.NDArray[np.float32]
    kinds: tuple[str, ...]
    objects: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One image and its annotations.

    Attributes:
        name: unique in its dataset and split: "000012", "cats/a.jpg".
        path: file of the image; None if it is rendered on demand.
        labels: (C,) int8: 1 present, -1 absent, 0 only difficult objects, or unknown: ignored in scoring.
        boxes: (B, 4) float32 (x1, y1, x2, y2), continuous pixel edges in the image that `Dataset.image` returns;
            None if the image has no boxes annotated.
        box_classes: (B,) int64, indices of classes.
        box_difficult: (B,) bool.
        mask_path: file of the label map: 0 background, 1 ... C classes, 255 void.
        stated_size: (width, height) that the annotations say the image has; None if they do not.
        parts: of the objects, if any are annotated.
    """

    name: str
    path: Path | None
    labels: npt.NDArray[np.int8]
    boxes: npt.NDArray[np.float32] | None = None
    box_classes: npt.NDArray[np.int64] | None = None
    box_difficult: npt.NDArray[np.bool_] | None = None
    mask_path: Path | None = None
    stated_size: tuple[int, int] | None = None
    parts: Parts | None = None


class Dataset:
    """Samples of one split. Subclasses override `image` and `mask` if these are not plain files.

    Args:
        spec: the specification, as given to `open_dataset`: "voc07:data".
        split: "train", "test", ...
        classes: names, in the order of the label columns.
        samples: in the dataset's own order.
        multi_label: False if each image has exactly one class.
        upright: turn images as their EXIF orientation says; False where annotations refer to the pixels as stored.
        zeros_unknown: labels of 0 mean "not annotated", not "only difficult objects": they must never be trained on.
        notes: how the files were read, for the log: sentences.
        warnings: what in the files may be a mistake, or is meant otherwise than it was read: sentences.

    Attributes:
        partial: read JPEGs that were cut as far as they go; :func:`check_dataset` sets it.
        mask_colours: red, green, blue -> label, for masks that are colour images; None where they are not read.

    >>> import numpy as np
    >>> labels = np.array([1, -1], dtype=np.int8)
    >>> dataset = Dataset("mine:x", "train", ["cat", "dog"], [Sample("a", Path("a.jpg"), labels)], multi_label=False)
    >>> dataset, dataset.labels.tolist()
    (Dataset('mine:x', 'train': 1 images, 2 classes), [[1, -1]])
    """

    partial: bool = False
    mask_colours: Mapping[tuple[int, int, int], int] | None = None

    def __init__(
        self,
        spec: str,
        split: str,
        classes: Sequence[str],
        samples: Iterable[Sample],
        *,
        multi_label: bool = True,
        upright: bool = True,
        zeros_unknown: bool = False,
        notes: Sequence[str] = (),
        warnings: Sequence[str] = (),
    ) -> None:
        """Store the samples; no file is read."""
        self.spec = spec
        self.split = split
        self.classes = tuple(classes)
        self.samples = list(samples)
        self.multi_label = multi_label
        self.upright = upright
        self.zeros_unknown = zeros_unknown
        self.notes = tuple(notes)
        self.warnings = tuple(warnings)

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.samples)

    def __repr__(self) -> str:
        """Return one line for logs."""
        return f"{type(self).__name__}({self.spec!r}, {self.split!r}: {len(self)} images, {len(self.classes)} classes)"

    @property
    def labels(self) -> npt.NDArray[np.int8]:
        """(N, C) int8: 1 / 0 / -1, a new array at each call."""
        rows = [sample.labels for sample in self.samples]
        return np.stack(rows) if rows else np.empty((0, len(self.classes)), dtype=np.int8)

    @property
    def has_boxes(self) -> bool:
        """Whether any sample has its boxes annotated (perhaps there are none in its image)."""
        return any(sample.boxes is not None for sample in self.samples)

    @property
    def has_masks(self) -> bool:
        """Whether any sample has a mask."""
        return any(sample.mask_path is not None for sample in self.samples)

    def image(self, index: int, draft_size: int | None = None) -> Image.Image:
        """RGB image; with `draft_size`, a JPEG may be smaller, with both sides >= `draft_size` (see `load_image`).

        Raises:
            WildcatError: if the file is missing or cannot be read; the message names it.
        """
        path = self.samples[index].path
        if path is None:
            raise NotImplementedError(f"{type(self).__name__} has samples without files and must override image()")
        return load_image(path, draft_size=draft_size, upright=self.upright, partial=self.partial)

    def is_crop(self, index: int) -> bool:
        """Whether :meth:`image` is a part of the image in the file."""
        return False

    def has_mask(self, index: int) -> bool:
        """Whether :meth:`mask` gives a mask for an image; nothing is read."""
        return self.samples[index].mask_path is not None

    def mask(self, index: int) -> npt.NDArray[np.uint8] | None:
        """Label map (H, W): 0 background, 1 ... C classes, 255 void; None if the sample has none."""
        path = self.samples[index].mask_path
        return None if path is None else read_mask(path, len(self.classes), self.mask_colours)

    def subset(self: Self, indices: Iterable[int]) -> Self:
        """Return a copy of the dataset with only these samples, in this order."""
        part = copy.copy(self)
        part.samples = [self.samples[index] for index in indices]
        return part


def read_mask(
    path: Path, num_classes: int, colours: Mapping[tuple[int, int, int], int] | None = None
) -> npt.NDArray[np.uint8]:
    """Read a label map from a palette or grey PNG, whose pixel values are the labels.

    Args:
        path: the file.
        num_classes: labels are 0 ... num_classes, and 255.
        colours: red, green, blue -> label; a PNG in colour is read by them.

    Raises:
        WildcatError: for another file, another label, or another colour.
    """
    try:
        with Image.open(path) as image:
            if colours is not None and image.mode in ("RGB", "RGBA"):
                mask: npt.NDArray[Any] = _by_colours(path, np.asarray(image.convert("RGB")), colours)
            elif image.mode not in ("P", "L"):
                raise WildcatError(f"{path}: a mask must be a palette or grey PNG; got one of mode {image.mode}")
            else:
                mask = np.array(image)
    except OSError as error:
        raise WildcatError(f"{path}: the mask cannot be read: {error}") from error
    wrong = mask[(mask > num_classes) & (mask < 255)]
    if wrong.size:
        raise WildcatError(f"{path}: the mask holds {wrong[0]}; allowed are 0 (background), 1...{num_classes} and 255")
    return mask


def _by_colours(
    path: Path, pixels: npt.NDArray[np.uint8], colours: Mapping[tuple[int, int, int], int]
) -> npt.NDArray[np.uint8]:
    """The label of each pixel (H, W, 3) by its colour."""
    keys = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    out = np.empty(keys.shape, np.uint8)
    for key in np.unique(keys).tolist():
        colour = (key >> 16, key >> 8 & 255, key & 255)
        if colour not in colours:
            raise WildcatError(f"{path}: the mask holds the colour {colour}, which is of no class in labelmap.txt")
        out[keys == key] = colours[colour]
    return out


def one_label(index: int, num_classes: int) -> npt.NDArray[np.int8]:
    """Label row of an image with exactly one class."""
    row = np.full(num_classes, -1, dtype=np.int8)
    row[index] = 1
    return row


def require_path(path: Path, what: str) -> None:
    """Raise a WildcatError, which suggests a similar name in the same folder, unless the file or folder exists."""
    if path.exists():
        return
    neighbours = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise WildcatError(f"{path}: not found; {what}{guess(path.name, neighbours, before=str(path.parent / '_')[:-1])}")


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """Names in a random order that depends only on seed and names, not on the given order, platform or version.

    Names of files may hold bytes that are not UTF-8, which Python shows as lone surrogates.
    """
    return sorted(names, key=lambda name: hashlib.blake2b(f"{seed}/{name}".encode(errors="surrogatepass")).digest())
