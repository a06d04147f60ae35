"""The exception for mistakes that a user can make and correct, and helpers that write its messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence


class WildcatError(ValueError):
    """A mistake of the user's: bad file, bad value, bad option.

    The message is one sentence: what is wrong, where, and what is allowed. The command line prints it as it is and ends
    with exit code 2; ``--debug`` shows the traceback.
    """


def guess(value: str, known: Iterable[str], before: str = "") -> str:
    """The end of a message: "; did you mean cat?" for the known name that is most like a value, "" if none is.

    >>> guess("catt", ["cat", "dog"])
    '; did you mean cat?'
    """
    close = difflib.get_close_matches(value, list(known), n=1)
    return f"; did you mean {before}{close[0]}?" if close else ""


def check_choice(value: str, allowed: Iterable[str], what: str) -> None:
    """Raise a WildcatError that lists what is allowed, and guesses what was meant, unless `value` is among it."""
    allowed = list(allowed)
    if value in allowed:
        return
    message = f"{what} {value!r} is unknown; allowed: {', '.join(allowed) or 'none'}"
    raise WildcatError(message + guess(value, allowed))


def first_line(error: BaseException) -> str:
    """The first line of an error's message; the name of its type if the message is empty.

    >>> first_line(ValueError("no such size\\nsee the log")), first_line(MemoryError())
    ('no such size', 'MemoryError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def shorten(names: Sequence[str], limit: int = 3) -> str:
    """The first names of a list, and how many more there are; "none" for an empty list.

    >>> shorten(["a", "b", "c", "d", "e"]), shorten([])
    ('a, b, c and 2 more', 'none')
    """
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "none"


def check_new_name(name: str, kind: str, taken: Iterable[str]) -> None:
    """Reject a name under which a part of the user's own (a backbone, a pooling) cannot be registered.

    Raises:
        ValueError: if the name belongs to the package, or holds more than letters, digits, "-" and "_".
    """
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f'the name of a {kind} holds letters, digits, "-" and "_"; got {name!r}')
    if name in taken:
        raise ValueError(f"{name!r} is a {kind} of the package; register yours under another name")
