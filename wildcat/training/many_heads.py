"""Many heads on the same frozen features, trained at once: each batch of features is read once for all of them.

The filters of all heads are stacked into one matrix, so that one product gives all their maps; losses and updates stay
separate. Each head ends with the weights that a training of its own on the same features would give, up to rounding.
"""

import copy
import itertools
import json
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor, nn

from wildcat.class_pooling import choose_kept_maps, class_wise_pool
from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.pooling import POOLINGS, create_pooling
from wildcat.runs.folder import build_model
from wildcat.training.engine import seed_step
from wildcat.training.feature_store import FeatureStore
from wildcat.training.frozen import FeatureBatches
from wildcat.training.head_start import fitted_head, scale_initial_weights, set_head
from wildcat.training.schedule import learning_rate_factor
from wildcat.training.validation import criterion_for
from wildcat.transfer import MultiMapTransfer, class_filters

# Filters of one matrix product: more need more memory, and are not faster.
MAX_FILTERS = 1024


@dataclass(frozen=True, eq=False)
class Head:
    """A head: from features (N, D, h, w) to scores.

    Attributes:
        config: its settings.
        transfer: M filters for each of C classes.
        pooling: class maps to scores, or features to the classifier's input with architecture "b".
    """

    config: TrainConfig
    transfer: MultiMapTransfer
    pooling: nn.Module

    @property
    def architecture(self) -> str:
        """Whether class maps are pooled, "a", or features, "b"."""
        return self.config.architecture

    @property
    def merges(self) -> bool:
        """Whether the M filters of a class learn through their mean, whose map is the class map."""
        return self.config.class_pooling == "mean" and not self.config.map_dropout

    @property
    def rows(self) -> int:
        """Number of filters that are applied: C, or C * M."""
        return self.transfer.num_classes * (1 if self.merges else self.transfer.num_maps)

    def filters(self) -> tuple[Tensor, Tensor]:
        """Weights (rows, D) and biases (rows,) of the filters that are applied."""
        if self.merges:
            return class_filters(self.transfer)
        return self.transfer.weight.flatten(1), self.transfer.bias

    def class_maps(self, maps: Tensor, step: tuple[int, int] | None) -> Tensor:
        """Class maps (C, n, h, w) of what the filters give, (rows, n, h, w).

        Args:
            maps: of n images.
            step: epoch and step of a training, which leaves out the same maps as a training of its own.
        """
        if self.merges:
            return maps
        config, kept = self.config, None
        if step is not None and config.map_dropout and config.num_maps > 1:
            seed_step(config.seed, *step)
            kept = choose_kept_maps((maps.shape[1], self.transfer.num_classes, config.num_maps), config.map_dropout)
        return class_wise_pool(maps.transpose(0, 1), config.num_maps, config.class_pooling, kept=kept).transpose(0, 1)

    @property
    def diverged(self) -> bool:
        """Whether weights are NaN or infinite; a training of its own would end with an error."""
        return not all(bool(parameter.isfinite().all()) for parameter in self.transfer.parameters())


def create_head(config: TrainConfig, channels: int, classes: int) -> Head:
    """A new head, with the weights that a training with these settings starts from.

    Args:
        config: with every automatic setting resolved; a head of ``fit_head`` is fitted later.
        channels: D of the features.
        classes: C of the dataset, without a background class.
    """
    if config.pooling not in POOLINGS:  # it may have random parameters
        transfer, pooling = _first_head(config, classes)
    else:
        pooling = create_pooling(config.pooling, config.kmax, config.kmin, config.alpha)
        if config.initial_scale == 0:
            transfer = MultiMapTransfer(channels, classes + config.background_class, config.num_maps)
        else:
            same = replace(config, pooling="max", lr=1.0, epochs=1, alpha=1.0, kmax=1, kmin=1, weight_decay=0.0)
            transfer = copy.deepcopy(_shared_first_transfer(json.dumps(same.to_dict()), classes))
    scale_initial_weights(transfer, config.initial_scale)
    return Head(config, transfer, pooling)


def _first_head(config: TrainConfig, classes: int) -> tuple[MultiMapTransfer, nn.Module]:
    """Transfer layer and pooling of a new model: the backbone takes random numbers before them."""
    torch.manual_seed(config.seed % 2**63)
    model = build_model(config, classes, pretrained=True)
    return model.transfer, model.pooling


@lru_cache(maxsize=64)
def _shared_first_transfer(settings: str, classes: int) -> MultiMapTransfer:
    """The transfer layer that heads with equal seed, M and backbone start from."""
    return _first_head(TrainConfig(**json.loads(settings)), classes)[0]


