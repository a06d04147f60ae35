"""Which images are scored, what is said of them, and how classes that differ from the model's are treated."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data import trees
from tests.tiny_runs import ColourModel, tiny
from wildcat.apps.report import build
from wildcat.cli import main
from wildcat.data import Dataset, Sample, open_dataset
from wildcat.errors import WildcatError
from wildcat.evaluation import run as evaluation_run
from wildcat.evaluation.classes import in_model_classes
from wildcat.evaluation.scored_data import choose_scored_data, training_overlap
from wildcat.evaluation.scoring import evaluate
from wildcat.evaluation.summary import summary
from wildcat.masks import Background
from wildcat.prediction.predictor import Part, Predictor
from wildcat.runs.folder import Run, build_model, save_config
from wildcat.runs.image_record import RECORD, ImageRecord, save_record
from wildcat.runs.results import read_results
from wildcat.runs.settings import InferenceSettings

COLOURS = ("blue", "green", "red")
OUTPUTS = ("red", "green", "blue")  # the order of ColourModel
SIDE = 32


def folder(path: Path, per_class: int = 5, classes: tuple[str, ...] = COLOURS, seed: int = 0, of: str = "") -> Path:
    """A folder per class, of noise in the class's colour; `of` is a folder in between, such as a split."""
    rng = np.random.default_rng(seed)
    for label in classes:
        for number in range(per_class):
            pixels = rng.integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
            if label in OUTPUTS:
                pixels[..., OUTPUTS.index(label)] += 190
            file = path / of / label / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return path


def table(path: Path, rows: dict[str, str], header: str = "image,tags") -> Path:
    """A CSV of images, which are made, and their tags."""
    for name, tags in rows.items():
        colour = tuple(220 if label in tags.split(";") else 10 for label in OUTPUTS)
        trees.image(path.parent / name, SIDE, SIDE, (colour[0], colour[1], colour[2] + len(name)))
    return trees.write(path, "\n".join([header, *(f"{name},{tags}" for name, tags in rows.items())]))


def make_run(path: Path, data: str, record: bool = True) -> Path:
    """A run directory without weights, as far as the choice of images looks at it."""
    config = tiny(data=data)
    dataset = open_dataset(data, "train")
    path.mkdir()
    save_config(path, Run(config, dataset.classes, dataset.multi_label, (0.0,) * 3, (1.0,) * 3, len(dataset)))
    if record:
        save_record(path, ImageRecord.of(dataset), ImageRecord())
    return path


