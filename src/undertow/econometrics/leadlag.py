"""Which series moves first, and whether leverage is taken on as assets grow.

Columns are series of growth, rows are instants. A correlation at lag k is that of x at t with y at
t + k: at a positive lag x comes first. Each series is first made white by an autoregression of its
own, because two series that each remember their past are correlated at many lags for no reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import nan

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit

from undertow.econometrics import hac
from undertow.econometrics.checks import (
    FloatColumn,
    FloatMatrix,
    frozen,
    matrix,
    series,
    within,
)
from undertow.econometrics.whitening import whitened
from undertow.errors import EstimationError

_LEAST = 20  # rows per lag that is looked at, at least over all
_FEWEST = 8  # products at a lag
_ENOUGH = 20  # draws as far as what was seen: a p-value is then known to a fifth or so
_CHUNK = 1_000_000  # values held at once


@dataclass(frozen=True, slots=True, eq=False)
class CrossCorrelation:
    """Correlations of two series at lags either way; at a positive lag the first one leads.

    `low` and `high` are where the correlation of unrelated series falls, lag by lag. `score` is
    the sum of squared correlations at which x leads less that at which y does; `p_value` is the
    chance of a score as far from 0 if every value of x had its sign drawn: how loud both are when
    stays, and y as it is. NaN where `reason` says why.
    """

    lag: FloatColumn  # (2 * most + 1,)
    correlation: FloatColumn
    low: FloatColumn
    high: FloatColumn
    peak: int  # lag of the largest correlation in size
    score: float
    p_value: float
    level: float
    orders: tuple[int, int]  # of the autoregressions that made the series white
    rows: int
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class LeadLag:
    """Who leads whom: entry (i, j) is positive where i moves before j; NaN where not known."""

    score: FloatMatrix  # (series, series)
    p_value: FloatMatrix  # (series, series)
    lag: FloatMatrix  # (series, series): of the largest correlation in size
    lead: FloatColumn  # (series,): mean score over the others
    reasons: tuple[str, ...]  # (series,)


@dataclass(frozen=True, slots=True, eq=False)
class Procyclicality:
    """Growth of leverage on growth of assets; NaN where `reason` says why."""

    slope: float
    low: float
    high: float
    p_value: float  # of a slope of 0, two-sided
    intercept: float
    r2: float
    passive: float  # slope of one who never trades, 1 - leverage; NaN unless leverage is given
    rows: int
    level: float
    reason: str = ""


def cross_correlation(
    x: ArrayLike,
    y: ArrayLike,
    *,
    rng: np.random.Generator,
    most: int = 10,
    level: float = 0.9,
    whiten: bool = True,
    draws: int = 9_999,
) -> CrossCorrelation:
    """Correlation of x and y at up to `most` steps either way, and which of them leads.

    Bands are Bartlett's: the variance of a correlation of unrelated series at lag k is
    sum_j rho_x(j) rho_y(j) / (T - k), over as many j. Steps keep their places where values are
    missing: products are of steps so many apart at which both were seen, T - k their number.

    The p-value is from up to `draws` drawings of signs, fewer where 20 of them went as far: what is
    far from small need not be known well. It takes x for white: without `whiten`, give a series
    that remembers nothing.

    It misleads where both answer to a third, one of them later: then it leads, and causes nothing.
    Series observed at different moments of a step lead by the clock alone.

    References
    ----------
    Haugh (1976), J. Am. Stat. Assoc. 71 (whitening each). Bartlett (1955). Box and Jenkins (1976).
    Besag and Clifford (1991), "Sequential Monte Carlo p-values".
    """
    a, b = series("x", x, missing=True), series("y", y, missing=True)
    if len(a) != len(b):
        raise EstimationError(f"x has {len(a)} rows and y has {len(b)}", hint="align them")
    if int(most) != most or most < 1:
        raise EstimationError(f"most was {most}; it must be a whole number from 1 up")
    within("level", level, 0.0, 1.0)
    if draws < 19:
        raise EstimationError(f"draws was {draws}; at least 19 are needed", hint="9999 is usual")
    lag = np.arange(-most, most + 1, dtype=np.float64)
    place = np.flatnonzero(~(np.isnan(a) | np.isnan(b)))
    shared = slice(place[0], place[-1] + 1) if len(place) else slice(0)
    reason = _unusable(a[place], most) or _unusable(b[place], most)
    if not reason:
        (a, p), (b, q) = (_white(each) if whiten else (each, 0) for each in (a[shared], b[shared]))
        u, v = (_Seen.of(each[max(p, q) :]) for each in (a, b))
        count = np.array([_at(u.seen, v.seen, k) for k in range(-most, most + 1)])
        if count.min() < _FEWEST:
            reason = f"too few: {int(count.min())} steps at some lag, {_FEWEST} are needed"
    if reason:
        none = np.full(len(lag), np.nan)
        return CrossCorrelation(
            frozen(lag), none, none, none, 0, nan, nan, level, (0, 0), len(place), reason
        )
    products = _products(u, v, most) * ((1.0 - np.abs(lag) / len(u.value)) / count)
    value = products.sum(axis=0)
    width = float(ndtri(0.5 + 0.5 * level)) * np.sqrt(_memory(u, v, most) / count)
    score = float(_score(value))
    chance = _chance(products, score, draws, rng)
    return CrossCorrelation(
        frozen(lag),
        frozen(value),
        frozen(-width),
        frozen(width),
        int(lag[np.argmax(np.abs(value))]),
        score,
        chance,
        level,
        (p, q),
        int(count[most]),
    )


def lead_lag(
    x: ArrayLike,
    *,
    rng: np.random.Generator,
    most: int = 10,
    whiten: bool = True,
    draws: int = 9_999,
) -> LeadLag:
    """Who leads whom among series, pair by pair; see `cross_correlation`.

    p-values are of one pair each. Over N series there are N (N - 1) / 2 of them, of which one in
    twenty is below 0.05 by chance: read the matrix by its rows, or correct.
    """
    values = matrix("x", x, missing=True)
    count = values.shape[1]
    reasons = tuple(_unusable(column[~np.isnan(column)], most) for column in values.T)
    score, p, lag = (np.full((count, count), np.nan) for _ in range(3))
    for i in range(count):
        for j in range(i + 1, count):
            if reasons[i] or reasons[j]:
                continue
            found = cross_correlation(
                values[:, i], values[:, j], rng=rng, most=most, whiten=whiten, draws=draws
            )
            if found.reason:
                continue
            score[i, j], score[j, i] = found.score, -found.score
            lag[i, j], lag[j, i] = found.peak, -found.peak
            p[i, j] = p[j, i] = found.p_value
    known = ~np.isnan(score)
    mean = np.nan_to_num(score).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
    lead = np.where(known.any(axis=1), mean, np.nan)
    return LeadLag(frozen(score), frozen(p), frozen(lag), frozen(lead), reasons)


def procyclicality(
    leverage_growth: ArrayLike,
    asset_growth: ArrayLike,
    *,
    leverage: ArrayLike | None = None,
    level: float = 0.9,
    lags: int | None = None,
) -> Procyclicality:
    """Is leverage raised as assets grow? Slope of leverage growth on asset growth, HAC band.

    One who never trades has a slope of 1 - leverage, below 0: as assets gain, equity gains more,
    and leverage falls (`passive`, at the mean of `leverage`). A slope over `passive` is buying as
    prices rise; over 0, enough of it to raise leverage.

    Leverage is assets over equity, so assets stand on both sides: an error in their measurement,
    or a price that marks assets and not debt, pushes the slope towards 1 with no behaviour at all.
    Compare with the slope on the growth of others' assets, or of debt, before you call it a policy.

    References
    ----------
    Adrian and Shin (2010), J. Financial Intermediation 19.
    """
    y = series("leverage_growth", leverage_growth, missing=True)
    x = series("asset_growth", asset_growth, missing=True)
    if len(x) != len(y):
        raise EstimationError(
            f"asset_growth has {len(x)} rows; leverage_growth has {len(y)}", hint="align them"
        )
    within("level", level, 0.0, 1.0)
    passive = nan
    if leverage is not None:
        held = series("leverage", leverage, missing=True)
        passive = 1.0 - float(np.nanmean(held)) if (~np.isnan(held)).any() else nan
    fit = hac.ols(y, x, lags=lags)
    if fit.status:
        return Procyclicality(nan, nan, nan, nan, nan, nan, passive, fit.rows, level, fit.status)
    half = float(stdtrit(max(fit.rows - 2, 1), 0.5 + 0.5 * level)) * float(fit.se[1])
    slope = float(fit.coef[1])
    return Procyclicality(
        slope, slope - half, slope + half, float(fit.p[1]), float(fit.coef[0]), fit.r2, passive,
        fit.rows, level,
    )  # fmt: skip


# ---------------------------------------------------------------- parts


def _unusable(x: FloatColumn, most: int) -> str:
    least = max(_LEAST, 4 * most)
    if len(x) < least:
        return f"too short: {len(x)} rows, {least} are needed"
    return "constant" if np.ptp(x) <= 1e-12 * np.abs(x).max() else ""


def _white(x: FloatColumn) -> tuple[FloatColumn, int]:
    found = whitened(x)
    return found.shocks, found.order


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """A series of mean 0 and variance 1, 0 where it was not seen, and 1 where it was."""

    value: FloatColumn
    seen: FloatColumn

    @classmethod
    def of(cls, x: FloatColumn) -> _Seen:
        seen = ~np.isnan(x)
        centred = np.where(seen, x - x[seen].mean(), 0.0)
        spread = max(float(np.sqrt((centred[seen] ** 2).mean())), 1e-300)
        return cls(centred / spread, seen.astype(np.float64))

    def remembered(self, k: int) -> float:
        """Autocorrelation, about, at a lag."""
        whole = 1.0 - k / len(self.value)
        return _at(self.value, self.value, k) / max(_at(self.seen, self.seen, k), 1.0) * whole


def _at(u: FloatColumn, v: FloatColumn, k: int) -> float:
    """Sum of products of u at t with v at t + k."""
    return float(u[: len(u) - k] @ v[k:]) if k >= 0 else float(u[-k:] @ v[: len(v) + k])


def _memory(u: _Seen, v: _Seen, most: int) -> float:
    """How much more than 1 / T the variance of a correlation of unrelated series is."""
    both = sum(u.remembered(j) * v.remembered(j) for j in range(1, most + 1))
    return max(1.0 + 2.0 * both, 0.1)


def _products(u: _Seen, v: _Seen, most: int) -> FloatMatrix:
    """(time, lags) Products of u at each step with v so many steps later, 0 beyond the ends."""
    ends = np.zeros(most)
    later = np.concatenate([ends, v.value, ends])
    return np.asarray(u.value[:, None] * sliding_window_view(later, 2 * most + 1))


def _score(correlation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared correlations with u first less those with v first, over the last axis."""
    most = correlation.shape[-1] // 2
    square = correlation * correlation
    score: NDArray[np.float64] = square[..., most + 1 :].sum(-1) - square[..., :most].sum(-1)
    return score


def _chance(products: FloatMatrix, score: float, draws: int, rng: np.random.Generator) -> float:
    """Chance of a score as far from 0 when the sign of each value of u is drawn.

    Drawing stops at the draw at which `_ENOUGH` went as far (Besag and Clifford 1991): most pairs
    are far from sure, and need no more. Shifts round in time will not do: those near 0 still show
    what leads, and with them left out a chance peak near 0 has nothing to be held against.
    """
    rows, beyond, done, whole = len(products), 0, 0, products.sum(axis=0)
    while done < draws:
        count = min(max(done, 2 * _ENOUGH), max(_CHUNK // rows, 1), draws - done)
        bits = np.frombuffer(rng.bytes(count * (-(-rows // 8))), dtype=np.uint8)
        kept = np.unpackbits(bits.reshape(count, -1), axis=1, count=rows).astype(np.float64)
        drawn = _score(2.0 * (kept @ products) - whole)
        far = np.flatnonzero(np.abs(drawn) >= abs(score) * (1.0 - 1e-9))
        if beyond + len(far) >= _ENOUGH:
            return _ENOUGH / (done + int(far[_ENOUGH - beyond - 1]) + 1)
        beyond, done = beyond + len(far), done + count
    return (1 + beyond) / (1 + draws)
