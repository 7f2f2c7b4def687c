"""Spillovers of forced sales between balance sheets, in one round and to the end.

Rows of `held` are holders, columns assets, in currency. `linear_spillover` is that of Greenwood,
Landier and Thesmar: everybody returns to its leverage by selling what it holds pro rata, prices
answer in a straight line. `overlap` is that of Cont and Schaanning: how much of one holder's
portfolio a sale of another's would move.
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
    capped: bool = False,
) -> Spillover:
    """One round of sales by holders who return to their leverage, with straight price impact.

    `shock` is each asset's return, `impact` the relative fall of its price per currency sold.
    `target` is debt over equity that holders return to; as it is now unless given. A first loss is
    no more than the equity. With `capped`, nobody sells more than it holds.

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
    assets = h.sum(axis=1)
    share = np.divide(h, assets[:, None], out=np.zeros_like(h), where=assets[:, None] > 0.0)
    debt = (assets - e) / e if target is None else _column("target", target, len(e))
    floor = np.divide(-e, assets, out=np.zeros_like(e), where=assets > 0.0)
    first = np.maximum(share @ f, floor)
    sold = assets * debt * first
    if capped:
        sold = np.maximum(sold, -assets)
    sales = share.T @ sold
    second = share @ (l * sales)
    # what each holder's own sales cost all others and itself
    costs = (h.sum(axis=0) * l) @ share.T * sold / e.sum()
    return Spillover(
        *map(frozen, (e, assets * first / e, sales, assets * second / e, np.asarray(costs)))
    )


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
) -> Decomposition:
    """Vulnerability as size x leverage x concentration x illiquidity x speed.

    Size is all assets over all equity, leverage the debt over equity of the whole weighted with
    first losses, illiquidity the impact of selling the whole portfolio pro rata, concentration what
    is left: how much more the leveraged hold what is illiquid and shocked than the whole does.
    `speed` is the share of the gap to the target that is closed in the round.

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
    found = linear_spillover(h, e, f, l)
    whole = h.sum()
    portfolio = h.sum(axis=0) / whole
    first = -float((h @ f).sum()) / whole
    leverage = float(whole - e.sum()) / float(e.sum())
    illiquid = float((portfolio**2 * l).sum()) * whole
    if first <= 0.0 or leverage <= 0.0 or illiquid <= 0.0 or found.vulnerability >= 0.0:
        raise EstimationError("nothing is lost in the first round, so nothing can be divided")
    size = whole / float(e.sum()) * first
    rest = -found.vulnerability / (size * leverage * illiquid)
    factors = np.array([size, leverage, rest, illiquid, speed])
    return Decomposition(FACTORS, frozen(factors))


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
