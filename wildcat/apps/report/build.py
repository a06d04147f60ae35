"""One HTML page about a run: scores, training curves, and the images in which the model fails. It is a single file."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from tqdm import tqdm

from wildcat._version import __version__
from wildcat.apps.report import contents
from wildcat.apps.report.cards import Shown, card, map_strip
from wildcat.apps.report.selection import Choice, best_predictions, failures
from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.data.registry import without_path
from wildcat.errors import WildcatError
from wildcat.evaluation.scored_data import choose_scored_data
from wildcat.evaluation.scoring import ScoreAccumulator, build_results, collect, open_scored, scorable_tasks
from wildcat.export.network import Runtime
from wildcat.metrics.metric_table import not_scored
from wildcat.prediction.items import dataset_items
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor
from wildcat.runs.folder import Run, read_run
from wildcat.runs.kept_results import find_results
from wildcat.runs.results import RESULTS, Results, describe_scored, read_results
from wildcat.system.devices import AUTO, Precision
from wildcat.system.files import write_atomically

MAX_IMAGES = 1000  # images of a dataset that are predicted for curves and examples, unless another number is given
MAX_CLASSES = 40  # classes with example images
MAX_BYTES = 7_000_000  # of example images; the page stays below 10 MB
FEW_IMAGES = 50  # below this number, the page warns that the scores are not reliable
EXAMPLES = 4  # failures, and best predictions, of each class

logger = logging.getLogger(__name__)


def write_report(
    run: Path,
    out: Path,
    *,
    data: str | None = None,
    split: str | None = None,
    title: str | None = None,
    max_images: int = MAX_IMAGES,
    device: str = AUTO,
    precision: Precision = "fp32",
    runtime: Runtime = "torch",
) -> None:
    """Write a page about a run.

    The scores are those of ``wildcat evaluate``, from the run's results.json, if it has some of the same dataset, split
    and model; otherwise the images that are predicted for the page are scored.

    Args:
        run: the run directory, of one scale.
        out: the HTML file to write.
        data: dataset, kind:path; that of results.json, or else of the training, unless given.
        split: that of results.json, or else the dataset's usual scoring split, unless given.
        title: heading of the page; the name of the run directory unless given.
        max_images: the largest number of images that are predicted, evenly spaced over the split.
        device: where the network computes, as for :func:`wildcat.load`.
        precision: of the backbone, as for :func:`wildcat.load`.
        runtime: what the network runs in, as for :func:`wildcat.load`.

    Raises:
        WildcatError: if the folder is not a run directory, a file in it is damaged, or the dataset has other classes.

    >>> write_report(Path("runs/mine"), Path("report.html"), data="folder:my_images")  # doctest: +SKIP
    """
    if max_images < 1:
        raise WildcatError(f"a report needs at least 1 image; got {max_images}")
    if not run.is_dir():  # names on the hub are not allowed: they have no metrics.csv
        raise WildcatError(f"{run} is not a run's folder")
    predictor = load(run, device=device, precision=precision, runtime=runtime)
    _ = predictor.single  # a report is about one model: raises for a run at several scales
    info = read_run(run)
    earlier = read_results(run / RESULTS) if (run / RESULTS).is_file() else None
    chosen = choose_scored_data(run, data, split)
    dataset = open_scored(chosen.data, chosen.split, info.classes, info.config.on_bad_image)
    total = len(dataset)
    if total > max_images:
        dataset = dataset.subset(np.linspace(0, total - 1, max_images).round().astype(int).tolist())
    among = f" of {total:,}" if total > len(dataset) else ""
    logger.info("predicting %s%s images; --images N predicts N of them, in less time", f"{len(dataset):,}", among)
    start = time.perf_counter()
    scores = collect(predictor, dataset, scorable_tasks(dataset))
    notes = []
    kept = None if earlier is None else find_results(earlier, chosen.data, chosen.split, chosen.part)
    if kept is not None and kept.model not in ("", predictor.model_fingerprint):
        notes.append("results.json is of another model: the scores are those of the images predicted for this page.")
        kept = None
    if kept is not None:
        results = kept
        if results.images != len(dataset):
            notes.append(
                f"Scores and table are of {results.images:,} images (results.json); curves and images are of "
                f"{len(dataset):,}, evenly spaced over the split."
            )
    else:
        results = replace(build_results(predictor, scores, time.perf_counter() - start), part=chosen.part)
        if total > len(dataset):
            notes.append(f"All scores are of {len(dataset):,} of {total:,} images, evenly spaced over the split.")
    heading = title or run.resolve().name
    page = render_page(heading, info, predictor, scores[predictor.chosen], results, run, notes)
    write_atomically(out, page.encode("utf-8", "backslashreplace"))  # names that are not UTF-8


@dataclass
class _ClassPart:
    """The part of the page about one class."""

    label: int
    name: str
    anchor: str
    tally: str
    failures: list[Shown] = field(default_factory=list)
    best: list[Shown] = field(default_factory=list)
    maps: list[Shown] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        return sum(len(image.uri) for image in (*self.failures, *self.best, *self.maps))


def render_page(
    title: str,
    info: Run,
    predictor: Predictor,
    score: ScoreAccumulator,
    results: Results,
    run: Path,
    notes: Sequence[str] = (),
    per_class: int = EXAMPLES,
) -> str:
    """The HTML text of the page.

    Args:
        title: heading of the page.
        info: description of the run.
        predictor: predicts the example images once more, with their multi-maps.
        score: the predictions for a dataset.
        results: scores in per cent.
        run: run directory with ``metrics.csv``.
        notes: remarks about the scores.
        per_class: the largest number of failures, and of best predictions, of a class.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    dataset = score.dataset
    table, order = contents.class_table(results, info.classes)
    classes, left_out = _class_parts(predictor, score, order, per_class)
    anchors = {part.label: part.anchor for part in classes}
    for row in table["rows"]:
        row["anchor"] = anchors.get(row["label"], "")
    curves = contents.precision_recall_curves(score)
    model = f"{info.config.backbone} with {info.config.num_maps} maps per class"
    scored = describe_scored(results.images, without_path(dataset.spec), dataset.split, results.part)
    notes = [*notes, *(f"{task}: {text}." for task in results.tasks if (text := not_scored(results, task)))]
    notes += [f"{warning.partition(': ')[0]}." for warning in results.warnings]  # without the names of images
    if 0 < results.images < FEW_IMAGES:
        points = 100 / results.images
        few = f"There are only {results.images} images: a single one changes the accuracy by {points:.0f} points."
        notes = [*notes, few]
    changed, every = contents.settings(info.config)
    folder = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html").render(
        title=title,
        lead=f"{model}, trained on {info.images:,} images with image-level labels only. Scored on {scored}.",
        scores=contents.main_scores(results),
        notes=notes,
        training=contents.learning_curves(run / "metrics.csv"),
        table=table,
        curves=curves,
        curves_about=_about_curves(curves, dataset),
        matrix=contents.matrix(score),
        classes=classes,
        images_about=_about_images(dataset, len(classes), left_out),
        maps_about=_about_maps(info.config),
        changed=changed,
        all=every,
        decisions=results.pointing.decisions if results.pointing is not None else (),
        foot=f"wildcat {__version__}; {predictor.computation}. This page is a single file and loads nothing from the "
        "network.",
        css=Markup((folder / "page.css").read_text(encoding="utf-8")),
        js=Markup((folder / "page.js").read_text(encoding="utf-8")),
    )


