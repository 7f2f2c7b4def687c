"""Correlation that moves: Engle's DCC, and Aielli's cDCC, which is the one that can be trusted.

Rows are instants, oldest first; columns are series; NaN is a value that was not observed. Each
series is first divided by its own volatility (`garch`), then one pair of numbers, the same for
all pairs of series, says how fast correlations follow the news and how slowly they forget it:

    Q_t = (1 - a - b) S + a z*_{t-1} z*_{t-1}' + b Q_{t-1}

R_t is Q_t over the roots of its diagonal; z* is z for DCC, z times those roots for cDCC.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from undertow.econometrics.checks import (
    BoolColumn,
    FloatColumn,
    FloatMatrix,
    frozen,
    matrix,
    screen,
)
from undertow.econometrics.garch import GarchFit, garch
from undertow.errors import EstimationError
from undertow.kernels import recursions as kernel

_WHOLE = 30  # series; above, the likelihood is that of neighbouring pairs
_LEAST = 100  # values a series must have
_EDGE = 1e-4  # an `a` under this moves no correlation
_PERSISTENCE = 0.9999
_SINGLE = 1e-8  # a correlation matrix with a root under this is that of fewer series
_FLOOR = 1e-4  # least root that a matrix put together from pairs with gaps may have
_CHUNK = 64  # rows of matrices held at once while walking along the path
_NO_NEWS = "no dynamics: a is at 0, correlations are constant"


@dataclass(frozen=True, slots=True, eq=False)
class DccFit:
    """Correlations of every row, made when asked for: the fit itself holds (time, series) only.

    Row t is what was known at row t - 1; `forecast` is the row after the data. `a` and `b` are
    NaN where a status says that there is no fit; a series with a reason has NaN throughout.
    """

    a: float  # how much one row of news moves correlations
    b: float  # how much of yesterday's stays
    target: FloatMatrix  # (N, N): where correlations return to
    loglikelihood: float  # of the standardised series; of pairs, if composite
    constant_loglikelihood: float  # the same where nothing moves: a = b = 0
    z: FloatMatrix  # (T, N): each series over its own volatility
    volatility: FloatMatrix  # (T, N)
    next_volatility: FloatColumn  # (N,): of the row after the data
    margins: tuple[GarchFit, ...]  # (N,); empty when z was given
    reasons: tuple[str, ...]  # (N,): why a series was left out; empty where kept
    corrected: bool
    composite: bool
    status: str  # empty when a and b were found inside their bounds

    @property
    def gain(self) -> float:
        """Twice what moving correlations add to the log-likelihood; under 6 is little evidence.

        (5 % of chi-squared(2), a cautious yardstick as a = 0 is on the edge; a sum over pairs
        has no such law.)
        """
        return 2.0 * (self.loglikelihood - self.constant_loglikelihood)

    def at(self, row: int) -> FloatMatrix:
        """The correlation matrix of one row, (N, N); row T is the forecast, -1 the last of data."""
        rows = len(self.z)
        if not -rows <= row <= rows:
            raise EstimationError(f"row was {row}; it must lie in [{-rows}, {rows}]")
        place = row + rows if row < 0 else row
        found: FloatMatrix = self.path(place, place + 1)[0]
        return found

    def path(self, first: int = 0, last: int | None = None) -> FloatMatrix:
        """Correlation matrices of rows [first, last), (rows, N, N); all rows of data by default.

        Takes 8 N^2 bytes a row: 60 series and 2,000 rows are 58 MB. See `walk` for less.
        """
        end = len(self.z) if last is None else last
        if not 0 <= first < end <= len(self.z) + 1:
            raise EstimationError(
                f"rows were [{first}, {end}); they must lie in [0, {len(self.z) + 1})"
            )
        parts = []
        for begin, block in self._blocks(end):
            if begin + len(block) > first:
                parts.append(block[max(first - begin, 0) :])
        return np.concatenate(parts)

    def walk(self) -> Iterator[FloatMatrix]:
        """Correlation matrices of the rows of data one after another, few in memory at once."""
        for _, block in self._blocks(len(self.z)):
            yield from block

    def mean_off_diagonal(self) -> FloatColumn:
        """Mean correlation of all pairs of kept series, (T + 1,); the forecast last."""
        kept = self.kept()
        n = int(kept.sum())
        if n < 2:
            return np.full(len(self.z) + 1, np.nan)
        means = [
            (block[:, kept][:, :, kept].sum(axis=(1, 2)) - n) / (n * (n - 1))
            for _, block in self._blocks(len(self.z) + 1)
        ]
        return np.concatenate(means)

    def pair(self, i: int, j: int) -> FloatColumn:
        """Correlation of two series, (T + 1,); the forecast last."""
        n = len(self.reasons)
        if not (0 <= i < n and 0 <= j < n):
            raise EstimationError(f"pair was {i}, {j}; columns are 0 to {n - 1}")
        return np.concatenate([block[:, i, j] for _, block in self._blocks(len(self.z) + 1)])

    def forecast(self) -> FloatMatrix:
        """The correlation matrix expected for the row after the data."""
        return self.at(len(self.z))

    def covariance_forecast(self) -> FloatMatrix:
        """The covariance matrix expected for the row after the data, in the units of the series."""
        return np.asarray(self.forecast() * np.outer(self.next_volatility, self.next_volatility))

    def kept(self) -> BoolColumn:
        """Which series are in the fit."""
        return np.array([not reason for reason in self.reasons], dtype=np.bool_)

    def _blocks(self, rows: int) -> Iterator[tuple[int, FloatMatrix]]:
        """The path in pieces, with the row that each begins at; NaN for series left out."""
        kept = self.kept()
        fitted = bool(kept.sum() > 1) and not math.isnan(self.a)
        z, target = np.ascontiguousarray(self.z[:, kept]), self.target[np.ix_(kept, kept)]
        q = np.array(target)
        for begin in range(0, rows, _CHUNK):
            length = min(_CHUNK, rows - begin)
            block = np.full((length, len(kept), len(kept)), np.nan)
            if fitted:
                inner = np.empty((length, len(z.T), len(z.T)))
                kernel.correlation_path(z[begin:], target, self.a, self.b, self.corrected, q, inner)
                block[np.ix_(np.arange(length), kept, kept)] = inner
            yield begin, block


def dcc(
    x: ArrayLike,
    *,
    corrected: bool = True,
    target: ArrayLike | None = None,
    asymmetric: bool = False,
    mean: bool = True,
    presample: str = "mean",
    composite: bool | None = None,
    standardised: bool = False,
) -> DccFit:
    """Fit dynamic conditional correlations in steps: volatilities, then target, then (a, b).

    cDCC (Aielli 2013) unless `corrected` is False: in Engle's DCC the target is not what the
    recursion returns to, so it is estimated with bias when a is large. The target is the
    correlation of z* (which for cDCC is worked out anew for each (a, b) tried), or the `target`
    given: a shrunk or factor correlation where series are many for the rows. The likelihood is
    that of all series together up to 30, above the sum over neighbouring pairs (`composite`):
    the matrix of hundreds is never inverted, and a is not pressed towards 0. `standardised`
    takes x as z already.

    A missing value counts as expected, given what was seen at the same instant, and not in the
    likelihood; gaps and late starts are fine. A series that cannot be used (under 100 values,
    constant, a copy) is left out with its reason. `asymmetric`, `mean` and `presample` are those
    of `garch`.

    One (a, b) for all pairs averages fast and slow ones. Asynchronous closes bias all
    correlations down. Errors of the first step are not counted in the second.

    References
    ----------
    Engle (2002), J. Business and Economic Statistics 20; Aielli (2013), same journal 31; Engle,
    Ledoit and Wolf (2019), same journal 37; Pakel, Shephard, Sheppard and Engle (2021), same
    journal 39.
    """
    values = matrix("x", x, rows=2, columns=2, missing=True)
    wanted = None if target is None else _check_target(target, values.shape[1])
    reasons = list(screen(values, least=_LEAST, gaps=1.0, late=1.0).reasons)
    margins: tuple[GarchFit, ...] = ()
    if standardised:
        z, volatility, ahead = values, np.ones_like(values), np.ones(values.shape[1])
    else:
        margins = tuple(
            garch(column, asymmetric=asymmetric, mean=mean, presample=presample)
            for column in values.T
        )
        z = np.column_stack([fit.standardised for fit in margins])
        volatility = np.sqrt(np.column_stack([fit.variance for fit in margins]))
        ahead = np.sqrt(np.array([fit.next_variance for fit in margins]))
    kept = np.array([not reason for reason in reasons], dtype=np.bool_)
    z = np.where(kept, z, np.nan)
    pairs = int(kept.sum()) > _WHOLE if composite is None else composite
    inner = None if wanted is None else wanted[np.ix_(kept, kept)]
    a, b, found, (logs, still), status = _fit(
        np.ascontiguousarray(z[:, kept]), inner, corrected=corrected, composite=pairs
    )
    whole = np.full((len(kept), len(kept)), np.nan)
    whole[np.ix_(kept, kept)] = found
    return DccFit(
        a, b, frozen(whole), logs, still, frozen(z), frozen(volatility), frozen(ahead), margins,
        tuple(reasons), corrected, pairs, status,
    )  # fmt: skip


_SINGULAR = "series explain each other wholly: give a shrunk `target`, or `composite=True`"
_NO_LOGS = (math.nan, math.nan)
Found = tuple[float, float, FloatMatrix, tuple[float, float], str]


def _fit(z: FloatMatrix, target: FloatMatrix | None, *, corrected: bool, composite: bool) -> Found:
    """The best (a, b) for standardised series, its target and likelihood, and a status."""
    n = z.shape[1]
    if n < 2:
        return math.nan, math.nan, np.full((n, n), np.nan), _NO_LOGS, f"{n} usable series"
    plain = _correlation(z)
    if not composite and target is None and np.linalg.eigvalsh(plain).min() < _SINGLE:
        return math.nan, math.nan, plain, _NO_LOGS, _SINGULAR
    fixed = target
    if fixed is None and not corrected:
        fixed = _correlation(z - np.nanmean(z, axis=0))

    def aim(a: float, b: float) -> FloatMatrix:
        return _target(z, a, b) if fixed is None else fixed

    def pairs(a: float, b: float) -> float:
        beside = _neighbours(z, a, b) if fixed is None else np.diag(fixed, 1).copy()
        return float(kernel.pair_likelihood(z, beside, a, b, corrected))

    def whole(a: float, b: float) -> float:
        return float(kernel.whole_likelihood(z, aim(a, b), a, b, corrected))

    a, b, logs, status = _climb(pairs, _best(pairs, _GRID))
    if not composite:
        a, b, logs, status = _climb(whole, _best(whole, [(a, b), (0.02, 0.95), (0.05, 0.88)]))
    if not math.isfinite(logs):
        return math.nan, math.nan, aim(0.0, 0.0), _NO_LOGS, _SINGULAR
    still = (pairs if composite else whole)(0.0, 0.0)
    if a < _EDGE:
        a, b, logs, status = 0.0, 0.0, still, _NO_NEWS
    return a, b, aim(a, b), (logs, still), status


_GRID = [(a, p - a) for p in (0.7, 0.9, 0.97, 0.99) for a in (0.01, 0.03, 0.08)]


def _best(
    likelihood: Callable[[float, float], float], starts: list[tuple[float, float]]
) -> tuple[float, float]:
    values = [likelihood(a, b) for a, b in starts]
    return starts[int(np.argmax(np.where(np.isfinite(values), values, -np.inf)))]


def _climb(
    likelihood: Callable[[float, float], float], start: tuple[float, float]
) -> tuple[float, float, float, str]:
    """The top near `start`, by a simplex on the logits of a + b and of a's share of it."""

    def split(u: FloatColumn) -> tuple[float, float]:
        p = _PERSISTENCE / (1.0 + math.exp(-u[0]))
        share = 1.0 / (1.0 + math.exp(-u[1]))
        return p * share, p * (1.0 - share)

    def loss(u: FloatColumn) -> float:
        if np.abs(u).max() > 30.0:
            return math.inf
        value = likelihood(*split(u))
        return -value if math.isfinite(value) else math.inf

    p = sum(start) / _PERSISTENCE
    share = start[0] / sum(start)
    first = np.clip([math.log(p / (1.0 - p)), math.log(share / (1.0 - share))], -15.0, 15.0)
    simplex = first + 0.3 * np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    if not math.isfinite(loss(first)):
        return *start, math.nan, ""
    found = optimize.minimize(
        loss,
        first,
        method="Nelder-Mead",
        options={"initial_simplex": simplex, "xatol": 1e-5, "fatol": 1e-7, "maxiter": 400},
    )
    a, b = split(found.x)
    status = "" if found.success else f"did not converge: {str(found.message).lower()}"
    if a + b > _PERSISTENCE - _EDGE:
        status = "a + b is at its bound, 1: correlations have no level to return to"
    return a, b, -float(found.fun), status


