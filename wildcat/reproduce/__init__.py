"""The paper's experiments on the data at hand: plan the runs, do what is left of them, write tables and figures.

::

    DIR/reproduce.json     data set and settings that everything in the folder shares
    DIR/runs/NAME/         one run: the usual files, results.json among them
    DIR/table6.md          paper | here, and which of the paper's effects appear
    DIR/table6.csv         every run
    DIR/table6.json        the same for programs
    DIR/figure4.png, .svg  curves
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wildcat.config import TrainConfig, read_json
from wildcat.errors import WildcatError
from wildcat.reproduce.planning import HOW, Experiment, plan, run_name

SHARED = "reproduce.json"


def reproduce(
    chosen: Sequence[Experiment], recipe: TrainConfig, out: Path, seeds: Sequence[int], command: str
) -> list[Path]:
    """Do what is left of some experiments; their pages are written anew after each run.

    Runs are done seed by seed, so that every row has a figure as early as can be. A call that was stopped is repeated:
    finished runs are skipped, the one under way goes on.

    Args:
        chosen: from :func:`wildcat.reproduce.planning.experiments`.
        recipe: the settings that the rows change, and the data set.
        out: the folder.
        seeds: one run of each row for each seed.
        command: shown on the pages.

    Returns:
        The pages.

    Raises:
        WildcatError: if the folder holds experiments on other data or with other settings; if a run fails, once the
            others are done.
    """
    from wildcat.reproduce import running

    data = running.ScoringData(recipe)
    runs = plan(chosen, recipe, seeds)
    _claim(out, recipe)

    def write() -> list[Path]:
        return [_write(experiment, recipe, out, seeds, data, command) for experiment in chosen]

    pages = write()
    left = [run for run in runs if running.finished(out / "runs" / run.name, data.scorable(run.measures)) is None]
    print(f"{len(runs)} runs, {len(runs) - len(left)} of them finished", file=sys.stderr)
    failures: list[str] = []
    for number, run in enumerate(left, 1):
        print(f"run {number} of {len(left)}: {run.name}, for {', '.join(run.serves)}", file=sys.stderr)
        try:
            running.complete(run, out / "runs" / run.name, data.scorable(run.measures))
        except WildcatError as error:
            failures.append(f"{run.name}: {error}")
            print(f"failed: {failures[-1]}", file=sys.stderr)
        else:
            pages = write()
    if failures:
        raise WildcatError(f"{len(failures)} of {len(runs)} runs failed; the first: {failures[0]}")
    return pages


def _claim(out: Path, recipe: TrainConfig) -> None:
    """Make the folder that of this data set and recipe, or find that it is.

    Raises:
        WildcatError: naming the first setting that differs.
    """
    from wildcat.checkpoint import write_json

    file = out / SHARED
    shared = {key: value for key, value in recipe.to_dict().items() if key not in HOW} | {"data": recipe.data}
    if file.exists():
        kept = read_json(file)
        for key in [key for key in shared if kept.get(key) != shared[key]]:
            raise WildcatError(
                f"{out} holds experiments with {key} {kept.get(key)!r}, not {shared[key]!r}; give another folder"
            )
    else:
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, shared)


def _write(
    experiment: Experiment, recipe: TrainConfig, out: Path, seeds: Sequence[int], data: Any, command: str
) -> Path:
    """Write what the finished runs say about an experiment; the page."""
    from wildcat.checkpoint import write_atomically, write_json
    from wildcat.reproduce import figures, running, tables

    measures = data.scorable(experiment.measures)
    runs: dict[str, list[dict[str, Any]]] = {}
    for row in experiment.rows:
        for seed in seeds:
            name = run_name(replace(recipe, **row.settings, seed=seed))
            if (results := running.finished(out / "runs" / name, measures)) is not None:
                seconds = running.training_seconds(out / "runs" / name)
                runs.setdefault(row.key, []).append(
                    {
                        "run": name,
                        "seed": seed,
                        "scores": tables.scores_of(results, measures),
                        "train_seconds": seconds,
                        "evaluate_seconds": results["seconds"],
                    }
                )
    values = tables.record(experiment, runs, recipe, {"command": command, **data.about})
    page = out / f"{experiment.name}.md"
    write_json(page.with_suffix(".json"), values)
    write_atomically(page.with_suffix(".csv"), tables.raw_csv(values).encode())
    write_atomically(page, tables.markdown(values).encode())
    if experiment.axis is not None:
        figures.curve(values, out / experiment.name)
    return page
