"""Spatial pooling, forward and backward, against sorting and against the memory bound; the head's share of a step.

    python -m benchmarks.pooling            seconds, nothing written
    python -m benchmarks.pooling --full

"sort" is the method of the authors' code (`benchmarks/peers.py`). "memory" reads the maps once and writes a tensor of
their size once, the minimum of a forward and a backward pass. The head is transfer, class-wise and spatial pooling,
forward and backward, on the features of a batch; its share is relative to a whole step of backbone and head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import OURS, Report, options, take_turns
from benchmarks.peers import SortPool
from wildcat.losses import multi_label_loss
from wildcat.model import create_model
from wildcat.pooling import spatial_pool

SHAPES = ((16, 80, 14, 14), (16, 20, 28, 28), (4, 1000, 56, 56))
REGIONS: tuple[Any, ...] = (1, 0.2, "all")
ALPHA = 0.7


def pooled(maps: Tensor, k: Any) -> Tensor:
    scores = spatial_pool(maps, k, k, ALPHA)
    scores.backward(torch.ones_like(scores))
    return scores


def sorted_pooled(maps: Tensor, k: Any) -> Tensor:
    scores = SortPool.apply(maps, k, ALPHA)
    scores.backward(torch.ones_like(scores))
    return scores


def contenders(shape: tuple[int, ...], k: Any) -> dict[str, Callable[[], Tensor]]:
    maps = torch.randn(shape, requires_grad=True)
    memory, twin = torch.empty(shape), maps.detach()

    def with_gradient(call: Callable[[Tensor, Any], Tensor]) -> Tensor:
        maps.grad = None
        return call(maps, k)

    return {
        OURS: lambda: with_gradient(pooled),
        "sort": lambda: with_gradient(sorted_pooled),
        "memory": lambda: memory.copy_(twin),
    }


def head_share(backbone: str, size: int, batch: int, turns: int) -> list[float]:
    """Per cent of a training step, by turns, in the precision and memory format of training."""
    model = create_model(backbone, num_classes=20, num_maps=8, pretrained=False).train()
    model.to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(-1, 2, (batch, 20))
    features = model.backbone(images).detach().requires_grad_(True)
    net = model.backbone.forward

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=backbone != "lite0"):
            scores = model(images).scores
        multi_label_loss(scores, labels).backward()

    def whole() -> None:
        model.backbone.forward = net
        step()

    def head() -> None:
        model.backbone.forward = lambda _: features
        step()

    times = take_turns({"whole": whole, "head": head}, turns)
    return [100 * mine / total for mine, total in zip(times["head"], times["whole"], strict=True)]


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, arguments)
    report = Report("pooling", chosen)
    shapes, turns, each = (SHAPES, 7, 0.05) if chosen.full else (((2, 5, 7, 7),), 1, 0.0)
    for shape in shapes:
        for k in REGIONS:
            calls = contenders(shape, k)
            np.testing.assert_allclose(calls[OURS]().detach(), calls["sort"]().detach(), rtol=1e-3, atol=1e-4)
            report.compare(f"pool {'x'.join(map(str, shape))}, k {k}", take_turns(calls, turns, each))
    for backbone, size, batch in (("resnet50", 448, 8), ("lite0", 320, 16)) if chosen.full else (("resnet18", 64, 2),):
        shares = head_share(backbone, size, batch, 3 if chosen.full else 1)
        report.add(f"head and pooling, {backbone}, {size} px", OURS, shares, "% of a step", goal="< 3")
    report.write()


if __name__ == "__main__":
    main()
