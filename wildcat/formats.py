"""Predictions in the formats that other tools read."""

import json
from collections.abc import Iterable
from pathlib import Path

from wildcat.predict import Failure, Prediction

FORMATS = ("json", "overlay")


def write_predictions(
    predictions: Iterable[Prediction | Failure], out: Path, formats: Iterable[str], threshold: float = 0.5
) -> list[Failure]:
    """Write predictions as they come.

    ``json``: ``predictions.jsonl``, one object per picture. ``overlay``: ``overlay/NAME.jpg``, the picture with a
    heatmap and a point for each predicted class.

    Args:
        predictions: from :meth:`wildcat.predict.Predictor.stream`.
        out: folder, made if needed.
        formats: out of :data:`FORMATS`.
        threshold: probability from which a class counts as predicted.

    Returns:
        The pictures that could not be read.
    """
    formats = set(formats)
    out.mkdir(parents=True, exist_ok=True)
    overlays = out / "overlay"
    if "overlay" in formats:
        overlays.mkdir(exist_ok=True)
    failures: list[Failure] = []
    used: set[str] = set()
    lines = out / ".predictions.jsonl.part"
    with lines.open("w", encoding="utf-8") as stream:
        for prediction in predictions:
            if isinstance(prediction, Failure):
                failures.append(prediction)
                continue
            stream.write(json.dumps(prediction.to_dict(threshold)) + "\n")
            if "overlay" in formats:
                name = unique_name(Path(prediction.name).stem, used)
                prediction.overlay(threshold).save(overlays / f"{name}.jpg", quality=92)
    if "json" in formats:
        lines.replace(out / "predictions.jsonl")
    else:
        lines.unlink()
    return failures


def unique_name(name: str, used: set[str]) -> str:
    """The name, or the name with the first free number behind it; it is then in ``used``."""
    candidate, number = name, 1
    while candidate in used:
        number += 1
        candidate = f"{name}-{number}"
    used.add(candidate)
    return candidate
