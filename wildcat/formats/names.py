"""Names of images and classes that are safe in file names, text files and XML."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

_OUTPUT_SUFFIXES = (".jpg", ".png", ".txt", ".xml")
_LONGEST_NAME = 180  # bytes; file systems allow 255, of which numbers, suffixes and temporary names need some


class UniqueNames:
    """Gives each image a unique name for its output files, which stay inside the output folder.

    Args:
        root: folder to which names are relative, or None.

    >>> names = UniqueNames(None)
    >>> names.stem("a/cat.jpg"), names.stem("a/cat.png")
    ('a/cat', 'a/cat-2')
    """

    def __init__(self, root: Path | None) -> None:
        self._root = None if root is None else Path(os.path.abspath(root))  # noqa: PTH100 - symbolic links stay
        self._used: set[str] = set()

    def relative(self, name: str) -> str:
        """The path of an image relative to the root, with "/"; only its last part without a root or outside of it."""
        if self._root is not None:
            path = Path(os.path.abspath(name))  # noqa: PTH100
            if path.is_relative_to(self._root):
                return path.relative_to(self._root).as_posix()
        return Path(name).name

    def stem(self, relative: str) -> str:
        """A safe name for the output files of an image, with a number if it was given to another image before.

        Names that differ only in case count as equal, as they are on many file systems.
        """
        *folders, last = relative.split("/")
        safe = "/".join([*map(_safe_folder, folders), safe_name(Path(last).stem)])
        candidate, number = safe, 1
        while (key := unicodedata.normalize("NFC", candidate).casefold()) in self._used:
            number += 1
            candidate = f"{safe}-{number}"
        self._used.add(key)
        return candidate


def safe_name(part: str) -> str:
    """A file or folder name without path separators and control characters, of limited length, in UTF-8.

    Bytes that are not UTF-8 become "%" and two digits.

    >>> safe_name("caf\\udce9 1/2")
    'caf%E9 1_2'
    """
    part = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069/\\]", "_", part).strip()
    part = re.sub("[\udc80-\udcff]", lambda byte: f"%{ord(byte[0]) - 0xDC00:02X}", part)
    part = part.encode("utf-8", "replace")[:_LONGEST_NAME].decode("utf-8", "ignore").strip()
    return "_" if part.strip(".") == "" else part


def safe_suffix(name: str) -> str:
    """The suffix of an image's file, safe for the name of another one: ".jpg"."""
    suffix = Path(name.rpartition("/")[2]).suffix
    return "." + safe_name(suffix[1:]) if suffix else ""


def _safe_folder(part: str) -> str:
    """A safe name of a folder, which is no name of an output file: "a.png/b.jpg" lies beside the mask "a.png"."""
    part = safe_name(part)
    return f"{part}_" if part.lower().endswith(_OUTPUT_SUFFIXES) else part


def label_names(classes: Iterable[str]) -> str:
    """The names of the labels of masks, one per line, starting with the background (0)."""
    names = (" ".join(name.split()).encode("utf-8", "backslashreplace").decode() for name in ("background", *classes))
    return "".join(f"{name}\n" for name in names)


def xml_text(text: str) -> str:
    """The text as XML can hold it.

    Bytes of names that are not UTF-8 become escapes, as in the JSON files; other characters that XML does not allow
    (control characters) become U+FFFD.

    >>> xml_text("caf\\udce9 \\x1b")
    'caf\\\\udce9 \ufffd'
    """
    text = text.encode("utf-8", "backslashreplace").decode()
    return re.sub(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
