"""YOLO as datumaro, supervision and Label Studio write it, and in the layouts of Ultralytics, Roboflow and Darknet."""

from pathlib import Path

import pytest

from tests.data import trees
from tests.data.tool_scenes import HEIGHT, SCENES, WIDTH, check_boxes, check_labels, check_masks, copy
from wildcat.data.registry import available_splits, default_splits, open_dataset
from wildcat.errors import WildcatError


@pytest.mark.parametrize(
    ("tool", "images", "path", "splits"),
    [
        ("yolo-supervision", "images", "data.yaml", ("train", "test", "all")),
        ("yolo-supervision", "images", "", ("train", "test", "all")),
        ("yolo-labelstudio", "images", "", ("train", "test", "all")),
        ("yolo-darknet", None, "obj.data", ("train", "val")),
        ("yolo-darknet", None, "", ("train", "val")),
        ("yolo-datumaro", None, "data.yaml", ("train", "val")),
        ("yolo-datumaro", None, "", ("train", "val")),
    ],
)
def test_exports(tmp_path: Path, tool: str, images: str | None, path: str, splits: tuple[str, ...]) -> None:
    root = copy(tool, tmp_path, images)
    if tool == "yolo-labelstudio":  # it puts a number before the names of uploaded files
        for number, name in enumerate(SCENES, start=1):
            (root / "images" / f"{name}.png").rename(root / "images" / f"0a1b2c3{number}-{name}.png")
    spec = f"yolo:{root / path}"
    assert available_splits(spec) == splits
    parts = [open_dataset(spec, split) for split in (["all"] if "all" in splits else splits)]
    assert {part.classes for part in parts} <= {("cat", "dog", "bird"), ("cat", "dog")}
    together = parts[0].subset(range(len(parts[0])))
    together.samples = [sample for part in parts for sample in part.samples]
    check_labels(together)
    check_boxes(together)


def lines(scene: str, polygons: bool = False) -> str:
    text = ""
    for label, (x1, y1, x2, y2) in SCENES[scene]:
        values = [(x1 + x2) / 2 / WIDTH, (y1 + y2) / 2 / HEIGHT, (x2 - x1) / WIDTH, (y2 - y1) / HEIGHT]
        if polygons:
            values = [v for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2)) for v in (x / WIDTH, y / HEIGHT)]
        text += " ".join(map(str, [["cat", "dog"].index(label), *values])) + "\n"
    return text


def put(root: Path, images: str, labels: str, yaml: str, polygons: bool = False) -> Path:
    """The scenes, but for "empty" without a file of labels."""
    copy("images", root)
    (root / "images" / "later.png").unlink()
    (root / images).mkdir(parents=True, exist_ok=True)
    for name in SCENES:
        (root / "images" / f"{name}.png").rename(root / images / f"{name}.png")
        if name != "empty":
            trees.write(root / labels / f"{name}.txt", lines(name, polygons))
    if yaml:
        trees.write(root / "data.yaml", yaml)
    return root


NAMES = "names: [cat, dog]\n"


@pytest.mark.parametrize(
    ("images", "labels", "yaml"),
    [
        ("images/train", "labels/train", "path: .\ntrain: images/train\nnames: {0: cat, 1: dog}\n"),
        (
            "images/train",
            "labels/train",
            f"path: /home/somebody/dataset\ntrain: images/train\nval: images/train\n{NAMES}",
        ),
        (
            "train/images",
            "train/labels",
            f"train: ../train/images\nval: ../valid/images\ntest: ../test/images\n{NAMES}nc: 2\n",
        ),
        ("data/images", "data/labels", f"train: [data/images]\n{NAMES}"),
        ("here", "here", f"train: here\n{NAMES}"),
        ("images", "labels", NAMES),
    ],
)
def test_layouts(tmp_path: Path, images: str, labels: str, yaml: str) -> None:
    data = open_dataset(f"yolo:{put(tmp_path, images, labels, yaml)}", "all")
    assert data.classes == ("cat", "dog")
    check_labels(data)
    check_boxes(data)
    assert "1 of 4 images have no annotation" in data.notes[0]
    trees.write(tmp_path / labels / "empty.txt", "")
    kept = open_dataset(f"yolo:{tmp_path},empty=drop", "all")
    assert len(kept) == 4 and "annotated as empty" in kept.notes[0]
    (tmp_path / labels / "empty.txt").unlink()
    assert len(open_dataset(f"yolo:{tmp_path},empty=drop", "all")) == 3


