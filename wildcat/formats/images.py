"""Images to look at, and masks as palette PNGs."""

import io
from pathlib import Path

from PIL import Image

from wildcat import render
from wildcat.formats.base import PredictedImage, label_names
from wildcat.system.files import write_atomically


def save_image(image: Image.Image, file: Path) -> None:
    """Write a JPEG or PNG, whole or not at all; its folder is made if needed."""
    buffer = io.BytesIO()
    if file.suffix == ".jpg":
        image.save(buffer, "JPEG", quality=92)
    else:
        image.save(buffer, "PNG")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, buffer.getvalue())


class _FilePerImage:
    """A format that is whole after each image."""

    def __init__(self, out: Path, classes: tuple[str, ...]) -> None:
        self._out, self._classes = out, classes

    def finish(self) -> None:
        """Nothing is left to do."""

    def discard(self) -> None:
        """Nothing is half-written."""


class OverlayWriter(_FilePerImage):
    """``overlay/NAME.jpg``."""

    def add(self, image: PredictedImage) -> None:
        """Write an image."""
        save_image(image.prediction.overlay(image.threshold), self._out / "overlay" / f"{image.stem}.jpg")


class MaskWriter(_FilePerImage):
    """``mask/NAME.png`` and ``mask-overlay/NAME.jpg``; the most probable class is in it even below the threshold.

    ``mask-labels.txt`` names the masks' values, from 0, a line each.
    """

    def add(self, image: PredictedImage) -> None:
        """Write mask and image."""
        prediction = image.prediction
        mask = image.mask if image.present else prediction.mask(crf=image.crf, threshold=image.threshold)
        save_image(render.mask_png(mask), self._out / "mask" / f"{image.stem}.png")
        save_image(prediction.mask_overlay(mask), self._out / "mask-overlay" / f"{image.stem}.jpg")

    def finish(self) -> None:
        """Name the labels."""
        self._out.mkdir(parents=True, exist_ok=True)
        write_atomically(self._out / "mask-labels.txt", label_names(self._classes).encode())
