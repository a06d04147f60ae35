"""Splits the cells of a column of tags: "cat;dog", "cat|dog", '["cat", "dog"]'."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from wildcat.data.names import clean_name, is_missing
from wildcat.errors import shorten

SEPARATORS = {
    "comma": ",",
    "semicolon": ";",
    "pipe": "|",
    "slash": "/",
    "space": " ",
    "tab": "\t",
    "line": "\n",
    "plus": "+",
    "colon": ":",
    "dash": "-",
    "underscore": "_",
}
"""Values of the option ``sep=``, beside "none" for one tag in a cell."""

_NEVER_IN_TAGS = ("|", "\t", "\n")  # these separate whatever the tags are
_PERHAPS = (",", "/", "+", "&", " ", ":", "_", "-")  # these separate if every part is a tag elsewhere
_LISTED = re.compile(r"\[.*\]|\(.*\)|\{.*\}", re.DOTALL)
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")


@dataclass
class Tags:
    """The tags of each row of a table.

    Attributes:
        rows: the tags of each row; an empty set for a row without tags.
        notes: how the cells were split, for the log.
        warnings: what may be meant otherwise.
    """

    rows: list[set[str]]
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def separator(text: str) -> str:
    """Convert the option ``sep=``: a word of :data:`SEPARATORS`, "none", or the character itself."""
    if text in SEPARATORS or text == "none":
        return SEPARATORS.get(text, "none")
    if len(text) != 1 or text.isalnum():
        raise ValueError(f"one of {', '.join(SEPARATORS)}, none, or one character")
    return text


def read_tags(cells: Sequence[str], usual: str, sep: str | None, *, keep_none: bool = False) -> Tags:
    """Split the cells of a column of tags.

    Lists of JSON and Python are read as such. Unless `sep` is given, cells are split at the usual separator, or at
    another one if that is certain: "|", or one at which every joined tag splits into tags that other cells hold.

    Args:
        cells: one for each row.
        usual: the separator of such a table: ";".
        sep: the separator, or "none" for one tag in a cell; unless given it is found.
        keep_none: "none" is a class of its own, and not a missing value.
    """
    distinct = dict.fromkeys(cells)
    notes: list[str] = []
    warnings: list[str] = []
    filled = [cell for cell in distinct if not is_missing(cell)]
    lists = [] if sep is not None else [cell for cell in filled if _LISTED.fullmatch(cell)]
    has_lists = bool(lists) and (len(lists) == len(filled) or any(_QUOTED.search(cell) for cell in lists))
    if has_lists:
        notes.append("tags are read from lists")
        sep = usual  # of cells that are no lists
    elif sep is None:
        sep = _find_separator(filled, usual, notes, warnings)
    missing: dict[str, None] = {}
    spellings: dict[str, dict[str, None]] = {}
    tags_of: dict[str, frozenset[str]] = {}
    for cell in distinct:
        tags = set()
        for part in _split_cell(cell, sep, has_lists):
            tag = clean_name(part)
            if is_missing(tag) and not (keep_none and tag.lower() == "none"):
                if tag:
                    missing[tag] = None
                continue
            spellings.setdefault(tag, {})[part.strip(" ")] = None
            tags.add(tag)
        tags_of[cell] = frozenset(tags)
    if missing:
        notes.append(f"cells that hold {shorten(list(missing))} have no tag")
    merged = [tag for tag, forms in spellings.items() if len(forms) > 1]
    if merged:
        notes.append(f"spellings that look the same are one tag: {shorten(merged)}")
    rows = [set(tags_of[cell]) for cell in cells]
    if without := sum(not row for row in rows):
        notes.append(f"{without} of {len(rows)} rows have no tag: their images are negatives of all classes")
    return Tags(rows, notes, warnings)


def _split_cell(cell: str, sep: str, has_lists: bool) -> list[str]:
    """The tags of a cell, as they are written."""
    if has_lists and _LISTED.fullmatch(cell):
        return _list_items(cell)
    return [cell] if sep == "none" else cell.split(sep)


def _list_items(cell: str) -> list[str]:
    """The items of a list as JSON, Python or NumPy writes it, or of words between brackets."""
    for parse in (json.loads, ast.literal_eval):
        try:
            items = parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(items, dict) and len(items) == 1:  # {"choices": ["cat", "dog"]}, as Label Studio writes it
            items = next(iter(items.values()))
        # Python reads 'cat' 'dog', as NumPy writes it, as one word.
        if isinstance(items, list | tuple | set) and not re.search(r"['\"]\s+['\"]", cell):
            return [str(item) for item in items if item is not None]
        if isinstance(items, str | int | float):  # ("cat")
            return [str(items)]
    quoted = _QUOTED.findall(cell)
    return [one or other for one, other in quoted] if quoted else cell[1:-1].split(",")


def _parts(tag: str, sep: str) -> list[str]:
    return [part for part in (clean_name(part) for part in tag.split(sep)) if part]


def _find_separator(filled: Sequence[str], usual: str, notes: list[str], warnings: list[str]) -> str:
    """The separator of tags: the usual one, or another one that is certain; else a warning says what is likely."""
    if any(usual in cell for cell in filled):
        return usual
    for sep in _NEVER_IN_TAGS:
        if any(sep in cell for cell in filled):
            notes.append(f"tags are split at {sep!r}")
            return sep
    tags = {clean_name(cell) for cell in filled}
    likely = []
    for sep in _PERHAPS:
        joined = {tag: parts for tag in tags if len(parts := _parts(tag, sep)) > 1}
        if not joined:
            continue
        alone = tags - set(joined)
        # One joined tag may be a name: hot, dog, hot dog.
        if all(p in alone for parts in joined.values() for p in parts) and (sep == "," or len(joined) > 1):
            notes.append(
                f"tags are split at {sep!r}, as {len(joined)} of {len(tags)} consist of other tags joined by it;"
                " sep=none takes each cell for one tag"
            )
            return sep
        likely.append((sep, joined, alone))
    for sep, joined, alone in likely:
        counts: dict[str, int] = {}
        for parts in joined.values():
            for part in set(parts):
                counts[part] = counts.get(part, 0) + 1
        repeated = [tag for tag, parts in joined.items() if all(p in alone or counts[p] > 1 for p in parts)]
        if sep == "," or (repeated and 5 * len(repeated) >= len(tags)):
            shown = sorted(repeated or joined)
            name = next((word for word, character in SEPARATORS.items() if character == sep), sep)
            what = "consist of other tags joined by" if repeated else "hold"
            warnings.append(
                f"{len(shown)} of {len(tags)} tags {what} {sep!r} ({shorten(shown)}), and each is a class of its own;"
                f" to split them use sep={name}, to keep them and hide this warning sep=none"
            )
            break
    return usual
