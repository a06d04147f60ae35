"""VOC's XML as datumaro (so CVAT), supervision and Label Studio write it, and beside images as LabelImg does."""

from pathlib import Path

import pytest

from tests.data import trees
from tests.data.tool_scenes import IMAGES, SCENES, TOOLS, check_boxes, check_labels, check_masks, copy
from wildcat.data.registry import available_splits, open_dataset
from wildcat.errors import WildcatError


def test_the_layout_of_voc_with_masks(tmp_path: Path) -> None:
    root = copy("voc-datumaro", tmp_path, "JPEGImages")
    assert available_splits(f"voc:{root}")[:2] == ("train", "val")
    parts = [open_dataset(f"voc:{root}", split) for split in ("train", "val")]
    data = parts[0].subset(range(len(parts[0])))
    data.samples += parts[1].samples
    assert data.classes == ("cat", "dog", "bird")
    check_labels(data)
    check_boxes(data, tolerance=1)
    assert "1 of 2 listed images have no XML file" in parts[1].notes[-1] and "empty" in parts[1].notes[-1]
    check_masks(open_dataset(f"voc:{root}", "seg-train"))  # in colour
    lines = ["background:0,0,0::", "cat:128,0,0::", "dog:1,2,3::", "bird:::"]
    trees.write(root / "labelmap.txt", "\n".join(lines))
    with pytest.raises(WildcatError, match=r"holds the colour \(0, 128, 0\), which is of no class in labelmap\.txt"):
        open_dataset(f"voc:{root}", "seg-train").mask(1)


@pytest.mark.parametrize(
    ("annotations", "images"),
    [("annotations", "images"), ("annotations", "annotations"), ("labels/train", "data/train")],
)
def test_xml_beside_images(tmp_path: Path, annotations: str, images: str) -> None:
    """As supervision and Label Studio, LabelImg and Roboflow, FiftyOne write it."""
    root = copy("voc-supervision", tmp_path, images)
    if annotations != "annotations":
        (root / annotations).parent.mkdir(parents=True, exist_ok=True)
        (root / "annotations").rename(root / annotations)
    trees.image(root / images / "later.png")
    data = open_dataset(f"voc:{root}", "all")
    assert data.classes == ("cat", "dog") and not data.upright
    check_labels(data)
    check_boxes(data)
    assert "1 of 5 images have no XML file" in data.notes[0] and "annotated as empty" in data.notes[0]
    trees.write(root / "my.txt", "dog\ncat\n")
    assert open_dataset(f"voc:{root},class_list=my.txt", "all").classes == ("dog", "cat")


def test_images_elsewhere_and_label_studio(tmp_path: Path) -> None:
    root = copy("voc-labelstudio", tmp_path)
    with pytest.raises(WildcatError, match=r"none of its \d images is in .*: .*; name the folder .*images=FOLDER"):
        open_dataset(f"voc:{root}", "all")
    for name in SCENES:
        number = list(SCENES).index(name) + 1
        trees.image(tmp_path / "elsewhere" / f"0a1b2c3{number}-{name}.png").write_bytes(
            (IMAGES / f"{name}.png").read_bytes()
        )
    data = open_dataset(f"voc:{root},images={tmp_path}/elsewhere", "all")
    assert {"cat", "dog"} <= set(data.classes) and len(data) >= 3
    listed = copy("voc-datumaro", tmp_path)
    (listed / "ImageSets" / "Main" / "val.txt").unlink()
    both = open_dataset(f"voc:{listed},images={IMAGES}", "all")  # one list alone is split at random
    assert len(both) == 2 and all(sample.path == IMAGES / f"{sample.name}.png" for sample in both.samples)


def test_folders_of_splits(tmp_path: Path) -> None:
    """Roboflow: train, valid and test, each with images and XML."""
    for split, name in (("train", "one"), ("valid", "three")):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.png").write_bytes((IMAGES / f"{name}.png").read_bytes())
        xml = (TOOLS / "voc-supervision" / "annotations" / f"{name}.xml").read_text().replace(f"{name}.png", "a.png")
        trees.write(tmp_path / split / "a.xml", xml)
    assert available_splits(f"voc:{tmp_path}") == ("train", "val")
    for split, label in (("train", "cat"), ("val", "dog")):
        data = open_dataset(f"voc:{tmp_path}", split)
        (sample,) = data.samples
        assert [data.classes[sample.labels.argmax()]] == [label]
        assert sample.path is not None and sample.path.parent.name in (split, "valid")


def test_own_classes_are_not_the_twenty(tmp_path: Path) -> None:
    for name in ("dog", "person"):
        trees.image(tmp_path / f"{name}.png")
        trees.voc_xml(tmp_path, name, [(name, 0, 1, 1, 5, 5)])
    assert open_dataset(f"voc:{tmp_path}", "all").classes == ("dog", "person")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.png": ""}, "holds no XML file of VOC"),
        ({"a.xml": "<annotations/>"}, "holds no XML file of VOC"),
        ({"a.xml": "<annotation"}, "a.xml: the annotation cannot be read"),
        ({"a.xml": "<!DOCTYPE a []><annotation/>"}, "a DOCTYPE is not allowed"),
        ({"a.xml": "<annotation><filename>a.png</filename></annotation>"}, "none of its 1 images is in"),
        ({"a.xml": "<annotation><object><name>a</name></object></annotation>"}, "a size or a bndbox is missing"),
        ({"VOC2007/ImageSets/Main/a.txt": "", "VOC2012/ImageSets/Main/a.txt": ""}, "holds 2 folders of VOC; give one"),
    ],
)
def test_broken_folders(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        trees.write(tmp_path / name, text)
    with pytest.raises(WildcatError) as error:
        open_dataset(f"voc:{tmp_path}", "all")
    assert message in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(WildcatError, match="is a file; give a folder"):
        open_dataset(f"voc:{tmp_path / next(iter(files))}", "all")
