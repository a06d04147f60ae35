"""What the page says: plain values, from the run's files and from what the model says of the images."""

from __future__ import annotations

import csv
import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wildcat.apps.report.charts import Line, line_chart, precision_recall_panel
from wildcat.apps.report.selection import is_predicted
from wildcat.config import TrainConfig, default_settings
from wildcat.data.registry import without_path
from wildcat.evaluation.scoring import ScoreAccumulator
from wildcat.metrics import precision_recall_curve

MAX_PANELS, MAX_ROWS = 40, 30  # classes with a curve, and with a row in the matrix
FEW_POSITIVES = 5  # below, a curve says little


def figures(results: dict[str, Any]) -> list[dict[str, str]]:
    """The headline figures."""
    known = (
        ("classification", "map_area", "Classification", "mAP (area)"),
        ("classification", "accuracy", "Accuracy", "of all images"),
        ("classification", "mean_class_accuracy", "Accuracy by class", "mean over the classes"),
        ("pointing", "map", "Pointing", "mAP of points"),
        ("pointing", "accuracy", "Points inside", "of the true boxes"),
        ("segmentation", "miou", "Segmentation", "mIoU with background"),
        ("segmentation", "miou_crf", "Segmentation, CRF", "mIoU of refined masks"),
    )
    shown = []
    for task, key, name, aside in known:
        value = results.get(task, {}).get(key)
        if value is not None:
            shown.append({"name": name, "value": f"{value:.1f}", "aside": aside})
    return shown


