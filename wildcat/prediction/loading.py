"""``wildcat.load``: the predictor of a run, a model on the hub, "imagenet", or an exported file."""

from pathlib import Path

import torch

from wildcat.errors import WildcatError, first_line
from wildcat.export.network import RUNTIMES, Runtime
from wildcat.masks import Background
from wildcat.model import imagenet_model
from wildcat.prediction.ensemble import Ensemble
from wildcat.prediction.exported import FILE_SUFFIXES, exports_folders, in_runtime, load_exported
from wildcat.prediction.network import TorchNetwork
from wildcat.prediction.predictor import Part, Predictor
from wildcat.runs.folder import CONFIG, load_run, read_background
from wildcat.runs.scales import SCALES, load_bank, read_scales, scale_folder
from wildcat.runs.settings import InferenceSettings
from wildcat.system.devices import AUTO, Precision, device_of

IMAGENET = "imagenet"
# Scores at the classifier's native size; maps at twice that, 14 x 14 cells instead of 7 x 7.
IMAGENET_SCORE_SIZES = (224,)
IMAGENET_MAP_SIZES = (448,)
IMAGENET_BACKGROUND = Background("threshold", 0.18, 0.25)  # fitted by experiments/imagenet_background.py


def load(
    run: str | Path,
    *,
    device: str | torch.device = AUTO,
    precision: Precision = "fp32",
    runtime: Runtime = "torch",
) -> Predictor:
    """Load a predictor: of a run, a model on the Hugging Face hub, "imagenet", or an exported file.

    For another runtime than PyTorch the model is exported the first time, and again whenever the run has changed, next
    to the run (``RUN/exports``; in the user's cache folder for "imagenet", models of the hub, and runs on a disk that
    cannot be written). The results are
    those of PyTorch within :data:`wildcat.export.write.TOLERANCE`, with one map per class.

    Args:
        run: one of

            - a run directory, written by :func:`wildcat.train`; at several scales (``wildcat train --scales``) their
              models predict as one;
            - "owner/name", a model on the hub, downloaded once;
            - "imagenet", the embedded classifier of ImageNet's 1,000 classes, one per image, with no training;
            - an exported file, ``.onnx`` or ``.xml``.
        device: where PyTorch computes: "cpu", "cuda:1" and so on; "auto" is the first GPU of CUDA, or else the CPU. The
            other runtimes compute on the CPU.
        precision: of the backbone: "fp32", "bf16", or "auto" for bf16 where it is faster, which depends on the machine.
            ONNX Runtime has fp32 alone. Every command has this default, so that all of them give the same scores.
        runtime: what the network runs in: "torch", "onnx" (ONNX Runtime), "openvino", or "auto" for the fastest that is
            installed, by a short measurement whose result is kept with the exported file; on a GPU, and for a run at
            several scales, it is PyTorch. An exported file runs in a runtime that opens it.

    Returns:
        The predictor. Call it with an image, or :meth:`Predictor.stream` with many.

    Raises:
        WildcatError: if there is no such run, file, device or runtime, training has not finished, a file is damaged or
            needs a backbone or pooling that is not registered, a package is not installed, or the runtime cannot
            compute on the device, in the precision, or several models.

    >>> import numpy as np, wildcat
    >>> predictor = wildcat.load("imagenet", device="cpu")
    >>> prediction = predictor(np.zeros((32, 48, 3), np.uint8))
    >>> len(prediction.scores), prediction.class_maps.shape
    (1000, (1000, 14, 14))
    >>> predictor = wildcat.load("runs/mine", precision="auto", runtime="openvino")  # doctest: +SKIP
    """
    if runtime not in RUNTIMES:
        raise WildcatError(f"unknown runtime {runtime!r}; known: {', '.join(RUNTIMES)}")
    file = Path(run)
    if file.suffix in FILE_SUFFIXES:
        _check_cpu(device, f"the exported file {run}")
        return load_exported(file, runtime, precision)
    if runtime in ("onnx", "openvino"):
        _check_cpu(device, f"the runtime {runtime}")
        device = "cpu"
    predictor = _load_torch(run, device_of(device), precision)
    if runtime == "torch":
        return predictor
    if runtime == "auto" and (predictor.combine is not None or predictor.device.type != "cpu"):
        return predictor
    if predictor.combine is not None:
        raise WildcatError(f"{run} holds several models, which run in PyTorch; the runtime {runtime} takes one of them")
    return in_runtime(predictor, runtime, exports_folders(run), precision)


def _check_cpu(device: str | torch.device, what: str) -> None:
    if str(device) not in (AUTO, "cpu"):
        raise WildcatError(f"{what} computes on the CPU, not on {device}")


def _load_torch(run: str | Path, device: torch.device, precision: Precision) -> Predictor:
    """A predictor in PyTorch, of anything but an exported file."""
    if str(run) == IMAGENET:
        model, classes = imagenet_model()
        settings = InferenceSettings(
            classes, False, IMAGENET_SCORE_SIZES, IMAGENET_MAP_SIZES, background=IMAGENET_BACKGROUND
        )
        return Predictor(Part(TorchNetwork(model, device, precision), settings), run=Path(IMAGENET))
    folder = Path(run)
    if not folder.is_dir():
        folder = _download(str(run))
    if (folder / SCALES).is_file():
        return _load_scales(folder, device, precision)
    return Predictor(_load_part(folder, device, precision), run=folder)


def _load_part(folder: Path, device: torch.device, precision: Precision) -> Part:
    """The model of one run."""
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
    return Part(TorchNetwork(model, device, precision), settings)


def _load_scales(folder: Path, device: torch.device, precision: Precision) -> Predictor:
    """The models of a run at several scales, combined."""
    runs = read_scales(folder)
    combination = runs.combination
    if combination is None:
        raise WildcatError(f"{folder}: training of its scales has not finished; continue it with --resume")
    parts = {scale_folder(scale): _load_part(folder / scale_folder(scale), device, precision) for scale in runs.scales}
    num_classes = len(next(iter(parts.values())).settings.classes)
    bank = load_bank(folder, num_classes, len(parts)) if combination.fitted_on else None
    combine = Ensemble(bank, combination.fitted_on, combination.chosen, read_background(folder))
    return Predictor(parts, combine, run=folder)


def _download(name: str) -> Path:
    """The folder of a model that is downloaded from the hub, once."""
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise WildcatError(f"no run in {name}: give a run's folder, a hub name (owner/name), or {IMAGENET}")
    # A mistyped folder beside run directories is not looked up on the hub.
    runs = sorted({file.parent.name for known in (CONFIG, SCALES) for file in Path(name).parent.glob(f"*/{known}")})
    if runs:
        raise WildcatError(f"no run in {name}; {Path(name).parent} holds {', '.join(runs)}")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the hub client raises many types
        message = f"there is no folder {name}, and no model of that name on the hub: {first_line(error)}"
        raise WildcatError(message) from error
