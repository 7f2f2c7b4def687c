"""Connectedness without a window: an autoregression whose coefficients and shocks drift.

Coefficients walk at random and are followed by a Kalman filter. How fast they walk, and how fast
the covariance of shocks is replaced, is said by two factors of forgetting instead of being
estimated. Only what was known at a row enters its coefficients.

    x[t] = Z[t] b[t] + u[t],   cov(u[t]) = S[t]
    b[t] = b[t-1] + v[t],      cov(v[t]) = (1/k1 - 1) P[t-1]
    e = x[t] - Z[t] b[t-1],    S = k2 S[t-1] + (1 - k2) e e',   P = P[t-1] / k1
    b[t] = b[t-1] + P Z' (Z P Z' + S)^-1 e,   P[t] = P - P Z' (Z P Z' + S)^-1 Z P
    S[t] = k2 S[t-1] + (1 - k2) u u',   u = x[t] - Z[t] b[t]

Rows of the answer are steps, in order of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack, solve_triangular

from undertow.econometrics.autoregression import FloatStack, explosive, unstack
from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, matrix, within
from undertow.econometrics.connectedness import (
    TOO_FEW,
    Scheme,
    complete_series,
    variance_shares,
)
from undertow.econometrics.connectedness_rolling import Curves
from undertow.econometrics.priors import Minnesota, Prior
from undertow.errors import EstimationError

# A series that stands still for long teaches nothing about itself; what is kept from it is bounded.
_CEILING = 1e4  # of a coefficient's first variance
_FLOOR = 1e-10  # of a shock's first variance


@dataclass(frozen=True, slots=True, eq=False)
class DriftingAutoregression:
    """What the filter believed of the autoregression after each row, from `rows[0]` on.

    When the filter breaks down `status` says where, and it has no steps from there on.
    """

    rows: NDArray[np.int64]  # (steps,): the last row that each step has seen
    intercept: FloatMatrix  # (steps, N)
    coefficients: FloatStack  # (steps, lags, N, N)
    covariance: FloatStack  # (steps, N, N)
    status: str


@dataclass(frozen=True, slots=True, eq=False)
class DriftingConnectedness:
    """Connectedness after each row, as fractions.

    A step whose autoregression is not stationary has NaN and a `status`; series that cannot be
    used have NaN and a reason in `left_out`.
    """

    rows: NDArray[np.int64]  # (steps,): the last row that each step has seen
    total: FloatColumn  # (steps,)
    corrected: FloatColumn  # (steps,)
    to: FloatMatrix  # (steps, N)
    from_: FloatMatrix  # (steps, N)
    net: FloatMatrix  # (steps, N)
    tables: FloatStack | None  # (steps, N, N), where they were asked for
    left_out: tuple[str, ...]  # (N,)
    status: tuple[str, ...]  # (steps,)


def drifting_autoregression(
    x: Any,
    lags: int = 1,
    *,
    coefficient_memory: float = 0.99,
    covariance_memory: float = 0.96,
    prior: Prior | None = None,
) -> DriftingAutoregression:
    """Follow the coefficients and the shocks' covariance of an autoregression through time.

    A memory of 0.99 weighs what lies 100 rows back by 0.37; 1 never forgets. Without a `prior`
    it is Minnesota's. Memory grows with the fourth power of the series (8 N^4 lags^2 bytes for
    the state's covariance: 0.1 GB for 60 series and one lag), time a row with the fifth.

    Raises
    ------
    EstimationError
        When a value is missing, a memory is outside (0, 1], or no rows are left after the prior.

    References
    ----------
    Koop and Korobilis 2013, Journal of Econometrics; 2014, European Economic Review; Antonakakis,
    Chatziantoniou and Gabauer 2020, Journal of Risk and Financial Management.
    """
    prior = Minnesota() if prior is None else prior
    given = matrix("x", x)
    _judge(lags, coefficient_memory, covariance_memory)
    _enough(len(given), lags, prior)
    steps = _steps(given, lags, coefficient_memory, covariance_memory, prior)
    means, shocks, status = [], [], ""
    for step in steps:
        if isinstance(step, str):
            status = step
            break
        means.append(step[0])
        shocks.append(step[1])
    series, width = given.shape[1], 1 + lags * given.shape[1]
    mean = np.array(means).reshape(-1, series, width)
    return DriftingAutoregression(
        rows=frozen(np.arange(prior.rows, prior.rows + len(mean))),
        intercept=frozen(mean[:, :, 0].copy()),
        coefficients=frozen(
            np.array([unstack(m[:, 1:]) for m in mean]).reshape(-1, lags, series, series)
        ),
        covariance=frozen(np.array(shocks).reshape(-1, series, series)),
        status=status,
    )


def drifting_connectedness(
    x: Any,
    lags: int = 1,
    horizon: int = 10,
    *,
    coefficient_memory: float = 0.99,
    covariance_memory: float = 0.96,
    prior: Prior | None = None,
    scheme: Scheme = Scheme.GENERALISED,
    tables: bool = False,
) -> DriftingConnectedness:
    """Connectedness after each row, from an autoregression that drifts.

    No row is lost to a window and no width has to be chosen, but the two memories are such a
    choice, and the first steps still show the prior. Series with gaps, constant ones and copies
    are left out, with a reason.

    Raises
    ------
    EstimationError
        As `drifting_autoregression`.

    References
    ----------
    Antonakakis, Chatziantoniou and Gabauer 2020, Journal of Risk and Financial Management.
    """
    if horizon < 1:
        raise EstimationError(f"horizon was {horizon}; a forecast looks at least 1 step ahead")
    prior = Minnesota() if prior is None else prior
    _judge(lags, coefficient_memory, covariance_memory)
    verdict = complete_series(x, lags)
    keep = verdict.keep
    given = np.ascontiguousarray(matrix("x", x, missing=True)[:, keep])
    _enough(len(given), lags, prior)
    count = len(given) - prior.rows
    curves = Curves(count, len(keep), tables=tables)
    status = [TOO_FEW] * count
    found = _steps(given, lags, coefficient_memory, covariance_memory, prior)
    for place, step in enumerate(found if given.shape[1] >= 2 else ()):
        if isinstance(step, str):
            status[place:] = [step] * (count - place)
            break
        stacked = np.ascontiguousarray(step[0][:, 1:])
        status[place] = explosive(stacked)
        if not status[place]:
            curves.put(place, keep, variance_shares(stacked, step[1], horizon, scheme))
    return DriftingConnectedness(
        rows=frozen(np.arange(prior.rows, len(given))),
        **curves.closed(),
        left_out=verdict.reasons,
        status=tuple(status),
    )


# ---- the filter


def _steps(
    x: FloatMatrix, lags: int, keeps: float, covers: float, prior: Prior
) -> Iterator[tuple[FloatMatrix, FloatMatrix] | str]:
    """Coefficients (N, K) and shocks (N, N) after each row; a reason, and no more, at the end.

    `spread` is held equation by equation, so that Z P is P times one row of regressors, and falls
    by the square of W = P Z' L'^-1, where Z P Z' + S = L L'.
    """
    believed = prior.belief(x[: prior.rows], lags)
    if isinstance(believed, str):
        yield believed
        return
    mean, spread, shocks = believed
    series, width = mean.shape
    ceiling, floor = _CEILING * np.diag(spread), _FLOOR * np.diag(shocks)
    for t in range(prior.rows, len(x)):
        past = np.concatenate([[1.0], x[t - lags : t].reshape(-1)])
        _forget(spread, keeps, ceiling)
        error = x[t] - mean @ past
        expected = covers * shocks + (1.0 - covers) * np.outer(error, error)
        reach = spread.reshape(series * width, series, width) @ past  # P Z'
        seen = past @ reach.reshape(series, width, series)  # Z P Z'
        factor, failed = lapack.dpotrf(seen + expected, lower=1, clean=1)
        if failed or not np.isfinite(factor).all():
            yield f"the filter broke down at row {t}: its forecast has no positive covariance"
            return
        gain = solve_triangular(factor, reach.T, lower=True, check_finite=False)  # W'
        news = solve_triangular(factor, error, lower=True, check_finite=False)
        mean = mean + (news @ gain).reshape(series, width)
        spread -= gain.T @ gain
        left = x[t] - mean @ past
        shocks = covers * shocks + (1.0 - covers) * np.outer(left, left)
        np.fill_diagonal(shocks, np.maximum(np.diag(shocks), floor))
        yield mean, shocks


def _forget(spread: FloatMatrix, keeps: float, ceiling: FloatColumn) -> None:
    """Widen `spread` in place by 1 / keeps, but for states at the ceiling."""
    free = np.diag(spread) <= ceiling
    if free.all():
        spread /= keeps
    else:
        wider = np.where(free, keeps**-0.5, 1.0)
        spread *= wider[:, None] * wider


def _judge(lags: int, keeps: float, covers: float) -> None:
    if lags < 1:
        raise EstimationError(f"lags was {lags}; an autoregression needs at least 1")
    for name, memory in (("coefficient_memory", keeps), ("covariance_memory", covers)):
        within(name, memory, 0.0, 1.0, closed=True)
        if memory == 0.0:
            raise EstimationError(f"{name} was 0; a memory of nothing estimates nothing")


def _enough(rows: int, lags: int, prior: Prior) -> None:
    if prior.rows < lags + 2:
        raise EstimationError(
            f"rows of the prior was {prior.rows}; with {lags} lags it needs at least {lags + 2}"
        )
    if rows <= prior.rows:
        raise EstimationError(
            f"x is {rows} rows, and the prior looks at {prior.rows}",
            hint="give more rows, or a prior that looks at fewer",
        )
