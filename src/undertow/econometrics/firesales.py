"""Spillovers of forced sales between balance sheets, in one round and to the end.

Rows of `held` are holders, columns assets, in currency; what is short or owed is negative.
`linear_spillover` is that of Greenwood, Landier and Thesmar: everybody returns to its leverage by
closing what it holds pro rata, prices answer in a straight line. `overlap` is that of Cont and
Schaanning: how much of one holder's portfolio a sale of another's would move.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen
from undertow.errors import EstimationError


@dataclass(frozen=True, eq=False)
class Spillover:
    """What one round of sales costs; losses are negative."""

    equity: FloatColumn  # by holder
    direct: FloatColumn  # by holder: first loss over its equity
    sales: FloatColumn  # by asset, in currency; negative where sold
    indirect: FloatColumn  # by holder: loss from all sales over its equity
    systemic: FloatColumn  # by holder: what its sales cost everybody, over all equity
    closed: FloatColumn  # by holder: share of what it has after the shock that it closes
    asked: FloatColumn  # by holder: the same at full speed and before any cap

    @property
    def vulnerability(self) -> float:
        """What all sales cost everybody, over all equity."""
        return float(self.systemic.sum())

    @property
    def total_direct(self) -> float:
        """First losses of everybody, over all equity."""
        return float(self.direct @ self.equity / self.equity.sum())


def linear_spillover(
    held: ArrayLike,
    equity: ArrayLike,
    shock: ArrayLike,
    impact: ArrayLike,
    *,
    target: ArrayLike | None = None,
    speed: float = 1.0,
    capped: bool = False,
    losers: bool = False,
) -> Spillover:
    """One round of sales by holders who return to their leverage, with straight price impact.

    `shock` is each asset's return, `impact` the relative fall of its price per currency sold.
    `target` is gross exposure over equity less one (of who is long only: debt over equity) that
    holders return to; as it is now unless given, and `speed` the share of the way there that they
    go in the round. A first loss is no more than the equity. With `capped`, nobody closes more than
    it has, nor opens more, and no price falls or rises by more than all of it. With `losers`, only
    who lost in the first round acts, and only what it loses by all sales is counted: the gains of
    who stands on the other side are no comfort to it.

    Raises
    ------
    EstimationError
        When shapes disagree, a holder has no equity or an impact is negative.

    References
    ----------
    Greenwood, Landier and Thesmar (2015), "Vulnerable banks", Journal of Financial Economics 115.
    """
    h, e = _holdings(held), _column("equity", equity, np.shape(held)[0])
    f, l = _column("shock", shock, h.shape[1]), _column("impact", impact, h.shape[1])
    if (e <= 0.0).any() or (l < 0.0).any():
        raise EstimationError(
            "a holder has no equity or an impact is negative",
            hint="leave out who has none: it has nothing to defend",
        )
    size = np.abs(h)
    gross = size.sum(axis=1)
    share = np.divide(h, gross[:, None], out=np.zeros_like(h), where=gross[:, None] > 0.0)
    debt = (gross - e) / e if target is None else _column("target", target, len(e))
    lost = h @ f
    first = np.maximum(lost, -e)
    # What it holds has grown or shrunk by itself: to be as leveraged as before takes the rest.
    moved = (size @ f) * np.divide(first, lost, out=np.ones_like(e), where=lost != 0.0)
    sold = (1.0 + debt) * first - moved
    if losers:
        sold = np.where(first < 0.0, np.minimum(sold, 0.0), 0.0)
    left = gross + moved
    asked = np.divide(-sold, left, out=np.zeros_like(e), where=left > 0.0)
    sold = speed * sold
    if capped:
        sold = np.clip(sold, -left, left)
    sales = share.T @ sold
    if capped:
        l = np.minimum(l, np.divide(1.0, np.abs(sales), out=np.full_like(l, np.inf),
                                    where=sales != 0.0))  # fmt: skip
    second = h @ (l * sales)
    hit = h[first < 0.0].sum(axis=0) if losers else h.sum(axis=0)
    # what each holder's own sales cost all others and itself
    costs = (hit * l) @ share.T * sold / e.sum()
    closed = np.divide(-sold, left, out=np.zeros_like(e), where=left > 0.0)
    columns = (e, first / e, sales, second / e, np.asarray(costs), closed, asked)
    return Spillover(*map(frozen, columns))


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Why vulnerability is what it is: factors whose product it is, and their share of a change."""

    names: tuple[str, ...]
    factors: FloatColumn

    def change_from(self, other: Decomposition) -> FloatColumn:
        """How much of the change in vulnerability each factor explains, in logs; they add up."""
        return np.log(self.factors) - np.log(other.factors)


FACTORS = ("size", "leverage", "concentration", "illiquidity", "speed")


