"""Training images: opening and checking the datasets, the order of an epoch, random crops, batches per process."""

import logging
import math
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from torch.utils.data import Dataset as TorchDataset

from wildcat.config import TrainConfig
from wildcat.data import Dataset, check_dataset, class_counts, label_warnings, shared_image_warnings
from wildcat.data.checks import difficult_warnings, require_two_classes
from wildcat.data.images import original_size
from wildcat.data.registry import default_splits, download_dataset, open_dataset
from wildcat.data.transforms import View, random_view, warp
from wildcat.errors import WildcatError
from wildcat.runs.training_set import split_off
from wildcat.system.shared_memory import shared_memory_warning
from wildcat.training.defaults import steps_per_epoch
from wildcat.training.image_cache import create_cache
from wildcat.training.signals import delay_termination

logger = logging.getLogger(__name__)


class TrainDataset(TorchDataset[tuple[Tensor, Tensor]]):
    """Training images: cropped and mirrored at random, and resized to a square.

    The key of an item is (epoch, index), and its random numbers come from (seed, epoch, index) alone. An item depends
    neither on the number of workers nor on what was read before, so a resumed run reads the same images.

    Decoded images are cached within ``cache_gb`` where this cannot change the pixels.

    Args:
        dataset: the images and labels.
        config: ``image_size``, ``crop_area``, ``seed``, ``cache_gb`` and ``workers`` are used.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig) -> None:
        self.dataset = dataset
        self.labels = dataset.labels
        self.size = config.image_size
        self.crop_area = config.crop_area
        self.seed = config.seed
        self.cache = create_cache(len(dataset), config.cache_gb, config.workers or 0)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Pixels (size, size, 3) uint8 and labels (C,) int8 of an (epoch, index)."""
        epoch, index = key
        view = random_view(np.random.default_rng((self.seed, epoch, index)), crop_area=self.crop_area)
        pixels = view.image(self._image(index, view), self.size)
        return torch.from_numpy(pixels.copy()), torch.from_numpy(self.labels[index])

    def _image(self, index: int, view: View) -> Image.Image | npt.NDArray[np.uint8]:
        """The image that the view is taken from; without crops it is resized already, as only mirroring remains."""
        cached = None if self.cache is None else self.cache.get(index)
        if cached is not None:
            return cached
        image = self.dataset.image(index, draft_size=math.ceil(self.size / min(view.width, view.height)))
        if self.cache is None:
            return image
        if self.crop_area == 1:
            pixels = warp(image, self.size)
        elif image.size == original_size(image) and min(image.size) < 2 * self.size:
            pixels = np.asarray(image)  # of full size whatever the view: it is too small to be decoded at a half
        else:
            return image
        self.cache.put(index, pixels)
        return pixels


