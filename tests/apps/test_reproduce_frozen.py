"""The paper's experiments on frozen features: each row at its own rate, intervals over seeds and images."""

import csv
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel

from experiments import reproduced
from tests.tiny_runs import flags, tiny
from wildcat.apps.reproduce import frozen, frozen_tables
from wildcat.apps.reproduce.plan import Effect, experiments, run_name
from wildcat.cli import main
from wildcat.config import TrainConfig
from wildcat.data import open_dataset
from wildcat.errors import WildcatError
from wildcat.metrics import average_precision, pointing_average_precision
from wildcat.training import head_scores
from wildcat.training.head_scores import HeadPredictions, boxes_of, image_sizes

FROZEN: dict[str, Any] = {"frozen": True, "freeze_stages": -1, "freeze_batch_norm": True, "freeze_depthwise": True}


def recipe(cache: Path, **changes: Any) -> TrainConfig:
    return tiny(
        **{
            **FROZEN,
            "cache_dir": str(cache),
            "initial_scale": 0.0,
            "epochs": 1,
            "data": "synthetic:count=10,size=64",
            **changes,
        }
    )


def rows_of(**scores: list[float]) -> list[dict[str, Any]]:
    """Rows whose heads have the same scores at their own and at the fixed rate."""
    return [
        {
            "key": key,
            "paper": {},
            "runs": [{"run": f"{key}{i}", "seed": i, "scores": {"mAP": value}} for i, value in enumerate(values)],
            "fixed_runs": [{"seed": i, "scores": {"mAP": value + 5}} for i, value in enumerate(values)],
        }
        for key, values in scores.items()
    ]


class Choices(frozen_tables.ImageIntervals):
    """Scores over choices of images that are given."""

    def __init__(self, **samples: list[float]) -> None:
        self._samples = samples

    def samples(self, runs: Any, name: str) -> np.ndarray:
        return np.mean([self._samples[run["run"][0]] for run in runs], axis=0)


def test_the_interval_over_seeds_is_that_of_the_paired_t_test() -> None:
    a, b = [81.0, 82.5, 80.0, 83.0], [80.0, 82.0, 79.9, 81.0]
    found = frozen_tables.judged(Effect("a beats b", "a", "b"), rows_of(a=a, b=b), "mAP", None)
    expected = ttest_rel(a, b).confidence_interval(0.95)
    assert found["interval_seeds"] == pytest.approx([expected.low, expected.high])
    assert found["difference"] == pytest.approx(np.mean(a) - np.mean(b))
    assert found["fixed_difference"] == pytest.approx(np.mean(a) - np.mean(b))


@pytest.mark.parametrize(
    ("over_images", "verdict"), [([0.5, 1.0, 1.5], "appears"), ([-0.5, 1.0, 1.5], "unclear"), (None, "appears")]
)
def test_an_effect_must_hold_over_seeds_and_over_images(over_images: list[float] | None, verdict: str) -> None:
    intervals = None if over_images is None else Choices(a=over_images, b=[0.0] * 3)
    rows = rows_of(a=[81.0, 82.1, 80.0], b=[80.0, 81.0, 79.1])
    found = frozen_tables.judged(Effect("a beats b", "a", "b"), rows, "mAP", intervals)
    assert found["verdict"] == verdict
    if over_images:
        back = frozen_tables.judged(Effect("b beats a", "b", "a"), rows, "mAP", intervals)
        assert back["verdict"] == {"appears": "reversed", "unclear": "unclear"}[verdict]
    sentence = frozen_tables.describe_effect(found)
    assert (
        "here +1.0 mAP" in sentence and "over 3 seeds" in sentence and sentence.endswith("one rate for all rows +1.0.")
    )


def test_one_seed_gives_no_verdict() -> None:
    found = frozen_tables.judged(Effect("a beats b", "a", "b"), rows_of(a=[81.0], b=[80.0]), "mAP", None)
    assert found["verdict"] == "one seed" and "chance cannot be excluded" in frozen_tables.describe_effect(found)


def test_scores_over_choices_of_images_are_those_of_the_repeated_images(tmp_path: Path) -> None:
    """The oracle scores the images of each choice, repeated ones several times."""
    generator = np.random.default_rng(0)
    dataset = open_dataset("synthetic:count=20,size=64", "test")
    classes = len(dataset.classes)
    cells = generator.integers(2, size=(20, classes, 2))
    predictions = HeadPredictions(generator.random((20, classes), np.float32), cells, (2, 2))
    frozen_tables.save_predictions(tmp_path / "a.npz", predictions, dataset, sizes := image_sizes(dataset))
    intervals = frozen_tables.ImageIntervals(tmp_path, dataset)
    found = {name: intervals.samples([{"run": "a"}], name) for name in ("mAP", "pointing mAP")}
    chosen = np.random.default_rng(0).integers(20, size=(400, 20))
    boxes, points = boxes_of(dataset), predictions.points(sizes)
    for sample in (0, 7, 399):
        rows = np.sort(chosen[sample])
        expected = np.nanmean(average_precision(predictions.probabilities[rows], dataset.labels[rows]))
        assert found["mAP"][sample] == pytest.approx(100 * expected)
        parts = [[part[row] for row in rows] for part in boxes]
        expected = np.nanmean(pointing_average_precision(points[rows], predictions.probabilities[rows], *parts))
        assert found["pointing mAP"][sample] == pytest.approx(100 * expected)


