"""The first three minutes: train on synthetic images, score, and look at photographs with no training at all."""

import time
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from wildcat.apps.report.build import render_page
from wildcat.config import TrainConfig
from wildcat.data.photographs import sample_photographs
from wildcat.data.registry import open_dataset
from wildcat.evaluation.results import summary
from wildcat.evaluation.scoring import build_results, collect
from wildcat.prediction.items import dataset_items
from wildcat.prediction.loading import load
from wildcat.render import sheets
from wildcat.runs.folder import read_run
from wildcat.system.files import write_atomically, write_json
from wildcat.training.launch import train

ROWS = 3  # of overlays.jpg, of two images each
REPORTED = 2  # failures of a class on the page, and as many of the best: it takes seconds


def quickstart(out: Path, recipe: dict[str, Any]) -> dict[str, Any]:
    """Train on the synthetic data, score the held-out images, write a report and overlays.

    Args:
        out: folder: ``run/``, ``results.json``, ``report.html``, ``overlays.jpg`` and one overlay per photograph.
        recipe: settings of the training.

    Returns:
        The content of results.json.
    """
    config = TrainConfig(**{"data": "synthetic", **recipe})
    run = train(config, out / "run", resume=True)  # called again, it resumes where it was
    predictor = load(run)
    dataset, start = open_dataset(config.data, split="test"), time.perf_counter()
    scores = collect(predictor, dataset)
    results = build_results(predictor, scores, time.perf_counter() - start)
    write_json(out / "results.json", results)
    print(summary(results))
    page = render_page(
        "Quickstart", read_run(run), predictor, scores[predictor.chosen], results, run, per_class=REPORTED
    )
    write_atomically(out / "report.html", page.encode())

    # As many classes as an overlay has panels: the most probable one where none is probable.
    counts = np.maximum((scores[predictor.chosen].probabilities >= 0.5).sum(axis=1), 1)
    dataset = dataset.subset(rows_of_two(counts.tolist()))
    pages = [prediction.overlay() for prediction in predictor.stream(dataset_items(dataset))]
    sheets.contact_sheet(pages, columns=2, side=None).save(out / "overlays.jpg", quality=92)
    imagenet = load("imagenet")
    for name, photograph in sample_photographs().items():
        prediction = imagenet(photograph)
        best, score = next(iter(prediction.scores.items()))
        prediction.overlay().save(out / f"imagenet-{name}.jpg", quality=92)
        x, y = prediction.points[best]
        print(f"imagenet, no training: {name} is a {best} ({100 * score:.0f} %), at ({x:.0f}, {y:.0f})")
    print(f"look at: {out / 'report.html'}, {out / 'overlays.jpg'}, {out / 'imagenet-flower.jpg'}")
    return results


def rows_of_two(counts: Sequence[int]) -> list[int]:
    """Images for rows that are full: on the left those with one class, on the right those with two.

    Args:
        counts: classes found in each image.

    Returns:
        Indices row by row, :data:`ROWS` rows of two where there are so many images. Where images of one or of two
        classes are too few, others stand in, those of the fewest classes first.
    """
    one, two = ([i for i, count in enumerate(counts) if count == wanted][:ROWS] for wanted in (1, 2))
    others = [i for i in range(len(counts)) if i not in (*one, *two)]
    chosen = [*one, *two, *sorted(others, key=counts.__getitem__)][: 2 * ROWS]
    chosen.sort(key=counts.__getitem__)
    half = (len(chosen) + 1) // 2
    return [i for row in zip_longest(chosen[:half], chosen[half:]) for i in row if i is not None]
