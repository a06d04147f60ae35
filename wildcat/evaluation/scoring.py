"""The scores of a model on a dataset: predictor, dataset and metrics in, results out."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import PIL
import torch
from tqdm import tqdm

from wildcat import metrics
from wildcat._version import __version__
from wildcat.data import Dataset, check_dataset
from wildcat.data.registry import open_dataset
from wildcat.data.truth import truth_problem
from wildcat.errors import WildcatError, check_choice
from wildcat.evaluation.classes import in_model_classes
from wildcat.evaluation.scored_data import choose_scored_data, is_training_data, training_overlap
from wildcat.masks import Background
from wildcat.metrics.scores import TASKS, Scores, SegmentationScores
from wildcat.prediction.items import dataset_items
from wildcat.prediction.predictor import Predictor
from wildcat.prediction.result import Prediction
from wildcat.runs.image_record import ImageRecord
from wildcat.runs.results import Inference, Part, Results, describe_scored
from wildcat.runs.scales import MEAN, OBJECT_BANK

AllowedClasses: TypeAlias = Literal["predicted", "image"]
"""Which classes a mask may hold: those predicted, or those of the image's true labels."""

logger = logging.getLogger(__name__)


def check_tasks(tasks: Sequence[str]) -> None:
    """Check the names of tasks.

    Raises:
        WildcatError: for an unknown one; the message names the allowed ones and the closest match.
    """
    for task in tasks:
        check_choice(task, TASKS, "task")


def scorable_tasks(dataset: Dataset, tasks: Sequence[str] | None = None) -> list[str]:
    """The tasks that can be scored on a dataset; a warning in the log says why others are left out.

    Args:
        dataset: with readable images.
        tasks: those that were asked for; unless given, classification, and pointing where there are boxes.

    Raises:
        WildcatError: if no task is left, or one that was asked for has boxes or masks that lack or do not fit images.
    """
    usual = ["classification", "pointing"] if dataset.has_boxes else ["classification"]
    annotations = {"pointing": ("boxes", dataset.has_boxes), "segmentation": ("masks", dataset.has_masks)}
    scorable = []
    for task in usual if tasks is None else tasks:
        what, has = annotations.get(task, ("labels", True))
        if not has:
            logger.warning("%s has no %s: %s is left out", dataset.spec, what, task)
        elif (problem := _missing_boxes(dataset, task) or truth_problem(dataset, task)) is None:
            scorable.append(task)
        elif tasks is None:
            logger.warning("%s; %s is left out", problem, task)
        else:
            raise WildcatError(f"{problem}; leave {task} out of the tasks to score the others")
    if not scorable:
        raise WildcatError(f"{dataset.spec} {dataset.split} has no annotations for the tasks to score")
    return scorable


def _missing_boxes(dataset: Dataset, task: str) -> str | None:
    """Why points cannot be scored where some images have no annotated boxes; None where all have, and for other tasks.

    The sentence names the first of these images, and their number.
    """
    without = [sample.name for sample in dataset.samples if sample.boxes is None] if task == "pointing" else []
    if not without:
        return None
    return (
        f"{dataset.spec}: {without[0]} has no boxes, so points cannot be scored on this split "
        f"({len(without)} of {len(dataset)} images have none)"
    )


def need_maps(tasks: Sequence[str]) -> bool:
    """Whether a task needs points or masks, so that images are processed at the sizes of maps too."""
    return "pointing" in tasks or "segmentation" in tasks


def open_scored(data: str, split: str, classes: Sequence[str], on_bad_image: str = "error") -> Dataset:
    """Open a split of a dataset for a model: check its images, and give it the model's classes.

    Args:
        data: the dataset, kind:path.
        split: name of the split.
        classes: the model's, in the order of its scores.
        on_bad_image: "error" to raise for images that are missing, have unreadable headers or repeated names; "skip"
            to decode every image, and to leave out, with a warning in the log, those that cannot be decoded; "partial"
            to decode every image, and to read JPEGs that were cut as far as they go.

    Returns:
        The dataset, with the model's classes in the model's order; a warning in the log names those that differ
        (:func:`wildcat.evaluation.classes.in_model_classes`).

    Raises:
        WildcatError: for bad images, or if the dataset has no class of the model.
    """
    dataset, warnings = open_with_warnings(data, split, classes, on_bad_image)
    for warning in warnings:
        logger.warning("%s", warning)
    return dataset


