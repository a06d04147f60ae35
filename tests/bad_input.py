# ruff: noqa: E501 - what is told stands in one line
"""What users get wrong, case by case: how to make it, what they type, and what they are told.


``python -m tests.bad_input`` writes docs/robustness.md from these cases; tests/test_robustness.py tries each of them.
"""

import html
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tests import awkward
from tests.conftest import REPOSITORY
from tests.data import trees

PAGE = REPOSITORY / "docs" / "robustness.md"

Make = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One mistake.

    Attributes:
        name: unique, for the test.
        what: the mistake in a few words, for the page.
        make: makes it, in a folder that holds a run (``run``) and a picture (``cat.png``).
        typed: the command, without "wildcat".
        told: all that is told, word for word; "..." stands for words of the library that read the file.
        skipped: the command goes on to the next picture, and ends with exit code 1.
    """

    name: str
    what: str
    make: Make
    typed: str
    told: str
    skipped: bool = False

    @property
    def shown(self) -> str:
        """What is typed, as it stands on the page."""
        return f"wildcat {self.typed}"


def nothing(folder: Path) -> None:
    """There is nothing to make."""


def text(name: str, content: str | bytes) -> Make:
    """A file of this content."""

    def make(folder: Path) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def cut(name: str, share: float) -> Make:
    """Only the first part of a file is left."""

    def make(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return make


def flipped(name: str) -> Make:
    """One bit of a file's last byte but a hundred is another one."""

    def make(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-100] ^= 1
        (folder / name).write_bytes(content)

    return make


def entries(name: str, **changes: Any) -> Make:
    """A JSON file with other values; ``None`` removes an entry."""

    def make(folder: Path) -> None:
        values = json.loads((folder / name).read_text())
        for key, value in changes.items():
            at = values
            *path, last = key.split("__")
            for part in path:
                at = at[int(part) if part.isdigit() else part]
            at[last] = value
            if value is None:
                del at[last]
        (folder / name).write_text(json.dumps(values))

    return make


def in_order(*steps: Make) -> Make:
    """One after the other."""

    def make(folder: Path) -> None:
        for step in steps:
            step(folder)

    return make


def png(width: int, height: int) -> bytes:
    """Signature and header of a PNG, and no picture behind them."""
    return b"\x89PNG\r\n\x1a\n" + awkward._chunk(
        b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    )


def encoded(kind: str, share: float = 1.0) -> bytes:
    """The first part of a good picture."""
    buffer = io.BytesIO()
    Image.fromarray(awkward.photo(200, 150)).save(buffer, kind)
    return buffer.getvalue()[: int(len(buffer.getvalue()) * share)]


