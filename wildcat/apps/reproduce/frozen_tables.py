"""Pages of experiments on frozen features: rows at their own learning rates, and effects with two intervals.

PyTorch is not imported here.
"""

import csv
import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from wildcat.apps.reproduce.plan import Effect, Experiment
from wildcat.apps.reproduce.tables import CONFIDENCE, DATA_NAMES, mean_and_deviation, published, score_names, scores
from wildcat.config import TrainConfig
from wildcat.data import Dataset
from wildcat.metrics import PointVerdicts
from wildcat.metrics.bootstrap import average_precision_samples, bootstrap_counts
from wildcat.metrics.metric_table import Detail, metric_named, metrics_shown
from wildcat.system.files import write_atomically, write_json


class Predictions(Protocol):
    """Predictions for N images, see :class:`wildcat.training.head_scores.HeadPredictions`."""

    @property
    def probabilities(self) -> npt.NDArray[np.float32]:
        """(N, C) in [0, 1]."""

    def verdicts(self, dataset: Dataset, sizes: Sequence[tuple[int, int]]) -> PointVerdicts:
        """Whether each point is correct."""


def save_predictions(
    file: Path, predictions: Predictions, dataset: Dataset, sizes: Sequence[tuple[int, int]] | None
) -> None:
    """Write what intervals over images need: probabilities, and which points are correct."""
    arrays: dict[str, Any] = {"probabilities": predictions.probabilities}
    if sizes is not None:
        verdicts = predictions.verdicts(dataset, sizes)
        arrays |= {"positive": verdicts.positive, "correct": verdicts.correct, "ignored": verdicts.ignored}
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    write_atomically(file, content.getvalue())


