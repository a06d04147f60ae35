"""A backbone and a pooling of the user's own: trained by name, saved, loaded, exported."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests import unusual
from tests.tiny_runs import tiny
from wildcat import pooling
from wildcat.backbones import factory
from wildcat.backbones.factory import register_backbone
from wildcat.errors import WildcatError
from wildcat.export.write import export
from wildcat.pooling import create_pooling, register_pooling
from wildcat.prediction.loading import load
from wildcat.training.launch import train


class WeightedMeanPool(nn.Module):
    """Mean of the regions times a factor that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, class_maps: Tensor) -> Tensor:
        return self.factor * class_maps.mean(dim=(2, 3))


def small_net(pretrained: bool, output_stride: int | None) -> nn.Module:
    assert not pretrained
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 4, 1), nn.ReLU())


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names registered in a test are forgotten after it."""
    monkeypatch.setattr(factory, "_factories", dict(factory._factories))
    monkeypatch.setattr(pooling, "_factories", dict(pooling._factories))


@pytest.mark.slow
def test_one_epoch_saved_and_loaded(tmp_path: Path) -> None:
    register_backbone("mine", small_net)
    register_pooling("weighted-mean", lambda kmax, kmin, alpha: WeightedMeanPool())
    config = tiny(backbone="mine", pooling="weighted-mean", epochs=1)
    folder = train(config, tmp_path / "run")
    predictor = load(folder)
    assert predictor.model.backbone.channels == 16 and predictor.model.backbone.stride == 16
    factor = predictor.model.pooling.factor.item()
    assert factor != 1  # it learnt, and came back from the file
    prediction = predictor(unusual.photo())
    logits = factor * prediction.class_maps.mean(axis=(1, 2))
    np.testing.assert_allclose(prediction.probabilities, 1 / (1 + np.exp(-logits)), atol=1e-5)
    made = export(predictor.model, predictor.settings, tmp_path / "a.pt2", "torch")
    assert made.difference < 1e-4


@pytest.mark.parametrize(
    ("part", "known", "message"),
    [
        ("backbone", factory, r"config\.json: unknown backbone 'mine' .*register_backbone first"),
        ("pooling", pooling, r"config\.json: unknown pooling 'mine'; .*register_pooling first"),
    ],
)
def test_a_name_that_is_not_registered_on_loading(tmp_path: Path, part: str, known: object, message: str) -> None:
    register_backbone("mine", small_net)
    register_pooling("mine", lambda kmax, kmin, alpha: WeightedMeanPool())
    folder = train(tiny(**{part: "mine"}, epochs=1), tmp_path / "run")
    del known._factories["mine"]  # type: ignore[attr-defined]
    with pytest.raises(WildcatError, match=message):
        load(folder)
    with pytest.raises(WildcatError, match=f"unknown {part} 'mine'"):  # before any image is opened
        train(tiny(**{part: "mine"}, data="folder:nowhere"), tmp_path / "other")


def test_poolings_get_the_settings() -> None:
    asked: list[tuple[object, ...]] = []

    def make(*settings: object) -> nn.Module:
        asked.append(settings)
        return WeightedMeanPool()

    register_pooling("mine", make)
    create_pooling("mine", 3, 0.2, 0.5)
    assert asked == [(3, 0.2, 0.5)]
    with pytest.raises(ValueError, match="'max' is a pooling of the package; register yours under another name"):
        register_pooling("max", make)
