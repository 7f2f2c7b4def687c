"""What a node loses over weeks in which the market falls far, by simulating both together.

Column 0 is the node, column 1 the market. Returns are simple, oldest first; the models run on log
returns. Losses are positive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from undertow.econometrics.checks import (
    FloatColumn,
    FloatMatrix,
    frozen,
    matrix,
    paired,
    series,
    within,
)
from undertow.econometrics.dcc import DccFit, dcc
from undertow.econometrics.garch import GarchFit, garch
from undertow.errors import EstimationError

_PERCENT = 100.0  # margins are fitted to log returns times this, which likelihoods like
_FEW = 30  # crises; with fewer the band is a guess


@dataclass(frozen=True, slots=True)
class Volatility:
    """h' = omega + (alpha + gamma [e < 0]) e^2 + beta h, e = r - mu: where a series stands now."""

    mu: float
    omega: float
    alpha: float
    gamma: float
    beta: float
    variance: float  # of the first row to come

    @classmethod
    def of(cls, fit: GarchFit) -> Volatility:
        """The law and the state of a fitted series."""
        return cls(fit.mu, fit.omega, fit.alpha, fit.gamma, fit.beta, fit.next_variance)


@dataclass(frozen=True, slots=True)
class Link:
    """How the correlation of node and market moves: Q' = (1 - a - b) S + a z z' + b Q."""

    a: float
    b: float
    target: float  # correlation that it returns to
    correlation: float  # of the first row to come
    corrected: bool = False  # cDCC: z times the root of Q's diagonal


@dataclass(frozen=True, slots=True, eq=False)
class LongRunShortfall:
    """Share of its value that a node loses while the market falls by more than `crisis`.

    Numbers are NaN where there was no crisis to look at; `status` says so.
    """

    lrmes: float  # a loss is positive
    band: tuple[float, float]  # of the simulation alone: parameters are taken as true
    crises: int  # simulated paths on which the market fell so far
    reps: int
    horizon: int
    crisis: float  # market return; negative
    losses: FloatColumn  # (crises,) of the node on those paths
    status: str  # empty where there are 30 crises or more and no fit sits on a bound


def lrmes(
    node: ArrayLike,
    market: ArrayLike,
    *,
    rng: np.random.Generator,
    horizon: int = 22,
    crisis: float = -0.1,
    reps: int = 100_000,
    corrected: bool = True,
) -> LongRunShortfall:
    """Fit node and market, simulate both `horizon` rows on, and look where the market crashed.

    GJR-GARCH(1,1,1) for each and cDCC for the pair (Engle's DCC unless `corrected`), on log
    returns; innovations are drawn from those of the past. Crises like 2008 are asked for as
    (126, -0.4), a month as (22, -0.1). See `simulate_lrmes` for fits of another kind. Rows with a
    missing value are left out. A parameter on a bound is told in `status`, beside the number.

    References
    ----------
    Brownlees and Engle (2017), Review of Financial Studies 30; the simulation as V-Lab describes.
    """
    a, m = paired("node", node, "market", market)
    for name, column in (("node", a), ("market", m)):
        if (column <= -1.0).any():
            raise EstimationError(
                f"{name} has a return of -1 or less at row {int(np.argmax(column <= -1.0))}",
                hint="give simple returns as fractions; a total loss has no log return",
            )
    logs = _PERCENT * np.log1p(np.column_stack([a, m]))
    margins = [garch(logs[:, j], asymmetric=True) for j in (0, 1)]
    for name, fit in zip(("node", "market"), margins, strict=True):
        if math.isnan(fit.loglikelihood):
            return _nothing(horizon, crisis, reps, f"{name}: {fit.status}")
    z = np.column_stack([fit.standardised for fit in margins])
    pair = dcc(z, standardised=True, corrected=corrected)
    if math.isnan(pair.a):
        reason = "; ".join(reason for reason in pair.reasons if reason) or pair.status
        return _nothing(horizon, crisis, reps, f"correlation: {reason}")
    rho = pair.pair(0, 1)
    found = simulate_lrmes(
        z, rho[:-1], Volatility.of(margins[0]), Volatility.of(margins[1]), _link(pair, rho),
        rng=rng, horizon=horizon, crisis=crisis, reps=reps, scale=_PERCENT,
    )  # fmt: skip
    said = (("node", margins[0]), ("market", margins[1]), ("correlation", pair))
    words = [f"{name}: {fit.status}" for name, fit in said if fit.status]
    return replace(found, status="; ".join([found.status] * bool(found.status) + words))


