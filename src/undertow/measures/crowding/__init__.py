"""Who stands in the same place, and how near the edge: fragility before a shock.

Every measure takes a `Snapshot`, or a `Crowd` of one where several are asked for, and gives back a
`Study`: readings with bands, the tables behind them, and what it says in words.
"""

from undertow.measures.crowding.crowd import Crowd

__all__ = ["Crowd"]
