"""Writes a model as a file for other programs: ONNX, OpenVINO, torch.export. A file is compared with the model first.

The graph takes any batch and any size. The filters of the M maps of a class are merged if their pooling is the mean,
BatchNorm is folded into the convolutions, and its four outputs are scores, probabilities, class maps and points. The
metadata of the file holds everything else that inference needs: class names, sizes, normalisation, background.
"""

import importlib.util
import itertools
import json
import logging
import math
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from wildcat._version import __version__
from wildcat.data.images import Source, load_image
from wildcat.data.registry import open_dataset
from wildcat.data.transforms import warp
from wildcat.errors import WildcatError, first_line
from wildcat.export.graph import OUTPUTS, EvenSameConv, Exportable, OnnxSameConv, replace_same_convs
from wildcat.export.network import METADATA
from wildcat.export.open import fingerprint, model_fingerprint, open_network
from wildcat.losses import probabilities
from wildcat.model import Wildcat
from wildcat.runs.settings import InferenceSettings
from wildcat.system.files import is_written_in_place, move_into_place
from wildcat.system.signal_stack import keep_signal_stack

Format: TypeAlias = Literal["onnx", "openvino", "torch"]
NEEDED: dict[Format, tuple[str, ...]] = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torch": (),
}
SUFFIX: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
TOLERANCE = 1e-4  # largest difference from PyTorch, relative to the largest value, or to 1 if that is smaller
BATCH = 4  # images per pass of a comparison
TORCH_METADATA = f"{METADATA}.json"


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        file: its path.
        differences: largest difference of each output from PyTorch's, relative to the largest value of that output, or
            to 1 if that is smaller. For points it is the difference of the class maps' values there.
    """

    file: Path
    differences: dict[str, float]

    @property
    def difference(self) -> float:
        """The largest difference of all outputs."""
        return max(self.differences.values())


def export(
    model: Wildcat, settings: InferenceSettings, file: Path, form: Format = "onnx", images: Sequence[Source] = ()
) -> Exported:
    """Export a model, run the file on synthetic images, and keep it if its outputs are those of the model.

    Args:
        model: in evaluation mode, on the CPU.
        settings: how it is applied to images; they go into the metadata.
        file: ``.onnx``, ``.xml`` (OpenVINO, with a ``.bin`` beside it) or ``.pt2``, according to the format.
        form: the format, "onnx", "openvino" or "torch" (torch.export).
        images: further images to compare on.

    Returns:
        The file, and its differences from the model.

    Raises:
        WildcatError: if the suffix is of another format, a package is missing, the model is in training mode, on
            another device or cannot be exported, or the outputs of the file differ by more than :data:`TOLERANCE`; a
            file that was there stays as it was.

    >>> import wildcat
    >>> predictor = wildcat.load("imagenet", device="cpu")
    >>> export(predictor.model, predictor.settings, Path("imagenet.onnx")).difference < 1e-4  # doctest: +SKIP
    True
    """
    if file.suffix != SUFFIX[form]:
        raise WildcatError(f"a file of format {form} ends in {SUFFIX[form]}; got {file}")
    if model.training:
        raise WildcatError("export a model in evaluation mode: call its eval() first")
    device = next(model.parameters()).device
    if device.type != "cpu":
        raise WildcatError(f"export a model that is on the CPU; this one is on {device}")
    for package in NEEDED[form]:
        if importlib.util.find_spec(package) is None:
            raise WildcatError(f"an export as {form} needs the package {package}: pip install 'wildcat-wsl[export]'")
    net = Exportable(model, settings.multi_label).eval()
    padded = replace_same_convs(net, EvenSameConv if form == "torch" else OnnxSameConv)
    # Some backbones have one graph for all sizes, others only for multiples of their stride.
    stride = model.backbone.stride
    multiples = [stride] if form == "torch" and padded else [1, stride]
    for multiple in multiples:
        metadata = _metadata(model, settings, multiple)
        try:
            _check_sizes(metadata, f"{model.backbone.name} as {form}")
            write = WRITERS[form](_program(net, form, multiple))
            return Exported(file, _write_checked(model, write, file, form, metadata, images))
        except WildcatError:
            if multiple == multiples[-1]:
                raise
    raise AssertionError("no multiple was tried")


def _metadata(model: Wildcat, settings: InferenceSettings, multiple: int) -> dict[str, Any]:
    """The metadata of the file."""
    return {
        "format": 1,
        "wildcat": __version__,
        **asdict(settings),
        "mean": list(model.backbone.mean),
        "std": list(model.backbone.std),
        "size_multiple": multiple,
        "fingerprint": fingerprint(model, settings),
        "model_fingerprint": model_fingerprint(model),
    }


def _check_sizes(metadata: dict[str, Any], what: str) -> None:
    multiple = metadata["size_multiple"]
    for size in (*metadata["score_sizes"], *metadata["map_sizes"]):
        if size % multiple:
            raise WildcatError(f"{what} takes sides that are multiples of {multiple}; a size of the run is {size}")


Write: TypeAlias = Callable[[Path, dict[str, Any]], None]  # a file and its metadata


def _write_checked(
    model: Wildcat, write: Write, file: Path, form: Format, metadata: dict[str, Any], images: Sequence[Source]
) -> dict[str, float]:
    """Write the file and keep it if its outputs are those of the model; the differences."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # In a temporary folder, so that no incomplete or wrong file ever has the final name.
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".export-") as scratch:
        first, second = (Path(scratch) / name for name in ("first", "second"))
        first.mkdir()
        second.mkdir()
        write(first / file.name, metadata)
        batches = itertools.chain(_synthetic_batches(model, metadata), _batches(images, model, metadata))
        differences = _differences(model, _runner(first / file.name, form), metadata["multi_label"], batches)
        difference = max(differences.values())
        if not difference <= TOLERANCE:
            raise WildcatError(
                f"the outputs of the {form} file differ from those of the model (difference {difference:.1e}, allowed "
                f"{TOLERANCE:.0e}): it was not kept"
            )
        write(second / file.name, metadata | {"difference": difference})
        if not is_written_in_place(file):
            file.unlink(missing_ok=True)  # an .xml must never lie beside the .bin of another model
        for part in sorted(second.iterdir()):  # .bin before .xml
            move_into_place(part, file.parent / part.name)
    return differences


