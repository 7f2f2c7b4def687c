"""A book with everything that it hangs on: its dependency map, and what that stands on.

What several measures draw on is worked out once, when it is first asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from undertow import schema
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.interconnection.backing import Backing
from undertow.measures.interconnection.mapping import DependencyMap
from undertow.measures.interconnection.surveying import survey
from undertow.rules.snapshot import Snapshot
from undertow.state import Reading
from undertow.stress.contagion import Solver


@dataclass(frozen=True, eq=False)
class Web:
    """One book at one instant, and all that its value leads through."""

    crowd: Crowd

    @classmethod
    def of(cls, book: Snapshot | Crowd | Web | Any) -> Web:
        """A web as it is; of anything else, the one around the book.

        Raises
        ------
        StateError
            When it is no book.
        """
        return book if isinstance(book, Web) else cls(Crowd.of(book))

    @property
    def snapshot(self) -> Snapshot:
        """The book."""
        return self.crowd.snapshot

    @cached_property
    def map(self) -> DependencyMap:
        """Who stands on whom."""
        return survey(self.snapshot)

    @cached_property
    def backing(self) -> Backing:
        """What tokens, places and keepers stand on."""
        return Backing.of(self.map)

    @cached_property
    def solver(self) -> Solver:
        """What follows losses through all channels; the book is settled once for all solves."""
        return Solver.of(self.crowd.plan)

    @cached_property
    def evidence(self) -> str:
        """What claims are known by: the least of it."""
        told = self.snapshot.claims.evidence
        worst = max(told.max(initial=0), self.snapshot.book.evidence.max(initial=0))
        return schema.EVIDENCE[int(worst)]

    @cached_property
    def told(self) -> float:
        """Share of what accounts hold of which somebody told what it stands on, all the way."""
        held = np.asarray(self.backing.accounts.held.sum(axis=0)).ravel()
        first = len(self.map.keys["asset"])
        untold = self.backing.seen.untold[first : first + len(held)]
        whole = float(held.sum())
        return 1.0 - float(held @ untold) / whole if whole > 0.0 else 1.0

    def reading(
        self, name: str, value: float | None, unit: str, definition: str, subject: str = "",
        *, low: float | None = None, high: float | None = None, level: float | None = None,
    ) -> Reading:  # fmt: skip
        """A reading of this family at the instant of the book."""
        snapshot = self.snapshot
        if low is None or high is None or value is None:
            low = high = level = None
        return Reading(
            name=name, value=value, unit=unit, definition=definition, ts=snapshot.ts,
            evidence=self.evidence, inputs_hash=snapshot.digest, subject=subject, low=low,
            high=high, level=level, coverage=min(max(self.told, 0.0), 1.0),
        )  # fmt: skip
