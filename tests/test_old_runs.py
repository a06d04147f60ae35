"""Runs, exported files and results.json that were written before the layout of packages: they are read as before.

``tests/fixtures/before_the_layout/README.md`` lists the files and the commands that wrote them.
"""

import csv
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import safetensors.torch
import torch
from packaging.version import Version
from PIL import Image

import wildcat
from wildcat.cli import main
from wildcat.runs.folder import read_run

FIXTURE = Path(__file__).resolve().parent / "fixtures" / "before_the_layout"
EXPECTED: dict[str, Any] = json.loads((FIXTURE / "expected.json").read_text())
IMAGES = sorted((FIXTURE / "images").iterdir())
CLASSES: list[str] = json.loads((FIXTURE / "finished" / "config.json").read_text())["classes"]
ON_CPU = ["--device", "cpu"]
TOLERANCE = 1e-5  # of probabilities, points in pixels, and class maps


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A copy of the fixture: readers may write beside what they read."""
    return Path(shutil.copytree(FIXTURE, tmp_path / "old"))


def contents(folder: Path) -> dict[str, str]:
    """Digest of each file of a folder, by name."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def headlines(results: dict[str, Any]) -> dict[str, float]:
    """The numbers that stand directly under a task, by "task key"; of several scales, those of each and of the mean."""
    scores = {
        f"{task} {key}": value
        for task in ("classification", "pointing", "segmentation")
        for key, value in results[task].items()
        if isinstance(value, float)
    }
    for group in ("scales", "combinations"):
        for name, each in results.get(group, {}).items():
            scores |= {f"{group} {name} {key}": value for key, value in headlines(each).items()}
    return scores


def test_the_fixture_has_the_predictions_of_every_image() -> None:
    assert len(IMAGES) == 3
    assert all(set(each) == {file.name for file in IMAGES} for each in EXPECTED.values())
    # The Object Bank is in use: its probabilities are not the mean of those of the scales.
    combined, *scales = (
        np.array([EXPECTED[run][file.name]["probabilities"] for file in IMAGES])
        for run in ("scales", "scales/scale-64", "scales/scale-96")
    )
    assert np.abs(combined - np.mean(scales, axis=0)).max() > 100 * TOLERANCE


