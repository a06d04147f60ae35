"""Predicts the same images with several runs, and compares what they say."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from wildcat.data import Dataset, Sample
from wildcat.data.registry import without_path
from wildcat.errors import WildcatError, shorten
from wildcat.evaluation.comparison import Comparison, ScoredImages, compare
from wildcat.evaluation.scored_data import choose_scored_data, training_overlap
from wildcat.evaluation.scoring import open_scored, scorable_tasks
from wildcat.export.network import Runtime
from wildcat.metrics.pointing import TOLERANCE, points_in_boxes
from wildcat.prediction.items import dataset_items
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor
from wildcat.runs.image_record import ImageRecord
from wildcat.system.devices import AUTO, Precision

logger = logging.getLogger(__name__)


def compare_runs(
    runs: Sequence[str],
    data: str | None = None,
    *,
    split: str | None = None,
    most: int = 20,
    device: str = AUTO,
    precision: Precision = "fp32",
    runtime: Runtime = "torch",
    on_bad_image: str = "error",
) -> tuple[Comparison, Dataset]:
    """Compare runs on the images on which the first one is scored.

    Classes that a run lacks are left out, and so are images of classes that it lacks where each image has one class.

    Args:
        runs: two or more run directories, names on the hub, or exported files; differences are to the first one.
        data: the dataset, kind:path; unless given, the one of the first run's results.json or of its training.
        split: the split; chosen as ``wildcat evaluate`` does unless given.
        most: how many images on which they disagree are named.
        device: where the networks compute.
        precision: of the backbones.
        runtime: what the networks run in.
        on_bad_image: "error", "skip" or "partial", as for :func:`wildcat.evaluation.scoring.open_scored`.

    Returns:
        The comparison, and the images that were compared, with the classes that all runs have.

    Raises:
        WildcatError: for fewer than two runs, runs without a class in common, or images that cannot be read.

    >>> comparison, images = compare_runs(["runs/a", "runs/b"], "folder:my_images")  # doctest: +SKIP
    >>> comparison.metrics[0].differences  # doctest: +SKIP
    [0.0, 1.4]
    """
    if len(runs) < 2:
        raise WildcatError(f"a comparison needs at least two runs; got {len(runs)}")
    names = _short_names(runs)
    predictors = [load(run, device=device, precision=precision, runtime=runtime) for run in runs]
    classes = [name for name in predictors[0].settings.classes if all(name in p.settings.classes for p in predictors)]
    if not classes:
        raise WildcatError(f"{shorten(names)} have no class in common")
    chosen = choose_scored_data(predictors[0].run, data, split)
    datasets = [open_scored(chosen.data, chosen.split, p.settings.classes, on_bad_image) for p in predictors]
    names_of = [{sample.name for sample in dataset.samples} for dataset in datasets]
    common = names_of[0].intersection(*names_of[1:])
    notes = []
    left_out = [
        name for name in dict.fromkeys(c for p in predictors for c in p.settings.classes) if name not in classes
    ]
    if left_out:
        notes.append(f"{len(left_out)} classes are not in all runs and are left out: {shorten(left_out)}")
    scored, kept = [], None
    for name, predictor, dataset in zip(names, predictors, datasets, strict=True):
        part = dataset.subset([i for i, sample in enumerate(dataset.samples) if sample.name in common])
        if predictor.run is not None:
            overlap = training_overlap(predictor.run, part, ImageRecord.of(part))
            notes += [f"{name}: {warning}" for warning in overlap]
        scored.append(_scored(name, predictor, part, classes))
        kept = kept or part
    if kept is None:
        raise WildcatError("no image is scored by all of the runs")
    columns = [kept.classes.index(name) for name in classes]
    labels: npt.NDArray[np.int8] = kept.labels[:, columns]
    multi_label = kept.multi_label
    rows = np.arange(len(labels))
    if not multi_label and len(columns) < len(kept.classes):
        rows = np.flatnonzero((labels == 1).sum(axis=1) == 1)
        scored = [_rows(each, rows) for each in scored]
        kept, labels = kept.subset(rows.tolist()), labels[rows]
    comparison = compare(
        scored,
        labels,
        classes,
        [sample.name for sample in kept.samples],
        multi_label=multi_label,
        data=f"{without_path(chosen.data)} {chosen.split}",
        most=most,
        notes=notes,
    )
    return comparison, kept


def _short_names(runs: Sequence[str]) -> list[str]:
    """The last parts of paths if they differ, else the paths."""
    last = [Path(run).name for run in runs]
    names = last if len(set(last)) == len(last) else list(runs)
    if len(set(names)) < len(names):
        raise WildcatError(f"a run is given twice: {shorten([name for name in names if names.count(name) > 1])}")
    return names


def _rows(scored: ScoredImages, rows: npt.NDArray[np.int64]) -> ScoredImages:
    return ScoredImages(scored.name, scored.probabilities[rows], None if scored.hits is None else scored.hits[rows])


def _scored(name: str, predictor: Predictor, dataset: Dataset, classes: Sequence[str]) -> ScoredImages:
    """Probabilities, and whether points are right, of the images for some of the classes of a model."""
    has_points = "pointing" in scorable_tasks(dataset)
    columns = [dataset.classes.index(label) for label in classes]
    probabilities, hits = [], []
    predictions = predictor.stream(dataset_items(dataset), multi_maps=False, maps=has_points)
    bar = tqdm(predictions, f"predicting with {name}", len(dataset), unit=" images", disable=None)
    for sample, prediction in zip(dataset.samples, bar, strict=True):
        probabilities.append(prediction.probabilities[columns])
        if has_points:
            hits.append([_hit(sample, column, prediction.point_array[column]) for column in columns])
    return ScoredImages(name, np.stack(probabilities), np.array(hits, np.float32) if has_points else None)


def _hit(sample: Sample, label: int, point: npt.NDArray[np.float32]) -> float:
    """1 if a point lies in a box of its class, 0 if in none, NaN if there is no box."""
    if sample.boxes is None or sample.box_classes is None:
        return float("nan")
    boxes = sample.boxes[sample.box_classes == label]
    return float(points_in_boxes(point, boxes, TOLERANCE).any()) if len(boxes) else float("nan")
