"""A model optimized for inference computes what the model computes."""

import copy
from typing import Any

import pytest
import timm
import torch

from wildcat.backbones import inference
from wildcat.backbones.efficientnet_lite import SameConv2d
from wildcat.backbones.fused_conv import activate, conv_add_relu
from wildcat.backbones.inference import bf16_pays
from wildcat.model import Wildcat, create_model
from wildcat.prediction.network import optimize_for_inference
from wildcat.system.devices import PRECISIONS


def model_of(backbone: str) -> Wildcat:
    torch.manual_seed(0)
    model = create_model(backbone, num_classes=5, num_maps=3, kmax=0.3, pretrained=False)
    for module in model.modules():  # statistics as if it had been trained
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.7, 1.4)
            torch.nn.init.uniform_(module.weight, 0.5, 1.2)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["lite0", "resnet18", "resnet50", "timm:test_efficientnet", "timm:test_vit"])
def test_it_computes_the_same_and_leaves_the_model_as_it_was(backbone: str) -> None:
    model = model_of(backbone)
    before = copy.deepcopy(model.state_dict())
    optimized = optimize_for_inference(model)
    for size in ((96, 128), (97, 96)) if "vit" not in backbone else ((96, 128),):
        images = torch.randn(2, 3, *size).to(memory_format=torch.channels_last)
        with torch.no_grad():
            expected, actual, merged = model(images), optimized(images), optimized.merged()(images)
        scale = expected.class_maps.abs().max().item()
        torch.testing.assert_close(tuple(actual), tuple(expected), rtol=1e-4, atol=1e-5 * scale)
        torch.testing.assert_close(tuple(merged)[:2], tuple(expected)[:2], rtol=1e-4, atol=1e-5 * scale)
    with_gradient = optimized(images)  # in steps, as on other devices
    torch.testing.assert_close(with_gradient.scores.detach(), expected.scores, rtol=1e-4, atol=1e-5 * scale)
    assert not any(p.requires_grad for p in optimized.backbone.parameters())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    model.train()(images).scores.sum().backward()
    assert model.transfer.weight.grad is not None and any(p.grad is not None for p in model.backbone.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["resnet18", "lite0"])
def test_bf16_is_near_and_comes_out_in_single_precision(backbone: str) -> None:
    model = model_of(backbone)
    images = torch.randn(2, 3, 96, 96).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected, actual = model(images), optimize_for_inference(model, "bf16")(images)
    assert all(tensor.dtype == torch.float32 for tensor in actual)
    assert not torch.equal(actual.scores, expected.scores)
    spread = expected.class_maps.std().item()
    torch.testing.assert_close(actual.class_maps, expected.class_maps, rtol=0, atol=0.1 * spread)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("backbone", "pays"), [("resnet18", True), ("lite0", True), ("timm:test_efficientnet", False)])
def test_bf16_pays_where_matrix_units_meet_convolutions_that_use_them(
    monkeypatch: pytest.MonkeyPatch, backbone: str, pays: bool
) -> None:
    model = model_of(backbone)
    monkeypatch.setattr(inference, "cpu_has_matrix_units", lambda: True)
    assert bf16_pays(model.backbone) is pays
    assert isinstance(optimize_for_inference(model, "auto").backbone, inference.Bf16Backbone) is pays
    monkeypatch.setattr(inference, "cpu_has_matrix_units", lambda: False)
    assert not bf16_pays(model.backbone)


def test_other_precisions_are_rejected() -> None:
    wrong: Any = "fp16"
    with pytest.raises(ValueError, match=f"must be one of {', '.join(PRECISIONS)}; got 'fp16'"):
        optimize_for_inference(model_of("resnet18"), wrong)


def test_a_folded_network_of_timm_has_its_activations() -> None:
    """Its BatchNorm carries the activation."""
    from wildcat.backbones.batchnorm_folding import fold_batchnorm, with_folded_batchnorm

    net = timm.create_model("test_efficientnet", pretrained=False).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = net(images)
        assert fold_batchnorm(net, images) > 5
        torch.testing.assert_close(with_folded_batchnorm(net)(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [torch.nn.ReLU, torch.nn.ReLU6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fused_convolutions(kind: type[torch.nn.Module], dtype: torch.dtype) -> None:
    conv = torch.nn.Conv2d(6, 8, 3, stride=2, padding=1).to(dtype)
    images = 3 * torch.randn(2, 6, 9, 12, dtype=dtype)
    other = torch.randn(2, 8, 5, 6, dtype=dtype)
    tolerance = {"rtol": 0.02, "atol": 0.04} if dtype == torch.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    with torch.no_grad():
        plain = conv(images)
        for form in (torch.contiguous_format, torch.channels_last):
            added = conv_add_relu(conv, images.to(memory_format=form), other.to(memory_format=form))
            torch.testing.assert_close(added, torch.relu(plain + other), **tolerance)
        small, beside = images[:, :, :1, :1], other[:, :, :1, :1]  # a map of one cell
        torch.testing.assert_close(conv_add_relu(conv, small, beside), torch.relu(conv(small) + beside), **tolerance)
        activate(conv, kind())
        torch.testing.assert_close(conv(images), kind()(plain), **tolerance)
    with pytest.raises(TypeError, match=r"must be one of \['ReLU', 'ReLU6'\]; got GELU"):
        activate(conv, torch.nn.GELU())


def test_even_inputs_need_no_copy() -> None:
    """The longer filter of a depthwise convolution with stride computes what padding by hand does."""
    for kernel in (3, 5):
        conv = SameConv2d(4, 4, kernel, 2, groups=4, bias=False)
        for size in ((8, 10), (9, 11), (8, 11)):
            images = torch.randn(1, 4, *size)
            copied = conv(images)
            with torch.no_grad():
                torch.testing.assert_close(conv(images), copied)


def test_a_norm_that_no_filter_holds_is_not_lost() -> None:
    from torchvision.models import resnet18

    net = resnet18(weights=None).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = net(images)
        inference.fuse(net)
        torch.testing.assert_close(net(images), expected)
