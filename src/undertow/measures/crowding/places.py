"""Where each asset is sold, and what trades of it meet there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from undertow import schema
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn, KeyColumn
from undertow.state.arrays import frozen
from undertow.state.universe import NONE
from undertow.stress.plan import Plan
from undertow.stress.worth import asset_prices

_OUTRIGHT, _PERPS = (
    [schema.INSTRUMENT_KINDS.index(kind) for kind in kinds]
    for kinds in (("spot", "reserve", "cash"), ("perp", "future"))
)


@dataclass(frozen=True, eq=False)
class Places:
    """By asset, in USD; NaN where nobody knows."""

    price: FloatColumn  # of one unit; 0 where nobody knows
    depth_usd: FloatColumn  # an e-fold, where it is sold outright and deepest, else on a perp
    daily_usd: FloatColumn  # what trades in a day, everywhere

    @classmethod
    def of(cls, snapshot: Snapshot) -> Places:
        """Read prices, depth and volume of every asset."""
        universe, market = snapshot.universe, snapshot.market
        size = len(universe.assets)
        price = asset_prices(snapshot)
        usd = market.depth * market.mark
        depth = np.zeros(size)
        for kinds in (_PERPS, _OUTRIGHT):  # the second has the last word
            here = np.isin(universe.kind, kinds) & ~universe.inverse
            most = np.zeros(size)
            np.maximum.at(most, universe.asset_of[here], usd[here])
            depth = np.where(most > 0.0, most, depth)
        traded = np.isin(universe.kind, [*_OUTRIGHT, *_PERPS])
        base = np.bincount(
            universe.asset_of[traded], snapshot.liquidity.daily[traded], minlength=size
        )
        daily = base * price
        return cls(
            frozen(price),
            frozen(np.where(depth > 0.0, depth, np.nan)),
            frozen(np.where(daily > 0.0, daily, np.nan)),
        )


class SoldAs(NamedTuple):
    """By instrument: the asset that cascades sell it as."""

    asset: KeyColumn  # what it is redeemed for where it has no depth of its own, else its own
    rate: FloatColumn  # units of that in one unit

    @classmethod
    def of(cls, plan: Plan) -> SoldAs:
        """Read where a book's instruments are sold; what has no way anywhere is sold as itself."""
        pool, own = plan.carriers.spot_pool, plan.snapshot.universe.asset_of
        nowhere = pool == NONE
        return cls(
            frozen(np.where(nowhere, own, pool).astype(np.int64)),
            frozen(np.where(nowhere, 1.0, plan.carriers.spot_rate)),
        )
