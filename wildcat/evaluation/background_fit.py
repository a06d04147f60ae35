"""The constants of the background that give the best masks, from class maps and true masks."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wildcat.masks import Background, Mode, cue_factor, label_map, normalized_maps

GRIDS: dict[Mode, tuple[float, ...]] = {
    "threshold": (0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.18, 0.22, 0.26, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7),
    "power": (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 20.0, 25.0),
    "class": tuple(round(0.1 * i, 1) for i in range(1, 21)),  # 0.1 ... 2
}
"""The constants that :func:`fit_background` tries."""

CUE_EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)
BOOTSTRAPS = 50


@dataclass(frozen=True)
class MaskedImage:
    """What a fit needs to know of an image.

    Attributes:
        class_maps: as for :func:`wildcat.masks.strengths`.
        allowed: indices of the classes that its mask may hold.
        truth: (H, W), the true mask, with 255 for void.
        cue: (h, w), its background cue; None to fit without.
    """

    class_maps: Tensor
    allowed: Sequence[int]
    truth: npt.NDArray[np.uint8]
    cue: Tensor | None = None


def fit_background(
    mode: Mode, images: Iterable[MaskedImage], num_classes: int, bootstraps: int = BOOTSTRAPS
) -> tuple[Background, float]:
    """Choose the constants of a background mode that give the best masks of training images.

    Few masks do not determine the constants well. So the best ones are found again for images chosen at random with
    replacement (Poisson bootstrap), and those next to their average are taken: the geometric mean of the constant, and
    the mean of the cue's exponent. Memory does not grow with the number of images.

    Args:
        mode: one of :data:`wildcat.masks.MODES`.
        images: the images; they must not be among those that are scored afterwards. The exponents of
            :data:`CUE_EXPONENTS` are tried if they have a cue.
        num_classes: C, without background.
        bootstraps: how often images are chosen; 0 takes the best of all images.

    Returns:
        A background out of the grid, and its mean IoU on all images, 0 to 1.

    Raises:
        ValueError: no images.

    >>> image = MaskedImage(torch.tensor([[[-2.0, 4.0]]]), [0], np.array([[0, 1]], np.uint8))
    >>> background, score = fit_background("threshold", [image], 1)
    >>> background.mode, score
    ('threshold', 1.0)
    """
    constants, labels = GRIDS[mode], num_classes + 1
    rng = np.random.default_rng(0)
    shape = (1 + bootstraps, len(CUE_EXPONENTS), len(constants), labels)
    both, either = np.zeros(shape), np.zeros(shape)  # pixels of intersection and union of each label
    chosen, count, has_cue = np.zeros(1 + bootstraps), 0, True
    for image in images:
        count += 1
        has_cue = has_cue and image.cue is not None
        exponents = CUE_EXPONENTS if has_cue else CUE_EXPONENTS[:1]
        weights = np.concatenate([[1], rng.poisson(1, bootstraps)])
        chosen += weights
        for i, exponent in enumerate(exponents):
            for j, (intersection, union) in enumerate(_overlaps(image, mode, exponent, labels)):
                both[:, i, j] += weights[:, None] * intersection
                either[:, i, j] += weights[:, None] * union
    if not count:
        raise ValueError("the background cannot be fitted: there are no images with masks")
    if not has_cue:
        both, either = both[:, :1], either[:, :1]
    defined = either > 0
    iou = np.divide(both, either, out=np.zeros_like(both), where=defined)
    scores = iou.sum(axis=-1) / np.maximum(defined.sum(axis=-1), 1)  # (1 + bootstraps, exponents, constants)
    used = scores[chosen > 0] if bootstraps == 0 else scores[1:][chosen[1:] > 0]
    best = [np.unravel_index(int(score.argmax()), score.shape) for score in (used if len(used) else scores[:1])]
    exponent = float(np.mean([CUE_EXPONENTS[i] for i, _ in best]))
    constant = math.exp(np.mean([math.log(constants[j]) for _, j in best]))
    i = min(range(scores.shape[1]), key=lambda k: abs(CUE_EXPONENTS[k] - exponent))
    j = min(range(len(constants)), key=lambda k: abs(math.log(constants[k] / constant)))
    return Background(mode, constants[j], CUE_EXPONENTS[i]), float(scores[0, i, j])


def _overlaps(
    image: MaskedImage, mode: Mode, exponent: float, labels: int
) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Pixels of intersection and union of each label (labels,), for each constant of the mode's grid."""
    size = (image.truth.shape[0], image.truth.shape[1])
    valid = image.truth != 255
    truth = image.truth[valid]
    strength = torch.zeros(0, *size)
    if len(image.allowed):
        factor = cue_factor(image.cue, size, exponent) if exponent and image.cue is not None else None
        strength = normalized_maps(image.class_maps[list(image.allowed)], size, factor)
    # Only the strength of the background depends on the constant: the strongest class is found once.
    foreground = label_map([torch.zeros(size), *strength], image.allowed)[valid]
    strongest = strength.amax(dim=0).numpy()[valid] if len(image.allowed) else np.zeros(len(truth), np.float32)
    unit = normalized_maps(image.class_maps[-1:], size)[0].numpy()[valid] if mode == "class" else None
    of_truth = np.bincount(truth, minlength=labels)
    counts = []
    for constant in GRIDS[mode]:
        background = (1 - strongest) ** constant if mode == "power" else np.float32(constant)
        if unit is not None:
            background = background * unit
        predicted = np.where(strongest > background, foreground, 0)
        intersection = np.bincount(truth[predicted == truth], minlength=labels)
        counts.append((intersection, np.bincount(predicted, minlength=labels) + of_truth - intersection))
    return counts
