"""What every claim is still worth after a cascade: debtors clear, pools and tokens pass on.

One fixed point over all parties of a `Sheet`, from everything paid downwards (or, for the `least`
answer, from nothing paid upwards). In it

- a pool has what it had, less bad debt (`Losses.taken`), less what it was not paid by those who
  keep its coins, of which its venue's fund pays what it can;
- a token has what it is paid; its loans come first, its holders share the rest;
- a debtor has outside assets that match what it owes and a buffer on top (funds and treasury of a
  venue, what is seen of an owner in the book, `Assumptions.capital` of what others owe), less what
  the cascade took; who cannot pay all pays pro rata what is left after the costs of
  default, which are a sink of their own.

Who bears what is worked out from what each party has before and after, so that the sum of all
lines is a check and not a definition.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from undertow.econometrics.clearing import Debts
from undertow.state import BoolColumn, FloatColumn, KeyColumn
from undertow.state.arrays import frozen
from undertow.stress.contagion.channels import Assumptions, Channels
from undertow.stress.contagion.circles import round_circles
from undertow.stress.contagion.losses import Losses
from undertow.stress.contagion.network import Sheet
from undertow.stress.contagion.owed import Owed
from undertow.stress.contagion.paying import Network, Shares
from undertow.stress.contagion.stakes import POOL, TOKEN, over
from undertow.stress.stressed import Stressed

_STILL = 1e-13  # shares that change by less stand
_MOST = 2_000  # sweeps over pools, tokens and debtors
_PATIENCE = 25  # sweeps before shares that creep round circles are solved for at once


@dataclass(frozen=True, eq=False)
class Settlement:
    """What every party pays, and who bears what."""

    sheet: Sheet
    losses: Losses
    owed: Owed
    channels: Channels
    share: FloatColumn  # [P] what is left of a claim on it
    loan: FloatColumn  # [P] what is left of a loan to it
    got: FloatColumn  # [R] USD paid
    cover: FloatColumn  # [P] USD that a venue's fund put into its pools
    cost: FloatColumn  # [P] what default used up
    beyond: FloatColumn  # [P] what venues lacked for accounts that no row names, and did not pay
    outside: FloatColumn  # [P] of debtors, after what the cascade and the scenario took
    sink: FloatColumn  # [P] what is gone from who failed, but for robbed pools: see `gone`
    before: FloatColumn  # [P] equity of debtors
    after: FloatColumn
    defaulted: BoolColumn  # [P] debtors that do not pay all
    steps: int
    settled: bool

    @cached_property
    def lost(self) -> FloatColumn:
        """[R] What each creditor was not paid."""
        return frozen(self.owed.face - self.got)

    @cached_property
    def hit(self) -> FloatColumn:
        """[P] What each party was not paid by others."""
        return frozen(self.sheet.summed(self.sheet.creditor, self.lost))

    @cached_property
    def pool_loss(self) -> FloatColumn:
        """[P] What suppliers of each pool lost, named or not: bad debt, robbery, keepers.

        What was robbed of what is lent, and is not paid back either, is lost once.
        """
        found = self._unpaid_to_pools + self.owed.robbed
        return frozen(found - np.minimum(self._too_much, self.owed.robbed))

    @cached_property
    def _unpaid_to_pools(self) -> FloatColumn:
        """[P] What borrowers and keepers did not pay, and no fund covered."""
        sheet, found = self.sheet, np.zeros(len(self.sheet))
        pools = np.flatnonzero(sheet.sort == POOL)
        found[pools] = (self.hit - self.cover)[pools] + self.losses.unpaid[sheet.code[pools]]
        return found

    @cached_property
    def _too_much(self) -> FloatColumn:
        """[P] The part of it that is more than those had who stayed."""
        own = self._unpaid_to_pools
        beyond = np.where(self.sheet.sort == POOL, own - self.owed.held, 0.0)
        return np.where(beyond > 1e-12 * np.maximum(own, 1.0), beyond, 0.0)

    @cached_property
    def gone(self) -> FloatColumn:
        """[P] What is gone from who failed or was robbed, and nobody here has."""
        robbed = self.owed.robbed - np.minimum(self._too_much, self.owed.robbed)
        return frozen(self.sink + robbed)

    @cached_property
    def unnamed_loss(self) -> FloatColumn:
        """[P] What holders of tokens, suppliers of pools and depositors lost whom no row names.

        Pools that keep their losses (`receipts` off) keep them from those that rows name.
        """
        sheet, owed = self.sheet, self.owed
        left = over(self.share, owed.unrobbed, 1.0)
        lost = owed.unnamed * (1.0 - left) + self.overdrawn + self.beyond
        stolen = owed.robbed - sheet.summed(sheet.debtor, self._stolen)
        lost += np.maximum(stolen, 0.0)
        if not self.channels.receipts:
            pools = sheet.sort == POOL
            lost[pools] = (self.pool_loss - sheet.summed(sheet.debtor, self.lost))[pools]
        return frozen(lost)

    @cached_property
    def overdrawn(self) -> FloatColumn:
        """[P] What pools lost beyond what those who stayed had: others left with those coins."""
        return frozen(np.maximum(self._too_much - self.owed.robbed, 0.0))

    @cached_property
    def _stolen(self) -> FloatColumn:
        """[R] What was robbed of each claim on a pool."""
        on_pool = self.sheet.sort[self.sheet.debtor] == POOL
        return np.where(on_pool, self.owed.face - self.owed.due, 0.0)

    @cached_property
    def borne(self) -> FloatColumn:
        """[P] What debtors bear themselves, beside what owners lost in their own accounts."""
        return frozen(np.maximum(self._for_others, 0.0))

    @cached_property
    def ruined(self) -> FloatColumn:
        """[P] What owners whose own accounts ruined them left to those to whom they owe."""
        left = np.where(self.losses.own != 0.0, -self._for_others, 0.0)
        return frozen(np.maximum(left, 0.0))

    @cached_property
    def _for_others(self) -> FloatColumn:
        lost = self.before - self.after - self.losses.own
        return np.where(self.sheet.is_debtor, lost, 0.0)

    @cached_property
    def under_loans(self) -> FloatColumn:
        """[P] What a token's loans are above what it held before anybody failed: prices did it."""
        sheet, owed = self.sheet, self.owed
        had = sheet.summed(sheet.creditor, owed.face) + owed.money
        lack = np.where(sheet.sort == TOKEN, np.maximum(owed.loans - had, 0.0), 0.0)
        return frozen(lack)


