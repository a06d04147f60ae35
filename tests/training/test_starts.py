"""Starts that fail and folders that change meanwhile: nothing is lost, and nothing blocks the corrected command."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import wildcat
from tests.data import trees
from tests.tiny_runs import flags, tiny
from tests.training.runs import rows, stopped, weights
from wildcat.cli import main
from wildcat.errors import WildcatError
from wildcat.export.open import fingerprint
from wildcat.runs.folder import Run, build_model, load_run, read_run, save_config, save_weights
from wildcat.runs.image_record import RECORD
from wildcat.training import engine, launch
from wildcat.training.launch import train
from wildcat.training.multiscale import train_scales
from wildcat.training.resume import warn_of_other_threads

# The first step fails


def out_of_memory(*_: object, **__: object) -> None:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image_size": 32, "batch_size": 1, "freeze_batch_norm": False}, "BatchNorm cannot learn from one value"),
        ({"lr": 1e39, "schedule": "constant", "batch_size": 24, "epochs": 1}, "the weights became NaN or infinite"),
    ],
)
@pytest.mark.slow
def test_a_failed_first_step_leaves_no_run(
    tmp_path: Path, settings: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(WildcatError, match=message):
        train(tiny(**settings), folder)
    monkeypatch.setattr(launch, "train_epochs", begin)
    with pytest.raises(Reached):
        train(tiny(epochs=1), folder)  # the corrected command


@pytest.mark.parametrize("solver", ["sgd", "svm"])
def test_a_start_without_memory_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solver: str) -> None:
    monkeypatch.setattr(launch, "create_strategy", out_of_memory)
    monkeypatch.setattr(launch, "train_linear_svms", out_of_memory)
    method = {"pooling": "average", "num_maps": 1} if solver == "svm" else {}
    with pytest.raises(WildcatError, match="memory of this machine is not enough"):
        train(tiny(solver=solver, **method), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def killed_start(folder: Path, **settings: object) -> None:
    """What a start leaves that is killed before its first state is saved."""
    config = tiny(**settings)
    folder.mkdir()
    save_config(folder, Run(config, ("a", "b"), True, (0.5,) * 3, (0.5,) * 3, 24))
    (folder / RECORD).write_text("{}")
    (folder / "metrics.csv").write_text("epoch")
    (folder / ".lock").write_text("process 4711 on another")
    (folder / ".config.json.4711-0123abcd.tmp").touch()
    (folder / "tensorboard").mkdir()


class Reached(Exception):
    """The training would begin."""


def begin(*_: object, **__: object) -> None:
    raise Reached


@pytest.mark.parametrize("resume", [False, True])
def test_a_killed_start_does_not_block_the_corrected_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool
) -> None:
    killed_start(tmp_path / "run", image_size=32)
    monkeypatch.setattr(launch, "train_epochs", begin)
    with pytest.raises(Reached):
        train(tiny(), tmp_path / "run", resume=resume)


@pytest.mark.parametrize("other", ["notes.txt", "results.json", "state.pt", "state.previous.pt"])
def test_a_run_with_anything_else_in_it_is_not_started_again(tmp_path: Path, other: str) -> None:
    killed_start(tmp_path / "run")
    (tmp_path / "run" / other).touch()
    with pytest.raises(WildcatError, match="already holds a run: continue it with --resume"):
        train(tiny(), tmp_path / "run")


def test_a_config_of_another_program_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["BertModel"]}')
    with pytest.raises(WildcatError, match=r"bert/config\.json has no entry"):
        train(tiny(), folder)
    assert (folder / "config.json").read_text() == '{"architectures": ["BertModel"]}'


@pytest.mark.parametrize("resume", [False, True])
def test_a_failed_start_at_several_scales(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: bool) -> None:
    folder = tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(WildcatError, match="memory"):
        patch.setattr(launch, "create_strategy", out_of_memory)
        train_scales(tiny(), [32, 64], folder)
    assert [file.name for file in folder.iterdir()] == ["scales.json"]
    monkeypatch.setattr(launch, "train_epochs", begin)
    with pytest.raises(Reached):
        train_scales(tiny(num_maps=1), [64, 96], folder, resume=resume)


# The folder changes while the training runs


@pytest.mark.parametrize(("change", "at"), [("renamed", "save_state"), ("removed", "save_weights")])
@pytest.mark.slow
def test_a_folder_that_is_renamed_or_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, at: str
) -> None:
    folder, moved = tmp_path / "run", tmp_path / "moved"
    save = engine.save_state

    def save_and_move(where: Path, state: dict) -> None:
        save(where, state)
        if at == "save_state" or state["progress"]["epoch"] == 2:
            folder.rename(moved) if change == "renamed" else shutil.rmtree(folder)

    monkeypatch.setattr(engine, "save_state", save_and_move)
    with pytest.raises(WildcatError, match="run was renamed, removed or replaced while it was in use"):
        train(tiny(), folder)
    assert not folder.exists()
    if change == "renamed":
        monkeypatch.undo()
        assert len(rows(train(tiny(), moved, resume=True))) == 2


# Data that moved, other threads


@pytest.fixture
def images(tmp_path: Path) -> Path:
    data = tmp_path / "images"
    for label in "ab":
        for number in range(3):
            trees.image(data / label / f"{number}.png", colour=(40 * number, 90, 30))
    return data


@pytest.mark.slow
def test_a_run_resumes_with_data_that_moved(
    tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"data": "folder:images", "train_split": "all", "batch_size": 2}
    whole = train(tiny(**settings), tmp_path / "whole")
    folder = stopped(tmp_path / "run", monkeypatch, **settings)
    monkeypatch.chdir(images)
    assert main(["train", "--out", str(folder), "--resume"]) == 2
    assert (
        f"images is what {folder}/config.json names, relative to the folder in which the training was started: if the "
        "data are elsewhere, give --data folder:PATH"
    ) in capsys.readouterr().err
    images.rename(tmp_path / "elsewhere")
    again = ["train", "--out", str(folder), "--resume", "--data", f"folder:{tmp_path}/elsewhere"]
    (tmp_path / "elsewhere/a/0.png").rename(tmp_path / "elsewhere/b/0.png.png")
    assert main(again) == 2
    assert "1 image is gone (a/0.png), 1 image is new (b/0.png.png)" in capsys.readouterr().err
    assert read_run(folder).config.data == "folder:images"
    (tmp_path / "elsewhere/b/0.png.png").rename(tmp_path / "elsewhere/a/0.png")
    assert main(again) == 0
    assert weights(folder) == weights(whole)
    assert read_run(folder).config.data == f"folder:{tmp_path}/elsewhere"  # evaluate and report find them


@pytest.mark.slow
def test_another_place_of_a_finished_run_is_not_trained_on(plain: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = weights(plain)
    train(tiny(data="folder:other"), plain, resume=True)
    assert "has finished its training on synthetic:count=24,size=64: nothing is trained on folder:other" in caplog.text
    assert weights(plain) == before and read_run(plain).config.data == "synthetic:count=24,size=64"


def test_other_threads_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    threads = torch.get_num_threads()
    run = Run(tiny(), ("a",), True, (0, 0, 0), (1, 1, 1), 24, threads=threads)
    for known in (run, replace(run, threads=None)):
        warn_of_other_threads(known)
    assert caplog.text == ""
    with caplog.at_level(logging.WARNING):
        warn_of_other_threads(replace(run, threads=threads + 1))
    assert f"resuming with {threads} threads instead of {threads + 1}" in caplog.text


# Normalization


@pytest.fixture
def other_normalization(tmp_path: Path) -> Path:
    """A run that was trained with another normalization than the installed library declares for its backbone."""
    folder = tmp_path / "run"
    folder.mkdir()
    torch.manual_seed(1)
    save_config(folder, Run(tiny(), ("cat", "dog"), True, (0.1, 0.2, 0.3), (0.4, 0.5, 0.8), 24))
    save_weights(folder, build_model(tiny(), 2, pretrained=False).state_dict())
    return folder


def test_a_run_is_applied_with_its_own_normalization(other_normalization: Path) -> None:
    model, _ = load_run(other_normalization)
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([(0 - 0.1) / 0.4, (1 - 0.2) / 0.5, (0.2 - 0.3) / 0.8]).view(1, 3, 1, 1)
    torch.testing.assert_close(model.normalize(pixels), expected)
    torch.testing.assert_close(model.merged().normalize(pixels), expected)
    assert (model.backbone.mean, model.backbone.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.8))  # what exports write
    usual = build_model(tiny(), 2, pretrained=False)
    usual.load_state_dict(model.state_dict())
    assert fingerprint(usual.eval(), 0) != fingerprint(model, 0)


def test_predictions_follow_the_normalization(other_normalization: Path) -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    before = wildcat.load(other_normalization, device="cpu")(image).scores
    save_config(other_normalization, replace(read_run(other_normalization), mean=(0.9, 0.9, 0.9)))
    assert wildcat.load(other_normalization, device="cpu")(image).scores != before


def test_a_resumed_training_keeps_the_normalization(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_normalization: Path
) -> None:
    (other_normalization / "model.safetensors").unlink()
    run = read_run(other_normalization)
    seen = []

    def begin(context: engine.TrainContext, *_: object) -> None:
        seen.append(context.strategy.model.normalize(torch.zeros(1, 3, 1, 1, dtype=torch.uint8)).flatten().tolist())
        raise Reached

    monkeypatch.setattr(launch, "train_epochs", begin)
    monkeypatch.setattr(launch, "find_run", lambda *_: (run, False))
    monkeypatch.setattr(launch, "load_state", lambda _: None)
    monkeypatch.setattr(launch, "check_same_data", lambda *_: None)
    with pytest.raises(Reached):
        train(tiny(), other_normalization, resume=True)
    assert seen[0] == pytest.approx([-0.25, -0.4, -0.375])


def test_the_message_about_a_killed_start(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed_start(tmp_path / "run")
    assert main(["train", "--out", str(tmp_path / "run"), *flags(freeze_stages=99)]) == 2
    assert "holds a run that has saved no state: it is started again" in capsys.readouterr().err