class EvalDataset(TorchDataset[tuple[Tensor, Tensor]]):
    """Images resized to a square, in order.

    Args:
        dataset: the images and labels.
        size: side of the square in pixels.
    """

    __test__ = False  # not a test case of pytest's

    def __init__(self, dataset: Dataset, size: int) -> None:
        self.dataset = dataset
        self.labels = dataset.labels
        self.size = size

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Pixels (size, size, 3) uint8 and labels (C,) int8."""
        image = self.dataset.image(index, draft_size=self.size)
        return torch.from_numpy(warp(image, self.size).copy()), torch.from_numpy(self.labels[index])


class EpochSampler(Sampler[tuple[int, int]]):
    """The order of the images of an epoch, a function of (seed, epoch) alone; gives keys (epoch, index).

    Args:
        total: number of images.
        used: how many of them an epoch uses: whole batches.
        seed: of the run.

    Attributes:
        epoch: the epoch whose order is given.
        start: position in this order at which iteration begins.
    """

    def __init__(self, total: int, used: int, seed: int) -> None:
        self.total, self.used, self.seed = total, used, seed
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return self.used - self.start

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.total)
        return iter([(self.epoch, int(index)) for index in order[self.start : self.used]])


class ShardedBatchSampler(Sampler[list[tuple[int, int]]]):
    """The parts of each batch that one process reads.

    The images of an epoch are split into batches, and each batch into ``processes * accumulate`` parts: consecutive and
    of nearly equal size. All processes together read exactly the batches that a single process would.

    Args:
        sampler: the order of the epoch.
        steps: number of batches of an epoch.
        rank: of this process.
        processes: their number.
        accumulate: parts per process.

    Attributes:
        edges: position in the order at which each batch begins, and the number of images of the epoch.

    Raises:
        WildcatError: if a part would be empty.
    """

    def __init__(self, sampler: EpochSampler, steps: int, rank: int, processes: int, accumulate: int) -> None:
        self.sampler, self.edges = sampler, _equal_parts(sampler.used, steps)
        self._rank, self._processes, self._accumulate = rank, processes, accumulate
        smallest = sampler.used // steps
        if smallest < processes * accumulate:
            raise WildcatError(
                f"a batch of {smallest} images cannot be split over {processes} processes x {accumulate} parts "
                "(accumulate); raise batch_size"
            )

    def __len__(self) -> int:
        return (len(self.edges) - 1 - self.edges.index(self.sampler.start)) * self._accumulate

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        keys, skipped = list(self.sampler), self.sampler.start
        for step in range(self.edges.index(skipped), len(self.edges) - 1):
            batch = keys[self.edges[step] - skipped : self.edges[step + 1] - skipped]
            yield from (batch[part] for part in self.parts(step))

    def parts(self, step: int) -> list[slice]:
        """The slices of a step's batch that this process reads, one after the other."""
        edges = _equal_parts(self.edges[step + 1] - self.edges[step], self._processes * self._accumulate)
        first = self._rank * self._accumulate
        return [slice(*edges[part : part + 2]) for part in range(first, first + self._accumulate)]


