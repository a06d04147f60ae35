"""The predictor that a name stands for: a run's folder, runs at several scales, a model on the hub, or "imagenet"."""

from pathlib import Path

import torch

from wildcat.backbones.inference import AUTO, Precision, device_of
from wildcat.errors import WildcatError
from wildcat.masks import Background
from wildcat.model import imagenet_model
from wildcat.prediction.multiscale import CombinedPredictor
from wildcat.prediction.predictor import Predictor
from wildcat.prediction.result import Settings
from wildcat.runs.folder import CONFIG, SCALES, load_bank, load_run, read_background, read_scales, scale_folder

IMAGENET = "imagenet"
# Scores at the classifier's native size; maps at twice that, 14 x 14 cells instead of 7 x 7.
IMAGENET_SCORE_SIZES = (224,)
IMAGENET_MAP_SIZES = (448,)
IMAGENET_BACKGROUND = Background("threshold", 0.22)  # fitted by experiments/imagenet_background.py


def load(run: str | Path, device: str | torch.device = AUTO, precision: Precision = "fp32") -> Predictor:
    """A predictor from a run's folder, from a model on the Hugging Face hub ("owner/name"), or "imagenet".

    The folder may hold one run, or the runs of several scales (``wildcat train --scales``), which then read as one.

    "imagenet" is the embedded ImageNet classifier as a Wildcat model, with no training: 1,000 classes, one per picture.

    Args:
        run: folder or name.
        device: where the network computes: "cpu", "cuda:1" and so on; "auto" is the first GPU that CUDA has, or else
            the processor.
        precision: of the trunk; "auto" takes bf16 where :func:`wildcat.backbones.inference.bf16_pays`.

    Raises:
        WildcatError: if it is none of these, training has not finished, or there is no such device.
    """
    device = device_of(device)
    if str(run) == IMAGENET:
        model, classes = imagenet_model()
        settings = Settings(classes, False, IMAGENET_SCORE_SIZES, IMAGENET_MAP_SIZES, background=IMAGENET_BACKGROUND)
        return Predictor(model, settings, device, precision)
    folder = Path(run)
    if not folder.is_dir():
        folder = _from_hub(str(run))
    return (_load_scales if (folder / SCALES).is_file() else _load_one)(folder, device, precision)


def _load_one(folder: Path, device: torch.device, precision: Precision) -> Predictor:
    model, info = load_run(folder)
    config = info.config
    settings = Settings(
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
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WildcatError(f"there is no folder {name}, and no model of that name on the hub: {reason}") from error
