"""What assets are worth in a snapshot, against what they follow, and by their balance sheets."""

from __future__ import annotations

import numpy as np

from undertow import schema
from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.state import Claims, FloatColumn, KeyColumn, Universe
from undertow.state.claims import CLAIM_KINDS
from undertow.state.universe import NONE

_LOAN = CLAIM_KINDS.index("loan")
_QUOTED = ("spot", "cash", "reserve", "share", "perp")  # where a price is read first


def asset_prices(snapshot: Snapshot) -> FloatColumn:
    """USD price of each asset; 0 where nobody knows.

    The median over its spot markets, else over its cash, its reserves, its shares, its perps; the
    dollar is 1; a tied asset that nobody quotes is worth its rate times its reference.
    """
    universe, market = snapshot.universe, snapshot.market
    price = np.zeros(len(universe.assets))
    for kind in _QUOTED:
        here = (universe.kind == schema.INSTRUMENT_KINDS.index(kind)) & market.priced
        quoted = market.spot if kind == "spot" else market.mark
        for k in np.unique(universe.asset_of[here & (quoted > 0.0)]):
            if price[k] == 0.0:
                price[k] = np.median(quoted[here & (universe.asset_of == k) & (quoted > 0.0)])
    fiat = universe.asset_kind == schema.ASSET_KINDS.index("fiat")
    for k in np.flatnonzero(fiat & (price == 0.0)):
        price[k] = 1.0 if universe.assets[k].upper() == "USD" else 0.0
    for _ in universe.assets:
        unknown = (price == 0.0) & (universe.reference != NONE)
        implied = price[universe.reference] * universe.reference_rate
        if not (unknown & (implied > 0.0)).any():
            break
        price = np.where(unknown, implied, price)
    return price


def peg_deviations(snapshot: Snapshot) -> FloatColumn:
    """Log of each tied asset's price over its par; money that follows nothing has a par of 1 USD.

    0 where it has no par, or a price is unknown.
    """
    universe, price = snapshot.universe, asset_prices(snapshot)
    tied = universe.reference != NONE
    par = np.where(tied, price[universe.reference] * universe.reference_rate, 1.0)
    known = (price > 0.0) & (par > 0.0) & (tied | universe.stable)
    deviation: FloatColumn = np.log(np.where(known, price, 1.0) / np.where(known, par, 1.0))
    return deviation


def asset_codes(claims: Claims) -> KeyColumn:
    """By party of `claims`: the code of the asset that it is, or NONE."""
    universe = claims.universe
    codes = [
        universe.code("asset", node.removeprefix("asset:")) if node.startswith("asset:") else NONE
        for node in claims.nodes
    ]
    return np.array(codes, dtype=np.int64)


def balance_sheets(
    snapshot: Snapshot,
) -> tuple[dict[int, dict[int, float]], dict[int, dict[int, float]]]:
    """What each asset that claims speak of holds, and what it has borrowed: asset -> quantity."""
    claims = snapshot.claims
    code, loan = asset_codes(claims), claims.kind == _LOAN
    party = np.where(loan, code[claims.debtor], code[claims.creditor])
    held: dict[int, dict[int, float]] = {}
    owed: dict[int, dict[int, float]] = {}
    for row in np.flatnonzero(party != NONE):
        sheet = (owed if loan[row] else held).setdefault(int(party[row]), {})
        asset = int(claims.asset[row])
        sheet[asset] = sheet.get(asset, 0.0) + float(claims.qty[row])
    return held, owed


def leverage_of(
    universe: Universe,
    price: FloatColumn,
    k: int,
    held: dict[int, float],
    owed: dict[int, float],
) -> tuple[float, float]:
    """Leverage on the reference, and net value in USD, of a token with debts."""
    reference = int(universe.reference[k])
    net = exposed = 0.0
    for sign, sheet in ((1.0, held), (-1.0, owed)):
        for asset, qty in sheet.items():
            worth = sign * qty * float(price[asset])
            net += worth
            exposed += worth if asset == reference else 0.0
    if net <= 0.0:
        raise StateError(
            f"the token {universe.assets[k]!r} owes as much as it holds",
            source="claims",
            hint="give what backs it, and a price for that",
        )
    return exposed / net, net
