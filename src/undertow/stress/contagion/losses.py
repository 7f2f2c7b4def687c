"""What a cascade took, as the claims see it: prices, reserves, funds, what nobody covered.

Columns go by asset [A], instrument [I], venue [V] or party [P] of a `Sheet`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from undertow import schema
from undertow.kernels.closing import SLICES
from undertow.state import CodeColumn, FloatColumn, Universe
from undertow.state.arrays import frozen
from undertow.state.market import Market
from undertow.state.universe import NONE
from undertow.stress.aftermath import Cascade
from undertow.stress.contagion.follower import Follower
from undertow.stress.contagion.network import Sheet
from undertow.stress.setting import idle_after

_NOTHING_LEFT = 1e-6  # share of a claim that stays where nothing backs it, as in the engine
_QUOTED = [
    schema.INSTRUMENT_KINDS.index(kind)
    for kind in ("perp", "share", "reserve", "cash", "spot")  # the last wins
]


@dataclass(frozen=True, eq=False)
class Losses:
    """One cascade, read for those who are owed."""

    price: FloatColumn  # [A] USD in the market at the end, had no claim on the asset lost anything
    backed: FloatColumn  # [A] share of each asset that the market prices as still backed
    receipt: FloatColumn  # [A] the part of it that the engine took off within the cascade
    supplied: FloatColumn  # [I] units in the reserve, with what was robbed of it
    present: FloatColumn  # [I] units in it when the first round began, before anybody left
    left: FloatColumn  # [I] units that suppliers took out
    locked: FloatColumn  # [I] units that they wanted and could not have
    lost: FloatColumn  # [I] units lost to bad debt
    taken: FloatColumn  # [I] the same as a share of what stayed, at most all
    unpaid: FloatColumn  # [I] the same in USD, at the prices at which it was lost
    fund: FloatColumn  # [V] USD of insurance and backstop that closings left
    uncovered: FloatColumn  # [V] USD that bankrupt accounts lacked and nobody paid
    own: FloatColumn  # [P] USD of equity that owners who owe outside the book lost in it
    equity: FloatColumn  # [P] what they had before

    @classmethod
    def of(cls, sheet: Sheet, cascade: Cascade, engine: Follower) -> Losses:
        """Read a cascade that `engine` has just run."""
        plan, stressed = cascade.plan, cascade.stressed
        found, liquidity = sheet.snapshot.liquidity, stressed.snapshot.liquidity
        left, locked = idle_after(plan, stressed)
        stayed = liquidity.supplied - left
        gone, receipt = engine.gone, engine.receipt
        taken = np.divide(gone, stayed, out=np.zeros_like(gone), where=stayed > 0.0)
        pricing = plan.pricing
        chained = pricing.receipts(receipt) if (receipt != 1.0).any() else receipt
        backed = np.maximum(pricing.receipts(stressed.receipt) * chained, _NOTHING_LEFT)
        before = sheet.owner_equity(cascade, after=False)
        columns = {
            "price": _prices(sheet, cascade, backed),
            "backed": backed,
            "receipt": receipt,
            "supplied": np.maximum(found.supplied, liquidity.supplied),
            "present": liquidity.supplied.copy(),
            "left": left,
            "locked": locked,
            "lost": gone.copy(),
            "taken": np.minimum(taken, 1.0),
            "unpaid": np.array(cascade.unpaid),
            "fund": cascade.insurance + cascade.backstop,
            "uncovered": _uncovered(cascade),
            "own": before - sheet.owner_equity(cascade, after=True),
            "equity": before,
        }
        return cls(**{name: frozen(column) for name, column in columns.items()})


def _prices(sheet: Sheet, cascade: Cascade, backed: FloatColumn) -> FloatColumn:
    """Prices of assets by the instrument that quotes each, else by what they hang on."""
    plan = cascade.plan
    quoted = _quoted(plan.snapshot.universe, plan.snapshot.market)
    moved = np.exp(np.clip(plan.pricing.asset_moves(cascade.stressed.factor), -50.0, 50.0))
    here = np.flatnonzero(quoted != NONE)
    k = quoted[here]
    moved[here] = cascade.final[k] / plan.insts["start"][k] / backed[here]
    price: FloatColumn = sheet.price * moved
    return price


def _quoted(universe: Universe, market: Market) -> CodeColumn:
    """[A] The instrument whose price stands for the asset's, or NONE."""
    found = np.full(len(universe.assets), NONE, dtype=np.int32)
    for kind in _QUOTED:
        here = np.flatnonzero((universe.kind == kind) & market.priced)[::-1]
        found[universe.asset_of[here]] = here
    return found


def _uncovered(cascade: Cascade) -> FloatColumn:
    """[V] What bankrupt accounts lacked, less what funds and winners paid."""
    plan, funds = cascade.plan, cascade.stressed.snapshot.funds
    short, paid, bad, unpaid, cut = (
        cascade.of_venue(column)
        for column in (cascade.short, cascade.paid, cascade.bad, cascade.unpaid, cascade.cut)
    )
    slices = plan.closing["mechanism"] == SLICES
    begun = (funds.insurance + funds.backstop) * cascade.stressed.fund_mult
    spent = begun + np.where(slices, cut, 0.0) - cascade.insurance - cascade.backstop
    lacking = short - paid - (spent - (bad - unpaid))
    found: FloatColumn = np.where(lacking > 1e-9 * np.maximum(short, 1.0), lacking, 0.0)
    return found
