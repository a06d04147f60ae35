"""The permutohedral lattice: Gaussian filters over the pixels of an image in 2 to 5 dimensions, in PyTorch only.

Source: Adams, Baek and Davis, *Fast High-Dimensional Filtering Using the Permutohedral Lattice*, Eurographics 2010;
scaling, order of the axes and normalisation as in the code of Krähenbühl and Koltun (2011).

It is fast without compiled code of its own because:

* Splat, blur and slice are products of a sparse matrix and a dense table (points, labels). This is what
  `torch.nn.functional.embedding_bag` computes, with 32-bit indices, on CPU and CUDA. The normalisation is part of the
  matrix's weights, and one call slices several lattices.
* Lattice points have exact integer keys. Sorting the pairs (key, pixel), packed into 64 bits, gives both the points and
  the rows of the splat.
* All steps run on chunks of pixels that fit into a core's cache.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

_CHUNK = 2**15  # pixels: less than 1 MB of float32 in each table of a step


class Lattice:
    """A normalised kernel K' = n K n over given features, with n = (K 1)^-1/2 and K = slice . blur . splat.

    Every pixel lies in a simplex of d + 1 lattice points, one of each remainder class 0...d, and has a barycentric
    weight for each. The matrix of the slice is `index` and `weight`, both (d + 1, pixels).

    The splat has two stages, so that its reads stay in cache: each chunk of pixels is summed into its own copies of
    lattice points ("partial" points), and then the copies of each point are summed.
    """

    def __init__(self, features: Tensor) -> None:
        """Build from features (d, pixels), float32, already divided by their sigmas.

        Raises:
            ValueError: the features' ranges are so large that the lattice's keys do not fit into 63 bits.
        """
        layout = _KeyLayout(features)
        splat = _partial_splat(features, layout)
        corners, device = len(features) + 1, features.device

        # Of each remainder class: its sorted keys; the number of points up to it; the point of each partial point.
        classes, counts, point_of = [], [0], []
        for parts in splat.keys:
            points, inverse = torch.unique(torch.cat(parts), return_inverse=True)
            point_of.append(inverse.add_(counts[-1]).int().split([len(part) for part in parts]))
            classes.append(points)
            counts.append(counts[-1] + len(points))
        self.points = counts[-1]
        joined = torch.cat([part for chunk in zip(*point_of, strict=True) for part in chunk])  # (partial points,)
        order = torch.sort(joined, stable=True)
        self._join_index = order.indices.int()
        self._join_offsets = torch.searchsorted(order.values, torch.arange(self.points + 2, device=device).int()).int()
        # The last row of each table is an empty bag, which sums to zero. It stands for missing neighbours.
        self._blur_indices = _neighbours(classes, counts, layout).view(corners, -1)
        self._blur_weight = torch.tensor([1.0, 0.5, 0.5], device=device).repeat(self.points)
        self._blur_offsets = torch.arange(0, 3 * self.points + 4, 3, device=device).clamp_(max=3 * self.points).int()

        self._splat_index, self._splat_weight, self._splat_offsets = splat.index, splat.weight, splat.offsets
        self.index = joined.index_select(0, splat.partial.view(-1)).view_as(splat.partial)
        self.weight = splat.barycentric
        ones = torch.ones(features.shape[1], 1, device=device)
        points = self.filter(ones).view(-1)
        sums = torch.zeros_like(self.weight[0])  # K 1
        for index, weight in zip(self.index, self.weight, strict=True):
            sums.addcmul_(points.index_select(0, index), weight)
        norm = sums.rsqrt_()
        self._splat_weight *= norm.index_select(0, self._splat_index)
        self.weight *= norm

    def filter(self, values: Tensor) -> Tensor:
        """Splat values (pixels, k), then blur them along the d + 1 axes in order: (points + 1, k), the last row 0."""
        values = _bags(self._splat_index, self._splat_weight, self._splat_offsets, values)
        values = _bags(self._join_index, None, self._join_offsets, values)
        for index in self._blur_indices:
            values = _bags(index, self._blur_weight, self._blur_offsets, values)
        return values


class Readout:
    """Slices several lattices at once. Lattice i has the rows `parts[i]` of one table of `points` rows."""

    def __init__(self, lattices: list[Lattice], scales: list[float]) -> None:
        first = lattices[0].index
        corners, pixels = sum(len(lattice.index) for lattice in lattices), first.shape[1]
        self._index = first.new_empty(pixels, corners)
        self._weight = lattices[0].weight.new_empty(pixels, corners)
        self._offsets = torch.arange(0, pixels * corners + 1, corners, dtype=torch.int32, device=first.device)
        self.parts: list[slice] = []
        self.points, column = 0, 0
        for lattice, scale in zip(lattices, scales, strict=True):
            columns = slice(column, column + len(lattice.index))
            torch.add(lattice.index.T, self.points, out=self._index[:, columns])
            torch.mul(lattice.weight.T, scale, out=self._weight[:, columns])
            self.parts.append(slice(self.points, self.points + lattice.points + 1))
            self.points, column = self.parts[-1].stop, columns.stop

    def __call__(self, values: Tensor, rows: slice) -> Tensor:
        """Slice the values (points, k) at the pixels `rows`: (rows, k)."""
        index, weight = self._index[rows], self._weight[rows]
        return _bags(index.view(-1), weight.view(-1), self._offsets[: len(index) + 1], values)


def _bags(index: Tensor, weight: Tensor | None, offsets: Tensor, values: Tensor) -> Tensor:
    """The product of a sparse matrix (CSR) and a dense one."""
    return F.embedding_bag(index, values, offsets, mode="sum", per_sample_weights=weight, include_last_offset=True)


def _sorted(keys: Tensor) -> Tensor:
    """Sort in ascending order; on a CPU with NumPy, which is 6 times as fast as PyTorch's sort with indices."""
    if keys.device.type == "cpu":
        keys.numpy().sort()
        return keys
    return keys.sort().values


