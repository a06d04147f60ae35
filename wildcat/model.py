"""The network of Figure 2: backbone, multi-map transfer, class-wise pooling, spatial pooling."""

import copy
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from wildcat.backbones import Backbone, embedded_classifier, wrap_backbone
from wildcat.backbones.factory import create_backbone
from wildcat.class_pooling import ClassPooling, check_class_pooling, choose_kept_maps, class_wise_pool
from wildcat.errors import WildcatError
from wildcat.pooling import Regions, create_pooling
from wildcat.transfer import MergedTransfer, MultiMapTransfer


class WildcatOutput(NamedTuple):
    """The output of the network for N images.

    Attributes:
        scores: (N, C) logits.
        class_maps: (N, C, h, w), unbounded.
        multi_maps: (N, C * M, h, w), class-major; for a model whose maps are merged the class maps themselves.
    """

    scores: Tensor
    class_maps: Tensor
    multi_maps: Tensor


class NonFiniteMapsError(WildcatError):
    """NaN or infinity in the class maps while training: a top-k would hide it."""


class Wildcat(nn.Module):
    """Backbone, multi-map transfer, class-wise and spatial pooling (Figure 2); :func:`create_model` builds one.

    Args:
        backbone: images (N, 3, H, W) to features (N, D, h, w).
        transfer: from D channels to M maps for each of C classes.
        pooling: class maps (N, C, h, w) to scores (N, C); with architecture "b" features to (N, D).
        architecture: "a" pools the class maps (the paper's choice); "b" pools the features, then classifies, and its
            maps are the classifier applied at each position (the order of CAM; Table 5).
        class_pooling: how the M maps of a class become its class map, see
            :func:`wildcat.class_pooling.class_wise_pool`.
        map_dropout: share of the M maps of each class, at least 0 and below 1, that a pass in training mode leaves out,
            at random for each image and class.

    Raises:
        ValueError: for another architecture, or "b" with more than one map per class, which would change nothing.
        WildcatError: for another class-wise pooling or share.
    """

    def __init__(
        self,
        backbone: Backbone,
        transfer: MultiMapTransfer,
        pooling: nn.Module,
        architecture: Literal["a", "b"] = "a",
        class_pooling: ClassPooling = "mean",
        map_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_class_pooling(class_pooling, map_dropout)
        if architecture not in ("a", "b"):
            raise ValueError(f'architecture must be "a" or "b"; got {architecture!r}')
        if architecture == "b" and transfer.num_maps > 1:
            raise ValueError(f'architecture "b" has one map per class; got num_maps={transfer.num_maps}')
        self.backbone = backbone
        self.transfer = transfer
        self.pooling = pooling
        self.architecture = architecture
        self.class_pooling: ClassPooling = class_pooling
        self.map_dropout = map_dropout
        self.register_buffer("mean", torch.tensor(backbone.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(backbone.std).view(3, 1, 1), persistent=False)

    def set_normalization(self, mean: tuple[float, float, float], std: tuple[float, float, float]) -> None:
        """Normalize images otherwise than the backbone of the installed library does, such as in an earlier version.

        Args:
            mean: red, green and blue, subtracted from pixel values in [0, 1].
            std: red, green and blue, by which the difference is divided.

        >>> model = create_model("lite0", num_classes=2, pretrained=False)
        >>> model.set_normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
        >>> model.normalize(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).flatten().tolist()
        [1.0, 1.0, 1.0]
        """
        assert isinstance(self.mean, Tensor) and isinstance(self.std, Tensor)
        self.backbone.mean, self.backbone.std = mean, std
        self.mean.copy_(torch.tensor(mean).view(3, 1, 1))
        self.std.copy_(torch.tensor(std).view(3, 1, 1))

    @property
    def num_classes(self) -> int:
        """C, a background class included."""
        return self.transfer.num_classes

    @property
    def num_maps(self) -> int:
        """M; 1 for a model whose maps are merged."""
        return self.transfer.num_maps

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels 0..255 (N, 3, H, W), uint8, to the input of :meth:`forward`."""
        assert isinstance(self.mean, Tensor) and isinstance(self.std, Tensor)
        # (pixels / 255 - mean) / std in two passes over memory instead of three
        return (pixels * (1 / (255 * self.std))).sub_(self.mean / self.std)

    def forward(self, images: Tensor) -> WildcatOutput:
        """Scores and maps of normalised images.

        Args:
            images: (N, 3, H, W), floating point, normalised with the backbone's mean and std (:meth:`normalize`).

        Returns:
            Scores (N, C), class maps (N, C, h, w) and multi-maps (N, C * M, h, w), in single precision at least.

        Raises:
            NonFiniteMapsError: in training mode, if a class map holds NaN or infinity; a compiled graph does not check.
        """
        features = self.backbone(images)  # (N, D, h, w)
        # Scores rank images, so the head computes its means over maps and regions in single precision.
        multi_maps = _at_least_single(self.transfer(features))  # (N, C * M, h, w)
        class_maps = self._class_maps(multi_maps)  # (N, C, h, w)
        if self.training and not torch.compiler.is_compiling():
            _check_finite(class_maps)
        if self.architecture == "a":
            return WildcatOutput(self.pooling(class_maps), class_maps, multi_maps)
        pooled = self.pooling(features)  # (N, D)
        scores = self.transfer(pooled[:, :, None, None]).flatten(1)  # (N, C)
        return WildcatOutput(_at_least_single(scores), class_maps, multi_maps)

    def _class_maps(self, multi_maps: Tensor) -> Tensor:
        """Multi-maps (N, C * M, h, w) -> class maps (N, C, h, w); in training mode with map dropout."""
        kept = None
        if self.training and self.map_dropout and self.num_maps > 1:
            shape = (len(multi_maps), self.num_classes, self.num_maps)
            kept = choose_kept_maps(shape, self.map_dropout, multi_maps.device)
        return class_wise_pool(multi_maps, self.num_maps, self.class_pooling, kept=kept)

    def on_features(self) -> "Wildcat":
        """A model that shares the head, and whose inputs are features (N, D, h, w) instead of images.

        Where the mean pools the M maps of a class, its multi-maps are its class maps, as those of a merged model, and
        the M * C filters learn through their means.
        """
        model = copy.copy(self)
        model._modules = {**self._modules, "backbone": nn.Identity()}
        if self.class_pooling == "mean" and not self.map_dropout:
            model._modules["transfer"] = MergedTransfer(self.transfer)
        return model

    def merged(self) -> "Wildcat":
        """A model with the same scores and class maps, and the fewest filters; it shares the backbone.

        With the mean as class-wise pooling the M * C filters are merged into C. No other pooling of the maps is that of
        one linear map: then the filters stay as they are.
        """
        model = copy.copy(self)
        if self.class_pooling == "mean":
            model._modules = {**self._modules, "transfer": self.transfer.merged()}
        return model

    def extra_repr(self) -> str:
        """The class-wise pooling, unless it is the paper's: it is part of what identifies a model."""
        return "" if self.class_pooling == "mean" else f"class_pooling={self.class_pooling!r}"


def _at_least_single(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def _check_finite(class_maps: Tensor) -> None:
    finite = class_maps.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        rows = (~finite).nonzero().flatten().tolist()
        raise NonFiniteMapsError(
            f"the class maps of {len(rows)} of {len(finite)} images in the batch (first: number {rows[0]}) hold NaN or "
            "infinity; the learning rate is probably too high, or an input is not finite"
        )


def create_model(
    backbone: str | Backbone | nn.Module = "lite0",
    *,
    num_classes: int,
    num_maps: int = 4,
    kmax: Regions = 0.2,
    kmin: Regions | None = None,
    alpha: float = 0.7,
    pooling: str | nn.Module = "wildcat",
    architecture: Literal["a", "b"] = "a",
    class_pooling: ClassPooling = "mean",
    map_dropout: float = 0.0,
    pretrained: bool = True,
    weights: str | Path | None = None,
    output_stride: int | None = None,
) -> Wildcat:
    """Build a model; the one construction path.

    Args:
        backbone: a name of :func:`wildcat.backbones.create_backbone` (registered ones too), a
            :class:`~wildcat.backbones.Backbone`, or any module from images (N, 3, H, W) to features (N, D, h, w), which
            :func:`wildcat.backbones.wrap_backbone` wraps.
        num_classes: C >= 1.
        num_maps: M >= 1, maps per class.
        kmax, kmin, alpha: Equation 3, see :func:`wildcat.pooling.spatial_pool`.
        pooling: a name of :func:`wildcat.pooling.create_pooling` (registered ones too), or a module from class maps
            (N, C, h, w) to scores (N, C); then kmax, kmin and alpha are ignored.
        architecture: "a" pools class maps, "b" pools features, see :class:`Wildcat`.
        class_pooling: Equation 1, "mean" (the paper's), "max", "lse" or "softmax", see
            :func:`wildcat.class_pooling.class_wise_pool`; with one map per class all are the same.
        map_dropout: share of the maps of a class that is left out at random while training, see :class:`Wildcat`.
        pretrained, weights, output_stride: for a backbone by name, see :func:`wildcat.backbones.create_backbone`.

    Raises:
        WildcatError: for an unknown name, weights that cannot be loaded, or a module that is not a backbone.
        ValueError, TypeError: for other values that no model can have.

    >>> model = create_model("lite0", num_classes=20, num_maps=4, pretrained=False).eval()
    >>> out = model(torch.zeros(1, 3, 64, 64))
    >>> out.scores.shape, out.class_maps.shape, out.multi_maps.shape
    (torch.Size([1, 20]), torch.Size([1, 20, 2, 2]), torch.Size([1, 80, 2, 2]))

    A backbone and a pooling of your own:

    >>> net = nn.Sequential(nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    >>> class MeanPool(nn.Module):
    ...     def forward(self, class_maps):
    ...         return class_maps.mean(dim=(2, 3))
    >>> model = create_model(net, num_classes=20, pooling=MeanPool())
    >>> model.backbone.channels, model.backbone.stride, model(torch.zeros(1, 3, 64, 64)).scores.shape
    (16, 8, torch.Size([1, 20]))
    """
    # First: these are cheap and check their arguments.
    check_class_pooling(class_pooling, map_dropout)
    spatial = pooling if isinstance(pooling, nn.Module) else create_pooling(pooling, kmax, kmin, alpha)
    if isinstance(backbone, str):
        net = create_backbone(backbone, pretrained=pretrained, weights=weights, output_stride=output_stride)
    elif weights is not None or output_stride is not None:
        raise ValueError("weights and output_stride are for a backbone by name; yours is a module already")
    else:
        net = backbone if isinstance(backbone, Backbone) else wrap_backbone(backbone)
    transfer = MultiMapTransfer(net.channels, num_classes, num_maps)
    return Wildcat(net, transfer, spatial, architecture, class_pooling, map_dropout)


def imagenet_model(name: str = "lite0") -> tuple[Wildcat, tuple[str, ...]]:
    """The embedded ImageNet classifier as a Wildcat model without training, and its 1,000 class names.

    The classifier's linear layer becomes the 1x1 transfer (M = 1); with average pooling the scores are the classifier's
    logits, and the class maps are its class activation maps (CAM).

    Args:
        name: "lite0", "lite1" or "lite2", see :func:`wildcat.backbones.embedded_classifier`.

    >>> model, classes = imagenet_model()
    >>> model.num_classes, classes[:2]
    (1000, ('tench', 'goldfish'))
    """
    net = embedded_classifier(name)
    model = create_model(name, num_classes=1000, num_maps=1, pooling="average")
    with torch.no_grad():
        model.transfer.weight.copy_(net.classifier.weight[:, :, None, None])
        model.transfer.bias.copy_(net.classifier.bias)
    return model.eval(), imagenet_classes()


def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes, in the order that torchvision's and timm's classifiers share.

    >>> imagenet_classes()[:2]
    ('tench', 'goldfish')
    """
    return tuple((Path(__file__).parent / "imagenet_classes.txt").read_text(encoding="utf-8").splitlines())
