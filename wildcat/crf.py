"""Fully connected CRF: mean field on the permutohedral lattice, in PyTorch alone.

Sources: Krähenbühl and Koltun, *Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials*, NIPS 2011;
Adams, Baek and Davis, *Fast High-Dimensional Filtering Using the Permutohedral Lattice*, Eurographics 2010.

What makes it fast without a compiler:

* Splat, blur and slice are products of a sparse matrix and a dense (points, labels) table, which is what
  `torch.nn.functional.embedding_bag` computes, with 32-bit indices, on CPU and CUDA. The normalisation sits in its
  weights, and both kernels are read back by one call.
* Lattice points have exact integer keys. A keys-only sort of (key, pixel) pairs, packed into 64 bits, gives both the
  points and the rows of the splat.
* Everything is done by chunks of pixels that stay in a core's cache.
* Probabilities sum to one, so the last label need not be filtered: two labels are one number per pixel.
* The lattice of the Gaussian kernel depends on the size of the picture alone, and is kept for the next picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

ArrayT = TypeVar("ArrayT", Tensor, npt.NDArray[np.floating])

# The lattice's kernel is exactly zero beyond 6 sigmas (3 for the blur, 1.5 for each of the two simplices). So below 1/6
# neighbouring pixels and grey levels are apart already: a smaller sigma would change nothing but the length of keys.
_SMALLEST_SIGMA = 1 / 8
_CACHED_PIXELS = 2**20  # a Gaussian lattice takes about 60 bytes a pixel; those of larger pictures are not kept
_BUILD_CHUNK = 2**14  # pixels, and
_FIELD_CHUNK = 2**17  # numbers per thread: 0.5 MB of float32 or less in each of the tables that a step works on
_LARGEST_EXPONENT = 80.0  # exp(80) times 256 labels is still finite in float32


@dataclass(frozen=True)
class CRFSettings:
    """The two kernels: position alone (smoothness), and position with colour (appearance).

    Sigmas are in pixels (`..._sxy`) and in grey levels of 0...255 (`..._srgb`); a compatibility is a kernel's weight.
    """

    gaussian_sxy: float = 3.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 80.0
    bilateral_srgb: float = 13.0
    bilateral_compat: float = 10.0
    iterations: int = 10

    def __post_init__(self) -> None:
        """Refuse values without a meaning."""
        for name in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a positive number, not {getattr(self, name)}")
        for name in ("gaussian_compat", "bilateral_compat"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number of 0 or more, not {getattr(self, name)}")
        if not (isinstance(self.iterations, int) and self.iterations >= 0):
            raise ValueError(f"iterations must be an integer of 0 or more, not {self.iterations}")


PRESETS = {
    "krahenbuhl": CRFSettings(),  # the authors' code; the most used with maps from image labels
    "irn": CRFSettings(bilateral_sxy=50, bilateral_srgb=5),  # Ahn et al., CVPR 2019: labels of inter-pixel relations
    "deeplab": CRFSettings(gaussian_sxy=1, bilateral_sxy=67, bilateral_srgb=3, bilateral_compat=4),  # v2, ResNet-101
}


def dense_crf(
    probabilities: ArrayT,
    image: Tensor | npt.NDArray[np.uint8],
    settings: str | CRFSettings = "krahenbuhl",
    *,
    compatibility: Tensor | npt.NDArray[np.floating] | None = None,
    clip: float = 1e-5,
) -> ArrayT:
    r"""Mean-field marginals of a fully connected CRF over the pixels of a picture.

    Energy: sum_i -log p_i(x_i) + sum_{i<j} mu(x_i, x_j) sum_m w_m k_m(f_i, f_j), kernels normalised symmetrically. All
    pixels are updated at once, `settings.iterations` times, from the given probabilities (Algorithm 1 of the paper).

    Args:
        probabilities: (C, H, W), or (N, C, H, W) for N pictures, in [0, 1]. A label that is 0 at every pixel is absent:
            it takes no part and stays 0. Labels need not sum to 1 at a pixel; only their ratios matter.
        image: (H, W, 3) or (N, H, W, 3), uint8.
        settings: a name in `PRESETS`, or your own.
        compatibility: symmetric (C, C) penalty mu for a pair of labels, scaled by each kernel's weight; None is Potts:
            1 for two different labels, 0 for two equal ones.
        clip: probabilities of present labels are raised to at least this before the logarithm.

    Returns:
        Marginals of the same type, shape, dtype and device; at each pixel they are in [0, 1] and sum to 1.

    Raises:
        ValueError: NaN or values outside [0, 1], a pixel-size mismatch, a wrong dtype or rank, an unknown preset, an
            asymmetric or wrongly sized compatibility, or sigmas too small for so large a picture (64-bit keys).

    Example:
        >>> import torch
        >>> image = torch.zeros(4, 6, 3, dtype=torch.uint8)
        >>> dense_crf(torch.full((2, 4, 6), 0.5), image).shape
        torch.Size([2, 4, 6])
    """
    if isinstance(settings, str):
        if settings not in PRESETS:
            raise ValueError(f"unknown CRF preset {settings!r}; there are {', '.join(PRESETS)}")
        settings = PRESETS[settings]
    if not 0 < clip < 1:
        raise ValueError(f"clip must lie between 0 and 1, not {clip}")
    given, photo = _tensor(probabilities), _tensor(image)
    _check(given, photo)
    penalty = _penalty(compatibility, given.shape[-3], given.device)

    batch = given[None] if given.ndim == 3 else given
    photos = (photo[None] if photo.ndim == 3 else photo).to(given.device).contiguous()
    result = torch.zeros_like(batch, memory_format=torch.contiguous_format)
    with torch.no_grad():
        for one, picture, out in zip(batch, photos, result, strict=True):
            present = one.flatten(1).amax(1).nonzero().squeeze(1)
            if len(present) == 0:
                raise ValueError("no label has a probability above 0")
            if len(present) == 1:
                out[present] = 1.0
                continue
            if len(present) == len(one):
                _infer(one, picture, settings, penalty, clip, out)
            else:
                part = one[present]
                _infer(part, picture, settings, penalty[present][:, present], clip, part)
                out[present] = part
    result = result.view(given.shape)
    return result.numpy() if isinstance(probabilities, np.ndarray) else result


def _tensor(array: Tensor | npt.NDArray[np.generic]) -> Tensor:
    if isinstance(array, Tensor):
        return array.detach()
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))  # copied only if read-only or not contiguous


def _check(probabilities: Tensor, image: Tensor) -> None:
    if probabilities.ndim not in (3, 4) or image.ndim != probabilities.ndim or image.shape[-1] != 3:
        raise ValueError(
            "probabilities must be (C, H, W) with an image (H, W, 3), or (N, C, H, W) with (N, H, W, 3), "
            f"not {tuple(probabilities.shape)} with {tuple(image.shape)}"
        )
    if image.shape[:-1] != (*probabilities.shape[:-3], *probabilities.shape[-2:]):
        raise ValueError(f"image {tuple(image.shape)} and probabilities {tuple(probabilities.shape)} differ in size")
    if image.dtype != torch.uint8:
        raise ValueError(f"image must be uint8, not {image.dtype}")
    if not probabilities.is_floating_point():
        raise ValueError(f"probabilities must be floating point, not {probabilities.dtype}")
    if probabilities.numel() == 0:
        raise ValueError(f"probabilities {tuple(probabilities.shape)} are empty")
    low, high = (bound.item() for bound in torch.aminmax(probabilities))
    if not (low >= 0 and high <= 1.001):  # a softmax in half precision may exceed 1 by rounding; NaN fails as well
        raise ValueError(f"probabilities must lie in [0, 1] without NaN, got {low} ... {high}")


def _penalty(compatibility: Tensor | npt.NDArray[np.floating] | None, labels: int, device: torch.device) -> Tensor:
    """The penalty matrix (C, C); Potts as minus identity, the same energy up to a constant of each pixel."""
    if compatibility is None:
        return -torch.eye(labels, device=device)
    penalty = torch.as_tensor(compatibility, dtype=torch.float32, device=device)
    if penalty.shape != (labels, labels):
        raise ValueError(f"compatibility must be ({labels}, {labels}), one row per label, not {tuple(penalty.shape)}")
    if not bool(penalty.isfinite().all()) or not torch.equal(penalty, penalty.T):
        raise ValueError("compatibility must be finite and symmetric")
    return penalty


def _infer(
    probabilities: Tensor, image: Tensor, settings: CRFSettings, penalty: Tensor, clip: float, out: Tensor
) -> None:
    """Marginals of C >= 2 present labels, written to out (C, H, W), which may be `probabilities` itself.

    Works on the log-odds against the last label, (pixels, C - 1). With Q_C = 1 - sum_k Q_k and messages
    m_c = -sum_k mu(c, k) K'Q_k, the odds change by m_c - m_C = sum_k odds(k, c) K'Q_k + a constant of the pixel, where
    odds(k, c) = mu(C, k) - mu(c, k) - (mu(C, C) - mu(c, C)) for k < C.
    """
    labels, height, width = probabilities.shape
    pixels = height * width
    kernels = (
        (_gaussian_lattice(height, width, settings.gaussian_sxy, image.device), settings.gaussian_compat),
        (_bilateral_lattice(image, settings.bilateral_sxy, settings.bilateral_srgb), settings.bilateral_compat),
    )
    lattices = [lattice for lattice, _ in kernels]
    readout = _Readout(lattices, [weight for _, weight in kernels])
    mass = torch.stack([lattice.mass * weight for lattice, weight in kernels], 1).sum(1, keepdim=True)  # (pixels, 1)
    change = (penalty[-1] - penalty[:-1]).T.contiguous()  # (C, C - 1): of m_c - m_C for each K'Q_k
    odds = change[:-1] - change[-1:]

    step = max(1, _FIELD_CHUNK * torch.get_num_threads() // labels) if image.device.type == "cpu" else pixels
    chunks = [slice(start, min(start + step, pixels)) for start in range(0, pixels, step)]
    field = torch.empty(pixels, labels - 1, device=image.device)  # Q_1 ... Q_(C-1)
    bias = torch.empty_like(field)  # log-odds of the given probabilities, and what is constant in the messages
    given, result = probabilities.reshape(labels, pixels), out.view(labels, pixels)
    for rows in chunks:
        unary = given[:, rows].float().clamp(clip, 1)
        field[rows] = (unary[:-1] / unary.sum(0)).T
        unary.log_()
        bias[rows] = (unary[:-1] - unary[-1]).T
        bias[rows].addmm_(mass[rows], change[-1:])

    # No log-odds can exceed this bound; where it allows overflow, each pixel's largest is taken off first.
    bound = float(bias.max()) + float(mass.max()) * float(odds.abs().max())
    ones = torch.ones(labels - 1, labels - 1, device=image.device)
    for _ in range(settings.iterations):
        points = torch.cat([lattice.filter(field) for lattice in lattices]) @ odds
        for rows in chunks:
            logits = readout(points, rows).add_(bias[rows])
            base: float | Tensor = 1.0
            if bound > _LARGEST_EXPONENT:
                top = logits.amax(1, keepdim=True).clamp_(min=0)
                logits -= top
                base = top.neg_().exp_()
            logits.exp_()
            total = (logits @ ones).add_(base)  # the product sums, and repeats the sum for every label
            torch.div(logits, total, out=field[rows])
    for rows in chunks:
        result[:-1, rows] = field[rows].T
        result[-1, rows] = (1 - field[rows].sum(1)).clamp_(min=0)


def _gaussian_lattice(height: int, width: int, sigma: float, device: torch.device) -> _Lattice:
    build = _cached_lattice if height * width <= _CACHED_PIXELS else _cached_lattice.__wrapped__
    return build(height, width, max(sigma, _SMALLEST_SIGMA), device)


@lru_cache(maxsize=8)
def _cached_lattice(height: int, width: int, sigma: float, device: torch.device) -> _Lattice:
    features = torch.empty(2, height * width, device=device)
    _fill_positions(features, sigma, width)
    return _Lattice(features)


def _bilateral_lattice(image: Tensor, sxy: float, srgb: float) -> _Lattice:
    height, width, channels = image.shape
    if sxy <= _SMALLEST_SIGMA:  # all pixels are apart already
        return _gaussian_lattice(height, width, sxy, image.device)
    features = torch.empty(2 + channels, height * width, device=image.device)
    _fill_positions(features, sxy, width)
    features[2:].copy_(image.view(-1, channels).T).div_(max(srgb, _SMALLEST_SIGMA))
    return _Lattice(features)


def _fill_positions(features: Tensor, sigma: float, width: int) -> None:
    """Rows 0 (x) and 1 (y) of features."""
    x, y = features[0].view(-1, width), features[1].view(-1, width)
    x.copy_(torch.arange(width, dtype=torch.float32, device=features.device).div_(sigma))
    y.copy_(torch.arange(len(y), dtype=torch.float32, device=features.device).div_(sigma)[:, None])


class _Lattice:
    """One normalised kernel: K' = n K n with n = (K 1)^-1/2 and K = slice . blur . splat over given features.

    Every pixel lies in a simplex of d + 1 lattice points, one of each remainder class 0...d, and has a barycentric
    weight for each: `index` and `weight`, (d + 1, pixels), are the slice. `mass` (pixels,) is K' 1.

    The splat has two stages, so that it reads its pixels from cache: every chunk of pixels is summed into its own
    copies of the points it touches ("partial" points), which are then joined.
    """

    def __init__(self, features: Tensor) -> None:
        """Build from features (d, pixels), float32, already divided by their sigmas."""
        dims, pixels = features.shape
        device = features.device
        layout = _KeyLayout(features)
        step = _BUILD_CHUNK if device.type == "cpu" else 2**20
        bits = step.bit_length() - 1
        self.weight = torch.empty(dims + 1, pixels, device=device)
        partial = torch.empty(dims + 1, pixels, dtype=torch.int32, device=device)  # the slice's partial points
        self._splat_index = torch.empty((dims + 1) * pixels, dtype=torch.int32, device=device)
        self._splat_weight = torch.empty((dims + 1) * pixels, device=device)
        keys: list[list[Tensor]] = [[] for _ in range(dims + 1)]  # of the partial points: class, chunk
        starts, partials, done = [], 0, 0
        for begin in range(0, pixels, step):
            chunk = slice(begin, min(begin + step, pixels))
            size = chunk.stop - begin
            key, steps, weight = _simplices(features[:, chunk], layout)
            self.weight[:, chunk] = weight
            local = torch.arange(size, device=device)
            new = torch.ones(size, dtype=torch.bool, device=device)
            for r in range(dims + 1):
                if r:
                    key -= steps[r - 1]
                if layout.bits + bits <= 63:
                    points, digits = None, key
                else:
                    points, digits = torch.unique(key, return_inverse=True)
                packed = _sorted(torch.add(local, digits, alpha=1 << bits))
                cell, pixel = packed >> bits, packed & ((1 << bits) - 1)
                torch.ne(cell[1:], cell[:-1], out=new[1:])
                start = new.nonzero().squeeze(1)
                partial[r, chunk].scatter_(0, pixel, new.cumsum(0, dtype=torch.int32).add_(partials - 1))
                torch.add(pixel, begin, out=self._splat_index[done : done + size])
                torch.index_select(weight[r], 0, pixel, out=self._splat_weight[done : done + size])
                keys[r].append(cell[start] if points is None else points)
                starts.append(start + done)
                partials, done = partials + len(start), done + size
        self._splat_offsets = torch.cat([*starts, torch.tensor([done], device=device)]).int()

        classes, counts, point_of = [], [0], []
        for parts in keys:
            points, inverse = torch.unique(torch.cat(parts), return_inverse=True)
            point_of.append(inverse.add_(counts[-1]).int().split([len(part) for part in parts]))
            classes.append(points)
            counts.append(counts[-1] + len(points))
        self.points = counts[-1]
        joined = torch.cat([part for chunk in zip(*point_of, strict=True) for part in chunk])  # (partials,)
        order = torch.sort(joined, stable=True)
        self._join_index = order.indices.int()
        self._join_offsets = torch.searchsorted(order.values, torch.arange(self.points + 2, device=device).int()).int()
        self.index = joined.index_select(0, partial.view(-1)).view_as(partial)
        # The last row of each table is zero: an empty bag, read where a neighbour is missing.
        self._blur_indices = _neighbours(classes, counts, layout).view(dims + 1, -1)
        self._blur_weight = torch.tensor([1.0, 0.5, 0.5], device=device).repeat(self.points)
        self._blur_offsets = torch.arange(0, 3 * self.points + 4, 3, device=device).clamp_(max=3 * self.points).int()

        # The blur scales by this on average (Adams et al., 3.1.3): the sum of 1 + 2^-d over the lattice.
        self.weight *= 1 / (1 + 2.0**-dims)
        norm = self._row_sums().add_(1e-20).rsqrt_()
        self._splat_weight *= norm.index_select(0, self._splat_index)
        self.weight *= norm
        self.mass = self._row_sums()

    def filter(self, values: Tensor) -> Tensor:
        """Splat (pixels, k), then blur along the d + 1 axes in order: (points + 1, k), the last row 0."""
        values = _bags(self._splat_index, self._splat_weight, self._splat_offsets, values)
        values = _bags(self._join_index, None, self._join_offsets, values)
        for index in self._blur_indices:
            values = _bags(index, self._blur_weight, self._blur_offsets, values)
        return values

    def _row_sums(self) -> Tensor:
        points = self.filter(self.weight.new_ones(self.weight.shape[1], 1)).view(-1)
        sums = torch.zeros_like(self.weight[0])
        for index, weight in zip(self.index, self.weight, strict=True):
            sums.addcmul_(points.index_select(0, index), weight)
        return sums


class _Readout:
    """Slices several lattices at once: their points' values stand in one table, one lattice after the other."""

    def __init__(self, lattices: list[_Lattice], scales: list[float]) -> None:
        first = lattices[0].index
        corners, pixels = sum(len(lattice.index) for lattice in lattices), first.shape[1]
        self._index = first.new_empty(pixels, corners)
        self._weight = lattices[0].weight.new_empty(pixels, corners)
        self._offsets = torch.arange(0, pixels * corners + 1, corners, dtype=torch.int32, device=first.device)
        base, column = 0, 0
        for lattice, scale in zip(lattices, scales, strict=True):
            columns = slice(column, column + len(lattice.index))
            torch.add(lattice.index.T, base, out=self._index[:, columns])
            torch.mul(lattice.weight.T, scale, out=self._weight[:, columns])
            base, column = base + lattice.points + 1, columns.stop

    def __call__(self, values: Tensor, rows: slice) -> Tensor:
        """Values (points, k) at the given pixels: (rows, k)."""
        index, weight = self._index[rows], self._weight[rows]
        return _bags(index.view(-1), weight.view(-1), self._offsets[: len(index) + 1], values)


