"""Which calls come at once: rows of owner, venue and round, and which of them belong together.

A *call* is one venue calling one owner in one round, over however many accounts of it. Two calls
are *synchronised* when they are of one owner, by two venues, and no more than a window apart; with
a window of 0 rounds, in the same round.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from undertow.measures.interconnection.needs import FirstCalls
from undertow.state import AnyColumn, BoolColumn, FloatColumn, KeyColumn


@dataclass(frozen=True, eq=False)
class Together:
    """The calls of a cascade under one way of tying accounts to owners."""

    call_of: KeyColumn  # (first calls,) row below
    round: KeyColumn  # (calls,) never falling, as are the next two within it
    owner: KeyColumn
    venue: KeyColumn
    apart: int  # rounds within which calls count as at once

    @classmethod
    def of(cls, first: FirstCalls, owner: AnyColumn, venue: AnyColumn, apart: int) -> Together:
        """Put first calls together; `owner` and `venue` are codes, by first call."""
        owners, venues = int(owner.max(initial=-1)) + 1, int(venue.max(initial=-1)) + 1
        key = (first.round * owners + owner) * venues + venue
        found, call_of = np.unique(key, return_inverse=True)
        by_round, of_venue = np.divmod(found, max(venues, 1))
        when, whose = np.divmod(by_round, max(owners, 1))
        return cls(call_of, when, whose, of_venue, apart)

    def __len__(self) -> int:
        return len(self.round)

    def added(self, value: FloatColumn) -> FloatColumn:
        """(calls,) What first calls add up to."""
        return np.bincount(self.call_of, value, len(self)).astype(np.float64)

    @cached_property
    def accounts(self) -> KeyColumn:
        """(calls,) How many accounts are called in each."""
        return np.bincount(self.call_of, minlength=len(self))

    @cached_property
    def pairs(self) -> pl.DataFrame:
        """Rows `call` and `other` of every two synchronised calls, both ways round."""
        near = self._near.filter(pl.col("venue") != pl.col("venue_right"))
        return near.select("call", pl.col("call_right").alias("other"))

    @cached_property
    def synchronised(self) -> BoolColumn:
        """(calls,) Whether another venue calls the same owner at once."""
        found = np.zeros(len(self), dtype=np.bool_)
        found[self.pairs["call"].to_numpy()] = True
        return found

    @cached_property
    def venues_at_once(self) -> KeyColumn:
        """(calls,) Venues that call the owner within the window that the call begins."""
        found = np.ones(len(self), dtype=np.int64)
        begun = (
            self._near.filter(pl.col("round_right") >= pl.col("round"))
            .group_by("call")
            .agg(pl.col("venue_right").n_unique().alias("venues"))
        )
        found[begun["call"].to_numpy()] = begun["venues"].to_numpy()
        return found

    @cached_property
    def _near(self) -> pl.DataFrame:
        """Calls of owners of several venues, each with those of the owner within the window."""
        rows = pl.DataFrame(
            {
                "call": np.arange(len(self)), "owner": self.owner, "venue": self.venue,
                "round": self.round,
            }
        ).filter(pl.col("venue").n_unique().over("owner") > 1)  # fmt: skip
        by = ["owner", "round"] if self.apart == 0 else ["owner"]
        near = rows.join(rows, on=by, maintain_order="left_right", coalesce=False)
        return near.filter((pl.col("round_right") - pl.col("round")).abs() <= self.apart)


def distinct(code: KeyColumn) -> int:
    """How many different codes there are; they are no larger than a book has rows."""
    return int(np.count_nonzero(np.bincount(code)))
