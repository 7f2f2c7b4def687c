"""`undertow export`: what a measure found, in the shape that another program reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from undertow.assess import INVENTED
from undertow.cli.lake import the_lake
from undertow.cli.margins import left_out
from undertow.cli.measure import executor_of, tell_of_measuring
from undertow.cli.options import UnusableOption, instant, iso, now_us, require_share
from undertow.cli.output import ENDINGS, Answer
from undertow.measures.crowding.liquidation_map import NEAR, liquidation_map
from undertow.measures.crowding.liquidation_prices import (
    LiquidationPrices,
    adapter_entries,
    collateral_prices,
    liquidation_prices,
)
from undertow.measures.words import listed, many
from undertow.rules.snapshot import Snapshot
from undertow.store import Lake
from undertow.store.load import load_snapshot

_SHOWN = 20  # rows on the terminal
_TOLD = ["account", "label", "venue", "asset", "side", "evidence", "price_usd"]
_TOLD += ["liquidation_price_usd", "distance_share", "exposed_usd", "callable_now"]


@dataclass(frozen=True, slots=True)
class Seen:
    """Which book is exported, and what of it."""

    lake: str | None
    as_of: str | None
    at: str | None
    evidence: str | None  # only what is known in this way


@dataclass(frozen=True, eq=False)
class _Book:
    """The book that was asked for, and the instants at which names are read."""

    home: Lake
    snapshot: Snapshot
    known: int | None
    held: int | None
    facts: dict[str, Any]

    @classmethod
    def of(cls, seen: Seen, answer: Answer) -> _Book:
        now = now_us()
        known, held = instant("--as-of", seen.as_of, now), instant("--at", seen.at, now)
        home = the_lake(seen.lake)
        snapshot = load_snapshot(home, as_of=known, at=held)
        facts = {
            "at": iso(snapshot.ts),
            "as_of": iso(home.standing(as_of=known).committed),
            "inputs_hash": snapshot.digest,
            **left_out(home, answer, known, held),
        }
        worlds = [json.loads(detail) for detail in home.history().runs["detail"]]
        if any("world" in told for told in worlds):
            facts["note"] = INVENTED
            answer.say(INVENTED)
        return cls(home, snapshot, known, held, facts)

    def read(self, table: str, *columns: str) -> pl.DataFrame:
        return self.home.read(table, as_of=self.known, at=self.held, columns=list(columns))

    def labels(self) -> pl.DataFrame:
        """What an account's owner is called; of unknown owners, what the account is."""
        accounts = self.read("accounts", "account", "label", "owner")
        owners = self.read("entities", "owner", "label").rename({"label": "name"})
        named = accounts.join(owners, on="owner", how="left")
        return named.select("account", label=pl.coalesce("name", "label"))


def run_liquidations(
    seen: Seen, *, form: str, within: float | None, as_json: bool, output: Path | None, quiet: bool
) -> None:
    """Say at which price of one asset each account is called, as rows or as adapter entries."""
    entries = form == "defillama"
    require_share("--within", within)
    answer = Answer(as_json, output, quiet, endings=(".json",) if entries else ENDINGS)
    book = _Book.of(seen, answer)
    found = liquidation_prices(book.snapshot, furthest=within)
    rows = found.rows if seen.evidence is None else found.known_as(seen.evidence)
    answer.say(
        f"left out: {many(found.without, 'leveraged account')} that no move of one asset alone "
        "calls"
    )
    _say_others(answer, seen, found.rows, rows)
    if entries:
        _give_entries(answer, book, found, rows)
        return
    rows = rows.join(book.labels(), on="account", how="left")
    rows = rows.select("account", "label", pl.exclude("account", "label"))
    facts = {**book.facts, "rows_in_all": rows.height, "without_a_price": found.without}
    if unquoted := rows["price_usd"].null_count():
        facts["rows_without_a_quote"] = unquoted
    shown = rows if output or as_json else rows.select(_TOLD).head(_SHOWN)
    answer.give(
        "accounts, by the move of one asset that calls them", shown, {**facts, **_kinds(rows)}
    )


def run_ladder(
    seen: Seen,
    *,
    furthest: float,
    points: int,
    workers: str | None,
    as_json: bool,
    output: Path | None,
    quiet: bool,
) -> None:
    """Give the liquidation map's ladder: what is called from each distance on."""
    answer = Answer(as_json, output, quiet)
    executor = executor_of(workers)
    tell_of_measuring(answer, ["crowding.map"])
    book = _Book.of(seen, answer)
    study = liquidation_map(
        book.snapshot, near=min(NEAR, furthest), furthest=furthest, points=points, executor=executor
    )
    rows = study.tables["ladder"].rename({"distance": "distance_share"})
    if seen.evidence is not None:
        kept = rows.filter(pl.col("evidence") == seen.evidence)
        _say_others(answer, seen, rows, kept)
        rows = kept
    facts = {**book.facts, "rows_in_all": rows.height, **_kinds(rows)}
    shown = rows if output or as_json else rows.head(_SHOWN)
    answer.give("what is called from each distance on", shown, facts)


def _say_others(answer: Answer, seen: Seen, every: pl.DataFrame, kept: pl.DataFrame) -> None:
    """Say what there is, where nothing is known in the way that was asked for."""
    if seen.evidence is None or kept.height:
        return
    others = every["evidence"].value_counts().sort("evidence").iter_rows()
    there = [f"{count:,} {kind}" for kind, count in others]
    rest = f"; there are {listed(there)}" if there else ", nor is there any other"
    answer.say(f"no row is {seen.evidence}{rest}")


def _kinds(rows: pl.DataFrame) -> dict[str, int]:
    """How many rows are known in which way."""
    counts = rows["evidence"].value_counts().sort("evidence")
    return {f"{kind}_rows": count for kind, count in counts.iter_rows()}


def _give_entries(
    answer: Answer, book: _Book, found: LiquidationPrices, rows: pl.DataFrame
) -> None:
    """Give the entries of one kind of evidence; whoever reads them would add all of them up."""
    held = collateral_prices(found).join(rows.select("account").unique(), on="account", how="semi")
    kinds = held["evidence"].unique().sort().to_list()
    if len(kinds) > 1:
        raise UnusableOption(
            "--format defillama takes positions that are known in one way, and these are "
            f"{' and '.join(kinds)}",
            hint=f"say --evidence {', or --evidence '.join(kinds)}, a file each",
        )
    names = book.read("assets", "asset", "chain", "caip19", "decimals")
    entries, unfit = adapter_entries(held.join(book.labels(), on="account", how="left"), names)
    for why, count in unfit.items():
        answer.say(f"left out: {many(count, 'holding')} of which {why}")
    bare = names.filter(pl.col("caip19").is_null() & pl.col("asset").is_in(held["asset"].implode()))
    if bare.height:
        answer.say(
            f"no address is known of {listed(bare['asset'], bare.height)}: their key is chain:name "
            "(addresses stand in the column caip19 of the table assets)"
        )
    whole = json.dumps(entries, indent=1, ensure_ascii=False, allow_nan=False)
    if answer.file is None:
        print(whole)
        return
    answer.keep(lambda part: part.write_text(whole + "\n", encoding="utf-8"))
    answer.say(f"{len(entries):,} entries in {answer.file}, {kinds[0] if kinds else 'of nothing'}")
