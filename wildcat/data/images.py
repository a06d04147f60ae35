"""Reads images of any format as upright 8-bit RGB. Free of PyTorch."""

from __future__ import annotations

import io
import re
import stat
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from wildcat.data.files import AVIF_BRANDS, HEIC_BRANDS
from wildcat.data.pixels import file_range, has_deep_colour, to_8_bit, to_rgb, with_few_bits_scaled
from wildcat.errors import WildcatError
from wildcat.system.byte_budget import ByteBudget

Source: TypeAlias = "str | Path | bytes | Image.Image | npt.NDArray[Any]"

MAX_PIXELS = 178_956_970  # Pillow's own limit for an error, 2 x 1024**3 / 4 / 3: half a gigabyte of RGB

# Larger images, other than JPEGs, are reduced while they are converted if the caller needs less.
REDUCED_ABOVE = 2**25  # pixels; 134 MB as RGB in memory
_MOST_REDUCED = 64

# Memory of all images that the threads of a process decode at once; one larger image is decoded alone.
DECODING_BYTES = 2**30
_budget = ByteBudget(DECODING_BYTES)
_BYTES_PER_PIXEL = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}  # other modes: 4
_COPYING_FORMATS = ("WEBP", "AVIF", "HEIF", "TIFF", "JPEG2000")  # their decoders hold a second copy

# Left out: decoders that run an external program (EPS: Ghostscript) or accept files without a signature (TGA).
_FORMATS = ("JPEG", "MPO", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "AVIF", "HEIF", "JPEG2000", "PPM", "QOI")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_SIDES = (5, 6, 7, 8)

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"

_pillow_warnings_lock = threading.Lock()
_active_readers = 0
_PILLOW_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def _pillow_warnings_ignored() -> Iterator[None]:
    """Ignore warnings raised inside Pillow, in all threads that read images at the time.

    `warnings.catch_warnings` is not safe here: two readers that overlap restore each other's filters.
    """
    global _active_readers
    with _pillow_warnings_lock:
        _active_readers += 1
        if _PILLOW_FILTER not in warnings.filters:
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _pillow_warnings_lock:
            _active_readers -= 1
            if _active_readers == 0 and _PILLOW_FILTER in warnings.filters:
                warnings.filters.remove(_PILLOW_FILTER)  # type: ignore[attr-defined]


def _describe(source: Source) -> str:
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, bytes):
        return f"image of {len(source)} bytes"
    name = getattr(source, "filename", "")
    return str(name) if name else f"image given as {type(source).__name__}"


@contextmanager
def _opened(source: str | Path | bytes, partial: bool = False) -> Iterator[Image.Image]:
    """Open an image and read its header; any error inside the context becomes a WildcatError that names the image.

    With `partial`, a JPEG gets an end, so that what a cut one lacks becomes grey.
    """
    name = _describe(source)
    head = b""
    try:
        is_file = isinstance(source, bytes) or stat.S_ISREG(Path(source).stat().st_mode)
        if not is_file:  # reading a pipe may never end
            raise WildcatError(f"{name}: not a file")
        with (
            _pillow_warnings_ignored(),
            io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as given,
        ):
            head = given.read(12)
            if not head:
                raise WildcatError(f"{name}: the file is empty")
            given.seek(0)
            file = io.BytesIO(given.read() + _JPEG_END) if partial and head.startswith(_JPEG_START) else given
            Image.init()
            if head[4:8] == b"ftyp":
                _register_heif()
            with Image.open(file, formats=[kind for kind in _FORMATS if kind in Image.OPEN]) as image:
                yield image
    except WildcatError:
        raise
    except FileNotFoundError:
        raise WildcatError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise WildcatError(f"{name}: {_unidentified(head)}") from None
    except Image.DecompressionBombError as error:
        raise WildcatError(f"{name}: too large: {error}") from None
    except Exception as error:  # Pillow's decoders raise almost any type for a damaged file
        raise WildcatError(f"{name}: cannot be read: {error or type(error).__name__}") from error


def _register_heif() -> None:
    """Let Pillow read HEIC, where pillow-heif is installed."""
    if "HEIF" not in Image.OPEN:
        try:
            from pillow_heif import register_heif_opener
        except ImportError:
            return
        register_heif_opener()


