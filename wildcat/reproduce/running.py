"""Training and scoring the planned runs, so that whatever stops them, the next call goes on."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wildcat.checkpoint import WEIGHTS, write_json
from wildcat.config import TrainConfig, read_json
from wildcat.data import default_splits, open_dataset
from wildcat.evaluate import evaluate
from wildcat.predict import load
from wildcat.reproduce.planning import Measure, PlannedRun
from wildcat.train import train

RESULTS = "results.json"


class ScoringData:
    """The data set that an experiment's runs are scored on.

    Attributes:
        about: what pages say of it.

    Raises:
        WildcatError: if it cannot be opened.
    """

    def __init__(self, recipe: TrainConfig) -> None:
        train_split, split = default_splits(recipe.data)
        dataset = open_dataset(recipe.data, split)
        self.has = {"classification": True, "pointing": dataset.has_boxes, "segmentation": dataset.has_masks}
        self.about = {
            "data": recipe.data,
            "train_split": recipe.train_split or train_split,
            "split": split,
            "images": len(dataset),
        }

    def scorable(self, wanted: Sequence[Measure]) -> tuple[Measure, ...]:
        """Those of the tasks that the data set has annotations for."""
        return tuple(measure for measure in wanted if self.has[measure])


def finished(folder: Path, measures: Sequence[Measure]) -> dict[str, Any] | None:
    """The results of a run that is trained and scored on all these tasks; None if something is left to do."""
    if not (folder / WEIGHTS).exists() or not (folder / RESULTS).exists():
        return None
    results = read_json(folder / RESULTS)
    return results if all(measure in results for measure in measures) else None


def complete(run: PlannedRun, folder: Path, measures: Sequence[Measure]) -> dict[str, Any]:
    """Do what is left of a run: train it, or continue its training, and score it; its results."""
    if (results := finished(folder, measures)) is not None:
        return results
    if not (folder / WEIGHTS).exists():  # written when training ends
        train(run.config, folder, resume=True)
    results = evaluate(load(folder), run.config.data, tasks=measures, on_bad_image=run.config.on_bad_image)
    write_json(folder / RESULTS, results)
    return results


def training_seconds(folder: Path) -> float:
    """How long the epochs of a run took, interruptions left out."""
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return sum(float(row["seconds"]) for row in csv.DictReader(file))
