"""Pictures to look at, and masks as palette PNGs."""

import io
from pathlib import Path

from PIL import Image

from wildcat import render
from wildcat.formats.base import Picture, label_names
from wildcat.system.files import write_atomically


def save_picture(image: Image.Image, file: Path) -> None:
    """Write a JPEG or PNG, whole or not at all; its folder is made if needed."""
    buffer = io.BytesIO()
    if file.suffix == ".jpg":
        image.save(buffer, "JPEG", quality=92)
    else:
        image.save(buffer, "PNG")
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, buffer.getvalue())


class _FilePerPicture:
    """A format that is whole after each picture."""

    def __init__(self, out: Path, classes: tuple[str, ...]) -> None:
        self._out, self._classes = out, classes

    def finish(self) -> None:
        """Nothing is left to do."""

    def discard(self) -> None:
        """Nothing is half-written."""


class OverlayWriter(_FilePerPicture):
    """``overlay/NAME.jpg``."""

    def add(self, picture: Picture) -> None:
        """Write a picture."""
        save_picture(picture.prediction.overlay(picture.threshold), self._out / "overlay" / f"{picture.stem}.jpg")


class MaskWriter(_FilePerPicture):
    """``mask/NAME.png`` and ``mask-overlay/NAME.jpg``; the most probable class is in it even below the threshold.

    ``mask-labels.txt`` names the masks' values, from 0, a line each.
    """

    def add(self, picture: Picture) -> None:
        """Write mask and picture."""
        prediction = picture.prediction
        mask = picture.mask if picture.present else prediction.mask(crf=picture.crf, threshold=picture.threshold)
        save_picture(render.mask_png(mask), self._out / "mask" / f"{picture.stem}.png")
        save_picture(prediction.mask_overlay(mask), self._out / "mask-overlay" / f"{picture.stem}.jpg")

    def finish(self) -> None:
        """Name the labels."""
        self._out.mkdir(parents=True, exist_ok=True)
        write_atomically(self._out / "mask-labels.txt", label_names(self._classes).encode())
