"""Tables and figures of the paper in the ledger: the records of `wildcat reproduce`, without the runs."""

import json
import shlex
import shutil
import statistics
from pathlib import Path
from typing import Any

from wildcat.apps.reproduce import frozen_tables, tables
from wildcat.apps.reproduce.tables import data_name

HERE = Path(__file__).resolve().parent


def command_of(values: dict[str, Any]) -> str:
    """The command that repeats one experiment, without paths of this machine."""
    words = shlex.split(values["command"])[2:]
    result, position = ["wildcat", "reproduce", values["name"]], 0
    while position < len(words):
        word = words[position]
        if word in ("--out", "--workers", "--cache-dir"):
            position += 2
        elif word == "--data":
            kind, _, _ = values["data"].partition(":")
            name = data_name(values["data"])
            result += ["--data", name if name == kind else f"{kind}:{name}"]
            position += 2
        elif word.startswith("--"):
            result.append(word)
            position += 1
            while position < len(words) and not words[position].startswith("--"):
                result.append(words[position])
                position += 1
        else:  # the names of the experiments
            position += 1
    return shlex.join(result)


def keep(folder: Path, results: Path, commit: str, machine: dict[str, Any]) -> list[Path]:
    """Copy the record of every experiment in a folder of `wildcat reproduce`; return the files written."""
    written = []
    for file in sorted(folder.glob("*.json")):
        values = json.loads(file.read_text())
        if not any(row["runs"] for row in values.get("rows", ())):
            continue  # the shared settings, or an experiment without finished runs
        values["command"] = command_of(values)
        values["data"] = data_name(values["data"])
        record = results / f"{label_of(values)}.json"
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps({**values, "commit": commit, "machine": machine}, indent=1) + "\n")
        written.append(record)
        drawing = file.with_suffix(".svg")
        if (
            any(row["x"] is not None for row in values["rows"]) and drawing.exists()
        ):  # curves; Figure 6 shows images of the dataset
            shutil.copy(drawing, record.with_suffix(".svg"))
    return written


def label_of(values: dict[str, Any]) -> str:
    """File name of an experiment: its name, dataset, backbone and image size."""
    recipe = values["recipe"]
    kind = "-frozen" if "frozen" in values else ""
    return f"{values['name']}-{values['data']}-{recipe['backbone'].replace(':', '-')}-{recipe['image_size']}{kind}"


def section(results: Path) -> str:
    """The sections of the ledger about the paper's tables and figures, from the folder of their records."""
    files = sorted(results.glob("*.json"))
    frozen = [file for file in files if "frozen" in json.loads(file.read_text())]
    parts = []
    for title, preface, group in (
        ("Tables and figures of the paper, each row at its own learning rate", OWN_RATES, frozen),
        ("Tables and figures of the paper, all rows at one learning rate", ONE_RATE, sorted({*files} - {*frozen})),
    ):
        if group:
            parts += [f"## {title}", f"{PREFACE} {preface}", *(part_of(file) for file in group)]
    return "\n\n".join(parts) + "\n" if parts else ""


PREFACE = (
    "Written by `python -m experiments.ledger reproduced DIR` from the output of `wildcat reproduce` in DIR. The\n"
    "paper's scores are those of ResNet-101 at 448 px on the full datasets, so only differences between rows can be\n"
    "compared."
)

OWN_RATES = (
    "Heads on features of a frozen backbone. The own rate of each row was\nchosen on held-out training images; the "
    "column at one rate shows what a comparison like the paper's gives."
)

ONE_RATE = (
    "All rows have the same learning rate, as in the paper: a\ndifference may be one of the methods, or of the rates "
    "that suit them."
)


def part_of(file: Path) -> str:
    """The text about one experiment."""
    values = json.loads(file.read_text())
    recipe, machine = values["recipe"], values["machine"]
    cpu = machine.get("cpu") or machine["processor"]  # the key of earlier records
    drawing = file.with_suffix(".svg")
    frozen = "frozen" in values
    of = frozen_tables if frozen else tables
    if frozen:
        runs = f"{len({run['run'] for row in values['rows'] for run in (*row['runs'], *row['fixed_runs'])})} heads"
    else:
        found = {run["run"]: run for row in values["rows"] for run in row["runs"]}
        seconds = statistics.fmean(run["train_seconds"] + run["evaluate_seconds"] for run in found.values())
        runs = f"{len(found)} runs of {seconds / 60:.1f} min"
    backbone = f"{recipe['backbone']}{' frozen' if frozen else ''}"
    parts = [
        f"### {values['title']} ({values['data']}, {backbone}, {recipe['image_size']} px)",
        f"`{values['command']}`",
        f"Scored on {values['data']} {values['split']}, {values['images']:,} images; commit {values['commit']}; "
        f"{runs}; {machine['cores']} cores, {cpu}.",
        f"![{values['title']}]({drawing.relative_to(HERE).as_posix()})" if drawing.exists() else "",
        of.comparison(values),
        of.verdicts(values),
        frozen_tables.protocol(values) if frozen else "",
    ]
    return "\n\n".join(part for part in parts if part)
