"""What a cascade loses when the book is not all there is.

Three answers stand side by side:

- LOWER_BOUND: only what was seen.
- SCALED: what was seen, by venue, times the whole over the seen; prices as they were.
- RESIDUAL: the unseen is modelled as the same mix again: every account stands for so many, their
  sales meet the same market, the same funds and the same liquidators together.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from undertow.rules.coverage import Coverage
from undertow.state import FloatColumn
from undertow.stress.aftermath import Cascade
from undertow.stress.cascade import Engine

LOWER_BOUND, SCALED, RESIDUAL = "lower bound", "scaled", "modelled residual"
_EVIDENCE = {LOWER_BOUND: "observed", SCALED: "sampled", RESIDUAL: "modelled"}


def covered_losses(cascade: Cascade, coverage: Coverage) -> pl.DataFrame:
    """The headline losses under each reading of what was not seen.

    Only the lower bound where no total is known. The scenario runs once more for the residual.
    """
    rows = [_losses(LOWER_BOUND, cascade, np.ones_like(coverage.whole), coverage.share)]
    if coverage.share is not None:
        weight = coverage.weight
        again = Engine(cascade.plan).run(
            cascade.stressed, cascade.options, trace=False, path=False, weight=weight
        )
        rows += [
            _losses(SCALED, cascade, weight, coverage.share),
            _losses(RESIDUAL, again, weight, coverage.share),
        ]
    return pl.DataFrame(rows)


def _losses(
    unseen: str, ran: Cascade, weight: FloatColumn, share: float | None
) -> dict[str, str | float | None]:
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
        "coverage": share,
    }
