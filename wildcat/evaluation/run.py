"""Evaluation of a run: what ``wildcat evaluate`` does, as functions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wildcat.data import Dataset, shared_image_warnings
from wildcat.data.registry import default_splits
from wildcat.errors import WildcatError
from wildcat.evaluation.background import fit_masks
from wildcat.evaluation.scoring import AllowedClasses, check_tasks, evaluate, open_scored
from wildcat.evaluation.submission import write_submission
from wildcat.export.network import Runtime
from wildcat.masks import Background, Mode
from wildcat.metrics.scores import TASKS
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor
from wildcat.runs.folder import BACKGROUND, WEIGHTS, read_settings, save_background
from wildcat.runs.results import Results, read_results, results_file, write_results
from wildcat.runs.training_set import training_images
from wildcat.system.devices import AUTO, Precision

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FittedBackground:
    """A background that was fitted for the masks of a run.

    Attributes:
        background: mode and constant.
        split: whose true masks it was fitted on.
        miou: mIoU on them, in per cent.
    """

    background: Background
    split: str
    miou: float


@dataclass(frozen=True)
class RunEvaluation:
    """What :func:`evaluate_run` did.

    Attributes:
        results: the scores; with those of earlier calls, where they were merged.
        file: the results.json that was written, or None; the run's may be in a folder that cannot be written.
        fitted: the background that was fitted, or None.
    """

    results: Results
    file: Path | None = None
    fitted: FittedBackground | None = None


def evaluate_run(
    run: str | Path,
    data: str | None = None,
    *,
    split: str | None = None,
    tasks: Sequence[str] | None = None,
    score_sizes: Sequence[int] | None = None,
    map_sizes: Sequence[int] | None = None,
    mirror: bool | None = None,
    device: str = AUTO,
    precision: Precision = "fp32",
    runtime: Runtime = "torch",
    on_bad_image: str = "error",
    labels: AllowedClasses = "predicted",
    crf: bool = False,
    fit_background: Mode | None = None,
    file: str | Path | None = None,
    save: bool = True,
) -> RunEvaluation:
    """Score a run, and write its results.json.

    The results.json of the run keeps the tasks of earlier calls where they are of the same images, model and settings
    (:func:`merge_earlier`). Warnings say how many of the scored images the run was trained on.

    Args:
        run: a run directory, the name of a model on the hub, "imagenet", or an exported file.
        data: the dataset, kind:path; unless given, that of the run's results.json, else the one of the training.
        split: the split; unless given, the dataset's usual scoring split, or, if no dataset is given either, the split
            of the run's results.json.
        tasks: out of "classification", "pointing" and "segmentation"; unless given, classification, and pointing where
            the dataset has boxes.
        score_sizes: sides in pixels at which images are processed for scores; the run's unless given.
        map_sizes: sides for points and masks; the run's unless given.
        mirror: whether the mirror image is processed too and averaged; as in training unless given.
        device: where the network computes, as for :func:`wildcat.load`, and so are the next two.
        precision: of the backbone: "fp32", "bf16" or "auto".
        runtime: "torch", "onnx", "openvino" or "auto".
        on_bad_image: "error" to raise for images that cannot be read, "skip" to leave them out, "partial" to read JPEGs
            that were cut as far as they go.
        labels: which classes a mask may hold: those "predicted", or those of the true labels of the "image".
        crf: score masks refined by the dense CRF as well.
        fit_background: first fit the background of masks in this mode on the masks of the run's training split, and
            keep it with the run.
        file: where to write the results instead of the run's results.json; what it holds is replaced.
        save: off to write nothing.

    Raises:
        WildcatError: for an unknown task, a dataset of other classes, images that cannot be read, or a run, file or
            results.json that is missing or damaged.

    >>> evaluation = evaluate_run("runs/mine", "folder:my_images", split="test")  # doctest: +SKIP
    >>> evaluation.results.classification.map_area  # doctest: +SKIP
    89.6
    """
    check_tasks(tasks or ())

    def opened() -> Predictor:
        predictor = load(run, device=device, precision=precision, runtime=runtime)
        return predictor.at_sizes(score_sizes, map_sizes, mirror)

    predictor = opened()
    if data is None:
        data, split = scored_data(run, split=split)
    fitted = None
    if fit_background is not None:
        fitted = fit_run_background(Path(run), predictor, fit_background)
        predictor = opened()
    split = split or default_splits(data)[1]
    dataset = open_scored(data, split, predictor.settings.classes, on_bad_image)
    results = evaluate(predictor, dataset, tasks=tasks, labels=labels, crf=crf)
    results = replace(results, warnings=tuple(training_overlap(run, dataset)))
    own = results_file(run)
    target = Path(file) if file is not None else own
    if not save or target is None:
        return RunEvaluation(results, None, fitted)
    if file is None:  # another file may hold the results of another model
        results = merge_earlier(results, target)
    try:
        write_results(target, results)
    except WildcatError as error:
        if file is not None:
            raise
        # The run may be of somebody else, or on a read-only disk: the scores are not lost for that.
        logger.warning("%s; the results are not kept with the run", error)
        return RunEvaluation(results, None, fitted)
    return RunEvaluation(results, target, fitted)


def submit_run(
    run: str | Path,
    out: Path,
    data: str | None = None,
    *,
    split: str = "test",
    tasks: Sequence[str] = TASKS,
    score_sizes: Sequence[int] | None = None,
    map_sizes: Sequence[int] | None = None,
    mirror: bool | None = None,
    device: str = AUTO,
    precision: Precision = "fp32",
    runtime: Runtime = "torch",
    crf: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write the predictions of a run as files for the VOC 2012 evaluation server; nothing is scored.

    Args:
        run: as for :func:`evaluate_run`, and so are data, sizes, mirror, device, precision and runtime.
        out: folder in which the folder ``results`` is written.
        data: ``voc12:DIR`` or ``action12:DIR``.
        split: the split; the server scores "test", and masks need "seg-test".
        tasks: of these, the ones that the server has for the dataset are written.
        crf: refine masks with the dense CRF.
        overwrite: replace files in the folder that were not written by this function, and results of another model.

    Returns:
        The folders written, one per task.

    Raises:
        WildcatError: for another dataset, other classes than the model's, or no task that the server has.

    >>> submit_run("runs/voc12", Path("upload"), "voc12:data")  # doctest: +SKIP
    """
    check_tasks(tasks)
    predictor = load(run, device=device, precision=precision, runtime=runtime)
    predictor = predictor.at_sizes(score_sizes, map_sizes, mirror)
    if data is None:
        data, split = scored_data(run, split=split)
    return write_submission(predictor, data, out, split=split, tasks=tasks, crf=crf, overwrite=overwrite)


