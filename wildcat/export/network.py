"""What an exported file is in every runtime: a network in the place of a model."""

import json
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from wildcat.errors import WildcatError
from wildcat.model import WildcatOutput

METADATA = "wildcat"  # the one key under which an exported file tells how it is to be read, as JSON
MAX_COMPILED_SHAPES = 4  # compiled one by one; each costs some memory

Floats: TypeAlias = npt.NDArray[np.float32]
Images: TypeAlias = Floats | npt.NDArray[np.uint8]  # normalised (N, 3, H, W), or pixels (N, H, W, 3)
Shape: TypeAlias = tuple[int, ...]
Run: TypeAlias = Callable[[Images, Sequence[str]], list[Floats]]  # images and the names of outputs to these


class ExportedNetwork(nn.Module):
    """A network whose forward pass runs elsewhere: called as a folded Wildcat model in evaluation mode is.

    It has no parameters, and its multi-maps are its class maps. It may be called from several threads.

    The file's graph is open to any number of images of any size. The first few shapes of input that come are compiled
    for themselves, which is up to an eighth faster; what comes then and is none of them shares the open graph.

    Attributes:
        about: what the file tells of itself; see ``docs/export.md``.
        precision: of the backbone. The head's outputs, and all that comes after, are float32 in either case.
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

    def merged(self) -> "ExportedNetwork":
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
            if (kind, shape) not in self._compiled and sum(
                known is not None for _, known in self._compiled
            ) == MAX_COMPILED_SHAPES:
                shape = None
            if (kind, shape) not in self._compiled:
                self._compiled[kind, shape] = self._compile(kind, shape)
            run = self._compiled[kind, shape]
        return run(images, names)

    def _compile(self, kind: np.dtype[Any], shape: Shape | None) -> Run:
        """The graph for inputs of a type, and of one shape or of any."""
        raise NotImplementedError


def parse_metadata(text: str | None, file: Path) -> dict[str, Any]:
    """What a file tells of itself, from the text under its key."""
    if text is None:
        raise WildcatError(f"{file} was not written by wildcat export: it does not tell how it is to be read")
    about: dict[str, Any] = json.loads(text)
    return about