def _link(pair: DccFit, rho: FloatColumn) -> Link:
    return Link(pair.a, pair.b, float(pair.target[0, 1]), float(rho[-1]), pair.corrected)


def simulate_lrmes(
    z: ArrayLike,
    rho: ArrayLike,
    node: Volatility,
    market: Volatility,
    link: Link,
    *,
    rng: np.random.Generator,
    horizon: int = 22,
    crisis: float = -0.1,
    reps: int = 100_000,
    scale: float = 1.0,
    level: float = 0.9,
) -> LongRunShortfall:
    """The same from fitted laws: `z` (T, 2) standardised residuals, `rho` (T,) their correlation.

    The node's residual is split into its share of the market's and the rest, (z_n - rho z_m) /
    sqrt(1 - rho^2); rows of both are drawn with replacement and run through the recursions from
    today's state. Laws are of log returns times `scale`. The average is over paths on which the
    market's simple return is under `crisis`, so a crisis that history does not hint at has few
    paths: `crises`, and the band, say how few.
    """
    values = matrix("z", z, rows=2, columns=2)
    past = series("rho", rho, rows=2)
    if values.shape != (len(past), 2):
        raise EstimationError(
            f"z is {values.shape[0]} by {values.shape[1]} and rho has {len(past)} rows",
            hint="give node and market, and the correlation of each row",
        )
    within("crisis", crisis, -1.0, 0.0)
    within("level", level, 0.0, 1.0)
    if horizon < 1 or reps < 1:
        raise EstimationError(f"horizon was {horizon} and reps {reps}; both must be 1 or more")
    if (np.abs(past) >= 1.0).any() or not abs(link.correlation) < 1.0:
        return _nothing(horizon, crisis, reps, "node and market move as one: no part is the node's")
    alone = (values[:, 0] - past * values[:, 1]) / np.sqrt(1.0 - past * past)
    shocks = np.column_stack([alone, values[:, 1]])
    paths = _simulate(shocks, node, market, link, horizon, reps, rng) / scale
    with np.errstate(over="ignore"):
        returns = np.expm1(paths)
    losses = -returns[returns[:, 1] < crisis, 0]
    return _judge(losses, horizon, crisis, reps, level)


def _simulate(
    shocks: FloatMatrix, node: Volatility, market: Volatility, link: Link,
    horizon: int, reps: int, rng: np.random.Generator,
) -> FloatMatrix:  # fmt: skip
    """Sums of log returns over the horizon, (reps, 2)."""
    laws = (node, market)
    total = np.zeros((reps, 2))
    h = [np.full(reps, law.variance) for law in laws]
    qn, qm, cross = np.ones(reps), np.ones(reps), np.full(reps, link.correlation)
    rest = 1.0 - link.a - link.b
    for _ in range(horizon):
        drawn = shocks[rng.integers(len(shocks), size=reps)]
        rho = np.clip(cross / np.sqrt(qn * qm), -1.0, 1.0)
        z = (rho * drawn[:, 1] + np.sqrt(1.0 - rho * rho) * drawn[:, 0], drawn[:, 1])
        for j, law in enumerate(laws):
            e = np.sqrt(h[j]) * z[j]
            total[:, j] += law.mu + e
            h[j] = law.omega + (law.alpha + law.gamma * (e < 0.0)) * e * e + law.beta * h[j]
        news = (z[0] * np.sqrt(qn), z[1] * np.sqrt(qm)) if link.corrected else z
        qn = rest + link.a * news[0] * news[0] + link.b * qn
        qm = rest + link.a * news[1] * news[1] + link.b * qm
        cross = rest * link.target + link.a * news[0] * news[1] + link.b * cross
    return total


def _judge(
    losses: FloatColumn, horizon: int, crisis: float, reps: int, level: float
) -> LongRunShortfall:
    count = len(losses)
    if count == 0:
        return _nothing(horizon, crisis, reps, f"no crisis on {reps} paths: raise reps or crisis")
    mean, band = float(losses.mean()), (math.nan, math.nan)
    if count > 1:
        reach = float(special.stdtrit(count - 1, 0.5 + level / 2.0))
        reach *= float(losses.std(ddof=1)) / math.sqrt(count)
        band = (mean - reach, min(mean + reach, 1.0))
    status = f"{count} crises on {reps} paths: raise reps" if count < _FEW else ""
    return LongRunShortfall(mean, band, count, reps, horizon, crisis, frozen(losses), status)


def _nothing(horizon: int, crisis: float, reps: int, reason: str) -> LongRunShortfall:
    nan = math.nan
    return LongRunShortfall(nan, (nan, nan), 0, reps, horizon, crisis, frozen(np.empty(0)), reason)
