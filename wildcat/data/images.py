"""Images of any kind, read as upright 8-bit RGB. Free of PyTorch."""

from __future__ import annotations

import io
import os
import re
import stat
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from wildcat.errors import WildcatError

Source: TypeAlias = "str | Path | bytes | Image.Image | npt.NDArray[Any]"

MAX_PIXELS = 178_956_970  # Pillow's own limit for an error, 2 x 1024**3 / 4 / 3: half a gigabyte of RGB

# Decoders that run an outside program (EPS: Ghostscript) or guess without a signature (TGA) are left out.
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

_quiet_lock = threading.Lock()
_quiet_users = 0
_QUIET_FILTER = ("ignore", None, Warning, re.compile(r"PIL\."), 0)


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silence warnings raised inside Pillow, for all threads that are reading at the time.

    `warnings.catch_warnings` is not safe here: two readers that overlap restore each other's filters.
    """
    global _quiet_users
    with _quiet_lock:
        _quiet_users += 1
        if _QUIET_FILTER not in warnings.filters:
            warnings.filterwarnings("ignore", module=r"PIL\.")
    try:
        yield
    finally:
        with _quiet_lock:
            _quiet_users -= 1
            if _quiet_users == 0 and _QUIET_FILTER in warnings.filters:
                warnings.filters.remove(_QUIET_FILTER)  # type: ignore[attr-defined]


def _describe(source: Source) -> str:
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, bytes):
        return f"image of {len(source)} bytes"
    name = getattr(source, "filename", "")
    return str(name) if name else f"image given as {type(source).__name__}"


@contextmanager
def _opened(source: str | Path | bytes) -> Iterator[Image.Image]:
    """Open an image, header only; everything that goes wrong inside is a WildcatError that names it."""
    name = _describe(source)
    try:
        if not isinstance(source, bytes) and not stat.S_ISREG(Path(source).stat().st_mode):  # a pipe would never end
            raise WildcatError(f"{name}: not a file")
        with _quiet_pillow(), io.BytesIO(source) if isinstance(source, bytes) else Path(source).open("rb") as file:
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
    except Exception as error:  # Pillow's decoders raise almost any type for a broken file
        raise WildcatError(f"{name}: cannot be read: {error or type(error).__name__}") from error


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 ... 8, that is still to be applied after loading."""
    if image.format == "TIFF":  # Pillow itself turns a TIFF when it loads it
        return 1
    try:
        # The base class's method: PNG's own decodes the whole image to look for EXIF behind it.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged EXIF: the image itself may be good
        return 1
    return value if value in _UPRIGHT else 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    if image.format == "TIFF":
        tags: Any = image.tag_v2  # type: ignore[attr-defined]
        width, height = int(tags[ExifTags.Base.ImageWidth]), int(tags[ExifTags.Base.ImageLength])
        turned = tags.get(ExifTags.Base.Orientation) in _SWAPS_SIDES
    else:
        width, height = image.size
        turned = _orientation(image) in _SWAPS_SIDES
    return (height, width) if turned else (width, height)


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
            f"{name}: pixels of type {values.dtype} must be in 0...{top}; uint8, 16-bit integers and floats can be read"
        )
    return np.rint(values.astype(np.float64) * (255 / top)).astype(np.uint8)


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    """Any mode to 8-bit RGB; what is transparent becomes white, the paper most such images were drawn for."""
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
    """Read any image as 8-bit RGB.

    Grey, CMYK, palette and 16-bit images are converted (16 bits are scaled by 255 / 65535, not clipped); transparent
    pixels are laid on white; of an animation the first frame is taken. Colour profiles are not applied.

    Args:
        source: path, encoded bytes, PIL image, or array (H, W), (H, W, 1 | 3 | 4) of uint8, of 16-bit integers or of
            floats in [0, 1]. The caller's object is not changed.
        max_pixels: images with more pixels are rejected before they are decoded. Pillow's own limit (twice
            `PIL.Image.MAX_IMAGE_PIXELS`) holds as well.
        draft_size: decode a JPEG at 1/2, 1/4 or 1/8 of its size where both sides stay >= `draft_size`; several times
            faster for large photographs. `original_size` of the result tells the size in the file.
        upright: turn the image as its EXIF orientation says. Off for datasets whose annotations refer to the pixels
            as stored. (A TIFF is always turned.)

    Raises:
        WildcatError: missing, empty, truncated or too large file, or not an image; the message names file and reason.

    >>> load_image(np.zeros((40, 60), np.uint8)).size
    (60, 40)
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
    # Without this the orientation would stay in `info` and be applied a second time by the next reader.
    result.info = {}
    if orientation != 1:
        result = result.transpose(_UPRIGHT[orientation])
    if draft_size is not None:
        result.info["original_size"] = original
    return result


def original_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) in the file of an image from `load_image`: differs from `image.size` after `draft_size`."""
    width, height = image.info.get("original_size", image.size)
    return width, height


def image_size(source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Upright (width, height) from the header alone; raises as `load_image` for what the header shows."""
    with _opened(source) as image:
        size = _upright_size(image)
    _check_pixels(_describe(source), size, max_pixels)
    return size


IMAGE_SUFFIXES = frozenset(
    [
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".gif", ".bmp", ".tif", ".tiff"),
        *(".webp", ".avif", ".heic", ".heif", ".jp2", ".ppm", ".pgm", ".qoi"),
    ]
)


def image_files_below(folder: Path, without: Iterable[Path] = ()) -> list[str]:
    """Paths, relative to `folder` and with "/", of all images at any depth, sorted.

    Hidden ones are left out, and those below the folders `without`.
    """
    found = []
    others = {os.path.realpath(path) for path in without}
    for where, folders, files in os.walk(folder):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and not (others and os.path.realpath(Path(where, name)) in others)
        ]
        inside = Path(where).relative_to(folder)
        found += [
            (inside / name).as_posix()
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in IMAGE_SUFFIXES
        ]
    return sorted(found)


def image_files_at(paths: Iterable[str | Path], without: Sequence[Path] = ()) -> list[Path]:
    """Files as given, and the images below folders.

    Args:
        paths: of files and folders.
        without: folders that are passed over where they lie inside of those given.

    Raises:
        WildcatError: for what does not exist, and for a folder without images.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = image_files_below(path, without)
            if not inside:
                raise WildcatError(f"{path} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))})")
            found += [path / name for name in inside]
        elif path.exists():
            found.append(path)
        else:
            raise WildcatError(f"{path} does not exist")
    return found
