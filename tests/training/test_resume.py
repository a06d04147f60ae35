"""Resuming: a run that stopped anywhere ends as an uninterrupted one, with its own settings and data."""

import re
import shutil
from pathlib import Path

import pytest

from tests.data import trees
from tests.tiny_runs import flags, tiny
from tests.training.runs import Stop, killed, reached, rows, stopped, tensorboard, untimed, weights
from wildcat.cli import main
from wildcat.errors import WildcatError
from wildcat.runs.folder import load_run
from wildcat.training import engine
from wildcat.training.launch import train

pytestmark = pytest.mark.slow


def test_a_run_killed_again_and_again_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    settings = {"data": "synthetic:count=40,size=64", "backbone": "timm:test_efficientnet", "epochs": 3}
    settings |= {"val_fraction": 0.2, "save_minutes": 1e-9, "warmup_epochs": 0.5}
    whole = tmp_path / "whole"
    assert main(["train", "--out", str(whole), *flags(**settings)]) == 0

    broken = tmp_path / "broken"
    first = ["--out", broken, *flags(**settings, **{"workers": 1})]  # a worker process reads the same images
    again = ["--out", broken, "--resume"]
    stopped_at = [
        killed(broken, first, reached(0, 2)),  # within an epoch of 8 steps
        killed(broken, again, reached(1, 0)),  # about the end of an epoch
        killed(broken, again, reached(2, 1)),
    ]
    assert (0, 2) <= stopped_at[0] < stopped_at[1] < stopped_at[2] < (3, 0)
    assert any(0 < step < 8 for _, step in stopped_at)
    with pytest.raises(WildcatError, match=r"has no model\.safetensors; .* --resume"):
        load_run(broken)
    assert main(["train", *map(str, again)]) == 0

    assert weights(broken) == weights(whole)
    assert untimed(broken) == untimed(whole)
    assert [row["epoch"] for row in rows(broken)] == ["1", "2", "3"]
    assert not list(broken.glob(".*"))  # no half-written file remains
    assert len(list((broken / "tensorboard").iterdir())) <= 4  # one per process that finished an epoch
    scalars = tensorboard(broken)
    assert {name: [event.step for event in events] for name, events in scalars.items()} == {
        name: [1, 2, 3] for name in rows(broken)[0] if name != "epoch"
    }


def test_a_run_that_stops_after_every_saved_state(tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    save = engine.save_state
    stops = []

    def save_and_stop(where: Path, state: dict) -> None:
        save(where, state)
        stops.append((state["progress"]["epoch"], state["progress"]["step"]))
        raise Stop

    monkeypatch.setattr(engine, "save_state", save_and_stop)
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


def test_a_finished_run_stays_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tmp_path / "images"
    for label in "ab":
        for number in range(3):
            trees.image(data / label / f"{number}.png", colour=(40 * number, 90, 30))
    config = tiny(data=f"folder:{data}", train_split="all", epochs=1, batch_size=2)
    folder = train(config, tmp_path / "run")
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir() if path.is_file()}
    data.rename(tmp_path / "elsewhere")  # a finished run needs no data

    def check_unchanged() -> None:
        assert train(config, folder, resume=True) == folder
        files = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir() if path.is_file()}
        assert files == before

    with caplog.at_level("INFO"):
        check_unchanged()
    assert f"{folder} has finished its training; to train for more epochs, start a new run with --epochs" in caplog.text
    for state in folder.glob("state*.pt"):  # nor its state
        state.write_bytes(b"half")
        before[state] = (state.stat().st_mtime_ns, b"half")
    check_unchanged()
    for state in folder.glob("state*.pt"):
        state.unlink()
        del before[state]
    check_unchanged()


def test_a_run_killed_between_its_last_state_and_its_weights(
    tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise Stop

    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(engine, "save_weights", crash)
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
        patch.setattr(engine, "save_state", crash)
        train(tiny(), tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.json", "training_images.json", "metrics.csv", "tensorboard"}
    assert weights(train(tiny(), tmp_path / "run", resume=True)) == weights(plain)
    assert untimed(tmp_path / "run") == untimed(plain)


def test_resume_without_a_run_starts_one(tmp_path: Path, plain: Path) -> None:
    assert weights(train(tiny(), tmp_path / "run", resume=True)) == weights(plain)


def test_a_resumed_run_removes_only_its_own_leftovers(tmp_path: Path, plain: Path) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "run"))
    for name in (".mine.tmp", ".state.pt.4711-0123abcd.tmp"):
        (folder / name).write_text("half")
    train(tiny(), folder, resume=True)
    assert [path.name for path in folder.glob(".*")] == [".mine.tmp"]


@pytest.mark.parametrize(
    ("name", "value"), [("lr", 0.2), ("epochs", 3), ("num_maps", 4), ("seed", 1), ("backbone", "lite0")]
)
def test_the_settings_of_a_resumed_run_cannot_change(
    plain: Path, name: str, value: object, capsys: pytest.CaptureFixture[str]
) -> None:
    cause = " (its learning rates were planned for 2 epochs)" if name == "epochs" else ""
    expected = f"to {value!r} when resuming {plain}{cause}; use a new run directory"
    with pytest.raises(WildcatError, match=rf"^cannot change {name} from .* {re.escape(expected)}$"):
        train(tiny(**{name: value}), plain, resume=True)
    assert main(["train", "--out", str(plain), "--resume", f"--{name.replace('_', '-')}", str(value)]) == 2
    assert f"cannot change {name} from" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_automatic_settings(plain: Path) -> None:
    before = weights(plain)
    train(tiny(precision="auto", workers=None), plain, resume=True)
    assert main(["train", "--out", str(plain), "--resume"]) == 0
    assert weights(plain) == before


def test_a_resumed_run_notices_that_its_data_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tmp_path / "images"
    for label in "ab":
        for number in range(3):
            trees.image(data / label / f"{number}.png", colour=(40 * number, 90, 30))
    settings = {"data": f"folder:{data}", "train_split": "all", "epochs": 2, "batch_size": 2}
    folder = stopped(tmp_path / "run", monkeypatch, **settings)
    trees.image(data / "b" / "more.png")
    with pytest.raises(WildcatError, match=r"has changed since .*: 7 usable training images of 2 classes instead of 6"):
        train(tiny(**settings), folder, resume=True)
    (data / "b" / "more.png").unlink()
    train(tiny(**settings), folder, resume=True)
    assert len(rows(folder)) == 2
