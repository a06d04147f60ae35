"""An exported network in OpenVINO."""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from wildcat.export.network import METADATA, ExportedNetwork, Floats, Images, Run, Shape, parse_metadata
from wildcat.system.signal_stack import keep_signal_stack


class OpenVinoNetwork(ExportedNetwork):
    """An OpenVINO or ONNX file in OpenVINO, on the CPU, with as many threads as PyTorch uses.

    Its graph normalises the pixels. PyTorch would need passes of its own, and its threads, waiting for more work, would
    slow down those of OpenVINO.
    """

    runtime = "openvino"

    def __init__(self, file: Path, precision: Literal["fp32", "bf16"]) -> None:
        import openvino

        with keep_signal_stack():
            self._core = openvino.Core()
            self._model = self._core.read_model(file)
        text: str | None = None
        for path in ([METADATA], ["framework", METADATA]):  # in its own files, and in ONNX files
            if self._model.has_rt_info(path):
                text = self._model.get_rt_info(path).astype(str)
        super().__init__(file, parse_metadata(text, file))
        self.precision = precision

    def normalize(self, pixels: Tensor) -> Tensor:
        """The pixels as they are: the graph normalises them."""
        return pixels

    def _compile(self, kind: np.dtype[Any], shape: Shape | None) -> Run:
        def compiled(model: Any, precision: str, features: Shape | None = None) -> Any:
            return self._request(self._of_pixels(model) if kind == np.uint8 else model, precision, shape, features)

        with keep_signal_stack():
            if self.precision == "fp32":
                requests = [compiled(self._model.clone(), "f32")]
            else:
                backbone = compiled(_backbone(self._model.clone()), "bf16")
                features = None if shape is None else tuple(backbone.model_outputs[0].shape)
                requests = [backbone, compiled(_head(self._model.clone()), "f32", features)]
        one_call = threading.Lock()  # a request serves one call at a time

        def run(images: Images, names: Sequence[str]) -> list[Floats]:
            inputs = {"images": images}
            with one_call, keep_signal_stack():
                *backbone, last = requests
                for request in backbone:
                    inputs["features"] = request.infer(inputs, share_inputs=True, share_outputs=True)[0]
                outputs = last.infer(inputs, share_inputs=True)
            return [outputs[name] for name in names]

        return run

    def _of_pixels(self, model: Any) -> Any:
        """The model for pixels (N, H, W, 3), uint8."""
        from openvino import Layout, Type
        from openvino.preprocess import PrePostProcessor

        steps = PrePostProcessor(model)
        images = steps.input("images")
        images.tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
        images.model().set_layout(Layout("NCHW"))
        mean, std = ([255 * value for value in self.metadata[name]] for name in ("mean", "std"))
        images.preprocess().convert_element_type(Type.f32).mean(mean).scale(std)
        return steps.build()

    def _request(self, model: Any, precision: str, images: Shape | None, features: Shape | None = None) -> Any:
        shapes = {"images": images, "features": features}
        model.reshape({name: list(shape) for name, shape in shapes.items() if shape is not None})
        settings = {
            "INFERENCE_PRECISION_HINT": precision,  # the default is bf16 where the CPU has it
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        return self._core.compile_model(model, "CPU", settings).create_infer_request()


def _features(model: Any) -> Any:
    """The features in a model of OpenVINO: the input of the head's convolution."""
    node = model.output("class_maps").get_node()
    while node.get_type_name() != "Convolution":  # the addition of its bias
        node = node.input_value(0).get_node()
    return node.input_value(0)


def _backbone(model: Any) -> Any:
    """Images to features (N, h, w, D), the order in which OpenVINO's convolutions keep them."""
    import openvino
    from openvino import opset8 as operations

    features = operations.transpose(_features(model), np.array([0, 2, 3, 1]))
    return openvino.Model([operations.result(features)], model.get_parameters(), "backbone")


def _head(model: Any) -> Any:
    """Features (N, h, w, D) to the outputs; the images are an input as well, as some nodes use their size."""
    import openvino
    from openvino import opset8 as operations

    features = _features(model)
    consumers = features.get_target_inputs()
    count, channels, *sides = features.get_partial_shape()
    given = operations.parameter(openvino.PartialShape([count, *sides, channels]), np.float32, "features")
    given.output(0).set_names({"features"})
    in_torch_order = operations.transpose(given, np.array([0, 3, 1, 2]))
    for consumer in consumers:
        consumer.replace_source_output(in_torch_order.output(0))
    return openvino.Model(model.get_results(), [*model.get_parameters(), given], "head")
