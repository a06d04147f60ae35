"""Converts pixels of any type to 8-bit RGB, a few rows at a time.

Integers of more than 8 bits are scaled by the number of bits that they use, because cameras and microscopes store 10,
12 or 14 bits in files of 16 or 32. A file that says its range (PGM, JPEG 2000, some TIFFs) is scaled by that. Otherwise
the range is the smallest of 8, 10, 12, 14, 16 ... bits that holds the largest value of the image; unless that is 16
bits, it is a guess, and a warning says so. Floats are from 0 to 1.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from wildcat.errors import WildcatError

logger = logging.getLogger(__name__)

_BAND_PIXELS = 2**20  # converted at once; the float64 values of these take 8 MB
_DARK = 16  # a stated range is doubted if all values lie below 1 / 16 of it
_BITS_PER_SAMPLE, _MAX_SAMPLE_VALUE, _SAMPLE_FORMAT = 258, 281, 339  # TIFF tags

_warned: set[str] = set()
_warned_lock = threading.Lock()


def _warn_once(kind: str, message: str) -> None:
    """Log a warning for the first image of a kind only: a dataset may hold thousands."""
    with _warned_lock:
        if kind in _warned:
            return
        _warned.add(kind)
    logger.warning("%s (only the first such image is named)", message)


class Range(NamedTuple):
    """The values that pixels of a file can have: 0 ... top."""

    top: int
    is_stated: bool  # by the file, so that there is nothing to guess


_WORD = Range(2**16 - 1, False)
_SIGNED_WORD = Range(2**15 - 1, False)


def file_range(image: Image.Image) -> Range:
    """The range of integers of more than 8 bits in a file; to be called before the pixels are loaded."""
    if image.format in ("PPM", "JPEG2000"):  # Pillow scales both to 16 bits
        return Range(_WORD.top, True)
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        largest, bits, sample_format = (tags.get(tag) for tag in (_MAX_SAMPLE_VALUE, _BITS_PER_SAMPLE, _SAMPLE_FORMAT))
        value = largest[0] if isinstance(largest, tuple) and largest else largest
        if isinstance(value, int) and 0 < value < _WORD.top:
            return Range(value, True)
        if bits == (12,):  # Pillow reads these as 16
            return Range(2**12 - 1, True)
        if bits == (16,) and sample_format == (2,):
            return _SIGNED_WORD
    return _WORD


def _scale_top(largest: int, full: Range, name: str) -> int:
    """The value that becomes 255, for integers of more than 8 bits whose largest is `largest`."""
    if full.is_stated and largest <= full.top:
        if 0 < largest < full.top / _DARK:
            share = f"{100 * largest / full.top:.2g} %"
            _warn_once("dark", f"{name}: the brightest pixel is {share} of the range of the file, 0...{full.top}")
        return full.top
    length = largest.bit_length()
    bits = max(8, length + length % 2)
    if bits == 16 and largest <= full.top:
        return full.top
    top = int(2**bits - 1)
    if largest > 0:
        _warn_once(
            f"bits {bits}",
            f"{name}: pixels of more than 8 bits with values up to {largest} are read as {bits} bits (0...{top}); if "
            "that is wrong, store images of 8 bits, or over the whole range of 16 bits",
        )
    return top


def _float_top(largest: float, name: str) -> int:
    if 0 < largest < 1 / _DARK:
        _warn_once("float", f"{name}: the brightest pixel is {100 * largest:.2g} % of the range of floats, 0...1")
    return 1


def _top_of(values: npt.NDArray[Any], largest: Any, full: Range, name: str) -> int:
    """The value that becomes 255; wrong values, such as NaN, are found when they are scaled."""
    if np.issubdtype(values.dtype, np.floating):
        return _float_top(float(largest), name)
    return full.top if values.dtype == bool or largest < 0 else _scale_top(int(largest), full, name)


def to_8_bit(values: npt.NDArray[Any], name: str, top: int | None = None) -> npt.NDArray[np.uint8]:
    """Scale integers of more than 8 bits, and floats in [0, 1], to 0 ... 255, rounded.

    Args:
        values: (H, W) or (H, W, C).
        name: of the image, for messages.
        top: the value that becomes 255; unless given, it is found as the module says.

    Raises:
        WildcatError: for negative values, NaN, floats above 1, and bool.
    """
    if values.dtype == np.uint8:
        return values
    largest = values.max()
    if top is None:
        top = _top_of(values, largest, _SIGNED_WORD if values.dtype == np.int16 else _WORD, name)
    # Not "min < 0 or max > top": NaN must fail too.
    if values.dtype == bool or not (values.min() >= 0 and largest <= top):
        allowed = "in 0...1" if np.issubdtype(values.dtype, np.floating) else "0 or more"
        raise WildcatError(
            f"{name}: pixels of type {values.dtype} must be {allowed} "
            "(supported types: uint8, 16-bit integers and floats)"
        )
    out = np.empty(values.shape, dtype=np.uint8)
    rows = max(_BAND_PIXELS // values[0].size, 1)
    for start in range(0, len(values), rows):
        out[start : start + rows] = np.rint(values[start : start + rows].astype(np.float64) * (255 / top))
    return out


def _is_deep(image: Image.Image) -> bool:
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def _bands(image: Image.Image, factor: int = 1) -> Iterator[tuple[int, Image.Image]]:
    """The top row and the pixels of bands of rows, whose heights are multiples of `factor`."""
    width, height = image.size
    rows = max(_BAND_PIXELS // width // factor, 1) * factor
    for top in range(0, height, rows):
        yield top, image.crop((0, top, width, min(top + rows, height)))


def to_rgb(image: Image.Image, name: str, full: Range = _WORD, *, factor: int = 1) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB; transparent pixels become white, for which most such images are made.

    Args:
        image: with its pixels loaded.
        name: of the image, for messages.
        full: the range of its integers of more than 8 bits.
        factor: reduce both sides to 1 / factor, rounded up, by the mean of factor x factor pixels.

    Raises:
        WildcatError: as :func:`to_8_bit` does.
    """
    top: int | None = None
    if _is_deep(image):
        largest = max(np.asarray(band).max() for _, band in _bands(image))
        top = _top_of(np.asarray(image.crop((0, 0, 1, 1))), largest, full, name)

    def convert(band: Image.Image) -> Image.Image:
        if top is not None:
            return Image.fromarray(to_8_bit(np.asarray(band), name, top=top)).convert("RGB")
        if band.has_transparency_data:
            white = Image.new("RGBA", band.size, "white")
            white.alpha_composite(band.convert("RGBA"))
            return white.convert("RGB")
        return band.convert("RGB")

    width, height = image.size
    if factor == 1 and (width * height <= _BAND_PIXELS or (top is None and not image.has_transparency_data)):
        return convert(image)
    result = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for start, band in _bands(image, factor):
        part = convert(band)
        result.paste(part.reduce(factor) if factor > 1 else part, (0, start // factor))
    return result


def has_deep_colour(image: Image.Image) -> bool:
    """Whether a file holds colours of 16 bits, of which Pillow reads the higher 8; before its pixels are loaded."""
    tiles = getattr(image, "tile", [])
    return bool(tiles) and image.mode in ("RGB", "RGBA") and ";16" in _raw_mode(tiles[0])


def _raw_mode(tile: Any) -> str:
    args = tile[3]
    return str(args[0]) if isinstance(args, tuple) and args else str(args)


def _other_byte(tile: Any) -> Any:
    """The description of a tile for Pillow's decoder, with the bytes of 16-bit values in the other order."""
    mode, args = _raw_mode(tile), tile[3]
    order = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}[mode[-1]]
    new = mode[:-1] + order
    args = (new, *args[1:]) if isinstance(args, tuple) else new
    return tile._replace(args=args) if hasattr(tile, "_replace") else (*tile[:3], args)  # a tuple before Pillow 11


def with_few_bits_scaled(
    image: Image.Image, name: str, reopen: Callable[[], AbstractContextManager[Image.Image]]
) -> Image.Image:
    """Scale colours of 16 bits that use 14 or fewer; others stay the higher 8 bits, as Pillow reads them.

    Args:
        image: RGB or RGBA, the higher 8 bits of each value.
        name: of the image, for messages.
        reopen: opens the same file again, without loading its pixels.
    """
    extremes: Any = image.getextrema()
    highest = max(high for _, high in extremes[:3])
    if highest >= 64:
        return image
    with reopen() as low:
        try:
            low.tile = [_other_byte(tile) for tile in low.tile]  # type: ignore[attr-defined]
            low.load()
        except (KeyError, ValueError, AttributeError):  # a storage of which Pillow reads only the higher bytes
            _warn_once("dark colours", f"{name}: the brightest pixel is {highest / 2.55:.2g} % of the range")
            return image
        colour = opacity = 0  # the largest values
        for values in _joined(image, low):
            colour = max(colour, int(values[..., :3].max()))
            opacity = max(opacity, int(values[..., 3:].max(initial=0)))
        top = _scale_top(colour, _WORD, name)
        result, start = Image.new(image.mode, image.size), 0
        for values in _joined(image, low):
            scaled = [to_8_bit(values[..., :3], name, top)]
            if values.shape[2] == 4:  # the opacity may have the whole range
                scaled.append(to_8_bit(values[..., 3:], name, top if opacity <= top else _WORD.top))
            result.paste(Image.fromarray(np.concatenate(scaled, axis=2)), (0, start))
            start += len(values)
    return result


def _joined(high: Image.Image, low: Image.Image) -> Iterator[npt.NDArray[np.uint16]]:
    """The values of 16 bits, (rows, W, C), in bands of rows."""
    for (_, upper), (_, lower) in zip(_bands(high), _bands(low), strict=True):
        yield (np.asarray(upper).astype(np.uint16) << 8) | np.asarray(lower)
