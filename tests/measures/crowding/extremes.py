"""Books at the edge of what there is, and what every study must be whatever its book."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import polars as pl

from crowds import crowd
from measures.crowding.owned import UNKNOWN, borrower, holder, owned_by, under_water
from undertow import schema
from undertow.measures import Study
from undertow.rules.snapshot import Snapshot
from undertow.worlds import World, build_world
from undertow.worlds.population import Population


@cache
def small_world() -> World:
    """A few accounts of every kind."""
    return build_world(4, assets=8, venues=6, population=Population(60))


@cache
def small_book() -> Snapshot:
    """Its book."""
    return small_world().snapshot()


@cache
def bankrupt() -> Snapshot:
    """Three that owe more than they have."""
    return crowd([-0.5, -0.3, -0.2], [1e3, 2e3, 3e3], share=0.5)


@cache
def shorts() -> Snapshot:
    """Three shorts, called by rises of 10, 20 and 30 %."""
    return crowd([0.1, 0.2, 0.3], [1e3] * 3, share=0.5, long=np.zeros(3, dtype=bool))


@cache
def without_depth() -> Snapshot:
    """Three borrowers of what nobody knows the depth of."""
    book = crowd([0.1, 0.2, 0.3], [1e3] * 3, share=0.5)
    return replace(book, market=replace(book.market, depth=np.zeros_like(book.market.depth)))


@cache
def without_owners() -> Snapshot:
    """Three borrowers of whom nobody knows who they are."""
    return owned_by(crowd([0.1, 0.2, 0.3], [1e3] * 3, share=0.5), [UNKNOWN] * 3)


@cache
def money() -> Snapshot:
    """A world in which only what is money is held and owed."""
    world, names = small_world(), small_book().universe
    stable = names.stable[names.root[names.asset_of]]
    kept = [name for name, is_money in zip(names.instruments, stable, strict=True) if is_money]
    positions = world.tables["positions"].filter(pl.col("instrument").is_in(kept))
    return Snapshot.from_tables({**world.tables, "positions": positions}, world.ts)


@cache
def nothing() -> Snapshot:
    """Accounts without a position."""
    world = small_world()
    tables = {**world.tables, "positions": world.tables["positions"].clear()}
    return Snapshot.from_tables(tables, world.ts)


@cache
def mixed() -> Snapshot:
    """A world of which a third each was observed, sampled and modelled, by account."""
    world = build_world(4, assets=8, venues=6, population=Population(300))
    words = [schema.EVIDENCE[a % 3] for a in world.tables["positions"]["account"]]
    positions = world.tables["positions"].with_columns(evidence=pl.Series(words))
    return Snapshot.from_tables({**world.tables, "positions": positions}, world.ts)


BOOKS: dict[str, Callable[[], Snapshot]] = {
    "one account": borrower,
    "nobody leveraged": holder,
    "one bankrupt": under_water,
    "all bankrupt": bankrupt,
    "shorts alone": shorts,
    "no depth": without_depth,
    "no owners": without_owners,
    "money alone": money,
    "no positions": nothing,
}


def sound(study: Study) -> Study:
    """The study, which says something and holds no number that is none."""
    assert study.says
    assert all(study.says)
    assert len({(each.name, each.subject) for each in study.readings}) == len(study.readings)
    for each in study.readings:
        numbers = [n for n in (each.value, each.low, each.high) if n is not None]
        assert all(map(math.isfinite, numbers)), each
        assert each.value is not None or (each.low is None and each.high is None), each
        assert (each.low is None) == (each.high is None) == (each.level is None), each
        if each.low is not None:
            assert each.low <= each.value <= each.high, each
    for name, table in study.tables.items():
        for column in table.select(pl.col(pl.Float64, pl.Float32)):
            assert column.drop_nulls().is_finite().all(), (study.name, name, column.name)
    return study


def same(one: Study, other: Study) -> bool:
    """Whether two studies have the same bits."""
    return repr(one.as_json()) == repr(other.as_json())
