"""The report of a run: the contents of the page, and the page in a browser."""

import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.apps.browser import DESKTOP, PHONE, chromium, page
from tests.tiny_runs import ColourModel, spots, tiny
from wildcat.apps.report import contents
from wildcat.apps.report.build import render_page
from wildcat.apps.report.charts import nice_ticks, precision_recall_panel, whole_ticks
from wildcat.apps.report.selection import Choice, best_predictions, failures, is_predicted
from wildcat.cli import main
from wildcat.data import Dataset, Sample
from wildcat.evaluation.scoring import ScoreAccumulator, build_results, collect
from wildcat.metrics import ClassificationAccumulator
from wildcat.prediction.predictor import Part, Predictor
from wildcat.runs.folder import Run
from wildcat.runs.settings import InferenceSettings

NASTY = "<script>alert('x')</script> & \"blue\""
CLASSES = ("red", "green", NASTY)
SIDE = 96
SECRET = "/home/someone/private"


class Spots(Dataset):
    """Bright spots: the model recognizes their colours; some of the labels and boxes are of something else."""

    def __init__(self, multi_label: bool = True) -> None:
        scenes: list[tuple[dict[int, tuple[float, float]], set[int], tuple[float, float] | None]] = [
            ({0: (24, 24)}, {0}, (24, 24)),  # correct
            ({0: (72, 24)}, {0}, (24, 72)),  # a wrong point: its box is elsewhere
            ({}, {0}, (48, 48)),  # missed
            ({0: (48, 72)}, {1}, (48, 72)),  # a false positive of red, and green is missed
            ({1: (24, 48)}, {1}, (24, 48)),
            ({2: (48, 48)}, {2}, (48, 48)),
        ]
        self.scenes = [scene for scene, _, _ in scenes]
        samples = []
        for number, (_, labels, centre) in enumerate(scenes):
            row = np.array([1 if c in labels else -1 for c in range(3)], np.int8)
            x, y = centre or (0, 0)
            boxes = np.array([[x - 8, y - 8, x + 8, y + 8]] * len(labels), np.float32)
            samples.append(
                Sample(
                    f"{SECRET}/5.png" if number == 5 else f"<b>{number}</b>.png",
                    None,
                    row,
                    boxes,
                    np.array(sorted(labels)),
                    np.zeros(len(labels), bool),
                )
            )
        super().__init__(f"tags:{SECRET}/spots.csv", "test", CLASSES, samples, multi_label=multi_label)

    def image(self, index: int, draft_size: int | None = None) -> Any:
        from PIL import Image

        return Image.fromarray(spots(SIDE, SIDE, self.scenes[self.samples_numbers[index]], 0.15))

    @property
    def samples_numbers(self) -> list[int]:
        return [int(re.findall(r"\d+", sample.name)[0]) for sample in self.samples]


def predictor(multi_label: bool = True) -> Predictor:
    model = ColourModel()
    model.cell = 16
    return Predictor(Part(model, InferenceSettings(CLASSES, multi_label, (SIDE,), (SIDE,))))


def observed(multi_label: bool = True) -> tuple[Predictor, ScoreAccumulator]:
    reader = predictor(multi_label)
    return reader, collect(reader, Spots(multi_label))["model"]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    run = tmp_path_factory.mktemp("run")
    (run / "metrics.csv").write_text(
        "epoch,learning_rate,train_loss,val_map\n1,0.1,0.7,50\n2,0.05,0.4,\n3,0.0,0.3,71.5\n"
    )
    reader, score = observed()
    results = build_results(reader, {"model": score}, 1.0)
    config = replace(tiny(), data=f"tags:{SECRET}/spots.csv", weights=f"{SECRET}/backbone.pt")
    info = Run(config, CLASSES, True, (0.5,) * 3, (0.5,) * 3, 6)
    return render_page(NASTY, info, reader, score, results, run, ["A note."])


def test_choices() -> None:
    _, score = observed()
    chosen = [(choice.index, choice.kind) for choice in failures(score, 0, 9)]
    assert chosen == [(2, "missed"), (3, "false positive"), (1, "wrong point")]
    assert [choice.index for choice in failures(score, 0, 1)] == [2]
    assert [choice.index for choice in best_predictions(score, 0, 9)] == [0]
    assert [(choice.index, choice.kind) for choice in failures(score, 1, 9)] == [(3, "missed")]
    assert failures(score, 2, 9) == []
    (best,) = best_predictions(score, 2, 9)
    assert best == Choice(5, 2, "correct", pytest.approx(float(score.probabilities[5, 2])))


