"""results.json of a run: where it is, of which data it is, how it is told, whether it is to be believed."""

from pathlib import Path
from typing import Any

from wildcat.data import Dataset, shared_image_warnings
from wildcat.data.registry import default_splits
from wildcat.errors import WildcatError
from wildcat.runs.folder import BACKGROUND, WEIGHTS, read_settings
from wildcat.runs.training_set import learnt_from
from wildcat.system.files import read_json

TASKS = ("classification", "pointing", "segmentation")

# How figures are told: task -> key in results.json -> name; in per cent.
TOLD = {
    "classification": {
        "map_area": "mAP",
        "map_11point": "11-point mAP",
        "map_step": "step mAP",
        "accuracy": "accuracy",
        "mean_class_accuracy": "mean over classes",
    },
    "pointing": {
        "map": "mAP of points",
        "map_tolerance_0": "without tolerance",
        "accuracy": "points on their object",
    },
    "segmentation": {"miou": "mIoU", "miou_crf": "mIoU with CRF"},
}


def summary(results: dict[str, Any]) -> str:
    """The headline figures, a line each."""
    lines = [f"{results['data']} {results['split']}: {results['images']} images, {results['seconds']:.0f} s"]
    if "combinations" in results:
        for name, each in ({f"scale {k}": v for k, v in results["scales"].items()} | results["combinations"]).items():
            lines += [name + (" (reads images)" if name == results["combination"] else ""), *_headlines(each)]
        return "\n".join(lines)
    return "\n".join([*lines, *_headlines(results)])


def _headlines(results: dict[str, Any]) -> list[str]:
    lines = []
    for task, names in TOLD.items():
        values = results.get(task, {})
        shown = [f"{name} {values[key]:.1f}" for key, name in names.items() if values.get(key) is not None]
        if shown and task == "segmentation":
            shown.append(f"background {values['background']}, classes of {values['labels']} labels")
        if shown or task in results:
            lines.append(f"  {task}: {', '.join(shown) or 'no class has a label here, so there is nothing to score'}")
    return lines


def seen_in_training(run: str | Path, dataset: Dataset) -> list[str]:
    """A sentence, with numbers, if images of a dataset were trained on; nothing for a model without a run, or whose
    training data are no longer there."""
    if not Path(run).is_dir():
        return []
    try:
        trained_on = learnt_from(read_settings(Path(run)))
    except WildcatError:
        return []
    return shared_image_warnings(trained_on, dataset, "scored")


def with_earlier(results: dict[str, Any], file: Path) -> dict[str, Any]:
    """Results with the tasks that a file holds of an earlier call, if they are of the same images, read alike.

    Not those of another model or background: of files of the run that have changed since.
    """
    if not file.is_file() or any(newer(file.parent / name, file) for name in (WEIGHTS, BACKGROUND)):
        return results
    before = read_json(file)
    same = ("data", "split", "images", "versions")
    if "combinations" in results or "combinations" in before or any(before.get(k) != results[k] for k in same):
        return results
    reading, other = results["reading"], before.get("reading", {})
    if any(reading[key] != other[key] for key in reading.keys() & other.keys()):
        return results
    kept = {task: before[task] for task in TASKS if task in before and task not in results}
    return results | kept | {"reading": other | reading} if kept else results


def newer(one: Path, other: Path) -> bool:
    """Whether a file is there and was written after another."""
    return one.is_file() and one.stat().st_mtime_ns > other.stat().st_mtime_ns


def data_of(run: str | Path, data: str | None = None, split: str | None = None) -> tuple[str, str]:
    """Dataset and split on which a run is looked at: what is not given is that of its results.json, else the data that
    it was trained on and their usual scoring split.

    Raises:
        WildcatError: if no data are given, and none are known of the run.
    """
    kept, file = {}, results_file(run)
    if file is not None and file.is_file():
        kept = read_json(file)
    if data is None:
        data = kept.get("data") or (None if file is None else read_settings(Path(run)).data)
        if data is None or data.startswith("converted:"):  # a checkpoint of the authors', see convert.py
            raise WildcatError(f"{run} has no data of its own: say which images to score with --data")
    if split is None:
        split = kept.get("split") if kept.get("data") == data else None
    return data, split or default_splits(data)[1]


def results_file(run: str | Path) -> Path | None:
    """Where the results of a run belong: ``results.json`` in its folder."""
    return Path(run) / "results.json" if Path(run).is_dir() else None
