"""The network of a predictor: what every runtime offers, and the PyTorch model as one."""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor, nn

from wildcat.backbones import Backbone
from wildcat.backbones.batchnorm_folding import with_folded_batchnorm
from wildcat.backbones.inference import Bf16Backbone, bf16_pays, fuse
from wildcat.export.network import Runtime
from wildcat.export.open import fingerprint, model_fingerprint
from wildcat.model import Wildcat, WildcatOutput
from wildcat.runs.settings import InferenceSettings
from wildcat.system.devices import PRECISIONS, Precision


class Network(Protocol):
    """A network that predicts, in whatever runtime: :class:`TorchNetwork`, or an exported file.

    Calls may come from several threads.
    """

    @property
    def runtime(self) -> Runtime:
        """What the network runs in: "torch", "onnx" or "openvino"."""

    @property
    def precision(self) -> Precision:
        """Of the backbone, "fp32" or "bf16"; outputs are float32 in either."""

    @property
    def device(self) -> torch.device:
        """Where :meth:`normalize` takes its pixels."""

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels 0..255 (N, 3, H, W), uint8, to the input of a call."""

    def merged(self) -> Network:
        """A network with the same scores and class maps, and one map per class if the maps can be merged."""

    def __call__(self, images: Tensor) -> WildcatOutput:
        """Scores (N, C), class maps (N, C, h, w) and multi-maps (N, C * M, h, w) of normalised images."""

    def fingerprint(self, settings: InferenceSettings) -> str:
        """Identifies weights, structure, settings and version of the package; the same for a model and its export."""

    @property
    def model_fingerprint(self) -> str:
        """Identifies weights and structure; the same for a model and its export."""


class TorchNetwork:
    """A model in PyTorch, with a copy of its backbone optimized for inference.

    The copy is made at the first prediction, of the weights that the model has then.

    Args:
        model: is set to evaluation mode and moved to the device; otherwise it stays as it is.
        device: where it computes.
        precision: "fp32"; "bf16" for the backbone alone; "auto" takes bf16 where it is faster
            (:func:`wildcat.backbones.inference.bf16_pays`).

    Attributes:
        model: the model that was given.
        precision: in which the backbone computes: "fp32" or "bf16".
    """

    runtime: Runtime = "torch"

    def __init__(self, model: Wildcat, device: str | torch.device = "cpu", precision: Precision = "fp32") -> None:
        self.device = torch.device(device)
        self.model: Wildcat = model.eval().to(
            self.device,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        self.precision = resolved_precision(precision, self.model)

    @cached_property
    def optimized(self) -> Wildcat:
        """The model that predicts, see :func:`optimize_for_inference`."""
        return optimize_for_inference(self.model, self.precision)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels 0..255 (N, 3, H, W), uint8, to the input of a call."""
        return self.model.normalize(pixels)

    def merged(self) -> TorchNetwork:
        """The network with one map per class if they can be merged; it shares the optimized backbone."""
        network = copy.copy(self)
        network.optimized = self.optimized.merged()
        return network

    def __call__(self, images: Tensor) -> WildcatOutput:
        """Scores and maps of normalised images (N, 3, H, W)."""
        output: WildcatOutput = self.optimized(images)
        return output

    def fingerprint(self, settings: InferenceSettings) -> str:
        """Identifies weights, structure, settings and version of the package."""
        return fingerprint(self.model, settings)

    @property
    def model_fingerprint(self) -> str:
        """Identifies weights and structure."""
        return model_fingerprint(self.model)


def resolved_precision(precision: Precision, model: Wildcat) -> Precision:
    """The precision in which PyTorch computes a model's backbone: for "auto", bf16 where that is faster.

    Args:
        precision: "fp32", "bf16" or "auto".
        model: on the device where it computes.

    Raises:
        ValueError: for another precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    if precision == "auto":
        return "bf16" if bf16_pays(model.backbone) else "fp32"
    return precision


def optimize_for_inference(model: Wildcat, precision: Precision = "fp32") -> Wildcat:
    """A model with the same head and an optimized copy of the backbone, whose weights do not learn.

    BatchNorm is folded into the convolutions, and activations are fused with them. In single precision it computes the
    same but for the order of additions; in bf16 scores differ by its rounding.

    Args:
        model: in evaluation mode; stays as it is.
        precision: "auto" takes bf16 where :func:`wildcat.backbones.inference.bf16_pays`.

    Raises:
        ValueError: for another precision.
    """
    precision = resolved_precision(precision, model)
    backbone: nn.Module = with_folded_batchnorm(model.backbone)
    if isinstance(backbone, Backbone):
        fuse(backbone.net)
    if precision == "bf16":
        backbone = Bf16Backbone(backbone)
    optimized = copy.copy(model)
    optimized._modules = {**model._modules, "backbone": backbone.to(memory_format=torch.channels_last)}
    return optimized
