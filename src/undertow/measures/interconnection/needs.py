"""The first call of every account in a cascade, and the cash that would have met it.

Rows of `FirstCalls` are accounts, in the order of time and, within a round, of the book. An account
is *called* in the round in which its venue first closes any of it. Its need is judged at the prices
of that round on what it held before that: cover W and asked D, so that W - D + need = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from undertow.errors import StateError
from undertow.kernels import cascade as notes
from undertow.kernels import margin
from undertow.kernels.margin import COLLATERAL, INVERSE, LINEAR
from undertow.state import AnyColumn, BoolColumn, FloatColumn, KeyColumn
from undertow.state.arrays import frozen
from undertow.stress.cascade import Cascade
from undertow.stress.plan import Plan


class Judged(NamedTuple):
    """What venues say of some accounts, in USD."""

    cover: FloatColumn
    asked: FloatColumn
    outright: FloatColumn  # what is held there and could leave: no profit, no value of options


@dataclass(frozen=True, eq=False)
class Held:
    """What some accounts hold, legs end to end; one who changes it writes to a copy."""

    account: KeyColumn
    offset: KeyColumn
    legs: margin.Legs
    cash: FloatColumn

    @classmethod
    def of(cls, cascade: Cascade, account: KeyColumn) -> Held:
        """What `account` held when the first round began."""
        held, legs = cascade.hold.accounts[account], cascade.hold.legs
        count = held["last"] - held["first"]
        offset = np.append(0, np.cumsum(count)).astype(np.int64)
        rows = np.repeat(held["first"] - offset[:-1], count) + np.arange(offset[-1])
        columns = {name: np.ascontiguousarray(legs[name][rows]) for name in margin.Legs._fields}
        return cls(account, offset, margin.Legs(**columns), held["cash"].copy())

    def judged(self, plan: Plan, prices: AnyColumn, start: KeyColumn, cash: FloatColumn) -> Judged:
        """Judge the accounts `start[n]:start[n + 1]` at the prices of row n, each with its `cash`.

        What a portfolio grid asks of a group is not in it.
        """
        size = len(self.account)
        out = margin.Sums(*(np.empty(size) for _ in margin.Sums._fields))
        # Kernels are compiled for read-only columns where books have them: these stand in for such.
        legs = self.legs._replace(
            inst=frozen(self.legs.inst), qty=frozen(self.legs.qty), entry=frozen(self.legs.entry)
        )
        offset, mark = frozen(self.offset), frozen(plan.insts["start"])
        terms, none = plan.snapshot.rules.terms, np.zeros(len(plan.insts))
        for n, price in enumerate(prices):
            lo, hi = int(start[n]), int(start[n + 1])
            margin.account_sums(lo, hi, offset, legs, frozen(price), mark, none, terms, out)
        paid, owed = np.maximum(cash, 0.0), np.maximum(-cash, 0.0)
        return Judged(out.cover + paid, out.asked + owed, out.assets + paid)


@dataclass(frozen=True, eq=False)
class FirstCalls:
    """Who is called, when, and what was lacking."""

    account: KeyColumn  # rows of the book
    round: KeyColumn
    cover: FloatColumn
    asked: FloatColumn
    need: FloatColumn  # USD for W = D
    to_buffer: FloatColumn  # USD for W = buffer * D
    closed: FloatColumn  # USD that the venue took from it, from then to the end
    noted: FloatColumn  # health as the cascade wrote it down

    def __len__(self) -> int:
        return len(self.account)

    @classmethod
    def of(cls, cascade: Cascade, buffer: float) -> FirstCalls:
        """First calls of a cascade that kept its trace and its prices.

        Raises
        ------
        StateError
            When it kept neither, or owners answered in it.
        """
        log = require_trace(cascade)
        called = log["reason"] == notes.LIQUIDATED
        rows = np.flatnonzero(called)
        account, first, row_of = np.unique(
            log["account"][rows], return_index=True, return_inverse=True
        )
        closed = np.bincount(row_of, np.abs(log["value"][rows]), len(account))
        place = rows[first]  # in the log, whose rows are in the order of time
        order = np.lexsort((account, log["round"][place]))
        account, place = account[order].astype(np.int64), place[order]
        when = log["round"][place].astype(np.int64)
        held, cash = _before(cascade, log, account, place)
        rounds, start = np.unique(when, return_index=True)
        ends = np.append(start, len(when)).astype(np.int64)
        judged = held.judged(cascade.plan, cascade.path[rounds], ends, cash)
        noted = log["health"][place].astype(np.float64)
        grouped = cascade.hold.accounts["grid"][account] >= 0
        asked = _asked_of_groups(judged, noted, grouped)
        return cls(
            account, when, judged.cover, asked,
            need=money_for(judged.cover, asked, cash, 1.0),
            to_buffer=money_for(judged.cover, asked, cash, buffer),
            closed=closed[order].astype(np.float64), noted=noted,
        )  # fmt: skip


def require_trace(cascade: Cascade) -> AnyColumn:
    """The log of a cascade that says all that calls are read off.

    Raises
    ------
    StateError
        When the trace or the prices were not kept, or owners answered.
    """
    if cascade.log is None or len(cascade.path) != cascade.rounds:
        raise StateError(
            "the cascade kept no trace, or no prices", hint="run it with trace=True and path=True"
        )
    if cascade.options.responses.any:
        raise StateError(
            "owners answer in this cascade, so what they have free is partly spent already",
            hint="run it without responses; the map says itself what free assets meet",
        )
    log: AnyColumn = cascade.log
    return log


def money_for(cover: FloatColumn, asked: FloatColumn, cash: FloatColumn, aim: float) -> FloatColumn:
    """USD that bring cover to `aim` times what is asked.

    A dollar of money counts one; one that pays back money that is owed counts `aim`.
    """
    short = np.maximum(aim * asked - cover, 0.0)
    owed = np.maximum(-cash, 0.0)
    found: FloatColumn = np.where(short <= aim * owed, short / aim, owed + (short - aim * owed))
    return found


def _asked_of_groups(judged: Judged, noted: FloatColumn, grouped: BoolColumn) -> FloatColumn:
    """What is asked, of portfolio groups as the cascade's own judge had it: cover over health.

    Where it wrote down a health of 0, the account has nothing left that a grid could ask for.
    """
    known = grouped & (noted != 0.0)
    found: FloatColumn = np.divide(judged.cover, noted, out=judged.asked.copy(), where=known)
    return found


def _before(
    cascade: Cascade, log: AnyColumn, account: KeyColumn, place: KeyColumn
) -> tuple[Held, FloatColumn]:
    """What called accounts held right before their first call, and their money.

    Winners who paid for others' losses, and ladders that were sold down, held less than at first.
    """
    held = Held.of(cascade, account)
    cash, accounts = held.cash.copy(), len(cascade.hold.accounts)
    nth, until = np.full(accounts, -1), np.zeros(accounts, dtype=np.int64)
    nth[account], until[account] = np.arange(len(account)), place
    moved = np.isin(log["reason"], (notes.DELEVERAGED, notes.CONVERTED))
    rows = np.flatnonzero(moved & (nth[log["account"]] >= 0))
    rows = rows[rows < until[log["account"][rows]]]
    if not len(rows):
        return held, cash
    some, who = log[rows], nth[log["account"][rows]]
    leg = _legs_of(held, who, some["inst"], some["reason"] == notes.DELEVERAGED)
    qty, role, entry = held.legs.qty.copy(), held.legs.role[leg], held.legs.entry[leg]
    np.subtract.at(qty, leg, some["qty"])
    price = some["price"]
    safe = np.where(role == INVERSE, entry, 1.0)
    brought = np.select(
        (role == LINEAR, role == INVERSE), (price - entry, price / safe - 1.0), price
    )
    np.add.at(cash, who, some["qty"] * brought - some["lost"])
    return Held(account, held.offset, held.legs._replace(qty=qty), held.cash), cash


def _legs_of(held: Held, who: KeyColumn, inst: AnyColumn, contract: BoolColumn) -> KeyColumn:
    """The leg of each account in that instrument: its contract, or its collateral."""
    owner = np.repeat(np.arange(len(held.account)), np.diff(held.offset))
    kind = np.where(held.legs.role >= LINEAR, 1, np.where(held.legs.role == COLLATERAL, 0, 2))
    many = int(max(held.legs.inst.max(initial=0), np.max(inst, initial=0))) + 1
    key = (owner * many + held.legs.inst) * 3 + kind
    order = np.argsort(key, kind="stable")
    wanted = (who * many + inst) * 3 + contract
    found: KeyColumn = order[np.searchsorted(key[order], wanted)]
    return found
