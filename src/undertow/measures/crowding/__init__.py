"""Who stands in the same place, and how near the edge: fragility before a shock.

Every measure takes a `Snapshot`, or a `Crowd` of one where several are asked for, and gives back a
`Study`: readings with bands, the tables behind them, and what it says in words.
"""

from undertow.measures.crowding.concentration import concentration
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.demand import demand
from undertow.measures.crowding.flows import owner_flows
from undertow.measures.crowding.fragility import fragility
from undertow.measures.crowding.liquidation_map import liquidation_map as map  # noqa: A004 - ut.crowding.map
from undertow.measures.crowding.markets import MarketPast
from undertow.measures.crowding.rebalancing import rebalancing
from undertow.measures.crowding.saturation import saturation
from undertow.measures.crowding.sides import sides
from undertow.measures.crowding.similarity import similarity
from undertow.measures.crowding.surface import surface
from undertow.measures.crowding.synchrony import synchrony
from undertow.measures.crowding.vulnerability import vulnerability
from undertow.measures.crowding.wayout import way_out as exit  # noqa: A004 - ut.crowding.exit

__all__ = [
    "Crowd",
    "MarketPast",
    "concentration",
    "demand",
    "exit",
    "fragility",
    "map",
    "owner_flows",
    "rebalancing",
    "saturation",
    "sides",
    "similarity",
    "surface",
    "synchrony",
    "vulnerability",
]
