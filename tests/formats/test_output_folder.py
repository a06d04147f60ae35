"""The output folder of predictions: what is a user's stays, what is our own is written again, names do not matter."""

import csv
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import yaml
from PIL import Image

from tests import unusual
from tests.tiny_runs import ColourModel, spots
from wildcat.cli import main
from wildcat.cli.terminal import printable
from wildcat.formats.tables import as_text
from wildcat.formats.write import FORMATS, planned_files
from wildcat.prediction.predictor import Part, Predictor
from wildcat.runs.settings import InferenceSettings
from wildcat.system.output_folder import LIST, OutputFolder, listed_files

CLASSES = ("red", "green", "blue")
ALL = ",".join(FORMATS)


class Colours(ColourModel):
    """Colours in a fixed order, for any number of classes from three on: the others are never predicted."""

    cell = 16

    def __init__(self, count: int = 3) -> None:
        super().__init__()
        self.count = count

    def __call__(self, images: Any) -> Any:
        output = super().__call__(images)
        more = self.count - 3
        scores = torch.nn.functional.pad(output.scores, (0, more), value=-20)
        maps = torch.nn.functional.pad(output.class_maps, (0, 0, 0, 0, 0, more), value=-1)
        return type(output)(scores, maps, maps)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """What `wildcat.load` loads: a predictor of the classes in this list, in place of a run."""
    classes: list[tuple[str, ...]] = [CLASSES]

    def load(*_: Any, **__: Any) -> Predictor:
        settings = InferenceSettings(classes[0], True, (32,), (32,))
        return Predictor(Part(Colours(len(classes[0])), settings))

    monkeypatch.setattr("wildcat.prediction.loading.load", load)
    return classes


def image(file: Path, colour: int = 0) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(spots(48, 32, {colour: (20, 12)}, 0.2)).save(file)
    return file


def predict(*arguments: object) -> int:
    return main(["predict", "run", *map(str, arguments)])


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != LIST
    }


# ---- What is a user's -----------------------------------------------------------------------------------------------


def planned(form: str) -> list[str]:
    return [name for names in planned_files([form], ["a.png"], Path()).values() for name in names]


