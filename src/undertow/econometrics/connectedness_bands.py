"""How far a connectedness can be believed: its band, and what it would be if nobody gave anything.

Both rebuild the series from fitted equations and drawn residuals and estimate again, in the same
way, on as many rows. The band draws whole rows of residuals, so shocks keep what they share. The
null draws each series' residuals apart and lets it follow its own past alone: own dynamics stay,
every tie is cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from undertow.econometrics.autoregression import (
    Autoregression,
    FloatStack,
    autoregression,
    explosive,
)
from undertow.econometrics.bootstrap import band, stationary_indices
from undertow.econometrics.chance import flipped
from undertow.econometrics.checks import (
    BoolColumn,
    FloatColumn,
    FloatMatrix,
    frozen,
    matrix,
    within,
)
from undertow.econometrics.connectedness import (
    TOO_FEW,
    Connectedness,
    Scheme,
    complete_series,
    read_fit,
    summary,
    unread,
    variance_shares,
)
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

_BATCH = 50  # draws that are rebuilt together
_LEAST_SHARE = 0.5  # of the draws must give a table, or there is no band

Band = tuple[float, float]
Codes = NDArray[np.int64]
Redone = Callable[[FloatStack], FloatStack]  # (draws, time, series) in and out


@dataclass(frozen=True, slots=True, eq=False)
class ConnectednessBands:
    """A connectedness with its bands: (low, high), or rows low and high of the columns.

    Bands are reflected (2 * estimate less the quantiles of the draws), which takes out the bias
    that estimate and draws share, and cut off at 0, and at 1 for what cannot exceed it. `bias` is
    the mean draw of the total less its estimate: a large one says that the window is too short.
    `centred` is the estimate of the total less that bias: the number that its band belongs to,
    which the plain estimate may lie above.
    """

    fit: Connectedness
    centred: float
    total: Band
    to: FloatMatrix  # (2, N)
    from_: FloatMatrix  # (2, N)
    net: FloatMatrix  # (2, N)
    bias: float
    draws: int  # that gave a table
    lost: int  # that did not: not stationary, or collinear
    status: str


@dataclass(frozen=True, slots=True, eq=False)
class ConnectednessNull:
    """What the total would be were the series independent, each with its own dynamics.

    `expected` is the mean under the null: the bias upward of the raw total. `excess` is what the
    estimate has beyond it, `high` the level that independent series exceed with probability
    1 - level, and `p_value` how often they reach the estimate.
    """

    fit: Connectedness
    expected: float
    high: float
    excess: float
    p_value: float
    totals: FloatColumn  # (draws,): sorted
    lost: int
    status: str


def connectedness_bands(
    x: Any,
    lags: int = 1,
    horizon: int = 10,
    *,
    rng: np.random.Generator,
    draws: int = 200,
    level: float = 0.9,
    block: float | None = None,
    estimator: Estimator = LEAST_SQUARES,
    scheme: Scheme = Scheme.GENERALISED,
) -> ConnectednessBands:
    """Bands of `connectedness` by a bootstrap of the autoregression's residuals.

    Residual rows are drawn in blocks of random length, `block` in the mean (the cube root of the
    rows unless said, so that quiet and wild times stay together; 1 draws rows singly).

    Raises
    ------
    EstimationError
        As `connectedness`, or when level, draws or block make no sense.

    References
    ----------
    Runkle 1987 (bands of variance decompositions); Politis and Romano 1994 (stationary blocks);
    Hall 1992 (reflected bands).
    """
    _judge(draws, level)
    left_out, given = _used(x, lags)
    if given.shape[1] < 2:
        return _no_bands(unread(left_out, TOO_FEW), 0, TOO_FEW)
    refuse_short("x", len(given), given.shape[1], lags, estimator)
    like, _, _ = comparable(given)
    model = autoregression(like, lags, estimator)
    fit = read_fit(model, horizon, scheme, left_out)
    if fit.status:
        return _no_bands(fit, 0, fit.status)

    redraw = _Together(like, model, _length(block, len(like)), rng)
    tables = list(_tables(redraw, draws, lags, horizon, estimator, scheme))
    if len(tables) < max(_LEAST_SHARE * draws, 2):
        return _no_bands(fit, draws - len(tables), _lost(draws, len(tables)))
    return _bands(fit, np.array(tables), draws, level)


def connectedness_null(
    x: Any,
    lags: int = 1,
    horizon: int = 10,
    *,
    rng: np.random.Generator,
    draws: int = 200,
    level: float = 0.9,
    estimator: Estimator = LEAST_SQUARES,
    scheme: Scheme = Scheme.GENERALISED,
    again: Redone | None = None,
) -> ConnectednessNull:
    """The total of independent series with the same own dynamics and as many rows.

    Each series follows `lags` of its own values, fitted by least squares; its residuals keep their
    place and size, and their signs are drawn: loud times stay loud for all, and which way each
    series went is broken. In 200 rows, 60 independent series without any past show a generalised
    total of about 0.2: every chance correlation of shocks counts as something given.

    Where series were made by estimates that all share regressors, hand what made them as `again`
    (`Purged.again`): drawn series go through it too, so what its noise ties is in the null.

    Raises
    ------
    EstimationError
        As `connectedness`, or when level or draws make no sense.
    """
    _judge(draws, level)
    left_out, given = _used(x, lags)
    if given.shape[1] < 2:
        return _no_null(unread(left_out, TOO_FEW), 0, TOO_FEW)
    refuse_short("x", len(given), given.shape[1], lags, estimator)
    like, _, _ = comparable(given)
    fit = read_fit(autoregression(like, lags, estimator), horizon, scheme, left_out)
    alone = [autoregression(column[:, None], lags) for column in like.T]
    status = fit.status or next((f"alone, {own.status}" for own in alone if own.status), "")
    if status:
        return _no_null(fit, 0, status)
    redraw: Callable[[int], FloatStack] = _Apart(like, alone, rng)
    if again is not None:
        redraw = _Redone(redraw, again, fit.used)
    tables = _tables(redraw, draws, lags, horizon, estimator, scheme)
    totals = np.sort([summary(shares)[2] for shares in tables])
    if len(totals) < max(_LEAST_SHARE * draws, 2):
        return _no_null(fit, draws - len(totals), _lost(draws, len(totals)))
    expected = float(totals.mean())
    reached = int((totals >= fit.total).sum())
    return ConnectednessNull(
        fit=fit,
        expected=expected,
        high=float(np.quantile(totals, level)),
        excess=fit.total - expected,
        p_value=(1 + reached) / (1 + len(totals)),
        totals=frozen(totals),
        lost=draws - len(totals),
        status="",
    )


# ---- draws


class _Together:
    """Paths (count, T, N) of all series, with whole rows of residuals."""

    def __init__(
        self, x: FloatMatrix, fit: Autoregression, length: float, rng: np.random.Generator
    ) -> None:
        self.x, self.fit, self.length, self.rng = x, fit, length, rng

    def __call__(self, count: int) -> FloatStack:
        fit, lags = self.fit, self.fit.lags
        first = self.rng.integers(0, len(self.x) - lags + 1, count)
        path = np.empty((count, *self.x.shape))
        path[:, :lags] = self.x[first[:, None] + np.arange(lags)]
        path[:, lags:] = fit.residuals[_rows(len(fit.residuals), self.length, self.rng, count)]
        slope = fit.stacked.T
        for t in range(lags, len(self.x)):
            path[:, t] += fit.intercept + path[:, t - lags : t].reshape(count, -1) @ slope
        return path


class _Apart:
    """Paths (count, T, N) of series that know nothing of each other but how loud a time is."""

    def __init__(
        self, x: FloatMatrix, fits: list[Autoregression], rng: np.random.Generator
    ) -> None:
        self.x, self.rng = x, rng
        self.slope = np.stack([fit.stacked[0] for fit in fits], axis=1)  # (lags, N)
        self.level = np.array([fit.intercept[0] for fit in fits])
        self.residuals = np.stack([fit.residuals[:, 0] for fit in fits], axis=1)

    def __call__(self, count: int) -> FloatStack:
        lags = len(self.slope)
        path = np.empty((count, *self.x.shape))
        path[:, :lags] = self.x[:lags]
        for each in path:
            each[lags:] = flipped(self.residuals, self.rng)
        for t in range(lags, len(self.x)):
            path[:, t] += self.level + (path[:, t - lags : t] * self.slope).sum(axis=1)
        return path


class _Redone:
    """Paths (count, T, N) that went through what made the series as well."""

    def __init__(
        self, redraw: Callable[[int], FloatStack], again: Redone, used: BoolColumn
    ) -> None:
        self.redraw, self.again, self.used = redraw, again, used

    def __call__(self, count: int) -> FloatStack:
        path = self.redraw(count)
        wide = np.zeros((*path.shape[:2], len(self.used)))
        wide[:, :, self.used] = path
        return self.again(wide)[:, :, self.used]


def _tables(
    redraw: Callable[[int], FloatStack],
    draws: int,
    lags: int,
    horizon: int,
    estimator: Estimator,
    scheme: Scheme,
) -> Iterator[FloatMatrix]:
    """Tables of rebuilt series; those that are not stationary or have none are passed over."""
    for begun in range(0, draws, _BATCH):
        for path in redraw(min(_BATCH, draws - begun)):
            rows = side_by_side(np.ascontiguousarray(path), lags)
            solved = solve_sums(Sums.of(rows), path.shape[1], estimator)
            if solved.reason or explosive(solved.stacked):
                continue
            shares = variance_shares(solved.stacked, solved.covariance, horizon, scheme)
            if not np.isnan(shares).any():
                yield shares


def _rows(rows: int, block: float, rng: np.random.Generator, count: int) -> Codes:
    return np.stack([stationary_indices(rows, block, rng) for _ in range(count)])


def _length(block: float | None, rows: int) -> float:
    return float(max(rows ** (1.0 / 3.0), 1.0)) if block is None else block


def _used(x: Any, lags: int) -> tuple[tuple[str, ...], FloatMatrix]:
    verdict = complete_series(x, lags)
    given = matrix("x", x, missing=True)[:, verdict.keep]
    return verdict.reasons, np.ascontiguousarray(given)


def _judge(draws: int, level: float) -> None:
    within("level", level, 0.0, 1.0)
    if draws < 20:
        raise EstimationError(f"draws was {draws}; quantiles need at least 20")


# ---- what the draws say


def _bands(fit: Connectedness, tables: FloatMatrix, draws: int, level: float) -> ConnectednessBands:
    used = fit.used
    read = [summary(shares) for shares in tables]
    to, from_ = np.array([r[0] for r in read]), np.array([r[1] for r in read])
    total = np.array([r[2] for r in read])
    ends = _reflected(np.array([fit.total]), total[:, None], level, 0.0, 1.0)
    low, high = float(ends[0, 0]), float(ends[1, 0])
    bias = float(total.mean()) - fit.total
    return ConnectednessBands(
        fit=fit,
        centred=min(max(fit.total - bias, low), high),
        total=(low, high),
        to=_wide(used, _reflected(fit.to[used], to, level, 0.0, np.inf)),
        from_=_wide(used, _reflected(fit.from_[used], from_, level, 0.0, 1.0)),
        net=_wide(used, _reflected(fit.net[used], to - from_, level, -1.0, np.inf)),
        bias=bias,
        draws=len(tables),
        lost=draws - len(tables),
        status="",
    )


def _reflected(
    estimate: FloatColumn, drawn: FloatMatrix, level: float, least: float, most: float
) -> FloatMatrix:
    low, high = band(drawn, level, around=estimate)
    return np.clip([low, high], least, most)


def _wide(used: NDArray[np.bool_], ends: FloatMatrix) -> FloatMatrix:
    wide = np.full((2, len(used)), np.nan)
    wide[:, used] = ends
    return frozen(wide)


def _lost(draws: int, kept: int) -> str:
    return f"only {kept} of {draws} draws gave a table: too close to not being stationary"


def _no_bands(fit: Connectedness, lost: int, status: str) -> ConnectednessBands:
    nothing = float("nan")
    wide = frozen(np.full((2, len(fit.left_out)), np.nan))
    return ConnectednessBands(
        fit, nothing, (nothing, nothing), wide, wide, wide, nothing, 0, lost, status
    )


def _no_null(fit: Connectedness, lost: int, status: str) -> ConnectednessNull:
    nothing = float("nan")
    empty = frozen(np.empty(0))
    return ConnectednessNull(fit, nothing, nothing, nothing, nothing, empty, lost, status)
