"""Volatility that comes in clusters: GARCH(1,1), and GJR, where falls raise it more than rises.

A series holds one value a row, oldest first; NaN is a value that was not observed: it counts as
the square that was expected of it, and not in the likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from undertow.econometrics.checks import BoolColumn, FloatColumn, FloatMatrix, frozen, series
from undertow.errors import EstimationError
from undertow.kernels import recursions as kernel

NAMES = ("mu", "omega", "alpha", "gamma", "beta", "dof")

_LEAST = 50  # values; below, a variance that moves cannot be told from one that does not
_PERSISTENCE = 1.0 - 1e-6  # most that alpha + gamma/2 + beta may be
_DOF = (2.05, 500.0)
_EDGE = 1e-5  # nearer than this to a bound is on it


@dataclass(frozen=True, slots=True, eq=False)
class GarchFit:
    """A volatility path and the law behind it, in the units of the series.

    h_t = omega + (alpha + gamma [e_{t-1} < 0]) e_{t-1}^2 + beta h_{t-1}, e_t = x_t - mu.
    `status` is empty for a fit inside its bounds. Where a parameter sits on one, the status says
    which and its error is NaN; where there is no fit at all (short, constant), all is NaN.
    """

    mu: float
    omega: float
    alpha: float
    gamma: float  # 0 in a symmetric fit
    beta: float
    dof: float  # of Student's law; infinite for the normal
    loglikelihood: float
    variance: FloatColumn  # (T,): of each row, known the row before
    next_variance: float  # of the row after the data
    residuals: FloatColumn  # (T,): x - mu; NaN where missing
    covariance: FloatMatrix  # (6, 6), robust, in the order of NAMES; NaN where not estimated
    plain_covariance: FloatMatrix  # (6, 6), the inverse Hessian alone: right if the law is
    status: str

    @property
    def std_errors(self) -> FloatColumn:
        """Robust errors in the order of `NAMES` (Bollerslev and Wooldridge 1992)."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))

    @property
    def plain_errors(self) -> FloatColumn:
        """Errors from the curvature of the likelihood alone: too small when tails are fat."""
        return np.asarray(np.sqrt(np.diag(self.plain_covariance)))

    @property
    def standardised(self) -> FloatColumn:
        """Residuals over their volatility: what is left is to have variance 1."""
        return np.asarray(self.residuals / np.sqrt(self.variance))

    @property
    def persistence(self) -> float:
        """Share of a variance shock that is still there a row later."""
        return self.alpha + self.gamma / 2.0 + self.beta

    @property
    def half_life(self) -> float:
        """Rows until half of a variance shock is gone; 0 where nothing persists."""
        p = self.persistence
        return math.log(0.5) / math.log(p) if p > 0.0 else (0.0 if p == 0.0 else math.nan)

    @property
    def long_run_variance(self) -> float:
        """Where variance returns to."""
        return self.omega / (1.0 - self.persistence)

    def forecast(self, horizon: int) -> FloatColumn:
        """Expected variances of the next `horizon` rows, one each; their sum is that of a sum."""
        if horizon < 1:
            raise EstimationError(f"horizon was {horizon}; it must be 1 or more")
        decay = self.persistence ** np.arange(horizon)
        away = self.next_variance - self.long_run_variance
        return np.asarray(self.long_run_variance + decay * away)


