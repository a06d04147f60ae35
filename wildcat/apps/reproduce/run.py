"""The paper's experiments on a dataset: plan the runs, train and score the missing ones, write tables and figures.

::

    DIR/reproduce.json     dataset and settings, including the precision, that all runs of the folder share
    DIR/runs/NAME/         one run directory, with its results.json
    DIR/table6.md          the paper's scores beside those measured here, and which of the paper's effects appear
    DIR/table6.csv         every run
    DIR/table6.json        the content of the page for programs
    DIR/figure4.png, .svg  curves
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from wildcat.apps.reproduce.plan import Experiment, as_in_the_paper, identity, plan, planned
from wildcat.config import TrainConfig, saved_settings
from wildcat.errors import WildcatError
from wildcat.system.files import read_json

SHARED = "reproduce.json"

logger = logging.getLogger(__name__)


def reproduce(
    chosen: Sequence[Experiment],
    recipe: TrainConfig,
    out: Path,
    seeds: Sequence[int],
    command: str,
    scales: Sequence[int] = (),
) -> list[Path]:
    """Train and score the missing runs of experiments; their pages are updated after each run.

    Runs are done seed by seed, so that every row has a score early. After an interruption, call it again: finished runs
    are skipped, and the interrupted one is resumed.

    Args:
        chosen: from :func:`wildcat.apps.reproduce.plan.experiments`.
        recipe: the settings that the rows change, and the dataset; ``{seed}`` in its options is replaced by each seed.
        out: folder for runs and pages.
        seeds: one run of each row for each seed.
        command: the command that the pages show.
        scales: image sizes for the rows that combine scales; without them these rows stay empty.

    Returns:
        The pages.

    Raises:
        WildcatError: if the dataset lacks annotations for an experiment; if the folder holds experiments on another
            dataset or with other settings; or, after all other runs, if a run failed.

    >>> table = experiments()["table6"]  # doctest: +SKIP
    >>> reproduce([table], TrainConfig(data="voc07:data"), Path("runs/paper"), [0, 1], "")  # doctest: +SKIP
    """
    from wildcat.apps.reproduce import complete as running
    from wildcat.apps.reproduce import tables

    recipe = as_in_the_paper(recipe)
    data = running.ScoringData(recipe, seeds[0])
    for experiment in chosen:
        data.check(experiment, recipe)
    kinds = (".md", ".csv", ".json", ".svg", ".png")
    recipe = claim(out, recipe, [f"{experiment.name}{kind}" for experiment in chosen for kind in kinds])
    runs = plan(chosen, recipe, seeds, scales)

    def runs_of(experiment: Experiment) -> dict[str, list[str]]:
        rows = [row for row in experiment.rows if scales or not row.combined]
        return {row.key: [planned(row, recipe, seed, scales).name for seed in seeds] for row in rows}

    def write() -> list[Path]:
        entries = {run.name: tables.summary(run, out / "runs" / run.name) for run in runs}
        done = {name: entry for name, entry in entries.items() if entry is not None}
        about = {"command": command, **data.about}
        return [_write(experiment, recipe, out, done, runs_of(experiment), about) for experiment in chosen]

    pages = write()
    left = [run for run in runs if tables.finished(out / "runs" / run.name, run.measures) is None]
    logger.info("%d runs, %d of them finished", len(runs), len(runs) - len(left))
    failures: list[str] = []
    for number, run in enumerate(left, 1):
        logger.info("run %d of %d: %s, for %s", number, len(left), run.name, ", ".join(run.serves))
        try:
            running.complete(run, out / "runs" / run.name)
        except WildcatError as error:
            failures.append(f"{run.name}: {error}")
            logger.warning("failed: %s", failures[-1])
        else:
            pages = write()
    if failures:
        raise WildcatError(f"{len(failures)} of {len(runs)} runs failed; the first: {failures[0]}")
    return pages


def claim(out: Path, recipe: TrainConfig, pages: Sequence[str] = ()) -> TrainConfig:
    """Record dataset and recipe in the folder, or check that the folder has the same.

    Args:
        out: the folder.
        recipe: dataset and settings.
        pages: names of the files to write; a folder without a record must not have them.

    Returns:
        The recipe with the precision of the folder's runs; "auto" is measured once per folder.

    Raises:
        WildcatError: naming the first setting that differs, or a file of somebody else's.
    """
    from wildcat.system.files import write_json
    from wildcat.training.distributed import create_accelerator
    from wildcat.training.setup import with_precision

    file = out / SHARED
    if not file.exists():
        if taken := [name for name in pages if (out / name).exists()]:
            raise WildcatError(f"{out / taken[0]} was not written by wildcat reproduce; give another folder")
        recipe = with_precision(recipe, create_accelerator().device)
        out.mkdir(parents=True, exist_ok=True)
        write_json(file, recipe.to_dict())
        return recipe
    config = saved_settings(read_json(file), str(file))
    if recipe.precision == "auto":
        recipe = replace(recipe, precision=config.precision)
    recorded, asked = ({**identity(each), "precision": each.precision} for each in (config, recipe))
    for key in sorted({*recorded, *asked}):
        if recorded.get(key) != asked.get(key):
            raise WildcatError(
                f"{out} holds experiments with {key} {recorded.get(key, 'by default')!r}, not "
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
    """Write the record, CSV, figure and page of an experiment from the finished runs; return the page."""
    from wildcat.apps.reproduce import figures, tables
    from wildcat.system.files import write_atomically, write_json

    runs = {key: [done[name] for name in planned_names if name in done] for key, planned_names in names.items()}
    values = tables.record(experiment, runs, list(done.values()), recipe, about)
    page = out / f"{experiment.name}.md"
    write_json(page.with_suffix(".json"), values)
    write_atomically(page.with_suffix(".csv"), tables.raw_csv(values).encode("utf-8", "backslashreplace"))
    if experiment.figure == "curve":
        figures.curve(values, page.with_suffix(""))
    elif experiment.figure == "maps":
        first = next(iter(values["rows"][0]["runs"]), None)
        if first is not None and not page.with_suffix(".svg").exists():  # the figure of a run does not change
            figures.maps(out / "runs" / first["run"], page.with_suffix(""))
    write_atomically(page, tables.markdown(values).encode("utf-8", "backslashreplace"))
    return page
