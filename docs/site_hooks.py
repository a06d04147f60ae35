"""What the site does differently from plain MkDocs."""

import re

ROLE = re.compile(r":(?:class|meth|func|mod|data|attr):<code>~?([^<]+)</code>")

OUTSIDE = re.compile(r"\[([^\]]+)\]\(\.\./([^)]+)\)")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Files beside docs/ are not on the site; name them instead of linking them."""
    return OUTSIDE.sub(r"\1 (`\2`)", markdown)


def on_page_content(html: str, **_: object) -> str:
    """Cross-references in docstrings are written for Sphinx; show the name alone."""
    return ROLE.sub(r"<code>\1</code>", html)
