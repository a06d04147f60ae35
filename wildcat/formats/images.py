"""Overlays as JPEG, and masks as PNG with a palette."""

import io
from pathlib import Path

from PIL import Image

from wildcat import render
from wildcat.formats.names import label_names
from wildcat.formats.predicted_image import PredictedImage
from wildcat.system.files import write_atomically


def save_image(image: Image.Image, file: Path) -> None:
    """Write a JPEG or PNG atomically; its folder is created if missing."""
    buffer = io.BytesIO()
    if file.suffix == ".jpg":
        image.save(buffer, "JPEG", quality=92)
    else:
        image.save(buffer, "PNG")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, buffer.getvalue())


class _FilePerImage:
    """A format with separate files for each image."""

    def __init__(self, out: Path, classes: tuple[str, ...]) -> None:
        self._out, self._classes = out, classes

    def finish(self) -> None:
        """Do nothing: the files of each image are complete."""

    def discard(self) -> None:
        """Do nothing: there are no incomplete files."""


class OverlayWriter(_FilePerImage):
    """Writes ``overlay/NAME.jpg``: the image with heatmap, point and score of each predicted class."""

    def add(self, image: PredictedImage) -> None:
        """Write the overlay of an image."""
        save_image(image.prediction.overlay(image.threshold), self._out / "overlay" / f"{image.stem}.jpg")


class MaskWriter(_FilePerImage):
    """Writes ``mask/NAME.png``, ``mask-overlay/NAME.jpg`` and ``mask-labels.txt``, the names of the labels from 0 on.

    If no class reaches the threshold, the mask shows the most probable class.
    """

    def add(self, image: PredictedImage) -> None:
        """Write mask and overlay of an image."""
        prediction = image.prediction
        mask = image.mask if image.present else prediction.mask(crf=image.crf, threshold=image.threshold)
        save_image(render.mask_png(mask), self._out / "mask" / f"{image.stem}.png")
        save_image(prediction.mask_overlay(mask), self._out / "mask-overlay" / f"{image.stem}.jpg")

    def finish(self) -> None:
        """Write the names of the labels."""
        self._out.mkdir(parents=True, exist_ok=True)
        write_atomically(self._out / "mask-labels.txt", label_names(self._classes).encode())
