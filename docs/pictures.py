"""Make the pictures of README and docs, all of them from drawn pictures: python docs/pictures.py RUN.

RUN is a model trained on the synthetic data, such as runs/quickstart/run.
"""

import sys
from pathlib import Path

from wildcat import load, open_dataset, render
from wildcat.evaluate import items_of

IMAGES = Path(__file__).parent / "images"
SHOWN = 4  # pictures


def main(run: str) -> None:
    predictor = load(run)
    # A seed of its own: none of these pictures was trained on or scored.
    dataset = open_dataset("synthetic:count=24,seed=7,size=384", "test")
    pairs = [i for i, sample in enumerate(dataset.samples) if (sample.labels == 1).sum() == 2][:SHOWN]
    predictions = list(predictor.stream(items_of(dataset.subset(pairs))))
    IMAGES.mkdir(exist_ok=True)
    sheets = [prediction.overlay() for prediction in predictions]
    render.contact_sheet(sheets, columns=2, side=600).save(IMAGES / "overlay.jpg", quality=85)


if __name__ == "__main__":
    main(sys.argv[1])
