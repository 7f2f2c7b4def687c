"""What a system's bad days look like when one node has a bad day: lines through quantiles.

Rows are instants, oldest first. Returns keep their sign: a loss is negative, and so is every
quantile here (`covar` of -4 is a loss of 4). Quantiles of one series are type 7, as numpy has
them: linear between order statistics.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import linalg, optimize, special

from undertow.econometrics import bootstrap
from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, matrix, series, within
from undertow.errors import EstimationError

_ZERO = 1e-11  # of the data's size: a smaller residual is on the line
_SLOPE = 1e-9  # of the regressors' sum: a smaller slope of the loss is none
_NEAR = 1e-10  # of a regressor's size: less than this left over by the others is rounding


@dataclass(frozen=True, slots=True, eq=False)
class QuantileFit:
    """A line that a share `q` of the rows lies below. NaN where a reason stands."""

    q: float
    coef: FloatColumn  # (k,) the constant first, if there is one
    objective: float  # sum of (q - 1{residual < 0}) residual, at its least
    covariance: FloatMatrix  # (k, k) Powell's sandwich; rows taken as independent
    bandwidth: float  # of the density at the line
    pseudo_r1: float  # 1 - objective / objective of a constant alone; 1 is a perfect line
    unique: bool  # False where another line is as good, or rows that tie leave it open
    residuals: FloatColumn  # (T,) NaN in rows with a missing value
    rows: int  # used
    reason: str  # empty where there is a fit

    @property
    def se(self) -> FloatColumn:
        """Standard errors, for rows that are independent; see `quantile_band` for others."""
        return np.asarray(np.sqrt(np.maximum(np.diag(self.covariance), 0.0)))


def quantile_regression(
    y: ArrayLike, x: ArrayLike, q: float, *, constant: bool = True
) -> QuantileFit:
    """The line below which a share `q` of `y` lies, given the columns of `x`.

    It minimises sum (q - 1{u < 0}) u exactly: from vertex to vertex of the linear program (each
    goes through k rows), down its steepest edge to the lowest point, and by HiGHS where rows tie.
    Errors: q (1-q) D^-1 X'X D^-1 with D = sum phi(u/h)/h x x', h of Hall and Sheather; at q = 0.1
    and 500 normal rows some 13 % too wide, at the median right.

    Near the ends of the distribution few rows decide: at q = 0.01 and 500 rows, five. Lines at
    several `q` may cross. Where `unique` is False compare objectives, not coefficients. Rows with
    a missing value are left out; a regressor that the others make up gives a reason, no fit.

    References
    ----------
    Koenker and Bassett (1978), Econometrica 46; Barrodale and Roberts (1973), SIAM J. Numer.
    Anal. 10; Powell (1991); Hall and Sheather (1988); Koenker and Machado (1999), J. Am. Stat.
    Assoc. 94, for `pseudo_r1`.
    """
    within("q", q, 0.0, 1.0)
    target, design = _design(y, x, constant)
    seen = ~(np.isnan(target) | np.isnan(design).any(axis=1))
    reason = _why_not(design[seen], constant)
    if reason:
        return _no_fit(q, len(target), design.shape[1], int(seen.sum()), reason)
    used, regressors = target[seen], np.ascontiguousarray(design[seen])
    coef, unique = _line(regressors, used, np.ones(len(used)), q)
    if np.isnan(coef).any():
        said = "the linear program was not solved: scale x, or drop what nearly repeats"
        return _no_fit(q, len(target), design.shape[1], len(used), said)
    errors = used - regressors @ coef
    objective, alone = check_loss(errors, q), check_loss(used - _order(used, q), q)
    covariance, width, said = _sandwich(regressors, errors, q)
    residuals = np.full(len(target), np.nan)
    residuals[seen] = errors
    fit_r1 = 1.0 - objective / alone if alone > 0.0 else math.nan
    said = said if alone > 0.0 else "y is constant: pseudo_r1 does not exist"
    return QuantileFit(
        q, frozen(coef), objective, frozen(covariance), width, fit_r1, unique,
        frozen(residuals), len(used), said,
    )  # fmt: skip


def check_loss(errors: FloatColumn, q: float) -> float:
    """The sum of (q - 1{u < 0}) u: what a quantile makes least (Koenker and Bassett 1978)."""
    return float(np.sum(errors * (q - (errors < 0.0))))


def quantile_band(
    y: ArrayLike,
    x: ArrayLike,
    q: float,
    *,
    rng: np.random.Generator,
    reps: int = 499,
    block: float | None = None,
    level: float = 0.9,
    constant: bool = True,
) -> tuple[FloatColumn, FloatColumn, FloatColumn]:
    """Low and high end, and standard error, of each coefficient, when rows depend on each other.

    A stationary bootstrap of whole rows with mean run `block` (None: as long as the rows below
    the line cluster). Draws without a fit are left out; NaN where they are more than half.

    References
    ----------
    Fitzenberger (1998), J. Econometrics 82, for blocks in quantile regression.
    """
    fit = quantile_regression(y, x, q, constant=constant)
    if math.isnan(fit.objective):
        none = np.full(len(fit.coef), np.nan)
        return none, none, none
    target, design = _design(y, x, constant)
    seen = ~np.isnan(fit.residuals)
    target, design = target[seen], np.ascontiguousarray(design[seen])
    run = _tail_run(fit.residuals[seen]) if block is None else float(block)
    draws = np.full((reps, design.shape[1]), np.nan)
    for r in range(reps):
        counts = _drawn(len(target), run, rng)
        if not _why_not(design[counts > 0], constant):
            draws[r] = _line(design, target, counts, q, near=fit.coef)[0]
    low, high = bootstrap.band(draws, level)
    return low, high, np.nanstd(draws, axis=0, ddof=1)


@dataclass(frozen=True, slots=True, eq=False)
class CoVaR:
    """A system's loss quantile when one node is at its own, against when it is at its median.

    Returns keep their sign: losses are negative. NaN where a reason stands.
    """

    q: float
    node_var: float  # the node's q-quantile
    node_median: float
    covar: float  # the system's q-quantile given node_var
    covar_median: float  # and given node_median
    delta: float  # covar - covar_median: what the node's distress adds to the system's
    band: tuple[float, float] | None  # of delta; None without `rng`
    fit: QuantileFit  # system on node
    reason: str


def covar(
    system: ArrayLike,
    node: ArrayLike,
    q: float = 0.05,
    *,
    rng: np.random.Generator | None = None,
    reps: int = 499,
    block: float | None = None,
    level: float = 0.9,
) -> CoVaR:
    """How much lower the system's worst days are when a node has its own worst day.

    system = a + b node + u at quantile q; CoVaR = a + b VaR_q(node), delta = b (VaR_q - VaR_50).
    With `rng` a stationary bootstrap of whole rows draws VaR, median and line anew.

    It is dependence, not cause: it has the sign of b also where both follow a third. Swap the two
    for the node's *exposure* to the system. A node that is part of the system is regressed on
    itself. At q = 0.01 some 3 of 300 rows decide: read the band.

    References
    ----------
    Adrian and Brunnermeier (2016), "CoVaR", American Economic Review 106.
    """
    within("level", level, 0.0, 1.0)
    fit = quantile_regression(system, node, q)
    y, x = _design(system, node, constant=False)
    if x.shape[1] != 1:
        raise EstimationError(
            f"node has {x.shape[1]} columns", hint="give one node; see `covar_path`"
        )
    seen = ~np.isnan(fit.residuals)
    if math.isnan(fit.objective):
        nan = math.nan
        return CoVaR(q, nan, nan, nan, nan, nan, None, fit, fit.reason)
    y, node_seen = y[seen], x[seen, 0]
    var, median = (float(v) for v in np.quantile(node_seen, (q, 0.5)))
    a, b = (float(c) for c in fit.coef)
    band = None if rng is None else _delta_band(y, node_seen, fit, rng, reps, block, level)
    return CoVaR(q, var, median, a + b * var, a + b * median, b * (var - median), band, fit, "")


def _delta_band(
    y: FloatColumn,
    x: FloatColumn,
    fit: QuantileFit,
    rng: np.random.Generator,
    reps: int,
    block: float | None,
    level: float,
) -> tuple[float, float]:
    design = np.column_stack([np.ones(len(x)), x])
    errors = fit.residuals[~np.isnan(fit.residuals)]
    run = _tail_run(errors) if block is None else float(block)
    draws = np.full(reps, np.nan)
    for r in range(reps):
        counts = _drawn(len(y), run, rng)
        if _why_not(design[counts > 0], constant=True):
            continue
        slope = _line(design, y, counts, fit.q, near=fit.coef)[0][1]
        var, median = np.quantile(np.repeat(x, counts.astype(np.int64)), (fit.q, 0.5))
        draws[r] = slope * (var - median)
    low, high = bootstrap.band(draws, level)
    return float(low), float(high)


@dataclass(frozen=True, slots=True, eq=False)
class CoVaRPath:
    """As `CoVaR`, at every row, with quantiles that move with state variables.

    Rows with a missing value, and all rows where a reason stands, are NaN.
    """

    q: float
    node_var: FloatColumn  # (T,)
    node_median: FloatColumn  # (T,)
    covar: FloatColumn  # (T,)
    covar_median: FloatColumn  # (T,)
    delta: FloatColumn  # (T,)
    node_fit: QuantileFit  # node on states, at q
    median_fit: QuantileFit  # node on states, at 1/2
    fit: QuantileFit  # system on node and states, at q: constant, node, states
    reason: str


def covar_path(system: ArrayLike, node: ArrayLike, states: ArrayLike, q: float = 0.05) -> CoVaRPath:
    """CoVaR that moves: the node's quantiles and the system's both depend on state variables.

    node = a + c'M at q and at 1/2 gives VaR(t) and median(t); system = a + b node + c'M at q gives
    CoVaR(t) = a + b VaR(t) + c'M(t) and delta(t) = b (VaR(t) - median(t)). `states` (T, m) must be
    what was known *before* the row, lagged by the caller, as in the paper.

    Everything that moves in delta is the node's own VaR: b is one number. See `covar`.

    References
    ----------
    Adrian and Brunnermeier (2016), section II.
    """
    target, others = _design(system, states, constant=False)
    one = series("node", node, rows=1, missing=True)
    if len(one) != len(target):
        raise EstimationError(
            f"node has {len(one)} rows and system {len(target)}", hint="align them"
        )
    lost = np.isnan(target) | np.isnan(one) | np.isnan(others).any(axis=1)
    masked = np.where(lost, np.nan, one)
    fits = [quantile_regression(masked, others, share) for share in (q, 0.5)]
    fits.append(quantile_regression(target, np.column_stack([masked, others]), q))
    reason = next((f.reason for f in fits if math.isnan(f.objective)), "")
    design = np.column_stack([np.ones(len(one)), others])
    design[lost] = np.nan
    var, median = (design @ fit.coef for fit in fits[:2])
    slope = float(fits[2].coef[1])
    rest = design @ np.delete(fits[2].coef, 1)
    return CoVaRPath(
        q, frozen(var), frozen(median), frozen(rest + slope * var), frozen(rest + slope * median),
        frozen(slope * (var - median)), fits[0], fits[1], fits[2], reason,
    )  # fmt: skip


def _line(
    x: FloatMatrix, y: FloatColumn, weights: FloatColumn, q: float, near: FloatColumn | None = None
) -> tuple[FloatColumn, bool]:
    """Coefficients of the least weighted loss, and whether they are the only ones."""
    used = weights > 0.0
    if not used.all():
        x, y, weights = np.ascontiguousarray(x[used]), y[used], weights[used]
    found = _descend(x, y, weights, q, near)
    return found if found is not None else (_by_program(x, y, weights, q), False)


def _descend(
    x: FloatMatrix, y: FloatColumn, weights: FloatColumn, q: float, near: FloatColumn | None
) -> tuple[FloatColumn, bool] | None:
    """Walk down the edges of the loss; None where ties leave the end unproven."""
    k = x.shape[1]
    basis = _start(x, y, q, near)
    scale = float(np.abs(y).max()) or 1.0
    flat = _SLOPE * float(weights @ np.abs(x).max(axis=1))
    for _ in range(50 * k + 200):
        inverse = np.asarray(np.linalg.inv(x[basis]), dtype=np.float64)
        coef = inverse @ y[basis]
        errors = y - x @ coef
        on = np.abs(errors) <= _ZERO * scale
        on[basis] = True
        slopes = _slopes(x, weights, errors, on, basis, inverse, q)
        at = int(slopes.argmin())
        if slopes.flat[at] >= -flat:
            if int(on.sum()) == k:
                return coef, bool(slopes.min() > flat)
            return (coef, False) if _proven(x, errors, weights, on, q, flat) else None
        sign, leaving = 1.0 - 2.0 * (at // k), at % k
        entering = _lowest(errors, sign * (x @ inverse[:, leaving]), weights, on, slopes.flat[at])
        if entering < 0:
            return None
        basis[leaving] = entering
    return None


def _slopes(
    x: FloatMatrix, weights: FloatColumn, errors: FloatColumn, on: NDArray[np.bool_],
    basis: NDArray[np.int64], inverse: FloatMatrix, q: float,
) -> FloatMatrix:  # fmt: skip
    """How the loss changes along each edge, forwards and backwards: (2, k)."""
    pull = np.where(on, 0.0, weights * (q - (errors < 0.0))) @ x @ inverse
    touched = x[on] @ inverse  # rows on the line, those of the basis among them
    touched[np.abs(touched) < 1e-12] = 0.0
    up, down = np.maximum(touched, 0.0), np.maximum(-touched, 0.0)
    forth = weights[on] @ ((1.0 - q) * up + q * down) - pull
    back = weights[on] @ ((1.0 - q) * down + q * up) + pull
    return np.vstack([forth, back])


def _proven(
    x: FloatMatrix,
    errors: FloatColumn,
    weights: FloatColumn,
    on: NDArray[np.bool_],
    q: float,
    flat: float,
) -> bool:
    """Whether more rows on the line than it needs can hold it there: no direction goes down."""
    pull = np.where(on, 0.0, weights * (q - (errors < 0.0))) @ x
    held = weights[on]
    found = optimize.linprog(
        np.zeros(len(held)), A_eq=x[on].T, b_eq=-pull, method="highs",
        bounds=np.column_stack([(q - 1.0) * held, q * held]),
    )  # fmt: skip
    if found.status != 0:
        return False
    return float(np.abs(x[on].T @ found.x + pull).max()) <= flat


def _lowest(
    errors: FloatColumn,
    move: FloatColumn,
    weights: FloatColumn,
    on: NDArray[np.bool_],
    slope: float,
) -> int:
    """The row at which the loss stops falling along an edge; -1 where it never does."""
    ahead = np.flatnonzero((errors * move > 0.0) & ~on)
    reach = errors[ahead] / move[ahead]
    order = ahead[np.argsort(reach, kind="stable")]
    total = slope + np.cumsum(weights[order] * np.abs(move[order]))
    at = int(np.searchsorted(total, 0.0))
    return int(order[at]) if at < len(order) else -1


def _start(x: FloatMatrix, y: FloatColumn, q: float, near: FloatColumn | None) -> NDArray[np.int64]:
    """Rows of a first line, close to `near` or to least squares moved down to the quantile."""
    rows, k = x.shape
    if near is None:
        fitted = x @ np.linalg.lstsq(x, y, rcond=None)[0]
        errors = y - fitted
        errors = errors - np.quantile(errors, q)
    else:
        errors = y - x @ near
    few = min(rows, 5 * k + 20)
    close = np.argpartition(np.abs(errors), few - 1)[:few]
    size = np.sqrt((x * x).sum(axis=0))
    for pool in (np.sort(close), np.arange(rows)):
        _, r, order = linalg.qr((x[pool] / size).T, mode="economic", pivoting=True)
        diagonal = np.abs(np.diag(r))
        if len(pool) >= k and diagonal[k - 1] > 1e-6 * diagonal[0]:
            break
    return np.asarray(pool[order[:k]], dtype=np.int64)


def _by_program(x: FloatMatrix, y: FloatColumn, weights: FloatColumn, q: float) -> FloatColumn:
    """The same by HiGHS, from the dual: max y'd, X'd = (1 - q) X'w, 0 <= d <= w; or NaN."""
    bounds = np.column_stack([np.zeros(len(y)), weights])
    found = optimize.linprog(
        -y, A_eq=x.T, b_eq=(1.0 - q) * (weights @ x), bounds=bounds, method="highs"
    )
    if found.status != 0:
        return np.full(x.shape[1], np.nan)
    return np.asarray(-found.eqlin.marginals, dtype=np.float64)


