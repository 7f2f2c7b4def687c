"""Prices at which accounts are called: by hand, in moved books, on the ladder, as entries."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from crowds import MAINTENANCE, PRICE, crowd
from measures.crowding.owned import holder
from undertow.errors import StateError
from undertow.kernels.prices import EXCHANGE_RATE
from undertow.measures.crowding import Crowd
from undertow.measures.crowding.ladders import Ladders
from undertow.measures.crowding.liquidation_prices import (
    adapter_entries,
    collateral_prices,
    liquidation_prices,
    token_key,
)
from undertow.rules.margins import margins
from undertow.rules.snapshot import Snapshot
from undertow.state.arrays import frozen
from undertow.state.book import OPTION
from undertow.worlds import build_world, tiny_world

NAMES = {"asset": ["C0", "USDC"], "chain": ["ethereum", "ethereum"], "caip19": [None, None]}


@pytest.fixture(scope="module")
def demo() -> Snapshot:
    return build_world(7, accounts=250).snapshot()


def test_a_borrower_is_called_at_the_fall_that_was_planted_and_a_trader_on_the_side_it_fears() -> (
    None
):
    found = liquidation_prices(crowd([0.1, 0.4], [1_000.0, 500.0], share=0.2))
    assert found.rows["side"].to_list() == ["fall", "fall"]
    assert found.rows["distance_share"].to_list() == pytest.approx([0.1, 0.4])
    assert found.rows["liquidation_price_usd"].to_list() == pytest.approx([90.0, 60.0])
    assert found.rows["collateral_units"].to_list() == pytest.approx([10.0, 5.0])
    assert found.without == 0
    long = np.array([True, False])
    perps = liquidation_prices(crowd([0.1, 0.2], [1_000.0, 500.0], share=0.2, long=long)).rows
    called = {row["account"]: row for row in perps.iter_rows(named=True)}
    assert [called[a]["side"] for a in (0, 1)] == ["fall", "rise"]
    assert called[0]["liquidation_price_usd"] == pytest.approx(0.9 * PRICE)
    assert called[1]["liquidation_price_usd"] == pytest.approx(1.2 * PRICE)
    assert called[0]["exposed_usd"] == pytest.approx(1_000.0)
    assert called[1]["exposed_usd"] == pytest.approx(-500.0)
    assert MAINTENANCE < 0.1  # or they would be called as they are


def test_of_two_collaterals_each_has_the_price_at_which_it_alone_calls() -> None:
    held = np.array([[0.75, 0.25]])
    rows = liquidation_prices(crowd([0.1], [1_000.0], share=0.2, assets=2, held=held)).rows
    there = dict(rows.select("asset", "distance_share").iter_rows())
    assert there == pytest.approx({"C0": 0.1 / 0.75, "C1": 0.1 / 0.25})
    nobody = liquidation_prices(crowd([0.3], [1_000.0], share=0.2, assets=4,
                                      held=np.full((1, 4), 0.25)))  # fmt: skip
    assert nobody.rows.height == 0  # a quarter of it cannot fall by more than all
    assert nobody.without == 1


def test_a_moved_book_is_called_beyond_each_price_and_not_before(demo: Snapshot) -> None:
    rows = liquidation_prices(demo).rows
    assert rows["exact"].all()
    book = demo.book
    optional = book.account[book.leg_account[book.kind == OPTION]]  # repriced: see the ladder
    rows = rows.filter(~pl.col("account").is_in(optional.tolist()))
    place = {int(a): n for n, a in enumerate(demo.book.account)}
    some = rows.unique(["asset", "side"], keep="last", maintain_order=True).gather_every(2)
    assert some.height > 5
    for row in some.iter_rows(named=True):
        way = -1.0 if row["side"] == "fall" else 1.0
        for nudge, called in ((-1e-7, False), (1e-7, True)):
            there = _moved(demo, row["asset"], way * row["distance_share"] * (1.0 + nudge))
            judged = margins(there)
            assert judged.breached[place[row["account"]]] == called, (row, nudge)


def _moved(book: Snapshot, asset: str, by: float) -> Snapshot:
    """The book with one asset, and all that hangs on it, worth so much more."""
    universe = book.universe
    k = universe.assets.index(asset)
    follows = np.zeros(len(universe.assets), dtype=np.bool_)
    for each in range(len(universe.assets)):
        at = each
        while at >= 0:
            follows[each] |= at == k
            at = int(universe.reference[at])
    moved = follows[universe.asset_of]
    if universe.reference[k] >= 0:  # its own slip is what a rate does not see
        moved &= ~((universe.asset_of == k) & (book.oracles.mode == EXCHANGE_RATE))
    times = np.where(moved, 1.0 + by, 1.0)
    market = book.market
    return replace(
        book,
        market=replace(
            market, mark=frozen(market.mark * times), index=frozen(market.index * times)
        ),
    )


def test_prices_lie_in_the_step_of_the_ladder_that_has_them(demo: Snapshot) -> None:
    held = Crowd.of(demo)
    ladder = Ladders.of(held, 0.5, 50).rows.filter(pl.col("line") != "market")
    whole = ladder.group_by("line", "side", "distance").agg(pl.col("accounts").sum())
    rows = liquidation_prices(held, furthest=0.5).rows
    step = (np.ceil(rows["distance_share"].to_numpy() * 100.0 - 1e-9) / 100.0).round(10)
    mine = (
        rows.with_columns(distance=pl.Series(step))
        .group_by("asset", "side", "distance")
        .agg(pl.len())
    )
    lines = set(ladder["line"])
    counted = {(a, s, round(d, 2)): n for a, s, d, n in mine.iter_rows() if a in lines}
    steps = {(a, s, round(d, 2)): n for a, s, d, n in whole.iter_rows()}
    assert len(steps) > 40
    assert counted == steps


def test_what_is_read_at_a_rate_goes_with_what_it_stands_for(demo: Snapshot) -> None:
    held = collateral_prices(liquidation_prices(demo))
    tied = held.filter(pl.col("asset") != pl.col("through"))
    assert set(tied["asset"]) >= {"stETH", "wstETH"}
    assert set(tied["through"]) >= {"ETH"}
    same = tied["liquidation_price_usd"] / tied["unit_usd"]
    assert same.to_numpy() == pytest.approx(1.0 - tied["distance_share"].to_numpy())
    assert held.select("account", "asset").is_duplicated().sum() == 0


def test_entries_carry_raw_amounts_and_what_does_not_fit_is_counted() -> None:
    found = liquidation_prices(crowd([0.1, 0.4], [1_234.5, 500.0], share=0.2))
    held = collateral_prices(found).with_columns(label=pl.format("0x{}", "account"))
    names = pl.DataFrame({**NAMES, "decimals": [18, 6]})
    entries, unfit = adapter_entries(held, names)
    assert unfit == {}
    assert entries[0] == {
        "owner": "0x0", "liqPrice": pytest.approx(90.0), "collateral": "ethereum:C0",
        "collateralAmount": "12345000000000000000", "evidence": "modelled",
    }  # fmt: skip
    assert json.loads(json.dumps(entries)) == entries
    unknown = pl.DataFrame({**NAMES, "decimals": [None, 6]})
    assert adapter_entries(held, unknown) == ([], {"no decimals are known": 2})
    bent = held.with_columns(exact=pl.lit(False))
    assert adapter_entries(bent, names) == ([], {"the price is not exact": 2})


def test_a_token_is_named_by_its_chain_and_address() -> None:
    named = {"asset": "stETH", "chain": "ethereum", "caip19": "eip155:1/erc20:0xae7a"}
    assert token_key(named) == "ethereum:0xae7a"
    coin = {"asset": "ETH", "chain": "ethereum", "caip19": "eip155:1/slip44:60"}
    assert token_key(coin) == "ethereum:0x" + "0" * 40
    assert token_key({**named, "chain": None}) == "eip155:1:0xae7a"
    assert token_key({**named, "caip19": None}) == "ethereum:stETH"


def test_kinds_of_evidence_are_told_apart_and_nobody_is_no_row() -> None:
    found = liquidation_prices(crowd([0.1], [1_000.0], share=0.2))
    assert found.known_as("modelled").height == 1
    assert found.known_as("observed").height == 0
    with pytest.raises(StateError, match="evidence was 'guessed'"):
        found.known_as("guessed")
    assert liquidation_prices(holder()).rows.height == 0
    assert liquidation_prices(crowd([0.1], [1_000.0], share=0.2), furthest=0.05).without == 0
    with pytest.raises(StateError, match="furthest was"):
        liquidation_prices(holder(), furthest=0.0)


def _wrapped(rate: float) -> Snapshot:
    """The smallest world with all of its ETH in a wrapper of so many, and no market of ETH."""
    tables = dict(tiny_world().tables)
    assets, each = tables["assets"], tables["instruments"]
    eth = assets.filter(pl.col("asset") == "ETH").with_columns(
        asset=pl.lit("WETH"), symbol=pl.lit("WETH"), reference=pl.lit("ETH"), rate=pl.lit(rate)
    )
    tables["assets"] = pl.concat([assets, eth])
    tables["instruments"] = each.with_columns(pl.col("asset").replace("ETH", "WETH"))
    return Snapshot.from_tables(tables, tiny_world().snapshot().ts)


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_what_nobody_quotes_has_the_price_that_its_followers_say(rate: float) -> None:
    rows = liquidation_prices(_wrapped(rate)).rows
    asked = {name: rows.filter(pl.col("asset") == name) for name in ("ETH", "WETH")}
    assert asked["ETH"].height == asked["WETH"].height > 0
    for column in ("price_usd", "liquidation_price_usd"):
        assert rows[column].is_finite().all()
        assert rows[column].null_count() == 0
    both = asked["ETH"].join(asked["WETH"], on=["account", "side"], suffix="_wrapped")
    middle = np.median(asked["WETH"]["price_usd"].unique()) / rate
    assert both["price_usd"].to_numpy() == pytest.approx(middle, rel=0.02)
    assert both["distance_share"].to_numpy() == pytest.approx(both["distance_share_wrapped"])


def test_a_price_that_nobody_says_is_blank_and_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(held: Crowd, _: int) -> np.ndarray:
        return np.zeros(len(held.snapshot.universe.instruments), dtype=np.bool_)

    monkeypatch.setattr("undertow.measures.crowding.liquidation_prices._quoted", nowhere)
    rows = liquidation_prices(crowd([0.1], [1_000.0], share=0.2)).rows
    assert rows["distance_share"].to_list() == pytest.approx([0.1])
    assert rows.select("price_usd", "liquidation_price_usd").row(0) == (None, None)
