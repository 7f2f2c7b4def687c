"""undertow sees, measures, stress-tests and limits systemic leverage in crypto markets.

The names below are what a user types; each is looked up when it is first used, so importing the
package costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from undertow.rules.margins import Margins, margins
    from undertow.rules.profile import load_profile
    from undertow.rules.snapshot import Snapshot
    from undertow.state import Book, Claims, Market, Network, Panel, Reading, Universe
    from undertow.store import Lake, ingest_tables
    from undertow.store.load import load_snapshot
    from undertow.worlds import World, build_world, demo_world, tiny_world

_HOME = {
    "Book": "undertow.state",
    "Claims": "undertow.state",
    "Lake": "undertow.store",
    "Margins": "undertow.rules.margins",
    "Market": "undertow.state",
    "Network": "undertow.state",
    "Panel": "undertow.state",
    "Reading": "undertow.state",
    "Snapshot": "undertow.rules.snapshot",
    "Universe": "undertow.state",
    "World": "undertow.worlds",
    "build_world": "undertow.worlds",
    "demo_world": "undertow.worlds",
    "ingest_tables": "undertow.store",
    "load_profile": "undertow.rules.profile",
    "load_snapshot": "undertow.store.load",
    "margins": "undertow.rules.margins",
    "tiny_world": "undertow.worlds",
}

__all__ = [
    "Book",
    "Claims",
    "Lake",
    "Margins",
    "Market",
    "Network",
    "Panel",
    "Reading",
    "Snapshot",
    "Universe",
    "World",
    "build_world",
    "demo_world",
    "ingest_tables",
    "load_profile",
    "load_snapshot",
    "margins",
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
