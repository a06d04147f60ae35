"""Diagnostics: the first NaN or infinity, a rising loss, doubtful data, failures of the machine, signals."""

import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.data import trees
from tests.tiny_runs import tiny
from wildcat.data import shared_image_warnings
from wildcat.data.registry import open_dataset
from wildcat.errors import WildcatError
from wildcat.model import Wildcat
from wildcat.runs.folder import build_model
from wildcat.training.data import open_training_data
from wildcat.training.diagnostics import (
    LossMonitor,
    explain_failure,
    find_nonfinite_layer,
    find_nonfinite_weights,
)
from wildcat.training.launch import train
from wildcat.training.signals import StopRequest

# NaN and infinity


def test_the_first_nonfinite_weights_are_named() -> None:
    model = build_model(tiny(), 3, pretrained=False)
    assert find_nonfinite_weights(model.named_parameters()) is None
    with torch.no_grad():
        model.transfer.bias[1:3] = torch.nan
        model.backbone.net.layer2[0].conv1.weight[0, 0, 0, 0] = torch.inf
    total = model.backbone.net.layer2[0].conv1.weight.numel()
    expected = f"the weights backbone.net.layer2.0.conv1.weight (1 of {total} values)"
    assert find_nonfinite_weights(model.named_parameters()) == expected
    assert find_nonfinite_layer(model, torch.zeros(2, 3, 64, 64)) == (expected, [])


def test_the_first_nonfinite_layer_and_its_images_are_named() -> None:
    model = build_model(tiny(), 3, pretrained=False).train()
    images = torch.zeros(3, 3, 64, 64)
    assert find_nonfinite_layer(model, images) == ("the loss", [])
    images[1, 0, 5, 5] = torch.nan
    assert find_nonfinite_layer(model, images) == ("the pixels", [1])

    class Overflow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x[:2], x[2:] * 1e38 * 1e38])

    model.backbone.net.layer1[0].conv2.register_forward_hook(lambda _m, _i, out: Overflow()(out.abs() + 1))
    images[1] = 0
    assert find_nonfinite_layer(model, images) == ("the output of backbone.net.layer1.0.conv2", [2])


def test_a_bad_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    normalize = Wildcat.normalize

    def bad_second(self: object, pixels: torch.Tensor) -> torch.Tensor:
        images = normalize(self, pixels)
        images[1] = torch.nan
        return images

    order = np.random.default_rng((0, 0)).permutation(24)
    monkeypatch.setattr(Wildcat, "normalize", bad_second)
    config = tiny()
    dataset, _ = open_training_data(config)
    expected = dataset.samples[order[1]].name
    message = (
        rf"class maps became NaN or infinite in epoch 1, step 1 .*first in the pixels; images: {expected}; no state"
    )
    with pytest.raises(WildcatError, match=message):
        train(config, tmp_path / "run")


# A learning rate that is too high


def warnings_of(monitor: LossMonitor, losses: Iterable[float]) -> list[str]:
    return [message for message in map(monitor.add, losses) if message is not None]


def test_a_rising_loss_is_warned_of_once_with_numbers() -> None:
    monitor = LossMonitor(guessing=0.69)
    assert warnings_of(monitor, [0.7] * 10 + [1.4] * 10) == []
    (message,) = warnings_of(monitor, [1.4] * 5 + [9.0] * 100)
    assert message.startswith("the loss has risen from 0.7 before the first step to 1.4 (median of the last 20 steps)")


def test_a_loss_that_falls_or_jumps_causes_no_warning() -> None:
    rng = np.random.default_rng(0)
    falling = 0.2 + 0.5 * np.exp(-np.arange(500) / 100) + rng.normal(0, 0.05, 500)
    falling[100:109] = 30  # nine bad batches
    assert warnings_of(LossMonitor(guessing=0.69), falling.clip(0.01).tolist()) == []


def test_a_fitted_head_is_warned_of_only_above_the_loss_of_guessing() -> None:
    assert warnings_of(LossMonitor(guessing=0.69), [0.02] * 5 + [0.2] * 100) == []
    (message,) = warnings_of(LossMonitor(guessing=0.69), [0.02] * 5 + [0.8] * 100)
    assert message.startswith("the loss has risen from 0.02 before the first step to 0.8")


def test_a_resumed_run_knows_the_first_loss() -> None:
    monitor = LossMonitor(guessing=0.69)
    warnings_of(monitor, [0.7] * 3)
    assert monitor.first_loss == 0.7
    assert len(warnings_of(LossMonitor(0.69, monitor.first_loss), [2.0] * 20)) == 1


def test_a_rate_that_is_too_high_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tiny(lr=100.0, schedule="constant", epochs=4), tmp_path / "high")
    assert "the loss has risen from " in caplog.text
    caplog.clear()
    train(tiny(epochs=6), tmp_path / "usual")
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


# Labels and images


def folders(root: Path, **counts: int) -> str:
    for number, (name, count) in enumerate(counts.items()):
        for index in range(count):
            trees.image(root / name / f"{index}.png", colour=(9 * index, 60 * number, 30))
    return f"folder:{root}"


def tags(root: Path, lines: list[str]) -> str:
    for index, line in enumerate(lines):
        trees.image(root / f"{index}.png", colour=(9 * index, 60, 30))
        lines[index] = f"{index}.png,{line}"
    trees.write(root / "tags.csv", "\n".join(["image,tags", *lines]))
    return f"tags:{root / 'tags.csv'}"


def logged_warnings(caplog: pytest.LogCaptureFixture, **settings: object) -> list[str]:
    caplog.clear()
    open_training_data(tiny(**settings))
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


