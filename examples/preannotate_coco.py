"""Pre-annotate images in COCO format, and list the images that a person should check first.

python examples/preannotate_coco.py runs/mine images --out annotations

Any tool that supports COCO can import `annotations/coco/`. `annotations/first.txt` lists the images, the least certain
predictions first.
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
parser.add_argument("--crf", action="store_true", help="refine masks with the dense CRF")
arguments = parser.parse_args()

margins: dict[str, float] = {}  # image -> distance of its least certain probability from the threshold


def with_margins(predictions: Iterable[Prediction | Failure]) -> Iterator[Prediction | Failure]:
    """Yield the predictions unchanged, and store the margin of each."""
    for prediction in predictions:
        if isinstance(prediction, Prediction):
            margins[prediction.name] = float(np.abs(prediction.probabilities - arguments.threshold).min())
        yield prediction


predictor = load(arguments.run)
files = sorted(file for file in arguments.images.rglob("*") if file.is_file())
failures = write_predictions(
    with_margins(predictor.stream(image_items(files), on_error="yield", multi_maps=False)),
    arguments.out,
    ["coco"],
    predictor.settings.classes,
    root=arguments.images,
    threshold=arguments.threshold,
    crf=arguments.crf,
)
(arguments.out / "first.txt").write_text("\n".join(sorted(margins, key=margins.__getitem__)) + "\n")
print(f"{len(margins)} images: {arguments.out}", *(f"skipped: {failure.message}" for failure in failures), sep="\n")