def _elevation(dims: int) -> list[float]:
    """Scale of each feature when it is mapped into the lattice's hyperplane, rounded to float32 (Adams et al., p. 5).

    With these scales, one blur with weights 1/4, 1/2, 1/4 along each axis has a standard deviation of one sigma.
    """
    spread = np.float32(math.sqrt(2 / 3) * (dims + 1))
    return [float(np.float32(float(spread) / math.sqrt((i + 1) * (i + 2)))) for i in range(dims)]


@dataclass(frozen=True)
class _PartialSplat:
    """The splat onto partial points as a sparse matrix (index, weight, offsets), and its parts."""

    index: Tensor  # ((d + 1) pixels,) int32: pixels
    weight: Tensor  # the same shape
    offsets: Tensor  # (partial points + 1,) int32
    partial: Tensor  # (d + 1, pixels) int32: each pixel's partial points
    barycentric: Tensor  # (d + 1, pixels): their weights
    keys: list[list[Tensor]]  # of the partial points, by class and chunk


def _partial_splat(features: Tensor, layout: _KeyLayout) -> _PartialSplat:
    """Build the splat onto partial points. Its rows are ordered by chunk of pixels, class, key and pixel."""
    corners, pixels, device = len(features) + 1, features.shape[1], features.device
    step = _CHUNK if device.type == "cpu" else 2**20
    bits = step.bit_length() - 1
    barycentric = torch.empty(corners, pixels, device=device)
    partial = torch.empty(corners, pixels, dtype=torch.int32, device=device)
    index = torch.empty(corners * pixels, dtype=torch.int32, device=device)
    weight = torch.empty(corners * pixels, device=device)
    keys: list[list[Tensor]] = [[] for _ in range(corners)]
    starts, partials, done = [], 0, 0
    for begin in range(0, pixels, step):
        chunk = slice(begin, min(begin + step, pixels))
        size = chunk.stop - begin
        key, steps, corner_weight = _simplices(features[:, chunk], layout)
        barycentric[:, chunk] = corner_weight
        local = torch.arange(size, device=device)
        new = torch.ones(size, dtype=torch.bool, device=device)
        for r in range(corners):
            if r:
                key -= steps[r - 1]
            if layout.bits + bits <= 63:
                unique_keys, digits = None, key
            else:  # key and pixel do not fit into 63 bits: replace the keys by their ranks in this chunk
                unique_keys, digits = torch.unique(key, return_inverse=True)
            packed = _sorted(torch.add(local, digits, alpha=1 << bits))
            cell, pixel = packed >> bits, packed & ((1 << bits) - 1)
            torch.ne(cell[1:], cell[:-1], out=new[1:])
            start = new.nonzero().squeeze(1)
            partial[r, chunk].scatter_(0, pixel, new.cumsum(0, dtype=torch.int32).add_(partials - 1))
            torch.add(pixel, begin, out=index[done : done + size])
            torch.index_select(corner_weight[r], 0, pixel, out=weight[done : done + size])
            keys[r].append(cell[start] if unique_keys is None else unique_keys)
            starts.append(start + done)
            partials, done = partials + len(start), done + size
    offsets = torch.cat([*starts, torch.tensor([done], device=device)]).int()
    return _PartialSplat(index, weight, offsets, partial, barycentric, keys)


