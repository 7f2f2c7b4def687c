"""The map of calls as tables with names; empty where a number does not exist."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from undertow.measures.interconnection.callmap import ANYBODY, LINKS, CallMap
from undertow.measures.interconnection.together import distinct
from undertow.state import AnyColumn, FloatColumn
from undertow.state.book import UNKNOWN_OWNER


def tables_of(found: CallMap) -> dict[str, pl.DataFrame]:
    """Every table of one map, by name."""
    return {
        "calls": calls_table(found),
        "owners": owners_table(found),
        "pairs": pairs_table(found),
        "rounds": rounds_table(found),
        "windows": windows_table(found),
        "links": links_table(found),
    }


def calls_table(found: CallMap) -> pl.DataFrame:
    """A row a call, in the order of time, the largest need first within a round."""
    first, met, together = found.first, found.met, found.together
    cover, asked = together.added(first.cover), together.added(first.asked)
    health = np.divide(cover, asked, out=np.full(len(cover), np.nan), where=asked > 0.0)
    frame = pl.DataFrame(
        {
            "round": together.round,
            "after_us": together.round * found.cascade.options.round_us,
            "owner": _owner(found, together.owner),
            "account": found.book.account[first.account[found.head]],
            "venue": _venue(found, together.venue),
            "accounts": together.accounts,
            "need_usd": found.need,
            "to_buffer_usd": together.added(first.to_buffer),
            "free_usd": met.free[found.head],
            "excess_usd": met.excess[found.head],
            "met_usd": found.need - found.unmet,
            "unmet_usd": found.unmet,
            "health": pl.Series(health).fill_nan(None),
            "closed_usd": together.added(first.closed),
            "venues_at_once": together.venues_at_once,
            "synchronised": found.synchronised,
        }
    ).sort("round", "need_usd", "account", descending=[False, True, False])
    if found.elsewhere:
        return frame
    return frame.with_columns(pl.lit(None, pl.Float64).alias("excess_usd"))


def owners_table(found: CallMap) -> pl.DataFrame:
    """A row an owner who is called; what was free is that of its first call."""
    together = found.together
    owner, at, row_of = np.unique(together.owner, return_index=True, return_inverse=True)
    size = len(owner)

    def total(column: AnyColumn) -> FloatColumn:
        return np.bincount(row_of, column, size).astype(np.float64)

    at_once, last = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    np.maximum.at(at_once, row_of, together.venues_at_once)
    np.maximum.at(last, row_of, together.round)
    venues = np.unique(np.stack([row_of, together.venue]), axis=1)[0]
    head = found.head[at]  # calls stand in the order of time
    return pl.DataFrame(
        {
            "owner": _owner(found, owner),
            "account": found.book.account[found.first.account[head]],
            "calls": np.bincount(row_of, minlength=size),
            "accounts": total(together.accounts).astype(np.int64),
            "venues": np.bincount(venues, minlength=size),
            "at_once": at_once,
            "need_usd": total(found.need),
            "free_usd": found.met.free[head],
            "met_usd": total(found.need - found.unmet),
            "unmet_usd": total(found.unmet),
            "closed_usd": total(together.added(found.first.closed)),
            "first_round": together.round[at],
            "last_round": last,
        }
    ).sort("need_usd", "account", descending=[True, False])


def pairs_table(found: CallMap) -> pl.DataFrame:
    """Venues by venues: owners that both call at once, and what either asks of them then."""
    together, pairs = found.together, found.together.pairs
    call, other = pairs["call"].to_numpy(), pairs["other"].to_numpy()
    rows = pl.DataFrame(
        {
            "venue": together.venue[call], "other": together.venue[other], "call": call,
            "owner": together.owner[call], "need": found.need[call], "unmet": found.unmet[call],
        }
    ).unique(["venue", "other", "call"], keep="first", maintain_order=True)  # fmt: skip
    ordered = rows.sort("venue", "other", "call")
    frame = ordered.group_by("venue", "other", maintain_order=True).agg(
        pl.col("owner").n_unique().cast(pl.Int64).alias("owners"),
        pl.len().cast(pl.Int64).alias("calls"),
        pl.col("need").sum().alias("need_usd"),
        pl.col("unmet").sum().alias("unmet_usd"),
    )
    names = {name: _venue(found, frame[name].to_numpy()) for name in ("venue", "other")}
    return frame.with_columns(**names).sort("venue", "other")


def rounds_table(found: CallMap) -> pl.DataFrame:
    """A row a round in which anybody is called."""
    together = found.together
    rounds, row_of = np.unique(together.round, return_inverse=True)
    size, both = len(rounds), found.synchronised
    owners = np.unique(np.stack([row_of, together.owner]), axis=1)[0]

    def total(column: AnyColumn) -> FloatColumn:
        return np.bincount(row_of, column, size).astype(np.float64)

    count = np.bincount(row_of, minlength=size)
    return pl.DataFrame(
        {
            "round": rounds,
            "after_us": rounds * found.cascade.options.round_us,
            "calls": count,
            "accounts": total(together.accounts).astype(np.int64),
            "owners": np.bincount(owners, minlength=size),
            "need_usd": total(found.need),
            "met_usd": total(found.need - found.unmet),
            "unmet_usd": total(found.unmet),
            "closed_usd": total(together.added(found.first.closed)),
            "synchronised_calls": total(both).astype(np.int64),
            "synchronised_need_usd": total(found.need * both),
            "synchronised_share": total(both) / np.maximum(count, 1),
        }
    )


def windows_table(found: CallMap) -> pl.DataFrame:
    """A row a window, one beginning with every round in which anybody is called."""
    together, rows = found.together, []
    round_us = found.cascade.options.round_us
    for r in np.unique(together.round).tolist():
        lo, hi = np.searchsorted(together.round, (r, r + together.apart + 1))
        both = np.unique(np.stack([together.owner[lo:hi], together.venue[lo:hi]]), axis=1)
        owners, venues = np.unique(both[0], return_counts=True)
        twice = np.isin(together.owner[lo:hi], owners[venues > 1])
        rows.append(
            {
                "start_us": r * round_us,
                "end_us": (r + together.apart) * round_us,
                "calls": int(hi - lo),
                "owners": len(owners),
                "venues": len(np.unique(both[1])),
                "owners_at_once": int((venues > 1).sum()),
                "most_venues": int(venues.max()),
                "need_usd": float(found.need[lo:hi].sum()),
                "at_once_need_usd": float(found.need[lo:hi][twice].sum()),
                "unmet_usd": float(found.unmet[lo:hi].sum()),
            }
        )
    kinds = {n: pl.Float64 if n.endswith("_usd") else pl.Int64 for n in _WINDOW}
    return pl.DataFrame(rows, schema=kinds)


_WINDOW = (
    "start_us", "end_us", "calls", "owners", "venues", "owners_at_once", "most_venues", "need_usd",
    "at_once_need_usd", "unmet_usd",
)  # fmt: skip


def links_table(found: CallMap) -> pl.DataFrame:
    """How many calls are synchronised under each way of tying accounts to owners.

    Last how many any way of tying unknown accounts could bring: a bound, so owners are not told.
    """
    rows = []
    for way in (*LINKS, ANYBODY):
        bound = way == ANYBODY
        together = found.together if bound else found.linked(way)
        both = found.possible if bound else together.synchronised
        rows.append(
            {
                "links": way,
                "owners": None if bound else distinct(together.owner),
                "calls": None if bound else len(together),
                "synchronised_calls": int(both.sum()),
                "synchronised_accounts": int(together.accounts[both].sum()),
                "synchronised_need_usd": float(together.added(found.first.need)[both].sum()),
            }
        )
    return pl.DataFrame(rows)


def totals(found: CallMap) -> dict[str, Any]:
    """The counts and sums of one map, as a row of a ladder."""
    both, need = found.synchronised, float(found.need.sum())
    together = float(found.need[both].sum())
    return {
        "rounds": int(found.cascade.rounds),
        "calls": len(found.need),
        "owners": found.owners,
        "synchronised_calls": int(both.sum()),
        "owners_at_once": found.owners_at_once,
        "most_venues": int(found.together.venues_at_once.max(initial=0)),
        "need_usd": need,
        "synchronised_need_usd": together,
        "synchronised_share": together / need if need > 0.0 else None,
        "unmet_usd": float(found.unmet.sum()),
    }


def ladder_table(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Totals by the size of a common fall."""
    counts = ("rounds", "calls", "owners", "synchronised_calls", "owners_at_once", "most_venues")
    sums = ("need_usd", "synchronised_need_usd", "synchronised_share", "unmet_usd")
    kinds = {"fall": pl.Float64} | dict.fromkeys(counts, pl.Int64) | dict.fromkeys(sums, pl.Float64)
    return pl.DataFrame(rows, schema=kinds)


def _owner(found: CallMap, code: AnyColumn) -> pl.Series:
    owner = pl.Series(found.book.owners[code])
    return owner.set(owner == UNKNOWN_OWNER, None)


def _venue(found: CallMap, code: AnyColumn) -> pl.Series:
    return pl.Series(found.book.universe.venues, dtype=pl.String).gather(code)
