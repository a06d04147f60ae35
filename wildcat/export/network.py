"""An exported file as a network, whatever its runtime."""

import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wildcat.errors import WildcatError
from wildcat.masks import MAX_CUE_EXPONENT, MODES
from wildcat.model import WildcatOutput
from wildcat.system.json_object import JsonObject

Runtime: TypeAlias = Literal["torch", "onnx", "openvino", "auto"]
"""What a network runs in; "auto" stands for the fastest one."""

RUNTIMES: tuple[Runtime, ...] = ("torch", "onnx", "openvino", "auto")

METADATA = "wildcat"  # the key under which an exported file holds its metadata, as JSON
MAX_COMPILED_SHAPES = 4  # shapes of input with a compiled graph of their own; each needs some memory

Floats: TypeAlias = npt.NDArray[np.float32]
Images: TypeAlias = Floats | npt.NDArray[np.uint8]  # normalised (N, 3, H, W), or pixels (N, H, W, 3)
Shape: TypeAlias = tuple[int, ...]
Run: TypeAlias = Callable[[Images, Sequence[str]], list[Floats]]  # from images and names of outputs to these outputs


class ExportedNetwork(ABC):
    """A network whose forward pass runs in another runtime; see :class:`wildcat.prediction.network.Network`.

    The file has no output for the M maps of a class, so its multi-maps are its class maps. Calls may come from several
    threads.

    The graph of the file takes any number of images of any size. The first few shapes of input get a compiled graph of
    their own, which is up to an eighth faster; further shapes share the open graph.

    Args:
        file: the exported file.
        metadata: of the file; see ``docs/export.md``.

    Attributes:
        precision: of the backbone. The outputs are float32 in either case.
        runtime: name of the runtime.
        device: the CPU.
    """

    precision: Literal["fp32", "bf16"] = "fp32"
    runtime: Runtime
    device = torch.device("cpu")

    def __init__(self, file: Path, metadata: dict[str, Any]) -> None:
        self.file = file
        self.metadata = metadata
        self._compiled: dict[tuple[np.dtype[Any], Shape | None], Run] = {}  # shape None: the open graph
        self._compiling = threading.Lock()
        mean, std = (torch.tensor(metadata[key]).view(3, 1, 1) for key in ("mean", "std"))
        # (pixels / 255 - mean) / std in one multiplication and one addition
        self._scale, self._shift = 1 / (255 * std), -mean / std

    def normalize(self, pixels: Tensor) -> Tensor:
        """Pixels 0..255 (N, 3, H, W), uint8, to the input of a call."""
        images = pixels.to(torch.float32, memory_format=torch.contiguous_format)
        return images.mul_(self._scale).add_(self._shift)

    def merged(self) -> "ExportedNetwork":
        """The network itself: it gives one map per class."""
        return self

    def fingerprint(self, settings: object) -> str:
        """Identifies the model that was exported: its weights, structure, settings and version of the package."""
        return str(self.metadata["fingerprint"])

    @property
    def model_fingerprint(self) -> str:
        """Identifies weights and structure; files of earlier versions have only :meth:`fingerprint`."""
        return str(self.metadata.get("model_fingerprint", self.metadata["fingerprint"]))

    def __call__(self, images: Tensor) -> WildcatOutput:
        """Scores (N, C) and class maps (N, C, h, w) of the result of :meth:`normalize` for images (N, 3, H, W).

        Raises:
            WildcatError: for a size that the file does not take.
        """
        multiple = self.metadata["size_multiple"]
        if any(side % multiple for side in images.shape[2:]):
            height, width = images.shape[2:]
            raise WildcatError(f"{self.file} takes sides that are multiples of {multiple}; got {width} x {height}")
        array = (images.permute(0, 2, 3, 1) if images.dtype == torch.uint8 else images).contiguous().numpy()
        scores, class_maps = map(torch.from_numpy, self.outputs(array, ("scores", "class_maps")))
        return WildcatOutput(scores, class_maps, class_maps)

    def outputs(self, images: Images, names: Sequence[str]) -> list[Floats]:
        """Outputs of the file by their names, out of :data:`wildcat.export.graph.OUTPUTS`."""
        kind: np.dtype[Any] = images.dtype
        shape: Shape | None = images.shape
        with self._compiling:
            if (kind, shape) not in self._compiled and sum(
                known is not None for _, known in self._compiled
            ) == MAX_COMPILED_SHAPES:
                shape = None
            if (kind, shape) not in self._compiled:
                self._compiled[kind, shape] = self._compile(kind, shape)
            run = self._compiled[kind, shape]
        return run(images, names)

    @abstractmethod
    def _compile(self, kind: np.dtype[Any], shape: Shape | None) -> Run:
        """The graph for inputs of a type, and of one shape or, with None, of any."""


def parse_metadata(text: str | None, file: Path) -> dict[str, Any]:
    """The metadata of an exported file, from the text under its key.

    Raises:
        WildcatError: if there is none, or an entry is not of the format.
    """
    if text is None:
        raise WildcatError(f"{file} was not written by wildcat export: it has no metadata of wildcat")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WildcatError(f"the metadata of {file} are not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise WildcatError(f"the metadata of {file} must be a JSON object; got {type(content).__name__}")
    values = JsonObject(content, str(file))
    classes = values.texts("classes")
    if not classes or len(set(classes)) < len(classes):
        raise values.error("classes", "a list of different names")
    for key in ("score_sizes", "map_sizes"):
        if not values.sizes(key):
            raise values.error(key, "a list of whole numbers above 0")
    for key in ("multi_label", "mirror", "background_class"):
        values.flag(key)
    background = values.child("background")
    if background.text("mode") not in MODES:
        raise background.error("mode", " or ".join(MODES))
    if not background.number("constant", low=0, high=1e6) > 0:
        raise background.error("constant", "a number above 0")
    if not background.number("cue_exponent", 0.0, 0, MAX_CUE_EXPONENT) >= 0:
        raise background.error("cue_exponent", f"a number from 0 to {MAX_CUE_EXPONENT:g}")
    if not values.count("size_multiple"):
        raise values.error("size_multiple", "a whole number above 0")
    values.text("fingerprint")
    values.text("model_fingerprint", "")
    mean, std = values.numbers("mean", high=1000), values.numbers("std", high=1000, low=0)
    return content | {"mean": mean, "std": std}