def colours(run: Path | None, classes: tuple[str, ...] = OUTPUTS, multi_label: bool = False) -> Predictor:
    return Predictor(Part(ColourModel(), InferenceSettings(classes, multi_label, (SIDE,), (SIDE,))), run=run)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run on tmp_path/mine, 5 images of each of three classes: 12 for training, 3 held out."""
    return make_run(tmp_path / "run", f"folder:{folder(tmp_path / 'mine')}")


def relative(place: Path) -> str:
    os.chdir(place)
    return "folder:mine"


def linked(place: Path) -> str:
    (place / "link").symlink_to(place / "mine", target_is_directory=True)
    return f"folder:{place / 'link'}"


def moved(place: Path) -> str:
    (place / "mine").rename(place / "moved")
    return f"folder:{place / 'moved'}"


def copied(place: Path) -> str:
    shutil.copytree(place / "mine", place / "copy")
    return f"folder:{place / 'copy'}"


def with_new_images(place: Path) -> str:
    trees.image(place / "mine" / "red" / "new.png")
    return f"folder:{place / 'mine'}"


def with_an_empty_class(place: Path) -> Path:
    (place / "blue").mkdir(exist_ok=True)
    return place


SAME = [relative, linked, moved, copied, with_new_images, lambda place: f"folder:{place}/mine/../mine/"]
OTHER: list[Callable[[Path], Any]] = [
    lambda place: folder(place / "other", seed=1),  # the same names, other images
    lambda place: folder(place / "other", per_class=9, seed=1),
    lambda place: folder(place / "other", per_class=2, classes=("red",), seed=1),
    lambda place: folder(place / "elsewhere" / "mine", seed=1),  # the same last name
    lambda place: with_an_empty_class(folder(place / "other", classes=("green", "red"), seed=1)),
]


@pytest.mark.parametrize("same", SAME)
@pytest.mark.parametrize("record", [True, False], ids=["record", "old"])
def test_of_the_training_data_the_held_out_part_is_scored(
    tmp_path: Path, run: Path, same: Callable[[Path], str], record: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if not record:
        (run / RECORD).unlink()
    data = same(tmp_path)
    if not record and same is moved:  # without a record, kind, name and number tell
        (tmp_path / "here").mkdir()
        data = f"folder:{(tmp_path / 'moved').rename(tmp_path / 'here' / 'mine')}"
    chosen = choose_scored_data(run, data)
    assert (chosen.split, chosen.part) == ("test", "held out")
    assert choose_scored_data(run, data, "train").part == "training data"
    assert choose_scored_data(run, data + ",test=0.5").part == "training data"
    results = evaluate(colours(run), data)
    assert results.images == 3 and f"3 held-out images of {data}, split test (torch" in summary(results)


@pytest.mark.parametrize("other", OTHER)
@pytest.mark.parametrize("record", [True, False], ids=["record", "old"])
def test_of_other_data_all_images_are_scored(
    tmp_path: Path, run: Path, other: Callable[[Path], Path], record: bool
) -> None:
    if not record:
        (run / RECORD).unlink()
    data = f"folder:{other(tmp_path)}"
    count = len(list(other(tmp_path).rglob("*.png")))
    results = evaluate(colours(run), data)
    assert (results.images, results.split, results.part) == (count, "all", "other data")
    expected = f"{count} images of {data}, all of them: it is not the training data"
    assert summary(results).startswith(expected) and results.classification is not None
    assert results.classification.accuracy == 100
    assert choose_scored_data(run, data, "test").split == "test"  # what is asked for is taken as it is
    assert choose_scored_data(run, f"{data},test=0.4").split == "test"


def test_splits_that_other_data_have_themselves(tmp_path: Path, run: Path) -> None:
    for split in ("train", "test"):
        folder(tmp_path / "split", per_class=2, seed=len(split), of=split)
    assert choose_scored_data(run, f"folder:{tmp_path / 'split'}").split == "test"
    csv = table(tmp_path / "t" / "x.csv", {"a.png": "red,new", "b.png": "blue,new"}, "image,tags,split")
    assert choose_scored_data(run, f"tags:{csv}").split == "new"  # the only one


def test_the_same_words_in_another_folder_are_other_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Path
) -> None:
    folder(tmp_path / "there" / "mine", seed=1)
    content = json.loads((run / "config.json").read_text())
    content["config"]["data"] = "folder:mine"
    (run / "config.json").write_text(json.dumps(content))
    for place, part in ((tmp_path, "held out"), (tmp_path / "there", "other data")):
        monkeypatch.chdir(place)
        assert choose_scored_data(run, "folder:mine").part == part


def test_the_options_of_the_training_choose_the_held_out_part(tmp_path: Path) -> None:
    folder(tmp_path / "mine")
    run = make_run(tmp_path / "run", f"folder:{tmp_path / 'mine'},test=0.4,seed=3")
    results = evaluate(colours(run), f"folder:{tmp_path / 'mine'}")
    assert results.images == 6 and results.part == "held out" and not results.warnings
    assert results.data.endswith(",test=0.4,seed=3")


@pytest.mark.parametrize(("where", "split"), [(None, "test"), (Path("imagenet"), "all")])
def test_models_without_a_run(tmp_path: Path, where: Path | None, split: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    assert evaluate(colours(where), f"folder:{folder(tmp_path / 'mine')}").split == split
    assert ("what the model was trained on is not known" in caplog.text) is (where is None)


def overlap(run: Path, data: Path) -> list[str]:
    dataset = open_dataset(f"folder:{data}", "all")
    return training_overlap(run, dataset, ImageRecord.of(dataset))


@pytest.fixture
def other_with_a_copy(tmp_path: Path, run: Path) -> Path:
    """Other data, with one image of the training."""
    other = folder(tmp_path / "other", seed=1)
    trained = open_dataset(f"folder:{tmp_path / 'mine'}", "train").samples[0]
    shutil.copy(str(trained.path), other / "red" / "copy.png")
    return other


@pytest.mark.parametrize("record", [True, False], ids=["record", "old"])
def test_images_that_were_trained_on_are_found_by_their_files(
    tmp_path: Path, run: Path, other_with_a_copy: Path, record: bool
) -> None:
    if not record:
        (run / RECORD).unlink()
    (warning,) = overlap(run, other_with_a_copy)
    assert warning.startswith("1 of 16 scored images were trained on")
    shutil.rmtree(tmp_path / "mine")
    assert overlap(run, other_with_a_copy) == ([warning] if record else [])


def test_training_images_are_not_read_again(
    tmp_path: Path, run: Path, other_with_a_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record of the run has their digests; of the images that are scored, each is read once."""
    read: Counter[Path] = Counter()
    usual = Path.open

    def counted(path: Path, *arguments: Any, **options: Any) -> Any:
        read.update([path])
        return usual(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", counted)
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.update([path, path]))
    assert overlap(run, other_with_a_copy)
    images = {path: count for path, count in read.items() if path.suffix == ".png"}
    assert images == dict.fromkeys(other_with_a_copy.rglob("*.png"), 1)