@pytest.mark.parametrize("run", EXPECTED)
def test_predictions_of_an_old_run(old: Path, run: str) -> None:
    predictor = wildcat.load(old / run, device="cpu", precision="fp32")
    for file in IMAGES:
        prediction, expected = predictor(file), EXPECTED[run][file.name]
        for index, name in enumerate(CLASSES):
            assert prediction.scores[name] == pytest.approx(expected["probabilities"][index], abs=TOLERANCE)
            assert prediction.points[name] == pytest.approx(expected["points"][index], abs=TOLERANCE)
        np.testing.assert_allclose(prediction.class_maps, expected["class_maps"], rtol=0, atol=TOLERANCE)
        if expected["background_map"] is None:
            assert prediction.background_map is None
        else:
            np.testing.assert_allclose(prediction.background_map, expected["background_map"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(("run", "mode", "constant"), [("finished", "threshold", 0.7), ("scales", "class", 2.0)])
def test_the_background_fitted_for_an_old_run(old: Path, run: str, mode: str, constant: float) -> None:
    background = wildcat.load(old / run, device="cpu").settings.background
    assert (background.mode, background.constant) == (mode, constant)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["finished", "scales"])
def test_an_old_run_is_scored_as_before(old: Path, tmp_path: Path, run: str) -> None:
    before = json.loads((old / run / "results.json").read_text())
    crf = ["--crf"] if "miou_crf" in before["segmentation"] else []
    tasks = "classification,pointing,segmentation"
    # Dataset and split come from results.json.
    assert (
        main(["evaluate", str(old / run), "--tasks", tasks, *crf, *ON_CPU, "--json", str(tmp_path / "new.json")]) == 0
    )
    now = json.loads((tmp_path / "new.json").read_text())
    assert (now["data"], now["split"], now["images"]) == (before["data"], before["split"], before["images"])
    assert now.get("combination") == before.get("combination")
    assert headlines(now) == pytest.approx(headlines(before), abs=0.01)


@pytest.mark.slow
def test_scores_of_an_unknown_model_are_not_joined(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A results.json of earlier versions does not say which weights it is about; the newer file may be another's."""
    run = old / "finished"
    before = json.loads((run / "results.json").read_text())
    before["versions"] = {"wildcat": wildcat.__version__, "torch": torch.__version__, "pillow": PIL.__version__}
    (run / "results.json").write_text(json.dumps(before))
    assert main(["evaluate", str(run), "--tasks", "classification", *ON_CPU]) == 0
    message = "held scores of a model that it does not name (classification, pointing, segmentation): they are replaced"
    assert message in capsys.readouterr().err
    now = json.loads((run / "results.json").read_text())
    assert not {"pointing", "segmentation"} & now.keys()
    assert now["classification"]["map_area"] == pytest.approx(before["classification"]["map_area"], abs=0.01)
    # Now the model is known, and the tasks of one evaluation stay beside those of the next.
    assert main(["evaluate", str(run), "--tasks", "pointing", *ON_CPU]) == 0
    both = json.loads((run / "results.json").read_text())
    assert both["classification"] == now["classification"] and "pointing" in both


@pytest.mark.parametrize("run", ["finished", "scales"])
def test_resuming_a_finished_old_run_changes_nothing(
    old: Path, run: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    before = contents(old / run)
    with caplog.at_level("INFO"):
        assert main(["train", "--resume", "--out", str(old / run)]) == 0
    assert "finished" in capsys.readouterr().err.replace(str(old / run), "") + caplog.text.replace(str(old / run), "")
    assert contents(old / run) == before


@pytest.mark.slow
@pytest.mark.skipif(
    torch.cuda.is_available(), reason="the weights were computed on a CPU, and it would resume on the GPU"
)
def test_a_stopped_old_run_ends_as_the_uninterrupted_one(old: Path) -> None:
    stopped, finished = old / "stopped", old / "finished"
    saved = torch.load(stopped / "state.pt", weights_only=True)["model"]
    assert main(["train", "--resume", "--out", str(stopped)]) == 0
    weights, expected = (safetensors.torch.load_file(run / "model.safetensors") for run in (stopped, finished))
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=TOLERANCE)
    head = next(name for name in expected if name.startswith("transfer."))
    assert (saved[head] - expected[head]).abs().max() > 100 * TOLERANCE  # there was something left to learn
    rows, expected_rows = (
        list(csv.DictReader((run / "metrics.csv").read_text().splitlines())) for run in (stopped, finished)
    )
    for key in ("epoch", "learning_rate", "train_loss"):
        assert [float(row[key]) for row in rows] == pytest.approx([float(row[key]) for row in expected_rows], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "package"), [("model.onnx", "onnxruntime"), ("model.xml", "openvino"), ("model.onnx", "openvino")]
)
def test_old_exported_files(old: Path, tmp_path: Path, name: str, package: str) -> None:
    pytest.importorskip(package, reason=f"{package} is not installed")
    file, lines = old / "finished" / "exports" / name, tmp_path / "predictions.jsonl"
    runtime = {"onnxruntime": "onnx", "openvino": "openvino"}[package]
    assert main(["predict", str(file), *map(str, IMAGES), "--runtime", runtime, "--json", str(lines)]) == 0
    predictions = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(predictions) == len(IMAGES)
    for image, prediction in zip(IMAGES, predictions, strict=True):
        expected = EXPECTED["finished"][image.name]
        for index, label in enumerate(CLASSES):
            assert prediction["scores"][label] == pytest.approx(expected["probabilities"][index], abs=TOLERANCE)
        for each in prediction["predicted"]:
            assert each["point"] == pytest.approx(expected["points"][CLASSES.index(each["class"])], abs=0.01)


@pytest.mark.slow
@pytest.mark.skipif(Version(torch.__version__) < Version("2.14"), reason="torch.export of torch 2.14 wrote the file")
def test_an_old_torch_export_file(old: Path) -> None:
    extra = {"wildcat.json": ""}
    module = torch.export.load(old / "finished" / "exports" / "model.pt2", extra_files=extra).module()
    about = json.loads(extra["wildcat.json"])
    assert about["classes"] == CLASSES
    # The first image has the side at which the run reads, so it is not resized.
    pixels = np.asarray(Image.open(IMAGES[0]), np.float32) / 255
    assert pixels.shape == (64, 64, 3) and about["score_sizes"] == about["map_sizes"] == [64]
    images = torch.from_numpy((pixels - about["mean"]) / about["std"]).float().permute(2, 0, 1)[None]
    with torch.inference_mode():
        _, probabilities, class_maps, points = module(images)
    expected = EXPECTED["finished"][IMAGES[0].name]
    torch.testing.assert_close(probabilities[0], torch.tensor(expected["probabilities"]), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(class_maps[0], torch.tensor(expected["class_maps"]), rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(64 * points[0], torch.tensor(expected["points"]), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("data", "read"), [("tags:a.csv", "tags:a.csv,balanced=no"), ("folder:a", "folder:a")])
def test_the_images_held_out_of_a_table_stay_those_of_the_training(old: Path, data: str, read: str) -> None:
    file = old / "finished" / "config.json"
    values = json.loads(file.read_text())
    values["config"]["data"] = data
    file.write_text(json.dumps(values))
    assert read_run(old / "finished").config.data == read
    file.write_text(json.dumps({**values, "threads": 1}))  # as the current version writes it
    assert read_run(old / "finished").config.data == data
