"""The paper's experiments on frozen features: every row at its own learning rate, over many seeds.

The backbone's features are computed once; only heads are trained, many at once. The rate of each row is chosen on
held-out training images; then the heads of all seeds are trained on all training images, and scored on the test images.

::

    DIR/reproduce.json     dataset and settings that all heads of the folder share
    DIR/rates.json         score on held-out training images of each row at each learning rate
    DIR/heads/NAME.json    scores of a head; NAME.npz has its predictions, for intervals over images
    DIR/table6.md, .csv, .json, figure4.png, .svg   as without --frozen
"""

import logging
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from wildcat.apps.reproduce import frozen_tables
from wildcat.apps.reproduce.plan import Experiment, Row, as_in_the_paper, planned, run_name, setting_name, with_seed
from wildcat.apps.reproduce.run import claim
from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.data.registry import default_splits
from wildcat.errors import WildcatError
from wildcat.evaluation.scoring import open_scored, scorable_tasks
from wildcat.metrics.metric_table import Detail, measured
from wildcat.runs.folder import build_model
from wildcat.system.files import read_json, write_json
from wildcat.training.data import open_training_data
from wildcat.training.feature_store import FeatureStore
from wildcat.training.head_scores import held_out_scores, image_sizes, predict_heads
from wildcat.training.many_heads import train_heads

RATE_FACTORS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
"""The learning rates that are tried unless others are given, as multiples of the recipe's."""
HELD_OUT = 0.25
"""Share of the training images on which rates are chosen, unless another is given."""
SPLITS = 2
"""Random splits of the training images over which a rate is judged."""

RATES, HEADS = "rates.json", "heads"
MOST_AT_ONCE = 64  # heads of a pass; what is finished is kept after each

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RateChoice:
    """How the learning rate of a row is chosen.

    Attributes:
        rates: to choose from, increasing.
        held_out: share of the training images that judge.

    Raises:
        WildcatError: for rates that are not above 0, and a share that is not between 0 and 1.

    >>> RateChoice((0.2, 0.1)).rates
    (0.1, 0.2)
    """

    rates: tuple[float, ...]
    held_out: float = HELD_OUT

    def __post_init__(self) -> None:
        """Check the values, and sort the rates."""
        for rate in self.rates:
            if not (rate > 0 and math.isfinite(rate)):
                raise WildcatError(f"--rates must be numbers above 0; got {rate:g}")
        if not 0 < self.held_out < 1:
            raise WildcatError(f"--held-out must be a share between 0 and 1; got {self.held_out:g}")
        object.__setattr__(self, "rates", tuple(sorted(self.rates)))


def default_rates(recipe: TrainConfig) -> list[float]:
    """The learning rates that are tried unless others are given.

    >>> default_rates(TrainConfig("synthetic", lr=0.1))
    [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4]
    """
    return [round(as_in_the_paper(recipe).lr * factor, 10) for factor in RATE_FACTORS]


@dataclass(frozen=True)
class FrozenData:
    """The images of a seed, and their features.

    Attributes:
        train: the training images.
        test: the images that heads are scored on at the end.
        train_features: of the training images.
        test_features: of the test images.
        sizes: (width, height) of the test images where points are scored, else None.
    """

    train: Dataset
    test: Dataset
    train_features: FeatureStore
    test_features: FeatureStore
    sizes: list[tuple[int, int]] | None


def frozen_recipe(recipe: TrainConfig) -> TrainConfig:
    """The settings of a recipe with ``frozen``, with nothing left to be chosen by the data.

    Raises:
        WildcatError: for settings that heads on frozen features do not have.

    >>> frozen_recipe(TrainConfig("synthetic", frozen=True, lr=0.1)).freeze_stages
    -1
    """
    recipe = as_in_the_paper(recipe)
    changed = {
        "val_fraction": (0.0, "the held-out images that choose the rates are given by --held-out"),
        "val_split": (None, "the held-out images that choose the rates are given by --held-out"),
        "fit_head": (False, "all rows start from the same initial weights"),
        "mirror": (False, "heads are scored on features at image_size"),
        "score_sizes": ([recipe.image_size], "heads are scored on features at image_size"),
        "map_sizes": ([recipe.image_size], "heads are scored on features at image_size"),
        "solver": ("sgd", "heads are trained by SGD"),
    }
    for name, (needed, why) in changed.items():
        if getattr(recipe, name) != needed:
            raise WildcatError(f"{name} must be {needed!r} with frozen, because {why}; got {getattr(recipe, name)!r}")
    return replace(recipe, precision="bf16" if recipe.precision == "auto" else recipe.precision)  # of the features


