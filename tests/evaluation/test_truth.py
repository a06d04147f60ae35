"""Tasks whose boxes or masks do not fit the images are left out, or an error if they were asked for."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from tests.data import trees
from tests.tiny_runs import ColourModel
from wildcat.data import Dataset, Sample
from wildcat.data.registry import open_dataset
from wildcat.data.truth import truth_problem
from wildcat.errors import WildcatError
from wildcat.evaluation.background import fit_masks
from wildcat.evaluation.classes import in_model_classes
from wildcat.evaluation.scoring import evaluate
from wildcat.prediction.predictor import Part, Predictor
from wildcat.runs.settings import InferenceSettings


def test_what_does_not_fit_is_not_scored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("pycocotools")
    trees.coco(tmp_path)
    spec = f"coco:{tmp_path}"
    classes = open_dataset(spec, "train").classes
    predictor = Predictor(Part(ColourModel(), InferenceSettings(classes, True, (32,), (32,))))  # type: ignore[arg-type]
    assert evaluate(predictor, spec, split="train").pointing is not None
    trees.image(tmp_path / "train2014" / "COCO_train2014_000000000007.jpg", 20, 15)
    with caplog.at_level(logging.WARNING):
        results = evaluate(predictor, spec, split="train")
    assert results.classification is not None and results.pointing is None
    assert "1 of 3 images do not fit the images: COCO_train2014_000000000007" in caplog.text
    assert "pointing is left out" in caplog.text
    for task in ("pointing", "segmentation"):
        with pytest.raises(WildcatError, match=f"leave {task} out of the tasks to score the others"):
            evaluate(predictor, spec, split="train", tasks=["classification", task])
    with pytest.raises(WildcatError, match="annotated as 40 x 30; the image is 20 x 15"):
        fit_masks(predictor, spec, "train", "threshold")


def test_objects_without_boxes_are_not_scored_by_points_in_the_classes_of_a_model(tmp_path: Path) -> None:
    """Whether the model has the dataset's classes in their order or in another."""
    file = trees.coco(tmp_path) / "annotations" / "instances_train2014.json"
    content = json.loads(file.read_text())
    content["annotations"][1] |= {"bbox": None, "segmentation": None}
    file.write_text(json.dumps(content))
    classes = open_dataset(f"coco:{tmp_path}", "train").classes
    for order in (classes, classes[::-1]):
        predictor = Predictor(Part(ColourModel(), InferenceSettings(order, True, (32,), (32,))))  # type: ignore[arg-type]
        results = evaluate(predictor, f"coco:{tmp_path}", split="train")
        assert results.classification is not None and results.pointing is None


@pytest.mark.parametrize("classes", [("cat", "dog"), ("dog", "cat")])
def test_boxes_outside_of_an_image_are_found_in_any_order_of_the_classes(
    tmp_path: Path, classes: tuple[str, ...]
) -> None:
    """Also where the annotations do not say the size of the image."""
    file = trees.image(tmp_path / "a.png", 40, 30)
    box, number, difficult = np.array([[50, 5, 60, 9]], np.float32), np.array([0]), np.array([False])
    sample = Sample("a", file, np.array([1, -1], np.int8), box, number, difficult)
    dataset, _ = in_model_classes(Dataset("mine:x", "all", ["cat", "dog"], [sample]), classes)
    problem = truth_problem(dataset, "pointing")
    assert problem is not None and "a (a box lies outside the image of 40 x 30)" in problem
