"""One page about a run: its figures, its curves, and the images in which it fails; a file that needs no other."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from tqdm import tqdm

from wildcat._version import __version__
from wildcat.apps.report import contents
from wildcat.apps.report.cards import Shown, card, map_strip
from wildcat.apps.report.selection import Choice, failures, successes
from wildcat.data.registry import without_path
from wildcat.errors import WildcatError
from wildcat.evaluation.results import data_of
from wildcat.evaluation.scoring import ScoreAccumulator, build_results, collect, open_scored, usual_tasks
from wildcat.export.network import Runtime
from wildcat.prediction.items import dataset_items
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor
from wildcat.runs.folder import Run, read_run
from wildcat.system.devices import AUTO
from wildcat.system.files import read_json, write_atomically

MAX_IMAGES = 1000  # of a dataset are read, evenly spread, unless told otherwise
MAX_CLASSES = 40  # have images on the page
MAX_BYTES = 7_000_000  # of images; the page stays below 10 MB
FEW = 50  # images, of which figures say little; the page says so
FAILURES, SUCCESSES = 4, 4  # images of a class


def write_report(
    run: Path,
    out: Path,
    *,
    data: str | None = None,
    split: str | None = None,
    title: str | None = None,
    max_images: int = MAX_IMAGES,
    device: str = AUTO,
    runtime: Runtime = "torch",
) -> None:
    """Write the page about a run.

    Figures come from the run's results.json where it is about the same data and split; otherwise the images that are
    read are scored.

    Args:
        run: the run's folder.
        out: the HTML file.
        data: dataset, kind:path; what results.json was measured on, or what the run was trained on, unless given.
        split: the one of results.json, or the dataset's usual scoring split, unless given.
        title: heading of the page; the folder's name unless given.
        max_images: how many images are read for curves and images.
        device: where the network computes, as for :func:`wildcat.load`.
        runtime: what the network runs in, as for :func:`wildcat.load`.

    Raises:
        WildcatError: if the folder is not a run's, or the data are not of its classes.
    """
    if max_images < 1:
        raise WildcatError(f"a report needs at least 1 image; got {max_images}")
    if not run.is_dir():  # no hub is asked: a report is about a run of one's own
        raise WildcatError(f"{run} is not a run's folder")
    predictor = load(run, device=device, runtime=runtime)
    _ = predictor.single  # a report is about one model: raises for a run at several scales
    info = read_run(run)
    kept = read_json(run / "results.json") if (run / "results.json").is_file() else {}
    data, split = data_of(run, data, split)
    dataset = open_scored(data, split, info.classes, info.config.on_bad_image)
    total = len(dataset)
    if total > max_images:
        dataset = dataset.subset(np.linspace(0, total - 1, max_images).round().astype(int).tolist())
    among = f" of {total:,}" if total > len(dataset) else ""
    print(f"reading {len(dataset):,}{among} images; --images N reads N of them, in less time", file=sys.stderr)
    start = time.perf_counter()
    scores = collect(predictor, dataset, usual_tasks(dataset))
    notes = []
    if (kept.get("data"), kept.get("split")) == (data, split):
        results = kept
    else:
        results = build_results(predictor, scores, time.perf_counter() - start)
        if total > len(dataset):
            notes.append(f"All figures are of {len(dataset):,} of {total:,} images, evenly spread over the split.")
    if results is kept and results.get("images") != len(dataset):
        notes.append(
            f"Figures and table are of {results.get('images'):,} images (results.json); curves and images of "
            f"{len(dataset):,}, evenly spread over the split."
        )
    heading = title or run.resolve().name
    page = render_page(heading, info, predictor, scores[predictor.chosen], results, run, notes)
    write_atomically(out, page.encode())


@dataclass
class _ClassPart:
    """A class's part of the page."""

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
    results: dict[str, Any],
    run: Path,
    notes: Sequence[str] = (),
    per_class: int = FAILURES,
) -> str:
    """The page.

    Args:
        title: its heading.
        info: settings of the run.
        predictor: reads the few images that are shown once more, with their maps.
        score: what the model says of the images of a dataset.
        results: figures, as in results.json.
        run: folder with ``metrics.csv``.
        notes: what is to be known of the figures.
        per_class: failures of a class that are shown, and as many of the best.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    dataset = score.dataset
    table, order = contents.class_table(results, info.classes)
    classes, left_out = _class_parts(predictor, score, order, per_class)
    with_images = {part.label: part.anchor for part in classes}
    for row in table["rows"]:
        row["anchor"] = with_images.get(row["label"], "")
    panels = contents.panels(score)
    panels_about = (
        f"Recall to the right, precision upwards, each from 0 to 1; average precision in per cent, and how many of the "
        f"{len(dataset):,} images hold the class. The weakest curve first"
        + (f", {len(panels)} of {len(info.classes)} classes." if len(panels) < len(info.classes) else ".")
    )
    if any(panel["few"] for panel in panels):
        panels_about += f" Grey: of fewer than {contents.FEW_POSITIVES} images a curve says little."
    images_about = (
        "The weakest class first, failures before the best. Each image has the heatmap of the class, the point where "
        "the model sees it most, "
        + ("its probability, and the true boxes in white." if dataset.has_boxes else "and its probability.")
    )
    if left_out:
        images_about += f" {len(classes)} of {len(classes) + left_out} classes, so that the page stays small."
    model = f"{info.config.backbone} with {info.config.num_maps} maps a class"
    scored = f"{results.get('images', len(dataset)):,} images of {without_path(dataset.spec)} ({dataset.split})"
    lead = f"{model}, trained on {info.images:,} images with image labels alone; scored on {scored}."
    count = results.get("images", len(dataset))
    if count < FEW:
        message = f"The figures are of {count} images: a single one is {100 / count:.0f} points of accuracy."
        notes = [*notes, message]
    changed, every = contents.settings(info.config)
    folder = Path(__file__).parent
    environment = Environment(loader=FileSystemLoader(folder), autoescape=True, undefined=StrictUndefined)
    return environment.get_template("page.html").render(
        title=title,
        lead=lead,
        figures=contents.figures(results),
        notes=notes,
        curves=contents.learning_curves(run / "metrics.csv"),
        table=table,
        panels=panels,
        panels_about=panels_about,
        matrix=contents.matrix(score),
        classes=classes,
        images_about=images_about,
        changed=changed,
        all=every,
        decisions=results.get("pointing", {}).get("decisions", []),
        foot=f"wildcat {__version__}. This page is one file and loads nothing from anywhere.",
        css=Markup((folder / "page.css").read_text(encoding="utf-8")),
        js=Markup((folder / "page.js").read_text(encoding="utf-8")),
    )


def _class_parts(
    predictor: Predictor, score: ScoreAccumulator, order: Sequence[int], per_class: int
) -> tuple[list[_ClassPart], int]:
    """Each class with its images, and how many classes were left out."""
    dataset = score.dataset
    labels = dataset.labels
    known = [c for c in order if (labels[:, c] == 1).any()]
    parts: dict[int, _ClassPart] = {}
    requests: dict[int, list[tuple[Choice, bool]]] = {}  # image -> choices, and whether its maps are shown
    for c in known[:MAX_CLASSES]:
        bad, good = failures(score, c, per_class), successes(score, c, per_class)
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
            (part.best if choice.kind == "found" else part.failures).append(shown)
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
    """Failures by kind: those missed from the lowest probability, all others from the highest."""
    kinds = ("missed", "false alarm", "wrong point", "found")
    score = image.score or 0.0
    return kinds.index(image.kind), score if image.kind == "missed" else -score
