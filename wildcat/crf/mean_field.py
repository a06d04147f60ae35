"""Fully connected CRF: mean field on the permutohedral lattice, in PyTorch alone.

Source: Krähenbühl and Koltun, *Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials*, NIPS 2011.

Speed comes from :mod:`wildcat.crf.lattice`, and from three savings here: probabilities sum to one, so the last label is
never filtered (two labels are one number per pixel); what is point-wise goes by chunks of pixels that stay in a core's
cache; the Gaussian kernel's lattice depends on the size of the image alone, and is kept for the next image.
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

from wildcat.crf.lattice import Lattice, Readout

ArrayT = TypeVar("ArrayT", Tensor, npt.NDArray[np.floating])

# The lattice's kernel is exactly zero beyond 6 sigmas (3 for the blur, 1.5 for each of the two simplices). So below 1/6
# neighbouring pixels and grey levels are apart already: a smaller sigma would change nothing but the length of keys.
_SMALLEST_SIGMA = 1 / 8
_CACHED_PIXELS = 2**20  # a Gaussian lattice takes about 60 bytes a pixel; those of larger images are not kept
_CHUNK = 2**17  # numbers per thread: 0.5 MB in each of the tables that a step works on
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
        """Reject values without a meaning."""
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
    "mctformer": CRFSettings(gaussian_sxy=4, bilateral_sxy=83, bilateral_srgb=5, bilateral_compat=3),  # CVPR 2022
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
    r"""Mean-field marginals of a fully connected CRF over the pixels of an image.

    Energy: sum_i -log p_i(x_i) + sum_{i<j} mu(x_i, x_j) sum_m w_m k_m(f_i, f_j), kernels normalised symmetrically. All
    pixels are updated at once, `settings.iterations` times, from the given probabilities (Algorithm 1 of the paper).

    Args:
        probabilities: (C, H, W), or (N, C, H, W) for N images, in [0, 1]. A label that is 0 at every pixel is absent:
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
            asymmetric or wrongly sized compatibility, or sigmas too small for so large an image (64-bit keys).

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
    penalty = None if compatibility is None else _penalty(compatibility, given.shape[-3], given.device)

    batch = given[None] if given.ndim == 3 else given
    photos = (photo[None] if photo.ndim == 3 else photo).to(given.device).contiguous()
    result = torch.zeros_like(batch, memory_format=torch.contiguous_format)
    with torch.no_grad():
        for one, pixels, out in zip(batch, photos, result, strict=True):
            present = one.flatten(1).amax(1).nonzero().squeeze(1)
            if len(present) == 0:
                raise ValueError("no label has a probability above 0")
            if len(present) == 1:
                out[present] = 1.0
                continue
            if len(present) == len(one):
                _infer(one, pixels, settings, penalty, clip, out)
            else:
                part = one[present]
                among = None if penalty is None else penalty[present][:, present]
                _infer(part, pixels, settings, among, clip, part)
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
    """Marginals of C >= 2 present labels, written to out (C, H, W), which may be `probabilities` itself.

    Works on the log-odds o against the last label, (pixels, C - 1). An update adds the difference of two messages, and
    filters are linear: o_c = log p_c / p_C + sum_m w_m K'_m e_c with e_c = sum_k [mu(C, k) - mu(c, k)] Q_k. So C - 1
    numbers per pixel are filtered; with Potts, where mu is minus identity, they are simply Q_c - Q_C.
    """
    labels, height, width = probabilities.shape
    pixels = height * width
    gaussian = _gaussian_lattice(height, width, settings.gaussian_sxy, image.device)
    bilateral = _bilateral_lattice(image, settings.bilateral_sxy, settings.bilateral_srgb)
    readout = Readout([gaussian, bilateral], [settings.gaussian_compat, settings.bilateral_compat])
    effect = None if penalty is None else (penalty[-1] - penalty[:-1]).T.contiguous()  # (C, C - 1): of Q_k on o_c

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
            last: float | Tensor = 1.0  # of the last label, which all odds are against
            if odds.max() > _LARGEST_EXPONENT:
                top = odds.amax(1, keepdim=True).clamp_(min=0)
                odds -= top
                last = top.neg_().exp_()
            odds.exp_()
            total = (odds @ ones).add_(last)  # the product sums, and repeats the sum for every label
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
    if sxy <= _SMALLEST_SIGMA:  # all pixels are apart already
        return _gaussian_lattice(height, width, sxy, image.device)
    features = torch.empty(2 + channels, height * width, device=image.device)
    _fill_positions(features, sxy, width)
    features[2:].copy_(image.view(-1, channels).T).div_(max(srgb, _SMALLEST_SIGMA))
    return Lattice(features)


def _fill_positions(features: Tensor, sigma: float, width: int) -> None:
    """Rows 0 (x) and 1 (y) of features."""
    x, y = features[0].view(-1, width), features[1].view(-1, width)
    x.copy_(torch.arange(width, dtype=torch.float32, device=features.device).div_(sigma))
    y.copy_(torch.arange(len(y), dtype=torch.float32, device=features.device).div_(sigma)[:, None])