class Command:
    """Pickled, it makes a file when it is unpickled by a reader that executes what it reads."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("executed", "w")


def pickled(name: str) -> Make:
    """A PyTorch file with code in it."""
    return lambda folder: torch.save({"state_dict": Command()}, folder / name)


# Pictures

PREDICT = "predict run {} --out found"


def picture(name: str, what: str, file: str, content: bytes | Make, told: str) -> Case:
    """A picture that is skipped."""
    make = text(file, content) if isinstance(content, bytes) else content
    return Case(name, what, make, PREDICT.format(file), f"skipped: {file}: {told}", skipped=True)


PICTURES = [
    picture("empty-picture", "an empty file", "a.jpg", b"", "the file is empty"),
    picture(
        "text-picture", "a text file named .jpg", "a.jpg", b"hello\n", "not a picture in a format that can be read"
    ),
    picture(
        "svg-picture",
        "a drawing (SVG) named .png",
        "a.png",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "not a picture in a format that can be read",
    ),
    picture(
        "pdf-picture", "a PDF named .jpg", "a.jpg", b"%PDF-1.4\n%%EOF\n", "not a picture in a format that can be read"
    ),
    picture("cut-jpeg", "a JPEG that was cut", "a.jpg", encoded("JPEG", 0.7), "cannot be read: ..."),
    picture("cut-webp", "a WebP that was cut", "a.webp", encoded("WEBP", 0.7), "cannot be read: ..."),
    picture(
        "cut-gif",
        "a GIF that ends after its header",
        "a.gif",
        encoded("GIF", 1)[:13],
        "not a picture in a format that can be read",
    ),
    picture("cut-tiff", "a TIFF that was cut", "a.tif", encoded("TIFF", 0.5), "cannot be read: ..."),
    picture(
        "headless-png",
        "a PNG that ends after its header",
        "a.png",
        png(20, 20),
        "not a picture in a format that can be read",
    ),
    picture("zero-png", "a PNG of 0 x 0 pixels", "a.png", png(0, 0), "not a picture in a format that can be read"),
    picture(
        "huge-png",
        "900 million pixels in a small file",
        "a.png",
        lambda folder: awkward.huge_png(folder / "a.png", 30_000),
        "too large: Image size (900000000 pixels) exceeds limit of 178956970 pixels, could be decompression bomb DOS attack.",
    ),
    picture(
        "vast-png",
        "a header that claims 2 billion x 2 billion pixels",
        "a.png",
        png(2**31 - 1, 2**31 - 1),
        "not a picture in a format that can be read",
    ),
    picture(
        "nan-tiff",
        "a TIFF of floats that are no numbers",
        "a.tif",
        lambda folder: Image.new("F", (8, 8), float("nan")).save(folder / "a.tif"),
        "pixels of type float32 must be in 0...1; uint8, 16-bit integers and floats can be read",
    ),
    picture(
        "pipe",
        "a named pipe, which no one writes to",
        "a.jpg",
        lambda folder: os.mkfifo(folder / "a.jpg"),
        "not a file",
    ),
    Case("no-picture", "a picture that is not there", nothing, PREDICT.format("dog.jpg"), "dog.jpg does not exist"),
    Case(
        "dead-link",
        "a link to nowhere",
        lambda folder: (folder / "a.jpg").symlink_to("gone.jpg"),
        PREDICT.format("a.jpg"),
        "a.jpg does not exist",
    ),
    Case(
        "no-pictures",
        "a folder without pictures",
        text("notes/a.txt", "x"),
        PREDICT.format("notes"),
        "notes holds no pictures (.avif, .bmp, .gif, .heic, .heif, .jfif, .jp2, .jpe, .jpeg, .jpg, .pgm, .png, .ppm, .qoi, .tif, .tiff, .webp)",
    ),
]

# Tables of tags

TAGS = "train --data tags:my.csv --out new"


def table(name: str, what: str, content: str | bytes, told: str, options: str = "") -> Case:
    """A CSV to train on."""
    return Case(name, what, text("my.csv", content), f"train --data tags:my.csv{options} --out new", told)


TABLES = [
    Case(
        "no-csv",
        "a CSV that is not there",
        text("mine.csv", ""),
        TAGS,
        "my.csv: not found; give a CSV file with a picture column and a tags column, or one 0/1 column per class; did you mean mine.csv?",
    ),
    Case(
        "folder-csv",
        "a folder for a CSV",
        lambda folder: (folder / "my.csv").mkdir(),
        TAGS,
        "my.csv: cannot be read as a CSV in UTF-8: ...",
    ),
    table(
        "empty-csv",
        "an empty CSV",
        "",
        "my.csv: the first line must name at least two columns, separated by comma or tab",
    ),
    table("header-csv", "a header and no rows", "picture,tags\n", "my.csv: no row has a tag"),
    table(
        "one-column",
        "one column",
        "picture\ncat.png\n",
        "my.csv: the first line must name at least two columns, separated by comma or tab",
    ),
    table(
        "short-row",
        "a row with too few cells",
        "picture,tags\ncat.png,cat\ncat.png\n",
        "my.csv: line 3 has 1 columns, the first line 2",
    ),
    table(
        "same-columns",
        "two columns of one name",
        "picture,cat,cat\ncat.png,1,0\n",
        "my.csv: the column 'cat' is there twice",
    ),
    table(
        "nameless-class",
        "a class without a name",
        "picture,,cat\ncat.png,1,0\n",
        "my.csv: column 2 has no name in the first line; it is that of a class",
    ),
    table(
        "semicolons",
        "cells separated by ;",
        "picture;tags\ncat.png;cat\n",
        "my.csv: the first line must name at least two columns, separated by comma or tab",
    ),
    table(
        "utf-16",
        "a CSV in UTF-16",
        "picture,tags\ncat.png,cat\n".encode("utf-16"),
        "my.csv: cannot be read as a CSV in UTF-8: ...",
    ),
    table(
        "latin-1",
        "a CSV in Latin-1",
        "picture,tags\ncat.png,Bär\n".encode("latin-1"),
        "my.csv: cannot be read as a CSV in UTF-8: ...",
    ),
    table("binary-csv", "a picture for a CSV", encoded("PNG"), "my.csv: cannot be read as a CSV in UTF-8: ..."),
    table(
        "open-quote",
        "a quotation mark that is never closed",
        'picture,tags\n"cat.png,cat\n' + "a.png,b\n" * 20_000,
        "my.csv: cannot be read as a CSV in UTF-8: ...",
    ),
    table(
        "not-0-1",
        "a 0/1 column that holds something else",
        "picture,cat,dog\ncat.png,1,yes\n",
        "my.csv: cat.png: column 'dog' holds 'yes'; allowed are 0 and 1, or a column named tags with tags separated by ;",
    ),
    table("no-tag", "no row with a tag", "picture,tags\ncat.png,\n", "my.csv: no row has a tag"),
    table(
        "nameless-picture",
        "a row without a picture",
        "picture,tags,split\n,cat,train\ncat.png,cat,test\n",
        "my.csv: a row has no picture: , cat, train",
    ),
    table(
        "two-tags",
        "two tags where one is promised",
        "picture,tags\ncat.png,cat;dog\n",
        "my.csv: cat.png has 2 tags; exclusive=yes allows exactly one",
        ",exclusive=yes",
    ),
    table(
        "wrong-share",
        "a share of 2 to hold out",
        "picture,tags\ncat.png,cat\n",
        "tags:my.csv,test=2: test is 2; allowed is a fraction between 0 and 1",
        ",test=2",
    ),
    table(
        "wrong-split",
        "no such split",
        "picture,tags,split\ncat.png,cat,trian\ncat.png,cat,test\n",
        "data 'tags:my.csv' has the splits test, trian: name the ones to train on and to score",
    ),
    table(
        "gone-pictures",
        "pictures that are not there",
        "picture,tags\na.png,cat\nb.png,dog\n",
        "tags:my.csv train: 1 images checked\n  1 files are missing: b.png\n  2 classes have no positive picture: cat, dog\n  no picture is good",
    ),
    table(
        "doubled-picture",
        "a picture in two rows",
        "picture,tags,split\ncat.png,cat,train\ncat.png,dog,train\ncat.png,dog,test\n",
        "tags:my.csv train: 2 images checked\n  1 names are there more than once: cat.png\n  1 classes have no positive picture: dog\n  mend or remove them, or skip them with on_bad_image=skip",
    ),
    table(
        "nul-name",
        "a NUL in a picture's name",
        "picture,tags\na\0b.png,cat\nb.png,dog\n",
        "tags:my.csv train: 1 images checked\n  1 files are missing: 'a\\x00b.png'\n  2 classes have no positive picture: cat, dog\n  no picture is good",
    ),
    table(
        "long-name",
        "a picture's name of 5000 characters",
        "picture,tags\n" + "a" * 5000 + ".png,cat\nb.png,dog\n",
        "tags:my.csv train: 1 images checked\n  1 pictures cannot be read: ...\n  2 classes have no positive picture: cat, dog\n  no picture is good",
    ),
]

# VOC and COCO


def voc_case(name: str, what: str, make: Make, told: str) -> Case:
    """A mistake in a small tree of VOC 2007."""
    return Case(name, what, in_order(trees.voc, make), "train --data voc07:. --out new", told)


XML, SETS = "VOCdevkit/VOC2007/Annotations/000001.xml", "VOCdevkit/VOC2007/ImageSets/Main"


def annotation(objects: str, size: str = "<width>40</width><height>30</height>") -> Make:
    """An annotation with these objects."""
    return text(XML, f"<annotation><size>{size}</size>{objects}</annotation>")


def dog(*box: object) -> str:
    """An object with this box."""
    sides = "".join(f"<{s}>{v}</{s}>" for s, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True))
    return f"<object><name>dog</name><bndbox>{sides}</bndbox></object>"


LAUGHS = (
    '<!DOCTYPE a [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {after} "{f"&{before};" * 10}">' for before, after in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><annotation>&i;</annotation>"
)

VOC = [
    Case(
        "no-voc",
        "no VOCdevkit in the folder",
        nothing,
        "train --data voc07:. --out new",
        ".: holds no VOC2007 with an ImageSets folder; give the folder that holds VOCdevkit, or VOCdevkit, or VOC2007 itself",
    ),
    voc_case(
        "cut-xml",
        "an annotation that was cut",
        cut(XML, 0.5),
        "VOCdevkit/VOC2007/Annotations/000001.xml: the annotation cannot be read: ...",
    ),
    voc_case(
        "no-xml",
        "an annotation that is missing",
        lambda folder: (folder / XML).unlink(),
        "VOCdevkit/VOC2007/Annotations/000001.xml: the annotation is missing",
    ),
    voc_case(
        "laughs",
        "an annotation of a billion laughs",
        text(XML, LAUGHS),
        "VOCdevkit/VOC2007/Annotations/000001.xml: the annotation cannot be read: ...",
    ),
    voc_case(
        "foreign-xml",
        "an annotation that asks for another file",
        text(XML, '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><annotation>&a;</annotation>'),
        "VOCdevkit/VOC2007/Annotations/000001.xml: the annotation cannot be read: ...",
    ),
    voc_case(
        "worded-box",
        "a box that is no number",
        annotation(dog(1, 1, "right", 9)),
        "VOCdevkit/VOC2007/Annotations/000001.xml: a size or a bndbox is missing or not a number",
    ),
    voc_case(
        "nan-box",
        "a box that is not finite",
        annotation(dog(1, 1, "inf", 9)),
        "VOCdevkit/VOC2007/Annotations/000001.xml: a bndbox ends before it begins, or is not finite: xmin 1, ymin 1, xmax inf, ymax 9",
    ),
    voc_case(
        "turned-box",
        "a box that ends before it begins",
        annotation(dog(20, 1, 10, 9)),
        "VOCdevkit/VOC2007/Annotations/000001.xml: a bndbox ends before it begins, or is not finite: xmin 20, ymin 1, xmax 10, ymax 9",
    ),
    voc_case(
        "infinite-size",
        "a picture of infinite size",
        annotation(dog(1, 1, 9, 9), "<width>inf</width><height>3</height>"),
        "VOCdevkit/VOC2007/Annotations/000001.xml: a size or a bndbox is missing or not a number",
    ),
    voc_case(
        "unknown-class",
        "an object of another class",
        annotation(dog(1, 1, 9, 9).replace("dog", "dragon")),
        "VOCdevkit/VOC2007/Annotations/000001.xml: class 'dragon' is unknown; allowed: aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse, motorbike, person, pottedplant, sheep, sofa, train, tvmonitor",
    ),
    voc_case(
        "label-2",
        "a label of 2",
        text(f"{SETS}/dog_trainval.txt", "000001 1\n000002 2\n000003 -1\n"),
        "VOCdevkit/VOC2007/ImageSets/Main/dog_trainval.txt: entry 2 cannot be read; allowed is image label, the label 1, 0 or -1",
    ),
    voc_case(
        "other-names",
        "label files with different pictures",
        text(f"{SETS}/dog_trainval.txt", "000001 1\n"),
        "VOCdevkit/VOC2007/ImageSets/Main/dog_trainval.txt: lists other images than aeroplane_trainval.txt, first of them 000002",
    ),
    voc_case(
        "no-label-file",
        "a class without its label file",
        lambda folder: (folder / SETS / "dog_trainval.txt").unlink(),
        "VOCdevkit/VOC2007/ImageSets/Main/dog_trainval.txt: not found; each of the 20 classes needs its label file; did you mean VOCdevkit/VOC2007/ImageSets/Main/cow_trainval.txt?",
    ),
    voc_case(
        "binary-labels",
        "a picture for a label file",
        text(f"{SETS}/dog_trainval.txt", encoded("PNG")),
        "VOCdevkit/VOC2007/ImageSets/Main/dog_trainval.txt: cannot be read as text in UTF-8: ...",
    ),
]

JSON = "annotations/instances_train2014.json"


def coco_case(name: str, what: str, make: Make, told: str) -> Case:
    """A mistake in a small tree of COCO 2014."""
    return Case(name, what, in_order(trees.coco, make), "train --data coco:. --out new", told)


COCO = [
    Case(
        "no-coco",
        "no annotations in the folder",
        nothing,
        "train --data coco:. --out new",
        ".: holds no annotations/instances_<train or val><2014 or 2017>.json",
    ),
    coco_case(
        "cut-json",
        "annotations that were cut",
        cut(JSON, 0.5),
        "annotations/instances_train2014.json: cannot be read as JSON: ...",
    ),
    coco_case(
        "list-json",
        "a list for annotations",
        text(JSON, "[]"),
        "annotations/instances_train2014.json: has no annotations and no categories and no images; it is no file of COCO instances",
    ),
    coco_case(
        "deep-json",
        "a list in a list in a list, 100,000 deep",
        text(JSON, "[" * 100_000),
        "annotations/instances_train2014.json: cannot be read as JSON: ...",
    ),
    coco_case(
        "no-categories",
        "no categories",
        entries(JSON, categories=None),
        "annotations/instances_train2014.json: has no categories; it is no file of COCO instances",
    ),
    coco_case(
        "unknown-category",
        "an object of a category that is not listed",
        entries(JSON, annotations__1__category_id=77),
        "annotations/instances_train2014.json: annotations: category_id of entry 2 must be the id of a category; got 77",
    ),
    coco_case(
        "short-box",
        "a box of three numbers",
        entries(JSON, annotations__1__bbox=[1, 2, 3]),
        "annotations/instances_train2014.json: annotations: bbox of entry 2 must be x, y, width and height, four finite numbers; got [1, 2, 3]",
    ),
    coco_case(
        "no-box",
        "an object without a box",
        entries(JSON, annotations__1__bbox=None),
        "annotations/instances_train2014.json: annotations: bbox of entry 2 must be x, y, width and height, four finite numbers; got nothing",
    ),
    coco_case(
        "numbered-file",
        "a picture whose file name is a number",
        entries(JSON, images__0__file_name=7),
        "annotations/instances_train2014.json: images: file_name of entry 1 must be text; got 7",
    ),
    coco_case(
        "odd-images",
        "pictures that are no list",
        entries(JSON, images=7),
        "annotations/instances_train2014.json: images must be a list; got int",
    ),
]

# Runs

EVALUATE = "evaluate run --data synthetic:count=2,size=64"
CONFIG = "run/config.json"


def run_case(name: str, what: str, make: Make, told: str, typed: str = "predict run cat.png --out found") -> Case:
    """A mistake in a run's folder."""
    return Case(name, what, make, typed, told)


