"""Tables and figures of the paper in the ledger: what `wildcat reproduce` measured, kept without the runs."""

import json
import shlex
import shutil
import statistics
from pathlib import Path
from typing import Any

from wildcat.reproduce.tables import DATA_NAMES, data_name, mean_and_deviation, scores, told

HEADER = ["figure", "paper", "here", "data", "command", "commit", "seeds", "duration"]


def command_of(values: dict[str, Any]) -> str:
    """The command that repeats one experiment, without the paths of one machine."""
    words = shlex.split(values["command"])[2:]
    kept, position = ["wildcat", "reproduce", values["name"]], 0
    while position < len(words):
        word = words[position]
        if word in ("--out", "--workers"):
            position += 2
        elif word == "--data":
            kind, _, _ = values["data"].partition(":")
            name = data_name(values["data"])
            kept += ["--data", name if name == kind else f"{kind}:{name}"]
            position += 2
        elif word.startswith("--"):
            kept.append(word)
            position += 1
            while position < len(words) and not words[position].startswith("--"):
                kept.append(words[position])
                position += 1
        else:  # the names of the experiments
            position += 1
    return shlex.join(kept)


def keep(folder: Path, results: Path, commit: str, machine: dict[str, Any]) -> list[Path]:
    """Copy the figures of every experiment in a folder that `wildcat reproduce` wrote; the files written."""
    written = []
    for file in sorted(folder.glob("*.json")):
        values = json.loads(file.read_text())
        if not any(row["runs"] for row in values.get("rows", ())):
            continue  # the settings that the folder shares, or nothing measured yet
        values["command"] = command_of(values)
        values["data"] = data_name(values["data"])
        kept = results / f"{values['name']}-{values['data']}.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({**values, "commit": commit, "machine": machine}, indent=1) + "\n")
        written.append(kept)
        drawing = file.with_suffix(".svg")
        if any(row["x"] is not None for row in values["rows"]) and drawing.exists():  # curves, not photographs
            shutil.copy(drawing, kept.with_suffix(".svg"))
    return written


def read_kept(results: Path) -> list[dict[str, Any]]:
    """All kept experiments, by file name."""
    return [json.loads(file.read_text()) for file in sorted(results.glob("*.json"))]


def section(kept: list[dict[str, Any]], results: str) -> str:
    """The ledger's part on the paper's tables and figures: one row per figure, and which effects appear."""
    if not kept:
        return ""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
    for values in kept:
        lines += [row_of(values, row, name) for row in values["rows"] for name in names_of(row)]
    parts = ["## Tables and figures of the paper", PREFACE, "\n".join(lines)]
    for values in kept:
        parts.append(f"### {values['title']}, {values['data']}")
        if (Path(__file__).parent / results / f"{values['name']}-{values['data']}.svg").exists():
            parts.append(f"![{values['title']}]({results}/{values['name']}-{values['data']}.svg)")
        if values["chance"]:
            chance = values["chance"]
            parts.append(
                f"Deviation of {values['score']} that neither settings nor seed explain: {chance['deviation']:.2f} "
                f"({chance['freedom']} degrees of freedom)."
            )
        parts.append("\n".join(f"- {told(effect)}" for effect in values["effects"]))
    return "\n\n".join(part for part in parts if part) + "\n"


PREFACE = """Kept by `python -m experiments.ledger reproduced DIR` from what `wildcat reproduce` wrote. The paper's figures are those
of ResNet-101 at 448 px on the full data sets; what can be compared is the difference between rows. An effect appears if
the difference is more than the deviation between runs explains at 95 % (two-sided t test)."""


def names_of(row: dict[str, Any]) -> list[str]:
    """The scores of a row."""
    return list(dict.fromkeys(name for run in row["runs"] for name in run["scores"]))


def row_of(values: dict[str, Any], row: dict[str, Any], name: str) -> str:
    """One figure as a line of the table."""
    paper = ", ".join(f"{DATA_NAMES[kind]} {score:.1f}" for kind, score in row["paper"].items())
    seconds = statistics.fmean(run["train_seconds"] + run["evaluate_seconds"] for run in row["runs"])
    cells = [
        f"{values['title'].partition(':')[0]}: {row['label']}",
        paper if name == values["score"] else "",
        f"{name} {mean_and_deviation(scores(row, name))}",
        f"{values['data']} {values['split']}",
        f"`{values['command']}`",
        values["commit"],
        ", ".join(str(run["seed"]) for run in row["runs"]),
        f"{seconds / 60:.1f} min a run",
    ]
    return "| " + " | ".join(cells) + " |"
