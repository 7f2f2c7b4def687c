"""Three ledgers that are never added to each other.

`realised`: who lost and who gained, in USD, over the whole outcome. It starts from the parties of
the cascade; the lines `suppliers` (and, where claims clear, `venues`) are handed on to those who
bear them. What is gone, or used up by default, stands in lines of its own. The sum is nothing.
`quantities`: units of every reserve: taken out, locked, still there.
`valuation`: what claims lose in value while nobody has paid less yet.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from undertow.econometrics.clearing import Debts
from undertow.econometrics.debtrank import Exposures, Spread, stress
from undertow.econometrics.valuations import (
    Mark,
    ahead,
    beyond_rounding,
    by_payment,
    either,
    linear,
    valued,
)
from undertow.state import AnyColumn, BoolColumn, FloatColumn
from undertow.stress.aftermath import PARTIES, Cascade
from undertow.stress.contagion.channels import Assumptions
from undertow.stress.contagion.claims import Settlement
from undertow.stress.contagion.losses import Losses
from undertow.stress.contagion.stakes import POOL, TOKEN
from undertow.stress.setting import idle_after

CASCADE, BEARER, UNNAMED, SINK = "cascade", "party", "unnamed", "sink"
_DUST = 1e-9  # USD: a line of less is left out, but stays in the sum of its kind


def realised(cascade: Cascade, settlement: Settlement) -> pl.DataFrame:
    """Every line of the realised ledger: kind, party, and what it gained in USD.

    Lines of parties are what each had after less what it had before; those of the cascade are
    transfers at seen prices. `own accounts` is what owners who owe outside the book lost in it,
    which their own lines tell again, and `prices` what loans to tokens are under water by prices
    alone.
    """
    sheet, losses = settlement.sheet, settlement.losses
    flows = dict(zip(PARTIES, cascade.flows.sum(axis=0), strict=True))
    pools = sheet.code[sheet.sort == POOL]
    flows["suppliers"] += float(losses.unpaid[pools].sum())
    if settlement.channels.claims:
        flows["venues"] += float(losses.uncovered.sum())
    gained = np.where(sheet.is_debtor, settlement.after - settlement.before, 0.0)
    sinks = {
        "gone": float(settlement.gone.sum()),
        "bankruptcy_cost": float(settlement.cost.sum()),
        "prices": float(settlement.under_loans.sum()),
        "own accounts": float(losses.own.sum()),
    }
    rows = [(CASCADE, name, float(usd)) for name, usd in flows.items()]
    rows += [(BEARER, sheet.names[n], float(gained[n])) for n in np.flatnonzero(gained)]
    unnamed = settlement.unnamed_loss
    rows += [(UNNAMED, sheet.names[n], -float(unnamed[n])) for n in np.flatnonzero(unnamed)]
    rows += [(SINK, name, usd) for name, usd in sinks.items()]
    return pl.DataFrame(
        rows, schema={"kind": pl.String, "party": pl.String, "usd": pl.Float64}, orient="row"
    )


def handed_on(settlement: Settlement) -> pl.DataFrame:
    """What each creditor was not paid by whom: the same losses as they travel, largest first.

    Not to be added up: a loss that goes on from a keeper to a pool and from the pool to a vault
    stands here twice.
    """
    sheet, lost = settlement.sheet, settlement.lost
    rows = np.flatnonzero(lost > _DUST)
    assets = pl.Series(sheet.snapshot.universe.assets, dtype=pl.String)
    names = pl.Series(sheet.names, dtype=pl.String)
    return pl.DataFrame(
        {
            "from": names.gather(sheet.debtor[rows]),
            "to": names.gather(sheet.creditor[rows]),
            "asset": assets.gather(sheet.asset[rows]),
            "owed_usd": settlement.owed.face[rows],
            "lost_usd": lost[rows],
        }
    ).sort("lost_usd", "from", "to", descending=[True, False, False])


def quantities(cascade: Cascade, losses: Losses) -> pl.DataFrame:
    """Units of every reserve: supplied, and of that robbed, taken out, locked, content to stay.

    What is lent, and what lies with others (`kept`), nobody takes out.
    """
    snapshot = cascade.stressed.snapshot
    liquidity, price = snapshot.liquidity, cascade.plan.insts["start"]
    left, locked = idle_after(cascade.plan, cascade.stressed)
    return pl.DataFrame(
        {
            "instrument": snapshot.universe.instrument_keys,
            "supplied": losses.supplied,
            "borrowed": liquidity.borrowed,
            "kept": cascade.stressed.stuck,
            "robbed": losses.supplied - losses.present,
            "withdrawn": left,
            "locked": locked,
            "staying": liquidity.supplied * (1.0 - cascade.stressed.withdrawn),
            "locked_usd": locked * price,
        }
    ).filter(pl.col("supplied") > 0.0)


class Valuation:
    """What claims lose in value: marks of one network, beside each other."""

    def __init__(self, settlement: Settlement, assumed: Assumptions) -> None:
        sheet, owed = settlement.sheet, settlement.owed
        self.settlement = settlement
        self.owes = owed.held + owed.loans - owed.written
        due = sheet.summed(sheet.creditor, owed.face)
        size = owed.held + owed.loans + due + np.abs(owed.buffer)  # of what is added up below
        self.own = beyond_rounding(_own_losses(settlement), size)
        matched = np.where(sheet.sort == TOKEN, owed.money, np.maximum(owed.held - due, 0.0))
        equity = beyond_rounding(matched + owed.buffer + due - owed.held - owed.loans, size)
        # what keepers owe a pool beyond all that is in it is no buffer of its suppliers
        self.before = np.where(sheet.is_debtor, equity, np.minimum(equity, 0.0))
        inside = sheet.summed(sheet.debtor, owed.due)
        left = self.before + self.owes - sheet.summed(sheet.creditor, owed.due) - self.own
        # what a venue lacks beyond all it has outside is one more debt, as in clearing; of anybody
        # else it stays with the party
        lacks = np.zeros(len(sheet))
        lacks[sheet.venue_party] = np.clip(
            -left[sheet.venue_party], 0.0, settlement.losses.uncovered
        )
        self.debts = Debts.of(
            sheet.debtor, sheet.creditor, owed.due, len(sheet),
            np.maximum(self.owes - inside, 0.0) + lacks,
        )  # fmt: skip
        self.assets = np.where(sheet.is_debtor, np.maximum(left, 0.0), left)
        self.marked = self.own - (self.assets - left) + lacks  # of its own losses, what marks see
        self.volatility = assumed.volatility

    @property
    def buffer(self) -> FloatColumn:
        """[P] Equity; of those without, all they owe, since they pass losses on as they come."""
        own = np.where(self.passes, self.owes, self.before)
        return np.where(own > 0.0, own, 1.0)

    @property
    def passes(self) -> BoolColumn:
        """[P] Pools, tokens and debtors without equity: they pass losses on as these come."""
        empty = self.before <= 1e-12 * np.maximum(self.owes, 1.0)
        through: BoolColumn = ~self.settlement.sheet.is_debtor | empty
        return through

    @property
    def radius(self) -> float:
        """Spectral radius of exposures over buffers; above 1 small stress grows round circles."""
        debtor, creditor, value = self._edges
        return Exposures.of(creditor, debtor, value, self.buffer).radius

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader of the table should know."""
        radius = self.radius
        said = (
            f"exposures over buffers have a radius of {radius:.3g}: small stress grows round "
            "circles of claims until nothing is left of them"
        )
        return (said,) if radius > 1.0 else ()

    def table(self) -> pl.DataFrame:
        """By party: equity before, its own loss, and what its claims lose under each mark."""
        debtor, creditor, value = self._edges
        buffer = self.buffer
        exposures = Exposures.of(creditor, debtor, value, buffer)
        first = np.clip(self.own / buffer, 0.0, 1.0)
        once = stress(exposures, first, Spread.ONCE)
        marks: dict[str, Mark] = {
            "clearing_usd": by_payment(),
            "ahead_usd": either(self.passes, by_payment(), ahead(self.volatility)),
            "linear_usd": either(self.passes, by_payment(), linear(self.before, self.marked)),
        }
        found = {name: valued(self.debts, self.assets, mark) for name, mark in marks.items()}
        columns = {name: each.loss for name, each in found.items()}
        columns["ahead_before_usd"] = valued(
            self.debts, self.assets + self.own, marks["ahead_usd"]
        ).loss
        columns["single_hit_usd"] = (once.level - np.minimum(first, 1.0)) * buffer
        table = pl.DataFrame(
            {
                "party": pl.Series(self.settlement.sheet.names, dtype=pl.String),
                "equity_usd": self.before,
                "owed_usd": self.owes,
                "own_loss_usd": self.own,
                **columns,
                "settled": np.full(len(first), all(each.settled for each in found.values())),
            }
        )
        touched = pl.col("own_loss_usd").abs() + pl.sum_horizontal(pl.col(*columns).abs())
        return table.filter(touched > _DUST).sort("linear_usd", "party", descending=[True, False])

    @property
    def _edges(self) -> tuple[AnyColumn, AnyColumn, FloatColumn]:
        sheet = self.settlement.sheet
        return sheet.debtor, sheet.creditor, self.settlement.owed.due


def _own_losses(settlement: Settlement) -> FloatColumn:
    """[P] What each lost of its own, before anybody who owes to it pays less."""
    sheet, owed, losses = settlement.sheet, settlement.owed, settlement.losses
    due = sheet.summed(sheet.creditor, owed.face)
    has = np.maximum(owed.held - due, 0.0) + owed.buffer
    own = np.where(sheet.is_debtor, has - settlement.outside - owed.written, 0.0)
    pools = np.flatnonzero(sheet.sort == POOL)
    own[pools] = losses.unpaid[sheet.code[pools]]  # who was robbed is who had a claim
    not_due: FloatColumn = sheet.summed(sheet.creditor, owed.face - owed.due)
    return np.maximum(own + not_due, 0.0)
