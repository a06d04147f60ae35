"""JSONs in COCO's format as tools write them: what may be missing, other types of ids, crowds, and what is an error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data import trees
from wildcat.data import Dataset, check_dataset, label_warnings
from wildcat.data.checks import difficult_warnings
from wildcat.data.registry import open_dataset
from wildcat.errors import WildcatError

Content = dict[str, list[dict[str, Any]]]
Change = Callable[[Content], None]

SQUARE = [[2, 3, 22, 3, 22, 18, 2, 18]]


def tree(path: Path, change: Change = lambda content: None) -> Path:
    """Six images, by turns of a cat and a dog, with the same box and outline."""
    content: Content = {
        "images": [{"id": i + 1, "file_name": f"{i}.png", "width": 40, "height": 30} for i in range(6)],
        "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": i + 1, "image_id": i + 1, "category_id": (1, 3)[i % 2], "bbox": [2, 3, 20, 15], "area": 300,
             "iscrowd": 0, "segmentation": SQUARE}
            for i in range(6)
        ],
    }  # fmt: skip
    change(content)
    for image in content["images"]:
        trees.image(path / "val2017" / image["file_name"])
    trees.write(path / "annotations" / "instances_val2017.json", json.dumps(content))
    return path


def each(kind: str, **values: Any) -> Change:
    """Set keys of all entries of a kind; ``...`` removes a key, and a function changes it."""

    def change(content: Content) -> None:
        for item in content[kind]:
            for key, value in values.items():
                if value is ...:
                    item.pop(key)
                else:
                    item[key] = value(item[key]) if callable(value) else value

    return change


def all_of(*changes: Change) -> Change:
    def change(content: Content) -> None:
        for one in changes:
            one(content)

    return change


def ids(convert: Callable[[Any], Any]) -> Change:
    return all_of(each("images", id=convert), each("annotations", image_id=convert))


def project_category(content: Content) -> None:
    """As Roboflow lists the project, which may have the name of a class."""
    content["categories"].insert(0, {"id": 0, "name": "dog", "supercategory": "none"})


def opened(path: Path, change: Change, options: str = "") -> Dataset:
    return open_dataset(f"coco:{tree(path, change)}{options}", "val")


LABELS = [[1, -1], [-1, 1]] * 3


@pytest.mark.parametrize(
    "change",
    [
        each("annotations", area=...),
        each("annotations", area=None),
        each("annotations", segmentation=...),
        each("annotations", segmentation=None),
        each("annotations", segmentation=[]),
        each("annotations", bbox=None),
        each("annotations", bbox=[]),
        each("annotations", iscrowd=...),
        each("annotations", iscrowd=False),
        each("annotations", iscrowd="0"),
        each("annotations", iscrowd=0.0),
        each("annotations", iscrowd=None),
        each("annotations", id=...),
        each("annotations", id=1),
        each("annotations", category_id=str),
        each("images", width=float, height=float),
        each("images", width=..., height=...),
        each("images", width=None),
        ids(str),
        ids(float),
        ids(lambda value: f"img-{value:03}"),
        each("images", id=str),
        each("annotations", image_id=float),
        all_of(each("categories", id=lambda value: f"c{value}"), each("annotations", category_id=lambda v: f"c{v}")),
        project_category,
    ],
)
def test_labels_need_image_and_category_alone(tmp_path: Path, change: Change) -> None:
    data = opened(tmp_path, change)
    assert data.classes == ("cat", "dog") and data.labels.tolist() == LABELS
    assert check_dataset(data)[1].other_sizes == ()


@pytest.mark.parametrize(
    ("change", "boxes", "masks"),
    [
        (lambda content: None, True, True),
        (each("annotations", segmentation=None), True, False),
        (each("annotations", segmentation=[]), True, False),  # boxes alone, as Roboflow writes them: no empty masks
        (each("annotations", bbox=None), True, True),  # the box of the outline
        (all_of(each("annotations", bbox=None), each("annotations", segmentation=...)), False, False),
        (lambda content: content["annotations"][2].update(segmentation=None), True, True),
        (lambda content: content["annotations"][2].update(segmentation=None, bbox=None), False, True),
        (each("images", width=None), True, True),
    ],
)
def test_points_and_masks_need_what_they_are_scored_with(
    tmp_path: Path, change: Change, boxes: bool, masks: bool
) -> None:
    data = opened(tmp_path, change)
    assert (data.has_boxes, data.has_masks) == (boxes, masks)
    if boxes:
        assert all(sample.boxes.tolist() == [[2, 3, 22, 18]] for sample in data.samples)
    pytest.importorskip("pycocotools")
    expected = np.zeros((30, 40), np.uint8)
    expected[3:18, 2:22] = 1
    assert [data.has_mask(index) for index in range(6)] == [data.mask(index) is not None for index in range(6)]
    assert data.has_mask(0) == masks and (not masks or np.array_equal(data.mask(0), expected))


def test_a_box_follows_from_run_lengths(tmp_path: Path) -> None:
    runs = {"size": [30, 40], "counts": [2 * 30 + 3, 5, 25, 5, 1200 - 98]}  # rows 3...7 of columns 2 and 3
    data = opened(tmp_path, each("annotations", bbox=None, area=None, segmentation=runs))
    assert data.samples[0].boxes.tolist() == [[2, 3, 4, 8]]


@pytest.mark.parametrize("crowd", [1, True, "1", "true", 1.0])
def test_what_is_said_of_crowds_is_what_is_trained(tmp_path: Path, crowd: object) -> None:
    runs = {"size": [30, 40], "counts": [100, 20, 1080]}

    def dogs(content: Content) -> None:
        for item in content["annotations"]:
            if item["category_id"] == 3:
                item.update(iscrowd=crowd, segmentation=runs)

    data = opened(tmp_path / "dogs", dogs)
    assert data.labels.tolist() == [[1, -1], [-1, 0]] * 3
    report = check_dataset(data)[1]
    assert "1 class has only difficult objects or crowds: dog" in str(report) and "no positive" not in str(report)
    assert label_warnings(data) == []
    (positive,), (ignored,) = (difficult_warnings(data, setting) for setting in ("positive", "ignore"))
    assert "1 of 2 classes" in positive and "dog 3 images" in positive and "count as positives" in positive
    assert "cannot be learnt" in ignored and "crowds=objects" in ignored

    taken = open_dataset(f"coco:{tmp_path / 'dogs'},crowds=objects", "val")
    assert taken.labels.tolist() == LABELS and not any(sample.box_difficult.any() for sample in taken.samples)
    assert difficult_warnings(taken, "positive") == []

    with pytest.raises(
        WildcatError, match=r"all 6 objects are crowds \(iscrowd 1, as CVAT .*crowds=objects takes them"
    ):
        opened(tmp_path / "all", each("annotations", iscrowd=crowd, segmentation=runs))
    assert open_dataset(f"coco:{tmp_path / 'all'},crowds=objects", "val").labels.tolist() == LABELS
    assert (open_dataset(f"coco:{tmp_path / 'all'},crowds=difficult", "val").labels <= 0).all()


def shifted(content: Content) -> None:
    for item in content["annotations"]:
        item["image_id"] -= 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shifted, "image_id of 1 of 6 entries is no id of images, the first is entry 1 with 0; .*unlisted=drop"),
        (lambda c: c["images"].pop(), "image_id of 1 of 6 entries is no id of images, the first is entry 6 with 6"),
        (each("annotations", image_id="x"), "image_id of 6 of 6 entries"),
        (ids(lambda value: value + 0.5), "images: id of entry 1 must be a whole number or text; got 1.5"),
        (each("images", id=True), "images: id of entry 1 must be"),
        (each("images", id=7.0), "images: id of entry 2 must be unique; got 7"),
        (lambda c: c["images"][1].update(id="1"), "images: id of entry 2 must be unique; got 1"),
        (each("annotations", iscrowd="maybe"), "iscrowd of entry 1 must be 0 or 1; got 'maybe'"),
        (each("annotations", iscrowd=2), "iscrowd of entry 1 must be 0 or 1; got 2"),
        (each("annotations", image_id=...), "image_id of entry 1 must be a whole number or text; got nothing"),
        (each("annotations", area="big"), "area of entry 1 must be a number"),
        (each("images", width="40px"), "width of entry 1 must be a whole number above 0"),
        (each("images", height=0), "height of entry 1 must be a whole number above 0; got 0"),
        (each("categories", name="pet"), "categories: name of entry 2 must be unique; got 'pet'"),
        (
            each("annotations", segmentation={"size": [30, 41], "counts": [1230]}),
            "run lengths must be those of 30 x 40",
        ),
    ],
)
def test_what_would_shift_or_lose_labels_is_an_error(tmp_path: Path, change: Change, message: str) -> None:
    with pytest.raises(WildcatError, match=message):
        opened(tmp_path, change)


def test_entries_of_left_out_images_can_be_dropped(tmp_path: Path) -> None:
    data = opened(tmp_path, lambda content: content["images"].pop(0), ",unlisted=drop")
    assert [sample.name for sample in data.samples] == ["1", "2", "3", "4", "5"] and data.labels.tolist() == LABELS[1:]
