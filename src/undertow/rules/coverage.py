"""How much of what its venues hold a book shows.

A book that was put together from outside holds a part of what is there. Totals that venues publish
(what reserves have lent, open interest) say which part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.state import BoolColumn, FloatColumn
from undertow.state.arrays import frozen
from undertow.state.book import DEBT, FUTURE, PERP


@dataclass(frozen=True, eq=False)
class Coverage:
    """By venue, what is known to be there and what of it the book holds, in USD."""

    whole: FloatColumn  # (venues,) debt that reserves have lent, and open interest; 0: not known
    seen: FloatColumn  # (venues,)

    @classmethod
    def of(cls, snapshot: Snapshot, open_interest: Mapping[str, float] | None = None) -> Coverage:
        """Compare a book with the reserves of its snapshot, and with open interest in USD.

        `open_interest` is by instrument.

        Raises
        ------
        StateError
            When an instrument is unknown or a total is no positive number.
        """
        universe, book, mark = snapshot.universe, snapshot.book, snapshot.market.mark
        value = np.abs(book.qty) * np.where(universe.inverse, 1.0, mark)[book.inst]

        def held(where: BoolColumn) -> FloatColumn:
            inst = book.inst[where]
            return np.bincount(inst, value[where], minlength=len(mark)).astype(np.float64)

        whole = snapshot.liquidity.borrowed * mark
        seen = np.where(whole > 0.0, held(book.kind == DEBT), 0.0)
        contract = np.isin(book.kind, (PERP, FUTURE))
        long, short = held(contract & (book.qty > 0.0)), held(contract & (book.qty < 0.0))
        for name, usd in (open_interest or {}).items():
            if not 0.0 < usd < np.inf:
                raise StateError(f"the open interest of {name!r} was {usd}")
            k = universe.code("instrument", name)
            whole[k], seen[k] = usd, max(long[k], short[k])
        venues = len(universe.venues)
        columns = (
            np.bincount(universe.venue_of, weights=column, minlength=venues)
            for column in (whole, seen)
        )
        return cls(*map(frozen, columns))

    @property
    def weight(self) -> FloatColumn:
        """(venues,) For how many like it an account stands; 1 where nothing says, or none seen."""
        known = (self.seen > 0.0) & (self.whole > self.seen)
        return np.divide(self.whole, self.seen, out=np.ones_like(self.whole), where=known)

    @property
    def by_venue(self) -> FloatColumn:
        """(venues,) Share of its known total that the book holds, at most 1; NaN where unknown."""
        share = np.full_like(self.whole, np.nan)
        np.divide(self.seen, self.whole, out=share, where=self.whole > 0.0)
        return np.minimum(share, 1.0)

    @property
    def share(self) -> float | None:
        """Share of the known totals that the book holds; None where no total is known."""
        whole = float(self.whole.sum())
        return min(float(np.minimum(self.seen, self.whole).sum()) / whole, 1.0) if whole else None