def _unidentified(head: bytes) -> str:
    """Why no decoder knows a file, from its first 12 bytes."""
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand in HEIC_BRANDS and "HEIF" not in Image.OPEN:
        return "HEIC needs pillow-heif: pip install 'wildcat-wsl[heif]'"
    if brand in AVIF_BRANDS and "AVIF" not in Image.OPEN:
        return "AVIF needs Pillow 11.3 or later with AVIF: pip install --upgrade pillow"
    return "not an image in a format that can be read"


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 ... 8, that has to be applied after loading."""
    if image.format == "TIFF":  # Pillow rotates a TIFF when it loads it
        return 1
    try:
        # The method of the base class: that of PNG decodes the whole image to look for EXIF at the end of the file.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF: the image itself may be good
        return 1
    return value if value in _UPRIGHT else 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        width, height = int(tags[ExifTags.Base.ImageWidth]), int(tags[ExifTags.Base.ImageLength])
        swapped = tags.get(ExifTags.Base.Orientation) in _SWAPS_SIDES
    else:
        width, height = image.size
        swapped = _orientation(image) in _SWAPS_SIDES
    return (height, width) if swapped else (width, height)


def _check_pixels(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise WildcatError(f"{name}: too large: {width} x {height} pixels, more than the limit of {max_pixels}")


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> Image.Image:
    name = _describe(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise WildcatError(f"{name}: shape {array.shape} is not (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    _check_pixels(name, (array.shape[1], array.shape[0]), max_pixels)
    return to_rgb(Image.fromarray(np.ascontiguousarray(to_8_bit(array, name))), name)


def load_image(
    source: Source,
    *,
    max_pixels: int = MAX_PIXELS,
    draft_size: int | None = None,
    upright: bool = True,
    partial: bool = False,
) -> Image.Image:
    """Read an image of any format as 8-bit RGB.

    Grey, CMYK, palette and deeper images are converted (:mod:`wildcat.data.pixels` says how those of 9 to 32 bits are
    scaled); transparent pixels become white; of an animation, the first frame is read. Colour profiles are not applied.
    HEIC is read where pillow-heif is installed.

    The threads of a process decode images of `DECODING_BYTES` in all at once; others wait.

    Args:
        source: path, encoded bytes, PIL image, or array (H, W), (H, W, 1 | 3 | 4) of uint8, of 16-bit integers or of
            floats in [0, 1]. The given object is not changed.
        max_pixels: images with more pixels are rejected before they are decoded. Pillow's own limit (twice
            `PIL.Image.MAX_IMAGE_PIXELS`) holds as well.
        draft_size: decode a JPEG at 1/2, 1/4 or 1/8 of its size where both sides stay >= `draft_size`; several times
            faster for large photographs. Any image of more than `REDUCED_ABOVE` pixels is reduced by a whole number
            where both sides stay >= 2 `draft_size`. `original_size` returns the size in the file.
        upright: apply the EXIF orientation. False for datasets whose annotations refer to the pixels as stored. (The
            orientation of a TIFF and of a HEIC is always applied.)
        partial: read a JPEG that was cut as far as it goes; the rest is grey, or coarse if the JPEG is progressive.

    Raises:
        WildcatError: for a missing, empty, truncated or too large file, or one that is not an image; the message names
            file and reason.
        TypeError: for a source of another type.

    >>> load_image(np.full((2, 3), 65535, dtype=np.uint16)).getpixel((0, 0))
    (255, 255, 255)
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return _decode(source, _describe(source), max_pixels, None, upright, None)
    if not isinstance(source, str | Path | bytes):
        raise TypeError(f"an image is a path, bytes, a PIL image or an array, not {type(source).__name__}")
    with _opened(source, partial) as image:
        return _decode(image, _describe(source), max_pixels, draft_size, upright, lambda: _opened(source))


def _decode(
    image: Image.Image,
    name: str,
    max_pixels: int,
    draft_size: int | None,
    upright: bool,
    reopen: Callable[[], AbstractContextManager[Image.Image]] | None,
) -> Image.Image:
    _check_pixels(name, image.size, max_pixels)
    original = _upright_size(image) if upright else image.size
    orientation = _orientation(image) if upright else 1
    if draft_size is not None:
        image.draft(None, (draft_size, draft_size))
    full, is_deep_colour = file_range(image), has_deep_colour(image)
    factor = _reduction(image.size, draft_size)
    with _budget.reserve(_decoding_bytes(image, factor)):
        image.load()
        if is_deep_colour and reopen is not None:
            image = with_few_bits_scaled(image, name, reopen)
        result = to_rgb(image, name, full, factor=factor)
        # If the orientation stayed in `info`, the next reader would apply it a second time.
        result.info = {}
        if orientation != 1:
            result = result.transpose(_UPRIGHT[orientation])
    if draft_size is not None:
        result.info["original_size"] = original
    return result


def _reduction(size: tuple[int, int], draft_size: int | None) -> int:
    """By how much both sides of an image are reduced: 1 for an image of usual size."""
    if draft_size is None or size[0] * size[1] <= REDUCED_ABOVE:
        return 1
    return max(1, min(min(size) // (2 * draft_size), _MOST_REDUCED))


def _decoding_bytes(image: Image.Image, factor: int) -> int:
    """Memory that decoding an image takes: its own pixels, and RGB as Pillow stores it, with a fourth byte."""
    own = _BYTES_PER_PIXEL.get(image.mode, 4) * (2 if image.format in _COPYING_FORMATS else 1)
    return int(image.size[0] * image.size[1] * (own + 4 / factor**2))


def original_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) in the file of an image from `load_image`; with `draft_size`, `image.size` may be smaller."""
    width, height = image.info.get("original_size", image.size)
    return width, height


def image_size(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, upright: bool = True) -> tuple[int, int]:
    """(width, height), read from the header; raises what `load_image` raises for a bad header.

    `upright` is as for `load_image`.
    """
    with _opened(source) as image:
        size = _upright_size(image) if upright else image.size
    _check_pixels(_describe(source), size, max_pixels)
    return size