RUNS = [
    run_case(
        "no-run",
        "no such run",
        nothing,
        "no run in mine: give a run's folder, a hub name (owner/name), or imagenet",
        "predict mine cat.png --out found",
    ),
    run_case(
        "file-run",
        "a file for a run",
        nothing,
        "no run in cat.png: give a run's folder, a hub name (owner/name), or imagenet",
        "predict cat.png cat.png --out found",
    ),
    run_case(
        "cut-config",
        "settings that were cut",
        cut(CONFIG, 0.5),
        "run/config.json is not valid JSON: ...",
    ),
    run_case(
        "binary-config",
        "settings that are no text",
        text(CONFIG, encoded("PNG")),
        "run/config.json is not valid JSON: ...",
    ),
    run_case(
        "deep-config",
        "a list in a list in a list, 100,000 deep, for settings",
        text(CONFIG, "[" * 100_000),
        "run/config.json is not valid JSON: ...",
    ),
    run_case("no-classes", "no class names", entries(CONFIG, classes=None), "run/config.json has no entry 'classes'"),
    run_case(
        "empty-classes",
        "an empty list of class names",
        entries(CONFIG, classes=[]),
        "run/config.json: classes must be a list of names; got []",
    ),
    run_case(
        "text-classes",
        "a text for the class names",
        entries(CONFIG, classes="cat"),
        "run/config.json: classes must be a list of names; got 'cat'",
    ),
    run_case(
        "numbered-classes",
        "numbers for class names",
        entries(CONFIG, classes=[1, 2, 3]),
        "run/config.json: classes must be a list of names; got [1, 2, 3]",
    ),
    run_case(
        "short-mean",
        "a mean of two colours",
        entries(CONFIG, mean=[0.5, 0.5]),
        "run/config.json: mean must be three finite numbers; got [0.5, 0.5]",
    ),
    run_case(
        "zero-std",
        "a standard deviation of 0",
        entries(CONFIG, std=[0, 1, 1]),
        "run/config.json: std must be three finite numbers above 0; got [0, 1, 1]",
    ),
    run_case(
        "fewer-classes",
        "another number of classes than the weights",
        entries(CONFIG, classes=["a", "b"]),
        "run/model.safetensors is damaged or of another model: ...",
    ),
    run_case(
        "worded-lr",
        "a setting of another type",
        entries(CONFIG, config__lr="fast"),
        "run/config.json: lr must be a number, e.g. 0.01; got 'fast'",
    ),
    run_case(
        "new-setting",
        "a setting that there is not",
        entries(CONFIG, config__learning_rate=1),
        "run/config.json: unknown setting 'learning_rate'",
    ),
    run_case(
        "list-config",
        "a list for the settings",
        entries(CONFIG, config=[1]),
        "run/config.json must be a mapping of settings; got list",
    ),
    run_case(
        "no-weights",
        "weights that are missing",
        lambda folder: (folder / "run/model.safetensors").unlink(),
        "run has no model.safetensors; training has not finished: continue it with --resume",
    ),
    run_case(
        "cut-weights",
        "weights that were cut",
        cut("run/model.safetensors", 0.5),
        "run/model.safetensors is damaged or of another model: ...",
    ),
    run_case(
        "empty-weights",
        "an empty file for weights",
        cut("run/model.safetensors", 0),
        "run/model.safetensors is damaged or of another model: ...",
    ),
    run_case(
        "flipped-weights",
        "a wrong bit in the weights",
        flipped("run/model.safetensors"),
        "run/model.safetensors is damaged or of another model: its checksum is wrong",
    ),
    run_case(
        "pickled-weights",
        "code for weights",
        pickled("run/model.safetensors"),
        "run/model.safetensors is damaged or of another model: ...",
    ),
    run_case(
        "odd-background",
        "a background that there is not",
        text("run/background.json", '{"mode": "sky", "constant": 1}'),
        "run/background.json is damaged: background mode must be one of threshold, power, class; got 'sky'",
    ),
    run_case(
        "nan-background",
        "a background's constant that is no number",
        text("run/background.json", '{"mode": "power", "constant": NaN}'),
        "run/background.json is damaged: the background's constant must be a finite number above 0; got nan",
    ),
    run_case(
        "worded-background",
        "a text for a background's constant",
        text("run/background.json", '{"mode": "power", "constant": "1"}'),
        "run/background.json is damaged: the background's constant must be a finite number above 0; got '1'",
    ),
    run_case(
        "cut-state",
        "a state to go on from that was cut, and none before it",
        in_order(cut("run/state.pt", 0.5), lambda folder: (folder / "run/state.previous.pt").unlink(missing_ok=True)),
        "run/state.pt is damaged: ...; delete it to start the run again from its beginning",
        "train --out run --resume",
    ),
    run_case(
        "pickled-state",
        "code for a state to go on from",
        in_order(pickled("run/state.pt"), lambda folder: (folder / "run/state.previous.pt").unlink(missing_ok=True)),
        "run/state.pt is damaged: it holds more than tensors and plain values; delete it to start the run again from its beginning",
        "train --out run --resume",
    ),
    run_case(
        "pickled-trunk",
        "code for a trunk's weights",
        pickled("net.pth"),
        "weights file net.pth cannot be read as a state dict (.pth, .safetensors)",
        "train --data synthetic --weights net.pth --out new",
    ),
    run_case(
        "pickled-checkpoint",
        "code for a checkpoint of the authors'",
        pickled("best.pth.tar"),
        "best.pth.tar cannot be read as a checkpoint of tensors and plain values alone",
        "convert best.pth.tar --classes voc --kmax 0.2 --alpha 0.7 --out new",
    ),
    run_case(
        "odd-checkpoint",
        "a checkpoint of something else",
        lambda folder: torch.save({"state_dict": {"fc.weight": torch.zeros(2)}}, folder / "best.pth.tar"),
        "best.pth.tar is no checkpoint of the authors' code: it holds fc.weight",
        "convert best.pth.tar --classes voc --kmax 0.2 --alpha 0.7 --out new",
    ),
    run_case(
        "cut-scales",
        "scales that were cut",
        in_order(lambda folder: (folder / CONFIG).unlink(), text("run/scales.json", '{"config": ')),
        "run/scales.json is not valid JSON: ...",
    ),
]

