"""A run directory: its files, and how they are written so that an interrupted write leaves no partial file.

::

    RUN/config.json         settings, class names, preprocessing, versions
    RUN/model.safetensors   weights
    RUN/training_images.json    names and digests of the training images (see image_record.py)
    RUN/metrics.csv         one row per epoch
    RUN/state.pt            checkpoint for resuming the training (see training/state.py)
    RUN/state.previous.pt   the checkpoint before it
    RUN/tensorboard/        the same curves for TensorBoard
    RUN/background.json     mode and constants of the background of masks, if they were fitted
    RUN/results.json        scores, if the run was evaluated (see results.py)

A run at several scales holds instead::

    RUN/scales.json                 settings, scales and, once all scales are trained, how they are combined
    RUN/scale-224/                  a run directory, as above, per scale
    RUN/object_bank.safetensors     linear classifiers on the scores of all scales
    RUN/background.json             as above, for the combination
    RUN/results.json                as above, for each scale and each combination
"""

import os
import re
import reprlib
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from wildcat._version import __version__
from wildcat.config import TrainConfig, saved_settings
from wildcat.errors import WildcatError, first_line, shorten
from wildcat.masks import Background
from wildcat.model import Wildcat, create_model
from wildcat.runs.scales import SCALES, read_scales, scale_folder
from wildcat.system.files import read_json, write_atomically, write_json
from wildcat.system.json_object import JsonObject

CONFIG, WEIGHTS, BACKGROUND = "config.json", "model.safetensors", "background.json"
STATE, PREVIOUS_STATE = "state.pt", "state.previous.pt"
METRICS, TENSORBOARD = "metrics.csv", "tensorboard"
LARGEST_CONSTANT = 1e6  # of a background; fitted ones are below 100
LONGEST_NAME = 1000  # characters of a class's name
_OTHER_SURROGATES = re.compile("[\ud800-\udc7f\udd00-\udfff]")
HEAD = "transfer.weight"  # (maps, channels, 1, 1)
CHECKSUM = "crc32"  # key in the metadata of model.safetensors


@dataclass(frozen=True)
class Run:
    """The description of a run: everything in its config.json.

    Attributes:
        config: every setting, with automatic choices resolved.
        classes: C names in the order of the scores; a background class of the settings is not among them.
        multi_label: whether an image may have several classes (sigmoid) or has exactly one (softmax).
        mean: red, green and blue, subtracted from pixel values in [0, 1].
        std: red, green and blue, by which the difference is divided.
        images: number of training images; 0 for converted weights.
        threads: of PyTorch when the training was started, which rounding depends on; None where it is not known.
    """

    config: TrainConfig
    classes: tuple[str, ...]
    multi_label: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    images: int
    threads: int | None = None


def build_model(config: TrainConfig, num_classes: int, pretrained: bool) -> Wildcat:
    """Create the model that the settings describe.

    Args:
        config: the settings.
        num_classes: C, the classes of the dataset; with ``background_class`` the model has one more, the last.
        pretrained: whether pretrained weights are loaded; off when weights are loaded afterwards.

    Raises:
        WildcatError: for settings that do not give a valid model.
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
            class_pooling=config.class_pooling,
            map_dropout=config.map_dropout,
            pretrained=pretrained and config.pretrained,
            weights=config.weights if pretrained else None,
            output_stride=config.output_stride,
        )
    except WildcatError:
        raise
    except (ValueError, TypeError) as error:  # parts of the network raise plain errors
        raise WildcatError(str(error)) from error


def save_config(folder: Path, run: Run) -> None:
    """Write ``config.json``."""
    values = {"format": 1, **asdict(run), "versions": {"wildcat": __version__, "torch": torch.__version__}}
    write_json(folder / CONFIG, values)


def save_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write ``model.safetensors``: a model's state dict, and a checksum of its numbers in the file's metadata."""
    state = {key: value.detach().cpu().contiguous() for key, value in weights.items()}
    checksum = zlib.crc32(_numbers(safetensors.torch.save(state)))
    # The checksum is the only entry: safetensors writes several in random order, and equal weights give equal files.
    write_atomically(folder / WEIGHTS, safetensors.torch.save(state, metadata={CHECKSUM: f"{checksum:08x}"}))


