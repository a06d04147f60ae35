"""Training and scoring the planned runs, so that whatever stops them, the next call goes on."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wildcat.checkpoint import BACKGROUND, save_background
from wildcat.config import TrainConfig, read_json
from wildcat.data import default_splits, open_dataset
from wildcat.errors import WildcatError
from wildcat.evaluate import evaluate, fit_masks
from wildcat.files import write_json
from wildcat.reproduce.planning import Experiment, Measure, PlannedRun, with_seed
from wildcat.reproduce.tables import scores_of
from wildcat.results import TASKS
from wildcat.runs import load
from wildcat.scales import train_scales
from wildcat.train import train

RESULTS = "results.json"


class ScoringData:
    """The data set that an experiment's runs are scored on; of several splits that of the first seed.

    Attributes:
        about: what pages say of it.

    Raises:
        WildcatError: if it cannot be opened.
    """

    def __init__(self, recipe: TrainConfig, seed: int) -> None:
        data = with_seed(recipe, seed).data
        train_split, split = default_splits(data)
        dataset = open_dataset(data, split)
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

    def check(self, experiment: Experiment, recipe: TrainConfig) -> None:
        """Refuse an experiment that this data or recipe cannot have.

        Raises:
            WildcatError: saying what is missing.
        """
        if not self.has[experiment.measures[0]]:
            needed = {"pointing": "boxes", "segmentation": "masks"}[experiment.measures[0]]
            raise WildcatError(f"{experiment.name} needs {needed}; {recipe.data} {self.about['split']} has none")
        if experiment.drawing == "maps" and recipe.num_maps < 2:
            raise WildcatError(f"{experiment.name} shows two of the maps of a class; num_maps is {recipe.num_maps}")


def finished(folder: Path, measures: Sequence[Measure]) -> dict[str, Any] | None:
    """The results of a run that is scored on all these tasks; None if something is left to do."""
    if not (folder / RESULTS).exists():
        return None
    results = read_json(folder / RESULTS)
    return results if all(measure in results for measure in measures) else None


def complete(run: PlannedRun, folder: Path, measures: Sequence[Measure]) -> None:
    """Do what is left of a run: train it, or continue its training, and score it.

    Where masks are scored, their background is fitted on the training split's masks, if it has any.
    """
    if run.scales:
        train_scales(run.config, run.scales, folder, resume=True)
    else:
        train(run.config, folder, resume=True)
    data, masks = run.config.data, "segmentation" in measures
    if masks and not (folder / BACKGROUND).exists():
        split = run.config.train_split or default_splits(data)[0]
        if open_dataset(data, split).has_masks:
            background, miou = fit_masks(load(folder), data, split, "threshold")
            save_background(folder, background, f"{data} {split}", miou)
    known = read_json(folder / RESULTS) if (folder / RESULTS).exists() else {}
    tasks = [measure for measure in TASKS if measure in measures or measure in known]
    results = evaluate(load(folder), data, tasks=tasks, on_bad_image=run.config.on_bad_image, crf=masks)
    write_json(folder / RESULTS, results)


def summary(run: PlannedRun, folder: Path) -> dict[str, Any] | None:
    """What tables need of a run; None while it is not scored."""
    if (results := finished(folder, ())) is None:
        return None
    seconds = 0.0
    for metrics in folder.rglob("metrics.csv"):  # one, or one a scale
        with metrics.open(newline="", encoding="utf-8") as file:
            seconds += sum(float(row["seconds"]) for row in csv.DictReader(file))
    return {
        "run": run.name,
        "seed": run.config.seed,
        "scores": scores_of(results),
        "train_seconds": seconds,
        "evaluate_seconds": results["seconds"],
        "versions": results["versions"],
    }
