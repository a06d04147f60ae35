"""JSONs and images where annotation tools put them."""

import json
from pathlib import Path

import pytest

from tests.data import trees
from tests.data.tool_scenes import IMAGES, TOOLS, check_boxes, check_labels, check_masks
from wildcat.data import check_dataset
from wildcat.data.registry import available_splits, default_splits, open_dataset
from wildcat.errors import WildcatError


def content(names: list[str], prefix: str = "") -> str:
    return json.dumps(
        {
            "images": [
                {"id": i, "file_name": f"{prefix}{name}", "width": 40, "height": 30} for i, name in enumerate(names)
            ],
            "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
            "annotations": [
                {"id": i, "image_id": i, "category_id": 1 + i % 2, "bbox": [1, 1, 5, 5]} for i in range(len(names))
            ],
        }
    )


NAMES = [f"{i}.png" for i in range(5)]


def put(root: Path, file: str, folder: str, prefix: str = "", names: list[str] = NAMES) -> None:
    trees.write(root / file, content(names, prefix))
    for name in names:
        trees.image(root / folder / name)


@pytest.mark.parametrize("name", ["n" * 300 + ".png", "n\0.png"])
def test_a_name_that_no_file_can_have_is_a_missing_image(tmp_path: Path, name: str) -> None:
    put(tmp_path, "labels.json", "data")
    trees.write(tmp_path / "labels.json", content([name, *NAMES]))
    dataset, report = check_dataset(open_dataset(f"coco:{tmp_path}", "all"), on_bad_image="skip")
    assert len(dataset) == 5 and report.has_bad_images


@pytest.mark.parametrize(
    ("file", "folder", "prefix"),
    [
        ("annotations/instances_default.json", "images/default", ""),  # CVAT
        ("annotations/instances_default.json", "images", ""),  # CVAT, without subsets
        ("train/_annotations.coco.json", "train", ""),  # Roboflow
        ("_annotations.coco.json", ".", ""),
        ("result.json", "images", ""),  # Label Studio
        ("result.json", "images", "images/"),
        ("result.json", "images", "..\\..\\label-studio\\media\\upload\\1\\"),
        ("result.json", "images", "/data/upload/1/"),
        ("labels.json", "data", ""),  # FiftyOne
        ("labels.json", "data", ".\\"),
        ("annotations.json", "JPEGImages", ""),
        ("annotations/instances_train.json", "images/train", ""),
        ("annotations/train.json", "train", ""),
    ],
)
def test_one_json_is_found_with_its_images(tmp_path: Path, file: str, folder: str, prefix: str) -> None:
    put(tmp_path, file, folder, prefix)
    trees.write(tmp_path / "annotations" / "captions_train.json", '{"images": [], "annotations": [{"caption": "a"}]}')
    trees.write(tmp_path / "notes.json", "{}")
    for spec in (f"coco:{tmp_path}", f"coco:{tmp_path / file}"):
        assert available_splits(spec) == ("train", "test", "all") and default_splits(spec) == ("train", "test")
        kept, report = check_dataset(open_dataset(spec, "all"))
        assert len(kept) == 5 and not report.has_bad_images
        train, test = (open_dataset(spec, split) for split in ("train", "test"))
        assert (len(train), len(test)) == (4, 1) and train.classes == test.classes == ("cat", "dog")
        assert not {s.name for s in train.samples} & {s.name for s in test.samples}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train/_annotations.coco.json", "valid/_annotations.coco.json", "test/_annotations.coco.json"], 3),
        (["annotations/instances_Train.json", "annotations/instances_Validation.json"], 2),
        (["train/labels.json", "validation/labels.json"], 2),
        (["annotations/train2019.json", "annotations/val2019.json"], 2),
    ],
)
def test_several_jsons_are_the_splits(tmp_path: Path, files: list[str], expected: int) -> None:
    for number, file in enumerate(files):
        folder = Path(file).parent.as_posix()
        if folder == "annotations":
            folder = f"images/{Path(file).stem.removeprefix('instances_')}"
        names = [f"{number}-{i}.png" for i in range(number + 1)]
        put(tmp_path, file, folder, names=names)
    spec = f"coco:{tmp_path}"
    assert available_splits(spec) == ("train", "val", "test")[:expected]
    for number, split in enumerate(("train", "val", "test")[:expected]):
        kept, report = check_dataset(open_dataset(spec, split))
        assert len(kept) == number + 1 and not report.has_bad_images


