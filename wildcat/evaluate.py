"""Scores of a model on a data set: predictor + data + metrics -> results."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from tqdm import tqdm

from wildcat import metrics
from wildcat._version import __version__
from wildcat.data import Dataset, check_dataset, default_splits, open_dataset
from wildcat.errors import WildcatError
from wildcat.predict import Item, Predictor

TASKS = ("classification", "pointing", "segmentation")


def items_of(dataset: Dataset) -> list[Item]:
    """The pictures of a data set, for :meth:`Predictor.stream`."""
    return [
        Item(sample.name, lambda draft_size, index=index: dataset.image(index, draft_size))  # type: ignore[misc]
        for index, sample in enumerate(dataset.samples)
    ]


def with_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """Check that a data set has the model's classes in the model's order.

    Raises:
        WildcatError: naming the first classes that differ.
    """
    if tuple(dataset.classes) != tuple(classes):
        missing = sorted(set(classes) - set(dataset.classes))[:3]
        unknown = sorted(set(dataset.classes) - set(classes))[:3]
        raise WildcatError(
            f"{dataset.spec} has other classes than the model: "
            f"the data set lacks {missing or 'none'}, the model lacks {unknown or 'none'}"
            + ("" if missing or unknown else "; the order differs")
        )
    return dataset


def evaluate(
    predictor: Predictor,
    data: str,
    *,
    split: str | None = None,
    tasks: Sequence[str] = ("classification", "pointing"),
    on_bad_image: str = "error",
) -> dict[str, Any]:
    """Score a model.

    Args:
        predictor: from :func:`wildcat.load`.
        data: a data set, kind:path.
        split: the data set's usual scoring split unless given.
        tasks: out of classification, pointing, segmentation; those that the data has no annotation for are left out
            with a note.
        on_bad_image: "error" or "skip".

    Returns:
        The content of results.json; scores in per cent.

    Raises:
        WildcatError: for an unknown task, or other classes than the model's.
    """
    for task in tasks:
        if task not in TASKS:
            raise WildcatError(f"unknown task {task!r}; known: {', '.join(TASKS)}")
    start = time.perf_counter()
    dataset = open_dataset(data, split or default_splits(data)[1])
    with_classes(dataset, predictor.settings.classes)
    dataset, report = check_dataset(dataset, on_bad_image=on_bad_image, decode=on_bad_image == "skip")
    if report.has_bad_images:
        print(report, file=sys.stderr)
    if "pointing" in tasks and not dataset.has_boxes:
        print(f"{data} has no boxes: pointing is left out", file=sys.stderr)
        tasks = [task for task in tasks if task != "pointing"]

    probabilities = np.empty((len(dataset), len(dataset.classes)), dtype=np.float32)
    points = np.empty((*probabilities.shape, 2))
    bar = tqdm(total=len(dataset), desc=f"scoring {dataset.split}", unit=" images", disable=None)
    for index, prediction in enumerate(predictor.stream(items_of(dataset), multi_maps=False)):
        probabilities[index] = prediction.probabilities
        points[index] = prediction.point_array
        bar.update()
    bar.close()

    results: dict[str, Any] = {"data": data, "split": dataset.split, "images": len(dataset)}
    if "classification" in tasks:
        score = metrics.classification_result if dataset.multi_label else metrics.multi_class_result
        results["classification"] = score(probabilities, dataset.labels, dataset.classes).to_dict()
    if "pointing" in tasks:
        results["pointing"] = score_points(dataset, probabilities, points).to_dict()
    results["seconds"] = round(time.perf_counter() - start, 2)
    results["versions"] = {"wildcat": __version__, "torch": torch.__version__, "pillow": PIL.__version__}
    return results


def score_points(dataset: Dataset, probabilities: Any, points: Any) -> metrics.PointingResult:
    """Pointwise localisation of a data set whose samples all have boxes (perhaps none in a picture)."""
    boxes, box_classes, difficult = [], [], []
    for sample in dataset.samples:
        if sample.boxes is None or sample.box_classes is None or sample.box_difficult is None:
            raise WildcatError(f"{dataset.spec}: {sample.name} has no boxes, so points cannot be scored on this split")
        boxes.append(sample.boxes)
        box_classes.append(sample.box_classes)
        difficult.append(sample.box_difficult)
    return metrics.pointing_result(points, probabilities, boxes, box_classes, difficult, dataset.classes)


def summary(results: dict[str, Any]) -> str:
    """The headline figures, a line each."""
    lines = [f"{results['data']} {results['split']}: {results['images']} images, {results['seconds']:.0f} s"]
    names = {
        "classification": ("map_area", "map_11point", "map_step", "accuracy", "mean_class_accuracy"),
        "pointing": ("map", "map_tolerance_0", "accuracy"),
        "segmentation": ("miou", "miou_crf"),
    }
    for task, keys in names.items():
        shown = [f"{key} {results[task][key]:.1f}" for key in keys if results.get(task, {}).get(key) is not None]
        if shown:
            lines.append(f"  {task}: {', '.join(shown)}")
    return "\n".join(lines)


def results_file(run: str | Path) -> Path | None:
    """Where the results of a run belong: ``results.json`` in its folder."""
    return Path(run) / "results.json" if Path(run).is_dir() else None