def train_heads(
    features: FeatureStore,
    dataset: Dataset,
    configs: Sequence[TrainConfig],
    *,
    after_step: Callable[[int], object] = lambda work: None,
) -> list[Head]:
    """Train heads on frozen features, as ``wildcat train`` would train each of them.

    Heads that see the same batches (equal seed, batch size and epochs) are trained in one pass.

    Args:
        features: of the images; memory holds one batch of them.
        dataset: the training images.
        configs: the settings of each head, with every automatic setting resolved.
        after_step: called after each step with its number of images times heads.

    Returns:
        The heads, in the order of their settings.
    """
    heads = [create_head(config, features.shape[2], len(dataset.classes)) for config in configs]
    for group in _grouped([head for head in heads if head.config.fit_head], lambda head: _fitting(head.config)):
        linear = fitted_head(dataset, group[0].config, features)
        for head in group:
            set_head(head, linear)
    for group in _grouped(heads, lambda head: _batching(head.config)):
        config = replace(group[0].config, accumulate=1)
        batches = FeatureBatches(dataset, config, 0, 1, features)
        blocks = [(block, _optimizer(block)) for block in blocks_of(group)]
        for epoch in range(config.epochs):
            for step, (batch, labels) in enumerate(batches.read(epoch, 0)):
                for block, optimizer in blocks:
                    for parameters, head in zip(optimizer.param_groups, block, strict=True):
                        parameters["lr"] = head.config.lr * learning_rate_factor(
                            head.config, epoch * batches.steps + step, batches.steps
                        )
                    losses = [
                        criterion_for(dataset, head.config)(scores, labels)
                        for head, scores in zip(block, batch_scores(block, batch, (epoch, step)), strict=True)
                    ]
                    torch.stack(losses).sum().backward()
                    optimizer.step()
                    optimizer.zero_grad(set_to_none=True)
                after_step(len(labels) * len(group))
    return heads


def batch_scores(block: Sequence[Head], batch: Tensor, step: tuple[int, int] | None = None) -> list[Tensor]:
    """The scores (n, C) of each head for features (n, D, h, w).

    Args:
        block: the heads.
        batch: the features.
        step: epoch and step of a training, for map dropout; without it all maps are used.
    """
    found = _scores_of_regions([head for head in block if head.architecture == "a"], batch, step)
    pooled: dict[Hashable, Tensor] = {}
    scores = []
    for head in block:
        if head.architecture == "a":
            scores.append(next(found))
            continue
        key = _pooling_key(head)
        if key not in pooled:
            pooled[key] = head.pooling(batch)  # (n, D)
        weight, bias = class_filters(head.transfer)
        scores.append(nn.functional.linear(pooled[key], weight, bias))
    return scores


def _scores_of_regions(heads: Sequence[Head], batch: Tensor, step: tuple[int, int] | None) -> Iterator[Tensor]:
    """The scores of heads that pool class maps, in their order."""
    if not heads:
        return iter(())
    maps = stacked_class_maps(heads, batch, step)
    scores: list[Tensor] = []
    runs = [list(run) for _, run in itertools.groupby(heads, _pooling_key)]
    widths = [[head.transfer.num_classes for head in run] for run in runs]
    for run, own, width in zip(runs, maps.split([sum(width) for width in widths]), widths, strict=True):
        scores += run[0].pooling(own.transpose(0, 1)).split(width, dim=1)
    return iter(scores)


def stacked_class_maps(heads: Sequence[Head], batch: Tensor, step: tuple[int, int] | None = None) -> Tensor:
    """The class maps of all heads, one below the other: (C_1 + C_2 + ..., n, h, w).

    The mean of the M maps of a class is the map of the mean filter, so M takes no time. With other kinds of class-wise
    pooling and with map dropout, all filters are applied.
    """
    count, channels, height, width = batch.shape
    filters = [head.filters() for head in heads]
    weight, bias = (torch.cat(part) for part in zip(*filters, strict=True))
    columns = batch.transpose(0, 1).reshape(channels, -1)  # (D, n * h * w)
    maps = torch.addmm(bias[:, None], weight, columns)
    placed: Tensor = maps.unflatten(1, (count, height, width))
    if all(head.merges for head in heads):
        return placed
    parts = placed.split([head.rows for head in heads])
    return torch.cat([head.class_maps(part, step) for head, part in zip(heads, parts, strict=True)])


def blocks_of(heads: Sequence[Head]) -> list[list[Head]]:
    """The heads in blocks of at most MAX_FILTERS filters; those with equal pooling stand side by side."""
    blocks: list[list[Head]] = []
    filters = MAX_FILTERS
    for same in _grouped(heads, _pooling_key):
        for head in same:
            filters += head.rows
            if filters > MAX_FILTERS:
                blocks.append([])
                filters = head.rows
            blocks[-1].append(head)
    return blocks


def _grouped(heads: Sequence[Head], key: Callable[[Head], Hashable]) -> list[list[Head]]:
    """The heads in groups of equal keys, in the order of their first."""
    groups: dict[Hashable, list[Head]] = {}
    for head in heads:
        groups.setdefault(key(head), []).append(head)
    return list(groups.values())


def _pooling_key(head: Head) -> Hashable:
    """Equal for heads whose class maps can be pooled in one call: a pooling of a user's own may learn, or mix maps."""
    config = head.config
    if config.pooling not in POOLINGS:
        return id(head)
    return config.architecture, config.pooling, config.kmax, config.kmin, config.alpha


def _batching(config: TrainConfig) -> Hashable:
    """What decides which images a head sees, and when."""
    return config.seed, config.batch_size, config.epochs, config.drop_last, config.crop_area


def _fitting(config: TrainConfig) -> Hashable:
    """What decides on the classifier that a head starts from."""
    return config.seed, config.difficult


def _optimizer(block: Sequence[Head]) -> torch.optim.SGD:
    """The optimizer of a training, with a group of parameters for each head."""
    groups = [
        {
            "params": [*head.transfer.parameters(), *head.pooling.parameters()],
            "lr": head.config.lr,
            "momentum": head.config.momentum,
            "weight_decay": head.config.weight_decay,
        }
        for head in block
    ]
    return torch.optim.SGD(groups, fused=True)
