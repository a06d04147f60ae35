"""Checkpoints in the exact layout of the authors' code, against a restatement of its forward pass."""

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from tests import unusual
from wildcat.cli import main
from wildcat.errors import WildcatError
from wildcat.evaluation.scoring import evaluate
from wildcat.prediction.loading import load
from wildcat.runs.convert import convert, read_classes
from wildcat.runs.folder import load_run

CLASSES = ["cat", "dog", "horse"]


class Official(nn.Module):
    """The network as their code builds it; the forward pass is restated, with its division by 2."""

    def __init__(self, resnet: Any, num_classes: int, num_maps: int, k: float, alpha: float) -> None:
        super().__init__()
        self.num_maps, self.k, self.alpha = num_maps, k, alpha
        stem = (resnet.conv1, resnet.bn1, resnet.relu, resnet.maxpool)
        self.features = nn.Sequential(*stem, resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4)
        self.classifier = nn.Sequential(nn.Conv2d(resnet.fc.in_features, num_classes * num_maps, kernel_size=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.classifier(self.features(images))
        batch, channels, height, width = maps.shape
        # their class-wise pooling
        maps = maps.view(batch, channels // self.num_maps, self.num_maps, height, width).sum(2) / self.num_maps
        # their spatial pooling
        total = height * width
        k = 0 if self.k <= 0 else round(self.k * total) if self.k < 1 else total if self.k > total else int(self.k)
        ordered = maps.view(batch, -1, total).sort(dim=2, descending=True).values
        scores = ordered[:, :, :k].sum(2) / k
        if k > 0:  # and `self.alpha is not 0`, which is true of every float
            scores = (scores + ordered[:, :, total - k :].sum(2) * (self.alpha / k)) / 2
        return scores


def official(depth: str = "resnet18", num_maps: int = 4, k: float = 0.2, alpha: float = 0.7) -> Official:
    torch.manual_seed(0)
    net = Official(getattr(torchvision.models, depth)(weights=None), len(CLASSES), num_maps, k, alpha)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return net.eval()


def save(net: Official, file: Path, *, parallel: bool = True, counted: bool = False, old: bool = True) -> Path:
    """As their engine saves; PyTorch 0.3 wrote another container, and did not count batches."""
    state = OrderedDict(
        (f"module.{key}" if parallel else key, value)
        for key, value in net.state_dict().items()
        if counted or not key.endswith("num_batches_tracked")
    )
    content = {"epoch": 20, "arch": "resnet", "state_dict": state, "best_score": np.float64(92.5)}
    torch.save(content, file, _use_new_zipfile_serialization=not old)
    return file


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_scores_are_theirs(tmp_path: Path, parallel: bool, old: bool) -> None:
    net = official()
    file = save(net, tmp_path / "best.pth.tar", parallel=parallel, old=old, counted=not old)
    run = convert(file, tmp_path / "run", CLASSES, kmax=0.2, alpha=0.7, image_size=96)
    assert (run.config.backbone, run.config.num_maps, run.config.data) == ("resnet18", 4, "converted:best.pth.tar")
    model, _ = load_run(tmp_path / "run")
    images = torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(model(images).scores, net(images), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("k", "alpha"), [(1, 1.0), (3, 0.0), (0.4, 0.3)])
@pytest.mark.parametrize("num_maps", [1, 3])
def test_other_settings(tmp_path: Path, k: float, alpha: float, num_maps: int) -> None:
    net = official(num_maps=num_maps, k=k, alpha=alpha)
    file = save(net, tmp_path / "best.pth.tar")
    convert(file, tmp_path / "run", CLASSES, kmax=k, alpha=alpha, multi_label=False)
    model, run = load_run(tmp_path / "run")
    assert not run.multi_label and run.config.image_size == 448
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(model(images).scores, net(images), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_without_the_lowest_regions_nothing_is_halved(tmp_path: Path) -> None:
    file = save(official(), tmp_path / "best.pth")
    convert(file, tmp_path / "run", CLASSES, kmax=1, kmin=0, alpha=0.7)
    model, _ = load_run(tmp_path / "run")
    assert torch.equal(model.transfer.bias, official().classifier[0].bias)


@pytest.mark.slow
def test_resnet101(tmp_path: Path) -> None:
    """The paper's backbone, by the command; then the run is one like any other."""
    net = official("resnet101", num_maps=2)
    file = save(net, tmp_path / "best.pth.tar", old=False)
    out = tmp_path / "run"
    command = ["convert", str(file), "--classes", ",".join(CLASSES), "--kmax", "0.2", "--alpha", "0.7"]
    assert main([*command, "--image-size", "64", "--out", str(out)]) == 0
    prediction = load(out)(unusual.photo())
    assert set(prediction.scores) == set(CLASSES)
    pixels = torch.from_numpy(unusual.photo(64, 64)).permute(2, 0, 1)[None]
    predictor = load(out)
    with torch.inference_mode():
        images = predictor.model.normalize(pixels)
        torch.testing.assert_close(predictor.model(images).scores, net(images), rtol=1e-4, atol=1e-5)
    with pytest.raises(WildcatError, match="other classes than the model"):
        evaluate(predictor, "synthetic:count=8,size=64")
    assert main([*command, "--out", str(out)]) == 2  # it holds a run


class Danger:
    def __reduce__(self) -> Any:
        return os.system, ("echo executed",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"a": Danger()}}, "cannot be read as a checkpoint of tensors and plain values alone"),
        ({"epoch": 3, "state_dict": {"a": 1}}, "holds no state dict"),
        ([1], "holds no state dict"),
        ({"state_dict": {"fc.weight": torch.zeros(1)}}, "no checkpoint of the authors' code: it holds fc.weight"),
        ({"state_dict": {"features.0.weight": torch.zeros(1)}}, "authors' code: it lacks classifier.0.weight"),
    ],
)
def test_other_files(tmp_path: Path, content: Any, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(WildcatError, match=message):
        convert(tmp_path / "a.pth", tmp_path / "run", CLASSES, kmax=1, alpha=1.0)
    assert "executed" not in capfd.readouterr().out and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_does_not_fit(tmp_path: Path) -> None:
    file = save(official(), tmp_path / "a.pth")
    with pytest.raises(WildcatError, match="has 12 maps, which 5 classes cannot share equally"):
        convert(file, tmp_path / "run", list("abcde"), kmax=1, alpha=1.0)
    state = torch.load(save(official(), file, old=False, parallel=False), weights_only=False)["state_dict"]
    torch.save({key: value for key, value in state.items() if not key.startswith("features.6.1")}, file)
    with pytest.raises(WildcatError, match="stages of 2, 2, 1, 2 blocks, which no known ResNet has"):
        convert(file, tmp_path / "run", CLASSES, kmax=1, alpha=1.0)
    torch.save({**state, "features.1.bias": torch.zeros(3)}, file)
    with pytest.raises(WildcatError, match=r"does not fit resnet18: .* backbone\.net\.bn1\.bias"):
        convert(file, tmp_path / "run", CLASSES, kmax=1, alpha=1.0)
    with pytest.raises(WildcatError, match=r"nowhere\.pth does not exist"):
        convert(tmp_path / "nowhere.pth", tmp_path / "run", CLASSES, kmax=1, alpha=1.0)


def test_class_names(tmp_path: Path) -> None:
    assert len(read_classes("voc")) == 20 and read_classes("a, b") == ["a", "b"]
    (tmp_path / "names.txt").write_text("a b\nc\n\n")
    assert read_classes(str(tmp_path / "names.txt")) == ["a b", "c"]
    for given in ("", "a,,b", "a,b,a"):
        with pytest.raises(WildcatError, match="class names must not be empty, nor occur twice"):
            read_classes(given)
