"""Class maps to masks (Section 4.3): upsampling, normalisation, where the background is.

The paper does not say how background arises; :class:`Background` names three ways. Maps are upsampled, never labels.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

Mode: TypeAlias = Literal["threshold", "power", "class"]
MODES: tuple[Mode, ...] = ("threshold", "power", "class")
GRIDS: dict[Mode, tuple[float, ...]] = {
    "threshold": (0.02, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.18, 0.22, 0.26, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7),
    "power": (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0, 25.0),
    "class": tuple(round(0.1 * i, 1) for i in range(1, 21)),  # 0.1 ... 2
}
"""The constants that :func:`fit_background` tries."""

# Strengths s become probabilities for the CRF as (FLOOR + s) ** SHARPNESS. Strengths themselves are too flat to hold
# against the CRF's neighbours, and too sure where a map is 0. On masks of training images sharpness 3 to 6 is best.
FLOOR, SHARPNESS = 0.1, 4


@dataclass(frozen=True)
class Background:
    """How strong the background is at a pixel, against class maps normalised to [0, 1].

    Attributes:
        mode: "threshold": ``constant`` everywhere. "power": (1 - max over classes) ** constant. "class": ``constant``
            times the normalised map of a background class, the last of the class maps.
        constant: above 0; chosen on training masks, see :func:`fit_background`.
    """

    mode: Mode = "threshold"
    constant: float = 0.15

    def __post_init__(self) -> None:
        """Reject unknown modes and constants.

        Raises:
            ValueError: naming the value and what is allowed.
        """
        if self.mode not in MODES:
            raise ValueError(f"background mode must be one of {', '.join(MODES)}; got {self.mode!r}")
        if not (isinstance(self.constant, int | float) and 0 < self.constant < float("inf")):
            raise ValueError(f"the background's constant must be a finite number above 0; got {self.constant!r}")

    def __str__(self) -> str:
        """For results and logs."""
        return f"{self.mode} {self.constant:g}"


def normalized_maps(class_maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample maps bilinearly to (H, W), drop what speaks against the class, divide each by its maximum.

    Class maps are evidence with a sign: scores are their means, and 0 is where a class is as likely as not. Stretching
    from the minimum instead would make the background of an image depend on its least likely pixel.

    Args:
        class_maps: (K, h, w), any unit.
        size: (H, W) in pixels.

    Returns:
        (K, H, W) in [0, 1]; a map that is nowhere positive becomes 0.
    """
    maps = functional.interpolate(class_maps[None].float(), size, mode="bilinear", align_corners=False)[0]
    maps = maps.relu_()
    return maps.div_(maps.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny))


def strengths(class_maps: Tensor, allowed: Sequence[int], size: tuple[int, int], background: Background) -> Tensor:
    """How strongly each pixel belongs to the background and to each allowed class.

    Args:
        class_maps: (C, h, w), or (C + 1, h, w) with the background's map last for the mode "class".
        allowed: indices of the classes that may appear: those predicted, or those of the image labels.
        size: (H, W) of the original image.
        background: mode and constant.

    Returns:
        (1 + len(allowed), H, W), not negative; channel 0 is the background.
    """
    if not len(allowed):
        return class_maps.new_ones((1, *size))
    chosen = class_maps[list(allowed)]
    if background.mode == "class":
        maps = normalized_maps(torch.cat([class_maps[-1:], chosen]), size)
        return torch.cat([background.constant * maps[:1], maps[1:]])
    maps = normalized_maps(chosen, size)
    if background.mode == "threshold":
        behind = maps.new_full((1, *size), background.constant)
    else:
        behind = (1 - maps.amax(dim=0, keepdim=True)) ** background.constant
    return torch.cat([behind, maps])


def pixel_probabilities(strength: Tensor) -> Tensor:
    """Strengths (K, H, W) as probabilities that sum to 1 at each pixel, for the CRF; their order is kept."""
    sharp = (strength + FLOOR) ** SHARPNESS
    return sharp / sharp.sum(dim=0, keepdim=True)


def label_map(scores: Tensor, allowed: Sequence[int]) -> npt.NDArray[np.unsignedinteger[Any]]:
    """The strongest label of each pixel; the first of equal ones.

    Args:
        scores: (1 + len(allowed), H, W), background first: strengths or probabilities.
        allowed: indices of the classes behind the other channels.

    Returns:
        (H, W): 0 background, 1 + class otherwise; uint16 where a byte cannot hold the highest, else uint8.
    """
    best = scores[0].clone()
    wide = 1 + max(allowed, default=0) > 255
    # int32: PyTorch computes little with unsigned integers but bytes
    labels = torch.zeros(best.shape, dtype=torch.int32 if wide else torch.uint8, device=scores.device)
    for score, c in zip(scores[1:], allowed, strict=True):  # ten times as fast as argmax along the first axis
        labels.masked_fill_(score > best, 1 + c)
        torch.maximum(best, score, out=best)
    result: npt.NDArray[np.unsignedinteger[Any]] = labels.cpu().numpy()
    return result.astype(np.uint16) if wide else result


def fit_background(
    mode: Mode,
    images: Iterable[tuple[Tensor, Sequence[int], npt.NDArray[np.uint8]]],
    num_classes: int,
    mean_iou: Callable[[npt.NDArray[np.int64]], float],
) -> tuple[Background, float]:
    """Choose the background's constant on masks of training images, never on those that are scored.

    Args:
        mode: one of :data:`MODES`.
        images: (class maps, allowed classes, true mask with 255 = void) of each.
        num_classes: C, without background.
        mean_iou: of a confusion matrix (C + 1, C + 1), rows the truth.

    Returns:
        The best background of :data:`GRIDS`, and its mean IoU.

    Raises:
        ValueError: if there are no images.
    """
    candidates = [Background(mode, constant) for constant in GRIDS[mode]]
    labels = num_classes + 1
    confusions = np.zeros((len(candidates), labels, labels), dtype=np.int64)
    count = 0
    for class_maps, allowed, truth in images:
        count += 1
        size = (truth.shape[0], truth.shape[1])
        valid = truth != 255
        rows = truth[valid].astype(np.int64) * labels
        unit = strengths(class_maps, allowed, size, Background(mode, 1.0))
        for candidate, confusion in zip(candidates, confusions, strict=True):
            # Only the background's channel depends on the constant, so the maps are made once.
            behind = unit[:1] ** candidate.constant if mode == "power" else unit[:1] * candidate.constant
            found = label_map(torch.cat([behind, unit[1:]]), allowed)[valid]
            confusion += np.bincount(rows + found, minlength=labels * labels).reshape(labels, labels)
    if not count:
        raise ValueError("the background cannot be fitted: there are no images with masks")
    scores = [mean_iou(confusion) for confusion in confusions]
    best = int(np.argmax(scores))
    return candidates[best], scores[best]
