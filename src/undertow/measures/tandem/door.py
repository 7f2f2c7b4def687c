"""What a measure of tandem refuses at its door, in the words of who calls it."""

from __future__ import annotations

from typing import Any

from undertow.errors import StateError
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.tandem.links import Links


def require_history(history: Any) -> None:
    """Refuse what is no history of leverage.

    Raises
    ------
    StateError
        When it is something else.
    """
    if not isinstance(history, LeverageHistory):
        raise StateError(
            f"history was of type {type(history).__name__}; it must be a LeverageHistory",
            hint="LeverageHistory.of makes one of a panel of leverage and one of prices",
        )


def require_links(links: Any) -> None:
    """Refuse what does not say what nodes share.

    Raises
    ------
    StateError
        When it is something else.
    """
    if not isinstance(links, Links):
        raise StateError(
            f"links were of type {type(links).__name__}; they must be Links",
            hint="links_of(snapshot, by) makes them",
        )
