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
from undertow.state import Book, Claims, FloatColumn, Market, Panel, Universe
from undertow.state.arrays import frozen
from undertow.worlds import backdrop, markets
from undertow.worlds.catalogue import catalogue
from undertow.worlds.history import History, publish, simulate
from undertow.worlds.legs import Legs, joined, position_rows, together
from undertow.worlds.lenders import lender_legs
from undertow.worlds.makers import maker_legs
from undertow.worlds.names import TS, Names, name_world
from undertow.worlds.planting import (
    Claim,
    Planted,
    claim_rows,
    plant_chain,
    plant_crowd,
    plant_hub,
    plant_loop,
)
from undertow.worlds.plants import Plants
from undertow.worlds.population import (
    Population,
    Roster,
    Sort,
    account_rows,
    draw_roster,
    entity_rows,
)
from undertow.worlds.quotes import implied_vol_rows, mark_prices, price_rows
from undertow.worlds.seeds import require_within
from undertow.worlds.terms import Param, Terms, oracle_rows, set_terms
from undertow.worlds.traders import trader_legs
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
    at the snapshot. The same arguments give the same bits.

    Raises
    ------
    StateError
        When an argument is impossible; it names the argument, its value and what is allowed.
    """
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
    settled = _settle(seed, names, terms, mark, who, what)
    holdings = backdrop.Holdings(names, settled.legs)
    reserves, deposits = backdrop.reserve_rows(names, holdings)
    claims = [*deposits, *backdrop.backing_claims(names, holdings), *settled.claims]
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
        series = publish(seed, names, history, paths, open_interest=open_base, depth=depth)
        panels = series.panels
        truth = replace(truth, series=series.truth)
        for name, frame in series.tables.items():
            # Volumes of the day before are those of the series, step by step.
            tables[name] = frame if name == "volumes" else pl.concat([frame, tables[name]])
    ordered = {name: tables[name] for name in WORLD_TABLES}
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


@dataclass(frozen=True, eq=False)
class _Settled:
    """All accounts with their positions, in the order of a Book."""

    roster: Roster
    own_legs: Legs  # of the roster alone
    legs: Legs  # of everybody
    accounts: pl.DataFrame
    entities: pl.DataFrame
    positions: pl.DataFrame
    claims: list[Claim]
    overrides: list[Param]
    truth: Truth


def _settle(
    seed: int,
    names: Names,
    terms: Terms,
    mark: FloatColumn,
    population: Population,
    plants: Plants,
) -> _Settled:
    roster = draw_roster(seed, names, population)
    lent, overrides = lender_legs(seed, names, terms, roster, population)
    traded = trader_legs(seed, names, terms, mark, roster, population)
    truth = Truth(
        seed=seed,
        tail_index=population.tail_index,
        minimum_usd=population.minimum_usd,
        overridden=tuple(key for _, _, _, key, _, _ in overrides if key is not None),
        makers=tuple(int(k) for k in roster.account[roster.sort == Sort.MAKER]),
    )
    added, truth = _plant(seed, names, terms, mark, plants, roster, [*lent, *traded], truth)
    making = maker_legs(names, terms, mark, roster, [*lent, *traded, *(p.legs for p in added)])
    own = joined([*lent, *traded, *making])
    known = int((roster.owner > 0).sum())
    first = int(np.searchsorted(own.row, known))
    accounts = account_rows(names, roster)
    positions = position_rows(names.universe, own, roster.account, names.ts)
    planted = [
        position_rows(names.universe, joined([p.legs]), p.accounts["account"].to_numpy(), names.ts)
        for p in added
    ]
    return _Settled(
        roster=roster,
        own_legs=own,
        legs=together([own, *(p.legs for p in added)]),
        accounts=pl.concat([accounts[:known], *(p.accounts for p in added), accounts[known:]]),
        entities=pl.concat([entity_rows(seed, names, roster), *(p.entities for p in added)]),
        positions=pl.concat([positions[:first], *planted, positions[first:]]),
        claims=[claim for p in added for claim in p.claims],
        overrides=overrides,
        truth=truth,
    )


def _plant(
    seed: int,
    names: Names,
    terms: Terms,
    mark: FloatColumn,
    plants: Plants,
    roster: Roster,
    legs: list[Legs],
    truth: Truth,
) -> tuple[list[Planted], Truth]:
    """What is planted, one after the other, with keys and owners beyond those of the roster."""
    key, owner = int(roster.account[-1]) + 1, int(roster.owner.max()) + 1
    added: list[Planted] = []
    if plants.loop:
        planted, loop = plant_loop(names, plants.loop, key, owner)
        added.append(planted)
        truth = replace(truth, loop=loop)
        key, owner = key + 2, owner + 2
    if plants.chain:
        planted, chain = plant_chain(names, plants.chain, key, owner)
        added.append(planted)
        truth = replace(truth, chain=chain)
        key, owner = key + 1, owner + 1
    if plants.crowd:
        others = len(roster.account) + sum(p.accounts.height for p in added)
        planted, crowd = plant_crowd(
            seed, names, terms, mark, plants.crowd, key, owner, others, joined(legs)
        )
        added.append(planted)
        truth = replace(truth, crowd=crowd)
    return added, truth


def _newest(name: str, frame: pl.DataFrame, ts: int) -> pl.DataFrame:
    table = schema.table(name)
    if table.as_of is not AsOf.LATEST or frame.is_empty():
        return frame
    if frame["ts"].n_unique() == 1:
        return frame
    key = [*table.key, *(["source"] if "source" in table.column_names else [])]
    held = frame.filter(pl.col("ts") <= pl.lit(ts).cast(pl.Datetime("us", "UTC")))
    return held.sort("ts", maintain_order=True).unique(key, keep="last", maintain_order=True)
