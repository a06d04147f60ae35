"""Reads XML of users: entities, which could open other files or fill the memory, are rejected."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NoReturn

from wildcat.errors import WildcatError


class _NoDoctype(ElementTree.TreeBuilder):
    """Rejects files with a DOCTYPE, where entities could be declared; no file of annotations has one."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> NoReturn:
        raise WildcatError("a DOCTYPE is not allowed")


def read_xml(path: Path, what: str) -> ElementTree.Element:
    """The root of an XML file.

    Args:
        path: the file.
        what: what it is, for messages: "the annotation".

    Raises:
        WildcatError: for a file that is missing or broken, or that has a DOCTYPE.
    """
    try:
        parser = ElementTree.XMLParser(target=_NoDoctype())
        return ElementTree.parse(path, parser).getroot()
    except FileNotFoundError:
        raise WildcatError(f"{path}: {what} is missing") from None
    except (WildcatError, ElementTree.ParseError, OSError, ValueError, LookupError) as error:  # LookupError: encodings
        raise WildcatError(f"{path}: {what} cannot be read: {error}") from None
