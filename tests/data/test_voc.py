"""VOC 2007 and 2012 by the devkit's layout, actions, and the challenge's file formats."""

from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from tests.data import trees
from wildcat.data import voc
from wildcat.data.registry import available_splits, default_splits, download_dataset, open_dataset
from wildcat.data.voc import CLASSES, read_label_files
from wildcat.errors import WildcatError
from wildcat.evaluation.submission import write_actions, write_classification, write_masks


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return trees.voc(tmp_path)


def open_at(root: Path, split: str = "trainval"):
    return open_dataset(f"voc07:{root}", split)


def test_labels_boxes_and_masks_by_hand(tmp_path: Path, root: Path) -> None:
    data = open_dataset(f"voc07:{tmp_path}", "trainval")
    assert data.classes == tuple(trees.VOC_CLASSES)
    assert [sample.name for sample in data.samples] == ["000001", "000002", "000003"]
    dog, person = CLASSES.index("dog"), CLASSES.index("person")
    expected = np.full((3, 20), -1)
    expected[0, dog], expected[0, person], expected[1, person] = 1, 0, 1
    assert np.array_equal(data.labels, expected) and data.labels.dtype == np.int8
    assert data.multi_label and not data.zeros_unknown and data.has_boxes and data.has_masks

    first, second, third = data.samples
    # 1-based pixels, the last one inside -> continuous edges; the boxes of parts are no objects.
    assert first.boxes.tolist() == [[0, 0, 40, 30], [4, 5, 10, 12]]
    assert first.parts.boxes.tolist() == [[0, 0, 2, 2]] * 2 and first.parts.kinds == ("head", "head")
    assert first.parts.objects.tolist() == [0, 1] and third.parts is None
    assert first.box_classes.tolist() == [dog, person] and first.box_difficult.tolist() == [False, True]
    assert second.boxes.tolist() == [[1.5, 2, 8, 9], [0, 0, 4, 4]]
    assert third.boxes.shape == (0, 4) and third.boxes.dtype == np.float32
    assert data.image(0).size == (40, 30)
    assert data.mask(0) is None
    mask = data.mask(1)
    assert mask.shape == (30, 40) and mask[2, 1] == 15 and mask[0, 0] == 255 and mask[29, 39] == 0


def test_parts_that_cannot_be_read_are_left_out(root: Path) -> None:
    box = "<bndbox><xmin>{}</xmin><ymin>2</ymin><xmax>8</xmax><ymax>9</ymax></bndbox>"
    parts = [f"<name>hand</name>{box.format(3)}", "<name>foot</name>", f"<name/>{box.format(3)}"]
    parts += [f"<name>foot</name>{box.format(text)}" for text in ("", "x", "nan", "9")]
    inside = "".join(f"<part>{part}</part>" for part in parts)
    text = f"<annotation><object><name>person</name>{inside}{box.format(1)}</object></annotation>"
    (root / "Annotations" / "000002.xml").write_text(text)
    (found,) = [sample.parts for sample in open_at(root).samples if sample.name == "000002"]
    assert found.kinds == ("hand",) and found.boxes.tolist() == [[2, 1, 8, 9]] and found.objects.tolist() == [0]


def test_the_folder_may_be_given_at_three_depths(tmp_path: Path, root: Path) -> None:
    for path in (tmp_path, tmp_path / "VOCdevkit", root):
        assert len(open_at(path)) == 3
        assert available_splits(f"voc07:{path}") == ("trainval", "test", "seg-trainval")
    assert default_splits(f"voc07:{tmp_path}") == ("trainval", "test")


def test_segmentation_split_takes_labels_from_the_objects(root: Path) -> None:
    data = open_at(root, "seg-trainval")
    assert [sample.name for sample in data.samples] == ["000002"]
    assert np.array_equal(data.labels, open_at(root).labels[1:2])


def test_a_test_split_without_labels_is_marked(tmp_path: Path) -> None:
    root = trees.voc(tmp_path, 2012)
    for path in [*root.glob("ImageSets/Main/*_test.txt"), root / "Annotations" / "000004.xml"]:
        path.unlink()
    data = open_dataset(f"voc12:{tmp_path}", "test")
    assert data.zeros_unknown and (data.labels == 0).all() and not data.has_boxes
    assert data.image(0).size == (40, 30)
    with pytest.raises(WildcatError, match="name those to train on"):  # test cannot be the default for scoring
        default_splits(f"voc12:{tmp_path}")