def open_with_warnings(
    data: str, split: str, classes: Sequence[str], on_bad_image: str = "error"
) -> tuple[Dataset, list[str]]:
    """As :func:`open_scored`, with the warnings about classes instead of a log of them."""
    dataset = open_dataset(data, split)
    for warning in dataset.warnings:
        logger.warning("%s", warning)
    in_model_classes(dataset, classes)  # raises before all images are read
    dataset, report = check_dataset(dataset, on_bad_image=on_bad_image, decode=on_bad_image != "error")
    if report.has_bad_images or report.cut:
        logger.warning("%s", report)
    return in_model_classes(dataset, classes)


def evaluate(
    predictor: Predictor,
    data: str | Dataset,
    *,
    split: str | None = None,
    tasks: Sequence[str] | None = None,
    on_bad_image: str = "error",
    labels: AllowedClasses = "predicted",
    crf: bool = False,
) -> Results:
    """Score a model on a dataset.

    For a model of several scales, each scale and each combination is scored, and every image is decoded once;
    ``results.scales`` and ``results.combinations`` hold their scores. An Object Bank is not scored on a split that
    holds images that it was fitted on.

    Args:
        predictor: from :func:`wildcat.load`.
        data: a dataset, kind:path; or one from :func:`open_scored`.
        split: of a path. Unless given, the held-out part of the data that the run was trained on, and all images of
            other data that have no splits of their own (:func:`wildcat.evaluation.scored_data.choose_scored_data`).
        tasks: out of "classification", "pointing" and "segmentation"; those for which the dataset has no annotation
            are left out, with a warning in the log. Unless given, classification, and pointing where all images have
            boxes that fit them.
        on_bad_image: "error", "skip" or "partial", as for :func:`open_scored`.
        labels: which classes a mask may hold: those "predicted", or those of the true labels of the "image".
        crf: score masks refined by the dense CRF as well.

    Returns:
        The scores, in per cent; a score that is not defined is NaN. Of a path, ``part`` says what the images are to the
        training, and ``warnings`` how many were trained on and which classes differ from the model's.

    Raises:
        WildcatError: for an unknown task, no class of the model's, or no task that the dataset allows.

    >>> import wildcat
    >>> predictor = wildcat.load("runs/voc07")  # doctest: +SKIP
    >>> results = wildcat.evaluate(predictor, "voc07:data")  # doctest: +SKIP
    >>> results.classification.map_area, results.pointing.map  # doctest: +SKIP
    (89.6, 84.5)
    """
    check_tasks(tasks or ())
    start = time.perf_counter()
    part: Part = "unknown"
    warnings: list[str] = []
    record = ImageRecord()
    if isinstance(data, str):
        chosen = choose_scored_data(predictor.run, data, split)
        part, classes = chosen.part, predictor.settings.classes
        dataset, warnings = open_with_warnings(chosen.data, chosen.split, classes, on_bad_image)
        if predictor.run is not None:
            record = ImageRecord.of(dataset)
            warnings += training_overlap(predictor.run, dataset, record)
        for warning in warnings:
            logger.warning("%s", warning)
        logger.info("scoring %s", describe_scored(len(dataset), chosen.data, chosen.split, part))
    else:
        dataset = data
    tasks = scorable_tasks(dataset, tasks)
    scores = collect(predictor, dataset, tasks, labels=labels, crf=crf)
    results = build_results(predictor, scores, time.perf_counter() - start)
    if isinstance(data, str) and predictor.run is not None:
        results = replace(results, model=predictor.model_fingerprint, images_digest=record.digest)
    return replace(results, part=part, warnings=tuple(warnings))


