"""What one trade gets: a swap against a pool, and a walk through the levels of a book.

A cascade sells into many places at once through the impact kernels; here the same kernels answer
for a single venue, by its own rules of fee and rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import inf, isfinite
from typing import Any

import numpy as np

from undertow.errors import RuleError
from undertow.kernels import impact
from undertow.state.arrays import FloatColumn, frozen

# The kernel as plain Python, which takes fractions; it has no twin where numba is switched off.
_ON_FRACTIONS = getattr(impact.constant_product, "py_func", impact.constant_product)
_FEE_DIGITS = 10**9  # a fee is the decimal that it is written as


@dataclass(frozen=True, slots=True)
class Swap:
    """What a swap paid and where it left the price."""

    amount_out: int  # raw units
    price_after: float  # raw units in for one raw unit out


def swap(amount_in: int, reserve_in: int, reserve_out: int, *, fee: float = 0.003) -> Swap:
    """Swap against a constant-product pool, to the raw unit.

    The fee is kept from what comes in, and stays in the pool; what is paid is rounded down. The
    arithmetic is in fractions, so that no unit of a chain's large integers is lost.

    Raises
    ------
    RuleError
        When an amount is negative, a reserve is empty or the fee is not below 1.

    References
    ----------
    Adams, Zinsmeister and Robinson (2020), Uniswap v2 core, section 3.2.1.
    """
    if amount_in < 0 or reserve_in <= 0 or reserve_out <= 0:
        raise RuleError(
            f"amount_in was {amount_in}, the reserves {reserve_in} and {reserve_out}",
            hint="give raw units: an amount of 0 or more, reserves above 0",
        )
    if not 0.0 <= fee < 1.0:
        raise RuleError(f"fee was {fee!r}; it is a share from 0 to below 1", hint="0.003 is 0.3 %")
    kept = 1 - Fraction(fee).limit_denominator(_FEE_DIGITS)
    _, area = _ON_FRACTIONS(amount_in * kept, Fraction(reserve_in))
    paid = int(area * reserve_out / reserve_in)
    return Swap(paid, (reserve_in + amount_in) / (reserve_out - paid))


@dataclass(frozen=True, slots=True)
class Fill:
    """What an order got from the levels that are there."""

    filled_size: float
    filled_notional: float
    vwap: float  # 0 where nothing was filled, as are the next two
    worst_price: float
    slippage: float  # cost against mid, as a share of it
    unfilled_size: float  # 0 of an order in money
    unfilled_notional: float  # 0 of an order in base units


@dataclass(frozen=True, eq=False)
class OrderBook:
    """The visible levels of one book, best first."""

    bid: FloatColumn
    bid_size: FloatColumn
    ask: FloatColumn
    ask_size: FloatColumn

    @classmethod
    def from_levels(cls, bids: Any, asks: Any) -> OrderBook:
        """Read pairs of price and size, in any order.

        Raises
        ------
        RuleError
            When a side is empty or no list of pairs, a price or size is impossible, or bids cross
            asks.
        """
        sides = [_side("bids", bids, -1.0), _side("asks", asks, 1.0)]
        (bid, bid_size), (ask, ask_size) = sides
        if bid[0] >= ask[0]:
            raise RuleError(
                f"the book is crossed: best bid {bid[0]:g}, best ask {ask[0]:g}",
                hint="take bids and asks of one instant",
            )
        return cls(bid, bid_size, ask, ask_size)

    @property
    def mid(self) -> float:
        """Half way between best bid and best ask."""
        return float(0.5 * (self.bid[0] + self.ask[0]))

    def sell(self, *, size: float | None = None, notional: float | None = None) -> Fill:
        """Sell `size` base units, or until `notional` is raised, into the bids.

        Raises
        ------
        RuleError
            When not exactly one of the two is given, or it is negative or not finite.
        """
        return _fill(self.bid, self.bid_size, self.mid, -1.0, size, notional)

    def buy(self, *, size: float | None = None, notional: float | None = None) -> Fill:
        """Buy `size` base units, or for `notional`, from the asks.

        Raises
        ------
        RuleError
            When not exactly one of the two is given, or it is negative or not finite.
        """
        return _fill(self.ask, self.ask_size, self.mid, 1.0, size, notional)


def _side(name: str, levels: Any, sign: float) -> tuple[FloatColumn, FloatColumn]:
    rows = np.asarray(levels, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != 2 or not len(rows):
        raise RuleError(f"{name} had the shape {rows.shape}", hint="give pairs of price and size")
    if not np.isfinite(rows).all() or (rows[:, 0] <= 0.0).any() or (rows[:, 1] < 0.0).any():
        raise RuleError(f"{name} hold a price or size that cannot be", hint="price > 0, size >= 0")
    rows = rows[np.argsort(sign * rows[:, 0], kind="stable")]
    return frozen(rows[:, 0].copy()), frozen(rows[:, 1].copy())


def _fill(
    price: FloatColumn,
    levels: FloatColumn,
    mid: float,
    sign: float,
    size: float | None,
    notional: float | None,
) -> Fill:
    wanted = size if notional is None else notional
    if (size is None) == (notional is None) or wanted is None:
        raise RuleError("an order is of a size or of a notional", hint="give one of the two")
    if not isfinite(wanted) or wanted < 0.0:
        raise RuleError(f"the order was {wanted!r}", hint="give a finite amount of 0 or more")
    most_size = inf if size is None else float(size)
    most_money = inf if notional is None else float(notional)
    filled, money, worst = impact.walk(price, levels, most_size, most_money)
    vwap = money / filled if filled > 0.0 else 0.0
    return Fill(
        filled_size=filled,
        filled_notional=money,
        vwap=vwap,
        worst_price=worst,
        slippage=sign * (vwap / mid - 1.0) if filled > 0.0 else 0.0,
        unfilled_size=0.0 if size is None else most_size - filled,
        unfilled_notional=0.0 if notional is None else most_money - money,
    )
