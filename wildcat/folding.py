"""BatchNorm that does not learn, computed inside the convolution before it.

A BatchNorm in evaluation mode is an affine map per channel, so convolution and BatchNorm together are one convolution
with scaled filters: the same function and the same gradient with respect to the filters, but one pass over the feature
map less in each direction. Nothing is baked in: the scaling is computed at each call, parameters, state dict and module
tree stay as they are, and a BatchNorm in training mode works as ever.
"""

from collections import Counter
from functools import cache
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.norm_act import BatchNormAct2d
from timm.layers.padding import pad_same
from torch import Tensor, nn
from torch.nn import functional


class _FoldedConv:
    """Mixed into the class of a convolution whose output goes to one BatchNorm alone."""

    folded_norm: tuple[nn.BatchNorm2d]  # in a tuple, so that it is not a child module twice

    def forward(self: Any, x: Tensor) -> Tensor:
        (norm,) = self.folded_norm
        if norm.training:
            plain: Tensor = super().forward(x)  # type: ignore[misc]
            return plain
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        bias = norm.bias - norm.running_mean * scale
        if self.bias is not None:
            bias = bias + self.bias * scale
        return self._convolve(x, self.weight * scale[:, None, None, None], bias)  # type: ignore[no-any-return]

    def _convolve(self: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return self._conv_forward(x, weight, bias)  # type: ignore[no-any-return]


class _FoldedSameConv(_FoldedConv):
    """For timm's convolution with TensorFlow's asymmetric padding, which depends on the input's size."""

    def _convolve(self: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        x = pad_same(x, self.kernel_size, self.stride, self.dilation)
        return functional.conv2d(x, weight, bias, self.stride, 0, self.dilation, self.groups)


class _AppliedNorm:
    """Mixed into the class of that BatchNorm: its activation is left."""

    def forward(self: Any, x: Tensor) -> Tensor:
        if self.training:
            plain: Tensor = super().forward(x)  # type: ignore[misc]
            return plain
        for part in ("drop", "act"):  # timm's BatchNorm carries its activation
            if hasattr(self, part):
                x = getattr(self, part)(x)
        return x


@cache
def _mixed(mixin: type[Any], base: type[Any]) -> type[Any]:
    return type(f"{mixin.__name__.strip('_')}{base.__name__}", (mixin, base), {})


def fold_norms(net: nn.Module, example: Tensor) -> int:
    """Let each BatchNorm that alone follows a convolution be computed inside it whenever it is in evaluation mode.

    Args:
        net: changed in place; its parameters must require gradients.
        example: an input (N, 3, H, W), to find out what follows what.

    Returns:
        The number of pairs.
    """
    convs: dict[Any, Any] = {}  # node of the autograd graph that made an output -> its convolution
    norms: list[tuple[Any, Any]] = []  # node of the input, BatchNorm

    def note_conv(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        convs[output.grad_fn] = module

    def note_norm(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        norms.append((inputs[0].grad_fn, module))

    hooks = []
    for module in net.modules():
        if type(module) in (nn.Conv2d, Conv2dSame):
            hooks.append(module.register_forward_hook(note_conv))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d) and module.affine and module.track_running_stats:
            hooks.append(module.register_forward_pre_hook(note_norm))
    modes = {module: module.training for module in net.modules()}
    net.eval()
    try:
        with torch.enable_grad():
            uses = _uses(net(example))
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    called = Counter(convs.values()) + Counter(norm for _, norm in norms)
    folded = 0
    for node, norm in norms:
        conv = convs.get(node)
        # A layer that is called twice, or whose output something else reads too, is left alone.
        if conv is None or uses[node] != 1 or called[conv] != 1 or called[norm] != 1:
            continue
        conv.folded_norm = (norm,)
        mixin = _FoldedSameConv if isinstance(conv, Conv2dSame) else _FoldedConv
        conv.__class__ = _mixed(mixin, type(conv))  # type: ignore[arg-type]
        norm.__class__ = _mixed(_AppliedNorm, type(norm))  # type: ignore[arg-type]
        folded += 1
    return folded


def _uses(output: Tensor) -> Counter[Any]:
    """How often the result of each node of the graph behind a tensor is read."""
    uses: Counter[Any] = Counter()
    waiting = [output.grad_fn]
    while waiting:
        node: Any = waiting.pop()
        for before, _ in node.next_functions:
            if before is not None:
                uses[before] += 1
                if uses[before] == 1:
                    waiting.append(before)
    return uses
