"""One cascade as a map of calls: who is called by whom and when, what it takes, and what there is.

Rows of its columns are the calls of `Together`: one venue calling one owner in one round. Money is
USD at the prices that venues saw in that round.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from undertow.measures.interconnection.needs import FirstCalls
from undertow.measures.interconnection.spending import Met
from undertow.measures.interconnection.together import Together, distinct
from undertow.state import AnyColumn, Book, BoolColumn, FloatColumn, KeyColumn
from undertow.state.book import UNKNOWN_OWNER
from undertow.stress.cascade import Cascade

GIVEN, ALONE, ONE = "as given", "every account its own owner", "all unknown accounts of one owner"
LINKS = (GIVEN, ALONE, ONE)
ANYBODY = "unknown accounts of anybody"  # a bound over all ways to tie them, itself none of them


@dataclass(frozen=True, eq=False)
class CallMap:
    """Calls, needs and means of one cascade."""

    cascade: Cascade
    first: FirstCalls
    met: Met
    together: Together
    elsewhere: bool  # what other accounts could spare is counted

    @classmethod
    def of(cls, cascade: Cascade, *, buffer: float, apart: int, elsewhere: bool) -> CallMap:
        """Read the calls of a cascade off its trace.

        Raises
        ------
        StateError
            When it kept no trace or no prices, or owners answered in it.
        MissingPrice
            When something held free has no price.
        """
        first = FirstCalls.of(cascade, buffer)
        met = Met.of(cascade, first, elsewhere=elsewhere)
        book = cascade.plan.snapshot.book
        owner, venue = book.owner[first.account], book.venue[first.account]
        together = Together.of(first, owner.astype(np.int64), venue.astype(np.int64), apart)
        return cls(cascade, first, met, together, elsewhere)

    @property
    def book(self) -> Book:
        """The book that was called."""
        return self.cascade.plan.snapshot.book

    @cached_property
    def need(self) -> FloatColumn:
        """USD that would have met each call."""
        return self.together.added(self.first.need)

    @cached_property
    def unmet(self) -> FloatColumn:
        """USD of it that the owner could not bring."""
        return self.together.added(self.unmet_of_first)

    @cached_property
    def unmet_of_first(self) -> FloatColumn:
        """The same by first call; the dust of a need that was met is none."""
        lack = self.first.need - self.met.usd
        return np.where(lack > 1e-9 * self.first.need, lack, 0.0)

    @cached_property
    def head(self) -> KeyColumn:
        """The first of the first calls in each: that of the account that stands first."""
        found: KeyColumn = np.unique(self.together.call_of, return_index=True)[1]
        return found

    @property
    def synchronised(self) -> BoolColumn:
        """Which calls come with one of another venue."""
        return self.together.synchronised

    @cached_property
    def owners(self) -> int:
        """How many owners are called."""
        return distinct(self.together.owner)

    @cached_property
    def owners_at_once(self) -> int:
        """How many are called by two venues or more at once."""
        return distinct(self.together.owner[self.synchronised])

    @cached_property
    def known(self) -> BoolColumn:
        """(accounts,) Whose owner is known."""
        tied: BoolColumn = self.book.owners[self.book.owner] != UNKNOWN_OWNER
        return tied

    def linked(self, way: str) -> Together:
        """The same first calls where accounts are tied to owners in one of `LINKS`."""
        if way == GIVEN:
            return self.together
        account, venue = self.first.account, self.book.venue[self.first.account]
        whose: AnyColumn = account
        if way == ONE:
            given = self.book.owner[account].astype(np.int64)
            whose = np.where(self.known[account], given, len(self.book.owners))
        return Together.of(
            self.first, whose.astype(np.int64), venue.astype(np.int64), self.together.apart
        )

    @cached_property
    def possible(self) -> BoolColumn:
        """Which calls some way of tying unknown accounts makes synchronised; known ties stay.

        Those that are as given; those of another venue at once with one of an unknown account,
        which may be the same owner's; and, of an unknown account, those with any other.
        """
        together, apart = self.together, self.together.apart
        unknown = ~self.known[self.first.account[self.head]]
        shape = tuple(int(code.max(initial=-1)) + 1 for code in (together.round, together.venue))
        found: BoolColumn = self.synchronised.copy()
        for others, mine in ((unknown, np.ones_like(unknown)), (np.ones_like(unknown), unknown)):
            calling = np.zeros(shape, dtype=np.bool_)
            calling[together.round[others], together.venue[others]] = True
            near = _within(calling, apart)
            elsewhere = near.sum(axis=1)[together.round] - near[together.round, together.venue]
            found |= mine & (elsewhere > 0)
        return found


def _within(calling: AnyColumn, apart: int) -> AnyColumn:
    """(rounds, venues) Who calls no more than so many rounds before or after."""
    rounds = len(calling)
    whole = np.concatenate([np.zeros((1, calling.shape[1]), int), np.cumsum(calling, axis=0)])
    first = np.maximum(np.arange(rounds) - apart, 0)
    last = np.minimum(np.arange(rounds) + apart + 1, rounds)
    near: AnyColumn = (whole[last] - whole[first] > 0).astype(np.int64)
    return near
