"""docs/performance.md, made from the CSV files of the results: never written by hand.

python -m benchmarks.tables          write the page and its plot
python -m benchmarks.tables check    fail if the page is not up to date
"""

from __future__ import annotations

import csv
import re
import sys
from pathlib import Path

from benchmarks.common import OURS, RESULTS

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "performance.md"
PLOT = DOCS / "images" / "growth.svg"
HEAD = """# Performance

Whole tasks and their parts, against other code in the same run on the same machine, taking turns. Medians over turns,
quartiles in brackets; "faster" is the median over turns of the ratio. Written by `python -m benchmarks.tables` from
`benchmarks/results/`; measured with `python -m benchmarks --full`. Each script of `benchmarks/` says in its head what
it compares and how.
"""
TITLES = {
    "train": "Training, a whole step with its data",
    "predict": "Prediction, a folder to scores and points",
    "runtimes": "Exported files, from pixels to predictions, against the trunk alone",
    "maps": "Heatmaps of all classes",
    "pooling": "Pooling, forward and backward",
    "startup": "Start of the command",
    "growth": "Growth",
}

Row = dict[str, str]


def read(name: str) -> list[Row]:
    file = RESULTS / f"{name}.csv"
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def spread(row: Row) -> str:
    quartiles = "" if row["turns"] == "1" else f" ({row['q1']}-{row['q3']})"
    return f"{row['median']}{quartiles} {row['unit']}"


def machine(row: Row) -> str:
    return (
        f"{row['cpu']}, {row['cores']} cores, {row['threads']} threads; Python {row['python']}, PyTorch {row['torch']}."
    )


def compared(rows: list[Row]) -> list[str]:
    """A row for each peer of a comparison."""
    lines = ["| work | wildcat | peer | | faster | goal | |", "|---|---|---|---|---|---|---|"]
    mine = {row["work"]: row for row in rows if row["program"] == OURS}
    peers = [row for row in rows if row["program"] != OURS]
    for row in peers:
        cells = [row["work"], spread(mine[row["work"]]), row["program"], spread(row), row["ratio"], row["goal"]]
        lines.append("| " + " | ".join([*cells, row["note"]]) + " |")
    alone = [row for row in rows if row["program"] == OURS and row["work"] not in {peer["work"] for peer in peers}]
    lines += [f"| {row['work']} | {spread(row)} | | | | {row['goal']} | {row['note']} |" for row in alone]
    return lines


def listed(rows: list[Row], last: str) -> list[str]:
    lines = [f"| work | wildcat | {last} |", "|---|---|---|"]
    key = "goal" if last == "goal" else "ratio"
    return [*lines, *(f"| {row['work']} | {spread(row)} | {row[key].removeprefix('growth ')} |" for row in rows)]


def page() -> str:
    parts = [HEAD]
    for name, title in TITLES.items():
        rows = read(name)
        if not rows:
            continue
        table = {"startup": lambda r: listed(r, "goal"), "growth": lambda r: listed(r, "growth")}.get(name, compared)
        picture = [f"![growth](images/{PLOT.name})", ""] if name == "growth" else []
        parts.append("\n".join([f"## {title}", "", machine(rows[0]), "", *picture, *table(rows)]) + "\n")
    return "\n".join(parts)


def plot(rows: list[Row]) -> None:
    """Cost against the number of pictures, classes, maps and pixels."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "wildcat"
    from matplotlib import pyplot

    panels = {
        "pictures": "ms each, without the network",
        "classes": "ms a picture, training",
        "maps per class": "ms a picture, training",
        "px": "ms a picture, prediction",
    }
    figure, axes = pyplot.subplots(1, len(panels), figsize=(12, 2.8), layout="constrained")
    for axis, (what, unit) in zip(axes, panels.items(), strict=True):
        found = [(re.fullmatch(rf"(\d+) {what}", row["work"]), float(row["median"])) for row in rows]
        points = [(int(match[1]), value) for match, value in found if match]
        axis.plot(*zip(*points, strict=True), "o-", color="#164c92")
        axis.set(xlabel="side of the input, px" if what == "px" else what, ylabel=unit, ylim=(0, None))
        if what in ("pictures", "classes"):
            axis.set_xscale("log")
    figure.savefig(PLOT, metadata={"Date": None})
    pyplot.close(figure)


def main(arguments: list[str]) -> int:
    if arguments == ["check"]:
        if not PAGE.exists() or PAGE.read_text() != page():
            print(f"{PAGE.name} is not up to date: run python -m benchmarks.tables", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(page())
    if rows := read("growth"):
        plot(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
