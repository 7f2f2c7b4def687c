"""Calls and their score on planted paths, and sheets against the rules for one account."""

from __future__ import annotations

import datetime as dt
from typing import Any

import polars as pl
import pytest

from undertow.errors import SchemaError
from undertow.rules import lending
from undertow.rules.brackets import Brackets
from undertow.rules.perp import Position, account
from undertow.validate.calls import Scorecard, path_instants, score_calls
from undertow.validate.sheets import judge_sheets, sheet_numbers

START = dt.datetime(2023, 3, 1, tzinfo=dt.UTC)
TS = int(START.timestamp() * 1e6)


def at(hour: float) -> dt.datetime:
    return START + dt.timedelta(hours=hour)


def spell(
    number: int, begin: float, end: float, *, closed: bool, user: str = "0xa"
) -> dict[str, Any]:
    return {"spell": number, "user": user, "ts": at(begin), "until": at(end), "closed": closed}


def long_of_one(number: int, cash: float, entry: float = 100.0) -> list[dict[str, Any]]:
    """One coin bought with so much money: at 50 times it is closed where equity is 1 %."""
    money = {"symbol": "USD", "kind": "cash", "qty": cash, "entry": None, "max_leverage": None}
    coin = {"symbol": "ETH", "kind": "perp", "qty": 1.0, "entry": entry, "max_leverage": 50.0}
    return [{"spell": number, **money}, {"spell": number, **coin}]


def path(*rows: tuple[float, float, float, float, float]) -> pl.DataFrame:
    """Rows of hour, hour, low, high, last of ETH."""
    names = ("ts", "until", "low", "high", "last")
    made = [
        {"symbol": "ETH", **dict(zip(names, (at(a), at(b), low, high, last), strict=True))}
        for a, b, low, high, last in rows
    ]
    return pl.DataFrame(made)


def scored(
    spells: list[dict[str, Any]], legs: list[dict[str, Any]], prices: pl.DataFrame, **how: bool
) -> Scorecard:
    frames = pl.DataFrame(spells), pl.DataFrame(legs, infer_schema_length=None)
    instants = path_instants(*frames, prices, **how)
    return score_calls(*frames, prices, instants, profile="hyperliquid", money=("USD",))


# Bought at 100 with 5: closed below 95 / 0.99 = 95.96.
FALL = path((0, 0, 100, 100, 100), (1, 1, 97, 97, 97), (2, 2, 95.9, 95.9, 95.9), (3, 3, 94, 94, 94))


def test_a_call_is_the_first_price_beyond_the_limit() -> None:
    card = scored([spell(0, 0, 4, closed=True)], long_of_one(0, 5.0), FALL)
    assert card.hits["called"].to_list() == [at(2)]
    assert card.hits["late_hours"].to_list() == [2.0]
    assert (card.recall, card.precision) == (1.0, 1.0)


def test_an_account_closed_before_the_price_came_is_a_miss() -> None:
    card = scored([spell(0, 0, 1.5, closed=True)], long_of_one(0, 5.0), FALL)
    assert card.misses.height == 1
    assert card.misses["nearest"].item() == pytest.approx((2.0 - 0.97) / 97.0)


def test_an_account_that_outlives_its_limit_is_a_false_call() -> None:
    spells = [spell(0, 0, 4, closed=False), spell(1, 0, 4, closed=False, user="0xb")]
    card = scored(spells, long_of_one(0, 5.0) + long_of_one(1, 20.0), FALL)
    assert card.false_calls["user"].to_list() == ["0xa"]
    assert card.false_call_rate == 0.5
    assert card.summary()["users_only_called_falsely"] == 1


def test_a_bar_over_the_end_of_a_spell_makes_a_call_possible_but_not_certain() -> None:
    bars = path((-4, 0, 99, 101, 100), (0, 4, 90, 101, 98))
    spells, legs = [spell(0, 0, 3, closed=True)], long_of_one(0, 5.0)
    assert scored(spells, legs, bars).misses.height == 1
    possible = scored(spells, legs, bars, reaching=True)
    assert possible.hits["called"].to_list() == [at(3)]  # not past the end of the spell
    assert scored([spell(0, 0, 4, closed=True)], legs, bars).hits.height == 1


