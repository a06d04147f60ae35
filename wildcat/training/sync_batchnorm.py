"""BatchNorm over the whole batch, also where several processes each hold a part of it.

PyTorch's SyncBatchNorm does the same on GPUs only, and replaces modules, which breaks what refers to them (folding.py).
Here a BatchNorm that learns sums over the processes through differentiable operations: on any device, with parts of
unequal size, and parameters, state dict and module tree stay as they are.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.nn import functional as over_processes


class _SharedNorm:
    """Mixed into the class of a BatchNorm; in evaluation mode it changes nothing."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if not self.training:
            plain: Tensor = super().forward(x)  # type: ignore[misc]
            return plain
        wide = x.float()
        here = wide.new_tensor([x.shape[0] * x.shape[2] * x.shape[3]])  # values per channel
        sums = over_processes.all_reduce(torch.cat([wide.sum(dim=(0, 2, 3)), here]))
        count = sums[-1]
        mean = sums[:-1] / count
        centred = wide - mean[:, None, None]
        variance = over_processes.all_reduce(centred.square().sum(dim=(0, 2, 3))) / count
        if self.track_running_stats:
            with torch.no_grad():
                self.num_batches_tracked += 1
                # momentum None is PyTorch's cumulative average
                weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, weight)
                self.running_var.lerp_(variance * count / (count - 1), weight)  # the unbiased one, as PyTorch keeps
        scale = torch.rsqrt(variance + self.eps)
        if self.affine:
            scale = scale * self.weight
        normed = centred * scale[:, None, None]
        if self.affine:
            normed = normed + self.bias[:, None, None]
        normed = normed.to(x.dtype)
        for part in ("drop", "act"):  # timm's BatchNorm carries its activation
            if hasattr(self, part):
                normed = getattr(self, part)(normed)
        return normed  # type: ignore[no-any-return]


@cache
def _mixed(base: type[Any]) -> type[Any]:
    return type(f"Shared{base.__name__}", (_SharedNorm, base), {})


def synchronize_batchnorm(net: nn.Module) -> int:
    """Let each BatchNorm of a network, while in training mode, normalise over the parts of all processes.

    Returns:
        Their number.
    """
    found = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in found:
        module.__class__ = _mixed(type(module))  # type: ignore[arg-type]
    return len(found)