def test_images_stay_as_stored_because_boxes_refer_to_that(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 30)).save(root / "JPEGImages" / "000001.jpg", exif=exif)
    assert open_at(root).image(0).size == (40, 30)


def test_subset_keeps_everything_else(root: Path) -> None:
    data = open_at(root)
    part = data.subset([2, 1])
    assert [sample.name for sample in part.samples] == ["000003", "000002"]
    assert part.mask(1) is not None and len(data) == 3 and part.classes == data.classes
    assert part.subset([]).labels.shape == (0, 20)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "ImageSets/Main/dog_trainval.txt",
            "000001 1\n",
            "dog_trainval.txt: lists other images .* the first one is 00000",
        ),
        ("ImageSets/Main/dog_trainval.txt", "000001  2\n000002 -1\n", "dog_trainval.txt: entry 1 .* label 1, 0 or -1"),
        ("ImageSets/Main/dog_trainval.txt", None, "dog_trainval.txt: not found; each of the 20 classes"),
        ("Annotations/000002.xml", None, "000002.xml: the annotation is missing"),
        ("Annotations/000002.xml", "<annotation><object>", "000002.xml: the annotation cannot be read"),
        ("Annotations/000002.xml", "<annotation><object><name>dog</name></object></annotation>", "a bndbox is missing"),
    ],
)
def test_broken_files_are_named(root: Path, file: str, content: str | None, message: str) -> None:
    (root / file).unlink()
    if content is not None:
        (root / file).write_text(content)
    with pytest.raises(WildcatError, match=message):
        open_at(root)


def test_unknown_classes_are_rejected(root: Path) -> None:
    trees.voc_xml(root, "000001", [("dgo", 0, 1, 1, 2, 2)])
    with pytest.raises(WildcatError, match=r"000001.xml: class 'dgo' is unknown.*did you mean dog"):
        open_at(root)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_never_expanded(root: Path, encoding: str) -> None:
    secret = root / "secret.txt"
    secret.write_text("dog")
    bomb = (
        f'<?xml version="1.0" encoding="{encoding}"?><!DOCTYPE a [<!ENTITY e SYSTEM "file://{secret}">'
        '<!ENTITY b "dog">]><annotation><object><name>&b;</name></object></annotation>'
    )
    (root / "Annotations" / "000001.xml").write_bytes(bomb.encode(encoding))
    with pytest.raises(WildcatError, match=r"000001.xml: .*DOCTYPE is not allowed"):
        open_at(root)


@pytest.mark.parametrize(
    ("make", "spec", "split", "message"),
    [
        (trees.voc, "voc07:{}/nothing", "test", "nothing: not found; give the folder that holds VOCdevkit"),
        (trees.voc, "voc12:{}", "test", "holds no VOC2012 with an ImageSets folder"),
        (trees.voc, "voc12:{}/VOCdevkit/VOC2007", "test", "this is not VOC2012"),
        (trees.voc, "voc07:{}", "tset", "split 'tset' is unknown; allowed: trainval, test, seg-trainval; did you mean"),
        (trees.action, "action12:{}", "val", "split 'val' is unknown; allowed: train, test"),
    ],
)
def test_wrong_paths_and_splits(tmp_path: Path, make, spec: str, split: str, message: str) -> None:
    make(tmp_path)
    with pytest.raises(WildcatError, match=message):
        open_dataset(spec.format(tmp_path), split)


# Actions