def test_polygons_are_masks(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    data = open_dataset(f"yolo:{put(tmp_path, 'images', 'labels', NAMES, polygons=True)}", "all")
    check_labels(data)
    check_boxes(data)
    check_masks(data)


def test_key_points_and_confidences_are_left_out(tmp_path: Path) -> None:
    put(tmp_path, "images", "labels", f"{NAMES}kpt_shape: [1, 3]\ntrain: images\n")
    for file in (tmp_path / "labels").glob("*.txt"):
        file.write_text("".join(f"{line} 0.5 0.5 2\n" for line in file.read_text().splitlines()))
    check_boxes(open_dataset(f"yolo:{tmp_path}", "all"))
    trees.write(tmp_path / "data.yaml", NAMES)
    for file in (tmp_path / "labels").glob("*.txt"):
        file.write_text("".join(f"{line.removesuffix(' 0.5 0.5 2')} 0.9\n" for line in file.read_text().splitlines()))
    check_boxes(open_dataset(f"yolo:{tmp_path}", "all"))


def test_classification_is_class_folders(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            for number in range(2):
                trees.image(tmp_path / split / name / f"{number}.png")
    data = open_dataset(f"yolo:{tmp_path}", "train")
    assert default_splits(f"yolo:{tmp_path}") == ("train", "val") and data.classes == ("cat", "dog")
    assert not data.multi_label and len(data) == 4


def test_a_list_of_classes(tmp_path: Path) -> None:
    put(tmp_path, "images", "labels", "")
    with pytest.raises(WildcatError, match=r"holds no data\.yaml, obj\.data or classes\.txt .* class_list=FILE"):
        open_dataset(f"yolo:{tmp_path}", "all")
    trees.write(tmp_path / "my.txt", "cat\ndog\n")
    check_labels(open_dataset(f"yolo:{tmp_path},class_list=my.txt", "all"))


def test_images_that_are_missing_have_labels_without_boxes(tmp_path: Path) -> None:
    put(tmp_path, "images", "labels", f"{NAMES}train: list.txt\n")
    trees.write(tmp_path / "list.txt", "".join(f"./images/{name}.png\n" for name in SCENES) + "./images/gone.png\n")
    trees.write(tmp_path / "labels" / "gone.txt", "0 0.5 0.5 0.1 0.1\n")
    gone = open_dataset(f"yolo:{tmp_path}", "all").samples[-1]
    assert gone.labels.tolist() == [1, -1] and gone.boxes is None and gone.path == tmp_path / "images" / "gone.png"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.1", "line 1 has 3 coordinates; a box has 4, a polygon 6 or more"),
        ("0 0.1 0.1 0.2 0.2 0.3 0.3 0.4", "line 1 has 7 coordinates"),
        ("2 0.5 0.5 0.1 0.1", "line 1: class 2 must be a number from 0 to 1, as names lists them"),
        ("0.5 0.5 0.5 0.1 0.1", "class 0.5 must be a number"),
        ("cat 0.5 0.5 0.1 0.1", "line 1 must hold a class and coordinates"),
        ("0 20 15 10 10", "must be fractions of the image, from 0 to 1"),
        ("0 nan 0.5 0.1 0.1", "must be fractions of the image"),
    ],
)
def test_broken_lines(tmp_path: Path, line: str, message: str) -> None:
    put(tmp_path, "images", "labels", NAMES)
    trees.write(tmp_path / "labels" / "one.txt", line)
    with pytest.raises(WildcatError, match=r"one\.txt") as error:
        open_dataset(f"yolo:{tmp_path}", "all")
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("- a\n", "is no data.yaml of YOLO"),
        ("train: [\n", "cannot be read as YAML"),
        ("train: images\n", "has no list of names"),
        ("names: [cat, cat]\n", "must name each class once; cat occurs twice"),
        (f"train: 7\n{NAMES}", "train must be a path, or a list of paths; got 7"),
        (f"train: nowhere\n{NAMES}", "'nowhere' is not there"),
        (f"train: !!python/object/apply:os.system ['true']\n{NAMES}", "cannot be read as YAML"),
    ],
)
def test_broken_descriptions(tmp_path: Path, yaml: str, message: str) -> None:
    put(tmp_path, "images", "labels", yaml)
    with pytest.raises(WildcatError) as error:
        open_dataset(f"yolo:{tmp_path / 'data.yaml'}", "all")
    assert message in str(error.value) and "data.yaml" in str(error.value) and "\n" not in str(error.value)


def test_no_labels_at_all(tmp_path: Path) -> None:
    put(tmp_path, "images", "elsewhere", NAMES)
    with pytest.raises(WildcatError, match=r"none of the 4 images has a file of labels, such as .*labels/\w+\.txt"):
        open_dataset(f"yolo:{tmp_path}", "all")
    trees.write(tmp_path / "a.json", "{}")
    with pytest.raises(WildcatError, match=r"is no YAML file; give a data\.yaml"):
        open_dataset(f"yolo:{tmp_path / 'a.json'}", "all")
