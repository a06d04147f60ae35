"""Curves as PNG and SVG."""

import io
import statistics
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wildcat.checkpoint import write_atomically
from wildcat.reproduce.tables import data_name, score_names, scores

BLUE, GREY = "#0b62a4", "#8a8f98"


def save(figure: Any, file: Path) -> list[Path]:
    """Write a matplotlib figure as file.png and file.svg; the same figure gives the same bytes."""
    import matplotlib

    written = []
    for suffix in (".png", ".svg"):
        buffer = io.BytesIO()
        with matplotlib.rc_context({"svg.hashsalt": "wildcat", "svg.fonttype": "none"}):
            metadata = {"Date": None} if suffix == ".svg" else {}
            figure.savefig(buffer, format=suffix[1:], dpi=150, metadata=metadata)
        written.append(file.with_suffix(suffix))
        write_atomically(written[-1], buffer.getvalue())
    return written


def curve(values: Mapping[str, Any], file: Path) -> list[Path]:
    """The curve of a record with an axis, one panel a score: mean, deviation and every seed.

    Returns:
        The files written; none where no point is measured yet.
    """
    from matplotlib.figure import Figure

    names = score_names(values)
    if not names:
        return []
    figure = Figure(figsize=(5.2 * len(names), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        points = [(row["x"], scores(row, name)) for row in values["rows"] if scores(row, name)]
        x = [place for place, _ in points]
        means = [statistics.fmean(group) for _, group in points]
        for seed in sorted({run["seed"] for row in values["rows"] for run in row["runs"]}):
            line = [
                (row["x"], run["scores"][name]) for row in values["rows"] for run in row["runs"] if run["seed"] == seed
            ]
            axes.plot(*zip(*line, strict=True), color=GREY, linewidth=0.8, marker=".", label=f"seed {seed}", zorder=2)
        deviations = [statistics.stdev(group) if len(group) > 1 else 0.0 for _, group in points]
        axes.errorbar(x, means, deviations, color=BLUE, marker="o", capsize=3, label="mean ± deviation", zorder=3)
        axes.set(xlabel=values["axis"], ylabel=f"{name}, per cent", xticks=[row["x"] for row in values["rows"]])
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    recipe = values["recipe"]
    figure.suptitle(
        f"{values['title']}\n{data_name(values['data'])} {values['split']}, "
        f"{recipe['backbone']}, {recipe['image_size']} px",
        fontsize=10,
    )
    return save(figure, file)
