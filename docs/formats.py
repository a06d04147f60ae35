"""Write docs/formats.md, with examples written by `wildcat predict --formats ...`: python docs/formats.py."""

import re
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from wildcat.formats.write import FORMATS, write_predictions
from wildcat.prediction.result import Prediction
from wildcat.runs.settings import InferenceSettings
from wildcat.system.output_folder import LIST

PAGE = Path(__file__).with_suffix(".md")
CLASSES = ("dog", "cat", "sofa")

HEAD = """\
# Write predictions in other formats

<!-- Written by docs/formats.py: change that, not this. -->

`wildcat predict RUN IMAGES --out predictions --formats json,coco,...` writes any combination of these formats. The
images are processed one after the other, so memory does not grow with their number. A file about all images gets its
name only when it is complete, so an interrupted run leaves no incomplete file under its final name.

The examples are for one image, `in/park/rex.jpg`, 60 x 40 pixels, and a model of three classes:
`wildcat predict RUN in --out predictions`.

- **Names** are paths relative to the given folder, or to the deepest common folder of all inputs. Images whose names
  differ only in the suffix, in case or in the normal form of Unicode are numbered (`rex`, `rex-2`): JSON and CSV name
  the overlay and the mask of each image. A name cannot lead outside the output folder.
- **Names that are not UTF-8** (from old archives) are read. JSON, CSV, XML and text files have an escape for each such
  byte, as Python has: `caf\\udce9.png`, where `\\udce9` is the byte `e9`; in Python, `os.fsencode(name)` of a name from
  JSON is the name on the disk. Names of output files have `%E9`.
- **Files of yours are not replaced.** `wildcat-files.jsonl` lists the files that wildcat has written, with checksums. A
  file that is not listed, or was changed since, stops the command before any work; `--overwrite` replaces it. The same
  command again replaces its own files, also after it was stopped. Predictions of other images need another directory,
  or `--overwrite`, which removes the earlier ones; so does another model or threshold, unless all formats of the
  directory are written again. Directories of earlier versions have no list: use `--overwrite` once.
- **Images** may lie in the same directory: only what `wildcat-files.jsonl` lists is left out. An image that is given
  twice, in overlapping folders or by a link, is predicted once.
- **Scores** are probabilities from 0 to 1 in every file.
- **Classes** in annotations are the predicted ones: those whose probability reaches `--threshold` (0.5). An image may
  have none.
- **Boxes** enclose the regions of masks: connected components of at least 0.1 % of the image. A predicted class without
  one has its largest component, or the pixel of its point, so that no label is lost. `--crf` refines masks.
- **Points** are in pixels of the image in its upright orientation; pixel i covers the range from i to i + 1.
"""

READ_BACK = """\
## Read them back

Corrected predictions are training data: `wildcat train --data KIND:...` reads what `predict --out predictions` has
written, and what the tools write after the correction ([own data](own_data.md#annotations-of-other-tools)).

| Format | `--data` |
|---|---|
| `json` | `tags:predictions/predictions.jsonl` |
| `csv` | `tags:predictions/scores.csv,threshold=0.5` |
| `mask` | `masks:predictions,images=in`; an image without a predicted class has the most probable one |
| `coco` | `coco:predictions/coco/dataset.json,images=in` |
| `yolo` | `yolo:predictions/yolo` |
| `voc` | `voc:predictions/voc` |
| `label-studio` | `labelstudio:predictions/label-studio/tasks.json,images=in`; all classes: `class_list=labels.xml` |
| `cvat` | `cvat:predictions/cvat,images=in` |
"""

# Advice for annotators.
ADVICE = """\
Start with the points: they are correct much more often than masks, and one click moves a wrong one. If you need masks,
write them with `--crf`, which moves their edges to edges of the image, so that fewer corrections are necessary."""

