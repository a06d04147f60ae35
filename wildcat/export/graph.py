"""The model in operations that a graph for any batch and any size can represent."""

import copy
import sys
from typing import Any

import torch
from torch import Tensor, nn

from wildcat.backbones.batchnorm_folding import with_folded_batchnorm
from wildcat.backbones.efficientnet_lite import SameConv2d
from wildcat.class_pooling import class_wise_pool
from wildcat.losses import probabilities
from wildcat.model import Wildcat
from wildcat.pooling import LogSumExpPool, Regions, SpatialPool

OUTPUTS = ("scores", "probabilities", "class_maps", "points")


class Exportable(nn.Module):
    """The model with four outputs, its maps merged if they can be, in operations that leave batch and size open.

    Pooling, whose k depends on the size, becomes a sort and a mask of ranks. A pooling of the user's own is exported as
    it is.

    Args:
        model: in evaluation mode; stays as it is.
        multi_label: sigmoid per class, or softmax over classes.
    """

    def __init__(self, model: Wildcat, multi_label: bool) -> None:
        super().__init__()
        self.backbone = with_folded_batchnorm(model.backbone)
        merged = model.merged()
        self.transfer = copy.deepcopy(merged.transfer).requires_grad_(False)
        self.class_pooling = merged.class_pooling
        self.pooling = model.pooling
        self.architecture = model.architecture
        self.multi_label = multi_label

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Normalised (N, 3, H, W) to scores, probabilities (N, C), class maps (N, C, h, w), points (N, C, 2)."""
        features = self.backbone(images)
        class_maps = class_wise_pool(self.transfer(features), self.transfer.num_maps, self.class_pooling)
        if self.architecture == "a":
            scores = _pool(class_maps, self.pooling)
        else:
            scores = self.transfer(_pool(features, self.pooling)[:, :, None, None]).flatten(1)
        return scores, probabilities(scores, self.multi_label), class_maps, _points(class_maps)


def _pool(maps: Tensor, pooling: nn.Module) -> Tensor:
    if not isinstance(pooling, SpatialPool | LogSumExpPool):  # of the user's own: exported as it is
        scores: Tensor = pooling(maps)
        return scores
    regions = maps.flatten(2)  # (N, C, n)
    if isinstance(pooling, LogSumExpPool):
        highest = regions.amax(dim=2, keepdim=True)
        mean = ((regions - highest) * pooling.sharpness).exp().mean(dim=2)
        return highest[:, :, 0] + mean.log() / pooling.sharpness
    kmin: Regions = pooling.kmin if pooling.alpha != 0 else 0
    if any(k not in (0, 1, "all") for k in (pooling.kmax, kmin)):
        regions = regions.sort(dim=2, descending=True).values  # once for both
    terms = []
    if pooling.kmax != 0:
        terms.append(_mean_of_selected(regions, pooling.kmax, largest=True))
    if kmin != 0:
        terms.append(pooling.alpha * _mean_of_selected(regions, kmin, largest=False))
    return terms[0] if len(terms) == 1 else terms[0] + terms[1]


def _mean_of_selected(regions: Tensor, k: Regions, largest: bool) -> Tensor:
    """Of (N, C, n), which must be in descending order unless k is 1 or "all"."""
    if k == "all":
        return regions.mean(dim=2)
    if k == 1:
        return regions.amax(dim=2) if largest else regions.amin(dim=2)
    # In double precision, like Python's numbers, so that 0.1 * 245 is rounded alike.
    one = torch.ones_like(regions[0, 0], dtype=torch.float64)  # (n,)
    total, place = one.sum(), one.cumsum(0)  # 1 to n
    count = torch.round(k * total).clamp(min=1) if isinstance(k, float) else total.clamp(max=k)
    chosen = place <= count if largest else place > total - count
    return (regions * chosen).sum(dim=2) / count.to(regions.dtype)


def _points(class_maps: Tensor) -> Tensor:
    """Centre of the highest cell of each map, (N, C, 2): x and y relative to the image's width and height."""
    height = torch.ones_like(class_maps[0, 0, :, 0], dtype=torch.float64).sum()
    width = torch.ones_like(class_maps[0, 0, 0], dtype=torch.float64).sum()
    cell = class_maps.flatten(2).argmax(dim=2).double()
    row = torch.floor(cell / width)
    return torch.stack([(cell - row * width + 0.5) / width, (row + 0.5) / height], dim=2).float()


