"""Tables of the finished runs: records, Markdown and CSV, and which of the paper's effects appear. PyTorch is not
imported here.
"""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from wildcat.apps.reproduce.plan import Effect, Experiment, Measure, PlannedRun
from wildcat.config import TrainConfig
from wildcat.metrics.metric_table import Detail, measured, metric_named, metrics_shown
from wildcat.runs.results import RESULTS, Results, read_results

DATA_NAMES = {
    "voc07": "VOC 2007",
    "voc12": "VOC 2012",
    "voc12-crf": "VOC 2012 with CRF",
    "action12": "VOC 2012 Action",
    "coco": "COCO",
    "mit67": "MIT67",
    "scene15": "15-Scene",
}
CONFIDENCE = 0.95


def published() -> dict[str, dict[str, dict[str, float]]]:
    """The paper's scores in per cent: experiment -> row -> kind of dataset -> score."""
    content = yaml.safe_load((Path(__file__).parent / "paper.yaml").read_text(encoding="utf-8"))
    return dict(content)


def data_name(spec: str) -> str:
    """The name of a dataset on pages: that of its folder, without the path, which differs between machines.

    >>> data_name("voc07:/data/voc07-mini"), data_name("synthetic:count=24")
    ('voc07-mini', 'synthetic')
    """
    kind, _, path = spec.partition(":")
    return kind if "=" in path.partition(",")[0] else Path(path.partition(",")[0]).name or kind


def finished(folder: Path, measures: Sequence[Measure]) -> Results | None:
    """The results of a run if all these tasks were scored; None if something is left to do.

    Raises:
        WildcatError: if its results.json is damaged.
    """
    if not (folder / RESULTS).exists():
        return None
    results = read_results(folder / RESULTS)
    return results if set(measures) <= set(results.tasks) else None


def summary(run: PlannedRun, folder: Path) -> dict[str, Any] | None:
    """The entry of a run in records: settings, scores by metric name and durations; None while it is not scored."""
    if (results := finished(folder, ())) is None:
        return None
    seconds = 0.0
    for history in folder.rglob("metrics.csv"):  # one, or one per scale
        with history.open(newline="", encoding="utf-8") as file:
            seconds += sum(float(row["seconds"]) for row in csv.DictReader(file))
    return {
        "run": run.name,
        "setting": run.setting,
        "seed": run.config.seed,
        "scores": {metric.name: value for metric, value in measured(results, Detail.TABLE)},
        "train_seconds": seconds,
        "evaluate_seconds": results.seconds,
        "versions": dict(results.versions),
    }


def record(
    experiment: Experiment,
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    everything: Sequence[Mapping[str, Any]],
    recipe: TrainConfig,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """The record of an experiment: everything that its table shows, as plain values.

    Args:
        experiment: the table or figure.
        runs: row key -> its finished runs, from :func:`summary`. Runs that were scored on other tasks only, for another
            experiment, are left out.
        everything: the finished runs of all experiments with these settings; the deviation by chance is estimated from
            them.
        recipe: the settings that the rows change.
        about: command, splits, number of images, versions.
    """
    paper = published().get(experiment.name, {})
    by_measure = [[metric.name for metric in metrics_shown(Detail.TABLE, [task])] for task in experiment.measures]
    names, needed = [name for group in by_measure for name in group], by_measure[0]

    def shown(finished_runs: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**run, "scores": {name: run["scores"][name] for name in names if name in run["scores"]}}
            for run in finished_runs
            if any(name in run["scores"] for name in needed)
        ]

    rows = [
        {
            "key": row.key,
            "label": row.label,
            "x": row.x,
            "settings": dict(row.settings),
            "combined": row.combined,
            "paper": paper.get(row.key, {}),
            "runs": shown(runs.get(row.key, ())),
        }
        for row in experiment.rows
    ]
    name = next(iter(score_names({"rows": rows})), None)
    chance = None if name is None else spread(everything, name)
    return {
        "name": experiment.name,
        "title": experiment.title,
        **about,
        "recipe": {key: value for key, value in recipe.to_dict().items() if key not in ("data", "seed")},
        "rows": rows,
        "has_figure": experiment.figure is not None and name is not None,
        "score": name,
        "chance": chance,
        "effects": [judged(effect, rows, name, chance) for effect in experiment.effects],
    }