# Classes


def test_classes_that_differ_do_not_stop_scoring(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One class is missing, one is unknown, the order is another."""
    run = make_run(tmp_path / "run", f"folder:{folder(tmp_path / 'mine')}")
    data = f"folder:{folder(tmp_path / 'new', classes=('blue', 'red', 'zebra'), seed=1)}"
    results = evaluate(colours(run), data)
    assert results.images == 10 and results.classification is not None
    assert results.classification.accuracy == 100
    assert results.classification.classes_without_positives == ("green",)
    assert results.warnings == (
        "folder:new lacks 1 class (green) of the model, which cannot be scored on it",
        "the model lacks 1 class (zebra) of folder:new: 5 of 15 images are of them and are not scored",
    )
    assert all(warning in caplog.text for warning in results.warnings)
    line = "mean over 2 of 3 classes; 1 not scored, without a positive image: green"
    assert line in [text.strip() for text in summary(results).splitlines()]


@pytest.mark.parametrize("header", ["image,tags", "image,red,blue,zebra"])
def test_tables_with_other_classes(tmp_path: Path, header: str) -> None:
    run = make_run(tmp_path / "run", f"tags:{table(tmp_path / 'a.csv', {f'{n}.png': n for n in COLOURS})}")
    if header == "image,tags":
        rows = {"n1.png": "red", "n2.png": "blue;zebra", "n3.png": "", "n4.png": "zebra"}
    else:
        rows = {"n1.png": "1,0,0", "n2.png": "0,1,1", "n3.png": "0,0,0", "n4.png": "0,0,1"}
    csv = table(tmp_path / "new" / "b.csv", rows, header)
    for (name, _), tags in zip(rows.items(), ["red", "blue", "", ""], strict=True):
        trees.image(csv.parent / name, SIDE, SIDE, tuple(220 if label == tags else 10 for label in OUTPUTS))  # type: ignore[arg-type]
    results = evaluate(colours(run, multi_label=True), f"tags:{csv}")
    assert results.images == 4 and results.part == "other data" and results.classification is not None
    assert results.classification.map_area == 100
    assert results.classification.per_class["red"].positives == 1
    assert "they are not scored (2 of 4 images hold one)" in results.warnings[1]
    assert "green" in results.warnings[0]


class WithMasks(Dataset):
    """One image with a box and a mask of each of its classes."""

    def mask(self, index: int) -> np.ndarray:
        return np.array([[0, 1, 2, 255]], np.uint8)


def test_boxes_and_masks_in_the_classes_of_the_model() -> None:
    boxes = np.array([[0, 0, 1, 1], [2, 2, 3, 3]], np.float32)
    labels, numbers = np.array([1, 1], np.int8), np.array([0, 1], np.int64)
    sample = Sample("a", Path("a.png"), labels, boxes, numbers, np.array([False, True]), Path("a-mask.png"))
    dataset = WithMasks("own:x", "all", ["zebra", "cat"], [sample])
    part, warnings = in_model_classes(dataset, ["dog", "cat", "fish"])
    assert len(warnings) == 2 and part.classes == ("dog", "cat", "fish")
    for each in (part, part.subset([0])):
        (only,) = each.samples
        assert only.labels.tolist() == [-1, 1, -1]
        assert only.boxes is not None and only.box_classes is not None and only.box_difficult is not None
        assert only.boxes.tolist() == [[2, 2, 3, 3]] and only.box_classes.tolist() == [1]
        assert only.box_difficult.tolist() == [True]
        mask = each.mask(0)
        assert mask is not None and mask.tolist() == [[0, 255, 2, 255]] and each.has_masks
    assert in_model_classes(dataset, ["zebra", "cat"]) == (dataset, [])


@pytest.mark.parametrize("name", ["cafe\u0301", "caf\u00e9 ", "caf\u00e9\u200b"])
def test_classes_whose_names_look_the_same_are_the_same(name: str) -> None:
    """A model of an earlier version may have a class in another form of Unicode."""
    dataset = Dataset("mine:x", "all", ["caf\u00e9", "dog"], [Sample("a", None, np.array([1, -1], np.int8))])
    part, warnings = in_model_classes(dataset, ("dog", name))
    assert (part.classes, part.labels.tolist(), warnings) == (("dog", name), [[-1, 1]], [])
    assert dataset.classes == ("caf\u00e9", "dog")


def test_images_without_boxes_are_found_before_anything_is_predicted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = open_dataset(f"folder:{folder(tmp_path, per_class=1)}", "all")
    box = {"boxes": np.array([[0, 0, SIDE, SIDE]], np.float32), "box_difficult": np.array([False])}
    for index in (0, 2):
        number = np.flatnonzero(data.samples[index].labels == 1)
        data.samples[index] = replace(data.samples[index], **box, box_classes=number)  # type: ignore[arg-type]
    predictor = colours(None, data.classes)
    message = "has no boxes, so points cannot be scored on this split (1 of 3 images have none); "
    with pytest.raises(WildcatError, match=re.escape(message) + "leave pointing out of the tasks"):
        evaluate(predictor, data, tasks=["pointing"])
    results = evaluate(predictor, data)  # nobody asked for points
    assert results.classification is not None and results.pointing is None
    assert f"{message}pointing is left out" in caplog.text


# results.json


def test_results_on_other_data_are_kept_beside_the_first(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluation_run, "load", lambda *_, **__: colours(run))
    own, other = f"folder:{tmp_path / 'mine'}", f"folder:{folder(tmp_path / 'other', seed=1)}"

    def scored(*words: str) -> list[tuple[str, str, int]]:
        assert main(["evaluate", str(run), *words]) == 0
        results = read_results(run / "results.json")
        return [(each.data, each.split, each.images) for each in (results, *results.others)]

    assert scored("--data", other) == [(other, "all", 15)]
    assert f"15 images of {other}, all of them: it is not the training data" in capsys.readouterr().out
    assert scored("--data", own) == [(own, "test", 3), (other, "all", 15)]
    assert f"3 held-out images of {own}, split test" in capsys.readouterr().out
    assert scored("--data", own, "--split", "train") == [(own, "test", 3), (own, "train", 12), (other, "all", 15)]
    trees.image(tmp_path / "other" / "red" / "new.png", colour=(250, 0, 0))
    assert scored("--data", other) == [(own, "test", 3), (other, "all", 16), (own, "train", 12)]
    assert scored() == [(own, "test", 3), (other, "all", 16), (own, "train", 12)]
    capsys.readouterr()
    assert main(["evaluate", str(run), "--data", other, "--json", "-"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["images"] == 16 and printed["part"] == "other data" and "others" not in printed
    # The headline of the report is that of evaluate on the run's own data.
    monkeypatch.setattr(build, "load", lambda *_, **__: colours(run))
    capsys.readouterr()
    assert main(["report", str(run), "--images", "2"]) == 0
    page = (run / "report.html").read_text()
    assert "Scored on 3 held-out images of folder:mine, split test." in page and "torch, fp32, cpu" in page
    assert main(["report", str(run), "--images", "2", "--data", other]) == 0
    page = (run / "report.html").read_text()
    assert "Scored on 16 images of folder:other, all of them" in page and str(tmp_path) not in page


def test_a_damaged_results_json_is_found_before_anything_is_scored(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluation_run, "load", lambda *_, **__: colours(run))
    monkeypatch.setattr(evaluation_run, "evaluate", None)
    (run / "results.json").write_text('{"data": "folder:x", "split": "all", "images": 3, "others": [3]}')
    assert main(["evaluate", str(run), "--data", "folder:x"]) == 2
    assert "results.json: others must be a list of at most 100 objects" in capsys.readouterr().err


def test_the_fingerprint_of_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes with weights and pooling, whatever the dates of the files, and not with sizes, background, version."""
    settings = InferenceSettings(("a", "b"), True, (32,), (32,))
    config = tiny(backbone="lite0")
    model = build_model(config, 2, pretrained=False)
    first = Predictor.from_model(model, settings).model_fingerprint
    other = replace(settings, score_sizes=(64,), mirror=True, background=Background("threshold", 0.4))
    assert Predictor.from_model(model, other).model_fingerprint == first
    monkeypatch.setattr("wildcat.export.open.__version__", "99")
    assert Predictor.from_model(model, settings).model_fingerprint == first
    pooled = build_model(replace(config, kmax=1, kmin=0), 2, pretrained=False)
    pooled.load_state_dict(model.state_dict())
    assert Predictor.from_model(pooled, settings).model_fingerprint != first
    next(model.parameters()).data[0] += 1
    assert Predictor.from_model(model, settings).model_fingerprint != first
