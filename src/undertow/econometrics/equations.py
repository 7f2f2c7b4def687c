"""Regressions of every series on the past of all, from sums of products alone.

Sums add and subtract, so a window can move, or a fold be held back, without a second look at the
rows that stay. Columns of the sums are the past, the oldest lag first, and then the present:
column (lags - l) * N + j is series j, l steps ago, and l = 0 is now.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.linalg import lapack

from undertow.econometrics.checks import FloatColumn, FloatMatrix, within
from undertow.errors import EstimationError
from undertow.kernels import descent

SINGULAR = "the past values are collinear: least squares has no single answer"
FLAT = "a series is constant over the rows that all lags share"
TOLD = "the past tells a series exactly: it leaves nothing to shocks"
_COLLINEAR = 1e-10  # of a regressor's variance that the others leave unexplained
_NOTHING = 1e-12  # of a series' variance that is left to shocks
_ROUNDING = 1e-13  # of the squares that went into a variance: less is not told from zero


# ---- how the equations are solved


class Estimator(Protocol):
    """Solves all equations at once, in units of each column's own standard deviation."""

    def least_rows(self, series: int, lags: int) -> int:
        """How many rows of data it cannot do without."""
        ...

    def solve(
        self, past: FloatMatrix, cross: FloatMatrix, start: FloatMatrix | None
    ) -> tuple[FloatMatrix, str]:
        """Weights (equations, regressors), and why they are not to be used, if so.

        `past` is the correlation of the regressors, `cross` that of each series with them,
        `start` an earlier answer to a like problem.
        """
        ...


@dataclass(frozen=True, slots=True)
class LeastSquares:
    """Ordinary least squares, equation by equation; for few series and many rows."""

    def least_rows(self, series: int, lags: int) -> int:
        """One residual degree of freedom an equation, after the intercept and all lags."""
        return series * lags + lags + 2

    def solve(
        self, past: FloatMatrix, cross: FloatMatrix, start: FloatMatrix | None
    ) -> tuple[FloatMatrix, str]:
        """By Cholesky; collinear regressors are an outcome, not an answer."""
        return _positive_solve(past, cross)


@dataclass(frozen=True, slots=True)
class Ridge:
    """Least squares with a penalty on squared weights: all shrink, none is dropped.

    `penalty` is in units of correlation, the same for every equation or one for each.
    """

    penalty: float | FloatColumn

    def least_rows(self, series: int, lags: int) -> int:
        """A penalty replaces rows; a variance still asks for some."""
        return 2 * lags + 4

    def solve(
        self, past: FloatMatrix, cross: FloatMatrix, start: FloatMatrix | None
    ) -> tuple[FloatMatrix, str]:
        """By Cholesky, once for every different penalty."""
        penalty = _penalties(self.penalty, len(cross))
        weights, reason = np.empty_like(cross), ""
        for level in np.unique(penalty):
            rows, eased = penalty == level, past.copy()
            eased.flat[:: len(past) + 1] += level
            weights[rows], found = _positive_solve(eased, cross[rows])
            reason = reason or found
        return weights, reason


@dataclass(frozen=True, slots=True)
class ElasticNet:
    """Least squares that shrinks weights and sets the idle ones to zero; for many series.

    Minimises (1/2n) |y - Zw|^2 + penalty (mix |w|_1 + (1 - mix)/2 |w|^2), columns standardised.
    `mix` = 1 is the lasso, 0 is ridge. Above the largest correlation over `mix` all weights are
    zero. `near` is the change of a weight that counts as rest.

    References
    ----------
    Zou and Hastie 2005; for connectedness of many series Demirer, Diebold, Liu and Yilmaz 2018.
    """

    penalty: float | FloatColumn
    mix: float = 0.5
    near: float = 1e-8
    most: int = 10_000

    def least_rows(self, series: int, lags: int) -> int:
        """A penalty replaces rows; a variance still asks for some."""
        return 2 * lags + 4

    def solve(
        self, past: FloatMatrix, cross: FloatMatrix, start: FloatMatrix | None
    ) -> tuple[FloatMatrix, str]:
        """By coordinate descent from `start`; without a lasso part in closed form."""
        within("mix", self.mix, 0.0, 1.0, closed=True)
        if self.mix == 0.0:
            return Ridge(self.penalty).solve(past, cross, start)
        penalty = _penalties(self.penalty, len(cross))
        weights = np.zeros_like(cross) if start is None else start.copy()
        lasso, ridge = penalty * self.mix, penalty * (1.0 - self.mix)
        restless = descent.descend(past, cross, lasso, ridge, self.near, self.most, weights)
        if restless:
            return weights, f"{restless} equations had not settled after {self.most} passes"
        return weights, ""


LEAST_SQUARES = LeastSquares()


def _penalties(penalty: float | FloatColumn, equations: int) -> FloatColumn:
    given = np.asarray(penalty, dtype=np.float64)
    if given.ndim > 1 or (given.ndim == 1 and len(given) != equations):
        raise EstimationError(
            f"penalty has shape {given.shape}", hint=f"give one number, or {equations}"
        )
    if not np.isfinite(given).all() or (given < 0.0).any():
        raise EstimationError(f"penalty was {penalty}; it must be finite and not negative")
    return np.ascontiguousarray(np.broadcast_to(given, equations))