def score_names(values: Mapping[str, Any]) -> list[str]:
    """Names of the metrics in a record, in order."""
    return list(dict.fromkeys(name for row in values["rows"] for run in row["runs"] for name in run["scores"]))


def scores(row: Mapping[str, Any], name: str) -> list[float]:
    """The values of a metric for all seeds of a row."""
    return [run["scores"][name] for run in row["runs"] if name in run["scores"]]


def spread(runs: Sequence[Mapping[str, Any]], name: str) -> dict[str, float] | None:
    """The standard deviation of a score by chance: the part that neither the settings nor the seed explain.

    Runs with the same seed see the images in the same order, so a seed may change the scores of all settings by the
    same amount; this part is removed (the residual of a two-way layout of settings and seeds). All settings are used,
    because a single setting has few seeds.

    Returns:
        Deviation and degrees of freedom; None unless two settings share two seeds.
    """
    groups: dict[str, dict[int, float]] = {}
    for run in runs:
        if name in run["scores"]:
            groups.setdefault(run["setting"], {})[run["seed"]] = run["scores"][name]
    # While the runs of the last seed are incomplete, few settings have it: take the settings with most seeds, else all.
    most = max(map(len, groups.values()), default=0)
    whole = [by_seed for by_seed in groups.values() if len(by_seed) == most]
    if len(whole) < 2:
        whole = [by_seed for by_seed in groups.values() if len(by_seed) > 1]
    shared = sorted(set.intersection(*map(set, whole))) if whole else []
    if len(whole) < 2 or len(shared) < 2:
        return None
    table = [[by_seed[seed] for seed in shared] for by_seed in whole]
    of_settings = [statistics.fmean(row) for row in table]
    of_seeds = [statistics.fmean(column) for column in zip(*table, strict=True)]
    mean = statistics.fmean(of_settings)
    squares = sum(
        (value - of_setting - of_seed + mean) ** 2
        for row, of_setting in zip(table, of_settings, strict=True)
        for value, of_seed in zip(row, of_seeds, strict=True)
    )
    freedom = (len(whole) - 1) * (len(shared) - 1)
    return {"deviation": math.sqrt(squares / freedom), "freedom": freedom}


def judged(
    effect: Effect, rows: Sequence[Mapping[str, Any]], name: str | None, chance: Mapping[str, float] | None
) -> dict[str, Any]:
    """An effect with the paper's differences, ours over the seeds that both rows have, and a verdict.

    The verdict is that of a two-sided t test at the 5 % level with the deviation of :func:`spread`; "threshold" is the
    smallest significant difference.
    """
    from scipy.stats import t

    higher, lower = (next(row for row in rows if row["key"] == key) for key in (effect.higher, effect.lower))
    both = [kind for kind in higher["paper"] if kind in lower["paper"]]
    paper = {kind: round(higher["paper"][kind] - lower["paper"][kind], 2) for kind in both}
    result: dict[str, Any] = {"claim": effect.claim, "higher": effect.higher, "lower": effect.lower, "paper": paper}
    ours, others = (
        {run["seed"]: run["scores"][name] for run in row["runs"] if name in run["scores"]} for row in (higher, lower)
    )
    differences = [ours[seed] - others[seed] for seed in ours if seed in others]
    if not differences:
        return {**result, "verdict": "not measured"}
    difference = statistics.fmean(differences)
    result |= {"score": name, "difference": difference, "seeds": len(differences)}
    if len(differences) < 2:
        return {**result, "verdict": "one seed"}
    if chance is None:
        return {**result, "verdict": "chance unknown"}
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, chance["freedom"]))
    threshold = quantile * chance["deviation"] * math.sqrt(2 / len(differences))
    verdict = "unclear" if abs(difference) <= threshold else "appears" if difference > 0 else "reversed"
    return {**result, "threshold": threshold, "verdict": verdict}


