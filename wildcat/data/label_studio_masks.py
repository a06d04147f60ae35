"""Masks as Label Studio stores them: brushes, and images of bits."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from wildcat.data.annotated import Box
from wildcat.data.outlines import MOST_PIXELS

_CHANNELS = 4


@dataclass(frozen=True)
class Brush:
    """The RGBA pixels of a brush in thi.ng's "rle-pack"; a pixel belongs to the mask if it is not transparent.

    The bits are: the number of words (32 bits), the size of a word - 1 (5), the four possible sizes of run lengths - 1
    (4 each); then for each run: 1 for a repeated word or 0 for single words, the index of the size of its length (2),
    its length - 1, the word or words.

    Attributes:
        data: the bytes.
        area: number of pixels of the mask.
    """

    data: bytes
    area: float

    def pixels(self, width: int, height: int) -> npt.NDArray[np.bool_]:
        """The pixels (H, W) of the mask; raises a ValueError if they are not those of such an image."""
        return _unpack(self.data, width, height)


@dataclass(frozen=True)
class Bitmask:
    """A mask that is stored as a PNG, in which the pixels of the object are not black and not transparent."""

    png: bytes
    area: float

    def pixels(self, width: int, height: int) -> npt.NDArray[np.bool_]:
        """The pixels (H, W) of the mask; raises a ValueError if they are not those of such an image."""
        try:
            with Image.open(io.BytesIO(self.png), formats=["PNG"]) as image:
                if image.size != (width, height):
                    raise ValueError(f"a bit mask has {image.width} x {image.height} pixels, not {width} x {height}")
                values = np.asarray(image.convert("RGBA"))
        except (OSError, SyntaxError) as error:
            raise ValueError(f"a bit mask is no PNG: {error}") from None
        inside: npt.NDArray[np.bool_] = (values[..., 3] > 0) & values[..., :3].any(axis=2)
        return inside


def _unpack(data: bytes, width: int, height: int) -> npt.NDArray[np.bool_]:
    count = width * height * _CHANNELS
    if not 0 < count <= MOST_PIXELS * _CHANNELS:
        raise ValueError(f"a brush of {width} x {height} pixels is too large")
    bits = "".join(f"{byte:08b}" for byte in data)
    try:
        words, size = int(bits[:32], 2), int(bits[32:37], 2) + 1
        lengths = [int(bits[at : at + 4], 2) + 1 for at in range(37, 53, 4)]
        if words != count or size != 8:
            raise ValueError
        values = np.empty(count, np.uint8)
        at, filled = 53, 0
        while filled < count:
            repeated = bits[at] == "1"
            length_bits = lengths[int(bits[at + 1 : at + 3], 2)]
            at += 3 + length_bits
            run = int(bits[at - length_bits : at], 2) + 1
            if filled + run > count:
                raise ValueError
            if repeated:
                values[filled : filled + run] = int(bits[at : at + size], 2)
                at += size
            else:
                values[filled : filled + run] = [int(bits[p : p + size], 2) for p in range(at, at + run * size, size)]
                at += run * size
            filled += run
    except (ValueError, IndexError):
        raise ValueError(f"a brush is not that of an image of {width} x {height} pixels") from None
    return values[_CHANNELS - 1 :: _CHANNELS].reshape(height, width) > 0


def read_brush(value: Any, size: tuple[int, int]) -> tuple[Box | None, Brush | Bitmask]:
    """The box around a mask, None if it has no pixel, and the mask, of the value of a brush or a bit mask.

    Raises:
        ValueError: if it is broken, or of another size than (width, height).
    """
    mask: Brush | Bitmask
    if "rle" in value:
        runs = value["rle"]
        if not isinstance(runs, list) or not all(isinstance(byte, int) and 0 <= byte < 256 for byte in runs):
            raise ValueError("the run lengths of a brush must be a list of bytes")
        mask = Brush(bytes(runs), 0)
    else:
        url = value.get("imageDataURL")
        if not isinstance(url, str) or not url.startswith("data:image/png;base64,"):
            raise ValueError("a brush has no run lengths")
        try:
            mask = Bitmask(base64.b64decode(url.partition(",")[2], validate=True), 0)
        except ValueError:
            raise ValueError("a bit mask is no PNG") from None
    inside = mask.pixels(*size)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    content = mask.data if isinstance(mask, Brush) else mask.png
    whole = type(mask)(content, float(inside.sum()))
    if not len(rows):
        return None, whole
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)), whole
