"""A run's folder: round trips, half-written files, damage."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.tiny_runs import tiny
from wildcat.errors import WildcatError
from wildcat.masks import Background
from wildcat.runs import folder as checkpoint
from wildcat.runs.folder import (
    Run,
    build_model,
    load_run,
    read_background,
    read_run,
    save_background,
    save_config,
    save_weights,
)
from wildcat.training.state import save_state

RUN = Run(tiny(score_sizes=[64, 96]), ("cat", "dog"), True, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 24)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(1)
    save_config(folder, RUN)
    save_weights(folder, build_model(RUN.config, 2, pretrained=False).state_dict())
    return folder


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "run"))


def test_round_trip(folder: Path) -> None:
    model, run = load_run(folder)
    assert run == RUN
    assert not model.training and model.num_classes == 2 and model.num_maps == 2
    torch.manual_seed(1)
    first = build_model(RUN.config, 2, pretrained=False).state_dict()
    assert all(torch.equal(value, first[name]) for name, value in model.state_dict().items())
    values = json.loads((folder / "config.json").read_text())
    assert values["classes"] == ["cat", "dog"] and set(values["versions"]) == {"wildcat", "torch"}


def test_weights_of_another_memory_format_are_the_same(folder: Path) -> None:
    model, _ = load_run(folder)
    before = (folder / "model.safetensors").read_bytes()
    save_weights(folder, model.to(memory_format=torch.channels_last).state_dict())
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("length", range(8))
def test_numbers_in_the_weights_are_aligned(tmp_path: Path, length: int) -> None:
    """Readers map the file into memory: tensors of 8 bytes a number begin at a multiple of 8, whatever their names."""
    save_weights(tmp_path, {"x" * (1 + length): torch.arange(3)})
    content = (tmp_path / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    assert start % 8 == 0 and content[start:] == torch.arange(3).numpy().tobytes()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "config.json is not valid JSON"),
        ("config.json", "[]", "config.json must hold a JSON object; got list"),
        ("config.json", "{}", "config.json has no entry 'config'"),
        ("config.json", '{"config": 3}', "config.json must be a mapping of settings; got int"),
        ("config.json", '{"config": {"lr": "x"}}', "config.json: lr must be a number"),
        ("config.json", '{"config": {"zooom": 1}}', "config.json: unknown setting 'zooom'"),
        (
            "config.json",
            '{"config": {"data": "synthetic"}, "classes": 3}',
            "config.json: classes must be a list of names; got 3",
        ),
        (
            "config.json",
            '{"config": {"data": "synthetic"}, "classes": ["a"]}',
            "config.json has no entry 'multi_label'",
        ),
        ("model.safetensors", "x", "model.safetensors is damaged or of another model"),
        ("model.safetensors", "", "model.safetensors is damaged or of another model"),
    ],
)
def test_damage_is_named(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(WildcatError) as caught:
        load_run(folder)
    assert message in str(caught.value) and str(folder) in str(caught.value) and "\n" not in str(caught.value)


def test_cut_short_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(WildcatError, match="is damaged or of another model"):
        load_run(folder)


@pytest.mark.slow
def test_flipped_bits_in_weights_are_noticed(folder: Path) -> None:
    """Wherever a bit flips, the file is rejected or its tensors are the same."""
    file = folder / "model.safetensors"
    content, whole = file.read_bytes(), {name: value.clone() for name, value in checkpoint.read_weights(file).items()}
    rng = random.Random(0)
    start = 8 + int.from_bytes(content[:8], "little")
    for place in [*(rng.randrange(start) for _ in range(60)), *(rng.randrange(start, len(content)) for _ in range(20))]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        try:
            model, _ = load_run(folder)
        except WildcatError as error:
            assert "model.safetensors is damaged or of another model" in str(error)
        else:
            assert place < start
            assert all(torch.equal(value, whole[name]) for name, value in model.state_dict().items())


def test_weights_without_a_checksum_are_read(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = {name: value.clone() for name, value in checkpoint.read_weights(file).items()}
    file.write_bytes(safetensors.torch.save(tensors))  # as other programs write them
    assert all(torch.equal(value, tensors[name]) for name, value in load_run(folder)[0].state_dict().items())


def test_weights_of_another_model(folder: Path) -> None:
    save_config(folder, replace(RUN, classes=("cat", "dog", "cow")))
    with pytest.raises(WildcatError, match="is damaged or of another model"):
        load_run(folder)


def test_not_a_run(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(WildcatError, match=r"is not a run's folder: it has no config\.json"):
            read_run(folder)


def test_unfinished_run(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(WildcatError, match=r"has no model\.safetensors$"):
        load_run(folder)
    save_state(folder, {})
    for name in ("state.pt", "state.previous.pt"):  # the second alone after a kill between two renamings
        with pytest.raises(WildcatError, match="training has not finished: continue it with --resume"):
            load_run(folder)
        if name == "state.pt":
            (folder / "state.pt").rename(folder / "state.previous.pt")


def test_a_fitted_background_is_read_again(tmp_path: Path) -> None:
    background = Background("power", 3.0, 0.75)
    save_background(tmp_path, background, "voc12:x train", 40.0)
    assert read_background(tmp_path) == background
    values = json.loads((tmp_path / "background.json").read_text())
    del values["cue_exponent"]  # as earlier versions wrote it
    (tmp_path / "background.json").write_text(json.dumps(values))
    assert read_background(tmp_path) == Background("power", 3.0)