def frozen_rows(experiment: Experiment) -> list[Row]:
    """The rows of an experiment that train a head on features of one scale."""
    return [row for row in experiment.rows if not row.combined and row.settings.get("solver", "sgd") == "sgd"]


def check_frozen(experiment: Experiment) -> None:
    """Check that an experiment can be repeated on frozen features.

    Raises:
        WildcatError: for one that needs masks.
    """
    if "segmentation" in experiment.measures:
        raise WildcatError(
            f"{experiment.name} scores masks, which frozen features do not give; leave out one of the two"
        )


def reproduce_frozen(
    chosen: Sequence[Experiment],
    recipe: TrainConfig,
    out: Path,
    seeds: Sequence[int],
    command: str,
    choice: RateChoice,
) -> list[Path]:
    """Choose a learning rate for each row, train and score the missing heads, and write the pages.

    After an interruption, call it again: heads that were scored are skipped.

    Args:
        chosen: from :func:`wildcat.apps.reproduce.plan.experiments`; those without masks.
        recipe: the settings that the rows change, and the dataset; its ``lr`` is the fixed rate of the second column.
        out: folder for heads and pages.
        seeds: one head of each row for each seed.
        command: the command that the pages show.
        choice: how the rates of the rows are chosen.

    Returns:
        The pages.

    Raises:
        WildcatError: if the dataset or the settings do not allow an experiment, if the folder holds experiments on
            another dataset or with other settings, or if every rate of a row diverges.

    >>> table = experiments()["table6"]  # doctest: +SKIP
    >>> recipe, choice = TrainConfig("voc07:data", initial_scale=0.0), RateChoice((0.1, 0.4, 1.6))
    >>> reproduce_frozen([table], recipe, Path("runs/frozen"), range(10), "", choice)  # doctest: +SKIP
    """
    recipe = frozen_recipe(recipe)
    for experiment in chosen:
        check_frozen(experiment)
    kinds = (".md", ".csv", ".json", ".svg", ".png")
    files = [f"{experiment.name}{kind}" for experiment in chosen for kind in kinds]
    recipe = claim(out, recipe, [*files, RATES, HEADS])
    data = _DataOfSeeds(recipe)
    first = data.of(seeds[0])
    for experiment in chosen:
        if "pointing" in experiment.measures and first.sizes is None:
            raise WildcatError(f"{experiment.name} needs boxes; {recipe.data} {first.test.split} has none")

    rows = {row_setting(row, recipe): row for experiment in chosen for row in frozen_rows(experiment)}
    found = choose_rates(rows, recipe, first, out / RATES, choice)
    own_rates = {setting: best_rate(scores, setting) for setting, scores in found.items()}
    for seed in seeds:
        configs: dict[str, TrainConfig] = {}
        for experiment in chosen:
            for row in frozen_rows(experiment):
                own, fixed = head_configs(row, recipe, seed, own_rates)
                configs |= {run_name(own): own, run_name(fixed): fixed}
        missing = [config for name, config in configs.items() if not (out / HEADS / f"{name}.json").exists()]
        if missing:
            logger.info("seed %d: %d heads of %d are missing", seed, len(missing), len(configs))
            _train_and_score(missing, data.of(seed), out / HEADS, f"seed {seed}")
    about = {
        "command": command,
        "data": recipe.data,
        "train_split": first.train.split,
        "split": first.test.split,
        "images": len(first.test),
        "frozen": {
            "rates": list(choice.rates),
            "held_out": choice.held_out,
            "splits": SPLITS,
            "fixed_rate": recipe.lr,
            "initial_scale": recipe.initial_scale,
        },
    }
    # Random splits by seed have other test images for each.
    intervals = None if "{seed}" in recipe.data else frozen_tables.ImageIntervals(out / HEADS, first.test)
    pages = []
    for experiment in chosen:
        rows_of_it = _rows_of(experiment, recipe, out / HEADS, seeds, found, own_rates)
        pages.append(frozen_tables.write(experiment, recipe, out, rows_of_it, intervals, about))
    return pages


