"""A model made ready for prediction alone: BatchNorm in the filters, half precision where that pays."""

import copy
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from wildcat.backbones import Backbone
from wildcat.folding import baked
from wildcat.model import Wildcat

Precision: TypeAlias = Literal["auto", "fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16")


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

    In single precision it computes the same, bit by bit; in bf16 scores move by what bf16 rounds off.

    Args:
        model: in evaluation mode; stays as it is.
        precision: "auto" takes bf16 where :func:`bf16_pays`.

    Raises:
        ValueError: for another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    trunk: nn.Module = baked(model.backbone)
    if precision == "bf16" or (precision == "auto" and bf16_pays(model.backbone)):
        trunk = HalfTrunk(trunk)
    ready = copy.copy(model)
    ready._modules = {**model._modules, "backbone": trunk.to(memory_format=torch.channels_last)}
    return ready


def bf16_pays(backbone: Backbone) -> bool:
    """Whether bf16 is faster, by what the device has and the trunk needs: the same answer every time.

    It needs matrix units, and convolutions that can use them: not depthwise ones.
    """
    device = next(backbone.parameters()).device
    if device.type == "cpu":
        has_units = processor_has_matrix_units()
    else:
        has_units = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return has_units and all(m.groups == 1 for m in backbone.modules() if isinstance(m, nn.Conv2d))


@cache
def processor_has_matrix_units() -> bool:
    """Whether Linux names AMX for bf16 among what the processor can do."""
    info = Path("/proc/cpuinfo")
    return info.is_file() and "amx_bf16" in info.read_text().split()
