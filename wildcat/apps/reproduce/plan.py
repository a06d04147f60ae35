"""The paper's tables and figures as data: their rows, the settings that each changes, and the runs that they share.
PyTorch is not imported here.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from wildcat.config import (
    AUTOMATIC_SETTINGS,
    FORMER_DEFAULTS,
    RESUMABLE_SETTINGS,
    TrainConfig,
    default_settings,
    method_settings,
)
from wildcat.metrics.scores import Task

Measure: TypeAlias = Task

# The paper varies one thing at a time from here: one map per class, one highest and one lowest region, equal weights.
BASE: dict[str, Any] = {"num_maps": 1, "pooling": "wildcat", "kmax": 1, "kmin": 1, "alpha": 1.0, "architecture": "a"}
MAPS = (1, 2, 4, 8, 12, 16)
ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Row:
    """One row of a table, or one point of a curve.

    Attributes:
        key: its name in ``paper.yaml`` and in the CSV.
        label: its name in the table.
        settings: the settings that it changes in the recipe.
        x: place of a point on the axis of its figure.
        combined: whether it combines one model per scale instead of using one model.
        head_rate: factor of the head's learning rate; that of the backbone does not change.
    """

    key: str
    label: str
    settings: Mapping[str, Any]
    x: float | None = None
    combined: bool = False
    head_rate: float = 1.0


@dataclass(frozen=True)
class Effect:
    """An effect that the paper reports: one row scores higher than another."""

    claim: str
    higher: str
    lower: str


@dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        name: its name on the command line.
        title: one line.
        rows: in the order of the table.
        effects: the effects that the paper reports.
        measures: the tasks whose scores are shown; effects are judged by the first.
        figure: the plot beside the table: "curve" over the rows' ``x``, or "maps" of the first run.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    effects: tuple[Effect, ...] = ()
    measures: tuple[Measure, ...] = ("classification",)
    figure: Literal["curve", "maps"] | None = None


def _changed(**settings: Any) -> dict[str, Any]:
    return {**BASE, **settings}


def _table5() -> Experiment:
    rows = (
        Row("a", "(a) classify, then pool", _changed()),
        Row("b", "(b) pool, then classify", _changed(architecture="b")),
    )
    effects = (Effect("classifying each region before pooling (a) beats the order of CAM (b)", "a", "b"),)
    return Experiment("table5", "Table 5: order of classification and pooling", rows, effects)


def _table6(maps: Sequence[int]) -> Experiment:
    rows = tuple(Row(f"M={m}", f"M = {m}", _changed(num_maps=m), m) for m in maps)
    effects = tuple(Effect(f"{m} maps per class beat one", f"M={m}", "M=1") for m in maps if m != 1 and 1 in maps)
    return Experiment("table6", "Table 6: number M of maps per class", rows, effects)


def _table6_rate(maps: Sequence[int]) -> Experiment:
    """The control experiment of Table 6: the head's learning rate is multiplied by M.

    Each of the M filters of a class gets 1 / M of the gradient of their mean, so at a fixed rate the mean changes like
    a single filter at 1 / M of the rate. With the rate times M, all rows train equally, apart from the initial values.
    """
    rows = tuple(Row(f"M={m}", f"M = {m}, head's rate × {m}", _changed(num_maps=m), m, head_rate=m) for m in maps)
    effects = tuple(
        Effect(f"{m} maps per class beat one at the same rate of their mean", f"M={m}", "M=1")
        for m in maps
        if m != 1 and 1 in maps
    )
    return Experiment("table6-rate", "Table 6, control: the head's learning rate times M", rows, effects)


def _table7() -> Experiment:
    rows = (
        Row("base", "max + min", _changed()),
        Row("alpha", "max + min, alpha = 0.7", _changed(alpha=0.7)),
        Row("maps", "max + min, M = 4", _changed(num_maps=4)),
        Row("both", "max + min, alpha = 0.7, M = 4", _changed(alpha=0.7, num_maps=4)),
    )
    effects = (
        Effect("a lighter minimum (alpha = 0.7) beats an equal one", "alpha", "base"),
        Effect("four maps per class beat one", "maps", "base"),
        Effect("alpha = 0.7 also helps four maps", "both", "maps"),
        Effect("four maps also help alpha = 0.7", "both", "alpha"),
        Effect("both together beat the start", "both", "base"),
    )
    return Experiment("table7", "Table 7: contributions of alpha and M", rows, effects)


def _alpha_curve(name: str, title: str, measures: tuple[Measure, ...], alphas: Sequence[float]) -> Experiment:
    rows = tuple(Row(f"alpha={a:g}", f"alpha = {a:g}", _changed(alpha=float(a)), a) for a in alphas)
    inner = [a for a in alphas if 0.6 <= a <= 0.8]  # where the paper's curves are highest
    effects = [Effect(f"the minimum helps: alpha = {a:g} beats 0", f"alpha={a:g}", "alpha=0") for a in inner]
    effects += [Effect(f"a lighter minimum helps: alpha = {a:g} beats 1", f"alpha={a:g}", "alpha=1") for a in inner]
    keys = {row.key for row in rows}
    effects = [effect for effect in effects if effect.lower in keys]
    return Experiment(name, title, rows, tuple(effects), measures, "curve")


_LABELS = {
    "features": "features of the whole image, linear SVM",
    "deepmil": "max pooling (DeepMIL)",
    "gap": "average pooling (GAP, CAM)",
    "weldon": "k highest and k lowest regions (WELDON)",
    "pronet": "log-sum-exp pooling (ProNet)",
    "wildcat": "WILDCAT, one scale",
}
_COMPARED = {key: Row(key, label, method_settings(key)) for key, label in _LABELS.items()}
_COMPARED["scales"] = Row("scales", "WILDCAT, scales combined", method_settings("wildcat"), combined=True)


def _comparison(name: str, title: str, keys: Sequence[str], measures: tuple[Measure, ...]) -> Experiment:
    rows = tuple(_COMPARED[key] for key in keys)
    others = [row for row in rows if row.key not in ("wildcat", "scales")]
    effects = [Effect(f"WILDCAT at one scale beats {row.label}", "wildcat", row.key) for row in others]
    if "scales" in keys:
        effects.append(Effect("combining scales beats one scale", "scales", "wildcat"))
    return Experiment(name, title, rows, tuple(effects), measures)


def experiments(maps: Sequence[int] = MAPS, alphas: Sequence[float] = ALPHAS) -> dict[str, Experiment]:
    """Every table and figure by name.

    Args:
        maps: the values of M in Table 6.
        alphas: the values of alpha in Figures 4 and 5.
    """
    tag: tuple[Measure, ...] = ("classification",)
    point: tuple[Measure, ...] = ("pointing", "classification")
    mask: tuple[Measure, ...] = ("segmentation",)
    classify = ("features", "deepmil", "gap", "weldon", "pronet", "wildcat", "scales")
    figure6 = (_COMPARED["wildcat"],)
    known = (
        _comparison("table2", "Table 2: classification of objects", classify, tag),
        _comparison("table3", "Table 3: classification of scenes", classify, tag),
        _comparison("table4", "Table 4: classification in context", classify, tag),
        _table5(),
        _table6(maps),
        _table6_rate(maps),
        _table7(),
        _comparison("table8", "Table 8: pointwise localisation", ("deepmil", "gap", "pronet", "wildcat"), point),
        _comparison("table9", "Table 9: segmentation", ("deepmil", "gap", "pronet", "wildcat"), mask),
        _alpha_curve("figure4", "Figure 4: classification for alpha from 0 to 1", tag, alphas),
        _alpha_curve("figure5", "Figure 5: pointwise localisation for alpha from 0 to 1", ("pointing",), alphas),
        Experiment("figure6", "Figure 6: two of the maps of a class, and masks", figure6, (), mask, "maps"),
    )
    return {experiment.name: experiment for experiment in known}


@dataclass(frozen=True)
class PlannedRun:
    """One run to train and score, of one model or of one per scale.

    Attributes:
        name: name of its folder; it depends on everything that could change its scores.
        setting: name that runs share if they differ only in the seed, and in the random split chosen by it.
        config: its settings.
        scales: image sizes of the models to combine; empty for a single model.
        serves: names of the experiments that show it.
        measures: tasks to score.
    """

    name: str
    setting: str
    config: TrainConfig
    scales: tuple[int, ...] = ()
    serves: tuple[str, ...] = ()
    measures: tuple[Measure, ...] = ()


def identity(config: TrainConfig) -> dict[str, Any]:
    """The settings that distinguish the runs of a folder, without the seed and without default values.

    The precision is not included, because all runs of a folder have the same. A setting that a later version adds does
    not change the result as long as it has its default value.
    """
    # The defaults when folders got their names.
    default = {"data": "synthetic", **default_settings(), **FORMER_DEFAULTS}
    shared = ("seed", "precision", *RESUMABLE_SETTINGS)
    values = as_in_the_paper(config).to_dict()
    return {key: value for key, value in values.items() if key not in shared and value != default[key]}


def setting_name(config: TrainConfig, scales: Sequence[int] = ()) -> str:
    """A name with the main settings and a digest of all settings and the dataset; the seed is not part of it.

    >>> setting_name(TrainConfig("synthetic", num_maps=2, kmax=1, kmin=1, alpha=0.7, seed=3))
    'M2-k1-1-alpha0.7-e06c4289'
    """
    config = as_in_the_paper(config)
    digest = hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:8]
    kmin = config.kmax if config.kmin is None else config.kmin
    pooling = f"k{config.kmax}-{kmin}-alpha{config.alpha:g}" if config.pooling == "wildcat" else config.pooling
    parts = ["features"] if config.solver == "svm" else [f"M{config.num_maps}", pooling]
    parts += ["b"] if config.architecture == "b" else []
    parts += [config.class_pooling] if config.class_pooling != "mean" else []
    parts += ["scales", *map(str, scales)] if scales else []
    return "-".join([*parts, digest])


def run_name(config: TrainConfig, scales: Sequence[int] = ()) -> str:
    """The name of the folder of a run: the name of its settings, and the seed.

    >>> run_name(TrainConfig("synthetic", num_maps=2, kmax=1, kmin=1, alpha=0.7))
    'M2-k1-1-alpha0.7-e06c4289-seed0'
    """
    return f"{setting_name(config, scales)}-seed{config.seed}"


def as_in_the_paper(recipe: TrainConfig) -> TrainConfig:
    """The settings with nothing left to be chosen by the data: all rows of a table are trained alike.

    What the recipe does not say is as in :data:`wildcat.config.FORMER_DEFAULTS`: the whole network is trained from a
    random head, or with ``frozen`` the head alone. Nothing is scored by the training itself, because each run is
    evaluated.
    """
    usual = dict(FORMER_DEFAULTS)
    if recipe.frozen:
        usual |= {"freeze_stages": -1, "freeze_batch_norm": True, "freeze_depthwise": True}
    chosen = {name: usual[name] for name in AUTOMATIC_SETTINGS if getattr(recipe, name) is None}
    return replace(recipe, **chosen, held_out_images=0)


def with_seed(config: TrainConfig, seed: int) -> TrainConfig:
    """The settings for a seed. ``{seed}`` in the dataset's options is replaced by it, so that random splits differ."""
    return replace(config, data=config.data.replace("{seed}", str(seed)), seed=seed)


