"""Several views of one picture, read by one model: test-time scales and the mirror image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from wildcat.losses import probabilities


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


def fuse_maps(maps: Sequence[Tensor]) -> Tensor:
    """Mean of maps (N, K, h_i, w_i) on the finest of their grids; coarser ones are interpolated bilinearly."""
    if len(maps) == 1:
        return maps[0]
    height, width = max((m.shape[2:] for m in maps), key=lambda shape: shape[0] * shape[1])
    grids = [
        m
        if m.shape[2:] == (height, width)
        else functional.interpolate(m, (height, width), mode="bilinear", align_corners=False)
        for m in maps
    ]
    return torch.stack(grids).mean(dim=0)


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
