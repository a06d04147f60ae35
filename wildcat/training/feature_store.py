"""Features of images under a frozen backbone, computed once and kept in files that runs share.

::

    CACHE/features/lite0-448px-bf16-DIGEST/about.json      shape of an image's features
    CACHE/features/lite0-448px-bf16-DIGEST/image.index     the features of images: see system/array_file.py
    CACHE/features/lite0-448px-bf16-DIGEST/image.values
    CACHE/features/lite0-448px-bf16-DIGEST/mirror.index    likewise of mirror images, and of random crops
    ...

The folder belongs to one backbone: its digest is of weights, structure, normalization, size and package version. Images
are known by their content, so runs on other selections of the same images share their features.
"""

import copy
import hashlib
import logging
import math
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from wildcat._version import __version__
from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.data.checks import map_in_threads
from wildcat.data.transforms import View, random_view
from wildcat.errors import WildcatError, first_line
from wildcat.export.open import model_fingerprint
from wildcat.model import Wildcat
from wildcat.prediction.exported import user_cache
from wildcat.runs.image_record import file_digest
from wildcat.system.array_file import KEY_BYTES, Append, ArrayFile
from wildcat.system.files import read_json, write_json
from wildcat.system.lock import FolderLock
from wildcat.training.data import end_workers
from wildcat.training.feature_network import feature_network
from wildcat.training.signals import delay_termination

logger = logging.getLogger(__name__)

FORMAT = 1
ABOUT = "about.json"
WHOLE, MIRRORED = 0, 1  # numbers of views; further ones are random crops
_BATCH = 16  # images that are computed together, at most
_WAIT_SECONDS = 0.5  # between two looks at a lock

_computing = threading.Lock()  # a lock of the system does not hold between threads of one process