def test_labels_that_do_not_vary(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(WildcatError, match="all 3 images are of one class, only: a model needs a second class"):
        logged_warnings(caplog, train_split="all", data=folders(tmp_path / "one", only=3))
    assert logged_warnings(caplog, train_split="all", data=tags(tmp_path / "same", ["a", "a"])) == [
        "1 of 1 classes are in every one of the 2 training images and cannot be learnt: a"
    ]
    data = tags(tmp_path / "tags", ["a;b", "a", "a;b", "a;c"])
    assert logged_warnings(caplog, train_split="all", data=data) == [
        "1 of 3 classes are in every one of the 4 training images and cannot be learnt: a"
    ]


def test_a_class_that_only_the_held_out_images_have(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tags(tmp_path, ["a", "b", "a", "b", "a", "b", "a", "b", "rare", "b"])
    seen = [logged_warnings(caplog, train_split="all", data=data, val_fraction=0.5, seed=seed) for seed in range(6)]
    assert ["1 of 3 classes are in none of the 5 training images and cannot be learnt: rare"] in seen
    assert [] in seen


def test_images_of_both_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folders(tmp_path / "train", a=3, b=3)
    folders(tmp_path / "val", a=2, b=2)
    for split, index in (("train", 0), ("val", 1)):
        trees.image(tmp_path / split / "b" / f"{index}.png", colour=(200, 100, index))
    (line,) = logged_warnings(caplog, data=f"folder:{tmp_path}", train_split="train", val_split="val")
    assert line.startswith("2 of 4 validation images were trained on (equal files), so that scores on them")
    assert line.endswith("a/0.png, a/1.png")


def test_the_usual_data_causes_no_warning(real_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert logged_warnings(caplog, val_split="val") == []
    mini = f"voc07:{real_data / 'voc07-mini'}"
    assert shared_image_warnings(open_dataset(mini, "trainval"), open_dataset(mini, "test"), "test") == []
    assert logged_warnings(caplog, data=mini, val_fraction=0.2) == []


# The machine


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory"),
            r"memory of cuda:1 is not enough; raise accumulate \(now 2",
        ),
        (MemoryError(), "memory of cuda:1 is not enough"),
        (RuntimeError("could not create a primitive"), "memory of cuda:1 is not enough; raise accumulate"),
        (RuntimeError("can't start new thread"), "no new thread can be started: memory, .* raise accumulate"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "is not enough"),
        (RuntimeError("DataLoader timed out after 5 seconds"), "no image could be read for stall_minutes"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."), r"lower workers \(DataLoader worker"),
        (
            RuntimeError("DataLoader worker (pid 3) is killed by signal: Bus error. It is possible that"),
            r"shared memory /dev/shm.* is too small; make it larger \(Docker: --shm-size=2g or --ipc=host\)",
        ),
        (RuntimeError("unable to write to file </torch_1_2>: No space left on device (28)"), "shared memory /dev/shm"),
        (RuntimeError("unable to mmap 9 bytes from file </torch_1_2>: Cannot allocate memory (12)"), "--shm-size"),
        (RuntimeError("[/gloo/transport/tcp/pair.cc:1] Connection closed by peer"), "another process of this run"),
    ],
)
def test_failures_of_the_machine_are_one_sentence(error: BaseException, expected: str) -> None:
    message = explain_failure(error, torch.device("cuda:1"), 2)
    assert message is not None
    with pytest.raises(WildcatError, match=expected):
        raise WildcatError(message)
    assert "\n" not in message


def test_other_errors_have_no_explanation() -> None:
    for text in ("mat1 and mat2 shapes cannot be multiplied", "could not create a primitive descriptor for a matmul"):
        assert explain_failure(RuntimeError(text), torch.device("cpu"), 1) is None


def test_a_training_that_runs_out_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, pixels: torch.Tensor) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nAnd more")

    monkeypatch.setattr(Wildcat, "normalize", full)
    with pytest.raises(WildcatError, match=r"^the memory of this machine is not enough; raise accumulate \(now 1"):
        train(tiny(), tmp_path / "run")


# Signals


SENT = [
    pytest.param(
        getattr(signal, name, None), code, marks=pytest.mark.skipif(not hasattr(signal, name), reason="Windows")
    )
    # pre-emption and time limits; a terminal or connection that closes; SLURM's --signal
    for name, code in (("SIGTERM", 143), ("SIGHUP", 129), ("SIGUSR1", 138))
    if hasattr(signal, name)
]


@pytest.mark.parametrize(("sent", "code"), SENT)
def test_signals_are_recorded_and_handlers_restored(
    capfd: pytest.CaptureFixture[str], sent: signal.Signals, code: int
) -> None:
    before = signal.getsignal(sent)
    with StopRequest() as stop:
        assert stop.signal == 0
        signal.raise_signal(sent)
        signal.raise_signal(sent)
        assert stop.signal == sent
    assert signal.getsignal(sent) is before
    assert capfd.readouterr().err.strip() == f"{sent.name}: saving the state, then stopping"
    with pytest.raises(SystemExit) as ended:
        stop.end_process(stop.signal)
    assert ended.value.code == code


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows")
def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop.signal == 0 and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_message_that_has_no_terminal_left(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", gone)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
    assert stop.signal == signal.SIGTERM


def test_a_second_sigint_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        signal.raise_signal(signal.SIGINT)


def test_other_threads_leave_the_handlers() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside = []

    def listen() -> None:
        with StopRequest():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert inside == [before]
