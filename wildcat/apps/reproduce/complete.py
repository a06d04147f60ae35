"""Training and scoring the planned runs, so that whatever stops them, the next call resumes."""

from pathlib import Path

from wildcat.apps.reproduce.plan import Experiment, PlannedRun, with_seed
from wildcat.apps.reproduce.tables import RESULTS
from wildcat.config import TrainConfig
from wildcat.data.registry import default_splits, open_dataset
from wildcat.errors import WildcatError
from wildcat.evaluation.background import fit_masks
from wildcat.evaluation.results import TASKS
from wildcat.evaluation.scoring import evaluate
from wildcat.prediction.loading import load
from wildcat.runs.folder import BACKGROUND, save_background
from wildcat.system.files import read_json, write_json
from wildcat.training.launch import train
from wildcat.training.multiscale import train_scales


class ScoringData:
    """The dataset that an experiment's runs are scored on; of several splits that of the first seed.

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

    def check(self, experiment: Experiment, recipe: TrainConfig) -> None:
        """Reject an experiment that this data or recipe cannot have.

        Raises:
            WildcatError: saying what is missing.
        """
        for measure in experiment.measures:
            if not self.has[measure]:
                needed = {"pointing": "boxes", "segmentation": "masks"}[measure]
                raise WildcatError(f"{experiment.name} needs {needed}; {recipe.data} {self.about['split']} has none")
        if experiment.drawing == "maps" and recipe.num_maps < 2:
            raise WildcatError(f"{experiment.name} shows two of the maps of a class; num_maps is {recipe.num_maps}")


def complete(run: PlannedRun, folder: Path) -> None:
    """Do what is left of a run: train it, or continue its training, and score it.

    Tasks that it has been scored on before are scored again, so that its results are of one reading. Where masks are
    scored, their background is fitted on the training split's masks, if it has any.
    """
    if run.scales:
        train_scales(run.config, run.scales, folder, resume=True)
    else:
        train(run.config, folder, resume=True)
    data = run.config.data
    known = read_json(folder / RESULTS) if (folder / RESULTS).exists() else {}
    tasks = [measure for measure in TASKS if measure in run.measures or measure in known]
    masks = "segmentation" in tasks
    if masks and not (folder / BACKGROUND).exists():
        split = run.config.train_split or default_splits(data)[0]
        if open_dataset(data, split).has_masks:
            background, miou = fit_masks(load(folder), data, split, "threshold", run.config.on_bad_image)
            save_background(folder, background, f"{data} {split}", miou)
    results = evaluate(load(folder), data, tasks=tasks, on_bad_image=run.config.on_bad_image, crf=masks)
    write_json(folder / RESULTS, results)
