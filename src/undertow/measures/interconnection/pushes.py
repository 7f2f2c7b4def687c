"""What moved a price up to a round: shocks, what channels took off, and sales before it.

Parts are in logs, of which those that moved it the way it went count.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from undertow.measures.interconnection.passview import PassView
from undertow.measures.interconnection.trails import Cause, Node
from undertow.state import FloatColumn
from undertow.state.arrays import frozen
from undertow.state.universe import NONE
from undertow.stress.contagion.stakes import POOL

Channel = Callable[[int, str, str], str]  # that moved a component most, by pass, sort and name
_NOISE = 1e-9  # of a log


def price_cause(view: PassView, asset: int, when: int, usd: float) -> Cause:
    """The price of an asset in a round as a cause."""
    name = view.found.cascade.plan.snapshot.universe.assets[asset]
    return Cause(Node("price", name, view.number, when), usd)


def short_nodes(view: PassView, usd: dict[tuple[int, int], float], inst: int | None) -> list[Cause]:
    """Accounts that left debt behind as causes, by venue and round."""
    universe = view.found.cascade.plan.snapshot.universe
    what = "" if inst is None else universe.instruments[inst]
    return [
        Cause(Node("short", f"{universe.venues[venue]}|{what}", view.number, when), value)
        for (venue, when), value in sorted(usd.items())
    ]


def scaled(causes: list[Cause], usd: float, channel: str | None = None) -> list[Cause]:
    """Causes whose weights add up to `usd`."""
    whole = sum(each.weight for each in causes)
    if whole <= 0.0:
        return []
    return [
        each._replace(
            weight=each.weight * usd / whole,
            channel=each.channel if channel is None else channel,
        )
        for each in causes
    ]


def of_price(view: PassView, node: Node, channel: Channel) -> list[Cause]:
    """What moved the price that a node stands for."""
    found = view.found
    asset = found.cascade.plan.snapshot.universe.code("asset", node.name)
    inst = int(view.quoted[asset])
    if inst == NONE:
        return []
    move = view.move(asset, node.round)
    way = -1.0 if move <= 0.0 else 1.0
    causes = _shocked(view, asset, way) + _taken_off(view, asset, way, channel)
    basis = way * float(found.start.basis[inst])
    if basis > _NOISE:
        causes.append(Cause(Node("shock", f"basis of {node.name}"), basis))
    rest = way * move - sum(each.weight for each in causes)
    if rest > _NOISE:
        causes += _pushed(view, asset, inst, node.round, rest, bought=way > 0.0)
    return causes


def _shocked(view: PassView, asset: int, way: float) -> list[Cause]:
    """Factors of the scenario that an asset answers to, and claims that it wrote down."""
    start = view.found.start
    names, pricing = start.universe.assets, view.found.cascade.plan.pricing
    causes = []
    for k in np.flatnonzero(start.factor).tolist():
        part = way * float(pricing.asset_moves(_alone(start.factor, k))[asset])
        if part > _NOISE:
            moved = float(np.expm1(start.factor[k]))
            causes.append(Cause(Node("shock", f"{names[k]} {moved:+.0%}"), part))
    for k in np.flatnonzero(start.receipt != 1.0).tolist():
        part = way * math.log(_left(pricing.receipts(_alone(start.receipt, k, 1.0))[asset]))
        if part > _NOISE:
            causes.append(Cause(Node("failure", f"what backs {names[k]}"), part, "dependence"))
    return causes


def _taken_off(view: PassView, asset: int, way: float, channel: Channel) -> list[Cause]:
    """What channels took off an asset before the pass began."""
    found = view.found
    names, pricing, state = found.start.universe.assets, found.cascade.plan.pricing, found.state
    causes = []
    extra = found.cascade.stressed.factor - found.start.factor
    for k in np.flatnonzero(np.abs(extra) > _NOISE).tolist():
        part = way * float(pricing.asset_moves(_alone(extra, k))[asset])
        if part > _NOISE:
            causes.append(Cause(Node("peg", names[k], view.number), part, "backing"))
    for k in np.flatnonzero(state.receipt < np.minimum(found.start.receipt, 1.0)).tolist():
        part = way * math.log(_left(pricing.receipts(_alone(state.receipt, k, 1.0))[asset]))
        if part > _NOISE:
            by = channel(view.number, "receipt", names[k])
            causes.append(Cause(Node("receipt", names[k], view.number), part, by))
    return causes


def _pushed(
    view: PassView, asset: int, inst: int, when: int, rest: float, *, bought: bool
) -> list[Cause]:
    """Sales in rounds before, and reserves that lost what the asset deposits there."""
    universe = view.found.cascade.plan.snapshot.universe
    before = when if when >= 0 else view.found.cascade.rounds + 1
    causes: list[Cause] = []
    lost = -math.log(_left(float(view.found.settlement.losses.receipt[asset])))
    if lost > _NOISE and not bought:
        short = _short_before(view, asset, before)
        part = min(rest, lost) if short else 0.0
        causes += scaled(short, part, "receipts")
        rest -= part
    sales = view.sold(inst, before, bought=bought)
    way = "bought" if bought else "sold"
    sold = [
        Cause(Node(way, f"{universe.venues[v]}|{universe.assets[a]}", view.number, r), usd)
        for (v, r, a), usd in sorted(sales.items())
    ]
    return causes + (scaled(sold, rest, "fire_sales") if rest > _NOISE else [])


def _short_before(view: PassView, asset: int, before: int) -> list[Cause]:
    """Debt left behind before a round in reserves in which an asset has deposits."""
    sheet, found = view.found.settlement.sheet, list[Cause]()
    party = int(sheet.token_party[asset])
    if party == NONE:
        return found
    for row in np.flatnonzero(sheet.creditor == party):
        debtor = int(sheet.debtor[row])
        if sheet.sort[debtor] == POOL:
            inst = int(sheet.code[debtor])
            usd = {key: v for key, v in view.short_of(inst).items() if key[1] < before}
            found += short_nodes(view, usd, inst)
    return found


def _alone(column: FloatColumn, k: int, calm: float = 0.0) -> FloatColumn:
    """A column in which one entry stands and all others are calm."""
    found = np.full(len(column), calm)
    found[k] = column[k]
    return frozen(found)


def _left(share: float) -> float:
    return max(float(share), 1e-12)
