"""What every estimator asks of its input, and what it says of a series that it cannot use.

Rows are instants, oldest first; columns are series. NaN is a value that was not observed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from undertow.errors import EstimationError

FloatColumn = NDArray[np.float64]
FloatMatrix = NDArray[np.float64]
BoolColumn = NDArray[np.bool_]

_FLAT = 1e-12  # of a series' own size: less spread than this is rounding
_NEAR = 1e-10  # of 1: what a correlation of doubles may lack
_SHARED = 0.5  # of the values of the one seen less: a copy is one at the rows that both were seen


Array = TypeVar("Array", bound=NDArray[Any])
Choice = TypeVar("Choice", bound=StrEnum)


def frozen(array: Array) -> Array:
    """The array itself, which nobody else holds yet, closed to writing."""
    array.flags.writeable = False
    return array


def matrix(
    name: str, values: Any, *, rows: int = 2, columns: int = 1, missing: bool = False
) -> FloatMatrix:
    """`values` as a (time, series) matrix of doubles, contiguous.

    Raises
    ------
    EstimationError
        When it is no such matrix, is too small, holds an infinite value, or holds NaN where
        nothing may be `missing`.
    """
    try:
        x = np.ascontiguousarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise EstimationError(f"{name} is no matrix of numbers: {error}") from error
    if x.ndim != 2:
        raise EstimationError(
            f"{name} has {x.ndim} dimensions", hint="give (time, series), one column a series"
        )
    if x.shape[0] < rows or x.shape[1] < columns:
        raise EstimationError(
            f"{name} is {x.shape[0]} rows by {x.shape[1]} columns; at least {rows} by {columns} "
            "are needed"
        )
    _refuse(name, np.isinf(x), "is infinite", "leave out what was not observed, as NaN")
    if not missing:
        _refuse(name, np.isnan(x), "is missing", "drop or fill it first; see `screen`")
    return x


def series(name: str, values: Any, *, rows: int = 2, missing: bool = False) -> FloatColumn:
    """`values` as one series of doubles; raises as `matrix` does."""
    x = np.asarray(values)
    if x.ndim != 1:
        raise EstimationError(f"{name} has {x.ndim} dimensions", hint="give one series")
    return matrix(name, x[:, None], rows=rows, missing=missing)[:, 0]


def paired(left: str, a: ArrayLike, right: str, b: ArrayLike) -> tuple[FloatColumn, FloatColumn]:
    """Two series over the rows on which both were seen; there may be none.

    Raises
    ------
    EstimationError
        When they are no series of numbers or not of one length.
    """
    x, y = series(left, a, rows=0, missing=True), series(right, b, rows=0, missing=True)
    if len(x) != len(y):
        raise EstimationError(
            f"{left} has {len(x)} rows and {right} {len(y)}", hint="align them row by row"
        )
    both = ~(np.isnan(x) | np.isnan(y))
    return x[both], y[both]


def chosen(name: str, kind: type[Choice], value: Any) -> Choice:
    """`value`, or the word for it, as one of a closed set of choices; or raise."""
    try:
        return kind(value)
    except ValueError as error:
        words = ", ".join(kind)
        raise EstimationError(f"{name} was {value!r}; it may be {words}") from error


def within(name: str, value: float, low: float, high: float, *, closed: bool = False) -> None:
    """Refuse a number outside (low, high), or outside [low, high] where that is `closed`.

    Raises
    ------
    EstimationError
        When it lies outside, or is no number.
    """
    inside = low <= value <= high if closed else low < value < high
    if not inside:
        left, right = ("[", "]") if closed else ("(", ")")
        raise EstimationError(
            f"{name} was {value:g}; it must lie in {left}{low:g}, {high:g}{right}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """Which series can be used, and of each that cannot, why."""

    keep: BoolColumn  # (series,)
    reasons: tuple[str, ...]  # (series,): empty where kept

    def dropped(self) -> dict[int, str]:
        """Why each series was left out, by column."""
        return {j: reason for j, reason in enumerate(self.reasons) if reason}


def screen(
    values: Any, *, least: int, gaps: float = 0.2, late: float = 0.5, name: str = "x"
) -> Verdict:
    """Judge series one by one, in the order of their columns.

    A series is left out when fewer than `least` values were seen, when it starts after the share
    `late` of the rows, when more than the share `gaps` is missing after its first value, when it
    is constant, or when it repeats an earlier one: the same but for scale and origin, wherever
    both were seen.
    """
    x = matrix(name, values, rows=1, missing=True)
    seen = ~np.isnan(x)
    reasons = [_alone(x[:, j], seen[:, j], least, gaps, late) for j in range(x.shape[1])]
    for j in range(x.shape[1]):
        twin = next((i for i in range(j) if not reasons[i] and _twins(x[:, i], x[:, j])), None)
        if not reasons[j] and twin is not None:
            reasons[j] = f"a copy of column {twin}"
    keep = np.array([not reason for reason in reasons], dtype=np.bool_)
    return Verdict(frozen(keep), tuple(reasons))


def _alone(x: FloatColumn, seen: BoolColumn, least: int, gaps: float, late: float) -> str:
    count, rows = int(seen.sum()), len(x)
    if count == 0:
        return "no value was seen"
    first = int(np.argmax(seen))
    if count < least:
        return f"too short: {count} values, {least} are needed"
    if first > late * rows:
        return f"starts late: at row {first} of {rows}"
    holes = 1.0 - count / (rows - first)
    if holes > gaps:
        return f"gappy: {holes:.0%} missing after its start"
    kept = x[seen]
    if float(np.ptp(kept)) <= _FLAT * float(np.abs(kept).max()):
        return "constant"
    return ""


def _twins(a: FloatColumn, b: FloatColumn) -> bool:
    one, other = ~np.isnan(a), ~np.isnan(b)
    both = one & other
    if both.sum() < max(3.0, _SHARED * min(one.sum(), other.sum())):
        return False
    u, v = a[both] - a[both].mean(), b[both] - b[both].mean()
    size = float(np.sqrt((u @ u) * (v @ v)))
    return size > 0.0 and abs(float(u @ v)) >= (1.0 - _NEAR) * size


def _refuse(name: str, bad: NDArray[np.bool_], what: str, hint: str) -> None:
    if bad.any():
        row, column = (int(place[0]) for place in np.nonzero(bad))
        raise EstimationError(f"{name} at row {row} of column {column} {what}", hint=hint)