def _sandwich(x: FloatMatrix, errors: FloatColumn, q: float) -> tuple[FloatMatrix, float, str]:
    rows, k = x.shape
    share = _hall_sheather(rows, q)
    spread = min(
        float(errors.std(ddof=1)), float(np.subtract(*np.quantile(errors, (0.75, 0.25)))) / 1.34
    )
    width = float(special.ndtri(q + share) - special.ndtri(q - share)) * spread
    if width <= 0.0:
        return np.full((k, k), np.nan), 0.0, "the residuals have no spread: no standard errors"
    density = np.exp(-0.5 * (errors / width) ** 2) / (width * math.sqrt(2.0 * math.pi))
    bread = (x * density[:, None]).T @ x
    if np.linalg.cond(bread) > 1e14:
        return np.full((k, k), np.nan), width, "too few rows near the line: no standard errors"
    half = np.linalg.solve(bread, x.T)
    return q * (1.0 - q) * half @ half.T, width, ""


def _hall_sheather(rows: int, q: float) -> float:
    """Bandwidth as a share of rows, for a 95 % interval; kept inside (0, 1) around q."""
    at = float(special.ndtri(q))
    height = math.exp(-0.5 * at * at) / math.sqrt(2.0 * math.pi)
    z = float(special.ndtri(0.975))
    flatness = 1.5 * height**2 / (2.0 * at * at + 1.0)
    share = float((z * z * flatness / rows) ** (1.0 / 3.0))
    while share >= min(q, 1.0 - q):
        share /= 2.0
    return share


