"""What a model says of a split, as files for the VOC 2012 evaluation server, where test labels are not public."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wildcat.data.voc_submission import write_actions, write_classification, write_masks
from wildcat.errors import WildcatError
from wildcat.evaluation.results import TASKS
from wildcat.evaluation.scoring import items_of, need_maps, open_scored
from wildcat.prediction.predictor import Predictor

SERVED = {"voc12": ("classification", "segmentation"), "action12": ("classification",)}  # tasks of the server


def write_submission(
    predictor: Predictor, data: str, out: Path, *, split: str = "test", tasks: Sequence[str] = TASKS, crf: bool = False
) -> list[Path]:
    """Write the folder ``results`` that the server takes, packed; labels are not looked at.

    Args:
        predictor: from :func:`wildcat.load`.
        data: ``voc12:`` or ``action12:``.
        out: what is to hold ``results``.
        split: any; the server scores "test". Masks want a split of segmentation, "seg-test".
        tasks: of these, those that the server has for the data are written.
        crf: refine masks with the dense CRF.

    Returns:
        The folders written, one per task.

    Raises:
        WildcatError: for other data, other classes than the model's, or no task that the server has.
    """
    kind = data.partition(":")[0]
    if kind not in SERVED:
        raise WildcatError(f"the evaluation server takes results on {', '.join(SERVED)}; got data {data!r}")
    asked = [task for task in SERVED[kind] if task in tasks]
    if not asked:
        raise WildcatError(f"the server has no {', '.join(tasks)} for {kind}; it has {', '.join(SERVED[kind])}")
    dataset = open_scored(data, split, predictor.settings.classes)
    part = split.removeprefix("seg-")
    probabilities = np.empty((len(dataset), len(dataset.classes)), dtype=np.float32)
    folders = []
    stream = predictor.stream(items_of(dataset), multi_maps=False, maps=need_maps(asked))
    for index, prediction in enumerate(tqdm(stream, f"reading {split}", len(dataset), unit=" images", disable=None)):
        probabilities[index] = prediction.probabilities
        if "segmentation" in asked:
            folders = [write_masks(out, [(prediction.name, prediction.mask(crf=crf))], part)]
    if "classification" in asked:
        write = write_actions if kind == "action12" else write_classification
        folders.append(write(out, [sample.name for sample in dataset.samples], probabilities, dataset.classes, part))
    return folders