def test_choices_where_each_image_has_one_class() -> None:
    """The most probable class is predicted whatever its probability; image 2 is black and so of the first class."""
    _, score = observed(multi_label=False)
    assert [(choice.index, choice.kind) for choice in failures(score, 1, 9)] == [(3, "missed")]
    assert [(choice.index, choice.kind) for choice in failures(score, 0, 9)] == [
        (3, "false positive"),
        (1, "wrong point"),
        (2, "wrong point"),
    ]


def test_the_page_where_each_image_has_one_class(tmp_path: Path) -> None:
    reader, score = observed(multi_label=False)
    results = build_results(reader, {"model": score}, 1.0)
    info = Run(replace(tiny(), data="spots"), CLASSES, False, (0.5,) * 3, (0.5,) * 3, 6)
    page_text = render_page("one class", info, reader, score, results, tmp_path)
    assert "Confusion matrix" in page_text and "<h2>Training" not in page_text
    cards = re.findall(r'<div class="score"><dt>(.*?)</dt>', page_text)
    assert cards == ["accuracy", "mean class accuracy", "pointing mAP", "pointing accuracy"]


def test_the_page_says_why_the_maps_of_a_class_are_alike_or_differ(text: str, tmp_path: Path) -> None:
    assert 0 < text.count("they differ only by their random initial filters") <= len(CLASSES)
    reader, score = observed()
    results = build_results(reader, {"model": score}, 1.0)
    config = replace(tiny(class_pooling="lse"), data="spots")
    page_text = render_page("", Run(config, CLASSES, True, (0.5,) * 3, (0.5,) * 3, 6), reader, score, results, tmp_path)
    assert "pooled from them by lse." in page_text and "random initial filters" not in page_text


