"""The tables of a study that answer what was asked: the terminal shows them before its readings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import polars as pl

from undertow.cli.trace import bearers_table
from undertow.measures import Study

ROWS = 20  # of one table


class Main(NamedTuple):
    """One table as the terminal shows it."""

    table: str  # of the study
    title: str
    columns: tuple[str, ...]
    largest: str = ""  # column by which rows are sorted, the largest first; as they stand without


class Shown(NamedTuple):
    """Rows that are shown, under a title, of how many."""

    title: str
    rows: pl.DataFrame
    of: int


# What stands here once need not stand among the other tables again.
MAIN: Mapping[str, tuple[Main, ...]] = {
    "interconnection.map": (
        Main("keepers", "keepers, by what leads through them",
             ("node", "kind", "claims_usd", "claims_share", "passes_usd", "passes")),
        Main("names", "issuers, custodians, chains and oracles, by what hangs on them",
             ("node", "kind", "hangs_usd", "hangs")),
        Main("links", "owners, by how sure an identity has to be to count",
             ("sure", "links", "owners", "at_two_venues")),
    ),
    "interconnection.reuse": (
        Main("bases", "reuse by base asset",
             ("asset", "root_usd", "tokens_usd", "places_usd", "keepers_usd", "loans_usd",
              "claims_usd", "multiplier")),
        Main("tokens", "reuse by token",
             ("asset", "claims_usd", "backed", "posted_usd", "reuse", "self_backed", "multiplier",
              "multiplier_pooled", "wrappers", "mostly")),
    ),
    "interconnection.loops": (
        Main("ties", "loops by what is posted against what is owed",
             ("collateral", "debt", "accounts", "collateral_usd", "debt_usd", "leverage",
              "net_usd_a_year", "headroom_least", "health_least"), "debt_usd"),
        Main("loops", "the largest loops",
             ("owner", "account", "venue", "collateral", "debt", "debt_usd", "leverage", "health",
              "room", "carry", "headroom", "on_itself"), "debt_usd"),
        Main("unwinding", "what leaves as borrow rates rise",
             ("rise", "accounts", "unknown", "debt_usd", "netted_usd", "cost_usd", "fall")),
    ),
    "interconnection.calls": (
        Main("ladder", "calls by the size of a common fall",
             ("fall", "calls", "owners", "need_usd", "unmet_usd", "synchronised_calls",
              "owners_at_once", "most_venues", "synchronised_need_usd", "synchronised_share")),
        Main("owners", "the owners who need most",
             ("owner", "account", "calls", "venues", "at_once", "need_usd", "free_usd", "met_usd",
              "unmet_usd"), "need_usd"),
    ),
    "interconnection.contagion": (
        Main("channels", "what is lost, by channels that are on",
             ("way", "channel", "lost_usd", "bad_usd", "gone_usd", "cost_usd", "not_paid_usd",
              "pools_lost_usd", "tokens_lost_usd", "defaults", "borne_usd")),
        Main("bearers", "who bears what is lost", ("kind", "bearer", "usd")),
    ),
    "interconnection.paths": (
        Main("channels", "what channels add",
             ("channel", "shapley_usd", "error_usd", "share", "alone_usd", "off_usd", "idle")),
        Main("origins", "what it comes from",
             ("origin", "shapley_usd", "error_usd", "share", "alone_usd", "off_usd", "idle")),
        Main("bearers", "who bears it", ("kind", "bearer", "usd")),
    ),
    "interconnection.nodes": (
        Main("nodes", "nodes, by what their failure costs all others",
             ("node", "failure_usd", "own_usd", "in_stress_usd", "adds_usd", "debtrank_usd",
              "single_hit_usd", "diffusion", "centrality", "passes", "delta_covar")),
    ),
    "interconnection.links": (
        Main("numbers", "every number over networks with the same totals",
             ("number", "unit", "as_told", "least", "low", "middle", "high", "greatest",
              "searched", "bound")),
    ),
}  # fmt: skip


def main_tables(study: Study) -> list[Shown]:
    """The tables that a reader wants first, cut to what a terminal holds."""
    return [
        _shown(study.tables[each.table], each)
        for each in MAIN.get(study.name, ())
        if each.table in study.tables and study.tables[each.table].height
    ]


def _shown(table: pl.DataFrame, main: Main) -> Shown:
    if main.table == "bearers":  # the others and the sum are rows of their own
        return Shown(main.title, bearers_table(table, ROWS - 2), 0)
    rows = table.sort(main.largest, descending=True, nulls_last=True) if main.largest else table
    there = [each for each in main.columns if each in rows.columns]
    rows = rows.select(each for each in there if rows[each].null_count() < rows.height)
    return Shown(main.title, rows.head(ROWS), table.height)
