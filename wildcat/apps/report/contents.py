"""The contents of the page as plain values for its template, from the files of the run and from predictions."""

from __future__ import annotations

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
from wildcat.metrics.metric_table import CLASS_METRICS, ClassMetric, Detail, Metric, measured
from wildcat.runs.curves import read_curves
from wildcat.runs.results import Results

MAX_CURVES, MAX_ROWS = 40, 30  # classes with a precision-recall curve, and with a row in the matrix
FEW_POSITIVES = 5  # with fewer, a precision-recall curve is not reliable


def main_scores(results: Results) -> list[dict[str, str]]:
    """The main scores, each with its name, its value and what it is."""
    return [
        {
            "name": metric.name,
            "value": f"{value:.1f}",
            "unit": metric.unit,
            "about": metric.about + _interval(metric, results),
        }
        for metric, value in measured(results, Detail.HEADLINE)
    ]


def _interval(metric: Metric, results: Results) -> str:
    bounds = metric.interval(results)
    return "" if bounds is None else f"; 95 % interval over images {bounds[0]:.1f} to {bounds[1]:.1f}"


def learning_curves(file: Path) -> list[dict[str, Any]]:
    """Charts of the training from a ``metrics.csv``; none if the file is missing."""
    rows = read_curves(file) if file.is_file() else []

    def line(key: str, name: str) -> Line:
        return Line(name, [row.get(key, math.nan) for row in rows])

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


def class_table(results: Results, classes: Sequence[str]) -> tuple[dict[str, Any], list[int]]:
    """The table of all classes, sorted from the lowest score, and the classes in this order.

    Args:
        results: scores in per cent.
        classes: C names.

    Returns:
        Columns, rows and means for the template; and the indices of the classes from the lowest score to the highest.
    """
    columns = [(metric, metric.values(results, classes)) for metric in CLASS_METRICS]
    columns = [(metric, values) for metric, values in columns if not all(map(math.isnan, values))]
    order = list(range(len(classes)))
    if columns:
        first = columns[0][1]
        order.sort(key=lambda c: (math.isnan(first[c]), first[c], c))
    head = [{"name": "Class", "about": "name of the class", "sorted": ""}]
    for number, (metric, _) in enumerate(columns):
        head.append({"name": metric.name, "about": metric.about, "sorted": "" if number else "ascending"})
    rows = [
        {"label": c, "name": classes[c], "cells": [_cell(metric, values[c]) for metric, values in columns]}
        for c in order
    ]
    means = []
    for metric, values in columns:
        defined = [value for value in values if not math.isnan(value)]
        means.append(f"{sum(defined) / len(defined):.1f}" if metric.unit == "%" else f"{sum(defined):.0f}")
    return {"columns": head, "rows": rows, "means": means}, order


def _cell(metric: ClassMetric, value: float) -> dict[str, Any]:
    """A cell of the table: the value for sorting, its text, and the length of its bar in per cent."""
    if math.isnan(value):
        return {"value": "", "text": "–", "share": None}
    if metric.unit != "%":
        return {"value": int(value), "text": f"{value:.0f}", "share": None}
    return {"value": value, "text": f"{value:.1f}", "share": round(value, 1)}


def precision_recall_curves(score: ScoreAccumulator) -> list[dict[str, Any]]:
    """The precision-recall curves of the classes with the lowest average precision, the lowest first."""
    labels, classes, probabilities = score.dataset.labels, score.dataset.classes, score.probabilities
    curves = [precision_recall_curve(probabilities[:, c], labels[:, c]) for c in range(len(classes))]
    known = [(curve.average_precision("area"), c) for c, curve in enumerate(curves) if curve.positives]
    shown: list[dict[str, Any]] = []
    for precision, c in sorted(known)[:MAX_CURVES]:
        curve, score_text = curves[c], f"{100 * precision:.1f}"
        count = f"{curve.positives:,} image{'s' if curve.positives > 1 else ''}"
        caption = f"average precision {score_text} %, {count}"
        svg = precision_recall_panel(classes[c], curve.recall, curve.envelope, caption)
        few = curve.positives < FEW_POSITIVES
        shown.append({"name": classes[c], "score": score_text, "count": count, "few": few, "svg": svg})
    return shown


def matrix(score: ScoreAccumulator) -> dict[str, Any] | None:
    """Which classes are predicted in the images of each true class: the confusion matrix.

    For multi-label data, where an image counts in several rows and columns, it shows which classes are predicted
    together. None if fewer than two classes have images.
    """
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
            title = f"{dataset.classes[c]}: {dataset.classes[other]} is predicted in {among.sum()} of {len(among)}"
            if dataset.multi_label:
                title += f", and true in {truth[truth[:, c], other].sum()}"
            text = f"{share:.0f}" if share >= 0.5 else ""
            cells.append({"share": round(share, 1), "text": text, "title": title, "own": c == other})
        rows.append({"name": dataset.classes[c], "cells": cells})
    if dataset.multi_label:
        title = "Predictions by true class"
        about = (
            "Per cent of the images with the class of the row in which the class of the column is predicted. The "
            "diagonal is the recall. Other cells are high for classes that occur together or are confused."
        )
    else:
        title = "Confusion matrix"
        about = "Per cent of the images of the class of the row that are predicted as the class of the column."
    if len(chosen) < int((counts > 0).sum()):
        about += f" It shows the {len(chosen)} most frequent of {int((counts > 0).sum())} classes."
    return {"title": title, "about": about, "names": names, "rows": rows}


def settings(config: TrainConfig) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Settings that differ from the defaults, and all settings; paths are cut to their last part, for privacy."""
    defaults = default_settings()
    shown = {"data": without_path(config.data), "weights": config.weights and Path(config.weights).name}
    names = [field.name for field in dataclasses.fields(config)]
    values = [(name, shown.get(name, getattr(config, name))) for name in names]
    every = [(name, _as_text(value)) for name, value in values]
    return [(name, _as_text(value)) for name, value in values if value != defaults.get(name)], every


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "–" if value is None else str(value)