def _bags(index: Tensor, weight: Tensor | None, offsets: Tensor, values: Tensor) -> Tensor:
    """Sparse (CSR) times dense."""
    return F.embedding_bag(index, values, offsets, mode="sum", per_sample_weights=weight, include_last_offset=True)


def _sorted(keys: Tensor) -> Tensor:
    """Ascending; on CPU by NumPy, whose keys-only sort is vectorised and 6 times as fast as PyTorch's with indices."""
    if keys.device.type == "cpu":
        keys.numpy().sort()
        return keys
    return keys.sort().values


def _elevation(dims: int) -> list[float]:
    """Scale of each feature on its way into the lattice's hyperplane, rounded to float32 (Adams et al., p. 5).

    With it one blur of weights 1/4, 1/2, 1/4 along each axis has a standard deviation of one sigma.
    """
    spread = np.float32(math.sqrt(2 / 3) * (dims + 1))
    return [float(np.float32(float(spread) / math.sqrt((i + 1) * (i + 2)))) for i in range(dims)]


class _KeyLayout:
    """Mixed-radix keys of lattice points: coordinate 0...d-1 divided by d + 1, rounded down, as digits.

    The last coordinate follows from the others. Bounds come from the features' ranges, with room for neighbours.
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
        self.strides = [math.prod(spans[i + 1 :]) for i in range(dims)]
        self.origin = -sum(low * stride for low, stride in zip(lows, self.strides, strict=True))
        self.steps = torch.tensor([*self.strides, 0], device=features.device)[:, None]  # (d + 1, 1)
        self.bits = math.prod(spans).bit_length()
        if self.bits > 63:
            raise ValueError(
                "the CRF's sigmas are too small for a picture of this size: its lattice keys would need "
                f"{self.bits} bits, at most 63 are available; use larger sigmas or a smaller picture"
            )


def _simplices(features: Tensor, layout: _KeyLayout) -> tuple[Tensor, Tensor, Tensor]:
    """The simplex around every pixel (Adams et al., section 3.1), float32 and in the order of the reference code.

    Returns:
        key (pixels,) int64 of the corner of remainder 0; steps (d + 1, pixels) int64, by how much the key falls from
        the corner of each remainder to that of the next; weight (d + 1, pixels), barycentric, of each corner.
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

    # The nearest point of remainder 0 in each coordinate, and the coordinates' ranks by what is left, the smallest
    # first. If that point is off the hyperplane, the coordinates that were rounded worst move by one.
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
    """For each axis and point, (d + 1, points, 3) int32: the point itself, the next and the previous one.

    Along axis j the next point has d more in coordinate j and one less in the others: it is of the class below, at
    a constant distance between keys. A missing one is `points`, the number of a row of zeros.
    """
    corners, points = len(classes), counts[-1]
    device = classes[0].device
    upward = torch.full((corners, points), points, device=device)
    for r, keys in enumerate(classes):
        wanted = keys + (layout.steps if r else layout.steps - sum(layout.strides))  # (d + 1, points of class r)
        below = classes[r - 1]
        found = torch.searchsorted(below, wanted).clamp_(max=len(below) - 1)
        offset = counts[r - 1 if r else corners - 1]
        upward[:, counts[r] : counts[r + 1]] = torch.where(below.take(found) == wanted, found + offset, points)
    own = torch.arange(points, device=device).expand(corners, -1)
    downward = torch.full((corners, points + 1), points, device=device).scatter_(1, upward, own)
    reach = torch.empty(corners, points, 3, dtype=torch.int32, device=device)
    for column, source in enumerate((own, upward, downward[:, :-1])):
        reach[:, :, column] = source
    return reach
