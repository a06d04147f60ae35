"""Mean-field inference for a fully connected CRF, in PyTorch only.

Source: Krähenbühl and Koltun, *Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials*, NIPS 2011.

The filters are those of :mod:`wildcat.crf.lattice`. Three properties reduce the work further: probabilities sum to one,
so the last label is not filtered (two labels need one number per pixel); point-wise operations run on chunks of pixels
that fit into a core's cache; the lattice of the Gaussian kernel depends only on the size of the image and is cached.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wildcat.crf.bounded import reduced, upsampled, working_size
from wildcat.crf.lattice import Lattice, Readout

ArrayT = TypeVar("ArrayT", Tensor, npt.NDArray[np.floating])

# The lattice's kernel is exactly zero beyond 6 sigmas (3 from the blur, 1.5 from each of the two simplices). With a
# sigma below 1/6, neighbouring pixels and grey levels do not interact, and a smaller one would only lengthen the keys.
_SMALLEST_SIGMA = 1 / 8
_CACHED_PIXELS = 2**20  # a Gaussian lattice takes about 60 bytes per pixel; those of larger images are not cached
_CHUNK = 2**17  # numbers per thread: 0.5 MB in each table of a step
_LARGEST_EXPONENT = 80.0  # exp(80) times 256 labels is finite in float32


@dataclass(frozen=True)
class CRFSettings:
    """Parameters of the two kernels and of the inference.

    The Gaussian kernel depends on positions (smoothness), the bilateral one on positions and colours (appearance):
    Equation 3 of Krähenbühl and Koltun.

    Attributes:
        gaussian_sxy: standard deviation of the Gaussian kernel in pixels, above 0.
        gaussian_compat: weight of the Gaussian kernel, 0 or more.
        bilateral_sxy: standard deviation of the bilateral kernel's positions in pixels, above 0.
        bilateral_srgb: standard deviation of its colours in grey levels of 0 to 255, above 0.
        bilateral_compat: weight of the bilateral kernel, 0 or more.
        iterations: mean-field updates, 0 or more.

    Raises:
        ValueError: a value outside its range.

    >>> CRFSettings(bilateral_srgb=5, iterations=5).bilateral_sxy
    80.0
    """

    gaussian_sxy: float = 3.0
    gaussian_compat: float = 3.0
    bilateral_sxy: float = 80.0
    bilateral_srgb: float = 13.0
    bilateral_compat: float = 10.0
    iterations: int = 10

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a positive number, not {getattr(self, name)}")
        for name in ("gaussian_compat", "bilateral_compat"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be a number of 0 or more, not {getattr(self, name)}")
        if not (isinstance(self.iterations, int) and self.iterations >= 0):
            raise ValueError(f"iterations must be an integer of 0 or more, not {self.iterations}")


CLIP = 1e-5
"""Lower bound of the probabilities of present labels, unless another one is given."""

PRESETS = {
    "krahenbuhl": CRFSettings(),  # the authors' code; the most common choice for maps learned from image labels
    "irn": CRFSettings(bilateral_sxy=50, bilateral_srgb=5),  # Ahn et al., CVPR 2019 (inter-pixel relations)
    "mctformer": CRFSettings(
        gaussian_sxy=4, bilateral_sxy=83, bilateral_srgb=5, bilateral_compat=3
    ),  # Xu et al., CVPR 2022
    "deeplab": CRFSettings(gaussian_sxy=1, bilateral_sxy=67, bilateral_srgb=3, bilateral_compat=4),  # v2, ResNet-101
}
"""Published settings by name."""


def dense_crf(
    probabilities: ArrayT,
    image: Tensor | npt.NDArray[np.uint8],
    settings: str | CRFSettings = "krahenbuhl",
    *,
    compatibility: Tensor | npt.NDArray[np.floating] | None = None,
    clip: float = CLIP,
) -> ArrayT:
    """Refine label probabilities by a fully connected CRF over the pixels of an image.

    The energy is sum_i -log p_i(x_i) + sum_{i<j} mu(x_i, x_j) sum_m w_m k_m(f_i, f_j), with symmetrically normalised
    kernels k_m. Mean-field inference starts from the given probabilities and updates all pixels at once,
    ``settings.iterations`` times (Algorithm 1 of Krähenbühl and Koltun).

    An image of more than 1 megapixel (:data:`wildcat.crf.bounded.MAX_PIXELS`; fewer for more than 64 labels) is
    reduced to that size, the standard deviations of positions as well, and the marginals are upsampled. So the memory
    does not grow with the image, except for the arguments and the result.

    Args:
        probabilities: (C, H, W), or (N, C, H, W) for N images, floating point in [0, 1]. Only the ratios at a pixel
            matter; they need not sum to 1. A label that is 0 at every pixel is absent: it is ignored and stays 0.
        image: (H, W, 3) or (N, H, W, 3), uint8.
        settings: a name in :data:`PRESETS`, or :class:`CRFSettings`.
        compatibility: symmetric (C, C) penalty mu for pairs of labels, multiplied by the weight of each kernel. None
            is the Potts model: 1 for different labels, 0 for equal ones.
        clip: lower bound of the probabilities of present labels before the logarithm, between 0 and 1.

    Returns:
        The marginals, an array or tensor like ``probabilities`` (shape, dtype, device). They are in [0, 1] and sum to 1
        at each pixel.

    Raises:
        ValueError: NaN or values outside [0, 1]; sizes that differ; another dtype or number of dimensions; no label
            above 0; an unknown preset; an asymmetric compatibility or one of another size; or sigmas too small for the
            size of the image (lattice keys of more than 63 bits).

    One pixel of 24 has a weak label of its own, and takes that of its neighbours of the same colour:

    >>> probabilities = np.full((2, 4, 6), 0.2)
    >>> probabilities[0] = 0.8
    >>> probabilities[:, 2, 3] = 0.4, 0.6
    >>> marginals = dense_crf(probabilities, np.full((4, 6, 3), 128, np.uint8))
    >>> marginals.shape, int(marginals.argmax(axis=0).max())
    ((2, 4, 6), 0)
    """
    if isinstance(settings, str):
        if settings not in PRESETS:
            raise ValueError(f"unknown CRF preset {settings!r}; known: {', '.join(PRESETS)}")
        settings = PRESETS[settings]
    if not 0 < clip < 1:
        raise ValueError(f"clip must lie between 0 and 1, not {clip}")
    given, pixels = _tensor(probabilities), _tensor(image)
    _check(given, pixels)
    penalty = None if compatibility is None else _penalty(compatibility, given.shape[-3], given.device)

    batch = given[None] if given.ndim == 3 else given
    images = (pixels[None] if pixels.ndim == 3 else pixels).to(given.device).contiguous()
    result = torch.zeros_like(batch, memory_format=torch.contiguous_format)
    with torch.no_grad():
        for one, rgb, out in zip(batch, images, result, strict=True):
            present = one.flatten(1).amax(1).nonzero().squeeze(1)
            if len(present) == 0:
                raise ValueError("no label has a probability above 0")
            if len(present) == 1:
                out[present] = 1.0
                continue
            part_penalty = None if penalty is None else penalty[present][:, present]
            height, width = one.shape[1:]
            size = working_size(height, width, len(present))
            if size != (height, width):
                small = reduced(one if len(present) == len(one) else one[present], size)
                for rows, part in _infer_at_reduced_size(small, rgb, settings, part_penalty, clip):
                    out[present, rows] = part.to(out.dtype)
            elif len(present) == len(one):
                _infer(one, rgb, settings, penalty, clip, out)
            else:
                part = one[present]
                _infer(part, rgb, settings, part_penalty, clip, part)
                out[present] = part
    result = result.view(given.shape)
    return result.numpy() if isinstance(probabilities, np.ndarray) else result


def refined_rows(probabilities: Tensor, image: npt.NDArray[np.uint8]) -> Iterator[tuple[slice, Tensor]]:
    """As :func:`dense_crf` by default, for a large image whose probabilities are given at its :func:`working_size`.

    Neither probabilities nor marginals of the whole image are in memory.

    Args:
        probabilities: (C, h, w), above 0.
        image: (H, W, 3), uint8, of at least that size.

    Yields:
        Rows of the image, and their marginals (C, rows, W), float32.

    >>> probabilities, image = torch.full((2, 4, 6), 0.5), np.zeros((8, 12, 3), np.uint8)
    >>> [(rows, tuple(part.shape)) for rows, part in refined_rows(probabilities, image)]
    [(slice(0, 8, None), (2, 8, 12))]
    """
    rgb = _tensor(image).to(probabilities.device)
    with torch.no_grad():
        yield from _infer_at_reduced_size(probabilities, rgb, CRFSettings(), None, CLIP)


def _infer_at_reduced_size(
    small: Tensor, image: Tensor, settings: CRFSettings, penalty: Tensor | None, clip: float
) -> Iterator[tuple[slice, Tensor]]:
    """Infer the marginals of a reduced image from its probabilities (C, h, w), and upsample them to the image."""
    _, height, width = small.shape
    # The proportion of the sides differs by rounding, or where a side has one pixel.
    factor = math.sqrt(height * width / (image.shape[0] * image.shape[1]))
    settings = replace(
        settings, gaussian_sxy=factor * settings.gaussian_sxy, bilateral_sxy=factor * settings.bilateral_sxy
    )
    rgb = reduced(image.permute(2, 0, 1), (height, width))
    marginals = torch.empty_like(small)
    _infer(small, rgb.permute(1, 2, 0).round().to(torch.uint8).contiguous(), settings, penalty, clip, marginals)
    yield from upsampled(marginals, rgb, image, settings.bilateral_srgb)


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


def _penalty(compatibility: Tensor | npt.NDArray[np.floating], labels: int, device: torch.device) -> Tensor:
    penalty = torch.as_tensor(compatibility, dtype=torch.float32, device=device)
    if penalty.shape != (labels, labels):
        raise ValueError(f"compatibility must be ({labels}, {labels}), one row per label, not {tuple(penalty.shape)}")
    if not bool(penalty.isfinite().all()) or not torch.equal(penalty, penalty.T):
        raise ValueError("compatibility must be finite and symmetric")
    return penalty


def _infer(
    probabilities: Tensor, image: Tensor, settings: CRFSettings, penalty: Tensor | None, clip: float, out: Tensor
) -> None:
    """Compute the marginals of C >= 2 present labels into ``out`` (C, H, W), which may be ``probabilities`` itself.

    The state is o, the log-odds of each label against the last one, (pixels, C - 1). An update adds the difference of
    two messages, and filters are linear: o_c = log p_c / p_C + sum_m w_m K'_m e_c with
    e_c = sum_k [mu(C, k) - mu(c, k)] Q_k. So C - 1 numbers per pixel are filtered. For the Potts model, whose mu is
    minus the identity up to a constant, they are Q_c - Q_C.
    """
    labels, height, width = probabilities.shape
    pixels = height * width
    gaussian = _gaussian_lattice(height, width, settings.gaussian_sxy, image.device)
    bilateral = _bilateral_lattice(image, settings.bilateral_sxy, settings.bilateral_srgb)
    readout = Readout([gaussian, bilateral], [settings.gaussian_compat, settings.bilateral_compat])
    effect = (
        None if penalty is None else (penalty[-1] - penalty[:-1]).T.contiguous()
    )  # (C, C - 1): effect of Q_k on o_c

    step = max(1, _CHUNK * torch.get_num_threads() // labels) if image.device.type == "cpu" else pixels
    chunks = [slice(start, min(start + step, pixels)) for start in range(0, pixels, step)]
    field = torch.empty(pixels, labels - 1, device=image.device)  # e
    bias = torch.empty_like(field)  # log p_c / p_C
    points = torch.empty(readout.points, labels - 1, device=image.device)
    given, result = probabilities.reshape(labels, pixels), out.view(labels, pixels)
    for rows in chunks:
        unary = given[:, rows].float().clamp(clip, 1)
        marginals = unary / unary.sum(0)
        field[rows] = (marginals[:-1] - marginals[-1]).T if effect is None else marginals.T @ effect
        unary.log_()
        bias[rows] = (unary[:-1] - unary[-1]).T
        if settings.iterations == 0:
            result[:, rows] = marginals

    ones = torch.ones(labels - 1, labels - 1, device=image.device)
    for iteration in range(settings.iterations):
        for lattice, part in zip((gaussian, bilateral), readout.parts, strict=True):
            points[part] = lattice.filter(field)
        for rows in chunks:
            odds = readout(points, rows).add_(bias[rows])
            last: float | Tensor = 1.0  # odds of the last label against itself
            if odds.max() > _LARGEST_EXPONENT:
                top = odds.amax(1, keepdim=True).clamp_(min=0)
                odds -= top
                last = top.neg_().exp_()
            odds.exp_()
            total = (odds @ ones).add_(last)  # the product with ones sums over labels and repeats the sum
            if iteration == settings.iterations - 1:
                result[:-1, rows] = (odds / total).T
                result[-1, rows] = (last / total[:, :1]).squeeze(1)
            elif effect is None:
                torch.div(odds.sub_(last), total, out=field[rows])
            else:
                torch.div(odds @ effect[:-1] + last * effect[-1:], total, out=field[rows])


def _gaussian_lattice(height: int, width: int, sigma: float, device: torch.device) -> Lattice:
    build = _cached_lattice if height * width <= _CACHED_PIXELS else _cached_lattice.__wrapped__
    return build(height, width, max(sigma, _SMALLEST_SIGMA), device)


@lru_cache(maxsize=8)
def _cached_lattice(height: int, width: int, sigma: float, device: torch.device) -> Lattice:
    features = torch.empty(2, height * width, device=device)
    _fill_positions(features, sigma, width)
    return Lattice(features)


def _bilateral_lattice(image: Tensor, sxy: float, srgb: float) -> Lattice:
    height, width, channels = image.shape
    if sxy <= _SMALLEST_SIGMA:  # no two pixels interact
        return _gaussian_lattice(height, width, sxy, image.device)
    features = torch.empty(2 + channels, height * width, device=image.device)
    _fill_positions(features, sxy, width)
    features[2:].copy_(image.view(-1, channels).T).div_(max(srgb, _SMALLEST_SIGMA))
    return Lattice(features)


def _fill_positions(features: Tensor, sigma: float, width: int) -> None:
    """Set rows 0 (x / sigma) and 1 (y / sigma) of the features."""
    x, y = features[0].view(-1, width), features[1].view(-1, width)
    x.copy_(torch.arange(width, dtype=torch.float32, device=features.device).div_(sigma))
    y.copy_(torch.arange(len(y), dtype=torch.float32, device=features.device).div_(sigma)[:, None])
