"""Where an image is probably background, from its colours alone: boundary connectivity of superpixels.

Zhu, Liang, Wei, Sun, "Saliency Optimization from Robust Background Detection", CVPR 2014: background regions are
connected to the border of the image far more than objects are, even objects that touch it. The image is split into
superpixels by k-means of colour and position (Achanta et al., "SLIC Superpixels Compared to State-of-the-Art", 2012).
"""

import numpy as np
import numpy.typing as npt
from PIL import Image

from wildcat.errors import WildcatError

SUPERPIXELS = 196
CELL = 8  # side in pixels of the cell in which a superpixel starts; the image is resized to whole cells
COMPACTNESS = 12  # CIELAB distance that counts as much as the side of a cell
ITERATIONS = 5
NO_STEP = 1e-6  # CIELAB distance of a step without a change: SciPy takes 0 for no connection
AROUND = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
COLOUR_RANGE = 7.0  # CIELAB distance along a path at which superpixels stop being one region; as in the paper

Floats = npt.NDArray[np.float32]


def background_cue(image: npt.NDArray[np.uint8]) -> Floats:
    """How probably each position of an image is background, from the image alone.

    A superpixel's region is all that can be reached from it without a large change of colour. The cue is high where the
    region holds much of the image's border, for its size. It is no proof: an object that the border cuts can get a high
    value, and textured ground a low one.

    Time and memory do not depend on the size of the image: it is resized to about 196 cells of 8 x 8 pixels.

    Args:
        image: (H, W, 3) RGB.

    Returns:
        (h, w) in [0, 1], on a grid that covers the whole image, with about its proportions.

    Raises:
        WildcatError: for an array of another shape or type.

    >>> image = np.full((60, 80, 3), 200, np.uint8)
    >>> image[20:40, 30:50] = (200, 30, 30)
    >>> cue = background_cue(image)
    >>> bool(cue[:10].min() > 0.9), bool(cue[cue.shape[0] // 2, cue.shape[1] // 2] < 0.1)
    (True, True)
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise WildcatError(f"background_cue takes an RGB image (H, W, 3) of uint8; got {image.shape} {image.dtype}")
    height, width = image.shape[:2]
    columns = min(max(round((SUPERPIXELS * width / height) ** 0.5), 1), SUPERPIXELS)
    rows = max(round(SUPERPIXELS / columns), 1)
    size = (CELL * columns, CELL * rows)
    shrink = Image.Resampling.BOX if size[0] <= width and size[1] <= height else Image.Resampling.BILINEAR
    colours = cielab(np.asarray(Image.fromarray(image).resize(size, shrink)))
    labels = superpixels(colours)
    return boundary_probability(colours, labels)[labels]


def cielab(image: npt.NDArray[np.uint8]) -> Floats:
    """sRGB (H, W, 3) to CIELAB with the white point D65: L in [0, 100], a and b about -100 to 100.

    >>> cielab(np.array([[[255, 255, 255], [255, 0, 0]]], np.uint8)).round().astype(int).tolist()
    [[[100, 0, 0], [53, 80, 67]]]
    """
    value = np.arange(256) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4).astype(np.float32)
    to_xyz = np.array(  # IEC 61966-2-1; each row divided by the white point
        [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    ) / np.array([[0.95047], [1.0], [1.08883]])
    xyz = linear[image] @ to_xyz.T.astype(np.float32)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1).astype(np.float32)


def superpixels(colours: Floats) -> npt.NDArray[np.int64]:
    """Split an image into regions of similar colour and position.

    Every pixel belongs to one of the superpixels that start in its own cell and in the eight around it.

    Args:
        colours: (H, W, 3) in CIELAB; H and W are multiples of :data:`CELL`.

    Returns:
        (H, W), labels 0 ... K - 1, each of which occurs.
    """
    height, width = colours.shape[:2]
    rows, columns = height // CELL, width // CELL
    place = np.indices((height, width), dtype=np.float32) * (COMPACTNESS / CELL)
    pixels = np.concatenate([colours, place.transpose(1, 2, 0)], axis=2)
    # (cells, pixels of a cell, 5): distances to candidates are then one small matrix product per cell
    cells = pixels.reshape(rows, CELL, columns, CELL, 5).swapaxes(1, 2).reshape(rows * columns, CELL * CELL, 5)
    row, column = np.divmod(np.arange(rows * columns), columns)
    around = [(np.clip(row + i, 0, rows - 1), np.clip(column + j, 0, columns - 1)) for i, j in AROUND]
    near = np.stack([i * columns + j for i, j in around], axis=1)  # (cells, 9)
    labels = np.repeat(np.arange(rows * columns)[:, None], CELL * CELL, axis=1)
    flat = cells.reshape(-1, 5)
    for _ in range(ITERATIONS):
        centres = _means(flat, labels.ravel(), rows * columns)
        candidates = centres[near]  # (cells, 9, 5)
        distances = (candidates**2).sum(axis=2)[:, None] - 2 * cells @ candidates.swapaxes(1, 2)
        labels = np.take_along_axis(near, distances.argmin(axis=2), axis=1)
    grid = labels.reshape(rows, columns, CELL, CELL).swapaxes(1, 2).reshape(height, width)
    return np.unique(grid, return_inverse=True)[1].reshape(height, width).astype(np.int64)


def boundary_probability(colours: Floats, labels: npt.NDArray[np.int64]) -> Floats:
    """The probability that each superpixel is background, from its boundary connectivity.

    Args:
        colours: (H, W, 3) in CIELAB.
        labels: (H, W), 0 ... K - 1, each of which occurs.

    Returns:
        (K,) in [0, 1].
    """
    from scipy.sparse.csgraph import floyd_warshall  # slow to import

    count = int(labels.max()) + 1
    means = _means(colours.reshape(-1, 3), labels.ravel(), count)
    distance = np.sqrt(((means[:, None] - means[None]) ** 2).sum(axis=2))
    # Small differences between neighbours would add up along a path over a sky: the least ones count as none.
    least = np.where(np.eye(count, dtype=bool), np.inf, distance).min(axis=1) if count > 1 else np.zeros(1)
    step = np.maximum(distance - least.mean(), 0) + NO_STEP
    at_border = np.zeros(count, dtype=bool)
    at_border[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
    adjacent = at_border[:, None] & at_border[None]  # an object may cut the ground at the border in two
    for one, other in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        adjacent[one, other] = adjacent[other, one] = True
    geodesic = floyd_warshall(np.where(adjacent, step, np.inf).astype(np.float64), directed=False)
    similarity = np.exp(-(geodesic**2) / (2 * COLOUR_RANGE**2))
    connectivity = similarity[:, at_border].sum(axis=1) / np.sqrt(similarity.sum(axis=1))
    probability: Floats = (1 - np.exp(-(connectivity**2) / 2)).astype(np.float32)
    return probability


def _means(values: Floats, labels: npt.NDArray[np.int64], count: int) -> Floats:
    """The mean (count, D) of the rows (N, D) of each label; 0 for a label that does not occur."""
    sizes = np.maximum(np.bincount(labels, minlength=count), 1)
    sums = [np.bincount(labels, values[:, i], minlength=count) for i in range(values.shape[1])]
    return (np.stack(sums, axis=1) / sizes[:, None]).astype(np.float32)
