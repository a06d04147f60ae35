"""Several processes train as one does: the same losses and metrics, one writer; none is left waiting."""

import csv
import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tiny_runs import flags, tiny
from tests.training.group import run_groups

pytestmark = pytest.mark.slow

# 20 epochs of one step of 10 images, so that a row is a step; 8 images are held out.
STEPS = {"data": "synthetic:count=18,size=64", "val_fraction": 0.45, "batch_size": 10, "epochs": 20, "lr": 0.05}
FROZEN = {**STEPS, "freeze_batch_norm": True}
LEARNT = {**STEPS, "epochs": 6}
STOPPED = {**FROZEN, "epochs": 30}


def rows(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def job(folder: Path, settings: dict, count: int, **more: object) -> dict:
    accumulate = more.pop("accumulate", 1)
    config = dataclasses.asdict(tiny(**settings, accumulate=accumulate))
    return {"count": count, "config": config, "out": str(folder), **more}


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
