"""The ledger of measured scores: written by this program, never by hand.

python -m experiments.ledger add RUN [--label NAME] [--note TEXT] [--commit HASH]   add the scores of an evaluated run
python -m experiments.ledger reproduced DIR [--commit HASH]         add what `wildcat reproduce` wrote to DIR
python -m experiments.ledger                                        write all pages, and the headers of the recipes
python -m experiments.ledger check                                  fail if they are not up to date
"""

import argparse
import csv
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from experiments import reproduced
from wildcat.metrics.metric_table import Detail, metrics_shown
from wildcat.metrics.scores import Scores
from wildcat.runs.results import RESULTS as RESULTS_JSON
from wildcat.runs.results import Results, read_results

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
REPRODUCED = RESULTS / "reproduced"
LEDGER = HERE / "README.md"
README = HERE.parent / "README.md"
RECIPES = HERE.parent / "wildcat" / "recipes"
MEASURED = "# Measured:"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"  # around the table in the main README
HEAD = """# Ledger

One row per group of runs that differ only in their seed: the mean, and the standard deviation if there are several.
Written by `python -m experiments.ledger` from `experiments/results/`; scores in per cent. `voc07-mini` and the other
`-mini` datasets are small subsets with their own splits: their scores compare methods with each other and are **not**
comparable with published scores on VOC, COCO or 15-Scene.
"""
COLUMNS = metrics_shown(Detail.TABLE)
LEFT_OUT = (
    "decisions",
    "classes_without_positives",
    "classes_absent",
)  # entries of results.json that records leave out


def add(run: Path, label: str, note: str, commit: str) -> list[Path]:
    """Write a record with the scores of a run and what is needed to repeat it.

    For a run at several scales, one record for each scale, as LABEL-224, and for each combination, as LABEL-mean.
    """
    results = read_results(run / RESULTS_JSON)
    parts: dict[str, tuple[Path, Scores]] = {label: (run, results)}
    if results.combination is not None:
        parts = {f"{label}-{scale}": (run / f"scale-{scale}", found) for scale, found in results.scales.items()}
        parts |= {f"{label}-{name}": (run, found) for name, found in results.combinations.items()}
    return [_add(folder, name, scores, results, note, commit) for name, (folder, scores) in parts.items()]


def _add(run: Path, label: str, scores: Scores, results: Results, note: str, commit: str) -> Path:
    """One record; ``run`` is the run directory of one scale, or of all scales."""
    single = run / "config.json"
    config = json.loads((single if single.exists() else run / "scales.json").read_text())
    seconds = 0.0
    for file in run.rglob("metrics.csv"):
        with file.open() as rows:
            seconds += sum(float(row["seconds"]) for row in csv.DictReader(rows))
    settings = {k: v for k, v in config["config"].items() if k not in ("data", "workers", "save_minutes", "cache_gb")}
    record = {
        "label": label,
        "data": label_of(config["config"]["data"]),
        "split": results.split,
        "note": note,
        "commit": commit,
        "seed": settings["seed"],
        "config": settings,
        "train_seconds": round(seconds),
        "evaluate_seconds": round(results.seconds),
        "results": {
            task: {key: value for key, value in section.items() if key not in LEFT_OUT}
            for task, section in scores.to_dict().items()
        },
        "machine": {"cores": os.cpu_count(), "cpu": cpu_name(), **results.versions},
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{label}-seed{settings['seed']}.json"
    file.write_text(json.dumps(record, indent=1) + "\n")
    return file


def short_commit(name: str) -> str:
    """Abbreviated hash of a commit."""
    command = ["git", "rev-parse", "--short=10", name]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=HERE).stdout.strip()


def label_of(spec: str) -> str:
    """The dataset's folder name without the path to it, which belongs to one machine."""
    kind, _, path = spec.partition(":")
    return Path(path).name or kind


