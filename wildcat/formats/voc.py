"""Masks and XML annotations in the layout of PASCAL VOC."""

from xml.etree import ElementTree

from wildcat import render
from wildcat.errors import WildcatError
from wildcat.formats.images import encoded
from wildcat.formats.incremental import IncrementalFile
from wildcat.formats.names import label_names, xml_text
from wildcat.formats.predicted_image import PredictedImage
from wildcat.formats.source_images import link_image
from wildcat.prediction.result import MAX_BYTE_LABELS
from wildcat.system.output_folder import OutputFolder


class VocWriter:
    """Writes ``voc/``, the folder of a year of VOCdevkit; its images are links.

    ``SegmentationClass/NAME.png`` are masks with the VOC palette, ``Annotations/NAME.xml`` boxes of the regions of
    masks (pixels counted from 1, both ends included), ``ImageSets/Main/train.txt`` and
    ``ImageSets/Segmentation/train.txt`` the names of the images, ``labels.txt`` those of the labels from 0 on,
    ``JPEGImages/NAME.SUFFIX`` links to the images.

    Raises:
        WildcatError: more than 254 classes, which VOC masks cannot hold.
    """

    files = (
        *("voc/SegmentationClass/{}.png", "voc/Annotations/{}.xml", "voc/labels.txt"),
        *("voc/ImageSets/Main/train.txt", "voc/ImageSets/Segmentation/train.txt"),
    )

    def __init__(self, out: OutputFolder, classes: tuple[str, ...]) -> None:
        if len(classes) > MAX_BYTE_LABELS:
            raise WildcatError(
                f"masks of PASCAL VOC hold up to {MAX_BYTE_LABELS} classes; the model has {len(classes)}"
            )
        self._out = out
        self._lists = [IncrementalFile.within(out, name) for name in self.files if "ImageSets" in name]
        self._classes = classes

    def add(self, image: PredictedImage) -> None:
        """Write mask and XML of an image."""
        mask, annotation = (name.format(image.stem) for name in self.files[:2])
        self._out.write(mask, encoded(render.mask_png(image.mask), mask))
        root = _annotation(image)
        ElementTree.indent(root, "\t")
        self._out.write(annotation, ElementTree.tostring(root, encoding="unicode").encode() + b"\n")
        link_image(self._out, f"voc/JPEGImages/{image.stem}{image.suffix}", image)
        for names in self._lists:
            names.stream.write(image.stem + "\n")

    def finish(self) -> None:
        """Write the lists of names."""
        self._out.write("voc/labels.txt", label_names(self._classes).encode())
        for file in self._lists:
            file.finish()

    def discard(self) -> None:
        """Remove incomplete files."""
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
        element = ElementTree.SubElement(root, "object")
        x1, y1, x2, y2 = region.box
        _add(element, "name", image.class_of(region.label))
        _add(element, "pose", "Unspecified")
        _add(element, "truncated", 0)
        _add(element, "difficult", 0)
        box = ElementTree.SubElement(element, "bndbox")
        for name, value in (("xmin", x1 + 1), ("ymin", y1 + 1), ("xmax", x2), ("ymax", y2)):
            _add(box, name, value)
    return root


def _add(parent: ElementTree.Element, name: str, value: object) -> None:
    ElementTree.SubElement(parent, name).text = xml_text(str(value))
