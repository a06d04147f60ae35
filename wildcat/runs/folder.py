"""A run's folder: what it holds, written so that nothing half-written is ever read as whole.

::

    RUN/config.json         settings, class names, preprocessing, versions
    RUN/model.safetensors   weights
    RUN/metrics.csv         one row per epoch
    RUN/state.pt            everything needed to continue training (see state.py)
    RUN/state.previous.pt   the state saved before it
    RUN/tensorboard/        the same curves for TensorBoard
    RUN/background.json     where masks have their background, if it was fitted

A folder of runs at several scales holds instead::

    RUN/scales.json                 settings, scales, and how they were combined, once all are trained
    RUN/scale-224/                  a run, as above, per scale
    RUN/object_bank.safetensors     linear classifiers on the scores of all scales
    RUN/background.json             as above, for the combination
"""

import json
import os
import reprlib
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from wildcat._version import __version__
from wildcat.config import TrainConfig, config_from_dict
from wildcat.errors import WildcatError
from wildcat.masks import Background
from wildcat.model import Wildcat, create_model
from wildcat.runs.scales import SCALES, read_scales, scale_folder
from wildcat.system.files import read_json, write_atomically, write_json

CONFIG, WEIGHTS, BACKGROUND = "config.json", "model.safetensors", "background.json"
STATE, PREVIOUS_STATE = "state.pt", "state.previous.pt"


