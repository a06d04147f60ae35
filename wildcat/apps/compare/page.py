"""One HTML page about a comparison of runs: a single file that needs no network."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path

from markupsafe import Markup, escape
from PIL import Image

from wildcat import render
from wildcat.apps import report
from wildcat.data import Dataset
from wildcat.evaluation.comparison import Comparison

_SIDE = 220  # longer side of an image of the page, in pixels
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: 6px 10px; vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; } tr { border-bottom: 1px solid var(--line); }
.bar { display: block; height: 6px; background: var(--accent); border-radius: 3px; }
.run-1 .bar { background: var(--accent-2); } .run-2 .bar { background: var(--accent-3); }
"""


def comparison_page(comparison: Comparison, images: Dataset) -> str:
    """The page: metrics with intervals and paired differences, classes, and the images of most disagreement.

    Args:
        comparison: of :func:`wildcat.apps.compare.compare_runs`.
        images: the images that were compared.
    """
    css = (Path(report.__file__).parent / "page.css").read_text(encoding="utf-8")
    title = " and ".join(comparison.runs)
    body = [
        _html("<header><h1>{}</h1><p class='lead'>{}</p></header><main id='main'>", title, _lead(comparison)),
        *(_html("<p class='note'>{}</p>", note) for note in comparison.notes),
        _metrics(comparison),
        _classes(comparison),
        _disagreements(comparison, images),
        Markup("</main>"),
    ]
    head = _html(
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, '
        'initial-scale=1"><meta http-equiv="Content-Security-Policy" content="{}"><meta name="color-scheme" '
        'content="light dark"><title>{} · wildcat compare</title>',
        _POLICY,
        title,
    )
    return f"{head}<style>{css}{_STYLE}</style></head><body>{''.join(body)}</body></html>\n"


def _html(text: str, *values: object) -> Markup:
    return Markup(text).format(*(value if isinstance(value, Markup) else escape(str(value)) for value in values))


def _lead(comparison: Comparison) -> str:
    return (
        f"{comparison.images:,} images of {comparison.data}. Intervals are those of 95 % over images; differences are "
        f"to {comparison.runs[0]}, on the same images."
    )


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.1f}"


def _metrics(comparison: Comparison) -> Markup:
    rows = []
    for metric in comparison.metrics:
        for index, run in enumerate(comparison.runs):
            low, high = metric.intervals[index]
            below, above = metric.difference_intervals[index]
            difference = (
                "" if index == 0 else f"{metric.differences[index]:+.1f} ({_number(below)} to {_number(above)})"
            )
            rows.append(
                _html(
                    "<tr><td>{}</td><td>{}</td><td class='n'>{}</td><td class='n'>{} to {}</td>"
                    "<td class='n'>{}</td></tr>",
                    metric.name,
                    run,
                    _number(metric.values[index]),
                    _number(low),
                    _number(high),
                    difference,
                )
            )
    head = "<tr><th>Metric<th>Run<th class='n'>%<th class='n'>interval<th class='n'>difference</tr>"
    return _html(
        "<section id='scores'><h2>Scores</h2><table>{}{}</table></section>", Markup(head), Markup("").join(rows)
    )


def _classes(comparison: Comparison) -> Markup:
    rows = []
    for name, values in comparison.per_class.items():
        cells = [
            _html("<td class='n run-{}'>{}{}</td>", index, _number(value), _bar(value))
            for index, value in enumerate(values)
        ]
        rows.append(_html("<tr><td>{}</td>{}</tr>", name, Markup("").join(cells)))
    head = Markup("").join(_html("<th class='n'>{}</th>", run) for run in comparison.runs)
    return _html(
        "<section id='classes'><h2>Classes</h2><table><tr><th>{} in %</th>{}</tr>{}</table></section>",
        comparison.class_metric,
        head,
        Markup("").join(rows),
    )


def _bar(value: float) -> Markup:
    width = 0 if math.isnan(value) else round(value)
    return _html("<span class='bar' style='width:{}%'></span>", width)


def _disagreements(comparison: Comparison, images: Dataset) -> Markup:
    index_of = {sample.name: index for index, sample in enumerate(images.samples)}
    figures = []
    for item in comparison.disagreements:
        truth = {True: "it is there", False: "it is not there", None: "not known"}[item.is_there]
        scores = ", ".join(f"{run} {100 * p:.0f} %" for run, p in zip(comparison.runs, item.probabilities, strict=True))
        figures.append(
            _html(
                "<figure><img src='{}' alt='{}' loading='lazy'><figcaption>{}: <b>{}</b> ({}): {}</figcaption>"
                "</figure>",
                _uri(images.image(index_of[item.image])),
                item.image,
                Path(item.image).name,
                item.label,
                truth,
                scores,
            )
        )
    return _html(
        "<section id='images'><h2>Images on which they disagree most</h2><div class='cards'>{}</div></section>",
        Markup("").join(figures),
    )


def _uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    render.scaled(image, _SIDE).save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