def _about_curves(curves: Sequence[dict[str, Any]], dataset: Dataset) -> str:
    """The text above the precision-recall curves."""
    text = (
        "Precision (vertical) over recall (horizontal), each from 0 to 1, with the average precision in per cent and "
        f"the number of images, out of {len(dataset):,}, that hold the class. Sorted from the lowest average precision"
    )
    count = len(dataset.classes)
    text += f"; {len(curves)} of {count} classes." if len(curves) < count else "."
    if any(curve["few"] for curve in curves):
        text += f" Grey curves are of fewer than {contents.FEW_POSITIVES} images and not reliable."
    return text


def _about_images(dataset: Dataset, shown: int, left_out: int) -> str:
    """The text above the example images."""
    text = (
        "Classes are sorted from the lowest score, and failures come before the best predictions. Each image shows the "
        "heatmap of the class, the predicted point, "
    )
    text += "the probability, and the true boxes in white." if dataset.has_boxes else "and the probability."
    if left_out:
        text += f" To limit the size of the page, {shown} of {shown + left_out} classes are shown."
    return text


def _about_maps(config: TrainConfig) -> str:
    """The text below the maps of a class: why they are alike, or differ."""
    if config.class_pooling != "mean":
        return f"At each position the class map is pooled from them by {config.class_pooling}."
    if config.fit_maps:
        return "The class map is their mean. They were fitted to the kinds of places where the class has its evidence."
    return (
        "The class map is their mean, so that training gave each of them the same gradient: they differ only by their "
        "random initial filters, not because they learned different parts."
    )


def _class_parts(
    predictor: Predictor, score: ScoreAccumulator, order: Sequence[int], per_class: int
) -> tuple[list[_ClassPart], int]:
    """The classes with their example images, in the given order; and the number of classes that were left out."""
    dataset = score.dataset
    labels = dataset.labels
    known = [c for c in order if (labels[:, c] == 1).any()]
    parts: dict[int, _ClassPart] = {}
    requests: dict[int, list[tuple[Choice, bool]]] = {}  # image -> choices, and whether its multi-maps are shown
    for c in known[:MAX_CLASSES]:
        bad, good = failures(score, c, per_class), best_predictions(score, c, per_class)
        count = int((labels[:, c] == 1).sum())
        tally = f"in {count:,} of {len(dataset):,} images"
        parts[c] = _ClassPart(c, dataset.classes[c], f"class-{c}", tally)
        for choice in (*bad, *good):
            requests.setdefault(choice.index, []).append((choice, choice in good[:1]))
    indices = sorted(requests)
    stream = predictor.stream(dataset_items(dataset.subset(indices)))
    for index, prediction in zip(indices, tqdm(stream, "images", len(indices), disable=None), strict=True):
        for choice, is_best in requests[index]:
            part = parts[choice.label]
            shown = card(choice, prediction, dataset.samples[index])
            (part.best if choice.kind == "correct" else part.failures).append(shown)
            if is_best:
                part.maps = map_strip(choice, prediction)
    chosen: list[_ClassPart] = []
    for part in parts.values():
        part.failures.sort(key=_rank)
        part.best.sort(key=_rank)
        if sum(each.bytes for each in (*chosen, part)) > MAX_BYTES:
            break
        chosen.append(part)
    return chosen, len(known) - len(chosen)


def _rank(image: Shown) -> tuple[int, float]:
    """Sort key: by kind, then missed images from the lowest probability and all others from the highest."""
    kinds = ("missed", "false positive", "wrong point", "correct")
    score = image.score or 0.0
    return kinds.index(image.kind), score if image.kind == "missed" else -score
