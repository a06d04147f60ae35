"""Writes predictions in any of the formats."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wildcat.errors import check_choice
from wildcat.formats.coco import CocoWriter
from wildcat.formats.cvat import CvatWriter
from wildcat.formats.images import MaskWriter, OverlayWriter
from wildcat.formats.incremental import IncrementalFile
from wildcat.formats.label_studio import LOCAL_FILES, LabelStudioWriter
from wildcat.formats.names import UniqueNames
from wildcat.formats.predicted_image import PredictedImage
from wildcat.formats.tables import CsvWriter, JsonFile
from wildcat.formats.voc import VocWriter
from wildcat.formats.writer import Writer
from wildcat.formats.yolo import YoloWriter
from wildcat.prediction.items import Failure
from wildcat.prediction.result import Prediction, Threshold
from wildcat.system.files import UNFINISHED, remove_leftovers
from wildcat.system.output_folder import OutputFolder


class _Format(NamedTuple):
    """Makes the writer of a format, and names its files relative to the output folder; {} is the name of an image."""

    make: Callable[[OutputFolder, tuple[str, ...]], Writer]
    files: tuple[str, ...]


_JSON = "predictions.jsonl"
_FORMATS = {
    "json": _Format(lambda out, classes: JsonFile(IncrementalFile.within(out, _JSON)), (_JSON,)),
    "csv": _Format(CsvWriter, CsvWriter.files),
    "overlay": _Format(OverlayWriter, OverlayWriter.files),
    "mask": _Format(MaskWriter, MaskWriter.files),
    "coco": _Format(CocoWriter, CocoWriter.files),
    "yolo": _Format(YoloWriter, YoloWriter.files),
    "voc": _Format(VocWriter, VocWriter.files),
    "label-studio": _Format(LabelStudioWriter, LabelStudioWriter.files),
    "cvat": _Format(CvatWriter, CvatWriter.files),
}
_NAMED = ("overlay", "mask")  # formats whose file of an image is named in the tables

FORMATS = tuple(_FORMATS)
"""Names of the formats."""


def write_predictions(
    predictions: Iterable[Prediction | Failure],
    out: Path | OutputFolder,
    formats: Iterable[str],
    classes: Sequence[str],
    *,
    root: Path | None = None,
    threshold: Threshold = 0.5,
    crf: bool = False,
    image_prefix: str = LOCAL_FILES,
    more: Sequence[Writer] = (),
    overwrite: bool = False,
) -> list[Failure]:
    """Write predictions in several formats, image by image, in constant memory.

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

    All files are written atomically; those of all images appear at the end. Temporary files in the folder, which a
    killed process of this machine has left, are removed. Files that were not written by this function, or were changed
    since, are not replaced (:class:`wildcat.system.output_folder.OutputFolder`).

    Args:
        predictions: from :meth:`wildcat.prediction.predictor.Predictor.stream`.
        out: output folder, created if missing; or one whose files were checked already. Not used without formats.
        formats: names out of :data:`FORMATS`.
        classes: names of the model's classes.
        root: folder to which names of images are relative: ``root/a/cat.jpg`` gives ``overlay/a/cat.jpg``. For None,
            and for images outside of it, the file name is used; equal names are numbered.
        threshold: probability from which a class counts as predicted, for all classes or by class.
        crf: refine masks with the dense CRF.
        image_prefix: URL or path of the images for ``label-studio``; the names of the images are appended to it.
        more: further writers, which receive every image as well.
        overwrite: replace files of others, too.

    Returns:
        The images that could not be read.

    Raises:
        WildcatError: an unknown format, one whose package is not installed, one that the model's classes exceed, or a
            file of somebody else's in the place of an output file.

    >>> import wildcat
    >>> predictor = wildcat.load("imagenet")  # doctest: +SKIP
    >>> predictions = predictor.stream(wildcat.prediction.image_items(["dog.jpg"]), on_error="yield")  # doctest: +SKIP
    >>> write_predictions(predictions, Path("out"), ["json", "mask"], predictor.settings.classes)  # doctest: +SKIP
    []
    """
    unique_formats = list(dict.fromkeys(formats))
    check_formats(unique_formats)
    named = [name for name in _NAMED if name in unique_formats]
    special: dict[str, Callable[[OutputFolder, tuple[str, ...]], Writer]] = {
        "label-studio": partial(LabelStudioWriter, image_prefix=image_prefix),
        "csv": partial(CsvWriter, columns=named),
    }
    makers: list[Callable[[], Writer]] = []
    if unique_formats:
        folder = out if isinstance(out, OutputFolder) else OutputFolder(out, overwrite=overwrite)
        folder.check(planned_files(unique_formats, [], None)[""])
        nested = (file for part in folders_of(folder.path) for file in part.rglob(UNFINISHED))
        remove_leftovers([*folder.path.glob(UNFINISHED), *nested])
        makers = [partial(special.get(name, _FORMATS[name].make), folder, tuple(classes)) for name in unique_formats]
    names = UniqueNames(root)
    failures: list[Failure] = []
    writers: list[Writer] = []
    with ExitStack() as stack:  # every writer is discarded, also after an error of another one
        for writer in more:
            stack.callback(writer.discard)
        for make in makers:
            writer = make()
            stack.callback(writer.discard)
            writers.append(writer)
        writers += more  # last, so that an error of theirs, such as a closed pipe, leaves complete files
        for prediction in predictions:
            relative = names.relative(prediction.name)
            stem = names.stem(relative)  # also of an image that cannot be read: others are named as without it
            if isinstance(prediction, Failure):
                failures.append(prediction)
                continue
            files = {name: _FORMATS[name].files[0].format(stem) for name in named}
            image = PredictedImage(relative, stem, prediction, threshold, crf, files)
            for writer in writers:
                writer.add(image)
        for writer in writers:
            writer.finish()
    return failures


def planned_files(formats: Iterable[str], images: Iterable[str], root: Path | None) -> dict[str, list[str]]:
    """The files that :func:`write_predictions` will write, relative to the output folder, by image; "" for all images.

    >>> planned_files(["json", "overlay"], ["in/a.png"], Path("in"))
    {'': ['predictions.jsonl'], 'in/a.png': ['overlay/a.jpg']}
    """
    patterns = [name for form in formats for name in _FORMATS[form].files]
    per_image = [name for name in patterns if "{}" in name]
    names = UniqueNames(root)
    planned = {"": [name for name in patterns if "{}" not in name]}
    for image in images:
        stem = names.stem(names.relative(image))
        planned[image] = [name.format(stem) for name in per_image]
    return planned


def folders_of(out: Path) -> list[Path]:
    """The folders in ``out`` to which the formats write, whether they exist or not.

    >>> Path("found/mask-overlay") in folders_of(Path("found"))
    True
    """
    return [out / name for name in (*FORMATS, "mask-overlay")]


def check_formats(formats: Iterable[str]) -> None:
    """Check names of formats.

    Raises:
        WildcatError: an unknown name.

    >>> check_formats(["coco", "mask"])
    """
    for name in formats:
        check_choice(name, FORMATS, "format")