def test_a_diverged_rate_is_never_chosen() -> None:
    assert frozen.best_rate({0.1: [80.0, 82.0], 0.2: [83.0, 81.0], 0.4: [99.0, float("nan")]}, "a") == 0.2
    with pytest.raises(WildcatError, match=r"a diverged at every rate \(0.1\)"):
        frozen.best_rate({0.1: [float("nan")]}, "a")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"val_fraction": 0.1}, "val_fraction must be 0.0 with frozen"),
        ({"mirror": True}, "mirror must be False with frozen"),
        ({"score_sizes": [64, 96]}, r"score_sizes must be \[64\] with frozen"),
        ({"fit_head": True}, "fit_head must be False with frozen"),
    ],
)
def test_settings_that_frozen_features_do_not_allow(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(WildcatError, match=message):
        frozen.frozen_recipe(recipe(tmp_path, **changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of three experiments over two seeds."""
    out = tmp_path_factory.mktemp("frozen")
    known = experiments(maps=(1, 2), alphas=(0.0, 0.7, 1.0))
    chosen = [known[name] for name in ("table5", "table6-rate", "figure5")]
    choice = frozen.RateChoice((0.1, 0.8))
    frozen.reproduce_frozen(chosen, recipe(out / "cache"), out / "pages", [0, 1], "wildcat reproduce ...", choice)
    return out / "pages"


@pytest.mark.slow
def test_each_row_has_its_rate_and_both_columns(folder: Path) -> None:
    values = json.loads((folder / "table5.json").read_text())
    rates = json.loads((folder / "rates.json").read_text())
    for row in values["rows"]:
        means = {float(rate): np.mean(scores) for rate, scores in row["held_out"].items()}
        assert row["rate"] == max(means, key=lambda rate: means[rate]) and set(means) == {0.1, 0.8}
        kept = {round(score, 3) for score in rates.values()}
        assert kept >= {score for scores in row["held_out"].values() for score in scores}
        assert [run["rate"] for run in row["runs"]] == [row["rate"]] * 2
        assert [run["rate"] for run in row["fixed_runs"]] == [0.1] * 2
        if row["rate"] == 0.1:
            assert row["runs"] == row["fixed_runs"]
    page = (folder / "table5.md").read_text()
    assert "own rate | here, mAP | at rate 0.1, mAP | seeds |" in page and "start from zeros" in page
    assert "(end of the grid)" in page  # a grid of two rates has nothing else
    with (folder / "table5.csv").open() as file:
        assert len([*csv.DictReader(file)]) == 8  # two rows, two seeds, two rates
    for row in json.loads((folder / "table6-rate.json").read_text())["rows"]:
        assert row["fixed_rate"] == pytest.approx(0.1 * row["x"])
    assert "at the rate of its label, mAP" in (folder / "table6-rate.md").read_text()
    labels = {text.text for text in ElementTree.parse(folder / "figure5.svg").iter("{http://www.w3.org/2000/svg}text")}
    assert {"each seed", "mean ± deviation", "all at rate 0.1"} <= labels


@pytest.mark.slow
def test_finished_heads_are_not_trained_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stopped command continues where it was; test images are scored once for each head."""
    known = experiments(maps=(1, 2))
    before = {file: file.stat().st_mtime_ns for file in (folder / "heads").iterdir()}
    trained: list[str] = []
    real = frozen.train_heads

    def spy(features: Any, dataset: Any, configs: Any, **options: Any) -> Any:
        trained.extend(run_name(config) for config in configs)
        return real(features, dataset, configs, **options)

    for module in (frozen, head_scores):  # for the test images, and to choose rates
        monkeypatch.setattr(module, "train_heads", spy)
    settings = recipe(folder.parent / "cache")
    choice = frozen.RateChoice((0.1, 0.8))
    frozen.reproduce_frozen([known["table5"]], settings, folder, [0, 1], "wildcat reproduce ...", choice)
    assert trained == []
    lost = folder / "heads" / f"{json.loads((folder / 'table5.json').read_text())['rows'][0]['runs'][0]['run']}.json"
    lost.unlink()
    frozen.reproduce_frozen([known["table5"]], settings, folder, [0, 1], "w", choice)
    assert trained == [lost.stem]
    assert all(file.stat().st_mtime_ns == time for file, time in before.items() if file.stem != lost.stem)
    with pytest.raises(WildcatError, match=r"holds experiments with lr 0\.1, not 0\.3"):
        other = recipe(folder.parent / "cache", lr=0.3)
        frozen.reproduce_frozen([known["table5"]], other, folder, [0], "w", choice)


@pytest.mark.slow
def test_the_ledger_shows_the_record(folder: Path, tmp_path: Path) -> None:
    written = reproduced.keep(folder, tmp_path, "abc", {"cores": 2, "cpu": "some"})
    assert {"table5-synthetic-timm-test_resnet-64-frozen.json"} <= {file.name for file in written}
    for drawing in tmp_path.glob("*.svg"):  # the ledger links to drawings beside it
        drawing.unlink()
    text = reproduced.section(tmp_path)
    assert "frozen" in text and "own rate" in text and "commit abc" in text


def test_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    settings = [*flags(**FROZEN), "--out", str(tmp_path / "out")]
    assert main(["reproduce", "table5", "table7", *settings, "--dry-run", "--rates", "0.1,0.2"]) == 0
    assert "5 settings; 20 heads of 2 epochs choose learning rates, then at most 100" in capsys.readouterr().out
    for words, message in {
        ("table9",): "table9 scores masks, which frozen features do not give",
        ("table5", "--rates", "0,1"): "--rates must be numbers above 0; got 0",
        ("table5", "--held-out", "1"): "--held-out must be a share between 0 and 1; got 1",
        ("table5", "--scales", "64,96"): "leave out --scales",
        ("table5", "--no-frozen", "--rates", "1"): "--rates is for --frozen",
    }.items():
        assert main(["reproduce", words[0], *settings, *words[1:]]) == 2
        assert message in capsys.readouterr().err
