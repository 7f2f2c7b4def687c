"""Errors that stay honest when shocks come in clusters and linger.

Rows are instants, oldest first; columns are series. An ordinary standard error assumes that each
row brings news of its own; these count how much each row repeats the last ones (Newey and West).
Missing rows keep their place in time: they count as nothing, and lags run across them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from undertow.econometrics.checks import (
    BoolColumn,
    FloatColumn,
    FloatMatrix,
    frozen,
    matrix,
    series,
    within,
)
from undertow.errors import EstimationError

_NEAR = 1e-10  # of a regressor's size: less than this left over by the others is rounding


def long_run_covariance(x: ArrayLike, *, lags: int | None = None) -> FloatMatrix:
    """How much means of the series really vary: sum of autocovariances, (series, series).

    Omega = G(0) + sum_{j=1..lags} (1 - j/(lags+1)) (G(j) + G(j)'), with G(j) the autocovariance
    at lag j (divided by T). Divide by T for the covariance of the means. The weights of Bartlett
    keep it positive semi-definite, with values missing too (each series counts its own rows).
    One series may be given without a second dimension, and gives (1, 1).

    References
    ----------
    Newey and West (1987), Econometrica 55; for missing rows Datta and Du (2012), "Nonparametric
    HAC estimation for time series data with missing observations", Federal Reserve IFDP 1060.
    """
    values = matrix("x", _as_matrix(x), rows=1, missing=True)
    seen = ~np.isnan(values)
    counts = np.maximum(seen.sum(axis=0), 1)
    means = np.where(seen, values, 0.0).sum(axis=0) / counts
    centred = np.where(seen, values - means, 0.0)
    used = automatic_lags(values) if lags is None else _check_lags(lags, len(values))
    return frozen(bartlett_sum(centred, used) / np.sqrt(np.outer(counts, counts)))


def bartlett_sum(scores: FloatMatrix, lags: int) -> FloatMatrix:
    """Weighted sum of lagged cross products of scores that already have mean zero; (k, k)."""
    total = scores.T @ scores
    for j in range(1, min(lags, len(scores) - 1) + 1):
        product = scores[j:].T @ scores[:-j]
        total += (1.0 - j / (lags + 1.0)) * (product + product.T)
    return total


def automatic_lags(x: ArrayLike, *, rule: str = "newey-west") -> int:
    """How many lags the data ask for.

    `newey-west` (1994): with n = 4 (T/100)^(2/9), s1 = 2 sum_{j<=n} j R(j) and s0 = sum_{|j|<=n}
    R(j), floor(1.1447 (s1^2/s0^2 T)^(1/3)). `andrews` (1991): the same for a series that is an
    autoregression of order one, 1.1447 (4 r^2/((1-r)^2 (1+r)^2) T)^(1/3), rounded down. Several
    series are pooled, each divided by its spread: sums of s1^2 over sums of s0^2. At most half
    of the rows.

    References
    ----------
    Newey and West (1994), Review of Economic Studies 61; Andrews (1991), Econometrica 59.
    """
    values = matrix("x", _as_matrix(x), rows=1, missing=True)
    slopes, levels = [0.0], [0.0]
    for column in values.T:
        scores = _standardised(column)
        if scores is None:
            continue
        slope, level = _slope_and_level(scores, rule)
        slopes.append(slope * slope)
        levels.append(level * level)
    if sum(levels) <= 0.0:
        return 0
    rows = int((~np.isnan(values)).any(axis=1).sum())
    width = 1.1447 * (sum(slopes) / sum(levels) * rows) ** (1.0 / 3.0)
    return int(min(width, rows // 2))


def _standardised(column: FloatColumn) -> FloatColumn | None:
    """Centred over its own spread, zero where missing; None for a flat series."""
    seen = ~np.isnan(column)
    if seen.sum() < 2:
        return None
    spread = column[seen].std()
    if spread <= 1e-12 * np.abs(column[seen]).max():
        return None
    return np.where(seen, (column - column[seen].mean()) / spread, 0.0)


def _slope_and_level(z: FloatColumn, rule: str) -> tuple[float, float]:
    """The spectrum at frequency zero and its generalised first derivative, up to one scale."""
    if rule == "andrews":
        r = min(max(float(z[1:] @ z[:-1]) / float(z[:-1] @ z[:-1]), -0.97), 0.97)
        noise = 1.0 - r * r
        return 2.0 * r * noise / ((1.0 - r) ** 3 * (1.0 + r)), noise / (1.0 - r) ** 2
    if rule != "newey-west":
        raise EstimationError(f"rule was {rule!r}; it may be 'newey-west' or 'andrews'")
    most = min(int(4.0 * (len(z) / 100.0) ** (2.0 / 9.0)), len(z) - 1)
    covs = np.array([float(z[j:] @ z[: len(z) - j]) for j in range(most + 1)])
    return 2.0 * float(np.arange(most + 1) @ covs), covs[0] + 2.0 * float(covs[1:].sum())


@dataclass(frozen=True, slots=True, eq=False)
class OlsFit:
    """A regression line with errors that allow for clusters and memory."""

    coef: FloatColumn  # (k,): the constant first, if there is one; NaN where a status stands
    covariance: FloatMatrix  # (k, k) of the coefficients
    residuals: FloatColumn  # (T,): NaN in rows with a missing value
    r2: float
    rows: int  # used
    lags: int
    status: str  # empty when there is a fit

    @property
    def se(self) -> FloatColumn:
        """Standard errors."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance), 0.0)))

    @property
    def t(self) -> FloatColumn:
        """Coefficients over their errors; infinite where an exact fit has no error."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.coef / self.se)

    @property
    def p(self) -> FloatColumn:
        """Two-sided chance of such a `t` without an effect, by Student's law with rows - k."""
        return np.asarray(2.0 * special.stdtr(max(self.rows - len(self.coef), 1), -np.abs(self.t)))

    def band(self, level: float = 0.9) -> tuple[FloatColumn, FloatColumn]:
        """Low and high end of each coefficient."""
        within("level", level, 0.0, 1.0)
        free = max(self.rows - len(self.coef), 1)
        reach = float(special.stdtrit(free, 0.5 + level / 2.0)) * self.se
        return self.coef - reach, self.coef + reach


def ols(y: ArrayLike, x: ArrayLike, *, lags: int | None = None, constant: bool = True) -> OlsFit:
    """Least squares of `y` on the columns of `x`, with Newey-West errors.

    Covariance = (X'X)^-1 S (X'X)^-1 T/(T-k), S the Bartlett sum of x_t u_t. `lags` None lets the
    data choose (`automatic_lags` of those products); 0 is White. A `constant` goes first. Rows
    with a missing value are left out and keep their place in time. Too few rows, or regressors
    that repeat each other, give a fit of NaN whose `status` says which.

    Errors are too small when memory is long for the sample: where both sides have autocorrelation
    0.9 and there are 100 rows, a nominal 90 % band of the slope covers 65 %.

    References
    ----------
    Newey and West (1987, 1994).
    """
    target = series("y", y, rows=1, missing=True)
    given = matrix("x", _as_matrix(x), rows=1, columns=0, missing=True)
    if len(given) != len(target):
        raise EstimationError(f"y has {len(target)} rows and x has {len(given)}", hint="align them")
    design = np.column_stack([np.ones(len(target)), given]) if constant else given
    if design.shape[1] == 0:
        raise EstimationError("x has no columns", hint="give a regressor or keep the constant")
    if lags is not None:
        _check_lags(lags, len(target))
    seen = ~(np.isnan(target) | np.isnan(design).any(axis=1))
    reason = _why_not(design[seen], constant)
    if reason:
        return _no_fit(len(target), design.shape[1], int(seen.sum()), reason)
    return _fit(target, design, seen, lags, constant)


def _fit(
    y: FloatColumn, design: FloatMatrix, seen: BoolColumn, lags: int | None, constant: bool
) -> OlsFit:
    q, r = np.linalg.qr(design[seen])
    coef = np.linalg.solve(r, q.T @ y[seen])
    residuals = np.where(seen, y - np.where(seen[:, None], design, 0.0) @ coef, np.nan)
    errors = np.where(seen, residuals, 0.0)
    scores = np.where(seen[:, None], design, 0.0) * errors[:, None]
    count, k = int(seen.sum()), design.shape[1]
    slopes = scores[:, 1:] if constant and k > 1 else scores
    used = automatic_lags(slopes) if lags is None else lags
    half = np.linalg.solve(r.T @ r, bartlett_sum(scores, used))
    covariance = np.linalg.solve(r.T @ r, half.T) * count / (count - k)
    base = y[seen] - y[seen].mean() if constant else y[seen]
    total = float(base @ base)
    r2 = 1.0 - float(errors @ errors) / total if total > 0.0 else math.nan
    status = "" if total > 0.0 else "y is constant: r2 does not exist"
    return OlsFit(frozen(coef), frozen((covariance + covariance.T) / 2.0), frozen(residuals),
                  r2, count, used, status)  # fmt: skip


def _why_not(design: FloatMatrix, constant: bool) -> str:
    """Why there is no line, or nothing."""
    rows, k = design.shape
    if rows <= k:
        return f"too short: {rows} rows for {k} coefficients"
    sizes = np.sqrt((design * design).sum(axis=0))
    left = np.abs(np.diag(np.linalg.qr(design / np.where(sizes > 0.0, sizes, 1.0), mode="r")))
    for j in np.flatnonzero(left <= _NEAR):
        column = j - 1 if constant else j
        return f"column {column} of x is a combination of the columns before it" + (
            " and the constant" if constant else ""
        )
    return ""


def _no_fit(rows: int, k: int, count: int, reason: str) -> OlsFit:
    nothing = np.full(k, np.nan)
    return OlsFit(frozen(nothing), frozen(np.full((k, k), np.nan)),
                  frozen(np.full(rows, np.nan)), math.nan, count, 0, reason)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Banded:
    """One number with its standard error and band; NaN throughout where a status stands."""

    value: float
    error: float
    low: float
    high: float
    lags: int
    status: str


def mean_band(x: ArrayLike, *, level: float = 0.9, lags: int | None = None) -> Banded:
    """The mean of a series with a band that allows for memory; missing values are left out."""
    within("level", level, 0.0, 1.0)
    values = series("x", x, rows=1, missing=True)
    count = int((~np.isnan(values)).sum())
    if count < 3:
        return _none(f"too short: {count} values, 3 are needed")
    used = automatic_lags(values) if lags is None else _check_lags(lags, len(values))
    variance = float(long_run_covariance(values, lags=used)[0, 0]) / (count - 1)
    mean, error = float(np.nanmean(values)), math.sqrt(max(variance, 0.0))
    reach = float(special.ndtri(0.5 + level / 2.0)) * error
    return Banded(mean, error, mean - reach, mean + reach, used, "")


def correlation_band(
    x: ArrayLike, y: ArrayLike, *, level: float = 0.9, lags: int | None = None
) -> Banded:
    """Pearson's correlation with a band that holds under fat tails, clusters and memory.

    Delta method: with z the standardised series, each row moves r by
    zx zy - r (zx^2 + zy^2)/2, whose long-run variance over T is the error's square. The band is
    laid on Fisher's scale, atanh(r) +- q error/(1 - r^2), so that it stays inside (-1, 1). Rows
    with a missing value are left out and keep their place in time.

    References
    ----------
    Steiger and Hakstian (1982), Brit. J. Math. Stat. Psychol. 35, for the influence of a row
    without normality; Newey and West (1994).
    """
    within("level", level, 0.0, 1.0)
    a = series("x", x, rows=1, missing=True)
    b = series("y", y, rows=1, missing=True)
    if len(a) != len(b):
        raise EstimationError(f"x has {len(a)} rows and y has {len(b)}", hint="align them")
    both = ~(np.isnan(a) | np.isnan(b))
    if both.sum() < 4:
        return _none(f"too short: {int(both.sum())} rows in common, 4 are needed")
    za, zb = _standardised(np.where(both, a, np.nan)), _standardised(np.where(both, b, np.nan))
    if za is None or zb is None:
        return _none(f"{'x' if za is None else 'y'} is constant")
    count = int(both.sum())
    r = float(za @ zb) / count
    if abs(r) >= 1.0 - 1e-12:
        return Banded(math.copysign(1.0, r), 0.0, *(2 * (math.copysign(1.0, r),)), 0, "")
    moves = np.where(both, za * zb - r * (za * za + zb * zb) / 2.0, np.nan)
    used = automatic_lags(moves) if lags is None else _check_lags(lags, len(moves))
    error = math.sqrt(max(float(long_run_covariance(moves, lags=used)[0, 0]), 0.0) / (count - 1))
    reach = float(special.ndtri(0.5 + level / 2.0)) * error / (1.0 - r * r)
    low, high = math.tanh(math.atanh(r) - reach), math.tanh(math.atanh(r) + reach)
    return Banded(r, error, low, high, used, "")


def _none(reason: str) -> Banded:
    return Banded(math.nan, math.nan, math.nan, math.nan, 0, reason)


def _as_matrix(x: ArrayLike) -> ArrayLike:
    return np.asarray(x)[:, None] if np.ndim(x) == 1 else x


def _check_lags(lags: int, rows: int) -> int:
    if not 0 <= lags < rows:
        raise EstimationError(
            f"lags was {lags}; it must lie in [0, {rows})", hint="None lets the data choose"
        )
    return int(lags)
