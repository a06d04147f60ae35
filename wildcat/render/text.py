"""Fonts for captions: the first one that has all letters of a text.

ASCII is drawn in Pillow's own font, which has few other letters. Other texts are drawn in DejaVu Sans, which comes with
matplotlib (Latin, Greek, Cyrillic, Arabic and more), or in a font of the system (for Chinese, for example).
"""

import bisect
import math
import unicodedata
from functools import cache
from pathlib import Path

from PIL import ImageFont

NO_GLYPH = "?"  # replaces letters that no font has
_MAX_LETTERS = 10_000  # more than fits into any image; Pillow rejects much longer texts


def one_line(text: str, size: int, width: float = math.inf) -> tuple[str, ImageFont.FreeTypeFont]:
    """A text on one line, and the font for it.

    Args:
        text: any letters; spaces and line breaks become single spaces.
        size: height of the font in pixels.
        width: largest width in pixels; a longer text is cut and ends with an ellipsis.

    Returns:
        The text, in which letters that no font has are replaced by "?", and the font.

    >>> one_line("two\\nlines", 16)[0]
    'two lines'
    """
    # NFC, because macOS stores the ü of a file name as two characters.
    text = unicodedata.normalize("NFC", " ".join(text.split())[:_MAX_LETTERS])
    file = None
    if not (text.isascii() and text.isprintable()):
        file = max(map(_first_with, set(text)))[1]
        text = "".join(letter if _has(file, letter) else NO_GLYPH for letter in text)
    font = font_of(size, file)
    if font.getlength(text) <= width:
        return text, font
    fits = bisect.bisect_right(range(1, len(text)), width, key=lambda count: font.getlength(text[:count] + "…"))
    return text[:fits] + "…", font


@cache
def font_of(size: int, file: str | None = None) -> ImageFont.FreeTypeFont:
    """A font at a height in pixels: that of a file, or Pillow's own for None."""
    font = ImageFont.truetype(file, size) if file else ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, so it has no scalable font; install a build with it")
    return font


@cache
def _first_with(letter: str) -> tuple[int, str]:
    """Index and file of the first font that has a letter; index 0 and DejaVu Sans if no font has it."""
    dejavu = _dejavu()
    if _has(dejavu, letter):  # usually, which saves the search of the system's fonts
        return 0, dejavu
    return next(((index, file) for index, file in enumerate(_system(), start=1) if _has(file, letter)), (0, dejavu))


@cache
def _has(file: str, letter: str) -> bool:
    from matplotlib.ft2font import FT2Font

    try:
        return FT2Font(file).get_char_index(ord(letter)) > 0
    except (OSError, RuntimeError):  # the file was removed since the fonts were listed, or is damaged
        return False


@cache
def _dejavu() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@cache
def _system() -> tuple[str, ...]:
    """The system's font files, regular sans-serif ones first; without Last Resort, whose glyphs are all boxes."""
    from matplotlib.font_manager import fontManager

    fonts = [font for font in fontManager.ttflist if "lastresort" not in font.name.replace(" ", "").lower()]
    fonts.sort(key=lambda f: (f.weight != 400, f.style != "normal", "sans" not in f.name.lower(), f.name, f.fname))
    return tuple(font.fname for font in fonts)
