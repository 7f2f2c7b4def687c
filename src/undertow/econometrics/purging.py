"""Growth of leverage less what prices explain, so that what is left can be asked if it is tied.

Leverage has prices in its denominator, so the leverage of any two nodes moves together as soon as
prices do. `purge` takes out of each series what its own returns and the market's say of it, now and
late, straight, kinked and squared; `comovement` asks whether the rest is still tied.

    growth_t = b0 + sum_l [b1_l r_(t-l) + b2_l min(r_(t-l), 0) + b3_l clip(r_(t-l))^2]
                  + b4 vol_(t-1) + the same of the market's returns + extra + residual_t
    var(residual_t) = a0 + sum_l a_l r_(t-l)^2 + the same of the market + a_e recent residual^2

Every coefficient that judges a step was fitted on other blocks of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray

from undertow.econometrics.checks import (
    BoolColumn,
    FloatColumn,
    FloatMatrix,
    frozen,
    matrix,
    within,
)
from undertow.econometrics.crossfit import (
    Blocks,
    Echo,
    Fit,
    blocks_of,
    chirps,
    late,
    recent_mean,
    standardised,
)
from undertow.errors import EstimationError

_CLIP = 4.0  # standard deviations: squares of larger returns would rule the fit
_PER_COEFFICIENT = 3  # rows of fit per coefficient, at least
_FLAT = 1e-12  # of a series' own size


@dataclass(frozen=True, slots=True, eq=False)
class Purged:
    """What prices leave of the growth of each series.

    `residual` is growth less its out-of-sample prediction; `scaled` is that over its predicted
    standard deviation, so that loud times shared by all series do not pass for co-movement. Both
    are NaN where growth or a return that the prediction needs was not seen, and throughout where
    `reasons` says why a series was left out. `r2` is out of sample: below 0 prices predicted worse
    than the mean did, and the purge only added noise (NaN where left out).
    """

    residual: FloatMatrix  # (time, series)
    scaled: FloatMatrix  # (time, series)
    scale: FloatMatrix  # (time, series): predicted standard deviation of the residual
    r2: FloatColumn  # (series,)
    reasons: tuple[str, ...]  # (series,): empty where purged
    coefficients: int  # of each series' regression
    market: FloatMatrix  # (time, factors): market-wide returns that were used
    kept: float  # of a correlation between residuals, what outlives the noise of the fits
    fits: tuple[Fit | None, ...]  # (series,): None where left out

    @property
    def keep(self) -> BoolColumn:
        """Which series were purged."""
        return np.array([not reason for reason in self.reasons], dtype=np.bool_)

    def again(self, rows: BoolColumn, series: BoolColumn) -> Again:
        """The purge once more, over worlds of some rows of some series that were purged."""
        at = np.flatnonzero(series & self.keep)
        fits = tuple(fit for fit in (self.fits[j] for j in at.tolist()) if fit is not None)
        return Again(fits, np.nan_to_num(self.scale[:, at], nan=1.0), rows)


@dataclass(frozen=True, slots=True, eq=False)
class Again:
    """What worlds look like once each series has been purged as the recorded one was.

    Coefficients are estimates. Their errors multiply the returns of one market in every series, so
    series that share nothing are tied by chance a little more often once they are purged. A null
    of purged series has to have that noise too: put its worlds through this.
    """

    fits: tuple[Fit, ...]
    scale: FloatMatrix  # (time, series)
    rows: BoolColumn  # (time,): those that worlds have

    def __call__(self, worlds: NDArray[np.float64]) -> NDArray[np.float64]:
        """(worlds, rows, series) of scaled residuals in, the same of what is left of them out.

        Where a series has more rows than all of them share, its fit hears earlier ones there.
        """
        left, at = np.empty_like(worlds), np.flatnonzero(self.rows)
        place = np.zeros(len(self.rows), dtype=np.int64)
        place[at] = np.arange(len(at))
        place[~self.rows] = np.arange(len(place) - len(at)) % len(at)
        for j, fit in enumerate(self.fits):
            left[:, :, j] = fit.heard(worlds[:, place, j].T, self.scale[:, j])[at].T
        return left


def purge(
    growth: FloatMatrix,
    returns: FloatMatrix,
    *,
    lags: int = 2,
    extra: NDArray[np.float64] | None = None,
    market: int = 1,
    half_life: float = 20.0,
    folds: int = 5,
    gap: int | None = None,
    ridge: float = 1e-4,
) -> Purged:
    """Growth of leverage less everything that returns, now and `lags` steps back, explain.

    Parameters
    ----------
    growth : (time, series)
        Change of log leverage; NaN where not seen.
    returns : (time, series)
        Log return of the price, or basket of prices, that each series answers to, of the same step.
    lags : int
        Steps back that returns, their negative parts and their squares are followed.
    extra : (time, series) or (time, series, regressors), optional
        What else to take out, such as the exact revaluation at fixed quantities.
    market : int
        How many principal components of all returns to add as market-wide returns.
    half_life : float
        Steps over which a return's weight in the recent volatility halves.
    folds : int
        Contiguous blocks of time; each is predicted from the others.
    gap : int, optional
        Steps either side of a block kept out of its fit; `lags` + 1 unless given.
    ridge : float
        Pull of standardised coefficients to 0, as a share of the rows: against regressors that
        nearly repeat each other.

    Notes
    -----
    Read it as a lower bound. Where leverage itself moves prices (forced sales push the price that
    pushes leverage), the co-movement runs through returns and is taken out with them. What prices
    do not explain is all that is left; what they explain is not all innocent. Conversely a response
    to prices that is none of the shapes above, or to a price that was not given, stays in and can
    pass for co-movement.

    Raises
    ------
    EstimationError
        When shapes differ, a value is infinite, or an option is impossible.

    References
    ----------
    Chernozhukov, Chetverikov, Demirer, Duflo, Hansen, Newey and Robins (2018), double/debiased
    machine learning (cross-fitting). Racine (2000), cross-validation of dependent data by blocks.
    """
    y = matrix("growth", growth, missing=True)
    r = matrix("returns", returns, missing=True)
    if r.shape != y.shape:
        raise EstimationError(
            f"returns are {r.shape}; growth is {y.shape}", hint="give one return a series and step"
        )
    added = _extra(extra, y.shape)
    _require_whole("lags", lags, 0)
    _require_whole("market", market, 0)
    _require_whole("folds", folds, 2)
    _require_whole("gap", lags + 1 if gap is None else gap, 0)
    within("ridge", ridge, 0.0, 1.0, closed=True)
    within("half_life", half_life, 0.0, 1e9)
    wide = market_returns(r, market)
    blocks = list(blocks_of(len(y), folds, lags + 1 if gap is None else gap))
    shared = [_PriceTerms.of(wide[:, k], lags, half_life) for k in range(wide.shape[1])]
    residual, scale = np.full(y.shape, np.nan), np.full(y.shape, np.nan)
    r2, reasons, width = np.full(y.shape[1], np.nan), [], 0
    fits: list[Fit | None] = []
    heard, echo = chirps(len(y)), Echo()
    for j in range(y.shape[1]):
        terms = [_PriceTerms.of(r[:, j], lags, half_life), *shared]
        x = np.column_stack([*(each.mean for each in terms), added[:, j]])
        width = x.shape[1] + 1
        seen = ~(np.isnan(y[:, j]) | np.isnan(x).any(axis=1))
        reason = _unusable(y[:, j], seen, width, blocks)
        reasons.append(reason)
        if reason:
            fits.append(None)
            continue
        loud = np.column_stack([each.variance for each in terms])
        fit = Fit(standardised(x, seen), loud, seen, blocks, ridge, half_life)
        fits.append(fit)
        left, spread, r2[j] = fit.run(np.where(seen, y[:, j], 0.0))
        echo.add(fit.heard(heard, spread))
        residual[seen, j], scale[seen, j] = left[seen], spread[seen]
    return Purged(
        frozen(residual),
        frozen(residual / scale),
        frozen(scale),
        frozen(r2),
        tuple(reasons),
        width,
        frozen(wide),
        echo.kept(),
        tuple(fits),
    )


def market_returns(returns: FloatMatrix, count: int = 1) -> FloatMatrix:
    """The first principal components of standardised returns, of unit variance; NaN counts as 0.

    Fewer come back where there are fewer series that move. The sign is that of the mean loading.
    """
    r = matrix("returns", returns, missing=True)
    filled = np.nan_to_num(r - _nanmean(r))
    spread = np.sqrt((filled**2).mean(axis=0))
    moving = spread > _FLAT * np.maximum(np.abs(np.nan_to_num(r)).max(axis=0), 1e-300)
    count = min(count, int(moving.sum()) - 1)  # of one series it would be the series itself
    if count < 1:
        return np.empty((len(r), 0))
    z = filled[:, moving] / spread[moving]
    left, size, right = np.linalg.svd(z, full_matrices=False)
    sign = np.where(right[:count].sum(axis=1) < 0.0, -1.0, 1.0)
    wide: FloatMatrix = left[:, :count] * sign * np.sqrt(len(r)) * (size[:count] > 0.0)
    return wide


# ---------------------------------------------------------------- regressors


@dataclass(frozen=True, slots=True, eq=False)
class _PriceTerms:
    """What one series of returns offers to the mean and to the variance of growth."""

    mean: FloatMatrix  # (time, terms)
    variance: FloatMatrix  # (time, terms)

    @classmethod
    def of(cls, r: FloatColumn, lags: int, half_life: float) -> _PriceTerms:
        spread = float(np.sqrt(np.nanmean(r**2))) if (~np.isnan(r)).any() else 0.0
        unit = r / spread if spread > 0.0 else r
        now = [unit, np.minimum(unit, 0.0), np.clip(unit, -_CLIP, _CLIP) ** 2]
        followed = [late(each, lag) for lag in range(lags + 1) for each in now]
        recent = late(recent_mean(unit**2, half_life), 1)
        squares = [late(unit**2, lag) for lag in range(lags + 1)]
        return cls(
            np.column_stack([*followed, np.sqrt(recent)]), np.column_stack([*squares, recent])
        )


def _extra(extra: NDArray[np.float64] | None, shape: tuple[int, int]) -> NDArray[np.float64]:
    if extra is None:
        return np.empty((*shape, 0))
    added = np.asarray(extra, dtype=np.float64)
    added = added[:, :, None] if added.ndim == 2 else added
    if added.ndim != 3 or added.shape[:2] != shape:
        raise EstimationError(
            f"extra is {np.shape(extra)}; growth is {shape}",
            hint="give (time, series) or (time, series, regressors)",
        )
    matrix("extra", added.reshape(len(added), -1), columns=0, missing=True)
    return added


# ---------------------------------------------------------------- fits


def _unusable(y: FloatColumn, seen: BoolColumn, width: int, blocks: Blocks) -> str:
    """Why a series cannot be purged, or nothing."""
    count = int(seen.sum())
    if count == 0:
        return "no step with growth and all its returns was seen"
    fewest = min(count - int(seen[out].sum()) for _, out in blocks)
    if fewest < _PER_COEFFICIENT * width:
        return (
            f"too short: {fewest} rows to fit {width} coefficients outside a block, "
            f"{_PER_COEFFICIENT * width} are needed"
        )
    kept = y[seen]
    return "constant" if float(np.ptp(kept)) <= _FLAT * float(np.abs(kept).max()) else ""


def _nanmean(x: FloatMatrix) -> FloatColumn:
    """Mean of what was seen, 0 where nothing was."""
    count = (~np.isnan(x)).sum(axis=0)
    mean: FloatColumn = np.nan_to_num(x).sum(axis=0) / np.maximum(count, 1)
    return mean


def _require_whole(name: str, value: int, least: int) -> None:
    if isnan(float(value)) or int(value) != value or value < least:
        raise EstimationError(f"{name} was {value}; it must be a whole number of {least} or more")
