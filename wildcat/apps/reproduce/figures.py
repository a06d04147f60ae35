"""Figures of the paper as PNG and SVG: curves, and the maps of a class."""

import io
import itertools
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wildcat import render
from wildcat.apps.reproduce.tables import data_name, score_names, scores
from wildcat.data.registry import default_splits, open_dataset
from wildcat.errors import WildcatError
from wildcat.metrics.metric_table import metric_named
from wildcat.prediction.items import dataset_items
from wildcat.prediction.loading import load
from wildcat.prediction.result import Labels
from wildcat.runs.folder import read_run
from wildcat.system.files import write_atomically

BLUE, GREY = "#0b62a4", "#8a8f98"
IMAGES = 4  # rows of Figure 6


def save(figure: Any, file: Path) -> list[Path]:
    """Write a matplotlib figure as file.png and file.svg; equal figures give equal bytes."""
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
    """Draw the curve of a record, one panel per metric: mean, deviation and every seed.

    Args:
        values: the record of an experiment whose rows have a place ``x`` on the axis.
        file: where to write, without suffix.

    Returns:
        The files written; none if no point is measured yet.
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
        measured = [(row["x"], run) for row in values["rows"] for run in row["runs"] if name in run["scores"]]
        for seed in sorted({run["seed"] for _, run in measured}):
            line = [(place, run["scores"][name]) for place, run in measured if run["seed"] == seed]
            axes.plot(*zip(*line, strict=True), color=GREY, linewidth=0.8, marker=".", zorder=2)
        axes.lines[-1].set_label("each seed")
        deviations = [statistics.stdev(group) if len(group) > 1 else 0.0 for _, group in points]
        axes.errorbar(x, means, deviations, color=BLUE, marker="o", capsize=3, label="mean ± deviation", zorder=3)
        with_fixed = [row for row in values["rows"] if "fixed_runs" in row]
        at_fixed = [(row["x"], scores({"runs": row["fixed_runs"]}, name)) for row in with_fixed]
        if fixed := [(place, statistics.fmean(group)) for place, group in at_fixed if group]:
            label = f"all at rate {values['frozen']['fixed_rate']:g}"
            axes.plot(*zip(*fixed, strict=True), color=BLUE, linestyle="--", label=label, zorder=3)
        axes.set(xlabel="alpha", ylabel=f"{metric_named(name).name} (%)", xticks=[row["x"] for row in values["rows"]])
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


def most_different(maps: npt.NDArray[np.float32]) -> tuple[int, int, float]:
    """The two of M >= 2 maps (M, h, w) whose correlation over the cells is lowest, and that correlation.

    A constant map correlates with none.

    >>> most_different(np.array([[[0, 1]], [[0, 2]], [[3, 0]]], dtype=np.float32))
    (0, 2, -1.0)
    """
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    flat -= flat.mean(axis=1, keepdims=True)
    norms = np.sqrt((flat**2).sum(axis=1))
    flat /= np.where(norms > 0, norms, 1)[:, None]
    pairs = itertools.combinations(range(len(maps)), 2)
    correlation, first, second = min((float(flat[i] @ flat[j]), i, j) for i, j in pairs)
    return first, second, round(correlation, 6)


def _named(mask: Labels, classes: Sequence[str]) -> str:
    """The names of the two largest classes of a mask."""
    labels, counts = np.unique(mask[(mask > 0) & (mask < 255)], return_counts=True)
    names = [classes[int(label) - 1] for label in labels[np.argsort(-counts, kind="stable")]]
    return ", ".join([*names[:2], *(["…"] if len(names) > 2 else [])]) or "nothing"


def maps(run: Path, file: Path) -> list[Path]:
    """Draw Figure 6 for a run with at least two maps per class.

    A row shows an image, its true mask, the two most different maps of a class, and the predicted mask. The images are
    evenly spaced over those with a mask; the class is the one that covers the largest part of the true mask.

    Args:
        run: the run directory.
        file: where to write, without suffix.

    Returns:
        The files written.

    Raises:
        WildcatError: if no image has a mask with an object in it.
    """
    from matplotlib.figure import Figure

    config = read_run(run).config
    dataset = open_dataset(config.data, default_splits(config.data)[1])
    truths = ((index, dataset.mask(index)) for index in range(len(dataset)))
    masks = [(index, mask) for index, mask in truths if mask is not None and ((mask > 0) & (mask < 255)).any()]
    if not masks:
        raise WildcatError(f"figure6 needs images with masks; {config.data} {dataset.split} has none")
    masks = [masks[i] for i in np.linspace(0, len(masks) - 1, min(IMAGES, len(masks))).round().astype(int)]

    figure = Figure(figsize=(11, 2.4 * len(masks)), layout="constrained")
    grid = figure.subplots(len(masks), 5, squeeze=False)
    predictions = load(run).stream(dataset_items(dataset.subset([index for index, _ in masks])))
    for axes, (_, truth), prediction in zip(grid, masks, predictions, strict=True):
        labels, counts = np.unique(truth[(truth > 0) & (truth < 255)], return_counts=True)
        name = dataset.classes[chosen := int(labels[counts.argmax()]) - 1]
        assert prediction.multi_maps is not None  # `stream` keeps them by default
        own = prediction.only([chosen]).multi_maps
        assert own is not None
        first, second, correlation = most_different(own)
        mask = prediction.mask()
        image, palette = prediction.image, render.voc_palette()
        shown = {
            Path(prediction.name).stem: image,
            f"true: {_named(truth, dataset.classes)}": palette[truth],
            f"{name}, map {first + 1}": render.heatmap_overlay(image, own[first]),
            f"{name}, map {second + 1} (r = {correlation:.2f})": render.heatmap_overlay(image, own[second]),
            f"predicted: {_named(mask, dataset.classes)}": palette[mask],
        }
        for panel, (title, content) in zip(axes, shown.items(), strict=True):
            panel.imshow(np.asarray(content))
            panel.set_title(title, fontsize=9)
            panel.axis("off")
    return save(figure, file)
