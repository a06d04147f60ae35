"""The CRF of a large image at a bounded number of pixels, with marginals upsampled to the image.

Mean-field inference takes hundreds of bytes per pixel, more the more labels there are: gigabytes for a photograph of 24
megapixels. Its kernels cover many pixels, so a smaller image has nearly the same marginals. They are upsampled along
the edges of the large image: joint bilateral upsampling, Kopf et al., SIGGRAPH 2007, over the four nearest pixels.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

MAX_PIXELS = 2**20
"""Pixels at which the CRF works at most."""

MAX_VALUES = 2**26
"""Pixels times labels at which it works at most: it limits the pixels where there are more than 64 labels."""

_STRIP = 2**20  # pixels times labels that are upsampled at once
_FARTHEST = 1e-6  # weight of a pixel of any other colour, so that one that is like none of the four gets their mean

logger = logging.getLogger(__name__)


def working_size(height: int, width: int, labels: int) -> tuple[int, int]:
    """The size at which the CRF of an image works: its own up to the bounds, otherwise smaller in the same proportion.

    >>> working_size(375, 500, 21), working_size(4000, 6000, 21)
    ((375, 500), (836, 1254))
    """
    most = min(MAX_PIXELS, MAX_VALUES // labels)
    if height * width <= most:
        return height, width
    factor = math.sqrt(most / (height * width))
    _log_once(round(most / 1e6, 2))
    if height * factor < 1:
        return 1, min(width, most)
    if width * factor < 1:
        return min(height, most), 1
    return int(height * factor), int(width * factor)


@cache
def _log_once(megapixels: float) -> None:
    logger.warning("the CRF of larger images works at %g megapixels, and its result is upsampled", megapixels)


def reduced(values: Tensor, size: tuple[int, int]) -> Tensor:
    """The means of values (K, H, W) of any type over the areas of a smaller size: (K, h, w), float32."""
    return torch.cat([F.adaptive_avg_pool2d(one[None].float(), size) for one in values])


def upsampled(marginals: Tensor, small: Tensor, image: Tensor, sigma: float) -> Iterator[tuple[slice, Tensor]]:
    """Upsample marginals along the edges of an image, some rows at a time.

    Args:
        marginals: (C, h, w), float32.
        small: (3, h, w), the reduced image, float32.
        image: (H, W, 3), uint8.
        sigma: standard deviation of colours in grey levels: pixels of another colour than this count little.

    Yields:
        Rows of the image, and their marginals (C, rows, W), which sum to 1 at each pixel as the given ones do.
    """
    labels, h, w = marginals.shape
    height, width, _ = image.shape
    table = torch.cat([marginals, small]).flatten(1).T.contiguous()  # (h w, C + 3)
    left, right, across = _neighbours(w, width, image.device)
    above, below, down = _neighbours(h, height, image.device)
    step = max(1, _STRIP // (width * (labels + 3)))
    for start in range(0, height, step):
        rows = slice(start, min(start + step, height))
        colours = image[rows].reshape(-1, 3).float()
        total = torch.zeros(len(colours), labels, device=image.device)
        weights = torch.zeros(len(colours), 1, device=image.device)
        for y, along_y in ((above[rows], 1 - down[rows]), (below[rows], down[rows])):
            for x, along_x in ((left, 1 - across), (right, across)):
                near = table.index_select(0, (y[:, None] * w + x).flatten())
                distance = (near[:, labels:] - colours).square_().sum(1, keepdim=True)
                weight = distance.mul_(-0.5 / sigma**2).exp_().add_(_FARTHEST)
                weight *= (along_y[:, None] * along_x).view(-1, 1)
                total.addcmul_(near[:, :labels], weight)
                weights += weight
        yield rows, total.div_(weights).T.reshape(labels, -1, width)


def _neighbours(small: int, large: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each of ``large`` positions, both nearest ones of ``small``, and the distance from the first: 0 to 1."""
    place = (torch.arange(large, device=device, dtype=torch.float64) + 0.5) * (small / large) - 0.5
    place.clamp_(0, small - 1)
    first = place.floor()
    return first.long(), (first.long() + 1).clamp_(max=small - 1), (place - first).float()
