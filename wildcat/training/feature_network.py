"""The function from pixels to the features of a frozen backbone: in OpenVINO where that is faster, else in PyTorch."""

import importlib.util
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from wildcat.backbones.batchnorm_folding import with_folded_batchnorm
from wildcat.backbones.factory import has_known_weights
from wildcat.errors import first_line
from wildcat.export.graph import EvenSameConv, replace_same_convs
from wildcat.export.open import PACKAGES
from wildcat.export.write import TOLERANCE
from wildcat.model import Wildcat
from wildcat.prediction.network import optimize_for_inference
from wildcat.system.signal_stack import keep_signal_stack

logger = logging.getLogger(__name__)

FeatureNetwork: TypeAlias = Callable[[Tensor], Tensor]
"""From pixels (n, 3, H, W), uint8, to features (n, D, h, w), float32 on the CPU."""

# Converting a network takes as long as PyTorch needs for so many pixels.
CONVERSION_PIXELS = 200 * 448**2


def feature_network(model: Wildcat, size: int, images: int = 0, *, exact: bool = False) -> FeatureNetwork:
    """The fastest function that computes features here.

    OpenVINO is used on a CPU for backbones of the package and of timm, if it is installed, faster in a measurement of
    some images, and equal to PyTorch but for rounding. It computes in single precision as PyTorch does.

    Args:
        model: on the device where it computes; set to evaluation mode, otherwise it stays as it is.
        size: side of the images in pixels.
        images: how many there are; few are not worth the conversion.
        exact: in PyTorch, as a training without cached features computes them.

    >>> from wildcat.model import create_model
    >>> network = feature_network(create_model("lite0", num_classes=2, pretrained=False), 64)
    >>> network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).shape
    torch.Size([1, 1280, 2, 2])
    """
    model.eval()
    in_torch = _torch_network(model)
    on_cpu = model.transfer.weight.device.type == "cpu"
    if exact or not on_cpu or images * size**2 < CONVERSION_PIXELS or not has_known_weights(model.backbone.name):
        return in_torch
    if importlib.util.find_spec(PACKAGES["openvino"]) is None:
        return in_torch
    try:
        in_openvino = _openvino_network(model, size)
        return _faster(in_torch, in_openvino, size)
    except Exception as error:  # the tracers and OpenVINO raise many types; PyTorch computes every backbone
        logger.debug("%s is not converted for OpenVINO: %s", model.backbone.name, first_line(error))
        return in_torch


def _torch_network(model: Wildcat) -> FeatureNetwork:
    device = model.transfer.weight.device
    backbone = optimize_for_inference(model).backbone

    def compute(pixels: Tensor) -> Tensor:
        with torch.inference_mode():
            features: Tensor = backbone(model.normalize(pixels.to(device)))
            return features.float().cpu()

    return compute


def _openvino_network(model: Wildcat, size: int) -> FeatureNetwork:
    """The backbone for one image at a time, as many of them at once as PyTorch has threads."""
    import openvino

    net = with_folded_batchnorm(model.backbone)
    replace_same_convs(net, EvenSameConv)
    example = torch.zeros(1, 3, size, size)
    threads = torch.get_num_threads()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "NUM_STREAMS": threads, "INFERENCE_NUM_THREADS": threads}
    with torch.no_grad(), warnings.catch_warnings(), keep_signal_stack():
        warnings.simplefilter("ignore")  # the exporters warn of their own deprecations
        program = torch.export.export(net, (example,), strict=False)
        converted = openvino.convert_model(program)
        converted.reshape(list(example.shape))
        compiled = openvino.Core().compile_model(converted, "CPU", settings)
        queue = openvino.AsyncInferQueue(compiled, threads)
    shape = tuple(compiled.output(0).shape)[1:]

    def compute(pixels: Tensor) -> Tensor:
        images = model.normalize(pixels).contiguous().numpy()
        features = np.empty((len(images), *shape), np.float32)

        def keep(request: Any, row: int) -> None:
            features[row] = request.get_output_tensor(0).data[0]

        with keep_signal_stack():
            queue.set_callback(keep)
            for row, image in enumerate(images):
                queue.start_async({0: image[None]}, row)
            queue.wait_all()
        return torch.from_numpy(features)

    return compute


def _faster(in_torch: FeatureNetwork, in_openvino: FeatureNetwork, size: int) -> FeatureNetwork:
    """OpenVINO's network if it computes the same, in less time; raises ArithmeticError if it computes anything else."""
    pixels = torch.randint(0, 256, (4, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    pixels = pixels.permute(0, 3, 1, 2)  # laid out like decoded images
    results, seconds = [], []
    for network in (in_torch, in_openvino):
        network(pixels[:1])  # the first call prepares
        start = time.perf_counter()
        results.append(network(pixels))
        seconds.append(time.perf_counter() - start)
    expected, actual = results
    difference = float((expected - actual).abs().max() / expected.abs().max().clamp(min=1))
    if not difference <= TOLERANCE:
        raise ArithmeticError(f"its features differ by {difference:.1e}")
    return in_openvino if seconds[1] < seconds[0] else in_torch
