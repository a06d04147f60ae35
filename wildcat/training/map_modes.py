"""Lets the M maps of a class show the kinds of places where its evidence is, without a change of any score.

Under the mean as class-wise pooling (Equation 1) only the mean filter of a class learns. The deviations of its M
filters from it are free: as long as they sum to 0, class maps and scores are the same. Here they are set from the data:
the features at the strongest cells of the class, in images that hold it, are clustered into M kinds, and the deviation
of filter m points from the mean of the kinds to kind m. Map m then is highest where the evidence is of its kind.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wildcat.transfer import MultiMapTransfer, class_filters

CELLS = 0.1  # share of the cells of an image, the strongest of the class, whose features are clustered
MAX_PLACES = 2000  # of a class that are clustered
STRENGTH = 1.0  # norm of the deviations, as a multiple of that of the mean filter


def strongest_places(features: Tensor, class_maps: Tensor, labels: Tensor) -> list[Tensor]:
    """The features at the strongest cells of each class, of the images that hold it.

    Args:
        features: (N, D, h, w).
        class_maps: (N, C, h, w).
        labels: (N, C): 1 if the image holds the class.

    Returns:
        C tensors (P, D): of each image that holds the class, a tenth of the cells, but at least one.
    """
    count = max(1, round(CELLS * class_maps.shape[2] * class_maps.shape[3]))
    columns = features.flatten(2).transpose(1, 2)  # (N, h * w, D)
    found = []
    for c in range(class_maps.shape[1]):
        rows = (labels[:, c] == 1).nonzero().flatten()
        cells = class_maps[rows, c].flatten(1).topk(count, dim=1).indices  # (n, count)
        found.append(columns[rows[:, None], cells].flatten(0, 1))
    return found


def set_map_modes(
    transfer: MultiMapTransfer, places: Sequence[Tensor], *, strength: float = STRENGTH, seed: int = 0
) -> None:
    """Set the deviations of the M filters of each class by M kinds of places; class maps stay, up to rounding.

    Args:
        transfer: of a model whose class-wise pooling is the mean; changed in place.
        places: features (P, D) of each class, as of :func:`strongest_places`; a class with fewer than M places keeps
            its filters.
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
            kinds = torch.from_numpy(_kinds(found.numpy().astype(np.float64), maps, seed)).to(weight)  # (M, D)
            if len(kinds) < maps:  # most places are equal
                continue
            centre = kinds.mean(dim=0)
            deviations = kinds - centre
            deviations *= strength * means[c].norm() / deviations.norm(dim=1).mean().clamp(min=1e-12)
            weight[c] = means[c] + deviations
            bias[c] = biases[c] - deviations @ centre  # the deviation is 0 at the centre of the kinds


def _kinds(places: npt.NDArray[np.float64], count: int, seed: int) -> npt.NDArray[np.float64]:
    """The centres (M, D) of M clusters of the places by their directions; fewer if fewer places differ."""
    from sklearn.cluster import KMeans

    if len(places) > MAX_PLACES:
        places = places[np.sort(np.random.default_rng(seed).permutation(len(places))[:MAX_PLACES])]
    directions = places / np.maximum(np.linalg.norm(places, axis=1, keepdims=True), 1e-12)
    labels = KMeans(count, n_init=2, random_state=seed).fit_predict(directions)
    return np.stack([places[labels == m].mean(axis=0) for m in np.unique(labels)])
