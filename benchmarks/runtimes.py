"""The cost of everything around the backbone in the other runtimes: a whole prediction against the bare backbone.

python -m benchmarks.runtimes            a small backbone and small images, nothing written
python -m benchmarks.runtimes --full     lite0 and ResNet-50 at 320 and 448 px

Ours starts at 8-bit pixels of decoded and resized images and ends at probabilities, class maps and points:
normalisation, backbone, head, pooling and the predictor's part. The peer is the backbone alone, extracted from the same
exported file, in the same runtime with the same threads and precision, for one input size, on normalised inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import openvino
import torch
from onnx import utils

from benchmarks.common import OURS, Report, options, scratch_folder, take_turns
from wildcat.export.network import ExportedNetwork
from wildcat.export.open import open_network
from wildcat.export.write import export
from wildcat.model import create_model
from wildcat.multiscale import predict_batch
from wildcat.runs.settings import InferenceSettings
from wildcat.system.devices import Precision
from wildcat.system.signal_stack import keep_signal_stack

COMPUTING: tuple[tuple[str, Precision], ...] = (("onnx", "fp32"), ("openvino", "fp32"), ("openvino", "bf16"))
CLASSES = tuple(f"class {c}" for c in range(20))


def cut_backbone(whole: Path, backbone: Path, shape: tuple[int, ...]) -> None:
    """The graph of an exported file up to the features, for inputs of one shape."""
    (head,) = [node for node in onnx.load(whole).graph.node if "class_maps" in node.output]
    utils.extract_model(whole, backbone, ["images"], [head.input[0]], check_model=False)
    model = onnx.load(backbone)
    for dimension, side in zip(model.graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dimension.dim_value = side
    del model.graph.value_info[:]
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, backbone)


def bare(runtime: str, precision: Precision, file: Path, images: npt.NDArray[np.float32]) -> Callable[[], Any]:
    """A file in a runtime, configured with the shape of the images."""
    threads = torch.get_num_threads()
    if runtime == "onnx":
        session_options = onnxruntime.SessionOptions()
        session_options.intra_op_num_threads = threads
        for dimension, side in zip("nhw", (images.shape[0], *images.shape[2:]), strict=True):
            session_options.add_free_dimension_override_by_name(dimension, side)
        session = onnxruntime.InferenceSession(str(file), session_options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"images": images})
    hint = {"fp32": "f32", "bf16": "bf16"}[precision]
    settings = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    with keep_signal_stack():
        request = openvino.Core().compile_model(str(file), "CPU", settings).create_infer_request()
    return lambda: request.infer({"images": images}, share_inputs=True, share_outputs=True)


def ours(network: ExportedNetwork, pixels: npt.NDArray[np.uint8]) -> Callable[[], Any]:
    """From pixels (N, size, size, 3) to probabilities, class maps and points."""
    size = pixels.shape[1]

    def run() -> tuple[Any, ...]:
        with torch.inference_mode():
            images = {size: network.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))}
            outputs = predict_batch(network, images, (size,), (size,))
            points = outputs.class_maps.flatten(2).argmax(dim=2)
            return outputs.probabilities.numpy(), outputs.class_maps.numpy(), points.numpy()

    return run


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = options(__doc__, arguments)
    report = Report("runtimes", chosen)
    batch, turns = (8, 15) if chosen.full else (2, 1)
    sizes = (320, 448) if chosen.full else (64,)
    for backbone in ("lite0", "resnet50") if chosen.full else ("timm:test_resnet",):
        torch.manual_seed(0)
        model = create_model(backbone, num_classes=len(CLASSES), num_maps=8, pretrained=False).eval()
        with scratch_folder() as folder:
            whole, net = Path(folder) / "whole.onnx", Path(folder) / "backbone.onnx"
            export(model, InferenceSettings(CLASSES, True, sizes, sizes), whole)
            for size in sizes:
                pixels = np.random.default_rng(0).integers(0, 256, (batch, size, size, 3), np.uint8)
                images = model.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2)).contiguous().numpy()
                cut_backbone(whole, net, images.shape)
                for runtime, precision in COMPUTING:
                    network = open_network(whole, runtime, precision)
                    calls = {OURS: ours(network, pixels), "backbone alone": bare(runtime, precision, net, images)}
                    times = take_turns(calls, turns)
                    work = f"{runtime} {precision}, {backbone}, {size} px, batches of {batch}"
                    report.compare(work, times, unit="images/s", per=batch, goal=">= 0.9")
    report.write()


if __name__ == "__main__":
    main()
