"""How good a forecast was, in a unit that cannot be gamed, and whether one beats another.

Each score is lower for the better forecast, and lowest on average for the honest one. Rows are
instants. A loss is positive: value at risk and expected shortfall are positive numbers that
losses may exceed, `tail` is the chance of that (0.01, never 0.99). Nothing may be missing unless
the function says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from undertow.econometrics.checks import FloatColumn, matrix, series, within
from undertow.econometrics.hac import Banded, automatic_lags, long_run_covariance
from undertow.errors import EstimationError


def quantile_score(y: ArrayLike, forecast: ArrayLike, share: float) -> FloatColumn:
    """Score of each forecast of the `share` quantile of y: (share - [y < q]) (y - q).

    For value at risk of a loss at tail 0.01, the share is 0.99.

    References
    ----------
    Koenker and Bassett (1978), Econometrica 46.
    """
    within("share", share, 0.0, 1.0)
    values, guess = _aligned(y=y, forecast=forecast)
    gap = values - guess
    return np.asarray(np.where(gap < 0.0, share - 1.0, share) * gap)


def joint_score(losses: ArrayLike, var: ArrayLike, es: ArrayLike, tail: float) -> FloatColumn:
    """Score of each pair of value at risk and expected shortfall: FZ0.

    [loss >= var] (loss - var) / (tail es) + var/es + log(es) - 1. Expected shortfall alone has
    no honest score; the pair has. Differences between forecasters do not depend on the unit of
    the losses, levels do.

    References
    ----------
    Fissler and Ziegel (2016), Annals of Statistics 44; the form without units of Patton, Ziegel
    and Chen (2019), J. Econometrics 211.
    """
    within("tail", tail, 0.0, 1.0)
    loss, v, e = _aligned(losses=losses, var=var, es=es)
    for bad, words in ((e <= 0.0, "is not positive"), (e < v, "is below value at risk")):
        if bad.any():
            row = int(np.argmax(bad))
            raise EstimationError(
                f"es at row {row} {words}: {e[row]:g}", hint="a loss is positive here; check signs"
            )
    return np.asarray(np.maximum(loss - v, 0.0) / (tail * e) + v / e + np.log(e) - 1.0)


def sample_score(y: ArrayLike, draws: ArrayLike, *, fair: bool = False) -> FloatColumn:
    """Score of each forecast given as draws, (T, draws): the continuous ranked probability score.

    E|X - y| - E|X - X'|/2 in the unit of y; for a single draw the absolute error. `fair` scores
    the law behind the draws rather than the draws, so that few draws are no handicap.

    References
    ----------
    Gneiting and Raftery (2007), J. Am. Stat. Assoc. 102; `fair`: Ferro (2014), Q. J. R. Met.
    Soc. 140.
    """
    values = series("y", y, rows=1)
    sample = np.sort(matrix("draws", draws, rows=1), axis=1)
    if len(sample) != len(values):
        raise EstimationError(f"y has {len(values)} rows and draws has {len(sample)}")
    m = sample.shape[1]
    if fair and m < 2:
        raise EstimationError("draws has one column; a fair score needs two")
    near = np.abs(sample - values[:, None]).mean(axis=1)
    ranks = 2.0 * np.arange(1, m + 1) - m - 1.0
    apart = 2.0 * (sample @ ranks) / (m * (m - 1.0) if fair else m * m)
    return np.asarray(near - apart / 2.0)


def interval_score(y: ArrayLike, low: ArrayLike, high: ArrayLike, level: float) -> FloatColumn:
    """Score of each band that is to hold y with chance `level`: its width, and what it missed by.

    References
    ----------
    Gneiting and Raftery (2007).
    """
    within("level", level, 0.0, 1.0)
    values, below, above = _aligned(y=y, low=low, high=high)
    _check_ends(below, above)
    missed = np.maximum(below - values, 0.0) + np.maximum(values - above, 0.0)
    return np.asarray(above - below + 2.0 / (1.0 - level) * missed)


def brier_score(happened: ArrayLike, chance: ArrayLike) -> FloatColumn:
    """Score of each chance given to what then did, or did not, happen: (chance - happened)^2.

    References
    ----------
    Brier (1950), Monthly Weather Review 78.
    """
    truth, given = _aligned(happened=np.asarray(happened, dtype=np.float64), chance=chance)
    if not np.isin(truth, (0.0, 1.0)).all():
        raise EstimationError("happened is neither true nor false in every row")
    if ((given < 0.0) | (given > 1.0)).any():
        raise EstimationError("chance lies outside [0, 1]", hint="give fractions, not percent")
    return np.asarray((given - truth) ** 2)


def coverage(
    y: ArrayLike, low: ArrayLike, high: ArrayLike, *, level: float = 0.9, lags: int | None = None
) -> Banded:
    """Share of values that fell inside their bands, itself with a band at `level`.

    Misses that come in clusters count as fewer rows (Newey-West); Wilson's band stays inside
    [0, 1] and has a width even where nothing, or everything, missed.

    References
    ----------
    Wilson (1927), J. Am. Stat. Assoc. 22.
    """
    within("level", level, 0.0, 1.0)
    values, below, above = _aligned(y=y, low=low, high=high)
    _check_ends(below, above)
    inside = ((values >= below) & (values <= above)).astype(np.float64)
    n, share = len(inside), float(inside.mean())
    used = automatic_lags(inside) if lags is None else lags
    variance = float(long_run_covariance(inside, lags=used)[0, 0])
    even = share * (1.0 - share)
    rows = n * min(even / variance, 1.0) if variance > 0.0 else float(n)
    q = float(special.ndtri(0.5 + level / 2.0))
    centre = (share + q * q / (2.0 * rows)) / (1.0 + q * q / rows)
    reach = q / (1.0 + q * q / rows) * math.sqrt(even / rows + q * q / (4.0 * rows * rows))
    error = math.sqrt(even / rows)
    return Banded(share, error, max(centre - reach, 0.0), min(centre + reach, 1.0), used, "")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two forecasters' scores held against each other; negative means the first was better."""

    difference: float  # mean score of the first less that of the second
    error: float
    statistic: float  # Student's t with rows - 1; NaN where a status stands
    p: float  # two-sided chance of it if both are equally good; NaN where a status stands
    rows: int
    lags: int
    status: str

    def verdict(self, level: float = 0.9) -> str:
        """In words: which is better, or that nobody can tell."""
        within("level", level, 0.0, 1.0)
        if self.status or self.p > 1.0 - level:
            return "no difference that these rows could show"
        return "the first is better" if self.difference < 0.0 else "the second is better"


