"""The quickstart at a tiny size."""

import json
from pathlib import Path

import pytest
from PIL import Image

from wildcat.apps.quickstart import rows_of_two
from wildcat.cli import main

RECIPE = """\
data: synthetic:count=16,size=64
backbone: timm:test_resnet
pretrained: false
image_size: 64
epochs: 1
batch_size: 4
score_sizes: [64]
map_sizes: [96]
"""


@pytest.mark.slow
def test_quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    out = tmp_path / "deep" / "out"
    arguments = ["quickstart", "--out", str(out), "--recipe", str(recipe)]
    assert main(arguments) == 0

    results = json.loads((out / "results.json").read_text())
    assert results["images"] == 16 and {"classification", "pointing"} <= set(results)
    assert (out / "run" / "model.safetensors").exists()
    text = capsys.readouterr().out
    assert "mAP" in text and "flower is a daisy" in text
    for name in ("overlays.jpg", "imagenet-flower.jpg", "imagenet-china.jpg"):
        assert name in text or name == "imagenet-china.jpg"
        with Image.open(out / name) as image:
            image.load()
            assert min(image.size) > 200

    assert "report.html" in text and "Maps of the class" in (out / "report.html").read_text()

    # A second call does not train again and has the same results.
    before = (out / "run" / "model.safetensors").stat().st_mtime_ns
    assert main(arguments) == 0
    again = json.loads((out / "results.json").read_text())
    assert again["classification"] == results["classification"] and again["pointing"] == results["pointing"]
    assert (out / "run" / "model.safetensors").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("counts", "rows"),
    [
        ([2, 1, 3, 1, 2, 4, 2, 1, 2], [1, 0, 3, 4, 7, 6]),  # one class on the left, two on the right
        ([1, 1, 1, 1, 1, 1, 3], [0, 3, 1, 4, 2, 5]),
        ([5, 2, 3, 4, 2, 2, 2], [1, 6, 4, 2, 5, 3]),  # images with the fewest classes come first
        ([2, 1, 1], [1, 0, 2]),
    ],
)
def test_overlays_in_full_rows(counts: list[int], rows: list[int]) -> None:
    assert rows_of_two(counts) == rows
