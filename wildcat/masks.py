"""From class maps to masks (Section 4.3): upsampling, normalisation, background.

The paper does not define the background; :class:`Background` has three modes. Maps are upsampled, not labels.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

Mode: TypeAlias = Literal["threshold", "power", "class"]
MODES: tuple[Mode, ...] = ("threshold", "power", "class")
MAX_CUE_EXPONENT = 10.0
LEAST_CUE_FACTOR = 0.02  # the cue alone never removes a class: objects that the border cuts look like background
# Strengths s are turned into probabilities for the CRF by (FLOOR + s) ** SHARPNESS. Without this they are too uniform,
# so that the CRF's pairwise terms dominate, and 0 would exclude a class. Sharpness 3 to 6 is best on training masks.
FLOOR, SHARPNESS = 0.1, 4


@dataclass(frozen=True)
class Background:
    """The strength of the background at a pixel, compared with class maps normalised to [0, 1].

    Attributes:
        mode: "threshold": ``constant`` everywhere. "power": (1 - max over classes) ** constant. "class": ``constant``
            times the normalised map of a background class, which is the last of the class maps.
        constant: finite and above 0; fitted on training masks, see
            :func:`wildcat.evaluation.background_fit.fit_background`.
        cue_exponent: 0 to 10; class maps are multiplied by (1 - cue) ** cue_exponent, with the cue of
            :func:`wildcat.background_cue.background_cue`. 0 does without it.

    Raises:
        ValueError: another mode, constant or exponent.

    >>> print(Background("power", 4.0))
    power 4
    >>> print(Background("threshold", 0.06, 0.75))
    threshold 0.06, cue 0.75
    """

    mode: Mode = "threshold"
    constant: float = 0.15
    cue_exponent: float = 0.0

    def __post_init__(self) -> None:
        """Check mode, constant and exponent."""
        if self.mode not in MODES:
            raise ValueError(f"background mode must be one of {', '.join(MODES)}; got {self.mode!r}")
        if not (isinstance(self.constant, int | float) and 0 < self.constant < float("inf")):
            raise ValueError(f"the background's constant must be a finite number above 0; got {self.constant!r}")
        if not (isinstance(self.cue_exponent, int | float) and 0 <= self.cue_exponent <= MAX_CUE_EXPONENT):
            raise ValueError(f"the cue's exponent must be 0 to {MAX_CUE_EXPONENT:g}; got {self.cue_exponent!r}")

    def __str__(self) -> str:
        """Mode and constants, for results and logs."""
        return f"{self.mode} {self.constant:g}" + (f", cue {self.cue_exponent:g}" if self.cue_exponent else "")

    @property
    def uses_cue(self) -> bool:
        """Whether masks need the background cue of the image."""
        return self.cue_exponent > 0


def normalized_maps(class_maps: Tensor, size: tuple[int, int], factor: Tensor | None = None) -> Tensor:
    """Upsample maps bilinearly, set negative values to 0, and divide each map by its maximum.

    Class maps are logits: scores are their means, and 0 is a probability of one half. Scaling from the minimum instead
    would make the result depend on the least probable pixel of the image.

    Args:
        class_maps: (K, h, w), any unit.
        size: (H, W) in pixels.
        factor: (H, W), 0 or more; multiplies each map before the division.

    Returns:
        (K, H, W) in [0, 1], float32; a map without positive values becomes 0.

    >>> normalized_maps(torch.tensor([[[-2.0, 4.0]]]), (1, 2)).tolist()
    [[[0.0, 1.0]]]
    """
    maps = functional.interpolate(class_maps[None].float(), size, mode="bilinear", align_corners=False)[0]
    maps = maps.relu_()
    if factor is not None:
        maps.mul_(factor)
    return maps.div_(maps.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny))


def cue_factor(cue: Tensor, size: tuple[int, int], exponent: float) -> Tensor:
    """The factor of class maps at every pixel, (H, W) in [0.02 ** exponent, 1].

    Args:
        cue: (h, w) in [0, 1], from :func:`wildcat.background_cue.background_cue`.
        size: (H, W) in pixels.
        exponent: 0 or more.

    >>> cue_factor(torch.tensor([[0.0, 0.75, 1.0]]), (1, 3), 0.5).tolist()
    [[1.0, 0.5, 0.1414...]]
    """
    fine = functional.interpolate(cue[None, None].float(), size, mode="bilinear", align_corners=False)[0, 0]
    factor: Tensor = (1 - fine).clamp_(min=LEAST_CUE_FACTOR) ** exponent
    return factor


def strengths(
    class_maps: Tensor,
    allowed: Sequence[int],
    size: tuple[int, int],
    background: Background,
    cue: Tensor | None = None,
) -> Tensor:
    """The strength of the background and of each allowed class at every pixel.

    Args:
        class_maps: (C, h, w), any unit; (C + 1, h, w) with the background's map last for the mode "class".
        allowed: indices of the classes that may appear: the predicted ones, or those of the image labels.
        size: (H, W) of the original image.
        background: mode and constants.
        cue: (h, w), the background cue of the image; needed if the background uses it.

    Returns:
        (1 + len(allowed), H, W), 0 or more; channel 0 is the background. Without allowed classes it is 1 everywhere.

    Raises:
        ValueError: if the background uses a cue and there is none.

    >>> class_maps = torch.tensor([[[-2.0, 4.0]], [[1.0, 0.5]]])
    >>> strengths(class_maps, [0], (1, 2), Background("threshold", 0.25)).tolist()
    [[[0.25, 0.25]], [[0.0, 1.0]]]
    """
    return torch.stack(list(strength_maps(class_maps, allowed, size, background, cue)))


def strength_maps(
    class_maps: Tensor,
    allowed: Sequence[int],
    size: tuple[int, int],
    background: Background,
    cue: Tensor | None = None,
) -> Iterator[Tensor]:
    """The channels of :func:`strengths`, one after the other: all of them at the size of a photograph are gigabytes."""
    if not len(allowed):
        yield class_maps.new_ones(size)
        return
    factor = None
    if background.uses_cue:
        if cue is None:
            raise ValueError(f"the background {background} needs the cue of the image")
        factor = cue_factor(cue.to(class_maps.device), size, background.cue_exponent)
    if background.mode == "class":
        yield background.constant * normalized_maps(class_maps[-1:], size)[0]
    elif background.mode == "threshold":
        yield torch.full(size, background.constant, device=class_maps.device)
    else:
        highest = torch.zeros(size, device=class_maps.device)
        for c in allowed:
            torch.maximum(highest, normalized_maps(class_maps[c : c + 1], size, factor)[0], out=highest)
        yield (1 - highest) ** background.constant
    for c in allowed:
        yield normalized_maps(class_maps[c : c + 1], size, factor)[0]


def pixel_probabilities(strength: Tensor) -> Tensor:
    """Turn strengths into probabilities, for :func:`wildcat.crf.dense_crf`.

    Args:
        strength: (K, H, W), 0 or more, from :func:`strengths`.

    Returns:
        (K, H, W), above 0; they sum to 1 at each pixel and have the order of the strengths.

    >>> pixel_probabilities(torch.tensor([[[0.1]], [[0.3]]])).flatten().tolist()  # 0.2 ** 4 : 0.4 ** 4 = 1 : 16
    [0.0588..., 0.9411...]
    """
    sharp = (strength + FLOOR) ** SHARPNESS
    return sharp / sharp.sum(dim=0, keepdim=True)


def label_map(scores: Iterable[Tensor], allowed: Sequence[int]) -> npt.NDArray[np.unsignedinteger[Any]]:
    """The label with the highest score at each pixel; the first one in a tie.

    Args:
        scores: (1 + len(allowed), H, W), background first: strengths or probabilities; or an iterator over (H, W).
        allowed: indices of the classes of the other channels.

    Returns:
        (H, W): 0 background, otherwise 1 + class; uint16 if a label is above 255, else uint8.

    >>> scores = torch.tensor([[[0.25, 0.25]], [[0.0, 1.0]]])
    >>> label_map(scores, [4]).tolist()
    [[0, 5]]
    """
    channels = iter(scores)
    best = next(channels).clone()
    wide = 1 + max(allowed, default=0) > 255
    # int32, as PyTorch supports few operations on unsigned integers other than uint8
    labels = torch.zeros(best.shape, dtype=torch.int32 if wide else torch.uint8, device=best.device)
    for score, c in zip(channels, allowed, strict=True):  # 10 times as fast as argmax along the first axis
        labels.masked_fill_(score > best, 1 + c)
        torch.maximum(best, score, out=best)
    result: npt.NDArray[np.unsignedinteger[Any]] = labels.cpu().numpy()
    return result.astype(np.uint16) if wide else result
