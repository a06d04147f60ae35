"""A run at several scales: a run directory per scale, and how they are combined."""

import reprlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from wildcat.config import TrainConfig, config_from_dict
from wildcat.errors import WildcatError
from wildcat.multiscale import ObjectBank
from wildcat.system.files import read_json, write_atomically, write_json

SCALES, BANK = "scales.json", "object_bank.safetensors"


MEAN, OBJECT_BANK = "mean", "object_bank"  # names of the combinations


@dataclass(frozen=True)
class Combination:
    """How the scales of a folder were combined.

    Attributes:
        chosen: the combination that reads images, "mean" or "object_bank": the better one on held-out images.
        held_out: how many images no model was trained on; 0 where there is no Object Bank.
        scores: of each combination on them, in per cent, those of the Object Bank cross-validated.
        fitted_on: dataset and split of the held-out images, None where there is no Object Bank.
    """

    chosen: str
    held_out: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    fitted_on: tuple[str, str] | None = None


@dataclass(frozen=True)
class ScaleRuns:
    """What a folder of runs at several scales is.

    Attributes:
        config: settings from which those of each scale follow.
        scales: sides of the training images, rising.
        combination: None while they are being trained.
    """

    config: TrainConfig
    scales: tuple[int, ...]
    combination: Combination | None = None


def scale_folder(scale: int) -> str:
    """Name of the folder, and of the part, of a scale."""
    return f"scale-{scale}"


def save_scales(folder: Path, runs: ScaleRuns) -> None:
    """Write ``scales.json``."""
    write_json(folder / SCALES, {"format": 1, **asdict(runs)})


def read_scales(folder: Path) -> ScaleRuns:
    """Read ``scales.json``.

    Raises:
        WildcatError: if the file is missing or damaged.
    """
    file = folder / SCALES
    values = read_json(file)
    try:
        config = config_from_dict(values["config"], str(file))
        scales, found = tuple(int(scale) for scale in values["scales"]), values["combination"]
        if not scales:
            raise ValueError("no scales")
        if found is None:
            return ScaleRuns(config, scales)
        fitted_on = None if found["fitted_on"] is None else (found["fitted_on"][0], found["fitted_on"][1])
        combination = Combination(found["chosen"], found["held_out"], found["scores"], fitted_on)
        allowed = (MEAN,) if fitted_on is None else (MEAN, OBJECT_BANK)
        if combination.chosen not in allowed:
            message = f"must be {' or '.join(allowed)}; got {reprlib.repr(combination.chosen)}"
            raise WildcatError(f"{file}: the combination that is chosen {message}")
    except WildcatError:
        raise
    except KeyError as error:
        raise WildcatError(f"{file} has no entry {error}") from error
    except (TypeError, ValueError, IndexError, OverflowError) as error:
        raise WildcatError(f"{file} is damaged: {error}") from error
    return ScaleRuns(config, scales, combination)


def save_bank(folder: Path, bank: ObjectBank) -> None:
    """Write ``object_bank.safetensors``."""
    weights = bank.weights.contiguous()  # scikit-learn may give them column by column, which the format does not know
    write_atomically(folder / BANK, safetensors.torch.save({"weights": weights, "bias": bank.bias}))


def load_bank(folder: Path, num_classes: int, num_scales: int) -> ObjectBank:
    """Read ``object_bank.safetensors``.

    Raises:
        WildcatError: if the file is missing, damaged, or of other classes or scales.
    """
    file = folder / BANK
    try:
        tensors = safetensors.torch.load_file(file)
        bank = ObjectBank(tensors["weights"], tensors["bias"])
    except (SafetensorError, OSError, KeyError) as error:
        raise WildcatError(f"{file} is missing or damaged: {error}") from error
    if bank.weights.shape != (num_classes, num_classes * num_scales) or bank.bias.shape != (num_classes,):
        raise WildcatError(f"{file} is of other classes or scales: its weights are {tuple(bank.weights.shape)}")
    return bank
