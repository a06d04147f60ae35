"""The images that a run was trained on."""

import numpy as np

from wildcat.config import TrainConfig
from wildcat.data import Dataset, check_dataset
from wildcat.data.registry import default_splits, open_dataset
from wildcat.errors import WildcatError


def split_off(dataset: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]:
    """Split a dataset at random into (rest, held out); equal seeds give equal splits.

    Args:
        dataset: the dataset.
        fraction: share of the images that are held out, between 0 and 1.
        seed: of the random order.

    Raises:
        WildcatError: if one part would be empty.
    """
    held = round(fraction * len(dataset))
    if not 0 < held < len(dataset):
        raise WildcatError(f"val_fraction {fraction} of {len(dataset)} images leaves one part empty")
    order = np.random.default_rng(seed).permutation(len(dataset))
    return dataset.subset(sorted(order[held:].tolist())), dataset.subset(sorted(order[:held].tolist()))


def training_images(config: TrainConfig) -> Dataset:
    """The images that a run with these settings was trained on; nothing is logged.

    Raises:
        WildcatError: if they are no longer where they were.
    """
    dataset = open_dataset(config.data, config.train_split or default_splits(config.data)[0])
    if config.on_bad_image == "skip":
        dataset, _ = check_dataset(dataset, on_bad_image="skip")
    dataset.partial = config.on_bad_image == "partial"
    return split_off(dataset, config.val_fraction, config.seed)[0] if config.val_fraction else dataset
