"""MS COCO by its official JSON."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torchvision

from tests.data import trees
from wildcat.data.registry import available_splits, default_splits, download_dataset, open_dataset
from wildcat.errors import WildcatError


def test_labels_and_boxes_by_hand(tmp_path: Path) -> None:
    trees.coco(tmp_path)
    data = open_dataset(f"coco:{tmp_path}", "train")
    assert data.classes == ("person", "dog", "toothbrush")  # by id, not by place in the file
    assert [sample.name for sample in data.samples] == [f"COCO_train2014_{i:012}" for i in (7, 3, 5)]
    assert data.labels.tolist() == [[1, 1, 0], [-1, 1, -1], [-1, -1, -1]]  # only a crowd of toothbrushes: ignored
    first, second, empty = data.samples
    assert first.boxes.tolist() == [[12, 7, 16, 11], [10, 5, 20, 15], [19, 0, 20, 30]]
    assert first.box_classes.tolist() == [0, 1, 2] and first.box_difficult.tolist() == [False, False, True]
    assert second.boxes.tolist() == [[1.5, 2.5, 1.5, 10.5]] and empty.boxes.shape == (0, 4)
    assert data.image(2).size == (40, 30) and data.has_boxes and data.has_masks and not data.upright


def test_masks_by_hand(tmp_path: Path) -> None:
    trees.coco(tmp_path)
    data = open_dataset(f"coco:{tmp_path}", "train")
    expected = np.zeros((30, 40), dtype=np.uint8)
    expected[:, 19] = 255
    expected[5:15, 10:20] = 2  # known objects are in front of the crowd
    expected[7:11, 12:16] = 1  # and the smaller one in front of the larger
    assert np.array_equal(data.mask(0), expected)
    assert not data.mask(1).any() and not data.subset([2]).mask(0).any()


def test_images_without_annotations_can_be_dropped(tmp_path: Path) -> None:
    trees.coco(tmp_path)
    assert len(open_dataset(f"coco:{tmp_path},empty=keep", "train")) == 3
    kept = open_dataset(f"coco:{tmp_path},empty=drop", "train")
    assert len(kept) == 2 and kept.mask(0).any()


def test_images_of_one_name_in_several_folders(tmp_path: Path) -> None:
    """Each keeps its own size, boxes and mask."""
    trees.coco(tmp_path)
    file = tmp_path / "annotations" / "instances_train2014.json"
    content = json.loads(file.read_text())
    names = ["a/1.jpg", "b/1.jpg", "b/2.jpg"]
    for image, name, size in zip(content["images"], names, [(40, 30), (60, 50), (20, 10)], strict=True):
        image |= {"file_name": name, "width": size[0], "height": size[1]}
        trees.image(tmp_path / "train2014" / name, *size)
    file.write_text(json.dumps(content))

    def check(expected: list[str]) -> None:
        for spec, count in ((f"coco:{tmp_path}", 3), (f"coco:{tmp_path},empty=drop", 2)):
            data = open_dataset(spec, "train")
            assert [sample.name for sample in data.samples] == expected[:count]
            for index in range(count):
                assert data.mask(index).shape == data.image(index).size[::-1]
            assert data.mask(0).any() and not data.mask(1).any()
            assert [len(sample.boxes) for sample in data.samples] == [3, 1, 0][:count]

    check(["a/1", "b/1", "b/2"])
    content["images"][1]["file_name"] = "a/1.png"  # where folders do not tell them apart either
    trees.image(tmp_path / "train2014" / "a" / "1.png", 60, 50)
    file.write_text(json.dumps(content))
    check(["a/1.jpg", "a/1.png", "b/2.jpg"])


def test_years_and_splits(tmp_path: Path) -> None:
    trees.coco(tmp_path, "2017")
    assert available_splits(f"coco:{tmp_path}") == ("train", "val") == default_splits(f"coco:{tmp_path}")
    assert open_dataset(f"coco:{tmp_path}", "val").samples[0].path == tmp_path / "val2017" / (
        "COCO_val2017_000000000005.jpg"
    )
    trees.coco(tmp_path, "2014")
    assert "2014" in open_dataset(f"coco:{tmp_path}", "val").samples[0].name
    assert "2017" in open_dataset(f"coco:{tmp_path},year=2017", "val").samples[0].name


def test_errors_name_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(WildcatError, match="holds no annotations/instances_"):
        open_dataset(f"coco:{tmp_path}", "train")
    with pytest.raises(WildcatError, match="gone: not found"):
        open_dataset(f"coco:{tmp_path}/gone", "train")
    trees.coco(tmp_path)
    with pytest.raises(WildcatError, match="split 'test' is unknown; allowed: train, val"):
        open_dataset(f"coco:{tmp_path}", "test")
    with pytest.raises(WildcatError, match=r"instances_val2017.json: not found; the split val of 2017 needs it"):
        open_dataset(f"coco:{tmp_path},year=2017", "val")
    file = tmp_path / "annotations" / "instances_val2014.json"
    content = json.loads(file.read_text())
    del content["categories"]
    file.write_text(json.dumps(content))
    with pytest.raises(WildcatError, match="has no categories; it is not a file of COCO instances"):
        open_dataset(f"coco:{tmp_path}", "val")
    file.write_text("{")
    with pytest.raises(WildcatError, match=r"instances_val2014.json: cannot be read as JSON"):
        open_dataset(f"coco:{tmp_path}", "val")
    (tmp_path / "val2014" / "COCO_val2014_000000000005.jpg").unlink()
    (tmp_path / "val2014").rmdir()
    with pytest.raises(WildcatError, match="val2014: not found"):
        open_dataset(f"coco:{tmp_path}", "val")
    assert available_splits(f"coco:{tmp_path}") == ("train",)


def test_masks_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trees.coco(tmp_path)
    data = open_dataset(f"coco:{tmp_path}", "train")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(WildcatError, match=r"pip install 'wildcat-wsl\[coco\]'"):
        data.mask(0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # the oracle's own
def test_real_coco(real_data: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco")
    data = open_dataset(f"coco:{real_data / 'coco-mini'}", "val")
    assert len(data) == 114 and len(data.classes) == 80
    assert data.classes[0] == "person" and data.classes[-1] == "toothbrush"
    # Against the official tools: each instance's own mask, the boxes and the categories.
    official = pycocotools.COCO(real_data / "coco-mini" / "annotations" / "instances_val2014.json")
    names = {item["id"]: item["name"] for item in official.loadCats(official.getCatIds())}
    checked = 0
    for index, sample in enumerate(data.samples):
        items = official.loadAnns(official.getAnnIds(imgIds=[int(sample.name)]))
        assert [data.classes[c] for c in sample.box_classes] == [names[item["category_id"]] for item in items]
        for box, item in zip(sample.boxes, items, strict=True):
            x, y, w, h = item["bbox"]
            np.testing.assert_allclose(box, [x, y, x + w, y + h], rtol=1e-6)
        mask, covered = data.mask(index), np.zeros(1)
        assert mask.shape == data.image(index).size[::-1]
        for item in items:
            covered = covered + official.annToMask(item)
        if items:
            assert np.array_equal(mask > 0, covered > 0)
            for item, label in zip(items, sample.box_classes, strict=True):
                alone = (official.annToMask(item) > 0) & (covered == 1)
                assert (mask[alone] == (255 if item["iscrowd"] else label + 1)).all()
                checked += 1
    assert checked > 500


def test_download_asks_for_the_known_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fetch(url: str, root: str, md5: str) -> None:
        calls.append((url, md5))
        if len(calls) == 2:
            trees.coco(Path(root), "2017")

    monkeypatch.setattr(torchvision.datasets.utils, "download_and_extract_archive", fetch)
    download_dataset(f"coco:{tmp_path / 'new'},year=2017")
    assert len(open_dataset(f"coco:{tmp_path / 'new'},year=2017", "val")) == 1
    assert [url.rsplit("/", 1)[1] for url, _ in calls[:2]] == ["annotations_trainval2017.zip", "train2017.zip"]
    assert all(len(md5) == 32 for _, md5 in calls)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"size": [30, 41], "counts": [0, 1200]}, "run lengths must be those of 30 x 40 pixels"),
        ({"size": [30, 40], "counts": [0, 1201]}, "run lengths"),
        ({"size": [30, 40], "counts": [-1, 1201]}, "run lengths"),
        ({"size": [30, 40], "counts": [0.5, 1199.5]}, "run lengths"),
        ({"size": [30, 40], "counts": "\x00\xff"}, "run lengths"),
        ({"size": [30, 40], "counts": None}, "run lengths"),
        ([[0, 0, 9, 0, 1e8, 9]], "a polygon extends far outside the image of 30 x 40 pixels"),
    ],
)
def test_shapes_that_do_not_fit_are_rejected(tmp_path: Path, shape: object, message: str) -> None:
    root = trees.coco(tmp_path)
    file = root / "annotations" / "instances_train2014.json"
    content = json.loads(file.read_text())
    content["annotations"][2]["segmentation"] = shape
    file.write_text(json.dumps(content))
    with pytest.raises(WildcatError, match=message):
        open_dataset(f"coco:{root}", "train")


def test_packed_run_lengths_are_the_same_mask(tmp_path: Path) -> None:
    packer = pytest.importorskip("pycocotools.mask")
    root = trees.coco(tmp_path)
    file = root / "annotations" / "instances_train2014.json"
    before = open_dataset(f"coco:{root}", "train").mask(0)
    content = json.loads(file.read_text())
    crowd = np.zeros((30, 40), np.uint8, order="F")
    crowd[:, 19] = 1
    content["annotations"][2]["segmentation"] = {"size": [30, 40], "counts": packer.encode(crowd)["counts"].decode()}
    file.write_text(json.dumps(content))
    np.testing.assert_array_equal(open_dataset(f"coco:{root}", "train").mask(0), before)
