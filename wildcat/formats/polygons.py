"""Polygons of the outlines of masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def polygons(inside: npt.NDArray[np.bool_], corner: tuple[int, int] = (0, 0)) -> list[list[int]]:
    """The outlines of a mask along the edges of its pixels, which fill exactly those pixels.

    A hole is joined to its outline by a line that is passed twice, as COCO's polygons have no holes.

    Args:
        inside: (H, W) bool.
        corner: (x, y) of the outer corner of the first pixel.

    Returns:
        Polygons [x1, y1, x2, y2, ...] in pixels of the image.

    >>> polygons(np.array([[False, True, True]]))
    [[1, 0, 3, 0, 3, 1, 1, 1]]
    """
    from contourpy import FillType, contour_generator

    # Contours at 0.5 pass the middle of each edge between a pixel inside and one outside. With z as float, contourpy
    # makes no copy.
    height, width = inside.shape
    generator = contour_generator(
        np.arange(width + 2) - 0.5,
        np.arange(height + 2) - 0.5,
        np.pad(inside, 1).astype(np.float64),
        fill_type=FillType.OuterOffset,
    )
    result = []
    for points, offsets in zip(*generator.filled(0.5, 2), strict=True):
        outline, *holes = map(_corners, np.split(points, offsets[1:-1].astype(int)))
        for hole in holes:
            outline = _joined(outline, hole)
        result.append((outline + corner).ravel().tolist())
    return result


def _corners(middles: npt.NDArray[np.float64]) -> npt.NDArray[np.int_]:
    """The corners (K, 2) of a closed line of pixel edges, given by their middles (N, 2) with the first one repeated.

    Two edges that follow each other share an end: where they are perpendicular, the whole numbers among their middles.
    """
    one, two = middles[:-1], middles[1:]
    whole = np.where(one == np.rint(one), one, np.where(two == np.rint(two), two, (one + two) / 2))
    points = np.rint(whole).astype(int)
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    corners: npt.NDArray[np.int_] = points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return corners


def _joined(outline: npt.NDArray[np.int_], hole: npt.NDArray[np.int_]) -> npt.NDArray[np.int_]:
    """The outline with a hole, entered and left between the hole's first point and the point nearest to it."""
    at = int(np.abs(outline - hole[0]).sum(axis=1).argmin())
    return np.concatenate([outline[: at + 1], hole, hole[:1], outline[at:]])