def garch(
    x: ArrayLike,
    *,
    asymmetric: bool = False,
    mean: bool = True,
    student: bool = False,
    presample: str = "mean",
) -> GarchFit:
    """Fit GARCH(1,1), or GJR(1,1,1) if `asymmetric`, by maximum likelihood.

    `mean` False takes the mean as zero; `student` estimates the tails as well (dof at most 500).
    `presample` is what stands for the square and variance before the first row: `mean`, the mean
    squared residual (Fiorentini, Calzolari and Panattoni 1996), or `backcast`, the first 75
    squares weighted by 0.94^t (as the Python package arch). It moves the third digit.

    Weekend gaps, overlapping returns and one jump all look like clusters; persistence near 1
    more often means a break in the level of variance than long memory.

    References
    ----------
    Bollerslev (1986), J. Econometrics 31; Glosten, Jagannathan and Runkle (1993), J. Finance 48;
    Bollerslev (1987), Rev. Econ. Stat. 69, for Student's law; Bollerslev and Wooldridge (1992),
    Econometric Reviews 11, for the errors; Fiorentini, Calzolari and Panattoni (1996), J. Applied
    Econometrics 11.
    """
    values = series("x", x, rows=1, missing=True)
    if presample not in ("mean", "backcast"):
        raise EstimationError(f"presample was {presample!r}; it may be 'mean' or 'backcast'")
    seen = ~np.isnan(values)
    count = int(seen.sum())
    if count < _LEAST:
        return _none(values, f"too short: {count} values, {_LEAST} are needed")
    if float(np.ptp(values[seen])) <= 1e-12 * float(np.abs(values[seen]).max()):
        return _none(values, "constant")
    centre = float(values[seen].mean()) if mean else 0.0
    scale = float(np.sqrt(np.mean((values[seen] - centre) ** 2)))
    free = (mean, True, True, asymmetric, True, student)
    model = _Model((values - centre) / scale, free, presample)
    return _fit(model, centre, scale)


class _Model:
    """The likelihood of one series, about its mean and in units of its spread, and its slopes."""

    def __init__(self, x: FloatColumn, free: tuple[bool, ...], presample: str) -> None:
        self.x, self.seen = x, ~np.isnan(x)
        self.count = int(self.seen.sum())
        self.free = np.array(free)
        self.backcast = _backcast(x[self.seen]) if presample == "backcast" else None
        self.variance = np.empty(len(x) + 1)
        self.slopes = np.empty((len(x) + 1, 5))

    def residuals(self, theta: FloatColumn) -> FloatColumn:
        return np.asarray(self.x - theta[0])

    def run(self, theta: FloatColumn) -> FloatColumn:
        """Fill in variances and their slopes; return the residuals."""
        _, omega, alpha, gamma, beta, _ = theta
        e = self.residuals(theta)
        first, slope = self.backcast, 0.0
        if first is None:
            known = e[self.seen]
            first, slope = float(known @ known) / self.count, -2.0 * float(known.mean())
        kernel.garch_variance(e, omega, alpha, gamma, beta, first, self.variance)
        kernel.garch_slopes(e, alpha, gamma, beta, first, slope, self.variance, self.slopes)
        return e

    def scores(self, theta: FloatColumn) -> tuple[FloatColumn, FloatMatrix]:
        """Log-likelihood of each seen row, and its slopes by all six parameters."""
        e = self.run(theta)[self.seen]
        h = self.variance[:-1][self.seen]
        logs, by_h, by_e, by_dof = (
            _student(e, h, theta[5]) if math.isfinite(theta[5]) else _normal(e, h)
        )
        slopes = np.empty((len(e), 6))
        slopes[:, :5] = by_h[:, None] * self.slopes[:-1][self.seen]
        slopes[:, 0] -= by_e
        slopes[:, 5] = by_dof
        return logs, slopes

    def whole(self, part: FloatColumn, start: FloatColumn) -> FloatColumn:
        """All six parameters, the free ones taken from `part`."""
        theta = start.copy()
        theta[self.free] = part
        return theta


def _normal(e: FloatColumn, h: FloatColumn) -> tuple[FloatColumn, ...]:
    square = e * e / h
    logs = -0.5 * (math.log(2.0 * math.pi) + np.log(h) + square)
    return logs, -0.5 * (1.0 - square) / h, -e / h, np.zeros_like(e)


def _student(e: FloatColumn, h: FloatColumn, dof: float) -> tuple[FloatColumn, ...]:
    """Student's law scaled to variance h; slopes by h, e and dof."""
    square = e * e / h
    inside = 1.0 + square / (dof - 2.0)
    pull = (dof + 1.0) / (dof - 2.0) / inside
    level = (
        special.gammaln((dof + 1.0) / 2.0)
        - special.gammaln(dof / 2.0)
        - 0.5 * math.log(math.pi * (dof - 2.0))
    )
    logs = level - 0.5 * np.log(h) - 0.5 * (dof + 1.0) * np.log(inside)
    by_dof = 0.5 * (
        special.digamma((dof + 1.0) / 2.0) - special.digamma(dof / 2.0) - 1.0 / (dof - 2.0)
        - np.log(inside) + pull * square / (dof - 2.0)
    )  # fmt: skip
    return logs, -0.5 * (1.0 - pull * square) / h, -pull * e / h, by_dof


