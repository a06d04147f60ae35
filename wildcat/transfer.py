"""Multi-map transfer layer (Section 3.2): D feature channels -> M maps for each of C classes, by a 1x1 convolution."""

import torch
from torch import Tensor, nn


class MultiMapTransfer(nn.Conv2d):
    """A 1x1 convolution with bias, from D feature channels to M maps for each of C classes.

    It maps features (N, D, h, w) to multi-maps (N, C * M, h, w) in class-major order: channel c * M + m is map m of
    class c.

    Args:
        in_channels: D, channels of the features.
        num_classes: C >= 1.
        num_maps: M >= 1.

    Raises:
        ValueError: no classes or no maps.

    >>> MultiMapTransfer(512, num_classes=20, num_maps=4)(torch.rand(1, 512, 7, 7)).shape
    torch.Size([1, 80, 7, 7])
    """

    bias: Tensor

    def __init__(self, in_channels: int, num_classes: int, num_maps: int = 1) -> None:
        if num_classes < 1 or num_maps < 1:
            raise ValueError(f"num_classes and num_maps must be at least 1; got {num_classes} and {num_maps}")
        super().__init__(in_channels, num_classes * num_maps, kernel_size=1)
        self.num_classes = num_classes
        self.num_maps = num_maps

    def merged(self) -> "MultiMapTransfer":
        """A new layer with one map per class, whose output is the mean of the M maps of each class: they are merged.

        The mean of M linear maps is the linear map with the mean weights and the mean bias. If it is the class-wise
        pooling, C filters therefore replace M * C ones exactly for prediction.

        >>> from wildcat.pooling import class_wise_pool
        >>> layer, features = MultiMapTransfer(8, num_classes=3, num_maps=4), torch.rand(1, 8, 7, 7)
        >>> torch.allclose(layer.merged()(features), class_wise_pool(layer(features), num_maps=4), atol=1e-6)
        True
        """
        weight, bias = class_filters(self)
        layer = MultiMapTransfer(self.in_channels, self.num_classes)
        layer = layer.to(device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            layer.weight.copy_(weight[:, :, None, None])
            layer.bias.copy_(bias)
        return layer.train(self.training)


class MergedTransfer(nn.Module):
    """The class maps of a transfer layer, whose M maps per class learn through it: C filters at a time, not M * C.

    Args:
        transfer: the layer, which is shared.

    >>> layer, features = MultiMapTransfer(8, num_classes=3, num_maps=4), torch.rand(1, 8, 7, 7)
    >>> torch.allclose(MergedTransfer(layer)(features), layer.merged()(features), atol=1e-6)
    True
    """

    num_maps = 1

    def __init__(self, transfer: MultiMapTransfer) -> None:
        super().__init__()
        self.whole = transfer
        self.num_classes = transfer.num_classes

    def forward(self, features: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, C, h, w)."""
        weight, bias = class_filters(self.whole)
        # A product instead of a convolution, which would bring the features into another order first.
        maps: Tensor = (weight @ features.flatten(2) + bias[:, None]).unflatten(2, features.shape[2:])
        return maps


def class_filters(transfer: MultiMapTransfer) -> tuple[Tensor, Tensor]:
    """Weights (C, D) and bias (C,) of the linear classifier that gives the mean of a class's maps at each position.

    >>> weight, bias = class_filters(MultiMapTransfer(512, num_classes=20, num_maps=4))
    >>> weight.shape, bias.shape
    (torch.Size([20, 512]), torch.Size([20]))
    """
    weight = transfer.weight.flatten(1).unflatten(0, (-1, transfer.num_maps)).mean(dim=1)  # (C, M, D) -> (C, D)
    return weight, transfer.bias.unflatten(0, (-1, transfer.num_maps)).mean(dim=1)
