"""YOLO text files: boxes of the regions of masks."""

import yaml

from wildcat.formats.incremental import IncrementalFile
from wildcat.formats.predicted_image import PredictedImage
from wildcat.formats.source_images import link_image
from wildcat.system.output_folder import OutputFolder


class YoloWriter:
    """Writes ``yolo/labels/NAME.txt``: a line "class x y width height" per region, relative to the size of the image.

    (x, y) is the centre of the box. ``yolo/data.yaml`` has the class names, ``yolo/train.txt`` the paths of the images,
    ``images/NAME.SUFFIX``, which are links to them.
    """

    files = ("yolo/labels/{}.txt", "yolo/data.yaml", "yolo/train.txt")

    def __init__(self, out: OutputFolder, classes: tuple[str, ...]) -> None:
        self._out = out
        self._images = IncrementalFile.within(out, "yolo/train.txt")
        self._classes = classes

    def add(self, image: PredictedImage) -> None:
        """Write the file of an image, which is empty if no class is predicted."""
        width, height = image.prediction.size
        lines = []
        for region in image.regions:
            x1, y1, x2, y2 = region.box
            relative = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(f"{region.label} " + " ".join(f"{value:.7f}" for value in relative) + "\n")
        self._out.write(self.files[0].format(image.stem), "".join(lines).encode())
        name = f"images/{image.stem}{image.suffix}"
        link_image(self._out, f"yolo/{name}", image)
        self._images.stream.write(f"./{name}\n")

    def finish(self) -> None:
        """Write the class names and the list of images."""
        # Without "path", which would be relative to the working directory, readers take the folder of this file.
        values = {"train": "train.txt", "val": "train.txt", "names": dict(enumerate(self._classes))}
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        self._out.write("yolo/data.yaml", text.encode("utf-8", "backslashreplace"))
        self._images.finish()

    def discard(self) -> None:
        """Remove incomplete files."""
        self._images.discard()
