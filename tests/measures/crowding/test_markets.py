"""What markets showed: each cell the newest that was known, and nothing of what came after."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from undertow.assess import market_past
from undertow.cli.world import keep_world
from undertow.errors import StateError
from undertow.measures.crowding.markets import DAY_US, HOUR_US, MarketPast
from undertow.state import Universe
from undertow.store import Lake
from undertow.store.load import load_snapshot
from undertow.worlds import History, World, build_world
from undertow.worlds.frames import rows

END = 1_760_000_000_000_000 // HOUR_US * HOUR_US
PERP = "perps:ETH/USDC:USDC"


def past(universe: Universe, **tables: pl.DataFrame) -> MarketPast:
    return MarketPast.from_frames(universe, END, tables)


def at(hours: list[float]) -> list[int]:
    """Instants so many hours before the end."""
    return [END - round(h * HOUR_US) for h in hours]


def column(found: MarketPast, panel: str, label: str) -> np.ndarray:
    each = found.parts[panel]
    return np.asarray(each.values[:, each.labels.index(label)])


def test_a_rate_stands_for_two_of_its_intervals_and_then_for_nothing(universe: Universe) -> None:
    funding = rows("funding", ts=at([10, 9, 3]), instrument=PERP, rate=[1e-4, 2e-4, 3e-4],
                   interval_us=HOUR_US, rate_per_hour=[1e-4, 2e-4, 3e-4])  # fmt: skip
    found = past(universe, funding=funding)
    nan = np.nan
    np.testing.assert_array_equal(
        column(found, "funding", PERP),
        [1e-4, 2e-4, 2e-4, 2e-4, nan, nan, nan, 3e-4, 3e-4, 3e-4, nan],
    )
    assert found.step_us == HOUR_US
    assert found.instants[-1] == END


def test_a_row_counts_from_the_first_instant_at_or_after_it(universe: Universe) -> None:
    interest = rows("open_interest", ts=at([2.5, 1.0, 0.9, 0.0]), instrument=PERP,
                    contracts=1.0, base=[5.0, 6.0, 7.0, 8.0], usd=1.0,
                    source_unit="base")  # fmt: skip
    found = column(past(universe, open_interest=interest), "open_interest", PERP)
    # 7 came six minutes after 6: the instant an hour before the end knows 6 alone
    np.testing.assert_array_equal(found[1:], [5.0, 6.0, 8.0])
    assert np.isnan(found[0])  # three hours before the end nothing was known


def test_what_came_later_and_what_nobody_knows_is_left_out(universe: Universe) -> None:
    interest = rows("open_interest", ts=at([1, 0, -5, 0]),
                    instrument=[PERP, PERP, PERP, "perps:GONE"], contracts=1.0,
                    base=[1.0, 2.0, 99.0, 4.0], usd=1.0, source_unit="base")  # fmt: skip
    found = past(universe, open_interest=interest)
    assert found.open_interest.labels == (PERP,)
    np.testing.assert_array_equal(column(found, "open_interest", PERP), [1.0, 2.0])
    assert found.until(END - HOUR_US).open_interest.values.tolist() == [[1.0]]


def test_the_basis_is_over_the_index_and_over_spot_where_there_is_none(
    names: dict[str, pl.DataFrame],
) -> None:
    spot = {"instrument": "cash:ETH", "venue": "perps", "symbol": "cash:ETH", "kind": "spot"}
    more = pl.DataFrame([{**spot, "asset": "ETH", "inverse": False, "contract_size": 1.0}])
    listed = names["instruments"]
    more = more.with_columns(ts=listed["ts"][0])
    universe = Universe.from_frames(
        names["assets"], names["venues"], pl.concat([listed, more], how="diagonal_relaxed")
    )
    prices = pl.concat(
        rows("prices", ts=at(hours), instrument=name, kind=kind, price=price)
        for name, kind, hours, price in (
            (PERP, "mark", [60, 30, 0], [102.0, 103.0, 104.0]),
            (PERP, "index", [60], [100.0]),
            ("cash:ETH", "spot", [60, 30], [50.0, 101.0]),
        )
    )
    basis = column(past(universe, prices=prices), "basis", PERP)
    assert basis[0] == pytest.approx(np.log(102 / 100))
    assert basis[30] == pytest.approx(np.log(103 / 101))  # the index is a day old and more
    assert np.isnan(basis[-1])  # and so is spot
    assert np.isfinite(basis).sum() == 25 + 25


def test_utilisation_ratios_and_moods(universe: Universe) -> None:
    reserves = rows("reserves", ts=at([24, 0]), instrument=["lend:USDC", "lend:ETH"],
                    supplied=[100.0, 0.0], borrowed=[80.0, 0.0])  # fmt: skip
    shared = {"unit": "1", "definition": "d", "evidence": "observed", "inputs_hash": "h"}
    told = pl.concat(
        rows("readings", ts=at([0]), name=name, subject=subject, value=value, **shared)
        for name, subject, value in (
            ("long_short.accounts", "ETH", 2.0),
            ("long_short.notional", "ETH", 9.0),
            ("long_short.notional", PERP, 0.5),
            ("long_short.accounts", "nobody", 3.0),
            ("sentiment.fear", "", 0.4),
            ("sentiment.fear", "ETH", 0.7),
            ("tandem.index", "ETH", 1.0),
        )
    )
    found = past(universe, reserves=reserves, readings=told)
    assert column(found, "utilisation", "lend:USDC")[-1] == 0.8
    assert np.isnan(column(found, "utilisation", "lend:ETH")).all()  # of nothing there is no share
    assert column(found, "long_short", "ETH")[-1] == pytest.approx(np.log(2.0))
    assert column(found, "long_short", PERP)[-1] == pytest.approx(np.log(0.5))
    assert found.long_short.labels == ("ETH", PERP)
    assert found.sentiment.labels == ("fear", "fear of ETH")
    names = [universe.assets[k] if k >= 0 else "" for k in found.assets(found.sentiment)]
    assert names == ["", "ETH"]


def test_without_rows_there_is_one_empty_instant(universe: Universe) -> None:
    found = past(universe)
    assert found.empty
    assert found.instants.tolist() == [END]
    assert found.step_us == 0
    with pytest.raises(StateError, match="step_us was 0"):
        MarketPast.from_frames(universe, END, {}, step_us=0)


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(6, accounts=40, assets=6, venues=5, history=History(120))


@pytest.fixture(scope="module")
def lake(world: World, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    home = Lake.create(tmp_path_factory.mktemp("markets") / "lake")
    keep_world(home, "small", world, quiet=True)
    return home


def test_out_of_a_lake_comes_what_a_world_put_in(world: World, lake: Lake) -> None:
    snapshot = load_snapshot(lake)
    found = market_past(lake, snapshot)
    assert found.instants[-1] == snapshot.ts
    for name in ("open_interest", "basis", "funding"):
        panel, truth = found.parts[name], world.panels[name]
        steps = np.isin(panel.ts, truth.ts)
        told = truth.select(panel.labels).values
        seen = ~np.isnan(told)
        np.testing.assert_allclose(panel.values[steps][seen], told[seen], atol=1e-12)


def test_a_row_is_what_a_lake_that_ended_there_would_have_told(world: World, lake: Lake) -> None:
    snapshot = load_snapshot(lake)
    whole = market_past(lake, snapshot)
    then = snapshot.ts - 50 * HOUR_US
    tables = {name: world.tables[name].filter(pl.col("ts").dt.epoch("us") <= then)
              for name in ("funding", "open_interest", "prices", "reserves")}  # fmt: skip
    short = MarketPast.from_frames(snapshot.universe, then, tables)
    for name in ("funding", "open_interest", "basis"):
        np.testing.assert_array_equal(
            whole.until(then).parts[name].values, short.parts[name].values
        )
    assert whole.until(then).ts == then
    assert whole.until(snapshot.ts + DAY_US) is whole


def test_a_lake_of_one_instant_has_a_past_of_one_instant(tmp_path: Path) -> None:
    home = Lake.create(tmp_path / "lake")
    keep_world(home, "still", build_world(3, accounts=20, assets=6, venues=5), quiet=True)
    found = market_past(home, load_snapshot(home), days=1.0)
    assert found.funding.labels
    assert len(found.instants) == 1
