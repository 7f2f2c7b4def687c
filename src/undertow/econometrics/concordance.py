"""Are two series in the same phase more often than chance has it?

A phase is 1 on the way up and 0 on the way down, NaN where it was not dated; rows are instants,
columns are series (see `cycles`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan, sqrt

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit

from undertow.econometrics import hac
from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, matrix, within
from undertow.errors import EstimationError


@dataclass(frozen=True, slots=True, eq=False)
class Concordance:
    """How much of the time two series are in the same phase, and more than chance has it.

    Matrices are (series, series), with NaN where `reasons` names either series or two never
    overlap.
    """

    index: FloatMatrix  # share of time in the same phase
    mean_adjusted: FloatMatrix  # less what independent phases of these lengths have
    correlation: FloatMatrix  # of phases
    t_value: FloatMatrix  # of the correlation, by Newey and West
    p_value: FloatMatrix  # two-sided, from it
    p_shift: FloatMatrix  # two-sided, from all shifts of one series round in time
    reasons: tuple[str, ...]


def concordance(phases: ArrayLike, *, lags: int | None = None) -> Concordance:
    """Pairwise concordance of phases, 1 rising and 0 falling, NaN where not dated.

    index = mean(S_i S_j + (1 - S_i)(1 - S_j)). Series that rise most of the time agree most of the
    time, whatever ties them, so read `mean_adjusted` = index - (1 + 2 m_i m_j - m_i - m_j), which
    is 2 cov(S_i, S_j). The test regresses S_i / sd_i on S_j / sd_j, whose slope is the correlation,
    with errors that allow for the length of phases. Phases are long and few, and those errors are
    then too small: where the p-values differ, believe `p_shift`, which compares the correlation
    with those of every shift of one series round in time.

    References
    ----------
    Harding and Pagan (2002), J. Monetary Economics 49; (2006), J. Econometrics 132.
    """
    s = matrix("phases", phases, missing=True)
    if not np.isin(s[~np.isnan(s)], (0.0, 1.0)).all():
        raise EstimationError("phases hold a value that is neither 0, 1 nor NaN")
    reasons = tuple(_one_phase(column) for column in s.T)
    shape = (s.shape[1], s.shape[1])
    index, adjusted, tie, t, p, shifted = (np.full(shape, np.nan) for _ in range(6))
    for i in range(shape[0]):
        for j in range(i, shape[0]):
            if reasons[i] or reasons[j]:
                continue
            both = ~np.isnan(s[:, i]) & ~np.isnan(s[:, j])
            a, b = s[both, i], s[both, j]
            if len(a) < 4 or np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
                continue
            index[i, j] = index[j, i] = float(np.mean(a * b + (1.0 - a) * (1.0 - b)))
            cov = float(np.mean(a * b) - a.mean() * b.mean())
            adjusted[i, j] = adjusted[j, i] = 2.0 * cov
            tie[i, j] = tie[j, i] = cov / float(a.std() * b.std())
            if i == j:
                continue
            t[i, j], p[i, j] = t[j, i], p[j, i] = _tested(a, b, lags)
            shifted[i, j] = shifted[j, i] = _shift_p_value(a, b)
    return Concordance(
        frozen(index), frozen(adjusted), frozen(tie), frozen(t), frozen(p), frozen(shifted), reasons
    )


Band = tuple[float, float]
_MOST = 0.5  # of a mean-adjusted concordance: always in the same phase, half of the time each


def concordance_bands(
    phases: ArrayLike, cycle: float, *, level: float = 0.9
) -> tuple[FloatMatrix, FloatMatrix, Band]:
    """Bands of `mean_adjusted`: low and high of every pair, and of the mean over pairs.

    Each step adds 2 (S_i - m_i)(S_j - m_j). What such a sum would be another time is told by its
    slowest cosines: one for every two cycles, of `cycle` steps, that were seen, three at least, and
    as many degrees of freedom. Turns are dated to a step at best: no band is narrower than what
    one step at each turn does, or phases that are alike throughout would have none.

    References
    ----------
    Lazarus, Lewis, Stock and Watson (2018), "HAR inference: recommendations for practice", J.
    Business and Economic Statistics 36 (equal-weighted cosines).
    """
    s = matrix("phases", phases, missing=True)
    within("level", level, 0.0, 1.0)
    within("cycle", cycle, 0.0, inf)
    count = s.shape[1]
    low, high = np.full((2, count, count), np.nan)
    usable = [j for j in range(count) if not _one_phase(s[:, j])]
    added, often, floors = np.zeros(len(s)), np.zeros(len(s)), []
    for place, i in enumerate(usable):
        for j in usable[place + 1 :]:
            both = ~np.isnan(s[:, i]) & ~np.isnan(s[:, j])
            if both.sum() < 4:
                continue
            a, b = s[both, i], s[both, j]
            moves = 2.0 * (a - a.mean()) * (b - b.mean())
            floors.append(_misdated(a, b))
            ends = _around(moves, cycle, level, floors[-1])
            low[i, j], high[i, j] = low[j, i], high[j, i] = ends
            added[both] += moves
            often[both] += 1.0
    seen = often > 0.0
    if not floors:
        return frozen(low), frozen(high), (nan, nan)
    mean = _around(added[seen] / often[seen], cycle, level, float(np.mean(floors)))
    return frozen(low), frozen(high), mean


def _misdated(a: FloatColumn, b: FloatColumn) -> float:
    """Share of time that is in another phase where each turn of either lies one step off."""
    turns = np.count_nonzero(np.diff(a)) + np.count_nonzero(np.diff(b))
    return 0.5 * turns / len(a)


def _around(moves: FloatColumn, cycle: float, level: float, least: float) -> Band:
    """Mean of the steps, give or take what slow cosines of them say, and `least` at least."""
    rows = len(moves)
    degrees = min(max(int(0.5 * rows / cycle), 3), rows - 1)
    places = np.pi * (np.arange(rows) + 0.5) / rows
    waves = np.cos(np.arange(1, degrees + 1)[:, None] * places)
    size = sqrt(2.0 / rows) * (waves @ moves)
    reach = float(stdtrit(degrees, 0.5 + 0.5 * level)) * sqrt(float(size @ size) / degrees / rows)
    mean, reach = float(moves.mean()), max(reach, least)
    return max(mean - reach, -_MOST), min(mean + reach, _MOST)


def _one_phase(s: FloatColumn) -> str:
    seen = s[~np.isnan(s)]
    if not len(seen):
        return "no phase was dated"
    return "always in one phase" if np.ptp(seen) == 0.0 else ""


def _tested(a: FloatColumn, b: FloatColumn, lags: int | None) -> tuple[float, float]:
    if np.array_equal(a, b) or np.array_equal(a, 1.0 - b):
        return inf if a[0] == b[0] else -inf, 0.0
    fit = hac.ols(a / a.std(), b / b.std(), lags=lags)
    return float(fit.t[1]), float(fit.p[1])


def _shift_p_value(a: FloatColumn, b: FloatColumn) -> float:
    """Share of all shifts round in time at which phases are tied as much as they were."""
    there, here = np.fft.rfft(a - a.mean()), np.fft.rfft(b - b.mean())
    ties = np.abs(np.fft.irfft(there * np.conj(here), len(a)))
    return float(np.mean(ties >= ties[0] - 1e-9 * len(a)))
