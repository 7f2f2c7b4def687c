"""Leverage that moves together, and unwinds together, and how much of it prices explain.

Every measure takes a `LeverageHistory` (or a snapshot, where it asks what would happen) and gives
back a `Study`: readings with bands, the tables behind them, and what it says in words.
"""

from undertow.measures.tandem.attribution import attribution
from undertow.measures.tandem.commonality import commonality
from undertow.measures.tandem.connectedness import connectedness
from undertow.measures.tandem.consequence import consequence
from undertow.measures.tandem.cycle import cycle
from undertow.measures.tandem.history import Layer, LeverageHistory
from undertow.measures.tandem.index import index
from undertow.measures.tandem.leadlag import leadlag
from undertow.measures.tandem.leverage import leverage
from undertow.measures.tandem.links import Links, links_of
from undertow.measures.tandem.matrix import matrix
from undertow.measures.tandem.procyclicality import procyclicality
from undertow.measures.tandem.systemic import systemic
from undertow.measures.tandem.tails import tails
from undertow.measures.tandem.unwind import unwind
from undertow.measures.tandem.unwinding import unwinding

__all__ = [
    "Layer",
    "LeverageHistory",
    "Links",
    "attribution",
    "commonality",
    "connectedness",
    "consequence",
    "cycle",
    "index",
    "leadlag",
    "leverage",
    "links_of",
    "matrix",
    "procyclicality",
    "systemic",
    "tails",
    "unwind",
    "unwinding",
]
