"""Backing to peg: what is backed by less than it promises trades at a discount.

Of a token that has a par (it follows something, or is money), backing over par is

    B = r · (V / V₀) / (par / par₀)

with V what it holds at market prices and at what its debtors pay, less its loans; r is what it was
at the start: 1 unless `Assumptions.ratios` or claims that outnumber what backs them say otherwise.
It lacks 1 − D, D = min(1, B) / min(1, r), and its market price falls to D to the power of the
elasticity, of which what receipts take off is left out. Rate oracles do not see it. What had
nothing behind it at the start has nothing to lose.
"""

from __future__ import annotations

import numpy as np

from undertow.state import BoolColumn, FloatColumn
from undertow.state.universe import NONE
from undertow.stress.aftermath import Cascade
from undertow.stress.contagion.channels import Assumptions
from undertow.stress.contagion.claims import Settlement
from undertow.stress.contagion.network import Sheet
from undertow.stress.contagion.proposals import Origin, Proposal
from undertow.stress.contagion.stakes import LOAN, TOKEN

_NOISE = 1e-12


def starting_ratios(sheet: Sheet, assumed: Assumptions) -> FloatColumn:
    """[A] What backs a unit of each asset over its par, before any shock."""
    universe = sheet.snapshot.universe
    ratio = np.ones(len(sheet.price))
    tokens = np.flatnonzero(sheet.sort == TOKEN)
    ratio[sheet.code[tokens]] = sheet.stakes.scale[tokens]
    for name, known in assumed.ratios.items():
        ratio[universe.code("asset", name)] = known
    return ratio


def backed_share(
    settlement: Settlement, assumed: Assumptions, start: FloatColumn
) -> tuple[FloatColumn, FloatColumn]:
    """[A] D, what is left of backing under par; and USD that it lacks. 1 where it has no par."""
    sheet, losses = settlement.sheet, settlement.losses
    universe = sheet.snapshot.universe
    then, now = _value(sheet, sheet.price, None), _value(sheet, losses.price, settlement)
    tokens = np.flatnonzero(sheet.sort == TOKEN)
    code = sheet.code[tokens]
    grown = np.divide(losses.price, sheet.price, out=np.ones_like(losses.price),
                      where=sheet.price > 0.0)  # fmt: skip
    reference = universe.reference[code]
    par = np.where(reference != NONE, grown[reference], 1.0)
    ratio = start[code]
    has_par = ((reference != NONE) | universe.stable[code]) & (then[tokens] > 0.0)
    has_par &= ratio > _NOISE
    value = np.divide(now[tokens], then[tokens], out=np.ones(len(tokens)), where=has_par)
    left = np.clip(ratio * value / par, 0.0, 1.0)
    left = np.divide(left, np.minimum(ratio, 1.0), out=np.ones(len(tokens)), where=has_par)
    share, lacks = np.ones(len(sheet.price)), np.zeros(len(sheet.price))
    share[code] = np.where(has_par & (left < 1.0 - _NOISE), left, 1.0)
    lacks[code] = (1.0 - share[code]) * then[tokens] * par
    return share, lacks


def propose_pegs(
    settlement: Settlement, cascade: Cascade, assumed: Assumptions, start: FloatColumn
) -> Proposal:
    """Discounts of all tokens that lack backing."""
    share, lacks = backed_share(settlement, assumed, start)
    discount = assumed.elasticity * np.log(np.maximum(share, 1e-12))
    priced = np.log(np.maximum(_said(settlement), 1e-12))
    peg = np.where(share < 1.0, np.minimum(discount - priced, 0.0), 0.0)
    peg = np.where(peg > -_NOISE, 0.0, np.maximum(peg, np.log1p(-assumed.furthest)))
    names = cascade.plan.snapshot.universe.assets
    origins: dict[tuple[str, int], tuple[Origin, ...]] = {
        ("peg", int(k)): ((f"asset:{names[k]}", float(lacks[k])),) for k in np.flatnonzero(peg)
    }
    return Proposal("backing", {"peg": peg}, origins)


def _said(settlement: Settlement) -> FloatColumn:
    """[A] What receipts take off, by now or once claims have been told to them."""
    sheet, said = settlement.sheet, settlement.losses.backed
    if not settlement.channels.claims:
        return said
    tokens = np.flatnonzero(sheet.sort == TOKEN)
    told = said.copy()
    told[sheet.code[tokens]] = np.minimum(said[sheet.code[tokens]], settlement.share[tokens])
    return told


def _value(sheet: Sheet, price: FloatColumn, settlement: Settlement | None) -> FloatColumn:
    """[P] What tokens hold less what they have borrowed, at prices; paid as settled, or in full."""
    loan: BoolColumn = sheet.kind == LOAN
    usd = sheet.qty * sheet.unsecured * price[sheet.asset]
    owes = sheet.summed(sheet.debtor, np.where(loan, usd, 0.0))
    if settlement is not None:
        owed, left = settlement.owed, settlement.share[sheet.debtor]
        kept = np.divide(owed.due, owed.face, out=np.ones_like(owed.face), where=owed.face > 0.0)
        usd = usd * kept * np.where(loan, settlement.loan[sheet.debtor], left)
    value: FloatColumn = sheet.summed(sheet.creditor, usd) - owes
    return value
