"""Heads with several maps per class, trained in different ways on the same frozen features, in one pass over them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from wildcat.class_pooling import ClassPooling, choose_kept_maps, class_wise_pool
from wildcat.config import TrainConfig
from wildcat.losses import multi_label_loss
from wildcat.pooling import spatial_pool
from wildcat.training.feature_store import FeatureStore
from wildcat.training.map_modes import MAX_PLACES, STRENGTH, set_map_modes, strongest_places
from wildcat.training.schedule import learning_rate_factor
from wildcat.transfer import MultiMapTransfer

MAPS = 4


@dataclass(frozen=True)
class Way:
    """A way of training the maps of a class.

    Attributes:
        class_pooling: Equation 1.
        map_dropout: share of the maps of a class that a step leaves out.
        initial: multiple of the usual initial weights.
        spatial_first: pool each map over space with k = 3, then the scores of the maps, by their mean.
        modes: strength of the deviations that are set after the training (:mod:`wildcat.training.map_modes`), or 0.
        overlap: weight of a term of the loss, the cosine of the places of two maps of a class that is present.
    """

    class_pooling: ClassPooling = "mean"
    map_dropout: float = 0.0
    initial: float = 1.0
    spatial_first: bool = False
    overlap: float = 0.0
    modes: float = 0.0


ROWS = {
    "mean": Way(),
    "mean, fitted maps": Way(modes=STRENGTH),
    "mean, initial weights x 8": Way(initial=8),
    "max": Way("max"),
    "max, half dropped": Way("max", 0.5),
    "lse": Way("lse"),
    "lse, half dropped": Way("lse", 0.5),
    "lse, half dropped, overlap 0.3": Way("lse", 0.5, overlap=0.3),
    "softmax, half dropped": Way("softmax", 0.5),
    "spatial first, k 3": Way(spatial_first=True),
}


@dataclass(frozen=True, eq=False)
class Head:
    """A head that is trained: its filters, and how."""

    name: str
    rate: float
    transfer: MultiMapTransfer

    @property
    def way(self) -> Way:
        """How its maps are trained."""
        return ROWS[self.name]


def create_heads(chosen: Sequence[tuple[str, float]], channels: int, classes: int, seed: int) -> list[Head]:
    """Heads by row and learning rate, with the initial weights of a seed."""
    heads = []
    for name, rate in chosen:
        torch.manual_seed(seed)
        transfer = MultiMapTransfer(channels, classes, MAPS)
        with torch.no_grad():
            transfer.weight *= ROWS[name].initial
            transfer.bias *= ROWS[name].initial
        heads.append(Head(name, rate, transfer))
    return heads


def multi_maps_of(heads: Sequence[Head], features: Tensor) -> list[Tensor]:
    """The multi-maps (N, C * M, h, w) of each head, by one product of all filters with the features (N, D, h, w)."""
    weight = torch.cat([head.transfer.weight.flatten(1) for head in heads])
    bias = torch.cat([head.transfer.bias for head in heads])
    columns = features.transpose(0, 1).reshape(features.shape[1], -1)  # (D, N * h * w)
    maps = torch.addmm(bias[:, None], weight, columns).unflatten(1, (len(features), *features.shape[2:]))
    return [part.transpose(0, 1) for part in maps.split(len(heads[0].transfer.weight))]


def pooled(way: Way, multi_maps: Tensor, config: TrainConfig, training: bool) -> tuple[Tensor, Tensor]:
    """Scores (N, C) and class maps (N, C, h, w) of multi-maps."""
    if way.spatial_first:
        each = spatial_pool(multi_maps, 3, 3, config.alpha).unflatten(1, (-1, MAPS))
        return each.mean(dim=2), class_wise_pool(multi_maps, MAPS)
    kept = None
    if training and way.map_dropout:
        kept = choose_kept_maps((len(multi_maps), multi_maps.shape[1] // MAPS, MAPS), way.map_dropout)
    class_maps = class_wise_pool(multi_maps, MAPS, way.class_pooling, kept=kept)
    return spatial_pool(class_maps, config.kmax, config.kmin, config.alpha), class_maps


def overlap_of(multi_maps: Tensor, labels: Tensor) -> Tensor:
    """Mean cosine of the places (softmax over cells) of two maps of a class, over the classes that are present."""
    places = multi_maps.unflatten(1, (-1, MAPS))[labels == 1].flatten(2).softmax(dim=2)  # (P, M, cells)
    places = functional.normalize(places, dim=2)
    cosines = places @ places.transpose(1, 2)  # (P, M, M)
    return (cosines.sum() - cosines.diagonal(dim1=1, dim2=2).sum()) / max(1, len(places) * MAPS * (MAPS - 1))


def train_heads(
    heads: Sequence[Head], features: FeatureStore, labels: Tensor, images: Sequence[int], config: TrainConfig
) -> None:
    """Train heads as `wildcat train` trains them, in one pass over the features of some images."""
    steps = -(-len(images) // config.batch_size)
    groups = [{"params": list(head.transfer.parameters()), "lr": head.rate} for head in heads]
    optimizer = torch.optim.SGD(groups, momentum=config.momentum, weight_decay=config.weight_decay)
    for epoch in tqdm(range(config.epochs), "epochs", disable=None):
        order = np.random.default_rng((config.seed, epoch)).permutation(images)
        for step, batch in enumerate(np.array_split(order, steps)):
            factor = learning_rate_factor(config, epoch * steps + step, steps)
            for group, head in zip(optimizer.param_groups, heads, strict=True):
                group["lr"] = head.rate * factor
            torch.manual_seed((config.seed * 1_000_003 + epoch) * 1_000_003 + step)
            rows = np.sort(batch)  # as they lie in the file
            inputs, own = features.read(rows), labels[rows]
            loss = torch.zeros(())
            for head, multi_maps in zip(heads, multi_maps_of(heads, inputs), strict=True):
                scores, _ = pooled(head.way, multi_maps, config, training=True)
                loss = loss + multi_label_loss(scores, own)
                if head.way.overlap:
                    loss = loss + head.way.overlap * overlap_of(multi_maps, own)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    set_modes([head for head in heads if head.way.modes], features, labels, images)


def set_modes(heads: Sequence[Head], features: FeatureStore, labels: Tensor, images: Sequence[int]) -> None:
    """Set the deviations of the maps of trained heads, by one pass over the features of the training images."""
    if not heads:
        return
    places: list[list[list[Tensor]]] = [[] for _ in heads]
    for start in range(0, len(images), 16):
        rows = np.array(images[start : start + 16])
        inputs = features.read(rows)
        with torch.no_grad():
            for found, multi_maps in zip(places, multi_maps_of(heads, inputs), strict=True):
                found.append(strongest_places(inputs, class_wise_pool(multi_maps, MAPS), labels[rows]))
    for head, found in zip(heads, places, strict=True):
        of_classes = [torch.cat(parts)[:MAX_PLACES] for parts in zip(*found, strict=True)]
        set_map_modes(head.transfer, of_classes, strength=head.way.modes)
