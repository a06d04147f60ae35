"""Write points as prompts for a segmenter such as Segment Anything, from a model trained on image tags.

python examples/prompt_points.py runs/mine images/*.jpg --out prompts.json

For each image and predicted class: `point_coords` (K, 2), x and y in pixels, and `point_labels` (K,), 1 on the object
and 0 beside it, in the format of SamPredictor:

    sam.set_image(image)
    masks, scores, _ = sam.predict(np.array(prompt["point_coords"]), np.array(prompt["point_labels"]))
"""

import argparse
import json
from pathlib import Path

import numpy as np

from wildcat import Prediction, load
from wildcat.data.transforms import cell_centres
from wildcat.prediction.items import image_items


def prompt(prediction: Prediction, c: int, others: list[int]) -> dict[str, object]:
    """The point of a class as positive; the points of other classes and the cell with the lowest value as negative."""
    class_map = prediction.class_maps[c]
    lowest = np.array(np.unravel_index(class_map.argmin(), class_map.shape))
    points = [
        prediction.point_array[c],
        *(prediction.point_array[o] for o in others),
        cell_centres(lowest, class_map.shape, prediction.size),
    ]
    return {
        "class": prediction.settings.classes[c],
        "score": round(float(prediction.probabilities[c]), 4),
        "point_coords": np.round(points, 1).tolist(),
        "point_labels": [1] + [0] * (len(points) - 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help='a run directory, or "imagenet"')
    parser.add_argument("images", nargs="+")
    parser.add_argument("--out", default="prompts.json")
    parser.add_argument("--threshold", type=float, default=0.5)
    arguments = parser.parse_args()

    images = []
    for prediction in load(arguments.run).stream(image_items(arguments.images), multi_maps=False):
        classes = prediction.candidates(arguments.threshold)
        prompts = [prompt(prediction, c, [other for other in classes if other != c]) for c in classes]
        images.append(
            {"image": prediction.name, "width": prediction.size[0], "height": prediction.size[1], "prompts": prompts}
        )
    Path(arguments.out).write_text(json.dumps(images, indent=2))
    print(f"{sum(len(one['prompts']) for one in images)} prompts for {len(images)} images: {arguments.out}")


if __name__ == "__main__":
    main()
