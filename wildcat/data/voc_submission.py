"""Results in the format of the VOC 2012 evaluation server.

Facts: the VOC 2012 development kit document, "Submission of results". The competitions that allow pre-training on other
data are comp2 (classification), comp6 (segmentation) and comp10 (actions); pack the folder `results` and upload it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wildcat.errors import WildcatError
from wildcat.render.overlays import voc_palette


def write_classification(
    folder: Path, names: Sequence[str], scores: npt.NDArray[np.floating], classes: Sequence[str], split: str = "test"
) -> Path:
    """Write results/VOC2012/Main/comp2_cls_<split>_<class>.txt below `folder`: "image score" a line; return Main."""
    return _write_scores(folder / "results" / "VOC2012" / "Main", f"comp2_cls_{split}", names, scores, classes)


def write_actions(
    folder: Path, names: Sequence[str], scores: npt.NDArray[np.floating], classes: Sequence[str], split: str = "test"
) -> Path:
    """Write results/VOC2012/Action/comp10_action_<split>_<class>.txt: "image object score" a line; return Action.

    `names` are those of the data set `action12:`, image and object number joined by "_".
    """
    names = [" ".join(name.rsplit("_", 1)) for name in names]
    return _write_scores(folder / "results" / "VOC2012" / "Action", f"comp10_action_{split}", names, scores, classes)


def write_masks(
    folder: Path, masks: Iterable[tuple[str, npt.NDArray[np.unsignedinteger[Any]]]], split: str = "test"
) -> Path:
    """Write results/VOC2012/Segmentation/comp6_<split>_cls/<image>.png: palette PNGs with VOC's colours; return it.

    Args:
        folder: what is to hold `results`.
        masks: (image identifier, label map (H, W) at the picture's size, 0 background, 1 ... 20); taken one by one.
        split: "test" for the server.
    """
    out = folder / "results" / "VOC2012" / "Segmentation" / f"comp6_{split}_cls"
    out.mkdir(parents=True, exist_ok=True)
    palette = voc_palette().tobytes()
    for name, mask in masks:
        if mask.ndim != 2 or mask.dtype != np.uint8:
            raise ValueError(f"{name}: a mask is uint8 (H, W), not {mask.dtype} {mask.shape}")
        image = Image.fromarray(mask)
        image.putpalette(palette)
        image.save(out / f"{_plain(name)}.png")
    return out


def _write_scores(
    folder: Path, stem: str, names: Sequence[str], scores: npt.NDArray[np.floating], classes: Sequence[str]
) -> Path:
    if scores.shape != (len(names), len(classes)):
        raise ValueError(f"{len(names)} names and {len(classes)} classes do not fit scores of shape {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite: the server cannot rank NaN or infinity")
    folder.mkdir(parents=True, exist_ok=True)
    for name, column in zip(classes, scores.T, strict=True):
        # 9 digits tell every two float32 apart, so the server's ranking is the model's own.
        lines = [f"{image} {score:.9g}\n" for image, score in zip(names, column.tolist(), strict=True)]
        with (folder / f"{stem}_{_plain(name)}.txt").open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(lines)
    return folder


def _plain(name: str) -> str:
    """A name from data, if a file in the folder that is written to can have it: the server wants these very names."""
    if name in ("", ".", "..") or re.search(r"[/\\\x00-\x1f]", name):
        raise WildcatError(f"{name!r} is no name for a file")
    return name
