"""What every backbone is: (N, 3, H, W) to features (N, D, h, w), and what it declares of itself and can freeze."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from wildcat.errors import WildcatError

NORMS = (nn.modules.batchnorm._BatchNorm,)


class Backbone(nn.Module):
    """A backbone and what it declares about itself.

    Attributes:
        name: the name it was created by.
        channels: D, channels of the features.
        stride: input pixels per feature cell.
        mean, std: normalisation of the input, for pixel values in [0, 1].
        native_size: side in pixels of the square input that the weights were trained on.
        stages: the number of stages that :meth:`freeze` can freeze, counted from the input.
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
        """Number of stages, the stem included."""
        return len(self._stages)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, D, h, w)."""
        return self._features(self.net, images)

    def freeze(self, stages: int = 0, batch_norm: bool = False, depthwise: bool = False) -> None:
        """Stop the first stages from learning; their BatchNorm statistics stay as they are, also after ``train()``.

        What an earlier call froze and this one does not learns again.

        Args:
            stages: how many stages to freeze, from the input; -1 freezes all.
            batch_norm: also freeze every BatchNorm of the backbone, statistics and affine parameters.
            depthwise: also freeze every depthwise convolution. They hold few parameters, but on a CPU the gradient of
                their filters takes a third of a training step.

        Raises:
            WildcatError: if there are not so many stages.
        """
        if not -1 <= stages <= len(self._stages):
            raise WildcatError(f"{self.name} has {len(self._stages)} stages to freeze (-1 for all); got {stages}")
        chosen = self._stages if stages == -1 else self._stages[:stages]
        modules = dict(self.net.named_modules())
        parameters = dict(self.net.named_parameters())
        names = [name for stage in chosen for name in stage]
        named = [modules[name] for name in names if name in modules]
        if batch_norm:
            named += [module for module in modules.values() if isinstance(module, NORMS)]
        if depthwise:
            convs = [module for module in modules.values() if isinstance(module, nn.Conv2d)]
            named += [conv for conv in convs if conv.groups == conv.in_channels > 1]
        still = {parameter for module in named for parameter in module.parameters()}
        still |= {parameters[name] for name in names if name in parameters}  # bare, such as a position embedding
        for name in self._frozen_parameters:
            parameters[name].requires_grad_(True)
        ours = {parameter for parameter in still if parameter.requires_grad}
        for parameter in ours:
            parameter.requires_grad_(False)
        # By name: a model divided over processes (sharding.py) has other parameters in their places.
        self._frozen_parameters = [name for name, parameter in parameters.items() if parameter in ours]
        # With a block go its parts without parameters, such as stochastic depth.
        blocks = [m for m in modules.values() if ours.intersection(m.parameters()) and not _learns(m)]
        self._frozen_modules = [*named, *blocks]
        self.train(self.training)

    def train(self, mode: bool = True) -> "Backbone":
        """Set the training mode everywhere but in what is frozen."""
        super().train(mode)
        for module in self._frozen_modules:
            module.eval()
        return self


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
