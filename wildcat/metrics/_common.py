"""What the three metrics share: arrays from any input, the base of their results, and aligned text tables."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from wildcat.errors import WildcatError

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
Entry = TypeVar("Entry")


class PerClassResult(ABC):
    """The base of the results of all metrics: a value for each of C classes, and what is made of them.

    A subclass is a frozen dataclass of counts and proportions in [0, 1]; NaN is a proportion that is not defined.

    Attributes:
        classes: C names.
    """

    classes: tuple[str, ...]

    @abstractmethod
    def scores(self) -> Any:
        """The typed section of :mod:`wildcat.metrics.scores`, in per cent."""

    @abstractmethod
    def _columns(self) -> dict[str, npt.NDArray[Any]]:
        """Heading -> (C,) values of the printed table."""

    @abstractmethod
    def _totals(self) -> list[tuple[object, ...]]:
        """Rows below those of the classes: name, then a value for each column."""

    @abstractmethod
    def _notes(self) -> list[str]:
        """Lines below the table."""

    def to_dict(self) -> dict[str, Any]:
        """The section of results.json: plain values, scores in per cent, None where a score is not defined."""
        values: dict[str, Any] = self.scores().to_dict()
        return values

    def table(self) -> str:
        """An aligned table: one line per class, then the totals; proportions in per cent."""
        columns = self._columns()
        rows: list[Sequence[object]] = list(zip(self.classes, *columns.values(), strict=True))
        return format_table(("class", *columns), [*rows, *self._totals()], self._notes())

    def _names_where(self, chosen: BoolArray) -> tuple[str, ...]:
        """Names of the classes chosen by (C,) booleans."""
        return tuple(name for name, is_chosen in zip(self.classes, chosen, strict=True) if is_chosen)

    def _per_class(self, entry: Callable[..., Entry], **columns: npt.NDArray[Any]) -> dict[str, Entry]:
        """Class name -> ``entry(**values)`` with the class's value of each (C,) column."""
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return {
            name: entry(**dict(zip(columns, row, strict=True))) for name, row in zip(self.classes, rows, strict=True)
        }


def to_numpy(values: Any) -> npt.NDArray[Any]:
    """Lists, arrays and tensors (any device, with or without gradient) as an array that may share memory with them.

    Tensors are known by their `detach` method, so that torch is not imported here.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        if values.is_floating_point():
            values = values.double()  # numpy has no bfloat16; float64 holds every half and single exactly
        return np.asarray(values.numpy())
    return np.asarray(values)


def to_float(values: Any) -> FloatArray:
    """As `to_numpy`, in float64: exact for halves and singles, so equal scores stay equal."""
    return to_numpy(values).astype(np.float64, copy=False)


def check_classes(classes: Sequence[str], count: int) -> tuple[str, ...]:
    """The names as a tuple; they must be `count` different ones, because results are written by name."""
    names = tuple(classes)
    if len(names) != count:
        raise ValueError(f"{len(names)} class names were given for {count} classes")
    if len(set(names)) != len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"class names must differ, but these occur twice: {', '.join(repeated)}")
    return names


def check_finite(values: npt.NDArray[Any], what: str, classes: Sequence[str] | None) -> None:
    """Every number of `values` (N,) or (N, C, ...) must be finite; the error names the first bad row and its class."""
    bad = ~np.isfinite(values)
    if bad.any():
        row, *rest = np.argwhere(bad)[0].tolist()
        of_class = ""
        if rest:
            of_class = f" of class {classes[rest[0]]!r}" if classes is not None else f" of class number {rest[0]}"
        raise WildcatError(
            f"the {what}{of_class} in row {row} is {values[bad][0]} ({int(bad.sum())} such values in all); "
            f"every {what} must be finite"
        )


def mean_defined(values: FloatArray) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def format_cell(value: object) -> str:
    """Floats are proportions, shown as per cent with one decimal and NaN as a dash; everything else as it prints."""
    if isinstance(value, float):
        return "-" if np.isnan(value) else f"{100.0 * value:.1f}"
    return str(value)


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]], notes: Sequence[str] = ()) -> str:
    """Aligned text: the first column to the left, numbers to the right, notes below."""
    cells = [list(header)] + [[format_cell(value) for value in row] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(header))]
    lines = []
    for line in cells:
        numbers = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        lines.append("  ".join([line[0].ljust(widths[0]), *numbers]).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *notes])
