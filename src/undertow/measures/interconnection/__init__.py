"""The same owner, the same collateral, the same plumbing: who is pulled along by whom.

Every measure takes a `Snapshot`, or a `Web` around one where several are asked for, and gives back
a `Study`: readings, the tables behind them, and what it says in words.
"""

from undertow.measures.interconnection.backing import Backing
from undertow.measures.interconnection.calls import calls
from undertow.measures.interconnection.contagion import contagion
from undertow.measures.interconnection.links import links
from undertow.measures.interconnection.loops import loops
from undertow.measures.interconnection.mapping import DependencyMap
from undertow.measures.interconnection.overview import dependency_map as map  # noqa: A004 - ut.interconnection.map
from undertow.measures.interconnection.paths import paths
from undertow.measures.interconnection.reuse import reuse
from undertow.measures.interconnection.surveying import survey
from undertow.measures.interconnection.systemic import nodes
from undertow.measures.interconnection.web import Web

__all__ = [
    "Backing",
    "DependencyMap",
    "Web",
    "calls",
    "contagion",
    "links",
    "loops",
    "map",
    "nodes",
    "paths",
    "reuse",
    "survey",
]
