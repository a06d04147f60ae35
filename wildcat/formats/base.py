"""What all formats share: an image with its mask and regions, names that are safe, files that become whole."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from wildcat.prediction.result import Labels, Prediction, Threshold, class_labels
from wildcat.system.files import remove_leftovers, unfinished

SMALLEST_REGION = 0.001  # of the image's area; smaller parts of a mask are specks and get no box
_LONGEST_NAME = (
    180  # bytes of a file or folder; 255 are allowed, of which numbers, suffixes and temporary names need some
)


@dataclass(frozen=True)
class Region:
    """A connected part of a class's mask (neighbours are the eight around a pixel).

    Attributes:
        label: index of the class.
        box: (x1, y1, x2, y2), pixel edges.
        pixels: (y2 - y1, x2 - x1) bool.
    """

    label: int
    box: tuple[int, int, int, int]
    pixels: npt.NDArray[np.bool_]

    @property
    def area(self) -> int:
        """Pixels of the part."""
        return int(self.pixels.sum())


@dataclass(frozen=True)
class PredictedImage:
    """One predicted image, as formats write it.

    Attributes:
        name: of the image's file with "/", relative to the folder of all images: "a/cat.jpg".
        stem: a safe name without suffix that no other image has: "a/cat".
        prediction: what the model says of it.
        threshold: probability from which a class counts as predicted, for all classes or by class.
        crf: refine masks with the dense CRF.
    """

    name: str
    stem: str
    prediction: Prediction
    threshold: Threshold
    crf: bool

    @property
    def suffix(self) -> str:
        """Of the image's file: ".jpg"."""
        return Path(_safe(self.name)).suffix

    @cached_property
    def present(self) -> list[int]:
        """Indices of the predicted classes, the most probable first; there may be none."""
        return self.prediction.present(self.threshold)

    @cached_property
    def _places(self) -> Labels:
        """(H, W): 0 background, 1 + place in :attr:`present`: unlike class numbers, these always fit in a byte."""
        part = replace(
            self.prediction,
            settings=replace(self.prediction.settings, classes=tuple(map(self.class_of, self.present))),
            class_maps=self.prediction.class_maps[self.present],
            probabilities=self.prediction.probabilities[self.present],
        )
        return part.mask(crf=self.crf, allowed=range(len(self.present)))

    def inside(self, label: int) -> npt.NDArray[np.bool_]:
        """(H, W): the pixels of a predicted class."""
        inside: npt.NDArray[np.bool_] = self._places == 1 + self.present.index(label)
        return inside

    @cached_property
    def mask(self) -> Labels:
        """(H, W): 0 background, 1 + class for the classes that are :attr:`present`; uint16 above 254 classes."""
        return class_labels(self._places, self.present, len(self.prediction.settings.classes))

    @cached_property
    def regions(self) -> list[Region]:
        """The connected parts of the masks, class by class; specks are left out."""
        smallest = SMALLEST_REGION * self._places.size
        return [r for c in self.present for r in _connected(self.inside(c), c) if r.area >= smallest]

    def class_of(self, label: int) -> str:
        """Name of a class."""
        return self.prediction.settings.classes[label]

    def score_of(self, label: int) -> float:
        """Probability of a class, 0 to 1, to six digits."""
        return round(float(self.prediction.probabilities[label]), 6)

    def point_of(self, label: int) -> tuple[float, float]:
        """(x, y) of a class in pixels of the image."""
        x, y = self.prediction.point_array[label]
        return float(x), float(y)


def _connected(inside: npt.NDArray[np.bool_], label: int) -> Iterator[Region]:
    from scipy import ndimage

    numbers, _ = ndimage.label(inside, structure=np.ones((3, 3)))
    for number, (rows, columns) in enumerate(ndimage.find_objects(numbers), start=1):
        box = (columns.start, rows.start, columns.stop, rows.stop)
        yield Region(label, box, numbers[rows, columns] == number)


class Writer(Protocol):
    """One format."""

    def add(self, image: PredictedImage) -> None:
        """Write one image."""

    def finish(self) -> None:
        """All images have come: give files that grew their names."""

    def discard(self) -> None:
        """The run was interrupted: remove what is not whole."""


class Growing:
    """A text file that grows image by image and has its name only when it is whole."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(file.parent.glob(f".{glob.escape(file.name)}.*.tmp"))
        self.file = file
        self._part = unfinished(file)
        # surrogateescape: names of files that are no UTF-8 come back as the bytes they are
        self.stream: IO[str] = self._part.open("w", encoding="utf-8", errors="surrogateescape", newline="\n")

    def finish(self) -> None:
        """Close the file and give it its name."""
        self.stream.flush()
        os.fsync(self.stream.fileno())
        self.stream.close()
        self._part.replace(self.file)

    def take(self, other: Growing) -> None:
        """Append what another file holds so far, and remove that."""
        other.stream.close()
        with other._part.open(encoding="utf-8", errors="surrogateescape", newline="") as source:
            shutil.copyfileobj(source, self.stream)
        other.discard()

    def discard(self) -> None:
        """Remove the file if it is not whole."""
        with contextlib.suppress(OSError):  # closing writes what is left, and the disk may be full
            self.stream.close()
        self._part.unlink(missing_ok=True)


class JsonList:
    """A JSON list in a text stream, an entry per line."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._stream.write("[")
        self._empty = True

    def add(self, value: Any) -> None:
        """Write an entry."""
        self._stream.write(("\n" if self._empty else ",\n") + json.dumps(value))
        self._empty = False

    def end(self) -> None:
        """Close the list."""
        self._stream.write("\n]")


class Names:
    """Gives every image a name of its own, without suffix, that cannot leave the output folder."""

    def __init__(self, root: Path | None) -> None:
        self._root = None if root is None else Path(os.path.abspath(root))  # noqa: PTH100 - symbolic links stay
        self._used: set[str] = set()

    def relative(self, name: str) -> str:
        """The image's name from the root, with "/"; its last part where there is no root or it lies elsewhere."""
        if self._root is not None:
            path = Path(os.path.abspath(name))  # noqa: PTH100
            if path.is_relative_to(self._root):
                return path.relative_to(self._root).as_posix()
        return Path(name).name

    def stem(self, relative: str) -> str:
        """A name for the files of an image: safe, and followed by the first free number if it was given before.

        Names that differ in case only are equal: on many file systems they are.
        """
        *folders, last = relative.split("/")
        safe = "/".join(_safe(part) for part in [*folders, Path(last).stem])
        candidate, number = safe, 1
        while (key := unicodedata.normalize("NFC", candidate).casefold()) in self._used:
            number += 1
            candidate = f"{safe}-{number}"
        self._used.add(key)
        return candidate


def _safe(part: str) -> str:
    """A file or folder name without characters that end lines or paths, and not too long."""
    part = re.sub(r"[\x00-\x1f\x7f\u2028\u2029\\]", "_", part).strip()
    part = part.encode("utf-8", "surrogateescape")[:_LONGEST_NAME].decode("utf-8", "surrogateescape")
    return "_" if part.strip(".") == "" else part


def label_names(classes: Iterable[str]) -> str:
    """What the values of masks mean, a line each from 0, the background."""
    return "".join(" ".join(name.split()) + "\n" for name in ("background", *classes))


def xml_text(text: str) -> str:
    """The text with what XML cannot hold (control characters, halves of characters) replaced by U+FFFD."""
    return re.sub(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
