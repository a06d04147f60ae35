"""Class-wise and spatial pooling of WILDCAT (Sections 3.2 and 3.3, Equations 1 to 3 and Table 1 of the paper).

The arithmetic is in functions without state; the modules store the parameters and print them.
"""

import math
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

Regions: TypeAlias = int | float | Literal["all"]
"""How many regions a term selects: a count (int >= 1), a proportion (float between 0 and 1), "all", or 0 for none."""


def check_regions(k: object, name: str = "k") -> None:
    """Reject a number of regions that is not a count, a proportion, "all" or 0.

    Raises:
        ValueError: naming the value and what is allowed. ``1.0`` is rejected because it could mean one region or all.
        TypeError: if ``k`` is neither a number nor "all".
    """
    allowed = 'an int >= 1 (a count), a float between 0 and 1 (a proportion), "all", or 0 (term off)'
    if k == "all" and isinstance(k, str):
        return
    if isinstance(k, bool) or not isinstance(k, (int, float)):  # a tuple: PyTorch 2.6 cannot compile int | float
        raise TypeError(f"{name} must be {allowed}; got {k!r}")
    if k == 1 and isinstance(k, float):
        raise ValueError(f'{name}=1.0 is ambiguous: write 1 for one region or "all" for every region')
    if k == 0 or (isinstance(k, int) and k >= 1) or (isinstance(k, float) and 0 < k < 1):
        return
    raise ValueError(f"{name} must be {allowed}; got {k!r}")


def count_regions(k: Regions, total: int) -> int:
    """Number of regions that ``k`` selects out of ``total`` = h * w.

    A count is capped at ``total``; a proportion is ``round(k * total)`` but at least 1; "all" is ``total``; 0 is 0.

    >>> count_regions(0.2, 196), count_regions(0.2, 1), count_regions(50, 49), count_regions("all", 49)
    (39, 1, 49, 49)
    """
    check_regions(k)
    if k == "all":
        return total
    if isinstance(k, int) or k == 0:
        return min(int(k), total)
    assert isinstance(k, float)
    return max(1, round(k * total))


def class_wise_pool(multi_maps: Tensor, num_maps: int) -> Tensor:
    """Mean over the ``num_maps`` maps of each class (Equation 1).

    Args:
        multi_maps: (N, C * M, h, w), class-major: channel c * M + m is map m of class c.
        num_maps: M >= 1.

    Returns:
        Class maps (N, C, h, w).

    Raises:
        ValueError: if the channels are not a multiple of ``num_maps``.

    >>> class_wise_pool(torch.arange(4.0).reshape(1, 4, 1, 1), num_maps=2).flatten().tolist()
    [0.5, 2.5]
    """
    if multi_maps.ndim != 4:
        raise ValueError(f"multi_maps must be (N, C*M, h, w); got shape {tuple(multi_maps.shape)}")
    if num_maps < 1 or multi_maps.shape[1] % num_maps:
        raise ValueError(f"{multi_maps.shape[1]} channels cannot be split into groups of num_maps={num_maps}")
    if num_maps == 1:
        return multi_maps
    class_maps: Tensor = multi_maps.unflatten(1, (-1, num_maps)).mean(dim=2)  # (N, C, M, h, w) -> (N, C, h, w)
    return class_maps


def _mean_of_selected(maps: Tensor, count: int, largest: bool) -> Tensor:
    """Mean of the ``count`` highest (or lowest) of the last axis; the gradient is 1 / count there and 0 elsewhere."""
    if count == maps.shape[-1]:
        return maps.mean(dim=-1)
    if count == 1:
        # max and min with a dimension send the gradient to one region even in a tie; amax and amin would share it.
        return (maps.max(dim=-1) if largest else maps.min(dim=-1)).values
    return maps.topk(count, dim=-1, largest=largest, sorted=False).values.mean(dim=-1)


def _regions(class_maps: Tensor) -> Tensor:
    if class_maps.ndim != 4 or class_maps.shape[2] * class_maps.shape[3] == 0:
        raise ValueError(f"class_maps must be (N, C, h, w) with h, w >= 1; got shape {tuple(class_maps.shape)}")
    return class_maps.flatten(2)  # (N, C, n), n = h * w


