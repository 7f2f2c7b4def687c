"""All pairs of nodes at once, over the steps at which they move far, or the market is loud.

Rows are steps, columns nodes; growth, a fall negative, NaN where not seen. A statistic is a mean
over pairs or nodes, fast enough to be drawn again a few hundred times for its band.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from undertow.econometrics.checks import BoolColumn, FloatColumn, FloatMatrix
from undertow.econometrics.contagion import forbes_rigobon
from undertow.econometrics.exceedances import normal_exceedance

THRESHOLDS = (0.0, 0.5, 1.0, 1.5)  # standard deviations
MEMORY = 20.0  # steps over which a return's weight in the volatility of the market halves

_LEAST = 5  # joint exceedances of a pair
_GRID = np.linspace(-0.9, 0.999, 64)  # correlations between which the normal law is interpolated
_NORMAL = [
    np.array([normal_exceedance(float(rho), cut).correlation for rho in _GRID])
    for cut in THRESHOLDS
]


def exceedance_shape(x: FloatMatrix) -> FloatColumn:
    """Mean exceedance correlation over pairs, by threshold: falls, rises, and the normal law.

    All three over the same pairs, those that fall and rise so far together often enough: else a
    difference of two of them would be one between pairs.
    """
    z = standardised(x)
    rho = above_diagonal(_correlation(z, ~np.isnan(z)))
    told = np.full((3, len(THRESHOLDS)), np.nan)
    for k, cut in enumerate(THRESHOLDS):
        falls, rises = (exceedance(side, cut)[0] for side in (-z, z))
        each = np.stack([falls, rises, np.interp(rho, _GRID, _NORMAL[k])])
        both = ~np.isnan(each).any(axis=0)
        if both.any():
            told[:, k] = each[:, both].mean(axis=1)
    return told.ravel()


def standardised(x: FloatMatrix) -> FloatMatrix:
    """Each node over its own mean and deviation."""
    return np.asarray((x - np.nanmean(x, axis=0)) / np.nanstd(x, axis=0, ddof=1))


def exceedance(z: FloatMatrix, cut: float) -> tuple[FloatColumn, FloatColumn]:
    """Correlation of every pair over the steps with both above the cut, and how many those are."""
    beyond = z > cut
    counts = above_diagonal(beyond.T.astype(np.float64) @ beyond)
    rho = above_diagonal(_correlation(z, beyond))
    return np.where(counts >= _LEAST, rho, np.nan), counts


def _correlation(z: FloatMatrix, inside: NDArray[np.bool_]) -> FloatMatrix:
    """Correlation of every pair over the steps where both are `inside`; NaN without spread."""
    mark = inside.astype(np.float64)
    value = np.where(inside, z, 0.0)
    count = np.maximum(mark.T @ mark, 1.0)
    mean = value.T @ mark / count  # of the row's node, over the steps shared with the column's
    spread = np.maximum((value * value).T @ mark / count - mean * mean, 0.0)
    size = np.sqrt(spread * spread.T)
    cross = value.T @ value / count - mean * mean.T
    rho: FloatMatrix = np.divide(cross, size, out=np.full(size.shape, np.nan), where=size > 1e-12)
    return rho


def above_diagonal(square: NDArray[Any]) -> FloatColumn:
    """The entries above the diagonal, row by row."""
    return np.asarray(square[np.triu_indices(len(square), 1)], dtype=np.float64)


def mean_of(values: FloatColumn) -> float:
    """The mean of what is there; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else np.nan


def worst(x: FloatMatrix, share: float) -> FloatMatrix:
    """1 at the worst steps of each node, 0 elsewhere, NaN where it was not seen."""
    mark = (x <= np.nanquantile(x, share, axis=0)).astype(np.float64)
    return np.where(np.isnan(x), np.nan, mark)


def tail_shares(x: FloatMatrix, share: float) -> FloatMatrix:
    """Of the worst steps of two nodes, how many are the same; (nodes, nodes)."""
    mark = np.nan_to_num(worst(x, share))
    each = mark.sum(axis=0)
    return np.asarray(2.0 * (mark.T @ mark) / np.maximum(each[:, None] + each, 1.0))


def rest(x: FloatMatrix) -> FloatMatrix:
    """For each node the mean of all others, each over its own deviation; NaN where none is seen."""
    unit = x / np.nanstd(x, axis=0)
    there = ~np.isnan(unit)
    filled = np.where(there, unit, 0.0)
    others = there.sum(axis=1, keepdims=True) - there
    total = filled.sum(axis=1, keepdims=True) - filled
    mean: FloatMatrix = np.divide(total, others, out=np.full(x.shape, np.nan), where=others > 0)
    return mean


def equal_market(moves: FloatMatrix) -> FloatColumn:
    """The mean return of all assets seen at each step; 0 where none was."""
    there = ~np.isnan(moves)
    total = np.where(there, moves, 0.0).sum(axis=1)
    return np.asarray(total / np.maximum(there.sum(axis=1), 1))


def stress(moves: FloatMatrix, share: float) -> tuple[BoolColumn, BoolColumn]:
    """Steps before which the market was loudest, that `share` of them, and all other steps.

    Loud is a mean square of the market's returns whose weights halve every `MEMORY` steps, up to
    the step before; the first `MEMORY` steps are neither.
    """
    market = equal_market(moves)
    keep, level, known = 2.0 ** (-1.0 / MEMORY), float(market[0] ** 2), np.full(len(market), np.nan)
    for t in range(1, len(market)):
        known[t] = level
        level = keep * level + (1.0 - keep) * float(market[t]) ** 2
    known[: int(MEMORY)] = np.nan  # too little was seen to call it loud or quiet
    told = known[~np.isnan(known)]
    line = float(np.quantile(told, 1.0 - share)) if told.size else np.inf
    return known > line, known <= line


def stress_shift(rows: FloatMatrix) -> float:
    """Mean over nodes of the stressed correlation, adjusted for larger shocks, less the calm one.

    Columns: nodes, for each its `rest`, and last whether a step is stressed and whether calm.
    """
    nodes = (rows.shape[1] - 2) // 2
    x, others = rows[:, :nodes], rows[:, nodes : 2 * nodes]
    loud, quiet = rows[:, -2] > 0.0, rows[:, -1] > 0.0
    moved = np.full(nodes, np.nan)
    for j in range(nodes):
        source, target = others[:, j], x[:, j]
        test = forbes_rigobon(source[quiet], target[quiet], source[loud], target[loud])
        moved[j] = test.rho_adjusted - test.rho_calm
    return mean_of(moved)
