"""Every setting of a training run, recipes that hold only what differs from the defaults, and the paper's methods.

>>> config = TrainConfig(data="folder:my_images", epochs=15)
>>> config.epochs, config.lr, config.score_sizes  # None: chosen when the training starts, by what the data are
(15, None, [320])
>>> TrainConfig(data="folder:my_images", lr=0)
Traceback (most recent call last):
wildcat.errors.WildcatError: lr must be above 0; got 0

Free of PyTorch.
"""

import dataclasses
import reprlib
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from wildcat.errors import WildcatError, guess

Regions = int | float | Literal["all"]

IMAGE_SIZE = 320  # side of training images in pixels
FROZEN_IMAGE_SIZE = 448  # where features are computed once, larger images cost little and give better scores
LARGEST_SIDE = 8192  # of an image for the network, in pixels; exported files take the same
MOST_SIZES = 32  # of an image at inference
LONGEST_TEXT = 4096  # characters of a setting, such as a path

Section = Literal["data", "model", "pooling", "optimization", "inference sizes", "machine"]
SECTIONS: tuple[Section, ...] = get_args(Section)


@dataclass(frozen=True)
class Limits:
    """The range of a number: bounds that are None do not limit it.

    >>> Limits(above=0, at_most=1).allow(0), str(Limits(above=0, at_most=1))
    (False, 'above 0 and at most 1')
    """

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def allow(self, value: float) -> bool:
        """Whether a number is in the range."""
        return (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        """Return the range in words."""
        bounds = {"above": self.above, "at least": self.at_least, "below": self.below, "at most": self.at_most}
        return " and ".join(f"{word} {bound}" for word, bound in bounds.items() if bound is not None)


@dataclass(frozen=True)
class About:
    """What the command line, the checks and the resuming of a run know about a setting.

    Attributes:
        help: one line for ``wildcat train --help``.
        section: heading under which the option is listed.
        limits: the allowed range of a number, or of each number of a list.
        largest: a bound that no reasonable value reaches, against damaged files.
        common: listed first, among the options that most people need.
        resumable: says how a run is carried out and not what it computes, so it may change when a run is resumed.
        automatic: None until a training starts, which chooses the value by what the data are
            (:mod:`wildcat.training.defaults`).
    """

    help: str
    section: Section
    limits: Limits = Limits()
    common: bool = False
    resumable: bool = False
    largest: float | None = None
    automatic: bool = False


def setting(
    default: Any,
    help: str,  # noqa: A002 - argparse's word
    *,
    section: Section,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    common: bool = False,
    resumable: bool = False,
    largest: float | None = None,
    automatic: bool = False,
) -> Any:
    """A field with a default, and what :class:`About` holds."""
    about = About(help, section, Limits(above, at_least, below, at_most), common, resumable, largest, automatic)
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"about": about})
    return field(default=default, metadata={"about": about})


