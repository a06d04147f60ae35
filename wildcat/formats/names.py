"""Names of images and classes that are safe in file names, text files and XML."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

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
        safe = "/".join(safe_name(part) for part in [*folders, Path(last).stem])
        candidate, number = safe, 1
        while (key := unicodedata.normalize("NFC", candidate).casefold()) in self._used:
            number += 1
            candidate = f"{safe}-{number}"
        self._used.add(key)
        return candidate


def safe_name(part: str) -> str:
    """A file or folder name without path separators and control characters, of limited length."""
    part = re.sub(r"[\x00-\x1f\x7f\u2028\u2029\\]", "_", part).strip()
    part = part.encode("utf-8", "surrogateescape")[:_LONGEST_NAME].decode("utf-8", "surrogateescape")
    return "_" if part.strip(".") == "" else part


def label_names(classes: Iterable[str]) -> str:
    """The names of the labels of masks, one per line, starting with the background (0)."""
    return "".join(" ".join(name.split()) + "\n" for name in ("background", *classes))


def xml_text(text: str) -> str:
    """The text with characters that XML does not allow (control characters, surrogates) replaced by U+FFFD."""
    return re.sub(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", text)
