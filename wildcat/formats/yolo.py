"""YOLO text files: boxes of the regions of masks."""

from pathlib import Path

import yaml

from wildcat.formats.incremental import IncrementalFile
from wildcat.formats.predicted_image import PredictedImage
from wildcat.system.files import write_atomically


class YoloWriter:
    """Writes ``yolo/labels/NAME.txt``: a line "class x y width height" per region, relative to the size of the image.

    (x, y) is the centre of the box. ``yolo/data.yaml`` has the class names, ``yolo/train.txt`` the paths of the images,
    ``images/NAME.SUFFIX``.
    """

    def __init__(self, out: Path, classes: tuple[str, ...]) -> None:
        self._folder = out / "yolo"
        self._images = IncrementalFile(self._folder / "train.txt")
        self._classes = classes

    def add(self, image: PredictedImage) -> None:
        """Write the file of an image, which is empty if no class is predicted."""
        width, height = image.prediction.size
        lines = []
        for region in image.regions:
            x1, y1, x2, y2 = region.box
            relative = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(f"{region.label} " + " ".join(f"{value:.7f}" for value in relative) + "\n")
        file = self._folder / "labels" / f"{image.stem}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, "".join(lines).encode())
        self._images.stream.write(f"./images/{image.stem}{image.suffix}\n")

    def finish(self) -> None:
        """Write the class names and the list of images."""
        values = {"path": ".", "train": "train.txt", "val": "train.txt", "names": dict(enumerate(self._classes))}
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        write_atomically(self._folder / "data.yaml", text.encode("utf-8"))
        self._images.finish()

    def discard(self) -> None:
        """Remove incomplete files."""
        self._images.discard()
