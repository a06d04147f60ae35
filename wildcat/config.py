"""Every setting of a run, and recipes that hold only what differs from the defaults. Free of PyTorch."""

import dataclasses
import math
import reprlib
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from wildcat.errors import WildcatError, guess

Regions = int | float | Literal["all"]

# Settings that say how a run is carried out and not what it computes: they may change when it is continued.
RESUMABLE_SETTINGS = ("workers", "cache_gb", "accumulate", "shard", "save_minutes", "stall_minutes")


def setting(default: Any, help: str) -> Any:  # noqa: A002 - argparse's word
    """A field with its help text, which the command line shows."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass
class TrainConfig:
    """Settings of ``wildcat train``; saved with the run, with every automatic choice resolved."""

    data: str = setting("synthetic", "dataset, kind:path (voc07:DIR, folder:DIR, tags:FILE.csv, synthetic, ...)")
    train_split: str | None = setting(None, "split to train on; the dataset's usual one unless given")
    val_split: str | None = setting(None, "split to score after each epoch; it never chooses the epoch")
    val_fraction: float = setting(0.0, "share of the training split to hold out and score after each epoch")
    on_bad_image: Literal["error", "skip"] = setting("error", "what to do when an image cannot be read")
    difficult: Literal["positive", "ignore"] = setting("positive", "how labels of difficult objects count in the loss")

    backbone: str = setting("lite0", "lite0, lite1, lite2, resnet18 ... resnet152 or timm:NAME")
    pretrained: bool = setting(True, "start from ImageNet weights")
    weights: str | None = setting(None, "file with the backbone's state dict, instead of the hub's")
    output_stride: Literal[8, 16, 32] | None = setting(None, "input pixels per map cell, by dilation")
    num_maps: int = setting(4, "M, maps per class")
    pooling: str = setting("wildcat", "spatial pooling: wildcat, weldon, top, llp, max, average, lse (Table 1)")
    kmax: Regions = setting(0.2, 'k+: a count, a proportion, "all", or 0')
    kmin: Regions | None = setting(None, "k-: likewise; the same as k+ unless given")
    alpha: float = setting(0.7, "weight of the lowest regions")
    architecture: Literal["a", "b"] = setting("a", "a: pool the class maps; b: pool the features, then classify")
    solver: Literal["sgd", "svm"] = setting(
        "sgd", "sgd: train the network; svm: linear SVMs on the averaged features of the frozen backbone"
    )
    background_class: bool = setting(
        False, "learn a further class that is in every image: masks may have their background from its map"
    )
    freeze_stages: int = setting(0, "backbone stages, from the input, that do not learn; -1 for all")
    freeze_batch_norm: bool = setting(False, "keep the backbone's BatchNorm layers as they are")
    freeze_depthwise: bool = setting(False, "keep the backbone's depthwise filters as they are: faster on a CPU")

    image_size: int = setting(320, "side in pixels of the square that training images are warped to")
    crop_area: float = setting(1.0, "smallest area of a random crop, as a share of the image's; 1 for no crop")
    epochs: int = setting(10, "passes over the training images")
    batch_size: int = setting(16, "images per step, over all processes")
    accumulate: int = setting(1, "parts in which each process computes its share of a batch, to need less memory")
    shard: bool = setting(
        False, "divide weights, gradients and momentum over the processes (FSDP), for large backbones"
    )
    lr: float = setting(0.05, "learning rate of the head")
    backbone_lr_factor: float = setting(0.1, "learning rate of the backbone, as a multiple of the head's")
    momentum: float = setting(0.9, "momentum of SGD")
    weight_decay: float = setting(1e-4, "weight decay")
    schedule: Literal["constant", "step", "cosine"] = setting("cosine", "course of the learning rate")
    step_epochs: int = setting(10, "schedule step: epochs between divisions by 10")
    warmup_epochs: float = setting(0.0, "epochs over which the learning rate rises linearly from 0")

    score_sizes: list[int] = setting([], "sides at which images are read for scores; image_size unless given")
    map_sizes: list[int] = setting([], "sides at which images are read for points and masks; score_sizes unless given")
    mirror: bool = setting(False, "read the mirrored image too and average")

    seed: int = setting(0, "seed of everything random")
    precision: Literal["auto", "fp32", "bf16"] = setting("auto", "bf16 where a short measurement finds it faster")
    workers: int | None = setting(None, "processes that read images; chosen from the machine unless given")
    cache_gb: float = setting(2.0, "gigabytes of memory for decoded images, each read once then; 0 for none")
    save_minutes: float = setting(5.0, "minutes between saved states, beside the one after each epoch")
    stall_minutes: float = setting(10.0, "minutes without an image from the workers after which the run ends")

    def __post_init__(self) -> None:
        """Reject values of another type, and values that no run can have.

        Raises:
            WildcatError: naming the setting, its value and what is allowed.
        """
        for name, kind in get_type_hints(TrainConfig).items():
            value = getattr(self, name)
            if not _fits(value, kind):
                raise WildcatError(f"{name} must be {describe_type(kind)}; got {reprlib.repr(value)}")
            if isinstance(value, float) and not math.isfinite(value):
                raise WildcatError(f"{name} must be a finite number; got {value}")
        positive = (
            *("image_size", "epochs", "batch_size", "accumulate", "num_maps", "step_epochs", "lr"),
            *("save_minutes", "stall_minutes"),
        )
        if self.seed >= 2**63:
            raise WildcatError(f"seed must be below 2 to the power of 63; got {self.seed}")
        not_negative = ("momentum", "weight_decay", "warmup_epochs", "backbone_lr_factor", "seed", "cache_gb")
        for names, low, allowed in ((positive, 0, "above 0"), (not_negative, -1, "0 or more")):
            for name in names:
                value = getattr(self, name)
                if not (value > low if low == 0 else value >= 0):
                    raise WildcatError(f"{name} must be {allowed}; got {value}")
        if not 0 < self.crop_area <= 1:
            raise WildcatError(f"crop_area must be above 0 and at most 1; got {self.crop_area}")
        if not 0 <= self.val_fraction < 1:
            raise WildcatError(f"val_fraction must be at least 0 and below 1; got {self.val_fraction}")
        if self.val_fraction and self.val_split:
            raise WildcatError("val_split and val_fraction exclude each other; give one")
        if self.solver == "svm" and (self.pooling, self.num_maps, self.background_class) != ("average", 1, False):
            raise WildcatError(
                "solver svm needs pooling average, num_maps 1 and no background_class (--method features); "
                f"got {self.pooling}, {self.num_maps}, {self.background_class}"
            )
        if self.workers is not None and self.workers < 0:
            raise WildcatError(f"workers must be 0 or more; got {self.workers}")
        if any(size < 1 for size in (*self.score_sizes, *self.map_sizes)):
            raise WildcatError(f"score_sizes and map_sizes must be above 0; got {self.score_sizes}, {self.map_sizes}")
        self.score_sizes = self.score_sizes or [self.image_size]
        self.map_sizes = self.map_sizes or list(self.score_sizes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return dataclasses.asdict(self)


def config_from_dict(values: Any, source: str) -> TrainConfig:
    """The inverse of :meth:`TrainConfig.to_dict`; ``source`` names the file in errors.

    Raises:
        WildcatError: for no mapping, a key that is not a setting, or a value that the setting cannot have.
    """
    if not isinstance(values, dict):
        raise WildcatError(f"{source} must be a mapping of settings; got {type(values).__name__}")
    known = [f.name for f in dataclasses.fields(TrainConfig)]
    for key in values:
        if key not in known:
            raise WildcatError(f"{source}: unknown setting {reprlib.repr(key)}{guess(str(key), known)}")
    try:
        return TrainConfig(**values)
    except WildcatError as error:
        raise WildcatError(f"{source}: {error}") from error


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of a setting's type; an int serves as a float, and a bool as neither."""
    if get_origin(kind) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_fits(item, get_args(kind)[0]) for item in value)
    if get_args(kind):  # a union
        return any(_fits(value, choice) for choice in get_args(kind))
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def describe_type(kind: Any) -> str:
    """A setting's type in words."""
    words = {int: "a whole number", float: "a number, e.g. 0.01", bool: "true or false", str: "text", NoneType: "null"}
    if get_origin(kind) is list:
        return "a list of whole numbers"
    if get_origin(kind) is Literal:
        return ", ".join(map(repr, get_args(kind)))
    return " or ".join(describe_type(choice) for choice in get_args(kind)) or words[kind]


