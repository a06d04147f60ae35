"""PASCAL VOC's masks and XML."""

from pathlib import Path
from xml.etree import ElementTree

from wildcat import render
from wildcat.errors import WildcatError
from wildcat.formats.base import Growing, PredictedImage, label_names, xml_text
from wildcat.formats.images import save_image
from wildcat.prediction.result import MAX_BYTE_LABELS
from wildcat.system.files import write_atomically


class VocWriter:
    """``voc/``: what VOCdevkit's folder of a year holds, except the images.

    ``SegmentationClass/NAME.png`` are masks with VOC's palette, ``Annotations/NAME.xml`` boxes of regions of masks
    (pixels counted from 1, both ends included), ``ImageSets/Main/train.txt`` and ``ImageSets/Segmentation/train.txt``
    the names. ``labels.txt`` names the masks' values, the first of them background.
    """

    def __init__(self, out: Path, classes: tuple[str, ...]) -> None:
        if len(classes) > MAX_BYTE_LABELS:
            raise WildcatError(
                f"masks of PASCAL VOC hold up to {MAX_BYTE_LABELS} classes; the model has {len(classes)}"
            )
        self._folder = out / "voc"
        self._lists = [Growing(self._folder / "ImageSets" / task / "train.txt") for task in ("Main", "Segmentation")]
        self._classes = classes

    def add(self, image: PredictedImage) -> None:
        """Write an image's mask and XML."""
        save_image(render.mask_png(image.mask), self._folder / "SegmentationClass" / f"{image.stem}.png")
        file = self._folder / "Annotations" / f"{image.stem}.xml"
        file.parent.mkdir(parents=True, exist_ok=True)
        root = _annotation(image)
        ElementTree.indent(root, "\t")
        write_atomically(file, ElementTree.tostring(root, encoding="unicode").encode() + b"\n")
        for names in self._lists:
            names.stream.write(image.stem + "\n")

    def finish(self) -> None:
        """Write the lists."""
        write_atomically(self._folder / "labels.txt", label_names(self._classes).encode())
        for file in self._lists:
            file.finish()

    def discard(self) -> None:
        """Remove what is not whole."""
        for file in self._lists:
            file.discard()


def _annotation(image: PredictedImage) -> ElementTree.Element:
    width, height = image.prediction.size
    root = ElementTree.Element("annotation")
    folder, _, file = image.name.rpartition("/")
    _add(root, "folder", folder)
    _add(root, "filename", file)
    size = ElementTree.SubElement(root, "size")
    for name, value in (("width", width), ("height", height), ("depth", 3)):
        _add(size, name, value)
    _add(root, "segmented", int(bool(image.mask.any())))
    for region in image.regions:
        found = ElementTree.SubElement(root, "object")
        x1, y1, x2, y2 = region.box
        _add(found, "name", image.class_of(region.label))
        _add(found, "pose", "Unspecified")
        _add(found, "truncated", 0)
        _add(found, "difficult", 0)
        box = ElementTree.SubElement(found, "bndbox")
        for name, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            _add(box, name, value)
    return root


def _add(parent: ElementTree.Element, name: str, value: object) -> None:
    ElementTree.SubElement(parent, name).text = xml_text(str(value))
