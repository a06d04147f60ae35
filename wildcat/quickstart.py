"""The first three minutes: train on drawn pictures, score, and look at photographs with no training at all."""

import time
from pathlib import Path
from typing import Any

from wildcat import sheets
from wildcat.checkpoint import read_run
from wildcat.config import TrainConfig
from wildcat.data import open_dataset
from wildcat.evaluate import items_of, observe, results_of
from wildcat.files import write_atomically, write_json
from wildcat.photographs import sample_photographs
from wildcat.report import render_page
from wildcat.results import summary
from wildcat.runs import load
from wildcat.train import train

REPORTED = 2  # failures of a class on the page, and as many of the best: it takes seconds


def quickstart(out: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """Train on the synthetic data, score the held-out pictures, write a report and overlays.

    Args:
        out: folder: ``run/``, ``results.json``, ``report.html``, ``overlays.jpg`` and one overlay per photograph.
        recipe: settings of the training.

    Returns:
        The content of results.json.
    """
    config = TrainConfig(**recipe)
    run = train(config, out / "run", resume=True)  # called again, it goes on where it was
    predictor = load(run)
    dataset, start = open_dataset(config.data, split="test"), time.perf_counter()
    scores = observe(predictor, dataset)
    results = results_of(predictor, scores, time.perf_counter() - start)
    write_json(out / "results.json", results)
    print(summary(results))
    page = render_page(
        "Quickstart", read_run(run), predictor, scores[predictor.chosen], results, run, per_class=REPORTED
    )
    write_atomically(out / "report.html", page.encode())

    dataset = dataset.subset(range(6))
    pages = [prediction.overlay() for prediction in predictor.stream(items_of(dataset))]
    sheets.contact_sheet(pages, columns=2, side=640).save(out / "overlays.jpg", quality=92)
    imagenet = load("imagenet")
    for name, photograph in sample_photographs().items():
        prediction = imagenet(photograph)
        best, score = next(iter(prediction.scores.items()))
        prediction.overlay().save(out / f"imagenet-{name}.jpg", quality=92)
        x, y = prediction.points[best]
        print(f"imagenet, no training: {name} is a {best} ({100 * score:.0f} %), at ({x:.0f}, {y:.0f})")
    print(f"look at: {out / 'report.html'}, {out / 'overlays.jpg'}, {out / 'imagenet-flower.jpg'}")
    return results
