"""What the map of calls says in sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from undertow.measures.interconnection.callmap import ALONE, ANYBODY, ONE, CallMap
from undertow.measures.interconnection.calltables import totals
from undertow.measures.interconnection.together import distinct
from undertow.measures.words import listed, many, percent, span, told
from undertow.stress.cascade import Outcome

_TOP = 3


def says(
    found: CallMap, full: Mapping[str, pl.DataFrame], shock: str, window: str, most: int | None
) -> list[str]:
    """The verdict first; `full` are the tables with all their rows."""
    start = f"{shock[0].upper()}{shock[1:]}"
    ladder, notes = _ladder(full["ladder"]), _notes(found)
    if not len(found.need):
        return [f"{start} calls nobody.", *ladder, *notes]
    sums = totals(found)
    said = [
        _whole(found, sums, full["rounds"], start),
        _at_once(found, sums, window),
        *_worst(full),
        _ties(found, full["links"]),
        *ladder,
        *notes,
    ]
    if not len(found.cascade.plan.snapshot.free):
        said.append("Nobody is known to hold anything free.")
    if most is not None and sums["calls"] > most:
        said.append(f"The table of calls holds the {most:,} largest of {sums['calls']:,}.")
    return said


def _whole(found: CallMap, sums: dict[str, Any], rounds: pl.DataFrame, start: str) -> str:
    last = int(rounds["after_us"].to_numpy()[-1])
    venues = distinct(found.together.venue)
    return (
        f"{start} calls {many(sums['owners'], 'owner')} at {many(venues, 'venue')}: "
        f"{many(sums['calls'], 'call')} over {many(rounds.height, 'round')}"
        + (f", the last after {span(last)}" if last else "")
        + f". They need {told(sums['need_usd'], 3)} USD, of which owners cannot bring "
        f"{told(sums['unmet_usd'], 3)}."
    )


def _at_once(found: CallMap, sums: dict[str, Any], window: str) -> str:
    count = sums["synchronised_calls"]
    if not count:
        return f"No owner is called by two venues {window}."
    unmet = float(found.unmet[found.synchronised].sum())
    return (
        f"{many(count, 'call')} of {many(sums['owners_at_once'], 'owner')} are synchronised, from "
        f"up to {sums['most_venues']} venues {window}: {told(sums['synchronised_need_usd'], 3)} "
        f"USD, {percent(sums['synchronised_share'])} of all that is needed; {told(unmet, 3)} of "
        "it is unmet."
    )


def _worst(full: Mapping[str, pl.DataFrame]) -> list[str]:
    """The owner called by most venues at once, and the venues that call the same owners."""
    rows = full["owners"].filter(pl.col("at_once") > 1)
    if not rows.height:
        return []
    row = rows.sort("at_once", "need_usd", descending=True).row(0, named=True)
    pairs = full["pairs"].filter(pl.col("venue") < pl.col("other"))
    shown = [
        f"{pair['venue']} with {pair['other']} ({many(pair['owners'], 'owner')})"
        for pair in pairs.sort("owners", "need_usd", descending=True).head(_TOP).to_dicts()
    ]
    most = (
        f"Most venues at once call owner {row['owner']}: {row['at_once']}, with a need of "
        f"{told(row['need_usd'], 3)} USD in all and {told(row['free_usd'], 3)} free at first."
    )
    return [most, f"Venues that most often call the same owner at once: {listed(shown)}."]


def _ties(found: CallMap, links: pl.DataFrame) -> str:
    rows = {row["links"]: row["synchronised_accounts"] for row in links.to_dicts()}
    called = many(len(found.first), "called account")
    return (
        f"{percent(float(found.known.mean()))} of accounts have a known owner. Were every account "
        f"its own owner, {rows[ALONE]:,} of {called} would be in synchronised calls; were all "
        f"unknown accounts of one owner, {rows[ONE]:,}; no way of tying them brings more than "
        f"{rows[ANYBODY]:,}."
    )


def _ladder(ladder: pl.DataFrame) -> list[str]:
    if not ladder.height:
        return []
    some = ladder.filter(pl.col("synchronised_calls") > 0)
    if not some.height:
        furthest = float(ladder["fall"].to_numpy().max())
        none = f"No fall of the ladder, up to {percent(furthest)}, calls an owner from two venues"
        return [f"{none} at once."]
    first = some.row(0, named=True)
    top = some.sort("synchronised_need_usd", descending=True).row(0, named=True)
    told_of = (
        f"Along the ladder, synchronised calls begin at a fall of {percent(first['fall'])} with "
        f"{first['synchronised_calls']:,}; their need is largest at {percent(top['fall'])}: "
        f"{top['synchronised_calls']:,} calls, {told(top['synchronised_need_usd'], 3)} USD, "
        f"{percent(top['synchronised_share'])} of all that is needed."
    )
    return [told_of]


def _notes(found: CallMap) -> list[str]:
    notes = [f"{each[0].upper()}{each[1:]}." for each in found.cascade.notes]
    if found.cascade.outcome is not Outcome.SETTLED:
        notes.append(f"It was still selling after its last round, {found.cascade.rounds}.")
    return notes