def test_a_short_is_hurt_by_the_high_of_a_bar() -> None:
    legs = long_of_one(0, 5.0)
    legs[1]["qty"] = -1.0
    bars = path((-4, 0, 99, 101, 100), (0, 4, 90, 104.5, 98))
    assert scored([spell(0, 0, 4, closed=True)], legs, bars).hits.height == 1
    calmer = path((-4, 0, 99, 101, 100), (0, 4, 90, 103, 98))
    assert scored([spell(0, 0, 4, closed=True)], legs, calmer).misses.height == 1


def test_who_is_under_at_an_act_of_his_own_has_a_short_record() -> None:
    spells = [spell(0, 0, 4, closed=False), spell(1, 0, 4, closed=True, user="0xb")]
    card = scored(spells, long_of_one(0, 0.5) + long_of_one(1, 5.0), FALL)
    assert card.short_records.to_list() == ["0xa"]
    assert card.without(card.short_records).spells["user"].to_list() == ["0xb"]


def test_a_spell_without_prices_is_not_judged() -> None:
    later = path((9, 9, 1, 1, 1))
    card = scored([spell(0, 0, 4, closed=True)], long_of_one(0, 5.0), later)
    assert card.spells["judged"].to_list() == [0]
    assert card.misses.height == 1


def test_sheets_of_perps_are_judged_as_one_account_each() -> None:
    legs = pl.DataFrame(
        [
            {"sheet": 4, "symbol": "USD", "kind": "cash", "qty": 300.0, "price": 1.0},
            {"sheet": 4, "symbol": "BTC", "kind": "perp", "qty": -0.1, "price": 21_000.0},
            {"sheet": 9, "symbol": "USD", "kind": "cash", "qty": 300.0, "price": 1.0},
            {"sheet": 9, "symbol": "BTC", "kind": "perp", "qty": -0.1, "price": 24_000.0},
        ]
    ).with_columns(
        entry=pl.when(pl.col("kind") == "perp").then(20_000.0),
        max_leverage=pl.when(pl.col("kind") == "perp").then(50.0),
    )
    numbers = sheet_numbers(judge_sheets(legs, profile="hyperliquid", ts=TS, money=("USD",)))
    for row, mark in zip(numbers.iter_rows(named=True), (21_000.0, 24_000.0), strict=True):
        one = Position(size=-0.1, entry=20_000.0, mark=mark, brackets=Brackets.flat(0.01))
        alone = account([one], wallet=300.0)
        assert row["equity"] == pytest.approx(alone.equity)
        assert row["breached"] == alone.liquidatable
    assert numbers["sheet"].to_list() == [4, 9]
    assert numbers["breached"].to_list() == [False, True]


def test_sheets_of_borrowers_take_the_threshold_of_their_own_day() -> None:
    legs = pl.DataFrame(
        [
            {"sheet": day, "symbol": symbol, "kind": kind, "qty": qty, "price": price}
            for day in (0, 1)
            for symbol, kind, qty, price in (
                ("WETH", "collateral", 10.0, 1_000.0),
                ("USDC", "debt", -8_300.0, 1.0),
            )
        ]
    ).with_columns(
        liquidation_threshold=pl.when(pl.col("kind") == "collateral").then(
            pl.when(pl.col("sheet") == 0).then(0.825).otherwise(0.85)
        )
    )
    numbers = sheet_numbers(judge_sheets(legs, profile="aave-v2", ts=TS))
    for row, threshold in zip(numbers.iter_rows(named=True), (0.825, 0.85), strict=True):
        alone = lending.account([10_000.0], [8_300.0], threshold=threshold)
        assert row["health"] == pytest.approx(alone.health)
    assert numbers["breached"].to_list() == [True, False]


def test_legs_without_their_columns_are_refused() -> None:
    with pytest.raises(SchemaError, match="lack price"):
        judge_sheets(
            pl.DataFrame({"sheet": [0], "symbol": ["A"], "kind": ["cash"], "qty": [1.0]}),
            profile="hyperliquid",
            ts=TS,
        )
