"""Images on their way into training: what is opened, how it is divided, the order and the random crops."""

import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from wildcat.config import TrainConfig
from wildcat.data import Dataset, check_dataset, class_counts, label_warnings, shared_image_warnings
from wildcat.data.images import original_size
from wildcat.data.registry import default_splits, download_dataset, open_dataset
from wildcat.data.transforms import View, random_view, warp
from wildcat.errors import WildcatError
from wildcat.runs.training_set import split_off
from wildcat.training.image_cache import create_cache


class TrainDataset(TorchDataset[tuple[Tensor, Tensor]]):
    """Images as training sees them, warped, cropped and mirrored at random.

    The key of an item is (epoch, index), and its random numbers come from (seed, epoch, index) alone: an item does not
    depend on the number of worker processes, nor on what was read before it, so a continued run reads the same.
    Decoded images are kept within a budget of memory, where that cannot change what is read.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig) -> None:
        self.dataset = dataset
        self.labels = dataset.labels
        self.size = config.image_size
        self.crop_area = config.crop_area
        self.seed = config.seed
        self.cache = create_cache(len(dataset), config.cache_gb, config.workers or 0)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Pixels (size, size, 3) uint8, labels (C,) int8."""
        epoch, index = key
        view = random_view(np.random.default_rng((self.seed, epoch, index)), crop_area=self.crop_area)
        pixels = view.image(self._image(index, view), self.size)
        return torch.from_numpy(pixels.copy()), torch.from_numpy(self.labels[index])

    def _image(self, index: int, view: View) -> Image.Image | npt.NDArray[np.uint8]:
        """The image that the view is taken from; without crops it is warped already, and may be mirrored at most."""
        kept = None if self.cache is None else self.cache.get(index)
        if kept is not None:
            return kept
        image = self.dataset.image(index, draft_size=math.ceil(self.size / min(view.width, view.height)))
        if self.cache is None:
            return image
        if self.crop_area == 1:
            pixels = warp(image, self.size)
        elif image.size == original_size(image) and min(image.size) < 2 * self.size:  # so for every view: never smaller
            pixels = np.asarray(image)
        else:
            return image
        self.cache.put(index, pixels)
        return pixels


class EvalDataset(TorchDataset[tuple[Tensor, Tensor]]):
    """Images warped to a square, in order."""

    __test__ = False  # the name is the field's, not pytest's

    def __init__(self, dataset: Dataset, size: int) -> None:
        self.dataset = dataset
        self.labels = dataset.labels
        self.size = size

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Pixels (size, size, 3) uint8, labels (C,) int8."""
        image = self.dataset.image(index, draft_size=self.size)
        return torch.from_numpy(warp(image, self.size).copy()), torch.from_numpy(self.labels[index])


class EpochSampler(Sampler[tuple[int, int]]):
    """The order of an epoch, a function of (seed, epoch); may start in its middle."""

    def __init__(self, total: int, used: int, seed: int) -> None:
        self.total, self.used, self.seed = total, used, seed
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return self.used - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.total)
        return iter([(self.epoch, int(index)) for index in order[self.start : self.used]])


class ShardedBatchSampler(Sampler[list[tuple[int, int]]]):
    """What one process reads of each batch of an epoch, in parts.

    A batch is divided into ``processes * accumulate`` neighbouring parts of nearly equal size, so that all processes
    together read the batches that a single one would.

    Raises:
        WildcatError: if a part would be empty.
    """

    def __init__(self, sampler: EpochSampler, batch_size: int, rank: int, processes: int, accumulate: int) -> None:
        parts = processes * accumulate
        if batch_size < parts:
            raise WildcatError(
                f"a batch of {batch_size} images cannot be divided over {processes} processes x {accumulate} parts "
                "(accumulate); raise batch_size"
            )
        self.sampler, self.batch_size = sampler, batch_size
        edges = [part * batch_size // parts for part in range(parts + 1)]
        self.parts = [slice(*edges[part : part + 2]) for part in range(rank * accumulate, (rank + 1) * accumulate)]

    def __len__(self) -> int:
        return len(self.sampler) // self.batch_size * len(self.parts)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        keys = list(self.sampler)
        for start in range(0, len(keys), self.batch_size):
            batch = keys[start : start + self.batch_size]
            yield from (batch[part] for part in self.parts)


def end_workers(iterator: Any) -> None:
    """End the processes that read for a loader's iterator, also one that waits for a disk and does not listen."""
    if hasattr(iterator, "_shutdown_workers"):  # PyTorch has no public way
        iterator._shutdown_workers()
        for worker in iterator._workers:
            if worker.is_alive():
                worker.kill()


def _open_labelled(spec: str, split: str) -> Dataset:
    dataset = open_dataset(spec, split)
    if dataset.samples and not (dataset.labels == 1).any():
        raise WildcatError(
            f"{spec} {split} has no labels: none of its {len(dataset)} images is said to hold a class; "
            "give a split that has labels"
        )
    return dataset


def open_training_data(config: TrainConfig, download: bool = False) -> tuple[Dataset, Dataset | None]:
    """The checked training set and the validation set, if any.

    Raises:
        WildcatError: from the check, with its report, unless ``on_bad_image`` is "skip"; from the download; or for a
            split without labels.
    """
    if download:
        download_dataset(config.data)
    split = config.train_split or default_splits(config.data)[0]
    dataset, report = check_dataset(
        _open_labelled(config.data, split), on_bad_image=config.on_bad_image, progress=sys.stderr.isatty()
    )
    print(report, file=sys.stderr)
    validation = None
    if config.val_fraction:
        dataset, validation = split_off(dataset, config.val_fraction, config.seed)
    elif config.val_split is not None:
        validation = _open_labelled(config.data, config.val_split)
        validation, other = check_dataset(validation, on_bad_image=config.on_bad_image)
        if other.has_bad_images:
            print(other, file=sys.stderr)
    print(f"training on {class_counts(dataset)}", file=sys.stderr)
    doubts = label_warnings(dataset, report.classes_without_positives)
    if validation is not None:
        doubts += shared_image_warnings(dataset, validation, "validation", progress=sys.stderr.isatty())
    for doubt in doubts:
        print(f"warning: {doubt}", file=sys.stderr)
    return dataset, validation
