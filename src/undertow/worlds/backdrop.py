"""What surrounds the positions: reserves, funds, claims, free assets, tags; sized to the book."""

from __future__ import annotations

import numpy as np
import polars as pl

from undertow import schema
from undertow.state import FloatColumn
from undertow.state.arrays import AnyColumn
from undertow.state.book import CASH, COLLATERAL, DEBT, PERP, SUPPLY
from undertow.worlds.catalogue import BRIDGE
from undertow.worlds.frames import from_tuples, rows
from undertow.worlds.legs import Legs
from undertow.worlds.names import SINCE_US, Names
from undertow.worlds.planting import Claim
from undertow.worlds.population import Roster
from undertow.worlds.seeds import stream

_SPOT_SHARE = 0.5
_LEAST_DEPTH_USD = 250_000.0
_DEFENDED = {"money": 40.0, "tied": 4.0}  # depth over that of an asset that follows nothing
_UTILISATION = 0.8


class Holdings:
    """Sums of the book by instrument, added up in the order of its legs."""

    def __init__(self, names: Names, legs: Legs) -> None:
        count = len(names.universe.instruments)
        self.names = names
        self.long = _summed(legs, count, legs.qty > 0.0, PERP)
        self.collateral = _summed(legs, count, legs.qty > 0.0, COLLATERAL, CASH)
        self.cash = _summed(legs, count, legs.qty > 0.0, CASH)
        self.supplied = _summed(legs, count, legs.qty > 0.0, COLLATERAL, SUPPLY)
        self.borrowed = -_summed(legs, count, legs.qty < 0.0, DEBT)

    def asset_depth(self, ratio: float) -> FloatColumn:
        """E-fold depth of each asset, in its own units.

        What follows something else is defended: whoever can redeem it buys it cheap and sells it
        dear, so it takes many times the volume to move it as far.
        """
        universe, price = self.names.universe, self.names.price
        held = self.collateral + np.where(
            universe.inverse, self.long / price[universe.asset_of], self.long
        )
        held = np.maximum(held, self.borrowed)  # what is owed has to be bought
        by_asset = np.bincount(universe.asset_of, held, minlength=len(universe.assets))
        by_asset *= np.where(universe.stable, _DEFENDED["money"], 1.0)
        tied = ~universe.stable & (universe.reference >= 0)
        by_asset *= np.where(tied, _DEFENDED["tied"], 1.0)
        depth: FloatColumn = np.maximum(ratio * by_asset, _LEAST_DEPTH_USD / price)
        return depth

    def instrument_depth(self, ratio: float) -> FloatColumn:
        """E-fold depth of each spot market and perp: half on spot, half split over the perps."""
        universe = self.names.universe
        whole = self.asset_depth(ratio)[universe.asset_of]
        kinds = np.array(schema.INSTRUMENT_KINDS)[universe.kind]
        perps = np.bincount(universe.asset_of[kinds == "perp"], minlength=len(universe.assets))
        spots = np.bincount(universe.asset_of[kinds == "spot"], minlength=len(universe.assets))
        part = np.zeros(len(kinds))
        for kind, counts, share in (("spot", spots, _SPOT_SHARE), ("perp", perps, 1 - _SPOT_SHARE)):
            of_kind = kinds == kind
            part[of_kind] = share / counts[universe.asset_of[of_kind]]
        return whole * part


def _summed(legs: Legs, count: int, where: AnyColumn, *kinds: int) -> FloatColumn:
    chosen = np.isin(legs.kind, kinds) & where
    qty = legs.qty[chosen].astype(np.float64)  # none at all would be counted in integers
    return np.bincount(legs.inst[chosen], qty, minlength=count).astype(np.float64)


