"""The ledger of measured figures: kept by program, never by hand.

python -m experiments.ledger add RUN [--label NAME] [--note TEXT] [--commit HASH]   keep the figures of a scored run
python -m experiments.ledger reproduced DIR [--commit HASH]         keep what `wildcat reproduce` wrote to DIR
python -m experiments.ledger                                        write all pages, and the recipes' headers
python -m experiments.ledger check                                  fail if they are not up to date
"""

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from experiments import reproduced

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
REPRODUCED = RESULTS / "reproduced"
LEDGER = HERE / "README.md"
README = HERE.parent / "README.md"
RECIPES = HERE.parent / "wildcat" / "recipes"
MEASURED = "# Measured:"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
HEAD = """# Ledger

One row per group of runs that differ in their seed alone: mean, and standard deviation where there are several.
Written by `python -m experiments.ledger` from `experiments/results/`; scores in per cent. `voc07-mini` and the other
`-mini` sets are small subsets with their own splits: their figures compare methods with each other, and are **not**
comparable with published VOC, COCO or 15-Scene figures.
"""
COLUMNS = {
    "mAP": ("classification", "map_area"),
    "accuracy": ("classification", "accuracy"),
    "points": ("pointing", "map"),
    "mIoU": ("segmentation", "miou"),
    "mIoU CRF": ("segmentation", "miou_crf"),
}


def add(run: Path, label: str, note: str, commit: str) -> list[Path]:
    """Copy a run's figures, with what is needed to repeat them.

    Of runs at several scales the figures of each, as LABEL-224, and of their combinations, as LABEL-mean.
    """
    results = json.loads((run / "results.json").read_text())
    parts = {label: (run, results)}
    if "combinations" in results:
        parts = {f"{label}-{scale}": (run / f"scale-{scale}", found) for scale, found in results["scales"].items()}
        parts |= {f"{label}-{name}": (run, found) for name, found in results["combinations"].items()}
    shared = {key: results[key] for key in ("split", "seconds", "versions")}
    return [_add(folder, name, {**found, **shared}, note, commit) for name, (folder, found) in parts.items()]


def _add(run: Path, label: str, results: dict[str, Any], note: str, commit: str) -> Path:
    """One record; ``run`` is the folder of a run, or of those of all scales."""
    single = run / "config.json"
    config = json.loads((single if single.exists() else run / "scales.json").read_text())
    seconds = 0.0
    for file in run.rglob("metrics.csv"):
        with file.open() as rows:
            seconds += sum(float(row["seconds"]) for row in csv.DictReader(rows))
    for task in ("classification", "pointing", "segmentation"):
        for key in ("decisions", "classes_without_positives", "classes_absent"):
            results.get(task, {}).pop(key, None)
    settings = {k: v for k, v in config["config"].items() if k not in ("data", "workers", "save_minutes", "cache_gb")}
    record = {
        "label": label,
        "data": label_of(config["config"]["data"]),
        "split": results["split"],
        "note": note,
        "commit": commit,
        "seed": settings["seed"],
        "config": settings,
        "train_seconds": round(seconds),
        "evaluate_seconds": round(results["seconds"]),
        "results": {k: results[k] for k in ("classification", "pointing", "segmentation") if k in results},
        "machine": {"cores": os.cpu_count(), "processor": processor(), **results["versions"]},
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


def processor() -> str:
    """Name of the CPU."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def figures(records: list[dict[str, Any]]) -> dict[str, str]:
    """Column -> "mean" or "mean ± deviation" over seeds."""
    shown = {}
    for column, (task, key) in COLUMNS.items():
        values = [r["results"].get(task, {}).get(key) for r in records]
        known = [v for v in values if v is not None]
        if len(known) == len(records):
            deviation = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
            shown[column] = f"{statistics.fmean(known):.1f}{deviation}"
    return shown


def table(records: list[dict[str, Any]]) -> str:
    """The ledger as Markdown."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["label"], record["commit"]].append(record)
    header = ["run", "data", *COLUMNS, "train", "score", "seeds", "commit", "machine", "note"]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for (label, commit), group in groups.items():
        shown = figures(group)
        first = group[0]
        row = [
            label,
            f"{first['data']} {first['split']}",
            *(shown.get(column, "") for column in COLUMNS),
            f"{statistics.fmean(r['train_seconds'] for r in group) / 60:.1f} min",
            f"{statistics.fmean(r['evaluate_seconds'] for r in group) / 60:.1f} min",
            ", ".join(str(r["seed"]) for r in group),
            commit,
            f"{first['machine']['cores']} cores, {first['machine']['processor']}",
            first["note"],
        ]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def sections() -> list[str]:
    """Tables that experiments keep as Markdown beside their CSV, by file name."""
    return [file.read_text() for file in sorted(RESULTS.glob("*.md"))]


def read_records() -> list[dict[str, Any]]:
    """All kept figures, by file name."""
    return [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*.json"))]


def measured(records: list[dict[str, Any]]) -> str:
    """The line of a recipe's header that says what it reached."""
    scores = ", ".join(f"{column} {shown}" for column, shown in figures(records).items())
    runs = "; ".join(f"seed {r['seed']} {r['train_seconds'] / 60:.0f} min" for r in records)
    return f"{MEASURED} {scores} (training, {records[0]['machine']['cores']} cores: {runs})."


def recipes(records: list[dict[str, Any]]) -> dict[Path, str]:
    """The recipes of which runs are kept, their headers brought up to date."""
    found = {}
    for file in sorted(RECIPES.glob("*.yaml")):
        if own := [r for r in records if r["label"] == file.stem]:
            lines = file.read_text().splitlines(keepends=True)
            found[file] = "".join(f"{measured(own)}\n" if line.startswith(MEASURED) else line for line in lines)
    return found


def pages() -> dict[Path, str]:
    """What the ledger, README and the recipes' headers should say."""
    records = read_records()
    readme = README.read_text()
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    main = [r for r in records if r["label"] == "voc07-mini"]
    row = ""
    if main:
        shown = figures(main)
        minutes = statistics.fmean(r["train_seconds"] for r in main) / 60
        row = "| " + " | ".join(["trained on", *shown, "training"]) + " |\n"
        row += "|" + "---|" * (len(shown) + 2) + "\n"
        row += (
            "| "
            + " | ".join(["`voc07-mini`, 2,000 tagged photographs", *shown.values(), f"{minutes:.0f} min on a CPU"])
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
        machine = {"cores": os.cpu_count(), "processor": processor()}
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
