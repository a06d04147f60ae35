"""Make the pictures of README and docs, all of them from drawn pictures: python docs/pictures.py RUN.

RUN is a model trained on the synthetic data, such as runs/quickstart/run.
"""

import sys
from pathlib import Path

from wildcat import load, open_dataset, render
from wildcat.evaluate import items_of

IMAGES = Path(__file__).parent / "images"
SHOWN = 3  # pictures


def main(run: str) -> None:
    predictor = load(run)
    # A seed of its own: none of these pictures was trained on or scored.
    dataset = open_dataset("synthetic:count=24,seed=7,size=384", "test")
    crowded = sorted(range(len(dataset)), key=lambda i: -(dataset.samples[i].labels == 1).sum())[:SHOWN]
    predictions = list(predictor.stream(items_of(dataset.subset(crowded))))
    IMAGES.mkdir(exist_ok=True)
    rows = [prediction.overlay() for prediction in predictions]
    render.contact_sheet(rows, columns=1, side=1200).save(IMAGES / "overlay.jpg", quality=88)
    masks = [prediction.mask_overlay(prediction.mask(crf=crf)) for prediction in predictions for crf in (False, True)]
    captions = ["mask", "mask with CRF"] * SHOWN
    render.contact_sheet(masks, columns=2, captions=captions, side=420).save(IMAGES / "masks.jpg", quality=88)


if __name__ == "__main__":
    main(sys.argv[1])
