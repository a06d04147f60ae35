"""Write docs/formats.md, whose examples are what `wildcat predict --formats ...` writes: python docs/formats.py."""

import re
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from wildcat.formats.write import FORMATS, write_predictions
from wildcat.prediction.result import Prediction
from wildcat.runs.settings import InferenceSettings

PAGE = Path(__file__).with_suffix(".md")
CLASSES = ("dog", "cat", "sofa")

HEAD = """\
# Formats of predictions

<!-- Written by docs/formats.py: change that, not this. -->

`wildcat predict RUN IMAGES --out found --formats json,coco,...` writes any of these side by side, image by image:
memory does not grow. Files of all images get their names when they are whole, so an interrupted run leaves none that
is not.

Below is one image, `in/park/rex.jpg`, 60 x 40 pixels, of three classes, from `wildcat predict RUN in --out found`.

- **Names** are those of the images, from the folder that was given, or from the deepest folder that holds all that
  was given. Images that differ in suffix only are numbered (`rex`, `rex-2`); a name never leaves the output folder.
- **Classes** in annotations are the predicted ones, from `--threshold` (0.5) on. An image may have none.
- **Boxes** are those of the regions of masks: connected parts of at least 0.1 % of the image. Masks are refined with
  `--crf`.
- **Points** are in pixels of the upright image; pixel i covers i to i + 1.
"""

# To who corrects what is proposed.
ADVICE = """\
Begin with the points: they are right far more often than masks, and one click moves a wrong one. Where masks are
wanted, write them with `--crf`, which moves their edges to those of the image, so that less is left to correct."""

# title, and what is to be known
SECTIONS = {
    "json": (
        "JSON lines",
        """\
An object per image. Scores are in per cent, all classes, the highest first. `--json FILE` writes the same to a file
of any name, and `--json -` prints it as it comes, and nothing else, for other programs; neither needs `--out`:
`wildcat predict RUN IMAGES --json - | jq -c '[.file, .predicted[].class]'`.""",
    ),
    "csv": ("CSV", "A row per image, a column per class, in per cent."),
    "overlay": ("Overlay", "The image with a heatmap and a point for each predicted class, to look at."),
    "mask": (
        "Mask",
        """\
PNGs whose pixels are classes, named in `mask-labels.txt`: line 0 is the background. Viewers show the palette's colours,
but of models with more than 254 classes, whose masks have 16 bits and look black. `mask-overlay` is to look at. Here,
and only here, the most probable class appears even where it is below the threshold, as in scoring.""",
    ),
    "coco": (
        "COCO",
        """\
`dataset.json` is what tools import and `COCO(...)` opens; the three results are for `COCO.loadRes`: boxes, masks (run
lengths) and points (as key points). Images and classes count from 1. Needs `pip install 'wildcat-wsl[coco]'`.""",
    ),
    "yolo": (
        "YOLO",
        """\
Class, centre and size, as shares of the image. Put the images under `images/` with the names that `train.txt`
lists.""",
    ),
    "voc": (
        "PASCAL VOC",
        """\
Masks and boxes in the layout of a year of VOCdevkit: put the images into `JPEGImages`, and VOC's readers read it.
`labels.txt` names the values of the masks.""",
    ),
    "label-studio": (
        "Label Studio",
        f"""\
Make a project with the labelling interface of `labels.xml`, and import `tasks.json`: tags, points and brush masks come
as predictions.

Images are looked for in Label Studio's local files: `/data/local-files/?d=park/rex.jpg`, where `d=` is the path from
a root. Start Label Studio with `LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true` and with the root, such as
`LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=/home/me/photos`, and give the project a source storage of the type "Local
files" whose folder is below the root. `--image-prefix` says where images are if they are elsewhere: in a
folder of the root (`'/data/local-files/?d=2024/in'`), or a server (`https://host/photos`).

{ADVICE}""",
    ),
    "cvat": (
        "CVAT",
        f"""\
Make a task of the same images with the labels of `labels.json` (the "Raw" tab), and upload `annotations.xml` as "CVAT
for images 1.1": tags, points and masks.

{ADVICE}""",
    ),
}


def prediction(file: Path) -> Prediction:
    """One that is set by hand: a dog on the left, a sofa on the right, no cat."""
    y, x = np.mgrid[:8, :12] + 0.5
    maps = [np.exp(-((x - cx) ** 2 + (y - 4.5) ** 2) / 4) * height for cx, height in ((3.5, 4), (6.5, -1), (9.5, 3))]
    grey = Image.new("RGB", (60, 40), (200, 200, 200))
    settings = InferenceSettings(CLASSES, True, (384,), (384,))
    probabilities = np.array([0.97, 0.031, 0.62], np.float32)
    class_maps = np.stack(maps).astype(np.float32)
    return Prediction(str(file), grey.size, settings, probabilities, class_maps, None, lambda: grey)


def shortened(text: str) -> str:
    """Long lists and long runs of characters by their beginning, so that an example fits on a page."""
    text = re.sub(r"\[(-?\d+, ){8}[^\]]{12,}\]", lambda found: ", ".join(found[0].split(", ")[:8]) + ", ...]", text)
    text = re.sub(r'(rle="(?:\d+, ){8})[^"]+"', r'\1..."', text)
    return "\n".join(line if len(line) <= 1200 else line[:1200] + " ..." for line in text.splitlines())


def page() -> str:
    parts = [HEAD]
    for name in FORMATS:
        title, about = SECTIONS[name]
        parts.append(f"\n## {title}\n\n`--formats {name}`\n\n{about}\n")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_predictions([prediction(root / "in/park/rex.jpg")], root / "found", [name], CLASSES, root=root / "in")
            for file in sorted(path for path in root.rglob("*") if path.is_file()):
                parts.append(f"\n`{file.relative_to(root).as_posix()}`\n")
                if file.suffix not in (".png", ".jpg"):
                    text = file.read_text(encoding="utf-8").replace(f"{root}/", "")
                    parts.append(f"\n```\n{shortened(text)}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
