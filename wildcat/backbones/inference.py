"""A model made ready for prediction alone: BatchNorm in the filters, activations in the convolutions, half precision
where that pays.
"""

import copy
import sys
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from wildcat.backbones import Backbone
from wildcat.backbones.batchnorm_folding import baked
from wildcat.backbones.efficientnet_lite import EfficientNetLite
from wildcat.backbones.fused_conv import activate, conv_add_relu
from wildcat.errors import WildcatError
from wildcat.model import Wildcat

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16")
AUTO = "auto"  # the device that there is


class HalfTrunk(nn.Module):
    """A trunk that computes in bf16 between single precision in and out, so that the head ranks in single precision."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.bfloat16()

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D, h, w), both float32."""
        features: Tensor = self.backbone(images.bfloat16())
        return features.float()


def prepared(model: Wildcat, precision: Precision = "fp32") -> Wildcat:
    """A model with the same head whose trunk is a copy for prediction: its weights are those of now, and do not learn.

    In single precision it computes the same but for the order of additions; in bf16 scores move by its rounding.

    Args:
        model: in evaluation mode; stays as it is.
        precision: "auto" takes bf16 where :func:`bf16_pays`.

    Raises:
        ValueError: for another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    trunk: nn.Module = baked(model.backbone)
    if isinstance(trunk, Backbone):
        fuse(trunk.net)
    if precision == "bf16" or (precision == "auto" and bf16_pays(model.backbone)):
        trunk = HalfTrunk(trunk)
    ready = copy.copy(model)
    ready._modules = {**model._modules, "backbone": trunk.to(memory_format=torch.channels_last)}
    return ready


class FusedBlock(nn.Module):
    """Mixed into the class of a ResNet's residual block whose BatchNorm is in the filters."""

    def forward(self: Any, x: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, D', h', w')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        *convs, last = [getattr(self, f"conv{i}") for i in (1, 2, 3) if hasattr(self, f"conv{i}")]
        y = x
        for conv in convs:
            y = conv(y)
        return conv_add_relu(last, y, shortcut)


def fuse(net: nn.Module) -> None:
    """Let the convolutions of a baked ResNet of torchvision activate what they give; others stay as they are."""
    if any(type(module) is nn.BatchNorm2d for module in net.modules()):  # one that is not in any filter
        return
    if "torchvision" in sys.modules:
        _fuse_resnet(net)


def _fuse_resnet(net: Any) -> None:
    from torchvision.models import resnet

    if type(net) is not resnet.ResNet:
        return
    activate(net.conv1, net.relu)
    net.relu = nn.Identity()
    for block in [module for module in net.modules() if type(module) in (resnet.BasicBlock, resnet.Bottleneck)]:
        activate(block.conv1, block.relu)
        if hasattr(block, "conv3"):
            activate(block.conv2, block.relu)
        block.__class__ = type(f"Fused{type(block).__name__}", (FusedBlock, type(block)), {})


def bf16_pays(backbone: Backbone) -> bool:
    """Whether bf16 is faster, by what the device has and the trunk needs: the same answer every time.

    It needs matrix units, and convolutions that can use them: not depthwise ones, but for those of the lite trunks,
    whose activations are computed with them.
    """
    device = next(backbone.parameters()).device
    if device.type == "cpu":
        has_units = processor_has_matrix_units()
    else:
        has_units = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    dense = all(m.groups == 1 for m in backbone.modules() if isinstance(m, nn.Conv2d))
    return has_units and (dense or isinstance(backbone.net, EfficientNetLite))


def device_of(name: str | torch.device) -> torch.device:
    """The device of a name; "auto" is the first GPU that CUDA has, or else the processor.

    Raises:
        WildcatError: if PyTorch knows no such device here.
    """
    if str(name) == AUTO:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # an assertion is how a PyTorch without CUDA says so
        reason = str(error).strip().splitlines()[0]
        raise WildcatError(f"device {str(name)!r} cannot be used: {reason}; auto takes what there is") from error


@cache
def processor_has_matrix_units() -> bool:
    """Whether Linux names AMX for bf16 among what the processor can do."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and "amx_bf16" in info.read_text().split()
