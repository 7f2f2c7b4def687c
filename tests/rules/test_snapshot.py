"""One instant, whole: from tables of a world, from a lake, and with tables left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from undertow.errors import MisalignedState
from undertow.rules.snapshot import TABLES, Snapshot
from undertow.state import Funds, Universe
from undertow.store import Lake
from undertow.store.load import load_snapshot
from undertow.worlds import World, demo_world


@pytest.fixture(scope="module")
def world() -> World:
    return demo_world()


@pytest.fixture(scope="module")
def snapshot(world: World) -> Snapshot:
    return world.snapshot()


def test_a_world_s_snapshot_carries_where_sales_go_and_what_stands_ready(
    snapshot: Snapshot,
) -> None:
    liquidity = snapshot.liquidity
    assert (snapshot.market.depth > 0.0).sum() == 48
    assert (np.diff(liquidity.ladders.start[::2]) > 0).sum() == 48
    assert (liquidity.daily > 0.0).sum() == 22
    assert len(liquidity.pools) == 26
    assert snapshot.oracles.lag_us.any()
    assert snapshot.funds.insurance.any()
    assert (snapshot.free.usd_by_owner(snapshot.market) > 0.0).sum() == len(snapshot.free)


def test_only_the_needed_tables_are_needed(world: World) -> None:
    needed = {name: world.present[name] for name, must in TABLES.items() if must}
    bare = Snapshot.from_tables(needed, world.ts)
    assert not bare.liquidity.pools
    assert not len(bare.free)
    assert np.isinf(bare.funds.liquidator_capacity).all()


@pytest.mark.parametrize(
    "name", ["oracles", "venue_funds", "free_assets", "pools", "volumes", "reserves", "depth"]
)
def test_every_table_that_says_something_is_in_the_digest(
    world: World, snapshot: Snapshot, name: str
) -> None:
    without = {table: rows for table, rows in world.present.items() if table != name}
    assert Snapshot.from_tables(without, world.ts).digest != snapshot.digest


def test_parts_of_different_universes_make_no_snapshot(snapshot: Snapshot) -> None:
    with pytest.raises(MisalignedState, match="the book and the funds"):
        replace(snapshot, funds=Funds.from_frames(Universe.empty()))


def test_a_lake_gives_the_snapshot_that_went_in(
    world: World, snapshot: Snapshot, tmp_path: Path
) -> None:
    lake = Lake.create(tmp_path / "lake")
    tables = {name: rows for name, rows in world.tables.items() if rows.height}
    lake.write(tables, kind="world", now=world.ts + 1, detail={})
    loaded = load_snapshot(lake)
    assert loaded.digest == snapshot.digest
    earlier = load_snapshot(lake, at=world.ts)
    assert earlier.liquidity.digest == snapshot.liquidity.digest
