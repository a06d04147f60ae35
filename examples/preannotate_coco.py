"""Pre-annotate images in COCO's format, and say which ones a person should look at first.

python examples/preannotate_coco.py runs/mine images --out annotations

`annotations/coco/` loads into any tool that reads COCO; `annotations/first.txt` names the images by how unsure the
model is of them.
"""

import argparse
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from wildcat import Prediction, load
from wildcat.formats.write import write_predictions
from wildcat.prediction.items import Failure, image_items

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run")
parser.add_argument("images", type=Path, help="a folder")
parser.add_argument("--out", type=Path, default=Path("annotations"))
parser.add_argument("--threshold", type=float, default=0.5)
parser.add_argument("--crf", action="store_true", help="masks that follow the outlines of the image")
arguments = parser.parse_args()

unsure: dict[str, float] = {}


def noted(found: Iterable[Prediction | Failure]) -> Iterator[Prediction | Failure]:
    """Pass predictions on, and keep how far the least sure class of each is from a clear answer."""
    for one in found:
        if isinstance(one, Prediction):
            unsure[one.name] = float(np.abs(one.probabilities - arguments.threshold).min())
        yield one


predictor = load(arguments.run)
files = sorted(file for file in arguments.images.rglob("*") if file.is_file())
failures = write_predictions(
    noted(predictor.stream(image_items(files), on_error="yield", multi_maps=False)),
    arguments.out,
    ["coco"],
    predictor.settings.classes,
    root=arguments.images,
    threshold=arguments.threshold,
    crf=arguments.crf,
)
(arguments.out / "first.txt").write_text("\n".join(sorted(unsure, key=unsure.__getitem__)) + "\n")
print(f"{len(unsure)} images: {arguments.out}", *(f"skipped: {failure.message}" for failure in failures), sep="\n")
