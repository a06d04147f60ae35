"""Whatever stands in a file of a run directory, it is read or named in one line: no other exception."""

import copy
import json
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

import wildcat
from wildcat.apps.report import contents
from wildcat.errors import WildcatError
from wildcat.evaluation.summary import summary
from wildcat.export.network import parse_metadata
from wildcat.prediction.fastest import CHOICE, fastest_runtime
from wildcat.runs.curves import read_curves
from wildcat.runs.folder import read_background, read_run
from wildcat.runs.hub import save_for_hub
from wildcat.runs.image_record import RECORD, read_record
from wildcat.runs.results import read_results
from wildcat.runs.scales import load_bank, read_scales
from wildcat.training.launch import train

OLD = Path(__file__).resolve().parent.parent / "fixtures" / "before_the_layout"
EVIL: list[Any] = [
    *(None, True, -1, 0, 2**63, 10**30, 10**400, 1e308, -1e308, float("nan"), float("inf"), 1e-320),
    *("", "x", "\ud800", "\x1b[2J", "../../x", "x" * 100_000, "timm:hf-hub:other/model", "timm:local-dir:/etc"),
    *(
        [],
        [[]],
        [None],
        [-1],
        [10**12],
        [1e308] * 3,
        [1e-320] * 3,
        ["a"] * 8,
        ["\ud800", *"abcdefg"],
        list(range(1, 3000)),
    ),
    *({}, {"a": {}}),
]
# Settings that say how a trained model is built and applied; the others are read alone.
APPLIED = {"backbone", "num_maps", "kmax", "kmin", "alpha", "pooling", "architecture", "background_class", "mirror"}
APPLIED |= {"score_sizes", "map_sizes", "output_stride", "classes", "multi_label", "mean", "std"}


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every entry of a JSON value; of lists, that of the first."""
    if isinstance(values, dict):
        for key in values:
            yield (*path, key)
            yield from places(values[key], (*path, key))
    elif isinstance(values, list) and values:
        yield (*path, 0)
        yield from places(values[0], (*path, 0))


def damaged(values: dict[str, Any], share: int = 1) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The values with each entry in turn replaced by each evil value, and left out.

    Args:
        values: the content of a file.
        share: take only every so manieth evil value for an entry, and the next ones for the next entry.
    """
    for number, place in enumerate(places(values)):
        for evil in [*EVIL, ...][number % share :: share]:
            changed = copy.deepcopy(values)
            at = changed
            for key in place[:-1]:
                at = at[key]
            if evil is ...:
                del at[place[-1]]
            else:
                at[place[-1]] = evil
            yield place, changed


def check(read: Callable[[], object], what: str, name: str) -> str | None:
    """Read; the finding if anything but one line that names the file is raised."""
    try:
        read()
    except WildcatError as error:
        message = str(error)
        if "\n" in message or name not in message or len(message) > 1000:
            return f"{what}: {message!r}"
    except Exception as error:
        return f"{what}: {error!r}"
    return None


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD / "finished", tmp_path / "run", ignore=shutil.ignore_patterns("exports")))


@pytest.mark.slow
def test_config(run: Path) -> None:
    file, pixels, findings = run / "config.json", np.zeros((64, 64, 3), np.uint8), []
    for place, values in damaged(json.loads(file.read_text()), share=12):
        file.write_text(json.dumps(values))

        def read(applied: bool = place[-1] in APPLIED or place[0] in APPLIED) -> None:
            read_run(run)
            if applied:
                wildcat.load(run, device="cpu")(pixels)

        finding = check(read, f"{place} {json.dumps(values)[:100]}", "")
        findings += [finding] if finding else []
    assert findings == []


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("background.json", lambda folder: (read_background(folder), save_for_hub(folder, folder / "hub"))),
        ("results.json", lambda folder: shown(folder / "results.json")),
        (RECORD, read_record),
    ],
)
def test_json_files(run: Path, name: str, read: Callable[[Path], object]) -> None:
    file, findings = run / name, []
    if name == RECORD:
        part = {"names": ["a"], "labels": ["0"], "files": ["x"]}
        file.write_text(json.dumps({"format": 1, "training": part, "validation": part}))
    for place, values in damaged(json.loads(file.read_text()), share=24 if name == "results.json" else 3):
        file.write_text(json.dumps(values))
        finding = check(lambda: read(run), f"{place}", name)
        findings += [finding] if finding else []
    assert findings == []


def shown(file: Path) -> None:
    """Read results and show them."""
    results = read_results(file)
    summary(results)
    contents.main_scores(results)
    contents.class_table(results, ["fish", "house"])
    json.dumps(results.to_dict(), allow_nan=False)


def test_scales(tmp_path: Path) -> None:
    folder, findings = Path(shutil.copytree(OLD / "scales", tmp_path / "scales")), []
    for place, values in damaged(json.loads((folder / "scales.json").read_text()), share=3):
        if place[0] != "config":
            (folder / "scales.json").write_text(json.dumps(values))
            finding = check(lambda: read_scales(folder), f"{place}", "scales.json")
            findings += [finding] if finding else []
    assert findings == []


