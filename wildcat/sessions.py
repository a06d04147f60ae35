"""Exported files in their runtimes, ONNX Runtime and OpenVINO, in the place of a model."""

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from wildcat._version import __version__
from wildcat.errors import WildcatError
from wildcat.model import WildcatOutput
from wildcat.signal_stack import kept_signal_stack

METADATA = "wildcat"  # the one key under which an exported file tells how it is to be read, as JSON
SUFFIXES = {"onnx": (".onnx",), "openvino": (".xml", ".onnx")}  # runtime -> what it opens
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}

Floats = npt.NDArray[np.float32]


class ExportedNetwork(nn.Module):
    """A network whose forward pass runs elsewhere: called as a folded Wildcat model in evaluation mode is.

    It has no parameters, and its multi-maps are its class maps. It may be called from several threads.

    Attributes:
        about: what the file tells of itself; see ``docs/export.md``.
    """

    def __init__(self, file: Path, about: dict[str, Any]) -> None:
        super().__init__()
        self.file = file
        self.about = about
        mean, std = (torch.tensor(about[key]).view(3, 1, 1) for key in ("mean", "std"))
        # (pixels / 255 - mean) / std in one multiplication and one addition
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels 0..255 (N, 3, H, W), uint8, to the input of :meth:`forward`."""
        images = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return images.mul_(self._scale).add_(self._shift)

    def folded(self) -> "ExportedNetwork":
        """Itself: an exported head is folded."""
        return self

    def forward(self, images: Tensor) -> WildcatOutput:
        """Scores and maps of normalised images (N, 3, H, W), float32.

        Raises:
            WildcatError: for a size that the file does not take.
        """
        multiple = self.about["size_multiple"]
        if any(side % multiple for side in images.shape[2:]):
            height, width = images.shape[2:]
            raise WildcatError(f"{self.file} reads sides that are multiples of {multiple}; got {width} x {height}")
        found = self.outputs(images.contiguous().numpy(), ("scores", "class_maps"))
        scores, class_maps = (torch.from_numpy(array) for array in found)
        return WildcatOutput(scores, class_maps, class_maps)

    def outputs(self, images: Floats, names: Sequence[str]) -> list[Floats]:
        """The outputs of those names, from arrays to arrays."""
        raise NotImplementedError


class OnnxNetwork(ExportedNetwork):
    """An ONNX file in ONNX Runtime, on the processor, with as many threads as PyTorch uses."""

    def __init__(self, file: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        super().__init__(file, _about(self._session.get_modelmeta().custom_metadata_map.get(METADATA), file))

    def outputs(self, images: Floats, names: Sequence[str]) -> list[Floats]:
        """The outputs of those names, from arrays to arrays."""
        return self._session.run(list(names), {"images": images})  # type: ignore[no-any-return]


class OpenVinoNetwork(ExportedNetwork):
    """An OpenVINO or ONNX file in OpenVINO, on the processor, with as many threads as PyTorch uses.

    Always in single precision: left to itself, OpenVINO takes bf16 where the processor has it.
    """

    def __init__(self, file: Path) -> None:
        import openvino

        with kept_signal_stack():
            core = openvino.Core()
            model = core.read_model(file)
        text: str | None = None
        for path in ([METADATA], ["framework", METADATA]):  # of its own files, and of ONNX files that it reads
            if model.has_rt_info(path):
                text = model.get_rt_info(path).astype(str)
        super().__init__(file, _about(text, file))
        settings = {
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        with kept_signal_stack():
            self._request = core.compile_model(model, "CPU", settings).create_infer_request()
        self._lock = threading.Lock()  # a request serves one call at a time

    def outputs(self, images: Floats, names: Sequence[str]) -> list[Floats]:
        """The outputs of those names, from arrays to arrays."""
        with self._lock, kept_signal_stack():
            found = self._request.infer({"images": images}, share_inputs=True)
        return [found[name] for name in names]


def open_network(file: Path, runtime: str) -> ExportedNetwork:
    """An exported file in a runtime, "onnx" or "openvino".

    Raises:
        WildcatError: if the runtime is not installed, or the file is missing, damaged, or not one of this project's.
    """
    if file.suffix not in SUFFIXES[runtime]:
        raise WildcatError(f"the runtime {runtime} opens {' and '.join(SUFFIXES[runtime])} files; got {file}")
    if not file.is_file():
        raise WildcatError(f"{file} does not exist")
    try:
        return OnnxNetwork(file) if runtime == "onnx" else OpenVinoNetwork(file)
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
