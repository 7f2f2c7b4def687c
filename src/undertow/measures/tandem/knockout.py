"""How far what drivers explain hangs on single nodes: explained again without each of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from scipy.special import stdtrit

from undertow.econometrics.dyads import attribute
from undertow.state import FloatColumn, FloatMatrix

Band = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Knockout:
    """Bands of shares of the variance over pairs."""

    r2: Band
    share: tuple[Band, ...]  # by driver


def knockout(excess: FloatMatrix, drivers: Any, r2: float, share: Any, level: float) -> Knockout:
    """Bands of R2 and of the share of each driver, by leaving out a node at a time (jackknife).

    Pairs share nodes, so nodes are what is left out; the band is laid on the scale of atanh of the
    root, on which shares keep inside 0 and 1, with as many degrees of freedom as nodes less one.

    References
    ----------
    Snijders and Borgatti (1999), "Non-parametric standard errors and tests for network statistics",
    Connections 22.
    """
    count, cube = len(excess), np.asarray(drivers)
    rng = np.random.default_rng(0)  # p-values are not used
    rows = []
    for k in range(count):
        kept = np.delete(np.arange(count), k)
        at = np.ix_(kept, kept)
        found = attribute(excess[at], cube[:, at[0], at[1]], rng=rng, reps=19)
        rows.append([found.r2, *found.share])
    left = np.array(rows)
    bands = [
        _around(float(value), column, level)
        for value, column in zip((r2, *share), left.T, strict=True)
    ]
    return Knockout(bands[0], tuple(bands[1:]))


def _around(value: float, left: FloatColumn, level: float) -> Band:
    if not np.isfinite(value) or not np.isfinite(left).all():
        return np.nan, np.nan
    nodes = len(left)
    scaled = _scaled(left)
    error = sqrt((nodes - 1) / nodes * float(((scaled - scaled.mean()) ** 2).sum()))
    reach = float(stdtrit(nodes - 1, 0.5 + 0.5 * level)) * error
    middle = float(_scaled(np.array([value]))[0])
    low, high = max(middle - reach, 0.0), middle + reach
    return float(np.tanh(low) ** 2), float(np.tanh(high) ** 2)


def _scaled(share: FloatColumn) -> FloatColumn:
    return np.asarray(np.arctanh(np.sqrt(np.clip(share, 0.0, 1.0 - 1e-12))))
