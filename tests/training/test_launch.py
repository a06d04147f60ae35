"""Starting a run: its folder, its precision, and mistakes that are reported before training starts."""

import re
from pathlib import Path

import pytest
import torch

from tests.data import trees
from tests.tiny_runs import flags, tiny
from tests.training.runs import rows, tensors, weights
from wildcat.cli import main
from wildcat.config import TrainConfig
from wildcat.errors import WildcatError
from wildcat.runs.folder import build_model, read_run
from wildcat.system.files import unfinished
from wildcat.training.launch import train
from wildcat.training.multiscale import train_scales
from wildcat.training.setup import bf16_is_faster

# The folder


@pytest.mark.slow
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
def test_a_folder_with_other_files_is_rejected_and_untouched(
    tmp_path: Path, other: str, scales: list[int], resume: bool
) -> None:
    file = tmp_path / "mine" / other
    file.parent.mkdir(parents=True)
    file.write_text("mine")
    first = file.relative_to(tmp_path / "mine").parts[0]
    with pytest.raises(WildcatError, match=rf"mine holds {first} and is not a run"):
        if scales:
            train_scales(tiny(), scales, tmp_path / "mine", resume=resume)
        else:
            train(tiny(), tmp_path / "mine", resume=resume)
    assert [path for path in (tmp_path / "mine").rglob("*") if path.is_file()] == [file]
    assert file.read_text() == "mine"


@pytest.mark.slow
def test_leftovers_of_a_killed_start_do_not_block_the_next_one(tmp_path: Path, plain: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    elsewhere = ".config.json.4711-0123abcd.tmp"  # on another machine
    for name in (".lock", elsewhere, unfinished(folder / "config.json").name):
        (folder / name).write_text("half")
    assert weights(train(tiny(), folder)) == weights(plain)
    assert not list(folder.glob(".*"))


# Mistakes of the user


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings", [{"batch_size": 1}, {"batch_size": 4, "accumulate": 4}, {"batch_size": 3, "accumulate": 2}]
)
def test_batches_too_small_for_batch_norm(tmp_path: Path, settings: dict) -> None:
    settings |= {"image_size": 32, "epochs": 1}  # the backbone's output is one cell
    with pytest.raises(WildcatError) as message:
        train(tiny(**settings), tmp_path / "run")
    assert re.fullmatch(
        r"BatchNorm cannot learn from one value .* batch_size or image_size, .* accumulate \(now \d\).*",
        str(message.value),
    )
    train(tiny(**settings, freeze_batch_norm=True), tmp_path / "frozen")
    train(tiny(**{**settings, "image_size": 64}), tmp_path / "larger")


# Precision


def test_measuring_the_precision_leaves_the_model_as_it_was() -> None:
    model = build_model(TrainConfig("synthetic", pretrained=False, kmax=0.2, alpha=0.7), 3, pretrained=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for mode in (True, False):
        model.train(mode)
        assert bf16_is_faster(model, 64, torch.device("cpu")) in (True, False)
        assert model.training is mode
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.slow
def test_precision_is_measured_and_kept(tmp_path: Path) -> None:
    folder = train(tiny(precision="auto", workers=None, epochs=1), tmp_path / "run")
    config = read_run(folder).config
    assert config.precision in ("fp32", "bf16") and config.workers == 1
    with torch.no_grad():
        assert torch.equal(*[torch.stack([v.sum() for v in tensors(folder).values()]) for _ in range(2)])


@pytest.mark.slow
def test_bf16_trains(tmp_path: Path) -> None:
    first, last = (float(row["train_loss"]) for row in rows(train(tiny(precision="bf16"), tmp_path / "run")))
    assert last < first