def reserve_rows(names: Names, holdings: Holdings) -> tuple[pl.DataFrame, list[Claim]]:
    """Reserves, and the claims of the outsiders who fund what borrowers took."""
    universe = names.universe
    lent = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("reserve", "share")]
    inst = np.flatnonzero(np.isin(universe.kind, lent))
    inside, borrowed = holdings.supplied[inst], holdings.borrowed[inst]
    outside = np.maximum(borrowed / _UTILISATION - inside, 0.0)
    supplied = inside + outside
    use = np.divide(borrowed, supplied, out=np.zeros_like(borrowed), where=supplied > 0.0)
    rate = 0.055 * np.minimum(use / 0.9, 1.0) + 0.6 * np.maximum(use - 0.9, 0.0) / 0.1
    frame = rows(
        "reserves",
        ts=names.ts,
        instrument=universe.instrument_keys.gather(inst),
        supplied=supplied,
        borrowed=borrowed,
        supply_cap=2.0 * supplied + 1.0,
        borrow_cap=2.0 * borrowed + 1.0,
        supply_rate=rate * use * 0.9,
        borrow_rate=rate,
        supply_index=1.0,
        borrow_index=1.0,
        deficit=0.0,
    )
    claims: list[Claim] = [
        ("venue", universe.venues[universe.venue_of[k]], "external", "depositors",
         universe.assets[universe.asset_of[k]], "deposit", float(qty))
        for k, qty in zip(inst, outside, strict=True) if qty > 0.0
    ]  # fmt: skip
    return frame, claims


def backing_claims(names: Names, holdings: Holdings, reserves: pl.DataFrame) -> list[Claim]:
    """What stands behind the catalogue's tied assets: 1.25 times what venues hold of each."""
    universe = names.universe
    lies = holdings.cash.copy()
    for key, supplied, borrowed in reserves.select(
        "instrument", "supplied", "borrowed"
    ).iter_rows():
        lies[universe.code("instrument", key)] = supplied - borrowed
    held = np.bincount(universe.asset_of, lies, minlength=len(universe.assets))
    claims: list[Claim] = []
    for code, asset in enumerate(universe.assets):
        facts = names.assets[asset]
        if facts.reference is None or facts.sector == "planted" or facts.rate is None:
            continue
        supply = max(1.25 * float(held[code]), 1.0)
        keeper = {"wrapped": "custodians", "staked": "validators"}.get(facts.kind, "reserves")
        kind = "custody" if facts.kind == "wrapped" else "backing"
        if facts.key == "tBTC":
            claims.append(
                ("venue", BRIDGE, "asset", asset, facts.reference, "bridge", supply * facts.rate)
            )
            continue
        claims.append(
            ("external", keeper, "asset", asset, facts.reference, kind, supply * facts.rate)
        )
    return claims


def fund_rows(names: Names, holdings: Holdings, mark: FloatColumn) -> pl.DataFrame:
    """Insurance of perp venues and liquidator capacity of lenders, half a per cent of the book."""
    universe = names.universe
    perps = universe.kind == schema.INSTRUMENT_KINDS.index("perp")
    open_usd = np.where(universe.inverse, holdings.long, holdings.long * mark) * perps
    lent_usd = holdings.borrowed * names.price[universe.asset_of]
    tuples = []
    for venue in names.venues:
        here = universe.venue_of == universe.code("venue", venue.key)
        if venue.kind == "lending":
            size = float(lent_usd[here].sum())
            tuples.append((venue.key, "liquidator_capacity", 10_000.0 + 0.2 * size))
            if venue.key == "liquity-v1":
                tuples.append((venue.key, "backstop", 10_000.0 + 0.3 * size))
        else:
            size = float(open_usd[here].sum())
            tuples.append((venue.key, "insurance", 10_000.0 + 0.005 * size))
            if venue.key == "hyperliquid":
                tuples.append((venue.key, "backstop", 10_000.0 + 0.02 * size))
    return from_tuples("venue_funds", ("venue", "kind", "amount_usd"), tuples, ts=names.ts)


def free_rows(seed: int, names: Names, roster: Roster) -> pl.DataFrame:
    """What three owners in ten keep outside, in money."""
    rng = stream(seed, "free assets")
    owner = np.unique(roster.owner[roster.owner > 0])
    kept = rng.random(len(owner)) < 0.3
    size = 1_000.0 * np.exp(rng.standard_normal(len(owner)))
    return rows(
        "free_assets",
        ts=names.ts,
        owner=owner[kept],
        asset="USDC",
        qty=size[kept] / names.price_of("USDC"),
    )


def tag_rows(names: Names) -> pl.DataFrame:
    """Who keeps the keys and whether the code was looked at."""
    tuples = []
    for venue in names.venues:
        on_chain = venue.chain != "none"
        tuples.append(("venue", venue.key, "governance", "token" if on_chain else "company"))
        tuples.append(("venue", venue.key, "audited", "yes" if on_chain else "unknown"))
    tuples += [("asset", a.key, "sector", a.sector) for a in names.assets.values()]
    columns = ("subject_kind", "subject", "tag", "value")
    return from_tuples("tags", columns, tuples, ts=names.ts - SINCE_US)
