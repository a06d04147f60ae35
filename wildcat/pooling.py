"""Spatial pooling of WILDCAT (Section 3.3, Equations 2 and 3, and Table 1 of the paper).

Class-wise pooling (Equation 1) is in :mod:`wildcat.class_pooling`; its function is also available here.
The functions compute; the modules store the parameters of a function and show them in their ``repr``.
"""

import math
from collections.abc import Callable
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from wildcat.class_pooling import class_wise_pool as class_wise_pool
from wildcat.errors import WildcatError, check_new_name, guess

Regions: TypeAlias = int | float | Literal["all"]
"""Number of regions of a term: a count (int >= 1), a proportion (0 < float < 1), "all", or 0, which omits the term."""


def check_regions(k: object, name: str = "k") -> None:
    """Check that ``k`` is a number of regions: a count, a proportion, "all" or 0.

    Args:
        k: the value to check, see :data:`Regions`.
        name: name of the parameter, for the message.

    Raises:
        ValueError: a number that is not allowed, or another text than "all". ``1.0`` is rejected because it could mean
            one region or all of them.
        TypeError: neither a number nor a text.

    >>> check_regions(0.2)
    >>> check_regions(1.0, "kmax")
    Traceback (most recent call last):
        ...
    ValueError: kmax=1.0 is ambiguous: write 1 for one region or "all" for every region
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
    """The number of regions that ``k`` selects from a map.

    Args:
        k: a count, which is capped at ``total``; a proportion, which gives ``round(k * total)`` but at least 1; "all",
            which gives ``total``; or 0.
        total: number of regions of the map, h * w.

    Raises:
        ValueError, TypeError: as :func:`check_regions`.

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


def _mean_of_selected(maps: Tensor, count: int, largest: bool) -> Tensor:
    """Mean of the ``count`` highest (or lowest) values of the last axis; their gradient is 1 / count, all others 0."""
    if count == maps.shape[-1]:
        return maps.mean(dim=-1)
    if count == 1:
        # In a tie, max and min along a dimension pass the gradient to one region; amax and amin would divide it.
        return (maps.max(dim=-1) if largest else maps.min(dim=-1)).values
    return maps.topk(count, dim=-1, largest=largest, sorted=False).values.mean(dim=-1)


def _regions(class_maps: Tensor) -> Tensor:
    if class_maps.ndim != 4 or class_maps.shape[2] * class_maps.shape[3] == 0:
        raise ValueError(f"class_maps must be (N, C, h, w) with h, w >= 1; got shape {tuple(class_maps.shape)}")
    return class_maps.flatten(2)  # (N, C, n), n = h * w