def settle_claims(
    sheet: Sheet,
    losses: Losses,
    stressed: Stressed,
    channels: Channels,
    assumed: Assumptions,
    *,
    fallen: KeyColumn | None = None,
    least: bool = False,
) -> Settlement:
    """The greatest payments that fit a cascade's losses, or the least.

    With `claims` off debtors pay all they owe; with `receipts` off pools keep their losses from
    those who have a claim on them. `fallen` are parties that lost all but `recovery` of their own.
    """
    owed = Owed.of(sheet, losses, stressed, assumed)
    has, sink = _outside(sheet, losses, owed, channels, assumed, fallen)
    among, debts = _debts(sheet, owed)
    network = Network(sheet, losses, owed, channels, assumed, has, among, debts, least)
    start = np.full(len(sheet), 0.0 if least and channels.claims else 1.0)
    now, settled, steps = Shares(start, start), False, 0
    while not settled and steps < _MOST:
        steps += 1
        got = network.got(now)
        cover = network.cover(got)
        paid = network.pay(got, network.base(cover))
        then = network.passed_on(got, cover, paid.part)
        settled = paid.settled and then.far(now) <= _STILL
        now = then if settled or steps % _PATIENCE else round_circles(network, then, paid)
    gone = network.gone(now, paid, sink)
    after = paid.equity + np.where(sheet.is_debtor, sink - gone, 0.0)
    columns = {
        "share": now.share * owed.unrobbed, "loan": now.loan, "got": network.got(now),
        "cover": cover, "cost": np.array(paid.cost), "beyond": paid.beyond,
        "outside": has, "sink": gone, "before": _before(sheet, owed),
        "after": np.where(sheet.is_debtor, after, 0.0),
        "defaulted": np.array(paid.defaulted),
    }  # fmt: skip
    return Settlement(
        sheet=sheet, losses=losses, owed=owed, channels=channels, steps=steps,
        settled=settled, **{name: frozen(column) for name, column in columns.items()},
    )  # fmt: skip


def _debts(sheet: Sheet, owed: Owed) -> tuple[BoolColumn, Debts]:
    """Which rows go from debtor to debtor, and all debts; those to others stand outside."""
    debtor, creditor = sheet.debtor, sheet.creditor
    among: BoolColumn = sheet.is_debtor[debtor] & sheet.is_debtor[creditor]
    beyond = owed.held - sheet.summed(debtor[among], owed.due[among]) - owed.written
    beyond = np.where(sheet.is_debtor, np.maximum(beyond, 0.0), 0.0)
    beyond[beyond <= 1e-12 * owed.held] = 0.0  # what subtraction leaves of nothing
    return among, Debts.of(debtor[among], creditor[among], owed.due[among], len(sheet), beyond)


def _outside(
    sheet: Sheet, losses: Losses, owed: Owed, channels: Channels, assumed: Assumptions,
    fallen: KeyColumn | None,
) -> tuple[FloatColumn, FloatColumn]:  # fmt: skip
    """[P] What debtors have outside before pools are covered, and what is gone from who failed."""
    matched = matched_assets(sheet, owed)
    sink = np.where(sheet.is_debtor, owed.written, 0.0)
    has = np.where(sheet.is_debtor, matched + owed.buffer - sink - losses.own, 0.0)
    if channels.claims:
        has[sheet.venue_party] -= losses.uncovered
    if fallen is not None and len(fallen):
        # what was written down of his debts already is part of what the failure takes
        left = np.minimum(assumed.recovery * (has + sink), has)[fallen]
        took = np.maximum(has[fallen] - left, 0.0)
        has[fallen] -= took
        sink[fallen] += took
    return has, sink


def _before(sheet: Sheet, owed: Owed) -> FloatColumn:
    """[P] Equity of debtors before anybody lost."""
    due = sheet.summed(sheet.creditor, owed.face)
    equity = matched_assets(sheet, owed) + owed.buffer + due - owed.held
    return np.where(sheet.is_debtor, equity, 0.0)


def matched_assets(sheet: Sheet, owed: Owed) -> FloatColumn:
    """[P] What debtors have outside against what they owe, beside what they are owed."""
    due = sheet.summed(sheet.creditor, owed.face)
    return np.where(sheet.is_debtor, np.maximum(owed.held - due, 0.0), 0.0)
