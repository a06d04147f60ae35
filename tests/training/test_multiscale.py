"""Training at several scales: each run, resuming, the combination on held-out images, predictions and scores."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data import trees
from tests.tiny_runs import flags, tiny
from wildcat.cli import main
from wildcat.config import TrainConfig
from wildcat.errors import WildcatError
from wildcat.evaluation.scored_data import training_overlap
from wildcat.evaluation.scoring import evaluate, scored_parts
from wildcat.evaluation.summary import summary
from wildcat.metrics import average_precision
from wildcat.metrics.metric_table import Detail, metrics_shown
from wildcat.multiscale import fuse_maps
from wildcat.prediction.loading import load
from wildcat.runs.folder import read_run
from wildcat.runs.image_record import ImageRecord
from wildcat.runs.results import Results
from wildcat.runs.scales import BANK, MEAN, OBJECT_BANK, SCALES, read_scales, save_scales
from wildcat.training import multiscale as scales
from wildcat.training import setup
from wildcat.training.data import open_training_data
from wildcat.training.launch import train
from wildcat.training.multiscale import at_scale, train_scales

pytestmark = pytest.mark.slow

DATA = "synthetic:count=60,size=64"
CONFIG = tiny(data=DATA, epochs=1, val_fraction=0.4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder of two scales, with an Object Bank."""
    return train_scales(CONFIG, [96, 64], tmp_path_factory.mktemp("scales") / "runs")


@pytest.fixture
def folder(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "runs"))


def test_sizes_follow_the_scale() -> None:
    config = TrainConfig("synthetic", image_size=256, score_sizes=[384], map_sizes=[448, 512])
    larger = at_scale(config, 320)
    assert (larger.image_size, larger.score_sizes, larger.map_sizes) == (320, [480], [576, 640])
    assert at_scale(config, 192).score_sizes == [288] and at_scale(config, 256) == config
    plain = at_scale(TrainConfig("synthetic", image_size=224), 300)  # where images are read as they were trained
    assert plain.score_sizes == plain.map_sizes == [300]


def test_each_scale_is_a_run_of_its_own(trained: Path) -> None:
    for scale in (64, 96):
        run = read_run(trained / f"scale-{scale}")
        assert replace(run.config, precision=CONFIG.precision) == at_scale(CONFIG, scale)
        assert run.images == 36  # of 60, without those held out
        assert load(trained / f"scale-{scale}").settings.score_sizes == (scale,)
    runs = read_scales(trained)
    assert runs.scales == (64, 96) and runs.config == CONFIG
    assert runs.combination is not None and runs.combination.held_out == 24
    assert runs.combination.fitted_on == (DATA, "train")
    assert set(runs.combination.scores) == {MEAN, OBJECT_BANK}
    assert runs.combination.chosen == max(runs.combination.scores, key=runs.combination.scores.__getitem__)


