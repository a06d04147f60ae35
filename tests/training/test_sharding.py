"""A model divided over processes trains as a whole one does, in a part of its memory, and leaves the same files."""

import gc
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from tests.tiny_runs import tiny
from tests.training.group import run_groups
from tests.training.test_distributed import job, rows
from wildcat.backbones import Backbone
from wildcat.config import TrainConfig
from wildcat.errors import WildcatError
from wildcat.model import Wildcat, create_model
from wildcat.pooling import SpatialPool
from wildcat.training import distributed as processes
from wildcat.training.diagnostics import LossWatch
from wildcat.training.distributed import create_accelerator
from wildcat.training.launch import train
from wildcat.training.sharding import gather_full_state, shard_model, shard_optimizer_state
from wildcat.training.state import load_state
from wildcat.transfer import MultiMapTransfer

pytestmark = pytest.mark.slow

# 20 steps of 4 images. The 4 images held out are one batch: one process has none to score.
STEPS = {"data": "synthetic:count=84,size=64", "val_fraction": 4 / 84, "batch_size": 4, "epochs": 1}
# All cells count: the plain grounds of synthetic images give equal ones, of which rounding would choose the highest.
LITE = {**STEPS, "backbone": "lite0", "pretrained": True, "freeze_batch_norm": True, "kmax": "all", "lr": 0.002}
RESNET = {**STEPS, "backbone": "resnet18", "freeze_batch_norm": True, "kmax": "all", "lr": 0.001}
LEARNT = {**STEPS, "data": "synthetic:count=44,size=64", "val_fraction": 4 / 44, "lr": 0.01}
# Epochs of one step, for runs that are stopped.
STOPPED = {**STEPS, "data": "synthetic:count=8,size=64", "val_fraction": 0.5, "freeze_batch_norm": True, "epochs": 10}
SHARD = {"shard": True}
RUINED = {**STOPPED, **SHARD}
FAMILIES = ["timm:test_vit", "timm:test_convnext"]


# What the processes of a group do


def _example() -> torch.Tensor:
    return torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))


def _live() -> int:
    """Elements of all tensors that this process holds, each memory counted once; small ones left out."""
    gc.collect()
    storages = {}
    for found in gc.get_objects():
        if type(found) in (torch.Tensor, nn.Parameter):
            storage = found.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes() // found.element_size()
    return sum(storages.values())


