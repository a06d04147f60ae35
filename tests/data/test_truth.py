"""Boxes and masks that do not fit their images are named before anything is scored."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data import trees
from wildcat.data import Dataset, Sample, check_dataset
from wildcat.data.registry import open_dataset
from wildcat.data.truth import truth_problem


def test_coco_images_that_were_resized_or_turned(tmp_path: Path) -> None:
    trees.coco(tmp_path)
    spec, folder = f"coco:{tmp_path}", tmp_path / "train2014"
    assert all(truth_problem(open_dataset(spec, "train"), task) is None for task in ("pointing", "segmentation"))
    trees.image(folder / "COCO_train2014_000000000003.jpg", 20, 15)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 40)).save(folder / "COCO_train2014_000000000005.jpg", exif=exif)
    data, report = check_dataset(open_dataset(spec, "train"))
    assert [name[-1] for name, _ in report.other_sizes] == ["3", "5"] and len(data) == 3
    assert "2 images have other sizes than their annotations say" in str(report)
    for task in ("pointing", "segmentation"):
        problem = truth_problem(data, task)
        assert problem is not None and "2 of 3 images do not fit" in problem
        assert "annotated as 40 x 30; the image is 20 x 15" in problem and "add upright=yes" in problem
    assert truth_problem(data, "classification") is None
    turned = truth_problem(open_dataset(f"{spec},upright=yes", "train"), "pointing")
    assert turned is not None and "1 of 3 images" in turned


@pytest.mark.parametrize(
    ("mode", "size", "value", "expected"),
    [
        ("L", (40, 30), 12, None),
        ("P", (40, 30), 255, None),
        ("L", (20, 15), 12, "a mask of 20 x 15, but the image is 40 x 30"),
        ("L", (30, 40), 12, "a mask of 30 x 40, but the image is 40 x 30"),
        ("RGB", (40, 30), 0, "must be a palette or grey PNG; got one of mode RGB"),
        ("I;16", (40, 30), 3, "got one of mode I;16"),
        ("1", (40, 30), 1, "got one of mode 1"),
        ("L", (40, 30), 21, "the mask holds 21; allowed are 0 .background., 1...20 and 255"),
    ],
)
def test_voc_masks(tmp_path: Path, mode: str, size: tuple[int, int], value: int, expected: str | None) -> None:
    root = trees.voc(tmp_path)
    Image.new(mode, size, value).save(root / "SegmentationClass" / "000002.png")
    problem = truth_problem(open_dataset(f"voc07:{tmp_path}", "trainval"), "segmentation")
    if expected is None:
        assert problem is None
    else:
        assert problem is not None and "1 of 3 images" in problem and "000002" in problem
        assert expected.replace(".background.", "(background)") in problem


def test_boxes_outside_an_image_without_stated_size(tmp_path: Path) -> None:
    file = trees.image(tmp_path / "a.png")
    boxes = np.array([[0, 0, 40, 30], [50, 3, 60, 9]], np.float32)
    labels = np.array([1], np.int8)
    samples = [Sample("a", file, labels, boxes[:n], np.zeros(n, np.int64), np.zeros(n, bool)) for n in (1, 2)]
    assert truth_problem(Dataset("mine:x", "test", ["cat"], samples[:1]), "pointing") is None
    problem = truth_problem(Dataset("mine:x", "test", ["cat"], samples[1:]), "pointing")
    assert problem is not None and "a box lies outside the image of 40 x 30" in problem


def test_sizes_in_voc_annotations(tmp_path: Path) -> None:
    root = trees.voc(tmp_path)
    trees.image(root / "JPEGImages" / "000001.jpg", 80, 60)
    data, report = check_dataset(open_dataset(f"voc07:{tmp_path}", "trainval"))
    assert report.other_sizes == (("000001", "annotated as 40 x 30; the image is 80 x 60"),) and len(data) == 3
    problem = truth_problem(data, "pointing")
    assert problem is not None and "boxes of 1 of 3 images do not fit the images: 000001 (annotated as" in problem
    assert "\n" not in problem
