"""The paper's experiments on the data at hand: plan the runs, do what is left of them, write tables and figures.

::

    DIR/reproduce.json     dataset and settings that everything in the folder shares, the precision among them
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

from wildcat.apps.reproduce.plan import Experiment, identity, plan, planned
from wildcat.config import TrainConfig, config_from_dict
from wildcat.errors import WildcatError
from wildcat.system.files import read_json

SHARED = "reproduce.json"


def reproduce(
    chosen: Sequence[Experiment],
    recipe: TrainConfig,
    out: Path,
    seeds: Sequence[int],
    command: str,
    scales: Sequence[int] = (),
) -> list[Path]:
    """Do what is left of some experiments; their pages are written anew after each run.

    Runs are done seed by seed, so that every row has a figure as early as can be. A call that was stopped is repeated:
    finished runs are skipped, the one under way resumes.

    Args:
        chosen: from :func:`wildcat.apps.reproduce.plan.experiments`.
        recipe: the settings that the rows change, and the dataset; ``{seed}`` in its options stands for each seed.
        out: the folder.
        seeds: one run of each row for each seed.
        command: shown on the pages.
        scales: image sizes for the rows that combine scales; without them those rows stay empty.

    Returns:
        The pages.

    Raises:
        WildcatError: if the data has no annotations for an experiment; if the folder holds experiments on other data or
            with other settings; if a run fails, once the others are done.
    """
    from wildcat.apps.reproduce import complete as running
    from wildcat.apps.reproduce import tables

    data = running.ScoringData(recipe, seeds[0])
    for experiment in chosen:
        data.check(experiment, recipe)
    recipe = _claim(out, recipe)
    runs = plan(chosen, recipe, seeds, scales)

    def runs_of(experiment: Experiment) -> dict[str, list[str]]:
        rows = [row for row in experiment.rows if scales or not row.combined]
        return {row.key: [planned(row, recipe, seed, scales).name for seed in seeds] for row in rows}

    def write() -> list[Path]:
        done = {run.name: found for run in runs if (found := tables.summary(run, out / "runs" / run.name)) is not None}
        about = {"command": command, **data.about}
        return [_write(experiment, recipe, out, done, runs_of(experiment), about) for experiment in chosen]

    pages = write()
    left = [run for run in runs if tables.finished(out / "runs" / run.name, run.measures) is None]
    print(f"{len(runs)} runs, {len(runs) - len(left)} of them finished", file=sys.stderr)
    failures: list[str] = []
    for number, run in enumerate(left, 1):
        print(f"run {number} of {len(left)}: {run.name}, for {', '.join(run.serves)}", file=sys.stderr)
        try:
            running.complete(run, out / "runs" / run.name)
        except WildcatError as error:
            failures.append(f"{run.name}: {error}")
            print(f"failed: {failures[-1]}", file=sys.stderr)
        else:
            pages = write()
    if failures:
        raise WildcatError(f"{len(failures)} of {len(runs)} runs failed; the first: {failures[0]}")
    return pages


def _claim(out: Path, recipe: TrainConfig) -> TrainConfig:
    """Make the folder that of this dataset and recipe, or find that it is.

    Returns:
        The recipe in the precision of the folder's runs: where it is to be measured, that is done once.

    Raises:
        WildcatError: naming the first setting that differs.
    """
    from wildcat.system.files import write_json
    from wildcat.training.distributed import create_accelerator
    from wildcat.training.setup import with_precision

    file = out / SHARED
    if not file.exists():
        recipe = with_precision(recipe, create_accelerator().device)
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, recipe.to_dict())
        return recipe
    config = config_from_dict(read_json(file), str(file))
    if recipe.precision == "auto":
        recipe = replace(recipe, precision=config.precision)
    kept, asked = ({**identity(each), "precision": each.precision} for each in (config, recipe))
    for key in sorted({*kept, *asked}):
        if kept.get(key) != asked.get(key):
            raise WildcatError(
                f"{out} holds experiments with {key} {kept.get(key, 'by default')!r}, not "
                f"{asked.get(key, 'by default')!r}; give another folder"
            )
    return recipe


def _write(
    experiment: Experiment,
    recipe: TrainConfig,
    out: Path,
    done: dict[str, dict[str, Any]],
    names: dict[str, list[str]],
    about: dict[str, Any],
) -> Path:
    """Write what the finished runs say about an experiment; the page."""
    from wildcat.apps.reproduce import figures, tables
    from wildcat.system.files import write_atomically, write_json

    runs = {key: [done[name] for name in found if name in done] for key, found in names.items()}
    values = tables.record(experiment, runs, list(done.values()), recipe, about)
    page = out / f"{experiment.name}.md"
    write_json(page.with_suffix(".json"), values)
    write_atomically(page.with_suffix(".csv"), tables.raw_csv(values).encode())
    if experiment.drawing == "curve":
        figures.curve(values, page.with_suffix(""))
    elif experiment.drawing == "maps":
        first = next(iter(values["rows"][0]["runs"]), None)
        if first is not None and not page.with_suffix(".svg").exists():  # the images of a run never change
            figures.maps(out / "runs" / first["run"], page.with_suffix(""))
    write_atomically(page, tables.markdown(values).encode())
    return page
