"""Optimizations of a backbone for inference: activations fused with convolutions, and half precision."""

import sys
from typing import Any

import torch
from torch import Tensor, nn

from wildcat.backbones import Backbone
from wildcat.backbones.efficientnet_lite import EfficientNetLite
from wildcat.backbones.fused_conv import activate, conv_add_relu
from wildcat.system.devices import cpu_has_matrix_units


class Bf16Backbone(nn.Module):
    """A backbone that computes in bf16, with float32 inputs and outputs, so that the head is in single precision."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone.bfloat16()

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D, h, w), both float32."""
        features: Tensor = self.backbone(images.bfloat16())
        return features.float()


class FusedBlock(nn.Module):
    """Mixed into the class of a ResNet's residual block whose BatchNorm is folded."""

    def forward(self: Any, x: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, D', h', w')."""
        shortcut = x if self.downsample is None else self.downsample(x)
        *convs, last = [getattr(self, f"conv{i}") for i in (1, 2, 3) if hasattr(self, f"conv{i}")]
        y = x
        for conv in convs:
            y = conv(y)
        return conv_add_relu(last, y, shortcut)


def fuse(net: nn.Module) -> None:
    """Fuse activations with the convolutions of a ResNet of torchvision whose BatchNorm is folded, in place."""
    if any(type(module) is nn.BatchNorm2d for module in net.modules()):  # not folded
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
    """Whether bf16 is faster, by the properties of device and backbone, without a measurement.

    The device needs matrix units, and the backbone convolutions that use them: dense ones, or those of the lite
    backbones, whose activations are fused with them.
    """
    device = next(backbone.parameters(), torch.empty(0)).device
    if device.type == "cpu":
        has_units = cpu_has_matrix_units()
    else:
        has_units = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    dense = all(m.groups == 1 for m in backbone.modules() if isinstance(m, nn.Conv2d))
    return has_units and (dense or isinstance(backbone.net, EfficientNetLite))
