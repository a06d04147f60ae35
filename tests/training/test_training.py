"""Training: exact continuation, schedules, freezing, refusals, divergence, validation, awkward images."""

import csv
import json
import math
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests import awkward
from tests.data import trees
from tests.tiny_runs import flags, run, start, tiny
from wildcat.cli import main
from wildcat.config import TrainConfig, read_recipe
from wildcat.data import CheckReport
from wildcat.errors import WildcatError
from wildcat.runs import folder as checkpoint
from wildcat.runs.folder import build_model, load_run, read_run
from wildcat.system.files import unfinished
from wildcat.training import data as loading
from wildcat.training import launch as training
from wildcat.training import loop, validation
from wildcat.training.launch import train
from wildcat.training.loop import learning_rate_factor
from wildcat.training.multiscale import train_scales
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


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of the tiny settings."""
    return train(tiny(), tmp_path_factory.mktemp("plain") / "run")


# Continuing


def killed(folder: Path, arguments: list, moment, **environment: str) -> tuple[int, int]:
    """Start a process, kill it when `moment` says so, and return the (epoch, step) that it left.

    Whatever state is looked at on the way is whole: reading it never fails.
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


def test_measuring_the_precision_leaves_the_model_as_it_was() -> None:
    model = build_model(TrainConfig(pretrained=False), 3, pretrained=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for mode in (True, False):
        model.train(mode)
        assert training.bf16_is_faster(model, 64, torch.device("cpu")) in (True, False)
        assert model.training is mode
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_run_killed_again_and_again_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    settings = {"data": "synthetic:count=40,size=64", "backbone": "timm:test_efficientnet", "epochs": 3}
    settings |= {"val_fraction": 0.2, "save_minutes": 1e-9, "warmup_epochs": 0.5}
    whole = tmp_path / "whole"
    finished = run("train", "--out", whole, *flags(**settings))
    assert finished.returncode == 0, finished.stderr

    broken = tmp_path / "broken"
    first = ["--out", broken, *flags(**settings, **{"workers": 1})]  # and with a worker process: the same images
    again = ["--out", broken, "--resume"]
    left = [
        killed(broken, first, reached(0, 2)),  # within an epoch of 8 steps
        killed(broken, again, reached(1, 0)),  # about its end
        killed(broken, again, reached(2, 1)),
    ]
    assert (0, 2) <= left[0] < left[1] < left[2] < (3, 0) and any(0 < step < 8 for _, step in left)
    with pytest.raises(WildcatError, match=r"has no model\.safetensors; .* --resume"):
        load_run(broken)
    finished = run("train", *again)
    assert finished.returncode == 0, finished.stderr

    assert weights(broken) == weights(whole)
    assert untimed(broken) == untimed(whole)
    assert [row["epoch"] for row in rows(broken)] == ["1", "2", "3"]
    assert not list(broken.glob(".*"))  # nothing half-written stays
    assert len(list((broken / "tensorboard").iterdir())) <= 4  # one for each process that came to the end of an epoch
    scalars = tensorboard(broken)
    assert {name: [event.step for event in events] for name, events in scalars.items()} == {
        name: [1, 2, 3] for name in rows(broken)[0] if name != "epoch"
    }


class Stop(Exception):
    """A crash."""


def test_a_run_that_stops_after_every_saved_state(tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    save = loop.save_state
    stops = []

    def save_and_stop(where: Path, state: dict) -> None:
        save(where, state)
        stops.append((state["progress"]["epoch"], state["progress"]["step"]))
        raise Stop

    monkeypatch.setattr(loop, "save_state", save_and_stop)
    config = tiny(save_minutes=1e-9)
    for _ in range(20):
        try:
            train(config, folder, resume=True)
        except Stop:
            continue
        break
    assert stops == [*((0, step) for step in range(1, 7)), (1, 0), *((1, step) for step in range(1, 7)), (2, 0)]
    assert weights(folder) == weights(plain)
    assert untimed(folder) == untimed(plain)


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "images"
    for label in "ab":
        for number in range(3):
            trees.image(data / label / f"{number}.png", colour=(40 * number, 90, 30))
    config = tiny(data=f"folder:{data}", train_split="all", epochs=1, batch_size=2)
    folder = train(config, tmp_path / "run")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir() if path.is_file()}
    data.rename(tmp_path / "elsewhere")  # what is finished needs no data

    def check(but: str = "") -> None:
        assert train(config, folder, resume=True) == folder
        files = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir() if path.is_file()}
        assert files == {path: content for path, content in before.items() if not path.name.startswith(but or "none")}

    check()
    for state in folder.glob("state*.pt"):  # nor its state, damaged or deleted
        state.write_bytes(b"half")
        before[state] = (state.stat().st_mtime_ns, b"half")
    check()
    for state in folder.glob("state*.pt"):
        state.unlink()
    check(but="state")


