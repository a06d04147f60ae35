"""The background class: present in every image, trained with the others, used by masks only."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests import unusual
from tests.data import trees
from tests.tiny_runs import flags, tiny
from tests.training.runs import stopped
from wildcat.cli import main
from wildcat.data.registry import open_dataset
from wildcat.data.transforms import warp
from wildcat.errors import WildcatError
from wildcat.evaluation.background import fit_masks
from wildcat.evaluation.scoring import evaluate
from wildcat.losses import multi_label_loss
from wildcat.masks import Background, label_map, strengths
from wildcat.metrics import average_precision
from wildcat.multiscale import predict_batch
from wildcat.prediction.items import image_items
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor
from wildcat.runs.folder import load_run, read_background, read_run, save_background
from wildcat.runs.settings import InferenceSettings
from wildcat.training.launch import train
from wildcat.training.validation import criterion_for

pytestmark = pytest.mark.slow

DATA = "synthetic:count=24,size=64"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("background") / "run"
    return train(tiny(background_class=True, val_split="val", map_sizes=[64, 96], mirror=True), folder)


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory, run_and_image: Path) -> Path:
    return Path(shutil.copytree(run_and_image / "run", tmp_path_factory.mktemp("plain") / "run"))


def test_the_loss_counts_it_as_present_in_every_image() -> None:
    dataset = open_dataset(DATA, "train")
    count = len(dataset.classes)
    scores, labels = torch.randn(5, count + 1), torch.from_numpy(dataset.labels[:5])
    before = labels.clone()
    loss = criterion_for(dataset, tiny(background_class=True))(scores, labels)
    plain = multi_label_loss(scores[:, :-1], labels)
    always = torch.log1p(torch.exp(-scores[:, -1])).mean()
    torch.testing.assert_close(loss, (count * plain + always) / (count + 1))
    assert labels.equal(before)


def test_the_run_lists_the_classes_of_the_data(run: Path) -> None:
    model, info = load_run(run)
    assert info.classes == open_dataset(DATA, "train").classes
    assert info.config.background_class
    assert model.num_classes == len(info.classes) + 1


def test_validation_scores_the_classes_of_the_data(run: Path) -> None:
    model, info = load_run(run)
    validation = open_dataset(DATA, "val")
    predictor = Predictor.from_model(model, InferenceSettings(info.classes, True, (64,), (64,), background_class=True))
    scores = np.stack([predictor(validation.image(i)).probabilities for i in range(len(validation))])
    expected = np.nanmean(average_precision(scores, validation.labels))
    with (run / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["val_map"]) == pytest.approx(100 * expected, abs=0.1)
    assert np.isfinite(float(last["val_loss"]))


@pytest.mark.parametrize("multi_maps", [True, False])
def test_a_prediction_has_its_map_and_nothing_else_of_it(run: Path, multi_maps: bool) -> None:
    predictor = load(run)
    classes = len(predictor.settings.classes)
    image = unusual.photo(90, 60)
    (prediction,) = predictor.stream(image_items([image]), multi_maps=multi_maps)
    sides = {}
    for side in (64, 96):
        pixels = torch.from_numpy(warp(Image.fromarray(image), side).copy())
        sides[side] = predictor.model.normalize(pixels.permute(2, 0, 1)[None])
    with torch.inference_mode():
        whole = predict_batch(predictor.model, sides, [64], [64, 96], mirror=True)
    assert prediction.probabilities.shape == (classes,) == (len(prediction.scores),)
    assert prediction.class_maps.shape[0] == classes and prediction.point_array.shape == (classes, 2)
    np.testing.assert_allclose(prediction.probabilities, whole.probabilities[0, :-1], atol=1e-5)
    np.testing.assert_allclose(prediction.class_maps, whole.class_maps[0, :-1], atol=1e-5)
    np.testing.assert_allclose(prediction.background_map, whole.class_maps[0, -1], atol=1e-5)
    if multi_maps:
        np.testing.assert_allclose(prediction.multi_maps, whole.multi_maps[0, : 2 * classes], atol=1e-5)
    assert torch.equal(prediction.mask_maps[-1], torch.from_numpy(prediction.background_map))


def test_masks_take_their_background_from_it(run: Path) -> None:
    predictor = load(run)
    predictor = predictor.with_settings(replace(predictor.settings, background=Background("class", 0.7)))
    prediction = predictor(unusual.photo(90, 60))
    expected = strengths(prediction.mask_maps, [3, 1], (60, 90), Background("class", 0.7))
    assert np.array_equal(prediction.mask(allowed=[3, 1]), label_map(expected, [3, 1]))
    prediction = replace(prediction, class_maps=np.abs(prediction.class_maps))  # evidence for every class
    changed = replace(prediction, background_map=-np.abs(prediction.background_map))  # and against the background
    assert not np.array_equal(prediction.mask(), changed.mask()), "the map decides"
    plain = replace(prediction, settings=replace(prediction.settings, background=Background("threshold", 0.3)))
    assert np.array_equal(plain.mask(), replace(plain, background_map=None).mask()), "and in this mode only"


def test_fitting_it_on_the_command_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(run), "--data", DATA, "--tasks", "segmentation", "--fit-background", "class"]
    assert main(arguments) == 0
    assert "background: class " in capsys.readouterr().out
    assert read_background(run).mode == "class"
    results = json.loads((run / "results.json").read_text())
    assert results["segmentation"]["background"] == str(read_background(run))
    assert len(results["segmentation"]["per_class"]) == len(load(run).settings.classes) + 1
    scores = evaluate(load(run), DATA, tasks=["classification", "pointing"])
    assert len(scores.classification.per_class) == len(load(run).settings.classes)


def test_a_run_without_it(without: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WildcatError, match="no background class for masks: train it with --background-class"):
        fit_masks(load(without), DATA, "train", "class")
    assert main(["evaluate", str(without), "--data", DATA, "--fit-background", "class"]) == 2
    assert "no background class" in capsys.readouterr().err
    assert load(without)(unusual.photo()).background_map is None
    save_background(without, Background("class", 1.0), "elsewhere", 0.0)
    with pytest.raises(WildcatError, match="no background class"):
        load(without)
    with pytest.raises(WildcatError, match="cannot change background_class from False to True"):
        train(tiny(epochs=1, background_class=True), without, resume=True)


def test_runs_from_before_the_setting_have_none(without: Path) -> None:
    values = json.loads((without / "config.json").read_text())
    del values["config"]["background_class"]
    (without / "config.json").write_text(json.dumps(values))
    assert not read_run(without).config.background_class
    assert load_run(without)[0].num_classes == len(values["classes"])


def test_it_is_rejected_for_images_of_one_class_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label in "ab":
        for number in range(2):
            trees.image(tmp_path / "data" / label / f"{number}.png")
    changes = {"data": f"folder:{tmp_path / 'data'}", "train_split": "all", "background_class": True}
    with pytest.raises(WildcatError, match="background_class is for images that may have several classes"):
        train(tiny(**changes), tmp_path / "run")
    assert main(["train", "--out", str(tmp_path / "run"), *flags(**changes)]) == 2
    assert "have one each" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_stopped_run_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(background_class=True)
    whole = train(config, tmp_path / "whole")
    stopped(tmp_path / "stopped", monkeypatch, background_class=True)
    train(config, tmp_path / "stopped", resume=True)
    file = "model.safetensors"
    assert (whole / file).read_bytes() == (tmp_path / "stopped" / file).read_bytes()
