"""What measures stand on: one instant of the book, and the history of leverage up to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from undertow import schema
from undertow.errors import StateError
from undertow.fanout import Executor, Serial
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.flows import OwnerFlows
from undertow.measures.crowding.markets import MarketPast
from undertow.measures.interconnection.web import Web
from undertow.measures.tandem.history import LeverageHistory
from undertow.measures.tandem.links import Links, exposure, links_of
from undertow.rules.leverage import Exposures, nodes
from undertow.rules.snapshot import Snapshot
from undertow.stress import Scenario


@dataclass(frozen=True, eq=False)
class Ground:
    """A book, its history, and how both are divided into nodes."""

    by: str  # asset, venue, protocol, chain, sector or cohort
    snapshot: Snapshot | None = None
    history: LeverageHistory | None = None
    markets: MarketPast | None = None  # what markets showed up to the book
    flows: OwnerFlows | None = None  # who traded what, where positions are known at many instants
    earlier: tuple[Snapshot, ...] = ()  # the book at instants before, oldest first
    seed: int = 0
    level: float = 0.9  # of every band
    executor: Executor = field(default_factory=Serial)  # where long work runs
    fall: float | None = None  # what measures of a shock start from, if not from their own
    scenario: Scenario | None = None  # or this

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

    @cached_property
    def crowd(self) -> Crowd:
        """The book as crowding looks at it."""
        return Crowd.of(self.book)

    @cached_property
    def web(self) -> Web:
        """The book with all that it hangs on."""
        return Web.of(self.crowd)

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
    def without_history(self) -> dict[str, str]:
        """The nodes that stand in the book and have no history, and where to look for one."""
        if self.snapshot is None or self.history is None:
            return {}
        seen, universe = Exposures.of(self.snapshot), self.snapshot.universe
        code, names = nodes(seen, self.by)
        lends = schema.VENUE_KINDS.index("lending")
        kinds = dict(zip(universe.venues, universe.venue_kind.tolist(), strict=True))
        found = {}
        for k in np.unique(code[(code >= 0) & (exposure(seen) > 0.0)]):
            node = names[k]
            if node in self.history.labels or (self.by == "asset" and universe.stable[k]):
                continue
            found[node] = f"no history of {self.history.called} by {self.by} is known of it"
            if self.by == "venue" and kinds[node] == lends:
                found[node] += "; it lends, and may have one by protocol"
        return found

    @cached_property
    def links(self) -> Links:
        """What the nodes share."""
        return links_of(self.book, self.by)