class OnnxSameConv(nn.Module):
    """ONNX's convolution with TensorFlow's padding, for one whose padding depends on the size of the input.

    The padding of sides that are multiples of the stride is an attribute of the convolution. What other sides need in
    addition is a Pad before it, of no pixel otherwise. ``auto_pad`` would say all of it in one attribute, but OpenCV
    computes something else for it.
    """

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.conv = conv
        (self.top, bottom), (self.left, right) = (_padding(conv.stride[axis], conv, axis) for axis in (0, 1))
        self.attributes = {
            "kernel_shape": list(conv.kernel_size),
            "pads": [self.top, self.left, bottom, right],
            "strides": list(conv.stride),
            "dilations": list(conv.dilation),
            "group": conv.groups,
        }

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, E, ceil(h / stride), ceil(w / stride)); the convolution is a placeholder."""
        conv, (height, width) = self.conv, x.shape[2:]
        more = []
        for axis, size in ((1, width), (0, height)):  # the last axis first
            first, last = _padding(size, conv, axis)
            always = self.attributes["pads"]
            more += [first - always[axis], last - always[axis + 2]]
        sides = ((side - 1) // stride + 1 for side, stride in zip((height, width), conv.stride, strict=True))
        x = nn.functional.pad(x, more)
        inputs = [x, conv.weight, *([] if conv.bias is None else [conv.bias])]
        shape = (x.shape[0], conv.out_channels, *sides)
        return torch.onnx.ops.symbolic("Conv", inputs, self.attributes, dtype=x.dtype, shape=shape)


def _padding(size: int, conv: Any, axis: int) -> tuple[int, int]:
    """Pixels to add before the first and after the last of a side; the size may be symbolic."""
    reach = (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1
    total = torch.sym_max(((size - 1) // conv.stride[axis]) * conv.stride[axis] + reach - size, 0)
    return total // 2, total - total // 2


class EvenSameConv(nn.Module):
    """The same convolution for sides that are multiples of its stride, where the padding is constant."""

    def __init__(self, conv: Any) -> None:
        super().__init__()
        self.conv = conv
        self.padding: list[int] = []
        for axis in (1, 0):  # the last axis first
            reach = (conv.kernel_size[axis] - 1) * conv.dilation[axis] + 1
            total = max(reach - conv.stride[axis], 0)
            self.padding += [total // 2, total - total // 2]

    def forward(self, x: Tensor) -> Tensor:
        """(N, D, h, w) -> (N, E, h / stride, w / stride)."""
        conv = self.conv
        x = nn.functional.pad(x, self.padding)
        return nn.functional.conv2d(x, conv.weight, conv.bias, conv.stride, 0, conv.dilation, conv.groups)


def replace_same_convs(net: nn.Module, kind: type[OnnxSameConv] | type[EvenSameConv]) -> int:
    """Replace the convolutions with TensorFlow's padding; return their number."""
    kinds: tuple[type[nn.Module], ...] = (SameConv2d,)
    if "timm" in sys.modules:
        from timm.layers.conv2d_same import Conv2dSame

        kinds += (Conv2dSame,)
    names = [name for name, module in net.named_modules() if isinstance(module, kinds)]
    for name in names:
        parent, _, leaf = name.rpartition(".")
        setattr(net.get_submodule(parent), leaf, kind(net.get_submodule(name)))
    return len(names)