def test_a_run_killed_between_its_last_state_and_its_weights(
    tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise Stop

    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(checkpoint, "save_weights", crash)
        train(tiny(), folder)
    assert not (folder / "model.safetensors").exists()
    train(tiny(), folder, resume=True)
    assert weights(folder) == weights(plain)
    assert untimed(folder) == untimed(plain)


def test_a_run_that_stopped_before_its_first_state(
    tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(loop, "save_state", crash)
        train(tiny(), tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "metrics.csv", "tensorboard"}
    assert weights(train(tiny(), tmp_path / "run", resume=True)) == weights(plain)
    assert untimed(tmp_path / "run") == untimed(plain)


def test_resume_without_a_run_starts_one(tmp_path: Path, plain: Path) -> None:
    assert weights(train(tiny(), tmp_path / "run", resume=True)) == weights(plain)


def test_a_run_is_not_overwritten(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = weights(plain)
    with pytest.raises(WildcatError, match="already holds a run: continue it with --resume"):
        train(tiny(seed=1), plain)
    assert main(["train", "--out", str(plain), *flags(seed=1)]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert weights(plain) == before


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("scales", [[], [32, 64]])
@pytest.mark.parametrize("other", ["notes.txt", ".notes.tmp", "state.pt", ".git/HEAD"])
def test_a_folder_with_other_things_is_refused_and_untouched(
    tmp_path: Path, other: str, scales: list[int], resume: bool
) -> None:
    file = tmp_path / "mine" / other
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    with pytest.raises(WildcatError, match=rf"mine holds {file.relative_to(tmp_path / 'mine').parts[0]} and is no run"):
        if scales:
            train_scales(tiny(), scales, tmp_path / "mine", resume=resume)
        else:
            train(tiny(), tmp_path / "mine", resume=resume)
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "mine"


def test_what_a_killed_start_left_does_not_stop_the_next_one(tmp_path: Path, plain: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    elsewhere = ".config.json.4711-0123abcd.tmp"  # on another machine
    for name in (".lock", elsewhere, unfinished(folder / "config.json").name):
        (folder / name).write_text("half")
    assert weights(train(tiny(), folder)) == weights(plain)
    assert not list(folder.glob(".*"))


def test_a_continued_run_removes_its_own_leftovers_alone(tmp_path: Path, plain: Path) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "run"))
    for name in (".mine.tmp", ".state.pt.4711-0123abcd.tmp"):
        (folder / name).write_text("half")
    train(tiny(), folder, resume=True)
    assert [path.name for path in folder.glob(".*")] == [".mine.tmp"]


@pytest.mark.parametrize(
    ("name", "value"), [("lr", 0.2), ("epochs", 3), ("num_maps", 4), ("seed", 1), ("backbone", "lite0")]
)
def test_a_continued_run_keeps_its_settings(
    plain: Path, name: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(WildcatError, match=rf"keeps its settings; {name} is .* not {value!r}"):
        train(tiny(**{name: value}), plain, resume=True)
    assert main(["train", "--out", str(plain), "--resume", f"--{name.replace('_', '-')}", str(value)]) == 2
    assert f"keeps its settings; {name} is" in capsys.readouterr().err


def test_automatic_settings_of_a_continued_run_are_its_own(plain: Path) -> None:
    before = weights(plain)
    train(tiny(precision="auto", workers=None), plain, resume=True)
    assert main(["train", "--out", str(plain), "--resume"]) == 0
    assert weights(plain) == before


def test_a_continued_run_sees_that_its_data_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "images"
    for label in "ab":
        for number in range(3):
            trees.image(data / label / f"{number}.png", colour=(40 * number, 90, 30))
    config = tiny(data=f"folder:{data}", train_split="all", epochs=2, batch_size=2)
    folder = tmp_path / "run"

    def save_and_stop(where: Path, state: dict) -> None:
        save(where, state)
        raise Stop

    save = loop.save_state
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(loop, "save_state", save_and_stop)
        train(config, folder)
    trees.image(data / "b" / "more.png")
    with pytest.raises(WildcatError, match=r"has changed since .*: 7 usable training images of 2 classes instead of 6"):
        train(config, folder, resume=True)
    (data / "b" / "more.png").unlink()
    train(config, folder, resume=True)
    assert len(rows(folder)) == 2


# Seeds


def test_same_seed_same_run(tmp_path: Path, plain: Path) -> None:
    assert weights(train(tiny(), tmp_path / "again")) == weights(plain)
    assert untimed(tmp_path / "again") == untimed(plain)


@pytest.mark.parametrize("seed", [1, 20240101, 2**62])
def test_another_seed_gives_other_weights(tmp_path: Path, plain: Path, seed: int) -> None:
    other, mine = tensors(train(tiny(seed=seed, epochs=1), tmp_path / "run")), tensors(plain)
    assert not torch.equal(other["transfer.weight"], mine["transfer.weight"])


def test_images_depend_on_seed_epoch_and_index_alone() -> None:
    config = tiny(crop_area=0.3)
    dataset, _ = loading.open_training_data(config)
    images = loading.TrainDataset(dataset, config)
    pixels, labels = images[0, 5]
    assert pixels.shape == (64, 64, 3) and pixels.dtype == torch.uint8
    assert torch.equal(labels, torch.from_numpy(dataset.labels[5]))
    images[3, 1]
    assert torch.equal(images[0, 5][0], pixels)
    assert torch.equal(loading.TrainDataset(dataset, config)[0, 5][0], pixels)
    assert not torch.equal(images[1, 5][0], pixels)


def test_an_epoch_is_a_permutation_that_may_start_in_its_middle() -> None:
    sampler = loading.EpochSampler(total=10, used=8, seed=3)
    whole = list(sampler)
    assert len(whole) == len(sampler) == 8 and len({index for _, index in whole}) == 8
    sampler.start = 5
    assert list(sampler) == whole[5:] and len(sampler) == 3
    sampler.epoch, sampler.start = 1, 0
    other = list(sampler)
    assert {epoch for epoch, _ in other} == {1} and [i for _, i in other] != [i for _, i in whole]


# Learning rates


@pytest.mark.parametrize(
    ("settings", "steps", "expected"),
    [
        ({"schedule": "constant", "epochs": 2}, 2, [1, 1, 1, 1]),
        ({"schedule": "step", "step_epochs": 1, "epochs": 3}, 2, [1, 1, 0.1, 0.1, 0.01, 0.01]),
        ({"schedule": "step", "step_epochs": 2, "epochs": 3}, 2, [1, 1, 1, 1, 0.1, 0.1]),
        # half a cosine: cos 0, 45, 90, 135 degrees
        ({"schedule": "cosine", "epochs": 2}, 2, [1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2]),
        ({"schedule": "constant", "epochs": 2, "warmup_epochs": 1.5}, 2, [0.25, 0.5, 0.75, 1]),
        # two steps of warm-up, then a cosine over the other four
        (
            {"schedule": "cosine", "epochs": 3, "warmup_epochs": 1.0},
            2,
            [1 / 3, 2 / 3, 1, (1 + 0.5**0.5) / 2, 0.5, (1 - 0.5**0.5) / 2],
        ),
        ({"schedule": "cosine", "epochs": 1, "warmup_epochs": 5.0}, 2, [1 / 11, 2 / 11]),
    ],
)
def test_schedules(settings: dict, steps: int, expected: list[float]) -> None:
    config = tiny(**settings)
    factors = [learning_rate_factor(config, step, steps) for step in range(len(expected))]
    assert factors == pytest.approx(expected)


def test_the_rate_of_an_epochs_last_step_is_reported(plain: Path) -> None:
    # 12 steps of half a cosine from 0.1; the last steps of the epochs are 5 and 11
    expected = [0.05 * (1 + math.cos(math.pi * step / 12)) for step in (5, 11)]
    assert [float(row["learning_rate"]) for row in rows(plain)] == pytest.approx(expected)


def test_training_is_sgd_by_hand(tmp_path: Path) -> None:
    """The same weights from an obvious loop: v = momentum v + gradient + decay w; w -= rate v."""
    settings = {"lr": 0.02, "backbone_lr_factor": 0.5, "momentum": 0.8, "weight_decay": 0.01, "crop_area": 0.5}
    config = tiny(**settings, schedule="cosine", warmup_epochs=0.5)
    # 3 steps of warm-up, then half a cosine over the other 9
    factors = [0.25, 0.5, 0.75, *(0.5 * (1 + math.cos(math.pi * step / 9)) for step in range(9))]

    dataset, _ = training.open_training_data(config)
    torch.manual_seed(config.seed)
    model = build_model(config, len(dataset.classes), pretrained=True).train()
    images = loading.TrainDataset(dataset, config)
    velocity = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    sampler = loading.EpochSampler(total=24, used=24, seed=config.seed)
    for step, factor in enumerate(factors):
        sampler.epoch = step // 6
        batch = [images[key] for key in list(sampler)[4 * (step % 6) :][:4]]
        pixels = torch.stack([image for image, _ in batch]).permute(0, 3, 1, 2)
        targets = (torch.stack([labels for _, labels in batch]) >= 0).float()  # difficult counts as present
        scores = model(model.normalize(pixels)).scores
        loss = -(targets * scores.sigmoid().log() + (1 - targets) * (-scores).sigmoid().log()).mean()
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            for (name, value), gradient in zip(model.named_parameters(), gradients, strict=True):
                velocity[name] = 0.8 * velocity[name] + gradient + 0.01 * value
                value -= factor * (0.01 if name.startswith("backbone.") else 0.02) * velocity[name]

    found = tensors(train(config, tmp_path / "run"))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


def test_the_backbone_learns_at_a_multiple_of_the_heads_rate(tmp_path: Path) -> None:
    # One step without momentum moves weights by rate x gradient.
    settings = {"epochs": 1, "batch_size": 24, "momentum": 0.0, "weight_decay": 0.0, "schedule": "constant", "lr": 0.5}
    still, half, full = (
        tensors(train(tiny(**settings, backbone_lr_factor=factor), tmp_path / str(factor)))
        for factor in (0.0, 0.5, 1.0)
    )
    moved = 0
    for name in still:
        if name.startswith("transfer."):
            assert torch.equal(still[name], full[name]) and torch.equal(half[name], full[name])
        elif "running" not in name and "tracked" not in name:
            moved += not torch.equal(full[name], still[name])
            torch.testing.assert_close(half[name] - still[name], (full[name] - still[name]) / 2, rtol=0.02, atol=1e-6)
    assert moved > 10


# Freezing


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


@pytest.mark.parametrize(
    ("settings", "frozen"),
    [
        ({"freeze_stages": 1}, lambda name: name.startswith(STEM)),
        ({"freeze_stages": 2}, lambda name: name.startswith((*STEM, "backbone.net.layer1."))),
        ({"freeze_stages": -1}, lambda name: True),
        ({"freeze_batch_norm": True}, lambda name: name in NORMS),
    ],
)
def test_what_is_frozen_stays_with_its_statistics(tmp_path: Path, backbone_weights, settings: dict, frozen) -> None:
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


def test_a_continued_run_needs_no_weights_file(
    tmp_path: Path, backbone_weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "backbone.pth"
    file.write_bytes(backbone_weights[0].read_bytes())
    whole = train(tiny(weights=str(file)), tmp_path / "whole")
    save = loop.save_state

    def save_and_stop(where: Path, state: dict) -> None:
        save(where, state)
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(loop, "save_state", save_and_stop)
        train(tiny(weights=str(file)), tmp_path / "run")
    file.unlink()
    train(tiny(weights=str(file)), tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(whole)


# Divergence


def test_divergence_is_told_and_the_last_state_is_sound(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(
        WildcatError, match=r"NaN or infinite in epoch 1, step \d+ \(learning rate 1e\+30.*state is kept"
    ):
        train(tiny(lr=1e30, schedule="constant", save_minutes=1e-9), folder)
    state = load_state(folder)
    assert state is not None and (state["progress"]["epoch"], state["progress"]["step"]) >= (0, 1)
    assert all(value.isfinite().all() for value in state["model"].values())
    assert not (folder / "model.safetensors").exists()
    with pytest.raises(WildcatError, match="training has not finished"):
        load_run(folder)


def test_weights_ruined_by_the_last_step_are_not_saved(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # One step in all: no later loss would show it. The rate is beyond what single precision holds.
    with pytest.raises(
        WildcatError, match=r"weights became NaN or infinite in epoch 1, step 1 .*no state was saved yet"
    ):
        train(tiny(lr=1e39, schedule="constant", epochs=1, batch_size=24), folder)
    assert not (folder / "model.safetensors").exists() and not (folder / "state.pt").exists()


def test_validation_that_overflows_is_told(tmp_path: Path) -> None:
    with pytest.raises(WildcatError, match="NaN or infinit"):
        train(tiny(lr=1e36, schedule="constant", epochs=1, batch_size=19, val_fraction=0.2), tmp_path / "run")


def test_a_diverging_loss_names_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "multi_label_loss", lambda scores, *_: scores.sum() * math.inf)
    with pytest.raises(WildcatError, match=r"the loss became (-?inf|nan) in epoch 1, step 1"):
        train(tiny(), tmp_path / "run")


# Validation and curves


def tensorboard(folder: Path) -> dict[str, list]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {name: events.Scalars(name) for name in events.Tags()["scalars"]}


def test_validation_rows_and_curves_that_never_choose_the_epoch(tmp_path: Path, plain: Path) -> None:
    folder = train(tiny(val_split="val"), tmp_path / "run")
    assert weights(folder) == weights(plain)  # those of the last epoch, as without validation
    table = rows(folder)
    assert list(table[0]) == [
        *("epoch", "learning_rate", "train_loss", "images_per_second", "seconds", "val_loss", "val_map"),
    ]
    assert len(table) == 2
    assert len(list((folder / "tensorboard").iterdir())) == 1
    scalars = tensorboard(folder)
    for name in set(table[0]) - {"epoch"}:
        assert [event.step for event in scalars[name]] == [1, 2]
        assert [event.value for event in scalars[name]] == pytest.approx([float(row[name]) for row in table], rel=1e-5)


def test_bad_images_of_the_validation_split_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        for label in "ab":
            for number in range(2):
                trees.image(tmp_path / split / label / f"{number}.png", colour=(40 * number, 90, 30))
    (tmp_path / "val" / "a" / "broken.png").write_text("x")
    config = tiny(data=f"folder:{tmp_path}", train_split="train", val_split="val")
    with pytest.raises(WildcatError, match=r"a/broken\.png"):
        training.open_training_data(config)
    _, validation = training.open_training_data(replace(config, on_bad_image="skip"))
    assert validation is not None and len(validation) == 4
    assert "a/broken.png" in capsys.readouterr().err


def test_validation_scores_are_those_of_the_weights(tmp_path: Path) -> None:
    from wildcat.data.registry import open_dataset
    from wildcat.data.transforms import warp
    from wildcat.metrics import average_precision

    folder = train(tiny(val_split="val", epochs=1), tmp_path / "run")
    model, _ = load_run(folder)
    held = open_dataset("synthetic:count=24,size=64", "val")
    pixels = np.stack([warp(held.image(index), 64) for index in range(len(held))])
    with torch.no_grad():
        scores = model(model.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))).scores.numpy()
    targets = (held.labels >= 0).astype(np.float64)  # difficult objects count as present
    losses = np.log1p(np.exp(scores)) - targets * scores
    (row,) = rows(folder)
    assert float(row["val_loss"]) == pytest.approx(losses.mean(), rel=1e-4)
    assert float(row["val_map"]) == pytest.approx(100 * np.nanmean(average_precision(scores, held.labels)), rel=1e-4)


def test_a_held_out_fraction_is_not_trained_on(tmp_path: Path) -> None:
    config = tiny(val_fraction=0.25)
    dataset, validation = loading.open_training_data(config)
    assert validation is not None
    names = [sample.name for sample in dataset.samples], [sample.name for sample in validation.samples]
    assert len(names[0]) == 18 and len(names[1]) == 6 and not set(names[0]) & set(names[1])
    again, _ = loading.open_training_data(config)
    assert [sample.name for sample in again.samples] == names[0]
    folder = train(config, tmp_path / "run")
    assert read_run(folder).images == 18
    assert all(float(row["val_loss"]) > 0 for row in rows(folder))


def test_one_class_a_image(tmp_path: Path) -> None:
    data = tmp_path / "images"
    for label, colour in {"red": (200, 10, 10), "blue": (10, 10, 200)}.items():
        for number in range(8):
            trees.image(data / "train" / label / f"{number}.png", colour=colour)
        trees.image(data / "val" / label / "0.png", colour=colour)
    folder = train(
        tiny(data=f"folder:{data}", train_split="train", val_split="val", epochs=12, lr=0.02), tmp_path / "run"
    )
    found = read_run(folder)
    assert found.classes == ("blue", "red") and not found.multi_label and found.images == 16
    assert float(rows(folder)[-1]["val_accuracy"]) == 100
    assert (
        main(["evaluate", str(folder), "--data", f"folder:{data}", "--split", "val", "--json", str(tmp_path / "r")])
        == 0
    )
    assert json.loads((tmp_path / "r").read_text())["classification"]["accuracy"] == 100


def test_the_loss_falls(plain: Path) -> None:
    first, last = (float(row["train_loss"]) for row in rows(plain))
    assert last < first < 1


def test_what_is_learnt_is_learnt_from_tags(tmp_path: Path) -> None:
    """Colours are told apart by a backbone that starts from nothing."""
    rng = np.random.default_rng(0)
    lines = ["image,tags"]
    for number in range(24):
        present = [name for name in ("red", "blue") if rng.random() < 0.5]
        pixels = np.full((48, 64, 3), 90, np.uint8)
        pixels[:, :32] = (220, 20, 20) if "red" in present else pixels[:, :32]
        pixels[:, 32:] = (20, 20, 220) if "blue" in present else pixels[:, 32:]
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{';'.join(present)}")
    trees.write(tmp_path / "tags.csv", "\n".join(lines))
    config = tiny(data=f"tags:{tmp_path / 'tags.csv'}", train_split="all", val_split="all", epochs=8, lr=0.2)
    assert float(rows(train(config, tmp_path / "run"))[-1]["val_map"]) > 95


# Mistakes of the user's


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"val_fraction": 0.01}, "leaves one part empty"),
        ({"data": "synthetic:count=1,size=64"}, "at least 2 are needed"),
        ({"architecture": "b"}, 'architecture "b" has one map per class'),
        ({"kmax": 1.0}, "ambiguous"),
        ({"val_split": "nope"}, "no split 'nope'"),
    ],
)
def test_mistakes(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(WildcatError, match=message):
        train(tiny(**settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("settings", [{"train_split": "test"}, {"train_split": "trainval", "val_split": "test"}])
def test_a_split_without_labels(tmp_path: Path, settings: dict) -> None:
    trees.unlabelled(trees.voc(tmp_path, 2012))
    with pytest.raises(WildcatError, match=r"test has no labels: none of its 1 images"):
        train(tiny(data=f"voc12:{tmp_path}", **settings), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "settings", [{"batch_size": 1}, {"batch_size": 4, "accumulate": 4}, {"batch_size": 3, "accumulate": 2}]
)
def test_batches_too_small_for_batch_norm(tmp_path: Path, settings: dict) -> None:
    settings |= {"image_size": 32, "epochs": 1}  # one cell behind the backbone
    with pytest.raises(WildcatError) as message:
        train(tiny(**settings), tmp_path / "run")
    assert re.fullmatch(
        r"BatchNorm cannot learn from one value .* batch_size or image_size, .* accumulate \(now \d\).*",
        str(message.value),
    )
    train(tiny(**settings, freeze_batch_norm=True), tmp_path / "frozen")
    train(tiny(**{**settings, "image_size": 64}), tmp_path / "larger")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_image_that_vanishes_while_training_is_named(
    tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in "ab":
        trees.image(tmp_path / "images" / label / "0.png")

    def checked_before_it_vanished(dataset, **_: object):
        (tmp_path / "images" / "a" / "0.png").unlink()
        return dataset, CheckReport("looked at", len(dataset))

    monkeypatch.setattr(loading, "check_dataset", checked_before_it_vanished)
    config = tiny(data=f"folder:{tmp_path / 'images'}", train_split="all", batch_size=2, workers=workers)
    with pytest.raises(WildcatError) as caught:
        train(config, tmp_path / "run")
    assert str(caught.value) == f"{tmp_path / 'images' / 'a' / '0.png'}: no such file"


def test_precision_is_measured_and_kept(tmp_path: Path) -> None:
    folder = train(tiny(precision="auto", workers=None, epochs=1), tmp_path / "run")
    config = read_run(folder).config
    assert config.precision in ("fp32", "bf16") and config.workers == 1
    with torch.no_grad():
        assert torch.equal(*[torch.stack([v.sum() for v in tensors(folder).values()]) for _ in range(2)])


def test_bf16_trains(tmp_path: Path) -> None:
    first, last = (float(row["train_loss"]) for row in rows(train(tiny(precision="bf16"), tmp_path / "run")))
    assert last < first


# Awkward images, through the command line


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class of good images, one of awkward ones, and a CSV of both."""
    folder = tmp_path_factory.mktemp("mixed") / "images"
    awkward.write_all(folder / "awkward")
    for number in range(4):
        trees.image(folder / "plain" / f"{number}.jpg", colour=(50 * number, 80, 160))
    lines = [f"awkward/{name},odd" for name in (*awkward.GOOD, *awkward.BAD)]
    lines += [f"plain/{number}.jpg,plain;calm" for number in range(4)]
    trees.write(folder / "tags.csv", "\n".join(["image,tags", *lines]))
    return folder


@pytest.mark.parametrize("kind", ["folder", "tags"])
def test_awkward_images(mixed: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = f"folder:{mixed}" if kind == "folder" else f"tags:{mixed / 'tags.csv'}"
    arguments = ["train", "--out", str(tmp_path / "run"), *flags(data=data, train_split="all", epochs=1, workers=1)]

    assert main([*arguments, "--on-bad-image", "error"]) == 2
    message = capsys.readouterr()
    assert "4 images cannot be read" in message.err and "on-bad-image skip" in message.err
    assert all(name in message.err for name in awkward.BAD) and "Traceback" not in message.err
    assert len(message.err.strip().splitlines()) <= 3
    assert not (tmp_path / "run").exists()

    finished = run(*arguments, "--on-bad-image", "skip")
    assert finished.returncode == 0, finished.stderr
    assert all(name in finished.stderr for name in awkward.BAD)
    assert not any(name in finished.stderr for name in awkward.GOOD)
    found = read_run(tmp_path / "run")
    assert found.images == len(awkward.GOOD) + 4
    assert found.classes == (("awkward", "plain") if kind == "folder" else ("calm", "odd", "plain"))

    evaluate = ["evaluate", str(tmp_path / "run"), "--data", data, "--split", "all"]
    assert main(evaluate) == 2
    assert "on-bad-image skip" in capsys.readouterr().err
    assert main([*evaluate, "--on-bad-image", "skip"]) == 0
    message = capsys.readouterr()
    assert all(name in message.err for name in awkward.BAD)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["images"] == found.images

    images = str(mixed / "awkward")
    assert main(["predict", str(tmp_path / "run"), images, "--out", str(tmp_path / "found")]) == 1
    message = capsys.readouterr()
    assert all(name in message.err for name in awkward.BAD)
    lines = (tmp_path / "found" / "predictions.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["file"]).name for line in lines] == sorted(awkward.GOOD)
    assert len(list((tmp_path / "found" / "overlay").iterdir())) == len(awkward.GOOD)


# The paper's recipe


@pytest.fixture(scope="module")
def devkit(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four real images in VOC's layout."""
    theirs = real_data / "voc07-mini" / "VOCdevkit" / "VOC2007"
    ours = tmp_path_factory.mktemp("data") / "VOCdevkit" / "VOC2007"
    (ours / "ImageSets" / "Main").mkdir(parents=True)
    for part in ("JPEGImages", "Annotations"):
        (ours / part).symlink_to(theirs / part)
    for lists in (theirs / "ImageSets" / "Main").glob("*_trainval.txt"):
        lines = lists.read_text().splitlines()[:4]
        trees.write(ours / "ImageSets" / "Main" / lists.name, "\n".join(lines) + "\n")
    return f"voc07:{ours.parent.parent}"


@pytest.fixture(scope="module")
def torch_home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    """Random weights of the true ResNet-101, under the name that torchvision looks for: no hub is needed."""
    from torchvision.models import ResNet101_Weights, resnet101

    home = tmp_path_factory.mktemp("torch")
    (home / "hub" / "checkpoints").mkdir(parents=True)
    torch.manual_seed(3)
    net = resnet101(weights=None)
    torch.save(net.state_dict(), home / "hub" / "checkpoints" / Path(ResNet101_Weights.IMAGENET1K_V1.url).name)
    return home, net


def test_recipe_voc07_trains_a_few_steps_and_continues(devkit: str, torch_home, tmp_path: Path) -> None:
    home, net = torch_home
    folder = tmp_path / "run"
    changed = {"image-size": 96, "batch-size": 2, "epochs": 2, "workers": 0, "precision": "fp32"}
    options = [word for name, value in changed.items() for word in (f"--{name}", str(value))]
    arguments = ["--data", devkit, "--train-split", "trainval", "--recipe", "voc07", "--out", folder, *options]
    assert killed(folder, arguments, reached(1, 0), TORCH_HOME=str(home)) == (1, 0)
    config = read_run(folder).config
    assert (config.backbone, config.num_maps, config.kmax, config.alpha) == ("resnet101", 8, 0.2, 0.7)
    finished = run("train", "--out", folder, "--resume", TORCH_HOME=str(tmp_path))  # what resumes has its weights
    assert finished.returncode == 0, finished.stderr
    assert [row["epoch"] for row in rows(folder)] == ["1", "2"]
    # It started from the file: random weights of another seed would have nothing in common with these.
    after = tensors(folder)
    layers = [name for name, value in net.named_parameters() if value.ndim == 4]
    alike = [
        torch.cosine_similarity(after[f"backbone.net.{n}"].flatten(), net.get_parameter(n).flatten(), 0) for n in layers
    ]
    assert max(alike) > 0.9 and not torch.equal(after["backbone.net.conv1.weight"], net.conv1.weight)


def test_recipe_voc07_takes_a_step_at_its_own_size(
    devkit: str, torch_home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(torch_home[0]))
    # As the recipe is, but for four images a step, the measurement of bf16 and the worker process.
    short = ["--epochs", "1", "--batch-size", "4", "--precision", "fp32", "--workers", "0"]
    arguments = ["--data", devkit, "--train-split", "trainval", "--recipe", "voc07", *short]
    assert main(["train", *arguments, "--out", str(tmp_path / "run")]) == 0
    assert read_run(tmp_path / "run").config.image_size == 448
    (row,) = rows(tmp_path / "run")
    assert 0.3 < float(row["train_loss"]) < 3 and float(row["learning_rate"]) == 0.02


def test_recipe_voc07_without_its_weights(devkit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("no network here")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", no_network)
    config = {"data": devkit, "train_split": "trainval", **read_recipe("voc07")}
    with pytest.raises(WildcatError, match=r"resnet101 could not be downloaded \(no network here\); give a local file"):
        train(TrainConfig(**config), tmp_path / "run")