def test_the_combination_is_made_of_the_predictions_of_its_scales(trained: Path) -> None:
    predictor = load(trained)
    assert list(predictor.parts) == ["scale-64", "scale-96"] and predictor.combine is not None
    image = np.random.default_rng(0).integers(0, 255, (50, 80, 3), dtype=np.uint8)
    alone = [load(trained / f"scale-{scale}")(image) for scale in (64, 96)]
    (each,) = predictor.stream_each([wildcat_item(image)])
    assert list(each) == ["scale-64", "scale-96", MEAN, OBJECT_BANK]
    for name, prediction in zip(("scale-64", "scale-96"), alone, strict=True):
        np.testing.assert_allclose(each[name].probabilities, prediction.probabilities, atol=1e-6)
        np.testing.assert_allclose(each[name].class_maps, prediction.class_maps, atol=1e-4)
    (scores,) = predictor.stream_each([wildcat_item(image)], maps=False)
    assert all(np.array_equal(scores[name].probabilities, each[name].probabilities) for name in each)
    mean = np.mean([p.probabilities for p in alone], axis=0)
    np.testing.assert_allclose(each[MEAN].probabilities, mean, atol=1e-6)
    fused = fuse_maps([torch.from_numpy(p.class_maps)[None] for p in alone])[0].numpy()
    for name in (MEAN, OBJECT_BANK):
        np.testing.assert_allclose(each[name].class_maps, fused, atol=1e-4)
        assert each[name].mask().shape == (50, 80)
    assert predictor.combine.bank is not None
    logits = predictor.combine.bank.scores([torch.from_numpy(p.probabilities)[None] for p in alone], multi_label=True)
    np.testing.assert_allclose(each[OBJECT_BANK].probabilities, logits.sigmoid()[0], atol=1e-5)

    prediction = predictor(image)
    np.testing.assert_allclose(prediction.probabilities, each[predictor.chosen].probabilities, atol=1e-6)
    classes = len(prediction.settings.classes)
    assert prediction.multi_maps is not None and prediction.multi_maps.shape == (classes * 4, 3, 3)  # 2 + 2 maps each
    for what in ("single", "model"):
        with pytest.raises(WildcatError, match=r"models of several scales; .* scale-64, scale-96"):
            getattr(predictor, what)
    for change in (predictor.at_sizes, lambda sizes: predictor.with_settings(predictor.settings)):
        with pytest.raises(WildcatError, match="models of several scales"):
            change([64])


def wildcat_item(image: np.ndarray):
    from wildcat.prediction.items import image_items

    return next(image_items([image]))


def test_scores_of_each_scale_and_combination(trained: Path) -> None:
    results = evaluate(load(trained), "synthetic:count=30,size=64")
    assert Results.from_dict(json.loads(json.dumps(results.to_dict(), allow_nan=False))) == results
    assert set(results.scales) == {"64", "96"} and set(results.combinations) == {MEAN, OBJECT_BANK}
    assert results.combination is not None
    assert results.classification == results.combinations[results.combination].classification
    for scale, scores in results.scales.items():
        alone = evaluate(load(trained / f"scale-{scale}"), "synthetic:count=30,size=64")
        for metric in metrics_shown(Detail.TABLE, ["classification", "pointing"]):
            expected = metric.value(alone)
            assert metric.value(scores) == pytest.approx(expected, abs=0.5, nan_ok=True)
    text = summary(results)
    assert "scale 64\n" in text and text.count("classification: mAP") == 4
    assert text.count("(used for predictions)") == 1


def test_images_that_were_used_for_training_are_reported(trained: Path) -> None:
    dataset = open_training_data(CONFIG)[0]
    (message,) = training_overlap(trained, dataset, ImageRecord.of(dataset))
    assert message.startswith(f"{len(dataset)} of {len(dataset)} scored images were trained on")


def test_a_bank_is_not_scored_where_it_was_fitted(trained: Path, caplog: pytest.LogCaptureFixture) -> None:
    results = evaluate(load(trained), DATA, split="train", tasks=["classification"])
    assert set(results.combinations) == {MEAN} and results.combination == MEAN
    assert "fitted on images of train: it is not scored on train" in caplog.text
    assert OBJECT_BANK in evaluate(load(trained), DATA, tasks=["classification"]).combinations


