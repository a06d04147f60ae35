"""Predict classes and points of an image from an exported file, with NumPy, Pillow and ONNX Runtime only.

wildcat export imagenet --format onnx --out imagenet.onnx
python examples/onnx_numpy.py imagenet.onnx dog.jpg
"""

import argparse
import json

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(file: str, source: str) -> None:
    """Print the five most probable classes with their points, in pixels of the upright image."""
    session = onnxruntime.InferenceSession(file)
    about = json.loads(session.get_modelmeta().custom_metadata_map["wildcat"])
    image = ImageOps.exif_transpose(Image.open(source)).convert("RGB")
    outputs = {}
    for size in {about["score_sizes"][0], about["map_sizes"][0]}:  # the aspect ratio is not kept
        pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR), np.float32) / 255
        images = (pixels - np.float32(about["mean"])) / np.float32(about["std"])
        outputs[size] = session.run(["probabilities", "points"], {"images": images.transpose(2, 0, 1)[None]})
    probabilities = outputs[about["score_sizes"][0]][0][0]  # (C,)
    points = outputs[about["map_sizes"][0]][1][0] * image.size  # (C, 2), x and y
    for c in np.argsort(-probabilities[: len(about["classes"])])[:5]:
        x, y = points[c]
        print(f"{about['classes'][c]}: {probabilities[c]:.3f} at ({x:.0f}, {y:.0f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", metavar="FILE", help="an exported model, .onnx")
    parser.add_argument("image", metavar="IMAGE")
    arguments = parser.parse_args()
    main(arguments.file, arguments.image)
