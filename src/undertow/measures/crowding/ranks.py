"""How far the place of each of the largest would move, had other owners or accounts been seen.

Rows of what is drawn are draws, columns those who are ranked. A place is one more than those who
have more, so that those alike share one; who is not in a draw comes last in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from undertow.econometrics.concentration import Ranking
from undertow.state import FloatColumn, FloatMatrix


def ranks(values: FloatMatrix) -> FloatMatrix:
    """The place of each column within each row, 1 of the largest; NaN is below everything."""
    known = np.where(np.isfinite(values), values, -np.inf)
    found = np.empty(values.shape)
    for row, (whole, each) in enumerate(zip(np.sort(known, axis=1), known, strict=True)):
        found[row] = 1.0 + len(whole) - np.searchsorted(whole, each, side="right")
    return found


def rank_bands(drawn: FloatMatrix, level: float) -> tuple[FloatColumn, FloatColumn]:
    """Ends of the band of each column's place; NaN where no draw has any number."""
    told = drawn[np.isfinite(drawn).any(axis=1)]
    if not told.size:
        nothing = np.full(drawn.shape[1], np.nan)
        return nothing, nothing
    tails, place = (0.5 * (1.0 - level), 0.5 * (1.0 + level)), ranks(told)
    return (
        np.quantile(place, tails[0], axis=0, method="lower"),
        np.quantile(place, tails[1], axis=0, method="higher"),
    )


def rank_columns(
    rank: FloatColumn, low: FloatColumn | None, high: FloatColumn | None
) -> pl.DataFrame:
    """Columns `rank`, `rank_low` and `rank_high`, empty where not finite; no ends: no band."""
    empty = np.full(len(rank), np.nan)
    ends = (rank, empty if low is None else low, empty if high is None else high)
    whole: dict[str, Any] = {
        name: [int(r) if np.isfinite(r) else None for r in column]
        for name, column in zip(("rank", "rank_low", "rank_high"), ends, strict=True)
    }
    return pl.DataFrame(whole, schema=dict.fromkeys(whole, pl.Int64))


def owner_ranks(ranked: Ranking) -> pl.DataFrame:
    """The places of owners over draws of accounts, and how often each stays among the largest."""
    place = np.arange(1.0, len(ranked.index) + 1.0)
    return rank_columns(place, ranked.best, ranked.worst).with_columns(
        stays=pl.Series(ranked.stays, dtype=pl.Float64)
    )
