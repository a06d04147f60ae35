"""The permutohedral lattice by plain loops, as reference: one matrix over all pairs of pixels."""

import numpy as np
import numpy.typing as npt

Key = tuple[int, ...]


def elevation(dims: int) -> npt.NDArray[np.float64]:
    """(d + 1, d): an orthogonal basis of the hyperplane of zero sum, scaled so that the blur has unit deviation."""
    basis = np.zeros((dims + 1, dims))
    for i in range(dims):
        basis[: i + 1, i] = 1
        basis[i + 1, i] = -(i + 1)
    return basis / np.linalg.norm(basis, axis=0) * np.sqrt(2 / 3) * (dims + 1)


def simplex(point: npt.NDArray[np.float64]) -> tuple[list[Key], npt.NDArray[np.float64]]:
    """The d + 1 lattice points around a point of the hyperplane, and its barycentric weights for them."""
    size = len(point)
    corner = np.round(point / size) * size
    rank = np.empty(size, dtype=int)
    rank[np.argsort(corner - point, kind="stable")] = np.arange(size)
    rank += int(corner.sum()) // size
    corner += np.where(rank < 0, size, 0) - np.where(rank >= size, size, 0)
    rank %= size
    corners = [corner + r - size * (rank >= size - r) for r in range(size)]
    system = np.vstack([np.stack(corners, 1), np.ones(size)])
    weights = np.linalg.lstsq(system, np.append(point, 1), rcond=None)[0]
    return [tuple(int(c) for c in one) for one in corners], weights


def kernel(features: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """K' (N, N) of features (N, d) divided by their sigmas: splat, blur along each axis, slice, normalised."""
    count, dims = features.shape
    simplices = [simplex(point) for point in features @ elevation(dims).T]
    points = {key: row for row, key in enumerate(sorted({key for keys, _ in simplices for key in keys}))}
    splat = np.zeros((len(points), count))
    for pixel, (keys, weights) in enumerate(simplices):
        for key, weight in zip(keys, weights, strict=True):
            splat[points[key], pixel] += weight
    values = splat
    for axis in range(dims + 1):
        blurred = values.copy()
        for key, row in points.items():
            for sign in (1, -1):
                other = points.get(tuple(k + sign * (dims if i == axis else -1) for i, k in enumerate(key)))
                if other is not None:
                    blurred[row] += values[other] / 2
        values = blurred
    matrix = splat.T @ values
    norm = matrix.sum(1) ** -0.5
    return norm[:, None] * matrix * norm