def _backcast(e: FloatColumn) -> float:
    weights = 0.94 ** np.arange(min(75, len(e)))
    return float(weights @ e[: len(weights)] ** 2 / weights.sum())


def _fit(model: _Model, centre: float, scale: float) -> GarchFit:
    theta, reason = _climb(model, _start(model))
    words = ""
    if theta[2] + max(theta[3], 0.0) < _EDGE:
        model.free = model.free & np.array([True, True, False, False, False, True])
        theta[1:5] = 1.0, 0.0, 0.0, 0.0
        theta, reason = _climb(model, theta)
        words = "no clusters: alpha is at 0, variance is constant"
    held, edges = _held(model, theta)
    words = "; ".join(filter(None, (words, edges)))
    covariances = np.full((2, 6, 6), np.nan)
    if theta[2] + theta[3] / 2.0 + theta[4] > _PERSISTENCE - _EDGE:
        words = "persistence is at its bound, 1: variance has no level to return to"
    elif not reason:
        free = model.free & ~held
        theta, inverse = _polish(model, theta, free)
        slopes = model.scores(theta)[1][:, free]
        covariances[0][np.ix_(free, free)] = inverse @ (slopes.T @ slopes) @ inverse
        covariances[1][np.ix_(free, free)] = inverse
        if not np.isfinite(inverse).all():
            words = "the likelihood is flat at its top: errors do not exist"
    return _wrap(model, theta, covariances, centre, scale, reason or words)


def _start(model: _Model) -> FloatColumn:
    """The best of a few textbook values, at the variance that was seen."""
    best, found = -math.inf, np.zeros(6)
    dof = 8.0 if model.free[5] else math.inf
    for alpha in (0.01, 0.05, 0.1, 0.2):
        for persistence in (0.5, 0.8, 0.95, 0.985):
            gamma = alpha if model.free[3] else 0.0
            theta = np.array([0.0, 1.0 - persistence, alpha - gamma / 2.0, gamma,
                              persistence - alpha, dof])  # fmt: skip
            value = float(model.scores(theta)[0].sum())
            if value > best:
                best, found = value, theta
    return found


def _climb(model: _Model, start: FloatColumn) -> tuple[FloatColumn, str]:
    """The top of the likelihood under its bounds, and why it may not be."""
    free = model.free

    def loss(part: FloatColumn) -> tuple[float, FloatColumn]:
        logs, slopes = model.scores(model.whole(part, start))
        return -float(logs.mean()), -slopes.mean(axis=0)[free]

    # In standard deviations of the series: a mean beyond one of them is a search that got lost.
    lows = np.array([-1.0, 1e-8, 0.0, -1.0, 0.0, _DOF[0]])[free]
    highs = np.array([1.0, 10.0, 1.0, 2.0, 1.0, _DOF[1]])[free]
    weights = np.array([0.0, 0.0, 1.0, 0.5, 1.0, 0.0])[free]
    fall = np.array([0.0, 0.0, 1.0, 1.0, 0.0, 0.0])[free]
    found = optimize.minimize(
        loss,
        start[free],
        jac=True,
        method="SLSQP",
        bounds=list(zip(lows, highs, strict=True)),
        constraints=[
            {
                "type": "ineq",
                "fun": lambda p: _PERSISTENCE - weights @ p,
                "jac": lambda p: -weights,
            },
            {"type": "ineq", "fun": lambda p: fall @ p, "jac": lambda p: fall},
        ],
        options={"maxiter": 500, "ftol": 1e-12},
    )
    theta = model.whole(np.clip(found.x, lows, highs), start)
    if found.success:
        return theta, ""
    worse = not model.scores(theta)[0].sum() >= model.scores(start)[0].sum()
    return start if worse else theta, f"did not converge: {found.message.lower()}"


