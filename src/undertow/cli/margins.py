"""`undertow margins`: every account of the lake, judged by its venue."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from undertow.cli.lake import the_lake
from undertow.cli.options import UnusableOption, instant, iso, now_us
from undertow.cli.output import Answer
from undertow.rules.margins import Margins, margins
from undertow.store import Lake
from undertow.store.load import load_snapshot

# Tables without whose rows an account is judged otherwise.
_JUDGED_BY = [
    *("assets", "venues", "instruments", "accounts", "positions", "prices"),
    *("implied_vols", "risk_params", "margin_brackets"),
]
_LARGEST_FIRST = {
    "distance": False,
    "health": False,
    "leverage": True,
    "equity": True,
    "debt": True,
}
_SHOWN = ["account", "label", "venue", "mode", "owner", "assets", "debt", "notional", "equity"]
_SHOWN += ["leverage", "health", "fall", "rise", "breached"]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which accounts are asked for."""

    venue: str | None = None
    owner: int | None = None
    account: str | None = None  # key or label


def run_margins(
    choice: Choice,
    *,
    by: str | None,
    sort: str,
    top: int | None,
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
    labels = home.read("accounts", as_of=known, at=held, columns=["account", "label"])
    rows = _chosen(judged, judged.to_polars().join(labels, on="account", how="left"), choice)
    facts: dict[str, Any] = {
        "at": iso(judged.snapshot.ts),
        "as_of": iso(stands.committed),
        "accounts": rows.height,
        "breached": int(rows["breached"].sum()),
        "inputs_hash": judged.snapshot.digest,
    }
    facts |= left_out(home, answer, known, held)
    if as_json or output:
        facts["stood_on"] = {**stands.as_json(), "committed": iso(stands.committed)}
    if by is not None:
        added = judged.add_up(by, rows.drop("label"))
        facts["groups"] = added.height - 1
        added = pl.concat([_cut(added.head(-1), top, output), added.tail(1)])
        answer.give(f"accounts added up by {by}, and all of them", added, facts)
        return
    if choice.account is not None:
        legs = judged.snapshot.book.to_polars().join(rows.select("account"), on="account")
        if as_json:
            facts["legs"] = legs.to_dicts()
        elif output is None:
            answer.give("legs", legs)
    listed = _sorted(rows, sort).select(_SHOWN)
    answer.give(f"accounts by {sort}", _cut(listed, top, output), facts)


def left_out(
    home: Lake,
    answer: Answer,
    known: int | None,
    held: int | None,
    *,
    tables: Iterable[str] = _JUDGED_BY,
    lacks: str = "accounts may lack legs",
) -> dict[str, int]:
    """Rows of `tables` that were refused from the very ingestions that a snapshot stands on.

    An account that lacks a refused leg looks safer or worse than it is, so this is said aloud.
    """
    refused = home.read("rejects", as_of=known)
    refused = refused.filter(pl.col("table").is_in(list(tables)))
    if refused.is_empty():
        return {}
    brought = [
        home.read(name, as_of=known, at=held, columns=["run"], ordered=False)["run"].unique()
        for name in refused["table"].unique()
    ]
    count = refused.filter(pl.col("run_of").is_in(pl.concat(brought).implode())).height
    if not count:
        return {}
    answer.say(
        f"warning: {count} rows of the files that this stands on were refused; {lacks} "
        "(undertow lake rejects)"
    )
    return {"rows_refused": count}


def _cut(rows: pl.DataFrame, top: int | None, output: Path | None) -> pl.DataFrame:
    """As many rows as were asked for: 20 on the terminal, all of them in a file, unless said."""
    if top is None:
        return rows if output else rows.head(20)
    return rows.head(top)


def _chosen(judged: Margins, rows: pl.DataFrame, choice: Choice) -> pl.DataFrame:
    if choice.venue is not None:
        judged.snapshot.universe.code("venue", choice.venue)  # unknown is an error, not no rows
        rows = rows.filter(pl.col("venue") == choice.venue)
    if choice.owner is not None:
        rows = rows.filter(pl.col("owner") == choice.owner)
        if rows.is_empty():
            raise UnusableOption(f"--owner was {choice.owner}, who has no accounts here")
    if choice.account is not None:
        key = pl.col("account").cast(pl.String) == choice.account
        rows = rows.filter(key | (pl.col("label").str.to_lowercase() == choice.account.lower()))
        if rows.is_empty():
            raise UnusableOption(
                f"--account was {choice.account!r}, which is neither a key nor a label here",
                hint="`undertow margins` lists both",
            )
    return rows


def _sorted(rows: pl.DataFrame, sort: str) -> pl.DataFrame:
    if sort == "distance":
        rows = rows.with_columns(nearest=pl.min_horizontal("fall", "rise"))
    order = ["nearest" if sort == "distance" else sort, "account"]
    return rows.sort(order, descending=[_LARGEST_FIRST[sort], False], nulls_last=True)
