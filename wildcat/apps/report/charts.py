"""Charts as inline SVG: sharp at any size, in the colours of the page, without scripts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from markupsafe import Markup, escape


@dataclass(frozen=True)
class Line:
    """One line of a chart: a name, and a value for each step from 1; NaN for a missing value."""

    name: str
    values: Sequence[float]


_WIDTH, _HEIGHT = 460, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 92, 14, 34  # margins; the right one holds the names of the lines


def line_chart(title: str, unit: str, lines: Sequence[Line]) -> Markup:
    """A chart of values over epochs, with the name of each line at its end.

    Args:
        title: what the chart shows, for screen readers.
        unit: of the values, for captions.
        lines: lines of equal length; those without any value are left out.
    """
    lines = [line for line in lines if np.isfinite(line.values).any()]
    steps = max((len(line.values) for line in lines), default=1)
    known = [v for line in lines for v in line.values if math.isfinite(v)] or [0.0]
    ticks = nice_ticks(min(known), max(known))
    low, high = ticks[0], ticks[-1]

    def x(step: int) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((step - 1) / (steps - 1) if steps > 1 else 0.5)

    def y(value: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (value - low) / (high - low))

    parts = []
    for tick in ticks:
        parts.append(
            _svg('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', _LEFT, _WIDTH - _RIGHT, y(tick), y(tick))
        )
        parts.append(
            _svg('<text class="tick" x="{}" y="{}" text-anchor="end">{}</text>', _LEFT - 8, y(tick) + 4, _short(tick))
        )
    for step in whole_ticks(steps):
        place = _HEIGHT - _BOTTOM + 18
        parts.append(_svg('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>', x(step), place, str(step)))
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(_svg('<text class="tick" x="{}" y="{}" text-anchor="middle">epoch</text>', middle, _HEIGHT - 2))
    taken: list[float] = []
    for number, line in enumerate(lines):
        spots = [(x(i), y(v), v, i) for i, v in enumerate(line.values, start=1) if math.isfinite(v)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _, _ in spots)
        parts.append(_svg('<polyline class="line l{}" points="{}"/>', str(number % 4), path))
        for px, py, value, step in spots:
            caption = f"{line.name}, epoch {step}: {value:.4g} {unit}"
            parts.append(
                _svg(
                    '<circle class="dot l{}" cx="{}" cy="{}" r="3"><title>{}</title></circle>',
                    str(number % 4),
                    px,
                    py,
                    caption,
                )
            )
        end = spots[-1][1]
        while any(abs(end - other) < 14 for other in taken):
            end -= 14
        taken.append(end)
        parts.append(
            _svg(
                '<text class="name l{}" x="{}" y="{}">{}</text>', str(number % 4), spots[-1][0] + 9, end + 4, line.name
            )
        )
    caption = f"{title}: " + "; ".join(f"{line.name} ends at {_last(line.values):.4g} {unit}" for line in lines)
    return _chart(_WIDTH, _HEIGHT, caption, parts)


def precision_recall_panel(
    name: str, recall: npt.NDArray[np.float64], precision: npt.NDArray[np.float64], caption: str
) -> Markup:
    """A small square chart of the precision-recall curve of one class; both axes go from 0 to 1.

    Args:
        name: of the class.
        recall: (n,) in increasing order.
        precision: (n,) the envelope of the precision at each recall.
        caption: the average precision as text, for screen readers.
    """
    side, pad = 120.0, 3.0
    scale = side - 2 * pad
    length = int(recall.argmax()) + 1 if len(recall) else 0  # the curve ends at the last true positive
    recall, precision = recall[:length], precision[:length]
    corners = [(0.0, float(precision[0]))] if length else []
    for r, p in zip(recall.tolist(), precision.tolist(), strict=True):
        corners += [(r, p)]
    bends = [
        c for i, c in enumerate(corners) if not 0 < i < len(corners) - 1 or _bends(corners[i - 1], c, corners[i + 1])
    ]
    path = " ".join(f"{pad + r * scale:.1f},{side - pad - p * scale:.1f}" for r, p in bends)
    parts = [_svg('<rect class="frame" x="{}" y="{}" width="{}" height="{}" rx="4"/>', pad, pad, scale, scale)]
    for share in (0.25, 0.5, 0.75):
        place = pad + share * scale
        parts.append(_svg('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', pad, side - pad, place, place))
        parts.append(_svg('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>', place, place, pad, side - pad))
    if bends:
        end = pad + bends[-1][0] * scale
        floor = side - pad
        parts.append(_svg('<polygon class="area" points="{} {},{} {},{}"/>', path, end, floor, pad, floor))
        parts.append(_svg('<polyline class="line l0" points="{}"/>', path))
    return _chart(int(side), int(side), f"Precision over recall of {name}: {caption}", parts)


def _bends(before: tuple[float, float], here: tuple[float, float], after: tuple[float, float]) -> bool:
    """Whether a point is a corner: not on one horizontal or vertical line with both neighbours."""
    return not (before[1] == here[1] == after[1] or before[0] == here[0] == after[0])


def nice_ticks(low: float, high: float) -> list[float]:
    """Three to six round values whose range includes the given one.

    >>> nice_ticks(0.03, 0.22)
    [0.0, 0.05, 0.1, 0.15, 0.2, 0.25]
    """
    if high - low < 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def whole_ticks(steps: int) -> list[int]:
    """The epochs labelled on the axis: at most six, including the last."""
    stride = max(1, math.ceil((steps - 1) / 5))
    return [*(t for t in range(1, steps, stride) if steps - t >= 0.75 * stride), steps]


def _last(values: Sequence[float]) -> float:
    return next(v for v in reversed(values) if math.isfinite(v))


def _short(value: float) -> str:
    return f"{value:.4g}"


def _svg(pattern: str, *values: float | str) -> Markup:
    """A piece of SVG: numbers to a tenth, text escaped."""
    return Markup(pattern).format(*(v if isinstance(v, str) else Markup(f"{v:.1f}") for v in values))


def _chart(width: int, height: int, caption: str, parts: Sequence[Markup]) -> Markup:
    head = f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(caption)}">'
    return Markup(head) + Markup("").join(parts) + Markup("</svg>")
