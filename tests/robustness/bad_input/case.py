"""The description of a case, and functions that make bad files."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tests import unusual

Make = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One user error.

    Attributes:
        name: unique, for the test.
        what: the error in a few words, for the page.
        make: produces the situation in a folder that holds a run (``run``) and an image (``cat.png``).
        typed: the command, without "wildcat".
        message: the expected message, word for word; "..." stands for text of the library that opened the file.
        skipped: the command continues with the next image, and ends with exit code 1.
    """

    name: str
    what: str
    make: Make
    typed: str
    message: str
    skipped: bool = False

    @property
    def shown(self) -> str:
        """The command as the page shows it."""
        return f"wildcat {self.typed}"


def nothing(folder: Path) -> None:
    """Change nothing."""


def text(name: str, content: str | bytes) -> Make:
    """Write a file with this content."""

    def make(folder: Path) -> None:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    return make


def cut(name: str, share: float) -> Make:
    """Truncate a file."""

    def make(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return make


def flipped(name: str) -> Make:
    """Flip one bit, 100 bytes before the end of a file."""

    def make(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[-100] ^= 1
        (folder / name).write_bytes(content)

    return make


def entries(name: str, **changes: Any) -> Make:
    """Change entries of a JSON file; ``None`` removes an entry."""

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
    """Several steps, one after the other."""

    def make(folder: Path) -> None:
        for step in steps:
            step(folder)

    return make


def png(width: int, height: int) -> bytes:
    """Signature and header of a PNG without image data."""
    return b"\x89PNG\r\n\x1a\n" + unusual.chunk(
        b"IHDR", width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    )


def encoded(kind: str, share: float = 1.0) -> bytes:
    """The first part of a good image."""
    buffer = io.BytesIO()
    Image.fromarray(unusual.photo(200, 150)).save(buffer, kind)
    return buffer.getvalue()[: int(len(buffer.getvalue()) * share)]


class Command:
    """Creates a file when a reader unpickles it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("executed", "w")


def pickled(name: str) -> Make:
    """Save a PyTorch file that contains code."""
    return lambda folder: torch.save({"state_dict": Command()}, folder / name)
