"""undertow sees, measures, stress-tests and limits systemic leverage in crypto markets.

The names below are what a user types; each is looked up when it is first used, so importing the
package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from undertow.measures import Study, crowding, interconnection, tandem
    from undertow.rules.margins import Margins, margins
    from undertow.rules.profile import load_profile
    from undertow.rules.snapshot import Snapshot
    from undertow.state import Book, Claims, Market, Network, Panel, Reading, Universe
    from undertow.store import Lake, ingest_tables
    from undertow.store.load import load_snapshot
    from undertow.stress.cascade import Cascade, run_cascade
    from undertow.stress.scenario import Scenario, load_scenario
    from undertow.worlds import World, build_world, demo_world, tiny_world

_HOME = {
    "Book": "undertow.state",
    "Cascade": "undertow.stress",
    "Claims": "undertow.state",
    "Lake": "undertow.store",
    "Margins": "undertow.rules.margins",
    "Market": "undertow.state",
    "Network": "undertow.state",
    "Panel": "undertow.state",
    "Reading": "undertow.state",
    "Scenario": "undertow.stress",
    "Snapshot": "undertow.rules.snapshot",
    "Study": "undertow.measures",
    "Universe": "undertow.state",
    "World": "undertow.worlds",
    "build_world": "undertow.worlds",
    "demo_world": "undertow.worlds",
    "crowding": "undertow.measures",
    "ingest_tables": "undertow.store",
    "interconnection": "undertow.measures",
    "load_profile": "undertow.rules.profile",
    "load_scenario": "undertow.stress",
    "load_snapshot": "undertow.store.load",
    "margins": "undertow.rules.margins",
    "run_cascade": "undertow.stress",
    "tandem": "undertow.measures",
    "tiny_world": "undertow.worlds",
}

__all__ = [
    "Book",
    "Cascade",
    "Claims",
    "Lake",
    "Margins",
    "Market",
    "Network",
    "Panel",
    "Reading",
    "Scenario",
    "Snapshot",
    "Study",
    "Universe",
    "World",
    "build_world",
    "crowding",
    "demo_world",
    "ingest_tables",
    "interconnection",
    "load_profile",
    "load_scenario",
    "load_snapshot",
    "margins",
    "run_cascade",
    "tandem",
    "tiny_world",
]


def __getattr__(name: str) -> Any:
    """Load a public name from where it lives (PEP 562)."""
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'undertow' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    """The public names."""
    return [*__all__, "__version__"]
