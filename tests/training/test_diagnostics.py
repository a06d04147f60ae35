"""Training that goes wrong is told, with numbers; training that goes right is not doubted."""

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
from wildcat.runs.folder import build_model
from wildcat.training import launch as training
from wildcat.training.diagnostics import LossWatch, explained, first_bad_layer, first_bad_values, shown
from wildcat.training.launch import train
from wildcat.training.stopping import StopRequest

# Where numbers stop being finite


def test_the_first_bad_weights_are_named() -> None:
    model = build_model(tiny(), 3, pretrained=False)
    assert first_bad_values(model.named_parameters()) is None
    with torch.no_grad():
        model.transfer.bias[1:3] = torch.nan
        model.backbone.net.layer2[0].conv1.weight[0, 0, 0, 0] = torch.inf
    total = model.backbone.net.layer2[0].conv1.weight.numel()
    expected = f"the weights backbone.net.layer2.0.conv1.weight (1 of {total} values)"
    assert first_bad_values(model.named_parameters()) == expected
    assert first_bad_layer(model, torch.zeros(2, 3, 64, 64)) == (expected, [])


def test_the_first_bad_layer_and_its_images_are_named() -> None:
    model = build_model(tiny(), 3, pretrained=False).train()
    images = torch.zeros(3, 3, 64, 64)
    assert first_bad_layer(model, images) == ("the loss", [])
    images[1, 0, 5, 5] = torch.nan
    assert first_bad_layer(model, images) == ("the pixels", [1])

    class Overflow(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([x[:2], x[2:] * 1e38 * 1e38])

    model.backbone.net.layer1[0].conv2.register_forward_hook(lambda _m, _i, out: Overflow()(out.abs() + 1))
    images[1] = 0
    assert first_bad_layer(model, images) == ("the output of backbone.net.layer1.0.conv2", [2])


def test_a_bad_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    normalize = training.Wildcat.normalize

    def bad_second(self: object, pixels: torch.Tensor) -> torch.Tensor:
        images = normalize(self, pixels)
        images[1] = torch.nan
        return images

    order = np.random.default_rng((0, 0)).permutation(24)
    monkeypatch.setattr(training.Wildcat, "normalize", bad_second)
    config = tiny()
    dataset, _ = training.open_training_data(config)
    expected = dataset.samples[order[1]].name
    message = (
        rf"class maps became NaN or infinite in epoch 1, step 1 .*first in the pixels; images: {expected}; no state"
    )
    with pytest.raises(WildcatError, match=message):
        train(config, tmp_path / "run")


# A learning rate that is too high


def doubts(watch: LossWatch, losses: Iterable[float]) -> list[str]:
    return [message for message in map(watch.add, losses) if message is not None]


def test_a_loss_that_rises_is_told_once_with_numbers() -> None:
    watch = LossWatch()
    assert doubts(watch, [0.7] * 10 + [1.4] * 10) == []
    (message,) = doubts(watch, [1.4] * 5 + [9.0] * 100)
    assert message.startswith("the loss has risen from 0.7 before the first step to 1.4 (median of the last 20 steps)")


def test_a_loss_that_falls_or_jumps_is_not_doubted() -> None:
    rng = np.random.default_rng(0)
    falling = 0.2 + 0.5 * np.exp(-np.arange(500) / 100) + rng.normal(0, 0.05, 500)
    falling[100:109] = 30  # nine bad batches
    assert doubts(LossWatch(), falling.clip(0.01).tolist()) == []


def test_a_continued_run_remembers_where_the_loss_began() -> None:
    watch = LossWatch()
    doubts(watch, [0.7] * 3)
    assert watch.first == 0.7
    assert len(doubts(LossWatch(watch.first), [2.0] * 20)) == 1


def test_a_rate_that_is_too_high_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny(lr=100.0, schedule="constant", epochs=4), tmp_path / "high")
    assert "warning: the loss has risen from " in capsys.readouterr().err
    train(tiny(epochs=6), tmp_path / "usual")
    assert "warning" not in capsys.readouterr().err


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


