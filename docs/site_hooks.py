"""Steps of the site that MkDocs does not have."""

import re
from importlib import import_module

from mkdocs.structure.pages import Page

ROLE = re.compile(r":(?:class|meth|func|mod|data|attr):<code>~?([^<]+)</code>")
PACKAGE = re.compile(r"^\{\{ (wildcat[\w.]*) \}\}$", re.MULTILINE)


def _reference(package: str) -> str:
    """A mkdocstrings directive for every public name of a package."""
    return "\n\n".join(f"::: {package}.{name}" for name in sorted(import_module(package).__all__))


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Replace `{{ package }}` by the reference of its names, and links to files outside docs/ by their names."""
    markdown = PACKAGE.sub(lambda match: _reference(match[1]), markdown)
    outside = "../" * (page.file.src_uri.count("/") + 1)
    return re.sub(rf"\[([^\]]+)\]\({re.escape(outside)}([^)]+)\)", r"\1 (`\2`)", markdown)


def on_page_content(html: str, **_: object) -> str:
    """Replace Sphinx roles of docstrings by the name that they hold."""
    return ROLE.sub(r"<code>\1</code>", html)
