"""The record of the images that a run is trained on, so that a resumed training notices any change.

::

    RUN/training_images.json    name, digest of the labels and digest of the file of each image, in order

It stays in the run directory; a shared model does not contain it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from wildcat.data import Dataset
from wildcat.errors import WildcatError, shorten
from wildcat.system.files import write_json
from wildcat.system.json_object import JsonObject

RECORD = "training_images.json"

_WHOLE = 1 << 20  # files up to so many bytes are read whole
_BLOCKS = 16  # of a larger file, so many blocks are read, evenly spaced from its first to its last byte
_THREADS = 4  # reading and hashing release Python's lock


@dataclass(frozen=True)
class ImageRecord:
    """The images of a dataset, in order.

    Attributes:
        names: of the samples.
        labels: a digest of each image's labels.
        files: a digest of each image's file; "" for an image without one, which is rendered.
    """

    names: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @classmethod
    def of(cls, dataset: Dataset | None) -> ImageRecord:
        """The record of a dataset; an empty one for None. Reads all files.

        Raises:
            WildcatError: for a file that cannot be read.
        """
        if dataset is None:
            return cls()
        with ThreadPoolExecutor(_THREADS) as pool:
            files = tuple(pool.map(file_digest, [sample.path for sample in dataset.samples]))
        labels = tuple(
            hashlib.blake2b(sample.labels.tobytes(), digest_size=4).hexdigest() for sample in dataset.samples
        )
        return cls(tuple(sample.name for sample in dataset.samples), labels, files)

    @classmethod
    def read(cls, values: JsonObject) -> ImageRecord:
        """From a part of training_images.json."""
        record = cls(values.texts("names"), values.texts("labels"), values.texts("files"))
        if not len(record.names) == len(record.labels) == len(record.files):
            raise values.error("files", "as long as names and labels")
        return record

    @property
    def digest(self) -> str:
        """One text for all of it: equal images, names and labels in the same order have the same."""
        rows = zip(self.names, self.labels, self.files, strict=True)
        text = "\n".join(f"{name!a} {labels} {file}" for name, labels, file in rows)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def changes(self, now: ImageRecord) -> str:
        """What differs in a later record, with numbers and the first names; "" if nothing does.

        >>> before = ImageRecord(("a", "b", "c"), ("0", "1", "1"), ("x", "y", "z"))
        >>> before.changes(ImageRecord(("a", "b", "d"), ("1", "1", "1"), ("x", "y", "z")))
        '1 image is gone (c), 1 image is new (d), 1 image has other labels (a)'
        """
        if self == now:
            return ""
        old = dict(zip(self.names, zip(self.labels, self.files, strict=True), strict=True))
        new = dict(zip(now.names, zip(now.labels, now.files, strict=True), strict=True))
        common = [name for name in self.names if name in new]
        findings = [
            ("is gone", "are gone", [name for name in self.names if name not in new]),
            ("is new", "are new", [name for name in now.names if name not in old]),
            ("has other labels", "have other labels", [name for name in common if old[name][0] != new[name][0]]),
            ("has other content", "have other content", [name for name in common if old[name][1] != new[name][1]]),
        ]
        found = [
            f"{len(names)} image{' ' + one if len(names) == 1 else 's ' + many} ({_shown(names)})"
            for one, many, names in findings
            if names
        ]
        return ", ".join(found) or "the images are in another order"


def _shown(names: Sequence[str]) -> str:
    return shorten([name if name.isprintable() else ascii(name) for name in names])


def save_record(folder: Path, training: ImageRecord, validation: ImageRecord) -> None:
    """Write ``training_images.json``."""
    parts = {"training": training, "validation": validation}
    values = {name: {"names": part.names, "labels": part.labels, "files": part.files} for name, part in parts.items()}
    write_json(folder / RECORD, {"format": 1, **values})


def read_record(folder: Path) -> tuple[ImageRecord, ImageRecord] | None:
    """The training and the validation images of a run; None for a run that has no record.

    Raises:
        WildcatError: if the file is damaged.
    """
    if not (folder / RECORD).is_file():
        return None
    values = JsonObject.read(folder / RECORD)
    values.check_format(1)
    return ImageRecord.read(values.child("training")), ImageRecord.read(values.child("validation"))


def file_digest(path: Path | None) -> str:
    """A digest of a file's size and content; of a large file, of blocks of its content. "" for None.

    Raises:
        WildcatError: if it cannot be read.
    """
    if path is None:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            digest.update(f"{size} ".encode())
            if size <= _WHOLE:
                digest.update(stream.read())
            else:
                block = _WHOLE // _BLOCKS
                for number in range(_BLOCKS):
                    stream.seek(number * (size - block) // (_BLOCKS - 1))
                    digest.update(stream.read(block))
    except FileNotFoundError:
        raise WildcatError(f"{path}: no such file") from None
    except OSError as error:
        raise WildcatError(f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest()
