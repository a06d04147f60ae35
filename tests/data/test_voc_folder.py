"""VOC's layout as other programs write it: folders, suffixes, own classes, lists of other names, no sizes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data import trees
from wildcat.data import check_dataset
from wildcat.data.registry import available_splits, open_dataset
from wildcat.errors import WildcatError


def tree(
    root: Path, names: list[str], objects: list[str], *, suffix: str = ".png", listed: str = "trainval", size: str = ""
) -> Path:
    for name, label in zip(names, objects, strict=True):
        trees.image(root / "JPEGImages" / f"{name}{suffix}")
        trees.write(
            root / "Annotations" / f"{name}.xml",
            f"<annotation>{size}<object><name>{label}</name><bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax>"
            "<ymax>15</ymax></bndbox></object></annotation>",
        )
    trees.write(root / "ImageSets" / "Main" / f"{listed}.txt", "".join(f"{name}\n" for name in names))
    return root


def put_mask(path: Path, label: int, size: tuple[int, int] = (40, 30)) -> None:
    mask = np.zeros(size[::-1], np.uint8)
    mask[2:15, 1:20] = label
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


SIZE = "<size><width>40</width><height>30</height></size>"


@pytest.mark.parametrize("suffix", [".jpg", ".JPG", ".jpeg", ".png", ".PNG", ".bmp", ".tif", ".webp"])
@pytest.mark.parametrize("size", ["", SIZE, "<size><width>0</width><height>0</height></size>", "<size/>"])
def test_any_suffix_and_no_size(tmp_path: Path, suffix: str, size: str) -> None:
    tree(tmp_path, ["a", "deep/b", "c d"], ["dog"] * 3, suffix=suffix, size=size)
    data, report = check_dataset(open_dataset(f"voc07:{tmp_path}", "trainval"))
    assert [sample.name for sample in data.samples] == ["a", "deep/b", "c d"] and not report.has_bad_images
    assert len(data.classes) == 20 and (data.labels == 1).sum() == 3 and report.other_sizes == ()


@pytest.mark.parametrize("names", [["a", "sub/b"], ["x/1", "y/1"], ["a/b/c/d", "a/b"], ["a.v1", "a.v2"]])
@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif"])
def test_masks_in_folders_belong_to_their_images(tmp_path: Path, names: list[str], suffix: str) -> None:
    tree(tmp_path, names, ["cat", "dog"], size=SIZE)
    trees.write(tmp_path / "ImageSets" / "Segmentation" / "trainval.txt", "".join(f"{name}\n" for name in names))
    for name, label in zip(names, (8, 12), strict=True):
        put_mask(tmp_path / "SegmentationClass" / f"{name}{suffix}", label)
    for split in ("trainval", "seg-trainval"):
        data = open_dataset(f"voc07:{tmp_path}", split)
        assert [data.mask(index).max() for index in (0, 1)] == [8, 12] and data.warnings == ()


def test_masks_that_are_missing_or_belong_to_no_image_are_named(tmp_path: Path) -> None:
    tree(tmp_path, ["a", "b"], ["cat", "dog"])
    trees.write(tmp_path / "ImageSets" / "Segmentation" / "trainval.txt", "a\nb\n")
    put_mask(tmp_path / "SegmentationClass" / "a.png", 8)
    put_mask(tmp_path / "SegmentationClass" / "b_mask.png", 8)
    strangers, without = open_dataset(f"voc07:{tmp_path}", "seg-trainval").warnings
    assert "1 of 2 masks have the name of no image and are not used: b_mask" in strangers
    assert "1 of 2 images that ImageSets/Segmentation lists have no mask" in without and without.endswith(": b")
    assert len(open_dataset(f"voc07:{tmp_path}", "trainval").warnings) == 1  # most images of VOC have none


def test_own_classes(tmp_path: Path) -> None:
    tree(tmp_path, ["a", "b", "c"], ["scratch", "dent", "dog"])
    data = open_dataset(f"voc07:{tmp_path}", "trainval")
    assert data.classes == ("dent", "dog", "scratch") and (data.labels == 1).argmax(axis=1).tolist() == [2, 0, 1]
    put_mask(tmp_path / "SegmentationClass" / "a.png", 2)
    data = open_dataset(f"voc07:{tmp_path}", "trainval")  # which class is 2?
    assert not data.has_masks and "masks are not used" in data.warnings[0] and "labels.txt" in data.warnings[0]
    for file, text in {
        "labels.txt": "background\nscratch\ndent\ndog\n",
        "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\nscratch:1,2,3::\ndent:::\ndog:::\n",
    }.items():
        trees.write(tmp_path / file, text)
        data = open_dataset(f"voc07:{tmp_path}", "trainval")
        assert data.classes == ("scratch", "dent", "dog") and data.mask(0).max() == 2 and data.warnings == ()
        trees.write(tmp_path / file, text.replace("dent", "bump"))
        with pytest.raises(WildcatError, match=r"b\.xml: class 'dent' is unknown; allowed: scratch, bump, dog"):
            open_dataset(f"voc07:{tmp_path}", "trainval")
        (tmp_path / file).unlink()


def test_label_files_of_own_classes(tmp_path: Path) -> None:
    tree(tmp_path, ["a", "b"], ["dent", "dent"])
    trees.write(tmp_path / "ImageSets" / "Main" / "dent_trainval.txt", "a 1\nb -1\n")
    trees.write(tmp_path / "ImageSets" / "Main" / "rust_trainval.txt", "a -1\nb 0\n")
    data = open_dataset(f"voc07:{tmp_path}", "trainval")
    assert data.classes == ("dent", "rust") and data.labels.tolist() == [[1, -1], [-1, 0]]


def test_lists_of_other_names_are_split_at_random(tmp_path: Path) -> None:
    tree(tmp_path, [f"{i}" for i in range(10)], ["dog", "cat"] * 5, listed="default")
    spec = f"voc07:{tmp_path}"
    assert available_splits(spec) == ("train", "test", "all")
    parts = {split: {sample.name for sample in open_dataset(spec, split).samples} for split in ("train", "test", "all")}
    assert len(parts["train"]) == 8 and parts["train"] | parts["test"] == parts["all"] and len(parts["all"]) == 10
    assert len(open_dataset(f"{spec},test=0.5,seed=3", "test")) == 5
    with pytest.raises(WildcatError, match="split 'trainval' is unknown; allowed: train, test, all"):
        open_dataset(spec, "trainval")
    tree(tmp_path, ["x"], ["dog"], listed="valid")
    assert available_splits(spec) == ("val",)


@pytest.mark.parametrize("line", ["a.png", "a", "a 1", "a   -1", "\ufeffa"])
def test_names_in_lists(tmp_path: Path, line: str) -> None:
    tree(tmp_path, ["a"], ["dog"])
    trees.write(tmp_path / "ImageSets" / "Main" / "trainval.txt", f"{line}\n")
    assert [sample.name for sample in open_dataset(f"voc07:{tmp_path}", "trainval").samples] == ["a"]


@pytest.mark.parametrize("name", ["n" * 300, "n" * 300 + ".png", "n " * 200, "n\0"])
@pytest.mark.parametrize("listed", ["trainval", "test"])
def test_names_in_lists_that_no_file_can_have(tmp_path: Path, name: str, listed: str) -> None:
    tree(tmp_path, ["a"], ["dog"], listed=listed)
    with (tmp_path / "ImageSets" / "Main" / f"{listed}.txt").open("a") as stream:
        stream.write(f"{name}\n")
    with pytest.raises(WildcatError, match=r"Annotations/n.*\.xml: the annotation (is missing|cannot be read)"):
        open_dataset(f"voc07:{tmp_path}", listed)


@pytest.mark.parametrize(("text", "expected"), [("1", 0), ("true", 0), ("0", 1), ("", 1), ("Unspecified", 1)])
def test_difficult_in_words(tmp_path: Path, text: str, expected: int) -> None:
    tree(tmp_path, ["a"], ["dog"])
    file = tmp_path / "Annotations" / "a.xml"
    file.write_text(file.read_text().replace("</name>", f"</name><difficult>{text}</difficult>"))
    assert open_dataset(f"voc07:{tmp_path}", "trainval").labels.max() == expected
    file.write_text(file.read_text().replace(f"<difficult>{text}", "<difficult>perhaps"))
    with pytest.raises(WildcatError, match="difficult must be 0 or 1; got 'perhaps'"):
        open_dataset(f"voc07:{tmp_path}", "trainval")