def describe_work(chosen: Sequence[Experiment], recipe: TrainConfig, seeds: Sequence[int], choice: RateChoice) -> str:
    """What :func:`reproduce_frozen` would train, in words; nothing is opened.

    Raises:
        WildcatError: for settings or experiments that it rejects.
    """
    recipe = frozen_recipe(recipe)
    for experiment in chosen:
        check_frozen(experiment)
    settings = {row_setting(row, recipe) for experiment in chosen for row in frozen_rows(experiment)}
    rates, heads = len(choice.rates) * SPLITS, 2 * len(seeds)
    return (
        f"{len(settings)} settings; {len(settings) * rates} heads of {recipe.epochs} epochs choose learning rates, "
        f"then at most {len(settings) * heads} are trained for {len(seeds)} seeds, at own and at fixed rates"
    )


def row_setting(row: Row, recipe: TrainConfig) -> str:
    """The name of a row's settings without its learning rate: rows that differ only in the rate share the choice."""
    return setting_name(replace(recipe, **row.settings))


def head_configs(
    row: Row, recipe: TrainConfig, seed: int, chosen_rates: Mapping[str, float]
) -> tuple[TrainConfig, TrainConfig]:
    """The settings of a row's heads for a seed: at its own rate, and at the fixed rate."""
    fixed = planned(row, recipe, seed).config
    fixed = replace(fixed, backbone_lr_factor=recipe.backbone_lr_factor)  # nothing of the backbone is trained
    return replace(fixed, lr=chosen_rates[row_setting(row, recipe)]), fixed


def best_rate(scores: Mapping[float, Sequence[float]], setting: str) -> float:
    """The rate of the highest mean score; the lower one of equals.

    Raises:
        WildcatError: if the head diverged at every rate.

    >>> best_rate({0.1: [80.0, 82.0], 0.2: [83.0, 81.0], 0.4: [90.0, math.nan]}, "a")
    0.2
    """
    means = {rate: statistics.fmean(values) for rate, values in sorted(scores.items())}
    finite = {rate: mean for rate, mean in means.items() if math.isfinite(mean)}
    if not finite:
        raise WildcatError(f"{setting} diverged at every rate ({', '.join(f'{rate:g}' for rate in means)}); give lower")
    return max(finite, key=lambda rate: finite[rate])


def choose_rates(
    rows: Mapping[str, Row],
    recipe: TrainConfig,
    data: FrozenData,
    file: Path,
    choice: RateChoice,
) -> dict[str, dict[float, list[float]]]:
    """Score each row at each rate on held-out training images.

    Args:
        rows: by the names of their settings.
        recipe: the settings that they change.
        data: of the first seed; its test images are not used.
        file: where scores are kept; those that it holds are not computed again.
        choice: the rates, and the share of the training images.

    Returns:
        Setting -> rate -> mAP or accuracy of each split, in per cent; NaN where the head diverged.
    """
    known: dict[str, float | None] = read_json(file) if file.exists() else {}
    found: dict[str, dict[float, list[float]]] = {name: {rate: [] for rate in choice.rates} for name in rows}
    images, epochs = len(data.train), recipe.epochs
    held = round(choice.held_out * images)
    for split in range(SPLITS):
        configs = {}
        for name, row in rows.items():
            for rate in choice.rates:
                settings = replace(recipe, **row.settings, lr=rate, val_fraction=choice.held_out)
                configs[name, rate] = replace(settings, data=data.train.spec, seed=split)
        missing = [config for config in configs.values() if run_name(config) not in known]
        for start in range(0, len(missing), MOST_AT_ONCE):
            part = missing[start : start + MOST_AT_ONCE]
            work = len(part) * (epochs * (images - held) + held)
            with _bar(work, f"learning rates, split {split + 1} of {SPLITS}") as bar:
                scores = held_out_scores(
                    data.train_features, data.train, part, share=choice.held_out, seed=split, after_step=bar.update
                )
            for config, score in zip(part, scores, strict=True):
                known[run_name(config)] = None if math.isnan(score) else score
            write_json(file, known)
        for (name, rate), config in configs.items():
            kept = known[run_name(config)]
            found[name][rate].append(math.nan if kept is None else kept)
    return found


