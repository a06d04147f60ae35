"""The predictor that a name stands for: a run's folder, runs at several scales, a model on the hub, or "imagenet"."""

import contextlib
import importlib.util
import os
import sys
from pathlib import Path
from typing import cast

import torch

from wildcat.errors import WildcatError, first_line
from wildcat.export.network import ExportedNetwork
from wildcat.export.open import PACKAGES, RUNTIMES, SUFFIXES, Runtime, fingerprint, missing, open_network, precision_in
from wildcat.masks import Background
from wildcat.model import Wildcat, imagenet_model
from wildcat.prediction.fastest import _fastest
from wildcat.prediction.multiscale import CombinedPredictor
from wildcat.prediction.predictor import Predictor
from wildcat.runs.folder import CONFIG, load_run, read_background
from wildcat.runs.scales import SCALES, load_bank, read_scales, scale_folder
from wildcat.runs.settings import InferenceSettings
from wildcat.system.devices import AUTO, Precision, device_of

IMAGENET = "imagenet"
# Scores at the classifier's native size; maps at twice that, 14 x 14 cells instead of 7 x 7.
IMAGENET_SCORE_SIZES = (224,)
IMAGENET_MAP_SIZES = (448,)
IMAGENET_BACKGROUND = Background("threshold", 0.22)  # fitted by experiments/imagenet_background.py


def _load_in_pytorch(run: str | Path, device: str | torch.device, precision: Precision) -> Predictor:
    """A predictor from a run's folder, from a model on the Hugging Face hub ("owner/name"), or "imagenet".

    The folder may hold one run, or the runs of several scales (``wildcat train --scales``), which then read as one.

    "imagenet" is the embedded ImageNet classifier as a Wildcat model, with no training: 1,000 classes, one per image.

    Args:
        run: folder or name.
        device: where the network computes: "cpu", "cuda:1" and so on; "auto" is the first GPU that CUDA has, or else
            the CPU.
        precision: of the backbone; "auto" takes bf16 where :func:`wildcat.backbones.inference.bf16_pays`.

    Raises:
        WildcatError: if it is none of these, training has not finished, or there is no such device.
    """
    device = device_of(device)
    if str(run) == IMAGENET:
        model, classes = imagenet_model()
        settings = InferenceSettings(
            classes, False, IMAGENET_SCORE_SIZES, IMAGENET_MAP_SIZES, background=IMAGENET_BACKGROUND
        )
        return Predictor(model, settings, device, precision)
    folder = Path(run)
    if not folder.is_dir():
        folder = _from_hub(str(run))
    return (_load_scales if (folder / SCALES).is_file() else _load_one)(folder, device, precision)


def _load_one(folder: Path, device: torch.device, precision: Precision) -> Predictor:
    model, info = load_run(folder)
    config = info.config
    settings = InferenceSettings(
        info.classes,
        info.multi_label,
        tuple(config.score_sizes),
        tuple(config.map_sizes),
        config.mirror,
        read_background(folder),
        config.background_class,
    )
    return Predictor(model, settings, device, precision)


def _load_scales(folder: Path, device: torch.device, precision: Precision) -> CombinedPredictor:
    runs = read_scales(folder)
    if runs.combination is None:
        raise WildcatError(f"{folder}: training of its scales has not finished; continue it with --resume")
    members = {scale_folder(scale): _load_one(folder / scale_folder(scale), device, precision) for scale in runs.scales}
    first = next(iter(members.values())).settings
    return CombinedPredictor(
        members,
        background=read_background(folder),
        bank=load_bank(folder, len(first.classes), len(members)) if runs.combination.fitted_on else None,
        fitted_on=runs.combination.fitted_on,
        chosen=runs.combination.chosen,
    )


def _from_hub(name: str) -> Path:
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise WildcatError(f"no run in {name}: give a run's folder, a hub name (owner/name), or {IMAGENET}")
    # A mistyped folder beside others is not asked for on the hub.
    runs = sorted({file.parent.name for known in (CONFIG, SCALES) for file in Path(name).parent.glob(f"*/{known}")})
    if runs:
        raise WildcatError(f"no run in {name}; {Path(name).parent} holds {', '.join(runs)}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the hub client raises many types
        raise WildcatError(
            f"there is no folder {name}, and no model of that name on the hub: {first_line(error)}"
        ) from error


EXPORTED = "model.onnx"  # both runtimes open this file


def load(
    run: str | Path,
    *,
    device: str | torch.device = AUTO,
    precision: Precision = "fp32",
    runtime: Runtime = "torch",
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
        precision: of the backbone; "auto" takes bf16 where it is faster. ONNX Runtime computes in single precision.
        device: of PyTorch, as for :func:`wildcat.load`; the other runtimes compute on the CPU.

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
            raise WildcatError(f"{what} computes on the CPU, not on {device}")
        device = "cpu"
    if exported:
        return _predictor_of(file, runtime, precision)
    predictor = _load_in_pytorch(run, device, precision)
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


def _with(network: ExportedNetwork, settings: InferenceSettings) -> Predictor:
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
    settings = InferenceSettings(
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
    from wildcat.export.write import export  # not before: it takes longer to import than one image to read

    print(f"exporting for this and later times: {file}", file=sys.stderr)
    export(predictor.model, predictor.settings, file, "onnx")
    return open_network(file, runtime, precision)
