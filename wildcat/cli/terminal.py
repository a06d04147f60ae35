"""Standard output and error: text of others cannot command the terminal, and an output that fails is an error."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from wildcat.errors import WildcatError

# Control characters but tab and line feed, line separators, reversed writing, and bytes of names that are not UTF-8.
_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""The text with control characters, and bytes that are not UTF-8, as escapes.

    A name may hold the sequences by which a terminal is cleared, renamed or made to type.

    >>> printable("caf\udce9 \x1b[2J.png")
    'caf\\xe9 \\x1b[2J.png'
    """
    return _COMMANDS.sub(lambda found: _escape(ord(found[0])), text)


def printable_line(text: str) -> str:
    r"""As :func:`printable`, on one line: line ends become escapes, too.

    >>> printable_line("new\nline.png")
    'new\\nline.png'
    """
    return printable(text).replace("\n", "\\n")


def aligned(rows: Sequence[Sequence[str]], right: int) -> list[str]:
    """Lines with columns of equal width; the last ones are aligned at the right."""
    cells = [[printable_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    first = len(widths) - right
    lines = []
    for row in cells:
        padded = [
            cell.rjust(width) if column >= first else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(padded).rstrip())
    return lines


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name, as Python holds it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


class _Output:
    """A text stream that writes :func:`printable` text, and whose errors are those of a user.

    Attributes:
        failed: whether something could not be written.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.failed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write a text."""
        text = printable(text)
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        with self._errors():
            written: int = self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return written

    def flush(self) -> None:
        """Write what is buffered."""
        with self._errors():
            self._stream.flush()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.failed = True
            if isinstance(error, BrokenPipeError):  # `| head` has read enough
                raise
            raise WildcatError(f"standard output cannot be written: {error.strerror}") from error


@contextmanager
def standard_streams() -> Iterator[None]:
    """Print through :class:`_Output` while the context is active; its end flushes standard output.

    Raises:
        WildcatError: if standard output is closed, or cannot be written.
        BrokenPipeError: if its reader has ended.
    """
    if sys.stderr is None:  # closed: messages have no reader
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - open to the end
    if sys.stdout is None:
        # The next file that is opened would have its number, and receive what libraries print.
        raise WildcatError("standard output is closed; send it to a file, or to /dev/null")
    before, output = sys.stdout, _Output(sys.stdout)
    sys.stdout = output
    try:
        try:
            yield
        finally:
            output.flush()
    finally:
        sys.stdout = before
        if output.failed:  # Python would try once more at its end, and report that as an error of its own
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), before.fileno())
