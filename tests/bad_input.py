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
                at = at[part]
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

CASES: dict[str, list[Case]] = {"Pictures": PICTURES, "Tables of tags (CSV)": TABLES}

# The page

HEAD = """\
# Bad input

<!-- Written by `python -m tests.bad_input`: change the cases there, not this. -->

What is told about {count} mistakes in files, settings and requests. Each line is tried by a test, word for word; "..."
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
