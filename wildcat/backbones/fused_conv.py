"""Convolution, addition and activation in one pass over memory, on a CPU.

On CPUs with fast matrix arithmetic the activations of a network take longer than its convolutions: they read and
write whole feature maps. oneDNN applies them while the convolution's result is still in the cache. PyTorch has these
operators for its compiler; where they are absent the same is computed in steps. Only :func:`conv_relu6` has a gradient.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

_ACTIVATIONS: dict[type[nn.Module], tuple[str, list[float]]] = {
    nn.ReLU: ("relu", []),
    nn.ReLU6: ("hardtanh", [0.0, 6.0]),
}


class ActivatedConv2d(nn.Conv2d):
    """A convolution with the activation that follows it; :func:`activate` makes one of a convolution."""

    activation: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, D', h', w'), activated."""
        x, weight, padding = _with_padding(self, x)
        if not _can_fuse(x):
            y = functional.conv2d(x, weight, self.bias, self.stride, padding, self.dilation, self.groups)
            activated: Tensor = self.activation(y)
            return activated
        name, scalars = _ACTIVATIONS[type(self.activation)]
        geometry = (padding, self.stride, self.dilation, self.groups)
        fused: Tensor = torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *geometry, name, scalars, "")
        return fused


def activate(conv: nn.Conv2d, activation: nn.Module) -> None:
    """Fuse an activation (ReLU or ReLU6) with a convolution, in place."""
    if type(activation) not in _ACTIVATIONS:
        raise TypeError(f"the activation must be one of {[kind.__name__ for kind in _ACTIVATIONS]}; got {activation}")
    kind = type(conv)
    conv.__class__ = type(f"Activated{kind.__name__}", (ActivatedConv2d, kind), {})
    conv.activation = activation


def conv_add_relu(conv: nn.Conv2d, x: Tensor, other: Tensor) -> Tensor:
    """relu(conv(x) + other)."""
    x, weight, padding = _with_padding(conv, x)
    if not (_can_fuse(x) and _is_channels_last(x) and _is_channels_last(other)):  # oneDNN adds within this format alone
        y = functional.conv2d(x, weight, conv.bias, conv.stride, padding, conv.dilation, conv.groups)
        return functional.relu(y + other)
    geometry = (padding, conv.stride, conv.dilation, conv.groups)
    operator = torch.ops.mkldnn._convolution_pointwise.binary
    fused: Tensor = operator(x, other, weight, conv.bias, *geometry, "add", 1.0, "relu", [], "")
    return fused


def conv_relu6(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    stride: tuple[int, ...],
    padding: Any,
    dilation: tuple[int, ...],
    groups: int,
) -> Tensor:
    """relu6 of a convolution, with its gradient; half precision where autocast asks for it and it is not slower."""
    geometry = (stride, padding, dilation, groups)
    dtype = x.dtype
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.float32 if half_is_slow(x, weight, stride) else torch.get_autocast_dtype("cpu")
    if not _can_run(x.device, dtype):
        return functional.relu6(functional.conv2d(x, weight, bias, *geometry), inplace=not _learns(x, weight))
    y: Tensor = _ConvRelu6.apply(x.to(dtype), weight.to(dtype), bias.to(dtype), geometry)
    return y


def half_is_slow(x: Tensor, weight: Tensor, stride: tuple[int, ...]) -> bool:
    """Whether a convolution's gradient is slower in half precision, by an order of magnitude and more.

    oneDNN has no fast bf16 gradient of depthwise filters, nor of the input of those with stride.
    """
    depthwise = x.shape[1] == len(weight) > weight.shape[1] == 1
    return x.device.type == "cpu" and depthwise and _learns(x, weight) and (weight.requires_grad or max(stride) > 1)


def _learns(x: Tensor, weight: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)


class _ConvRelu6(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, geometry: tuple[Any, ...]) -> Tensor:
        stride, padding, dilation, groups = geometry
        operator = torch.ops.mkldnn._convolution_pointwise
        y: Tensor = operator(x, weight, bias, padding, stride, dilation, groups, *_ACTIVATIONS[nn.ReLU6], "")
        ctx.save_for_backward(x, weight, y)
        ctx.geometry = geometry
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, y = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        # Clipped values lie on a bound in the result too, where the gradient is 0.
        gradient = torch.ops.aten.hardtanh_backward(gradient, y, 0.0, 6.0)
        gradients = torch.ops.aten.convolution_backward(
            *(gradient, x, weight, [len(weight)], stride, padding, dilation, False, [0, 0], groups),
            list(ctx.needs_input_grad[:3]),
        )
        return *gradients, None


def _with_padding(conv: Any, x: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Input, filters and padding of a convolution, which may compute its padding from the input."""
    if hasattr(conv, "padded"):
        padded: tuple[Tensor, Tensor, tuple[int, int]] = conv.padded(x, conv.weight)
        return padded
    return x, conv.weight, conv.padding


def _can_fuse(x: Tensor) -> bool:
    return _can_run(x.device, x.dtype) and not torch.is_grad_enabled()


def _can_run(device: torch.device, dtype: torch.dtype) -> bool:
    return (
        device.type == "cpu"
        and not torch.compiler.is_compiling()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        # PyTorch 2.6 raises for bf16 where the CPU has no AVX-512.
        and (dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()))
    )


def _is_channels_last(x: Tensor) -> bool:
    """Whether it is channels-last and not contiguous as well, as maps of one cell are."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
