"""Backbones of the user's own: a plain module, a registered name."""

import re
from collections.abc import Iterator
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from wildcat.backbones import factory
from wildcat.backbones.backbone import Backbone
from wildcat.backbones.custom import wrap_backbone
from wildcat.backbones.factory import create_backbone, register_backbone
from wildcat.errors import WildcatError
from wildcat.model import create_model


def small_net(channels: int = 12, last_stride: int = 2) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, channels, 3, stride=last_stride, padding=1),
        nn.ReLU(),
    )


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Names registered in a test are forgotten after it."""
    monkeypatch.setattr(factory, "_factories", dict(factory._factories))
    yield


def images_of(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("last_stride", "stride"), [(1, 4), (2, 8), (4, 16)])
def test_channels_and_stride_are_measured(last_stride: int, stride: int) -> None:
    net = small_net(12, last_stride).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    backbone = wrap_backbone(net)
    assert (backbone.channels, backbone.stride, backbone.native_size) == (12, stride, 224)
    assert backbone.net is net and all(module.training for module in net.modules())
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(backbone.eval()(images_of(64, 96)), net(images_of(64, 96)))


def test_given_values_are_taken_without_a_forward_pass() -> None:
    class Fails(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise AssertionError("called")

    backbone = wrap_backbone(Fails(), channels=7, stride=5, mean=(0.1, 0.2, 0.3), std=(1, 2, 3), native_size=96)
    assert (backbone.channels, backbone.stride, backbone.native_size) == (7, 5, 96)
    assert (backbone.mean, backbone.std) == ((0.1, 0.2, 0.3), (1, 2, 3))


def test_a_network_of_one_input_size_is_measured_at_that_size() -> None:
    class OneSize(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, images: Tensor) -> Tensor:
            if images.shape[2:] != (160, 160):
                raise RuntimeError("this network takes 160 x 160")
            return self.net(images)

    backbone = wrap_backbone(OneSize(), native_size=160)
    assert (backbone.channels, backbone.stride) == (12, 8)
    with pytest.raises(WildcatError, match="custom fails for an image of 224 x 224 pixels: this network takes 160"):
        wrap_backbone(OneSize())


class Pair(nn.Module):
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images, images


@pytest.mark.parametrize(("net", "shape"), [(nn.Flatten(), "(1, 27648)"), (Pair(), "tuple")])
def test_a_module_without_a_feature_map_is_rejected(net: nn.Module, shape: str) -> None:
    with pytest.raises(WildcatError, match=re.escape(f"custom gives features of shape {shape}, not (N, D, h, w)")):
        wrap_backbone(net)


def test_children_with_parameters_are_stages() -> None:
    backbone = wrap_backbone(small_net())
    assert backbone.stages == 3  # two convolutions and a BatchNorm
    backbone.freeze(2)
    assert [name for name, p in backbone.net.named_parameters() if p.requires_grad] == ["3.weight", "3.bias"]


def test_create_model_takes_a_module_and_a_backbone() -> None:
    for backbone in (small_net(), wrap_backbone(small_net(), mean=(0.5,) * 3, std=(0.5,) * 3)):
        model = create_model(backbone, num_classes=5, num_maps=2)
        out = model(model.normalize(torch.zeros(1, 3, 64, 96, dtype=torch.uint8)))
        assert out.multi_maps.shape == (1, 10, 8, 12) and out.scores.shape == (1, 5)
        assert model.backbone is backbone or model.backbone.net is backbone
    assert model.mean.flatten().tolist() == [0.5] * 3
    with pytest.raises(ValueError, match="weights and output_stride are for a backbone by name"):
        create_model(small_net(), num_classes=5, output_stride=16)


def test_a_registered_name_is_a_backbone_like_any_other(registry: None) -> None:
    asked: list[tuple[bool, int | None]] = []

    def make(pretrained: bool, output_stride: int | None) -> nn.Module:
        asked.append((pretrained, output_stride))
        return small_net(last_stride=4 if output_stride is None else output_stride // 4)

    register_backbone("mine", make)
    backbone = create_backbone("mine", pretrained=False, output_stride=8)
    assert (backbone.name, backbone.stride, asked) == ("mine", 8, [(False, 8)])
    assert create_backbone("mine").stride == 16 and asked[-1] == (True, None)
    register_backbone("mine", lambda pretrained, output_stride: small_net(channels=20))  # replaced, as in a notebook
    assert create_backbone("mine").channels == 20
    with pytest.raises(WildcatError, match="mine does not allow output stride 16: it gives 8"):
        create_backbone("mine", output_stride=16)


def test_a_factory_may_return_a_backbone(registry: None) -> None:
    register_backbone("mine", lambda pretrained, output_stride: wrap_backbone(small_net(), name="mine", mean=(0, 0, 0)))
    assert isinstance(create_backbone("mine"), Backbone) and create_backbone("mine").mean == (0, 0, 0)


def test_parameters_that_no_feature_uses_do_not_learn(registry: None) -> None:
    def with_head(pretrained: bool, output_stride: int | None) -> nn.Module:
        net = small_net()
        net.register_parameter("unused", nn.Parameter(torch.zeros(3)))
        return net

    register_backbone("mine", with_head)
    learning = {name for name, p in create_backbone("mine").net.named_parameters() if p.requires_grad}
    assert learning == {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lite0", "'lite0' is a backbone of the package; register yours under another name"),
        ("timm:mine", 'the name of a backbone holds letters, digits, "-" and "_"; got \'timm:mine\''),
        ("", "the name of a backbone holds letters"),
    ],
)
def test_names_that_cannot_be_registered(registry: None, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        register_backbone(name, partial(create_backbone, "lite0"))  # type: ignore[arg-type]


def test_an_unknown_name_says_how_to_register_one(registry: None) -> None:
    register_backbone("mine", lambda pretrained, output_stride: small_net())
    expected = r"unknown backbone 'min'; did you mean mine\? \(known: lite0, .*, mine, timm:NAME; register .*first\)"
    with pytest.raises(WildcatError, match=expected):
        create_backbone("min")