def _numbers(content: bytes) -> memoryview:
    """The part of a safetensors file behind its header: the numbers of all tensors, which do not depend on metadata."""
    return memoryview(content)[8 + int.from_bytes(content[:8], "little") :]


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of ``model.safetensors``, compared with the checksum where the file has one.

    Raises:
        SafetensorError: if the file is damaged.
    """
    with safetensors.safe_open(file, framework="pt") as opened:
        expected = (opened.metadata() or {}).get(CHECKSUM)
    if expected is not None and f"{_checksum(file):08x}" != expected:
        raise SafetensorError("its checksum is wrong")
    return safetensors.torch.load_file(file)


def _checksum(file: Path) -> int:
    """CRC-32 of the numbers in a safetensors file, read in parts."""
    checksum = 0
    with file.open("rb") as stream:
        stream.seek(int.from_bytes(stream.read(8), "little"), os.SEEK_CUR)
        while part := stream.read(1 << 24):
            checksum = zlib.crc32(part, checksum)
    return checksum


def read_run(folder: Path) -> Run:
    """Read ``config.json``.

    Raises:
        WildcatError: if the folder is not a run directory or its config.json is damaged.

    >>> read_run(Path("runs/mine")).classes  # doctest: +SKIP
    """
    file = folder / CONFIG
    if not file.is_file():
        if (folder / SCALES).is_file():
            one = scale_folder(read_scales(folder).scales[0])
            raise WildcatError(f"{folder} holds runs of several scales; give one of them, such as {folder / one}")
        raise WildcatError(f"{folder} is not a run's folder: it has no {CONFIG}")
    values = JsonObject.read(file)
    values.check_format(1)
    config = saved_settings(values.any("config"), str(file))
    if "threads" not in values.values:
        config = replace(config, data=_as_held_out_before(config.data))
    run = Run(
        config=config,
        classes=values.texts("classes"),
        multi_label=values.flag("multi_label"),
        mean=values.numbers("mean", high=1000),
        std=values.numbers("std", high=1000, low=0),
        images=values.count("images"),
        threads=values.count("threads") if values.values.get("threads") is not None else None,
    )
    if not run.classes:
        raise values.error("classes", "a list of names")
    if min(run.std) < 1e-6:
        raise values.error("std", "three numbers of at least 1e-06")
    twice = [name for name, count in Counter(run.classes).items() if count > 1]
    if twice:
        raise WildcatError(
            f"{file}: classes must have different names; {shorten(list(map(ascii, twice)))} occurs twice"
        )
    for name in run.classes:
        # Names of files that are not UTF-8 have surrogates of U+DC80 to U+DCFF; no other ones can be written.
        if len(name) > LONGEST_NAME or _OTHER_SURROGATES.search(name):
            raise WildcatError(
                f"{file}: the name of a class must be text of up to {LONGEST_NAME} characters; got {reprlib.repr(name)}"
            )
    return run


def _as_held_out_before(data: str) -> str:
    """The dataset of a run whose config.json has no number of threads: its table was split without regard to tags."""
    return f"{data},balanced=no" if data.startswith("tags:") and ",balanced=" not in data else data


def read_settings(folder: Path) -> TrainConfig:
    """The settings of a run directory, of one scale or of several.

    Raises:
        WildcatError: if the folder is neither.
    """
    return read_scales(folder).config if (folder / SCALES).is_file() else read_run(folder).config


def load_run(folder: Path) -> tuple[Wildcat, Run]:
    """Load a run of one scale.

    Args:
        folder: the run directory.

    Returns:
        The model in evaluation mode, on the CPU, which normalizes images as in the training, and the description of
        the run.

    Raises:
        WildcatError: if training has not finished, or a file is damaged or of another model.

    >>> model, run = load_run(Path("runs/mine"))  # doctest: +SKIP
    >>> model.num_classes, run.config.backbone  # doctest: +SKIP
    (20, 'lite0')
    """
    run = read_run(folder)
    file = folder / WEIGHTS
    if not file.is_file():
        stopped = any((folder / name).exists() for name in (STATE, PREVIOUS_STATE))
        hint = "; training has not finished: continue it with --resume" if stopped else ""
        raise WildcatError(f"{folder} has no {WEIGHTS}{hint}")
    _check_head(file, run)  # before a head of any size is made
    try:
        model = build_model(run.config, len(run.classes), pretrained=False)
    except WildcatError as error:  # such as a backbone of the user's own that is not registered
        raise WildcatError(f"{folder / CONFIG}: {error}") from error
    try:
        model.load_state_dict(read_weights(file))
    except (SafetensorError, RuntimeError) as error:
        raise WildcatError(f"{file} is damaged or of another model: {_briefly(error)}") from error
    model.set_normalization(run.mean, run.std)
    return model.eval(), run


def _check_head(file: Path, run: Run) -> None:
    """Check that weights have the maps of the classes that config.json names.

    Raises:
        WildcatError: if they do not, or the file is damaged.
    """
    damaged = f"{file} is damaged or of another model"
    try:
        with safetensors.safe_open(file, framework="pt") as weights:
            maps = weights.get_slice(HEAD).get_shape()[0]
    except (SafetensorError, OSError, IndexError) as error:
        raise WildcatError(f"{damaged}: {first_line(error)}") from error
    classes = len(run.classes) + run.config.background_class
    if maps != classes * run.config.num_maps:
        raise WildcatError(
            f"{damaged}: its head has {maps} maps, and {CONFIG} names {classes} classes of {run.config.num_maps} maps"
        )


def _briefly(error: Exception) -> str:
    """The first two lines of PyTorch's message: the second names the first tensors that do not fit."""
    text = " ".join(line.strip() for line in str(error).splitlines()[:2])
    return text if len(text) <= 300 else f"{text[:297]}..."


def save_background(folder: Path, background: Background, fitted_on: str, miou: float) -> None:
    """Write ``background.json``.

    Args:
        folder: the run directory.
        background: mode and constants.
        fitted_on: dataset and split whose masks they were fitted on.
        miou: mIoU on these masks, in per cent.
    """
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
    if isinstance(values.get("mode"), str) and len(values["mode"]) > LONGEST_NAME:
        raise WildcatError(f"{file} is damaged: mode is {reprlib.repr(values['mode'])}")
    try:
        background = Background(values["mode"], values["constant"], values.get("cue_exponent", 0.0))
    except (KeyError, ValueError, TypeError) as error:
        raise WildcatError(f"{file} is damaged: {error}") from error
    if background.constant > LARGEST_CONSTANT:
        raise WildcatError(
            f"{file} is damaged: constant must be at most {LARGEST_CONSTANT:g}; got {reprlib.repr(background.constant)}"
        )
    return background
