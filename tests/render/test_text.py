"""Captions in all scripts: drawn with a font that has the letters, and never as boxes."""

import unicodedata
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw

from wildcat.render import text as text_module
from wildcat.render.masks import mask_overlay
from wildcat.render.sheets import prediction_overlay
from wildcat.render.text import font_of, one_line

IN_NO_FONT = "\U0010fffd"  # a private-use character


@pytest.fixture(autouse=True)
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SimpleNamespace]]:
    """The system's fonts: none, unless a test adds some."""
    fonts: list[SimpleNamespace] = []
    monkeypatch.setattr(font_manager, "fontManager", SimpleNamespace(ttflist=fonts))

    def clear_caches() -> None:
        for cached in (text_module._first_with, text_module._has, text_module._system):
            cached.cache_clear()

    clear_caches()
    yield fonts
    clear_caches()


def pixels(text: str) -> bytes:
    """The pixels of a line of text."""
    line, font = one_line(text, 24)
    image = Image.new("L", (round(font.getlength(line)) + 8, 40))
    ImageDraw.Draw(image).text((4, 20), line, 255, font, anchor="lm")
    return image.tobytes()


def write_font(file: Path, letters: str) -> str:
    """Write a font in which each letter is a bar of a different height."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    builder = FontBuilder(1000, isTTF=True)
    names = {letter: f"u{ord(letter):x}" for letter in letters}
    builder.setupGlyphOrder([".notdef", *names.values()])
    builder.setupCharacterMap({ord(letter): name for letter, name in names.items()})
    glyphs = {}
    for number, name in enumerate([".notdef", *names.values()], start=2):
        pen = TTGlyphPen(None)
        pen.moveTo((100, 0))
        for corner in ((100, 100 * number), (400, 100 * number), (400, 0)):
            pen.lineTo(corner)
        pen.closePath()
        glyphs[name] = pen.glyph()
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (500, 100)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Bars", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(file)
    return str(file)


def font(file: str, name: str = "Bars Sans", weight: int = 400, style: str = "normal") -> SimpleNamespace:
    return SimpleNamespace(fname=file, name=name, weight=weight, style=style)


@pytest.mark.parametrize("pair", ["üö", "ñń", "ßẞ", "жш", "λμ", "€£", "אב", "بت", "ễế"])
def test_letters_differ(pair: str) -> None:
    """Two letters that a font does not have look the same."""
    lines = [pixels(f"a {letter} b") for letter in pair]
    assert lines[0] != lines[1]
    assert pixels("a ? b") not in lines and one_line(pair, 24)[0] == pair


def test_the_same_text_in_two_encodings_looks_the_same() -> None:
    decomposed = unicodedata.normalize("NFD", "Hund über Zaun.jpg")
    assert decomposed != "Hund über Zaun.jpg" and pixels(decomposed) == pixels("Hund über Zaun.jpg")


@pytest.mark.parametrize(
    "letter", [IN_NO_FONT, "日", "\udcfc", "\x07"]
)  # an undecodable byte of a file name; the bell character
def test_a_letter_that_no_font_has_becomes_a_question_mark(letter: str) -> None:
    assert one_line(f"dog {letter} é.jpg", 24)[0] == "dog ? é.jpg"
    assert pixels(f"dog {letter}") != pixels("dog")


def test_ascii_uses_the_font_of_pillow() -> None:
    assert one_line("dog 1.jpg", 24)[1].getname() == font_of(24).getname()
    assert one_line(" dog\n1.jpg\t", 24)[0] == "dog 1.jpg"


def test_system_fonts_are_used_for_letters_that_dejavu_lacks(system: list[SimpleNamespace], tmp_path: Path) -> None:
    file = write_font(tmp_path / "bars.ttf", "猫日é…")
    bold = write_font(tmp_path / "bold.ttf", "猫日é…")
    system += [
        font(str(tmp_path / "gone.ttf"), name="A Sans"),
        font(write_font(tmp_path / "boxes.ttf", "猫日é" + IN_NO_FONT), name="Last Resort"),
        font(bold, weight=700),
        font(file),
    ]
    line, chosen = one_line("日é猫", 24)
    assert line == "日é猫" and chosen.path == file
    assert pixels("日") != pixels("猫")
    assert one_line("日ж", 24)[0] == "日?"  # a text is drawn in one font
    assert one_line(IN_NO_FONT, 24)[0] == "?"
    assert one_line("é", 24)[1].path != file


@pytest.mark.parametrize("text", ["x" * 400, "ü" * 400, "日ü" * 200])
def test_long_texts_end_in_an_ellipsis(text: str) -> None:
    line, chosen = one_line(text, 16, 200)
    assert line.endswith("…") and 170 < chosen.getlength(line) <= 200
    assert one_line("ü", 16, 200)[0] == "ü"


def test_names_on_sheets_and_legends() -> None:
    grey = Image.new("RGB", (320, 240), (90, 90, 90))
    assert prediction_overlay(grey, [], title="über.jpg") != prediction_overlay(grey, [], title="öber.jpg")
    labels = np.ones((240, 320), np.uint8)
    assert mask_overlay(grey, labels, ["Vögel"]) != mask_overlay(grey, labels, ["Vägel"])
