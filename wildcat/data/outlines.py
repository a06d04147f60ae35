"""Outlines of objects as annotation tools store them, and datasets whose masks are rendered from them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from wildcat.data.sample import Dataset
from wildcat.errors import WildcatError

VOID = 255  # of a label map: neither background nor a class
MOST_PIXELS = 2**28  # of a mask; a damaged file may state any size


class StoredMask(Protocol):
    """A mask in the storage of a tool, which is unpacked when it is rendered."""

    @property
    def area(self) -> float:
        """Number of pixels, roughly: it only says which of two objects is in front."""

    def pixels(self, width: int, height: int) -> npt.NDArray[np.bool_]:
        """The pixels (H, W) of the object; raises a ValueError if the mask does not fit the image."""


Outline: TypeAlias = "list[npt.NDArray[np.float64]] | npt.NDArray[np.int64] | StoredMask"
"""Polygons, each (2 P,) of x and y; run lengths down the columns, of which the first is outside; or a stored mask."""


class OutlinedObject(NamedTuple):
    """An object of an image.

    Attributes:
        category: column of its class.
        box: x, y, width, height; None if it is not annotated and follows from no outline.
        area: in pixels.
        crowd: whether it is a group of objects.
        outline: None if it is not annotated.
    """

    category: int
    box: tuple[float, float, float, float] | None
    area: float
    crowd: bool
    outline: Outline | None


class OutlinedDataset(Dataset):
    """Images whose masks are rendered from the outlines of their objects when they are read.

    Attributes:
        outlined: name of an image -> its objects, of all images whose objects all have outlines.
    """

    outlined: Mapping[str, Sequence[OutlinedObject]]

    @property
    def has_masks(self) -> bool:
        """Whether any image has the outlines of all of its objects."""
        return any(map(self.has_mask, range(len(self))))

    def has_mask(self, index: int) -> bool:
        """Whether all objects of an image have outlines, and a label map of 8 bits can hold the classes."""
        return len(self.classes) < VOID and self.samples[index].name in self.outlined

    def mask(self, index: int) -> npt.NDArray[np.uint8] | None:
        """Label map (H, W): crowds are void (255); where objects overlap, the smaller one is in front.

        None if an object of the image has no outline.
        """
        if not self.has_mask(index):
            return None
        sample = self.samples[index]
        width, height = sample.stated_size or self.image(index).size
        if width * height > MOST_PIXELS:
            raise WildcatError(f"{sample.path}: a mask of {width} x {height} pixels is too large")
        out = np.zeros((height, width), dtype=np.uint8)
        for item in sorted(self.outlined[sample.name], key=lambda item: (not item.crowd, -item.area)):
            if item.outline is None:
                continue
            try:
                pixels = render(item.outline, width, height)
            except ValueError as error:
                raise WildcatError(f"{sample.path}: {error}") from None
            out[pixels] = VOID if item.crowd else item.category + 1
        return out


def render(outline: Outline, width: int, height: int) -> npt.NDArray[np.bool_]:
    """The pixels (H, W) of an outline.

    Raises:
        ValueError: if it does not fit an image of this size.
        WildcatError: for polygons, without pycocotools.
    """
    if isinstance(outline, np.ndarray):
        if outline.sum() != height * width:
            raise ValueError(f"run lengths are not those of {height} x {width} pixels")
        inside = np.arange(len(outline)) % 2 == 1
        return np.repeat(inside, outline).reshape(width, height).T
    if not isinstance(outline, list):
        return outline.pixels(width, height)
    if not outline:
        return np.zeros((height, width), np.bool_)
    try:
        from pycocotools import mask as coco_mask
    except ImportError:
        raise WildcatError("masks of polygons need pycocotools: pip install 'wildcat-wsl[coco]'") from None
    check_polygons(outline, (width, height))
    runs: Any = coco_mask.merge(coco_mask.frPyObjects(outline, height, width))
    with warnings.catch_warnings():
        # pycocotools 2.0 makes arrays in a way that NumPy 2 deprecates.
        warnings.simplefilter("ignore", DeprecationWarning)
        pixels: npt.NDArray[np.bool_] = coco_mask.decode(runs) > 0
    return pixels


def check_polygons(polygons: Sequence[npt.NDArray[np.float64]], size: tuple[int, int]) -> None:
    """Raise a ValueError for polygons that extend far outside an image of (width, height)."""
    if any(np.abs(polygon).max() > 10 * max(size) for polygon in polygons):
        raise ValueError(f"a polygon extends far outside the image of {size[1]} x {size[0]} pixels")


def outline_area(outline: Outline) -> float:
    """The pixels of an outline, roughly: it only says which of two objects is in front."""
    if isinstance(outline, np.ndarray):
        return float(outline[1::2].sum())
    if not isinstance(outline, list):
        return outline.area
    area = 0.0
    for polygon in outline:
        x, y = polygon[::2], polygon[1::2]
        area += abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    return area


def polygon_box(polygons: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float, float, float]:
    """The box (x1, y1, x2, y2) around polygons."""
    points = np.concatenate(polygons).reshape(-1, 2)
    (x1, y1), (x2, y2) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    return x1, y1, x2, y2
