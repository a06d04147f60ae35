"""Predictions as files for other tools. docs/formats.md shows an example of each format.

:func:`write_predictions` writes the formats in :data:`FORMATS`. A format of your own is a class with the methods of
:class:`Writer`; pass an instance in ``more``:

>>> from pathlib import Path
>>> class PointPrinter:
...     def add(self, image):
...         for label in image.present:
...             x, y = image.point_of(label)
...             print(f"{image.name}: {image.class_of(label)} at {x:.1f}, {y:.1f}")
...
...     def finish(self):
...         print("end")
...
...     def discard(self):
...         pass
>>> predictions = []  # predictor.stream(...)
>>> write_predictions(predictions, Path("found"), formats=[], classes=["cat", "dog"], more=[PointPrinter()])
end
[]

To add a format to the package, write the class in its own module with the arguments ``(out, classes)``, where ``out``
is an :class:`~wildcat.system.output_folder.OutputFolder`, and ``files``, the names of its files; add it to the table
in :mod:`wildcat.formats.write`, to ``docs/formats.py`` and to ``tests/formats``.
"""

from wildcat.formats.predicted_image import PredictedImage, Region
from wildcat.formats.tables import ConsoleWriter, JsonFile, JsonLines
from wildcat.formats.write import FORMATS, check_formats, folders_of, write_predictions
from wildcat.formats.writer import Writer

__all__ = [
    "FORMATS",
    "ConsoleWriter",
    "JsonFile",
    "JsonLines",
    "PredictedImage",
    "Region",
    "Writer",
    "check_formats",
    "folders_of",
    "write_predictions",
]
