"""The first command anyone tries, at a tiny size."""

import json
from pathlib import Path

import pytest
from PIL import Image

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


def test_quickstart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    out = tmp_path / "deep" / "out"
    arguments = ["quickstart", "--out", str(out), "--recipe", str(recipe)]
    assert main(arguments) == 0

    results = json.loads((out / "results.json").read_text())
    assert results["images"] == 16 and {"classification", "pointing"} <= set(results)
    assert (out / "run" / "model.safetensors").exists()
    told = capsys.readouterr().out
    assert "mAP" in told and "flower is a daisy" in told
    for name in ("overlays.jpg", "imagenet-flower.jpg", "imagenet-china.jpg"):
        assert name in told or name == "imagenet-china.jpg"
        with Image.open(out / name) as image:
            image.load()
            assert min(image.size) > 200

    assert "report.html" in told and "What each of its maps looks at" in (out / "report.html").read_text()

    # Again: what is trained is not trained again, and the answer is the same.
    before = (out / "run" / "model.safetensors").stat().st_mtime_ns
    assert main(arguments) == 0
    again = json.loads((out / "results.json").read_text())
    assert again["classification"] == results["classification"] and again["pointing"] == results["pointing"]
    assert (out / "run" / "model.safetensors").stat().st_mtime_ns == before
