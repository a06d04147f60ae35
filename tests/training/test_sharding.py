"""A model sharded over processes trains as a whole one does, in a part of its memory, and writes the same files."""

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
from wildcat.training import distributed
from wildcat.training.diagnostics import LossMonitor
from wildcat.training.distributed import ProcessGroup, create_accelerator
from wildcat.training.launch import train
from wildcat.training.sharding import full_optimizer_state, full_weights, load_full_state, shard_model
from wildcat.training.state import load_state
from wildcat.transfer import MultiMapTransfer

pytestmark = pytest.mark.slow

# 20 steps of 4 images. The 4 images held out are one batch: one process has none to score.
STEPS = {"data": "synthetic:count=84,size=64", "val_fraction": 4 / 84, "batch_size": 4, "epochs": 1}
# kmax all: the uniform backgrounds of synthetic images give equal cells, of which rounding would choose the highest.
LITE = {**STEPS, "backbone": "lite0", "pretrained": True, "freeze_batch_norm": True, "kmax": "all", "lr": 0.002}
RESNET = {**STEPS, "backbone": "resnet18", "freeze_batch_norm": True, "kmax": "all", "lr": 0.001}
LEARNT = {**STEPS, "data": "synthetic:count=44,size=64", "val_fraction": 4 / 44, "lr": 0.007}
# Epochs of one step, for runs that are stopped.
STOPPED = {**STEPS, "data": "synthetic:count=8,size=64", "val_fraction": 0.5, "freeze_batch_norm": True, "epochs": 10}
SHARD = {"shard": True}
RUINED = {**STOPPED, **SHARD}
FAMILIES = ["timm:test_vit", "timm:test_convnext"]


# Functions that the processes of a group call


def _example() -> torch.Tensor:
    return torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(0))


