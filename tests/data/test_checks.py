"""The report on a dataset before training."""

from pathlib import Path

import numpy as np
import pytest

from tests import unusual
from wildcat.data import Dataset, Sample, check_dataset, class_counts, label_warnings, shared_image_warnings
from wildcat.data.registry import open_dataset
from wildcat.errors import WildcatError


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV over good and bad images, and one that is missing."""
    base = tmp_path_factory.mktemp("mixed")
    unusual.write_all(base / "images")
    names = [*unusual.GOOD, *unusual.BAD, "gone.jpg"]
    rows = [f"images/{name},{'cat' if index % 2 else 'dog'}" for index, name in enumerate(names)]
    (base / "my.csv").write_text("image,tags\n" + "\n".join([*rows, "images/empty.jpg,ghost"]) + "\n")
    return base


def test_good_images_are_used_and_bad_ones_reported(mixed: Path) -> None:
    data = open_dataset(f"tags:{mixed / 'my.csv'}", "all")
    names = [sample.name for sample in data.samples]
    data = data.subset([*range(len(data)), names.index("images/alpha.png"), names.index("images/empty.jpg")])
    kept, report = check_dataset(data, on_bad_image="skip")
    assert [sample.name for sample in kept.samples] == [f"images/{name}" for name in unusual.GOOD]
    assert kept.classes == data.classes and len(data) == 17  # the caller's dataset is as it was
    assert report.images == 17
    assert report.missing == ("images/gone.jpg",)
    reasons = dict(report.unreadable)
    assert sorted(reasons) == [f"images/{name}" for name in unusual.BAD]
    assert reasons["images/empty.jpg"] == "the file is empty" and "truncated" in reasons["images/truncated.jpg"]
    assert report.duplicate_names == ("images/alpha.png", "images/empty.jpg")
    assert report.classes_without_positives == ("ghost",)  # its only image is a bad one
    text = str(report)
    assert "17 images checked" in text and "1 file is missing: images/gone.jpg" in text
    assert "images/text.png (not an image in a format that can be read)" in text
    for index in range(len(kept)):
        kept.image(index)


def test_cut_jpegs_are_read_on_request(mixed: Path) -> None:
    data = open_dataset(f"tags:{mixed / 'my.csv'}", "all")
    with pytest.raises(WildcatError, match=r"(?s)truncated.*--on-bad-image partial reads JPEGs that were cut"):
        check_dataset(data)
    with pytest.raises(WildcatError, match=r"(?s)1 image was cut and is read in part: images/truncated.jpg.*skip them"):
        check_dataset(data, on_bad_image="partial")  # others are errors still
    good = [
        index for index, sample in enumerate(data.samples) if Path(sample.name).name not in {*unusual.BAD, "gone.jpg"}
    ]
    names = [sample.name for sample in data.samples]
    part, report = check_dataset(data.subset([*good, names.index("images/truncated.jpg")]), on_bad_image="partial")
    assert report.cut == ("images/truncated.jpg",) and not report.has_bad_images
    assert part.image(len(part) - 1).size == (60, 40) and part.subset([len(part) - 1]).image(0).size == (60, 40)
    with pytest.raises(WildcatError, match="truncated"):
        data.image(names.index("images/truncated.jpg"))


def test_bad_images_are_an_error_by_default(mixed: Path) -> None:
    data = open_dataset(f"tags:{mixed / 'my.csv'}", "all")
    with pytest.raises(WildcatError, match=r"(?s)gone.jpg.*empty.jpg.*skip them with --on-bad-image skip"):
        check_dataset(data)
    with pytest.raises(WildcatError, match="on_bad_image 'ignore' is unknown; allowed: error, skip, partial"):
        check_dataset(data, on_bad_image="ignore")


def test_headers_alone_do_not_show_truncation(mixed: Path) -> None:
    data = open_dataset(f"tags:{mixed / 'my.csv'}", "all")
    _, report = check_dataset(data, on_bad_image="skip", decode=False)
    assert {name for name, _ in report.unreadable} == {
        f"images/{name}" for name in ("empty.jpg", "huge.png", "text.png")
    }


def test_a_dataset_without_usable_images_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("image,tags\na.jpg,x\nb.jpg,x\n")
    data = open_dataset(f"tags:{tmp_path / 'my.csv'}", "all")
    with pytest.raises(WildcatError, match=r"(?s)2 files are missing: a.jpg, b.jpg.*no image can be used"):
        check_dataset(data, on_bad_image="skip")


def test_images_that_are_also_held_out_are_recognised_by_content(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
    shared = bytes((unusual.huge_png(tmp_path / "s.png", 100)).read_bytes())
    (tmp_path / "s.png").unlink()
    (tmp_path / "train" / "a" / "1.png").write_bytes(shared)
    (tmp_path / "test" / "a" / "9.png").write_bytes(shared)
    unusual.huge_png(tmp_path / "train" / "a" / "5.png", 200)
    unusual.huge_png(tmp_path / "test" / "a" / "5.png", 300)  # same name, other content
    train, test = (open_dataset(f"folder:{tmp_path}", split) for split in ("train", "test"))
    (message,) = shared_image_warnings(train, test, "test")
    assert message.startswith("1 of 2 test images were trained on") and message.endswith(": a/9.png = a/1.png")


def test_synthetic_images_need_no_files(capsys: pytest.CaptureFixture[str]) -> None:
    data = open_dataset("synthetic:count=4", "train")
    kept, report = check_dataset(data)
    assert len(kept) == 4 and not report.has_bad_images
    assert np.array_equal(np.asarray(kept.image(2)), np.asarray(data.image(2)))
    assert capsys.readouterr() == ("", "")


def test_the_report_names_five_and_counts_the_others(tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("image,tags\n" + "".join(f"{i}.jpg,x\n" for i in range(9)))
    with pytest.raises(WildcatError, match=r"9 files are missing: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg and 4 more"):
        check_dataset(open_dataset(f"tags:{tmp_path / 'my.csv'}", "all"))


def test_real_scenes_share_no_files(real_data: Path) -> None:
    train, test = (open_dataset(f"scene15:{real_data / '15-Scene'}", split) for split in ("train", "test"))
    kept, report = check_dataset(train.subset(range(0, 1500, 5)))
    assert len(kept) == 300 and not report.has_bad_images
    assert report.classes_without_positives == () and shared_image_warnings(kept, test, "test") == []
    assert str(report).endswith("300 images checked, all good")


def labelled(classes: tuple[str, ...], rows: list[list[int]]) -> Dataset:
    samples = [Sample(f"{i}", None, np.array(row, np.int8)) for i, row in enumerate(rows)]
    return Dataset("some", "train", classes, samples, multi_label=True)


def test_class_counts() -> None:
    data = labelled(("cat", "dog"), [[1, -1], [1, 1], [1, 0]])
    assert class_counts(data) == "3 images of 2 classes: cat 3, dog 1"
    many = labelled(tuple("abcdefghi"), [[1] * 9, [1] * 8 + [-1], [-1] * 7 + [1, -1]])
    assert class_counts(many) == "3 images of 9 classes: from 3 of h to 1 of i"


def test_warning_of_class_names_that_differ_only_in_case() -> None:
    rows = [[1, -1, 1], [-1, 1, -1]]
    (message,) = label_warnings(labelled(("Horse", "cat", "horse"), rows))
    assert message == "classes whose names differ only in case are different classes: Horse = horse"
    assert label_warnings(labelled(("Horse", "cat", "house"), rows)) == []