def learning_curves(file: Path) -> list[dict[str, Any]]:
    """Charts of a run's ``metrics.csv``; none where it is missing."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))

    def line(key: str, name: str) -> Line:
        return Line(name, [_number(row.get(key)) for row in rows])

    charts = (
        ("Loss", "", [line("train_loss", "training"), line("val_loss", "validation")]),
        ("Validation", "%", [line("val_map", "mAP"), line("val_accuracy", "accuracy")]),
        ("Learning rate", "", [line("learning_rate", "head")]),
    )
    return [
        {"title": title, "svg": line_chart(title, unit, lines)}
        for title, unit, lines in charts
        if any(np.isfinite(each.values).any() for each in lines)
    ]


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


# task, key in results.json, heading, what it is
_COLUMNS = (
    ("classification", "area", "AP", "average precision: area under the monotone envelope"),
    ("classification", "11point", "AP 11-point", "average precision as VOC 2007 computes it"),
    ("classification", "accuracy", "Accuracy", "share of the class's images that are recognised"),
    ("pointing", "ap", "Point AP", "average precision of points, boxes enlarged by the tolerance"),
    ("pointing", "accuracy", "Points inside", "share of the class's images whose point is in a box"),
    ("segmentation", "", "IoU", "intersection over union of masks"),
    ("segmentation", "crf", "IoU CRF", "the same of masks refined by the CRF"),
    ("classification", "positives", "Images", "images that hold the class"),
)


def class_table(results: dict[str, Any], classes: Sequence[str]) -> tuple[dict[str, Any], list[int]]:
    """The table of all classes, the worst first, and the classes in this order."""
    columns = []
    for task, key, heading, about in _COLUMNS:
        part = results.get(task, {})
        per_class = part.get("per_class_crf" if key == "crf" else "per_class")
        if per_class is None:
            continue
        values = [v.get(key) if isinstance(v, dict) else v for v in (per_class.get(name) for name in classes)]
        if any(value is not None for value in values):
            columns.append((heading, about, values, key == "positives"))
    order = list(range(len(classes)))
    if columns:
        first = columns[0][2]
        order.sort(key=lambda c: (first[c] is None, first[c], c))
    head = [{"name": "Class", "about": "name of the class", "sorted": ""}]
    head += [{"name": h, "about": a, "sorted": "" if i else "ascending"} for i, (h, a, _, _) in enumerate(columns)]
    rows = []
    for c in order:
        cells = []
        for _, _, values, is_count in columns:
            value = values[c]
            text = "–" if value is None else str(value) if is_count else f"{value:.1f}"
            share = None if value is None or is_count else round(value, 1)
            cells.append({"value": "" if value is None else value, "text": text, "share": share})
        rows.append({"label": c, "name": classes[c], "cells": cells})
    means = []
    for _, _, values, is_count in columns:
        defined = [v for v in values if v is not None]
        means.append(str(sum(defined)) if is_count else f"{sum(defined) / len(defined):.1f}")
    return {"columns": head, "rows": rows, "means": means}, order


def panels(score: ScoreAccumulator) -> list[dict[str, Any]]:
    """Precision over recall, of the classes whose curves have the lowest average precision, the lowest first."""
    labels, classes = score.dataset.labels, score.dataset.classes
    curves = [precision_recall_curve(score.probabilities[:, c], labels[:, c]) for c in range(len(classes))]
    known = [(curve.average_precision("area"), c) for c, curve in enumerate(curves) if curve.positives]
    shown: list[dict[str, Any]] = []
    for precision, c in sorted(known)[:MAX_PANELS]:
        curve, figure = curves[c], f"{100 * precision:.1f}"
        count = f"{curve.positives:,} image{'s' if curve.positives > 1 else ''}"
        message = f"average precision {figure} %, {count}"
        svg = precision_recall_panel(classes[c], curve.recall, curve.envelope, message)
        few = curve.positives < FEW_POSITIVES
        shown.append({"name": classes[c], "figure": figure, "count": count, "few": few, "svg": svg})
    return shown


def matrix(score: ScoreAccumulator) -> dict[str, Any] | None:
    """Which classes are predicted where a class truly is: the confusion matrix, or its like for several classes."""
    dataset = score.dataset
    truth, predicted = dataset.labels == 1, is_predicted(score)
    counts = truth.sum(axis=0)
    chosen = [int(c) for c in sorted(np.argsort(-counts, kind="stable")[:MAX_ROWS]) if counts[c]]
    if len(chosen) < 2:
        return None
    names = [dataset.classes[c] for c in chosen]
    rows = []
    for c in chosen:
        cells = []
        for other in chosen:
            among = predicted[truth[:, c], other]
            share = 100 * float(among.mean())
            message = f"{dataset.classes[c]}: {dataset.classes[other]} is predicted in {among.sum()} of {len(among)}"
            if dataset.multi_label:
                message += f", and true in {truth[truth[:, c], other].sum()}"
            text = f"{share:.0f}" if share >= 0.5 else ""
            cells.append({"share": round(share, 1), "text": text, "told": message, "own": c == other})
        rows.append({"name": dataset.classes[c], "cells": cells})
    if dataset.multi_label:
        title = "Classes together"
        about = (
            "Of the images that truly hold the class of the row, the share, in per cent, in which the class of the "
            "column is predicted. The diagonal is recall; beside it stand classes that occur, or are seen, together."
        )
    else:
        title = "Confusion"
        about = "Of the images of the class of the row, the share, in per cent, taken for the class of the column."
    if len(chosen) < int((counts > 0).sum()):
        about += f" The {len(chosen)} most frequent of {int((counts > 0).sum())} classes."
    return {"title": title, "about": about, "names": names, "rows": rows}


def settings(config: TrainConfig) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Settings that differ from the defaults, and all of them; of paths the last part, since reports are sent."""
    defaults = default_settings()
    shown = {"data": without_path(config.data), "weights": config.weights and Path(config.weights).name}
    names = [field.name for field in dataclasses.fields(config)]
    values = [(name, shown.get(name, getattr(config, name))) for name in names]
    every = [(name, _message(value)) for name, value in values]
    return [(name, _message(value)) for name, value in values if value != defaults.get(name)], every


def _message(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)
