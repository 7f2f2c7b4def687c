"""One sweep over all who owe: what each row is paid, what funds cover, who defaults, what is left.

A sweep is monotone: where shares fall, no share rises. From everything paid downwards sweeps end at
the greatest shares that fit, from nothing paid upwards at the least.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from undertow.econometrics.clearing import Debts, clearing
from undertow.state import BoolColumn, FloatColumn
from undertow.state.arrays import frozen
from undertow.stress.contagion.channels import Assumptions, Channels
from undertow.stress.contagion.losses import Losses
from undertow.stress.contagion.network import Sheet
from undertow.stress.contagion.owed import Owed
from undertow.stress.contagion.stakes import LOAN, POOL, TOKEN, over

_NOISE = 1e-12  # of what a venue has and owes: it lacks more than that, or nothing


class Shares(NamedTuple):
    """What is left of claims on, and loans to, every party."""

    share: FloatColumn
    loan: FloatColumn

    def far(self, other: Shares) -> float:
        """Largest difference."""
        return max(float(np.abs(a - b).max(initial=0.0)) for a, b in zip(self, other, strict=True))


class Paid(NamedTuple):
    """What debtors pay once."""

    part: FloatColumn
    equity: FloatColumn
    cost: FloatColumn
    defaulted: BoolColumn
    settled: bool
    base: FloatColumn  # outside assets that were there to pay with
    owed: FloatColumn  # all debts that were due
    beyond: FloatColumn  # unpaid of what venues owe to those whom no row names, for want of assets


@dataclass(frozen=True, eq=False)
class Network:
    """One network that settles."""

    sheet: Sheet
    losses: Losses
    owed: Owed
    channels: Channels
    assumed: Assumptions
    has: FloatColumn  # [P] outside assets of debtors
    among: BoolColumn  # [R] from debtor to debtor
    debts: Debts
    least: bool

    def part(self, now: Shares) -> FloatColumn:
        """[R] The share of what is due that each row is paid."""
        sheet = self.sheet
        lent = (sheet.sort[sheet.debtor] == TOKEN) & (sheet.kind == LOAN)
        return np.where(lent, now.loan[sheet.debtor], now.share[sheet.debtor])

    def got(self, now: Shares) -> FloatColumn:
        """[R] What each row is paid."""
        paid: FloatColumn = self.owed.due * self.part(now)
        if not self.channels.receipts:  # pools keep their losses to themselves
            on_pool = self.sheet.sort[self.sheet.debtor] == POOL
            paid = np.where(on_pool, self.owed.face, paid)
        return paid

    def gone(self, now: Shares, paid: Paid, sink: FloatColumn) -> FloatColumn:
        """[P] What is gone from who failed: no more than he had, and of a token what it was worth.

        `sink` is what was written down of debts, or taken from who has them, at face value.
        """
        sheet, owed = self.sheet, self.owed
        never = np.zeros(len(sheet))
        if self.channels.claims:
            never = np.minimum(np.maximum(-paid.equity, 0.0), owed.written)
        token = sheet.sort == TOKEN
        cut = np.where(token[sheet.debtor], (owed.face - owed.due) * self.part(now), 0.0)
        return np.where(token, sheet.summed(sheet.debtor, cut), sink - never * sheet.is_debtor)

    def cover(self, got: FloatColumn) -> FloatColumn:
        """[P] What venues' funds put into pools that were not paid; the venue itself has its share.

        Pro rata to what each was not paid.
        """
        sheet = self.sheet
        hit = sheet.summed(sheet.creditor, self.owed.face - got)
        pools = np.flatnonzero(sheet.sort == POOL)
        at = sheet.snapshot.universe.venue_of[sheet.code[pools]]
        of_venue = hit[sheet.venue_party] + np.bincount(at, hit[pools], len(sheet.venue_party))
        part = np.minimum(over(self.losses.fund, of_venue, 0.0), 1.0)
        cover = np.zeros(len(sheet))
        cover[pools] = hit[pools] * part[at]
        return cover

    def base(self, cover: FloatColumn) -> FloatColumn:
        """[P] Outside assets of debtors, less what venues put into their pools."""
        sheet, base = self.sheet, self.has.copy()
        pools = np.flatnonzero(sheet.sort == POOL)
        at = sheet.snapshot.universe.venue_of[sheet.code[pools]]
        base[sheet.venue_party] -= np.bincount(at, cover[pools], len(sheet.venue_party))
        return base

    def pay(self, got: FloatColumn, base: FloatColumn) -> Paid:
        """Let debtors clear at what pools and tokens pay by now; all pay in full with claims off.

        A venue whose outside assets are below nothing owes what they lack to its accounts, in one
        rank with all it owes. Of anybody else it is a loss of his own.
        """
        sheet, owed, size = self.sheet, self.owed, len(self.sheet)
        income, none = sheet.summed(sheet.creditor[~self.among], got[~self.among]), np.zeros(size)
        if not self.channels.claims:
            due = sheet.summed(sheet.creditor, got)
            equity = base + due - owed.held + owed.written
            nobody = np.zeros(size, np.bool_)
            return Paid(np.ones(size), equity, none, nobody, True, base, self.debts.owed, none)
        lacks, debts, venues = none.copy(), self.debts, sheet.venue_party
        rounding = _NOISE * (owed.held + owed.buffer + self.has - base)[venues]
        lacks[venues] = np.where(base[venues] < -rounding, -base[venues], 0.0)
        lacks[venues] = np.minimum(lacks[venues], self.losses.uncovered)
        if lacks.any():
            debts = replace(debts, outside=frozen(debts.outside + lacks))
        inside = np.where(sheet.is_debtor, np.maximum(base, 0.0) + income, 0.0)
        paid = clearing(
            debts, inside, keep_assets=self.assumed.keep_assets,
            keep_received=self.assumed.keep_received, least=self.least,
        )  # fmt: skip
        equity = paid.equity + np.minimum(base, 0.0) + lacks
        part = over(paid.paid, paid.owed, 1.0)
        return Paid(
            part, equity, paid.cost, paid.defaulted, paid.settled, base, paid.owed,
            lacks * (1.0 - part),
        )  # fmt: skip

    def passed_on(self, got: FloatColumn, cover: FloatColumn, part: FloatColumn) -> Shares:
        """What is left of claims on everybody, when debtors pay `part`."""
        sheet, owed = self.sheet, self.owed
        share, loan = part.copy(), part.copy()
        pools, tokens = (np.flatnonzero(sheet.sort == sort) for sort in (POOL, TOKEN))
        hit = sheet.summed(sheet.creditor, owed.face - got) - cover
        whole = owed.held[pools]
        kept = whole * (1.0 - self.losses.taken[sheet.code[pools]])
        share[pools] = np.clip(over(kept - hit[pools], whole, 1.0), 0.0, 1.0)
        has = (sheet.summed(sheet.creditor, got) + owed.money)[tokens]
        loans, holders = owed.loans[tokens], owed.held[tokens]
        share[tokens] = np.clip(over(np.maximum(has - loans, 0.0), holders, 1.0), 0.0, 1.0)
        loan[tokens] = np.clip(over(has, loans, 1.0), 0.0, 1.0)
        return Shares(share, loan)
