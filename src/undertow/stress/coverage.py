"""How much of the losses a book shows, when it is not all there is.

A book that was put together from outside holds a part of what its venues hold. Their totals (what
their reserves have lent, open interest) say which part. Three answers then stand side by side:

- LOWER_BOUND: only what was seen.
- SCALED: what was seen, by venue, times the whole over the seen; prices as they were.
- RESIDUAL: the unseen is modelled as the same mix again: every account stands for so many, their
  sales meet the same market, the same funds and the same liquidators together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from undertow.errors import StateError
from undertow.kernels.margin import DEBT, INVERSE, LINEAR
from undertow.state import BoolColumn, FloatColumn
from undertow.state.arrays import frozen
from undertow.stress.aftermath import Cascade
from undertow.stress.cascade import Engine
from undertow.stress.plan import Plan

LOWER_BOUND, SCALED, RESIDUAL = "lower bound", "scaled", "modelled residual"
_EVIDENCE = {LOWER_BOUND: "observed", SCALED: "sampled", RESIDUAL: "modelled"}


@dataclass(frozen=True, eq=False)
class Coverage:
    """By venue, what is known to be there and what of it the book holds, in USD."""

    whole: FloatColumn  # [V] debt that reserves have lent, and open interest; 0 where nobody says
    seen: FloatColumn  # [V]

    @classmethod
    def of(cls, plan: Plan, open_interest: Mapping[str, float] | None = None) -> Coverage:
        """Compare a book with the reserves of its snapshot, and with open interest in USD.

        `open_interest` is by instrument.

        Raises
        ------
        StateError
            When an instrument is unknown or a total is no positive number.
        """
        universe, liquidity = plan.snapshot.universe, plan.snapshot.liquidity
        legs, start = plan.hold.legs, plan.insts["start"]
        count = len(start)
        value = np.abs(legs["qty"]) * np.where(legs["role"] == INVERSE, 1.0, start[legs["inst"]])

        def held(where: BoolColumn) -> FloatColumn:
            at = legs["inst"][where]
            return frozen(np.bincount(at, weights=value[where], minlength=count))

        whole = liquidity.borrowed * start
        seen = np.where(whole > 0.0, held(legs["role"] == DEBT), 0.0)
        contract = (legs["role"] == LINEAR) | (legs["role"] == INVERSE)
        long, short = held(contract & (legs["qty"] > 0.0)), held(contract & (legs["qty"] < 0.0))
        for name, usd in (open_interest or {}).items():
            if not 0.0 < usd < np.inf:
                raise StateError(f"the open interest of {name!r} was {usd}")
            k = universe.code("instrument", name)
            whole[k], seen[k] = usd, max(long[k], short[k])
        venues = len(universe.venues)
        by_venue = (
            np.bincount(universe.venue_of, weights=column, minlength=venues)
            for column in (whole, seen)
        )
        return cls(*(frozen(column) for column in by_venue))

    @property
    def weight(self) -> FloatColumn:
        """[V] For how many like it an account stands; 1 where nothing says, or nothing was seen."""
        known = (self.seen > 0.0) & (self.whole > self.seen)
        return np.divide(self.whole, self.seen, out=np.ones_like(self.whole), where=known)

    @property
    def share(self) -> float | None:
        """Share of the known totals that the book holds; None where no total is known."""
        whole = float(self.whole.sum())
        return min(float(np.minimum(self.seen, self.whole).sum()) / whole, 1.0) if whole else None

    def losses(self, cascade: Cascade) -> pl.DataFrame:
        """The headline losses under each reading of what was not seen.

        Only the lower bound where no total is known. The scenario runs once more for the residual.
        """
        rows = [(LOWER_BOUND, cascade, np.ones_like(self.whole))]
        if self.share is not None:
            weight = self.weight
            again = Engine(cascade.plan).run(
                cascade.stressed, cascade.options, trace=False, path=False, weight=weight
            )
            rows += [(SCALED, cascade, weight), (RESIDUAL, again, weight)]
        return pl.DataFrame([self._row(*row) for row in rows])

    def _row(self, unseen: str, ran: Cascade, weight: FloatColumn) -> dict[str, str | float | None]:
        def total(column: FloatColumn) -> float:
            return float((ran.of_venue(column) * weight).sum())

        bad, short = total(ran.bad), total(ran.short)
        return {
            "unseen": unseen,
            "evidence": _EVIDENCE[unseen],
            "liquidated_usd": total(ran.closed),
            "bad_debt_usd": bad,
            "shortfall_usd": short,
            "insolvency_usd": max(bad + short + float((ran.under_water * weight).sum()), 0.0),
            "final_fall": ran.final_fall,
            "coverage": self.share,
        }
