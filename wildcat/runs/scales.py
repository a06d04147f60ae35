"""A run at several scales: a run directory for each scale, and how their scores are combined."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

import safetensors.torch
from safetensors import SafetensorError

from wildcat.config import LARGEST_SIDE, TrainConfig, saved_settings
from wildcat.errors import WildcatError
from wildcat.multiscale import ObjectBank
from wildcat.system.files import write_atomically, write_json
from wildcat.system.json_object import JsonObject

SCALES, BANK = "scales.json", "object_bank.safetensors"


MEAN, OBJECT_BANK = "mean", "object_bank"  # names of the combinations


@dataclass(frozen=True)
class Combination:
    """How the scales of a run are combined.

    Attributes:
        chosen: the combination that is used for predictions, "mean" or "object_bank": the better one on held-out
            images.
        held_out: how many images were held out of the training of all scales; 0 without an Object Bank.
        scores: main score of each combination on them, in per cent; that of the Object Bank is cross-validated.
        fitted_on: dataset and split of the held-out images; None without an Object Bank.
    """

    chosen: str
    held_out: int = 0
    scores: dict[str, float] = field(default_factory=dict)
    fitted_on: tuple[str, str] | None = None


@dataclass(frozen=True)
class ScaleRuns:
    """The description of a run at several scales: everything in its scales.json.

    Attributes:
        config: settings from which those of each scale follow.
        scales: sides of the training images in pixels, in increasing order.
        combination: how the scales are combined; None until all are trained.
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

    >>> read_scales(Path("runs/scales")).scales  # doctest: +SKIP
    """
    values = JsonObject.read(folder / SCALES)
    values.check_format(1)
    config = saved_settings(values.any("config"), values.file)
    scales = values.sizes("scales")
    if not scales:
        raise values.error("scales", "a list of whole numbers above 0")
    if list(scales) != sorted(set(scales)) or scales[-1] > LARGEST_SIDE:
        raise values.error("scales", f"different sizes in increasing order, up to {LARGEST_SIDE}")
    if values.any("combination") is None:
        return ScaleRuns(config, scales)
    return ScaleRuns(config, scales, _read_combination(values.child("combination")))


def _read_combination(values: JsonObject) -> Combination:
    fitted_on = None
    if values.any("fitted_on") is not None:
        dataset_and_split = values.texts("fitted_on")
        if len(dataset_and_split) != 2:
            raise values.error("fitted_on", "a dataset and a split, or null")
        fitted_on = (dataset_and_split[0], dataset_and_split[1])
    allowed = (MEAN,) if fitted_on is None else (MEAN, OBJECT_BANK)
    chosen = values.any("chosen")
    if chosen not in allowed:
        raise values.error("chosen", " or ".join(allowed))
    scores = {name: values.child("scores").number(name) for name in values.child("scores").values}
    return Combination(chosen, values.count("held_out"), scores, fitted_on)


def save_bank(folder: Path, bank: ObjectBank) -> None:
    """Write ``object_bank.safetensors``."""
    weights = bank.weights.contiguous()  # scikit-learn may return column-major arrays, which safetensors rejects
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
    for name, values in (("weights", bank.weights), ("bias", bank.bias)):
        if not values.is_floating_point() or not values.isfinite().all():
            raise WildcatError(f"{file} is damaged: its {name} must be finite numbers")
    if bank.weights.shape != (num_classes, num_classes * num_scales) or bank.bias.shape != (num_classes,):
        raise WildcatError(f"{file} is of other classes or scales: its weights are {tuple(bank.weights.shape)}")
    return bank
