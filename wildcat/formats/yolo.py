"""YOLO's text files: boxes of regions of masks."""

from pathlib import Path

import yaml

from wildcat.formats.base import Growing, PredictedImage
from wildcat.system.files import write_atomically


class YoloWriter:
    """``yolo/labels/NAME.txt``: a line "class x y width height" per region, centre and size as shares of the image.

    ``yolo/data.yaml`` holds the class names, ``yolo/train.txt`` the images' places, ``images/NAME.SUFFIX``.
    """

    def __init__(self, out: Path, classes: tuple[str, ...]) -> None:
        self._folder = out / "yolo"
        self._images = Growing(self._folder / "train.txt")
        self._classes = classes

    def add(self, image: PredictedImage) -> None:
        """Write an image's file; it is empty where no class was found."""
        width, height = image.prediction.size
        lines = []
        for region in image.regions:
            x1, y1, x2, y2 = region.box
            shares = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
            lines.append(f"{region.label} " + " ".join(f"{share:.7f}" for share in shares) + "\n")
        file = self._folder / "labels" / f"{image.stem}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, "".join(lines).encode())
        self._images.stream.write(f"./images/{image.stem}{image.suffix}\n")

    def finish(self) -> None:
        """Write the classes and the list."""
        values = {"path": ".", "train": "train.txt", "val": "train.txt", "names": dict(enumerate(self._classes))}
        text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
        write_atomically(self._folder / "data.yaml", text.encode("utf-8"))
        self._images.finish()

    def discard(self) -> None:
        """Remove what is not whole."""
        self._images.discard()
