"""What is made ready for prediction computes what the model computes."""

import copy
from typing import Any

import pytest
import timm
import torch

from wildcat import inference
from wildcat.inference import PRECISIONS, bf16_pays, prepared
from wildcat.model import Wildcat, create_model


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


@pytest.mark.parametrize("backbone", ["lite0", "resnet18", "timm:test_efficientnet", "timm:test_vit"])
def test_it_computes_the_same_and_leaves_the_model_as_it_was(backbone: str) -> None:
    model = model_of(backbone)
    before = copy.deepcopy(model.state_dict())
    images = torch.randn(2, 3, 96, 128)
    ready = prepared(model)
    with torch.inference_mode():
        expected, found = model(images), ready(images)
        folded = ready.folded()(images)
    torch.testing.assert_close(tuple(found), tuple(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(tuple(folded)[:2], tuple(expected)[:2], rtol=1e-4, atol=1e-5)
    assert not any(p.requires_grad for p in ready.backbone.parameters())
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    model.train()(images).scores.sum().backward()
    assert model.transfer.weight.grad is not None and any(p.grad is not None for p in model.backbone.parameters())


def test_bf16_is_near_and_comes_out_in_single_precision() -> None:
    model = model_of("resnet18")
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        expected, found = model(images), prepared(model, "bf16")(images)
    assert all(tensor.dtype == torch.float32 for tensor in found)
    assert not torch.equal(found.scores, expected.scores)
    spread = expected.class_maps.std().item()
    torch.testing.assert_close(found.class_maps, expected.class_maps, rtol=0, atol=0.1 * spread)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(("units", "backbone", "pays"), [(True, "resnet18", True), (True, "lite0", False)])
def test_bf16_pays_where_matrix_units_meet_dense_convolutions(
    monkeypatch: pytest.MonkeyPatch, units: bool, backbone: str, pays: bool
) -> None:
    model = model_of(backbone)
    monkeypatch.setattr(inference, "processor_has_matrix_units", lambda: units)
    assert bf16_pays(model.backbone) is pays
    assert isinstance(prepared(model, "auto").backbone, inference.HalfTrunk) is pays
    monkeypatch.setattr(inference, "processor_has_matrix_units", lambda: False)
    assert not bf16_pays(model.backbone)


def test_other_precisions_are_refused() -> None:
    wrong: Any = "fp16"
    with pytest.raises(ValueError, match=f"must be one of {', '.join(PRECISIONS)}; got 'fp16'"):
        prepared(model_of("resnet18"), wrong)


def test_a_baked_network_of_timm_has_its_activations() -> None:
    """Its BatchNorm carries the activation."""
    from wildcat.folding import baked, fold_norms

    net = timm.create_model("test_efficientnet", pretrained=False).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = net(images)
        assert fold_norms(net, images) > 5
        torch.testing.assert_close(baked(net)(images), expected, rtol=1e-4, atol=1e-5)
