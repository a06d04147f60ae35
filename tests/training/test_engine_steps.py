"""Single steps of the engine with a small network: uneven parts, random numbers, what a saved state holds, stopping."""

import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.tiny_runs import tiny
from wildcat.errors import WildcatError
from wildcat.losses import multi_label_loss
from wildcat.model import create_model
from wildcat.system.lock import FolderLock
from wildcat.training import engine
from wildcat.training.diagnostics import LossMonitor
from wildcat.training.distributed import ProcessGroup, create_accelerator
from wildcat.training.engine import TrainContext, train_one_epoch
from wildcat.training.history import MetricsWriter
from wildcat.training.state import TrainState, load_state
from wildcat.training.strategy import SingleProcess

IMAGES = 5  # of a batch
STEPS = 3


class Batches:
    """Batches of random images, each in the parts of given sizes."""

    steps = STEPS

    def __init__(self, parts: list[int]) -> None:
        self.parts = parts

    def read(self, epoch: int, step: int) -> Iterator[tuple[Tensor, Tensor]]:
        random = torch.Generator().manual_seed(3)
        pixels = torch.randint(0, 256, (STEPS, IMAGES, 16, 16, 3), generator=random, dtype=torch.uint8)
        labels = torch.randint(0, 2, (STEPS, IMAGES, 2), generator=random, dtype=torch.int8) * 2 - 1
        for number in range(step, STEPS):
            yield from zip(pixels[number].split(self.parts), labels[number].split(self.parts), strict=True)

    def batch_size(self, step: int) -> int:
        return IMAGES

    def names(self, epoch: int, step: int) -> list[str]:
        return ["a.png"] * IMAGES


def context(folder: Path, parts: list[int], dropout: float = 0.0, **settings: Any) -> TrainContext:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
    config = tiny(accumulate=len(parts), momentum=0.0, weight_decay=0.0, **settings)
    accelerator = create_accelerator()
    strategy = SingleProcess(accelerator, create_model(net, num_classes=2).to(accelerator.device), config)
    return TrainContext(
        config=config,
        lock=SimpleNamespace(folder=folder, check=lambda: None),  # type: ignore[arg-type]
        group=ProcessGroup(accelerator),
        strategy=strategy,
        batches=Batches(parts),  # type: ignore[arg-type]
        criterion=multi_label_loss,
        loss_monitor=LossMonitor(guessing=0.69),
    )


def weights(context: TrainContext) -> Tensor:
    return torch.cat([value.detach().flatten() for value in context.strategy.model.parameters()])


def test_every_image_of_a_batch_has_the_same_weight_whatever_its_part(tmp_path: Path) -> None:
    whole, parts = context(tmp_path, [5]), context(tmp_path, [1, 4])
    losses = [train_one_epoch(each, TrainState())["train_loss"] for each in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    torch.testing.assert_close(weights(parts), weights(whole), rtol=0, atol=1e-6)


def test_random_numbers_of_a_step_do_not_depend_on_what_was_done_before(tmp_path: Path) -> None:
    whole, resumed = (context(tmp_path, [5], dropout=0.5) for _ in range(2))
    train_one_epoch(whole, TrainState())
    state = TrainState()
    resumed.batches.steps = 1
    train_one_epoch(resumed, state)
    torch.rand(7)  # of another part of the program, in another process
    resumed.batches.steps = STEPS
    train_one_epoch(resumed, state)
    assert torch.equal(weights(resumed), weights(whole))


def test_a_saved_state_holds_the_loss_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[dict[str, Any]] = []
    monkeypatch.setattr(engine, "save_state", lambda _, state: saved.append(state["progress"]))
    one = context(tmp_path, [5], save_minutes=1e-9)
    train_one_epoch(one, TrainState())
    assert [progress["step"] for progress in saved] == [1, 2, 3]
    assert {progress["first_loss"] for progress in saved} == {saved[0]["loss"]}


def test_a_stop_within_a_validation_saves_the_finished_epoch(tmp_path: Path) -> None:
    one, state = context(tmp_path, [5]), TrainState()
    train_one_epoch(one, state)
    one.stop.signal = signal.SIGTERM
    with pytest.raises(SystemExit) as ended:
        engine._finish_validation_turn(one, state)
    assert ended.value.code == 143
    saved = load_state(tmp_path)
    assert saved is not None and saved["progress"] == state.to_dict()
    assert torch.equal(saved["model"]["transfer.weight"], one.strategy.model.transfer.weight)


@pytest.mark.parametrize(("stop", "minutes"), [(signal.SIGTERM, 5.0), (0, 1e-9)])
def test_ruined_weights_are_never_saved(tmp_path: Path, stop: int, minutes: float) -> None:
    """The first step ruins the weights, and its loss does not show it."""
    one = context(tmp_path, [5], lr=1e39, schedule="constant", save_minutes=minutes)
    one.stop.signal = stop
    with pytest.raises(WildcatError, match="the weights became NaN or infinite in epoch 1, step 1"):
        train_one_epoch(one, TrainState())
    assert list(tmp_path.iterdir()) == []


def test_no_curves_are_written_once_the_folder_has_moved(tmp_path: Path) -> None:
    """TensorBoard's writer would make the folder again."""
    folder = tmp_path / "run"
    with FolderLock(folder) as lock, MetricsWriter(lock) as metrics:
        folder.rename(tmp_path / "moved")
        with pytest.raises(WildcatError, match="run was renamed, removed or replaced"):
            metrics.write([{"epoch": 1, "train_loss": 0.5}])
    assert not folder.exists()


def test_nothing_is_written_once_the_folder_has_moved(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with FolderLock(folder) as lock:
        one = context(folder, [5], save_minutes=1e-9)
        object.__setattr__(one, "lock", lock)
        folder.rename(tmp_path / "moved")
        with pytest.raises(WildcatError, match="run was renamed, removed or replaced"):
            train_one_epoch(one, TrainState())
    assert not folder.exists()
