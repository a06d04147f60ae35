"""Which font draws a text, and what of the text it can draw.

ASCII is drawn in the font that comes with Pillow, which holds little more. Other letters are looked for in DejaVu Sans,
which comes with matplotlib (Latin, Greek, Cyrillic, Arabic and more), and then in the system's fonts (Chinese, say).
"""

import bisect
import math
import unicodedata
from functools import cache
from pathlib import Path

from PIL import ImageFont

NO_GLYPH = "?"  # is drawn for a letter that no font has
_LONGEST = 10_000  # letters: no image is so wide, and Pillow rejects much longer texts


def one_line(text: str, size: int, width: float = math.inf) -> tuple[str, ImageFont.FreeTypeFont]:
    """A text as it can be drawn on one line, and the font to draw it in.

    Args:
        text: any letters, spaces and line breaks.
        size: height of the font in pixels.
        width: in pixels; of a wider text the beginning is left, and an ellipsis.
    """
    # Composed, because macOS writes the ü of a file's name as two letters.
    text = unicodedata.normalize("NFC", " ".join(text.split())[:_LONGEST])
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
    """The font of a file, or else Pillow's own, at a height in pixels."""
    font = ImageFont.truetype(file, size) if file else ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType, so it has no scalable font; install a build with it")
    return font


@cache
def _first_with(letter: str) -> tuple[int, str]:
    """The first of the fonts that has a letter, with its place among them; the first of all where none has it."""
    dejavu = _dejavu()
    if _has(dejavu, letter):  # and the system is not searched
        return 0, dejavu
    return next(((place, file) for place, file in enumerate(_system(), start=1) if _has(file, letter)), (0, dejavu))


@cache
def _has(file: str, letter: str) -> bool:
    from matplotlib.ft2font import FT2Font

    try:
        return FT2Font(file).get_char_index(ord(letter)) > 0
    except (OSError, RuntimeError):  # removed since the fonts were listed, or damaged
        return False


@cache
def _dejavu() -> str:
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@cache
def _system() -> tuple[str, ...]:
    """The system's fonts, the plain ones first; without Last Resort, whose glyphs are all of them boxes."""
    from matplotlib.font_manager import fontManager

    fonts = [font for font in fontManager.ttflist if "lastresort" not in font.name.replace(" ", "").lower()]
    fonts.sort(key=lambda f: (f.weight != 400, f.style != "normal", "sans" not in f.name.lower(), f.name, f.fname))
    return tuple(font.fname for font in fonts)
