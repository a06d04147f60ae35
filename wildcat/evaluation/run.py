"""Evaluation of a run: what ``wildcat evaluate`` does, as functions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wildcat.data.registry import default_splits
from wildcat.errors import WildcatError
from wildcat.evaluation.background import fit_masks
from wildcat.evaluation.scored_data import data_of_run
from wildcat.evaluation.scoring import AllowedClasses, check_tasks, evaluate
from wildcat.evaluation.submission import write_submission
from wildcat.export.network import Runtime
from wildcat.masks import Background, Mode
from wildcat.metrics.scores import TASKS
from wildcat.prediction.loading import load
from wildcat.prediction.predictor import Predictor
from wildcat.runs.folder import read_settings, save_background
from wildcat.runs.kept_results import add_results, find_results
from wildcat.runs.results import Results, read_results, results_file, write_results
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
        results: the scores on this data and split; with other tasks of earlier calls, where they were kept.
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

    The results.json of the run keeps the results on other data and splits, and those of other tasks where they are of
    the same images, model and settings (:func:`wildcat.runs.kept_results.add_results`). Warnings say how many of the
    scored images the run was trained on.

    Args:
        run: a run directory, the name of a model on the hub, "imagenet", or an exported file.
        data: the dataset, kind:path; unless given, that of the run's results.json, else the one of the training.
        split: the split; unless given, the held-out part of the training data, and all of other data
            (:func:`wildcat.evaluation.scored_data.choose_scored_data`), or, if no dataset is given either, the split of
            the run's results.json.
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
        WildcatError: for an unknown task, a dataset without a class of the model, images that cannot be read, or a run,
            file or results.json that is missing or damaged.

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
        data, split = data_of_run(_local(run, predictor), split)
    target = Path(file) if file is not None else results_file(run)
    earlier = None
    if save and file is None and target is not None and target.is_file():
        earlier = read_results(target)  # a damaged file is an error before hours of scoring
    fitted = None
    if fit_background is not None:
        fitted = fit_run_background(Path(run), predictor, fit_background)
        predictor = opened()
    results = evaluate(predictor, data, split=split, tasks=tasks, on_bad_image=on_bad_image, labels=labels, crf=crf)
    if not save or target is None:
        return RunEvaluation(results, None, fitted)
    content = results
    if earlier is not None:  # another file may hold the results of another model
        if earlier.tasks and earlier.model != results.model:
            whose = "another model" if earlier.model else "a model that it does not name"
            logger.warning("%s held scores of %s (%s): they are replaced", target, whose, ", ".join(earlier.tasks))
        content = add_results(earlier, results, str(predictor.settings.background))
        results = find_results(content, results.data, results.split, results.part) or results
    try:
        write_results(target, content)
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
        out: as for :func:`wildcat.evaluation.submission.write_submission`, and so are split, tasks, crf and overwrite.

    Returns:
        The folders written, one per task.

    Raises:
        WildcatError: as :func:`wildcat.evaluation.submission.write_submission`, and if no dataset is known of the run.

    >>> submit_run("runs/voc12", Path("upload"), "voc12:data")  # doctest: +SKIP
    """
    predictor = load(run, device=device, precision=precision, runtime=runtime)
    predictor = predictor.at_sizes(score_sizes, map_sizes, mirror)
    if data is None:
        data, _ = data_of_run(_local(run, predictor))
    return write_submission(predictor, data, out, split=split, tasks=tasks, crf=crf, overwrite=overwrite)


def _local(run: str | Path, predictor: Predictor) -> Path:
    """The run directory that knows a dataset of this machine; that of a model of the hub does not."""
    return predictor.run if predictor.run is not None and Path(run).exists() else Path(run)


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
