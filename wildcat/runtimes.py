"""Predictors whose network runs in PyTorch, ONNX Runtime or OpenVINO, with the same results."""

import contextlib
import importlib.util
import os
import platform
import statistics
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Literal, TypeAlias, cast

import torch

from wildcat.backbones.inference import AUTO, Precision, prepared
from wildcat.config import read_json
from wildcat.errors import WildcatError
from wildcat.export.network import ExportedNetwork
from wildcat.export.open import PACKAGES, SUFFIXES, fingerprint, missing, open_network, precision_in
from wildcat.masks import Background
from wildcat.model import Wildcat
from wildcat.prediction.loading import load as load_model
from wildcat.prediction.multiscale import CombinedPredictor
from wildcat.prediction.predictor import Predictor
from wildcat.prediction.result import Settings
from wildcat.system.files import write_json
from wildcat.system.memory import kept_memory

Runtime: TypeAlias = Literal["torch", "onnx", "openvino", "auto"]
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnx", "openvino", "auto")
EXPORTED = "model.onnx"  # both runtimes open this file
CHOICE = "fastest.json"


def load(
    run: str | Path,
    runtime: Runtime = "torch",
    precision: Precision = "fp32",
    device: str | torch.device = AUTO,
) -> Predictor:
    """A predictor of :func:`wildcat.load` whose network runs in another runtime, or of an exported file.

    The first time, the model is exported next to the run (``RUN/exports``; for "imagenet" and models of the hub, in the
    user's cache folder), and again whenever the run has changed. Results are those of PyTorch within
    :data:`wildcat.export.write.TOLERANCE`; there is one map per class.

    Args:
        run: what :func:`wildcat.load` takes; or an exported ``.onnx`` or ``.xml`` file, by its path.
        runtime: where the network runs; an exported file runs in a runtime that opens it. "auto" takes the fastest that
            is installed, by a short measurement on this machine that is kept with the exported file; on a GPU it is
            PyTorch.
        precision: of the trunk; "auto" takes bf16 where it is faster. ONNX Runtime computes in single precision.
        device: of PyTorch, as for :func:`wildcat.load`; the other runtimes compute on the processor.

    Raises:
        WildcatError: if there is no such run, file or device, or the runtime is not installed.
    """
    if runtime not in RUNTIMES:
        raise WildcatError(f"unknown runtime {runtime!r}; known: {', '.join(RUNTIMES)}")
    file = Path(run)
    exported = file.suffix in (".onnx", ".xml")
    if exported or runtime in PACKAGES:
        if str(device) not in (AUTO, "cpu"):
            what = f"the exported file {run}" if exported else f"the runtime {runtime}"
            raise WildcatError(f"{what} computes on the processor, not on {device}")
        device = "cpu"
    if exported:
        return _predictor_of(file, runtime, precision)
    predictor = load_model(run, device, precision)
    installed = [name for name in PACKAGES if _is_installed(name)]
    several = isinstance(predictor, CombinedPredictor)
    on_gpu = predictor.device.type != "cpu"
    if runtime == "torch" or (runtime == "auto" and (several or on_gpu or not installed)):
        return predictor
    if several:
        raise WildcatError(f"{run} holds several models, which run in PyTorch; the runtime {runtime} takes one of them")
    folder = exports_folder(run)
    if runtime == "auto":
        able = [name for name in installed if not (name == "onnx" and precision == "bf16")]
        networks = {name: _network(predictor, folder, name) for name in able}
        runtime = _fastest(predictor, networks, folder)
        return predictor if runtime == "torch" else _with(networks[runtime], predictor.settings)
    if runtime not in installed:
        raise missing(runtime)
    return _with(_network(predictor, folder, runtime), predictor.settings)


def exports_folder(run: str | Path) -> Path:
    """Where exported files of a run are kept: in its folder, or in the user's cache for a model without one."""
    if Path(run).is_dir():
        return Path(run) / "exports"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "wildcat" / str(run).replace("/", "--")


def _with(network: ExportedNetwork, settings: Settings) -> Predictor:
    return Predictor(cast(Wildcat, network), settings, precision=network.precision)  # it is called as a model is


def _predictor_of(file: Path, runtime: Runtime, precision: Precision) -> Predictor:
    """From an exported file alone."""
    if runtime in ("torch", "auto"):  # PyTorch does not open it: what is installed, OpenVINO last
        able = [name for name, suffixes in SUFFIXES.items() if file.suffix in suffixes]
        name = next((name for name in able if _is_installed(name)), able[0])
    else:
        name = runtime
    network = open_network(file, name, precision)
    about = network.about
    settings = Settings(
        tuple(about["classes"]),
        about["multi_label"],
        tuple(about["score_sizes"]),
        tuple(about["map_sizes"]),
        about["mirror"],
        Background(**about["background"]),
        about["background_class"],
    )
    return _with(network, settings)


def _is_installed(runtime: str) -> bool:
    return importlib.util.find_spec(PACKAGES[runtime]) is not None


def _network(predictor: Predictor, folder: Path, runtime: str) -> ExportedNetwork:
    """The model's ONNX file in a folder, made unless it is there and of these weights and settings."""
    file = folder / EXPORTED
    precision = precision_in(runtime, predictor.precision)  # before anything is exported
    wanted = fingerprint(predictor.model, predictor.settings)
    if file.is_file():
        with contextlib.suppress(WildcatError):  # of another version, or damaged
            network = open_network(file, runtime, precision)
            if network.about.get("fingerprint") == wanted:
                return network
    from wildcat.export.write import export  # not before: it takes longer to import than one picture to read

    print(f"exporting for this and later times: {file}", file=sys.stderr)
    export(predictor, file, "onnx")
    return open_network(file, runtime, precision)


def _fastest(predictor: Predictor, networks: dict[str, ExportedNetwork], folder: Path) -> Runtime:
    """The name of the fastest runtime for this model on this machine, measured once and then remembered."""
    packages = ("torch", *PACKAGES.values())
    where = {
        "machine": platform.node(),
        "threads": torch.get_num_threads(),
        "precision": predictor.precision,
        "versions": {name: metadata.version(name) for name in packages if importlib.util.find_spec(name)},
        "fingerprint": fingerprint(predictor.model, predictor.settings),
    }
    file = folder / CHOICE
    if file.is_file():
        known = read_json(file)
        if all(known.get(key) == value for key, value in where.items()):
            return cast(Runtime, known["fastest"])
    size = max(*predictor.settings.score_sizes, *predictor.settings.map_sizes)
    model = prepared(predictor.model, predictor.precision).folded()
    seconds = measure({"torch": model, **networks}, size)
    fastest = min(seconds, key=lambda name: seconds[name])
    write_json(file, {"fastest": fastest, "seconds": seconds, **where})
    return cast(Runtime, fastest)


def measure(networks: Mapping[str, Wildcat | ExportedNetwork], size: int) -> dict[str, float]:
    """Median seconds of each network for 4 pictures, of three runs, taken turn by turn after one to warm up."""
    pixels = torch.zeros(4, size, size, 3, dtype=torch.uint8).permute(0, 3, 1, 2)  # as pictures come
    taken: dict[str, list[float]] = {name: [] for name in networks}
    with torch.inference_mode(), kept_memory():  # as in streams
        for _ in range(1 + 3):
            for name, network in networks.items():
                start = time.perf_counter()
                network(network.normalize(pixels))
                taken[name].append(time.perf_counter() - start)
    return {name: round(statistics.median(times[1:]), 6) for name, times in taken.items()}
