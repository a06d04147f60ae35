"""The setting fit_maps: the M maps of a class show M kinds of places where its evidence is; no score changes.

Under the mean as class-wise pooling (Equation 1) only the mean filter of a class learns. The deviations of its M
filters from it are free: as long as they sum to 0, class maps and scores are the same. Here they are set from the data:
the features at the strongest cells of the class, in images that hold it, are clustered into M kinds, and the deviation
of filter m points from the mean of the kinds to kind m. Map m then is highest where the evidence is of its kind.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wildcat.class_pooling import class_wise_pool
from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.model import Wildcat
from wildcat.training.data import EvalDataset
from wildcat.training.feature_store import FeatureStore
from wildcat.training.head_start import fitted_images
from wildcat.transfer import MultiMapTransfer, class_filters

CELLS = 0.1  # share of the cells of an image, the strongest of the class, whose features are clustered
STRENGTH = 1.0  # norm of the deviations, as a multiple of that of the mean filter
MAX_PLACES = 2000  # of a class that are clustered
MAX_ALL_PLACES = 50_000  # of all classes: they are kept in memory
_BATCH = 16  # images whose features are computed together


def with_fitted_maps(
    weights: Mapping[str, Tensor],
    model: Wildcat,
    dataset: Dataset,
    config: TrainConfig,
    store: FeatureStore | None = None,
) -> dict[str, Tensor]:
    """The weights of a trained model, with maps that show kinds of places; class maps and scores are the same.

    Args:
        weights: the model's state dict.
        model: of the same structure, whole; gets the new weights, and is left in evaluation mode.
        dataset: the training images.
        config: the settings; only ``image_size`` and ``seed`` are used.
        store: the features of a frozen backbone; otherwise they are computed.
    """
    model.load_state_dict(dict(weights))
    model.eval()
    places = collect_places(model, dataset, config, store)
    set_map_modes(model.transfer, places, seed=config.seed)
    fitted = {"transfer.weight": model.transfer.weight.detach(), "transfer.bias": model.transfer.bias.detach()}
    return {**weights, **fitted}


def collect_places(
    model: Wildcat, dataset: Dataset, config: TrainConfig, store: FeatureStore | None = None
) -> list[Tensor]:
    """The features at the strongest cells of each class, of some of the images that hold it: C tensors (P, D).

    Args:
        model: in evaluation mode.
        dataset: N images of C classes; a background class of the model is none of them.
        config: ``image_size`` and ``seed`` are used.
        store: the features of a frozen backbone; otherwise they are computed.
    """
    labels = torch.from_numpy(dataset.labels)
    images = EvalDataset(dataset, config.image_size)
    order = np.random.default_rng(config.seed).permutation(fitted_images(dataset.labels, config.seed))
    limit = max(model.num_maps, min(MAX_PLACES, MAX_ALL_PLACES // labels.shape[1]))
    device = model.transfer.weight.device
    found: list[list[Tensor]] = [[] for _ in dataset.classes]
    missing = np.full(labels.shape[1], limit)
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        if not (labels[rows].numpy() == 1)[:, missing > 0].any():
            continue
        with torch.inference_mode():
            if store is None:
                pixels = torch.stack([images[int(row)][0] for row in rows]).to(device)
                features = model.backbone(model.normalize(pixels.permute(0, 3, 1, 2))).float()
            else:
                features = store.read(rows).to(device)
            class_maps = class_wise_pool(model.transfer(features), model.num_maps)
            for c, places in enumerate(strongest_places(features, class_maps, labels[rows])):
                found[c].append(places[: missing[c]].cpu())
                missing[c] -= len(found[c][-1])
    return [torch.cat(parts) if parts else torch.empty(0, model.transfer.in_channels) for parts in found]


def strongest_places(features: Tensor, class_maps: Tensor, labels: Tensor) -> list[Tensor]:
    """The features at the strongest cells of each class, of the images that hold it.

    Args:
        features: (N, D, h, w).
        class_maps: (N, C, h, w).
        labels: (N, C): 1 if the image holds the class; the class maps of further classes are not used.

    Returns:
        C tensors (P, D): of each image that holds the class, a tenth of the cells, but at least one.
    """
    count = max(1, round(CELLS * class_maps.shape[2] * class_maps.shape[3]))
    columns = features.flatten(2).transpose(1, 2)  # (N, h * w, D)
    found = []
    for c in range(labels.shape[1]):
        rows = (labels[:, c] == 1).nonzero().flatten().to(class_maps.device)
        cells = class_maps[rows, c].flatten(1).topk(count, dim=1).indices  # (n, count)
        found.append(columns[rows[:, None], cells].flatten(0, 1))
    return found


def set_map_modes(
    transfer: MultiMapTransfer, places: Sequence[Tensor], *, strength: float = STRENGTH, seed: int = 0
) -> None:
    """Set the deviations of the M filters of each class by M kinds of places; class maps stay, up to rounding.

    Args:
        transfer: of a model whose class-wise pooling is the mean; changed in place.
        places: features (P, D) of each class, as of :func:`collect_places`; a class with fewer than M places keeps
            its filters, as do further classes of the layer.
        strength: norm of the deviations, on average, as a multiple of the norm of the mean filter; above 0.
        seed: of the clustering.

    >>> transfer = MultiMapTransfer(8, num_classes=1, num_maps=2)
    >>> before = [value.clone() for value in class_filters(transfer)]
    >>> set_map_modes(transfer, [torch.rand(50, 8)])
    >>> all(torch.allclose(a, b, atol=1e-6) for a, b in zip(class_filters(transfer), before))
    True
    """
    means, biases = class_filters(transfer)
    maps = transfer.num_maps
    with torch.no_grad():
        weight = transfer.weight.flatten(1).unflatten(0, (-1, maps))  # (C, M, D), a view
        bias = transfer.bias.unflatten(0, (-1, maps))
        for c, found in enumerate(places):
            if maps == 1 or len(found) < maps:
                continue
            kinds = torch.from_numpy(_kinds(found.numpy(), maps, seed)).to(weight)  # (M, D)
            if len(kinds) < maps:  # most places are equal
                continue
            centre = kinds.mean(dim=0)
            deviations = kinds - centre
            deviations *= strength * means[c].norm() / deviations.norm(dim=1).mean().clamp(min=1e-12)
            weight[c] = means[c] + deviations
            bias[c] = biases[c] - deviations @ centre  # the deviation is 0 at the centre of the kinds


def _kinds(places: npt.NDArray[np.float32], count: int, seed: int) -> npt.NDArray[np.float32]:
    """The centres (M, D) of M clusters of the places by their directions; fewer if fewer places differ."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    directions = places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of fewer places that differ than clusters
        labels = KMeans(count, n_init=2, random_state=seed).fit_predict(directions)
    return np.stack([places[labels == m].mean(axis=0) for m in np.unique(labels)])
