"""What tests read in a run directory, and training processes that are killed."""

import csv
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_runs import start, tiny
from wildcat.training import engine
from wildcat.training.launch import train
from wildcat.training.state import load_state


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def untimed(folder: Path) -> list[dict[str, str]]:
    """The rows without what depends on the clock."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows(folder)]


class Stop(Exception):
    """A crash."""


def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch, **settings: object) -> Path:
    """A run that was killed when it had saved its first state."""
    save = engine.save_state

    def save_and_stop(where: Path, state: dict) -> None:
        save(where, state)
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(engine, "save_state", save_and_stop)
        train(tiny(**settings), folder)
    return folder


def tensorboard(folder: Path) -> dict[str, list]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {name: events.Scalars(name) for name in events.Tags()["scalars"]}


def killed(folder: Path, arguments: list, moment, **environment: str) -> tuple[int, int]:
    """Start a process, kill it when `moment` is true of its folder, and return the (epoch, step) of the saved state.

    Every state that is loaded meanwhile is complete: loading never fails.
    """
    process = start("train", *arguments, **environment)
    try:
        deadline = time.monotonic() + 300
        while not moment(folder):
            if process.poll() is not None:
                raise AssertionError(f"ended by itself: {process.communicate()[1]}")
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    state = load_state(folder)
    assert state is not None
    return state["progress"]["epoch"], state["progress"]["step"]


def reached(epoch: int, step: int):
    seen = 0

    def moment(folder: Path) -> bool:
        nonlocal seen
        file = folder / "state.pt"
        if not file.exists() or file.stat().st_mtime_ns == seen:
            return False
        seen = file.stat().st_mtime_ns
        state = load_state(folder)
        return state is not None and (state["progress"]["epoch"], state["progress"]["step"]) >= (epoch, step)

    return moment
