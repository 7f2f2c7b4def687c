"""Where each instrument's sales execute, and which pools carry its price.

One pool an asset, where all spot sales of it meet (nobody has two times the same depth by selling
on two venues), and one of its own for every contract that has depth. A tied asset is carried by
its own pool, which is its peg, and by the pools of all it follows; a contract by its asset's pools
and its own. An asset without depth of its own is redeemed: its sales reach the pool of what it
follows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from undertow import schema
from undertow.rules.snapshot import Snapshot
from undertow.state import BoolColumn, CodeColumn, FloatColumn, KeyColumn, SmallColumn, Universe
from undertow.state.arrays import frozen
from undertow.state.universe import NONE
from undertow.stress.pricing import PricingMap

_SPOT = schema.INSTRUMENT_KINDS.index("spot")
_CONTRACTS = [schema.INSTRUMENT_KINDS.index(kind) for kind in ("perp", "future")]


@dataclass(frozen=True, eq=False)
class Carriers:
    """Pools by code: first one an asset, then one a contract with depth."""

    depth: FloatColumn  # by pool, e-fold base units; 0 where nothing is known: no impact
    daily: FloatColumn  # by pool, base units a day
    vol: FloatColumn  # by pool, a day
    ladder: CodeColumn  # by pool, instrument whose ladder it is, or -1
    start: KeyColumn  # (instruments + 1,) into `pool`
    pool: CodeColumn  # carriers of each instrument's price, the asset's own first
    pull: FloatColumn  # log move of the price per log move of the carrier's
    tied: SmallColumn  # by instrument: the first carrier is a peg's
    spot_pool: CodeColumn  # by instrument: where its asset is sold, or -1
    spot_rate: FloatColumn  # by instrument: units of that pool's asset in one unit
    own_pool: CodeColumn  # by instrument, or -1

    @classmethod
    def of(cls, snapshot: Snapshot, pricing: PricingMap) -> Carriers:
        """Work out pools and carriers of a snapshot."""
        universe, market = snapshot.universe, snapshot.market
        assets, count = len(universe.assets), len(universe.instruments)
        spot = universe.kind == _SPOT
        contract = np.isin(universe.kind, _CONTRACTS)
        depth, daily, vol, ladder = _asset_pools(snapshot, spot, contract)
        own = np.full(count, NONE, dtype=np.int32)
        deep = np.flatnonzero(contract & (market.depth > 0.0))
        own[deep] = assets + np.arange(len(deep), dtype=np.int32)
        redeemed, rate = _redemption(universe, depth)
        chains = [_chain(pricing, asset) for asset in range(assets)]
        start: list[int] = [0]
        pool: list[int] = []
        pull: list[float] = []
        for k in range(count):
            carried = chains[universe.asset_of[k]]
            if own[k] != NONE:
                carried = [*carried, (int(own[k]), 1.0)]
            pool += [code for code, _ in carried]
            pull += [weight for _, weight in carried]
            start.append(len(pool))
        spot_vol = market.vol[deep] / np.sqrt(365.0)
        return cls(
            depth=frozen(np.concatenate([depth, market.depth[deep]])),
            daily=frozen(np.concatenate([daily, snapshot.liquidity.daily[deep]])),
            vol=frozen(np.concatenate([vol, spot_vol])),
            ladder=frozen(np.concatenate([ladder, deep.astype(np.int32)])),
            start=frozen(np.array(start, dtype=np.int64)),
            pool=frozen(np.array(pool, dtype=np.int32)),
            pull=frozen(np.array(pull, dtype=np.float64)),
            tied=frozen((universe.reference[universe.asset_of] != NONE).astype(np.int8)),
            spot_pool=frozen(redeemed[universe.asset_of]),
            spot_rate=frozen(rate[universe.asset_of]),
            own_pool=frozen(own),
        )

    @property
    def pools(self) -> int:
        """Number of pools."""
        return len(self.depth)


def _asset_pools(
    snapshot: Snapshot, spot: BoolColumn, contract: BoolColumn
) -> tuple[FloatColumn, FloatColumn, FloatColumn, CodeColumn]:
    """Depth, daily volume, daily volatility and deepest ladder of every asset's spot market.

    Depth is that of all spot books together; where no spot trades, that of the deepest contract.
    """
    universe, market, liquidity = snapshot.universe, snapshot.market, snapshot.liquidity
    assets = len(universe.assets)
    asset = universe.asset_of

    def total(column: FloatColumn, which: BoolColumn) -> FloatColumn:
        sums = np.bincount(asset[which], weights=column[which], minlength=assets)
        return sums.astype(np.float64)

    def most(column: FloatColumn, which: BoolColumn) -> FloatColumn:
        largest = np.zeros(assets)
        np.maximum.at(largest, asset[which], column[which])
        return largest

    depth = total(market.depth, spot)
    depth = np.where(depth > 0.0, depth, most(market.depth, contract))
    daily = total(liquidity.daily, spot)
    daily = np.where(daily > 0.0, daily, most(liquidity.daily, contract))
    ladder = np.full(assets, NONE, dtype=np.int32)
    for k in np.flatnonzero(spot & (market.depth > 0.0)):
        best = ladder[asset[k]]
        if best == NONE or market.depth[k] > market.depth[best]:
            ladder[asset[k]] = k
    return depth, daily, most(market.vol, spot | contract) / np.sqrt(365.0), ladder


def _chain(pricing: PricingMap, asset: int) -> list[tuple[int, float]]:
    """Pools that carry an asset's price, its own first, and how hard each pulls."""
    found = [(asset, 1.0)]
    below = [int(pricing.first[asset]), int(pricing.second[asset])]
    weight = float(pricing.leverage[asset]) if below[1] == NONE else 0.5
    for other in below:
        if other != NONE:
            found += [(pool, weight * pull) for pool, pull in _chain(pricing, other)]
    return found


def _redemption(universe: Universe, depth: FloatColumn) -> tuple[CodeColumn, FloatColumn]:
    """By asset, the pool that takes its sales, and how much of that pool's asset one unit is."""
    pool = np.full(len(universe.assets), NONE, dtype=np.int32)
    rate = np.ones(len(universe.assets))
    for start in range(len(universe.assets)):
        asset = start
        while asset != NONE and depth[asset] <= 0.0:
            rate[start] *= universe.reference_rate[asset]
            asset = int(universe.reference[asset])
        pool[start] = asset
    return pool, rate