def decomposed(
    held: ArrayLike,
    equity: ArrayLike,
    shock: ArrayLike,
    impact: ArrayLike,
    speed: float = 1.0,
    *,
    capped: bool = False,
    losers: bool = False,
) -> Decomposition:
    """Vulnerability as size x leverage x concentration x illiquidity x speed.

    Size is all first losses over all equity (assets over equity, times what a unit of them loses),
    leverage what a unit of first losses makes the whole close, illiquidity the impact of selling
    the whole portfolio pro rata, concentration what is left: how much more those who close more
    hold what is illiquid and shocked than the whole does. Speed is the share of what returning to
    the target asks that is closed in the round: `speed`, less what `capped` cuts off. With
    `losers`, the whole is those who lose in the first round, long and short added up.

    Raises
    ------
    EstimationError
        When shapes disagree, or nothing is lost so that nothing can be divided.

    References
    ----------
    Duarte and Eisenbach (2021), "Fire-sale spillovers and systemic risk", Journal of Finance 76.
    """
    h, e = _holdings(held), _column("equity", equity, np.shape(held)[0])
    f, l = _column("shock", shock, h.shape[1]), _column("impact", impact, h.shape[1])
    found = linear_spillover(h, e, f, l, speed=speed, capped=capped, losers=losers)
    worse = h @ f < 0.0 if losers else np.ones(len(e), dtype=np.bool_)
    size, own = np.abs(h[worse]), e[worse]
    whole = float(size.sum())
    if whole <= 0.0:
        raise EstimationError("nothing is lost in the first round, so nothing can be divided")
    portfolio = size.sum(axis=0) / whole
    first = -float((h[worse] @ f).sum()) / whole
    # Of who is long, (A - E) / E a unit of loss; of who is short, (A + E) / E.
    answer = (
        whole / float(own.sum()) + float((size @ f).sum()) / (whole * first) if first > 0.0 else 0.0
    )
    illiquid = float((portfolio**2 * l).sum()) * whole
    held_on = np.abs(h).sum(axis=1)
    asked, done = float(found.asked @ held_on), float(found.closed @ held_on)
    lost = -found.vulnerability
    if min(first, answer, illiquid, lost, asked, done) <= 0.0:
        raise EstimationError("nothing is lost in the first round, so nothing can be divided")
    pace = done / asked
    scale = whole / float(e.sum()) * first
    rest = lost / (scale * answer * illiquid * pace)
    return Decomposition(FACTORS, frozen(np.array([scale, answer, rest, illiquid, pace])))


def overlap(held: ArrayLike, depth: ArrayLike) -> FloatMatrix:
    """Liquidity-weighted overlap of portfolios: sum over assets of H_n H_m / D.

    What n loses when m sells everything, each asset's price falling by its sale over its depth.

    Raises
    ------
    EstimationError
        When shapes disagree or a depth is not positive where somebody holds.

    References
    ----------
    Cont and Schaanning (2019), "Monitoring indirect contagion", Journal of Banking and Finance 104.
    """
    h = _holdings(held)
    d = _column("depth", depth, h.shape[1])
    used = np.abs(h).sum(axis=0) > 0.0
    if (d[used] <= 0.0).any():
        raise EstimationError("an asset that is held has no depth", hint="leave it out, and say so")
    scaled = h[:, used] / np.sqrt(d[used])
    return frozen(scaled @ scaled.T)


def contagion_index(overlaps: ArrayLike) -> tuple[float, FloatColumn]:
    """Largest eigenvalue of an overlap matrix, and each holder's part in it (they add up to 1).

    The indirect contagion index of Cont and Schaanning: who is in the middle of common holdings.
    """
    matrix = np.asarray(overlaps, dtype=np.float64)
    values, vectors = np.linalg.eigh(matrix)
    lead = np.abs(vectors[:, -1])
    return float(values[-1]), frozen(lead / lead.sum())


def endogenous_index(overlaps: ArrayLike, closed: ArrayLike) -> tuple[float, FloatColumn]:
    """The overlap that a scenario sets in motion: its largest eigenvalue, and holders' parts.

    What n loses when m closes the share c_m of what it has is overlap_nm c_m. That matrix has the
    eigenvalues of sqrt(c_n) overlap_nm sqrt(c_m), which is symmetric; those who close nothing have
    no part. An endogenous risk index after Cont and Schaanning (2019): spillovers across
    portfolios that arise from deleveraging in a stress scenario.

    Raises
    ------
    EstimationError
        When a share that is closed is negative, or they are not one for each holder.
    """
    matrix = np.asarray(overlaps, dtype=np.float64)
    share = _column("closed", closed, len(matrix))
    if (share < 0.0).any():
        raise EstimationError("closed holds a negative share", hint="give 0 of who closes nothing")
    root = np.sqrt(share)
    if not root.any() or not matrix.any():
        return 0.0, frozen(np.zeros(len(matrix)))
    return contagion_index(root[:, None] * matrix * root)


def cosine(held: ArrayLike) -> FloatMatrix:
    """Cosine similarity of portfolios, 0 to 1 where nothing is short; 0 of who holds nothing."""
    h = _holdings(held)
    size = np.sqrt((h * h).sum(axis=1))
    unit = np.divide(h, size[:, None], out=np.zeros_like(h), where=size[:, None] > 0.0)
    return frozen(np.clip(unit @ unit.T, -1.0, 1.0))


def _holdings(held: ArrayLike) -> FloatMatrix:
    h = np.asarray(held, dtype=np.float64)
    if h.ndim != 2 or h.size == 0 or not np.isfinite(h).all():
        raise EstimationError("held must be a finite matrix of holders by assets")
    return h


def _column(name: str, values: ArrayLike, count: int) -> FloatColumn:
    column = np.asarray(values, dtype=np.float64)
    if column.shape != (count,) or not np.isfinite(column).all():
        raise EstimationError(f"{name} must be {count} finite numbers")
    return column
