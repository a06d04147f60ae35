"""From class maps to masks (Section 4.3): upsampling, normalisation, background.

The paper does not define the background; :class:`Background` has three modes. Maps are upsampled, not labels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
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

# Strengths s are turned into probabilities for the CRF by (FLOOR + s) ** SHARPNESS. Without this they are too uniform,
# so that the CRF's pairwise terms dominate, and 0 would exclude a class. Sharpness 3 to 6 is best on training masks.
FLOOR, SHARPNESS = 0.1, 4


@dataclass(frozen=True)
class Background:
    """The strength of the background at a pixel, compared with class maps normalised to [0, 1].

    Attributes:
        mode: "threshold": ``constant`` everywhere. "power": (1 - max over classes) ** constant. "class": ``constant``
            times the normalised map of a background class, which is the last of the class maps.
        constant: finite and above 0; fitted on training masks, see :func:`fit_background`.

    Raises:
        ValueError: another mode or constant.

    >>> print(Background("power", 4.0))
    power 4
    """

    mode: Mode = "threshold"
    constant: float = 0.15

    def __post_init__(self) -> None:
        """Check mode and constant."""
        if self.mode not in MODES:
            raise ValueError(f"background mode must be one of {', '.join(MODES)}; got {self.mode!r}")
        if not (isinstance(self.constant, int | float) and 0 < self.constant < float("inf")):
            raise ValueError(f"the background's constant must be a finite number above 0; got {self.constant!r}")

    def __str__(self) -> str:
        """Mode and constant, for results and logs."""
        return f"{self.mode} {self.constant:g}"


def normalized_maps(class_maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample maps bilinearly, set negative values to 0, and divide each map by its maximum.

    Class maps are logits: scores are their means, and 0 is a probability of one half. Scaling from the minimum instead
    would make the result depend on the least probable pixel of the image.

    Args:
        class_maps: (K, h, w), any unit.
        size: (H, W) in pixels.

    Returns:
        (K, H, W) in [0, 1], float32; a map without positive values becomes 0.

    >>> normalized_maps(torch.tensor([[[-2.0, 4.0]]]), (1, 2)).tolist()
    [[[0.0, 1.0]]]
    """
    maps = functional.interpolate(class_maps[None].float(), size, mode="bilinear", align_corners=False)[0]
    maps = maps.relu_()
    return maps.div_(maps.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny))


def strengths(class_maps: Tensor, allowed: Sequence[int], size: tuple[int, int], background: Background) -> Tensor:
    """The strength of the background and of each allowed class at every pixel.

    Args:
        class_maps: (C, h, w), any unit; (C + 1, h, w) with the background's map last for the mode "class".
        allowed: indices of the classes that may appear: the predicted ones, or those of the image labels.
        size: (H, W) of the original image.
        background: mode and constant.

    Returns:
        (1 + len(allowed), H, W), 0 or more; channel 0 is the background. Without allowed classes it is 1 everywhere.

    >>> class_maps = torch.tensor([[[-2.0, 4.0]], [[1.0, 0.5]]])
    >>> strengths(class_maps, [0], (1, 2), Background("threshold", 0.25)).tolist()
    [[[0.25, 0.25]], [[0.0, 1.0]]]
    """
    return torch.stack(list(strength_maps(class_maps, allowed, size, background)))


def strength_maps(
    class_maps: Tensor, allowed: Sequence[int], size: tuple[int, int], background: Background
) -> Iterator[Tensor]:
    """The channels of :func:`strengths`, one after the other: all of them at the size of a photograph are gigabytes."""
    if not len(allowed):
        yield class_maps.new_ones(size)
        return
    if background.mode == "class":
        yield background.constant * normalized_maps(class_maps[-1:], size)[0]
    elif background.mode == "threshold":
        yield torch.full(size, background.constant, device=class_maps.device)
    else:
        highest = torch.zeros(size, device=class_maps.device)
        for c in allowed:
            torch.maximum(highest, normalized_maps(class_maps[c : c + 1], size)[0], out=highest)
        yield (1 - highest) ** background.constant
    for c in allowed:
        yield normalized_maps(class_maps[c : c + 1], size)[0]


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


def fit_background(
    mode: Mode,
    images: Iterable[tuple[Tensor, Sequence[int], npt.NDArray[np.uint8]]],
    num_classes: int,
    mean_iou: Callable[[npt.NDArray[np.int64]], float],
) -> tuple[Background, float]:
    """Choose the constant of a background mode that gives the best masks of training images.

    The images must not be among those that are scored afterwards.

    Args:
        mode: one of :data:`MODES`.
        images: for each image, class maps as in :func:`strengths`, allowed classes, and the true mask (H, W) with 255
            for void.
        num_classes: C, without background.
        mean_iou: computes the mean IoU of a confusion matrix (C + 1, C + 1) whose rows are the true labels.

    Returns:
        The best background out of :data:`GRIDS`, and its mean IoU as ``mean_iou`` returns it.

    Raises:
        ValueError: no images.

    >>> from wildcat.metrics import mean_iou
    >>> class_maps = torch.tensor([[[-2.0, 4.0]]])
    >>> truth = np.array([[0, 1]], np.uint8)
    >>> background, score = fit_background("threshold", [(class_maps, [0], truth)], 1, mean_iou)
    >>> background.mode, float(score)
    ('threshold', 1.0)
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
            # Only the background's channel depends on the constant, so the maps are computed once.
            base = unit[:1] ** candidate.constant if mode == "power" else unit[:1] * candidate.constant
            predicted = label_map(torch.cat([base, unit[1:]]), allowed)[valid]
            confusion += np.bincount(rows + predicted, minlength=labels * labels).reshape(labels, labels)
    if not count:
        raise ValueError("the background cannot be fitted: there are no images with masks")
    scores = [mean_iou(confusion) for confusion in confusions]
    best = int(np.argmax(scores))
    return candidates[best], scores[best]
