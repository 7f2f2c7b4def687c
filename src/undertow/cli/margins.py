"""`undertow margins`: every account of the lake, judged by its venue."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from undertow.cli.lake import the_lake
from undertow.cli.options import UnusableOption, instant, iso, now_us
from undertow.cli.output import Answer
from undertow.rules.margins import Margins, margins
from undertow.store.load import load_snapshot

_FIRST = {"distance": False, "health": False, "leverage": True, "equity": True, "debt": True}
_SHOWN = ["account", "venue", "mode", "owner", "assets", "debt", "notional", "equity", "leverage"]


def run_margins(
    *,
    by: str | None,
    sort: str,
    top: int,
    venue: str | None,
    owner: int | None,
    lake: str | None,
    as_of: str | None,
    at: str | None,
    as_json: bool,
    output: Path | None,
    quiet: bool,
) -> None:
    """List accounts, or add them up by venue, owner or mode."""
    answer = Answer(as_json, output, quiet)
    now = now_us()
    known, held = instant("--as-of", as_of, now), instant("--at", at, now)
    home = the_lake(lake)
    stands = home.standing(as_of=known)
    judged = margins(load_snapshot(home, as_of=known, at=held))
    rows = _chosen(judged, venue, owner)
    facts: dict[str, Any] = {
        "as_of": iso(judged.snapshot.ts),
        "accounts": rows.height,
        "breached": int(rows["breached"].sum()),
        "inputs_hash": judged.snapshot.digest,
    }
    if as_json or output:
        facts["stood_on"] = stands.as_json()
    if by is None:
        listed = _sorted(rows, sort).head(top).select(*_SHOWN, "health", "fall", "rise", "breached")
        answer.give(f"accounts by {sort}", listed, facts)
    else:
        answer.give(f"accounts added up by {by}", judged.add_up(by, rows).head(top), facts)


def _chosen(judged: Margins, venue: str | None, owner: int | None) -> pl.DataFrame:
    rows = judged.to_polars()
    if venue is not None:
        judged.snapshot.universe.code("venue", venue)  # an unknown venue is an error, not no rows
        rows = rows.filter(pl.col("venue") == venue)
    if owner is not None:
        rows = rows.filter(pl.col("owner") == owner)
        if rows.is_empty():
            raise UnusableOption(f"--owner was {owner}, who has no accounts here")
    return rows


def _sorted(rows: pl.DataFrame, sort: str) -> pl.DataFrame:
    if sort == "distance":
        rows = rows.with_columns(nearest=pl.min_horizontal("fall", "rise"))
    key = "nearest" if sort == "distance" else sort
    order = [key, "account"]
    return rows.sort(order, descending=[_FIRST[sort], False], nulls_last=True)
