"""Exported files in their runtimes, ONNX Runtime and OpenVINO, in the place of a model."""

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from wildcat._version import __version__
from wildcat.errors import WildcatError
from wildcat.inference import Precision, processor_has_matrix_units
from wildcat.model import WildcatOutput
from wildcat.signal_stack import kept_signal_stack

METADATA = "wildcat"  # the one key under which an exported file tells how it is to be read, as JSON
SUFFIXES = {"onnx": (".onnx",), "openvino": (".xml", ".onnx")}  # runtime -> what it opens
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}

SHAPES = 4  # compiled one by one; each costs some memory

Floats: TypeAlias = npt.NDArray[np.float32]
Images: TypeAlias = Floats | npt.NDArray[np.uint8]  # normalised (N, 3, H, W), or pixels (N, H, W, 3)
Shape: TypeAlias = tuple[int, ...]
Run: TypeAlias = Callable[[Images, Sequence[str]], list[Floats]]  # images and the names of outputs to these


class ExportedNetwork(nn.Module):
    """A network whose forward pass runs elsewhere: called as a folded Wildcat model in evaluation mode is.

    It has no parameters, and its multi-maps are its class maps. It may be called from several threads.

    The file's graph is open to any number of pictures of any size. The first few shapes of input that come are compiled
    for themselves, which is up to an eighth faster; what comes then and is none of them shares the open graph.

    Attributes:
        about: what the file tells of itself; see ``docs/export.md``.
        precision: of the trunk. The head's outputs, and all that comes after, are in single precision in either case.
        runtime: its name.
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    runtime: ClassVar[str]

    def __init__(self, file: Path, about: dict[str, Any]) -> None:
        super().__init__()
        self.file = file
        self.about = about
        self._compiled: dict[tuple[np.dtype[Any], Shape | None], Run] = {}  # None: of the open graph
        self._compiling = threading.Lock()
        mean, std = (torch.tensor(about[key]).view(3, 1, 1) for key in ("mean", "std"))
        # (pixels / 255 - mean) / std in one multiplication and one addition
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels 0..255 (N, 3, H, W), uint8, to what :meth:`forward` takes."""
        images = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return images.mul_(self._scale).add_(self._shift)

    def folded(self) -> "ExportedNetwork":
        """Itself: an exported head is folded."""
        return self

    def forward(self, images: Tensor) -> WildcatOutput:
        """Scores and maps of what :meth:`normalize` gives: images (N, 3, H, W).

        Raises:
            WildcatError: for a size that the file does not take.
        """
        multiple = self.about["size_multiple"]
        if any(side % multiple for side in images.shape[2:]):
            height, width = images.shape[2:]
            raise WildcatError(f"{self.file} reads sides that are multiples of {multiple}; got {width} x {height}")
        given = images.permute(0, 2, 3, 1) if images.dtype == torch.uint8 else images
        found = self.outputs(given.contiguous().numpy(), ("scores", "class_maps"))
        scores, class_maps = (torch.from_numpy(array) for array in found)
        return WildcatOutput(scores, class_maps, class_maps)

    def outputs(self, images: Images, names: Sequence[str]) -> list[Floats]:
        """The outputs of those names, from arrays to arrays."""
        kind: np.dtype[Any] = images.dtype
        shape: Shape | None = images.shape
        with self._compiling:
            if (kind, shape) not in self._compiled and sum(known is not None for _, known in self._compiled) == SHAPES:
                shape = None
            if (kind, shape) not in self._compiled:
                self._compiled[kind, shape] = self._compile(kind, shape)
            run = self._compiled[kind, shape]
        return run(images, names)

    def _compile(self, kind: np.dtype[Any], shape: Shape | None) -> Run:
        """The graph for inputs of a type, and of one shape or of any."""
        raise NotImplementedError


class OnnxNetwork(ExportedNetwork):
    """An ONNX file in ONNX Runtime, on the processor, with as many threads as PyTorch uses."""

    runtime = "onnx"

    def __init__(self, file: Path) -> None:
        import onnxruntime

        self._library = onnxruntime
        self._path = str(file)
        session = self._session(None)
        super().__init__(file, _about(session.get_modelmeta().custom_metadata_map.get(METADATA), file))
        self._axes = session.get_inputs()[0].shape  # a name where it is open
        self._compiled[np.dtype(np.float32), None] = self._run_of(session)

    def _session(self, shape: Shape | None) -> Any:
        options = self._library.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        if shape is not None:
            for axis, side in zip(self._axes, shape, strict=True):
                if isinstance(axis, str):
                    options.add_free_dimension_override_by_name(axis, side)
        return self._library.InferenceSession(self._path, options, providers=["CPUExecutionProvider"])

    def _compile(self, kind: np.dtype[Any], shape: Shape | None) -> Run:
        return self._run_of(self._session(shape))

    @staticmethod
    def _run_of(session: Any) -> Run:
        return lambda images, names: session.run(list(names), {"images": images})