def _bar(work: int, what: str) -> "tqdm[Any]":
    return tqdm(total=work, desc=what, unit=" heads x images", unit_scale=True, disable=None)


def _train_and_score(configs: Sequence[TrainConfig], data: FrozenData, folder: Path, what: str) -> None:
    """Train heads on all training images, score them on the test images, and write scores and predictions."""
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(configs), MOST_AT_ONCE):
        part = configs[start : start + MOST_AT_ONCE]
        with _bar(len(part) * (part[0].epochs * len(data.train) + len(data.test)), what) as bar:
            heads = train_heads(data.train_features, data.train, part, after_step=bar.update)
            predictions = predict_heads(data.test_features, data.test, heads, after_step=bar.update)
        for config, predicted in zip(part, predictions, strict=True):
            entry: dict[str, Any] = {
                "run": run_name(config),
                "setting": setting_name(config),
                "seed": config.seed,
                "rate": config.lr,
                "scores": {},
            }
            if not predicted.diverged:
                scores = predicted.scores(data.test, data.sizes)
                entry["scores"] = {metric.name: value for metric, value in measured(scores, Detail.TABLE)}
                frozen_tables.save_predictions(folder / f"{entry['run']}.npz", predicted, data.test, data.sizes)
            write_json(folder / f"{entry['run']}.json", entry)  # last: its presence means that the head is finished


class _DataOfSeeds:
    """Opens the images of a seed; those of all seeds are the same unless the specification names the seed."""

    def __init__(self, recipe: TrainConfig) -> None:
        self._recipe = recipe
        self._spec = ""
        self._opened: FrozenData | None = None

    def of(self, seed: int) -> FrozenData:
        """The images of a seed with their features, which are computed where the cache lacks them."""
        config = with_seed(self._recipe, seed)
        if self._opened is None or self._spec != config.data:
            self._spec, self._opened = config.data, self._open(config)
        return self._opened

    def _open(self, config: TrainConfig) -> FrozenData:
        train, _ = open_training_data(config)
        split = default_splits(config.data)[1]
        test = open_scored(config.data, split, train.classes, config.on_bad_image)
        points = "pointing" in scorable_tasks(test)
        torch.manual_seed(config.seed % 2**63)  # for a backbone without pretrained weights
        model = build_model(config, len(train.classes), pretrained=True)
        stores = [FeatureStore(train, model, config), FeatureStore(test, model, config, views=1)]
        for store, dataset in zip(stores, (train, test), strict=True):
            with tqdm(total=store.missing, desc=f"features of {dataset.split}", unit=" images", disable=None) as bar:
                store.compute(bar.update)
        return FrozenData(train, test, stores[0], stores[1], image_sizes(test) if points else None)


def _rows_of(
    experiment: Experiment,
    recipe: TrainConfig,
    heads: Path,
    seeds: Sequence[int],
    found: Mapping[str, Mapping[float, Sequence[float]]],
    own_rates: Mapping[str, float],
) -> list[dict[str, Any]]:
    """The rows of an experiment with their rates and the entries of their heads."""
    result = []
    for row in frozen_rows(experiment):
        own, fixed = zip(*(head_configs(row, recipe, seed, own_rates) for seed in seeds), strict=True)
        setting = row_setting(row, recipe)
        result.append(
            {
                "key": row.key,
                "label": row.label,
                "x": row.x,
                "settings": dict(row.settings),
                "combined": False,
                "rate": own_rates[setting],
                "fixed_rate": fixed[0].lr,
                "held_out": {f"{rate:g}": [round(v, 3) for v in values] for rate, values in found[setting].items()},
                "runs": [read_json(heads / f"{run_name(config)}.json") for config in own],
                "fixed_runs": [read_json(heads / f"{run_name(config)}.json") for config in fixed],
            }
        )
    return result
