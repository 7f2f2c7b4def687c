"""Who keeps leveraged tokens at their leverage: sellers in a fall, whoever else sells."""

from __future__ import annotations

import numpy as np

from undertow import schema
from undertow.kernels import cascade
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn
from undertow.stress.pricing import PricingMap

_OUTRIGHT, _PERPS = (
    [schema.INSTRUMENT_KINDS.index(kind) for kind in kinds]
    for kinds in (("spot", "reserve", "cash"), ("perp", "future"))
)


def keepers_of(snapshot: Snapshot, pricing: PricingMap) -> AnyColumn:
    """What managers of leveraged tokens trade to be at their leverage again, a row a token.

    `strength` is in units of the instrument, at its price at the start, per unit of its relative
    move: sold after a fall, bought after a rise. The assets under management are the net value of
    what backs the token. A token whose reference trades nowhere has no row.
    """
    size, start = pricing.rebalancing_size, snapshot.market.mark
    found = []
    for token in np.flatnonzero(pricing.rebalanced):
        k = _traded(snapshot, int(pricing.first[token]))
        if k is not None:
            found.append((k, max(size[token], 0.0) / start[k]))  # who is bust trades no more
    return np.array(found, dtype=cascade.KEEPER).view(np.recarray)


def _traded(snapshot: Snapshot, asset: int) -> int | None:
    """Where an asset is traded outright: the deepest of what is sold in its pool, else a perp."""
    universe, depth = snapshot.universe, snapshot.market.depth
    here = (universe.asset_of == asset) & ~universe.inverse
    for kinds in (_OUTRIGHT, _PERPS):
        among = np.flatnonzero(here & np.isin(universe.kind, kinds))
        if len(among):
            return int(among[np.argmax(depth[among])])
    return None