@dataclass
class TrainConfig:
    """Settings of :func:`wildcat.train` and ``wildcat train``; only ``data`` has no default.

    They are saved with the run (config.json), with every automatic choice resolved. A setting that is None here
    although its type has no None is such a choice: :func:`wildcat.training.defaults.resolve_defaults` makes it when the
    training starts, by the number of training images and the kind of their labels.

    Raises:
        WildcatError: for a value of another type or out of range, naming the setting, the value and what is allowed.

    >>> TrainConfig(data="folder:my_images", image_size=448).num_maps
    4
    """

    # The dataset, and what is shown of its images
    data: str = field(
        metadata={
            "about": About(
                "dataset, kind:path (folder:DIR, tags:FILE.csv, labelstudio:FILE.json, cvat:FILE.xml, yolo:DIR, "
                "coco:DIR, voc:DIR, hf:DIR, voc07:DIR, synthetic, ...)",
                "data",
                common=True,
            )
        }
    )
    train_split: str | None = setting(None, "split to train on; the dataset's usual one unless given", section="data")
    val_split: str | None = setting(None, "split to score after each epoch; it never chooses the epoch", section="data")
    val_fraction: float = setting(
        0.0,
        "share of the training split to hold out and score after each epoch",
        section="data",
        at_least=0,
        below=1,
        common=True,
    )
    image_size: int = setting(
        None,
        f"side in pixels of the square that training images are resized to; {IMAGE_SIZE} unless given, "
        f"{FROZEN_IMAGE_SIZE} with frozen",
        section="data",
        above=0,
        largest=LARGEST_SIDE,
        common=True,
    )
    crop_area: float = setting(
        1.0,
        "smallest area of a random crop, as a share of the image's; 1 for no crop",
        section="data",
        above=0,
        at_most=1,
    )
    on_bad_image: Literal["error", "skip", "partial"] = setting(
        "error",
        "what to do when an image cannot be read; partial reads a JPEG that was cut as far as it goes",
        section="data",
    )
    difficult: Literal["positive", "ignore"] = setting(
        "positive", "how labels of difficult objects count in the loss", section="data"
    )

    # Section 3.1: the backbone; which of its weights are trained
    backbone: str = setting(
        "lite0", "lite0, lite1, lite2, resnet18 ... resnet152 or timm:NAME", section="model", common=True
    )
    pretrained: bool = setting(True, "start from ImageNet weights", section="model")
    weights: str | None = setting(
        None, "file with the backbone's state dict, instead of the ImageNet weights", section="model"
    )
    output_stride: Literal[8, 16, 32] | None = setting(
        None, "input pixels per map cell, by dilated convolutions; the backbone's own unless given", section="model"
    )
    frozen: bool = setting(
        False,
        "train the head alone, on features of the whole backbone that are computed once and kept in cache_dir: takes "
        "seconds",
        section="model",
        common=True,
    )
    feature_views: int = setting(
        1,
        "frozen: views of each image whose features are computed: 1 the image, 2 also its mirror image, more also "
        "random crops (crop_area)",
        section="model",
        above=0,
        largest=1024,
    )
    freeze_stages: int = setting(
        None,
        "number of backbone stages, counted from the input, that are not trained; -1 for all",
        section="model",
        automatic=True,
    )
    freeze_batch_norm: bool = setting(
        None, "do not train the backbone's BatchNorm layers", section="model", automatic=True
    )
    freeze_depthwise: bool = setting(
        None, "do not train the backbone's depthwise filters: faster on a CPU", section="model", automatic=True
    )
    fit_head: bool = setting(
        None,
        "start from a head that is fitted on features of the pretrained backbone",
        section="model",
        automatic=True,
    )
    initial_scale: float = setting(
        1.0,
        "factor of the random weights that the transfer layer starts with; 0 starts it from zeros",
        section="model",
        at_least=0,
        largest=1e6,
    )

    # Sections 3.2 and 3.3: the maps of a class, and from maps to scores
    num_maps: int = setting(4, "M, maps per class", section="pooling", above=0, largest=1024)
    class_pooling: Literal["mean", "max", "lse", "softmax"] = setting(
        "mean",
        "how the maps of a class become its class map (Equation 1): mean is the paper's; with the others maps can "
        "specialize on parts",
        section="pooling",
    )
    map_dropout: float = setting(
        0.0,
        "share of the maps of a class that each training step leaves out at random, so that all maps are used",
        section="pooling",
        at_least=0,
        below=1,
    )
    fit_maps: bool = setting(
        False,
        "after the training, let the maps of a class show the kinds of places where its evidence is; scores stay as "
        "they are",
        section="pooling",
    )
    pooling: str = setting(
        "wildcat",
        "spatial pooling: wildcat, weldon, top, llp, max, average, lse (Table 1)",
        section="pooling",
    )
    kmax: Regions = setting(
        None, 'k+, the highest regions: a count, a proportion, "all", or 0', section="pooling", automatic=True
    )
    kmin: Regions | None = setting(
        None, "k-, the lowest regions: likewise; the same as k+ unless given", section="pooling"
    )
    alpha: float = setting(None, "weight of the lowest regions", section="pooling", automatic=True)
    architecture: Literal["a", "b"] = setting(
        "a", "a: pool the class maps; b: pool the features, then classify", section="pooling"
    )
    background_class: bool = setting(
        False,
        "add a background class that is present in every image; masks can take the background from its map",
        section="pooling",
    )

    # Section 3.4: the optimization
    epochs: int = setting(
        None,
        "passes over the training images",
        section="optimization",
        above=0,
        largest=10**6,
        common=True,
        automatic=True,
    )
    batch_size: int = setting(
        16, "images per step, over all processes", section="optimization", above=0, largest=10**6, common=True
    )
    drop_last: bool = setting(
        None,
        "give every step exactly batch_size images, and leave the rest out of the epoch; otherwise an epoch has all "
        "images in batches of equal size",
        section="optimization",
        automatic=True,
    )
    lr: float = setting(None, "learning rate of the head", section="optimization", above=0, common=True, automatic=True)
    backbone_lr_factor: float = setting(
        None,
        "learning rate of the backbone, as a multiple of the head's",
        section="optimization",
        at_least=0,
        automatic=True,
    )
    momentum: float = setting(0.9, "momentum of SGD", section="optimization", at_least=0)
    weight_decay: float = setting(1e-4, "weight decay", section="optimization", at_least=0)
    schedule: Literal["constant", "step", "cosine"] = setting(
        "cosine", "how the learning rate changes over the epochs", section="optimization"
    )
    step_epochs: int = setting(
        10,
        "schedule step: epochs after which the learning rate is divided by 10",
        section="optimization",
        above=0,
        largest=10**6,
    )
    warmup_epochs: float = setting(
        0.0, "epochs over which the learning rate rises linearly from 0", section="optimization", at_least=0
    )
    solver: Literal["sgd", "svm"] = setting(
        "sgd",
        "sgd: train the network; svm: linear SVMs on the averaged features of the frozen backbone",
        section="optimization",
    )
    seed: int = setting(0, "seed of all random numbers", section="optimization", at_least=0, below=2**63)

    # Section 4: the sizes of inference
    score_sizes: list[int] = setting(
        [], "image sides for scores; image_size unless given", section="inference sizes", above=0, largest=LARGEST_SIDE
    )
    map_sizes: list[int] = setting(
        [],
        "image sides for points and masks; score_sizes unless given",
        section="inference sizes",
        above=0,
        largest=LARGEST_SIDE,
    )
    mirror: bool = setting(False, "also run the mirrored image, and average the two outputs", section="inference sizes")

    # How the run is carried out on this machine
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "auto: bf16 if a short measurement finds it faster", section="machine"
    )
    workers: int | None = setting(
        None,
        "processes that load images; chosen from the machine unless given",
        section="machine",
        at_least=0,
        largest=1024,
        resumable=True,
    )
    cache_gb: float = setting(
        2.0,
        "gigabytes of memory for decoded images, so that each is read once; 0 for none",
        section="machine",
        at_least=0,
        resumable=True,
    )
    cache_dir: str | None = setting(
        None,
        "frozen: folder of the computed features, which runs share; the user's cache unless given",
        section="machine",
        resumable=True,
    )
    cache_dir_gb: float = setting(
        20.0,
        "frozen: gigabytes of disk for the features in cache_dir, at most",
        section="machine",
        above=0,
        resumable=True,
    )
    accumulate: int = setting(
        1,
        "number of parts in which each process computes its share of a batch; more parts need less memory",
        section="machine",
        above=0,
        largest=10**6,
        resumable=True,
    )
    shard: bool = setting(
        False,
        "shard weights, gradients and momentum over the processes (FSDP), for large backbones",
        section="machine",
        resumable=True,
    )
    save_minutes: float = setting(
        5.0,
        "minutes between saved states; a state is also saved after each epoch",
        section="machine",
        above=0,
        resumable=True,
    )
    held_out_images: int = setting(
        200,
        "held-out images that are scored at the end of the training, at most; 0 for none",
        section="machine",
        at_least=0,
        largest=10**6,
        resumable=True,
    )
    stall_minutes: float = setting(
        10.0,
        "minutes without an image from the workers after which training stops with an error",
        section="machine",
        above=0,
        resumable=True,
    )

    def __post_init__(self) -> None:
        """Check types, ranges, and settings that exclude each other."""
        given: int | None = self.image_size
        if given is None:
            self.image_size = FROZEN_IMAGE_SIZE if self.frozen is True else IMAGE_SIZE
        types = get_type_hints(TrainConfig)
        for each in dataclasses.fields(self):
            about, value = each.metadata["about"], getattr(self, each.name)
            if value is not None or not about.automatic:
                _check_value(each.name, value, types[each.name], about)
        if self.val_fraction and self.val_split:
            raise WildcatError("val_split and val_fraction exclude each other; give one")
        if self.solver == "svm" and (self.pooling, self.num_maps, self.background_class) != ("average", 1, False):
            raise WildcatError(
                "solver svm needs pooling average, num_maps 1 and no background_class (--method features); "
                f"got {self.pooling}, {self.num_maps}, {self.background_class}"
            )
        if self.fit_maps and self.class_pooling != "mean":
            raise WildcatError(
                f"fit_maps needs class_pooling mean, under which it changes no score; got {self.class_pooling}"
            )
        if self.frozen:
            self._freeze()
        for name in ("score_sizes", "map_sizes"):
            if len(getattr(self, name)) > MOST_SIZES:
                raise WildcatError(f"{name} must be at most {MOST_SIZES} sizes; got {len(getattr(self, name))}")
        self.score_sizes = self.score_sizes or [self.image_size]
        self.map_sizes = self.map_sizes or list(self.score_sizes)

    def _freeze(self) -> None:
        """Freeze the whole backbone, whatever a recipe says, and check the views whose features are computed."""
        if self.shard:
            raise WildcatError("frozen excludes shard: the head alone is trained, which is small")
        if self.feature_views > 2 and self.crop_area == 1:
            raise WildcatError(
                f"feature_views {self.feature_views} includes random crops: it needs a crop_area below 1, such as 0.5"
            )
        self.freeze_stages, self.freeze_batch_norm, self.freeze_depthwise = -1, True, True

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON; :func:`config_from_dict` is the inverse."""
        return dataclasses.asdict(self)


# Settings that may change when a run is resumed.
RESUMABLE_SETTINGS = tuple(each.name for each in dataclasses.fields(TrainConfig) if each.metadata["about"].resumable)

# Settings that are chosen when a training starts, unless given.
AUTOMATIC_SETTINGS = tuple(each.name for each in dataclasses.fields(TrainConfig) if each.metadata["about"].automatic)

# What settings were in earlier versions, which chose nothing by the data: the values of files that do not name them.
FORMER_DEFAULTS: dict[str, Any] = {
    "epochs": 10,
    "lr": 0.05,
    "backbone_lr_factor": 0.1,
    "kmax": 0.2,
    "alpha": 0.7,
    "freeze_stages": 0,
    "freeze_batch_norm": False,
    "freeze_depthwise": False,
    "fit_head": False,
    "drop_last": True,
}


def default_settings() -> dict[str, Any]:
    """The default of every setting that has one, as in :meth:`TrainConfig.to_dict`.

    >>> default_settings()["momentum"], "data" in default_settings()
    (0.9, False)
    """
    values = TrainConfig(data="").to_dict()
    del values["data"]
    return values


def config_from_dict(values: Any, source: str) -> TrainConfig:
    """The inverse of :meth:`TrainConfig.to_dict`; ``source`` names the file in errors.

    Settings that are missing get their defaults.

    Raises:
        WildcatError: for no mapping, a key that is not a setting, a value that the setting cannot have, or no ``data``.

    >>> config_from_dict({"data": "folder:my_images", "epochs": 3}, "config.json").epochs
    3
    """
    if not isinstance(values, dict):
        raise WildcatError(f"{source} must be a mapping of settings; got {type(values).__name__}")
    names = [each.name for each in dataclasses.fields(TrainConfig)]
    for key in values:
        if key not in names:
            raise WildcatError(f"{source}: unknown setting {reprlib.repr(key)}{guess(str(key), names)}")
    try:
        config = TrainConfig(**{"data": "", **values})
    except WildcatError as error:
        raise WildcatError(f"{source}: {error}") from error
    if "data" not in values:
        raise WildcatError(f"{source}: the setting data is missing")
    return config


def saved_settings(values: Any, source: str) -> TrainConfig:
    """The settings that a run saved; as :func:`config_from_dict`, but what is missing is as in earlier versions.

    >>> saved_settings({"data": "folder:my_images", "epochs": 3}, "config.json").lr
    0.05
    """
    return config_from_dict({**FORMER_DEFAULTS, **values} if isinstance(values, dict) else values, source)


def _check_value(name: str, value: Any, kind: Any, about: About) -> None:
    if not _has_type(value, kind):
        raise WildcatError(f"{name} must be {describe_type(kind)}; got {reprlib.repr(value)}")
    if isinstance(value, int | float) and not abs(value) <= sys.float_info.max:  # also of a whole number
        raise WildcatError(f"{name} must be a finite number; got {reprlib.repr(value)}")
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise WildcatError(f"{name} must be text of at most {LONGEST_TEXT} characters; got {reprlib.repr(value)}")
    numbers = value if isinstance(value, list) else [value] if isinstance(value, int | float) else []
    if not all(map(about.limits.allow, numbers)):
        raise WildcatError(f"{name} must be {about.limits}; got {reprlib.repr(value)}")
    if about.largest is not None and max(numbers, default=0) > about.largest:
        raise WildcatError(f"{name} must be at most {about.largest}; got {reprlib.repr(value)}")


def _has_type(value: object, kind: Any) -> bool:
    """Whether a value is of a setting's type; an int serves as a float, and a bool as neither."""
    if get_origin(kind) is Literal:
        return any(type(value) is type(choice) and value == choice for choice in get_args(kind))
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_has_type(item, get_args(kind)[0]) for item in value)
    if get_args(kind):  # a union
        return any(_has_type(value, choice) for choice in get_args(kind))
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
    """Names of the recipes that come with the package.

    >>> "voc07" in recipe_names()
    True
    """
    return sorted(file.stem for file in _recipe_folder().glob("*.yaml"))


def read_recipe(name_or_file: str) -> dict[str, Any]:
    """The settings of a recipe: a name that comes with the package, or a YAML file.

    Raises:
        WildcatError: for a name that is neither, or a file that is not a mapping of settings.

    >>> read_recipe("voc07")["backbone"]
    'resnet101'
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
    checked = {"data": "", **values} if isinstance(values, dict) else values  # a recipe need not name the data
    config_from_dict(checked, f"recipe {name_or_file}")
    return dict(values)


# Table 1 lists the pooling of each method, Section 4 describes the methods. kmax is not set here: a recipe may set it.
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
    """The settings of a method that the paper compares; they replace those of a recipe.

    Raises:
        WildcatError: for an unknown name.

    >>> method_settings("deepmil")["pooling"]
    'max'
    """
    if name not in METHODS:
        raise WildcatError(f"no method {name!r}{guess(name, METHODS)} (methods: {', '.join(METHODS)})")
    return dict(METHODS[name])
