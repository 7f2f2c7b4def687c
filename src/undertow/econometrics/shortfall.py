"""What a node loses when the system does, and how much capital it would then lack.

Returns are simple, oldest first, and keep their sign: a fall is negative, and so is a marginal
expected shortfall. What is asked of equity (`lrmes`, `srisk`) is a loss, and positive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special

from undertow.econometrics import bootstrap
from undertow.econometrics.checks import FloatColumn, frozen, paired, series, within
from undertow.errors import EstimationError


@dataclass(frozen=True, slots=True)
class MarginalShortfall:
    """A node's mean return on the market's worst days: negative where it falls with it."""

    mes: float  # NaN where a reason stands
    threshold: float  # the market's q-quantile
    days: int  # rows strictly below it
    rows: int  # with both seen
    band: tuple[float, float] | None  # None without `rng`
    reason: str  # empty where there is a number


def mes(
    node: ArrayLike,
    market: ArrayLike,
    q: float = 0.05,
    *,
    rng: np.random.Generator | None = None,
    reps: int = 999,
    block: float | None = None,
    level: float = 0.9,
) -> MarginalShortfall:
    """Mean return of a node on days when the market is strictly below its `q`-quantile (type 7).

    With `rng`, a percentile band from a stationary bootstrap of whole rows (mean run `block`;
    None: as long as the worst days cluster), threshold drawn anew each time. Rows with a missing
    value are left out.

    It is exposure, not contribution: what the system does to the node. At q = 0.05 a year of days
    has 13 rows below; days of other volatility are all worth the same.

    References
    ----------
    Acharya, Pedersen, Philippon and Richardson (2017), "Measuring systemic risk", Review of
    Financial Studies 30.
    """
    within("q", q, 0.0, 1.0)
    within("level", level, 0.0, 1.0)
    a, m = paired("node", node, "market", market)
    if len(a) < 2:
        return MarginalShortfall(
            math.nan, math.nan, 0, len(a), None, f"{len(a)} rows, 2 are needed"
        )
    threshold = float(np.quantile(m, q))
    days = int((m < threshold).sum())
    if days == 0:
        reason = "no market return lies strictly below its quantile: ties, or too few rows"
        return MarginalShortfall(math.nan, threshold, 0, len(a), None, reason)
    band = None if rng is None else _mes_band(a, m, q, rng, reps, block, level)
    return MarginalShortfall(_mean_below(a, m, q), threshold, days, len(a), band, "")


def _mean_below(node: FloatColumn, market: FloatColumn, q: float) -> float:
    below = market < np.quantile(market, q)
    return float(node[below].mean()) if below.any() else math.nan


def _mes_band(
    node: FloatColumn, market: FloatColumn, q: float, rng: np.random.Generator,
    reps: int, block: float | None, level: float,
) -> tuple[float, float]:  # fmt: skip
    run = block
    if run is None:
        marks = (market < np.quantile(market, q)).astype(np.float64)
        run = bootstrap.block_lengths(marks[:, None]).joint()
    draws = np.empty(reps)
    for r in range(reps):
        rows = bootstrap.stationary_indices(len(node), run, rng)
        draws[r] = _mean_below(node[rows], market[rows], q)
    low, high = bootstrap.band(draws, level)
    return float(low), float(high)


@dataclass(frozen=True, slots=True, eq=False)
class SesLine:
    """How realised losses in a past crisis went with MES and leverage before it."""

    constant: float
    mes: float
    leverage: float
    r2: float  # 1 where there are no more firms than coefficients
    rows: int
    reason: str  # empty where there is a line; else its numbers are NaN

    def score(self, mes: ArrayLike, leverage: ArrayLike) -> FloatColumn:
        """Systemic expected shortfall: the two, weighted by their coefficients over their sum.

        It ranks nodes; it is no loss in money. Where the coefficients differ in sign their sum
        may be near 0 and the score means nothing.

        Raises
        ------
        EstimationError
            When there is no line, or its coefficients sum to 0.
        """
        total = self.mes + self.leverage
        if self.reason or total == 0.0:
            raise EstimationError(f"no score: {self.reason or 'the coefficients sum to 0'}")
        m, lvg = np.asarray(mes, dtype=np.float64), np.asarray(leverage, dtype=np.float64)
        return np.asarray((self.mes * m + self.leverage * lvg) / total)


def ses_line(mes: ArrayLike, leverage: ArrayLike, realised: ArrayLike) -> SesLine:
    """Least squares of `realised` crisis returns on a constant, MES and leverage before, by firm.

    References
    ----------
    Acharya and others (2017); the weighting is that of Bisias, Flood, Lo and Valavanis (2012).
    """
    columns = [series(name, x, rows=1) for name, x in
               (("mes", mes), ("leverage", leverage), ("realised", realised))]  # fmt: skip
    if len({len(column) for column in columns}) > 1:
        raise EstimationError("mes, leverage and realised differ in length", hint="one row a firm")
    design = np.column_stack([np.ones(len(columns[0])), columns[0], columns[1]])
    size = np.sqrt((design * design).sum(axis=0))
    rank = np.linalg.matrix_rank(design / np.where(size > 0.0, size, 1.0), tol=1e-10)
    if rank < 3:
        nan, rows = math.nan, len(design)
        why = (
            f"too short: {rows} firms, 3 are needed"
            if rows < 3
            else "mes, leverage and a constant make up each other"
        )
        return SesLine(nan, nan, nan, nan, rows, why)
    coef = np.linalg.lstsq(design, columns[2], rcond=None)[0]
    away = columns[2] - design @ coef
    base = columns[2] - columns[2].mean()
    r2 = 1.0 - float(away @ away) / float(base @ base) if base.any() else 1.0
    return SesLine(float(coef[0]), float(coef[1]), float(coef[2]), r2, len(design), "")


def lrmes_by_mes(mes: ArrayLike, *, days: float = 18.0) -> FloatColumn:
    """Loss of a node over six months in which the market falls 40 %, from its daily MES, roughly.

    1 - exp(days * mes), `mes` a return (negative) on days when the market falls by more than 2 %.
    The 18 was fitted to simulations of American banks up to 2011 (Acharya, Engle and Richardson
    2012, Am. Econ. Rev. P&P 102): an order of magnitude, not an estimate; see `longrun`.
    """
    return np.asarray(1.0 - np.exp(days * np.asarray(mes, dtype=np.float64)))


def lrmes_by_beta(beta: ArrayLike, *, fall: float = 0.4) -> FloatColumn:
    """Loss of a node while the market falls by `fall`, from its beta: 1 - exp(beta log(1 - fall)).

    V-Lab's shortcut without simulation; tails and moving correlations are left out.
    """
    within("fall", fall, 0.0, 1.0)
    return np.asarray(1.0 - np.exp(np.asarray(beta, dtype=np.float64) * math.log1p(-fall)))


@dataclass(frozen=True, slots=True, eq=False)
class CapitalShortfall:
    """Capital that nodes would lack, had the system its crisis. Negative is to spare."""

    srisk: FloatColumn  # (nodes,) in the unit of equity; not floored
    leverage: FloatColumn  # (nodes,) (debt + equity) / equity; infinite without equity
    share: FloatColumn  # (nodes,) of all that is lacking; zeros where nothing is
    total: float  # what is lacking, those with capital to spare not counted against it


def srisk(
    equity: ArrayLike, debt: ArrayLike, lrmes: ArrayLike, *, k: float = 0.08
) -> CapitalShortfall:
    """Capital each node lacks if its equity loses the share `lrmes`: k D - (1 - k)(1 - lrmes) W.

    With LVG = (D + W)/W that is W (k LVG + (1 - k) lrmes - 1). `k` is the capital asked for, per
    unit of assets. A node whose equity is already negative loses no share of it: it lacks k D -
    (1 - k) W.

    References
    ----------
    Brownlees and Engle (2017), "SRISK: a conditional capital shortfall measure of systemic risk",
    Review of Financial Studies 30.
    """
    within("k", k, 0.0, 1.0)
    w, d, loss = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (equity, debt, lrmes))
    )
    for name, column in (("equity", w), ("debt", d), ("lrmes", loss)):
        series(name, column, rows=1)
    if (d < 0.0).any() or (loss > 1.0).any():
        name, row = ("debt", d < 0.0) if (d < 0.0).any() else ("lrmes", loss > 1.0)
        raise EstimationError(
            f"{name} of node {int(np.argmax(row))} is out of range",
            hint="debt is 0 or more; lrmes is a share of equity that is lost, at most 1",
        )
    kept = w * (1.0 - np.where(w > 0.0, loss, 0.0))
    lacking = k * d - (1.0 - k) * kept
    floored = np.maximum(lacking, 0.0)
    total = float(floored.sum())
    leverage = np.full(w.shape, math.inf)
    np.divide(d + w, w, out=leverage, where=w > 0.0)
    share = floored / total if total > 0.0 else np.zeros_like(floored)
    return CapitalShortfall(frozen(lacking), frozen(leverage), frozen(share), total)


def venue_shortfall(
    liabilities: ArrayLike,
    lrmes: ArrayLike,
    *,
    fund: ArrayLike = 0.0,
    reserve: ArrayLike = 0.0,
    junior: ArrayLike = 0.0,
    k: float = 0.08,
) -> CapitalShortfall:
    """`srisk` for venues and protocols: what stands before their users, against what they owe them.

    Equity is insurance `fund` + protocol `reserve` + `junior` capital, debt is the users'
    `liabilities`, `k` the reserve ratio asked for, and `lrmes` the share of that equity lost in
    the crisis. The price of a protocol's token is *not* its equity: give what can be paid out.
    A fund held in the venue's own token loses more than the market does; so should `lrmes`.
    """
    parts = [np.asarray(part, dtype=np.float64) for part in (fund, reserve, junior)]
    for name, part in zip(("fund", "reserve", "junior"), parts, strict=True):
        if (part < 0.0).any():
            raise EstimationError(f"{name} is negative", hint="a deficit belongs in liabilities")
    return srisk(parts[0] + parts[1] + parts[2], liabilities, lrmes, k=k)


@dataclass(frozen=True, slots=True)
class ContingentClaims:
    """A node's debt seen as safe debt less a put that its creditors, or a backer, have written."""

    assets: float  # implied value; NaN where a reason stands, as all below
    volatility: float  # implied, of assets, per year
    put: float  # the whole expected loss of creditors, today
    cds_put: float  # the part that the market for protection prices
    contribution: float  # put - cds_put: what is left to whoever stands behind the node
    guarantee: float  # contribution / put
    reason: str  # empty where there is a solution


