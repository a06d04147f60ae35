"""Exports of Label Studio (`labelstudio:`) as JSON or JSON_MIN: which annotation of an image counts, and its labels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from wildcat.data.annotated import AnnotatedImage, Choices, Content, annotated_dataset, splits_of
from wildcat.data.files import IMAGE_SUFFIXES
from wildcat.data.label_studio_regions import Labelled, read_results
from wildcat.data.names import brief
from wildcat.data.outlines import OutlinedDataset
from wildcat.data.sample import require_path
from wildcat.errors import WildcatError, check_choice, shorten

_WHAT = "give an export of Label Studio as JSON or JSON_MIN"
_IMAGE_KEYS = ("image", "img", "photo", "url")
# Keys of JSON_MIN that are neither data nor results.
_MIN_KEYS = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement", "history")
SEVERAL = ("latest", "union", "agreed")
"""Values of the option ``annotations``."""


@dataclass
class _Annotation:
    """One annotation of an image: its results as in a JSON, and what decides whether it counts."""

    results: list[Any]
    is_truth: bool = False
    date: str = ""


@dataclass
class _Task:
    """An image and its annotations."""

    image: str
    annotations: list[_Annotation] = field(default_factory=list)
    predictions: list[_Annotation] = field(default_factory=list)
    skipped: int = 0


def _load(path: Path) -> list[dict[str, Any]]:
    """The tasks of the file.

    Raises:
        WildcatError: for another file.
    """
    require_path(path, _WHAT)
    if path.is_dir():
        raise WildcatError(f"{path}: is a folder; {_WHAT}")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        hint = "; it is XML: use cvat:FILE for CVAT" if path.suffix.lower() == ".xml" else ""
        raise WildcatError(f"{path}: cannot be read as JSON: {error}{hint}") from None
    if isinstance(content, dict) and {"images", "categories"} <= content.keys():
        raise WildcatError(f"{path}: is a file of COCO instances; use coco:{path}")
    if isinstance(content, dict) and "data" in content:  # a single task, as the API gives it
        content = [content]
    if not isinstance(content, list) or not all(isinstance(item, dict) for item in content):
        raise WildcatError(f"{path}: is no list of tasks; {_WHAT}")
    if not content:
        raise WildcatError(f"{path}: holds no task; {_WHAT} with annotated images")
    return content


def _names_image(value: object) -> bool:
    if not isinstance(value, str):
        return False
    text = value.partition("?d=")[2] if "?d=" in value else value.partition("?")[0]
    return PurePosixPath(text).suffix.lower() in IMAGE_SUFFIXES


def _image_key(path: Path, data: Sequence[dict[str, Any]], given: str | None) -> str:
    """The key of the data that names the image.

    Raises:
        WildcatError: if there is none, or several.
    """
    keys = list(dict.fromkeys(key for item in data for key, value in item.items() if isinstance(value, str)))
    if given is not None:
        check_choice(given, keys, f"{path}: image_column")
        return given
    naming = [key for key in keys if any(_names_image(item.get(key)) for item in data)]
    usual = [key for key in keys if key.lower() in _IMAGE_KEYS]
    for candidates in ([key for key in naming if key in usual], naming, usual):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            raise WildcatError(
                f"{path}: {shorten(candidates)} name images; choose one with image_column={candidates[0]}"
            )
    raise WildcatError(f"{path}: no key of its tasks names an image; they are {shorten(keys, 8)}; image_column=KEY")


def _tasks(
    path: Path, items: list[dict[str, Any]], image_column: str | None, controls: Sequence[str] = ()
) -> dict[str, _Task]:
    """Image -> its task; tasks of the same image are one.

    Raises:
        WildcatError: for a task without an image or with values of other kinds.
    """
    if not any(key in item for item in items for key in ("data", "annotations", "completions", "predictions")):
        return _min_tasks(path, items, image_column, controls)
    data = [item.get("data") for item in items]
    for number, values in enumerate(data, start=1):
        if not isinstance(values, dict):
            raise WildcatError(f"{path}: task {number} has no data; {_WHAT}")
    rows: list[dict[str, Any]] = [values for values in data if isinstance(values, dict)]
    key = _image_key(path, rows, image_column)
    tasks: dict[str, _Task] = {}
    for number, (item, values) in enumerate(zip(items, rows, strict=True), start=1):
        name = values.get(key)
        if not isinstance(name, str) or not name.strip():
            raise WildcatError(f"{path}: task {item.get('id', number)} names no image in {key!r}")
        task = tasks.setdefault(name, _Task(name))
        for kind, target in (("annotations", task.annotations), ("completions", task.annotations)):
            for entry in _entries(path, item, kind):
                if entry.get("was_cancelled") or entry.get("skipped"):
                    task.skipped += 1
                    continue
                date = str(entry.get("updated_at") or entry.get("created_at") or "")
                target.append(_Annotation(entry["result"], bool(entry.get("ground_truth")), date))
        for entry in _entries(path, item, "predictions"):
            task.predictions.append(_Annotation(entry["result"], date=str(entry.get("created_at") or "")))
    return tasks


def _entries(path: Path, item: dict[str, Any], kind: str) -> Iterable[dict[str, Any]]:
    entries = item.get(kind) or []
    if not isinstance(entries, list):
        raise WildcatError(f"{path}: task {item.get('id', '?')}: {kind} must be a list")
    for entry in entries:
        if isinstance(entry, int):
            raise WildcatError(
                f"{path}: task {item.get('id', '?')}: {kind} holds only the number {entry}; export as JSON with the "
                "annotations themselves"
            )
        if not isinstance(entry, dict) or not isinstance(entry.get("result"), list):
            raise WildcatError(f"{path}: task {item.get('id', '?')}: each of its {kind} must have a list result")
        yield entry


def _min_tasks(
    path: Path, items: list[dict[str, Any]], image_column: str | None, controls: Sequence[str]
) -> dict[str, _Task]:
    """The same for JSON_MIN, an object for each annotation: the data, and the results by the name of their control."""
    rows = [{key: value for key, value in item.items() if key not in _MIN_KEYS} for item in items]
    if not any(key in item for item in items for key in ("annotator", "annotation_id", "lead_time")):
        raise WildcatError(f"{path}: is no export of Label Studio; {_WHAT}")
    key = _image_key(path, rows, image_column)
    choices = {*controls, *_choice_controls(rows, key)}
    tasks: dict[str, _Task] = {}
    for number, (item, row) in enumerate(zip(items, rows, strict=True), start=1):
        name = row.pop(key, None)
        if not isinstance(name, str) or not name.strip():
            raise WildcatError(f"{path}: task {item.get('id', number)} names no image in {key!r}")
        date = str(item.get("updated_at") or item.get("created_at") or "")
        results = [result for control, value in row.items() for result in _min_results(control, value, choices)]
        task = tasks.setdefault(name, _Task(name))
        if item.get("annotation_id") is not None or item.get("created_at") is not None:  # else it is not annotated
            task.annotations.append(_Annotation(results, date=date))
    return tasks


def _choice_controls(rows: Sequence[dict[str, Any]], image_key: str) -> set[str]:
    """The controls of choices in a JSON_MIN, where one choice is a text, as are texts and the data of tasks.

    They are those with several choices at once somewhere, else the only key with texts if there are no regions.
    """
    several: set[str] = set()
    texts: set[str] = set()
    has_regions = False
    for row in rows:
        for control, value in row.items():
            for part in value if isinstance(value, list) else [value]:
                if isinstance(part, dict):
                    is_choice = "choices" in part and len(part.keys() - {"original_width", "original_height"}) == 1
                    several |= {control} if is_choice else set()
                    has_regions |= not is_choice
                elif isinstance(part, str) and control != image_key:
                    texts.add(control)
    if several or has_regions or len(texts) != 1:
        return several
    return texts


def _min_results(control: str, value: Any, choices: set[str]) -> Iterable[dict[str, Any]]:
    """Results of JSON from those of JSON_MIN."""
    for part in value if isinstance(value, list) else [value]:
        if isinstance(part, str) and part.strip():
            kind = "choices" if control in choices else "text"
            yield {"type": kind, "from_name": control, "value": {"choices": [part]}}
        elif isinstance(part, dict):
            kind = next((key for key in part if key == "choices" or key.endswith("labels") or key == "taxonomy"), "")
            frame = {key: part[key] for key in ("original_width", "original_height", "image_rotation") if key in part}
            yield {"type": kind or "other", "from_name": control, "value": part, **frame}


def read_label_studio(
    path: Path,
    *,
    annotations: str = "latest",
    predictions: bool = False,
    controls: Sequence[str] = (),
    image_column: str | None = None,
) -> Content:
    """Read an export as JSON or JSON_MIN, or tasks with predictions that were written for an import.

    Tasks without an annotation, and tasks that were skipped, are left out: it is not known what they show. An
    annotation without results says that none of the classes is there.

    Args:
        path: the file.
        annotations: which one counts where an image has several: "latest" (ground truth before others), "union" of
            all, or "agreed": labels on which some disagree are unknown, and objects are those of the latest.
        predictions: take those of tasks without an annotation. Where the file has predictions only, they are taken
            in any case.
        controls: names of the controls whose results are read; all of them if empty.
        image_column: key of the data that names the image; found unless given.

    Raises:
        WildcatError: for another file, and for results that cannot be read; the message names the image.
    """
    items = _load(path)
    tasks = _tasks(path, items, image_column, controls)
    content = Content(path, [])
    only_predictions = not any(key in item for item in items for key in ("annotations", "completions")) and any(
        task.predictions for task in tasks.values()
    )
    if only_predictions:
        content.warnings.append("it holds predictions and no annotations, and these are taken as labels")
    found: Counter[str] = Counter()
    disagreeing = []
    for task in tasks.values():
        given = task.annotations
        if not given and (predictions or only_predictions):
            given = task.predictions
            found["predicted"] += bool(given)
        if not given:
            found["skipped" if task.skipped else "open"] += 1
            continue
        ordered = sorted(given, key=lambda entry: (entry.is_truth, entry.date), reverse=True)
        if annotations == "latest":
            ordered = ordered[:1]
        read = []
        for entry in ordered:
            try:
                read.append(read_results(entry.results, controls, found))
            except ValueError as error:
                raise WildcatError(f"{path}: {brief(task.image)}: {error}") from None
        image, agree = _joined(task.image, read, annotations)
        content.images.append(image)
        if len(given) > 1:
            found["several"] += 1
            if not agree:
                disagreeing.append(brief(task.image, 80))
    _describe(content, found, disagreeing, annotations, controls, len(tasks))
    return content


def _joined(name: str, read: Sequence[Labelled], annotations: str) -> tuple[AnnotatedImage, bool]:
    """The record of an image from its annotations that count, and whether they have the same labels."""
    first, *others = read
    agree = all(other.labels == first.labels for other in others)
    if annotations == "agreed":
        common = first.labels.intersection(*(other.labels for other in others))
        unknown = first.labels.union(*(other.labels for other in others)) - common
        tags = [tag for tag in first.tags if tag in common]
        shapes = [shape for shape in first.shapes if shape.label in common]
        return AnnotatedImage(name, first.size, tags, shapes, unknown, is_complete=True), agree
    size = next((labelled.size for labelled in read if labelled.size is not None), None)
    tags = list(dict.fromkeys(tag for labelled in read for tag in labelled.tags))
    shapes = [shape for labelled in read for shape in labelled.shapes]
    return AnnotatedImage(name, size, tags, shapes, is_complete=True), agree


def _describe(
    content: Content,
    found: Counter[str],
    disagreeing: Sequence[str],
    annotations: str,
    controls: Sequence[str],
    total: int,
) -> None:
    """Add what was read to the notes and warnings.

    Raises:
        WildcatError: if no task is annotated, or a control was not found.
    """
    path = content.source
    present = [name.removeprefix("control ") for name in found if name.startswith("control ")]
    for control in controls:
        if control not in present and content.images:
            check_choice(control, present, f"{path}: controls")
    if not content.images:
        raise WildcatError(
            f"{path}: none of its {total} tasks is annotated ({found['skipped']} skipped); predictions=yes takes "
            "predictions for labels"
        )
    if left_out := total - len(content.images):
        content.notes.append(
            f"{left_out} of {total} tasks are not annotated ({found['skipped']} of them skipped) and are left out"
        )
    if found["predicted"] and len(present):
        content.notes.append(f"labels of {found['predicted']} images are predictions")
    if len(present) > 1:
        used = controls or present
        content.notes.append(f"labels are read from the controls {shorten(list(used), 8)}; controls=NAME+NAME chooses")
    if found["several"]:
        how = {"latest": "the latest one counts", "union": "labels of all of them count"}.get(
            annotations, "labels on which they disagree are unknown"
        )
        content.notes.append(f"{found['several']} images have several annotations: {how}")
    if disagreeing:
        content.notes.append(f"annotations of {len(disagreeing)} images disagree: {shorten(disagreeing)}")
    if found["text"]:
        content.notes.append("texts are not read as choices: controls=NAME names the control of choices")
    if found["attributes"]:
        content.notes.append(f"{found['attributes']} choices about single regions are no labels")
    if found["unlabelled"]:
        content.warnings.append(f"{found['unlabelled']} regions have no label and are not read")
    if found["turned"]:
        content.warnings.append(f"{found['turned']} regions of turned images are read as labels without their place")
    ignored = sorted(name.removeprefix("type ") for name in found if name.startswith("type "))
    if ignored:
        content.notes.append(f"not read: results of the types {shorten(ignored, 8)}")


def label_studio_splits(path: Path, image_column: str | None = None) -> tuple[str, ...]:
    """Those of a random split: Label Studio names no splits."""
    _tasks(path, _load(path), image_column)
    return splits_of(Content(path, []))


def open_label_studio(
    spec: str,
    path: Path,
    split: str,
    *,
    annotations: str = "latest",
    predictions: bool = False,
    controls: str = "",
    image_column: str | None = None,
    **options: Any,
) -> OutlinedDataset:
    """An export of Label Studio, with its images in the folder that `images` names, or near it.

    Args:
        spec: the specification, as given.
        path: the JSON.
        split: train, test or all.
        annotations: as :func:`read_label_studio` has it, as are the next ones.
        predictions: take those of tasks without an annotation.
        controls: names of controls, joined by "+".
        image_column: key of the data.
        options: those of :class:`wildcat.data.annotated.Choices`. The labelling interface, as XML, is a `class_list`;
            tasks without an annotation are left out whatever `empty` is.
    """
    content = read_label_studio(
        path,
        annotations=annotations,
        predictions=predictions,
        controls=[name for name in controls.split("+") if name],
        image_column=image_column,
    )
    return annotated_dataset(spec, split, content, Choices(**options))