def _target(z: FloatMatrix, a: float, b: float) -> FloatMatrix:
    """Correlation of z* at (a, b): what makes the recursion return to what was seen."""
    scale = np.empty_like(z)
    kernel.own_scale(z, a, b, scale)
    return _correlation(z * scale)


def _neighbours(z: FloatMatrix, a: float, b: float) -> FloatColumn:
    """Correlation of z* of each column with the next."""
    scale = np.empty_like(z)
    kernel.own_scale(z, a, b, scale)
    news = z * scale
    both = ~np.isnan(news[:, :-1] + news[:, 1:])
    left, right = np.where(both, news[:, :-1], 0.0), np.where(both, news[:, 1:], 0.0)
    sizes = np.sqrt((left * left).sum(axis=0) * (right * right).sum(axis=0))
    return np.asarray((left * right).sum(axis=0) / np.where(sizes > 0.0, sizes, 1.0))


def _correlation(z: FloatMatrix) -> FloatMatrix:
    """Correlation about zero over the rows a pair shares, made positive where gaps break it."""
    seen = ~np.isnan(z)
    filled = np.where(seen, z, 0.0)
    squares = (filled * filled).T @ seen.astype(np.float64)  # of i, over the rows that j has
    sizes = np.sqrt(squares * squares.T)
    found = filled.T @ filled / np.where(sizes > 0.0, sizes, 1.0)
    np.fill_diagonal(found, 1.0)
    if seen.all():
        return np.asarray(found)
    roots, vectors = np.linalg.eigh(found)
    if roots.min() < _FLOOR:
        found = (vectors * np.maximum(roots, _FLOOR)) @ vectors.T
        found /= np.sqrt(np.outer(np.diag(found), np.diag(found)))
    return np.asarray(found)


def _check_target(target: ArrayLike, n: int) -> FloatMatrix:
    given = matrix("target", target)
    if given.shape != (n, n):
        raise EstimationError(f"target is {given.shape[0]} by {given.shape[1]}; x has {n} series")
    if np.abs(given - given.T).max() > 1e-8 or np.abs(np.diag(given) - 1.0).max() > 1e-8:
        raise EstimationError(
            "target is no correlation matrix", hint="make it symmetric with ones on its diagonal"
        )
    if np.linalg.eigvalsh(given).min() < -1e-10:
        raise EstimationError(
            "target is not positive semi-definite", hint="use the nearest correlation matrix"
        )
    return (given + given.T) / 2.0
