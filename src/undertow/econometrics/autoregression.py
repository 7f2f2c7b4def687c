"""Vector autoregressions: what the past of every series says of the next value of each.

Rows of `x` are instants, oldest first; columns are series.

    x[t] = intercept + sum over l of coefficients[l - 1] @ x[t - l] + u[t],  cov(u) = covariance

Stacked, the coefficients stand side by side, the oldest lag first, as `equations` has them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, matrix
from undertow.econometrics.equations import (
    LEAST_SQUARES,
    Estimator,
    Sums,
    comparable,
    refuse_short,
    side_by_side,
    solve_sums,
)
from undertow.errors import EstimationError

FloatStack = NDArray[np.float64]  # three or more dimensions


# ---- stability


def companion(stacked: FloatMatrix) -> FloatMatrix:
    """The one-step map of the last `lags` rows, the oldest first."""
    series, size = stacked.shape
    step = np.zeros((size, size))
    step[: size - series, series:] = np.eye(size - series)
    step[size - series :] = stacked
    return step


def largest_root(stacked: FloatMatrix) -> float:
    """Largest modulus of the eigenvalues of the one-step map: below 1, shocks die out."""
    return float(np.abs(np.linalg.eigvals(companion(stacked))).max())


def dies_out(stacked: FloatMatrix) -> bool:
    """Whether every shock dies out: whether the largest root is below 1.

    A power of the one-step map with a norm below 1 proves it without an eigenvalue; only a map
    that eight squarings leave undecided is taken apart.
    """
    step = companion(stacked)
    for _ in range(8):
        if not float(np.abs(step).max()) < 1e6:
            break
        if float(np.linalg.norm(step)) < 1.0:
            return True
        step = step @ step
    return largest_root(stacked) < 1.0


def explosive(stacked: FloatMatrix) -> str:
    """The reason why an autoregression has no limit, empty where it has one."""
    if dies_out(stacked):
        return ""
    return f"not stationary: the largest root is {largest_root(stacked):.4g}"


# ---- the fit


@dataclass(frozen=True, slots=True, eq=False)
class Autoregression:
    """How every series follows from the past of all, and what is left over.

    `status` is empty when the fit can be used. With a constant column or collinear past values
    all arrays are NaN and `status` says so; an explosive fit (root of 1 or more) keeps its
    numbers. A root just below 1 is no proof of stationarity: least squares pulls roots down.
    """

    intercept: FloatColumn  # (N,)
    coefficients: FloatStack  # (lags, N, N): [l - 1, i, j] from j, l steps ago, to i
    covariance: FloatMatrix  # (N, N): residuals' products over T - lags, not less parameters
    residuals: FloatMatrix  # (T - lags, N)
    root: float
    status: str

    @property
    def lags(self) -> int:
        """How many steps back the fit looks."""
        return len(self.coefficients)

    @property
    def stacked(self) -> FloatMatrix:
        """Coefficients side by side, the oldest lag first: (N, lags * N)."""
        return stack(self.coefficients)

    def moving_average(self, horizon: int) -> FloatStack:
        """What a unit shock to j does to i after h steps: (horizon, N, N), h from 0."""
        return moving_average(self.coefficients, horizon)


def autoregression(x: Any, lags: int = 1, estimator: Estimator = LEAST_SQUARES) -> Autoregression:
    """Fit a vector autoregression with an intercept to complete rows.

    Raises
    ------
    EstimationError
        When a value is missing, or there are too few rows for the estimator.

    References
    ----------
    Luetkepohl 2005, New Introduction to Multiple Time Series Analysis, chapter 3.
    """
    given = matrix("x", x)
    _enough(given, lags, estimator)
    like, mean, spread = comparable(given)
    rows = side_by_side(like, lags)
    series = given.shape[1]
    solved = solve_sums(Sums.of(rows), series, estimator)
    size = lags * series
    slope = solved.stacked * spread[:, None] / np.tile(spread, lags)
    past, present = rows[:, :size], rows[:, size:]
    centre, now = past.mean(axis=0), present.mean(axis=0)
    left = (present - now - (past - centre) @ solved.stacked.T) * spread
    level = mean + spread * now - slope @ (np.tile(mean, lags) + np.tile(spread, lags) * centre)
    return Autoregression(
        intercept=frozen(level),
        coefficients=frozen(unstack(slope)),
        covariance=frozen(left.T @ left / len(left)),
        residuals=frozen(left),
        root=float("nan") if np.isnan(slope).any() else largest_root(solved.stacked),
        status=_constant(given) or solved.reason or explosive(solved.stacked),
    )


def _constant(x: FloatMatrix) -> str:
    flat = np.ptp(x, axis=0) == 0.0
    return f"column {int(np.argmax(flat))} is constant" if flat.any() else ""


def _enough(x: FloatMatrix, lags: int, estimator: Estimator) -> None:
    if lags < 1:
        raise EstimationError(f"lags was {lags}; an autoregression needs at least 1")
    refuse_short("x", len(x), x.shape[1], lags, estimator)


def stack(coefficients: FloatStack) -> FloatMatrix:
    """(lags, N, N), the latest lag first, as (N, lags * N), the oldest first."""
    lags, series, _ = coefficients.shape
    turned = coefficients[::-1].transpose(1, 0, 2).reshape(series, lags * series)
    return np.ascontiguousarray(turned)


def unstack(stacked: FloatMatrix) -> FloatStack:
    """The inverse of `stack`."""
    series, size = stacked.shape
    turned = stacked.reshape(series, size // series, series).transpose(1, 0, 2)[::-1]
    return np.ascontiguousarray(turned)


def moving_average(coefficients: FloatStack, horizon: int) -> FloatStack:
    """A_0 = I, A_h = sum over l of coefficients[l - 1] @ A_{h - l}: (horizon, N, N)."""
    return respond(stack(coefficients), np.eye(coefficients.shape[1]), horizon)


def respond(stacked: FloatMatrix, shocks: FloatMatrix, horizon: int) -> FloatStack:
    """A_h @ shocks for h = 0 .. horizon - 1, by the recursion of the moving average itself."""
    series, size = stacked.shape
    before = size - series
    path = np.zeros((before + horizon * series, shocks.shape[1]))
    path[before : before + series] = shocks
    for h in range(1, horizon):
        here = before + h * series
        np.matmul(stacked, path[here - size : here], out=path[here : here + series])
    return path[before:].reshape(horizon, series, shocks.shape[1])


# ---- how many lags


@dataclass(frozen=True, slots=True, eq=False)
class LagChoice:
    """Information criteria of 1, 2, .. lags on the same rows; the smallest is the choice.

    The Bayesian criterion finds the true order in long samples; Akaike's takes too many rather
    than too few. NaN stands for an order whose fit `reasons` rejects.
    """

    akaike: FloatColumn  # (most,)
    hannan_quinn: FloatColumn
    bayes: FloatColumn
    reasons: tuple[str, ...]  # (most,): empty where there is a number

    @property
    def lags(self) -> int:
        """The choice of the Bayesian criterion; 0 where no order could be fitted."""
        return 0 if np.isnan(self.bayes).all() else int(np.nanargmin(self.bayes)) + 1


def choose_lags(x: Any, most: int) -> LagChoice:
    """Criteria for least squares with 1 to `most` lags, all on the rows after the first `most`.

        log det(covariance) + price * parameters / rows

    with price 2 (Akaike 1974), 2 log log rows (Hannan and Quinn 1979), log rows (Schwarz 1978).

    Raises
    ------
    EstimationError
        When a value is missing, or there are too few rows for `most` lags.
    """
    given = matrix("x", x)
    _enough(given, most, LEAST_SQUARES)
    series = given.shape[1]
    like, _, spread = comparable(given)
    sums = Sums.of(side_by_side(like, most))
    found = np.full((most, 3), np.nan)
    prices = np.array([2.0, 2.0 * np.log(np.log(sums.count)), np.log(sums.count)])
    reasons = []
    for lags in range(1, most + 1):
        recent = np.arange((most - lags) * series, (most + 1) * series)
        solved = solve_sums(sums.pick(recent), series, LEAST_SQUARES)
        reasons.append(solved.reason)
        if not solved.reason:
            size = float(np.linalg.slogdet(solved.covariance)[1] + 2.0 * np.log(spread).sum())
            found[lags - 1] = size + prices * series * (series * lags + 1) / sums.count
    akaike, hannan, bayes = (frozen(np.ascontiguousarray(column)) for column in found.T)
    return LagChoice(akaike, hannan, bayes, tuple(reasons))
