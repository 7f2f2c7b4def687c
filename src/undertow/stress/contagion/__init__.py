"""Multi-layer contagion: fire sales, claims, receipts, backing, funding, dependence in one solve.

`Solver.of(snapshot).solve(scenario, channels=Channels(...))` gives a `Contagion`. See
docs/methods/contagion.md for definitions, the order of channels and what is assumed.
"""

from undertow.stress.contagion.channels import CHANNELS, OUTER, PLAIN, Assumptions, Channels
from undertow.stress.contagion.dependence import ChainFailure, FeedFailure
from undertow.stress.contagion.outcome import Cause, Contagion, Ending
from undertow.stress.contagion.solver import Solver
from undertow.stress.contagion.state import State

__all__ = [
    "CHANNELS",
    "OUTER",
    "PLAIN",
    "Assumptions",
    "Cause",
    "ChainFailure",
    "Channels",
    "Contagion",
    "Ending",
    "FeedFailure",
    "Solver",
    "State",
]
