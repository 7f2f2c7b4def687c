"""Where positions could be closed: depth, pools, open interest, funding, volumes, forced closes.

Everything is sized to the book, so that a forced sale meets markets of the right depth: the e-fold
depth of an asset is `depth_ratio` times what the book holds of it.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from undertow import schema
from undertow.state import CodeColumn, FloatColumn, KeyColumn
from undertow.state.book import COLLATERAL, DEBT, PERP
from undertow.worlds.backdrop import Holdings
from undertow.worlds.catalogue import POOL, SPOT
from undertow.worlds.frames import from_tuples, rows
from undertow.worlds.legs import Legs
from undertow.worlds.names import DAY_US, Names
from undertow.worlds.population import Roster
from undertow.worlds.seeds import stream

BANDS = (0.01, 0.02, 1.0)
FUNDING_HOURS = {"hyperliquid": 1, "dydx-v4": 1, "drift-v2": 1}  # eight elsewhere
_HOUR_US = 3_600_000_000
_LADDER_LEVELS = 10


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
    premium: FloatColumn, hours: FloatColumn | float, *, clamp: float = 5e-4, cap: float = 0.02
) -> FloatColumn:
    """Rate of an interval: P + clamp(I - P, -clamp, clamp), then within -cap and cap.

    The interest I is 0.0001 per 8 hours. Where the interval is shorter, the rate of 8 hours is
    spread over it.
    """
    interest = 1e-4
    rate = premium + np.clip(interest - premium, -clamp, clamp)
    spread: FloatColumn = np.clip(rate, -cap, cap) * hours / 8.0
    return spread


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
    most = min(max(1, len(roster.account) // 200), 500)
    rng = stream(seed, "liquidations")
    perps = _chosen(rng, np.flatnonzero(legs.kind == PERP), most)
    inst = legs.inst[perps]
    faces = names.universe.inverse[inst]
    price = mark[inst] * np.exp(0.01 * rng.standard_normal(len(perps)))
    qty = np.abs(legs.qty[perps]) * rng.uniform(0.01, 0.2, len(perps))
    traded = rows(
        "liquidations",
        ts=names.ts - 1 - rng.integers(0, DAY_US, len(perps)),
        account=roster.account[legs.row[perps]],
        liquidated_side=pl.Series(["long", "short"]).gather((legs.qty[perps] < 0).astype(np.int8)),
        qty=qty,
        price=price,
        usd=np.where(faces, qty, qty * price),
        **_where(names, inst),
        completeness="all",
        source_id=[f"w{k}" for k in range(len(perps))],
    )
    rng = stream(seed, "liquidations of lenders")
    # Of an account with two legs, a debt stands right before or right after its collateral.
    debt = np.flatnonzero(legs.kind[1:] == DEBT) + 1
    debt = debt[(legs.kind[debt - 1] == COLLATERAL) & (legs.row[debt - 1] == legs.row[debt])]
    debt = _chosen(rng, debt, most)
    inst, owed = legs.inst[debt - 1], legs.inst[debt]
    repaid = -legs.qty[debt] * rng.uniform(0.01, 0.2, len(debt))
    usd = 1.05 * repaid * mark[owed]
    lent = rows(
        "liquidations",
        ts=names.ts - 1 - rng.integers(0, DAY_US, len(debt)),
        account=roster.account[legs.row[debt]],
        liquidated_side="long",
        qty=usd / mark[inst],
        price=mark[inst],
        usd=usd,
        **_where(names, inst),
        debt_instrument=names.universe.instrument_keys.gather(owed),
        debt_qty=repaid,
        completeness="all",
        source_id=[f"l{k}" for k in range(len(debt))],
    )
    return pl.concat([traded, lent])


def _chosen(rng: np.random.Generator, legs: KeyColumn, most: int) -> KeyColumn:
    chosen: KeyColumn = np.sort(rng.choice(legs, min(most, len(legs)), replace=False))
    return chosen


def _where(names: Names, inst: CodeColumn) -> dict[str, pl.Series]:
    venues = pl.Series(names.universe.venues)
    return {
        "venue": venues.gather(names.universe.venue_of[inst]),
        "instrument": names.universe.instrument_keys.gather(inst),
    }