# format -> title and description
SECTIONS = {
    "json": (
        "JSON lines",
        """\
One object per image, with the scores of all classes as probabilities, 0 to 1, the highest first, and the precision and
runtime in which they were computed. `--json FILE` writes the same lines to a file of any name. `--json -` prints them,
and nothing else, while images are processed. Both work without `--out`:
`wildcat predict RUN IMAGES --json - | jq -c '[.file, .predicted[].class]'`.""",
    ),
    "csv": (
        "CSV",
        """\
A row per image and a column per class, its probability from 0 to 1. With the formats `overlay` and `mask`, the columns
`overlay` and `mask` name the image's files. A class with the name of another column is in the column `class:NAME`.

Spreadsheets run cells that begin with `=`, `+`, `-`, `@`, a tab or a line end as formulas. Such names of images and
classes, and those in which apostrophes come before such a beginning, get an apostrophe; a program that reads the file
removes it (`re.sub(r"^'(?='*[=+\\-@\\t\\r\\n＝＋－＠])", "", cell)`).""",
    ),
    "overlay": ("Overlay", "The image with a heatmap and a point for each predicted class, for visual inspection."),
    "mask": (
        "Mask",
        """\
PNG files whose pixel values are classes. `mask-labels.txt` names them; line 0 is the background. Image viewers show the
colours of the palette. Masks of models with more than 254 classes have 16 bits and no palette, and look black in a
viewer. `mask-overlay` is for visual inspection. In this format only, the most probable class appears even if it is
below the threshold, as in the evaluation.""",
    ),
    "coco": (
        "COCO",
        """\
`dataset.json` is the file that other tools import and `COCO(...)` opens; its masks are polygons along the edges of
pixels, because tools expect polygons where `iscrowd` is 0. The three result files are for `COCO.loadRes`: boxes, masks
(run-length encoded, of the same pixels) and points (as keypoints). Identifiers of images and classes start at 1. Needs
`pip install 'wildcat-wsl[coco]'`.""",
    ),
    "yolo": (
        "YOLO",
        """\
Class, centre and size, as fractions of the image. `images/` has links to the images, with the names that `train.txt`
lists (two images `rex.jpg` and `rex.png` cannot share one file of labels). To move the folder to another machine, copy
it with the images (`cp -rL`). A copy of an image that lies there already stays. `data.yaml` names no `path`, so readers
look in its own folder, from wherever they are started.""",
    ),
    "voc": (
        "PASCAL VOC",
        """\
Masks and boxes in the layout of VOCdevkit; `JPEGImages` has links to the images, with their own suffixes (some programs
read `.jpg` alone). `labels.txt` names the pixel values of the masks.""",
    ),
    "label-studio": (
        "Label Studio",
        f"""\
Create a project with the labelling interface in `labels.xml`, and import `tasks.json`: tags, points and brush masks are
imported as predictions.

By default, image addresses refer to Label Studio's local files: `/data/local-files/?d=park/rex.jpg`, where `d=` is the
path relative to a root. Start Label Studio with `LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true` and with the root, such
as `LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=/home/me/photos`, and give the project a source storage of the type "Local
files" whose folder is below the root. If images are elsewhere, `--image-prefix` sets the beginning of their addresses:
a folder below the root (`'/data/local-files/?d=2024/in'`), or a server (`https://host/photos`).

{ADVICE}""",
    ),
    "cvat": (
        "CVAT",
        f"""\
Create a task of the same images with the labels in `labels.json` (the "Raw" tab), and upload `annotations.xml` as "CVAT
for images 1.1". It contains tags, points and masks.

{ADVICE}""",
    ),
}


def prediction(file: Path) -> Prediction:
    """A prediction with given values: a dog on the left, a sofa on the right, no cat."""
    y, x = np.mgrid[:8, :12] + 0.5
    maps = [np.exp(-((x - cx) ** 2 + (y - 4.5) ** 2) / 4) * height for cx, height in ((3.5, 4), (6.5, -1), (9.5, 3))]
    grey = Image.new("RGB", (60, 40), (200, 200, 200))
    settings = InferenceSettings(CLASSES, True, (384,), (384,))
    probabilities = np.array([0.97, 0.031, 0.62], np.float32)
    class_maps = np.stack(maps).astype(np.float32)
    return Prediction(str(file), grey.size, settings, probabilities, class_maps, None, lambda: grey)


def _shorten(text: str) -> str:
    """Shorten long lists and long lines, so that an example fits on a page."""
    text = re.sub(r"\[(-?\d+, ){8}[^\]]{12,}\]", lambda match: ", ".join(match[0].split(", ")[:8]) + ", ...]", text)
    text = re.sub(r'(rle="(?:\d+, ){8})[^"]+"', r'\1..."', text)
    return "\n".join(line if len(line) <= 1200 else line[:1200] + " ..." for line in text.splitlines())


def page() -> str:
    parts = [HEAD, f"\n{READ_BACK}"]
    for name in FORMATS:
        title, about = SECTIONS[name]
        parts.append(f"\n## {title}\n\n`--formats {name}`\n\n{about}\n")
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_predictions(
                [prediction(root / "in/park/rex.jpg")], root / "predictions", [name], CLASSES, root=root / "in"
            )
            for file in sorted(path for path in root.rglob("*") if path.is_file() and path.name != LIST):
                parts.append(f"\n`{file.relative_to(root).as_posix()}`\n")
                if file.suffix not in (".png", ".jpg"):
                    text = file.read_text(encoding="utf-8").replace(f"{root}/", "")
                    parts.append(f"\n```\n{_shorten(text)}\n```\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
