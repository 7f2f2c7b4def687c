"""What market makers hold: the other side of everybody, so that no contract is one-sided."""

from __future__ import annotations

import numpy as np

from undertow import schema
from undertow.state import CodeColumn, FloatColumn
from undertow.state.book import CASH, ISOLATED, OPTION, PERP
from undertow.state.book import PORTFOLIO as PORTFOLIO_MODE
from undertow.worlds.catalogue import MAKER, VenueFacts
from undertow.worlds.frames import rows
from undertow.worlds.legs import Legs
from undertow.worlds.names import Names
from undertow.worlds.planting import Planted, trading_account_rows
from undertow.worlds.population import Roster, Sort, derivatives
from undertow.worlds.terms import Terms, require_venue
from undertow.worlds.traders import WORST_SHARE

_MAKER_CUSHION, _LEAST_CASH_USD = 0.2, 10_000.0


def maker_legs(
    names: Names, terms: Terms, quotes: FloatColumn, roster: Roster, legs: list[Legs]
) -> list[Legs]:
    """The other side of every derivative, and cash enough never to matter: no venue is one-sided.

    The quantity is minus the exact sum of everybody else's, so longs equal shorts to the bit.
    """
    net = _net(names, legs)
    built = []
    for code, venue in enumerate(names.venues):
        makers = roster.of(Sort.MAKER, code)
        if not len(makers):
            continue
        if venue.kind == "options":
            roster.mode[makers] = PORTFOLIO_MODE
        listed = derivatives(names, venue.key)
        if venue.isolates:
            roster.mode[makers] = ISOLATED
            roster.group[makers] = [
                roster.label(f"isolated:{names.facts(int(k)).key}") for k in listed
            ]
        each = -(-len(listed) // len(makers))
        for k, maker in enumerate(makers):
            held = listed[k * each : k * each + each]
            built.append(_maker(names, terms, quotes, venue, int(maker), held, net))
    return built


def plant_maker(
    names: Names,
    terms: Terms,
    quotes: FloatColumn,
    venue_key: str,
    crowd: Planted,
    key: int,
    owner: int,
) -> Planted:
    """A maker with an owner of its own, who takes the other side of a crowd that has nobody."""
    venue = require_venue(names, venue_key, "perp")
    net = _net(names, [crowd.legs])
    held = derivatives(names, venue.key)
    held = held[net[held] != 0.0]
    legs = _maker(names, terms, quotes, venue, 0, held, net)
    accounts = trading_account_rows(names, venue, names.facts(int(held[0])).key, [key], [owner])
    entities = rows(
        "entities", ts=names.ts, owner=[owner], label=[f"{MAKER} of {venue.key}"],
        kind="market_maker",
    )  # fmt: skip
    return Planted(accounts, entities, legs, [])


def _net(names: Names, legs: list[Legs]) -> FloatColumn:
    """Signed quantity of every derivative, summed in the order of the legs."""
    net = np.zeros(len(names.universe.instruments))
    for part in legs:
        held = np.isin(part.kind, (PERP, OPTION))
        np.add.at(net, part.inst[held], part.qty[held])
    return net


def _maker(
    names: Names,
    terms: Terms,
    quotes: FloatColumn,
    venue: VenueFacts,
    row: int,
    listed: CodeColumn,
    net: FloatColumn,
) -> Legs:
    universe = names.universe
    held = listed[net[listed] != 0.0]
    qty = -net[held]
    option = universe.kind[held] == schema.INSTRUMENT_KINDS.index("option")
    spot = names.price[universe.asset_of[held]]
    notional = np.where(universe.inverse[held], np.abs(qty), np.abs(qty) * spot)
    asked = 2.0 * float(terms.maintenance(held, notional).sum())
    owed = float((np.abs(qty) * quotes[held] * option).sum())
    if venue.kind == "options":
        asked += float(WORST_SHARE * notional.sum())
    cash = _LEAST_CASH_USD + asked + owed + _MAKER_CUSHION * float(notional.sum())
    cash_inst = names.code(venue.key, venue.quote)
    price = names.price_of(venue.quote)
    return Legs(
        np.full(len(held) + 1, row, dtype=np.int64),
        np.append(held, cash_inst).astype(np.int32),
        np.append(np.where(option, OPTION, PERP), CASH).astype(np.int8),
        np.append(qty, cash / price),
        np.append(quotes[held], np.nan),
    )
