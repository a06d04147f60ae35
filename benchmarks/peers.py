"""The authors' code of 2017 (durandtibo/wildcat.pytorch), restated for today's PyTorch: network, images, steps.

Equal to their code: square warp, tensor and normalization per image in 4 loader processes; ResNet in the default
memory format and single precision; class-wise sum divided by M; pooling by a full sort whose gradient is scattered to
the sorted positions; plain SGD, the loss read at each step. Restated: `Variable` and `volatile` (gradients disabled
instead), the removed legacy style of autograd functions, `async=True`. Changed, so that both sides compute the same
function: scores follow Equation 3 (theirs are halved), the gradient of the class-wise mean has its factor 1 / M
(omitted there), proportions of k count at least one region. Order, flips, labels, initial weights and learning rates
are those of this project, so that loss curves can be compared.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from wildcat.pooling import count_regions

WORKERS = 4


class SortPool(torch.autograd.Function):
    """Equation 3 by sorting all regions."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, k: float, alpha: float) -> Tensor:
        regions = maps.flatten(2)
        count = count_regions(k, regions.shape[2])
        values, order = regions.sort(dim=2, descending=True)
        ctx.highest, ctx.lowest = order[:, :, :count], order[:, :, -count:]
        ctx.shape, ctx.count, ctx.alpha = maps.shape, count, alpha
        scores: Tensor = values[:, :, :count].sum(2) / count + values[:, :, -count:].sum(2) * (alpha / count)
        return scores

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        spread = gradient[:, :, None].expand(-1, -1, ctx.count)
        high = gradient.new_zeros(*ctx.shape[:2], ctx.shape[2] * ctx.shape[3])
        low = torch.zeros_like(high)
        high.scatter_(2, ctx.highest, spread).div_(ctx.count)
        low.scatter_(2, ctx.lowest, spread).mul_(ctx.alpha / ctx.count)
        return (high + low).view(ctx.shape), None, None


class Network(nn.Module):
    """Backbone, 1x1 convolution, class-wise mean, pooling; returns scores and class maps."""

    def __init__(self, backbone: nn.Module, channels: int, classes: int, maps: int, k: float, alpha: float) -> None:
        super().__init__()
        self.backbone, self.maps, self.k, self.alpha = backbone, maps, k, alpha
        self.classifier = nn.Conv2d(channels, classes * maps, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        multi_maps = self.classifier(self.backbone(images))
        n, channels, h, w = multi_maps.shape
        class_maps = multi_maps.view(n, channels // self.maps, self.maps, h, w).sum(2) / self.maps
        return SortPool.apply(class_maps, self.k, self.alpha), class_maps


def network(name: str, classes: int = 20, maps: int = 8, k: float = 0.2, alpha: float = 0.7) -> Network:
    """Around a ResNet of torchvision, or timm's lite0."""
    if name == "lite0":
        import timm

        net = timm.create_model("tf_efficientnet_lite0", pretrained=False, num_classes=0, global_pool="")
        return Network(net, 1280, classes, maps, k, alpha)
    net = getattr(torchvision.models, name)(weights=None)
    return Network(nn.Sequential(*list(net.children())[:-2]), net.fc.in_features, classes, maps, k, alpha)


def load_ours(peer: Network, state: dict[str, Tensor]) -> None:
    """Weights of this project's model of the same backbone; the tensors have one order."""
    own = peer.state_dict()
    peer.load_state_dict(dict(zip(own, state.values(), strict=True)))


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Files warped to a square, some mirrored, as normalised tensors."""

    def __init__(
        self,
        files: Sequence[Path],
        labels: np.ndarray,
        flips: Sequence[bool],
        size: int,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        self.files, self.labels, self.flips, self.size = files, labels, flips, size
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image = Image.open(self.files[index]).convert("RGB")
        image = image.resize((self.size, self.size), Image.Resampling.BILINEAR)
        if self.flips[index]:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return self.transform(image), torch.from_numpy(self.labels[index])


def batches(images: Images, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches from as many workers as there, on any machine: PyTorch's warning on a machine of few cores is ignored."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This DataLoader will create 4 worker processes")
        # Forked, as there: in a process that was itself spawned PyTorch would spawn them, which takes seconds.
        started = iter(DataLoader(images, batch, num_workers=WORKERS, multiprocessing_context="fork"))
    yield from started


def predict(net: Network, files: Sequence[Path], size: int, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Scores of files; points: the maximum of each class map in pixels of the image."""
    sources = Images(files, np.zeros((len(files), 1)), [False] * len(files), size, mean, std)
    scores, points = [], []
    with torch.no_grad():
        for images, _ in batches(sources, 16):
            logits, maps = net(images)
            scores.append(torch.sigmoid(logits).numpy())
            best = maps.flatten(2).argmax(2).numpy()
            rows, columns = np.unravel_index(best, maps.shape[2:])
            points.append(np.stack([(columns + 0.5) / maps.shape[3], (rows + 0.5) / maps.shape[2]], axis=2))
    sizes = []
    for file in files:
        with Image.open(file) as image:
            sizes.append(image.size)
    assert (np.concatenate(points) * np.array(sizes)[:, None]).shape[2] == 2
    return np.concatenate(scores)
