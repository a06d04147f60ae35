"""Predictions in the format of the VOC 2012 evaluation server, for splits whose labels are not public.

Source: the VOC 2012 development kit document, "Submission of results". The competitions that allow pre-training on
other data are comp2 (classification), comp6 (segmentation) and comp10 (actions). To submit, pack the folder `results`
and upload it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from tqdm import tqdm

from wildcat.data.registry import open_dataset
from wildcat.errors import WildcatError
from wildcat.evaluation.classes import with_classes
from wildcat.evaluation.scoring import check_tasks, need_maps, open_scored
from wildcat.metrics.scores import TASKS
from wildcat.prediction.items import dataset_items
from wildcat.prediction.predictor import Predictor
from wildcat.render.masks import voc_palette
from wildcat.system.output_folder import OutputFolder

SERVED = {"voc12": ("classification", "segmentation"), "action12": ("classification",)}  # tasks of the server


def write_submission(
    predictor: Predictor,
    data: str,
    out: Path,
    *,
    split: str = "test",
    tasks: Sequence[str] = TASKS,
    crf: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Write the predictions for a split as the folder ``results`` that the server accepts; labels are not used.

    Args:
        predictor: from :func:`wildcat.load`.
        data: ``voc12:DIR`` or ``action12:DIR``.
        out: folder in which ``results`` is written.
        split: the split; the server scores "test", and masks need "seg-test".
        tasks: of these, the ones that the server has for the dataset are written.
        crf: refine masks with the dense CRF.
        overwrite: replace files that were not written by this function, and results of another model.

    Returns:
        The folders written, one per task.

    Raises:
        WildcatError: for another dataset, other classes than the model's, an unknown task, none of the server's, or a
            folder with other files of these names.

    >>> import wildcat
    >>> write_submission(wildcat.load("runs/voc12"), "voc12:data", Path("upload"))  # doctest: +SKIP
    """
    check_tasks(tasks)
    kind = data.partition(":")[0]
    if kind not in SERVED:
        raise WildcatError(f"the evaluation server takes results on {', '.join(SERVED)}; got data {data!r}")
    asked = [task for task in SERVED[kind] if task in tasks]
    if not asked:
        raise WildcatError(f"the server has no {', '.join(tasks)} for {kind}; it has {', '.join(SERVED[kind])}")
    with_classes(open_dataset(data, split), predictor.settings.classes)  # masks need the order of the server
    dataset = open_scored(data, split, predictor.settings.classes)
    part = split.removeprefix("seg-")
    folder = OutputFolder(out, overwrite=overwrite)
    if "classification" in asked:
        folder.check(_score_file(kind == "action12", part, name) for name in dataset.classes)
    if "segmentation" in asked:
        folder.check(_mask_file(part, sample.name) for sample in dataset.samples)
    if folder.about.get("model") != predictor.fingerprint and any(folder.own()):
        if not overwrite:
            raise WildcatError(f"{out} holds results of another model: choose another directory, or use --overwrite")
        folder.clear()
    folder.begin({"model": predictor.fingerprint, "data": data})
    probabilities = np.empty((len(dataset), len(dataset.classes)), dtype=np.float32)
    folders = []
    stream = predictor.stream(dataset_items(dataset), multi_maps=False, maps=need_maps(asked))
    for index, prediction in enumerate(tqdm(stream, f"predicting {split}", len(dataset), unit=" images", disable=None)):
        probabilities[index] = prediction.probabilities
        if "segmentation" in asked:
            folders = [write_masks(folder, [(prediction.name, prediction.mask(crf=crf))], part)]
    if "classification" in asked:
        write = write_actions if kind == "action12" else write_classification
        folders.append(write(folder, [sample.name for sample in dataset.samples], probabilities, dataset.classes, part))
    return folders


def write_classification(
    folder: Path | OutputFolder,
    names: Sequence[str],
    scores: npt.NDArray[np.floating],
    classes: Sequence[str],
    split: str = "test",
) -> Path:
    """Write results/VOC2012/Main/comp2_cls_<split>_<class>.txt below `folder`: "image score" a line; return Main."""
    return _write_scores(folder, False, split, names, scores, classes)


def write_actions(
    folder: Path | OutputFolder,
    names: Sequence[str],
    scores: npt.NDArray[np.floating],
    classes: Sequence[str],
    split: str = "test",
) -> Path:
    """Write results/VOC2012/Action/comp10_action_<split>_<class>.txt: "image object score" a line; return Action.

    `names` are those of the dataset `action12:`, image and object number joined by "_".
    """
    return _write_scores(folder, True, split, [" ".join(name.rsplit("_", 1)) for name in names], scores, classes)


def write_masks(
    folder: Path | OutputFolder,
    masks: Iterable[tuple[str, npt.NDArray[np.unsignedinteger[Any]]]],
    split: str = "test",
) -> Path:
    """Write results/VOC2012/Segmentation/comp6_<split>_cls/<image>.png: palette PNGs with VOC's colours; return it.

    Args:
        folder: folder in which `results` is written.
        masks: (image identifier, label map (H, W) at the image's size, 0 background, 1 ... 20); taken one by one.
        split: "test" for the server.
    """
    out = _output_folder(folder)
    palette = voc_palette().tobytes()
    for name, mask in masks:
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise ValueError(f"{name}: a mask is uint8 (H, W), not {mask.dtype} {mask.shape}")
        image = Image.fromarray(mask)
        image.putpalette(palette)
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        out.write(_mask_file(split, name), buffer.getvalue())
    return (out.path / _mask_file(split, "x")).parent


def _write_scores(
    folder: Path | OutputFolder,
    actions: bool,
    split: str,
    names: Sequence[str],
    scores: npt.NDArray[np.floating],
    classes: Sequence[str],
) -> Path:
    if scores.shape != (len(names), len(classes)):
        raise ValueError(f"{len(names)} names and {len(classes)} classes do not fit scores of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite: the server cannot rank NaN or infinity")
    out = _output_folder(folder)
    for name, column in zip(classes, scores.T, strict=True):
        # With 9 digits all float32 values stay distinct, so the server ranks the images as the model does.
        lines = [f"{image} {score:.9g}\n" for image, score in zip(names, column.tolist(), strict=True)]
        out.write(_score_file(actions, split, name), "".join(lines).encode("utf-8", "surrogateescape"))
    return (out.path / _score_file(actions, split, "x")).parent


def _output_folder(folder: Path | OutputFolder) -> OutputFolder:
    return folder if isinstance(folder, OutputFolder) else OutputFolder(folder)


def _score_file(actions: bool, split: str, name: str) -> str:
    """The file of a class, relative to the output folder."""
    start = f"Action/comp10_action_{split}" if actions else f"Main/comp2_cls_{split}"
    return f"results/VOC2012/{start}_{_plain(name)}.txt"


def _mask_file(split: str, name: str) -> str:
    """The mask of an image, relative to the output folder."""
    return f"results/VOC2012/Segmentation/comp6_{split}_cls/{_plain(name)}.png"


def _plain(name: str) -> str:
    """A name from a dataset, checked: the server needs files of exactly these names.

    Raises:
        WildcatError: if it cannot be the name of a file in the folder.
    """
    if name in ("", ".", "..") or re.search(r"[/\\\x00-\x1f]", name):
        raise WildcatError(f"{name!r} cannot be used as a file name")
    return name
