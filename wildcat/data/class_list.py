"""Reads the option ``class_list=FILE``: the names of the classes, in their order."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wildcat.data.names import clean_name
from wildcat.data.safe_xml import read_xml
from wildcat.data.sample import require_path
from wildcat.errors import WildcatError, shorten

_BACKGROUND = ("background", "__background__", "_background_", "__ignore__")
_LABEL_ELEMENTS = ("Choice", "Label")  # of a labelling interface of Label Studio


def read_class_list(path: Path) -> list[str]:
    """The classes that a file lists, in its order.

    A text file has one on each line; a background, and lines that begin with "#", are left out. A JSON or YAML has a
    list of names, of objects with "name", or "names" with a list or numbers (as ``data.yaml`` of YOLO and
    ``labels.json`` of CVAT). An XML is a labelling interface of Label Studio.

    Raises:
        WildcatError: for a file that is none of these, without classes, or with one twice.
    """
    suffix = path.suffix.lower()
    if suffix == ".xml":
        root = read_xml(path, "the list of classes")
        values = [element.get("value", "") for element in root.iter() if element.tag in _LABEL_ELEMENTS]
        names = list(dict.fromkeys(values))  # controls share classes
    else:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise WildcatError(f"{path}: the list of classes cannot be read: {error}") from None
        if suffix in (".json", ".yaml", ".yml"):
            names = names_in(_parse(path, text))
        else:
            lines = [line.strip() for line in text.splitlines()]
            names = [line for line in lines if line[:1] not in ("", "#") and line.lower() not in _BACKGROUND]
    return check_classes(path, names)


def find_class_list(given: str, folder: Path) -> Path:
    """The file that the option ``class_list`` names, relative to the current folder or to that of the dataset.

    Raises:
        WildcatError: if there is none.
    """
    own = Path(given).expanduser()
    path = own if own.exists() else folder / own
    require_path(path, "the option class_list names a file with the names of the classes")
    return path


def check_classes(path: Path, names: list[str]) -> list[str]:
    """Names of classes, cleaned; raises a WildcatError if there are none, or one occurs twice."""
    classes = [clean_name(name) for name in names]
    if not classes:
        raise WildcatError(f"{path}: names no classes; give one on each line, or a list of names")
    twice = sorted({name for name in classes if classes.count(name) > 1})
    if twice or "" in classes:
        raise WildcatError(f"{path}: must name each class once; {shorten(twice or ['an empty name'])} occurs twice")
    return classes


def _parse(path: Path, text: str) -> Any:
    try:
        if path.suffix.lower() == ".json":
            return json.loads(text)
        import yaml

        return yaml.safe_load(text)
    except (ValueError, RecursionError) as error:
        raise WildcatError(f"{path}: the list of classes cannot be read: {error}") from None
    except Exception as error:  # yaml's errors have several bases
        raise WildcatError(f"{path}: the list of classes cannot be read: {' '.join(str(error).split())}") from None


def names_in(content: Any) -> list[str]:
    """The names in a list, or in a dictionary of numbers; an empty list if it is neither.

    >>> names_in({"names": {1: "dog", 0: "cat"}}), names_in([{"name": "cat"}]), names_in(7)
    (['cat', 'dog'], ['cat'], [])
    """
    if isinstance(content, dict) and "names" in content:
        content = content["names"]
    if isinstance(content, dict) and content and all(str(key).isdecimal() for key in content):
        content = [content[key] for key in sorted(content, key=lambda key: int(key))]
    if not isinstance(content, list):
        return []
    entries = [item.get("name") if isinstance(item, dict) else item for item in content]
    return [str(item) for item in entries] if all(isinstance(item, str | int | float) for item in entries) else []