def test_action_instances_by_hand(tmp_path: Path) -> None:
    trees.action(tmp_path)
    data = open_dataset(f"action12:{tmp_path}", "train")
    assert data.classes == tuple(trees.ACTIONS) and data.zeros_unknown
    assert [sample.name for sample in data.samples] == ["2010_000001_2", "2011_000002_1", "2011_000002_2"]
    jumping, phoning, running = (data.classes.index(name) for name in ("jumping", "phoning", "running"))
    expected = np.full((3, 10), -1)
    expected[0, [phoning, running]], expected[1, jumping] = 1, 1
    expected[0, jumping] = 0  # nobody looked for jumping in the images of 2010
    assert np.array_equal(data.labels, expected)  # the third does something else: negative for all
    # Box 10...20, enlarged 1.5 times about 15: 7.5...22.5, rounded outwards; clipped in the second.
    assert data.image(0).size == (16, 16) and data.image(1).size == (40, 30)
    assert data.samples[0].boxes.tolist() == [[3, 3, 13, 13]] * 2
    assert data.samples[0].box_classes.tolist() == [phoning, running]
    assert data.samples[2].boxes.shape == (0, 4)
    assert data.subset([1, 0]).image(1).size == (16, 16)


def test_action_modes(tmp_path: Path) -> None:
    trees.action(tmp_path)
    tight = open_dataset(f"action12:{tmp_path},context=1", "train")
    assert tight.image(0).size == (10, 10) and tight.samples[0].boxes[0].tolist() == [0, 0, 10, 10]
    whole = open_dataset(f"action12:{tmp_path},mode=whole", "train")
    assert whole.image(0).size == (40, 30) and whole.samples[0].boxes[0].tolist() == [10, 10, 20, 20]
    with pytest.raises(WildcatError, match=r"context must be 1 .* got 0\.5"):
        open_dataset(f"action12:{tmp_path},context=0.5", "train")
    with pytest.raises(WildcatError, match=r"mode=box is not allowed; it must be one of crop, whole"):
        open_dataset(f"action12:{tmp_path},mode=box", "train")


def test_action_test_split_has_persons_and_no_labels(tmp_path: Path) -> None:
    root = trees.action(tmp_path)
    for listed in ("2011_000009\n", "2011_000009  1\n"):
        (root / "ImageSets" / "Action" / "test.txt").write_text(listed)
        data = open_dataset(f"action12:{tmp_path}", "test")
        assert [sample.name for sample in data.samples] == ["2011_000009_1"]
        # Box 2...9 enlarged: 0.25...10.75.
        assert (data.labels == 0).all() and data.image(0).size == (11, 11)
    (root / "ImageSets" / "Action" / "test.txt").write_text("2011_000009  3\n")
    with pytest.raises(WildcatError, match="has no object 3, only 2 objects"):
        open_dataset(f"action12:{tmp_path}", "test")


# Files of the challenge


def label_files(folder: Path, split: str) -> dict[str, str]:
    """What is read from label files, written as the devkit writes it."""
    names, labels = read_label_files(folder, split)
    return {
        f"{label}_{split}.txt": "".join(f"{name} {value:2d}\n" for name, value in zip(names, column, strict=True))
        for label, column in zip(CLASSES, labels.T.tolist(), strict=True)
    }


def test_label_files_are_read_whole(root: Path) -> None:
    folder = root / "ImageSets" / "Main"
    for name, content in label_files(folder, "trainval").items():
        assert (folder / name).read_text() == content


def test_real_label_files_byte_for_byte(real_data: Path) -> None:
    folder = real_data / "voc07-mini" / "VOCdevkit" / "VOC2007" / "ImageSets" / "Main"
    found = label_files(folder, "trainval") | label_files(folder, "test")
    assert len(found) == 40
    for name, content in found.items():
        assert (folder / name).read_bytes() == content.encode(), name


