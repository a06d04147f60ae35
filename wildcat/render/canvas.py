"""Helpers of all drawings: input images as RGB, scaling, rounded shapes, colours of text and paper."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from wildcat.render.colours import Colour

ImageLike: TypeAlias = Image.Image | npt.NDArray[np.uint8]

PAPER: Colour = (250, 249, 247)
TEXT: Colour = (44, 46, 54)
MUTED_TEXT: Colour = (134, 136, 146)
SUPERSAMPLING = 4  # shapes are drawn this many times larger and then reduced, which smooths their edges


def as_pil(image: ImageLike) -> Image.Image:
    """A new RGB image from a PIL image or a uint8 array (H, W, 3).

    Raises:
        ValueError: an array of another shape or type.
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image is a uint8 array (H, W, 3), not {image.dtype} {image.shape}")
    return Image.fromarray(np.ascontiguousarray(image))


def scaled(image: ImageLike, largest: int, *, smallest: int = 1) -> Image.Image:
    """The image scaled so that its longer side lies between two bounds, as a new RGB image.

    The aspect ratio is kept; no side becomes shorter than 1 pixel.

    Args:
        image: PIL image of any mode, or uint8 array (H, W, 3).
        largest: upper bound of the longer side in pixels; larger images are reduced to it.
        smallest: lower bound of the longer side in pixels; smaller images are enlarged to it.

    Raises:
        ValueError: an array of another shape or type.

    >>> scaled(Image.new("L", (400, 300)), 200).size, scaled(Image.new("L", (40, 30)), 200, smallest=80).size
    ((200, 150), (80, 60))
    """
    image = image if isinstance(image, Image.Image) and image.mode == "RGB" else as_pil(image)
    longer = max(image.size)
    scale = min(max(longer, smallest), largest) / longer
    return resized(image, (max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A copy of the image at a size (width, height)."""
    return image.copy() if image.size == size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def rounded(size: tuple[int, int], radius: float) -> Image.Image:
    """A mask (mode L) of a rectangle with rounded corners; 255 inside."""
    big = Image.new("L", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING))
    ImageDraw.Draw(big).rounded_rectangle((0, 0, big.width - 1, big.height - 1), radius * SUPERSAMPLING, fill=255)
    return big.reduce(SUPERSAMPLING)
