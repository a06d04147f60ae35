"""Write docs/performance.md from the CSV files of the results.

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

Speed of whole tasks and of their parts, compared with other code in the same run on the same machine, in turns. Each
number is a median over turns with quartiles in brackets; "faster" is the median over turns of the ratio. This page is
written by `python -m benchmarks.tables` from `benchmarks/results/`, which `python -m benchmarks --full` measures. The
docstring of each script in `benchmarks/` describes what it compares and how.
"""
TITLES = {
    "train": "Training, a whole step with its data",
    "compiled": "Training with torch.compile",
    "predict": "Prediction, a folder to scores and points",
    "runtimes": "Exported files, from pixels to predictions, against the backbone alone",
    "maps": "Heatmaps of all classes",
    "pooling": "Pooling, forward and backward",
    "crf": "Dense CRF, images of 500 x 375 pixels",
    "startup": "Start-up of the command line",
    "growth": "Growth",
}

# Explanations: why a goal is missed, or why a number is unexpected.
NOTES = {
    "maps": """torchcam's CAM needs no gradients, so it also takes one pass of the backbone, and no method takes less.
Only a faster pass can gain time there: BatchNorm and activation inside the convolutions, bf16, OpenVINO. The rest of
our time is that pass and resizing.""",
    "runtimes": """Besides the backbone, ours computes normalization, head, pooling and copies between arrays.""",
    "pooling": """"memory" is the time to read the maps once, a lower bound for any pooling. Ours also selects cells,
and its backward pass writes a gradient for each cell; the whole head takes less than 1 % of a training step.""",
    "growth": "For images and px: cost of each, divided by that of the smallest size; 1 means linear cost.",
    "crf": """Time from probabilities and image to labels, including the lattice; memory is the increase of the
process's peak.""",
}

Row = dict[str, str]


def read(name: str) -> list[Row]:
    file = RESULTS / f"{name}.csv"
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def shown(text: str) -> str:
    """A number as the page shows it: 19360.0 is 19,360."""
    return f"{float(text):,.0f}" if abs(float(text)) >= 1000 else f"{float(text):.4g}"


def spread(row: Row) -> str:
    q1, median, q3 = (shown(row[name]) for name in ("q1", "median", "q3"))
    return f"{median} {row['unit']}" + ("" if row["turns"] == "1" else f" ({q1} to {q3})")


def judged(goal: str, value: str) -> str:
    """A goal, such as ">= 2", and whether it is met."""
    if not goal:
        return ""
    sign, bound = goal.split()
    met = float(value) >= float(bound) if sign == ">=" else float(value) <= float(bound)
    return f"{goal}: {'met' if met else 'missed'}"


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
        cells = [
            row["work"],
            spread(mine[row["work"]]),
            row["program"],
            spread(row),
            shown(row["ratio"]),
            judged(row["goal"], row["ratio"]),
        ]
        lines.append("| " + " | ".join([*cells, row["note"]]) + " |")
    alone = [row for row in rows if row["program"] == OURS and row["work"] not in {peer["work"] for peer in peers}]
    lines += [
        f"| {row['work']} | {spread(row)} | | | | {judged(row['goal'], row['median'])} | {row['note']} |"
        for row in alone
    ]
    return lines


def listed(rows: list[Row], last: str) -> list[str]:
    lines = [f"| work | wildcat | {last} |", "|---|---|---|"]
    for row in rows:
        what = judged(row["goal"], row["median"]) if last == "goal" else row["ratio"].removeprefix("growth ")
        lines.append(f"| {row['work']} | {spread(row)} | {what} |")
    return lines


def refined(rows: list[Row]) -> list[str]:
    """The benchmark of the CRF has columns of its own."""
    lines = [
        "| settings | labels | wildcat | pydensecrf2 | faster | equal labels | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        times = [f"{shown(row[f'{name}_ms_median'])} ms" for name in ("wildcat", "pydensecrf2")]
        equal, memory = f"{100 * float(row['equal_labels_min']):.2f} %", f"{shown(row['wildcat_memory_mb'])} MB"
        cells = [row["preset"], row["labels"], *times, shown(row["wildcat_ratio"]), equal, memory]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def page() -> str:
    parts = [HEAD]
    for name, title in TITLES.items():
        rows = read(name)
        if not rows:
            continue
        kinds = {"startup": lambda r: listed(r, "goal"), "growth": lambda r: listed(r, "growth"), "crf": refined}
        table = kinds.get(name, compared)
        image = [f"![growth](images/{PLOT.name})", ""] if name == "growth" else []
        note = ["", NOTES[name]] if name in NOTES else []
        parts.append("\n".join([f"## {title}", "", machine(rows[0]), "", *image, *table(rows), *note]) + "\n")
    return "\n".join(parts)


def plot(rows: list[Row]) -> None:
    """Cost against the number of images, classes, maps and pixels."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "wildcat"
    from matplotlib import pyplot

    panels = {
        "images": "ms each, without the network",
        "classes": "ms an image, training",
        "maps per class": "ms an image, training",
        "px": "ms an image, prediction",
    }
    figure, axes = pyplot.subplots(1, len(panels), figsize=(12, 2.8), layout="constrained")
    for axis, (what, unit) in zip(axes, panels.items(), strict=True):
        matches = [(re.fullmatch(rf"(\d+) {what}", row["work"]), float(row["median"])) for row in rows]
        points = [(int(match[1]), value) for match, value in matches if match]
        axis.plot(*zip(*points, strict=True), "o-", color="#164c92")
        axis.set(xlabel="side of the input, px" if what == "px" else what, ylabel=unit, ylim=(0, None))
        if what in ("images", "classes"):
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
