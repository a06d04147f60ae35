"""The engine: seeds, learning rates, SGD by hand, learning, and divergence."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data import trees
from tests.tiny_runs import tiny
from tests.training.runs import rows, tensors, untimed, weights
from wildcat.cli import main
from wildcat.errors import WildcatError
from wildcat.runs.folder import build_model, load_run, read_run
from wildcat.training import data as loading
from wildcat.training import launch as training
from wildcat.training import validation
from wildcat.training.launch import train
from wildcat.training.schedule import learning_rate_factor
from wildcat.training.state import load_state

# Seeds


@pytest.mark.slow
def test_same_seed_same_run(tmp_path: Path, plain: Path) -> None:
    assert weights(train(tiny(), tmp_path / "again")) == weights(plain)
    assert untimed(tmp_path / "again") == untimed(plain)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 20240101, 2**62])
def test_another_seed_gives_other_weights(tmp_path: Path, plain: Path, seed: int) -> None:
    other, mine = tensors(train(tiny(seed=seed, epochs=1), tmp_path / "run")), tensors(plain)
    assert not torch.equal(other["transfer.weight"], mine["transfer.weight"])


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


@pytest.mark.slow
def test_the_row_has_the_rate_of_the_last_step(plain: Path) -> None:
    # 12 steps of half a cosine from 0.1; the last steps of the epochs are 5 and 11
    expected = [0.05 * (1 + math.cos(math.pi * step / 12)) for step in (5, 11)]
    assert [float(row["learning_rate"]) for row in rows(plain)] == pytest.approx(expected)


@pytest.mark.slow
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

    after = tensors(train(config, tmp_path / "run"))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.slow
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


# Learning


@pytest.mark.slow
def test_the_loss_falls(plain: Path) -> None:
    first, last = (float(row["train_loss"]) for row in rows(plain))
    assert last < first < 1


@pytest.mark.slow
def test_colours_are_learnt_from_tags(tmp_path: Path) -> None:
    """A backbone that starts from random weights learns to distinguish colours."""
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


@pytest.mark.slow
def test_one_class_per_image(tmp_path: Path) -> None:
    data = tmp_path / "images"
    for label, colour in {"red": (200, 10, 10), "blue": (10, 10, 200)}.items():
        for number in range(8):
            trees.image(data / "train" / label / f"{number}.png", colour=colour)
        trees.image(data / "val" / label / "0.png", colour=colour)
    folder = train(
        tiny(data=f"folder:{data}", train_split="train", val_split="val", epochs=12, lr=0.02), tmp_path / "run"
    )
    saved = read_run(folder)
    assert saved.classes == ("blue", "red") and not saved.multi_label and saved.images == 16
    assert float(rows(folder)[-1]["val_accuracy"]) == 100
    assert (
        main(["evaluate", str(folder), "--data", f"folder:{data}", "--split", "val", "--json", str(tmp_path / "r")])
        == 0
    )
    assert json.loads((tmp_path / "r").read_text())["classification"]["accuracy"] == 100


# Divergence


def test_divergence_is_reported_and_the_last_state_is_finite(tmp_path: Path) -> None:
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
    # A single step: no later loss shows it. The rate is beyond the range of single precision.
    with pytest.raises(
        WildcatError, match=r"weights became NaN or infinite in epoch 1, step 1 .*no state was saved yet"
    ):
        train(tiny(lr=1e39, schedule="constant", epochs=1, batch_size=24), folder)
    assert not (folder / "model.safetensors").exists() and not (folder / "state.pt").exists()


def test_validation_that_overflows_is_reported(tmp_path: Path) -> None:
    with pytest.raises(WildcatError, match="NaN or infinit"):
        train(tiny(lr=1e36, schedule="constant", epochs=1, batch_size=19, val_fraction=0.2), tmp_path / "run")


def test_a_diverging_loss_names_its_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "multi_label_loss", lambda scores, *_: scores.sum() * math.inf)
    with pytest.raises(WildcatError, match=r"the loss became (-?inf|nan) in epoch 1, step 1"):
        train(tiny(), tmp_path / "run")