@pytest.mark.parametrize(
    "bank",
    [
        {},
        {"weights": torch.zeros(2, 4), "bias": torch.zeros(3)},
        {"weights": torch.zeros(2, 4, dtype=torch.int64), "bias": torch.zeros(2)},
        {"weights": torch.full((2, 4), torch.nan), "bias": torch.zeros(2)},
        {"weights": torch.zeros(2, 4), "bias": torch.full((2,), torch.inf)},
    ],
)
def test_object_bank(tmp_path: Path, bank: dict[str, torch.Tensor]) -> None:
    (tmp_path / "object_bank.safetensors").write_bytes(safetensors.torch.save(bank))
    with pytest.raises(WildcatError, match=r"object_bank\.safetensors"):
        load_bank(tmp_path, 2, 2)


def test_metadata_of_exported_files() -> None:
    metadata = {
        "classes": ["cat", "dog"],
        "multi_label": True,
        "score_sizes": [64],
        "map_sizes": [64],
        "mirror": False,
        "background": {"mode": "threshold", "constant": 0.5, "cue_exponent": 0.75},
        "background_class": False,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "size_multiple": 1,
        "fingerprint": "0",
        "model_fingerprint": "1",
    }
    findings = []
    for place, values in damaged(metadata):
        finding = check(partial(parse_metadata, json.dumps(values), Path("model.onnx")), f"{place}", "model.onnx")
        findings += [finding] if finding else []
    assert findings == []
    with pytest.raises(WildcatError, match=r"model\.onnx must be a JSON object; got list"):
        parse_metadata("[]", Path("model.onnx"))


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"fastest": "abacus"}', '{"fastest": ["torch"]}', '{"fastest": {}}']
)
def test_the_choice_of_the_runtime(tmp_path: Path, content: str, run: Path) -> None:
    predictor = wildcat.load(run, device="cpu")
    assert fastest_runtime(predictor, {}, [tmp_path]) == "torch"
    known = json.loads((tmp_path / CHOICE).read_text())
    (tmp_path / CHOICE).write_text(json.dumps(known | json.loads(content)) if content.startswith('{"') else content)
    assert fastest_runtime(predictor, {}, [tmp_path]) == "torch"
    assert json.loads((tmp_path / CHOICE).read_text())["fastest"] == "torch"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "it is not a CSV in UTF-8"),
        (b"epoch,train_loss\n1,\x00\n", "it is not a CSV in UTF-8|must be a finite number"),
        (b"epoch,train_loss\n1," + b"9" * 200_000 + b"\n", "it is not a CSV in UTF-8"),
        (b"epoch,train_loss\n1,1e999\n", "line 2, train_loss must be a finite number; got '1e999'"),
        (b"epoch,train_loss\n1,0.5\n2,<b>\n", "line 3, train_loss must be a finite number; got '<b>'"),
        (b"epoch,train_loss\n1,0.5,3\n", "line 2 has 3 cells instead of 2"),
        (b'epoch,train_loss\n"1', "it is not a CSV in UTF-8"),
    ],
)
def test_curves(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "metrics.csv"
    file.write_bytes(content)
    with pytest.raises(WildcatError, match=rf"metrics\.csv is damaged: .*{message}"):
        read_curves(file)


def test_curves_that_are_read(tmp_path: Path) -> None:
    file = tmp_path / "metrics.csv"
    file.write_text("epoch,train_loss,val_map\n1,0.5,\n\n2,1e300,nan\n")
    assert [row["train_loss"] for row in read_curves(file)] == [0.5, 1e300]
    assert contents.learning_curves(file)[0]["title"] == "Loss"
    file.write_text("")
    assert read_curves(file) == [] and contents.learning_curves(file) == []


PROGRESS = {"epoch": 0, "step": 1, "loss": 0.5, "seconds": 1.0, "images": 4, "history": []}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: [], "state.pt is damaged: it holds no state but \\[\\]"),
        (lambda state: {}, "no progress but None"),
        (lambda state: state | {"progress": {**PROGRESS, "step": -1}}, "wrong value of step: -1"),
        (lambda state: state | {"progress": {**PROGRESS, "epoch": 10**30}}, "wrong value of epoch"),
        (lambda state: state | {"progress": {**PROGRESS, "history": [{"epoch": "x"}]}}, "wrong value of history"),
        (lambda state: state | {"progress": {**PROGRESS, "first_loss": "x"}}, "wrong value of first_loss"),
        (
            lambda state: state | {"progress": {**PROGRESS, "step": 1000}},
            "of another run: .*, step 1000 of",
        ),
        (lambda state: state | {"model": {}}, "state.pt is of another model or optimizer: .*delete it"),
        (lambda state: state | {"model": 3}, "state.pt is of another model or optimizer"),
        (lambda state: state | {"optimizer": {}}, "state.pt is of another model or optimizer"),
        (lambda state: state | {"optimizer": {"state": {}, "param_groups": []}}, "of another model or optimizer"),
    ],
)
def test_states(tmp_path: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    folder = Path(shutil.copytree(OLD / "stopped", tmp_path / "run"))
    torch.save(change(torch.load(folder / "state.pt", weights_only=True)), folder / "state.pt")
    with pytest.raises(WildcatError, match=message) as caught:
        train(read_run(folder).config, folder, resume=True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "read"), [("finished/config.json", read_run), ("scales/scales.json", read_scales)])
def test_files_of_a_later_version(tmp_path: Path, name: str, read: Callable[[Path], object]) -> None:
    file = tmp_path / Path(name).name
    file.write_text(json.dumps(json.loads((OLD / name).read_text()) | {"format": 2}))
    with pytest.raises(WildcatError, match=rf"{file.name} has format 2, of another version .*reads format 1"):
        read(tmp_path)