class _KeyLayout:
    """Mixed-radix integer keys of lattice points, whose digits are floor(coordinate / (d + 1)) of coordinates 0...d-1.

    The last coordinate follows from the others. The ranges of the digits are those of the features, with a margin for
    neighbours.
    """

    def __init__(self, features: Tensor) -> None:
        dims = len(features)
        low, high = features.amin(1), features.amax(1)
        lows, spans = [], []
        ends = [sorted((a * s, b * s)) for a, b, s in zip(low.tolist(), high.tolist(), _elevation(dims), strict=True)]
        for j in range(dims):
            # coordinate j: minus j times feature j-1 plus all later features
            first = sum(a for a, _ in ends[j:]) - (j * ends[j - 1][1] if j else 0)
            last = sum(b for _, b in ends[j:]) - (j * ends[j - 1][0] if j else 0)
            lows.append(math.floor(first / (dims + 1)) - 3)
            spans.append(math.ceil(last / (dims + 1)) + 3 - lows[-1])
        self.bits = math.prod(spans).bit_length()
        if self.bits > 63:
            raise ValueError(
                "the sigmas are too small for an image of this size: keys of the permutohedral lattice would need "
                f"{self.bits} bits, and at most 63 are possible; use larger sigmas or a smaller image"
            )
        self.strides = [math.prod(spans[i + 1 :]) for i in range(dims)]
        self.origin = -sum(low * stride for low, stride in zip(lows, self.strides, strict=True))
        self.steps = torch.tensor([*self.strides, 0], device=features.device)[:, None]  # (d + 1, 1)


def _simplices(features: Tensor, layout: _KeyLayout) -> tuple[Tensor, Tensor, Tensor]:
    """The simplex around every pixel (Adams et al., Section 3.1), in float32 and in the order of the reference code.

    Returns:
        key: (pixels,) int64, of the corner of remainder 0.
        steps: (d + 1, pixels) int64, decrease of the key from the corner of each remainder to that of the next.
        weight: (d + 1, pixels), barycentric weight of each corner.
    """
    dims, pixels = features.shape
    corners = dims + 1
    point = features.new_empty(corners, pixels)
    later = features.new_zeros(pixels)
    for j, scale in reversed(list(enumerate(_elevation(dims), start=1))):
        scaled = features[j - 1] * scale
        torch.sub(later, scaled * j, out=point[j])
        later += scaled
    point[0] = later

    # Round each coordinate to the nearest multiple of d + 1, and rank the coordinates by the residual, the smallest
    # first. If the rounded point is not on the hyperplane, the coordinates with the largest residuals move by one.
    corner = (point * float(np.float32(1 / corners))).round_()
    point -= corner * corners
    rank = torch.arange(dims, -1, -1, dtype=torch.int8, device=features.device)[:, None].repeat(1, pixels)
    for i in range(dims):
        less = (point[i] < point[i + 1 :]).view(torch.int8)  # (d - i, pixels)
        rank[i + 1 :] += less
        for row in less:
            rank[i] -= row
    rank -= corner.sum(0).to(torch.int8)
    move = (rank - rank.clamp(0, dims)).sign_()
    rank -= move * corners
    shift = move.float()
    corner += shift
    point -= shift.mul_(corners)

    place = rank.long()
    point = torch.empty_like(point).scatter_(0, place, point).mul_(float(np.float32(1 / corners)))
    weight = torch.empty_like(point)
    torch.add(point[0], 1 - point[dims], out=weight[0])
    torch.sub(point[1:], point[:-1], out=weight[1:])
    steps = torch.empty_like(place).scatter_(0, place, layout.steps.expand_as(place))
    key = torch.full((pixels,), layout.origin, device=features.device)
    for digit, stride in zip(corner[:dims].long(), layout.strides, strict=True):
        key.add_(digit, alpha=stride)
    return key, steps, weight


def _neighbours(classes: list[Tensor], counts: list[int], layout: _KeyLayout) -> Tensor:
    """Indices of each point and of its two neighbours along each axis: (d + 1, points, 3) int32.

    The order is the point itself, the next one, the previous one. The next point along axis j has d more in coordinate
    j and one less in the others; so it is in the remainder class below, and its key differs by a constant. A missing
    neighbour has the index `points`, the row of zeros.
    """
    corners, points = len(classes), counts[-1]
    device = classes[0].device
    upward = torch.full((corners, points), points, device=device)
    for r, keys in enumerate(classes):
        wanted = keys + (layout.steps if r else layout.steps - sum(layout.strides))  # (d + 1, points of class r)
        below = classes[r - 1]
        position = torch.searchsorted(below, wanted).clamp_(max=len(below) - 1)
        offset = counts[r - 1 if r else corners - 1]
        upward[:, counts[r] : counts[r + 1]] = torch.where(below.take(position) == wanted, position + offset, points)
    own = torch.arange(points, device=device).expand(corners, -1)
    downward = torch.full((corners, points + 1), points, device=device).scatter_(1, upward, own)
    reach = torch.empty(corners, points, 3, dtype=torch.int32, device=device)
    for column, source in enumerate((own, upward, downward[:, :-1])):
        reach[:, :, column] = source
    return reach