def collect(
    predictor: Predictor,
    dataset: Dataset,
    tasks: Sequence[str] = ("classification", "pointing"),
    *,
    labels: AllowedClasses = "predicted",
    crf: bool = False,
) -> dict[str, "ScoreAccumulator"]:
    """Predict every image of a dataset once, at the sizes that the tasks need.

    Returns:
        Part of the predictor -> its predictions, collected for the metrics. A single model has one part,
        ``predictor.chosen``; a model of several scales has one for each scale and each combination.
    """
    parts = scored_parts(predictor, dataset.spec, dataset.split)
    scores = {part: ScoreAccumulator(dataset, tasks, labels, crf) for part in parts}
    bar = tqdm(total=len(dataset), desc=f"scoring {dataset.split}", unit=" images", disable=None)
    for index, each in enumerate(predictor.stream_each(dataset_items(dataset), outputs=parts, maps=need_maps(tasks))):
        for part, prediction in each.items():
            scores[part].update(index, prediction)
        bar.update()
    bar.close()
    return scores


def build_results(predictor: Predictor, scores: dict[str, "ScoreAccumulator"], seconds: float) -> Results:
    """The results of a predictor from the predictions that :func:`collect` gathered in ``seconds``."""
    by_part = {part: score.result(predictor.outputs[part].background) for part, score in scores.items()}
    chosen = predictor.chosen if predictor.chosen in by_part else MEAN
    dataset, settings = scores[chosen].dataset, predictor.settings
    results = Results(
        data=dataset.spec,
        split=dataset.split,
        images=len(dataset),
        **{task: getattr(by_part[chosen], task) for task in by_part[chosen].tasks},
        inference=Inference(
            score_sizes=settings.score_sizes,
            map_sizes=settings.map_sizes if need_maps(scores[chosen].tasks) else None,
            mirror=settings.mirror,
            precision=predictor.precision,
            runtime=predictor.runtime,
        ),
        seconds=round(seconds, 2),
        versions={"wildcat": __version__, "torch": torch.__version__, "pillow": PIL.__version__},
    )
    if predictor.combine is None:
        return results
    scales = {name.removeprefix("scale-"): by_part.pop(name) for name in predictor.parts}
    return replace(results, combination=chosen, scales=scales, combinations=by_part)


def scored_parts(predictor: Predictor, data: str, split: str) -> list[str]:
    """The parts of a predictor to score: all, except an Object Bank that was fitted on images of this split."""
    parts = list(predictor.outputs)
    if predictor.combine is not None and predictor.combine.fitted_on is not None:
        fitted_on, fitted_split = predictor.combine.fitted_on
        same = fitted_on.partition(":")[0] == data.partition(":")[0]
        same = same and (predictor.run is None or is_training_data(predictor.run, data))
        if same and _share_images(fitted_split, split):
            logger.warning("the Object Bank was fitted on images of %s: it is not scored on %s", fitted_split, split)
            parts.remove(OBJECT_BANK)
    return parts


def _share_images(*splits: str) -> bool:
    """Whether two splits of a dataset may share images, by their names; a split "seg-X" is a part of the split "X".

    >>> _share_images("train", "trainval"), _share_images("seg-val", "all"), _share_images("trainval", "test")
    (True, True, False)
    """
    parts = {"trainval": {"train", "val"}, "all": {"train", "val", "test", "all"}}
    one, other = (parts.get(name, {name}) for name in (split.removeprefix("seg-") for split in splits))
    return not one.isdisjoint(other)


def headline(scores: Any, dataset: Dataset) -> float:
    """The main score of a classification in per cent: mAP (area), or accuracy where each image has one class.

    Args:
        scores: (N, C), one row per image of the dataset.
        dataset: N images.
    """
    if dataset.multi_label:
        return 100 * metrics.classification_result(scores, dataset.labels, dataset.classes).map_area
    return 100 * metrics.multi_class_result(scores, dataset.labels, dataset.classes).accuracy