def _write(job: dict, name: str, found: object) -> None:
    (Path(job["out"]) / f"{name}-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(found))


def losses(job: dict) -> None:
    """A training whose loss is noted at each step."""
    noted: list[float] = []
    add = LossWatch.add
    LossWatch.add = lambda watch, loss: (noted.append(loss), add(watch, loss))[1]  # type: ignore[method-assign]
    train(TrainConfig(**job["config"]), job["out"])
    _write(job, "losses", noted)


def measure(job: dict) -> None:
    """Elements per process before and after a step, divided; and whether states come back as they were."""
    create_accelerator()
    torch.manual_seed(0)
    model = create_model("timm:test_resnet", num_classes=3, pretrained=False)
    model.backbone.freeze(stages=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    total = sum(parameter.numel() for parameter in model.parameters())
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    blocks = shard_model(model, _example())
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, foreach=True)
    model.eval()(_example()).scores.sum().backward()
    gradients = sum(parameter.grad.to_local().numel() for parameter in parameters)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    momentum = sum(state["momentum_buffer"].to_local().numel() for state in optimizer.state.values())
    state = gather_full_state({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, keep=True)
    changed = [name for name, value in state["model"].items() if not torch.equal(value, before[name])]
    again = shard_optimizer_state(state, model, parameters)
    model.load_state_dict(again["model"])
    optimizer.load_state_dict(again["optimizer"])
    twice = gather_full_state({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, keep=True)
    same = all(torch.equal(state["model"][name], value) for name, value in twice["model"].items())
    for number, values in state["optimizer"]["state"].items():
        buffer = values["momentum_buffer"]
        same &= torch.equal(buffer, twice["optimizer"]["state"][number]["momentum_buffer"])
        same &= buffer.ndim < 4 or buffer.is_contiguous(memory_format=torch.channels_last)
    helper = gather_full_state(model.state_dict(), keep=False)
    del before, state, again, twice
    found = {
        "blocks": blocks,
        "total": total,
        "learning": learning,
        "parameters": sum(parameter.to_local().numel() for parameter in model.parameters()),
        "gradients": gradients,
        "momentum": momentum,
        "live": _live(),
        "changed": len(changed),
        "same": same,
        "helper": sum(value is None for value in helper.values()),
    }
    _write(job, "measured", found)


class Tied(nn.Module):
    """Two blocks with one filter."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()) for _ in range(3)))
        self.blocks[1][0].weight = self.blocks[0][0].weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.blocks(images)


class Scaled(nn.Module):
    """Gives a view of what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0])[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.scale).flatten(2)


class Overwritten(nn.Module):
    """Writes into the view that a block gives, and a block writes into its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.scaled = Scaled()
        self.last = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.scaled(self.conv(images)).add_(1).unflatten(2, images.shape[2:]))


class Borrowing(nn.Module):
    """Uses the filter of a block behind the block's back: it is not put together then."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images) + functional.conv2d(images, self.conv.weight)


class Fickle(nn.Module):
    """Computes something else each time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.factor = nn.Conv2d(3, 3, 1), 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.factor *= 2
        return self.conv(images) * self.factor


def odd_backbones(job: dict) -> None:
    """The number of blocks of odd backbones, or why they cannot be divided."""
    create_accelerator()
    message = {}
    for net in (Tied(), Overwritten(), Borrowing(), Fickle()):
        backbone = Backbone(
            *(type(net).__name__, net, lambda net, images: net(images)),
            **{"channels": 3, "stride": 1, "mean": (0, 0, 0), "std": (1, 1, 1), "native_size": 64, "stages": []},
        )
        try:
            message[backbone.name] = shard_model(Wildcat(backbone, MultiMapTransfer(3, 2), SpatialPool()), _example())
        except WildcatError as error:
            message[backbone.name] = str(error)
    _write(job, "odd", message)


def families(job: dict) -> None:
    """The number of blocks of backbones of several families, the gradient of each compared."""
    create_accelerator()
    message = {}
    for name in FAMILIES:
        model = create_model(name, num_classes=2, pretrained=False)
        message[name] = shard_model(model, _example())
    _write(job, "families", message)


# The groups


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict], str]:
    """Every group of this file; folders, exit codes, stderr."""
    folder = tmp_path_factory.mktemp("groups")
    stopped, noted = folder / "stopped", {"call": "tests.training.test_sharding:losses"}
    jobs = {
        "lite": job(folder / "lite", LITE, 1, **noted),
        "lite divided": job(folder / "lite divided", {**LITE, **SHARD}, 2, **noted),
        "resnet": job(folder / "resnet", RESNET, 1, **noted),
        "resnet divided": job(folder / "resnet divided", {**RESNET, **SHARD}, 2, **noted),
        "learnt": job(folder / "learnt", LEARNT, 1, **noted),
        "learnt divided": job(folder / "learnt divided", {**LEARNT, **SHARD}, 2, **noted),
        "whole": job(folder / "whole", STOPPED, 1),
        "stopped": job(stopped, {**STOPPED, **SHARD}, 2, accumulate=2, disturb=[signal.SIGTERM, 1, 2]),
        "on one": job(stopped, STOPPED, 1, resume=True, disturb=[signal.SIGTERM, 0, 4]),
        "on three": job(stopped, {**STOPPED, **SHARD}, 3, resume=True, disturb=[signal.SIGTERM, 0, 6]),
        "on two": job(stopped, STOPPED, 2, resume=True),
        "killed": job(folder / "killed", {**STOPPED, **SHARD, "epochs": 10_000}, 2, disturb=[signal.SIGKILL, 1, 2]),
        "ruined maps": job(folder / "ruined maps", {**RUINED, **STEPS, "lr": 1e30}, 2),
        "ruined weights": job(folder / "ruined weights", {**RUINED, "lr": 1e38, "weight_decay": 1e10}, 2),
        "measured": {"count": 2, "call": "tests.training.test_sharding:measure", "out": str(folder)},
        "odd": {"count": 2, "call": "tests.training.test_sharding:odd_backbones", "out": str(folder)},
        "families": {"count": 2, "call": "tests.training.test_sharding:families", "out": str(folder)},
    }
    found, errors = run_groups(list(jobs.values()))
    return folder, dict(zip(jobs, found, strict=True)), errors


@pytest.mark.parametrize("name", ["lite", "resnet", "learnt"])
def test_losses_and_metrics_are_those_of_one_process(groups, name: str) -> None:
    folder, found, errors = groups
    assert set(found[f"{name} divided"]["codes"]) == {0}, errors
    ours, one = (json.loads((folder / run / "losses-0.json").read_text()) for run in (f"{name} divided", name))
    assert len(ours) == len(one) == (10 if name == "learnt" else 20)
    assert ours == pytest.approx(one, abs=1e-5)
    assert min(one) < one[0] - 0.05  # it did learn
    ((ours,), (one,)) = rows(folder / f"{name} divided"), rows(folder / name)
    assert (ours["val_loss"], ours["val_map"]) == pytest.approx((one["val_loss"], one["val_map"]), abs=1e-5)


def test_the_files_are_those_of_one_process(groups) -> None:
    folder, _, _ = groups
    for name in ("lite", "resnet"):
        ours, one = load_state(folder / f"{name} divided"), load_state(folder / name)
        assert ours["optimizer"]["state"].keys() == one["optimizer"]["state"].keys()
        for key, expected in one["model"].items():
            torch.testing.assert_close(ours["model"][key], expected, rtol=0, atol=1e-5, check_stride=True)
        for number, values in one["optimizer"]["state"].items():
            mine, expected = (v["momentum_buffer"] for v in (ours["optimizer"]["state"][number], values))
            # A ReLU that rounding switches changes single elements; another order in memory would change them all.
            within = 0.1 * float(expected.abs().max())
            torch.testing.assert_close(mine, expected, rtol=0, atol=within, check_stride=True)
        weights, expected = (load_file(folder / n / "model.safetensors") for n in (f"{name} divided", name))
        assert weights.keys() == expected.keys()


def test_a_run_goes_on_divided_or_not_over_any_number_of_processes(groups) -> None:
    folder, found, errors = groups
    assert found["stopped"]["codes"] == [143, 143], errors
    assert found["on one"]["codes"] == [143], errors
    assert found["on three"]["codes"] == [143] * 3, errors
    assert found["on two"]["codes"] == [0, 0], errors
    ours, one = rows(folder / "stopped"), rows(folder / "whole")
    assert len(ours) == len(one) == 10
    for row, expected in zip(ours, one, strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], abs=1e-5)
        assert row["val_loss"] == pytest.approx(expected["val_loss"], abs=1e-5)


def test_a_killed_process_ends_the_others(groups) -> None:
    _, found, errors = groups
    assert found["killed"]["codes"] == [2, -signal.SIGKILL], errors
    assert found["killed"]["seconds"] < 60


def test_weights_that_are_ruined_are_told(groups) -> None:
    _, found, errors = groups
    assert found["ruined maps"]["codes"] == found["ruined weights"]["codes"] == [2, 2], errors
    assert "class maps became NaN or infinite in epoch 1, step 2" in errors
    for rank in range(2):  # both know, whosever part it is in
        assert f"rank {rank}: the weights became NaN or infinite in epoch 1, step 1" in errors


def test_a_process_holds_its_part_alone(groups) -> None:
    folder, found, errors = groups
    assert found["measured"]["codes"] == [0, 0], errors
    parts = [json.loads((folder / f"measured-{rank}.json").read_text()) for rank in range(2)]
    total, learning = parts[0]["total"], parts[0]["learning"]
    assert parts[0]["blocks"] > 3
    assert sum(part["parameters"] for part in parts) == total
    assert sum(part["gradients"] for part in parts) == sum(part["momentum"] for part in parts) == learning
    for part in parts:
        for kind, whole_kind in (("parameters", total), ("gradients", learning), ("momentum", learning)):
            assert part[kind] == pytest.approx(whole_kind / 2, rel=0.01)
        # Parameters and momentum; nothing keeps what was whole alive.
        assert part["live"] == pytest.approx((total + learning) / 2, rel=0.03)


def test_states_are_put_together_and_divided_without_a_change(groups) -> None:
    folder, _, _ = groups
    for rank in range(2):
        measured = json.loads((folder / f"measured-{rank}.json").read_text())
        assert measured["same"] and measured["changed"] > 0
        assert measured["helper"] > 20  # who only helps gets no tensors


def test_one_process_keeps_the_whole_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny(shard=True, epochs=1), tmp_path / "run")
    assert "shard: there is one process, so it keeps the whole model" in capsys.readouterr().err
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_accelerate_may_not_divide_the_model_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "Accelerator", lambda **_: SimpleNamespace(distributed_type=DistributedType.FSDP))
    with pytest.raises(WildcatError, match=r"accelerate's FSDP is not supported.* --shard divide a large model"):
        create_accelerator()


@pytest.mark.parametrize("rank", [0, 1])
def test_odd_backbones_are_divided_where_they_can_be_and_refused_elsewhere(groups, rank: int) -> None:
    folder, found, errors = groups
    assert found["odd"]["codes"] == [0, 0], errors
    message = json.loads((folder / f"odd-{rank}.json").read_text())
    assert message["Tied"] == 1  # all of it
    assert message["Overwritten"] == 2  # the convolutions
    assert message["Borrowing"].startswith("Borrowing cannot be divided over processes; train without shard (")
    assert message["Fickle"] == "Fickle divided over processes has another gradient; train without shard"


def test_families_of_backbones_are_divided(groups) -> None:
    folder, found, errors = groups
    assert found["families"]["codes"] == [0, 0], errors
    message = json.loads((folder / "families-0.json").read_text())
    assert set(message) == set(FAMILIES) and min(message.values()) > 2
