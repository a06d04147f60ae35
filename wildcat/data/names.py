"""Names as people and programs write them: what looks the same is the same name."""

from __future__ import annotations

import os
import re
import unicodedata

# Soft hyphen, grapheme joiner, vowel separator, zero-width space, direction marks, word joiner, byte order mark.
_INVISIBLE = dict.fromkeys(
    [0xAD, 0x34F, 0x180E, 0x200B, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2060, 0x206A), 0xFEFF]
)
_JOINERS = "\u200c\u200d"  # needed inside words of some scripts, never at their ends

_MISSING = frozenset(
    ["", "nan", "none", "null", "nil", "na", "n/a", "#n/a", "#na", "<na>", "-", "--", "\u2013", "\u2014", "?"]
)
_SPLIT = re.compile(
    r"(?:(train|training)|(val|valid|validation|dev)|(test|testing))(?:[ _-]?(?:set|data|images|split))?"
)


def clean_name(text: str) -> str:
    """A name in the composed form of Unicode (NFC), without invisible characters, with single blanks between words.

    >>> clean_name(" red\\u00a0 car\\u200b") == "red car", clean_name("cafe\\u0301") == "caf\\u00e9"
    (True, True)
    """
    if text.isascii():
        return " ".join(text.split())
    words = unicodedata.normalize("NFC", text).translate(_INVISIBLE).split()
    return " ".join(words).strip(_JOINERS)


def readable_name(name: str) -> str:
    """The clean name of a file or folder; bytes that are not UTF-8 are read as those of old Windows archives (cp1252).

    >>> readable_name("caf\\udce9") == "caf\\u00e9"
    True
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        content = os.fsencode(name)
        try:
            name = content.decode("cp1252")
        except UnicodeDecodeError:  # five bytes are no character there
            name = content.decode("latin-1")
    return clean_name(name)


def is_missing(text: str) -> bool:
    """Whether a cell of a table says that there is no value: blank, "nan", "None", "N/A", "null", "-" and so on.

    >>> is_missing(" NaN "), is_missing("nanny")
    (True, False)
    """
    return clean_name(text).lower() in _MISSING


def usual_split(name: str) -> str | None:
    """The split that a name means: "train", "val" or "test"; None for another name.

    >>> usual_split("Training_set"), usual_split("validation"), usual_split("trian")
    ('train', 'val', None)
    """
    match = _SPLIT.fullmatch(clean_name(name).lower())
    if match is None:
        return None
    return "train" if match[1] else "val" if match[2] else "test"


def brief(text: str, limit: int = 200) -> str:
    """A text for a message, cut at a length.

    >>> brief("a" * 300, 5)
    'aaaaa...'
    """
    return text if len(text) <= limit else f"{text[:limit]}..."
