"""Make the images of README and docs, from synthetic images and free photographs: python -m docs.sample_images RUN.

RUN is a model trained on the synthetic data, such as runs/quickstart/run. The photographs come with scikit-image
(pip install scikit-image) and scikit-learn; the embedded ImageNet classifier predicts them.
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

FOLDER = Path(__file__).parent / "images"
SHOWN = 4  # number of images
SIDE = 300  # pixels, of each panel
LOW = 0.2  # least probability of a class that an overlay shows; the model of quickstart trains for a minute or two


def overlays(run: str) -> Image.Image:
    """Overlays of synthetic images that show two classes: heatmaps and points."""
    predictor = load(run)
    # Another seed than the training's: none of these images was used for training or scoring.
    dataset = open_dataset("synthetic:count=24,seed=7,size=384", "test")
    pairs = [i for i, sample in enumerate(dataset.samples) if (sample.labels == 1).sum() == 2][:SHOWN]
    predictions = list(predictor.stream(dataset_items(dataset.subset(pairs))))
    sheets = [prediction.overlay(LOW) for prediction in predictions]
    return contact_sheet(sheets, columns=2, side=600)


def synthetic_masks(run: str) -> Image.Image:
    """Synthetic images with true mask, mask and mask with CRF; the background is fitted on other synthetic images."""
    predictor = load(run)
    background, _ = fit_masks(predictor, "synthetic:count=100", "train", "threshold")
    predictor = predictor.with_settings(replace(predictor.settings, background=background))
    dataset = open_dataset("synthetic:count=24,seed=7,size=384", "test")
    pairs = [i for i, sample in enumerate(dataset.samples) if (sample.labels == 1).sum() == 2][:SHOWN]
    parts = []
    for index, prediction in zip(pairs, predictor.stream(dataset_items(dataset.subset(pairs))), strict=True):
        masks = (dataset.mask(index), prediction.mask(), prediction.mask(crf=True))
        parts += [prediction.image, *map(prediction.mask_overlay, masks)]
    return contact_sheet(parts, 4, ["image", "true mask", "mask", "with CRF"] * len(pairs), side=SIDE)


def photograph_masks() -> Image.Image:
    """Free photographs with the mask of the most probable of ImageNet's 1,000 classes, without and with CRF."""
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
    "masks-synthetic": synthetic_masks,
    "masks-photographs": lambda run: photograph_masks(),
}


def main(run: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, make in IMAGES.items():
        make(run).save(FOLDER / f"{name}.jpg", quality=85)


if __name__ == "__main__":
    main(sys.argv[1])
