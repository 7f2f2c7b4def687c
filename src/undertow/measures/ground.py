"""What measures stand on: one instant of the book, and the history of leverage up to it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from undertow.errors import StateError
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.tandem.links import Links, links_of
from undertow.rules.snapshot import Snapshot


@dataclass(frozen=True, eq=False)
class Ground:
    """A book, its history, and how both are divided into nodes."""

    by: str  # asset, venue, protocol, chain, sector or cohort
    snapshot: Snapshot | None = None
    history: LeverageHistory | None = None
    seed: int = 0
    level: float = 0.9  # of every band

    @property
    def book(self) -> Snapshot:
        """The book.

        Raises
        ------
        StateError
            When there is none.
        """
        if self.snapshot is None:
            raise StateError("there is no book", hint="give a snapshot")
        return self.snapshot

    @property
    def past(self) -> LeverageHistory:
        """The history of leverage.

        Raises
        ------
        StateError
            When there is none.
        """
        if self.history is None:
            raise StateError(
                f"there is no history of leverage by {self.by}",
                hint="it takes readings of it, or positions at many instants",
            )
        return self.history

    @cached_property
    def links(self) -> Links:
        """What the nodes share."""
        return links_of(self.book, self.by)
