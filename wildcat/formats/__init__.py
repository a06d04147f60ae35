"""Predictions in the formats that other tools read: docs/formats.md shows each."""

from wildcat.formats.base import Writer
from wildcat.formats.tables import ConsoleWriter, JsonFile, JsonLines
from wildcat.formats.write import FORMATS, check_formats, folders_of, write_predictions

__all__ = [
    "FORMATS",
    "ConsoleWriter",
    "JsonFile",
    "JsonLines",
    "Writer",
    "check_formats",
    "folders_of",
    "write_predictions",
]