def spatial_pool(class_maps: Tensor, kmax: Regions = 1, kmin: Regions | None = None, alpha: float = 1.0) -> Tensor:
    """Mean of the k+ highest activations plus alpha times the mean of the k- lowest ones (Equations 2 and 3).

    The gradient reaches the selected regions only: 1 / k+ in the highest and alpha / k- in the lowest. Among equal
    activations the choice is arbitrary but exactly k regions are chosen.

    Args:
        class_maps: (N, C, h, w), floating point.
        kmax: k+, a count, a proportion, "all" or 0.
        kmin: k-, likewise; None means the same as ``kmax``.
        alpha: weight of the lowest regions, finite; 0 switches their term off.

    Returns:
        Scores (N, C), unbounded, of the type of ``class_maps``.

    Raises:
        ValueError, TypeError: for a bad shape, k or alpha, and if both terms are switched off.

    >>> spatial_pool(torch.tensor([[[[4.0, 1.0], [-2.0, 0.0]]]]), kmax=1, kmin=1, alpha=0.5).item()
    3.0
    """
    kmin = kmax if kmin is None else kmin
    check_pooling(kmax, kmin, alpha)
    regions = _regions(class_maps)
    highest = count_regions(kmax, regions.shape[2])
    lowest = count_regions(kmin, regions.shape[2]) if alpha != 0 else 0
    if not lowest:
        return _mean_of_selected(regions, highest, largest=True)
    lowest_mean = alpha * _mean_of_selected(regions, lowest, largest=False)
    if not highest:
        return lowest_mean
    return _mean_of_selected(regions, highest, largest=True) + lowest_mean


def check_pooling(kmax: object, kmin: object, alpha: float) -> None:
    """Reject parameters of Equation 3 that are invalid one by one or that select no region at all.

    Raises:
        ValueError, TypeError: naming the value and what is allowed.
    """
    check_regions(kmax, "kmax")
    check_regions(kmin, "kmin")
    if not math.isfinite(alpha):
        raise ValueError(f"alpha must be a finite number; got {alpha!r}")
    if kmax == 0 and (kmin == 0 or alpha == 0):
        raise ValueError(f"no region is selected with kmax={kmax!r}, kmin={kmin!r}, alpha={alpha!r}")


def log_sum_exp_pool(class_maps: Tensor, sharpness: float = 5.0) -> Tensor:
    """Soft maximum log(mean(exp(r x))) / r over the regions: the baseline of ProNet and MIL-Base.

    Args:
        class_maps: (N, C, h, w).
        sharpness: r > 0; towards 0 it is the mean, towards infinity the maximum.

    Returns:
        Scores (N, C).

    Raises:
        ValueError: for a bad shape or sharpness.
    """
    _check_sharpness(sharpness)
    regions = _regions(class_maps)
    return (torch.logsumexp(regions * sharpness, dim=2) - math.log(regions.shape[2])) / sharpness


def _check_sharpness(sharpness: float) -> None:
    if not (sharpness > 0 and math.isfinite(sharpness)):
        raise ValueError(f"sharpness must be a finite number above 0; got {sharpness!r}")


class SpatialPool(nn.Module):
    """:func:`spatial_pool` with its parameters."""

    def __init__(self, kmax: Regions = 1, kmin: Regions | None = None, alpha: float = 1.0) -> None:
        super().__init__()
        self.kmax: Regions = kmax
        self.kmin: Regions = kmax if kmin is None else kmin
        self.alpha = alpha
        check_pooling(self.kmax, self.kmin, alpha)

    def forward(self, class_maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C)."""
        return spatial_pool(class_maps, self.kmax, self.kmin, self.alpha)

    def extra_repr(self) -> str:
        """The parameters, for ``print``."""
        return f"kmax={self.kmax!r}, kmin={self.kmin!r}, alpha={self.alpha}"


class LogSumExpPool(nn.Module):
    """:func:`log_sum_exp_pool` with its parameter."""

    def __init__(self, sharpness: float = 5.0) -> None:
        super().__init__()
        _check_sharpness(sharpness)
        self.sharpness = sharpness

    def forward(self, class_maps: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, C)."""
        return log_sum_exp_pool(class_maps, self.sharpness)

    def extra_repr(self) -> str:
        """The parameter, for ``print``."""
        return f"sharpness={self.sharpness}"


POOLINGS = ("wildcat", "weldon", "top", "llp", "max", "average", "lse")
"""Names that :func:`create_pooling` knows: the rows of Table 1, and log-sum-exp."""


def create_pooling(
    name: str = "wildcat", kmax: Regions = 0.2, kmin: Regions | None = None, alpha: float = 0.7
) -> SpatialPool | LogSumExpPool:
    """A pooling of Table 1 by name.

    ============  ======  ======  =====
    name          k+      k-      alpha
    ============  ======  ======  =====
    wildcat       kmax    kmin    alpha
    weldon        kmax    kmax    1
    top, llp      kmax    0       0
    max           1       0       0
    average       all     0       0
    ============  ======  ======  =====

    "top" and "llp" differ in what the literature gives as k: a count of instances, and a proportion.
    "lse" is :class:`LogSumExpPool`. Parameters that the name fixes are ignored.

    Raises:
        ValueError: for an unknown name.
    """
    if name == "wildcat":
        return SpatialPool(kmax, kmin, alpha)
    if name == "weldon":
        return SpatialPool(kmax, kmax, 1.0)
    if name in ("top", "llp"):
        return SpatialPool(kmax, 0, 0.0)
    if name == "max":
        return SpatialPool(1, 0, 0.0)
    if name == "average":
        return SpatialPool("all", 0, 0.0)
    if name == "lse":
        return LogSumExpPool()
    raise ValueError(f"unknown pooling {name!r}; known: {', '.join(POOLINGS)}")
