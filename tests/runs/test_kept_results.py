"""Which results of earlier evaluations are kept in results.json."""

from dataclasses import replace
from typing import Any

import pytest

from wildcat.metrics.scores import ClassificationScores, PointingScores, SegmentationScores
from wildcat.runs.kept_results import add_results, find_results
from wildcat.runs.results import MAX_OTHERS, Inference, Results

POINTS = Results(
    data="folder:mine",
    split="test",
    images=9,
    part="held out",
    model="a1",
    images_digest="d1",
    inference=Inference((224,), (448,), precision="fp32", runtime="torch"),
    versions={"torch": "2"},
    pointing=PointingScores(map=50.0),
)
CLASSES = replace(
    POINTS,
    pointing=None,
    classification=ClassificationScores(map_area=90.0),
    inference=replace(POINTS.inference, map_sizes=None),
)


def test_tasks_of_the_same_images_and_model_are_joined() -> None:
    content = add_results(POINTS, CLASSES, "threshold 0.2")
    assert content.tasks == ("classification", "pointing") and content.others == ()
    assert content.inference.map_sizes == (448,)


@pytest.mark.parametrize(
    "change",
    [
        {"model": "b2"},  # other weights or other settings, whatever the dates of the files
        {"model": ""},  # a file of an earlier version, which does not say
        {"images_digest": "d2"},  # as many other images
        {"images_digest": ""},
        {"images": 8},
        {"versions": {"torch": "3"}},
        {"inference": Inference((224,), (448,), precision="bf16", runtime="torch")},
        {"inference": Inference((224,), (448,), precision="fp32", runtime="onnx")},
        {"inference": Inference((320,), (448,), precision="fp32", runtime="torch")},
        {"split": "train", "part": "training data", "model": "b2"},
    ],
    ids=str,
)
def test_other_tasks_are_dropped(change: dict[str, Any]) -> None:
    content = add_results(replace(POINTS, **change), CLASSES, "threshold 0.2")
    assert content.tasks == ("classification",) and content.others == ()


@pytest.mark.parametrize(("background", "kept"), [("threshold 0.2", True), ("threshold 0.3", False)])
def test_masks_are_kept_with_the_same_background(background: str, kept: bool) -> None:
    masks = replace(POINTS, pointing=None, segmentation=SegmentationScores(miou=30.0, background="threshold 0.2"))
    assert ("segmentation" in add_results(masks, CLASSES, background).tasks) is kept


def test_held_out_images_stand_at_the_top() -> None:
    content = replace(POINTS, data="folder:new", split="all", part="other data")
    content = add_results(content, replace(POINTS, split="train", part="training data"), "")
    content = add_results(content, replace(POINTS, data="folder:b", split="all", part="other data"), "")
    assert [content.data, *(each.data for each in content.others)] == ["folder:mine", "folder:b", "folder:new"]
    content = add_results(content, POINTS, "")
    assert content.split == "test"
    assert [each.data for each in content.others] == ["folder:mine", "folder:b", "folder:new"]
    moved = replace(POINTS, data="folder:/moved/mine", pointing=PointingScores(map=60.0))
    content = add_results(content, moved, "")  # the same data in another place
    assert content.pointing == moved.pointing and len(content.others) == 3
    assert find_results(content, "folder:elsewhere", "test", "held out") == replace(content, others=())
    assert find_results(content, "folder:./new", "all", "other data") is not None
    assert find_results(content, "folder:new", "test", "other data") is None


def test_the_number_of_kept_results_is_bounded() -> None:
    content = POINTS
    for number in range(MAX_OTHERS + 3):
        content = add_results(content, replace(POINTS, data=f"folder:{number}", split="all", part="other data"), "")
    assert len(content.others) == MAX_OTHERS and content.others[0].data == f"folder:{MAX_OTHERS + 2}"
    assert Results.from_dict(content.to_dict()) == content
