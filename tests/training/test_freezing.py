"""Frozen stages and BatchNorm, and backbone weights from a file."""

from pathlib import Path

import pytest
import torch

from tests.tiny_runs import tiny
from tests.training.runs import stopped, tensors, weights
from wildcat.errors import WildcatError
from wildcat.runs.folder import build_model
from wildcat.training.launch import train


@pytest.fixture(scope="module")
def backbone_weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A state dict file of the tiny backbone with statistics that are not those of a new BatchNorm, and its content."""
    torch.manual_seed(5)
    net = build_model(tiny(), 8, pretrained=False).backbone.net
    state = {name: v.uniform_(0.5, 1.5) if "running_var" in name else v for name, v in net.state_dict().items()}
    file = tmp_path_factory.mktemp("weights") / "backbone.pth"
    torch.save(state, file)
    return file, {f"backbone.net.{name}": value.clone() for name, value in state.items()}


STEM = ("backbone.net.conv1.", "backbone.net.bn1.")


NORMS = {
    f"backbone.net.{name}.{part}"
    for name, module in build_model(tiny(), 8, pretrained=False).backbone.net.named_modules()
    if isinstance(module, torch.nn.BatchNorm2d)
    for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "frozen"),
    [
        ({"freeze_stages": 1}, lambda name: name.startswith(STEM)),
        ({"freeze_stages": 2}, lambda name: name.startswith((*STEM, "backbone.net.layer1."))),
        ({"freeze_stages": -1}, lambda name: True),
        ({"freeze_batch_norm": True}, lambda name: name in NORMS),
    ],
)
def test_frozen_layers_keep_weights_and_statistics(tmp_path: Path, backbone_weights, settings: dict, frozen) -> None:
    file, before = backbone_weights
    config = tiny(**settings, weights=str(file), val_fraction=0.2, epochs=1)
    after = tensors(train(config, tmp_path / "run"))
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert not {name for name in changed if frozen(name)}
    expected = {name for name in before if not frozen(name)}
    assert changed == expected
    assert after["transfer.weight"].abs().sum() > 0


def test_freezing_more_stages_than_there_are(tmp_path: Path) -> None:
    with pytest.raises(WildcatError, match=r"freeze_stages: .* has 5 stages"):
        train(tiny(freeze_stages=6), tmp_path / "run")


@pytest.mark.slow
def test_resuming_needs_no_weights_file(tmp_path: Path, backbone_weights, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "backbone.pth"
    file.write_bytes(backbone_weights[0].read_bytes())
    whole = train(tiny(weights=str(file)), tmp_path / "whole")
    stopped(tmp_path / "run", monkeypatch, weights=str(file))
    file.unlink()
    train(tiny(weights=str(file)), tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(whole)