class Checker(HTMLParser):
    """Every element is closed, images have words, ids are unique."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if "id" in values:
            self.ids.append(values["id"] or "")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page(text: str) -> None:
    checker = Checker()
    checker.feed(text)
    assert checker.open == [] and len(set(checker.ids)) == len(checker.ids)
    images = [values for tag, values in checker.tags if tag == "img"]
    assert len(images) >= 8
    assert all(values["alt"] and (values["src"] or "").startswith("data:image/jpeg;base64,") for values in images)
    charts = [values for tag, values in checker.tags if tag == "svg"]
    assert len(charts) == 3 + 3 and all(values["aria-label"] for values in charts)
    links = {values["href"] for tag, values in checker.tags if tag == "a"}
    assert {(link or "")[1:] for link in links} <= set(checker.ids)
    assert "There are only 6 images: a single one changes the accuracy by 17 points." in text
    assert "the true boxes in white" in text and "images of tags:spots.csv, split test" in text
    assert "5.png: heatmap" in text and SECRET not in text and "<dd>backbone.pt</dd>" in text  # reports are shared
    assert "A note." in text and "http" not in text.replace("http-equiv", "")
    assert "<script>alert" not in text and "<b>1</b>" not in text  # names are text
    assert text.count("<script>") == 1


def test_the_weakest_curve_comes_first() -> None:
    reader = predictor()
    score = collect(reader, Spots().subset([0, 1, 2, 0, 1, 3, 3, 4, 5]))["model"]
    # The worst probabilities for red, which is in five images, the best for green, which is in three.
    probabilities = score.probabilities
    probabilities[:, 0] = (score.dataset.labels[:, 0] == -1) / 2
    probabilities[:, 1] = (score.dataset.labels[:, 1] == 1) / 2
    score.classification = ClassificationAccumulator(CLASSES)
    score.classification.update(probabilities, score.dataset.labels)
    shown = contents.precision_recall_curves(score)
    assert shown[0]["name"] == "red" and shown[0]["svg"].count("average precision") == 1
    precisions = [float(curve["score"]) for curve in shown]
    assert precisions == sorted(precisions) and precisions[0] < 60 < precisions[-1] == 100
    counts = {curve["name"]: (curve["count"], curve["few"]) for curve in shown}
    assert counts == {"red": ("5 images", False), "green": ("3 images", True), NASTY: ("1 image", True)}


@pytest.mark.slow
def test_the_command_and_big_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from wildcat.training.launch import train

    run = train(tiny(epochs=1, data="synthetic:count=8,size=64"), tmp_path / "run")
    assert main(["report", str(run), "--images", "5", "--out", str(tmp_path / "a page.html")]) == 0
    message = capsys.readouterr()
    assert "a page.html" in message.out and "predicting 5 of 8 images; --images N" in message.err
    written = (tmp_path / "a page.html").read_text()
    assert "All scores are of 5 of 8 images" in written
    # If results.json has the scores of all images, they are shown.
    assert main(["evaluate", str(run), "--data", "synthetic:count=8,size=64"]) == 0
    assert main(["report", str(run), "--images", "5", "--title", "Synthetic & scored"]) == 0
    written = (run / "report.html").read_text()
    assert "<h1>Synthetic &amp; scored</h1>" in written
    results = json.loads((run / "results.json").read_text())
    assert f"{results['classification']['map_area']:.1f}" in written and "curves and images are of 5," in written
    for arguments, message in (
        (["report", str(run), "--images", "0"], "at least 1 image"),
        (["report", str(tmp_path)], "not a run's folder"),
        (["report", str(run), "--split", "tset"], "tset"),
    ):
        capsys.readouterr()
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("low", "high"), [(0, 0), (3, 3), (-1, 1), (0.0364, 0.2193), (88.2, 90.1), (0, 1e-7), (1e6, 9e6)]
)
def test_ticks_enclose_the_values(low: float, high: float) -> None:
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low <= high <= ticks[-1] and 2 <= len(ticks) <= 7
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


@pytest.mark.slow
def test_in_a_browser(text: str, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(text, encoding="utf-8")
    with chromium() as browser:
        for size, dark in ((DESKTOP, False), (DESKTOP, True), (PHONE, False)):
            with page(browser, size, dark=dark, offline=True) as opened:
                logged: list[str] = []
                opened.on("console", lambda message, logged=logged: logged.append(message.text))
                opened.goto(file.as_uri())
                assert opened.title().startswith(NASTY)
                ground = opened.evaluate("getComputedStyle(document.body).backgroundColor")
                assert (ground == "rgb(21, 22, 27)") is dark
                # Nothing but tables and strips scrolls to the side.
                assert opened.evaluate("document.documentElement.scrollWidth") <= size[0]
                names = "[...document.querySelectorAll('.sortable tbody tr')].map(row => row.cells[0].textContent)"
                worst_first = opened.evaluate(names)
                assert set(worst_first) == set(CLASSES)
                button = opened.get_by_role("button", name="Class", exact=True)
                button.click()
                assert opened.evaluate(names) == sorted(CLASSES)
                button.focus()
                opened.keyboard.press("Enter")  # by keyboard, and the other way round
                assert opened.evaluate(names) == sorted(CLASSES, reverse=True)
                assert opened.locator("th[aria-sort]").count() == 1
                opened.get_by_role("button", name="AP", exact=True).click()
                assert opened.evaluate(names)[-1] == worst_first[0]
                opened.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")
                opened.wait_for_function(
                    "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
                )
                assert (logged, opened.errors, opened.outside) == ([], [], [])


@pytest.mark.parametrize("steps", [1, 2, 6, 7, 12, 13, 60, 100])
def test_labels_of_epochs_do_not_overlap(steps: int) -> None:
    ticks = whole_ticks(steps)
    assert ticks[-1] == steps and len(ticks) <= 6
    assert all(after - before >= 0.75 * (ticks[1] - ticks[0]) for before, after in itertools.pairwise(ticks))


def test_a_precision_recall_curve_ends_at_the_last_true_positive() -> None:
    recall, precision = np.array([0.5, 1.0]), np.array([1.0, 1.0])
    longer = np.append(recall, 1.0), np.append(precision, 0.25)
    assert precision_recall_panel("cat", *longer, "") == precision_recall_panel("cat", recall, precision, "")


def test_a_probability_of_exactly_one_half_counts_as_predicted() -> None:
    probabilities = np.array([[0.5, 0.4999], [0.6, 0.5]], np.float32)
    score = SimpleNamespace(probabilities=probabilities, dataset=SimpleNamespace(multi_label=True))
    assert is_predicted(score).tolist() == [[True, False], [True, True]]  # type: ignore[arg-type]
