"""What predictions are written as can be read back as a dataset, and trained on, without loss of labels."""

from pathlib import Path

import numpy as np
import pytest

from tests.data import trees
from tests.formats.test_formats import CLASSES, NAMES, expected_boxes, expected_mask, root, stream, write
from tests.tiny_runs import tiny
from wildcat.data.registry import open_dataset
from wildcat.formats.predicted_image import PredictedImage
from wildcat.formats.write import FORMATS, write_predictions
from wildcat.prediction.result import Prediction
from wildcat.runs.settings import InferenceSettings

__all__ = ["root"]  # a fixture

SPECS = {
    "json": "tags:{out}/predictions.jsonl",
    "csv": "tags:{out}/scores.csv,threshold=0.5",
    "coco": "coco:{out}/coco/dataset.json,images={root}",
    "yolo": "yolo:{out}/yolo",
    "voc": "voc:{out}/voc",
    "label-studio": "labelstudio:{out}/label-studio/tasks.json,images={root},class_list={out}/label-studio/labels.xml",
    "cvat": "cvat:{out}/cvat,images={root}",
    "mask": "masks:{out},images={root}",
}
IMAGES_ONLY = {"overlay"}  # for people


def test_every_format_is_here() -> None:
    assert set(SPECS) | IMAGES_ONLY == set(FORMATS)


@pytest.mark.parametrize("name", SPECS)
def test_labels_come_back(name: str, root: Path, tmp_path: Path) -> None:
    out, names = tmp_path / "out", NAMES
    if name == "mask":  # masks are found by the names of images without suffix
        (root / "b/cat.bmp").unlink()
        names = [image for image in NAMES if image != "b/cat.bmp"]
    write_predictions(stream(root, names), out, [name], CLASSES, root=root)
    data = open_dataset(SPECS[name].format(out=out, root=root), "all")
    assert set(data.classes) <= set(CLASSES) and len(data) == len(names)
    known = [prediction for prediction in stream(root, names) if isinstance(prediction, Prediction)]
    by_file = {(root / image).resolve(): prediction for image, prediction in zip(names, known, strict=True)}
    for index, sample in enumerate(data.samples):
        prediction = by_file[sample.path.resolve()]
        found = {data.classes[c] for c in np.flatnonzero(sample.labels == 1)}
        assert found == {CLASSES[c] for c in prediction.present(0.5)}, sample.name
        assert set(sample.labels.tolist()) <= {1, -1}
        if name in ("coco", "yolo", "voc"):
            boxes = [
                (CLASSES.index(data.classes[c]), *np.round(box, 2).tolist())
                for c, box in zip(sample.box_classes, sample.boxes, strict=True)
            ]
            assert sorted(boxes) == expected_boxes(prediction)
        if name in ("coco", "voc", "label-studio", "cvat", "mask"):
            labels = np.array([0, *(1 + data.classes.index(c) if c in data.classes else 255 for c in CLASSES)])
            np.testing.assert_array_equal(data.mask(index), labels[expected_mask(prediction)])


@pytest.mark.parametrize("name", ["coco", "yolo", "voc"])
def test_a_class_without_a_region_comes_back(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that is predicted but wins no pixel of the mask has a box at its point."""
    inside = PredictedImage.inside
    monkeypatch.setattr(PredictedImage, "inside", lambda image, label: inside(image, label) & (label != 2))
    trees.image(tmp_path / "in" / "a.png")
    settings = InferenceSettings(CLASSES, True, (8,), (8,))
    maps = np.zeros((3, 3, 4), np.float32)
    maps[0, 0, 0], maps[2, 1, 2] = 5, 1
    probabilities = np.array([0.9, 0.1, 0.8], np.float32)
    prediction = Prediction(str(tmp_path / "in" / "a.png"), (40, 30), settings, probabilities, maps, None, None)
    out, root = tmp_path / "out", tmp_path / "in"
    write_predictions([prediction], out, [name], CLASSES, root=root)
    data = open_dataset(SPECS[name].format(out=out, root=root), "all")
    (sample,) = data.samples
    assert {data.classes[c] for c in np.flatnonzero(sample.labels == 1)} == {"red", "blue"}
    (box,) = sample.boxes[[data.classes[c] == "blue" for c in sample.box_classes]]
    x, y = prediction.points["blue"]
    assert (box[:2] - 0.01 <= (x, y)).all() and ((x, y) <= box[2:] + 0.01).all()
    assert np.allclose(box[2:] - box[:2], 1, atol=0.01)


@pytest.mark.slow
def test_a_model_is_trained_on_what_comes_back(root: Path, tmp_path: Path) -> None:
    from wildcat.training.launch import train

    out = tmp_path / "out"
    write(root, out, "label-studio")
    spec = SPECS["label-studio"].format(out=out, root=root)
    train(tiny(data=spec, train_split="all", epochs=1), tmp_path / "run")
    assert (tmp_path / "run" / "model.safetensors").is_file()