def _equal_parts(total: int, parts: int) -> list[int]:
    """Where each of some consecutive parts of nearly equal size begins, and the end."""
    return [part * total // parts for part in range(parts + 1)]


class EpochBatches:
    """The order and the parts of the batches that one process reads, from any step of any epoch on.

    Args:
        dataset: the images and labels.
        config: the settings.
        rank: of this process.
        processes: their number.

    Attributes:
        images: images per epoch, over all processes: all of them, unless ``drop_last`` leaves out an incomplete batch.
        steps: steps per epoch.

    Raises:
        WildcatError: if a batch has fewer images than parts.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig, rank: int, processes: int) -> None:
        self._dataset = dataset
        self.steps = steps_per_epoch(config, len(dataset))
        self.images = self.steps * min(config.batch_size, len(dataset)) if config.drop_last else len(dataset)
        self._sampler = EpochSampler(len(dataset), self.images, config.seed)
        self._parts = ShardedBatchSampler(self._sampler, self.steps, rank, processes, config.accumulate)

    def read(self, epoch: int, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """What the network is trained on and labels (n, C) int8 of each part, from a step of an epoch to its end."""
        raise NotImplementedError

    def _begin(self, epoch: int, step: int) -> None:
        """Let the samplers begin at a step of an epoch."""
        self._sampler.epoch, self._sampler.start = epoch, self._parts.edges[step]

    def batch_size(self, step: int) -> int:
        """Images of a step, over all processes."""
        return self._parts.edges[step + 1] - self._parts.edges[step]

    def images_before(self, step: int) -> int:
        """Images of an epoch before a step, over all processes."""
        return self._parts.edges[step]

    def names(self, epoch: int, step: int) -> list[str]:
        """The images that this process reads in a step, all parts in order."""
        sampler = EpochSampler(self._sampler.total, self._sampler.used, self._sampler.seed)
        sampler.epoch, sampler.start = epoch, self._parts.edges[step]
        batch = list(sampler)[: self.batch_size(step)]
        return [self._dataset.samples[index].name for part in self._parts.parts(step) for _, index in batch[part]]

    def close(self) -> None:
        """End what reads ahead."""


class TrainBatches(EpochBatches):
    """The batches of the training images, which workers read, crop and mirror.

    Args:
        dataset, config, rank, processes: as for :class:`EpochBatches`.
        pin_memory: for a GPU.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig, rank: int, processes: int, pin_memory: bool) -> None:
        super().__init__(dataset, config, rank, processes)
        if config.workers:
            # Each worker prepares two parts ahead.
            part = math.ceil(math.ceil(self.images / self.steps) / (processes * config.accumulate))
            size = part * 3 * config.image_size**2
            if (warning := shared_memory_warning(2 * config.workers * size)) is not None:
                logger.warning("%s", warning)
        self._loader = DataLoader(
            TrainDataset(dataset, config),
            batch_sampler=self._parts,
            num_workers=config.workers or 0,
            persistent_workers=bool(config.workers),
            pin_memory=pin_memory,
            timeout=60 * config.stall_minutes if config.workers else 0,
            worker_init_fn=delay_termination,
        )

    def read(self, epoch: int, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels (n, size, size, 3) uint8 and labels (n, C) int8 of each part, from a step of an epoch to its end."""
        self._begin(epoch, step)
        return iter(self._loader)

    def close(self) -> None:
        """End the workers."""
        end_workers(self._loader._iterator)


def end_workers(iterator: Any) -> None:
    """End the workers of a data loader's iterator, also one that waits for a disk and does not answer."""
    if hasattr(iterator, "_shutdown_workers"):  # PyTorch has no public function for this
        iterator._shutdown_workers()
        for worker in iterator._workers:
            if worker.is_alive():
                worker.kill()


def _open_labelled(spec: str, split: str, difficult: str) -> Dataset:
    """Open a split, and check that it has labels; those of difficult objects count as the setting says."""
    dataset = open_dataset(spec, split)
    least = 0 if difficult == "positive" and not dataset.zeros_unknown else 1
    if dataset.samples and not (dataset.labels >= least).any():
        if (dataset.labels == 0).any() and not dataset.zeros_unknown:
            raise WildcatError(
                f"{spec} {split} has only labels of difficult objects or crowds, which --difficult ignore leaves out; "
                "train with --difficult positive"
            )
        raise WildcatError(
            f"{spec} {split} has no labels: none of its {len(dataset)} images has a class; give a split with labels"
        )
    return dataset


def open_training_data(config: TrainConfig, download: bool = False) -> tuple[Dataset, Dataset | None]:
    """Open and check the training set and the validation set.

    Args:
        config: ``data``, ``train_split``, ``val_split``, ``val_fraction``, ``seed`` and ``on_bad_image`` are used.
        download: download the dataset first, where the path does not hold it yet.

    Returns:
        The training set, and the validation set or None.

    Raises:
        WildcatError: for images that cannot be read, listing them, unless ``on_bad_image`` is "skip"; for a failed
            download; for a split without labels.
    """
    if download:
        download_dataset(config.data)
    split = config.train_split or default_splits(config.data)[0]
    dataset = _open_labelled(config.data, split, config.difficult)
    for warning in dataset.warnings:
        logger.warning("%s", warning)
    dataset, report = check_dataset(dataset, on_bad_image=config.on_bad_image, progress=sys.stderr.isatty())
    require_two_classes(dataset)
    for note in dataset.notes:
        logger.info("%s", note)
    logger.info("%s", report)
    validation = None
    if config.val_fraction:
        dataset, validation = split_off(dataset, config.val_fraction, config.seed)
    elif config.val_split is not None:
        validation = _open_labelled(config.data, config.val_split, config.difficult)
        validation, other = check_dataset(validation, on_bad_image=config.on_bad_image)
        if other.has_bad_images:
            logger.info("%s", other)
    logger.info("training on %s", class_counts(dataset))
    messages = label_warnings(dataset, report.classes_without_positives)
    messages += difficult_warnings(dataset, config.difficult)
    if validation is not None:
        messages += shared_image_warnings(dataset, validation, "validation", progress=sys.stderr.isatty())
    for message in messages:
        logger.warning("%s", message)
    return dataset, validation