def _recipe_folder() -> Path:
    return Path(__file__).parent / "recipes"


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package."""
    return sorted(file.stem for file in _recipe_folder().glob("*.yaml"))


def read_recipe(name_or_file: str) -> dict[str, Any]:
    """The settings of a recipe: a name that comes with the package, or a YAML file.

    Raises:
        WildcatError: for a name that is neither, or a file that is not a mapping of settings.
    """
    import yaml

    names = recipe_names()
    file = Path(name_or_file)
    if name_or_file in names:
        file = _recipe_folder() / f"{name_or_file}.yaml"
    elif not file.is_file():
        raise WildcatError(
            f"no recipe or file {name_or_file!r}{guess(name_or_file, names)} (recipes: {', '.join(names)})"
        )
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise WildcatError(f"recipe {name_or_file} cannot be read as YAML: {' '.join(str(error).split())}") from error
    config_from_dict(values, f"recipe {name_or_file}")
    return dict(values)


# Source: Table 1 for the pooling, Section 4 for what each published method is there. Regions (kmax) stay the recipe's.
METHODS: dict[str, dict[str, Any]] = {
    "wildcat": {"pooling": "wildcat", "architecture": "a", "solver": "sgd"},
    "weldon": {"pooling": "weldon", "num_maps": 1, "architecture": "a", "solver": "sgd"},
    "deepmil": {"pooling": "max", "num_maps": 1, "architecture": "a", "solver": "sgd"},
    "top": {"pooling": "top", "num_maps": 1, "architecture": "a", "solver": "sgd"},
    "llp": {"pooling": "llp", "num_maps": 1, "architecture": "a", "solver": "sgd"},
    "pronet": {"pooling": "lse", "num_maps": 1, "architecture": "a", "solver": "sgd"},
    "gap": {"pooling": "average", "num_maps": 1, "architecture": "b", "solver": "sgd"},
    "features": {"pooling": "average", "num_maps": 1, "architecture": "a", "solver": "svm"},
}


def method_settings(name: str) -> dict[str, Any]:
    """The settings of a method; they go before a recipe's.

    Raises:
        WildcatError: for a name that is not known.

    >>> method_settings("deepmil")["pooling"]
    'max'
    """
    if name not in METHODS:
        raise WildcatError(f"no method {name!r}{guess(name, METHODS)} (methods: {', '.join(METHODS)})")
    return dict(METHODS[name])