@contextmanager
def _errors_only(name: str) -> Iterator[None]:
    """Let a logger of another package report errors only; afterwards it has its level of before."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _program(net: Exportable, form: Format, multiple: int) -> Any:
    """The graph, from torch.export or its ONNX exporter."""
    most = 8192 // multiple
    sides = [torch.export.Dim(name, min=1 if multiple > 1 else 2, max=most) for name in ("h", "w")]
    height, width = sides if multiple == 1 else (multiple * side for side in sides)
    shapes = ({0: torch.export.Dim("n", min=1, max=4096), 2: height, 3: width},)
    step = max(multiple, 32)
    example = (torch.zeros(2, 3, 3 * step, 4 * step),)
    with torch.no_grad(), warnings.catch_warnings(), _errors_only("torch.onnx"):
        warnings.simplefilter("ignore")  # the exporters warn of their own deprecations
        try:
            if form == "torch":
                return torch.export.export(net, example, dynamic_shapes=shapes, strict=False)
            return torch.onnx.export(
                net,
                example,
                dynamo=True,
                input_names=["images"],
                output_names=list(OUTPUTS),
                dynamic_shapes=shapes,
                opset_version=18,
                verbose=False,
            )
        except Exception as error:  # the tracers raise many types; the root cause has the reason
            raise WildcatError(f"the model cannot be exported as {form}: {first_line(_root_cause(error))}") from error


def _write_onnx(program: Any) -> Write:
    _forget_origins(program.model.graph)

    def write(file: Path, metadata: dict[str, Any]) -> None:
        program.model.metadata_props[METADATA] = json.dumps(metadata)
        program.save(file, external_data=False)

    return write


def _forget_origins(graph: Any) -> None:
    """Remove what the exporter notes of each operation: it holds the names of files on this machine."""
    for node in graph:
        node.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()


def _write_openvino(program: Any) -> Write:
    _forget_origins(program.model.graph)

    def write(file: Path, metadata: dict[str, Any]) -> None:
        import openvino

        with tempfile.TemporaryDirectory() as scratch:
            program.save(Path(scratch) / "model.onnx", external_data=False)
            with keep_signal_stack():
                model = openvino.Core().read_model(Path(scratch) / "model.onnx")
            model.set_rt_info(json.dumps(metadata), [METADATA])
            openvino.save_model(model, file, compress_to_fp16=False)

    return write


def _write_torch(program: Any) -> Write:
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # names of files on this machine

    def write(file: Path, metadata: dict[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.export.save(program, file, extra_files={TORCH_METADATA: json.dumps(metadata)})

    return write


WRITERS: dict[Format, Callable[[Any], Write]] = {
    "onnx": _write_onnx,
    "openvino": _write_openvino,
    "torch": _write_torch,
}

Run: TypeAlias = Callable[[Tensor], tuple[Tensor, ...]]  # normalised images to the four outputs


def _runner(file: Path, form: Format) -> Run:
    """The file in its runtime."""
    if form == "torch":
        module = torch.export.load(file).module()
        return lambda images: module(images)
    network = open_network(file, form)
    return lambda images: tuple(torch.from_numpy(array) for array in network.outputs(images.numpy(), OUTPUTS))


def _differences(model: Wildcat, run: Run, multi_label: bool, batches: Iterable[Tensor]) -> dict[str, float]:
    """The largest difference of each output over batches of normalised images."""
    worst = dict.fromkeys(OUTPUTS, 0.0)
    for images in batches:
        with torch.inference_mode():
            output = model(images)
            exported = dict(zip(OUTPUTS, run(images), strict=True))
        expected = {
            "scores": output.scores,
            "probabilities": probabilities(output.scores, multi_label),
            "class_maps": output.class_maps,
        }
        for name, values in expected.items():
            if values.shape != exported[name].shape:
                return dict.fromkeys(OUTPUTS, float("inf"))
            worst[name] = max(worst[name], _relative(values, exported[name]))
        # Either of two cells that are equal but for rounding may be the point: compare the values of the cells.
        height, width = output.class_maps.shape[2:]
        column, row = (exported["points"][..., axis].mul(side).long() for axis, side in ((0, width), (1, height)))
        chosen = output.class_maps.flatten(2).gather(2, (row * width + column)[..., None])[..., 0]
        worst["points"] = max(worst["points"], _relative(output.class_maps.flatten(2).amax(dim=2), chosen) / 2)
    return worst


def _relative(expected: Tensor, actual: Tensor) -> float:
    difference = float((expected - actual).abs().max() / expected.abs().max().clamp(min=1))
    return difference if math.isfinite(difference) else math.inf  # max would ignore NaN


def _synthetic_batches(model: Wildcat, metadata: dict[str, Any]) -> Iterator[Tensor]:
    """Normalised synthetic images: two at each size of the settings, and one of an odd size."""
    dataset = open_dataset("synthetic:count=2", "test")
    for images in _batches([dataset.image(index) for index in range(2)], model, metadata):
        yield images
    more = 13 if metadata["size_multiple"] == 1 else metadata["size_multiple"]
    yield nn.functional.pad(images[:1], (0, more, 0, 0), mode="replicate")


def _batches(images: Sequence[Source], model: Wildcat, metadata: dict[str, Any]) -> Iterator[Tensor]:
    """Normalised batches of images, at each size of the settings."""
    sizes = sorted({*metadata["score_sizes"], *metadata["map_sizes"]})
    for start in range(0, len(images), BATCH):
        loaded = [load_image(source, draft_size=max(sizes)) for source in images[start : start + BATCH]]
        for size in sizes:
            pixels = np.stack([warp(image, size) for image in loaded])
            yield model.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2)).contiguous()


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
