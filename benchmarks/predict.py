"""Scores and points of a folder of pictures, against the authors' code restated.

    python -m benchmarks.predict            seconds, nothing written
    python -m benchmarks.predict --full     ResNet-101 and lite0 at 448 px, turns of 40 pictures

Ours is `Predictor.stream` as `wildcat predict` calls it (`--precision auto`), read into scores and points; the peer is
in `benchmarks/peers.py`. Both have the same weights, random ones for the ResNet, whose BatchNorm has the statistics of
some of the pictures; both read files. "scores" is the largest difference of a probability.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from benchmarks import peers
from benchmarks.common import OURS, Report, options, photographs, scratch_folder, take_turns
from wildcat.model import Wildcat, create_model
from wildcat.predict import Predictor, Settings, items_of
from wildcat.transforms import warp

CLASSES = tuple(f"class {number}" for number in range(20))


def contenders(model: Wildcat, name: str, files: Sequence[Path], size: int) -> dict[str, Callable[[], np.ndarray]]:
    predictor = Predictor(model, Settings(CLASSES, True, (size,), (size,)), precision="auto")
    net = peers.network(name).eval()
    peers.load_ours(net, model.state_dict())

    def ours() -> np.ndarray:
        found = list(predictor.stream(items_of(files), multi_maps=False))
        assert all(len(prediction.points) == len(CLASSES) for prediction in found)
        return np.stack([prediction.probabilities for prediction in found])

    def theirs() -> np.ndarray:
        return peers.predict(net, files, size, model.backbone.mean, model.backbone.std)

    return {OURS: ours, "official": theirs}


def settle_norms(model: Wildcat, files: Sequence[Path]) -> None:
    """Give BatchNorm the statistics of pictures: without them a deep network of random weights multiplies rounding."""
    pictures = np.stack([warp(np.asarray(Image.open(file).convert("RGB")), 224) for file in files])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over what it sees, not a moving one
    with torch.no_grad():
        model.train()(model.normalize(torch.from_numpy(pictures).permute(0, 3, 1, 2)))
    model.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, arguments)
    report = Report("predict", chosen)
    if chosen.full:
        works, count, turns = {"resnet101": (448, ">= 4"), "lite0": (448, ">= 3")}, 40, 5
    else:
        works, count, turns = {"resnet18": (64, ""), "lite0": (64, "")}, 4, 1
    with scratch_folder() as folder:
        files = photographs(count, Path(folder))
        for name, (size, goal) in works.items():
            torch.manual_seed(0)
            model = create_model(name, num_classes=20, num_maps=8, pretrained=name == "lite0").eval()
            if name != "lite0":
                settle_norms(model, files[:16])
            calls = contenders(model, name, files, size)
            scores = [call() for call in calls.values()]
            times = take_turns(calls, turns)
            report.compare(
                f"predict {count} files, {name}, {size} px",
                times,
                unit="images/s",
                per=count,
                goal=goal,
                note=f"scores within {np.abs(scores[0] - scores[1]).max():.1e}",
            )
    report.write()


if __name__ == "__main__":
    main()