def spatial_pool(class_maps: Tensor, kmax: Regions = 1, kmin: Regions | None = None, alpha: float = 1.0) -> Tensor:
    """Pool class maps to scores (spatial pooling, Equations 2 and 3).

    A score is the mean of the k+ highest activations of a class map plus alpha times the mean of its k- lowest ones.
    The gradient is 1 / k+ in the highest regions, alpha / k- in the lowest ones and 0 elsewhere. Among equal
    activations the selection is arbitrary, but exactly k regions are selected.

    Args:
        class_maps: (N, C, h, w), floating point, with h, w >= 1; any range.
        kmax: k+, a count, a proportion, "all" or 0, see :data:`Regions`.
        kmin: k-, likewise; None is the same as ``kmax``.
        alpha: weight of the lowest regions, finite; 0 omits their term.

    Returns:
        Scores (N, C), logits (unbounded), of the dtype of ``class_maps``.

    Raises:
        ValueError: another shape, a bad number of regions or alpha, or both terms omitted.
        TypeError: a number of regions that is not a number or a text.

    The highest activation is 4, the lowest -2, so the score is 4 + 0.5 * (-2):

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
    """Check the parameters of Equation 3: each for itself, and that they select at least one region.

    Args:
        kmax: k+, see :data:`Regions`.
        kmin: k-, see :data:`Regions`.
        alpha: weight of the lowest regions.

    Raises:
        ValueError: a value that is not allowed, or no region is selected.
        TypeError: a number of regions that is not a number or a text.

    >>> check_pooling(kmax=0.2, kmin=0.2, alpha=0.7)
    >>> check_pooling(kmax=0, kmin=1, alpha=0.0)
    Traceback (most recent call last):
        ...
    ValueError: no region is selected with kmax=0, kmin=1, alpha=0.0
    """
    check_regions(kmax, "kmax")
    check_regions(kmin, "kmin")
    if not math.isfinite(alpha):
        raise ValueError(f"alpha must be a finite number; got {alpha!r}")
    if kmax == 0 and (kmin == 0 or alpha == 0):
        raise ValueError(f"no region is selected with kmax={kmax!r}, kmin={kmin!r}, alpha={alpha!r}")


def log_sum_exp_pool(class_maps: Tensor, sharpness: float = 5.0) -> Tensor:
    """Soft maximum log(mean(exp(r x))) / r over the regions of each map, as in ProNet and MIL-Base.

    These are the baselines of the paper's comparison: Sun et al., CVPR 2016, and Pinheiro and Collobert, CVPR 2015.

    Args:
        class_maps: (N, C, h, w), floating point, with h, w >= 1; any range.
        sharpness: r, finite and above 0. The result tends to the mean for r -> 0, to the maximum for r -> infinity.

    Returns:
        Scores (N, C), unbounded, between mean and maximum of each map.

    Raises:
        ValueError: another shape or sharpness.

    >>> round(log_sum_exp_pool(torch.tensor([[[[4.0, 1.0], [-2.0, 0.0]]]]), sharpness=5.0).item(), 3)
    3.723
    """
    _check_sharpness(sharpness)
    regions = _regions(class_maps)
    return (torch.logsumexp(regions * sharpness, dim=2) - math.log(regions.shape[2])) / sharpness


def _check_sharpness(sharpness: float) -> None:
    if not (sharpness > 0 and math.isfinite(sharpness)):
        raise ValueError(f"sharpness must be a finite number above 0; got {sharpness!r}")


class SpatialPool(nn.Module):
    """:func:`spatial_pool` as a module.

    Args:
        kmax: k+, see :data:`Regions`.
        kmin: k-, likewise; None is the same as ``kmax``.
        alpha: weight of the lowest regions.

    Raises:
        ValueError, TypeError: as :func:`check_pooling`.

    >>> SpatialPool(kmax=0.2, alpha=0.7)(torch.rand(2, 20, 7, 7)).shape
    torch.Size([2, 20])
    """

    def __init__(self, kmax: Regions = 1, kmin: Regions | None = None, alpha: float = 1.0) -> None:
        super().__init__()
        self.kmax: Regions = kmax
        self.kmin: Regions = kmax if kmin is None else kmin
        self.alpha = alpha
        check_pooling(self.kmax, self.kmin, alpha)

    def forward(self, class_maps: Tensor) -> Tensor:
        """Class maps (N, C, h, w) -> scores (N, C)."""
        return spatial_pool(class_maps, self.kmax, self.kmin, self.alpha)

    def extra_repr(self) -> str:
        """The parameters, for ``repr``."""
        return f"kmax={self.kmax!r}, kmin={self.kmin!r}, alpha={self.alpha}"


class LogSumExpPool(nn.Module):
    """:func:`log_sum_exp_pool` as a module.

    Args:
        sharpness: r, finite and above 0.

    Raises:
        ValueError: another sharpness.

    >>> LogSumExpPool()(torch.rand(2, 20, 7, 7)).shape
    torch.Size([2, 20])
    """

    def __init__(self, sharpness: float = 5.0) -> None:
        super().__init__()
        _check_sharpness(sharpness)
        self.sharpness = sharpness

    def forward(self, class_maps: Tensor) -> Tensor:
        """Class maps (N, C, h, w) -> scores (N, C)."""
        return log_sum_exp_pool(class_maps, self.sharpness)

    def extra_repr(self) -> str:
        """The parameter, for ``repr``."""
        return f"sharpness={self.sharpness}"


POOLINGS = ("wildcat", "weldon", "top", "llp", "max", "average", "lse")
"""Names of the package's poolings: the rows of Table 1, and log-sum-exp. "llp" is an alias of "top"."""

