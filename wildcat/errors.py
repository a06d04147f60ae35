"""The one exception type for mistakes that a user can make and mend, and how its messages guess what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
