"""The backbone interface: images (N, 3, H, W) to features (N, D, h, w), declared properties, frozen stages."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from wildcat.errors import WildcatError

NORMS = (nn.modules.batchnorm._BatchNorm,)


class Backbone(nn.Module):
    """A network from images to features, with the properties that the rest of a model needs.

    Args:
        name: the name it was created by.
        net: the network.
        features: called with the network and images (N, 3, H, W); returns features (N, D, h, w).
        channels: D, channels of the features.
        stride: input pixels per feature cell.
        mean, std: normalisation of the input per channel, for pixel values in [0, 1].
        native_size: side in pixels of the square input that the weights were trained on.
        stages: names of the modules and parameters of each stage, from the input.

    :func:`wildcat.backbones.wrap_backbone` makes one of any network, and measures what is not given.
    """

    def __init__(
        self,
        name: str,
        net: nn.Module,
        features: Callable[[Any, Tensor], Tensor],
        *,
        channels: int,
        stride: int,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        native_size: int,
        stages: list[list[str]],
    ) -> None:
        super().__init__()
        self.name = name
        self.net = net
        self.channels = channels
        self.stride = stride
        self.mean = mean
        self.std = std
        self.native_size = native_size
        self._features = features
        self._stages = stages
        self._frozen_modules: list[nn.Module] = []
        self._frozen_parameters: list[str] = []

    @property
    def stages(self) -> int:
        """Number of stages that :meth:`freeze` can freeze, the stem included."""
        return len(self._stages)

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, D, h, w) of normalised images (N, 3, H, W)."""
        return self._features(self.net, images)

    def freeze(self, stages: int = 0, batch_norm: bool = False, depthwise: bool = False) -> None:
        """Freeze the first stages: their parameters, and their BatchNorm statistics, also after ``train()``.

        Anything that an earlier call froze and this one does not learns again.

        Args:
            stages: how many stages to freeze, from the input; -1 freezes all.
            batch_norm: also freeze every BatchNorm of the backbone, statistics and affine parameters.
            depthwise: also freeze every depthwise convolution. They have few parameters, but on a CPU the gradient of
                their filters takes a third of a training step.

        Raises:
            WildcatError: if there are fewer stages.

        >>> from wildcat.backbones import create_backbone
        >>> backbone = create_backbone("lite0", pretrained=False)
        >>> backbone.freeze(stages=2, batch_norm=True)
        >>> backbone.stages, backbone.train().net.bn1.training
        (8, False)
        """
        if not -1 <= stages <= len(self._stages):
            raise WildcatError(f"{self.name} has {len(self._stages)} stages to freeze (-1 for all); got {stages}")
        chosen = self._stages if stages == -1 else self._stages[:stages]
        modules = dict(self.net.named_modules())
        parameters = dict(self.net.named_parameters())
        names = [name for stage in chosen for name in stage]
        frozen_modules = [modules[name] for name in names if name in modules]
        if batch_norm:
            frozen_modules += [module for module in modules.values() if isinstance(module, NORMS)]
        if depthwise:
            convs = [module for module in modules.values() if isinstance(module, nn.Conv2d)]
            frozen_modules += [conv for conv in convs if conv.groups == conv.in_channels > 1]
        frozen = {parameter for module in frozen_modules for parameter in module.parameters()}
        frozen |= {parameters[name] for name in names if name in parameters}  # such as a position embedding
        for name in self._frozen_parameters:
            parameters[name].requires_grad_(True)
        stopped = {parameter for parameter in frozen if parameter.requires_grad}
        for parameter in stopped:
            parameter.requires_grad_(False)
        # By name: a sharded model (training/sharding.py) has other parameter objects.
        self._frozen_parameters = [name for name, parameter in parameters.items() if parameter in stopped]
        # A frozen block includes its modules without parameters, such as stochastic depth.
        blocks = [m for m in modules.values() if stopped.intersection(m.parameters()) and not _learns(m)]
        self._frozen_modules = [*frozen_modules, *blocks]
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """Set the training mode of every module that is not frozen."""
        super().train(mode)
        for module in self._frozen_modules:
            module.eval()
        return self


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
