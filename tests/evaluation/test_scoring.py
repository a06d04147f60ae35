"""Scores of a model on a dataset: the format of results.json, known answers, datasets that do not fit."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests import unusual
from tests.data import trees
from tests.tiny_runs import ColourModel, tiny
from wildcat.cli import main
from wildcat.data import Dataset, Sample
from wildcat.data.registry import open_dataset
from wildcat.errors import WildcatError
from wildcat.evaluation.scored_data import training_overlap
from wildcat.evaluation.scoring import MaskAccumulator, evaluate
from wildcat.evaluation.summary import summary
from wildcat.metrics import ClassificationScores, average_precision, pointing_result
from wildcat.model import WildcatOutput
from wildcat.prediction.items import dataset_items
from wildcat.prediction.predictor import Part, Predictor
from wildcat.prediction.result import Prediction
from wildcat.runs.folder import build_model, read_weights, save_weights
from wildcat.runs.image_record import RECORD, ImageRecord
from wildcat.runs.results import results_file
from wildcat.runs.settings import InferenceSettings
from wildcat.training.launch import train

DATA = "synthetic:count=40,size=96"
SIZE = 96


class FixedPredictor(Predictor):
    """A predictor with given answers: (C,) probabilities and (C, 2) points for each sample."""

    def __init__(self, classes: tuple[str, ...], answers: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
        super().__init__(Part(ColourModel(), InferenceSettings(classes, True, (32,), (32,))))
        self.answers = answers

    def stream_each(self, items, **_: object) -> Iterator[dict[str, Prediction]]:
        for item in items:
            probabilities, points = self.answers[item.name]
            maps = np.zeros((len(probabilities), SIZE, SIZE), np.float32)
            for c, (x, y) in enumerate(points):
                maps[c, int(y), int(x)] = 1
            prediction = Prediction(
                item.name, (SIZE, SIZE), self.settings, probabilities.astype(np.float32), maps, None, item.load
            )
            yield {self.chosen: prediction}


def perfect(dataset: Dataset) -> FixedPredictor:
    """Predicts the true labels, and the centre of a box that is not difficult."""
    answers = {}
    for sample in dataset.samples:
        points = np.zeros((len(dataset.classes), 2))
        for box, c, difficult in zip(sample.boxes, sample.box_classes, sample.box_difficult, strict=True):
            if not difficult:
                points[c] = (box[:2] + box[2:]) / 2
        answers[sample.name] = ((sample.labels == 1).astype(float), points)
    return FixedPredictor(dataset.classes, answers)


def by_chance(dataset: Dataset, seed: int = 0) -> FixedPredictor:
    rng = np.random.default_rng(seed)
    count = len(dataset.classes)
    answers = {s.name: (rng.random(count), rng.uniform(0, SIZE, (count, 2))) for s in dataset.samples}
    return FixedPredictor(dataset.classes, answers)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return open_dataset(DATA, "test")


def test_a_perfect_predictor_scores_100(dataset: Dataset) -> None:
    results = evaluate(perfect(dataset), DATA)
    scores, pointing = results.classification, results.pointing
    assert scores is not None and pointing is not None
    assert scores.map_area == scores.map_11point == scores.map_step == 100
    assert pointing.map == pointing.map_tolerance_0 == pointing.accuracy == 100


def test_results_have_the_format_of_results_json(dataset: Dataset) -> None:
    results = evaluate(perfect(dataset), DATA)
    content = results.to_dict()
    assert json.loads(json.dumps(content, allow_nan=False)) == content
    keys = ["data", "split", "images", "classification", "pointing", "inference", "seconds", "versions"]
    assert list(content) == keys
    assert (content["data"], content["split"], content["images"]) == (DATA, "test", 40)
    assert {"map_area", "map_11point", "map_step", "per_class"} <= set(content["classification"])
    assert "accuracy" not in content["classification"]  # only where each image has one class
    assert {"map", "map_tolerance_0", "accuracy", "tolerance"} <= set(content["pointing"])
    assert content["pointing"]["tolerance"] == 18
    assert set(content["classification"]["per_class"]) == set(content["pointing"]["per_class"]) == set(dataset.classes)
    assert results.seconds > 0 and {"wildcat", "torch"} <= set(results.versions)
    text = summary(results)
    assert "mAP 100.0" in text and "without tolerance 100.0" in text and "40 images" in text


def test_chance_scores_what_chance_gives(dataset: Dataset) -> None:
    predictor = by_chance(dataset)
    results = evaluate(predictor, DATA)
    probabilities = np.stack([predictor.answers[s.name][0] for s in dataset.samples]).astype(np.float32)
    points = np.stack([np.floor(predictor.answers[s.name][1]) + 0.5 for s in dataset.samples])
    expected = np.nanmean(average_precision(probabilities, dataset.labels))
    assert results.classification.map_area == pytest.approx(100 * expected)
    columns = [[getattr(s, name) for s in dataset.samples] for name in ("boxes", "box_classes", "box_difficult")]
    pointing = pointing_result(points, probabilities, *columns, dataset.classes)
    assert results.pointing.map == pytest.approx(100 * pointing.map)
    # Random scores have about the share of the positives as average precision, and many points miss.
    share = 100 * (dataset.labels == 1).mean()
    assert share < results.classification.map_area < share + 20
    assert results.pointing.map < results.classification.map_area


def test_tasks_are_chosen(dataset: Dataset) -> None:
    assert evaluate(perfect(dataset), DATA, tasks=["classification"]).tasks == ("classification",)
    assert evaluate(perfect(dataset), DATA, tasks=["pointing"]).tasks == ("pointing",)
    with pytest.raises(WildcatError, match=r"task .painting. is unknown; allowed: classification, pointing"):
        evaluate(perfect(dataset), DATA, tasks=["painting"])


class EightColours(ColourModel):
    """As many classes as the synthetic dataset has."""

    def __call__(self, images: torch.Tensor) -> WildcatOutput:
        return super().__call__(images[:, [0, 1, 2, 0, 1, 2, 0, 1]])


@pytest.mark.slow
def test_images_are_processed_at_the_sizes_that_the_tasks_need(dataset: Dataset) -> None:
    spec, by_tasks = "synthetic:count=8,size=96", {}
    for tasks, sizes in (
        (["classification"], [64]),
        (["pointing"], [64, 96, 128]),
        (["classification", "pointing"], [64, 96, 128]),
        (["segmentation"], [64, 96, 128]),
    ):
        predictor = Predictor(Part(EightColours(), InferenceSettings(dataset.classes, True, (64,), (96, 128))))
        results = by_tasks[tuple(tasks)] = evaluate(predictor, spec, tasks=tasks)
        assert [shape[2] for shape in predictor.single.network.batches] == sizes  # 8 images are one batch
        assert results.inference.map_sizes == (None if tasks == ["classification"] else (96, 128))
        assert ("map_sizes" in results.to_dict()["inference"]) is (tasks != ["classification"])
    one, both = by_tasks["classification",], by_tasks["classification", "pointing"]
    assert one.classification == both.classification


def test_splits(dataset: Dataset) -> None:
    validation = open_dataset(DATA, "val")
    results = evaluate(perfect(validation), DATA, split="val")
    assert results.split == "val" and results.classification.map_area == 100
    with pytest.raises(WildcatError, match="no split 'nope'"):
        evaluate(perfect(dataset), DATA, split="nope")


# Classes


def test_no_common_class_is_an_error() -> None:
    with pytest.raises(WildcatError, match="the dataset lacks pegasus, unicorn, the model lacks fish"):
        evaluate(FixedPredictor(("unicorn", "pegasus"), {}), DATA)


# Datasets without boxes, with one class per image, with bad images


def folder_of_colours(path: Path) -> str:
    for label, colour in {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}.items():
        for number in range(3):
            trees.image(path / "test" / label / f"{number}.png", colour=colour)
            trees.image(path / "train" / label / f"{number}.png", colour=colour)
    return f"folder:{path}"


def colours(classes: tuple[str, ...] = ("red", "green", "blue")) -> Predictor:
    return Predictor(Part(ColourModel(), InferenceSettings(classes, False, (64,), (64,))))


def test_one_class_per_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = folder_of_colours(tmp_path)
    predictor = colours(("blue", "green", "red")).at_sizes(map_sizes=[96])
    results = evaluate(predictor, data)  # the model's outputs are red, green, blue in this order
    assert {shape[2] for shape in predictor.single.network.batches} == {64}  # no map annotations
    assert results.classification.accuracy == pytest.approx(100 / 3)
    assert results.classification.mean_class_accuracy == pytest.approx(100 / 3)
    assert math.isnan(results.classification.map_area) and results.pointing is None
    assert "map_area" not in results.to_dict()["classification"]
    assert caplog.text == ""  # points were not asked for
    evaluate(predictor, data, tasks=["classification", "pointing", "segmentation"])
    assert "has no boxes: pointing is left out" in caplog.text
    assert "has no masks: segmentation is left out" in caplog.text
    assert "accuracy 33.3" in summary(results)


def test_bad_images_are_errors_or_skipped_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = folder_of_colours(tmp_path)
    unusual.write_all(tmp_path / "test" / "red")
    predictor = colours(("blue", "green", "red"))
    with pytest.raises(WildcatError, match=r"3 images cannot be read"):
        evaluate(predictor, data)
    results = evaluate(predictor, data, on_bad_image="skip", tasks=["classification"])
    assert results.images == 9 + len(unusual.GOOD)
    assert all(name in caplog.text for name in unusual.BAD)
    assert not any(name in caplog.text for name in unusual.GOOD)


@pytest.mark.slow
def test_a_real_network_in_batches(dataset: Dataset) -> None:
    """The scores are those of images predicted one by one."""
    torch.manual_seed(0)
    settings = InferenceSettings(dataset.classes, True, (64,), (64,))
    predictor = Predictor.from_model(build_model(tiny(), len(dataset.classes), pretrained=False), settings)
    results = evaluate(predictor, DATA)
    single = [predictor(dataset.image(index)) for index in range(len(dataset))]
    expected = average_precision(np.stack([p.probabilities for p in single]), dataset.labels)
    assert results.classification.map_area == pytest.approx(100 * np.nanmean(expected), abs=1e-3)
    assert len(dataset_items(dataset)) == 40


def test_images_that_were_held_out_were_not_trained_on(tmp_path: Path) -> None:
    config = tiny(data="synthetic:count=8,size=64", val_fraction=0.25, epochs=1)
    folder = train(config, tmp_path / "run")
    dataset, other = open_dataset(config.data, "train"), open_dataset(config.data, "test")
    for _ in range(2):  # a run of an earlier version has no record
        (message,) = training_overlap(folder, dataset, ImageRecord.of(dataset))
        assert message.startswith("6 of 8 scored images were trained on")
        assert training_overlap(folder, other, ImageRecord.of(other)) == []
        (folder / RECORD).unlink(missing_ok=True)
    assert training_overlap(Path("imagenet"), dataset, ImageRecord.of(dataset)) == []
    assert training_overlap(None, dataset, ImageRecord.of(dataset)) == []


@pytest.mark.slow
def test_a_run_that_skipped_bad_images_is_scored_and_reported(tmp_path: Path) -> None:
    data = tmp_path / "images"
    for split in ("train", "test"):
        for label in "ab":
            for number in range(3):
                trees.image(data / split / label / f"{number}.png", colour=(40 * number, 90, ord(label)))
        (data / split / "a" / "bad.png").write_bytes(b"")
    config = tiny(data=f"folder:{data}", train_split="train", epochs=1, batch_size=2, on_bad_image="skip")
    folder = train(config, tmp_path / "run")
    dataset = open_dataset(config.data, "train").subset([0])
    (message,) = training_overlap(folder, dataset, ImageRecord.of(dataset))
    assert message.startswith("1 of 1 scored images")
    assert main(["report", str(folder), "--out", str(tmp_path / "report.html")]) == 0
    assert (tmp_path / "report.html").is_file()


@pytest.mark.slow
def test_results_of_other_tasks_are_merged(tmp_path: Path) -> None:
    """If they are of the same images, model and settings; others are replaced."""
    run = train(tiny(epochs=1, data="synthetic:count=8,size=64"), tmp_path / "run")

    def scored(*arguments: str) -> dict[str, Any]:
        assert main(["evaluate", str(run), *arguments]) == 0
        content: dict[str, Any] = json.loads((run / "results.json").read_text())
        return content

    masks = scored("--tasks", "segmentation", "--crf")["segmentation"]
    both = scored("--tasks", "classification")
    assert both["segmentation"] == masks and "map_area" in both["classification"]
    assert both["inference"]["map_sizes"]  # those of the masks
    assert "segmentation" not in scored("--tasks", "classification", "--precision", "bf16")
    assert set(scored("--tasks", "pointing")) >= {"pointing"}
    (train_split,) = scored("--tasks", "classification", "--split", "train")["others"]
    assert train_split["split"] == "train" and "pointing" not in train_split
    elsewhere = tmp_path / "elsewhere.json"
    elsewhere.write_bytes((run / "results.json").read_bytes())  # it may be of another model
    scored("--tasks", "pointing", "--json", str(elsewhere))
    assert "classification" not in json.loads(elsewhere.read_text())
    scored("--tasks", "classification")
    file = run / "model.safetensors"
    file.write_bytes(file.read_bytes())  # the same model, with a newer date
    assert "classification" in scored("--tasks", "pointing")
    weights = read_weights(file)
    weights["transfer.bias"] = weights["transfer.bias"] + 1
    save_weights(run, weights)
    os.utime(file, (0, 0))  # another model, with an older date, as `cp -p` and `rsync -a` give
    assert "pointing" not in scored("--tasks", "classification")
    config = json.loads((run / "config.json").read_text())
    config["config"] |= {"kmax": 1, "kmin": 0}
    (run / "config.json").write_text(json.dumps(config))
    assert "classification" not in scored("--tasks", "pointing")


def test_nothing_to_score_is_an_error(tmp_path: Path) -> None:
    data = folder_of_colours(tmp_path)
    with pytest.raises(WildcatError, match="test has no annotations for the tasks to score"):
        evaluate(FixedPredictor(("blue", "green", "red"), {}), data, tasks=["segmentation"])


def test_the_summary_of_a_split_without_labels(dataset: Dataset) -> None:
    results = evaluate(perfect(dataset), DATA, tasks=["classification"])
    results = replace(results, classification=ClassificationScores())
    assert "classification: no class has a label here" in summary(results)


def test_where_results_belong(tmp_path: Path) -> None:
    assert results_file(tmp_path) == tmp_path / "results.json"
    assert results_file("imagenet") is None


@pytest.mark.slow
def test_images_that_were_used_for_training_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "images"
    for split, red in (("train", 0), ("test", 100)):
        for label in "ab":
            for number in range(2):
                trees.image(data / split / label / f"{number}.png", colour=(red + 40 * number, 90, ord(label)))
    folder = train(tiny(data=f"folder:{data}", train_split="train", epochs=1, batch_size=2), tmp_path / "run")
    arguments = ["evaluate", str(folder), "--data", f"folder:{data}", "--tasks", "classification", "--split"]
    assert main([*arguments, "test"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert "warnings" not in json.loads((folder / "results.json").read_text())
    (data / "test" / "a" / "copy.png").write_bytes((data / "train" / "a" / "1.png").read_bytes())
    assert main([*arguments, "test"]) == 0
    expected = "1 of 5 scored images were trained on (equal files), so that scores on them are too high: "
    expected += "a/copy.png = a/1.png"
    assert f"warning: {expected}" in capsys.readouterr().err
    assert json.loads((folder / "results.json").read_text())["warnings"] == [expected]
    (data / "test" / "b" / "bad.png").write_bytes(b"")  # images that are not scored are not counted
    assert main([*arguments, "test", "--on-bad-image", "skip"]) == 0
    assert f"warning: {expected}" in capsys.readouterr().err
    (data / "test" / "b" / "bad.png").unlink()
    data.rename(tmp_path / "elsewhere")  # the training images were moved
    arguments[3] = f"folder:{tmp_path / 'elsewhere'}"
    assert main([*arguments, "test"]) == 0
    assert f"warning: {expected}" in capsys.readouterr().err  # by the run's record of them


def test_masks_limited_to_the_labels_may_hold_difficult_classes() -> None:
    sample = Sample("a", None, np.array([1, 0, -1], np.int8))
    dataset = Dataset("mine:x", "test", ["cat", "dog", "cow"], [sample])
    assert MaskAccumulator(dataset, "image", crf=False)._allowed(0) == [0, 1]
    assert MaskAccumulator(dataset, "predicted", crf=False)._allowed(0) is None
