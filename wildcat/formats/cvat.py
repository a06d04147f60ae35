"""Annotations for CVAT in its format "CVAT for images 1.1": tags, points and masks."""

import json
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from wildcat.formats.incremental import IncrementalFile
from wildcat.formats.names import xml_text
from wildcat.formats.predicted_image import PredictedImage
from wildcat.render.colours import class_colours
from wildcat.system.output_folder import OutputFolder


class CvatWriter:
    """Writes ``cvat/annotations.xml``, to be uploaded to a task with the same images, and its ``labels.json``.

    An image has a tag, a point and a mask for each predicted class.
    """

    files = ("cvat/annotations.xml", "cvat/labels.json")

    def __init__(self, out: OutputFolder, classes: tuple[str, ...]) -> None:
        self._out = out
        self._file = IncrementalFile.within(out, "cvat/annotations.xml")
        colours = class_colours(len(classes)).tolist()
        self._labels = [
            {"name": xml_text(name), "color": f"#{red:02x}{green:02x}{blue:02x}", "attributes": []}
            for name, (red, green, blue) in zip(classes, colours, strict=True)
        ]
        self._images = 0
        self._file.stream.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
        self._write(self._meta())

    def _meta(self) -> ElementTree.Element:
        """The labels of the task, which some readers require."""
        meta = ElementTree.Element("meta")
        labels = ElementTree.SubElement(ElementTree.SubElement(meta, "task"), "labels")
        for values in self._labels:
            label = ElementTree.SubElement(labels, "label")
            for key in ("name", "color"):
                ElementTree.SubElement(label, key).text = str(values[key])
        return meta

    def _write(self, element: ElementTree.Element) -> None:
        ElementTree.indent(element)
        self._file.stream.write(ElementTree.tostring(element, encoding="unicode") + "\n")

    def add(self, image: PredictedImage) -> None:
        """Write the element of an image."""
        width, height = image.prediction.size
        element = ElementTree.Element(
            "image", id=str(self._images), name=xml_text(image.name), width=str(width), height=str(height)
        )
        self._images += 1
        shape = {"source": "auto", "occluded": "0", "z_order": "0"}
        for label in image.present:
            name = {"label": xml_text(image.class_of(label))}
            ElementTree.SubElement(element, "tag", {**name, "source": "auto"})
            x, y = image.point_of(label)
            ElementTree.SubElement(element, "points", {**name, **shape, "points": f"{x:.2f},{y:.2f}"})
            inside = image.inside(label)
            if inside.any():
                ElementTree.SubElement(element, "mask", {**name, **shape, **_mask_attributes(inside)})
        self._write(element)

    def finish(self) -> None:
        """Write the labels and close the annotations."""
        self._out.write("cvat/labels.json", (json.dumps(self._labels, indent=1) + "\n").encode())
        self._file.stream.write("</annotations>\n")
        self._file.finish()

    def discard(self) -> None:
        """Remove incomplete files."""
        self._file.discard()


def _mask_attributes(inside: npt.NDArray[np.bool_]) -> dict[str, str]:
    """A mask as XML attributes: its box, and the run lengths of its pixels in row order.

    Runs alternate between pixels outside and inside the mask, outside first.
    """
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    top, left = int(rows[0]), int(columns[0])
    part = inside[top : rows[-1] + 1, left : columns[-1] + 1]
    flat = part.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    runs = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    runs = [0, *runs] if flat[0] else runs
    return {
        "rle": ", ".join(map(str, runs)),
        "left": str(left),
        "top": str(top),
        "width": str(part.shape[1]),
        "height": str(part.shape[0]),
    }
