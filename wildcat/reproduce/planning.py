"""The paper's tables and figures as data: rows, what each changes, the runs that they share. Free of PyTorch."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from wildcat.config import TrainConfig

Measure = Literal["classification", "pointing", "segmentation"]

# The paper varies one thing at a time from here: one map per class, one highest and one lowest region, equal weights.
BASE: dict[str, Any] = {"num_maps": 1, "pooling": "wildcat", "kmax": 1, "kmin": 1, "alpha": 1.0, "architecture": "a"}
MAPS = (1, 2, 4, 8, 12, 16)
ALPHAS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)

# Settings that say how a run is computed and not what it computes: no part of what it is known by.
HOW = ("data", "seed", "workers", "precision", "save_minutes")


@dataclass(frozen=True)
class Row:
    """One row of a table, or one point of a curve.

    Attributes:
        key: what it is called in ``paper.yaml`` and in the CSV.
        label: what it is called in the table.
        settings: what it changes in the recipe.
        x: where a point lies on the axis of its figure.
    """

    key: str
    label: str
    settings: Mapping[str, Any]
    x: float | None = None


@dataclass(frozen=True)
class Effect:
    """What the paper finds: one row scores higher than another."""

    claim: str
    higher: str
    lower: str


@dataclass(frozen=True)
class Experiment:
    """A table or figure.

    Attributes:
        name: of the command line.
        title: one line.
        rows: in the order of the table.
        effects: what the paper says about the rows.
        measures: the tasks whose scores are shown; the first is the one that effects are judged by.
        axis: label of the horizontal axis of a curve.
    """

    name: str
    title: str
    rows: tuple[Row, ...]
    effects: tuple[Effect, ...] = ()
    measures: tuple[Measure, ...] = ("classification",)
    axis: str | None = None

    def row(self, key: str) -> Row:
        """The row of a key."""
        return next(row for row in self.rows if row.key == key)


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
    return Experiment(name, title, rows, tuple(effects), measures, axis="alpha")


def experiments(maps: Sequence[int] = MAPS, alphas: Sequence[float] = ALPHAS) -> dict[str, Experiment]:
    """Every table and figure by name.

    Args:
        maps: the values of M in Table 6.
        alphas: the values of alpha in Figures 4 and 5.
    """
    known = (
        _table5(),
        _table6(maps),
        _table7(),
        _alpha_curve("figure4", "Figure 4: classification for alpha from 0 to 1", ("classification",), alphas),
    )
    return {experiment.name: experiment for experiment in known}


@dataclass(frozen=True)
class PlannedRun:
    """One model to train and score.

    Attributes:
        name: its folder's name, known by everything that could change its scores.
        config: its settings.
        serves: names of the experiments that show it.
        measures: tasks to score.
    """

    name: str
    config: TrainConfig
    serves: tuple[str, ...]
    measures: tuple[Measure, ...]


def run_name(config: TrainConfig) -> str:
    """A folder's name: readable settings, a digest of all of them and of the data set, and the seed.

    >>> run_name(TrainConfig(num_maps=2, kmax=1, kmin=1, alpha=0.7)).rpartition("-")[0].rpartition("-")[0]
    'M2-k1-1-alpha0.7'
    """
    values = {key: value for key, value in config.to_dict().items() if key not in HOW} | {"data": config.data}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    kmin = config.kmax if config.kmin is None else config.kmin
    pooling = f"k{config.kmax}-{kmin}-alpha{config.alpha:g}" if config.pooling == "wildcat" else config.pooling
    parts = [f"M{config.num_maps}", pooling, *(["b"] if config.architecture == "b" else []), digest]
    return "-".join(parts) + f"-seed{config.seed}"


def plan(chosen: Sequence[Experiment], recipe: TrainConfig, seeds: Sequence[int]) -> list[PlannedRun]:
    """The runs that some experiments need, each once: all of the first seed, then all of the next."""
    runs: dict[str, PlannedRun] = {}
    for seed in seeds:
        for experiment in chosen:
            for row in experiment.rows:
                config = replace(recipe, **row.settings, seed=seed)
                name = run_name(config)
                known = runs.get(name, PlannedRun(name, config, (), ()))
                runs[name] = replace(
                    known,
                    serves=tuple(dict.fromkeys((*known.serves, experiment.name))),
                    measures=tuple(dict.fromkeys((*known.measures, *experiment.measures))),
                )
    return list(runs.values())
