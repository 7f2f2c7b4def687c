"""A whole synthetic ecosystem at one instant, with what was planted in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType

import numpy as np
import polars as pl

from undertow import schema
from undertow.rules.snapshot import Snapshot
from undertow.schema import AsOf
from undertow.state import Book, Claims, Market, Panel, Universe
from undertow.state.arrays import frozen
from undertow.worlds import backdrop, markets
from undertow.worlds.catalogue import catalogue
from undertow.worlds.history import History, publish, simulate
from undertow.worlds.levels import book_leverage
from undertow.worlds.names import TS, Names, name_world
from undertow.worlds.planting import claim_rows, plant_hub
from undertow.worlds.plants import Plants
from undertow.worlds.population import Population
from undertow.worlds.quotes import implied_vol_rows, mark_prices, price_rows
from undertow.worlds.seeds import require_seed, require_within
from undertow.worlds.settled import settle
from undertow.worlds.terms import oracle_rows, set_terms
from undertow.worlds.truths import Truth

WORLD_TABLES = tuple(
    name for name in schema.TABLES if name not in ("runs", "readings", "rejects")
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class World:
    """Tables that the lake could hold, and what is true of them.

    Tables may hold a history; the nouns are built from what holds at `ts`.
    """

    seed: int
    ts: int  # microseconds, UTC
    tables: Mapping[str, pl.DataFrame]
    truth: Truth
    panels: Mapping[str, Panel] = field(default_factory=dict)

    def __repr__(self) -> str:
        accounts, legs = self.tables["accounts"].height, self.tables["positions"].height
        return f"World(seed {self.seed}, {accounts:,} accounts, {legs:,} legs)"

    @cached_property
    def present(self) -> Mapping[str, pl.DataFrame]:
        """The tables as they stand at `ts`: of tables that keep the newest row, that row only."""
        return MappingProxyType(
            {name: _newest(name, frame, self.ts) for name, frame in self.tables.items()}
        )

    def universe(self) -> Universe:
        """The names."""
        return self._universe

    def book(self) -> Book:
        """Who holds what."""
        return Book.from_frames(
            self._universe, self.tables["accounts"], self.tables["positions"]
        )  # fmt: skip

    def market(self) -> Market:
        """What everything is worth."""
        present = self.present
        return Market.from_frames(
            self._universe, present["prices"], present["depth"], present["implied_vols"]
        )

    def claims(self) -> Claims:
        """Who is owed what by whom."""
        return Claims.from_frames(self._universe, self.tables["claims"])

    def snapshot(self) -> Snapshot:
        """All nouns together, with the rules of every venue."""
        return Snapshot.from_tables(self.present, self.ts)

    @cached_property
    def _universe(self) -> Universe:
        tables = self.tables
        return Universe.from_frames(tables["assets"], tables["venues"], tables["instruments"])


def build_world(
    seed: int,
    *,
    accounts: int = 2_000,
    assets: int = 24,
    venues: int = 14,
    population: Population | None = None,
    plants: Plants | None = None,
    history: History | None = None,
    depth_ratio: float = 1.0,
    ts: int = TS,
) -> World:
    """Build an ecosystem of lending protocols, perp venues and an options venue.

    `population` says more about the accounts than how many there are (its own `accounts` then
    counts); `plants` puts structures with known numbers on top, and `history` adds series that end
    at the snapshot, and the table `readings` of leverage over time. The same arguments give the
    same bits.

    Raises
    ------
    StateError
        When an argument is impossible; it names the argument, its value and what is allowed.
    RuleError
        When the rules of a venue begin after `ts`.
    """
    require_seed(seed)
    who = population or Population(accounts)
    what = plants or Plants()
    require_within("depth_ratio", depth_ratio, 0.0, open_low=True)
    names = _named(seed, assets, venues, what, ts)
    terms = set_terms(names, what.thresholds)
    paths = None if history is None else simulate(seed, names, history)
    if paths is not None:
        names = replace(names, price=frozen(paths.last_prices(names)))
        terms = replace(terms, names=names)
    mark = mark_prices(seed, names, None if paths is None else paths.last_basis(names))
    settled = settle(seed, names, terms, mark, who, what)
    holdings = backdrop.Holdings(names, settled.legs)
    reserves, deposits = backdrop.reserve_rows(names, holdings)
    claims = [*deposits, *backdrop.backing_claims(names, holdings, reserves), *settled.claims]
    truth = settled.truth
    if what.hub:
        custody, hub = plant_hub(names, what.hub, claims)
        claims += custody
        truth = replace(truth, hub=hub)
    depth = holdings.instrument_depth(depth_ratio)
    tables = {
        **names.tables,
        "entities": settled.entities,
        "accounts": settled.accounts,
        "tags": backdrop.tag_rows(names),
        "risk_params": terms.risk_params(settled.overrides),
        "margin_brackets": terms.brackets,
        "oracles": oracle_rows(names),
        "venue_funds": backdrop.fund_rows(names, holdings, mark),
        "positions": settled.positions,
        "claims": claim_rows(names, claims),
        "free_assets": backdrop.free_rows(seed, names, settled.roster),
        "pools": markets.pool_rows(names, holdings, depth_ratio),
        "prices": price_rows(names, mark),
        "funding": markets.funding_rows(names, mark),
        "open_interest": markets.open_interest_rows(names, holdings, mark),
        "depth": markets.depth_rows(names, depth),
        "volumes": markets.volume_rows(seed, names, depth),
        "liquidations": markets.liquidation_rows(
            seed, names, settled.roster, settled.own_legs, mark
        ),
        "implied_vols": implied_vol_rows(names),
        "reserves": reserves,
    }
    panels: Mapping[str, Panel] = {}
    if history is not None and paths is not None:
        open_base = np.where(names.universe.inverse, holdings.long / mark, holdings.long)
        held = book_leverage(Snapshot.from_tables(tables, ts))
        series = publish(
            seed, names, history, paths, open_interest=open_base, depth=depth, held=held
        )  # fmt: skip
        panels = series.panels
        truth = replace(truth, series=series.truth)
        for name, frame in series.tables.items():
            # Volumes of the day before are those of the series, step by step.
            alone = name in ("volumes", "readings")
            tables[name] = frame if alone else pl.concat([frame, tables[name]])
    ordered = {name: tables[name] for name in (*WORLD_TABLES, "readings") if name in tables}
    return World(seed, ts, MappingProxyType(ordered), truth, panels)


def _named(seed: int, assets: int, venues: int, plants: Plants, ts: int) -> Names:
    require_within("assets", assets, 6, 1_000)
    known = {each.key: each for each in catalogue(assets)}
    return name_world(
        seed,
        assets=assets,
        venues=venues,
        ts=ts,
        extra_assets=plants.assets(known),
        listings=plants.listings,
    )


def _newest(name: str, frame: pl.DataFrame, ts: int) -> pl.DataFrame:
    table = schema.table(name)
    if table.as_of is not AsOf.LATEST or frame.is_empty():
        return frame
    if frame["ts"].n_unique() == 1:
        return frame
    key = [*table.key, *(["source"] if "source" in table.column_names else [])]
    held = frame.filter(pl.col("ts") <= pl.lit(ts).cast(pl.Datetime("us", "UTC")))
    return held.sort("ts", maintain_order=True).unique(key, keep="last", maintain_order=True)