@dataclass(frozen=True)
class Run:
    """What a run is, apart from its weights.

    Attributes:
        config: every setting, automatic choices resolved.
        classes: names in the order of the scores; a background class of the settings is not among them.
        multi_label: whether an image may have several classes (sigmoid) or has exactly one (softmax).
        mean, std: normalisation of the backbone's input, for pixel values in [0, 1].
        images: how many images it was trained on.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    multi_label: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    images: int


def build_model(config: TrainConfig, num_classes: int, pretrained: bool) -> Wildcat:
    """The model that the settings describe.

    Args:
        config: the settings.
        num_classes: C, the classes of the data; with ``background_class`` the model has one more, the last.
        pretrained: off when the weights are loaded afterwards.

    Raises:
        WildcatError: for a setting that no model can have.
    """
    try:
        return create_model(
            config.backbone,
            num_classes=num_classes + config.background_class,
            num_maps=config.num_maps,
            kmax=config.kmax,
            kmin=config.kmin,
            alpha=config.alpha,
            pooling=config.pooling,
            architecture=config.architecture,
            pretrained=pretrained and config.pretrained,
            weights=config.weights if pretrained else None,
            output_stride=config.output_stride,
        )
    except WildcatError:
        raise
    except (ValueError, TypeError) as error:  # the network's parts know nothing of settings
        raise WildcatError(str(error)) from error


def save_config(folder: Path, run: Run) -> None:
    """Write ``config.json``."""
    values = {"format": 1, **asdict(run), "versions": {"wildcat": __version__, "torch": torch.__version__}}
    write_json(folder / CONFIG, values)


def save_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write ``model.safetensors``, a model's state dict, with a checksum of its numbers."""
    state = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    content = safetensors.torch.save(state, metadata={"format": "pt"})
    start = 8 + int.from_bytes(content[:8], "little")  # the format: length of the header, header in JSON, numbers
    header = json.loads(content[8:start])
    header["__metadata__"]["crc32"] = f"{zlib.crc32(content[start:]):08x}"
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers stay aligned
    write_atomically(folder / WEIGHTS, len(text).to_bytes(8, "little") + text + content[start:])


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of ``model.safetensors``, compared with its checksum where it has one.

    Raises:
        SafetensorError: if the file is damaged.
    """
    with safetensors.safe_open(file, framework="pt") as opened:
        checksum = (opened.metadata() or {}).get("crc32")
    if checksum is not None:
        with file.open("rb") as stream:
            stream.seek(int.from_bytes(stream.read(8), "little"), os.SEEK_CUR)
            found = 0
            while part := stream.read(1 << 24):
                found = zlib.crc32(part, found)
        if f"{found:08x}" != checksum:
            raise SafetensorError("its checksum is wrong")
    return safetensors.torch.load_file(file)


def read_run(folder: Path) -> Run:
    """Read ``config.json``.

    Raises:
        WildcatError: if the folder is not a run's or its config.json is damaged.
    """
    file = folder / CONFIG
    if not file.is_file():
        if (folder / SCALES).is_file():
            one = scale_folder(read_scales(folder).scales[0])
            raise WildcatError(f"{folder} holds runs of several scales; give one of them, such as {folder / one}")
        raise WildcatError(f"{folder} is not a run's folder: it has no {CONFIG}")
    values = read_json(file)
    if "config" not in values:
        raise WildcatError(f"{file} has no entry 'config'")
    config = config_from_dict(values["config"], str(file))
    for key, (fits, message) in _ALLOWED.items():
        if key not in values:
            raise WildcatError(f"{file} has no entry {key!r}")
        if not fits(values[key]):
            raise WildcatError(f"{file}: {key} must be {message}; got {reprlib.repr(values[key])}")
    return Run(
        config=config,
        classes=tuple(values["classes"]),
        multi_label=values["multi_label"],
        mean=tuple(values["mean"]),
        std=tuple(values["std"]),
        images=values["images"],
    )


def _are_colours(value: object, low: float) -> bool:
    """Whether a value is three finite numbers above a lowest one."""
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(v, int | float) and low < v < float("inf") for v in value)
    )


# Entries of config.json beside the settings: whether a value can be used, and what is allowed in words.
_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "classes": (
        lambda value: isinstance(value, list) and bool(value) and all(isinstance(name, str) for name in value),
        "a list of names",
    ),
    "multi_label": (lambda value: isinstance(value, bool), "true or false"),
    "mean": (lambda value: _are_colours(value, -float("inf")), "three finite numbers"),
    "std": (lambda value: _are_colours(value, 0), "three finite numbers above 0"),
    "images": (lambda value: isinstance(value, int) and value >= 0, "a whole number from 0"),
}


def read_settings(folder: Path) -> TrainConfig:
    """The settings of a run, or of the runs at several scales, in a folder.

    Raises:
        WildcatError: if the folder holds neither.
    """
    return read_scales(folder).config if (folder / SCALES).is_file() else read_run(folder).config


def load_run(folder: Path) -> tuple[Wildcat, Run]:
    """Model in evaluation mode, and run.

    Raises:
        WildcatError: if training has not finished, or the weights are damaged or of another model.
    """
    run = read_run(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        hint = "; training has not finished: continue it with --resume" if (folder / STATE).exists() else ""
        raise WildcatError(f"{folder} has no {WEIGHTS}{hint}")
    try:
        model = build_model(run.config, len(run.classes), pretrained=False)
    except WildcatError as error:  # such as a backbone of the user's own that is not registered
        raise WildcatError(f"{folder / CONFIG}: {error}") from error
    try:
        model.load_state_dict(read_weights(file))
    except (SafetensorError, RuntimeError) as error:
        raise WildcatError(f"{file} is damaged or of another model: {_briefly(error)}") from error
    return model.eval(), run


def _briefly(error: Exception) -> str:
    """The head of PyTorch's message, and the first tensor that it complains of."""
    return " ".join(line.strip() for line in str(error).splitlines()[:2])


def save_background(folder: Path, background: Background, fitted_on: str, miou: float) -> None:
    """Write ``background.json``: mode and constant, on what they were fitted, and the mIoU there in per cent."""
    write_json(folder / BACKGROUND, {**asdict(background), "fitted_on": fitted_on, "miou": miou})


def read_background(folder: Path) -> Background:
    """The fitted background of a run, or the default.

    Raises:
        WildcatError: if the file is damaged.
    """
    file = folder / BACKGROUND
    if not file.exists():
        return Background()
    values = read_json(file)
    try:
        return Background(values["mode"], values["constant"])
    except (KeyError, ValueError, TypeError) as error:
        raise WildcatError(f"{file} is damaged: {error}") from error
