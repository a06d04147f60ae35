"""Write docs/tutorial.md and its images: python -m docs.tutorial [OUT].

The commands of the page are run in OUT (runs/tutorial), and the page shows what they print. Outputs are kept in
OUT/outputs.json, so a change of the text needs no new training; delete OUT to run the commands again.
"""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from wildcat.render.sheets import contact_sheet

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path(__file__).with_suffix(".md")
FOLDER = Path(__file__).parent / "images"
SHOWN = (0, 1, 4)  # new images on the sheets
SIDE = 300  # pixels, of each panel

TEXT = """\
# Tutorial: from a folder of images to masks

<!-- Written by docs/tutorial.py: change that, not this. -->

This page starts with images and their tags, and ends with a point and a mask for every object class. Every output
below was printed by the command above it, at commit {commit}, on a CPU.

## 1. A folder of images and a table of tags

The images are synthetic, so nothing has to be downloaded and the true masks are known. With your own images, skip this
step and write the table yourself.

```bash
python examples/synthetic_folder.py shapes
python examples/synthetic_folder.py new_shapes --count 6 --seed 1
```

![training images with their tags](images/tutorial-images.jpg)

`shapes.csv` names the classes that are in each image. It contains no boxes and no masks:

{head of shapes.csv}

## 2. Train

```bash
wildcat train --data tags:shapes.csv --recipe quickstart --epochs 15 --out runs/shapes
```

One image in five is held out for the evaluation, always the same ones. The recipe `quickstart` is for small synthetic
images: 192 pixels, and a backbone whose first layers keep their ImageNet weights. For photographs, omit `--recipe` and
`--epochs`: the default is 320 pixels, and [the number of images decides](settings.md#chosen-by-the-data) on the epochs.

The run directory `runs/shapes` contains the settings (`config.json`), the weights (`model.safetensors`) and the
training curve (`metrics.csv`).

## 3. Evaluate

```bash
wildcat evaluate runs/shapes
```

The scores are for the held-out images. *mAP* is the mean over classes of the average precision, in per cent. The same
numbers, with those of every class, are in `runs/shapes/results.json`.

## 4. Predict: scores, points and heatmaps

```bash
wildcat predict runs/shapes new_shapes/ --out predictions --formats json,overlay,mask
```

The folder `predictions/overlay` shows each new image with a heatmap and a point for each predicted class. The heatmap
shows where the evidence for the class is; the point marks its maximum. [Scores, maps, points and masks](maps.md)
explains how to interpret them.

![overlays: heatmaps and points](images/tutorial-overlays.jpg)

The model detects most objects after a few minutes of training, but it misses the key in the first image.

`predictions/predictions.jsonl` has one line for each image, with scores from 0 to 1 and points in pixels.

## 5. Masks

`predictions/mask` contains a mask for each image: a PNG file whose pixels are class numbers. The maps of the network
are coarse, so the outlines of these masks are rough. `--crf` moves them to edges of the image:

```bash
wildcat predict runs/shapes new_shapes/ --out refined --formats mask --crf
```

![image, mask, mask with CRF](images/tutorial-masks.jpg)

If a dataset has true masks, `evaluate` can compare them with the predicted ones. The synthetic dataset has, so here are
the results on 40 of its images that were not used for training, without and with the CRF:

```bash
wildcat evaluate runs/shapes --data synthetic:count=40 --tasks segmentation --crf
```

*mIoU* is the mean over classes, in per cent, of the intersection of predicted and true masks divided by their union.
With masks for some training images, `--fit-background` can improve the result further: [Make
masks](masks.md).

The masks are in `refined/mask`, and `refined/mask-labels.txt` lists the classes that the pixel values stand for.

## 6. The same in Python

```python
import wildcat

predictor = wildcat.load("runs/shapes")
prediction = predictor("new_shapes/000.jpg")
print(prediction.scores)  # class -> probability, the most probable class first
print(prediction.points)  # class -> (x, y) in pixels
mask = prediction.mask(crf=True)  # (H, W), 0 is the background
prediction.mask_overlay(mask).save("mask.jpg")
```

## Next

- [Your own images](own_data.md): folders, tables of tags, number of epochs, image size.
- [Choose the settings](settings.md): number of maps, pooling, and how they change points and masks.
- [Read the report of a run](report.md): `wildcat report runs/shapes` writes a page with the failures of the model.
- [Write predictions in other formats](formats.md): COCO, YOLO, PASCAL VOC, Label Studio, CVAT.
"""


def training_images(out: Path) -> Image.Image:
    """Images of the training set with their tags."""
    rows = [line.split(",") for line in (out / "shapes.csv").read_text().splitlines()[1:5]]
    names = [tags.replace(";", ", ") for _, tags in rows]
    return contact_sheet([Image.open(out / name) for name, _ in rows], len(rows), names, side=SIDE)


def overlays(out: Path) -> Image.Image:
    """Overlays of new images, one below the other."""
    files = sorted((out / "predictions" / "overlay").iterdir())
    return contact_sheet([Image.open(files[index]) for index in SHOWN], 1, side=900)


def masks(out: Path) -> Image.Image:
    """New images with the masks of both predictions."""
    parts = []
    for file in [sorted((out / "new_shapes").iterdir())[index] for index in SHOWN]:
        parts += [file, out / "predictions" / "mask-overlay" / file.name, out / "refined" / "mask-overlay" / file.name]
    names = ["image", "mask", "mask with CRF"] * len(SHOWN)
    return contact_sheet([Image.open(file) for file in parts], 3, names, side=SIDE)


IMAGES: dict[str, Callable[[Path], Image.Image]] = {
    "tutorial-images": training_images,
    "tutorial-overlays": overlays,
    "tutorial-masks": masks,
}


def output(command: str, out: Path) -> str:
    """The output of a command that is run in a folder."""
    words = shlex.split(command)
    words = ["-m", *words] if words[0] == "wildcat" else [str(ROOT / words[1]), *words[2:]]
    print(command, flush=True)
    ended = subprocess.run(
        [sys.executable, *words], cwd=out, check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    return ended.stdout


def main(folder: str = "runs/tutorial") -> None:
    out = Path(folder).resolve()
    out.mkdir(parents=True, exist_ok=True)
    kept = out / "outputs.json"
    outputs = json.loads(kept.read_text()) if kept.exists() else {}
    git = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    outputs.setdefault("commit", subprocess.run(git, check=True, text=True, capture_output=True).stdout.strip())

    def run(block: re.Match[str]) -> str:
        for command in block[1].splitlines():
            if command not in outputs:
                outputs[command] = output(command, out)
                kept.write_text(json.dumps(outputs, indent=1))
        shown = "".join(outputs[command] for command in block[1].splitlines())
        return f"{block[0]}\n```\n{shown.strip()}\n```\n"

    page = re.sub(r"^```bash\n(.*?)^```\n", run, TEXT.replace("{commit}", outputs["commit"]), flags=re.M | re.S)
    table = "\n".join((out / "shapes.csv").read_text().splitlines()[:5])
    PAGE.write_text(page.replace("{head of shapes.csv}", f"```\n{table}\n```"), encoding="utf-8")
    for name, make in IMAGES.items():
        make(out).save(FOLDER / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    main(*sys.argv[1:])
