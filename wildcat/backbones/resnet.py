"""The residual networks of torchvision, of which ``resnet101`` is the paper's backbone."""

from typing import Any

from torch import Tensor, nn

from wildcat.backbones.backbone import Backbone
from wildcat.backbones.weights import no_hub
from wildcat.errors import WildcatError

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def residual(name: str, pretrained: bool, output_stride: int | None) -> Backbone:
    """Build a ResNet of torchvision as a backbone.

    Raises:
        WildcatError: if the weights cannot be downloaded, or ResNet-18 or -34 is to be dilated.
    """
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
            raise no_hub(name, error) from error
        net.load_state_dict(state)
    channels = net.fc.in_features
    net.avgpool = nn.Identity()
    net.fc = nn.Identity()
    return Backbone(
        name,
        net,
        _features,
        channels=channels,
        stride=output_stride or 32,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        native_size=224,
        stages=[["conv1", "bn1"], ["layer1"], ["layer2"], ["layer3"], ["layer4"]],
    )


def _features(net: Any, images: Tensor) -> Tensor:
    x: Tensor = net.maxpool(net.relu(net.bn1(net.conv1(images))))
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = layer(x)
    return x
