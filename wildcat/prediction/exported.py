"""Predictors of exported files, and the file that is exported next to a run when another runtime is asked for."""

import contextlib
import importlib.util
import logging
import os
from pathlib import Path

from wildcat.errors import WildcatError
from wildcat.export.network import ExportedNetwork, Runtime
from wildcat.export.open import PACKAGES, SUFFIXES, missing, open_network, precision_in
from wildcat.masks import Background
from wildcat.prediction.fastest import fastest_runtime
from wildcat.prediction.predictor import Part, Predictor
from wildcat.runs.settings import InferenceSettings
from wildcat.system.devices import Precision

logger = logging.getLogger(__name__)

FILE_SUFFIXES = (".onnx", ".xml")
EXPORTED = "model.onnx"  # both runtimes open this file


def load_exported(file: Path, runtime: Runtime, precision: Precision) -> Predictor:
    """A predictor of an exported file alone; for "torch" and "auto", in an installed runtime that opens it."""
    if runtime in ("torch", "auto"):
        able = [name for name, suffixes in SUFFIXES.items() if file.suffix in suffixes]
        runtime_name = next((name for name in able if name in installed_runtimes()), able[0])
    else:
        runtime_name = runtime
    network = open_network(file, runtime_name, precision)
    metadata = network.metadata
    settings = InferenceSettings(
        tuple(metadata["classes"]),
        metadata["multi_label"],
        tuple(metadata["score_sizes"]),
        tuple(metadata["map_sizes"]),
        metadata["mirror"],
        Background(**metadata["background"]),
        metadata["background_class"],
    )
    return Predictor(Part(network, settings))


def in_runtime(predictor: Predictor, runtime: Runtime, folder: Path, precision: Precision) -> Predictor:
    """The same predictor in another runtime, or for "auto" in the fastest one that is installed.

    Args:
        predictor: of one model in PyTorch on the CPU.
        runtime: any but "torch".
        folder: where the exported file is, or will be.
        precision: of the backbone; "auto" is the one that is faster in the runtime.

    Raises:
        WildcatError: if the runtime is not installed or does not have the precision, or the export fails.
    """
    installed = installed_runtimes()
    if runtime == "auto":
        able = [name for name in installed if not (name == "onnx" and precision == "bf16")]
        networks = {name: _exported_network(predictor, name, folder, precision) for name in able}
        runtime = fastest_runtime(predictor, networks, folder)
        return predictor if runtime == "torch" else Predictor(Part(networks[runtime], predictor.settings))
    if runtime not in installed:
        raise missing(runtime)
    return Predictor(Part(_exported_network(predictor, runtime, folder, precision), predictor.settings))


def installed_runtimes() -> list[str]:
    """The runtimes beside PyTorch whose package is installed."""
    return [name for name, package in PACKAGES.items() if importlib.util.find_spec(package) is not None]


def exports_folder(run: str | Path) -> Path:
    """Where exported files of a run are kept: in its directory, or in the user's cache for a model without one.

    >>> exports_folder("runs/mine").as_posix()  # doctest: +SKIP
    'runs/mine/exports'
    """
    if Path(run).is_dir():
        return Path(run) / "exports"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "wildcat" / str(run).replace("/", "--")


def _exported_network(predictor: Predictor, runtime: str, folder: Path, asked: Precision) -> ExportedNetwork:
    """The model's ONNX file in a runtime; exported unless a file of these weights and settings is there."""
    file = folder / EXPORTED
    precision = precision_in(runtime, asked)  # raises before anything is exported
    if file.is_file():
        with contextlib.suppress(WildcatError):  # of another version, or damaged
            network = open_network(file, runtime, precision)
            if network.metadata.get("fingerprint") == predictor.fingerprint:
                return network
    from wildcat.export.write import export  # not before: importing it takes longer than predicting an image

    logger.info("exporting for this and later times: %s", file)
    export(predictor.model, predictor.settings, file, "onnx")
    return open_network(file, runtime, precision)