class OpenVinoNetwork(ExportedNetwork):
    """An OpenVINO or ONNX file in OpenVINO, on the processor, with as many threads as PyTorch uses.

    It takes pixels and normalises them in the first pass of its graph. PyTorch would need passes of its own, whose
    threads, waiting for more, hold up those of OpenVINO.
    """

    runtime = "openvino"

    def __init__(self, file: Path, precision: Literal["fp32", "bf16"]) -> None:
        import openvino

        with kept_signal_stack():
            self._core = openvino.Core()
            self._model = self._core.read_model(file)
        text: str | None = None
        for path in ([METADATA], ["framework", METADATA]):  # of its own files, and of ONNX files that it reads
            if self._model.has_rt_info(path):
                text = self._model.get_rt_info(path).astype(str)
        super().__init__(file, _about(text, file))
        self.precision = precision

    def normalize(self, pixels: Tensor) -> Tensor:
        """The pixels as they are: the graph normalises them."""
        return pixels

    def _compile(self, kind: np.dtype[Any], shape: Shape | None) -> Run:
        def compiled(model: Any, precision: str, features: Shape | None = None) -> Any:
            return self._request(self._of_pixels(model) if kind == np.uint8 else model, precision, shape, features)

        with kept_signal_stack():
            if self.precision == "fp32":
                requests = [compiled(self._model.clone(), "f32")]
            else:
                trunk = compiled(_trunk(self._model.clone()), "bf16")
                features = None if shape is None else tuple(trunk.model_outputs[0].shape)
                requests = [trunk, compiled(_head(self._model.clone()), "f32", features)]
        one_call = threading.Lock()  # is what a request serves at a time

        def run(images: Images, names: Sequence[str]) -> list[Floats]:
            inputs = {"images": images}
            with one_call, kept_signal_stack():
                *trunk, last = requests
                for request in trunk:
                    inputs["features"] = request.infer(inputs, share_inputs=True, share_outputs=True)[0]
                found = last.infer(inputs, share_inputs=True)
            return [found[name] for name in names]

        return run

    def _of_pixels(self, model: Any) -> Any:
        """The model for pixels (N, H, W, 3), uint8."""
        from openvino import Layout, Type
        from openvino.preprocess import PrePostProcessor

        steps = PrePostProcessor(model)
        images = steps.input("images")
        images.tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
        images.model().set_layout(Layout("NCHW"))
        mean, std = ([255 * value for value in self.about[name]] for name in ("mean", "std"))
        images.preprocess().convert_element_type(Type.f32).mean(mean).scale(std)
        return steps.build()

    def _request(self, model: Any, precision: str, images: Shape | None, features: Shape | None = None) -> Any:
        shapes = {"images": images, "features": features}
        model.reshape({name: list(shape) for name, shape in shapes.items() if shape is not None})
        settings = {
            "INFERENCE_PRECISION_HINT": precision,  # left to itself, it takes bf16 where the processor has it
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        return self._core.compile_model(model, "CPU", settings).create_infer_request()


def _features(model: Any) -> Any:
    """What the head of a model of OpenVINO reads: the input of its convolution."""
    node = model.output("class_maps").get_node()
    while node.get_type_name() != "Convolution":  # the addition of its bias
        node = node.input_value(0).get_node()
    return node.input_value(0)


def _trunk(model: Any) -> Any:
    """Images to features (N, h, w, D): convolutions keep them so, and another order would be made for the way only."""
    import openvino
    from openvino import opset8 as operations

    features = operations.transpose(_features(model), np.array([0, 2, 3, 1]))
    return openvino.Model([operations.result(features)], model.get_parameters(), "trunk")


def _head(model: Any) -> Any:
    """Features (N, h, w, D) to the outputs; it still takes the images, whose size some of its nodes ask for."""
    import openvino
    from openvino import opset8 as operations

    features = _features(model)
    readers = features.get_target_inputs()
    count, channels, *sides = features.get_partial_shape()
    given = operations.parameter(openvino.PartialShape([count, *sides, channels]), np.float32, "features")
    given.output(0).set_names({"features"})
    in_torch_order = operations.transpose(given, np.array([0, 3, 1, 2]))
    for reader in readers:
        reader.replace_source_output(in_torch_order.output(0))
    return openvino.Model(model.get_results(), [*model.get_parameters(), given], "head")


def precision_in(runtime: str, precision: Precision) -> Literal["fp32", "bf16"]:
    """The precision that is meant by a name in a runtime, "onnx" or "openvino"; "auto" is bf16 where that is faster.

    Raises:
        WildcatError: if the runtime does not have it.
    """
    if precision == "auto":
        return "bf16" if runtime == "openvino" and processor_has_matrix_units() else "fp32"
    if runtime == "onnx" and precision == "bf16":
        raise WildcatError("the runtime onnx computes in single precision; bf16 is PyTorch's and OpenVINO's")
    return precision


def open_network(file: Path, runtime: str, precision: Precision = "fp32") -> ExportedNetwork:
    """An exported file in a runtime, "onnx" or "openvino".

    Raises:
        WildcatError: if the runtime is not installed or does not have the precision, or the file is missing, damaged,
            or not one of this project's.
    """
    known = precision_in(runtime, precision)
    if file.suffix not in SUFFIXES[runtime]:
        raise WildcatError(f"the runtime {runtime} opens {' and '.join(SUFFIXES[runtime])} files; got {file}")
    if not file.is_file():
        raise WildcatError(f"{file} does not exist")
    try:
        return OnnxNetwork(file) if runtime == "onnx" else OpenVinoNetwork(file, known)
    except ImportError as error:
        raise missing(runtime) from error
    except WildcatError:
        raise
    except Exception as error:  # the runtimes raise types of their own
        raise WildcatError(f"{file} cannot be opened by {runtime}: {str(error).splitlines()[0]}") from error


def fingerprint(model: nn.Module, settings: object) -> str:
    """Identifies what an exported file is made from: weights, structure, how pictures are read, this package."""
    digest = hashlib.sha256(f"{__version__} {model!r} {settings!r}".encode())
    for name, value in model.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def missing(runtime: str) -> WildcatError:
    """What to say where a runtime's package is not installed."""
    told = f"the runtime {runtime} needs the package {PACKAGES[runtime]}: pip install 'wildcat-wsl[export]'"
    return WildcatError(told)


def _about(text: str | None, file: Path) -> dict[str, Any]:
    if text is None:
        raise WildcatError(f"{file} was not written by wildcat export: it does not tell how it is to be read")
    about: dict[str, Any] = json.loads(text)
    return about