def test_submission_files(tmp_path: Path) -> None:
    scores = np.array([[0.5, -2.25], [1e-7, 1 / 3]], dtype=np.float32)
    where = write_classification(tmp_path, ["2012_1", "2012_2"], scores, ["cat", "dog"])
    assert where == tmp_path / "results" / "VOC2012" / "Main"
    assert (where / "comp2_cls_test_cat.txt").read_bytes() == b"2012_1 0.5\n2012_2 1.00000001e-07\n"
    assert (where / "comp2_cls_test_dog.txt").read_text().splitlines()[1] == "2012_2 0.333333343"

    where = write_actions(tmp_path, ["2011_000009_1", "2011_000009_12"], scores, ["running", "reading"])
    assert (where / "comp10_action_test_running.txt").read_text().split("\n")[0] == "2011_000009 1 0.5"
    assert (where / "comp10_action_test_reading.txt").read_text().split("\n")[1] == "2011_000009 12 0.333333343"

    mask = np.array([[0, 1], [20, 15]], dtype=np.uint8)
    where = write_masks(tmp_path, [("2012_1", mask)])
    assert where == tmp_path / "results" / "VOC2012" / "Segmentation" / "comp6_test_cls"
    with Image.open(where / "2012_1.png") as image:
        assert image.mode == "P" and np.array_equal(np.array(image), mask)
        assert image.convert("RGB").getpixel((1, 0)) == (128, 0, 0)  # VOC's colour of the aeroplane
    with pytest.raises(ValueError, match="do not fit"):
        write_classification(tmp_path, ["a"], scores, ["cat", "dog"])
    with pytest.raises(ValueError, match="finite"):
        write_classification(tmp_path, ["a", "b"], scores * np.nan, ["cat", "dog"])
    with pytest.raises(ValueError, match="uint8"):
        write_masks(tmp_path, [("a", mask.astype(np.int64))])


def test_scores_keep_the_order_of_float32(tmp_path: Path) -> None:
    values = np.nextafter(np.float32(0.9), np.float32([2, 0])).reshape(2, 1)
    where = write_classification(tmp_path, ["a", "b"], values, ["cat"])
    high, low = ((where / "comp2_cls_test_cat.txt").read_text().split())[1::2]
    assert float(high) > float(low)


# Real data


@pytest.mark.slow
def test_real_voc07(real_data: Path) -> None:
    spec = f"voc07:{real_data / 'voc07-mini'}"
    counts = {"trainval": (2000, 40), "test": (1000, 90)}
    for split, (images, masks) in counts.items():
        data = open_dataset(spec, split)
        assert len(data) == images
        assert sum(sample.mask_path is not None for sample in data.samples) == masks
        segmented = open_dataset(spec, f"seg-{split}")
        assert len(segmented) == masks and all(sample.mask_path for sample in segmented.samples)
        # The label files and the objects of the annotations agree by the devkit's rule.
        for sample in data.samples:
            for index in range(20):
                difficult = sample.box_difficult[sample.box_classes == index]
                assert sample.labels[index] == (-1 if not len(difficult) else 0 if difficult.all() else 1)
        # Boxes lie inside the image, and a mask has no class that its labels deny.
        index = next(i for i, sample in enumerate(data.samples) if sample.mask_path)
        sample, mask = data.samples[index], data.mask(index)
        width, height = data.image(index).size
        assert mask.shape == (height, width)
        assert (sample.boxes[:, :2] >= 0).all() and (sample.boxes[:, 2:] <= [width, height]).all()
        assert all(sample.labels[c - 1] >= 0 for c in np.unique(mask) if c not in (0, 255))


def test_real_seg_mini(real_data: Path) -> None:
    spec = f"voc12:{real_data / 'seg-mini'}"
    assert available_splits(spec) == ("seg-train", "seg-val") == default_splits(spec)
    assert [len(open_dataset(spec, split)) for split in ("seg-train", "seg-val")] == [60, 114]


# Download


def test_download_is_torchvisions_and_only_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def fetch(root: str, year: str, image_set: str, download: bool) -> None:
        calls.append((root, year, image_set, download))
        trees.voc(Path(root))

    monkeypatch.setattr(torchvision.datasets, "VOCSegmentation", fetch)
    target = tmp_path / "new"
    with pytest.raises(WildcatError, match="not found"):
        open_dataset(f"voc07:{target}", "test")
    assert not calls and not target.exists()
    for _ in range(2):  # the second time it is there
        download_dataset(f"voc07:{target}")
        assert len(open_dataset(f"voc07:{target}", "test")) == 1
    assert calls == [(str(target), "2007", "trainval", True)]  # which brought the other split as well
    with pytest.raises(WildcatError, match="split for download 'test' is unknown; allowed: train, val, trainval"):
        voc.download(tmp_path / "other", 2012, "test")


def test_a_failed_download_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise RuntimeError("File not found or corrupted.")

    monkeypatch.setattr(torchvision.datasets, "VOCSegmentation", fail)
    with pytest.raises(WildcatError, match=r"the download failed: File not found or corrupted"):
        download_dataset(f"voc07:{tmp_path / 'new'}")