def message(capsys: pytest.CaptureFixture[str], **settings: object) -> list[str]:
    training.open_training_data(tiny(train_split="all", **settings))
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]


def test_labels_that_do_not_vary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert message(capsys, data=folders(tmp_path / "one", only=3)) == [
        "warning: 1 of 1 classes are in every one of the 3 training images and cannot be learnt: only"
    ]
    data = tags(tmp_path / "tags", ["a;b", "a", "a;b", "a;c"])
    assert message(capsys, data=data) == [
        "warning: 1 of 3 classes are in every one of the 4 training images and cannot be learnt: a"
    ]


def test_a_class_that_only_the_held_out_images_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tags(tmp_path, ["a", "b", "a", "b", "a", "b", "a", "b", "rare", "b"])
    seen = [message(capsys, data=data, val_fraction=0.5, seed=seed) for seed in range(6)]
    assert ["warning: 1 of 3 classes are in none of the 5 training images and cannot be learnt: rare"] in seen
    assert [] in seen


def test_images_of_both_sides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders(tmp_path / "train", a=3, b=3)
    folders(tmp_path / "val", a=2, b=2)
    for split, index in (("train", 0), ("val", 1)):
        trees.image(tmp_path / split / "b" / f"{index}.png", colour=(200, 100, index))
    training.open_training_data(tiny(data=f"folder:{tmp_path}", train_split="train", val_split="val"))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert line.startswith("warning: 2 of 4 validation images were trained on (equal files), so that scores on them")
    assert line.endswith("a/0.png, a/1.png")


def test_the_usual_data_is_not_doubted(real_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training.open_training_data(tiny(val_split="val"))
    mini = f"voc07:{real_data / 'voc07-mini'}"
    assert shared_image_warnings(open_dataset(mini, "trainval"), open_dataset(mini, "test"), "test") == []
    training.open_training_data(tiny(data=mini, val_fraction=0.2))
    assert "warning" not in capsys.readouterr().err


# The machine


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            torch.cuda.OutOfMemoryError("CUDA out of memory"),
            r"memory of cuda:1 is not enough; raise accumulate \(now 2",
        ),
        (MemoryError(), "memory of cuda:1 is not enough"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "is not enough"),
        (RuntimeError("DataLoader timed out after 5 seconds"), "no image could be read for stall_minutes"),
        (RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."), r"lower workers \(DataLoader worker"),
        (RuntimeError("[/gloo/transport/tcp/pair.cc:1] Connection closed by peer"), "another process of this run"),
    ],
)
def test_what_runs_out_is_one_sentence(error: BaseException, expected: str) -> None:
    message = explained(error, torch.device("cuda:1"), 2)
    assert message is not None
    with pytest.raises(WildcatError, match=expected):
        raise WildcatError(message)
    assert "\n" not in message


def test_other_errors_are_not_explained_away() -> None:
    assert explained(RuntimeError("mat1 and mat2 shapes cannot be multiplied"), torch.device("cpu"), 1) is None


def test_memory_that_runs_out_in_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, pixels: torch.Tensor) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nAnd more")

    monkeypatch.setattr(training.Wildcat, "normalize", full)
    with pytest.raises(WildcatError, match=r"^the memory of this machine is not enough; raise accumulate \(now 1"):
        train(tiny(), tmp_path / "run")


def test_the_first_names() -> None:
    assert shown(["a", "b"]) == "a, b"
    assert shown([str(n) for n in range(8)]) == "0, 1, 2, 3, 4 and 3 more"


# Being asked to stop


def test_signals_are_noted_and_given_back(capfd: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest() as stop:
        assert stop.signal == 0
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    assert capfd.readouterr().err.strip() == "SIGTERM: saving the state, then stopping"
    with pytest.raises(SystemExit) as left:
        stop.leave(stop.signal)
    assert left.value.code == 143


def test_a_second_control_c_stops_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.signal == signal.SIGINT
        signal.raise_signal(signal.SIGINT)


def test_other_threads_have_no_signals() -> None:
    before = signal.getsignal(signal.SIGTERM)
    inside = []

    def listen() -> None:
        with StopRequest():
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert inside == [before]