class ScoreAccumulator:
    """Collects the predictions of one part of a predictor, image by image, for the metrics of some tasks.

    Attributes:
        dataset: N images.
        tasks: the tasks to score.
        classification: probabilities and labels; collected for every task.
        pointing: points and boxes, or None if that is not a task.
        masks: pixels of the masks, or None if segmentation is not a task.
    """

    def __init__(self, dataset: Dataset, tasks: Sequence[str], labels: AllowedClasses, crf: bool) -> None:
        self.dataset, self.tasks = dataset, tasks
        self.classification = metrics.ClassificationAccumulator(dataset.classes, dataset.multi_label)
        self.pointing = metrics.PointingAccumulator(dataset.classes) if "pointing" in tasks else None
        self.masks = MaskAccumulator(dataset, labels, crf) if "segmentation" in tasks else None
        self._labels = dataset.labels
        self._without_boxes: str | None = None  # an image for which points cannot be scored

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """(N, C) probabilities of the images so far."""
        return self.classification.scores

    def update(self, index: int, prediction: Prediction) -> None:
        """Add the prediction for an image of the dataset; images are added in their order."""
        self.classification.update(prediction.probabilities, self._labels[index])
        if self.pointing is not None:
            sample = self.dataset.samples[index]
            boxes, classes, difficult = sample.boxes, sample.box_classes, sample.box_difficult
            if boxes is None or classes is None or difficult is None:
                self._without_boxes = sample.name
                boxes, classes, difficult = np.empty((0, 4), np.float32), np.empty(0, np.int64), np.empty(0, np.bool_)
            self.pointing.update(prediction.point_array, prediction.probabilities, boxes, classes, difficult)
        if self.masks is not None:
            self.masks.update(index, prediction)

    def result(self, background: Background) -> Scores:
        """The scores of all images, in per cent.

        Args:
            background: what the masks had as background; it is recorded with their scores.

        Raises:
            WildcatError: if points are to be scored and an image has no boxes.
        """
        if self._without_boxes is not None:
            message = f"{self._without_boxes} has no boxes, so points cannot be scored on this split"
            raise WildcatError(f"{self.dataset.spec}: {message}")
        return Scores(
            classification=self.classification.result().scores() if "classification" in self.tasks else None,
            pointing=None if self.pointing is None else self.pointing.result().scores(),
            segmentation=None if self.masks is None else self.masks.result(background),
        )


class MaskAccumulator:
    """Collects the pixels of the masks of a dataset, with and without CRF; images without a true mask are skipped.

    Args:
        dataset: whose true masks are compared with.
        labels: which classes a mask may hold.
        crf: whether masks refined by the dense CRF are scored as well.
    """

    def __init__(self, dataset: Dataset, labels: AllowedClasses, crf: bool) -> None:
        self.dataset, self.labels = dataset, labels
        size = len(dataset.classes) + 1
        self.plain = metrics.ConfusionMatrix(size)
        self.crf = metrics.ConfusionMatrix(size) if crf else None
        self.images = 0

    def update(self, index: int, prediction: Prediction) -> None:
        """Count the pixels of an image."""
        truth = self.dataset.mask(index)
        if truth is None:
            return
        allowed = self._allowed(index)
        self.plain.update(prediction.mask(allowed=allowed), truth, prediction.name)
        if self.crf is not None:
            self.crf.update(prediction.mask(allowed=allowed, crf=True), truth, prediction.name)
        self.images += 1

    def _allowed(self, index: int) -> list[int] | None:
        """Classes of the true labels, difficult ones too, or None for those predicted."""
        if self.labels == "predicted":
            return None
        return [int(c) for c in np.flatnonzero(self.dataset.samples[index].labels >= 0)]

    def result(self, background: Background) -> SegmentationScores:
        """The scores of all masks, in per cent.

        Args:
            background: what the masks had as background; it is recorded with their scores.
        """
        names = ("background", *self.dataset.classes)
        scores = self.plain.result(names).scores()
        if self.crf is not None:
            refined = self.crf.result(names).scores()
            per_class = {
                name: replace(each, iou_crf=refined.per_class[name].iou) for name, each in scores.per_class.items()
            }
            scores = replace(
                scores, miou_crf=refined.miou, miou_crf_interval=refined.miou_interval, per_class=per_class
            )
        return replace(scores, background=str(background), labels=self.labels, images=self.images)
