"""Scores of a model on a dataset: predictor + data + metrics -> results."""

import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import PIL
import torch
from tqdm import tqdm

from wildcat import metrics
from wildcat._version import __version__
from wildcat.data import Dataset, check_dataset
from wildcat.data.registry import default_splits, open_dataset
from wildcat.errors import WildcatError, check_choice, shorten
from wildcat.evaluation.results import TASKS
from wildcat.masks import Background
from wildcat.prediction.items import dataset_items
from wildcat.prediction.predictor import Predictor
from wildcat.prediction.result import Prediction
from wildcat.runs.scales import MEAN, OBJECT_BANK


def check_tasks(tasks: Sequence[str]) -> None:
    """Reject what is no task.

    Raises:
        WildcatError: with the task that was perhaps meant.
    """
    for task in tasks:
        check_choice(task, TASKS, "task")


def usual_tasks(dataset: Dataset) -> list[str]:
    """What is scored where nothing is asked for."""
    return ["classification", "pointing"] if dataset.has_boxes else ["classification"]


def need_maps(tasks: Sequence[str]) -> bool:
    """Whether a task looks at where things are: images are then read at the sizes of maps too."""
    return "pointing" in tasks or "segmentation" in tasks


def with_classes(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    """Check that a dataset has the model's classes in the model's order.

    Raises:
        WildcatError: naming the first classes that differ.
    """
    if tuple(dataset.classes) != tuple(classes):
        missing = sorted(set(classes) - set(dataset.classes))
        unknown = sorted(set(dataset.classes) - set(classes))
        message = f"{dataset.spec} has other classes than the model: "
        if not missing and not unknown:
            raise WildcatError(f"{message}the order differs")
        raise WildcatError(f"{message}the dataset lacks {shorten(missing)}, the model lacks {shorten(unknown)}")
    return dataset


def open_scored(data: str, split: str, classes: Sequence[str], on_bad_image: str = "error") -> Dataset:
    """The images of a split that a model of these classes can be looked at on.

    Args:
        data: a dataset, kind:path.
        split: of it.
        classes: the model's.
        on_bad_image: "error" to raise for images that are not there, whose headers cannot be read or whose names
            repeat; "skip" to decode each image, and to leave out, with a report, those that cannot be.

    Raises:
        WildcatError: for bad images, or other classes.
    """
    dataset = with_classes(open_dataset(data, split), classes)
    dataset, report = check_dataset(dataset, on_bad_image=on_bad_image, decode=on_bad_image == "skip")
    if report.has_bad_images:
        print(report, file=sys.stderr)
    return dataset


def evaluate(
    predictor: Predictor,
    data: str | Dataset,
    *,
    split: str | None = None,
    tasks: Sequence[str] | None = None,
    on_bad_image: str = "error",
    labels: Literal["predicted", "image"] = "predicted",
    crf: bool = False,
) -> dict[str, Any]:
    """Score a model.

    Of a folder of runs at several scales each scale and each combination is scored; every image is read once. The
    tasks of the combination that reads images stand where those of a single run do, and beside them::

        "combination": "mean", "scales": {"224": {"classification": ...}, ...}, "combinations": {"mean": ..., ...}

    An Object Bank is never scored on a split that holds images that it was fitted on.

    Args:
        predictor: from :func:`wildcat.load`.
        data: a dataset, kind:path; or one from :func:`open_scored`.
        split: of a path, the dataset's usual scoring split unless given.
        tasks: out of classification, pointing, segmentation; those that the data has no annotation for are left out
            with a note. Classification, and pointing where there are boxes, unless given.
        on_bad_image: "error" or "skip".
        labels: which classes a mask may hold: those predicted, or those of the image's true labels.
        crf: score masks refined by the dense CRF as well.

    Returns:
        The content of results.json; scores in per cent.

    Raises:
        WildcatError: for an unknown task, or other classes than the model's.
    """
    check_tasks(tasks or ())
    start = time.perf_counter()
    if isinstance(data, str):
        split = split or default_splits(data)[1]
        dataset = open_scored(data, split, predictor.settings.classes, on_bad_image)
    else:
        dataset = data
    tasks = usual_tasks(dataset) if tasks is None else tasks
    for task, what, has in (("pointing", "boxes", dataset.has_boxes), ("segmentation", "masks", dataset.has_masks)):
        if task in tasks and not has:
            print(f"{dataset.spec} has no {what}: {task} is left out", file=sys.stderr)
            tasks = [other for other in tasks if other != task]
    if not tasks:
        raise WildcatError(f"{dataset.spec} {dataset.split} has nothing to score of what was asked for")
    scores = collect(predictor, dataset, tasks, labels=labels, crf=crf)
    return build_results(predictor, scores, time.perf_counter() - start)


def collect(
    predictor: Predictor,
    dataset: Dataset,
    tasks: Sequence[str] = ("classification", "pointing"),
    *,
    labels: Literal["predicted", "image"] = "predicted",
    crf: bool = False,
) -> dict[str, "ScoreAccumulator"]:
    """Read every image of a dataset once, at the sizes that the tasks need: what each part of the predictor says."""
    parts = scored_parts(predictor, dataset.spec, dataset.split)
    scores = {part: ScoreAccumulator(dataset, tasks, labels, crf) for part in parts}
    bar = tqdm(total=len(dataset), desc=f"scoring {dataset.split}", unit=" images", disable=None)
    for index, each in enumerate(predictor.stream_each(dataset_items(dataset), outputs=parts, maps=need_maps(tasks))):
        for part, prediction in each.items():
            scores[part].update(index, prediction)
        bar.update()
    bar.close()
    return scores


def build_results(predictor: Predictor, scores: dict[str, "ScoreAccumulator"], seconds: float) -> dict[str, Any]:
    """The content of results.json: what :func:`collect` found, in figures."""
    found = {part: score.to_dict(predictor.outputs[part].background) for part, score in scores.items()}
    chosen = predictor.chosen if predictor.chosen in found else MEAN
    dataset = scores[chosen].dataset
    results: dict[str, Any] = {"data": dataset.spec, "split": dataset.split, "images": len(dataset), **found[chosen]}
    settings, maps = predictor.settings, need_maps(scores[chosen].tasks)
    results["reading"] = {
        "score_sizes": list(settings.score_sizes),
        **({"map_sizes": list(settings.map_sizes)} if maps else {}),
        "mirror": settings.mirror,
        "precision": predictor.precision,
        "runtime": predictor.runtime,
    }
    if predictor.combine is not None:
        results["combination"] = chosen
        results["scales"] = {name.removeprefix("scale-"): found.pop(name) for name in predictor.parts}
        results["combinations"] = found
    results["seconds"] = round(seconds, 2)
    results["versions"] = {"wildcat": __version__, "torch": torch.__version__, "pillow": PIL.__version__}
    return results


def scored_parts(predictor: Predictor, data: str, split: str) -> list[str]:
    """The parts of a predictor but an Object Bank that was fitted on images of this split."""
    parts = list(predictor.outputs)
    if predictor.combine is not None and predictor.combine.fitted_on is not None:
        fitted_on, fitted_split = predictor.combine.fitted_on
        if fitted_on.partition(":")[0] == data.partition(":")[0] and _share_images(fitted_split, split):
            message = f"the Object Bank was fitted on images of {fitted_split}: it is not scored on {split}"
            print(message, file=sys.stderr)
            parts.remove(OBJECT_BANK)
    return parts


def _share_images(*splits: str) -> bool:
    """Whether two splits of a dataset may share images, by their names; those with masks are parts of the others.

    >>> _share_images("train", "trainval"), _share_images("seg-val", "all"), _share_images("trainval", "test")
    (True, True, False)
    """
    parts = {"trainval": {"train", "val"}, "all": {"train", "val", "test", "all"}}
    one, other = (parts.get(name, {name}) for name in (split.removeprefix("seg-") for split in splits))
    return not one.isdisjoint(other)


def headline(scores: Any, dataset: Dataset) -> float:
    """The figure of a classification, in per cent: mAP (area), or accuracy where each image has one class."""
    if dataset.multi_label:
        return 100 * metrics.classification_result(scores, dataset.labels, dataset.classes).map_area
    return 100 * metrics.multi_class_result(scores, dataset.labels, dataset.classes).accuracy


class ScoreAccumulator:
    """What one way of reading a dataset is worth, image by image."""

    def __init__(
        self, dataset: Dataset, tasks: Sequence[str], labels: Literal["predicted", "image"], crf: bool
    ) -> None:
        self.dataset, self.tasks = dataset, tasks
        self.probabilities = np.empty((len(dataset), len(dataset.classes)), dtype=np.float32)
        self.points = np.empty((*self.probabilities.shape, 2))
        self.masks = MaskScore(dataset, labels, crf) if "segmentation" in tasks else None

    def update(self, index: int, prediction: Prediction) -> None:
        """Take in what is said of an image."""
        self.probabilities[index] = prediction.probabilities
        self.points[index] = prediction.point_array
        if self.masks is not None:
            self.masks.update(index, prediction)

    def to_dict(self, background: Background) -> dict[str, Any]:
        """The tasks' parts of results.json."""
        dataset, found = self.dataset, {}
        if "classification" in self.tasks:
            score = metrics.classification_result if dataset.multi_label else metrics.multi_class_result
            found["classification"] = score(self.probabilities, dataset.labels, dataset.classes).to_dict()
        if "pointing" in self.tasks:
            found["pointing"] = score_points(dataset, self.probabilities, self.points).to_dict()
        if self.masks is not None:
            found["segmentation"] = self.masks.to_dict(background)
        return found


class MaskScore:
    """Confusion matrices of a dataset's masks, with and without CRF; images without a mask are passed over."""

    def __init__(self, dataset: Dataset, labels: Literal["predicted", "image"], crf: bool) -> None:
        self.dataset, self.labels = dataset, labels
        size = len(dataset.classes) + 1
        self.plain = metrics.ConfusionMatrix(size)
        self.crf = metrics.ConfusionMatrix(size) if crf else None
        self.images = 0

    def allowed(self, index: int) -> list[int] | None:
        """Classes of the true labels, difficult ones too, or None for those predicted."""
        if self.labels == "predicted":
            return None
        return [int(c) for c in np.flatnonzero(self.dataset.samples[index].labels >= 0)]

    def update(self, index: int, prediction: Prediction) -> None:
        """Count an image's pixels."""
        truth = self.dataset.mask(index)
        if truth is None:
            return
        allowed = self.allowed(index)
        self.plain.update(prediction.mask(allowed=allowed), truth, prediction.name)
        if self.crf is not None:
            self.crf.update(prediction.mask(allowed=allowed, crf=True), truth, prediction.name)
        self.images += 1

    def to_dict(self, background: Background) -> dict[str, Any]:
        """The segmentation part of results.json."""
        names = ("background", *self.dataset.classes)
        values = metrics.segmentation_result(self.plain, names).to_dict()
        if self.crf is not None:
            refined = metrics.segmentation_result(self.crf, names).to_dict()
            values |= {"miou_crf": refined["miou"], "per_class_crf": refined["per_class"]}
        return values | {"background": str(background), "labels": self.labels, "pictures": self.images}


def score_points(dataset: Dataset, probabilities: Any, points: Any) -> metrics.PointingResult:
    """Pointwise localisation of a dataset whose samples all have boxes (perhaps none in an image)."""
    boxes, box_classes, difficult = [], [], []
    for sample in dataset.samples:
        if sample.boxes is None or sample.box_classes is None or sample.box_difficult is None:
            raise WildcatError(f"{dataset.spec}: {sample.name} has no boxes, so points cannot be scored on this split")
        boxes.append(sample.boxes)
        box_classes.append(sample.box_classes)
        difficult.append(sample.box_difficult)
    return metrics.pointing_result(points, probabilities, boxes, box_classes, difficult, dataset.classes)