def fit_run_background(run: Path, predictor: Predictor, mode: Mode) -> FittedBackground:
    """Fit the background of a run's masks on the masks of its training split, and keep it in the run directory.

    Raises:
        WildcatError: if the split has no masks, or the mode is "class" and the model has no background class.
    """
    config = read_settings(run)
    split = config.train_split or default_splits(config.data)[0]
    background, miou = fit_masks(predictor, config.data, split, mode, config.on_bad_image)
    save_background(run, background, f"{config.data} {split}", miou)
    return FittedBackground(background, split, miou)


def training_overlap(run: str | Path, dataset: Dataset) -> list[str]:
    """Warnings, with numbers, where images of a dataset were used to train a run.

    Returns:
        Sentences; none for a model that is not a run, or whose training data are no longer where they were.
    """
    if not Path(run).is_dir():
        return []
    try:
        trained_on = training_images(read_settings(Path(run)))
    except WildcatError:
        return []
    return shared_image_warnings(trained_on, dataset, "scored")


def merge_earlier(results: Results, file: Path) -> Results:
    """Results, with the tasks that a results.json holds from an earlier call.

    Earlier tasks are taken over if they are of the same images, versions, sizes, precision and runtime, and if neither
    the weights nor the background beside the file have changed since. Tasks that were scored again replace those of
    the file.
    """
    if not file.is_file() or any(_is_newer(file.parent / name, file) for name in (WEIGHTS, BACKGROUND)):
        return results
    before = read_results(file)
    if results.combination is not None or before.combination is not None:
        return results
    same = [(one.data, one.split, one.images, one.versions) for one in (before, results)]
    inference, earlier = results.inference, before.inference
    map_sizes = earlier.map_sizes if inference.map_sizes is None else inference.map_sizes
    agree = replace(inference, map_sizes=None) == replace(earlier, map_sizes=None)
    agree = agree and earlier.map_sizes in (None, map_sizes)
    kept = [task for task in before.tasks if task not in results.tasks]
    if same[0] != same[1] or not agree or not kept:
        return results
    sections = {task: getattr(before, task) for task in kept}
    return replace(results, **sections, inference=replace(inference, map_sizes=map_sizes))


def _is_newer(one: Path, other: Path) -> bool:
    """Whether a file exists and was written after another."""
    return one.is_file() and one.stat().st_mtime_ns > other.stat().st_mtime_ns


def scored_data(run: str | Path, data: str | None = None, split: str | None = None) -> tuple[str, str]:
    """Dataset and split on which a run is scored; a dataset that was not given is named in the log.

    Args:
        run: the run, or the name of a model.
        data: the dataset, kind:path; that of the run's results.json unless given, else the one it was trained on.
        split: that of the run's results.json, if it is of the same data, or else the dataset's usual scoring split,
            unless given.

    Raises:
        WildcatError: if no dataset is given and none is known of the run.
    """
    file = results_file(run)
    before = read_results(file) if file is not None and file.is_file() else None
    asked = data
    if data is None:
        data = before.data if before is not None else None if file is None else read_settings(Path(run)).data
        if data is None or data.startswith("converted:"):  # converted weights of the authors' code, see convert.py
            raise WildcatError(f"{run} has no dataset of its own; name the dataset to score on with --data")
    if split is None and before is not None and before.data == data:
        split = before.split
    split = split or default_splits(data)[1]
    if asked is None:
        logger.info("data: %s %s, as none was given", data, split)
    return data, split
