"""The scenes of tests/fixtures/tools: what the tools were given to export, and what the readers must find."""

import shutil
from pathlib import Path

import numpy as np

from tests.conftest import REPOSITORY
from wildcat.data.sample import Dataset

TOOLS = REPOSITORY / "tests" / "fixtures" / "tools"
IMAGES = TOOLS / "images"
WIDTH, HEIGHT = 40, 30
# Objects (class, box) of each image.
SCENES: dict[str, list[tuple[str, tuple[int, int, int, int]]]] = {
    "one": [("cat", (4, 5, 16, 20))],
    "two": [("cat", (2, 2, 10, 12)), ("dog", (22, 10, 36, 26))],
    "three": [("dog", (8, 4, 30, 24))],
    "empty": [],
}


def copy(tool: str, to: Path, images: str | None = None) -> Path:
    """A writable copy of a fixture, with the images in a folder of it."""
    shutil.copytree(TOOLS / tool, to / tool, dirs_exist_ok=True)
    if images is not None:
        folder = to / tool / images
        folder.mkdir(parents=True, exist_ok=True)
        for name in SCENES:
            shutil.copy(IMAGES / f"{name}.png", folder)
    return to / tool


def scene_of(name: str) -> str:
    """The scene of a sample, which tools name "0a1b2c31-one.png" or "images/train/one"."""
    return name.rpartition("/")[2].removesuffix(".png").rpartition("-")[2]


def check_labels(data: Dataset, scenes: dict[str, list] = SCENES) -> None:
    """Every scene is there once, with its labels, and its file."""
    assert sorted(scene_of(sample.name) for sample in data.samples) == sorted(scenes)
    for index, sample in enumerate(data.samples):
        labels = {label for label, _ in scenes[scene_of(sample.name)]}
        assert sample.labels.tolist() == [1 if name in labels else -1 for name in data.classes], sample.name
        assert data.image(index).size == (WIDTH, HEIGHT)


def check_boxes(data: Dataset, tolerance: float = 0.01) -> None:
    """The boxes of every scene; some tools count the pixels of VOC from 0, others from 1."""
    assert data.has_boxes
    for sample in data.samples:
        assert sample.boxes is not None and sample.box_classes is not None
        found = {data.classes[label]: box.tolist() for label, box in zip(sample.box_classes, sample.boxes, strict=True)}
        expected = dict(SCENES[scene_of(sample.name)])
        assert found.keys() == expected.keys() and len(sample.boxes) == len(expected)
        for label, box in expected.items():
            np.testing.assert_allclose(found[label], box, atol=tolerance)


def check_masks(data: Dataset) -> None:
    """The masks of every scene, which are filled boxes."""
    assert data.has_masks
    for index, sample in enumerate(data.samples):
        expected = np.zeros((HEIGHT, WIDTH), np.uint8)
        for label, (x1, y1, x2, y2) in SCENES[scene_of(sample.name)]:
            expected[y1:y2, x1:x2] = 1 + data.classes.index(label)
        np.testing.assert_array_equal(data.mask(index), expected, sample.name)
