"""What surrounds the positions: depth, pools, open interest, reserves, funds, claims, free assets.

Everything is sized to the book, so that a forced sale meets markets of the right depth: the e-fold
depth of an asset is `depth_ratio` times what the book holds of it.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from undertow import schema
from undertow.state import FloatColumn
from undertow.state.arrays import AnyColumn
from undertow.state.book import CASH, COLLATERAL, DEBT, PERP, SUPPLY
from undertow.worlds.catalogue import BRIDGE, POOL, SPOT
from undertow.worlds.frames import from_tuples, rows
from undertow.worlds.legs import Legs
from undertow.worlds.names import DAY_US, SINCE_US, Names
from undertow.worlds.plants import Claim
from undertow.worlds.population import Roster
from undertow.worlds.seeds import stream

BANDS = (0.01, 0.02, 1.0)
_SPOT_SHARE = 0.5
_LEAST_DEPTH_USD = 250_000.0
_HOUR_US = 3_600_000_000
FUNDING_HOURS = {"hyperliquid": 1, "dydx-v4": 1, "drift-v2": 1}  # eight elsewhere
_LADDER_LEVELS = 10
_UTILISATION = 0.8


class Holdings:
    """Sums of the book by instrument, added up in the order of its legs."""

    def __init__(self, names: Names, legs: Legs) -> None:
        count = len(names.universe.instruments)
        self.names = names
        self.long = _summed(legs, count, legs.qty > 0.0, PERP)
        self.collateral = _summed(legs, count, legs.qty > 0.0, COLLATERAL, CASH)
        self.supplied = _summed(legs, count, legs.qty > 0.0, COLLATERAL, SUPPLY)
        self.borrowed = -_summed(legs, count, legs.qty < 0.0, DEBT)

    def asset_depth(self, ratio: float) -> FloatColumn:
        """E-fold depth of each asset, in its own units."""
        universe, price = self.names.universe, self.names.price
        held = self.collateral + np.where(
            universe.inverse, self.long / price[universe.asset_of], self.long
        )
        by_asset = np.bincount(universe.asset_of, held, minlength=len(universe.assets))
        return np.maximum(ratio * by_asset, _LEAST_DEPTH_USD / price)

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
    summed: FloatColumn = np.bincount(legs.inst[chosen], legs.qty[chosen], minlength=count)
    return summed


def depth_rows(names: Names, depth: FloatColumn) -> pl.DataFrame:
    """Resting quantity within 1 % and 2 %, -log(1 - band) * depth, and the e-fold quantity."""
    inst = np.flatnonzero(depth > 0.0)
    parts = []
    for side in ("bid", "ask"):
        for band in BANDS:
            qty = depth[inst] * (1.0 if band == 1.0 else -np.log1p(-band))
            key = names.universe.instrument_keys.gather(inst)
            parts.append(rows("depth", ts=names.ts, instrument=key, side=side, band=band, qty=qty))
    return pl.concat(parts)


def pool_rows(names: Names, holdings: Holdings, ratio: float) -> pl.DataFrame:
    """A constant-product pool a tied or on-chain asset, a square-root market, two ladders."""
    universe, depth = names.universe, holdings.asset_depth(ratio)
    tuples: list[tuple[object, ...]] = []
    for code, asset in enumerate(universe.assets):
        price, deep = float(names.price[code]), float(depth[code])
        if names.assets[asset].kind == "fiat":
            continue
        if f"{POOL}:{asset}/USDC" in universe.instruments:
            tuples.append((f"{POOL}:{asset}/USDC", POOL, asset, "USDC", "constant_product", None,
                           0, price, 0.25 * deep, 0.25 * deep * price, 0.003))  # fmt: skip
        ladder = asset in ("BTC", "ETH")
        model = "exponential" if not ladder else "ladder"
        if not ladder:
            tuples.append((f"{SPOT}:{asset}/USD", SPOT, asset, "USD", model, None, 0, price,
                           0.25 * deep, None, 0.001))  # fmt: skip
            continue
        for side, sign in (("bid", -1.0), ("ask", 1.0)):
            for level in range(_LADDER_LEVELS):
                at = price * (1.0 + sign * (0.0005 + 0.004 * level))
                tuples.append((f"{SPOT}:{asset}/USD", SPOT, asset, "USD", model, side, level, at,
                               0.25 * deep * 0.004, None, 0.001))  # fmt: skip
    columns = ("pool", "venue", "asset", "quote", "model", "side", "level", "price", "qty",
               "quote_qty", "fee")  # fmt: skip
    return from_tuples("pools", columns, tuples, ts=names.ts)


def open_interest_rows(names: Names, holdings: Holdings, mark: FloatColumn) -> pl.DataFrame:
    """Open interest of every perp: the exact sum of its longs."""
    universe = names.universe
    inst = np.flatnonzero(universe.kind == schema.INSTRUMENT_KINDS.index("perp"))
    long, price, faces = holdings.long[inst], mark[inst], universe.inverse[inst]
    return rows(
        "open_interest",
        ts=names.ts,
        instrument=universe.instrument_keys.gather(inst),
        contracts=long / universe.contract_size[inst],
        base=np.where(faces, long / price, long),
        usd=np.where(faces, long, long * price),
        source_unit="contracts",
    )


def funding_rate(
    premium: AnyColumn, hours: AnyColumn, *, clamp: float = 5e-4, cap: float = 0.02
) -> AnyColumn:
    """Rate of an interval: P + clamp(I - P, -clamp, clamp), then within -cap and cap.

    The interest I is 0.0001 per 8 hours. Where the interval is shorter, the rate of 8 hours is
    spread over it.
    """
    interest = 1e-4
    rate = premium + np.clip(interest - premium, -clamp, clamp)
    return np.clip(rate, -cap, cap) * hours / 8.0


def funding_rows(names: Names, mark: FloatColumn) -> pl.DataFrame:
    """The funding of the interval that ends at the snapshot."""
    universe = names.universe
    inst = np.flatnonzero(universe.kind == schema.INSTRUMENT_KINDS.index("perp"))
    venue = [universe.venues[k] for k in universe.venue_of[inst]]
    hours = np.array([FUNDING_HOURS.get(key, 8) for key in venue])
    premium = np.log(mark[inst] / names.price[universe.asset_of[inst]])
    rate = funding_rate(premium, hours)
    return rows(
        "funding",
        ts=names.ts,
        instrument=universe.instrument_keys.gather(inst),
        rate=rate,
        interval_us=hours * _HOUR_US,
        rate_per_hour=rate / hours,
    )


def volume_rows(seed: int, names: Names, depth: FloatColumn) -> pl.DataFrame:
    """What traded in the day before the snapshot: 0.2 to 2 times the e-fold depth."""
    inst = np.flatnonzero(depth > 0.0)
    base = depth[inst] * stream(seed, "volumes").uniform(0.2, 2.0, len(inst))
    return rows(
        "volumes",
        ts=names.ts - DAY_US,
        instrument=names.universe.instrument_keys.gather(inst),
        interval_us=DAY_US,
        base=base,
        usd=base * names.price[names.universe.asset_of[inst]],
    )


def liquidation_rows(
    seed: int, names: Names, roster: Roster, legs: Legs, mark: FloatColumn
) -> pl.DataFrame:
    """A few forced closes of the day before: small parts of positions that are still there."""
    rng = stream(seed, "liquidations")
    perps = np.flatnonzero(legs.kind == PERP)
    count = min(len(perps), max(1, len(roster.account) // 200), 500)
    leg = np.sort(rng.choice(perps, count, replace=False)) if count else perps
    inst = legs.inst[leg]
    faces = names.universe.inverse[inst]
    price = mark[inst] * np.exp(0.01 * rng.standard_normal(count))
    qty = np.abs(legs.qty[leg]) * rng.uniform(0.01, 0.2, count)
    venue = pl.Series(names.universe.venues).gather(names.universe.venue_of[inst])
    return rows(
        "liquidations",
        ts=names.ts - 1 - rng.integers(0, DAY_US, count),
        venue=venue,
        instrument=names.universe.instrument_keys.gather(inst),
        account=roster.account[legs.row[leg]],
        liquidated_side=pl.Series(["long", "short"]).gather((legs.qty[leg] < 0).astype(np.int8)),
        qty=qty,
        price=price,
        usd=np.where(faces, qty, qty * price),
        completeness="all",
        source_id=[f"w{k}" for k in range(count)],
    )


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


def backing_claims(names: Names, holdings: Holdings) -> list[Claim]:
    """What stands behind the catalogue's tied assets: 1.25 times what the book holds of each."""
    universe = names.universe
    held = np.bincount(universe.asset_of, holdings.collateral, minlength=len(universe.assets))
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
