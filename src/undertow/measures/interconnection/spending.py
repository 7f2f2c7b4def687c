"""What owners can bring to a call from elsewhere, and how far it goes when calls come in order.

Owners are rows of `Book.owners`. What is held free is spent pro rata over what it is made of, so of
each asset the same share is left; calls of one round share it in proportion to what each needs, and
a dollar that met one call meets no other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from undertow.measures.interconnection.needs import FirstCalls, Held
from undertow.state import FloatColumn, FloatMatrix, KeyColumn
from undertow.state.arrays import frozen
from undertow.stress.cascade import Cascade


@dataclass(frozen=True, eq=False)
class Met:
    """What met each first call; a row is one of them."""

    free: FloatColumn  # USD that the owner had free when the round began
    excess: FloatColumn  # USD that its other accounts could spare then
    from_free: FloatColumn
    from_excess: FloatColumn

    @property
    def usd(self) -> FloatColumn:
        """What was met, out of both."""
        return self.from_free + self.from_excess

    @classmethod
    def of(cls, cascade: Cascade, first: FirstCalls, *, elsewhere: bool) -> Met:
        """Spend what owners have on their calls, round by round.

        With `elsewhere`, then what their other accounts can spare.

        Raises
        ------
        MissingPrice
            When something held free has no price.
        """
        book = cascade.plan.snapshot.book
        owner, owners = book.owner[first.account].astype(np.int64), len(book.owners)
        rounds, start = np.unique(first.round, return_index=True)
        ends = np.append(start, len(first))
        left, taken = np.ones(owners), np.zeros(owners)
        out = cls(*(np.zeros(len(first)) for _ in range(4)))
        other = Others.of(cascade, owner) if elsewhere else None
        for n, r in enumerate(rounds):
            rows = slice(int(ends[n]), int(ends[n + 1]))
            called, row_of = np.unique(owner[rows], return_inverse=True)
            whole = np.bincount(row_of, first.need[rows], len(called))
            worth = free_usd(cascade, cascade.path[r])[called]
            free = left[called] * worth
            spare = np.zeros(len(called))
            if other is not None:
                spare = np.maximum(other.spare(cascade, called, r) - taken[called], 0.0)
            given = np.minimum(free, whole)
            more = np.minimum(spare, whole - given)
            share = np.divide(given, worth, out=np.zeros_like(given), where=worth > 0.0)
            left[called] = np.maximum(left[called] - share, 0.0)
            taken[called] += more
            part = np.divide(
                first.need[rows], whole[row_of],
                out=np.zeros(len(row_of)), where=whole[row_of] > 0.0,
            )  # fmt: skip
            out.free[rows], out.excess[rows] = free[row_of], spare[row_of]
            out.from_free[rows], out.from_excess[rows] = given[row_of] * part, more[row_of] * part
        return out


def free_usd(cascade: Cascade, prices: FloatColumn) -> FloatColumn:
    """[owners] USD held free at the prices that venues see in a round."""
    snapshot = cascade.plan.snapshot
    market = snapshot.market
    moved = market.spot * (prices / cascade.plan.insts["start"])
    held = snapshot.free.usd_by_owner(replace(market, spot=frozen(moved)))
    return np.append(held, np.zeros(len(snapshot.book.owners) - len(held)))


@dataclass(frozen=True, eq=False)
class Others:
    """Accounts of called owners that nothing happens to, by owner."""

    held: Held
    owner: KeyColumn

    @classmethod
    def of(cls, cascade: Cascade, called: KeyColumn) -> Others:
        """The other accounts of the owners in `called`.

        Without those that the cascade touches, since what leaves them would be lacking later; and
        without portfolio groups, of which no round keeps what the grid asks.
        """
        book, held = cascade.plan.snapshot.book, cascade.hold.accounts
        mine = np.zeros(len(book.owners), dtype=np.bool_)
        mine[called] = True
        kept = mine[book.owner] & (held["grid"] < 0)
        kept[cascade.touched["account"]] = False
        rows = np.flatnonzero(kept)
        return cls(Held.of(cascade, rows), book.owner[rows].astype(np.int64))

    def spare(self, cascade: Cascade, owners: KeyColumn, r: int) -> FloatColumn:
        """[owners] What could leave their accounts in round `r`: cover over what is asked.

        No more of each than it holds outright: profit that is not realised cannot leave.
        """
        ends = np.array([0, len(self.owner)], dtype=np.int64)
        prices: FloatMatrix = cascade.path[r : r + 1]
        judged = self.held.judged(cascade.plan, prices, ends, self.held.cash)
        over = np.clip(judged.cover - judged.asked, 0.0, judged.outright)
        size = len(cascade.plan.snapshot.book.owners)
        return np.bincount(self.owner, over, size)[owners].astype(np.float64)
