"""One pass of a contagion, read for tracing: who was closed when, what pressed them, who sold what.

`rows` are those of the cascade's log. Where a venue closes a slice of all contracts at once, its
log names the largest alone, and so does this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from undertow.errors import StateError
from undertow.kernels import cascade as notes
from undertow.kernels.margin import DEBT, INVERSE
from undertow.state import AnyColumn, BoolColumn, CodeColumn, FloatColumn, KeyColumn
from undertow.state.universe import NONE
from undertow.stress.contagion import Contagion

Weights = dict[int, float]


@dataclass(frozen=True, eq=False)
class PassView:
    """One pass: its cascade, and what was settled after it."""

    number: int
    found: Contagion

    @cached_property
    def rows(self) -> AnyColumn:
        """The log.

        Raises
        ------
        StateError
            When none was kept.
        """
        log = self.found.cascade.log
        if log is None:
            raise StateError("the solve kept no trace", hint="solve with trace=True")
        return log

    @cached_property
    def venue(self) -> CodeColumn:
        """(rows,) Where each account is."""
        at: CodeColumn = self.found.cascade.plan.snapshot.book.venue[self.rows["account"]]
        return at

    @cached_property
    def lacks(self) -> BoolColumn:
        """(rows,) Whether a closing left debt or a shortfall behind."""
        closed = self.rows["reason"] == notes.LIQUIDATED
        lacks: BoolColumn = closed & (self.rows["lost"] > 0.0)
        return lacks

    @cached_property
    def of(self) -> KeyColumn:
        """(rows,) The instrument that lacks: what was owed, or the contract."""
        return np.where(self.rows["other"] >= 0, self.rows["other"], self.rows["inst"])

    def short(self, where: BoolColumn) -> dict[tuple[int, int], float]:
        """USD that closings among these rows left behind, by venue and round."""
        here = np.flatnonzero(self.lacks & where)
        return _summed(self.venue[here], self.rows["round"][here], self.rows["lost"][here])

    def short_of(self, inst: int) -> dict[tuple[int, int], float]:
        """Debt in one instrument that closings left behind; where none names it, in its venue."""
        there = self.short(self.of == inst)
        at = self.found.cascade.plan.snapshot.universe.venue_of[inst]
        return there or self.short(self.venue == at)

    def accounts(self, venue: int, when: int, where: BoolColumn) -> KeyColumn:
        """Accounts of these rows at a venue in a round."""
        here = where & (self.venue == venue) & (self.rows["round"] == when)
        return np.unique(self.rows["account"][here]).astype(np.int64)

    def closed_usd(self, venue: int, when: int, accounts: KeyColumn) -> float:
        """USD taken from accounts at a venue in a round."""
        here = (self.venue == venue) & (self.rows["round"] == when)
        here &= np.isin(self.rows["account"], accounts)
        return float(np.abs(self.rows["value"][here]).sum())

    @cached_property
    def start(self) -> FloatColumn:
        """[I] Prices before any shock."""
        return np.array(self.found.cascade.plan.insts["start"])

    def seen(self, when: int) -> FloatColumn:
        """[I] Prices that closed accounts in a round; at -1, of the market at the end."""
        path = self.found.cascade.path
        return path[when] if 0 <= when < len(path) else self.found.cascade.final

    def move(self, asset: int, when: int) -> float:
        """Log move of an asset since the start, by a round; 0 where nothing quotes it."""
        inst = int(self.quoted[asset])
        if inst == NONE:
            return 0.0
        now = float(self.seen(when)[inst]) / float(self.start[inst])
        return math.log(max(now, 1e-12))

    def pressed(self, accounts: KeyColumn, when: int) -> tuple[Weights, Weights]:
        """USD that moves of prices took from accounts up to a round, by asset; and dearer debts.

        By account what one asset gave in one leg and took in another is netted; what whole assets
        gave counts for nothing. Dearer debts are by instrument.
        """
        cascade = self.found.cascade
        book, universe = cascade.plan.snapshot.book, cascade.plan.snapshot.universe
        count = book.offset[accounts + 1] - book.offset[accounts]
        whose = np.repeat(np.arange(len(accounts)), count)
        nth = np.arange(len(whose)) - np.repeat(np.cumsum(count) - count, count)
        legs = cascade.hold.legs[np.repeat(book.offset[accounts], count) + nth]
        inst = legs["inst"]
        qty = legs["qty"].copy()
        straight = legs["role"] != INVERSE
        qty[~straight] /= legs["entry"][~straight]
        owes, cost = legs["role"] == DEBT, self.charged[inst]
        dearer = np.where(owes, -qty * self.start[inst] * cost / (1.0 + cost), 0.0)
        lost = qty * (self.start[inst] - self.seen(when)[inst])
        size = len(universe.assets)
        key, place = np.unique(whose * size + universe.asset_of[inst], return_inverse=True)
        taken = np.maximum(np.bincount(place, lost, len(key)), 0.0)
        by_asset = np.bincount(key % size, taken, size).astype(np.float64)
        by_inst = np.bincount(inst, dearer, len(self.start)).astype(np.float64)
        return _above(by_asset), _above(by_inst)

    @cached_property
    def charged(self) -> FloatColumn:
        """[I] What borrowers pay on top, as a share of their debt."""
        laid = self.found.cascade.stressed
        return np.maximum(laid.rate_shock * laid.rate_hours, 0.0)

    @cached_property
    def signed(self) -> FloatColumn:
        """(rows,) USD that each brought to market; below 0 what it bought."""
        cascade = self.found.cascade
        book, rows = cascade.plan.snapshot.book, self.rows
        size, legs = len(self.start), cascade.hold.legs
        key = book.leg_account.astype(np.int64) * size + legs["inst"]
        order = np.argsort(key, kind="stable")
        wanted = rows["account"].astype(np.int64) * size + np.maximum(rows["inst"], 0)
        place = np.minimum(np.searchsorted(key[order], wanted), max(len(key) - 1, 0))
        at = order[place] if len(order) else place
        there = (rows["inst"] >= 0) & (key[at] == wanted if len(order) else False)
        way = np.where(there, np.sign(legs["qty"][at]) if len(order) else 0.0, 0.0)
        usd: FloatColumn = way * np.abs(rows["value"])
        return usd

    def sold(self, inst: int, before: int, *, bought: bool) -> dict[tuple[int, int, int], float]:
        """Who moved the price of an instrument before a round: by venue, round and asset, in USD.

        Sales that execute in a pool that carries the price, times its pull on it.
        """
        rows, carriers = self.rows, self.found.cascade.plan.carriers
        span = slice(int(carriers.start[inst]), int(carriers.start[inst + 1]))
        pull = np.zeros(carriers.pools + 1)
        np.add.at(pull, carriers.pool[span], np.abs(carriers.pull[span]))
        taken = np.maximum(rows["inst"], 0)
        usd = -self.signed if bought else self.signed
        found: dict[tuple[int, int, int], float] = {}
        self._added(found, taken, usd, pull, (rows["inst"] >= 0) & (rows["round"] < before))
        if bought:  # what was owed is bought to be repaid
            owed = (rows["other"] >= 0) & (rows["round"] < before)
            self._added(found, np.maximum(rows["other"], 0), rows["repaid"], pull, owed)
        return found

    def _added(
        self, found: dict[tuple[int, int, int], float], inst: CodeColumn, usd: FloatColumn,
        pull: FloatColumn, where: BoolColumn,
    ) -> None:  # fmt: skip
        """Add up by venue, round and asset what rows bring to pools that pull."""
        plan, rows = self.found.cascade.plan, self.rows
        spot, own = plan.carriers.spot_pool[inst], plan.carriers.own_pool[inst]
        reach = np.maximum(np.where(spot >= 0, pull[spot], 0.0), np.where(own >= 0, pull[own], 0.0))
        here = np.flatnonzero(where & (usd * reach > 0.0))
        asset = plan.snapshot.universe.asset_of[inst[here]]
        places = zip(self.venue[here].tolist(), rows["round"][here].tolist(), asset.tolist(),
                     (usd * reach)[here].tolist(), strict=True)  # fmt: skip
        for venue, when, what, value in places:
            found[venue, when, what] = found.get((venue, when, what), 0.0) + value

    def traded(
        self, venue: int, when: int, asset: int, *, bought: bool
    ) -> tuple[BoolColumn, float]:
        """Rows that sold, or bought, an asset at a venue in a round, and for how many USD."""
        of, rows = self.found.cascade.plan.snapshot.universe.asset_of, self.rows
        here = (self.venue == venue) & (rows["round"] == when)
        taken = here & (rows["inst"] >= 0) & (of[np.maximum(rows["inst"], 0)] == asset)
        usd = -self.signed if bought else self.signed
        taken &= usd > 0.0
        whole = float(usd[taken].sum())
        if bought:
            owed = here & (rows["other"] >= 0) & (of[np.maximum(rows["other"], 0)] == asset)
            owed &= rows["repaid"] > 0.0
            whole += float(rows["repaid"][owed].sum())
            taken = taken | owed
        return taken, whole

    @cached_property
    def quoted(self) -> KeyColumn:
        """[A] The instrument of each asset of which the book holds most, or NONE."""
        plan = self.found.cascade.plan
        asset = plan.snapshot.universe.asset_of
        plain = np.flatnonzero((plan.insts["kind"] == 0) & (self.start > 0.0))
        order = plain[np.lexsort((-plain, plan.gross_usd[plain]))]
        found = np.full(len(plan.snapshot.universe.assets), NONE, dtype=np.int64)
        found[asset[order]] = order  # the last written is the largest
        return found


def _summed(venue: CodeColumn, when: KeyColumn, usd: FloatColumn) -> dict[tuple[int, int], float]:
    found: dict[tuple[int, int], float] = {}
    for v, r, value in zip(venue.tolist(), when.tolist(), usd.tolist(), strict=True):
        found[v, r] = found.get((v, r), 0.0) + value
    return found


def _above(column: FloatColumn) -> Weights:
    """Entries above nothing, by place."""
    return {int(k): float(column[k]) for k in np.flatnonzero(column > 0.0)}
