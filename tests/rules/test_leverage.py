"""Every definition of leverage, worked by hand and held to sums that must agree."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from undertow.errors import StateError
from undertow.rules.coverage import Coverage
from undertow.rules.leverage import (
    DEFINITIONS,
    GROUPS,
    Exposures,
    definition,
    leverage_panel,
    leverage_table,
    market_leverage,
)
from undertow.rules.margins import margins
from undertow.rules.snapshot import Snapshot
from undertow.state import Panel
from undertow.state.book import DEBT
from undertow.worlds import demo_world, tiny_world

DAY = 86_400_000_000
OF_POSITIONS = [each.name for each in DEFINITIONS if each.of_positions]


@pytest.fixture(scope="module")
def demo() -> Snapshot:
    return demo_world(3).snapshot()


@pytest.fixture(scope="module")
def seen(demo: Snapshot) -> Exposures:
    return Exposures.of(demo)


def row(table: pl.DataFrame, node: str) -> dict[str, float]:
    return table.row(by_predicate=pl.col("node") == node, named=True)


def test_the_parts_of_every_division_add_up_to_the_whole(seen: Exposures) -> None:
    for name in OF_POSITIONS:
        whole = row(leverage_table(seen, "all", name), "all")
        for by in ("asset", "venue", "cohort"):
            parts = leverage_table(seen, by, name)
            for side in ("above_usd", "below_usd", "owed_without_equity_usd"):
                assert parts[side].sum() == pytest.approx(whole[side], rel=1e-9), (name, by, side)


def test_leverage_is_what_the_accounts_say_added_up(demo: Snapshot, seen: Exposures) -> None:
    judged = margins(demo)
    solvent = judged.equity > 0.0
    above = (judged.leverage * judged.equity)[solvent]
    expected = above.sum() / judged.equity[solvent].sum()
    assert row(leverage_table(seen, "all"), "all")["value"] == pytest.approx(expected, rel=1e-9)


def test_every_account_stands_at_its_own_leverage_in_the_quantiles(
    demo: Snapshot, seen: Exposures
) -> None:
    judged = margins(demo).to_polars().filter(pl.col("equity") > 0.0)
    for table in leverage_table(seen, "venue").to_dicts():
        held = judged.filter(pl.col("venue") == table["node"]).sort("leverage")
        owes = (held["debt"] + held["notional"]).to_numpy()
        for name, q in (("low", 0.1), ("median", 0.5), ("high", 0.9)):
            at = int(np.argmax(owes.cumsum() >= q * owes.sum()))
            assert table[name] == pytest.approx(held["leverage"][at], rel=1e-9)


def test_the_five_accounts_of_the_tiny_world_by_hand() -> None:
    tiny = tiny_world().snapshot()
    judged = margins(tiny).to_polars()
    for table in leverage_table(tiny, "venue", "debt_to_collateral").to_dicts():
        held = judged.filter((pl.col("venue") == table["node"]) & (pl.col("notional") == 0.0))
        assert table["value"] == pytest.approx(held["debt"].sum() / held["assets"].sum())
        assert table["accounts"] == held.height


def test_options_count_by_their_delta_over_what_they_are_worth(
    demo: Snapshot, seen: Exposures
) -> None:
    table = leverage_table(seen, "venue", "option_leverage")
    assert table["node"].to_list() == ["deribit"]
    assert table["above_usd"][0] == pytest.approx(seen.delta.sum())
    assert table["below_usd"][0] == pytest.approx(seen.premium.sum())
    assert table["value"][0] > 1.0  # an option moves more than in step with its price


def test_a_loop_owes_what_its_collateral_follows(demo: Snapshot, seen: Exposures) -> None:
    universe, book = demo.universe, demo.book
    loops = np.flatnonzero(seen.who("loops"))
    assert loops.size
    for a in loops[:50]:
        legs = slice(book.offset[a], book.offset[a + 1])
        roots = universe.root[universe.asset_of[book.inst[legs]]]
        held = dict.fromkeys(roots, 0.0)
        owed = dict(held)
        for root, out, debt in zip(roots, seen.outright[legs], seen.owed[legs], strict=True):
            held[root] += out
            owed[root] += debt
        tied = sum(min(held[k], owed[k]) for k in held if not universe.stable[k])
        assert tied >= 0.9 * seen.debt[a] > 0.0


def test_accounts_without_equity_are_counted_beside_the_value(demo: Snapshot) -> None:
    mark = np.array(demo.market.mark)
    eth = demo.universe.asset_of == demo.universe.code("asset", "ETH")
    mark[eth] *= 0.5
    fallen = replace(demo, market=replace(demo.market, mark=mark))
    table = leverage_table(fallen, "all")
    equity = margins(fallen).equity
    assert table["without_equity"][0] == (equity <= 0.0).sum() > 0
    assert table["owed_without_equity_usd"][0] > 0.0
    assert np.isfinite(table["value"][0])


def test_coverage_is_empty_where_the_total_of_a_venue_is_not_known(demo: Snapshot) -> None:
    table = leverage_table(demo, "venue")
    known = Coverage.of(demo).whole > 0.0
    for v, name in enumerate(demo.universe.venues):
        rows = table.filter(pl.col("node") == name)
        assert rows.is_empty() or (rows["coverage"][0] is not None) == known[v]
    interest = {"hyperliquid:ETH/USDC:USDC": 1e9}
    covered = Coverage.of(demo, interest)
    seen = row(leverage_table(demo, "venue", coverage=covered), "hyperliquid")
    assert 0.0 < seen["coverage"] < 0.1


def test_a_panel_knows_nothing_before_its_time(demo: Snapshot) -> None:
    later = replace(demo, ts=demo.ts + DAY)
    values, coverage, _ = leverage_panel([demo, later], "venue")
    assert values.ts.tolist() == [demo.ts, demo.ts + DAY]
    first = leverage_table(demo, "venue")
    expected = dict(first.select("node", "value").iter_rows())
    assert dict(zip(values.labels, values.values[0], strict=True)) == pytest.approx(expected)
    assert coverage.labels == values.labels
    with pytest.raises(StateError, match="the oldest first"):
        leverage_panel([later, demo])
    with pytest.raises(StateError, match="no snapshot"):
        leverage_panel([])


def test_what_nobody_touched_grows_by_its_revaluation_alone(demo: Snapshot) -> None:
    eth = demo.universe.asset_of == demo.universe.code("asset", "ETH")
    moved = replace(
        demo,
        ts=demo.ts + DAY,
        market=replace(demo.market, mark=np.where(eth, 0.9, 1.0) * demo.market.mark),
    )
    repaid = np.where(demo.book.kind == DEBT, 0.5, 1.0) * demo.book.qty
    traded = replace(moved, book=replace(demo.book, qty=repaid))
    for after in (moved, traded):
        values, _, revaluation = leverage_panel([demo, after], "venue")
        growth = np.diff(np.log(values.values), axis=0)
        left = growth - revaluation.values
        assert (np.abs(revaluation.values) > 1e-3).any()
        assert (np.abs(left) < 1e-12).all() == (after is moved)


def test_market_leverage_uses_the_newest_value_that_was_there() -> None:
    oi = Panel.from_arrays("oi", "usd", [10, 20, 30, 40], ["BTC", "ETH"], np.full((4, 2), 6.0))
    base = Panel.from_arrays(
        "reserve", "usd", [5, 20, 25], ["ETH", "BTC", "X"],
        [[2.0, np.nan, 1.0], [3.0, 1.0, 1.0], [0.0, 2.0, 1.0]],
    )  # fmt: skip
    ratio = market_leverage("oi_to_reserve", oi, base, stale_us=10)
    assert ratio.labels == ("BTC", "ETH")
    np.testing.assert_array_equal(
        ratio.values, [[np.nan, 3.0], [6.0, 2.0], [3.0, np.nan], [np.nan, np.nan]]
    )


def test_what_is_asked_for_wrongly_is_said_so(demo: Snapshot) -> None:
    oi = Panel.from_arrays("oi", "usd", [1], ["BTC"], [[1.0]])
    coins = Panel.from_arrays("coins", "base", [1], ["BTC"], [[1.0]])
    other = Panel.from_arrays("other", "usd", [1], ["ETH"], [[1.0]])
    with pytest.raises(StateError, match="division by 'colour'; have asset"):
        leverage_table(demo, "colour")
    with pytest.raises(StateError, match="called 'gearing'; have leverage"):
        leverage_table(demo, named="gearing")
    with pytest.raises(StateError, match="market series, not of positions"):
        leverage_table(demo, named="oi_to_depth")
    with pytest.raises(StateError, match="made of positions"):
        market_leverage("leverage", oi, oi)
    with pytest.raises(StateError, match="in 'usd' and coins in 'base'"):
        market_leverage("oi_to_reserve", oi, coins)
    with pytest.raises(StateError, match="no series in common"):
        market_leverage("oi_to_reserve", oi, other)


def test_every_definition_says_what_it_is_and_when_it_misleads() -> None:
    assert len({each.name for each in DEFINITIONS}) == len(DEFINITIONS)
    for each in DEFINITIONS:
        assert definition(each.name) is each
        assert "/" in each.formula
        assert len(each.valid) > 20
        assert each.unit == "1"
    assert "all" in GROUPS
