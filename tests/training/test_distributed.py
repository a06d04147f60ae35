"""Several processes train as one does: the same losses and metrics, one writer; none is left waiting."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from tests.tiny_runs import flags, tiny
from tests.training.group import run_groups
from tests.training.runs import tensors
from wildcat.config import TrainConfig
from wildcat.model import Wildcat
from wildcat.training import launch
from wildcat.training.distributed import ProcessGroup

pytestmark = pytest.mark.slow

# 20 epochs of one step of 10 images, so that a row is a step; 8 images are held out.
STEPS = {"data": "synthetic:count=18,size=64", "val_fraction": 0.45, "batch_size": 10, "epochs": 20, "lr": 0.05}
FROZEN = {**STEPS, "freeze_batch_norm": True}
LEARNT = {**STEPS, "epochs": 6}
STOPPED = {**FROZEN, "epochs": 30}
# Features of 3 batches, which the processes share, and 2 steps in each epoch.
FITTED = {**FROZEN, "batch_size": 4, "epochs": 2, "fit_head": True}


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def job(folder: Path, settings: dict, count: int, **more: object) -> dict:
    accumulate = more.pop("accumulate", 1)
    config = dataclasses.asdict(tiny(**settings, accumulate=accumulate))
    return {"count": count, "config": config, "out": str(folder), **more}


def fitted_head(job: dict) -> None:
    """Train, and keep the head that the training starts from."""
    create_strategy, out = launch.create_strategy, Path(job["out"])

    def keep_head(accelerator: Accelerator, group: ProcessGroup, model: Wildcat, config: TrainConfig) -> Any:
        torch.save(model.transfer.state_dict(), out.with_name(f"{out.name} {group.rank}.pt"))
        return create_strategy(accelerator, group, model, config)

    launch.create_strategy = keep_head  # type: ignore[assignment]
    launch.train(TrainConfig(**job["config"]), out)


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict], str]:
    """Every group of this file, trained once; folders, exit codes, stderr."""
    folder = tmp_path_factory.mktemp("groups")
    jobs = {
        "one": job(folder / "one", FROZEN, 1),
        "parts": job(folder / "parts", FROZEN, 1, accumulate=3),
        "two": job(folder / "two", FROZEN, 2, accumulate=2),
        "four": job(folder / "four", FROZEN, 4),
        "learnt": job(folder / "learnt", LEARNT, 1),
        "learnt by three": job(folder / "learnt by three", LEARNT, 3),
        "whole": job(folder / "whole", STOPPED, 1),
        "stopped": job(folder / "stopped", STOPPED, 2, disturb=[signal.SIGTERM, 1, 5]),
        "continued": job(folder / "stopped", STOPPED, 1, resume=True),
        "killed": job(folder / "killed", {**STOPPED, "epochs": 10_000}, 3, disturb=[signal.SIGKILL, 1, 3]),
        "fitted": job(folder / "fitted", FITTED, 1, call=f"{__name__}:fitted_head"),
        "fitted by three": job(folder / "fitted by three", FITTED, 3, call=f"{__name__}:fitted_head"),
        "fitted sharded": job(folder / "fitted sharded", {**FITTED, "shard": True}, 2, call=f"{__name__}:fitted_head"),
    }
    outcomes, errors = run_groups(list(jobs.values()))
    return folder, dict(zip(jobs, outcomes, strict=True)), errors


@pytest.mark.parametrize("name", ["parts", "two", "four"])
def test_losses_and_metrics_are_those_of_one_process(groups, name: str) -> None:
    folder, outcomes, errors = groups
    assert set(outcomes[name]["codes"]) == {0}, errors
    ours, one = rows(folder / name), rows(folder / "one")
    assert len(ours) == len(one) == 20
    for row, expected in zip(ours, one, strict=True):
        for column in ("train_loss", "val_loss"):
            assert row[column] == pytest.approx(expected[column], abs=1e-5)
        assert row["val_map"] == pytest.approx(expected["val_map"], abs=1e-5)
    assert one[0]["train_loss"] - one[-1]["train_loss"] > 0.03  # it did learn


def test_batch_norm_that_learns_sees_the_whole_batch(groups) -> None:
    folder, outcomes, errors = groups
    assert outcomes["learnt by three"]["codes"] == [0, 0, 0], errors
    ours, one = rows(folder / "learnt by three"), rows(folder / "learnt")
    for row, expected in zip(ours, one, strict=True):
        for column in ("train_loss", "val_loss"):
            assert row[column] == pytest.approx(expected[column], abs=1e-4)


@pytest.mark.parametrize(("name", "count"), [("fitted by three", 3), ("fitted sharded", 2)])
def test_all_processes_start_from_the_head_that_one_process_fits(groups, name: str, count: int) -> None:
    folder, outcomes, errors = groups
    assert outcomes[name]["codes"] == [0] * count and outcomes["fitted"]["codes"] == [0], errors
    one = torch.load(folder / "fitted 0.pt", weights_only=True)
    for rank in range(count):
        head = torch.load(folder / f"{name} {rank}.pt", weights_only=True)
        for part, value in one.items():
            torch.testing.assert_close(head[part], value, rtol=1e-5, atol=1e-6)
    for row, expected in zip(rows(folder / name), rows(folder / "fitted"), strict=True):
        assert [row[column] for column in ("train_loss", "val_loss", "val_map")] == pytest.approx(
            [expected[column] for column in ("train_loss", "val_loss", "val_map")], abs=1e-5
        )
    ours, expected = tensors(folder / name), tensors(folder / "fitted")
    for part, value in expected.items():
        torch.testing.assert_close(ours[part], value, rtol=1e-4, atol=1e-5)


def test_a_signal_to_one_stops_all_and_another_number_resumes(groups) -> None:
    folder, outcomes, errors = groups
    assert outcomes["stopped"]["codes"] == [143, 143], errors
    assert "stopped in epoch" in errors and "--resume continues" in errors
    assert outcomes["continued"]["codes"] == [0], errors
    ours, one = rows(folder / "stopped"), rows(folder / "whole")
    assert len(ours) == len(one) == 30
    for row, expected in zip(ours, one, strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], abs=1e-5)


def test_a_killed_process_ends_the_others_with_a_message(groups) -> None:
    _, outcomes, errors = groups
    assert outcomes["killed"]["codes"] == [2, -signal.SIGKILL, 2], errors
    assert outcomes["killed"]["seconds"] < 60
    assert "rank 0: another process of this run has ended" in errors and "the last saved state is kept in" in errors


def test_torchrun_ends_all_when_one_is_killed(tmp_path: Path) -> None:
    """Through the command line, where torchrun watches its processes."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    settings = flags(**{**FROZEN, "epochs": 10_000})
    command = [*torchrun, "-m", "wildcat", "train", "--out", str(tmp_path / "run"), *settings]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ}) as agent:
        try:
            while not (tmp_path / "run" / "metrics.csv").exists():
                assert agent.poll() is None
                time.sleep(0.1)
            children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
            assert len(children) == 2
            os.kill(int(children[1]), signal.SIGKILL)
            _, errors = agent.communicate(timeout=60)
        finally:
            agent.kill()
    assert agent.returncode == 1
    assert "SIGKILL" in errors
    assert (tmp_path / "run" / "state.pt").exists()