@pytest.mark.parametrize(
    ("fitted_on", "spared", "rejected"),
    [
        ("train", ["test", "val"], ["all", "trainval", "seg-train"]),
        ("trainval", ["test", "seg-test"], ["train", "val", "seg-trainval", "all"]),
        ("all", [], ["train", "test", "all"]),
        ("mine", ["train", "yours"], ["mine"]),  # of a table's own splits
    ],
)
def test_a_bank_is_not_scored_on_splits_that_hold_its_images(
    trained: Path, fitted_on: str, spared: list[str], rejected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wildcat.evaluation.scoring.is_training_data", lambda *_: True)
    predictor = load(trained)
    predictor.combine = replace(predictor.combine, fitted_on=("voc07:somewhere", fitted_on))
    for split in spared + rejected:
        assert (OBJECT_BANK in scored_parts(predictor, "voc07:elsewhere", split)) is (split in spared), split
        assert OBJECT_BANK in scored_parts(predictor, "voc12:somewhere", split)


def test_masks_of_every_part(trained: Path) -> None:
    results = evaluate(load(trained), "synthetic:count=6,size=64", tasks=["segmentation"])
    parts = [*results.scales.values(), *results.combinations.values(), results]
    assert [part.segmentation.images for part in parts if part.segmentation] == [6] * 5


def test_the_held_out_scores_are_those_of_images_not_trained_on(trained: Path) -> None:
    """The mean's score in scales.json, computed again from the single runs and the split."""
    dataset = open_training_data(CONFIG)[1]
    assert dataset is not None
    members = [load(trained / f"scale-{scale}") for scale in (64, 96)]
    probabilities = [np.mean([m(dataset.image(i)).probabilities for m in members], axis=0) for i in range(len(dataset))]
    precisions = average_precision(np.stack(probabilities), dataset.labels)
    combination = read_scales(trained).combination
    assert combination is not None
    assert combination.scores[MEAN] == pytest.approx(100 * np.nanmean(precisions), abs=0.5)


# Resuming


def test_finished_scales_are_skipped_and_others_continue(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    assert train_scales(CONFIG, [64, 96], folder, resume=True) == folder
    assert {file: file.read_bytes() for file in before} == before
    # As a run that was killed while its second scale was trained.
    runs = read_scales(folder)
    save_scales(folder, replace(runs, combination=None))
    (folder / BANK).unlink()
    shutil.rmtree(folder / "scale-96")
    with pytest.raises(WildcatError, match="has not finished; continue it with --resume"):
        load(folder)
    modified = (folder / "scale-64" / "model.safetensors").stat().st_mtime_ns
    assert main(["train", "--out", str(folder), "--resume"]) == 0  # the settings are the folder's own
    assert (folder / "scale-64" / "model.safetensors").stat().st_mtime_ns == modified
    for name in ("scale-96/model.safetensors", BANK, SCALES):
        assert (folder / name).read_bytes() == before[folder / name]


def test_all_scales_are_trained_in_one_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([True, False, False])
    monkeypatch.setattr(setup, "bf16_is_faster", lambda *_: next(answers))
    folder = train_scales(
        tiny(data="synthetic:count=12,size=64", epochs=1, precision="auto"), [64, 96], tmp_path / "runs"
    )
    assert [read_run(folder / f"scale-{scale}").config.precision for scale in (64, 96)] == ["bf16", "bf16"]


def test_a_crash_between_two_scales_leaves_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stop(Exception):
        pass

    def second_stops(config: TrainConfig, out: Path, **options: bool) -> Path:
        if config.image_size == 96:
            raise Stop
        return train(config, out, **options)

    config = tiny(data="synthetic:count=12,size=64", epochs=1)
    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr(scales, "train", second_stops)
        train_scales(config, [64, 96], tmp_path / "runs")
    assert read_scales(tmp_path / "runs").combination is None
    train_scales(config, [64, 96], tmp_path / "runs", resume=True)
    assert load(tmp_path / "runs").chosen == MEAN


# Without held-out images


def test_without_held_out_images_the_mean_combines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = flags(data="synthetic:count=12,size=64", epochs=1)
    assert main(["train", "--out", str(tmp_path / "runs"), *settings, "--scales", "64,96"]) == 0
    assert "no held-out images" in capsys.readouterr().err
    assert not (tmp_path / "runs" / BANK).exists()
    predictor = load(tmp_path / "runs")
    assert list(predictor.outputs) == ["scale-64", "scale-96", MEAN] and predictor.chosen == MEAN
    data = ["--data", "synthetic:count=6,size=64"]
    assert main(["evaluate", str(tmp_path / "runs"), *data]) == 0
    assert set(json.loads((tmp_path / "runs" / "results.json").read_text())["combinations"]) == {MEAN}
    trees.image(tmp_path / "a.png")
    assert main(["predict", str(tmp_path / "runs"), str(tmp_path / "a.png"), "--out", str(tmp_path / "out")]) == 0
    assert main(["evaluate", str(tmp_path / "runs"), *data, "--score-sizes", "64"]) == 2
    assert "models of several scales" in capsys.readouterr().err


def test_too_few_held_out_images_of_a_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="wildcat")
    for label, colour in {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}.items():
        for number in range(3):
            trees.image(tmp_path / "data" / label / f"{number}.png", colour=colour)
    config = tiny(data=f"folder:{tmp_path / 'data'}", train_split="all", epochs=1, val_fraction=0.34, batch_size=2)
    train_scales(config, [64, 96], tmp_path / "runs")
    assert "two held-out images of every class" in caplog.text
    assert load(tmp_path / "runs").chosen == MEAN


# Mistakes


@pytest.mark.parametrize("asked", [[], [64], [64, 64], [0, 64]])
def test_scales_are_different_sizes(tmp_path: Path, asked: list[int]) -> None:
    with pytest.raises(WildcatError, match="scales are two or more different image sizes"):
        train_scales(CONFIG, asked, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_folders_that_hold_something_else(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(WildcatError, match="already holds runs: continue them with --resume"):
        train_scales(CONFIG, [64, 96], folder)
    with pytest.raises(WildcatError, match=r"cannot change scales from \[64, 96\] to \[64, 128\] when resuming"):
        train_scales(CONFIG, [64, 128], folder, resume=True)
    with pytest.raises(WildcatError, match=r"cannot change lr from 0\.1 to 3\.0 when resuming .*runs; use a new"):
        train_scales(replace(CONFIG, lr=3.0), [64, 96], folder, resume=True)
    with pytest.raises(WildcatError, match="scale-64 holds a single run; give another folder"):
        train_scales(CONFIG, [64, 96], folder / "scale-64")
    with pytest.raises(WildcatError, match=r"runs holds runs of several scales; give one of them, such as .*scale-64"):
        read_run(folder)
    (tmp_path / "file").touch()
    with pytest.raises(WildcatError, match="is a file"):
        train_scales(CONFIG, [64, 96], tmp_path / "file")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("scales.json", "{", "scales.json is not valid JSON"),
        ("scales.json", "{}", "scales.json has no entry 'config'"),
        (
            "scales.json",
            '{"config": {"data": "synthetic"}, "scales": [], "combination": null}',
            "scales.json: scales must be a list of whole numbers above 0; got []",
        ),
        ("scales.json", '{"config": {"lr": "x"}, "scales": [1]}', "scales.json: lr must be a number"),
        ("object_bank.safetensors", "x", "object_bank.safetensors is missing or damaged"),
        ("object_bank.safetensors", None, "object_bank.safetensors is missing or damaged"),
    ],
)
def test_damage_is_named(folder: Path, file: str, content: str | None, message: str) -> None:
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_text(content)
    with pytest.raises(WildcatError) as caught:
        load(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("combination", "message"),
    [
        ({"chosen": "best"}, "mean or object_bank; got 'best'"),
        ({"chosen": ["mean"]}, "mean or object_bank; got ['mean']"),
        ({"chosen": "object_bank", "fitted_on": None}, "mean; got 'object_bank'"),
    ],
)
def test_an_unknown_combination_is_rejected(folder: Path, combination: dict[str, object], message: str) -> None:
    values = json.loads((folder / "scales.json").read_text())
    values["combination"] |= combination
    (folder / "scales.json").write_text(json.dumps(values))
    with pytest.raises(WildcatError) as caught:
        load(folder)
    assert str(caught.value) == f"{folder / 'scales.json'}: combination.chosen must be {message}"


def test_a_bank_of_other_scales(folder: Path) -> None:
    values = json.loads((folder / "scales.json").read_text())
    values["scales"] = [64]
    (folder / "scales.json").write_text(json.dumps(values))
    with pytest.raises(WildcatError, match=r"object_bank.safetensors is of other classes or scales"):
        load(folder)
