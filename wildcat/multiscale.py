"""Several readings of one picture become one: sizes and the mirror image of one model, and models of several scales."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from wildcat.losses import probabilities
from wildcat.object_bank import ObjectBank


@dataclass(frozen=True)
class Reading:
    """What a batch of N pictures was read as.

    Attributes:
        probabilities: (N, C) in [0, 1].
        class_maps: (N, C, h, w).
        multi_maps: (N, C * M, h, w).
    """

    probabilities: Tensor
    class_maps: Tensor
    multi_maps: Tensor


def on_finest_grid(maps: Sequence[Tensor]) -> list[Tensor]:
    """Maps (N, K, h_i, w_i) on the finest of their grids; coarser ones are interpolated bilinearly.

    Each map covers the whole picture, so equal places of two grids are equal places of the original picture.
    """
    height, width = max((m.shape[2:] for m in maps), key=lambda shape: shape[0] * shape[1])
    return [
        m
        if m.shape[2:] == (height, width)
        else functional.interpolate(m, (height, width), mode="bilinear", align_corners=False)
        for m in maps
    ]


def fuse_maps(maps: Sequence[Tensor]) -> Tensor:
    """Mean of maps (N, K, h_i, w_i) on the finest of their grids."""
    if len(maps) == 1:
        return maps[0]
    return torch.stack(on_finest_grid(maps)).mean(dim=0)


def read(
    model: nn.Module,
    images: Mapping[int, Tensor],
    score_sizes: Sequence[int],
    map_sizes: Sequence[int],
    *,
    mirror: bool = False,
    multi_label: bool = True,
) -> Reading:
    """Read each picture at each size, and mirrored if asked: mean of the probabilities, mean of the maps.

    Args:
        model: a Wildcat model in evaluation mode.
        images: side -> its normalised input (N, 3, side, side), the same N pictures at every side that is asked for.
        score_sizes: sides whose probabilities are averaged.
        map_sizes: sides whose maps are averaged, each mirrored one turned back.
        mirror: also read the mirror image.
        multi_label: sigmoid per class, or softmax over classes.
    """
    found: list[Tensor] = []
    class_maps: list[Tensor] = []
    multi_maps: list[Tensor] = []
    for size in sorted({*score_sizes, *map_sizes}):
        for mirrored in (False, True) if mirror else (False,):
            output = model(images[size].flip(3) if mirrored else images[size])
            if size in score_sizes:
                found.append(probabilities(output.scores, multi_label))
            if size in map_sizes:
                class_maps.append(output.class_maps.flip(3) if mirrored else output.class_maps)
                multi_maps.append(output.multi_maps.flip(3) if mirrored else output.multi_maps)
    return Reading(torch.stack(found).mean(dim=0), fuse_maps(class_maps), fuse_maps(multi_maps))


def combine(readings: Sequence[Reading], *, multi_label: bool = True, bank: ObjectBank | None = None) -> Reading:
    """One reading from those of several models, trained at different scales, of the same pictures.

    Args:
        readings: of each model, in the order in which the bank was fitted.
        multi_label: sigmoid per class, or softmax over classes.
        bank: gives the probabilities; without it they are the mean of the models'.

    Returns:
        Probabilities; class maps, the mean over models on the finest grid, with a bank as well (it weighs scores, and
        its weights across classes would move one class's points to another's objects); the multi-maps of all models
        side by side, class-major.
    """
    found = [reading.probabilities for reading in readings]
    joined = torch.stack(found).mean(dim=0)
    if bank is not None:
        known = len(bank.bias)  # a background class, the last, has no part in it
        # On the processor: the bank is there, and in double precision, which not every device has.
        scores = bank.scores([p[:, :known].cpu() for p in found], multi_label)
        joined = probabilities(scores, multi_label).to(joined)
    count = readings[0].class_maps.shape[1]
    multi = [maps.unflatten(1, (count, -1)) for maps in on_finest_grid([reading.multi_maps for reading in readings])]
    return Reading(
        joined,
        fuse_maps([reading.class_maps for reading in readings]),
        torch.cat(multi, dim=2).flatten(1, 2),  # (N, C, M_1 + M_2 + ..., h, w) -> (N, C * (M_1 + ...), h, w)
    )
