"""Exports of Label Studio: those in tests/fixtures/tools were written by its converter."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.tool_scenes import IMAGES, SCENES, TOOLS, check_boxes, check_labels, check_masks
from wildcat.data.label_studio_masks import read_brush
from wildcat.data.registry import available_splits, open_dataset
from wildcat.errors import WildcatError
from wildcat.formats.label_studio import brush_rle

LS = TOOLS / "labelstudio"


def spec(file: Path, **options: str) -> str:
    return f"labelstudio:{file}" + "".join(f",{key}={value}" for key, value in {"images": IMAGES, **options}.items())


@pytest.mark.parametrize("form", ["{}.json", "{}-json_min/result.json"])
@pytest.mark.parametrize("kind", ["rect", "polygon", "brush", "point", "choices"])
def test_exports(kind: str, form: str) -> None:
    file = LS / form.format(kind)
    assert available_splits(spec(file)) == ("train", "test", "all")
    data = open_dataset(spec(file), "all")  # the task "later" has no annotation
    check_labels(data)
    assert data.classes == ("cat", "dog") and data.multi_label and data.upright and not data.zeros_unknown
    assert "1 of 5 tasks are not annotated" in data.notes[0] and "annotated as empty" in data.notes[0]
    if kind in ("rect", "polygon", "brush"):
        check_boxes(data)
    assert data.has_boxes == (kind in ("rect", "polygon", "brush"))
    if kind in ("polygon", "brush"):
        check_masks(data)
    assert data.has_masks == (kind in ("polygon", "brush"))


def test_the_labelling_interface_lists_the_classes() -> None:
    data = open_dataset(spec(LS / "choices.json", class_list=str(LS / "config.xml")), "all")
    assert data.classes == ("cat", "dog", "bird")
    check_labels(data)


def test_its_csv_is_a_table() -> None:
    data = open_dataset(f"tags:{LS}/choices-csv/result.csv,label_column=animal,images={IMAGES}", "all")
    # The table has the task that was not annotated, and cannot tell it from the one without tags.
    assert sorted((sample.labels == 1).sum() for sample in data.samples) == [0, 0, 1, 1, 2]


def test_one_choice_per_image() -> None:
    for file in (LS / "single.json", LS / "single-json_min" / "result.json"):
        data = open_dataset(spec(file), "all")
        assert "exclusive=yes" in data.notes[0]
        single = open_dataset(spec(file, exclusive="yes"), "all")
        assert not single.multi_label and (single.labels == 1).argmax(axis=1).tolist() == [0, 1, 1]
    with pytest.raises(WildcatError, match=r"two\.png has 2 classes; exclusive=yes allows exactly one"):
        open_dataset(spec(LS / "choices.json", exclusive="yes"), "all")


def by_scene(data: Any) -> dict[str, dict[str, int]]:
    return {
        sample.name.rpartition("-")[2]: dict(zip(data.classes, sample.labels.tolist(), strict=True))
        for sample in data.samples
    }


def test_which_annotation_counts() -> None:
    """One image has two annotations, one a corrected prediction, one was skipped, one has a prediction alone."""
    file = LS / "mixed.json"
    latest = by_scene(open_dataset(spec(file), "all"))
    assert latest == {
        "one.png": {"cat": 1, "dog": -1},  # the second one
        "two.png": {"cat": -1, "dog": 1},  # as it was corrected, not as it was predicted
        "empty.png": {"cat": -1, "dog": -1},
    }
    union = by_scene(open_dataset(spec(file, annotations="union"), "all"))
    assert union["one.png"] == {"cat": 1, "dog": 1}
    agreed = open_dataset(spec(file, annotations="agreed"), "all")
    assert by_scene(agreed)["one.png"] == {"cat": 0, "dog": 0} and agreed.zeros_unknown
    assert by_scene(agreed)["two.png"] == {"cat": -1, "dog": 1}
    note = " ".join(agreed.notes)
    assert "2 of 5 tasks are not annotated (1 of them skipped)" in note and "1 images disagree" in note
    predicted = by_scene(open_dataset(spec(file, predictions="yes"), "all"))
    assert predicted["later.png"] == {"cat": -1, "dog": 1} and "three.png" not in predicted


def test_choices_among_texts_in_the_small_form() -> None:
    """In JSON_MIN a choice is a text: beside regions only the user knows which one it is."""
    file = LS / "mixed-json_min" / "result.json"
    assert "controls=NAME names the control of choices" in open_dataset(spec(file), "all").notes[0]
    data = by_scene(open_dataset(spec(file, controls="animal"), "all"))
    assert data["two.png"] == {"dog": 1} and data["one.png"] == {"dog": -1}


def test_ground_truth_is_before_later_annotations(tmp_path: Path) -> None:
    tasks = json.loads((LS / "mixed.json").read_text())
    tasks[0]["annotations"][0]["ground_truth"] = True
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    assert by_scene(open_dataset(spec(tmp_path / "a.json"), "all"))["one.png"] == {"dog": 1}


FRAME = {"original_width": 40, "original_height": 30, "image_rotation": 0, "to_name": "image"}


def result(kind: str, value: dict[str, Any], control: str = "label", **more: Any) -> dict[str, Any]:
    return {"type": kind, "from_name": control, "value": value, "id": "a", **FRAME, **more}


def tasks(*results: dict[str, Any], name: str = "one.png", **more: Any) -> list[dict[str, Any]]:
    return [{"id": 1, "data": {"image": name}, "annotations": [{"id": 1, "result": list(results)}], **more}]


def opened(tmp_path: Path, content: Any, **options: str) -> Any:
    (tmp_path / "export.json").write_text(json.dumps(content))
    return open_dataset(spec(tmp_path / "export.json", **options), "all")


RECTANGLE = {"x": 10, "y": 20, "width": 50, "height": 40, "rotation": 0}


@pytest.mark.parametrize(
    ("results", "labels", "boxes"),
    [
        # A region whose label and place are two results.
        (
            [result("rectangle", RECTANGLE), result("labels", {**RECTANGLE, "labels": ["cat"]})],
            {"cat"},
            [[4, 6, 24, 18]],
        ),
        # A choice about a region is an attribute of it, unless it is the only label.
        (
            [
                result("rectanglelabels", {**RECTANGLE, "rectanglelabels": ["cat"]}),
                result("choices", {**RECTANGLE, "choices": ["blurred"]}, "quality"),
            ],
            {"cat"},
            [[4, 6, 24, 18]],
        ),
        (
            [result("rectangle", RECTANGLE), result("choices", {**RECTANGLE, "choices": ["cat"]})],
            {"cat"},
            [[4, 6, 24, 18]],
        ),
        # A rectangle that was turned by 90 degrees about its corner (4, 6).
        (
            [result("rectanglelabels", {**RECTANGLE, "rotation": 90, "rectanglelabels": ["cat"]})],
            {"cat"},
            [[-8, 6, 4, 26]],
        ),
        (
            [
                result(
                    "ellipselabels",
                    {"x": 50, "y": 50, "radiusX": 25, "radiusY": 50, "rotation": 0, "ellipselabels": ["cat"]},
                )
            ],
            {"cat"},
            [[10, 0, 30, 30]],
        ),
        (
            [result("rectanglelabels", {**RECTANGLE, "rectanglelabels": ["cat", "dog"]})],
            {"cat", "dog"},
            [[4, 6, 24, 18]] * 2,
        ),
        ([result("taxonomy", {"taxonomy": [["animal", "cat"], ["plant"]]})], {"cat", "plant"}, None),
        ([result("choices", {"choices": ["cat"]}), result("textarea", {"text": ["a cat"]}, "note")], {"cat"}, None),
        # A tag without an object: the objects are not all boxed.
        (
            [
                result("choices", {"choices": ["dog"]}),
                result("rectanglelabels", {**RECTANGLE, "rectanglelabels": ["cat"]}),
            ],
            {"cat", "dog"},
            None,
        ),
        ([result("rectanglelabels", {**RECTANGLE, "rectanglelabels": ["cat"]}, image_rotation=90)], {"cat"}, None),
    ],
)
def test_results(
    tmp_path: Path, results: list[dict[str, Any]], labels: set[str], boxes: list[list[float]] | None
) -> None:
    data = opened(tmp_path, tasks(*results))
    (sample,) = data.samples
    assert {name for name, label in zip(data.classes, sample.labels, strict=True) if label == 1} == labels
    if boxes is None:
        assert sample.boxes is None
    else:
        np.testing.assert_allclose(sample.boxes, boxes, atol=0.05)


def test_controls_are_chosen(tmp_path: Path) -> None:
    content = tasks(
        result("choices", {"choices": ["cat"]}, "animal", id="b"),
        result("choices", {"choices": ["blurred"]}, "quality"),
    )
    assert opened(tmp_path, content).classes == ("blurred", "cat")
    data = opened(tmp_path, content, controls="animal")
    assert data.classes == ("cat",)
    with pytest.raises(WildcatError, match="controls 'animals' is unknown; allowed: animal, quality"):
        opened(tmp_path, content, controls="animals")


def test_bit_masks(tmp_path: Path) -> None:
    import base64
    import io

    from PIL import Image

    buffer = io.BytesIO()
    inside = np.zeros((30, 40), np.uint8)
    inside[5:20, 4:16] = 255
    Image.fromarray(inside).save(buffer, "PNG")
    url = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    data = opened(tmp_path, tasks(result("bitmasklabels", {"imageDataURL": url, "bitmasklabels": ["cat"]})))
    assert data.samples[0].boxes.tolist() == [[4, 5, 16, 20]]
    np.testing.assert_array_equal(data.mask(0), inside // 255)


@pytest.mark.parametrize(
    "name",
    [
        "/data/upload/7/0a1b2c3d-one.png",
        "/data/local-files/?d=photos/one.png",
        "http://localhost:8080/data/upload/7/one.png?token=x",
        "https://bucket.example/a%20b/one.png",
        "s3://bucket/photos/one.png",
        "C:\\photos\\one.png",
        "..\\..\\photos\\one.png",
        "/home/somebody/photos/one.png",
        "photos/ONE.png",
        "one.png",
    ],
)
def test_images_are_found_by_the_names_of_the_tool(tmp_path: Path, name: str) -> None:
    data = opened(tmp_path, tasks(result("choices", {"choices": ["cat"]}), name=name))
    assert data.samples[0].path == IMAGES / "one.png"
    shutil.copytree(IMAGES, tmp_path / "images" / "deep")  # anywhere below, if the name is the only one
    near = open_dataset(f"labelstudio:{tmp_path / 'export.json'}", "all")
    assert near.samples[0].path is not None and near.samples[0].path.name == "one.png"


def test_names_as_the_server_stores_them(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "My cat (1).png").write_bytes((IMAGES / "one.png").read_bytes())
    (tmp_path / "a.json").write_text(
        json.dumps(tasks(result("choices", {"choices": ["cat"]}), name="/data/upload/1/0a1b2c3d-My_cat_1.png"))
    )
    data = open_dataset(f"labelstudio:{tmp_path}/a.json,images={tmp_path}/photos", "all")
    assert data.samples[0].path == tmp_path / "photos" / "My cat (1).png"


def test_brushes_of_other_sizes_are_rejected() -> None:
    inside = np.zeros((30, 40), bool)
    inside[3:9, 2:7] = True
    value = {"rle": brush_rle(inside)}
    box, mask = read_brush(value, (40, 30))
    assert box == (2, 3, 7, 9) and mask.area == 30
    np.testing.assert_array_equal(mask.pixels(40, 30), inside)
    for wrong in (
        {"rle": value["rle"][:-3]},
        {"rle": [300]},
        {"rle": []},
        {"rle": "x"},
        {},
        {"imageDataURL": "data:x"},
    ):
        with pytest.raises(ValueError, match="brush"):
            read_brush(wrong, (40, 30))
    for size in ((40, 31), (10**9, 10**9)):
        with pytest.raises(ValueError, match="a brush"):
            read_brush(value, size)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "holds no task"),
        ({}, "is no list of tasks"),
        ([1], "is no list of tasks"),
        ([{"a": "b"}], "is no export of Label Studio"),
        ({"images": [], "categories": [], "annotations": []}, "is a file of COCO instances; use coco:"),
        ([{"id": 1, "data": {"image": "one.png"}, "annotations": []}], "none of its 1 tasks is annotated (0 skipped)"),
        ([{"id": 1, "data": {"text": "one"}, "annotations": []}], "no key of its tasks names an image; they are text"),
        ([{"id": 1, "data": [], "annotations": []}], "task 1 has no data"),
        ([{"id": 1, "data": {"image": "one.png"}, "annotations": [17]}], "annotations holds only the number 17"),
        ([{"id": 1, "data": {"image": "one.png"}, "annotations": [{"id": 1}]}], "must have a list result"),
        (
            [{"id": 7, "data": {"image": "one.png"}}, {"id": 8, "data": {"image": ""}}],
            "task 8 names no image in 'image'",
        ),
        ([{"id": 7, "data": {"left": "a.png", "right": "b.png"}, "annotations": []}], "left, right name images"),
        (
            tasks(result("rectanglelabels", {"rectanglelabels": ["cat"], "x": "1", "y": 1, "width": 1, "height": 1})),
            "x of a region must be a number; got 1",
        ),
        (tasks(result("polygonlabels", {"polygonlabels": ["cat"], "points": [[1], [2, 3]]})), "pairs of numbers"),
        (tasks(result("choices", {"choices": "cat"})), "choices must be a list; got cat"),
        (tasks(result("choices", {"choices": [7]})), "choices must hold names"),
        (
            tasks(result("timeserieslabels", {"start": 1, "timeserieslabels": ["cat"]})),
            "which are not those of an image",
        ),
        (
            tasks(result("brushlabels", {"rle": [1, 2], "brushlabels": ["cat"]})),
            "a brush is not that of an image of 40 x 30",
        ),
        (tasks(result("brushlabels", {"rle": [1, 2], "brushlabels": ["cat"]}, original_width=-4)), "original_width"),
        (tasks(result("choices", {"choices": ["cat"]}), name="elsewhere.png"), "none of its 1 images is in"),
        (tasks(result("choices", {"choices": ["cat"]}), name="../../../etc/passwd"), "none of its 1 images is in"),
    ],
)
def test_broken_exports(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(WildcatError) as error:
        opened(tmp_path, content)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "export.json"))


def test_files_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text("<annotations/>")
    (tmp_path / "b.json").write_text("[" * 100_000)
    for name, message in (("a.xml", "use cvat:FILE"), ("b.json", "cannot be read as JSON"), (".", "is a folder")):
        with pytest.raises(WildcatError, match=message):
            open_dataset(f"labelstudio:{tmp_path / name}", "all")
    assert set(SCENES) == {"one", "two", "three", "empty"}
