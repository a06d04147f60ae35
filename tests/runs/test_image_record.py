"""The record of training images: a resumed run notices every change that matters, and accepts data that have moved."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny_runs import tiny
from wildcat.data import Dataset
from wildcat.data.registry import open_dataset
from wildcat.errors import WildcatError
from wildcat.runs.folder import Run
from wildcat.runs.image_record import RECORD, ImageRecord, read_record, save_record
from wildcat.training.resume import check_same_data

LINES = ["image,tags", "a.png,cat", "b.png,dog", "c.png,cat;dog", "d.png,dog"]


def image(file: Path, value: int) -> None:
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for number, name in enumerate("abcd"):
        image(folder / f"{name}.png", 40 * number)
    (folder / "tags.csv").write_text("\n".join(LINES))
    return folder


def opened(data: Path) -> Dataset:
    return open_dataset(f"tags:{data / 'tags.csv'}", "all")


def swap_labels(data: Path) -> None:
    (data / "tags.csv").write_text("\n".join([LINES[0], "a.png,dog", "b.png,cat", *LINES[3:]]))


def replace(data: Path) -> None:
    image(data / "b.png", 200)  # as large as before


def rename(data: Path) -> None:
    (data / "a.png").rename(data / "e.png")
    (data / "tags.csv").write_text("\n".join([LINES[0], "e.png,cat", *LINES[2:]]))


def leave_out(data: Path) -> None:
    (data / "tags.csv").write_text("\n".join(LINES[:-1]))


def reorder(data: Path) -> None:
    (data / "tags.csv").write_text("\n".join([LINES[0], *LINES[:0:-1]]))


def everything(data: Path) -> None:
    rename(data)
    replace(data)
    (data / "tags.csv").write_text((data / "tags.csv").read_text().replace("d.png,dog", "d.png,cat"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap_labels, "training: 2 images have other labels (a.png, b.png)"),
        (replace, "training: 1 image has other content (b.png)"),
        (rename, "training: 1 image is gone (a.png), 1 image is new (e.png)"),
        (
            leave_out,
            "3 usable training images of 2 classes instead of 4 of 2, or other names; "
            "training: 1 image is gone (d.png)",
        ),
        (
            everything,
            "training: 1 image is gone (a.png), 1 image is new (e.png), 1 image has other labels (d.png), "
            "1 image has other content (b.png)",
        ),
    ],
)
@pytest.mark.parametrize("part", ["training", "validation"])
def test_changed_data_are_rejected(
    data: Path, tmp_path: Path, change: Callable[[Path], None], message: str, part: str
) -> None:
    before = opened(data)
    other = open_dataset("synthetic:count=2,size=32", "test")
    training, validation = (before, None) if part == "training" else (other, before)
    save_record(tmp_path, ImageRecord.of(training), ImageRecord.of(validation))
    run = Run(tiny(data="tags:x"), training.classes, True, (0, 0, 0), (1, 1, 1), len(training))
    check_same_data(run, tmp_path, training, validation)
    change(data)
    now = opened(data)
    with pytest.raises(WildcatError) as caught:
        check_same_data(run, tmp_path, *((now, None) if part == "training" else (training, now)))
    expected = message if part == "training" else "validation: " + message.partition("training: ")[2]
    assert str(caught.value) == (
        f"tags:x has changed since {tmp_path} was started: {expected}; resume with the data of the start, or train in "
        "a new run directory"
    )


def test_another_order_is_a_change(data: Path) -> None:
    before = ImageRecord.of(opened(data))
    reorder(data)
    now = ImageRecord.of(opened(data))
    assert before.names == now.names[::-1]
    assert before.changes(now) == "the images are in another order"


def test_moved_data_are_the_same(data: Path, tmp_path: Path) -> None:
    before = opened(data)
    save_record(tmp_path, ImageRecord.of(before), ImageRecord.of(None))
    run = Run(tiny(data="tags:x"), before.classes, True, (0, 0, 0), (1, 1, 1), len(before))
    shutil.copytree(data, tmp_path / "elsewhere")  # with other dates
    check_same_data(run, tmp_path, opened(tmp_path / "elsewhere"), None)


def test_a_run_of_an_earlier_version_has_no_record(data: Path, tmp_path: Path) -> None:
    dataset = opened(data)
    assert read_record(tmp_path) is None
    run = Run(tiny(data="tags:x"), dataset.classes, True, (0, 0, 0), (1, 1, 1), len(dataset))
    swap_labels(data)
    check_same_data(run, tmp_path, opened(data), None)
    with pytest.raises(WildcatError, match="3 usable training images of 2 classes instead of 4 of 2, or other names"):
        check_same_data(run, tmp_path, dataset.subset(range(3)), None)


@pytest.mark.parametrize("place", [0, 500_000, 1_500_000, 2_999_999])
def test_large_files_are_compared_by_blocks_and_size(tmp_path: Path, place: int) -> None:
    file = tmp_path / "large.tif"
    content = bytearray(3_000_000)
    labels = np.array([1, -1], np.int8)

    def digest() -> str:
        from wildcat.data import Sample

        file.write_bytes(content)
        return ImageRecord.of(Dataset("mine:x", "train", ["a", "b"], [Sample("large", file, labels)])).files[0]

    before = digest()
    content[place : place + 200_000] = b"\1" * len(content[place : place + 200_000])
    assert digest() != before
    content = bytearray(3_000_001)
    assert digest() != before


def test_names_of_any_kind_are_kept(tmp_path: Path) -> None:
    record = ImageRecord(("caf\udce9.png", "é\n.png"), ("0", "1"), ("", ""))
    save_record(tmp_path, record, ImageRecord())
    assert read_record(tmp_path) == (record, ImageRecord())
    assert record.changes(ImageRecord()) == r"2 images are gone ('caf\udce9.png', '\xe9\n.png')"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"names": 3}}, "training.names must be a list of names; got 3"),
        (
            {"training": {"names": ["a"], "labels": [], "files": []}},
            "training.files must be as long as names and labels",
        ),
        ({"training": []}, "training must be an object; got []"),
        ({}, "has no entry 'training.names'"),
    ],
)
def test_a_damaged_record_is_named(tmp_path: Path, values: dict, message: str) -> None:
    (tmp_path / RECORD).write_text(json.dumps(values))
    with pytest.raises(WildcatError) as caught:
        read_record(tmp_path)
    assert str(tmp_path / RECORD) in str(caught.value) and message in str(caught.value)