# Recipes


def recipe(name: str, what: str, content: str | bytes, told: str) -> Case:
    """A mistake in a recipe."""
    return Case(name, what, text("my.yaml", content), "train --data synthetic --recipe my.yaml --out new", told)


BOMB = "lr: [&a [x, x]" + "".join(
    f", &{after} [{', '.join([f'*{before}'] * 20)}]" for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)

RECIPES = [
    recipe("odd-yaml", "no YAML", "lr: [0.1\n", "recipe my.yaml cannot be read as YAML: ..."),
    recipe("binary-yaml", "a picture for a recipe", encoded("PNG"), "recipe my.yaml cannot be read as YAML: ..."),
    recipe("list-yaml", "a list", "- lr\n", "recipe my.yaml must be a mapping of settings; got list"),
    recipe(
        "new-yaml",
        "a setting that there is not",
        "learning_rate: 1\n",
        "recipe my.yaml: unknown setting 'learning_rate'",
    ),
    recipe(
        "bare-yaml", "a setting without a value", "lr:\n", "recipe my.yaml: lr must be a number, e.g. 0.01; got None"
    ),
    recipe(
        "exponent-yaml",
        "1e-3, which YAML takes for text",
        "lr: 1e-3\n",
        "recipe my.yaml: lr must be a number, e.g. 0.01; got '1e-3'",
    ),
    recipe("nan-yaml", "a number that is none", "lr: .nan\n", "recipe my.yaml: lr must be a finite number; got nan"),
    recipe("infinite-yaml", "an infinite number", "lr: .inf\n", "recipe my.yaml: lr must be a finite number; got inf"),
    recipe(
        "huge-seed",
        "a seed of 30 digits",
        f"seed: {10**30}\n",
        "recipe my.yaml: seed must be below 2 to the power of 63; got 1000000000000000000000000000000",
    ),
    recipe(
        "tagged-yaml",
        "code",
        "lr: !!python/object/apply:os.system ['touch executed']\n",
        "recipe my.yaml cannot be read as YAML: ...",
    ),
    recipe(
        "bomb-yaml",
        "lists of lists that grow twentyfold",
        BOMB + "]\n",
        "recipe my.yaml: lr must be a number, e.g. 0.01; got [['x', ...",
    ),
    recipe(
        "deep-yaml",
        "a list in a list in a list, 10,000 deep",
        "lr: " + "[" * 10_000,
        "recipe my.yaml cannot be read as YAML: ...",
    ),
]