def cpu_name() -> str:
    """Name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def machine_of(record: dict[str, Any]) -> str:
    """The machine of a record in words; earlier records have "processor" instead of "cpu"."""
    machine = record["machine"]
    return f"{machine['cores']} cores, {machine.get('cpu') or machine['processor']}"


def mean_scores(records: list[dict[str, Any]]) -> dict[str, str]:
    """Metric name -> "mean" or "mean ± deviation" over seeds, and the 95 % interval over images where all records have
    it, for the metrics that all records have.
    """
    shown = {}
    sections = [Scores.from_dict(record["results"], record["label"]) for record in records]
    for metric in COLUMNS:
        values = [metric.value(scores) for scores in sections]
        if not any(map(math.isnan, values)):
            deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
            bounds = [bounds for scores in sections if (bounds := metric.interval(scores)) is not None]
            low, high = (statistics.fmean(side) for side in zip(*bounds, strict=True)) if bounds else (math.nan,) * 2
            # Of a mean over seeds, the mean of their intervals: the images are the same.
            interval = f" (95 %: {low:.1f} to {high:.1f})" if len(bounds) == len(values) else ""
            shown[metric.name] = f"{statistics.fmean(values):.1f}{deviation}{interval}"
    return shown


def table(records: list[dict[str, Any]]) -> str:
    """The ledger as Markdown."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["label"], record["commit"]].append(record)
    names = [metric.name for metric in COLUMNS]
    header = ["run", "data", *names, "training", "evaluation", "seeds", "commit", "machine", "note"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for (label, commit), group in groups.items():
        shown = mean_scores(group)
        first = group[0]
        row = [
            label,
            f"{first['data']} {first['split']}",
            *(shown.get(name, "") for name in names),
            f"{statistics.fmean(r['train_seconds'] for r in group) / 60:.1f} min",
            f"{statistics.fmean(r['evaluate_seconds'] for r in group) / 60:.1f} min",
            ", ".join(str(r["seed"]) for r in group),
            commit,
            machine_of(first),
            first["note"],
        ]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def sections() -> list[str]:
    """Tables that other experiments write as Markdown, sorted by file name."""
    return [file.read_text() for file in sorted(RESULTS.glob("*.md"))]


def read_records() -> list[dict[str, Any]]:
    """All records, sorted by file name."""
    return [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]


def measured(records: list[dict[str, Any]]) -> str:
    """The line of a recipe's header with its measured scores."""
    scores = ", ".join(f"{column} {shown}" for column, shown in mean_scores(records).items())
    runs = "; ".join(f"seed {r['seed']} {r['train_seconds'] / 60:.0f} min" for r in records)
    return f"{MEASURED} {scores} (training, {records[0]['machine']['cores']} cores: {runs})."


def recipes(records: list[dict[str, Any]]) -> dict[Path, str]:
    """The text of the recipes that have records, with updated headers."""
    texts = {}
    for file in sorted(RECIPES.glob("*.yaml")):
        if own := [r for r in records if r["label"] == file.stem]:
            lines = file.read_text().splitlines(keepends=True)
            texts[file] = "".join(f"{measured(own)}\n" if line.startswith(MEASURED) else line for line in lines)
    return texts


def pages() -> dict[Path, str]:
    """The text of the ledger, the main README and the recipes, with the scores of all records."""
    records = read_records()
    readme = README.read_text()
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    main = [r for r in records if r["label"] == "voc07-mini"]
    row = ""
    if main:
        shown = mean_scores(main)
        minutes = statistics.fmean(r["train_seconds"] for r in main) / 60
        row = "| " + " | ".join(["trained on", *shown, "training"]) + " |\n"
        row += "|" + "---|" * (len(shown) + 2) + "\n"
        row += (
            "| "
            + " | ".join(["`voc07-mini`, 2,000 images with labels", *shown.values(), f"{minutes:.0f} min on a CPU"])
            + " |"
        )
    tables = reproduced.section(REPRODUCED)
    return {
        LEDGER: "\n".join([HEAD, f"{table(records)}\n", *sections(), *([tables] if tables else [])]),
        README: f"{before}{BEGIN}\n{row}\n{END}{after}",
        **recipes(records),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=["add", "reproduced", "write", "check"], default="write")
    parser.add_argument("run", nargs="?", type=Path)
    parser.add_argument("--label")
    parser.add_argument("--note", default="")
    parser.add_argument("--commit", default="HEAD", help="the commit that the run was trained with")
    arguments = parser.parse_args()
    if arguments.action == "add":
        if arguments.run is None:
            parser.error("add needs RUN")
        label, commit = arguments.label or arguments.run.name, short_commit(arguments.commit)
        print(*add(arguments.run, label, arguments.note, commit), sep="\n")
    if arguments.action == "reproduced":
        if arguments.run is None:
            parser.error("reproduced needs DIR")
        machine = {"cores": os.cpu_count(), "cpu": cpu_name()}
        for file in reproduced.keep(arguments.run, REPRODUCED, short_commit(arguments.commit), machine):
            print(file)
    stale = [file for file, text in pages().items() if not file.exists() or file.read_text() != text]
    if arguments.action == "check":
        for file in stale:
            print(f"{file.name} is not up to date: run python -m experiments.ledger", file=sys.stderr)
        return 1 if stale else 0
    for file, text in pages().items():
        file.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
