"""Training with a frozen backbone (the setting ``frozen``): features are computed once, the head is trained on them.

The head sees what it would see in a training with ``freeze_stages=-1``: in each epoch the same images in the same
order, each mirrored or not by the same random number.
"""

import logging
from collections.abc import Iterator
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wildcat.config import TrainConfig
from wildcat.data import Dataset, check_dataset
from wildcat.data.transforms import random_view
from wildcat.errors import WildcatError
from wildcat.losses import probabilities
from wildcat.model import Wildcat
from wildcat.training.data import EpochBatches
from wildcat.training.feature_store import FeatureStore
from wildcat.training.held_out import HeldOutImages
from wildcat.training.progress import RunProgress

logger = logging.getLogger(__name__)

_BATCH = 16  # images that are scored together


class FrozenFeatures:
    """The features of all images that a training reads: each store is opened when it is first used.

    Args:
        model: whose backbone is frozen.
        config: the settings.
        dataset: the training images.
        validation: the validation images.
        held_out: the images that are scored at the end.
    """

    def __init__(
        self,
        model: Wildcat,
        config: TrainConfig,
        dataset: Dataset,
        validation: Dataset | None,
        held_out: HeldOutImages | None,
    ) -> None:
        self._model, self._config = model, config
        self._dataset, self._validation, self._held_out = dataset, validation, held_out

    @cached_property
    def training(self) -> FeatureStore:
        """The training images, in all views."""
        return FeatureStore(self._dataset, self._model, self._config)

    @cached_property
    def validation(self) -> FeatureStore | None:
        """The validation images."""
        return None if self._validation is None else FeatureStore(self._validation, self._model, self._config, views=1)

    @cached_property
    def held_out_images(self) -> Dataset | None:
        """The images that are scored at the end, but for those that cannot be read."""
        if self._held_out is None:
            return None
        try:
            return check_dataset(self._held_out.images, on_bad_image="skip")[0]
        except WildcatError as error:
            logger.info("nothing will be scored after the training: %s", error)
            return None

    @cached_property
    def held_out(self) -> list[FeatureStore]:
        """These images at each size for scores, mirrored too where the settings ask for it."""
        images, views = self.held_out_images, 2 if self._config.mirror else 1
        sizes = [] if images is None else self._config.score_sizes
        return [FeatureStore(images, self._model, self._config, size, views) for size in sizes if images is not None]

    @property
    def _stores(self) -> list[tuple[FeatureStore, float]]:
        """Each store with the work of a view, in units of an image at the training's size."""
        size = self._config.image_size
        stores = [self.training, *([] if self.validation is None else [self.validation]), *self.held_out]
        return [(store, (store.size / size) ** 2) for store in stores]

    def work(self) -> float:
        """The work of what is missing."""
        return sum(work * store.missing for store, work in self._stores)

    def compute(self, progress: RunProgress) -> None:
        """Compute what is missing.

        Raises:
            WildcatError: as :meth:`FeatureStore.compute`.
        """
        progress.stage("features")
        for store, work in self._stores:
            store.compute(lambda views, work=work: progress.add(work * views))  # type: ignore[misc]

    def open(self) -> None:
        """Open what the epochs read, in every process, before the model is changed for data parallelism."""
        _ = self.training, self.validation

    def held_out_probabilities(self) -> Tensor:
        """Probabilities (N, C) of the images that are scored at the end: the mean over sizes and mirror images."""
        head, images = self._model.on_features().eval(), self.held_out_images
        assert images is not None
        device, parts = self._model.transfer.weight.device, []
        with torch.inference_mode():
            for start in range(0, len(images), _BATCH):
                rows = range(start, min(start + _BATCH, len(images)))
                each = [
                    probabilities(head(store.read(rows, view).to(device)).scores, images.multi_label)
                    for store in self.held_out
                    for view in range(store.shape[1])
                ]
                parts.append(torch.stack(each).mean(dim=0).cpu())
        return torch.cat(parts)[:, : len(images.classes)]  # without the background class


class FeatureBatches(EpochBatches):
    """The batches of the features of training images, each in a view of its own.

    Args:
        dataset, config, rank, processes: as for :class:`EpochBatches`.
        store: the features of the dataset.
    """

    def __init__(self, dataset: Dataset, config: TrainConfig, rank: int, processes: int, store: FeatureStore) -> None:
        super().__init__(dataset, config, rank, processes)
        self._store, self._config = store, config
        self._labels = torch.from_numpy(dataset.labels)

    def read(self, epoch: int, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Features (n, D, h, w) float32 and labels (n, C) int8 of each part, from a step of an epoch to its end."""
        self._begin(epoch, step)
        for keys in self._parts:
            images = np.array([index for _, index in keys])
            views = np.array([self._view(*key) for key in keys])
            yield self._read(images, views), self._labels[torch.from_numpy(images)]

    def _read(self, images: np.ndarray, views: np.ndarray) -> Tensor:
        different = np.unique(views)
        if len(different) == 1:
            return self._store.read(images, int(different[0]))
        features = torch.empty(len(images), *self._store.shape[2:])
        for view in different:
            chosen = views == view
            features[torch.from_numpy(chosen)] = self._store.read(images[chosen], int(view))
        return features

    def _view(self, epoch: int, index: int) -> int:
        """The number of the view of an image in an epoch; of two, the one that a training on images would show."""
        views = self._store.shape[1]
        random = np.random.default_rng((self._config.seed, epoch, index))
        return int(random_view(random).flip) if views == 2 else int(random.integers(views))
