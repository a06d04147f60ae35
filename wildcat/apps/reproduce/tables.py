"""What the finished runs say: records, Markdown, CSV, and which of the paper's effects appear. Free of PyTorch."""

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
from wildcat.system.files import read_json

RESULTS = "results.json"

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
    """The paper's figures: experiment -> row -> kind of data -> per cent."""
    content = yaml.safe_load((Path(__file__).parent / "paper.yaml").read_text(encoding="utf-8"))
    return dict(content)


def data_name(spec: str) -> str:
    """What a dataset is called on pages: its folder, which is the same on all machines, and not the path to it.

    >>> data_name("voc07:/data/voc07-mini"), data_name("synthetic:count=24")
    ('voc07-mini', 'synthetic')
    """
    kind, _, path = spec.partition(":")
    return kind if "=" in path.partition(",")[0] else Path(path.partition(",")[0]).name or kind


def scores_of(results: Mapping[str, Any]) -> dict[str, float]:
    """The headline figures of results.json, by name."""
    where = {
        "mAP": ("classification", "map_area"),
        "accuracy": ("classification", "accuracy"),
        "points": ("pointing", "map"),
        "mIoU": ("segmentation", "miou"),
        "mIoU CRF": ("segmentation", "miou_crf"),
    }
    return {
        name: results[task][key] for name, (task, key) in where.items() if results.get(task, {}).get(key) is not None
    }


def finished(folder: Path, measures: Sequence[Measure]) -> dict[str, Any] | None:
    """The results of a run that is scored on all these tasks; None if something is left to do."""
    if not (folder / RESULTS).exists():
        return None
    results = read_json(folder / RESULTS)
    return results if all(measure in results for measure in measures) else None


def summary(run: PlannedRun, folder: Path) -> dict[str, Any] | None:
    """What tables need of a run; None while it is not scored."""
    if (results := finished(folder, ())) is None:
        return None
    seconds = 0.0
    for metrics in folder.rglob("metrics.csv"):  # one, or one a scale
        with metrics.open(newline="", encoding="utf-8") as file:
            seconds += sum(float(row["seconds"]) for row in csv.DictReader(file))
    return {
        "run": run.name,
        "setting": run.setting,
        "seed": run.config.seed,
        "scores": scores_of(results),
        "train_seconds": seconds,
        "evaluate_seconds": results["seconds"],
        "versions": results["versions"],
    }


SHOWN: dict[Measure, tuple[str, ...]] = {
    "classification": ("mAP", "accuracy"),
    "pointing": ("points",),
    "segmentation": ("mIoU", "mIoU CRF"),
}