def _live() -> int:
    """Elements of all tensors that this process holds, each memory counted once."""
    gc.collect()
    storages = {}
    for tensor in gc.get_objects():
        if type(tensor) in (torch.Tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
    return sum(storages.values())


def _write(job: dict, name: str, values: object) -> None:
    (Path(job["out"]) / f"{name}-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(values))


def losses(job: dict) -> None:
    """Train, and record the loss of each step."""
    recorded: list[float] = []
    add = LossMonitor.add
    LossMonitor.add = lambda monitor, loss: (recorded.append(loss), add(monitor, loss))[1]  # type: ignore[method-assign]
    train(TrainConfig(**job["config"]), job["out"])
    _write(job, "losses", recorded)


def _gathered(group: ProcessGroup, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict, list[int]]:
    """The whole state, copied to all processes; and how much of it this process had before that."""
    state = {"model": full_weights(model), "optimizer": full_optimizer_state(model, optimizer)}
    return group.on_main(lambda: state), [len(part) for part in state.values()]


def measure(job: dict) -> None:
    """Elements per process after a step of a sharded model; and whether a state is the same after loading it."""
    group = ProcessGroup(create_accelerator())
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
    state, sizes = _gathered(group, model, optimizer)
    changed = [name for name, value in state["model"].items() if not torch.equal(value, before[name])]
    with torch.no_grad():
        for parameter in parameters:
            parameter.zero_()
    optimizer.state.clear()  # as in a new process
    load_full_state(model, optimizer, state)
    again, _ = _gathered(group, model, optimizer)
    same = state["model"].keys() == again["model"].keys() == before.keys()
    same &= all(torch.equal(state["model"][name], value) for name, value in again["model"].items())
    same &= state["optimizer"]["param_groups"] == again["optimizer"]["param_groups"]
    same &= list(state["optimizer"]["state"]) == list(range(len(parameters)))
    for number, values in state["optimizer"]["state"].items():
        buffer = values["momentum_buffer"]
        same &= buffer.shape == parameters[number].shape
        same &= torch.equal(buffer, again["optimizer"]["state"][number]["momentum_buffer"])
        same &= buffer.ndim < 4 or buffer.is_contiguous(memory_format=torch.channels_last)
    del before, state, again
    values = {
        "blocks": blocks,
        "total": total,
        "learning": learning,
        "parameters": sum(parameter.to_local().numel() for parameter in model.parameters()),
        "gradients": gradients,
        "momentum": momentum,
        "live": _live(),
        "changed": len(changed),
        "same": same,
        "sizes": sizes,
    }
    _write(job, "measured", values)


class Tied(nn.Module):
    """Two blocks that share a filter."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU()) for _ in range(3)))
        self.blocks[1][0].weight = self.blocks[0][0].weight

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.blocks(images)


class Scaled(nn.Module):
    """Returns a view of its result."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([1.0, 2.0, 3.0])[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x * self.scale).flatten(2)


class Overwritten(nn.Module):
    """Overwrites the view that a block returns, and has a block that overwrites its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.scaled = Scaled()
        self.last = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 3, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.last(self.scaled(self.conv(images)).add_(1).unflatten(2, images.shape[2:]))


class Borrowing(nn.Module):
    """Uses the filter of a block without calling the block: the filter is not gathered then."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.conv(images) + functional.conv2d(images, self.conv.weight)


class Fickle(nn.Module):
    """Computes something different each time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.factor = nn.Conv2d(3, 3, 1), 1

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.factor *= 2
        return self.conv(images) * self.factor


def odd_backbones(job: dict) -> None:
    """The number of blocks of odd backbones, or why they cannot be sharded."""
    create_accelerator()
    results = {}
    for net in (Tied(), Overwritten(), Borrowing(), Fickle()):
        backbone = Backbone(
            *(type(net).__name__, net, lambda net, images: net(images)),
            **{"channels": 3, "stride": 1, "mean": (0, 0, 0), "std": (1, 1, 1), "native_size": 64, "stages": []},
        )
        try:
            results[backbone.name] = shard_model(Wildcat(backbone, MultiMapTransfer(3, 2), SpatialPool()), _example())
        except WildcatError as error:
            results[backbone.name] = str(error)
    _write(job, "odd", results)


def families(job: dict) -> None:
    """The number of blocks of backbones of several families, the gradient of each compared."""
    create_accelerator()
    results = {}
    for name in FAMILIES:
        model = create_model(name, num_classes=2, pretrained=False)
        results[name] = shard_model(model, _example())
    _write(job, "families", results)


# The groups


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict], str]:
    """Every group of this file; folders, exit codes, stderr."""
    folder = tmp_path_factory.mktemp("groups")
    stopped, recorded = folder / "stopped", {"call": "tests.training.test_sharding:losses"}
    jobs = {
        # In two parts, as two processes compute a batch: convolutions round differently in batches of other sizes.
        "lite": job(folder / "lite", LITE, 1, accumulate=2, **recorded),
        "lite sharded": job(folder / "lite sharded", {**LITE, **SHARD}, 2, **recorded),
        "resnet": job(folder / "resnet", RESNET, 1, **recorded),
        "resnet sharded": job(folder / "resnet sharded", {**RESNET, **SHARD}, 2, **recorded),
        "learnt": job(folder / "learnt", LEARNT, 1, **recorded),
        "learnt sharded": job(folder / "learnt sharded", {**LEARNT, **SHARD}, 2, **recorded),
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
    outcomes, errors = run_groups(list(jobs.values()))
    return folder, dict(zip(jobs, outcomes, strict=True)), errors


@pytest.mark.parametrize("name", ["lite", "resnet", "learnt"])
def test_losses_and_metrics_are_those_of_one_process(groups, name: str) -> None:
    folder, outcomes, errors = groups
    assert set(outcomes[f"{name} sharded"]["codes"]) == {0}, errors
    ours, one = (json.loads((folder / run / "losses-0.json").read_text()) for run in (f"{name} sharded", name))
    assert len(ours) == len(one) == (10 if name == "learnt" else 20)
    assert ours == pytest.approx(one, abs=1e-5)
    assert min(one) < one[0] - 0.05  # it did learn
    ((ours,), (one,)) = rows(folder / f"{name} sharded"), rows(folder / name)
    assert (ours["val_loss"], ours["val_map"]) == pytest.approx((one["val_loss"], one["val_map"]), abs=1e-5)


def test_the_files_are_those_of_one_process(groups) -> None:
    folder, _, _ = groups
    for name in ("lite", "resnet"):
        ours, one = load_state(folder / f"{name} sharded"), load_state(folder / name)
        assert ours["optimizer"]["state"].keys() == one["optimizer"]["state"].keys()
        for key, expected in one["model"].items():
            torch.testing.assert_close(ours["model"][key], expected, rtol=0, atol=1e-5, check_stride=True)
        for number, values in one["optimizer"]["state"].items():
            mine, expected = (v["momentum_buffer"] for v in (ours["optimizer"]["state"][number], values))
            # A ReLU that rounding switches changes single elements; another order in memory would change them all.
            within = 0.1 * float(expected.abs().max())
            torch.testing.assert_close(mine, expected, rtol=0, atol=within, check_stride=True)
        weights, expected = (load_file(folder / n / "model.safetensors") for n in (f"{name} sharded", name))
        assert weights.keys() == expected.keys()


def test_a_run_resumes_sharded_or_not_on_any_number_of_processes(groups) -> None:
    folder, outcomes, errors = groups
    assert outcomes["stopped"]["codes"] == [143, 143], errors
    assert outcomes["on one"]["codes"] == [143], errors
    assert outcomes["on three"]["codes"] == [143] * 3, errors
    assert outcomes["on two"]["codes"] == [0, 0], errors
    ours, one = rows(folder / "stopped"), rows(folder / "whole")
    assert len(ours) == len(one) == 10
    for row, expected in zip(ours, one, strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], abs=1e-5)
        assert row["val_loss"] == pytest.approx(expected["val_loss"], abs=1e-5)


def test_a_killed_process_ends_the_others(groups) -> None:
    _, outcomes, errors = groups
    assert outcomes["killed"]["codes"] == [2, -signal.SIGKILL], errors
    assert outcomes["killed"]["seconds"] < 60


def test_ruined_weights_are_reported(groups) -> None:
    _, outcomes, errors = groups
    assert outcomes["ruined maps"]["codes"] == outcomes["ruined weights"]["codes"] == [2, 2], errors
    assert "class maps became NaN or infinite in epoch 1, step 2" in errors
    for rank in range(2):  # both report it, whichever shard it is in
        assert f"rank {rank}: the weights became NaN or infinite in epoch 1, step 1" in errors


def test_a_process_holds_its_shard_only(groups) -> None:
    folder, outcomes, errors = groups
    assert outcomes["measured"]["codes"] == [0, 0], errors
    parts = [json.loads((folder / f"measured-{rank}.json").read_text()) for rank in range(2)]
    total, learning = parts[0]["total"], parts[0]["learning"]
    assert parts[0]["blocks"] > 3
    assert sum(part["parameters"] for part in parts) == total
    assert sum(part["gradients"] for part in parts) == sum(part["momentum"] for part in parts) == learning
    for part in parts:
        for kind, whole_kind in (("parameters", total), ("gradients", learning), ("momentum", learning)):
            assert part[kind] == pytest.approx(whole_kind / 2, rel=0.01)
        # Parameters and momentum: nothing refers to the whole tensors any more.
        assert part["live"] == pytest.approx((total + learning) / 2, rel=0.03)


def test_gathering_and_loading_change_no_state(groups) -> None:
    folder, _, _ = groups
    for rank in range(2):
        measured = json.loads((folder / f"measured-{rank}.json").read_text())
        assert measured["same"] and measured["changed"] > 0
        if rank == 0:
            assert measured["sizes"][0] > 20
        else:
            assert measured["sizes"] == [0, 0]  # only the main process has the whole state


def test_one_process_keeps_the_whole_model(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="wildcat")
    train(tiny(shard=True, epochs=1), tmp_path / "run")
    assert "shard: there is one process, so it keeps the whole model" in caplog.text
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_accelerate_may_not_shard_the_model_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "Accelerator", lambda **_: SimpleNamespace(distributed_type=DistributedType.FSDP))
    with pytest.raises(WildcatError, match=r"accelerate's FSDP is not supported.* use --shard to split a large model"):
        create_accelerator()


@pytest.mark.parametrize("rank", [0, 1])
def test_odd_backbones_are_sharded_or_rejected(groups, rank: int) -> None:
    folder, outcomes, errors = groups
    assert outcomes["odd"]["codes"] == [0, 0], errors
    results = json.loads((folder / f"odd-{rank}.json").read_text())
    assert results["Tied"] == 1  # all of it
    assert results["Overwritten"] == 2  # the convolutions
    assert results["Borrowing"].startswith("Borrowing cannot be sharded over processes; train without shard (")
    assert results["Fickle"] == "Fickle has another gradient when sharded over processes; train without shard"


def test_families_of_backbones_are_sharded(groups) -> None:
    folder, outcomes, errors = groups
    assert outcomes["families"]["codes"] == [0, 0], errors
    results = json.loads((folder / "families-0.json").read_text())
    assert set(results) == set(FAMILIES) and min(results.values()) > 2
