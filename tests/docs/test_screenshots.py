"""The images of the documentation: the screenshots at a small size, and that every image is shown and made."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from docs import sample_images, screenshots, tutorial
from tests.conftest import REPOSITORY
from tests.tiny_runs import tiny
from wildcat.training.launch import train


@pytest.mark.slow
def test_screenshots(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    run = train(tiny(epochs=1, data="synthetic:count=24,size=96"), tmp_path / "run")
    screenshots.main(str(run), tmp_path / "images", images=16)
    brightness = {}
    for name, (size, dark, _) in {**screenshots.REPORT, **screenshots.PAGE}.items():
        with Image.open(tmp_path / "images" / name) as image:
            assert image.size == size
            pixels = np.asarray(image.convert("RGB"))
        # Something is on it: neither one colour nor an unstyled page of text.
        assert len(np.unique(pixels.reshape(-1, 3) // 16, axis=0)) > 100, name
        brightness.setdefault(dark, []).append(np.median(pixels))
    assert max(brightness[True]) < 80 < 200 < min(brightness[False])


def test_every_image_is_shown_and_has_its_program() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    shown = {name for page in pages for name in re.findall(r"\((?:docs/)?images/(.*?)\)", page.read_text())}
    there = {file.name for file in (REPOSITORY / "docs" / "images").iterdir()}
    sheets = (*sample_images.IMAGES, *tutorial.IMAGES)
    made = {*screenshots.REPORT, *screenshots.PAGE, *(f"{name}.jpg" for name in sheets)}
    assert shown == there
    assert {name for name in there if name.endswith(".jpg")} == made  # benchmarks plot the SVG files
