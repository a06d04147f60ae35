"""Pre-annotations for Label Studio: tags, points and brush masks."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from wildcat._version import __version__
from wildcat.formats.incremental import IncrementalFile, JsonList
from wildcat.formats.names import xml_text
from wildcat.formats.predicted_image import PredictedImage
from wildcat.render.colours import class_colours
from wildcat.system.output_folder import OutputFolder

LOCAL_FILES = "/data/local-files/?d="  # the URL at which Label Studio serves local files
_RUN_BITS = (3, 6, 10, 16)  # length - 1 of a run is encoded with the smallest sufficient number of bits
_WORD_BITS = 8


class LabelStudioWriter:
    """Writes ``label-studio/tasks.json``, to be imported, and ``labels.xml``, the matching labelling interface.

    A task has one prediction: the tags, and a key point and a brush mask for each predicted class. The URL of its image
    is ``image_prefix`` followed by the image's name.
    """

    files = ("label-studio/tasks.json", "label-studio/labels.xml")

    def __init__(self, out: OutputFolder, classes: tuple[str, ...], image_prefix: str = LOCAL_FILES) -> None:
        self._prefix = image_prefix if image_prefix.endswith(("/", "=")) else f"{image_prefix}/"
        self._out = out
        self._file = IncrementalFile.within(out, "label-studio/tasks.json")
        self._tasks = JsonList(self._file.stream)
        self._classes = classes

    def add(self, image: PredictedImage) -> None:
        """Write the task of an image."""
        url = self._prefix + quote(image.name, errors="surrogateescape")
        prediction: dict[str, Any] = {"model_version": f"wildcat {__version__}", "result": _result(image)}
        if image.present:
            prediction["score"] = image.score_of(image.present[0])
        self._tasks.add({"data": {"image": url}, "predictions": [prediction]})

    def finish(self) -> None:
        """Write the labelling interface and complete the tasks."""
        self._out.write("label-studio/labels.xml", _interface(self._classes))
        self._tasks.end()
        self._file.stream.write("\n")
        self._file.finish()

    def discard(self) -> None:
        """Remove incomplete files."""
        self._file.discard()


def _result(image: PredictedImage) -> list[dict[str, Any]]:
    width, height = image.prediction.size
    frame = {"to_name": "image", "original_width": width, "original_height": height, "image_rotation": 0}
    result: list[dict[str, Any]] = []

    def add(kind: str, from_name: str, value: dict[str, Any], **more: Any) -> None:
        result.append({"id": f"r{len(result)}", "type": kind, "from_name": from_name, **frame, **more, "value": value})

    names = [image.class_of(label) for label in image.present]
    if names:
        add("choices", "tags", {"choices": names})
    for label, name in zip(image.present, names, strict=True):
        score = image.score_of(label)
        x, y = image.point_of(label)
        place = {"x": round(100 * x / width, 4), "y": round(100 * y / height, 4), "width": 1}
        add("keypointlabels", "points", {**place, "keypointlabels": [name]}, score=score)
        inside = image.inside(label)
        if inside.any():
            value = {"format": "rle", "rle": brush_rle(inside), "brushlabels": [name]}
            add("brushlabels", "masks", value, score=score)
    return result


def brush_rle(inside: npt.NDArray[np.bool_]) -> list[int]:
    """Encode a mask as a Label Studio brush: thi.ng's "rle-pack" of RGBA pixels whose channels are all 0 or all 255.

    The bits are: the number of words (32 bits), the size of a word - 1 (5), the four possible sizes of run lengths - 1
    (4 each); then for each run: 1 for "repeated", the index of the size of its length (2), its length - 1, the word.

    Args:
        inside: (H, W) bool.

    Returns:
        The bytes, 0 to 255.

    >>> brush_rle(np.array([[True]]))[:4]  # 4 words of 8 bits: one RGBA pixel
    [0, 0, 0, 4]
    """
    flat = inside.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], edges])
    lengths = 4 * np.diff(np.concatenate([starts, [flat.size]]))  # four channels
    bits = [f"{4 * flat.size:032b}", f"{_WORD_BITS - 1:05b}", *(f"{size - 1:04b}" for size in _RUN_BITS)]
    longest = 1 << _RUN_BITS[-1]
    for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
        word = "11111111" if flat[start] else "00000000"
        for left in range(length, 0, -longest):
            less_one = min(left, longest) - 1
            which = next(i for i, size in enumerate(_RUN_BITS) if less_one < 1 << size)
            bits.append(f"1{which:02b}{less_one:0{_RUN_BITS[which]}b}{word}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _interface(classes: tuple[str, ...]) -> bytes:
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name="image", value="$image", zoom="true")
    tags = ElementTree.SubElement(view, "Choices", name="tags", toName="image", choice="multiple")
    points = ElementTree.SubElement(view, "KeyPointLabels", name="points", toName="image")
    masks = ElementTree.SubElement(view, "BrushLabels", name="masks", toName="image")
    for name, (red, green, blue) in zip(classes, class_colours(len(classes)).tolist(), strict=True):
        value = xml_text(name)
        ElementTree.SubElement(tags, "Choice", value=value)
        for labels in (points, masks):
            ElementTree.SubElement(labels, "Label", value=value, background=f"#{red:02x}{green:02x}{blue:02x}")
    ElementTree.indent(view)
    return ElementTree.tostring(view, encoding="unicode").encode() + b"\n"