def describe_effect(effect: Mapping[str, Any]) -> str:
    """An effect as a sentence."""
    head = f"{effect['claim'][0].upper()}{effect['claim'][1:]}"
    if effect["paper"]:
        shown = ", ".join(f"{DATA_NAMES[kind]} {value:+.1f}" for kind, value in effect["paper"].items())
        head += f" (paper: {shown})"
    if effect["verdict"] == "not measured":
        return f"{head}: not measured yet."
    ours = f"{head}: here {effect['difference']:+.1f} {metric_named(effect['score']).name}"
    if effect["verdict"] == "one seed":
        return f"{ours}, with one seed only, so chance cannot be excluded."
    if effect["verdict"] == "chance unknown":
        return f"{ours} over {effect['seeds']} seeds; too few runs share seeds to estimate the effect of chance."
    ends = {
        "appears": f"**appears** at this rate (chance explains up to ±{effect['threshold']:.1f}).",
        "reversed": f"**the opposite appears** at this rate (chance explains up to ±{effect['threshold']:.1f}).",
        "unclear": f"**not significant** (chance explains up to ±{effect['threshold']:.1f}).",
    }
    return f"{ours}: {ends[effect['verdict']]}"


def mean_and_deviation(values: Sequence[float]) -> str:
    """Mean and deviation as text, such as "81.0 ± 1.4": without deviation for a single value, empty for none."""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{deviation}"


def comparison(values: Mapping[str, Any]) -> str:
    """The table of a record in Markdown: the paper's scores and those measured here."""
    rows = values["rows"]
    names = score_names(values)
    headings = [metric_named(name).name for name in names]
    kinds = [kind for kind in DATA_NAMES if any(kind in row["paper"] for row in rows)]
    header = [
        "",
        *(f"paper, {DATA_NAMES[kind]}" for kind in kinds),
        *(f"here, {name}" for name in headings or ["score"]),
        "seeds",
    ]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row in rows:
        paper = [f"{row['paper'][kind]:.1f}" if kind in row["paper"] else "" for kind in kinds]
        ours = [mean_and_deviation(scores(row, name)) for name in names] or [""]
        seeds = ", ".join(str(run["seed"]) for run in row["runs"])
        missing = "not measured yet; needs --scales" if row["combined"] else "not measured yet"
        lines.append("| " + " | ".join([row["label"], *paper, *ours, seeds or missing]) + " |")
    return "\n".join(lines)


def verdicts(values: Mapping[str, Any]) -> str:
    """Which of the paper's effects appear, a line each, and how the effect of chance was estimated."""
    lines = [f"- {describe_effect(effect)}" for effect in values["effects"]]
    if values["chance"] and lines:
        chance = values["chance"]
        lines += [
            "",
            f"Chance: the part of {metric_named(values['score']).name} that neither settings nor seed explain has a "
            f"standard deviation of {chance['deviation']:.2f} points ({chance['freedom']} degrees of freedom, from all "
            f"runs of the same command). An effect appears if its difference is significant at the "
            f"{100 * CONFIDENCE:.0f} % level (two-sided t test). The choice of test images is not part of chance here.",
        ]
    return "\n".join(lines)


def markdown(values: Mapping[str, Any]) -> str:
    """A record as a page."""
    recipe = values["recipe"]
    runs = {run["run"]: run for row in values["rows"] for run in row["runs"]}
    seconds = sum(run["train_seconds"] + run["evaluate_seconds"] for run in runs.values())
    epochs = f"{recipe['epochs']} epoch{'s' if recipe['epochs'] > 1 else ''}"
    parts = [
        f"# {values['title']}",
        f"![{values['title']}]({values['name']}.svg)" if values["has_figure"] else "",
        f"Here: `{values['data']}`, trained on {values['train_split']}, scored on {values['split']} "
        f"({values['images']:,} images); {recipe['backbone']}, {recipe['image_size']} px, {epochs}, "
        f"{recipe['precision']}. Per cent, mean ± standard deviation over seeds. Paper: ResNet-101, 448 px, the full "
        "datasets.",
        f"`{values['command']}`",
        comparison(values),
        verdicts(values),
        f"{len(runs)} runs, {seconds / 60:.1f} minutes.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def raw_csv(values: Mapping[str, Any]) -> str:
    """The runs of a record as CSV, one per line: row, seed, scores, durations and the settings that the row changes."""
    names = score_names(values)
    changed = list(dict.fromkeys(key for row in values["rows"] for key in row["settings"]))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "seed", *names, "train_seconds", "evaluate_seconds", *changed, "run"])
    for row in values["rows"]:
        for run in row["runs"]:
            writer.writerow(
                [
                    row["key"],
                    run["seed"],
                    *(run["scores"].get(name, "") for name in names),
                    round(run["train_seconds"], 1),
                    round(run["evaluate_seconds"], 1),
                    *(row["settings"].get(key, "") for key in changed),
                    run["run"],
                ]
            )
    return text.getvalue()