def _order(y: FloatColumn, q: float) -> float:
    """A value that minimises the loss of a constant: an order statistic."""
    k = min(max(math.ceil(q * len(y) - 1e-9), 1), len(y))
    return float(np.partition(y, k - 1)[k - 1])


def _drawn(rows: int, run: float, rng: np.random.Generator) -> FloatColumn:
    """How often each row is in one resample."""
    places = bootstrap.stationary_indices(rows, run, rng)
    return np.asarray(np.bincount(places, minlength=rows), dtype=np.float64)


def _tail_run(errors: FloatColumn) -> float:
    return bootstrap.block_lengths((errors < 0.0).astype(np.float64)[:, None]).joint()


def _design(y: ArrayLike, x: ArrayLike, constant: bool) -> tuple[FloatColumn, FloatMatrix]:
    target = series("y", y, rows=1, missing=True)
    given = np.asarray(x)
    columns = matrix(
        "x", given[:, None] if given.ndim == 1 else given, rows=1, columns=0, missing=True
    )
    if len(columns) != len(target):
        raise EstimationError(
            f"y has {len(target)} rows and x has {len(columns)}", hint="align them row by row"
        )
    return target, np.column_stack([np.ones(len(target)), columns]) if constant else columns


def _why_not(design: FloatMatrix, constant: bool) -> str:
    """Why there is no line, or nothing."""
    rows, k = design.shape
    if rows <= k or k == 0:
        return f"too short: {rows} rows for {k} coefficients"
    size = np.sqrt((design * design).sum(axis=0))
    left = np.abs(np.diag(np.linalg.qr(design / np.where(size > 0.0, size, 1.0), mode="r")))
    for j in np.flatnonzero(left <= _NEAR):
        column = j - 1 if constant else j
        return f"column {column} of x is a combination of the columns before it" + (
            " and the constant" if constant else ""
        )
    return ""


def _no_fit(q: float, total: int, k: int, rows: int, reason: str) -> QuantileFit:
    nan = math.nan
    return QuantileFit(
        q, frozen(np.full(k, nan)), nan, frozen(np.full((k, k), nan)), nan, nan, False,
        frozen(np.full(total, nan)), rows, reason,
    )  # fmt: skip
