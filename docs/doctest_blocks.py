"""A griffe extension: examples in docstrings become blocks of code on the site."""

import re
from typing import Any

import griffe

OPTION = re.compile(r"[ ]*# doctest: .*$", re.MULTILINE)
EXAMPLE = re.compile(r"^([ ]*)>>> .*(?:\n\1\S.*)*", re.MULTILINE)  # up to an empty line


def fence(docstring: str) -> str:
    """Put each example between fences, and remove options of doctest.

    Without fences, Markdown takes a list after an index for a link.
    """
    return EXAMPLE.sub(lambda match: f"{match[1]}```pycon\n{match[0]}\n{match[1]}```", OPTION.sub("", docstring))


class DoctestBlocks(griffe.Extension):
    """Fences the examples of every docstring."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = fence(obj.docstring.value)
