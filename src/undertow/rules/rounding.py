"""Rounding as chains and venues do it, in floats that forgive their own last bits.

A contract divides integers and drops the rest; a float that should have been 100000 may arrive
as 100000.00000000001, and a plain ceiling would then charge one unit too many. What lies within
a billionth of a unit of a whole number counts as that number.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from undertow.state import FloatColumn

_SLACK = 1e-9  # of a unit
_LAST_BITS = 4.0 * float(np.finfo(np.float64).eps)


def _units(value: npt.ArrayLike, quantum: float) -> tuple[FloatColumn, FloatColumn]:
    units = np.asarray(value, dtype=np.float64) / quantum
    whole = np.round(units)
    slack = np.maximum(_SLACK, _LAST_BITS * np.abs(units))
    return units, np.where(np.abs(units - whole) <= slack, whole, np.nan)


def floor_to(value: npt.ArrayLike, quantum: float | None) -> FloatColumn:
    """Largest multiple of `quantum` that is not above the value; the value itself with None."""
    if quantum is None:
        return np.asarray(value, dtype=np.float64)
    units, whole = _units(value, quantum)
    rounded: FloatColumn = np.where(np.isnan(whole), np.floor(units), whole) * quantum
    return rounded


def ceil_to(value: npt.ArrayLike, quantum: float | None) -> FloatColumn:
    """Smallest multiple of `quantum` that is not under the value; the value itself with None."""
    if quantum is None:
        return np.asarray(value, dtype=np.float64)
    units, whole = _units(value, quantum)
    rounded: FloatColumn = np.where(np.isnan(whole), np.ceil(units), whole) * quantum
    return rounded


def below(value: float, limit: float) -> bool:
    """Whether a value is under a limit by more than its last bits: at the limit it is not."""
    return value < limit * (1.0 - _LAST_BITS)
