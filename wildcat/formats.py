"""Predictions in the formats that other tools read."""

import json
from collections.abc import Iterable
from pathlib import Path

from wildcat import render
from wildcat.predict import Failure
from wildcat.prediction import Prediction

FORMATS = ("json", "overlay", "mask")


def write_predictions(
    predictions: Iterable[Prediction | Failure],
    out: Path,
    formats: Iterable[str],
    threshold: float = 0.5,
    crf: bool = False,
) -> list[Failure]:
    """Write predictions as they come.

    ``json``: ``predictions.jsonl``, one object per picture. ``overlay``: ``overlay/NAME.jpg``, the picture with a
    heatmap and a point for each predicted class. ``mask``: ``mask/NAME.png``, labels 0 (background) and 1 + class with
    the palette of PASCAL VOC, and ``mask-overlay/NAME.jpg``, the picture with mask and legend.

    Args:
        predictions: from :meth:`wildcat.predict.Predictor.stream`.
        out: folder, made if needed.
        formats: out of :data:`FORMATS`.
        threshold: probability from which a class counts as predicted.
        crf: refine masks with the dense CRF.

    Returns:
        The pictures that could not be read.
    """
    formats = set(formats)
    folders = {"overlay": ["overlay"], "mask": ["mask", "mask-overlay"]}
    for folder in ["", *(name for kind in formats for name in folders.get(kind, []))]:
        (out / folder).mkdir(parents=True, exist_ok=True)
    failures: list[Failure] = []
    used: set[str] = set()
    lines = out / ".predictions.jsonl.part"
    with lines.open("w", encoding="utf-8") as stream:
        for prediction in predictions:
            if isinstance(prediction, Failure):
                failures.append(prediction)
                continue
            name = unique_name(Path(prediction.name).stem, used)
            stream.write(json.dumps(prediction.to_dict(threshold)) + "\n")
            if "overlay" in formats:
                prediction.overlay(threshold).save(out / "overlay" / f"{name}.jpg", quality=92)
            if "mask" in formats:
                mask = prediction.mask(crf=crf, threshold=threshold)
                render.mask_png(mask).save(out / "mask" / f"{name}.png")
                prediction.mask_overlay(mask).save(out / "mask-overlay" / f"{name}.jpg", quality=92)
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