def contingent_claims(
    equity: float, volatility: float, rate: float, barrier: float, years: float, spread: float
) -> ContingentClaims:
    """Creditors' expected loss implied by equity, against the part that credit spreads show.

    Equity is a call on assets A with strike `barrier` D: E = A N(d1) - D e^(-rT) N(d2) and
    E s_E = A s_A N(d1) are solved for A and s_A. put = D e^(-rT) N(-d2) - A N(-d1);
    cds_put = (1 - exp(-spread (D/(D e^(-rT) - put) - 1) T)) D e^(-rT), `spread` a fraction.

    The difference is read as the state's implicit guarantee; it is also every error of the model
    and every premium in spreads, and may be negative. Long maturities and high volatilities, as
    in crypto, stretch the model far beyond where it was tried.

    References
    ----------
    Merton (1974), J. Finance 29; Gray and Jobst (2010, 2013), IMF WP 13/54; as computed by Bisias,
    Flood, Lo and Valavanis (2012), "A survey of systemic risk analytics".
    """
    named = (("equity", equity), ("volatility", volatility), ("barrier", barrier), ("years", years))
    for name, value in named:
        within(name, value, 0.0, math.inf)
    within("spread", spread, 0.0, math.inf, closed=True)
    within("rate", rate, -math.inf, math.inf)
    safe = barrier * math.exp(-rate * years)

    def claim(sigma: float) -> tuple[float, float, float]:
        """Assets that give this equity at a volatility, with N(d1) and N(d2)."""
        width = sigma * math.sqrt(years)

        def weights(assets: float) -> tuple[float, float]:
            d1 = math.log(assets / safe) / width + 0.5 * width
            return float(special.ndtr(d1)), float(special.ndtr(d1 - width))

        def gap(assets: float) -> float:
            up, exercised = weights(assets)
            return assets * up - safe * exercised - equity

        top = equity + safe
        assets = (
            top if gap(top) <= 0.0 else float(optimize.brentq(gap, equity, top, xtol=1e-14 * top))
        )
        return (assets, *weights(assets))

    def miss(sigma: float) -> float:
        assets, up, _ = claim(sigma)
        return sigma * assets * up / equity - volatility

    least = 1e-6 * volatility
    if miss(least) > 0.0:
        nan = math.nan
        return ContingentClaims(
            nan, nan, nan, nan, nan, nan, "assets hardly move: no volatility fits"
        )
    sigma = float(optimize.brentq(miss, least, volatility, xtol=1e-15, rtol=1e-14))
    assets, up, exercised = claim(sigma)
    put = max(safe * (1.0 - exercised) - assets * (1.0 - up), 0.0)
    cds_put = -math.expm1(-spread * (barrier / (safe - put) - 1.0) * years) * safe
    share, reason = 1.0 - cds_put / put if put > 0.0 else math.nan, ""
    if put <= 1e-14 * safe:
        share, reason = math.nan, "creditors lose nothing to speak of: no share is guaranteed"
    return ContingentClaims(assets, sigma, put, cds_put, put - cds_put, share, reason)
