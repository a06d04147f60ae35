"""Writes predictions in the formats that other tools read."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from wildcat.errors import check_choice
from wildcat.formats.base import Names, PredictedImage, Writer
from wildcat.formats.coco import CocoWriter
from wildcat.formats.cvat import CvatWriter
from wildcat.formats.images import MaskWriter, OverlayWriter
from wildcat.formats.label_studio import LOCAL_FILES, LabelStudioWriter
from wildcat.formats.tables import CsvWriter, JsonFile
from wildcat.formats.voc import VocWriter
from wildcat.formats.yolo import YoloWriter
from wildcat.prediction.items import Failure
from wildcat.prediction.result import Prediction, Threshold
from wildcat.system.files import UNFINISHED, remove_leftovers

_WRITERS: dict[str, Callable[[Path, tuple[str, ...]], Writer]] = {
    "json": lambda out, classes: JsonFile(out / "predictions.jsonl"),
    "csv": CsvWriter,
    "overlay": OverlayWriter,
    "mask": MaskWriter,
    "coco": CocoWriter,
    "yolo": YoloWriter,
    "voc": VocWriter,
    "label-studio": LabelStudioWriter,
    "cvat": CvatWriter,
}


FORMATS = tuple(_WRITERS)


def write_predictions(
    predictions: Iterable[Prediction | Failure],
    out: Path,
    formats: Iterable[str],
    classes: Sequence[str],
    *,
    root: Path | None = None,
    threshold: Threshold = 0.5,
    crf: bool = False,
    image_prefix: str = LOCAL_FILES,
    more: Sequence[Writer] = (),
) -> list[Failure]:
    """Write predictions as they come; memory does not grow with their number.

    ======================  ===========================================================================================
    ``json``                ``predictions.jsonl``, an object per image
    ``csv``                 ``scores.csv``, a row per image, a column per class
    ``overlay``             ``overlay/NAME.jpg``, the image with a heatmap and a point for each predicted class
    ``mask``                ``mask/NAME.png``, labels as in ``mask-labels.txt``; ``mask-overlay/NAME.jpg`` to look at
    ``coco``                ``coco/``: a dataset with regions of masks, and results for boxes, masks and points
    ``yolo``                ``yolo/``: boxes of regions of masks
    ``voc``                 ``voc/``: masks and XML with boxes, laid out as PASCAL VOC
    ``label-studio``        ``label-studio/``: tasks with tags, points and brush masks
    ``cvat``                ``cvat/``: tags, points and masks
    ======================  ===========================================================================================

    Files that hold all images get their name when they are whole; the others are written whole or not at all. What a
    killed process of this machine has left half-written in the folder is removed.

    Args:
        predictions: from :meth:`wildcat.prediction.predictor.Predictor.stream`.
        out: folder, made if needed.
        formats: out of :data:`FORMATS`.
        classes: of the model.
        root: folder that images are named from: ``root/a/cat.jpg`` gives ``overlay/a/cat.jpg``. Without it, and for
            images elsewhere, the last part of the name counts; names given twice are numbered.
        threshold: probability from which a class counts as predicted, for all classes or by class.
        crf: refine masks with the dense CRF.
        image_prefix: where ``label-studio`` says that images are: an address or a path, which names are added to.
        more: writers of other places, which are given every image as well.

    Returns:
        The images that could not be read.

    Raises:
        WildcatError: for an unknown format, or one whose package is not installed.

    >>> import wildcat
    >>> predictor = wildcat.load("imagenet")  # doctest: +SKIP
    >>> predictions = predictor.stream(wildcat.prediction.image_items(["dog.jpg"]), on_error="yield")  # doctest: +SKIP
    >>> write_predictions(predictions, Path("out"), ["json", "mask"], predictor.settings.classes)  # doctest: +SKIP
    """
    wanted = list(dict.fromkeys(formats))
    check_formats(wanted)
    if wanted:
        below = (file for folder in folders_of(out) for file in folder.rglob(UNFINISHED))
        remove_leftovers([*out.glob(UNFINISHED), *below])
    makers = _WRITERS | {"label-studio": partial(LabelStudioWriter, image_prefix=image_prefix)}
    names = Names(root)
    failures: list[Failure] = []
    writers: list[Writer] = []
    with ExitStack() as held:  # each is discarded, whatever goes wrong in another one
        for writer in more:
            held.callback(writer.discard)
        for name in wanted:
            writer = makers[name](out, tuple(classes))
            held.callback(writer.discard)
            writers.append(writer)
        writers += more  # last: files have their names before anything is told, perhaps to a reader that has gone
        for prediction in predictions:
            if isinstance(prediction, Failure):
                failures.append(prediction)
                continue
            relative = names.relative(prediction.name)
            image = PredictedImage(relative, names.stem(relative), prediction, threshold, crf)
            for writer in writers:
                writer.add(image)
        for writer in writers:
            writer.finish()
    return failures


def folders_of(out: Path) -> list[Path]:
    """The folders in ``out`` into which formats write, whether they are there or not.

    >>> [folder.name for folder in folders_of(Path("out"))][:3]  # doctest: +SKIP
    """
    return [out / name for name in (*FORMATS, "mask-overlay")]


def check_formats(formats: Iterable[str]) -> None:
    """Raise a WildcatError for a name that is no format.

    >>> check_formats(["json", "mask"])
    """
    for name in formats:
        check_choice(name, FORMATS, "format")
