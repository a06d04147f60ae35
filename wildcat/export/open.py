"""Opens an exported file in a runtime."""

import hashlib
from pathlib import Path
from typing import Literal

from torch import nn

from wildcat._version import __version__
from wildcat.errors import WildcatError, first_line
from wildcat.export.network import ExportedNetwork
from wildcat.export.onnx_runtime import OnnxNetwork
from wildcat.export.openvino_runtime import OpenVinoNetwork
from wildcat.system.devices import Precision, cpu_has_matrix_units

SUFFIXES = {"onnx": (".onnx",), "openvino": (".xml", ".onnx")}  # runtime -> files that it opens
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}


def precision_in(runtime: str, precision: Precision) -> Literal["fp32", "bf16"]:
    """The precision in which a runtime, "onnx" or "openvino", computes; "auto" is bf16 where that is faster.

    Raises:
        WildcatError: if the runtime does not have it.
    """
    if precision == "auto":
        return "bf16" if runtime == "openvino" and cpu_has_matrix_units() else "fp32"
    if runtime == "onnx" and precision == "bf16":
        raise WildcatError("the runtime onnx computes in single precision; bf16 is PyTorch's and OpenVINO's")
    return precision


def open_network(file: Path, runtime: str, precision: Precision = "fp32") -> ExportedNetwork:
    """Open an exported file in a runtime.

    Args:
        file: ``.onnx`` or ``.xml``, written by :func:`wildcat.export.write.export`.
        runtime: "onnx" for ``.onnx``, "openvino" for either.
        precision: of the backbone; "auto" takes bf16 where it is faster.

    Returns:
        The network; threads as many as PyTorch's.

    Raises:
        WildcatError: if the runtime is not installed or does not have the precision, or the file is missing, damaged,
            or not written by this package.

    >>> network = open_network(Path("runs/mine/exports/model.onnx"), "onnx")  # doctest: +SKIP
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
        raise WildcatError(f"{file} cannot be opened by {runtime}: {first_line(error)}") from error


def fingerprint(model: nn.Module, settings: object) -> str:
    """Identifies what an exported file is made from: weights, structure, settings, version of this package."""
    return hashlib.sha256(f"{__version__} {settings!r} {model_fingerprint(model)}".encode()).hexdigest()


def model_fingerprint(model: nn.Module) -> str:
    """Identifies a model: weights and structure alone."""
    digest = hashlib.sha256(f"{model!r}".encode())
    # Mean and standard deviation are buffers that are not among the weights.
    for name, value in (model.state_dict() | dict(model.named_buffers())).items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def missing(runtime: str) -> WildcatError:
    """The error for a runtime whose package is not installed."""
    message = f"the runtime {runtime} needs the package {PACKAGES[runtime]}: pip install 'wildcat-wsl[export]'"
    return WildcatError(message)