def _positive_solve(past: FloatMatrix, cross: FloatMatrix) -> tuple[FloatMatrix, str]:
    factor, solved, failed = lapack.dposv(past, cross.T, lower=1)
    if failed or float(np.diag(factor).min()) ** 2 <= _COLLINEAR:
        return np.full_like(cross, np.nan), SINGULAR
    return np.ascontiguousarray(solved.T), ""


# ---- sums, and what follows from them


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """All that a regression on the past needs of some rows: their count, sums and products."""

    count: int
    total: FloatColumn  # (lags * N + N,): past, then present
    cross: FloatMatrix  # (lags * N + N, lags * N + N)

    @classmethod
    def of(cls, rows: FloatMatrix) -> Sums:
        """Of rows that hold past and present side by side, as `side_by_side` gives them."""
        dense = np.ascontiguousarray(rows)
        return cls(len(dense), dense.sum(axis=0), dense.T @ dense)

    def __add__(self, more: Sums) -> Sums:
        return Sums(self.count + more.count, self.total + more.total, self.cross + more.cross)

    def __sub__(self, less: Sums) -> Sums:
        return Sums(self.count - less.count, self.total - less.total, self.cross - less.cross)

    def moved(self, came: FloatMatrix, went: FloatMatrix) -> Sums:
        """With some rows more and some less."""
        rows = np.concatenate([came, went])
        signed = np.concatenate([came, -went])
        count = self.count + len(came) - len(went)
        return Sums(count, self.total + signed.sum(axis=0), self.cross + signed.T @ rows)

    def pick(self, columns: NDArray[np.int64]) -> Sums:
        """The same of some columns alone."""
        return Sums(self.count, self.total[columns], self.cross[np.ix_(columns, columns)])

    def covariance(self) -> tuple[FloatColumn, FloatMatrix]:
        """Means, and covariances about them (divided by the count)."""
        mean = self.total / self.count
        return mean, self.cross / self.count - np.outer(mean, mean)


def side_by_side(x: FloatMatrix, lags: int) -> FloatMatrix:
    """A view of `x` with each row's `lags` predecessors before it: (T - lags, (lags + 1) N)."""
    columns = x.shape[1]
    view: FloatMatrix = sliding_window_view(x.reshape(-1), (lags + 1) * columns)[::columns]
    return view


def comparable(x: FloatMatrix) -> tuple[FloatMatrix, FloatColumn, FloatColumn]:
    """Each column less its mean and over its standard deviation, where it has one; and both."""
    mean = x.mean(axis=0)
    spread = x.std(axis=0)
    spread[spread == 0.0] = 1.0
    return (x - mean) / spread, mean, spread


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """An autoregression in the units of its sums, as windows and draws use it."""

    stacked: FloatMatrix  # (N, lags * N): coefficients, the oldest lag first
    covariance: FloatMatrix  # (N, N) of what is left
    weights: FloatMatrix  # (N, lags * N): as `stacked`, in standard deviations
    reason: str


def solve_sums(
    sums: Sums, series: int, estimator: Estimator, start: FloatMatrix | None = None
) -> Solved:
    """Fit one equation a series; a reason, where it could not be done, comes back with NaN."""
    size = len(sums.total) - series
    _, spread = sums.covariance()
    own = np.diag(spread)
    flat = own <= _ROUNDING * np.diag(sums.cross) / sums.count
    if flat.any():
        return _unsolved(series, size, FLAT)
    scale = np.sqrt(own)
    like = spread / scale / scale[:, None]
    past, cross = np.ascontiguousarray(like[:size, :size]), np.ascontiguousarray(like[size:, :size])
    weights, reason = estimator.solve(past, cross, start)
    told = weights @ cross.T
    left = like[size:, size:] - told - told.T + weights @ past @ weights.T
    if (np.diag(left) <= _NOTHING).any():
        return _unsolved(series, size, TOLD)
    now = scale[size:]
    stacked = weights * now[:, None] / scale[:size]
    return Solved(stacked, left * now * now[:, None], weights, reason)


def _unsolved(series: int, size: int, reason: str) -> Solved:
    nothing = np.full((series, size), np.nan)
    return Solved(nothing, np.full((series, series), np.nan), nothing, reason)


def refuse_short(name: str, rows: int, series: int, lags: int, estimator: Estimator) -> None:
    """Refuse fewer rows than the estimator needs; say how many it does, and what else to do."""
    least = estimator.least_rows(series, lags)
    if rows >= least:
        return
    hint = "give more rows, fewer lags or fewer series"
    if isinstance(estimator, LeastSquares):
        hint += ", or regularise with ElasticNet or Ridge"
    raise EstimationError(
        f"{name} was {rows} rows; {series} series with {lags} lags need at least {least}",
        hint=hint,
    )
