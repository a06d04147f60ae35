"""The quickstart: train on synthetic images, score them, and classify photographs with the ImageNet classifier."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from wildcat.apps.report.build import render_page
from wildcat.config import TrainConfig
from wildcat.data.photographs import sample_photographs
from wildcat.data.registry import open_dataset
from wildcat.errors import WildcatError
from wildcat.evaluation.scoring import build_results, collect
from wildcat.prediction.items import dataset_items
from wildcat.prediction.loading import load
from wildcat.prediction.result import Prediction
from wildcat.render import sheets
from wildcat.runs.folder import read_run
from wildcat.runs.results import RESULTS, Results, write_results
from wildcat.system.files import write_atomically
from wildcat.training.launch import train

ROWS = 3  # rows of two images in overlays.jpg
REPORTED = 2  # failures, and best predictions, of each class in the report: few, to save time


@dataclass(frozen=True)
class QuickstartOutcome:
    """What :func:`quickstart` made.

    Attributes:
        results: scores of the trained model on the synthetic test images.
        photographs: prediction of the ImageNet classifier for each photograph, by its name.
        files: the report and overlays, to look at first.
    """

    results: Results
    photographs: Mapping[str, Prediction]
    files: tuple[Path, ...]


def quickstart(out: Path, recipe: dict[str, Any]) -> QuickstartOutcome:
    """Train on the synthetic dataset, score its test images, write a report and overlays.

    A training that was interrupted is resumed by the next call.

    Args:
        out: folder for ``run/``, ``results.json``, ``report.html``, ``overlays.jpg`` and one overlay per photograph.
        recipe: settings of the training.

    Returns:
        Scores, predictions and files.

    Raises:
        WildcatError: if the folder has files of others with these names.

    >>> quickstart(Path("out"), load_recipe("quickstart"))  # doctest: +SKIP
    """
    for name in (RESULTS, "report.html", "overlays.jpg"):
        if (out / name).exists() and not (out / "run").exists():  # which an earlier call would have made first
            raise WildcatError(f"{out / name} was not written by wildcat quickstart; choose another directory")
    config = TrainConfig(**{"data": "synthetic", **recipe})
    run = train(config, out / "run", resume=True)
    predictor = load(run)
    dataset, start = open_dataset(config.data, split="test"), time.perf_counter()
    scores = collect(predictor, dataset)
    results = build_results(predictor, scores, time.perf_counter() - start)
    write_results(out / RESULTS, results)
    page = render_page(
        "Quickstart", read_run(run), predictor, scores[predictor.chosen], results, run, per_class=REPORTED
    )
    write_atomically(out / "report.html", page.encode())

    # An overlay has a panel for each predicted class, or for the most probable one if none is predicted.
    counts = np.maximum((scores[predictor.chosen].probabilities >= 0.5).sum(axis=1), 1)
    dataset = dataset.subset(rows_of_two(counts.tolist()))
    pages = [prediction.overlay() for prediction in predictor.stream(dataset_items(dataset))]
    sheets.contact_sheet(pages, columns=2, side=None).save(out / "overlays.jpg", quality=92)
    imagenet = load("imagenet")
    photographs = {name: imagenet(photograph) for name, photograph in sample_photographs().items()}
    for name, prediction in photographs.items():
        prediction.overlay().save(out / f"imagenet-{name}.jpg", quality=92)
    return QuickstartOutcome(
        results, photographs, (out / "report.html", out / "overlays.jpg", out / "imagenet-flower.jpg")
    )


def rows_of_two(counts: Sequence[int]) -> list[int]:
    """Choose images for rows of two: on the left one with one predicted class, on the right one with two.

    Args:
        counts: number of predicted classes of each image.

    Returns:
        Indices of the images, row by row: :data:`ROWS` rows of two, or as many as the images fill. If there are too
        few images with one or two classes, others take their places, those with the fewest classes first.
    """
    one, two = ([i for i, count in enumerate(counts) if count == wanted][:ROWS] for wanted in (1, 2))
    others = [i for i in range(len(counts)) if i not in (*one, *two)]
    chosen = [*one, *two, *sorted(others, key=counts.__getitem__)][: 2 * ROWS]
    chosen.sort(key=counts.__getitem__)
    half = (len(chosen) + 1) // 2
    return [i for row in zip_longest(chosen[:half], chosen[half:]) for i in row if i is not None]
