"""Convolution and relu6 in one pass: the function and the gradients of the two steps."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from wildcat.backbones.efficientnet_lite import EfficientNetLite
from wildcat.backbones.factory import create_backbone
from wildcat.backbones.fused_conv import conv_relu6

# channels, filters, kernel, stride, padding, dilation, groups
GEOMETRIES = {
    "pointwise": (6, 8, 1, 1, 0, 1, 1),
    "stem": (3, 8, 3, 2, 0, 1, 1),
    "depthwise": (8, 8, 5, 1, 2, 1, 8),
    "depthwise with stride": (8, 8, 3, 2, 0, 1, 8),
    "depthwise, dilated": (8, 8, 3, 1, 2, 2, 8),
}


def case(name: str) -> tuple[list[torch.Tensor], tuple[Any, ...]]:
    channels, filters, kernel, stride, padding, dilation, groups = GEOMETRIES[name]
    torch.manual_seed(0)
    x = 4 * torch.randn(2, channels, 11, 9).to(memory_format=torch.channels_last)
    tensors = [x, torch.randn(filters, channels // groups, kernel, kernel), torch.randn(filters)]
    return tensors, ((stride,) * 2, (padding,) * 2, (dilation,) * 2, groups)


def in_steps(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *geometry: Any) -> torch.Tensor:
    return functional.relu6(functional.conv2d(x, weight, bias, *geometry))


@pytest.mark.parametrize("name", GEOMETRIES)
def test_values_and_gradients_are_those_of_two_steps(name: str) -> None:
    tensors, geometry = case(name)
    results = []
    for function in (in_steps, conv_relu6):
        leaves = [tensor.clone(memory_format=torch.preserve_format).requires_grad_() for tensor in tensors]
        y = function(*leaves, *geometry)
        assert 0 < ((y > 0) & (y < 6)).float().mean() < 1 and y.max() == 6  # both bounds are met
        (y * torch.arange(y.numel()).view_as(y).cos()).sum().backward()
        results.append([y.detach(), *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("filters_learn", [False, True])
def test_under_autocast_it_is_near_and_slow_gradients_stay_in_single_precision(name: str, filters_learn: bool) -> None:
    tensors, geometry = case(name)
    exact, leaves = ([tensor.clone().requires_grad_() for tensor in tensors] for _ in range(2))
    for tensor in leaves[1:]:
        tensor.requires_grad_(filters_learn)
    expected = in_steps(*exact, *geometry)
    expected.sum().backward()
    with torch.autocast("cpu", torch.bfloat16):
        y = conv_relu6(*leaves, *geometry)
    slow = "depthwise" in name and (filters_learn or "stride" in name)
    assert y.dtype == (torch.float32 if slow else torch.bfloat16)
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.2)
    y.float().sum().backward()
    for leaf, right in zip(leaves, exact, strict=True):
        if not leaf.requires_grad:
            assert leaf.grad is None
            continue
        assert leaf.grad is not None and right.grad is not None and leaf.grad.dtype == torch.float32
        difference = (leaf.grad - right.grad).norm() / right.grad.norm()  # a value beside a bound may fall on it
        assert difference < (1e-5 if slow else 0.25)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert conv_relu6(*leaves, *geometry).dtype == torch.bfloat16


@pytest.mark.slow
def test_other_types_are_computed_in_steps() -> None:
    tensors, geometry = case("pointwise")
    doubles = [tensor.double().requires_grad_() for tensor in tensors]
    torch.testing.assert_close(conv_relu6(*doubles, *geometry), in_steps(*doubles, *geometry))
    assert torch.autograd.gradcheck(lambda *leaves: conv_relu6(*leaves, *geometry), doubles)


@pytest.mark.parametrize("learns", [False, True])
def test_half_precision_is_computed_in_steps_where_onednn_cannot(learns: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with PyTorch 2.6 on a CPU without AVX-512: the fused operator takes single precision only."""
    fused = torch.ops.mkldnn._convolution_pointwise

    def single_only(x: torch.Tensor, *others: Any) -> torch.Tensor:
        assert x.dtype == torch.float32, "bf16 needs AVX-512"
        return fused(x, *others)

    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_convolution_pointwise", single_only)
    tensors, geometry = case("pointwise")
    leaves = [tensor.clone().requires_grad_(learns) for tensor in tensors]
    with torch.autocast("cpu", torch.bfloat16):
        y = conv_relu6(*leaves, *geometry)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), in_steps(*tensors, *geometry), rtol=0.05, atol=0.1)
    conv_relu6(*tensors, *geometry)  # in single precision it is fused as before


def test_a_lite_backbone_whose_norms_learn_keeps_slow_gradients_in_single_precision() -> None:
    backbone = create_backbone("lite0", pretrained=False).train()
    kinds: dict[str, torch.dtype] = {}
    for name, module in backbone.net.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda _m, _x, y, name=name: kinds.update({name: y.dtype}))
    with torch.autocast("cpu", torch.bfloat16):
        backbone(torch.randn(2, 3, 64, 64))
    assert {name for name, dtype in kinds.items() if dtype == torch.float32} == {n for n in kinds if "conv_dw" in n}


@pytest.mark.slow
@pytest.mark.parametrize("freezing", [{}, {"stages": 3, "batch_norm": True, "depthwise": True}])
def test_a_lite_backbone_learns_the_same_with_and_without(freezing: dict[str, Any]) -> None:
    """Hooks on its layers, which want to see what each gives, keep the steps apart."""
    torch.manual_seed(0)
    backbone = create_backbone("lite0", pretrained=True)
    assert isinstance(backbone.net, EfficientNetLite)
    backbone.freeze(**freezing)
    backbone.eval()  # the batch statistics of BatchNorm would be on the way of both
    images = torch.randn(2, 3, 97, 64).to(memory_format=torch.channels_last)
    results = []
    for watched in (True, False):
        hooks = [m.register_forward_hook(lambda *_: None) for m in backbone.net.modules() if watched]
        backbone.zero_grad()
        features = backbone(images)
        (features * torch.arange(features.numel()).view_as(features).cos()).sum().backward()
        results.append((features.detach(), {n: p.grad for n, p in backbone.named_parameters() if p.requires_grad}))
        for hook in hooks:
            hook.remove()
    torch.testing.assert_close(results[1][0], results[0][0], rtol=1e-4, atol=1e-4)
    assert list(results[0][1]) == list(results[1][1]) and len(results[0][1]) > 20
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], gradient, rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))