class ImageIntervals:
    """Scores of heads over random choices of the test images, the same choices for all heads.

    Args:
        folder: of the predictions.
        dataset: the test images.
    """

    def __init__(self, folder: Path, dataset: Dataset) -> None:
        self._folder, self._labels, self._multi_label = folder, dataset.labels, dataset.multi_label
        self._counts = bootstrap_counts(len(dataset))
        self._known: dict[tuple[str, str], npt.NDArray[np.float64]] = {}

    def samples(self, runs: Sequence[Mapping[str, Any]], name: str) -> npt.NDArray[np.float64]:
        """The score in per cent, averaged over heads, for each choice of images."""
        mean: npt.NDArray[np.float64] = np.mean([self._samples_of(run["run"], name) for run in runs], axis=0)
        return mean

    def _samples_of(self, run: str, name: str) -> npt.NDArray[np.float64]:
        if (run, name) not in self._known:
            with np.load(self._folder / f"{run}.npz") as arrays:
                self._known[run, name] = 100 * self._compute(name, arrays)
        return self._known[run, name]

    def _compute(self, name: str, arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
        probabilities, labels, counts = arrays["probabilities"].astype(np.float64), self._labels, self._counts
        if name == "accuracy":
            right = probabilities.argmax(axis=1) == labels.argmax(axis=1)
            return np.asarray(counts @ right / counts.shape[1])
        if name == "mAP":
            hits = positive = labels == 1
            counted = labels != 0
        else:
            hits, positive, counted = arrays["correct"], arrays["positive"], ~arrays["ignored"]
        classes = np.flatnonzero(positive.any(axis=0))
        each = [
            average_precision_samples(probabilities[:, c], hits[:, c], positive[:, c], counted[:, c], counts)
            for c in classes
        ]
        return np.asarray(np.nanmean(each, axis=0))


def write(
    experiment: Experiment,
    recipe: TrainConfig,
    out: Path,
    rows: Sequence[dict[str, Any]],
    intervals: ImageIntervals | None,
    about: Mapping[str, Any],
) -> Path:
    """Write the record, CSV, figure and page of an experiment; return the page.

    Args:
        experiment: what was measured.
        recipe: the settings that its rows change.
        out: the folder.
        rows: its rows, with "rate", "held_out", and the entries of their heads in "runs" and "fixed_runs".
        intervals: over the test images; None where seeds have other images.
        about: command, data, split, number of images, and how the rates were chosen ("frozen").
    """
    values = record(experiment, recipe, rows, intervals, about)
    page = out / f"{experiment.name}.md"
    write_json(page.with_suffix(".json"), values)
    write_atomically(page.with_suffix(".csv"), raw_csv(values).encode("utf-8", "backslashreplace"))
    if experiment.figure == "curve":
        from wildcat.apps.reproduce import figures

        figures.curve(values, page.with_suffix(""))
    write_atomically(page, markdown(values).encode("utf-8", "backslashreplace"))
    return page


def record(
    experiment: Experiment,
    recipe: TrainConfig,
    rows: Sequence[Mapping[str, Any]],
    intervals: ImageIntervals | None,
    about: Mapping[str, Any],
) -> dict[str, Any]:
    """All of an experiment as plain values; those of :func:`wildcat.apps.reproduce.tables.record`, and the rates."""
    paper = published().get(experiment.name, {})
    by_measure = [[metric.name for metric in metrics_shown(Detail.TABLE, [measure])] for measure in experiment.measures]
    names = [name for group in by_measure for name in group]

    def shown(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [{**run, "scores": {n: run["scores"][n] for n in names if n in run["scores"]}} for run in runs]

    with_scores = [
        {
            **row,
            "paper": paper.get(row["key"], {}),
            "runs": shown(row["runs"]),
            "fixed_runs": shown(row["fixed_runs"]),
        }
        for row in rows
    ]
    name = next(iter(score_names({"rows": with_scores})), None)
    keys = {row["key"] for row in rows}
    effects = [effect for effect in experiment.effects if {effect.higher, effect.lower} <= keys]
    return {
        "name": experiment.name,
        "title": experiment.title,
        **about,
        "recipe": {key: value for key, value in recipe.to_dict().items() if key not in ("data", "seed", "cache_dir")},
        "rows": with_scores,
        "has_figure": experiment.figure is not None and name is not None,
        "score": name,
        "effects": [] if name is None else [judged(effect, with_scores, name, intervals) for effect in effects],
    }


def seed_interval(differences: Sequence[float]) -> tuple[float, float]:
    """The interval of the mean of paired differences: Student's t, one difference for each seed, at least two.

    >>> [round(bound, 2) for bound in seed_interval([1.0, 2.0, 3.0])]
    [-0.48, 4.48]
    """
    from scipy.stats import t

    mean, count = statistics.fmean(differences), len(differences)
    reach = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * statistics.stdev(differences) / math.sqrt(count)
    return mean - reach, mean + reach


def judged(
    effect: Effect, rows: Sequence[Mapping[str, Any]], name: str, intervals: ImageIntervals | None
) -> dict[str, Any]:
    """An effect with the paper's differences, ours at own rates and at the fixed rate, intervals, and a verdict.

    An effect appears if neither interval holds 0: that over seeds and, where it is known, that over test images.
    """
    higher, lower = (next(row for row in rows if row["key"] == key) for key in (effect.higher, effect.lower))
    both = [kind for kind in higher["paper"] if kind in lower["paper"]]
    result: dict[str, Any] = {
        "claim": effect.claim,
        "higher": effect.higher,
        "lower": effect.lower,
        "paper": {kind: round(higher["paper"][kind] - lower["paper"][kind], 2) for kind in both},
        "score": name,
    }

    def differences(kind: str) -> dict[int, float]:
        ours, others = (
            {run["seed"]: run["scores"][name] for run in row[kind] if name in run["scores"]} for row in (higher, lower)
        )
        return {seed: ours[seed] - others[seed] for seed in ours if seed in others}

    own, fixed = differences("runs"), differences("fixed_runs")
    if fixed:
        result["fixed_difference"] = statistics.fmean(fixed.values())
    if not own:
        return {**result, "verdict": "not measured"}
    result |= {"difference": statistics.fmean(own.values()), "seeds": len(own)}
    if len(own) < 2:
        return {**result, "verdict": "one seed"}
    bounds = [seed_interval([*own.values()])]
    result["interval_seeds"] = list(bounds[0])
    if intervals is not None:
        of_both = [[run for run in row["runs"] if run["seed"] in own] for row in (higher, lower)]
        samples = intervals.samples(of_both[0], name) - intervals.samples(of_both[1], name)
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(samples[np.isfinite(samples)], [tail, 1 - tail])
        result["interval_images"] = [float(low), float(high)]
        bounds.append((float(low), float(high)))
    above, below = all(low > 0 for low, _ in bounds), all(high < 0 for _, high in bounds)
    return {**result, "verdict": "appears" if above else "reversed" if below else "unclear"}


def describe_effect(effect: Mapping[str, Any]) -> str:
    """An effect as a sentence."""
    text = f"{effect['claim'][0].upper()}{effect['claim'][1:]}"
    if effect["paper"]:
        shown = ", ".join(f"{DATA_NAMES[kind]} {value:+.1f}" for kind, value in effect["paper"].items())
        text += f" (paper: {shown})"
    fixed = f"; with one rate for all rows {effect['fixed_difference']:+.1f}" if "fixed_difference" in effect else ""
    if effect["verdict"] == "not measured":
        return f"{text}: not measured, because a row diverged."
    text += f": here {effect['difference']:+.1f} {metric_named(effect['score']).name}"
    if effect["verdict"] == "one seed":
        return f"{text}, with one seed only, so chance cannot be excluded{fixed}."
    low, high = effect["interval_seeds"]
    text += f" ({low:+.1f} to {high:+.1f} over {effect['seeds']} seeds"
    if "interval_images" in effect:
        low, high = effect["interval_images"]
        text += f", {low:+.1f} to {high:+.1f} over test images"
    ends = {"appears": "**appears**", "reversed": "**the opposite appears**", "unclear": "**not significant**"}
    return f"{text}): {ends[effect['verdict']]}{fixed}."


def comparison(values: Mapping[str, Any]) -> str:
    """The table of a record in Markdown: the paper's scores, the rates, and the scores at own and at fixed rate."""
    rows, frozen = values["rows"], values["frozen"]
    names = score_names(values)
    headings = [metric_named(name).name for name in names]
    kinds = [kind for kind in DATA_NAMES if any(kind in row["paper"] for row in rows)]
    same = len({row["fixed_rate"] for row in rows}) == 1
    fixed = f"rate {frozen['fixed_rate']:g}" if same else "the rate of its label"
    header = [
        "",
        *(f"paper, {DATA_NAMES[kind]}" for kind in kinds),
        "own rate",
        *(f"here, {name}" for name in headings),
        *(f"at {fixed}, {name}" for name in headings),
        "seeds",
    ]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row in rows:
        paper = [f"{row['paper'][kind]:.1f}" if kind in row["paper"] else "" for kind in kinds]
        own = [mean_and_deviation(scores(row, name)) or "diverged" for name in names]
        at_fixed = [mean_and_deviation(scores({"runs": row["fixed_runs"]}, name)) or "diverged" for name in names]
        lines.append("| " + " | ".join([row["label"], *paper, _rate(row, frozen), *own, *at_fixed, _seeds(row)]) + " |")
    return "\n".join(lines)


def _rate(row: Mapping[str, Any], frozen: Mapping[str, Any]) -> str:
    """A row's own rate, marked if a rate outside of the grid may be better."""
    end = row["rate"] in (frozen["rates"][0], frozen["rates"][-1]) and len(frozen["rates"]) > 1
    return f"{row['rate']:g}{' (end of the grid)' if end else ''}"


def _seeds(row: Mapping[str, Any]) -> str:
    """The seeds of a row: "0 to 9", or each."""
    seeds = [run["seed"] for run in row["runs"]]
    if len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


def verdicts(values: Mapping[str, Any]) -> str:
    """Which of the paper's effects appear, a line each."""
    return "\n".join(f"- {describe_effect(effect)}" for effect in values["effects"])


def protocol(values: Mapping[str, Any]) -> str:
    """How rates were chosen and effects judged, for a page."""
    frozen, name = values["frozen"], metric_named(values["score"]).name if values["score"] else "score"
    scale = frozen["initial_scale"]
    start = "zeros" if scale == 0 else "random weights" if scale == 1 else f"random weights times {scale:g}"
    judge = "accuracy" if name == "accuracy" else "mAP"
    return (
        f"The backbone is frozen; heads start from {start}. The own rate of a row has the highest {judge} on "
        f"{100 * frozen['held_out']:g} % of the training images (mean of {frozen['splits']} random splits), out of "
        f"{', '.join(f'{rate:g}' for rate in frozen['rates'])}. Then heads are trained on all training images. Effects "
        f"are differences at own rates, with {100 * CONFIDENCE:.0f} % intervals: of a paired t test over seeds, and of "
        "the percentiles over random choices of the test images (bootstrap). One appears if neither holds 0."
    )


def markdown(values: Mapping[str, Any]) -> str:
    """A record as a page."""
    recipe = values["recipe"]
    parts = [
        f"# {values['title']}",
        f"![{values['title']}]({values['name']}.svg)" if values["has_figure"] else "",
        f"Here: `{values['data']}`, trained on {values['train_split']}, scored on {values['split']} "
        f"({values['images']:,} images); {recipe['backbone']}, {recipe['image_size']} px, {recipe['epochs']} epochs. "
        "Per cent, mean ± standard deviation over seeds. Paper: ResNet-101, 448 px, the full datasets.",
        f"`{values['command']}`",
        comparison(values),
        verdicts(values),
        protocol(values),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def raw_csv(values: Mapping[str, Any]) -> str:
    """The heads of a record as CSV, one per line: row, seed, which rate, its value and the scores."""
    names = score_names(values)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "seed", "kind", "rate", *names, "run"])
    for row in values["rows"]:
        for kind, runs in (("own", row["runs"]), ("fixed", row["fixed_runs"])):
            for run in runs:
                found = [run["scores"].get(name, "") for name in names]
                writer.writerow([row["key"], run["seed"], kind, run["rate"], *found, run["run"]])
    return text.getvalue()
