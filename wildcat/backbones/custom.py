"""A backbone from a network of the user's own, and what a forward pass shows about any network."""

from typing import Any

import torch
from torch import Tensor, nn

from wildcat.backbones.backbone import Backbone
from wildcat.backbones.resnet import IMAGENET_MEAN, IMAGENET_STD
from wildcat.errors import WildcatError, first_line

_SMALL_SIDE, _LONGER_BY = 96, 448  # pixels; 448 are a whole number of cells of 7, 8, 14, 16, 28, 32 or 64 pixels


def wrap_backbone(
    net: nn.Module,
    *,
    name: str = "custom",
    channels: int | None = None,
    stride: int | None = None,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
    native_size: int = 224,
) -> Backbone:
    """Make a :class:`Backbone` of any network from images (N, 3, H, W) to features (N, D, h, w).

    Its child modules, in the order of their definition, are the stages of :meth:`Backbone.freeze`.

    Args:
        net: the network; it is used as it is, not copied.
        name: for messages and run directories.
        channels: D; measured by a forward pass of a small image unless given.
        stride: input pixels per feature cell; measured unless given.
        mean, std: normalisation of the input per channel, for pixel values in [0, 1]; those of ImageNet by default.
        native_size: side in pixels of the square input that the network was trained on. It is measured at this size
            if it rejects small images.

    Raises:
        WildcatError: if the network fails, or does not map images to features (N, D, h, w).

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    >>> backbone = wrap_backbone(net)
    >>> backbone.channels, backbone.stride, backbone.stages
    (16, 8, 2)
    """
    backbone = Backbone(
        name,
        net,
        _forward,
        channels=channels or 0,
        stride=stride or 0,
        mean=mean,
        std=std,
        native_size=native_size,
        stages=_child_stages(net),
    )
    if channels is None or stride is None:
        with torch.no_grad():
            measured_stride, features = measure(backbone)
        backbone.channels = channels or features.shape[1]
        backbone.stride = stride or measured_stride
    return backbone


def _forward(net: Any, images: Tensor) -> Tensor:
    features: Tensor = net(images)
    return features


def _child_stages(net: nn.Module) -> list[list[str]]:
    """Each child with parameters is a stage; parameters of the network itself are in the first."""
    stages = [[name] for name, child in net.named_children() if any(True for _ in child.parameters())] or [[]]
    stages[0] += [name for name, _ in net.named_parameters(recurse=False)]
    return stages


def measure(backbone: Backbone) -> tuple[int, Tensor]:
    """The stride that forward passes of small images show, and the features (N, D, h, w) of one of them.

    Raises:
        WildcatError: if the network fails for images of either size, or its output is not of shape (N, D, h, w).
    """

    def features_of(height: int, width: int) -> Tensor:
        features = backbone(torch.zeros(1, 3, height, width))
        if not isinstance(features, Tensor) or features.ndim != 4:
            shape = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
            raise WildcatError(f"{backbone.name} gives features of shape {shape}, not (N, D, h, w)")
        return features

    modes = {module: module.training for module in backbone.modules()}
    backbone.eval()
    try:
        try:
            features = features_of(_SMALL_SIDE, _SMALL_SIDE)
            # The difference of two sizes leaves out what is cut or added at the borders.
            cells = features_of(_SMALL_SIDE, _SMALL_SIDE + _LONGER_BY).shape[3] - features.shape[3]
            return max(1, round(_LONGER_BY / max(1, cells))), features
        except (AssertionError, RuntimeError):  # a network of one input size
            size = backbone.native_size
            try:
                features = features_of(size, size)
            except (AssertionError, RuntimeError) as error:
                message = f"{backbone.name} fails for an image of {size} x {size} pixels: {first_line(error)}"
                raise WildcatError(message) from error
            return round(size / features.shape[3]), features
    finally:
        for module, mode in modes.items():
            module.training = mode


def stop_unused_parameters(backbone: Backbone, features: Tensor) -> None:
    """Stop the parameters that no feature depends on: training on several machines would wait for their gradient."""
    learning = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    if not learning:
        return
    gradients = torch.autograd.grad(features.sum(), learning, allow_unused=True)
    for parameter, gradient in zip(learning, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)
