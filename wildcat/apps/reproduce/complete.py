"""Training and scoring of planned runs; after an interruption the next call resumes."""

from pathlib import Path

from wildcat.apps.reproduce.plan import Experiment, PlannedRun, with_seed
from wildcat.config import TrainConfig
from wildcat.data.registry import default_splits, open_dataset
from wildcat.errors import WildcatError
from wildcat.evaluation.background import fit_masks
from wildcat.evaluation.scoring import evaluate
from wildcat.metrics.scores import TASKS
from wildcat.prediction.loading import load
from wildcat.runs.folder import BACKGROUND, save_background
from wildcat.runs.results import RESULTS, read_results, write_results
from wildcat.training.launch import train
from wildcat.training.multiscale import train_scales


class ScoringData:
    """The dataset that the runs of an experiment are scored on; for random splits, that of the first seed.

    Attributes:
        has: whether it has the annotations for each task.
        about: its description for pages and records.

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

    def check(self, experiment: Experiment, recipe: TrainConfig) -> None:
        """Check that the dataset and the recipe allow an experiment.

        Raises:
            WildcatError: naming the annotations that the dataset lacks, or the setting that does not fit.
        """
        for measure in experiment.measures:
            if not self.has[measure]:
                needed = {"pointing": "boxes", "segmentation": "masks"}[measure]
                raise WildcatError(f"{experiment.name} needs {needed}; {recipe.data} {self.about['split']} has none")
        if experiment.figure == "maps" and recipe.num_maps < 2:
            raise WildcatError(f"{experiment.name} shows two of the maps of a class; num_maps is {recipe.num_maps}")


def complete(run: PlannedRun, folder: Path) -> None:
    """Train a planned run, or resume its training, and score it.

    Args:
        run: the planned run.
        folder: its run directory.

    Tasks that were scored before are scored again, so that all results are of one evaluation. For masks, the background
    is first fitted on the masks of the training split, if it has any.
    """
    if run.scales:
        train_scales(run.config, run.scales, folder, resume=True)
    else:
        train(run.config, folder, resume=True)
    data = run.config.data
    earlier = read_results(folder / RESULTS).tasks if (folder / RESULTS).exists() else ()
    tasks = [task for task in TASKS if task in run.measures or task in earlier]
    masks = "segmentation" in tasks
    if masks and not (folder / BACKGROUND).exists():
        split = run.config.train_split or default_splits(data)[0]
        if open_dataset(data, split).has_masks:
            # Without the background cue, which the paper does not have
            background, miou = fit_masks(load(folder), data, split, "threshold", run.config.on_bad_image, cue=False)
            save_background(folder, background, f"{data} {split}", miou)
    results = evaluate(load(folder), data, tasks=tasks, on_bad_image=run.config.on_bad_image, crf=masks)
    write_results(folder / RESULTS, results)
