"""The geometry of training and prediction: square warp, mirror, random crop, and from map cells to image pixels.

Points are continuous, x before y: pixel i covers [i, i + 1). Free of PyTorch.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image


@dataclass(frozen=True)
class View:
    """The part of an image that the network sees: a sub-rectangle, mirrored or not, warped to a square.

    `left` and `width` are fractions of the image's width, `top` and `height` of its height, so a view can be applied to
    the image at any resolution (a draft, or a cached square warp). The default is the whole image: the square warp.
    """

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0
    flip: bool = False

    def image(self, image: Image.Image | npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
        """RGB image, or uint8 (H, W, 3), -> uint8 (size, size, 3): bilinear, anti-aliased, aspect not kept."""
        image = image if isinstance(image, Image.Image) else Image.fromarray(image)
        width, height = image.size
        # min: 0.1 + 0.9 may exceed 1 by a rounding error, which Pillow rejects
        right, bottom = min(self.left + self.width, 1.0) * width, min(self.top + self.height, 1.0) * height
        part = (self.left * width, self.top * height, right, bottom)
        out = np.array(image.resize((size, size), Image.Resampling.BILINEAR, box=part))
        return np.ascontiguousarray(out[:, ::-1]) if self.flip else out


CROP_RATIO = 4 / 3  # largest change of a random crop's aspect, either way


def random_view(rng: np.random.Generator, *, crop_area: float = 1.0, flip: bool = True) -> View:
    """A random view for training: a crop of random area, aspect and place, mirrored or not.

    The area is uniform in [crop_area, 1] of the image's, the aspect log-uniform within 4 / 3 of the image's either
    way (the crop of Szegedy et al. 2015, relative to the image); a side that would leave the image is cut to it.
    1 means the whole image. Always takes five random numbers: the random stream does not depend on settings.

    Raises:
        ValueError: if `crop_area` is not above 0 and at most 1.
    """
    if not 0 < crop_area <= 1:
        raise ValueError(f"crop_area must be above 0 and at most 1; got {crop_area}")
    area, aspect, left, top, mirror = rng.random(5)
    flip = bool(flip and mirror < 0.5)
    if crop_area == 1:
        return View(flip=flip)
    area = crop_area + (1 - crop_area) * area
    ratio = CROP_RATIO ** (2 * aspect - 1)
    width, height = min(1.0, (area * ratio) ** 0.5), min(1.0, (area / ratio) ** 0.5)
    return View(left * (1 - width), top * (1 - height), width, height, flip)


def warp(image: Image.Image | npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """The test-time view: the whole image warped to uint8 (size, size, 3)."""
    return View().image(image, size)


def cell_centres(
    cells: npt.NDArray[Any], map_size: tuple[int, int], image_size: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """Cells (..., 2) as (row, column) of an (h, w) map -> their centres (..., 2), (x, y) in a (W, H) image.

    x = (column + 0.5) W / w, y = (row + 0.5) H / h.
    """
    (rows, columns), (width, height) = map_size, image_size
    xy = np.asarray(cells, dtype=np.float64)[..., ::-1] + 0.5
    return np.asarray(xy * np.array([width / columns, height / rows]))
