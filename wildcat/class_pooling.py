"""Class-wise pooling (Section 3.2, Equation 1): the M maps of a class become its class map.

Equation 1 leaves the pooling open. The paper takes the mean, under which the M maps of a class receive the same
gradient, so that they differ only by their initial filters. The other kinds give more gradient to the map that is
strongest at a place, so that maps can specialize; map dropout keeps all of them in use.
"""

import math
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from wildcat.errors import WildcatError, check_choice

ClassPooling: TypeAlias = Literal["mean", "max", "lse", "softmax"]
"""How the M maps of a class are pooled at each position, see :func:`class_wise_pool`."""

CLASS_POOLINGS: tuple[ClassPooling, ...] = get_args(ClassPooling)

SHARPNESS = 5.0  # of "lse" and "softmax", as of the spatial log-sum-exp


def check_class_pooling(kind: str, map_dropout: float = 0.0) -> None:
    """Check the parameters of the class-wise pooling.

    Args:
        kind: one of :data:`CLASS_POOLINGS`.
        map_dropout: at least 0, below 1.

    Raises:
        WildcatError: another value.

    >>> check_class_pooling("lse", 0.5)
    """
    check_choice(kind, CLASS_POOLINGS, "class_pooling")
    if not 0 <= map_dropout < 1:
        raise WildcatError(f"map_dropout must be at least 0 and below 1; got {map_dropout!r}")


def class_wise_pool(
    multi_maps: Tensor,
    num_maps: int,
    kind: ClassPooling = "mean",
    *,
    sharpness: float = SHARPNESS,
    kept: Tensor | None = None,
) -> Tensor:
    """Pool the M maps of each class to its class map, at each position (class-wise pooling, Equation 1).

    =======  =======================================  =============================================
    kind     class map y of the M values x at a cell  gradient of map m
    =======  =======================================  =============================================
    mean     mean(x)                                  1 / M
    max      max(x)                                   1 where it is the highest, 0 elsewhere
    lse      log(mean(exp(r x))) / r                  p[m], where p = softmax(r x)
    softmax  sum(p x)                                 p[m] (1 + r (x[m] - y)), which may be below 0
    =======  =======================================  =============================================

    "mean" is the paper's, and the only one that is linear: only its M filters can be merged into one. "lse" and
    "softmax" lie between mean and maximum and tend to the maximum for large r.

    Args:
        multi_maps: (N, C * M, h, w), class-major: channel c * M + m is map m of class c. Floating point, any range.
        num_maps: M >= 1.
        kind: one of :data:`CLASS_POOLINGS`.
        sharpness: r of "lse" and "softmax", finite and above 0.
        kept: (N, C, M) bool, the maps of each image and class that are pooled, at least one of each class (map
            dropout, see :func:`choose_kept_maps`); all unless given.

    Returns:
        Class maps (N, C, h, w), of the dtype of ``multi_maps``; half precision is computed in single precision. With
        M = 1 this is ``multi_maps`` itself, for every kind.

    Raises:
        ValueError: another number of dimensions, channels that are not a multiple of ``num_maps``, or a sharpness that
            is not a finite number above 0.
        WildcatError: an unknown kind.

    >>> multi_maps = torch.arange(4.0).reshape(1, 4, 1, 1)
    >>> class_wise_pool(multi_maps, num_maps=2).flatten().tolist()
    [0.5, 2.5]
    >>> class_wise_pool(multi_maps, num_maps=2, kind="max").flatten().tolist()
    [1.0, 3.0]
    """
    if multi_maps.ndim != 4:
        raise ValueError(f"multi_maps must be (N, C*M, h, w); got shape {tuple(multi_maps.shape)}")
    if num_maps < 1 or multi_maps.shape[1] % num_maps:
        raise ValueError(f"{multi_maps.shape[1]} channels cannot be split into groups of num_maps={num_maps}")
    check_class_pooling(kind)
    if not (sharpness > 0 and math.isfinite(sharpness)):
        raise ValueError(f"sharpness must be a finite number above 0; got {sharpness!r}")
    if num_maps == 1:
        return multi_maps
    maps = multi_maps.unflatten(1, (-1, num_maps))  # (N, C, M, h, w)
    if maps.dtype in (torch.float16, torch.bfloat16):
        maps = maps.float()
    counted = None if kept is None else kept[..., None, None]  # (N, C, M, 1, 1)
    pooled = _mean(maps, counted) if kind == "mean" else _soft_maximum(maps, counted, kind, sharpness)
    return pooled.to(multi_maps.dtype)


def _mean(maps: Tensor, kept: Tensor | None) -> Tensor:
    """Mean over the kept ones (N, C, M, 1, 1) of the M maps (N, C, M, h, w)."""
    return maps.mean(dim=2) if kept is None else torch.where(kept, maps, 0).sum(dim=2) / kept.sum(dim=2)


def _soft_maximum(maps: Tensor, kept: Tensor | None, kind: ClassPooling, sharpness: float) -> Tensor:
    """The kinds near a maximum, of maps (N, C, M, h, w) and kept (N, C, M, 1, 1)."""
    counted = maps if kept is None else maps.masked_fill(~kept, -math.inf)
    highest = counted.max(dim=2, keepdim=True).values  # (N, C, 1, h, w); in a tie the gradient goes to one map
    if kind == "max":
        return highest.squeeze(2)
    # Relative to the highest value, which cancels: exp cannot overflow, and it needs no gradient of its own.
    highest = highest.detach()
    powers = ((counted - highest) * sharpness).exp()  # in [0, 1], the largest is 1
    if kind == "softmax":
        return (powers * maps).sum(dim=2) / powers.sum(dim=2)
    count: int | Tensor = maps.shape[2] if kept is None else kept.sum(dim=2)
    return highest.squeeze(2) + (powers.sum(dim=2) / count).log() / sharpness


def choose_kept_maps(shape: tuple[int, int, int], dropout: float, device: torch.device | None = None) -> Tensor:
    """Choose the maps that a training step pools; the others of a class are dropped (map dropout).

    Each image and class keeps ``(1 - dropout) * M`` maps, chosen at random: exactly, if that is a whole number, and on
    average otherwise; but at least one.

    Args:
        shape: (N, C, M).
        dropout: share of the maps of a class to drop, at least 0 and below 1.
        device: of the result.

    Returns:
        (N, C, M) bool.

    >>> choose_kept_maps((2, 3, 4), dropout=0.5).sum(dim=2).tolist()
    [[2, 2, 2], [2, 2, 2]]
    """
    images, classes, maps = shape
    place = torch.rand(shape, device=device).argsort(dim=2).argsort(dim=2)  # of each map in a random order
    whole, fraction = divmod(maps * (1 - dropout), 1)
    one_more = torch.rand(images, classes, 1, device=device) < fraction
    return place < (int(whole) + one_more.int()).clamp(min=1)
