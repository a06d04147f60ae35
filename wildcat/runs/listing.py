"""Lists the run directories below a folder: their data, the settings in which they differ, their scores."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wildcat.data.registry import without_path
from wildcat.errors import WildcatError, check_choice
from wildcat.metrics.metric_table import Detail, metrics_shown
from wildcat.runs.folder import CONFIG, read_settings
from wildcat.runs.results import Results, read_results, results_file
from wildcat.runs.scales import SCALES

# Settings that cannot change a score, and the dataset, which has a column of its own.
_WITHOUT_EFFECT = {"data", "workers", "cache_gb", "save_minutes", "stall_minutes", "shard", "on_bad_image"}


@dataclass(frozen=True)
class ListedRun:
    """A run directory.

    Attributes:
        name: path relative to the listed folder, with "/".
        data: the dataset of the training, without its path.
        settings: name -> value, as they were saved.
        results: what results.json holds; None without it.
    """

    name: str
    data: str
    settings: dict[str, Any]
    results: Results | None

    @property
    def scored(self) -> str:
        """The dataset and split that were scored; "" without results."""
        return "" if self.results is None else f"{without_path(self.results.data)} {self.results.split}"

    @property
    def scores(self) -> dict[str, float]:
        """Metric -> score, of those that were measured."""
        if self.results is None:
            return {}
        values = {metric.name: metric.value(self.results) for metric in metrics_shown(Detail.TABLE)}
        return {name: value for name, value in values.items() if not math.isnan(value)}


def list_runs(folder: Path) -> tuple[list[ListedRun], list[str]]:
    """(the runs in and below a folder, sorted by name; sentences about those that cannot be read).

    A run of several scales is one run.

    Raises:
        WildcatError: if the folder does not exist or holds no run.
    """
    if not folder.is_dir():
        raise WildcatError(f"{folder} is not a folder; give one that holds run directories")
    runs, problems = [], []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if CONFIG not in files and SCALES not in files:
            continue
        folders.clear()
        place = Path(where)
        try:
            config = read_settings(place)
            file = results_file(place)
            results = read_results(file) if file is not None and file.is_file() else None
        except WildcatError as error:
            problems.append(str(error))
            continue
        name = place.relative_to(folder).as_posix()
        runs.append(ListedRun(name if name != "." else folder.name, without_path(config.data), asdict(config), results))
    if not runs and not problems:
        raise WildcatError(f"{folder}: holds no run directory, which has {CONFIG} or {SCALES}")
    return runs, problems


def differing_settings(runs: Sequence[ListedRun]) -> list[str]:
    """The settings, in their own order, that are not the same in all runs and may change a score."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    return [
        name
        for name in names
        if name not in _WITHOUT_EFFECT and any(run.settings.get(name) != runs[0].settings.get(name) for run in runs)
    ]


def sorted_runs(runs: Sequence[ListedRun], key: str) -> list[ListedRun]:
    """The runs sorted by a metric, the best first, or by a setting or "name"; those without a value come last.

    Raises:
        WildcatError: for another key.
    """
    metrics = [metric.name for metric in metrics_shown(Detail.TABLE)]
    settings = list(dict.fromkeys(name for run in runs for name in run.settings))
    check_choice(key, ["name", *metrics, *settings], "--sort")
    if key == "name":
        return sorted(runs, key=lambda run: run.name)
    if key in metrics:
        return sorted(runs, key=lambda run: -run.scores.get(key, -math.inf))
    numbers = all(isinstance(run.settings.get(key), int | float) for run in runs)
    return sorted(runs, key=lambda run: run.settings[key] if numbers else str(run.settings.get(key)))
