"""What a series owes to its own past, and what is left of it: shocks that remember nothing.

Rows are instants. A series is NaN where it was not seen, and keeps its places.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log

import numpy as np
from scipy.signal import lfilter

from undertow.econometrics.checks import FloatColumn, FloatMatrix

_MOST_ORDER = 10  # of the autoregression


@dataclass(frozen=True, slots=True, eq=False)
class Whitened:
    """A series as its own past and shocks make it."""

    shocks: FloatColumn  # (time,): NaN where not seen, and at the first rows, as many as the order
    slope: FloatColumn  # (order,): of the step before, the one before it, ...
    start: FloatColumn  # (order,): the first rows, less the mean
    mean: float

    @property
    def order(self) -> int:
        """How many steps it remembers."""
        return len(self.slope)

    def rebuilt(self, shocks: FloatColumn) -> FloatColumn:
        """The series that other shocks would have made, none missing, around a mean of 0.

        Time is the last axis; there may be many at once.
        """
        if not self.order:
            return shocks
        made: FloatColumn = lfilter([1.0], np.concatenate([[1.0], -self.slope]), shocks)
        return made


def whitened(x: FloatColumn) -> Whitened:
    """The autoregression of the order that Schwarz's criterion prefers, and its residual.

    A value that is missing counts as the mean where it would explain one that is not.
    """
    seen = ~np.isnan(x)
    known = int(seen.sum())
    highest = min(_MOST_ORDER, ceil(10 * np.log10(known)), known // 8, len(x) // 8)
    mean = float(x[seen].mean())
    centred = np.where(seen, x - mean, 0.0)
    past = np.zeros((len(x), highest))
    for k in range(1, highest + 1):
        past[k:, k - 1] = centred[:-k]
    judged = seen & (np.arange(len(x)) >= highest)
    goal, rows = centred[judged], int(judged.sum())
    best, order = rows * log(max(float(goal @ goal) / rows, 1e-300)), 0
    for k in range(1, highest + 1):
        left = goal - past[judged, :k] @ _solved(past[judged, :k], goal)
        bits = rows * log(max(float(left @ left) / rows, 1e-300)) + k * log(rows)
        if bits < best:
            best, order = bits, k
    fitted = seen & (np.arange(len(x)) >= order)
    shocks, slope = np.where(fitted, centred, np.nan), np.empty(0)
    if order:
        slope = _solved(past[fitted, :order], centred[fitted])
        shocks[fitted] -= past[fitted, :order] @ slope
    return Whitened(shocks, slope, centred[:order], mean)


def _solved(x: FloatMatrix, y: FloatColumn) -> FloatColumn:
    return np.asarray(np.linalg.lstsq(x, y, rcond=None)[0], dtype=np.float64)