class FeatureStore:
    """The features of a dataset's images, by their numbers in the dataset; :func:`open_feature_store` makes one.

    Args:
        dataset: N images.
        model: its backbone computes the features; left in evaluation mode.
        config: ``image_size``, ``feature_views``, ``crop_area``, ``precision``, ``cache_dir``, ``cache_dir_gb``,
            ``workers`` and ``stall_minutes`` are used. Features are kept in bf16, half of the disk space, except with
            the precision "fp32".
        size: side of the images in pixels; ``image_size`` unless given.
        views: number of views of each image; ``feature_views`` unless given.

    Attributes:
        shape: (images, views, channels, h, w).
        size: side of the images in pixels.
        missing: how many views of images are not computed yet.

    Raises:
        WildcatError: if an image or a file of the cache cannot be read.
    """

    def __init__(
        self, dataset: Dataset, model: Wildcat, config: TrainConfig, size: int | None = None, views: int | None = None
    ) -> None:
        self._dataset, self._model, self._config = dataset, model, config
        self.size = config.image_size if size is None else size
        self._bf16 = config.precision != "fp32"
        count = config.feature_views if views is None else views
        self._folder = cache_folder(config) / self._name()
        features = self._shape_of_an_image()
        self.shape = (len(dataset), count, *features)
        kind = np.dtype(np.uint16 if self._bf16 else np.float32)
        names = [_view_name(view, config.crop_area) for view in range(count)]
        self._files = [ArrayFile(self._folder / name, features, kind) for name in names]
        self._keys = image_keys(dataset)
        self._intact: list[dict[int, bool]] = [{} for _ in names]
        self._find_rows()

    @property
    def missing(self) -> int:
        """How many views of images are not computed yet; equal images count once."""
        return sum(len(views) for _, views in self._todo())

    def read(self, images: Sequence[int] | npt.NDArray[np.int64], view: int = WHOLE) -> Tensor:
        """Features (n, channels, h, w), float32, of n images by their numbers in the dataset.

        Args:
            images: their numbers, from 0.
            view: 0 is the image, 1 its mirror image, further ones are random crops.

        Raises:
            WildcatError: if they are not computed yet.
        """
        rows = self._rows[view][np.asarray(images, np.int64)]
        if (rows < 0).any():
            raise WildcatError(f"{(rows < 0).sum()} of {len(rows)} images have no features in {self._folder} yet")
        found = torch.from_numpy(self._files[view].read(rows))
        return found.view(torch.bfloat16).float() if self._bf16 else found

    def average(self) -> Tensor:
        """Features (images, channels) of the whole images, averaged over positions."""
        images = range(self.shape[0])
        return torch.cat([self.read(images[start : start + _BATCH]).mean(dim=(2, 3)) for start in images[::_BATCH]])

    def subset(self, images: Sequence[int]) -> "FeatureStore":
        """The features of some images, in this order, as of :meth:`wildcat.data.Dataset.subset`."""
        part = copy.copy(self)
        part._dataset = self._dataset.subset(images)
        part._keys = [self._keys[image] for image in images]
        part._rows = [rows[list(images)] for rows in self._rows]
        part.shape = (len(part._keys), *self.shape[1:])
        return part

    def compute(self, progress: Callable[[int], object] = lambda views: None) -> None:
        """Compute what is missing; a second process that wants to write in the same folder waits.

        What was computed is kept if this is interrupted or killed.

        Args:
            progress: called with the number of views that were computed.

        Raises:
            WildcatError: if there is too little room (the settings ``cache_dir_gb``, or the disk), a file cannot be
                written, or an image cannot be read.
        """
        if not self.missing:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WildcatError(f"cache_dir: {self._folder} cannot be made: {error.strerror}") from error
        with ExitStack() as stack:
            stack.enter_context(_computing)
            stack.enter_context(FolderLock(self._folder, wait=_Waiting()))
            before = self.missing
            for file in self._files:
                file.load()
            self._find_rows()
            progress(before - self.missing)  # another process has computed them
            todo = self._todo()
            if not todo:
                return
            self._check_room()
            if not (self._folder / ABOUT).exists():
                write_json(self._folder / ABOUT, {"format": FORMAT, "shape": list(self.shape[2:])})
            network = feature_network(self._model, self.size, self.missing, exact=not self._bf16)
            appends: list[Append] = [stack.enter_context(file.writer()) for file in self._files]
            for batch, pixels in self._batches(todo):
                features = network(pixels.permute(0, 3, 1, 2))
                stored = _as_bf16(features) if self._bf16 else features.numpy()
                rows = [(image, view) for image, views in batch for view in views]
                for row, (image, view) in enumerate(rows):
                    appends[view]([self._keys[image]], stored[row : row + 1])
                progress(len(rows))
        self._find_rows()

    def _find_rows(self) -> None:
        """Find the rows of the images in the files; arrays that are damaged count as missing."""
        self._rows: list[npt.NDArray[np.int64]] = []
        damaged = 0
        for file, intact in zip(self._files, self._intact, strict=True):
            found = file.rows(self._keys)
            unknown = sorted({int(row) for row in found if row >= 0} - set(intact))
            intact |= dict(zip(unknown, file.intact(unknown).tolist(), strict=True))
            damaged += sum(not intact[row] for row in unknown)
            self._rows.append(np.array([row if intact.get(int(row), False) else -1 for row in found], np.int64))
        if damaged:
            logger.warning("features of %d images in %s are damaged and are computed again", damaged, self._folder)

    def _todo(self) -> list[tuple[int, list[int]]]:
        """Images with the views that are missing, one image of those that are equal."""
        first = {key: image for image, key in reversed(list(enumerate(self._keys)))}
        lacking = np.stack(self._rows) < 0  # (views, images)
        wanted = [(image, np.flatnonzero(lacking[:, image]).tolist()) for image in first.values()]
        return sorted((image, views) for image, views in wanted if views)

    def _batches(self, todo: list[tuple[int, list[int]]]) -> Iterator[tuple[list[tuple[int, list[int]]], Tensor]]:
        """Images with views, and the pixels (n, size, size, 3), uint8, of these views."""
        config = self._config
        step = max(1, _BATCH // self.shape[1])
        parts = [todo[start : start + step] for start in range(0, len(todo), step)]
        workers = min(config.workers or 0, len(parts))
        loader = iter(
            DataLoader(
                _ViewPixels(self._dataset, self._keys, self.size, config.crop_area),
                batch_sampler=parts,
                collate_fn=torch.cat,
                num_workers=workers,
                timeout=60 * config.stall_minutes if workers else 0,
                worker_init_fn=delay_termination,
            )
        )
        try:
            yield from zip(parts, loader, strict=True)
        finally:
            end_workers(loader)

    def _check_room(self) -> None:
        """Check that the limit of the cache and the disk leave room for what is missing."""
        needed = self.missing * int(np.prod(self.shape[2:])) * (2 if self._bf16 else 4)
        used = sum(file.stat().st_size for file in self._folder.parent.rglob("*.values"))
        what = f"the features of {self.missing:,} images need {needed / 1e9:.2g} GB"
        if used + needed > self._config.cache_dir_gb * 1e9:
            raise WildcatError(
                f"{what} in {self._folder.parent}, which holds {used / 1e9:.2g} GB and may hold "
                f"{self._config.cache_dir_gb:g}: raise cache_dir_gb, delete folders there, or lower image_size"
            )
        free = shutil.disk_usage(self._folder).free
        if needed > free:
            raise WildcatError(
                f"{what} in {self._folder.parent}, where {free / 1e9:.2g} GB are free: free some, give another "
                "cache_dir, or lower image_size"
            )

    def _name(self) -> str:
        """The name of the folder, with a digest of everything that the features depend on beside the images."""
        backbone = self._model.backbone
        text = f"{FORMAT} {__version__} {backbone.name} {backbone.mean} {backbone.std} {model_fingerprint(backbone)}"
        digest = hashlib.blake2b(f"{text} {self.size}".encode(), digest_size=8).hexdigest()
        readable = re.sub(r"[^\w.-]+", "-", backbone.name)[:60]
        return f"{readable}-{self.size}px-{'bf16' if self._bf16 else 'fp32'}-{digest}"

    def _shape_of_an_image(self) -> tuple[int, int, int]:
        """(channels, h, w), from the folder or from a forward pass of an empty image.

        Raises:
            WildcatError: if the backbone does not take images of this size, or about.json is damaged.
        """
        about = self._folder / ABOUT
        if about.exists():
            values = read_json(about)
            shape: Any = values.get("shape")
            known = values.get("format") == FORMAT and isinstance(shape, list) and len(shape) == 3
            if not known or not all(type(side) is int and side > 0 for side in shape):
                raise WildcatError(f"{about} is damaged: delete the folder {self._folder}")
            return (shape[0], shape[1], shape[2])
        backbone, size = self._model.eval().backbone, self.size
        blank = torch.zeros(1, 3, size, size, device=self._model.transfer.weight.device)
        try:
            with torch.inference_mode():
                _, *features = backbone(blank).shape
        except (AssertionError, RuntimeError) as error:
            message = f"{backbone.name} fails for an image of {size} x {size} pixels: {first_line(error)}"
            raise WildcatError(f"{message}; image_size {backbone.native_size} is its own") from error
        return (features[0], features[1], features[2])


def open_feature_store(
    dataset: Dataset,
    model: Wildcat,
    config: TrainConfig,
    *,
    size: int | None = None,
    views: int | None = None,
    progress: Callable[[int], object] = lambda views: None,
) -> FeatureStore:
    """The features of a dataset's images: those that are in the cache, and the others computed now.

    Args:
        dataset, model, config, size, views: as for :class:`FeatureStore`.
        progress: called with the number of views that were computed.

    Raises:
        WildcatError: as :meth:`FeatureStore.compute`.

    >>> from wildcat.data import open_dataset
    >>> from wildcat.model import create_model
    >>> model = create_model("lite0", num_classes=3)
    >>> data = open_dataset("synthetic:count=4,size=64", "train")
    >>> config = TrainConfig("synthetic", image_size=64, cache_dir="cache")
    >>> store = open_feature_store(data, model, config, views=2)  # doctest: +SKIP
    >>> store.shape, store.read([0, 3], view=1).shape  # doctest: +SKIP
    ((4, 2, 1280, 2, 2), torch.Size([2, 1280, 2, 2]))
    """
    store = FeatureStore(dataset, model, config, size, views)
    store.compute(progress)
    return store


def cache_folder(config: TrainConfig) -> Path:
    """Where features are kept: below ``cache_dir``, or in the user's cache."""
    return (user_cache() if config.cache_dir is None else Path(config.cache_dir).expanduser()) / "features"


def image_keys(dataset: Dataset) -> list[bytes]:
    """What identifies the pixels of each image: the content of its file and how it is read, or the pixels themselves.

    Raises:
        WildcatError: for an image that cannot be read.
    """
    from_file = type(dataset).image is Dataset.image

    def key(index: int) -> bytes:
        path = dataset.samples[index].path
        if from_file and path is not None:
            text = f"{file_digest(path)} {dataset.upright} {dataset.partial}".encode()
        else:  # rendered, or a part of a file
            image = dataset.image(index)
            text = f"{image.size} ".encode() + image.tobytes()
        return hashlib.blake2b(text, digest_size=KEY_BYTES).digest()

    return map_in_threads(key, range(len(dataset)), "images", progress=False)


def view_of(number: int, key: bytes, crop_area: float) -> View:
    """A view of an image: 0 is the whole, 1 its mirror image; further ones are random, and the same in every run.

    Args:
        number: of the view.
        key: of the image.
        crop_area: of :func:`wildcat.data.transforms.random_view`.
    """
    if number in (WHOLE, MIRRORED):
        return View(flip=number == MIRRORED)
    return random_view(np.random.default_rng([number, *key]), crop_area=crop_area)


def _as_bf16(features: Tensor) -> npt.NDArray[np.uint16]:
    """Features rounded to bf16, whose bits NumPy knows as whole numbers alone."""
    return features.bfloat16().view(torch.int16).numpy().view(np.uint16)


def _view_name(number: int, crop_area: float) -> str:
    return {WHOLE: "image", MIRRORED: "mirror"}.get(number, f"crop{number - 1}-of-{crop_area:g}")


class _ViewPixels(TorchDataset[Tensor]):
    """Views of images, all of one image decoded once: pixels (views, size, size, 3), uint8, of an (image, views)."""

    def __init__(self, dataset: Dataset, keys: Sequence[bytes], size: int, crop_area: float) -> None:
        self._dataset, self._keys, self._size, self._crop_area = dataset, keys, size, crop_area

    def __getitem__(self, item: tuple[int, list[int]]) -> Tensor:
        index, numbers = item
        views = [view_of(number, self._keys[index], self._crop_area) for number in numbers]
        smallest = min(min(view.width, view.height) for view in views)
        image = self._dataset.image(index, draft_size=math.ceil(self._size / smallest))
        return torch.from_numpy(np.stack([view.image(image, self._size) for view in views]))


class _Waiting:
    """Waits for the process that computes features in the same folder, and says so once."""

    def __init__(self) -> None:
        self._said = False

    def __call__(self, holder: str) -> None:
        if not self._said:
            logger.info("waiting for features: %s computes them", holder)
            self._said = True
        time.sleep(_WAIT_SECONDS)
