"""Reads images of any format as upright 8-bit RGB. Free of PyTorch."""

from __future__ import annotations

import io
import re
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from wildcat.errors import WildcatError

Source: TypeAlias = "str | Path | bytes | Image.Image | npt.NDArray[Any]"

MAX_PIXELS = 178_956_970  # Pillow's own limit for an error, 2 x 1024**3 / 4 / 3: half a gigabyte of RGB

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
def _opened(source: str | Path | bytes) -> Iterator[Image.Image]:
    """Open an image and read its header; any error inside the context becomes a WildcatError that names the image."""
    name = _describe(source)
    try:
        if not isinstance(source, bytes) and not stat.S_ISREG(
            Path(source).stat().st_mode
        ):  # reading a pipe may never end
            raise WildcatError(f"{name}: not a file")
        with (
            _pillow_warnings_ignored(),
            io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file,
        ):
            if not file.read(1):
                raise WildcatError(f"{name}: the file is empty")
            file.seek(0)
            Image.init()
            with Image.open(file, formats=[kind for kind in _FORMATS if kind in Image.OPEN]) as image:
                yield image
    except WildcatError:
        raise
    except FileNotFoundError:
        raise WildcatError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise WildcatError(f"{name}: not an image in a format that can be read") from None
    except Image.DecompressionBombError as error:
        raise WildcatError(f"{name}: too large: {error}") from None
    except Exception as error:  # Pillow's decoders raise almost any type for a damaged file
        raise WildcatError(f"{name}: cannot be read: {error or type(error).__name__}") from error


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


def _to_8_bit(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """Scale integers of 16 bits (0 ... 65535) and floats (0 ... 1) to 0 ... 255, rounded."""
    if values.dtype == np.uint8:
        return values
    is_float = np.issubdtype(values.dtype, np.floating)
    top = 1 if is_float else 65535
    # Not "min < 0 or max > top": NaN must fail too.
    if values.dtype == bool or not (values.min() >= 0 and values.max() <= top):
        raise WildcatError(
            f"{name}: pixels of type {values.dtype} must be in 0...{top} "
            "(supported types: uint8, 16-bit integers and floats)"
        )
    return np.rint(values.astype(np.float64) * (255 / top)).astype(np.uint8)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Any mode to 8-bit RGB; transparent pixels become white, for which most such images are made."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bit(np.asarray(image), name)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        return white.convert("RGB")
    return image.convert("RGB")


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> Image.Image:
    name = _describe(array)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.size == 0 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise WildcatError(f"{name}: shape {array.shape} is not (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    _check_pixels(name, (array.shape[1], array.shape[0]), max_pixels)
    return _to_rgb(Image.fromarray(np.ascontiguousarray(_to_8_bit(array, name))), name)


def load_image(
    source: Source, *, max_pixels: int = MAX_PIXELS, draft_size: int | None = None, upright: bool = True
) -> Image.Image:
    """Read an image of any format as 8-bit RGB.

    Grey, CMYK, palette and 16-bit images are converted (16 bits are scaled by 255 / 65535, not clipped); transparent
    pixels become white; of an animation, the first frame is read. Colour profiles are not applied.

    Args:
        source: path, encoded bytes, PIL image, or array (H, W), (H, W, 1 | 3 | 4) of uint8, of 16-bit integers or of
            floats in [0, 1]. The given object is not changed.
        max_pixels: images with more pixels are rejected before they are decoded. Pillow's own limit (twice
            `PIL.Image.MAX_IMAGE_PIXELS`) holds as well.
        draft_size: decode a JPEG at 1/2, 1/4 or 1/8 of its size where both sides stay >= `draft_size`; several times
            faster for large photographs. `original_size` returns the size in the file.
        upright: apply the EXIF orientation. False for datasets whose annotations refer to the pixels as stored. (The
            orientation of a TIFF is always applied.)

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
        return _decode(source, _describe(source), max_pixels, None, upright)
    if not isinstance(source, str | Path | bytes):
        raise TypeError(f"an image is a path, bytes, a PIL image or an array, not {type(source).__name__}")
    with _opened(source) as image:
        return _decode(image, _describe(source), max_pixels, draft_size, upright)


def _decode(image: Image.Image, name: str, max_pixels: int, draft_size: int | None, upright: bool) -> Image.Image:
    _check_pixels(name, image.size, max_pixels)
    original = _upright_size(image) if upright else image.size
    orientation = _orientation(image) if upright else 1
    if draft_size is not None:
        image.draft(None, (draft_size, draft_size))
    image.load()
    result = _to_rgb(image, name)
    # If the orientation stayed in `info`, the next reader would apply it a second time.
    result.info = {}
    if orientation != 1:
        result = result.transpose(_UPRIGHT[orientation])
    if draft_size is not None:
        result.info["original_size"] = original
    return result


def original_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) in the file of an image from `load_image`; with `draft_size`, `image.size` may be smaller."""
    width, height = image.info.get("original_size", image.size)
    return width, height


def image_size(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Upright (width, height), read from the header; raises what `load_image` raises for a bad header."""
    with _opened(source) as image:
        size = _upright_size(image)
    _check_pixels(_describe(source), size, max_pixels)
    return size
