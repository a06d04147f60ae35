"""What all drawing needs: images of any kind as one, sizes, soft shapes."""

from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from wildcat.render.colours import Colour

ImageLike: TypeAlias = Image.Image | npt.NDArray[np.uint8]

PAPER: Colour = (250, 249, 247)
TEXT: Colour = (44, 46, 54)
QUIET: Colour = (134, 136, 146)
SUPERSAMPLING = 4  # soft edges are drawn so many times larger, then reduced


def as_pil(image: ImageLike) -> Image.Image:
    """A new RGB PIL image of a PIL image or of a uint8 array (H, W, 3).

    Raises:
        ValueError: an array of another shape or type.
    """
    if isinstance(image, Image.Image):
        return image.convert("RGB")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image is a uint8 array (H, W, 3), not {image.dtype} {image.shape}")
    return Image.fromarray(np.ascontiguousarray(image))


def fitted(size: tuple[int, int], smallest: int, largest: int) -> tuple[int, int]:
    """The size with its longer side brought between two bounds; the shape is kept."""
    longer = max(size)
    scale = min(max(longer, smallest), largest) / longer
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def resized(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The image at another size."""
    return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def rounded(size: tuple[int, int], radius: float) -> Image.Image:
    """Coverage (L) of a rectangle with rounded corners."""
    big = Image.new("L", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING))
    ImageDraw.Draw(big).rounded_rectangle((0, 0, big.width - 1, big.height - 1), radius * SUPERSAMPLING, fill=255)
    return big.reduce(SUPERSAMPLING)
