"""Scores and points of a folder of images, against the authors' code restated.

    python -m benchmarks.predict            seconds, nothing written
    python -m benchmarks.predict --full     ResNet-101 and lite0 at 448 px, 500 images, a hundred in each turn

Ours is `Predictor.stream` as `wildcat predict` calls it (`--precision auto`), including scores and points, with the
network in PyTorch and in OpenVINO; the peer is in `benchmarks/peers.py`. All load files and have the same weights.
Those of the ResNet are random, with BatchNorm statistics of some of the images. "scores" is the largest difference of a
probability.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision.models.resnet import Bottleneck

from benchmarks import peers
from benchmarks.common import OPENVINO, OURS, Report, in_openvino, options, photographs, scratch_folder, take_turns
from wildcat.data.transforms import warp
from wildcat.model import Wildcat, create_model
from wildcat.prediction.items import image_items
from wildcat.prediction.predictor import Predictor
from wildcat.runs.settings import InferenceSettings
from wildcat.system.memory import keep_freed_memory

CLASSES = tuple(f"class {number}" for number in range(20))


Contender: TypeAlias = Callable[[Sequence[Path]], np.ndarray]  # files to probabilities


def contenders(model: Wildcat, name: str, size: int, scratch: Path) -> dict[str, Contender]:
    predictor = Predictor.from_model(model, InferenceSettings(CLASSES, True, (size,), (size,)), precision="auto")
    exported = in_openvino(predictor, scratch)
    net = peers.network(name).eval()
    peers.load_ours(net, model.state_dict())

    def ours(predictor: Predictor, files: Sequence[Path]) -> np.ndarray:
        with keep_freed_memory():  # as the command line does
            predictions = list(predictor.stream(image_items(files), multi_maps=False))
        assert all(len(prediction.points) == len(CLASSES) for prediction in predictions)
        return np.stack([prediction.probabilities for prediction in predictions])

    def theirs(files: Sequence[Path]) -> np.ndarray:
        return peers.predict(net, files, size, model.backbone.mean, model.backbone.std)

    return {OURS: partial(ours, predictor), OPENVINO: partial(ours, exported), "official": theirs}


def in_parts(contender: Contender, files: Sequence[Path], count: int) -> Callable[[], np.ndarray]:
    """Reads the next files in each call, and begins again after the last."""
    parts = itertools.cycle([files[start : start + count] for start in range(0, len(files), count)])
    return lambda: contender(next(parts))


def settle_norms(model: Wildcat, files: Sequence[Path]) -> None:
    """Give BatchNorm the statistics of images, and residual blocks a small part in the sum, as training does: else a
    deep network of random weights multiplies rounding."""
    for module in model.modules():
        if isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, 0.2)
    images = np.stack([warp(np.asarray(Image.open(file).convert("RGB")), 224) for file in files])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over what it sees, not a moving one
    with torch.no_grad():
        model.train()(model.normalize(torch.from_numpy(images).permute(0, 3, 1, 2)))
    model.eval()


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, arguments)
    report = Report("predict", chosen)
    if chosen.full:
        works, count, turns = {"resnet101": (448, ">= 4"), "lite0": (448, ">= 3")}, 500, 5
    else:
        works, count, turns = {"resnet18": (64, "")}, 4, 1
    with scratch_folder() as folder:
        files = photographs(count, Path(folder))
        for name, (size, goal) in works.items():
            torch.manual_seed(0)
            model = create_model(name, num_classes=20, num_maps=8, pretrained=name == "lite0").eval()
            if name != "lite0":
                settle_norms(model, files[:16])
            calls = contenders(model, name, size, Path(folder))
            scores = {program: call(files[:40]) for program, call in calls.items()}
            apart = max(np.abs(scores[program] - scores["official"]).max() for program in (OURS, OPENVINO))
            each = count // turns
            times = take_turns({program: in_parts(call, files, each) for program, call in calls.items()}, turns)
            report.compare_runtimes(
                f"predict {count} files, {name}, {size} px",
                times,
                unit="images/s",
                per=each,
                goal=goal,
                note=f"scores within {apart:.1e}",
            )
    report.write()


if __name__ == "__main__":
    main()
