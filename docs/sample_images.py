"""Make the images of README and docs, from synthetic images and free photographs: python -m docs.sample_images RUN.

RUN is a model trained on the synthetic data, such as runs/quickstart/run. The photographs are some that come
with scikit-image (pip install scikit-image) and scikit-learn, read by the embedded ImageNet classifier.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from PIL import Image

from wildcat import load, open_dataset
from wildcat.evaluation.background import fit_masks
from wildcat.prediction.items import dataset_items
from wildcat.render.sheets import contact_sheet

IMAGES = Path(__file__).parent / "images"
SHOWN = 4  # images
SIDE = 300  # pixels, of each part of an image with masks
LOW = 0.2  # probability from which overlays show a class; quickstart trains for a minute or two


def overlays(run: str) -> Image.Image:
    """Synthetic images of two classes, with heatmaps and points."""
    predictor = load(run)
    # A seed of its own: none of these images was trained on or scored.
    dataset = open_dataset("synthetic:count=24,seed=7,size=384", "test")
    pairs = [i for i, sample in enumerate(dataset.samples) if (sample.labels == 1).sum() == 2][:SHOWN]
    predictions = list(predictor.stream(dataset_items(dataset.subset(pairs))))
    sheets = [prediction.overlay(LOW) for prediction in predictions]
    return contact_sheet(sheets, columns=2, side=600)


def drawn_masks(run: str) -> Image.Image:
    """Synthetic images: true mask, mask, mask refined by the CRF; the background fitted on other synthetic images."""
    predictor = load(run)
    background, _ = fit_masks(predictor, "synthetic:count=100", "train", "threshold")
    predictor.settings = replace(predictor.settings, background=background)
    dataset = open_dataset("synthetic:count=24,seed=7,size=384", "test")
    pairs = [i for i, sample in enumerate(dataset.samples) if (sample.labels == 1).sum() == 2][:SHOWN]
    parts = []
    for index, prediction in zip(pairs, predictor.stream(dataset_items(dataset.subset(pairs))), strict=True):
        masks = (dataset.mask(index), prediction.mask(), prediction.mask(crf=True))
        parts += [prediction.image, *map(prediction.mask_overlay, masks)]
    return contact_sheet(parts, 4, ["image", "true mask", "mask", "with CRF"] * len(pairs), side=SIDE)


def photograph_masks() -> Image.Image:
    """Free photographs: mask of the most probable of ImageNet's 1,000 classes, and refined by the CRF."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    photographs = [data.chelsea(), data.coffee(), load_sample_images().images[1]]
    parts = []
    for prediction in map(load("imagenet"), photographs):
        masks = (prediction.mask(), prediction.mask(crf=True))
        parts += [prediction.image, *map(prediction.mask_overlay, masks)]
    return contact_sheet(parts, 3, ["image", "mask", "with CRF"] * len(photographs), side=SIDE)


IMAGES: dict[str, Callable[[str], Image.Image]] = {
    "overlay": overlays,
    "masks-drawn": drawn_masks,
    "masks-photographs": lambda run: photograph_masks(),
}


def main(run: str) -> None:
    IMAGES.mkdir(exist_ok=True)
    for name, make in IMAGES.items():
        make(run).save(IMAGES / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    main(sys.argv[1])
