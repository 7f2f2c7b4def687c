"""A book as crowding looks at it: whose it is, which way it leans, and what is leveraged of it.

What several measures draw on is worked out once, when it is first asked for. *Leveraged* is what an
account controls beyond its own: its debt, and the gross notional of its derivatives (options by
their delta). A leg *leans* by its signed exposure: what is held or bought is positive, what is owed
or sold negative, and money, whose fall calls nobody, is nothing.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from typing import Any

import numpy as np

from undertow import schema
from undertow.fanout import Executor
from undertow.kernels import margin as kernel
from undertow.measures.door import require_book
from undertow.rules.coverage import Coverage
from undertow.rules.leverage import Exposures
from undertow.rules.margins import account_sums, market_exposure, option_deltas
from undertow.rules.snapshot import Snapshot
from undertow.state import BoolColumn, CodeColumn, FloatColumn, KeyColumn, Reading
from undertow.state.arrays import frozen
from undertow.state.book import OPTION, UNKNOWN_OWNER
from undertow.stress.atrisk import AtRisk
from undertow.stress.cascade import settle
from undertow.stress.lanes import Bounds
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.pressure import Pressure
from undertow.stress.standins import stood_for


@dataclass(frozen=True, eq=False)
class Crowd:
    """One book at one instant, and what is leveraged in it."""

    snapshot: Snapshot
    options: Options = field(default_factory=Options)

    @classmethod
    def of(cls, book: Snapshot | Plan | Crowd | Any) -> Crowd:
        """A crowd as it is; of anything else, the one that stands in it.

        Raises
        ------
        StateError
            When it is no book.
        """
        if isinstance(book, Crowd):
            return book
        require_book(book)
        if isinstance(book, Plan):
            crowd = cls(book.snapshot)
            crowd.__dict__["plan"] = book
            return crowd
        return cls(book)

    @cached_property
    def plan(self) -> Plan:
        """The book laid out for cascades."""
        return Plan.of(self.snapshot)

    @cached_property
    def bounds(self) -> Bounds:
        """Lines that tell who cannot be called nearby."""
        return Bounds.of(self.plan)

    @cached_property
    def exposures(self) -> Exposures:
        """What legs are exposed to and what stands behind accounts."""
        return Exposures.of(self.snapshot)

    @cached_property
    def sums(self) -> kernel.Sums:
        """Assets, debt, equity, cover and what is asked for, by account."""
        return account_sums(self.snapshot)

    @cached_property
    def debt(self) -> FloatColumn:
        """(accounts,) USD owed."""
        return self.exposures.debt

    @cached_property
    def notional(self) -> FloatColumn:
        """(accounts,) Gross notional of derivatives, options by their delta."""
        return frozen(self.exposures.added(self.exposures.notional + self.exposures.delta))

    @cached_property
    def leveraged(self) -> FloatColumn:
        """(accounts,) USD that is controlled beyond one's own: debt and gross notional."""
        return frozen(self.debt + self.notional)

    @cached_property
    def lean(self) -> FloatColumn:
        """(legs,) Signed exposure in USD; 0 of money."""
        snapshot, book = self.snapshot, self.snapshot.book
        face = np.where(book.universe.inverse, 1.0, snapshot.market.mark)
        option = book.kind == OPTION
        by_delta = (option_deltas(snapshot) * snapshot.market.index)[book.inst]
        value = np.where(option, by_delta, face[book.inst])
        return frozen(book.qty * value * market_exposure(book.universe)[book.inst])

    @cached_property
    def asset(self) -> CodeColumn:
        """(legs,) The asset that each leg is of."""
        return frozen(self.snapshot.universe.asset_of[self.snapshot.book.inst])

    def legs_of(self, asset: int | None) -> KeyColumn:
        """Rows of the legs of one asset, or of all that lean."""
        if asset is None:
            return np.flatnonzero(self.lean)
        order, start = self._by_asset
        return order[start[asset] : start[asset + 1]]

    @cached_property
    def _by_asset(self) -> tuple[KeyColumn, KeyColumn]:
        order = np.argsort(self.asset, kind="stable")
        count = len(self.snapshot.universe.assets)
        return order, np.searchsorted(self.asset[order], np.arange(count + 1))

    @property
    def holder(self) -> CodeColumn:
        """(accounts,) A code by owner; an account of no known owner is its own."""
        return self.snapshot.book.owner

    @cached_property
    def owned(self) -> BoolColumn:
        """(accounts,) Whether the owner is known."""
        book = self.snapshot.book
        return frozen(book.owners[book.owner] != UNKNOWN_OWNER)

    def with_depth(self, times: float) -> Crowd:
        """The same book in markets that are so many times as deep."""
        return self._on(self.plan.with_depth(times), self.bounds)

    def _on(self, plan: Plan, bounds: Bounds) -> Crowd:
        """The same book on another plan of it; what was worked out of the book is kept."""
        found = Crowd(self.snapshot, self.options)
        kept = {k: v for k, v in self.__dict__.items() if k not in ("settled", "_stood_for")}
        found.__dict__.update(kept | {"plan": plan, "bounds": bounds})
        return found

    @cached_property
    def settled(self) -> Crowd:
        """The book after what is due at today's prices was closed; readings name the whole."""
        plan = settle(self.plan, self.options).plan
        if plan is self.plan:
            return self
        found = Crowd(plan.snapshot, self.options)
        found.__dict__.update({"plan": plan, "digest": self.digest, "coverage": self.coverage})
        found.__dict__["nobody"] = (
            "Once what is due today is closed, nobody owes anything or holds a derivative"
        )
        return found

    @cached_property
    def nobody(self) -> str:
        """How to begin to say that nothing is leveraged."""
        return "Nobody owes anything or holds a derivative"

    def at_risk(self, executor: Executor | None = None) -> AbstractContextManager[AtRisk]:
        """The book over workers, to be asked who is called where."""
        return AtRisk.of(self.plan, options=self.options, bounds=self.bounds, executor=executor)

    def pressure(self, executor: Executor | None = None) -> AbstractContextManager[Pressure]:
        """The book over workers, to be asked what is forced at which prices."""
        return Pressure.of(self.plan, None, self.options, bounds=self.bounds, executor=executor)

    def stood_for(self, most: int | None) -> Crowd:
        """The same book with about `most` accounts that stand for all in cascades and pressure.

        What is known of the book itself, as who owes what, stays that of every account.
        """
        if most is None or most >= self.snapshot.book.accounts:
            return self
        kept: dict[int, Crowd] = self.__dict__.setdefault("_stood_for", {})
        if most not in kept:
            plan = stood_for(self.plan, most)
            kept[most] = self._on(plan, Bounds.of(plan))
        return kept[most]

    @cached_property
    def digest(self) -> str:
        """Of the book that was asked about."""
        return self.snapshot.digest

    @property
    def evidence(self) -> str:
        """How the book is known, by its weakest leg."""
        return schema.EVIDENCE[int(self.snapshot.book.evidence.max(initial=0))]

    @cached_property
    def evidence_of(self) -> KeyColumn:
        """(accounts,) How each is known, as a code of `schema.EVIDENCE`: as its weakest leg is."""
        book = self.snapshot.book
        code = np.zeros(book.accounts, dtype=np.int64)
        np.maximum.at(code, book.leg_account, book.evidence)
        return frozen(code)

    @cached_property
    def coverage(self) -> float | None:
        """Share of the known totals that the book holds."""
        return Coverage.of(self.snapshot).share

    def reading(
        self,
        name: str,
        value: float | None,
        unit: str,
        definition: str,
        *,
        subject: str = "",
        band: tuple[float, float] | None = None,
        level: float | None = None,
        modelled: bool = False,
        evidence: str | None = None,
    ) -> Reading:
        """A number of this book to publish; what is not finite does not exist, nor does its band.

        `modelled` is a number that rests on more than what was seen: a move, a cascade, a law.
        `evidence` is that of a part of the book, where it is of one.
        """
        there = value is not None and isfinite(value)
        banded = there and band is not None and all(map(isfinite, band))
        return Reading(
            name, value if there else None, unit, definition, self.snapshot.ts,
            "modelled" if modelled else evidence or self.evidence, self.digest,
            subject=subject,
            low=band[0] if banded and band else None, high=band[1] if banded and band else None,
            level=level if banded else None, coverage=self.coverage,
        )  # fmt: skip