CASES: dict[str, list[Case]] = {
    "Pictures": PICTURES,
    "Tables of tags (CSV)": TABLES,
    "PASCAL VOC (XML and text)": VOC,
    "COCO (JSON)": COCO,
    "Runs and checkpoints": RUNS,
    "Recipes (YAML)": RECIPES,
}

# The page

HEAD = """\
# Bad input

<!-- Written by `python -m tests.bad_input`: change the cases there, not this. -->

What is told about {count} mistakes in files and settings. Each line is tried by a test, word for word; "..."
stands for the words of the library that read the file. Every command ends with exit code 2 and one sentence (`wildcat
train` tells all it has found in the pictures), no traceback, and leaves no run behind. A picture that cannot be
predicted is skipped: the others are predicted, and the exit code is 1.

- Nothing in a file is executed: checkpoints are read as tensors and plain values alone, YAML and JSON as plain values,
  and XML that declares entities is refused.
- Names from data (pictures, classes) never lead out of the folder that is written to.
"""


def _cell(content: str) -> str:
    return html.escape(content, quote=False).replace("|", "&#124;").replace("\n", "<br>")


def page() -> str:
    """docs/robustness.md."""
    parts = [HEAD.format(count=sum(map(len, CASES.values())))]
    for kind, cases in CASES.items():
        parts.append(f"\n## {kind}\n\n| What is wrong | Typed | Told |\n| --- | --- | --- |\n")
        parts += [f"| {_cell(c.what)} | <code>{_cell(c.shown)}</code> | {_cell(c.told)} |\n" for c in cases]
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