def diebold_mariano(
    first: ArrayLike, second: ArrayLike, *, horizon: int = 1, lags: int | None = None
) -> Comparison:
    """Does one forecaster's score beat the other's by more than luck.

    t = mean(d) / sqrt(LRV(d)/T) sqrt((T + 1 - 2h + h(h-1)/T)/T), d the scores' difference, LRV
    Newey-West's with `lags` (by default what the data ask for, at least horizon - 1). Rows where
    a score is missing are left out. For forecasts, not models: of two nested models fitted on
    the way the larger is favoured to lose.

    References
    ----------
    Diebold and Mariano (1995), J. Business and Economic Statistics 13; small samples: Harvey,
    Leybourne and Newbold (1997), Int. J. Forecasting 13; on use: Diebold (2015), JBES 33.
    """
    a = series("first", first, rows=1, missing=True)
    b = series("second", second, rows=1, missing=True)
    if len(a) != len(b):
        raise EstimationError(f"first has {len(a)} rows and second has {len(b)}", hint="align them")
    d = a - b
    n = int((~np.isnan(d)).sum())
    if horizon < 1:
        raise EstimationError(f"horizon was {horizon}; it must be 1 or more")
    if n < max(4, 2 * horizon):
        words = f"too short: {n} rows with both scores, {max(4, 2 * horizon)} are needed"
        return Comparison(math.nan, math.nan, math.nan, math.nan, n, 0, words)
    mean = float(np.nanmean(d))
    used = max(horizon - 1, automatic_lags(d)) if lags is None else lags
    variance = float(long_run_covariance(d, lags=used)[0, 0])
    if variance <= 1e-24 * max(float(np.nanmax(np.abs(a))), float(np.nanmax(np.abs(b)))) ** 2:
        words = "the scores are the same" if mean == 0.0 else "the scores differ by a constant"
        return Comparison(mean, 0.0, math.nan, math.nan, n, used, words)
    error = math.sqrt(variance / n)
    small = math.sqrt((n + 1.0 - 2.0 * horizon + horizon * (horizon - 1.0) / n) / n)
    statistic = mean / error * small
    p = 2.0 * float(special.stdtr(n - 1, -abs(statistic)))
    return Comparison(mean, error, statistic, p, n, used, "")


def _aligned(**columns: ArrayLike) -> list[FloatColumn]:
    """The named columns, equally long; a single number stands for a whole column."""
    rows = max(np.size(column) for column in columns.values())
    found: list[NDArray[np.float64]] = []
    for name, column in columns.items():
        values = np.full(rows, column) if np.ndim(column) == 0 else column
        found.append(series(name, values, rows=1))
        if len(found[-1]) != rows:
            raise EstimationError(
                f"{name} has {len(found[-1])} rows, not {rows}", hint="align the columns"
            )
    return found


def _check_ends(low: FloatColumn, high: FloatColumn) -> None:
    if (low > high).any():
        raise EstimationError(f"low is above high at row {int(np.argmax(low > high))}")
