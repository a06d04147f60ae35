"""Overlays as JPEG, and masks as PNG with a palette."""

import io

from PIL import Image

from wildcat import render
from wildcat.formats.names import label_names
from wildcat.formats.predicted_image import PredictedImage
from wildcat.system.output_folder import OutputFolder


def encoded(image: Image.Image, name: str) -> bytes:
    """An image as JPEG or PNG, as the suffix of the name says."""
    buffer = io.BytesIO()
    if name.endswith(".jpg"):
        image.save(buffer, "JPEG", quality=92)
    else:
        image.save(buffer, "PNG")
    return buffer.getvalue()


class _FilePerImage:
    """A format with separate files for each image."""

    def __init__(self, out: OutputFolder, classes: tuple[str, ...]) -> None:
        self._out, self._classes = out, classes

    def _save(self, image: Image.Image, name: str) -> None:
        self._out.write(name, encoded(image, name))

    def finish(self) -> None:
        """Do nothing: the files of each image are complete."""

    def discard(self) -> None:
        """Do nothing: there are no incomplete files."""


class OverlayWriter(_FilePerImage):
    """Writes ``overlay/NAME.jpg``: the image with heatmap, point and score of each predicted class."""

    files = ("overlay/{}.jpg",)

    def add(self, image: PredictedImage) -> None:
        """Write the overlay of an image."""
        self._save(image.prediction.overlay(image.threshold), self.files[0].format(image.stem))


class MaskWriter(_FilePerImage):
    """Writes ``mask/NAME.png``, ``mask-overlay/NAME.jpg`` and ``mask-labels.txt``, the names of the labels from 0 on.

    If no class reaches the threshold, the mask shows the most probable class.
    """

    files = ("mask/{}.png", "mask-overlay/{}.jpg", "mask-labels.txt")

    def add(self, image: PredictedImage) -> None:
        """Write mask and overlay of an image."""
        prediction = image.prediction
        mask = image.mask if image.present else prediction.mask(crf=image.crf, threshold=image.threshold)
        self._save(render.mask_png(mask), self.files[0].format(image.stem))
        self._save(prediction.mask_overlay(mask), self.files[1].format(image.stem))

    def finish(self) -> None:
        """Write the names of the labels."""
        self._out.write("mask-labels.txt", label_names(self._classes).encode())
