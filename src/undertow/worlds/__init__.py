"""Seeded synthetic ecosystems with planted truths: what an estimator must find, and how much of it.

`build_world` makes a snapshot of any size, `build_panels` the series alone. What is planted is a
value (`Plants`, `Tandem`, `Ties`), and comes back exactly in `Truth`.
"""

from undertow.worlds.growth import leverage_panel
from undertow.worlds.history import History, Series, build_panels
from undertow.worlds.named import bench_book, demo_world, tiny_world
from undertow.worlds.plants import Chain, Crowd, Hub, Loop, Plants
from undertow.worlds.population import Mix, Population
from undertow.worlds.returns import Prices
from undertow.worlds.sharing import Attribution
from undertow.worlds.tandem import Cycle, Response, Tandem, Unwinding
from undertow.worlds.ties import Episode, Ties
from undertow.worlds.truths import (
    AttributionTruth,
    BasisTruth,
    ChainTruth,
    CrowdTruth,
    EpisodeTruth,
    HubTruth,
    LeverageTruth,
    LoopTruth,
    PriceTruth,
    SeriesTruth,
    Truth,
    TurningPoint,
    UnwindingTruth,
)
from undertow.worlds.world import World, build_world

__all__ = [
    "Attribution",
    "AttributionTruth",
    "BasisTruth",
    "Chain",
    "ChainTruth",
    "Crowd",
    "CrowdTruth",
    "Cycle",
    "Episode",
    "EpisodeTruth",
    "History",
    "Hub",
    "HubTruth",
    "LeverageTruth",
    "Loop",
    "LoopTruth",
    "Mix",
    "Plants",
    "Population",
    "PriceTruth",
    "Prices",
    "Response",
    "Series",
    "SeriesTruth",
    "Tandem",
    "Ties",
    "Truth",
    "TurningPoint",
    "Unwinding",
    "UnwindingTruth",
    "World",
    "bench_book",
    "build_panels",
    "build_world",
    "demo_world",
    "leverage_panel",
    "tiny_world",
]
