"""Options dealers, and how the trades that keep them hedged push with or against the price.

Rows are options. Whoever is long gamma sells what rises and buys what falls, which holds a price;
whoever is short gamma does the opposite. Whether dealers are long or short of an option is read off
the book where it shows customers alone or somebody says who deals, and is an assumption where the
book holds both sides of the option. All forwards of an asset move by one ratio, at volatilities as
they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

from undertow.errors import StateError
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.words import listed
from undertow.rules.portfolio import chain_of
from undertow.state import BoolColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.state.arrays import frozen
from undertow.state.book import OPTION, UNKNOWN_OWNER

_EVEN = 0.01  # of an option's open interest: one that nets to less is there with both its sides
_SEARCHED = np.linspace(-0.6, 1.0, 321)  # moves among which a level without gamma is looked for


class Sign(StrEnum):
    """Who is assumed to be on which side."""

    BOOK = "as customers in the book are signed"
    CALLS_LONG = "customers long calls and short puts"
    PUTS_LONG = "customers short calls and long puts"


@dataclass(frozen=True, eq=False)
class Dealers:
    """What dealers hold of each option."""

    inst: KeyColumn  # codes of instruments
    asset: NDArray[np.int64]  # code of what each is written on
    kind: NDArray[np.int8]  # 1 a call, -1 a put
    forward: FloatColumn
    strike: FloatColumn
    vol: FloatColumn
    tau: FloatColumn  # years
    qty: FloatColumn  # of dealers, signed
    sign: Sign  # the assumption that was used
    both: BoolColumn  # whether the book holds both sides of it, and nobody says who deals
    unknown: int  # options held that lack a forward, a volatility or time: left out

    @classmethod
    def of(cls, crowd: Crowd, sign: Sign = Sign.BOOK, dealers: Iterable[int] = ()) -> Dealers:
        """Read options off a book; `dealers` are the keys of owners who deal.

        Of an option whose both sides are in the book the book does not show how customers are
        signed: where nobody is named they are then assumed to be long calls and short puts.

        Raises
        ------
        StateError
            When a dealer who is named owns nothing in the book.
        """
        book, chain = crowd.snapshot.book, chain_of(crowd.snapshot)
        size = len(chain.kind)
        held = (book.kind == OPTION) & (book.qty != 0.0)
        keys = _known(crowd, dealers)
        shown = held & ~np.isin(book.owners[book.owner], keys)[book.leg_account]

        def added(where: NDArray[np.bool_]) -> FloatColumn:
            total = np.bincount(book.inst[where], book.qty[where], minlength=size)
            return total.astype(np.float64)

        customers = added(shown)
        longs, shorts = added(held & (book.qty > 0.0)), -added(held & (book.qty < 0.0))
        open_ = np.maximum(longs, shorts)
        both = (np.abs(customers) <= _EVEN * open_) & (not len(keys))
        if sign is Sign.BOOK and both[open_ > 0.0].all() and (open_ > 0.0).any():
            sign = Sign.CALLS_LONG
        assumed = both if sign is Sign.BOOK else np.ones(size, dtype=np.bool_)
        way = -chain.kind if sign is Sign.PUTS_LONG else chain.kind
        customers = np.where(assumed, open_ * way, customers)
        some = np.flatnonzero(open_ > 0.0)
        known = (chain.forward > 0.0) & (chain.vol > 0.0) & (chain.tau > 0.0)
        at = some[known[some]]
        return cls(
            inst=frozen(at),
            asset=frozen(chain.asset[at].astype(np.int64)),
            kind=frozen(chain.kind[at].copy()),
            forward=frozen(chain.forward[at].copy()),
            strike=frozen(chain.strike[at].copy()),
            vol=frozen(chain.vol[at].copy()),
            tau=frozen(chain.tau[at].copy()),
            qty=frozen(-customers[at]),
            sign=sign,
            both=frozen(both[at].copy()),
            unknown=len(some) - len(at),
        )

    def __len__(self) -> int:
        return len(self.inst)

    def only(self, asset: int) -> Dealers:
        """Those on one asset."""
        at = np.flatnonzero(self.asset == asset)
        columns = {
            name: frozen(getattr(self, name)[at])
            for name in ("inst", "asset", "kind", "forward", "strike", "vol", "tau", "qty", "both")
        }
        return Dealers(**columns, sign=self.sign, unknown=0)

    @property
    def assumed(self) -> int:
        """Of how many options the side of dealers is an assumption."""
        return int(self.both.sum()) if self.sign is Sign.BOOK else len(self)

    @property
    def signed(self) -> str:
        """Who is taken to be on which side."""
        if self.sign is Sign.BOOK and self.both.any():
            return f"{self.sign}, {Sign.CALLS_LONG} of options held on both sides"
        return str(self.sign)

    def per_percent(self, move: FloatColumn | float = 0.0) -> FloatMatrix:
        """(..., options) USD of delta that 1 % more adds to dealers, after a move."""
        forward = self._moved(move)
        gamma = black76_gamma(forward, self.strike, self.vol, self.tau)
        found: FloatMatrix = self.qty * gamma * forward**2 * 0.01
        return found

    def bought(self, move: FloatColumn | float) -> FloatMatrix:
        """(..., options) USD that dealers buy to be hedged again after a move, at its price."""
        forward = self._moved(move)
        change = self._delta(forward) - self._delta(self.forward)
        found: FloatMatrix = -self.qty * change * forward
        return found

    def zero(self) -> float | None:
        """The move nearest to none at which dealers have no gamma; None where there is none."""
        if not len(self) or not self.qty.any():
            return None

        def gamma(move: float) -> float:
            return float(self.per_percent(move).sum())

        values = self.per_percent(_SEARCHED).sum(axis=-1)
        seen = np.abs(values) > 1e-9 * np.abs(values).max()
        turns = np.flatnonzero(seen[1:] & seen[:-1] & (np.sign(values[1:]) != np.sign(values[:-1])))
        roots = [brentq(gamma, _SEARCHED[k], _SEARCHED[k + 1], xtol=1e-12) for k in turns]
        return float(min(roots, key=abs)) if roots else None

    def _moved(self, move: FloatColumn | float) -> FloatMatrix:
        ratio = 1.0 + np.asarray(move, dtype=np.float64)[..., None]
        found: FloatMatrix = self.forward * ratio
        return found

    def _delta(self, forward: FloatMatrix) -> FloatMatrix:
        spread = self.vol * np.sqrt(self.tau)
        d1 = np.log(forward / self.strike) / spread + 0.5 * spread
        found: FloatMatrix = self.kind * ndtr(self.kind * d1)
        return found


def _known(crowd: Crowd, dealers: Iterable[int]) -> KeyColumn:
    """The keys of owners who deal, who are all in the book."""
    owners = crowd.snapshot.book.owners
    keys = np.unique(np.fromiter(dealers, dtype=np.int64))
    strange = keys[~np.isin(keys, owners) | (keys == UNKNOWN_OWNER)]
    if len(strange):
        raise StateError(
            f"dealers named {listed(map(str, strange))}, and the book has no such owner",
            hint="give keys of owners in the book, or name nobody",
        )
    return keys


def black76_gamma(
    forward: FloatMatrix, strike: FloatColumn, vol: FloatColumn, tau: FloatColumn
) -> FloatMatrix:
    """Change of an option's delta per unit of its forward, undiscounted; the same of call and put.

    References
    ----------
    Black (1976), "The pricing of commodity contracts".
    """
    spread = vol * np.sqrt(tau)
    d1 = np.log(forward / strike) / spread + 0.5 * spread
    density = np.exp(-0.5 * d1 * d1) / np.sqrt(2.0 * np.pi)
    found: FloatMatrix = density / (forward * spread)
    return found