PoolingFactory: TypeAlias = Callable[[Regions, Regions | None, float], nn.Module]
"""Makes a pooling from the settings kmax, kmin and alpha, in this order; it may ignore them."""


def _mean_of_highest(kmax: Regions, kmin: Regions | None, alpha: float) -> SpatialPool:
    return SpatialPool(kmax, 0, 0.0)


_factories: dict[str, PoolingFactory] = {
    "wildcat": SpatialPool,
    "weldon": lambda kmax, kmin, alpha: SpatialPool(kmax, kmax, 1.0),
    "top": _mean_of_highest,
    "llp": _mean_of_highest,  # an alias of "top"
    "max": lambda kmax, kmin, alpha: SpatialPool(1, 0, 0.0),
    "average": lambda kmax, kmin, alpha: SpatialPool("all", 0, 0.0),
    "lse": lambda kmax, kmin, alpha: LogSumExpPool(),
}


def register_pooling(name: str, factory: PoolingFactory) -> None:
    """Register a pooling of your own by a name, for :class:`wildcat.TrainConfig`, run directories and loading.

    Register it in every process that trains or loads such a model, before the training or loading. Registering a name
    again replaces the factory.

    Args:
        name: letters, digits, "-" and "_"; not one of :data:`POOLINGS`.
        factory: called with the settings ``kmax``, ``kmin`` and ``alpha``; returns a module that maps class maps
            (N, C, h, w) to scores (N, C). Its parameters, if any, are trained with the head and saved with the weights.

    Raises:
        ValueError: the name of a pooling of the package, or other characters.

    >>> class QuantilePool(nn.Module):
    ...     def forward(self, class_maps):
    ...         return class_maps.flatten(2).quantile(0.5, dim=2)
    >>> register_pooling("quantile", lambda kmax, kmin, alpha: QuantilePool())
    >>> create_pooling("quantile")(torch.tensor([[[[4.0, 1.0, 0.0]]]])).item()
    1.0

    ``TrainConfig(pooling="quantile")`` and ``wildcat.create_model(..., pooling="quantile")`` then take it.
    """
    check_new_name(name, "pooling", POOLINGS)
    _factories[name] = factory


def check_pooling_name(name: str) -> None:
    """Check that a name is that of a pooling of the package or of a registered one.

    Raises:
        WildcatError: another name.

    >>> check_pooling_name("wildcat")
    """
    if name not in _factories:
        raise WildcatError(
            f"unknown pooling {name!r}{guess(name, _factories)}; known: {', '.join(_factories)} "
            "(register a pooling of your own with wildcat.pooling.register_pooling first)"
        )


def create_pooling(
    name: str = "wildcat", kmax: Regions = 0.2, kmin: Regions | None = None, alpha: float = 0.7
) -> nn.Module:
    """Build a pooling by name: one of Table 1, or one registered with :func:`register_pooling`.

    ============  ======  ======  =====
    name          k+      k-      alpha
    ============  ======  ======  =====
    wildcat       kmax    kmin    alpha
    weldon        kmax    kmax    1
    top, llp      kmax    0       0
    max           1       0       0
    average       all     0       0
    ============  ======  ======  =====

    "llp" is an alias of "top". The two methods, top instances (Li and Vasconcelos, CVPR 2015) and learning from label
    proportions (Yu et al., 2013), differ only in k: the former uses a count, the latter a proportion. "lse" is
    :class:`LogSumExpPool`.

    Args:
        name: one of :data:`POOLINGS`, or a registered name.
        kmax: k+, see :data:`Regions`; ignored where the name fixes it.
        kmin: k-, likewise; None is the same as ``kmax``.
        alpha: weight of the lowest regions; ignored where the name fixes it.

    Returns:
        A module from class maps (N, C, h, w) to scores (N, C).

    Raises:
        WildcatError: an unknown name.
        ValueError, TypeError: parameters that :func:`check_pooling` rejects.

    >>> create_pooling("top", kmax=3)
    SpatialPool(kmax=3, kmin=0, alpha=0.0)
    """
    check_pooling_name(name)
    return _factories[name](kmax, kmin, alpha)