def _held(model: _Model, theta: FloatColumn) -> tuple[BoolColumn, str]:
    """Which parameters sit on a bound, in words."""
    _, omega, alpha, gamma, beta, dof = theta
    edges = {
        1: (omega < 1e-6, "omega is at 0"),
        2: (alpha < _EDGE, "alpha is at 0: only falls raise variance"),
        3: (alpha + gamma < _EDGE, "alpha + gamma is at 0: falls do not raise variance"),
        4: (beta < _EDGE, "beta is at 0: variance remembers one row only"),
        5: (dof > 0.99 * _DOF[1], "dof is at its bound: tails are no fatter than normal"),
    }
    held = np.zeros(6, dtype=np.bool_)
    words = []
    for place, (on_bound, sentence) in edges.items():
        if on_bound and model.free[place]:
            held[place] = True
            words.append(sentence)
    return held, "; ".join(words)


def _polish(model: _Model, theta: FloatColumn, free: BoolColumn) -> tuple[FloatColumn, FloatMatrix]:
    """A few Newton steps up from a point near the top; the inverse curvature there."""
    best = float(model.scores(theta)[0].sum())
    inverse = np.full((int(free.sum()),) * 2, np.nan)
    for _ in range(4):
        curvature = _curvature(model, theta, free)
        if np.linalg.eigvalsh(curvature).min() <= 0.0:
            return theta, inverse
        inverse = np.linalg.inv(curvature)
        gradient = model.scores(theta)[1].sum(axis=0)[free]
        trial = theta.copy()
        trial[free] += inverse @ gradient
        if not _inside(trial):
            break
        value = float(model.scores(trial)[0].sum())
        if not value >= best - 1e-9:
            break
        theta, best = trial, value
    return theta, inverse


def _inside(theta: FloatColumn) -> bool:
    _, omega, alpha, gamma, beta, dof = theta
    low = min(omega, alpha, alpha + gamma, beta) >= 0.0
    return bool(low and alpha + gamma / 2.0 + beta < _PERSISTENCE and dof > _DOF[0])


def _curvature(model: _Model, theta: FloatColumn, free: BoolColumn) -> FloatMatrix:
    """Minus the second derivatives, from central differences of the exact slopes."""
    places = np.flatnonzero(free)
    rows = []
    for place in places:
        width = 1e-5 * max(abs(theta[place]), 1e-2)
        sides = []
        for sign in (1.0, -1.0):
            moved = theta.copy()
            moved[place] += sign * width
            sides.append(model.scores(moved)[1].sum(axis=0)[free])
        rows.append((sides[1] - sides[0]) / (2.0 * width))
    found = np.array(rows)
    return np.asarray((found + found.T) / 2.0)


def _wrap(
    model: _Model,
    theta: FloatColumn,
    covariances: FloatMatrix,
    centre: float,
    scale: float,
    status: str,
) -> GarchFit:
    """The fit in the units of the series."""
    logs, _ = model.scores(theta)
    units = np.array([scale, scale * scale, 1.0, 1.0, 1.0, 1.0])
    mu, omega, alpha, gamma, beta, dof = (float(v) for v in theta * units)
    variance = model.variance * scale * scale
    return GarchFit(
        centre + mu,
        omega,
        alpha,
        gamma,
        beta,
        dof,
        float(logs.sum()) - model.count * math.log(scale),
        frozen(variance[:-1].copy()),
        float(variance[-1]),
        frozen(model.residuals(theta) * scale),
        frozen(covariances[0] * np.outer(units, units)),
        frozen(covariances[1] * np.outer(units, units)),
        status,
    )


def _none(x: FloatColumn, reason: str) -> GarchFit:
    nothing, unknown = np.full(len(x), np.nan), np.full((6, 6), np.nan)
    return GarchFit(
        *(7 * (math.nan,)), frozen(nothing), math.nan, frozen(nothing.copy()), frozen(unknown),
        frozen(unknown.copy()), reason,
    )  # fmt: skip
