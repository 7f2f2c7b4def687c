"""Accounts rebuilt from planted records come out as they were planted."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undertow.rules.profile import ClosingRules, Mechanism
from undertow.validate.borrowers import rebuild_borrowers, repaid_shares
from undertow.validate.inferred import dated, half_of, infer_bonuses, infer_thresholds
from undertow.validate.traders import Wallet, rebuild_traders, stated_marks, trade_path

START = dt.datetime(2021, 2, 1, tzinfo=dt.UTC)


def at(hour: float) -> dt.datetime:
    return START + dt.timedelta(hours=hour)


@given(
    st.lists(
        st.tuples(st.integers(-20, 20).filter(bool), st.integers(50, 200)), min_size=1, max_size=30
    )
)
def test_a_wallet_is_worth_what_was_paid_in_and_out(trades: list[tuple[int, int]]) -> None:
    """Equity at any mark is money spent on trades, and what is held at the mark."""
    wallet, paid, held = Wallet(1_000.0), 1_000.0, 0.0
    for qty, price in trades:
        wallet.trade("ETH", float(qty), float(price))
        paid -= qty * price
        held += qty
    qty, entry = wallet.held.get("ETH", (0.0, 0.0))
    assert qty == pytest.approx(held)
    for mark in (10.0, 120.0):
        assert wallet.cash + qty * (mark - entry) == pytest.approx(paid + held * mark, abs=1e-6)


def test_a_wallet_keeps_its_entry_as_it_sells_and_takes_a_new_one_as_it_turns() -> None:
    wallet = Wallet()
    wallet.trade("ETH", 2.0, 100.0)
    wallet.trade("ETH", 2.0, 110.0)
    assert wallet.held["ETH"] == (4.0, 105.0)
    wallet.trade("ETH", -1.0, 120.0)
    assert (wallet.cash, wallet.held["ETH"]) == (15.0, (3.0, 105.0))
    wallet.trade("ETH", -5.0, 95.0)
    assert (wallet.cash, wallet.held["ETH"]) == (15.0 - 30.0, (-2.0, 95.0))
    wallet.trade("ETH", 2.0, 90.0)
    assert (wallet.cash, wallet.held) == (-5.0, {})


def test_traders_are_rebuilt_spell_by_spell_up_to_their_closing() -> None:
    trades = pl.DataFrame(
        [
            (at(1), "0xa", "ETH", "Bid", 100.0, 2.0),
            (at(5), "0xb", "ETH", "Ask", 98.0, 1.0),
            (at(6), "0xa", "ETH", "Ask", 95.0, 2.0),  # handed over at its closing
            (at(6), "0xc", "ETH", "Bid", 95.0, 2.0),
            (at(7), "0xb", "ETH", "Bid", 97.0, 1.0),
        ],
        schema=["ts", "user", "coin", "side", "px", "sz"],
        orient="row",
    )
    ledger = pl.DataFrame(
        [(at(0), "0xa", 10.0), (at(0), "0xb", 50.0), (at(0), "0xc", 50.0)],
        schema=["ts", "user", "delta_usd"],
        orient="row",
    )
    closings = pl.DataFrame(
        {
            "ts": [at(6)], "user": ["0xa"], "liquidated_ntl_pos": [190.4],
            "liquidated_account_value": [0.4], "leverage_type": ["Cross"],
        }
    )  # fmt: skip
    spells, holdings = rebuild_traders(trades, ledger, closings, max_leverage=50.0)
    assert spells.select("user", "ts", "until", "closed", "deposited", "open").rows() == [
        ("0xa", at(1), at(6), True, 10.0, False),
        ("0xb", at(5), at(7), False, 50.0, True),
        ("0xc", at(6), at(7), False, 50.0, True),
    ]
    own = holdings.filter(pl.col("spell") == 0).select("symbol", "kind", "qty", "entry")
    assert own.rows() == [("USD", "cash", 10.0, None), ("ETH", "perp", 2.0, 100.0)]
    assert trade_path(trades, closings)["ts"].to_list() == [at(1), at(5), at(7)]
    assert stated_marks(spells, holdings, closings)["low"].to_list() == [95.2]


def test_thresholds_are_read_off_the_healths_of_mixed_accounts() -> None:
    rng = np.random.default_rng(7)
    true = {"WETH": 0.825, "LINK": 0.75, "USDC": 0.85}
    states, positions = [], []
    for block in range(60):
        held = {symbol: float(rng.uniform(0.0, 9_000.0)) for symbol in true}
        collateral = sum(held.values())
        debt = collateral * float(rng.uniform(0.4, 0.75))
        health = round(sum(true[s] * value for s, value in held.items()) / debt, 2)
        states.append((at(block), "0xa", block, health, collateral, debt))
        positions += [("0xa", block, "collateral", s, value, 1.0) for s, value in held.items()]
    latest = pl.DataFrame({"symbol": [*true, "YFI"], "value": [0.85, 0.7, 0.88, 0.6]})
    names = ("ts", "user", "block", "health_factor", "collateral_eth_wei", "debt_eth_wei")
    terms = infer_thresholds(
        pl.DataFrame(states, schema=names, orient="row"),
        pl.DataFrame(
            positions,
            schema=["user", "block", "side", "symbol", "amount_usd", "price_usd"],
            orient="row",
        ),
        latest,
    )
    found = dict(terms.select("symbol", "value").iter_rows())
    assert found == pytest.approx({**true, "YFI": 0.6})
    rows = pl.DataFrame({"ts": [at(0)] * 3, "symbol": ["WETH", "YFI", "OMG"]})
    assert dated(rows, terms, "value")["value"].to_list() == [pytest.approx(0.825), 0.6, None]


def test_a_term_of_another_month_is_the_nearest_one() -> None:
    months = [START + dt.timedelta(days=d) for d in (0, 1, 2, 60, 61, 62)]
    seized = [107.5] * 3 + [110.0] * 3
    events = pl.DataFrame(
        {"ts": months, "symbol": "LINK", "seized_usd": seized, "repaid_usd": 100.0}
    )
    terms = infer_bonuses(events, pl.DataFrame({"symbol": ["LINK"], "value": [0.05]}))
    days = [START - dt.timedelta(days=90), START, START + dt.timedelta(days=300)]
    rows = pl.DataFrame({"ts": days, "symbol": "LINK"})
    found = dated(rows, terms, "bonus", period="1mo")["bonus"].to_list()
    assert found == pytest.approx([0.075, 0.075, 0.1])


def test_halves_share_nobody_and_do_not_hang_on_order() -> None:
    users = pl.Series([f"0x{k:02X}" for k in (9, 200, 31, 44, 170)])
    assert (
        half_of(users).to_list() == half_of(users.reverse()).to_list() == ["0x09", "0x2c", "0xc8"]
    )


def test_a_closing_between_two_states_is_replayed_on_the_first() -> None:
    states = pl.DataFrame(
        {
            "ts": [at(0), at(10)], "user": "0xa", "block": [1, 2], "health_factor": [0.98, 1.1],
        }
    )  # fmt: skip
    positions = pl.DataFrame(
        [
            ("0xa", 1, "collateral", "WETH", 10_000.0, 1_000.0),
            ("0xa", 1, "debt", "USDC", 8_000.0, 1.0),
            ("0xa", 2, "collateral", "WETH", 5_800.0, 1_000.0),
            ("0xa", 2, "debt", "USDC", 4_001.0, 1.0),
        ],
        schema=["user", "block", "side", "symbol", "amount_usd", "price_usd"],
        orient="row",
    )
    closings = pl.DataFrame(
        {
            "ts": [at(4)], "user": ["0xa"], "collateral": ["WETH"], "debt": ["USDC"],
            "collateral_amount": [4.2], "debt_amount": [4_000.0],
        }
    )  # fmt: skip
    spells, holdings = rebuild_borrowers(states, positions, closings)
    assert spells.select("ts", "until", "closed", "moved").rows() == [
        (at(0), at(4), True, False),
        (at(4), at(10), False, False),
    ]
    after = holdings.filter(pl.col("spell") == 1)
    assert dict(after.select("symbol", "qty").iter_rows()) == pytest.approx(
        {"WETH": 5.8, "USDC": -4_000.0}
    )
    for closing, allowed in ((0.5, 0.5), (0.25, 0.25), (1.0, 1.0)):
        rules = ClosingRules(mechanism=Mechanism.PAIR, close_factor=closing)
        shares = repaid_shares(spells, holdings, closings, rules=rules)
        assert shares.select("share", "allowed").rows() == [(0.5, pytest.approx(allowed))]
    twice = pl.concat([closings, closings])
    rules = ClosingRules(mechanism=Mechanism.PAIR, close_factor=0.5)
    shares = repaid_shares(spells, holdings, twice, rules=rules)
    assert shares.select("share", "allowed").rows() == [(1.0, pytest.approx(0.75))]