def record(
    experiment: Experiment,
    runs: Mapping[str, Sequence[Mapping[str, Any]]],
    everything: Sequence[Mapping[str, Any]],
    recipe: TrainConfig,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything that a table shows, as plain values.

    Args:
        experiment: the table.
        runs: row key -> its finished runs, as of :func:`summary`. One that has been scored on other tasks alone, for
            another experiment, does not count here.
        everything: finished runs of all tables that vary the same settings; chance is estimated from them.
        recipe: the settings that the rows change.
        about: command, splits, number of images, versions.
    """
    paper = published().get(experiment.name, {})
    names = [name for measure in experiment.measures for name in SHOWN[measure]]
    needed = SHOWN[experiment.measures[0]]

    def shown(found: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**run, "scores": {name: run["scores"][name] for name in names if name in run["scores"]}}
            for run in found
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
        "drawn": experiment.drawing is not None and name is not None,
        "score": name,
        "chance": chance,
        "effects": [judged(effect, rows, name, chance) for effect in experiment.effects],
    }


def score_names(values: Mapping[str, Any]) -> list[str]:
    """Names of the scores in a record, in order."""
    return list(dict.fromkeys(name for row in values["rows"] for run in row["runs"] for name in run["scores"]))


def scores(row: Mapping[str, Any], name: str) -> list[float]:
    """A score of all seeds of a row."""
    return [run["scores"][name] for run in row["runs"] if name in run["scores"]]


def spread(runs: Sequence[Mapping[str, Any]], name: str) -> dict[str, float] | None:
    """Standard deviation of a score that neither the settings nor the seed explain, and its degrees of freedom.

    Runs of one seed share the order of the images, so a seed may lift all settings alike; that part is taken out (the
    residual of a two-way layout of settings and seeds). All settings together say more than the few seeds of one do.
    None unless two settings share two seeds.
    """
    groups: dict[str, dict[int, float]] = {}
    for run in runs:
        if name in run["scores"]:
            groups.setdefault(run["setting"], {})[run["seed"]] = run["scores"][name]
    # While the last seed is under way, few settings have it: take the settings that have most, or else any two.
    most = max(map(len, groups.values()), default=0)
    whole = [found for found in groups.values() if len(found) == most]
    if len(whole) < 2:
        whole = [found for found in groups.values() if len(found) > 1]
    shared = sorted(set.intersection(*map(set, whole))) if whole else []
    if len(whole) < 2 or len(shared) < 2:
        return None
    table = [[found[seed] for seed in shared] for found in whole]
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

    The verdict is a two-sided t test at 5 % with the deviation of :func:`spread`; "threshold" is the smallest
    difference that it calls more than chance.
    """
    from scipy.stats import t

    higher, lower = (next(row for row in rows if row["key"] == key) for key in (effect.higher, effect.lower))
    both = [kind for kind in higher["paper"] if kind in lower["paper"]]
    paper = {kind: round(higher["paper"][kind] - lower["paper"][kind], 2) for kind in both}
    found: dict[str, Any] = {"claim": effect.claim, "higher": effect.higher, "lower": effect.lower, "paper": paper}
    ours, others = (
        {run["seed"]: run["scores"][name] for run in row["runs"] if name in run["scores"]} for row in (higher, lower)
    )
    differences = [ours[seed] - others[seed] for seed in ours if seed in others]
    if not differences:
        return {**found, "verdict": "not measured"}
    difference = statistics.fmean(differences)
    found |= {"score": name, "difference": difference, "seeds": len(differences)}
    if len(differences) < 2:
        return {**found, "verdict": "one seed"}
    if chance is None:
        return {**found, "verdict": "chance unknown"}
    quantile = float(t.ppf((1 + CONFIDENCE) / 2, chance["freedom"]))
    threshold = quantile * chance["deviation"] * math.sqrt(2 / len(differences))
    verdict = "unclear" if abs(difference) <= threshold else "appears" if difference > 0 else "reversed"
    return {**found, "threshold": threshold, "verdict": verdict}


def describe_effect(effect: Mapping[str, Any]) -> str:
    """An effect as a sentence."""
    head = f"{effect['claim'][0].upper()}{effect['claim'][1:]}"
    if effect["paper"]:
        shown = ", ".join(f"{DATA_NAMES[kind]} {value:+.1f}" for kind, value in effect["paper"].items())
        head += f" (paper: {shown})"
    if effect["verdict"] == "not measured":
        return f"{head}: not measured yet."
    ours = f"{head}: here {effect['difference']:+.1f} {effect['score']}"
    if effect["verdict"] == "one seed":
        return f"{ours}, of one seed alone: chance cannot be told from it."
    if effect["verdict"] == "chance unknown":
        return f"{ours} over {effect['seeds']} seeds; too few of the runs share seeds to tell it from chance."
    ends = {
        "appears": f"**appears** (more than the ±{effect['threshold']:.1f} of chance).",
        "reversed": f"**the opposite appears** (more than the ±{effect['threshold']:.1f} of chance).",
        "unclear": f"**not to be told** from chance (±{effect['threshold']:.1f}).",
    }
    return f"{ours}: {ends[effect['verdict']]}"


def mean_and_deviation(values: Sequence[float]) -> str:
    """ "81.0 ± 1.4"; the deviation where there are several values, nothing at all where there are none."""
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{deviation}"


def comparison(values: Mapping[str, Any]) -> str:
    """The table of a record: the paper's figures and those measured here, a row each."""
    rows = values["rows"]
    names = score_names(values) or ["score"]
    kinds = [kind for kind in DATA_NAMES if any(kind in row["paper"] for row in rows)]
    header = ["", *(f"paper, {DATA_NAMES[kind]}" for kind in kinds), *(f"here, {name}" for name in names), "seeds"]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row in rows:
        paper = [f"{row['paper'][kind]:.1f}" if kind in row["paper"] else "" for kind in kinds]
        ours = [mean_and_deviation(scores(row, name)) for name in names]
        seeds = ", ".join(str(run["seed"]) for run in row["runs"])
        missing = "not measured yet, with --scales alone" if row["combined"] else "not measured yet"
        lines.append("| " + " | ".join([row["label"], *paper, *ours, seeds or missing]) + " |")
    return "\n".join(lines)


def verdicts(values: Mapping[str, Any]) -> str:
    """Which of the paper's effects appear, a line each, and what they were held against."""
    lines = [f"- {describe_effect(effect)}" for effect in values["effects"]]
    if values["chance"] and lines:
        chance = values["chance"]
        lines += [
            "",
            f"Chance: what neither settings nor seed explain of {values['score']} has a deviation of "
            f"{chance['deviation']:.2f} points ({chance['freedom']} degrees of freedom, from all runs of the same "
            f"command). An effect appears if its difference is more than that explains at {100 * CONFIDENCE:.0f} % "
            "(two-sided t test); how other test images might differ is not part of it.",
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
        f"![{values['title']}]({values['name']}.svg)" if values["drawn"] else "",
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
    """One line per run: row, seed, scores, duration, and what the row changes."""
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
