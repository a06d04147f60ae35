"""BatchNorm over the whole batch when several processes each hold a part of it.

PyTorch's SyncBatchNorm does this on GPUs only. It also replaces modules, which breaks references to them
(batchnorm_folding.py). Here a BatchNorm that learns sums over the processes by differentiable operations: on any device
and with parts of unequal size. Parameters, state dict and module tree stay as they are.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, distributed, nn


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; gradients are summed over them as well."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _sum_over_processes(gradient)


def _sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of a tensor over all processes, differentiable; PyTorch's own function of this kind is deprecated."""
    total: Tensor = _SumOverProcesses.apply(tensor)
    return total


class _SynchronizedNorm:
    """A base class in front of BatchNorm's own; in evaluation mode it changes nothing."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.training:
            unchanged: Tensor = super().forward(x)  # type: ignore[misc]
            return unchanged
        wide = x.float()
        own_count = wide.new_tensor([x.shape[0] * x.shape[2] * x.shape[3]])  # values per channel in this process
        sums = _sum_over_processes(torch.cat([wide.sum(dim=(0, 2, 3)), own_count]))
        count = sums[-1]
        mean = sums[:-1] / count
        centred = wide - mean[:, None, None]
        variance = _sum_over_processes(centred.square().sum(dim=(0, 2, 3))) / count
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                # momentum None is PyTorch's cumulative average
                weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, weight)
                self.running_var.lerp_(variance * count / (count - 1), weight)  # unbiased, as in PyTorch
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        normed = centred * scale[:, None, None]
        if self.affine:
            normed = normed + self.bias[:, None, None]
        normed = normed.to(x.dtype)
        for name in ("drop", "act"):  # timm's BatchNorm includes its activation
            if hasattr(self, name):
                normed = getattr(self, name)(normed)
        return normed


@cache
def _synchronized_class(base: type[Any]) -> type[Any]:
    return type(f"Synchronized{base.__name__}", (_SynchronizedNorm, base), {})


def synchronize_batchnorm(net: nn.Module) -> int:
    """Make each BatchNorm of a network normalize over the images of all processes while it is in training mode.

    Returns:
        The number of BatchNorm modules.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in norms:
        module.__class__ = _synchronized_class(type(module))  # type: ignore[arg-type]
    return len(norms)
