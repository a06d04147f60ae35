"""Sections of the ledger about exported files and about the masks of the embedded classifier, at a small size."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import exports, imagenet_background
from experiments.ledger import RESULTS
from tests.conftest import REPOSITORY
from tests.tiny_runs import tiny
from wildcat.export.graph import OUTPUTS
from wildcat.export.write import Exported, Format, export
from wildcat.model import Wildcat
from wildcat.prediction.loading import IMAGENET_BACKGROUND, load
from wildcat.runs.settings import InferenceSettings
from wildcat.training.launch import train


@pytest.mark.slow
def test_exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def once(model: Wildcat, settings: InferenceSettings, file: Path, form: Format, images: Sequence[Path]) -> Exported:
        """The one file that is scored; tests/export/test_write.py has all formats."""
        assert len(images) == 2
        if file.name == "run.onnx":
            return export(model, settings, file, form, images)
        return Exported(file, dict.fromkeys(OUTPUTS, 1e-6))

    for number in range(4):
        for name in "ab":
            (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{number}.png")
    run = train(tiny(epochs=1, data=f"folder:{tmp_path / 'data'}"), tmp_path / "run")
    data = f"folder:{tmp_path / 'data'}"
    given = "--images 2 --backbone timm:test_resnet --size 64"
    words = [str(run), "--data", data, "--scored", data, *given.split()]
    monkeypatch.setattr(exports, "export", once)
    exports.main([*words, "--out", str(tmp_path)])
    assert (
        f"exports run --data folder:DIR/data --scored folder:DIR/data {given}\n"
        in (tmp_path / "exports.md").read_text()
    )
    rows = [line.split(" | ") for line in (tmp_path / "exports.md").read_text().splitlines() if line.startswith("| ")]
    differences = [row for row in rows if row[1] in exports.FORMATS.values()]
    assert len(differences) == 6
    assert all(0 <= float(cell.strip(" |")) <= 1e-4 for row in differences for cell in row[2:])
    scored = {row[0].strip("| "): row[1:] for row in rows[-5:]}
    assert scored["PyTorch"] == scored["ONNX Runtime"] == scored["OpenVINO"]
    assert {"PyTorch, backbone in bf16", "OpenVINO, backbone in bf16"} <= scored.keys()


def test_groups_are_of_the_classes_that_they_name() -> None:
    classes = load("imagenet").settings.classes
    named = {name: {classes[label] for label in labels} for name, labels in imagenet_background.GROUPS.items()}
    assert {"tabby", "Siamese cat"} <= named["cat"] and not {"lynx", "lion"} & named["cat"]
    assert {"Chihuahua", "Mexican hairless"} <= named["dog"] and len(named["dog"]) == 118
    assert {"cock", "albatross", "black swan", "great grey owl", "white stork"} <= named["bird"]
    assert sum(map(len, named.values())) == len(imagenet_background.GROUP_OF)
    assert {"airliner", "warplane"} == named["aeroplane"] and "sorrel" in named["horse"]


def test_the_constant_is_the_one_that_was_fitted() -> None:
    assert f": background {IMAGENET_BACKGROUND}, " in (RESULTS / "imagenet_background.md").read_text()
    assert f"{IMAGENET_BACKGROUND.constant:g}" in (REPOSITORY / "docs" / "masks.md").read_text()


@pytest.mark.slow
def test_fitting_on_real_images(real_data: Path) -> None:
    from wildcat.data.registry import open_dataset

    dataset = open_dataset(f"voc12:{real_data / 'seg-mini'}", "seg-train")
    dataset = dataset.subset(range(12))
    images = list(imagenet_background.cases(load("imagenet"), dataset))
    if not images:
        pytest.skip("none of these images is of a known group")
    narrow, wide = (
        imagenet_background.miou(images, imagenet_background.Background("threshold", c), crf=False) for c in (0.4, 0.02)
    )
    assert 0 < wide < narrow < 1