def test_the_folder_of_the_images_can_be_named(tmp_path: Path) -> None:
    put(tmp_path, "a/my.json", "b/c")
    with pytest.raises(WildcatError, match=r"none of its 5 images is in .*coco:.*my\.json,images=FOLDER"):
        open_dataset(f"coco:{tmp_path}/a/my.json", "all")
    for given in (str(tmp_path / "b" / "c"), "../b/c"):
        kept, _ = check_dataset(open_dataset(f"coco:{tmp_path}/a/my.json,images={given}", "all"))
        assert len(kept) == 5
    with pytest.raises(WildcatError, match="nowhere: not found; the option images"):
        open_dataset(f"coco:{tmp_path}/a/my.json,images={tmp_path}/nowhere", "all")
    (tmp_path / "b" / "c" / "0.png").unlink()  # what is missing is counted, not hidden
    with pytest.raises(WildcatError, match="1 file is missing: 0"):
        check_dataset(open_dataset(f"coco:{tmp_path}/a/my.json,images=../b/c", "all"))


def test_jsons_that_do_not_tell_their_splits_are_named(tmp_path: Path) -> None:
    put(tmp_path, "first.json", ".")
    put(tmp_path, "second.json", ".")
    with pytest.raises(
        WildcatError, match=r"holds 2 JSONs .*: first\.json, second\.json; give one: coco:.*first\.json"
    ):
        available_splits(f"coco:{tmp_path}")
    assert len(open_dataset(f"coco:{tmp_path}/second.json", "all")) == 5


def test_one_image_is_trained_on(tmp_path: Path) -> None:
    put(tmp_path, "labels.json", "data", names=["0.png"])
    assert len(open_dataset(f"coco:{tmp_path}", "train")) == 1
    with pytest.raises(WildcatError, match="no image is held out"):
        open_dataset(f"coco:{tmp_path}", "test")


def test_the_official_layout_below_images(tmp_path: Path) -> None:
    put(tmp_path, "annotations/instances_train2017.json", "images/train2017")
    put(tmp_path, "annotations/instances_val2017.json", "images/val2017")
    assert available_splits(f"coco:{tmp_path}") == ("train", "val")
    assert len(check_dataset(open_dataset(f"coco:{tmp_path}", "train"))[0]) == 5


@pytest.mark.parametrize("written", ["CAF\u00c9.PNG", "cafe\u0301.png", "caf\u00e9.png\u200b"])
def test_names_that_look_the_same_are_found(tmp_path: Path, written: str) -> None:
    trees.image(tmp_path / "data" / "caf\u00e9.png")
    trees.write(tmp_path / "labels.json", content([written]))
    assert not check_dataset(open_dataset(f"coco:{tmp_path}", "all"))[1].has_bad_images


@pytest.mark.parametrize("tool", ["datumaro-box", "datumaro-mask", "supervision"])
def test_exports_of_tools(tool: str) -> None:
    """CVAT writes COCO with datumaro, and marks masks as crowds."""
    if tool == "supervision":
        parts = [open_dataset(f"coco:{TOOLS}/coco/supervision.json,images={IMAGES}", "all")]
    else:
        spec = f"coco:{TOOLS}/coco/{tool},crowds=objects"
        assert available_splits(spec) == ("train", "val")
        parts = [open_dataset(spec, split) for split in ("train", "val")]
    data = parts[0].subset(range(len(parts[0])))
    data.samples = [sample for part in parts for sample in part.samples]
    data.outlined = {name: objects for part in parts for name, objects in part.outlined.items()}
    assert data.classes == ("cat", "dog", "bird")
    check_labels(data)
    check_boxes(data)
    if tool == "datumaro-mask":
        check_masks(data)
