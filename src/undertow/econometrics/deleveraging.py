"""Balance sheets that sell what others hold too, step by step, to keep their ratios.

Rows are holders, columns tradable assets. A step: what was put up for sale is sold, all at once,
half on the way to the new price; then who has less equity over assets than it must defaults, and
sells all next step; who has less than its buffer sells pro rata until it is at its target, paying
back loans with cash first. Nobody withdraws money and nobody owes to another here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from undertow.econometrics.checks import BoolColumn, FloatColumn, FloatMatrix, frozen
from undertow.errors import EstimationError


@dataclass(frozen=True, eq=False)
class Sheets:
    """What holders have and owe; prices are 1 before any shock."""

    units: FloatMatrix  # (holders, assets)
    cash: FloatColumn
    illiquid: FloatColumn  # that nobody buys in time
    loan: FloatColumn  # that can be paid back early
    other: FloatColumn  # and what cannot

    def __post_init__(self) -> None:
        """Refuse what is no balance sheet."""
        columns = (self.cash, self.illiquid, self.loan, self.other)
        if self.units.ndim != 2 or any(c.shape != self.units.shape[:1] for c in columns):
            raise EstimationError("units must be (holders, assets), the others one number a holder")
        for x in (self.units, *columns):
            if not np.isfinite(x).all() or (x < 0.0).any():
                raise EstimationError("a balance sheet holds a number that is negative or none")


@dataclass(frozen=True, eq=False)
class FireSale:
    """How sales went, a row a step."""

    prices: FloatMatrix  # (steps, assets)
    sold: FloatMatrix  # (steps, assets): units, so far
    share_sold: FloatColumn  # of all units, so far
    defaults: BoolColumn  # (steps, holders): who defaulted in the step
    equity: FloatColumn  # by holder, in the end; below 0 where nothing is left for owners

    @property
    def defaulted(self) -> BoolColumn:
        """By holder."""
        return np.asarray(self.defaults.any(axis=0))


def fire_sale(
    sheets: Sheets,
    shock: ArrayLike,
    impact: ArrayLike,
    *,
    least: float = 0.03,
    buffer: float = 0.04,
    target: float = 0.05,
    steps: int = 20,
) -> FireSale:
    """Follow sales from a `shock` (share of each price) for so many steps.

    `impact` is by asset the fall of log price when all of it is sold. Ratios are equity over
    assets: below `least` a holder defaults, below `buffer` it returns to `target`; with a buffer of
    1 it always does.

    Raises
    ------
    EstimationError
        When shapes disagree, a shock takes all of a price, or a ratio is none.
    """
    f, beta = (np.broadcast_to(np.asarray(x, dtype=np.float64), sheets.units.shape[1:])
               for x in (shock, impact))  # fmt: skip
    if not ((f < 1.0) & np.isfinite(f)).all() or not ((beta >= 0.0) & np.isfinite(beta)).all():
        raise EstimationError("a shock takes all of a price, or an impact is negative")
    if not 0.0 <= least <= target or target <= 0.0 or not least <= buffer or steps < 1:
        raise EstimationError("ratios must be least <= buffer and least <= target, target above 0")
    units, cash, loan = (x.astype(np.float64) for x in (sheets.units, sheets.cash, sheets.loan))
    whole, price = units.sum(axis=0), 1.0 - f
    listed, failed = np.zeros_like(units), np.zeros(len(cash), dtype=np.bool_)
    prices, sold, defaults = [], [np.zeros(units.shape[1])], []
    for _ in range(steps):
        quantity = listed.sum(axis=0)
        share = np.divide(quantity, whole, out=np.zeros_like(whole), where=whole > 0.0)
        after = price * np.exp(-beta * share)
        cash = cash + listed @ (0.5 * (price + after))
        units, price = units - listed, after
        assets = cash + units @ price + sheets.illiquid
        equity = assets - loan - sheets.other
        # without assets nothing is left to defend: any debt is more than all there is
        ratio = np.divide(equity, assets, out=np.where(equity < 0.0, -1.0, 1.0), where=assets > 0.0)
        fails = ~failed & (ratio < least)
        acts = ~failed & ~fails & (ratio < buffer)
        excess = np.where(acts, np.maximum(assets - equity / target, 0.0), 0.0)
        repaid = np.minimum(np.minimum(excess, cash), loan)
        cash, loan, excess = cash - repaid, loan - repaid, excess - repaid
        value = units @ price
        part = np.divide(excess, value, out=np.zeros_like(value), where=value > 0.0)
        failed |= fails
        listed = np.where(fails, 1.0, np.minimum(part, 1.0))[:, None] * units
        prices.append(price)
        sold.append(sold[-1] + quantity)
        defaults.append(fails)
    done = np.array(sold[1:])
    total = max(float(whole.sum()), 1e-300)
    left = cash + units @ price + sheets.illiquid - loan - sheets.other
    return FireSale(
        prices=frozen(np.array(prices)), sold=frozen(done),
        share_sold=frozen(done.sum(axis=1) / total), defaults=frozen(np.array(defaults)),
        equity=frozen(left),
    )  # fmt: skip
