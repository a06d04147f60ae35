"""Tiny runs, in this process and in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tests.processes import ForkedProcess, wildcat_command
from wildcat.config import FORMER_DEFAULTS, TrainConfig
from wildcat.model import WildcatOutput

# Nothing is chosen by the data, and nothing is scored after the training.
TINY: dict[str, Any] = {
    **FORMER_DEFAULTS,
    "held_out_images": 0,
    "data": "synthetic:count=24,size=64",
    "backbone": "timm:test_resnet",
    "pretrained": False,
    "num_maps": 2,
    "image_size": 64,
    "epochs": 2,
    "batch_size": 4,
    "lr": 0.1,
    "workers": 0,
    "precision": "fp32",
}


def tiny(**changes: Any) -> TrainConfig:
    return TrainConfig(**{**TINY, **changes})


def flags(**changes: Any) -> list[str]:
    """The same settings as options of the command line."""
    words = []
    for name, value in {**TINY, **changes}.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        else:
            words += [f"--{option}", str(value)]
    return words


def start(*arguments: str | Path, **environment: str) -> ForkedProcess:
    """A `wildcat` process, which starts at once."""
    return ForkedProcess(wildcat_command, [*map(str, arguments)], {**os.environ, **environment})


def start_python(*arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """A `wildcat` process in a new Python, for tests of its start and end."""
    return subprocess.Popen(
        [sys.executable, "-m", "wildcat", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )


class ColourModel:
    """A network with a known answer: class c is colour c of RGB, its map the mean of each cell.

    The score is the map's maximum minus 0.5, times 10. Its two maps per class are the class map plus and minus 1.
    """

    cell = 32
    runtime, precision, device = "torch", "fp32", torch.device("cpu")
    model_fingerprint = "colours"

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []  # shapes of what it was given

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels / 255

    def merged(self) -> "ColourModel":
        return self

    def fingerprint(self, settings: object) -> str:
        return f"colours {settings}"

    def __call__(self, images: torch.Tensor) -> WildcatOutput:
        self.batches.append(tuple(images.shape))
        class_maps = nn.functional.avg_pool2d(images, self.cell)
        scores = 10 * (class_maps.amax(dim=(2, 3)) - 0.5)
        multi_maps = torch.stack([class_maps + 1, class_maps - 1], dim=2).flatten(1, 2)
        return WildcatOutput(scores, class_maps, multi_maps)


def spots(width: int, height: int, places: dict[int, tuple[float, float]], spread: float = 0.08) -> np.ndarray:
    """A black image, brightest in colour c at each place (x, y); uint8 (height, width, 3)."""
    image = np.zeros((height, width, 3), np.uint8)
    y, x = np.mgrid[:height, :width] + 0.5
    for colour, (cx, cy) in places.items():
        away = ((x - cx) / width) ** 2 + ((y - cy) / height) ** 2
        image[..., colour] = 255 * np.exp(-away / (2 * spread**2))
    return image
