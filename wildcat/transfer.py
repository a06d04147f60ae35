"""Multi-map transfer layer (Section 3.2): D feature channels -> M maps for each of C classes, by a 1x1 convolution."""

import torch
from torch import Tensor, nn


class MultiMapTransfer(nn.Conv2d):
    """1x1 convolution with bias to M * C maps in class-major order: channel c * M + m is map m of class c.

    Args:
        in_channels: D, channels of the features.
        num_classes: C >= 1.
        num_maps: M >= 1.
    """

    bias: Tensor

    def __init__(self, in_channels: int, num_classes: int, num_maps: int = 1) -> None:
        if num_classes < 1 or num_maps < 1:
            raise ValueError(f"num_classes and num_maps must be at least 1; got {num_classes} and {num_maps}")
        super().__init__(in_channels, num_classes * num_maps, kernel_size=1)
        self.num_classes = num_classes
        self.num_maps = num_maps

    def merged(self) -> "MultiMapTransfer":
        """The one-map layer that gives the class maps directly.

        The mean over M of linear maps is the linear map with the mean weights and the mean bias, so at prediction time
        the M * C filters fold into C without any approximation.
        """
        weight, bias = class_filters(self)
        layer = MultiMapTransfer(self.in_channels, self.num_classes)
        layer = layer.to(device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            layer.weight.copy_(weight[:, :, None, None])
            layer.bias.copy_(bias)
        return layer.train(self.training)


def class_filters(transfer: MultiMapTransfer) -> tuple[Tensor, Tensor]:
    """Weights (C, D) and bias (C,) of the linear classifier that the layer applies at each position."""
    weight = transfer.weight.flatten(1).unflatten(0, (-1, transfer.num_maps)).mean(dim=1)  # (C, M, D) -> (C, D)
    return weight, transfer.bias.unflatten(0, (-1, transfer.num_maps)).mean(dim=1)