def planned(row: Row, recipe: TrainConfig, seed: int, scales: Sequence[int] = ()) -> PlannedRun:
    """The run for a row and a seed."""
    settings = replace(as_in_the_paper(recipe), **row.settings)
    if row.head_rate != 1:
        factor = settings.backbone_lr_factor / row.head_rate
        settings = replace(settings, lr=settings.lr * row.head_rate, backbone_lr_factor=factor)
    config = with_seed(settings, seed)
    mine = tuple(sorted(scales)) if row.combined else ()
    return PlannedRun(run_name(config, mine), setting_name(settings, mine), config, mine)


def plan(
    chosen: Sequence[Experiment], recipe: TrainConfig, seeds: Sequence[int], scales: Sequence[int] = ()
) -> list[PlannedRun]:
    """The runs that experiments need, each once: all of the first seed, then all of the next.

    Args:
        chosen: the experiments.
        recipe: the settings that the rows change.
        seeds: one run of each row for each.
        scales: image sizes for rows that combine scales; without them these rows are left out.

    >>> chosen = experiments()
    >>> len(plan([chosen["table5"], chosen["table7"]], TrainConfig("synthetic"), seeds=[0, 1]))  # they share a run
    10
    """
    runs: dict[str, PlannedRun] = {}
    for seed in seeds:
        for experiment in chosen:
            for row in experiment.rows:
                if row.combined and not scales:
                    continue
                run = planned(row, recipe, seed, scales)
                known = runs.get(run.name, run)
                runs[run.name] = replace(
                    known,
                    serves=tuple(dict.fromkeys((*known.serves, experiment.name))),
                    measures=tuple(dict.fromkeys((*known.measures, *experiment.measures))),
                )
    return list(runs.values())
