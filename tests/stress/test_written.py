"""Moves, correlations and prices that somebody wrote down, read as what they say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from undertow.errors import SchemaError, StateError
from undertow.rules.snapshot import Snapshot
from undertow.stress import PricingMap
from undertow.stress.assumed import assumed_correlation
from undertow.stress.history import history_from_panel
from undertow.stress.written import (
    given_correlation,
    given_moves,
    given_prices,
    price_panel,
    strangers,
)
from undertow.worlds import History, build_world

HOUR_US = 3_600_000_000


def test_moves_are_those_of_prices_and_what_is_left_out_follows(wide: Snapshot) -> None:
    pricing = PricingMap.of(wide)
    code = {name: wide.universe.code("asset", name) for name in wide.universe.assets}
    # of the chain ETH - stETH - wstETH the middle is left out, and the end told
    told = {"scenario": [7, 8], "BTC": [0.1, 0.0], "ETH": [-0.3, 0.2], "wstETH": [-0.4, 0.2],
            "LP": [-0.2, 0.1]}  # fmt: skip
    moved = pricing.asset_moves(given_moves(told, pricing, fill_missing=True).draw(0, 0, 2))
    for name in ("BTC", "ETH", "wstETH", "LP"):
        assert moved[:, code[name]] == pytest.approx(told[name]), name
    assert moved[:, code["stETH"]] == pytest.approx(told["ETH"])
    assert moved[:, code["WBTC"]] == pytest.approx(told["BTC"])
    assert not moved[:, code["USDC"]].any()


def test_the_file_of_moves_may_be_csv_or_parquet(wide: Snapshot, tmp_path: Path) -> None:
    pricing = PricingMap.of(wide)
    frame = pl.DataFrame({"BTC": [0.1, -0.25], "ETH": [-0.3, 1e-3]})
    frame.write_csv(tmp_path / "moves.csv")
    frame.write_parquet(tmp_path / "moves.parquet")
    drawn = [
        given_moves(given, pricing, fill_missing=True).moves
        for given in (frame, tmp_path / "moves.csv", tmp_path / "moves.parquet")
    ]
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] == drawn[2]).all()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"BTC": [0.1]}, "moves: nothing is said of ETH, which"),
        ({"BTC": [0.1], "EHT": [0.1]}, "no asset of the book is called 'EHT'; did you mean"),
        ({"btc": [0.1]}, r"no asset of the book is called 'btc'; did you mean BTC\?"),
        ({"BTC": [float("nan")]}, "moves, row 1, column BTC: a finite number was expected"),
        ({"BTC": ["0.1", "1,5"]}, "row 2, column BTC: a finite number was expected, not '1,5'"),
        ({"BTC": [float("inf")]}, "finite number"),
        ({"BTC": []}, "moves is 0 x"),
    ],
)
def test_moves_that_are_none_are_refused_by_name(
    wide: Snapshot, table: dict[str, Any], words: str
) -> None:
    fill = words.startswith("moves: nothing")
    with pytest.raises((SchemaError, StateError), match=words):
        given_moves(table, PricingMap.of(wide), fill_missing=not fill)


def test_correlations_of_some_assets_leave_the_rest_as_it_was(wide: Snapshot) -> None:
    start, universe, pricing = assumed_correlation(wide), wide.universe, PricingMap.of(wide)
    btc, eth = (universe.code("asset", name) for name in ("BTC", "ETH"))
    found = given_correlation(
        {"asset": ["ETH", "BTC"], "ETH": [1.0, 0.7], "BTC": [0.7, 1.0]}, start, pricing,
        fill_missing=True,
    )  # fmt: skip
    assert found.distance == 0.0
    assert found.matrix[btc, eth] == found.matrix[eth, btc] == 0.7
    others = np.ones(start.shape, dtype=np.bool_)
    others[[btc, eth], [eth, btc]] = False
    assert (found.matrix[others] == start[others]).all()
    broken = given_correlation(
        {"BTC": [1.0, 0.9, -0.9], "ETH": [0.9, 1.0, 0.9], "USDC": [-0.9, 0.9, 1.0]}, start,
        pricing, fill_missing=True,
    )  # fmt: skip
    assert broken.distance > 0.5
    assert np.linalg.eigvalsh(broken.matrix)[0] > -1e-8


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"BTC": [1.0, 0.5], "ETH": [0.4, 1.0]}, "ties is not symmetric"),
        ({"BTC": [1.0], "ETH": [0.5]}, "ties is 1 x 2; it must be square"),
        ({"BTC": [1.0, 0.5], "ETH": [0.5, 2.0]}, "not within -1 and 1"),
        ({"BTC": [1.0, 0.5], "ETH": [0.5, None]}, "row 2, column ETH: a finite number"),
        ({"asset": ["ETH", "BTC"], "BTC": [1, 0], "ETH": [0, 1]}, "rows are called ETH, BTC"),
        ({"asset": ["BTC"], "BTC": [1, 0], "ETH": [0, 1]}, "columns of one length"),
        ({"XYZ": [1.0]}, "no asset of the book is called 'XYZ'"),
        ({"asset": []}, "it must be square"),
    ],
)
def test_what_is_no_correlation_matrix_is_refused(
    wide: Snapshot, table: dict[str, Any], words: str
) -> None:
    start, pricing = assumed_correlation(wide), PricingMap.of(wide)
    with pytest.raises((SchemaError, StateError), match=words):
        given_correlation(table, start, pricing, fill_missing=True, source="ties")
    with pytest.raises(StateError, match="nothing is said of"):
        given_correlation({"BTC": [1.0]}, start, pricing)


WIDE = {"BTC": ["1.5", "2", ""], "ETH": ["3", "4", "5"], "XYZ": ["7", "8", "9"]}


@pytest.mark.parametrize(
    ("when", "instants"),
    [
        ({"ts": ["2026-01-01T00:00:00Z", "2026-01-01T06:00:00+05:00", "2026-01-02T00:00:00Z"]},
         [0, 1, 24]),
        ({"Date": ["2026-01-01", "2026-01-02", "2026-01-03"]}, [0, 24, 48]),
        ({"timestamp": ["2026-01-03 00:00:00", "2026-01-02 00:00:00", "2026-01-01 00:00:00"]},
         [48, 24, 0]),
        ({"time": pl.Series(["2026-01-01", "2026-01-02", "2026-01-03"]).str.to_date()},
         [0, 24, 48]),
        ({"ts": pl.Series([1_767_225_600_000_000 + k * HOUR_US for k in range(3)])}, [0, 1, 2]),
    ],
)  # fmt: skip
def test_instants_are_read_as_they_are_written(
    wide: Snapshot, when: dict[str, Any], instants: list[int]
) -> None:
    panel = given_prices(pl.DataFrame({**when, **WIDE}), wide.universe)
    assert panel.labels == ("BTC", "ETH")
    assert ((panel.ts - 1_767_225_600_000_000) / HOUR_US).tolist() == sorted(instants)
    first = int(np.argmin(instants))
    assert panel.values[0] == pytest.approx([float(WIDE["BTC"][first] or "nan"),
                                             float(WIDE["ETH"][first])], nan_ok=True)  # fmt: skip


def test_a_long_table_is_the_wide_one(wide: Snapshot) -> None:
    days = ["2026-01-01", "2026-01-02", "2026-01-03"]
    frame = pl.DataFrame({"date": days, **WIDE})
    long = frame.unpivot(index="date", variable_name="asset", value_name="price")
    one, other = given_prices(frame, wide.universe), given_prices(long, wide.universe)
    assert one.labels == other.labels
    assert np.array_equal(one.values, other.values, equal_nan=True)
    assert strangers(frame, wide.universe) == strangers(long, wide.universe) == ["XYZ"]
    assert given_prices(long.filter(pl.col("asset") == "XYZ"), wide.universe).labels == ()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"BTC": [1.0]}, "no column of instants is among BTC; call it ts or date"),
        ({"date": ["soon"], "BTC": [1.0]}, "an instant was expected .* not 'soon'"),
        ({"date": ["2026-01-01"], "BTC": ["dear"]}, "row 1, column BTC: a finite number"),
        ({"date": ["2026-01-01"] * 2, "BTC": [1.0, 2.0]}, "instants must increase"),
        (
            {"date": ["2026-01-03", "2026-01-02", "2026-01-01"], "BTC": [1.0, 0.0, 2.0]},
            r"history, row 2, column BTC: a price above 0 was expected, not 0\.0; leave the cell",
        ),
        (
            {
                "date": ["2026-01-01"] * 3,
                "asset": ["XYZ", "BTC", "ETH"],
                "price": ["-1", "1", "-2"],
            },
            "row 3, column price: a price above 0 was expected, not '-2'",
        ),
        (
            {"ts": ["2026-01-01"] * 2, "instrument": ["aave-v3:ETH", "x"], "price": [-3.0, -1.0]},
            r"row 1, column price: a price above 0 was expected, not -3\.0",
        ),
        ({"date": ["2026-01-01"] * 2, "asset": ["BTC"] * 2, "price": [1.0, 2.0]}, "two values"),
    ],
)
def test_prices_that_cannot_be_read_are_refused(
    wide: Snapshot, table: dict[str, Any], words: str
) -> None:
    with pytest.raises((SchemaError, StateError), match=words):
        given_prices(table, wide.universe)


def test_the_prices_of_a_book_are_those_of_its_longest_series() -> None:
    world = build_world(3, accounts=30, assets=8, venues=3, history=History(48))
    universe = world.universe()
    panel = price_panel(world.tables["prices"], universe)
    spot = world.panels["spot"]
    assert set(panel.labels) >= set(spot.labels) - {"USD"}
    at = np.searchsorted(panel.ts, spot.ts)
    for label in spot.labels:
        known = panel.select([label]).values[at, 0]
        assert known == pytest.approx(spot.select([label]).values[:, 0]), label
    moves = history_from_panel(panel, universe, pricing=PricingMap.of(world.snapshot()))
    assert moves.step_us == HOUR_US
    daily = price_panel(world.tables["prices"], universe, step_us=24 * HOUR_US)
    assert len(daily) in (2, 3)
    only = world.tables["prices"].filter(pl.col("kind") == "mark")
    assert 0 < len(price_panel(only, universe).labels) < len(panel.labels)
    assert price_panel(only.clear(), universe).labels == ()


def test_a_history_has_correlations_and_what_never_moved_goes_with_nothing(
    wide: Snapshot,
) -> None:
    rng = np.random.default_rng(2)
    common, own = rng.standard_normal((2, 200, 1))
    logs = np.cumsum(0.02 * np.concatenate([common, 0.6 * common + 0.8 * own], axis=1), axis=0)
    frame = pl.DataFrame(
        {"ts": pl.Series(np.arange(200) * 24 * HOUR_US), "BTC": np.exp(logs[:, 0]),
         "ETH": np.exp(logs[:, 1])}
    )  # fmt: skip
    panel = given_prices(frame, wide.universe)
    history = history_from_panel(panel, wide.universe, pricing=PricingMap.of(wide))
    btc, eth = (wide.universe.code("asset", name) for name in ("BTC", "ETH"))
    found = history.correlation
    expected = np.corrcoef(np.diff(logs, axis=0).T)[0, 1]
    assert found[btc, eth] == pytest.approx(expected, rel=1e-9)
    still = np.delete(np.arange(len(found)), [btc, eth])
    assert (found[still] == np.eye(len(found))[still]).all()
