"""Folding of BatchNorm that does not learn into the convolution before it.

A BatchNorm in evaluation mode is an affine map per channel, so convolution and BatchNorm together are one convolution
with scaled filters: the same function and the same gradient with respect to the filters, but one pass over the feature
map less in each direction. The scaling is computed at each call: parameters, state dict and module tree stay as they
are, and a BatchNorm in training mode works as before. Only :func:`with_folded_batchnorm` makes a copy, for inference,
with scaled filters.
"""

import copy
import sys
from collections import Counter
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class _FoldedConv:
    """Mixed into the class of a convolution whose output goes to one BatchNorm only."""

    folded_norm: tuple[nn.BatchNorm2d]  # in a tuple, so that it is not a child module twice

    def forward(self: Any, x: Tensor) -> Tensor:
        (norm,) = self.folded_norm
        if norm.training:
            plain: Tensor = super().forward(x)  # type: ignore[misc]
            return plain
        return self._convolve(x, *_scaled(self, norm))  # type: ignore[no-any-return]

    def _convolve(self: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return self._conv_forward(x, weight, bias)  # type: ignore[no-any-return]


def _scaled(conv: Any, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Filters and bias of the convolution that includes the BatchNorm."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * scale
    if conv.bias is not None:
        bias = bias + conv.bias * scale
    return conv.weight * scale[:, None, None, None], bias


class _FoldedSameConv(_FoldedConv):
    """For timm's convolution with TensorFlow's asymmetric padding, which depends on the input's size."""

    def _convolve(self: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        from timm.layers.padding import pad_same

        x = pad_same(x, self.kernel_size, self.stride, self.dilation)
        return functional.conv2d(x, weight, bias, self.stride, 0, self.dilation, self.groups)


class _AppliedNorm:
    """Mixed into the class of that BatchNorm, which then applies its activation only, if it has one."""

    training: bool

    def forward(self: Any, x: Tensor) -> Tensor:
        if self.training:
            plain: Tensor = super().forward(x)  # type: ignore[misc]
            return plain
        for part in ("drop", "act"):  # timm's BatchNorm carries its activation
            if hasattr(self, part):
                x = getattr(self, part)(x)
        return x


def folded_filters(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor] | None:
    """Filters and bias of a convolution with its BatchNorm folded in; None if the BatchNorm is computed by itself."""
    if not isinstance(norm, _AppliedNorm) or norm.training:
        return None
    joined: Any = conv
    if isinstance(conv, _FoldedConv):
        return _scaled(joined, *conv.folded_norm)
    return joined.weight, joined.bias  # of with_folded_batchnorm


def _timm_kinds() -> tuple[tuple[type[Any], ...], tuple[type[Any], ...]]:
    """timm's convolution and BatchNorm classes that can be folded; none if timm is not imported."""
    if "timm" not in sys.modules:
        return (), ()
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.norm_act import BatchNormAct2d

    return (Conv2dSame,), (BatchNormAct2d,)


@cache
def _mixed(mixin: type[Any], base: type[Any]) -> type[Any]:
    return type(f"{mixin.__name__.strip('_')}{base.__name__}", (mixin, base), {})


def fold_batchnorm(net: nn.Module, example: Tensor) -> int:
    """Fold each BatchNorm that alone follows a convolution into it, whenever the BatchNorm is in evaluation mode.

    Args:
        net: changed in place; its parameters must require gradients.
        example: an input (N, 3, H, W), to trace which BatchNorm follows which convolution.

    Returns:
        The number of pairs.
    """
    convs: dict[Any, Any] = {}  # node of the autograd graph that made an output -> its convolution
    norms: list[tuple[Any, Any]] = []  # node of the input, BatchNorm

    def note_conv(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        convs[output.grad_fn] = module

    def note_norm(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        norms.append((inputs[0].grad_fn, module))

    timm_convs, timm_norms = _timm_kinds()
    hooks = []
    for module in net.modules():
        # A convolution may differ in its geometry, `_conv_forward`, but not in what it does with its filters.
        if type(module) in timm_convs or getattr(type(module), "forward", None) is nn.Conv2d.forward:
            hooks.append(module.register_forward_hook(note_conv))
        elif type(module) in (nn.BatchNorm2d, *timm_norms) and module.affine and module.track_running_stats:
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
        # Not a layer that is called twice, or whose output has another consumer.
        if conv is None or uses[node] != 1 or called[conv] != 1 or called[norm] != 1:
            continue
        conv.folded_norm = (norm,)
        mixin = _FoldedSameConv if isinstance(conv, timm_convs) else _FoldedConv
        conv.__class__ = _mixed(mixin, type(conv))  # type: ignore[arg-type]
        norm.__class__ = _mixed(_AppliedNorm, type(norm))  # type: ignore[arg-type]
        folded += 1
    return folded


def with_folded_batchnorm(net: nn.Module) -> nn.Module:
    """A copy for inference, in evaluation mode, with the scaled filters of :func:`fold_batchnorm`.

    It computes the same, bit by bit. It cannot be trained, and takes no state dict.
    """
    net = copy.deepcopy(net).eval().requires_grad_(False)
    for conv in [module for module in net.modules() if isinstance(module, _FoldedConv)]:
        joined: Any = conv
        weight, bias = _scaled(joined, *joined.folded_norm)
        joined.weight, joined.bias = nn.Parameter(weight, False), nn.Parameter(bias, False)
        joined.__class__ = type(joined).__bases__[1]
        del joined.folded_norm  # its BatchNorm module stays, in evaluation mode, for the activation it carries
    return net


def _uses(output: Tensor) -> Counter[Any]:
    """How many consumers the result of each node of the graph behind a tensor has."""
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
