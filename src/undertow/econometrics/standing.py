"""Where the newest value of a series stands in its own past, and how sure that place is.

Rows are instants, oldest first; columns are series. NaN is a value that was not observed. A rank is
the share of the past that lies below, what ties counting half; the newest value is no part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri

from undertow.econometrics.bootstrap import band, block_lengths, stationary_indices
from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, matrix, within
from undertow.errors import EstimationError

LEAST = 60  # values of the past, those that repeat the one before counted once


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """Ranks of the newest values, and the mean of them."""

    rank: FloatColumn  # (series,): NaN where a reason stands
    low: FloatColumn
    high: FloatColumn
    whole: float  # mean over groups of the mean rank of each; NaN where nothing can be told
    whole_low: float
    whole_high: float
    seen: NDArray[np.int64]  # (series,): values of the past that are no repetition
    reasons: tuple[str, ...]  # (series,): empty where there is a rank
    block: float  # mean run of the bootstrap, in rows


def standing(
    x: ArrayLike,
    *,
    rng: np.random.Generator,
    groups: Sequence[int] | None = None,
    window: int | None = None,
    least: int = LEAST,
    level: float = 0.9,
    reps: int = 199,
) -> Standing:
    """Rank the last row of `x` among the rows before it, with bands from resampled pasts.

    Runs of past rows are drawn (stationary bootstrap, all series together): it says how ranks err
    together. How far each errs is Jeffreys' interval for as many independent values as the past is
    worth, since percentiles of the draws are too narrow, most of all near 0 and 1. `groups` are
    codes by series: a group counts once in the mean, whatever its size. `window` is how many rows
    of the past count; all of them unless given.

    Raises
    ------
    EstimationError
        When an option is impossible or a value is infinite.

    References
    ----------
    Politis and Romano (1994). Brown, Cai and DasGupta (2001), "Interval estimation for a binomial
    proportion", Statistical Science 16.
    """
    values = matrix("x", x, rows=1, missing=True)
    within("level", level, 0.0, 1.0)
    for name, value, lowest in (("least", least, 2), ("reps", reps, 19)):
        if value < lowest:
            raise EstimationError(f"{name} was {value}; at least {lowest} are needed")
    if window is not None and window < least:
        raise EstimationError(
            f"window was {window}; {least} values are the least of which a place is told"
        )
    past, now = _split(values, window)
    seen = fresh(past)
    reasons = tuple(
        _reason(past[:, j], float(now[j]), int(seen[j]), least) for j in range(len(now))
    )
    told = np.array([not each for each in reasons], dtype=np.bool_)
    size = len(now)
    rank, low, high = np.full((3, size), np.nan)
    group = np.arange(size) if groups is None else np.asarray(groups, dtype=np.int64)
    if group.shape != (size,):
        raise EstimationError(f"{len(group)} groups were given for {size} series")
    whole = whole_low = whole_high = np.nan
    block = 1.0
    if told.any():
        below = _below(past[:, told], now[told])
        rank[told] = np.nanmean(below, axis=0)
        block = min(block_lengths(past[:, told]).joint(), float(len(past)))
        drawn = _drawn(below, block, reps, rng)
        runs = _runs(past[:, told], rank[told], drawn)
        low[told], high[told] = _jeffreys(rank[told], runs, level)
        share = _weights(group[told])
        whole = float(rank[told] @ share)
        whole_low, whole_high = _mean_band(
            rank[told], low[told], high[told], drawn, share, level, rng
        )
    return Standing(
        frozen(rank), frozen(low), frozen(high), whole, whole_low, whole_high, frozen(seen),
        reasons, block,
    )  # fmt: skip


def ranks_at(
    x: ArrayLike, rows: Sequence[int], *, window: int | None = None, least: int = LEAST
) -> FloatMatrix:
    """(rows, series) What `standing` would have said at each of some rows, none later known.

    Raises
    ------
    EstimationError
        When a value is infinite.
    """
    values = matrix("x", x, rows=1, missing=True)
    out = np.full((len(rows), values.shape[1]), np.nan)
    for i, row in enumerate(rows):
        past, now = _split(values[: row + 1], window)
        seen = fresh(past)
        for j in range(len(now)):
            if not _reason(past[:, j], float(now[j]), int(seen[j]), least):
                out[i, j] = np.nanmean(_below(past[:, [j]], now[[j]]))
    return out


def fresh(past: FloatMatrix) -> NDArray[np.int64]:
    """How many values of each series are no repetition of the one before."""
    if not len(past):
        return np.zeros(past.shape[1], dtype=np.int64)
    known = ~np.isnan(past)
    first = known[:1]
    moved = known[1:] & (past[1:] != past[:-1])
    return np.asarray(np.vstack([first, moved]).sum(axis=0), dtype=np.int64)


def _split(values: FloatMatrix, window: int | None) -> tuple[FloatMatrix, FloatColumn]:
    past = values[:-1] if window is None else values[max(len(values) - 1 - window, 0) : -1]
    return past, values[-1]


def _reason(past: FloatColumn, now: float, seen: int, least: int) -> str:
    known = past[~np.isnan(past)]
    if np.isnan(now):
        return "not known now" if len(known) else "not known"
    if len(known) and np.ptp(known) <= 1e-12 * np.abs(known).max():
        return "constant"
    return f"too short: {seen} values, {least} are needed" if seen < least else ""


def _below(past: FloatMatrix, now: FloatColumn) -> FloatMatrix:
    """1 where the past lies below, a half where it ties, NaN where nothing was seen."""
    half = 0.5 * ((past < now).astype(np.float64) + (past <= now))
    return np.where(np.isnan(past), np.nan, half)


def _drawn(
    below: FloatMatrix, block: float, reps: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """(reps, series) Ranks in resampled pasts."""
    known = ~np.isnan(below)
    whole, drawn = known.all(), np.empty((reps, below.shape[1]))
    filled = np.where(known, below, 0.0)
    for rep in range(reps):
        at = stationary_indices(len(below), block, rng)
        count = len(at) if whole else known[at].sum(axis=0)
        total = filled[at].sum(axis=0)
        drawn[rep] = np.divide(
            total, count, out=np.full(len(total), np.nan), where=np.asarray(count) > 0
        )
    return drawn


def _runs(past: FloatMatrix, rank: FloatColumn, drawn: FloatMatrix) -> FloatColumn:
    """How many independent values each past is worth.

    As many as its own first autocorrelation leaves of it, or as the spread of the draws says where
    that is fewer: draws alone forget how slowly a series comes back.
    """
    out = np.empty(past.shape[1])
    for j in range(past.shape[1]):
        column = past[:, j]
        known = ~np.isnan(column)
        both = known[1:] & known[:-1]
        size = float(known.sum())
        tie = 0.0
        if both.sum() > 2 and np.ptp(column[1:][both]) > 0.0 and np.ptp(column[:-1][both]) > 0.0:
            tie = float(np.corrcoef(column[1:][both], column[:-1][both])[0, 1])
        out[j] = max(size * (1.0 - max(tie, 0.0)) / (1.0 + max(tie, 0.0)), 1.0)
        spread = float(np.nanvar(drawn[:, j]))
        if spread > 0.0:
            out[j] = max(min(out[j], rank[j] * (1.0 - rank[j]) / spread), 1.0)
    return out


def _jeffreys(
    rank: FloatColumn, runs: FloatColumn, level: float
) -> tuple[FloatColumn, FloatColumn]:
    """The interval of a share seen in so many independent trials."""
    above, below = rank * runs + 0.5, (1.0 - rank) * runs + 0.5
    low = betaincinv(above, below, 0.5 - 0.5 * level)
    high = betaincinv(above, below, 0.5 + 0.5 * level)
    return np.minimum(low, rank), np.maximum(high, rank)


def _mean_band(
    rank: FloatColumn,
    low: FloatColumn,
    high: FloatColumn,
    drawn: FloatMatrix,
    share: FloatColumn,
    level: float,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Band of a mean of ranks: they err together as the draws do, and each as far as its own band.

    A rank of which no draw differs errs on its own.
    """
    spread = np.nanstd(drawn, axis=0)
    moved = spread > 1e-12
    z = rng.standard_normal(drawn.shape)
    z[:, moved] = (drawn[:, moved] - rank[moved]) / spread[moved]
    reach = np.where(z < 0.0, rank - low, high - rank) / ndtri(0.5 + 0.5 * level)
    ends = band(rank @ share + (z * reach) @ share, level)
    whole = float(rank @ share)
    return max(min(float(ends[0]), whole), 0.0), min(max(float(ends[1]), whole), 1.0)


def _weights(group: NDArray[np.int64]) -> FloatColumn:
    """By series, so that a group counts once and its members alike."""
    _, code = np.unique(group, return_inverse=True)
    return np.asarray(1.0 / np.bincount(code)[code] / (code.max() + 1.0))
