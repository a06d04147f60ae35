"""results.json: round trips, files of earlier versions, damaged files."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from wildcat.apps.report.contents import main_scores
from wildcat.errors import WildcatError
from wildcat.evaluation.summary import summary
from wildcat.metrics.metric_table import CLASS_METRICS, METRICS, Detail, measured, metric_named, metrics_shown
from wildcat.metrics.scores import Scores
from wildcat.runs.results import Results, read_results, write_results

OLD = REPOSITORY / "tests" / "fixtures" / "before_the_layout"
LEDGER = sorted((REPOSITORY / "experiments" / "results").glob("*.json"))
# Keys of the first versions that have new names since.
RENAMED = {"pictures": "images", "reading": "inference"}
SMALL: dict[str, Any] = {"data": "folder:x", "split": "test", "images": 3}


def renamed(values: Any) -> Any:
    """Values of an old file with the new names of keys."""
    if not isinstance(values, dict):
        return values
    return {RENAMED.get(key, key): renamed(value) for key, value in values.items()}


@pytest.mark.parametrize("run", ["finished", "scales"])
def test_old_files_are_read_without_loss(run: str, tmp_path: Path) -> None:
    content = json.loads((OLD / run / "results.json").read_text())
    results = read_results(OLD / run / "results.json")
    assert results.to_dict() == renamed(content)
    assert results.segmentation is not None and results.segmentation.images == content["images"]
    assert results.inference.runtime == "torch" and results.inference.precision == "fp32"
    write_results(tmp_path / "results.json", results)
    assert read_results(tmp_path / "results.json") == results


def test_scores_of_an_old_file() -> None:
    content = json.loads((OLD / "finished" / "results.json").read_text())
    results = read_results(OLD / "finished" / "results.json")
    assert results.classification is not None and results.pointing is not None and results.segmentation is not None
    assert results.classification.map_area == content["classification"]["map_area"]
    fish = content["classification"]["per_class"]["fish"]
    entry = results.classification.per_class["fish"]
    assert (entry.ap_area, entry.ap_11point, entry.ap_step) == (fish["area"], fish["11point"], fish["step"])
    assert results.pointing.per_class["key"].correct == content["pointing"]["per_class"]["key"]["correct"]
    assert results.segmentation.per_class["fish"].iou_crf == content["segmentation"]["per_class_crf"]["fish"]


def test_scores_of_the_ledger_are_read_without_loss() -> None:
    assert len(LEDGER) > 20
    for file in LEDGER:
        content = json.loads(file.read_text())["results"]
        read = Scores.from_dict(content, file.name).to_dict()
        for task, section in content.items():
            for key, value in renamed(section).items():
                assert read[task][key] == value, f"{file.name}: {task}.{key}"


def test_scores_that_are_not_defined_are_null_in_json_and_nan_in_python() -> None:
    content = {"pointing": {"map": None, "per_class": {"cat": {"ap": None, "positives": 0}}}}
    results = Results.from_dict(SMALL | content)
    assert results.pointing is not None
    assert math.isnan(results.pointing.map) and math.isnan(results.pointing.per_class["cat"].ap)
    written = json.loads(json.dumps(results.to_dict(), allow_nan=False))
    assert written["pointing"]["map"] is None and written["pointing"]["per_class"]["cat"]["ap"] is None
    assert measured(results, Detail.FULL) == []


def test_unknown_keys_are_ignored() -> None:
    results = Results.from_dict(SMALL | {"new": 1, "classification": {"map_area": 50.0, "newer": [1]}})
    assert "new" not in results.to_dict() and "newer" not in results.to_dict()["classification"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": None}, "data must be a text; got None"),
        ({"images": -1}, "images must be a whole number from 0; got -1"),
        ({"images": True}, "images must be a whole number from 0; got True"),
        ({"classification": 3}, "classification must be an object; got 3"),
        ({"classification": {"map_area": "high"}}, "classification.map_area must be a number from 0 to 100, or null"),
        ({"classification": {"map_area": 101}}, "classification.map_area must be a number from 0 to 100, or null"),
        ({"pointing": {"map": [1]}}, "pointing.map must be a number from 0 to 100, or null; got [1]"),
        ({"pointing": {"tolerance": 10**400}}, "pointing.tolerance must be a finite number from 0, or null; got 1000"),
        ({"pointing": {"decisions": [1]}}, "pointing.decisions must be a list of names; got [1]"),
        ({"pointing": {"per_class": {"cat": 5}}}, "pointing.per_class.cat must be an object; got 5"),
        ({"segmentation": {"per_class": {"cat": {}}}}, "segmentation.per_class.cat must be a number from 0 to 100"),
        ({"segmentation": {"pictures": "9"}}, "segmentation.pictures must be a whole number from 0; got '9'"),
        ({"inference": {"mirror": "no"}}, "inference.mirror must be true or false; got 'no'"),
        ({"reading": {"score_sizes": [0]}}, "reading.score_sizes must be a list of whole numbers above 0; got [0]"),
        ({"scales": {"64": {"pointing": {"map": "x"}}}}, "scales.64.pointing.map must be a number from 0 to 100"),
        ({"versions": {"torch": 2}}, "versions.torch must be a text; got 2"),
        ({"warnings": "x" * 10**6}, "warnings must be a list of names; got 'xxxx"),
    ],
)
def test_damage_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(SMALL | change))
    with pytest.raises(WildcatError) as caught:
        read_results(file)
    assert str(caught.value).startswith(f"{file}: {message}")
    assert len(str(caught.value)) < len(str(file)) + 200 and "\n" not in str(caught.value)


@pytest.mark.parametrize("key", SMALL)
def test_a_missing_entry_is_named(key: str) -> None:
    with pytest.raises(WildcatError, match=f"^results.json has no entry '{key}'$"):
        Results.from_dict({name: value for name, value in SMALL.items() if name != key})


def test_every_metric_is_in_the_results_and_has_its_own_name() -> None:
    results = read_results(OLD / "finished" / "results.json")
    names = [name for metric in METRICS for name in (metric.name, *metric.former_names)]
    assert len(set(names)) == len(names)
    shown = {metric.key for metric, _ in measured(results, Detail.FULL) if metric.task == "pointing"}
    assert shown == {"map", "map_tolerance_0", "accuracy", "accuracy_pairs"}
    assert all(metric_named(name).name in {metric.name for metric in METRICS} for name in names)
    assert set(metrics_shown(Detail.TABLE)) < set(metrics_shown(Detail.HEADLINE)) < set(metrics_shown(Detail.SUMMARY))
    with pytest.raises(WildcatError, match="there is no metric 'mIou'; did you mean mIoU"):
        metric_named("mIou")


def test_values_of_each_class() -> None:
    results = read_results(OLD / "finished" / "results.json")
    by_name = {metric.name: metric.values(results, ["fish", "unicorn"]) for metric in CLASS_METRICS}
    assert by_name["Images"][0] == 5 and by_name["AP"][0] == pytest.approx(26.94444444444445)
    assert all(math.isnan(values[1]) for values in by_name.values())
    assert all(math.isnan(value) for value in by_name["Accuracy"])  # an image has several classes


def test_intervals_of_masks_are_kept_and_shown() -> None:
    masks = {"miou": 42.25, "miou_interval": [38.0, 46.5], "miou_crf": 43.0, "miou_crf_interval": [None, None]}
    results = Results.from_dict({"data": "folder:x", "split": "test", "images": 3, "segmentation": masks})
    assert results.to_dict()["segmentation"] | masks == results.to_dict()["segmentation"]
    assert "mIoU 42.2 (95 %: 38.0 to 46.5), mIoU with CRF 43.0, " in summary(results)
    (shown,) = [each for each in main_scores(results) if each["name"] == "mIoU"]
    assert shown["value"] == "42.2" and shown["about"].endswith("; 95 % interval over images 38.0 to 46.5")


@pytest.mark.parametrize("bounds", [[1.0], [1.0, 2.0, 3.0], 4.0, [1.0, "2"], [-1.0, 2.0], [1.0, 101.0]])
def test_a_damaged_interval_is_named(bounds: Any) -> None:
    with pytest.raises(WildcatError, match=r"results\.json.*segmentation\.miou_interval"):
        Results.from_dict(
            {"data": "folder:x", "split": "test", "images": 3, "segmentation": {"miou_interval": bounds}},
            "results.json",
        )
