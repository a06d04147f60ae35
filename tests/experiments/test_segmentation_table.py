"""The table of masks: Grad-CAM compared with its formula, rows of earlier calls, fitted backgrounds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import ledger, segmentation
from tests import unusual
from tests.tiny_runs import tiny
from wildcat.evaluation.background import fit_masks
from wildcat.evaluation.scoring import evaluate
from wildcat.masks import MODES
from wildcat.prediction.items import image_items
from wildcat.prediction.loading import load
from wildcat.training.launch import train
from wildcat.transfer import class_filters

DATA = "synthetic:count=4,size=64"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    kinds = {"wildcat": {}, "background_class": {"background_class": True}, "average": {"pooling": "average"}}
    return {
        name: train(tiny(data=DATA, epochs=1, map_sizes=[64, 96], mirror=True, **change), folder / name)
        for name, change in kinds.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["average", "wildcat"])
def test_grad_cam_is_the_class_map_without_its_bias(runs: dict[str, Path], kind: str) -> None:
    predictor = load(runs[kind])
    predictor = predictor.with_settings(replace(predictor.settings, map_sizes=(64,), mirror=False))
    image = unusual.photo(70, 50)
    plain = predictor(image)
    (prediction,) = segmentation.GradCAMPredictor(predictor).stream(image_items([image]))
    bias = class_filters(predictor.model.transfer)[1].tolist()
    assert np.array_equal(prediction.probabilities, plain.probabilities)
    for c in range(len(bias)):
        if c not in plain.candidates():
            assert not prediction.class_maps[c].any()
            continue
        expected = np.maximum(plain.class_maps[c] - bias[c], 0)
        expected -= expected.min()
        cells = prediction.class_maps[c][16::32, 16::32]  # bilinear at a cell's centre, or half a pixel beside it
        assert prediction.class_maps[c].shape == (64, 64)
        np.testing.assert_allclose(cells, expected / expected.max(), atol=0.06)


@pytest.mark.slow
def test_the_mirrored_image_has_the_mirrored_maps(runs: dict[str, Path]) -> None:
    predictor = segmentation.GradCAMPredictor(load(runs["average"]))
    image = unusual.photo(64, 64)
    one, other = predictor.stream(image_items([image, image[:, ::-1].copy()]))
    assert one.class_maps.shape[1:] == (96, 96)
    assert one.candidates() == other.candidates()
    np.testing.assert_allclose(one.class_maps, other.class_maps[:, :, ::-1], atol=1e-4)


def arguments(runs: dict[str, Path], out: Path) -> list[str]:
    words = ["--data", DATA, "--out", str(out)]
    for name, run in runs.items():
        words += [f"--{name.replace('_', '-')}", str(run)]
    return words


@pytest.mark.slow
def test_the_table(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file: file.read_bytes() for run in runs.values() for file in run.iterdir() if file.is_file()}
    segmentation.main(arguments({"wildcat": runs["wildcat"]}, tmp_path))
    first = segmentation.read_rows(tmp_path / "segmentation.csv")
    assert [(row["method"], row["background"]) for row in first] == [
        (method, mode) for method in ("WILDCAT", "Grad-CAM, WILDCAT") for mode in ("threshold", "power")
    ]

    measured = []
    score = segmentation.score
    monkeypatch.setattr(segmentation, "score", lambda p, b, d: measured.append(len(b)) or score(p, b, d))
    segmentation.main(arguments(runs, tmp_path))
    rows = segmentation.read_rows(tmp_path / "segmentation.csv")
    assert rows[:4] == first and measured == [3, 2, 2], "finished rows are not computed again"
    assert len(rows) == 4 + 3 + 2 + 2
    assert {file: file.read_bytes() for file in before} == before, "runs are only read"

    # The same figures as by the command line's way.
    for row in rows:
        if row["method"] == "WILDCAT, background class":
            predictor = load(runs["background_class"])
            background, miou = fit_masks(predictor, DATA, "train", row["background"], cue=False)
            predictor.settings = replace(predictor.settings, background=background)
            expected = evaluate(predictor, DATA, tasks=["segmentation"], crf=True).segmentation
            assert float(row["constant"]) == background.constant
            assert float(row["fitted_miou"]) == pytest.approx(miou, abs=0.01)
            assert float(row["miou"]) == pytest.approx(expected.miou, abs=0.01)
            assert float(row["miou_crf"]) == pytest.approx(expected.miou_crf, abs=0.01)
    assert {row["background"] for row in rows if row["method"] == "WILDCAT, background class"} == set(MODES)

    text = (tmp_path / "segmentation.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(rows) and len({line.count("|") for line in table}) == 1
    assert table[2].startswith("| WILDCAT | threshold ") and "| Grad-CAM, WILDCAT | power " in table[-1]
    assert str(tmp_path) not in text and str(runs["average"].parent) not in text
    monkeypatch.setattr(ledger, "RESULTS", tmp_path)
    assert text in ledger.pages()[ledger.LEDGER]


@pytest.mark.slow
def test_a_row_of_other_weights_is_not_taken_for_the_run(runs: dict[str, Path], tmp_path: Path) -> None:
    segmentation.main(arguments({"average": runs["average"]}, tmp_path))
    file = tmp_path / "segmentation.csv"
    rows = segmentation.read_rows(file)
    segmentation.write_rows(file, [row | {"weights": "0" * 10} for row in rows])
    segmentation.main(arguments({"average": runs["average"]}, tmp_path))
    assert len(segmentation.read_rows(file)) == 2 * len(rows)


def test_errors(runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        segmentation.main(["--data", DATA, "--out", str(tmp_path)])
    assert "give at least one run" in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"error: .* has other classes than the model"):
        segmentation.main(
            ["--data", f"folder:{folder(tmp_path)}", "--wildcat", str(runs["wildcat"]), "--out", str(tmp_path)]
        )


def folder(path: Path) -> Path:
    from tests.data import trees

    for label in "ab":
        for number in range(2):
            trees.image(path / "test" / label / f"{number}.png")
            trees.image(path / "train" / label / f"{number}.png")
    return path


def test_the_predictors_own_network_has_no_hooks(runs: dict[str, Path]) -> None:
    predictor = load(runs["average"])
    predictor_with_hooks = segmentation.GradCAMPredictor(predictor)
    next(predictor_with_hooks.stream(image_items([unusual.photo()])))
    assert not any(module._forward_hooks for module in predictor.model.modules())
    assert all(weight.requires_grad for weight in predictor.model.parameters())


def test_the_hook_leaves_the_scores_alone(runs: dict[str, Path]) -> None:
    model = load(runs["average"]).model
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = model(images).scores
    torch.testing.assert_close(segmentation.PooledScores(model)(images).detach(), expected)
