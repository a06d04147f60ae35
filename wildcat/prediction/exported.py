"""Predictors of exported files, and the file that is exported next to a run when another runtime is asked for."""

import contextlib
import hashlib
import importlib.util
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from wildcat.errors import WildcatError
from wildcat.export.network import ExportedNetwork, Runtime
from wildcat.export.open import PACKAGES, SUFFIXES, missing, open_network, precision_in
from wildcat.masks import Background
from wildcat.prediction.fastest import fastest_runtime
from wildcat.prediction.predictor import Part, Predictor
from wildcat.runs.folder import CONFIG
from wildcat.runs.settings import InferenceSettings
from wildcat.system.devices import Precision
from wildcat.system.files import writable_folder

logger = logging.getLogger(__name__)

FILE_SUFFIXES = (".onnx", ".xml")
EXPORTS, EXPORTED = "exports", "model.onnx"  # both runtimes open this file


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
    above = file.absolute().parent
    is_of_run = above.name == EXPORTS and (above.parent / CONFIG).is_file()
    return Predictor(Part(network, settings), run=above.parent if is_of_run else None)


def in_runtime(predictor: Predictor, runtime: Runtime, folders: Sequence[Path], precision: Precision) -> Predictor:
    """The same predictor in another runtime, or for "auto" in the fastest one that is installed.

    Args:
        predictor: of one model in PyTorch on the CPU.
        runtime: any but "torch".
        folders: where the exported file is, or will be: in the first of them that can be written.
        precision: of the backbone; "auto" is the one that is faster in the runtime.

    Raises:
        WildcatError: if the runtime is not installed or does not have the precision, or the export fails, or no folder
            can be written and the runtime is not "auto".
    """
    installed = installed_runtimes()
    if runtime == "auto":
        able = [name for name in installed if not (name == "onnx" and precision == "bf16")]
        try:
            networks = {name: _exported_network(predictor, name, folders, precision) for name in able}
        except OSError as error:
            logger.warning(
                "computing in PyTorch, because the model cannot be exported: %s", _unwritable(folders, error)
            )
            return predictor
        runtime = fastest_runtime(predictor, networks, folders)
        if runtime == "torch":
            return predictor
        return Predictor(Part(networks[runtime], predictor.settings), run=predictor.run)
    if runtime not in installed:
        raise missing(runtime)
    try:
        network = _exported_network(predictor, runtime, folders, precision)
    except OSError as error:
        raise WildcatError(f"the model cannot be exported: {_unwritable(folders, error)}") from error
    return Predictor(Part(network, predictor.settings), run=predictor.run)


def _unwritable(folders: Sequence[Path], error: OSError) -> str:
    listed = " and ".join(map(str, folders))
    return f"{listed} cannot be written ({error.strerror}); XDG_CACHE_HOME names another folder"


def installed_runtimes() -> list[str]:
    """The runtimes beside PyTorch whose package is installed."""
    return [name for name, package in PACKAGES.items() if importlib.util.find_spec(package) is not None]


def exports_folder(run: str | Path) -> Path:
    """Where exported files of a run are kept: in its directory, or in the user's cache for a model without one.

    >>> exports_folder("runs/mine").as_posix()  # doctest: +SKIP
    'runs/mine/exports'
    """
    return Path(run) / EXPORTS if Path(run).is_dir() else user_cache() / str(run).replace("/", "--")


def exports_folders(run: str | Path) -> list[Path]:
    """Where exported files of a run may be: :func:`exports_folder`, and, for a run directory that cannot be written
    (of somebody else, or on a read-only disk), a folder in the user's cache.
    """
    folder = exports_folder(run)
    if not Path(run).is_dir():
        return [folder]
    place = Path(run).resolve()
    digest = hashlib.blake2b(os.fsencode(place), digest_size=4).hexdigest()
    return [folder, user_cache() / f"{place.name}-{digest}"]


def user_cache() -> Path:
    """The folder of this package among the user's caches: below XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wildcat"


def _exported_network(predictor: Predictor, runtime: str, folders: Sequence[Path], asked: Precision) -> ExportedNetwork:
    """The model's ONNX file in a runtime; exported unless a file of these weights and settings is there.

    Raises:
        OSError: if none of the folders can be written.
    """
    precision = precision_in(runtime, asked)  # raises before anything is exported
    for file in (folder / EXPORTED for folder in folders):
        if file.is_file():
            with contextlib.suppress(WildcatError):  # of another version, or damaged
                network = open_network(file, runtime, precision)
                if network.metadata.get("fingerprint") == predictor.fingerprint:
                    return network
    from wildcat.export.write import export  # not before: importing it takes longer than predicting an image

    file = writable_folder(folders) / EXPORTED
    logger.info("exporting for this and later times: %s", file)
    export(predictor.model, predictor.settings, file, "onnx")
    return open_network(file, runtime, precision)
