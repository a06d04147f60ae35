"""The programs in examples/ and what they print, on tiny data."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from wildcat.data.registry import open_dataset

pytestmark = pytest.mark.slow

SMALL = ["--epochs", "1", "--image-size", "64"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with synthetic images and a CSV file of their tags."""
    folder = tmp_path_factory.mktemp("examples")
    dataset = open_dataset("synthetic:count=20,size=64", "train")
    rows = ["image,tags"]
    for index in range(len(dataset)):
        dataset.image(index).save(folder / f"{index}.png")
        present = [c for c, label in zip(dataset.classes, dataset.labels[index], strict=True) if label == 1]
        rows.append(f"{index}.png,{';'.join(present)}")
    (folder / "images.csv").write_text("\n".join(rows) + "\n")
    return folder


def example(name: str, *arguments: str | Path) -> None:
    sys.argv = [name, *map(str, arguments)]
    runpy.run_path(str(REPOSITORY / "examples" / f"{name}.py"), run_name="__main__")


@pytest.fixture(autouse=True)
def _restore_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", sys.argv)


def test_train_on_csv(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example("train_on_csv", place / "images.csv", tmp_path / "run", *SMALL)
    message = capsys.readouterr().out.splitlines()
    assert any(line.startswith("  classification: mAP") for line in message)
    assert sum("tagged" in line and "predicted with" in line for line in message) == 5
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_prompt_points(place: Path, tmp_path: Path) -> None:
    example("prompt_points", "imagenet", place / "0.png", place / "1.png", "--out", tmp_path / "prompts.json")
    images = json.loads((tmp_path / "prompts.json").read_text())
    assert [Path(one["image"]).name for one in images] == ["0.png", "1.png"]
    for one in images:
        for prompt in one["prompts"]:
            points, labels = np.array(prompt["point_coords"]), np.array(prompt["point_labels"])
            assert points.shape == (len(labels), 2) and labels.tolist() == [1, *[0] * (len(labels) - 1)]
            assert len(labels) == 1 + len(one["prompts"])  # the other classes' points, and the lowest cell
            assert (points >= 0).all() and (points <= (one["width"], one["height"])).all()
            assert not (points[0] == points[-1]).all()


def test_compare_poolings(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(8):
        folder = tmp_path / "images" / "ab"[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes((place / f"{number}.png").read_bytes())
    example("compare_poolings", f"folder:{tmp_path / 'images'}", tmp_path / "runs", *SMALL)
    rows = capsys.readouterr().out.splitlines()[-4:]
    assert [row.split()[0] for row in rows] == ["max", "average", "weldon", "wildcat"]
    assert all(0 <= float(row.split()[1]) <= 100 for row in rows)


def test_own_training_loop(capsys: pytest.CaptureFixture[str]) -> None:
    example("own_training_loop")
    message = capsys.readouterr().out.splitlines()
    losses = [float(line.split()[-1]) for line in message if line.startswith("epoch")]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert "% at (" in message[-1]


def test_preannotate_coco(place: Path, run_and_image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    (place / "more").mkdir(exist_ok=True)
    (place / "more" / "0.png").write_bytes((place / "0.png").read_bytes())
    example("preannotate_coco", run_and_image / "run", place / "more", "--out", tmp_path / "out", "--threshold", "0.1")
    assert "1 images" in capsys.readouterr().out
    assert (tmp_path / "out" / "first.txt").read_text().splitlines() == [str(place / "more" / "0.png")]
    annotated = coco.COCO(str(tmp_path / "out" / "coco" / "dataset.json"))
    assert [image["file_name"] for image in annotated.imgs.values()] == ["0.png"]
