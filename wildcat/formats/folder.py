"""The output folder of predictions: checked before any work, so that nothing of others is replaced or mixed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from wildcat.errors import WildcatError, shorten
from wildcat.formats.write import planned_files
from wildcat.system.output_folder import OutputFolder

logger = logging.getLogger(__name__)

_SETTINGS = {"model": "model", "threshold": "threshold", "crf": "CRF", "precision": "precision", "runtime": "runtime"}


def check_files(folder: OutputFolder, formats: Sequence[str], images: Sequence[Path], root: Path | None) -> list[Path]:
    """Check that the files of some formats can be written, before any image is predicted.

    Args:
        folder: the output folder.
        formats: names of formats.
        images: the images to predict, in their order.
        root: folder to which names of images are relative, as for :func:`wildcat.formats.write_predictions`.

    Returns:
        The images, without those that are overlays or masks of others, which will be replaced.

    Raises:
        WildcatError: if a file of somebody else's would be replaced, or an image by a file of its own.
    """
    planned = planned_files(formats, map(str, images), root)
    folder.check(name for names in planned.values() for name in names)
    if not folder.path.is_dir():
        return list(images)
    outputs = {_place(folder.path / name): image for image, names in planned.items() for name in names}
    replaced = [image for image in images if _place(image) in outputs]
    if own := [image for image in replaced if outputs[_place(image)] in ("", str(image))]:
        raise WildcatError(f"{own[0]} would be replaced by its own prediction: choose another directory for --out")
    if replaced:
        logger.warning(
            "%d images are left out, because the predictions of others replace them: %s",
            len(replaced),
            shorten([str(image) for image in replaced]),
        )
        return check_files(folder, formats, [image for image in images if image not in set(replaced)], root)
    return list(images)


def check_same_prediction(folder: OutputFolder, about: dict[str, Any]) -> dict[str, Any]:
    """Check that predictions complete or replace those of the folder, and are no others that would lie among them.

    The same images, and more, may be predicted again. With another model or other settings, all formats of the folder
    must be written again.

    Args:
        folder: the output folder. With its `overwrite`, files of other predictions are removed.
        about: what will be predicted: "inputs", "root", "formats" and the settings, as noted in the folder.

    Returns:
        What to note: `about` with all formats of the folder.

    Raises:
        WildcatError: for other images or other settings, and `overwrite` off.
    """
    before = folder.about
    if not any(folder.own()):
        return about
    earlier = set(_texts(before.get("inputs")))
    missing = sorted(path for path in earlier if not _is_among(path, about["inputs"]))
    if missing or before.get("root") != about["root"]:
        problem = f"predictions of other images ({shorten(missing or sorted(earlier))})"
    else:
        formats = _texts(before.get("formats"))
        changed = [words for key, words in _SETTINGS.items() if before.get(key) != about[key]]
        left = [name for name in formats if name not in about["formats"]]
        if not changed or not left:
            return about | {"formats": list(dict.fromkeys([*formats, *about["formats"]]))}
        problem = f"{', '.join(left)} with another {' and '.join(changed)}"
    if folder.overwrite:
        folder.clear()
        return about
    raise WildcatError(f"{folder.path} holds {problem}: choose another directory, or replace them with --overwrite")


def check_json_file(file: Path, folder: OutputFolder | None, formats: Iterable[str], images: Iterable[Path]) -> None:
    """Check that the file of ``--json`` is no folder, no image and no file of the output folder.

    Raises:
        WildcatError: if it is.
    """
    place = _place(file)
    if file.is_dir():
        raise WildcatError(f"--json {file} is a directory; give a file")
    if place in {_place(image) for image in images}:
        raise WildcatError(f"--json {file} is one of the images; give another file")
    names = [] if folder is None else planned_files(formats, [], None)[""]
    if folder is not None and place in {_place(folder.path / name) for name in names}:
        raise WildcatError(f"--json {file} is a file of --formats as well; give another file")


def _is_among(path: str, inputs: Iterable[str]) -> bool:
    """Whether an input is one of others, or lies below one of them."""
    return any(path == other or path.startswith(os.path.join(other, "")) for other in inputs)  # noqa: PTH118


def _texts(value: Any) -> list[str]:
    """A list of texts that a file holds, or nothing: the file may be of another version."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _place(file: Path) -> str:
    return os.path.realpath(file)