@pytest.mark.parametrize(("form", "name"), [(form, name) for form in FORMATS for name in planned(form)])
def test_files_of_a_user_stay(
    model: object, tmp_path: Path, form: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = image(tmp_path / "in" / "a.png")
    out = tmp_path / "out"
    (out / name).parent.mkdir(parents=True)
    (out / name).write_text("mine")
    assert predict(source, "--out", out, "--formats", form) == 2
    message = capsys.readouterr().err
    assert name in message and "--overwrite" in message
    assert contents(out) == {name: b"mine"} and not (out / LIST).exists()  # before any work
    assert predict(source, "--out", out, "--formats", form, "--overwrite") == 0
    assert (out / name).read_bytes() != b"mine"
    assert predict(source, "--out", out, "--formats", form) == 0


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_command_again(model: object, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after it was stopped at any file; a file that was changed by hand in the meantime stays."""
    source, out = tmp_path / "in", tmp_path / "out"
    for name in ("a.png", "a.jpg", "sub/b.png"):
        image(source / name)
    command = (source, "--out", out, "--formats", form)
    writing = OutputFolder.note
    for stop in range(1, 4):
        calls = iter(range(1, 100))

        def stopped(
            self: OutputFolder, name: str, content: str, stop: int = stop, calls: Iterator[int] = calls
        ) -> None:
            if next(calls) == stop:
                raise KeyboardInterrupt
            writing(self, name, content)

        monkeypatch.setattr(OutputFolder, "note", stopped)
        predict(*command)
        monkeypatch.setattr(OutputFolder, "note", writing)
        with (out / LIST).open("ab") as stream:  # half of a line, as of a process that was killed
            stream.write(b'{"file": "overl')
        assert predict(*command) == 0
    before = contents(out)
    assert predict(*command) == 0 and contents(out) == before
    assert set(before) == listed_files(out)  # nothing is missing in the list
    image(source / "c.png")
    assert predict(*command) == 0 and set(before) <= set(contents(out))
    (changed, *_) = (name for name in before if "images/" not in name.lower())
    (out / changed).write_text("corrected by hand")
    assert predict(*command) == 2 and (out / changed).read_text() == "corrected by hand"


def test_predictions_of_other_images(model: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other, out = image(tmp_path / "x/a.png"), image(tmp_path / "y/b.png", 1), tmp_path / "out"
    assert predict(one, "--out", out) == 0
    before = contents(out)
    assert predict(other, "--out", out) == 2
    assert "holds predictions of other images" in capsys.readouterr().err and contents(out) == before
    assert predict(other, "--out", out, "--overwrite") == 0
    assert set(contents(out)) == {"predictions.jsonl", "overlay/b.jpg"}  # nothing of the earlier ones is left
    image(tmp_path / "y" / "c.png")
    assert predict(tmp_path / "y", "--out", out) == 0  # these images and more
    other = tmp_path / "y"
    assert predict(other, "--out", out, "--formats", "mask") == 0  # more formats of the same images
    assert predict(other, "--out", out, "--formats", "json,overlay,mask", "--threshold", "0.2") == 0
    before = contents(out)
    assert predict(other, "--out", out, "--formats", "json", "--threshold", "0.3") == 2
    assert "overlay, mask with another threshold" in capsys.readouterr().err and contents(out) == before


@pytest.mark.parametrize("damage", ["not ours", "", '["wildcat"]', '{"wildcat": "1"}\n{"file": "../../x"}'])
def test_a_list_that_is_not_ours(
    model: object,
    tmp_path: Path,
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = image(tmp_path / "in/a.png"), tmp_path / "out"
    out.mkdir()
    (out / LIST).write_text(damage)
    (tmp_path / "x").write_text("mine")
    foreign = "x" not in damage
    assert predict(source, "--out", out, "--overwrite") == (2 if foreign else 0)
    assert (LIST in capsys.readouterr().err) == foreign
    assert (tmp_path / "x").read_text() == "mine" and (not foreign or (out / LIST).read_text() == damage)
    monkeypatch.chdir(out)
    assert predict(source) == 0  # nothing is written here


# ---- Which images are read ------------------------------------------------------------------------------------------


def files_of(out: Path) -> list[str]:
    return [json.loads(line)["file"] for line in (out / "predictions.jsonl").read_text().splitlines()]


def test_images_in_folders_with_names_of_formats(model: object, tmp_path: Path) -> None:
    names = [f"{name}/{number}.png" for number, name in enumerate([*FORMATS, "mask-overlay", "cat"])]
    sources = sorted(str(image(tmp_path / name)) for name in names)
    for _ in range(2):  # the second time among the outputs of the first
        assert predict(tmp_path, "--out", tmp_path, "--formats", ALL) == 0
        assert files_of(tmp_path) == sources
    assert predict(tmp_path / "mask-overlay", "--json", tmp_path / "x.jsonl") == 0  # what is asked for is read


@pytest.mark.parametrize(
    "inputs", [["d", "d/sub", "d/a.png"], ["d", "d/../d"], ["d", "./d/a.png"], ["d", "l"], ["d", "l/a.png", "file.png"]]
)
def test_an_image_that_is_given_twice_is_predicted_once(
    model: object,
    tmp_path: Path,
    inputs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("d/a.png", "d/sub/b.png"):
        image(Path(name))
    Path("l").symlink_to("d")
    Path("file.png").symlink_to("d/a.png")
    assert predict(*inputs, "--out", "out", "--formats", "json,mask") == 0
    assert files_of(tmp_path / "out") == ["d/a.png", "d/sub/b.png"]
    assert "each is read once" in capsys.readouterr().err


def test_an_image_is_not_replaced_by_its_own_prediction(
    model: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = image(tmp_path / "mask" / "a.png")
    before = source.read_bytes()
    assert predict(source, "--out", tmp_path, "--formats", "mask", "--overwrite") == 2
    assert predict(source, "--json", source) == 2
    assert predict(source, "--out", tmp_path, "--formats", "json", "--json", tmp_path / "predictions.jsonl") == 2
    assert capsys.readouterr().err.count("wildcat: error") == 3 and source.read_bytes() == before


# ---- Unusual names --------------------------------------------------------------------------------------------------


@pytest.fixture
def names(tmp_path: Path) -> list[Path]:
    return unusual.write_names(tmp_path / "in")


def unescaped(cell: str) -> str:
    """As docs/formats.md says; and the escapes of bytes that are not UTF-8."""
    cell = re.sub(r"^'(?='*[=+\-@\t\r\n＝＋－＠])", "", cell)
    return re.sub(r"\\u(dc[89a-f][0-9a-f])", lambda found: chr(int(found[1], 16)), cell)


def test_unusual_names_in_every_format(model: list[Any], names: list[Path], tmp_path: Path) -> None:
    """Every file is valid UTF-8 and says which image it is of; the classes have unusual names as well."""
    model[0] = unusual.CLASSES
    out = tmp_path / "out"
    assert predict(tmp_path / "in", "--out", out, "--formats", ALL) == 0
    for file in out.rglob("*"):
        file.relative_to(out).as_posix().encode()
        if file.is_file() and file.suffix not in (".png", ".jpg"):
            file.read_text(encoding="utf-8")
    entries = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert [Path(entry["file"]) for entry in entries] == names
    for kind in ("mask", "overlay"):  # each image has a file of its own, also where names differ in case alone
        assert len({os.path.normcase(entry[kind]).casefold() for entry in entries}) == len(names)
        assert all((out / entry[kind]).is_file() for entry in entries)
    for entry, file in zip(entries, names, strict=True):
        with Image.open(file) as one, Image.open(out / entry["mask"]) as other:
            assert one.size == other.size
    with (out / "scores.csv").open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    assert [Path(unescaped(row[0])) for row in rows] == names and [row[2] for row in rows] == [
        e["mask"] for e in entries
    ]
    assert len(set(header)) == len(header) == 3 + len(unusual.CLASSES)
    assert [unescaped(name).removeprefix("class:") for name in header[3:]] == list(unusual.CLASSES)
    assert not any(re.match(r"[=+\-@\t\r\n]", cell) for row in (header, *rows) for cell in row)
    for line in (out / "yolo/train.txt").read_text(encoding="utf-8").splitlines():
        assert (out / "yolo" / line).is_file()  # a link to the image
        assert (out / "yolo" / line.replace("images/", "labels/")).with_suffix(".txt").is_file()
    assert list(yaml.safe_load((out / "yolo/data.yaml").read_text(encoding="utf-8"))["names"]) == list(
        range(len(unusual.CLASSES))
    )
    for stem in (out / "voc/ImageSets/Main/train.txt").read_text(encoding="utf-8").splitlines():
        ElementTree.parse(out / "voc/Annotations" / f"{stem}.xml")
    coco = json.loads((out / "coco/dataset.json").read_text(encoding="utf-8"))
    assert [tmp_path / "in" / entry["file_name"] for entry in coco["images"]] == names
    for file in ("cvat/annotations.xml", "label-studio/labels.xml"):
        ElementTree.parse(out / file)
    json.loads((out / "label-studio/tasks.json").read_text(encoding="utf-8"))


def test_unusual_names_on_the_terminal(
    model: list[Any], names: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No control characters reach it, and each image has one line."""
    model[0] = unusual.CLASSES
    for number, name in enumerate(names):
        if number % 2:
            name.write_bytes(b"damaged")
    assert predict(tmp_path / "in") == 1
    out, err = capsys.readouterr()
    for text in (out, err):
        assert text == printable(text) and text.encode()
    skipped = [line for line in err.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == len(names) // 2 and len(out.splitlines()) == len(names) - len(skipped)
    assert predict(tmp_path / "in", "--json", "-") == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(line["file"]) for line in lines] == names[::2]
    assert predict(tmp_path / "missing\x1b[2J\udce9") == 2
    assert "\\x1b[2J\\xe9" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx", "'=x", "''-x", "＝1", "x", "'x", "", "1=1"])
def test_no_cell_is_a_formula_and_reading_restores_it(text: str) -> None:
    cell = as_text(text)
    assert not re.match(r"[=+\-@\t\r\n＝＋－＠]", cell) and unescaped(cell) == text
