"""One trade at one venue, against published swaps and a recorded order book."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import Case, check_all, near, oracle
from undertow.errors import RuleError
from undertow.rules.execution import OrderBook, swap

WEI = 10**18
BOOK = OrderBook.from_levels([(99.0, 2.0), (98.0, 5.0)], [(101.0, 1.0), (102.0, 9.0)])


def price_impact(case: Case, data: dict[str, Any]) -> set[str]:
    """Compare one case; units of a swap are whole coins of 18 decimals."""
    given, expected, rel = case["inputs"], case["expected"], case["tol"]["rel"]
    if "amount_in" in given:
        raw = [round(given[name] * WEI) for name in ("amount_in", "reserve_in", "reserve_out")]
        done = swap(*raw, fee=given["fee"])
        assert done.amount_out == int(expected["amount_out_wei"])
        near(done.price_after, expected["price_after_in_per_out"], rel=1e-5)
        return set(expected)
    book = OrderBook.from_levels(data[given["book"]]["bids"], data[given["book"]]["asks"])
    fill = {"sell": book.sell, "buy": book.buy}[given["side"]](notional=given["notional"])
    got = {
        "filled_notional": fill.filled_notional,
        "filled_size": fill.filled_size,
        "vwap": fill.vwap,
        "worst_price": fill.worst_price,
        "unfilled_notional": fill.unfilled_notional,
        "slippage_vs_mid": fill.slippage,
    }
    for name in expected:
        near(got[name], expected[name], rel=rel)
    return set(expected)


def test_published_swaps_and_the_recorded_book_come_out_as_they_did() -> None:
    check_all("price_impact", price_impact)
    assert any("amount_in" in case["inputs"] for case in oracle("price_impact")["cases"])


raw_units = st.integers(1, 10**30)


@given(amount=raw_units, x=raw_units, y=raw_units, fee=st.sampled_from([0.0, 0.0005, 0.003, 0.01]))
def test_a_swap_is_the_integer_formula_of_the_contract(
    amount: int, x: int, y: int, fee: float
) -> None:
    kept = 10_000 - round(fee * 10_000)
    out = swap(amount, x, y, fee=fee).amount_out
    assert out == amount * kept * y // (x * 10_000 + amount * kept)
    assert (x + amount) * (y - out) >= x * y  # the pool never loses


@pytest.mark.parametrize(
    ("arguments", "fee", "words"),
    [
        ((-1, 1, 1), 0.0, "amount_in was -1"),
        ((1, 0, 1), 0.0, "reserves 0"),
        ((1, 1, 1), 1.0, "fee"),
    ],
)
def test_an_impossible_swap_is_refused(
    arguments: tuple[int, int, int], fee: float, words: str
) -> None:
    with pytest.raises(RuleError, match=words):
        swap(*arguments, fee=fee)


def test_an_order_of_a_size_pays_level_by_level() -> None:
    fill = BOOK.sell(size=3.0)
    assert (fill.filled_size, fill.filled_notional, fill.worst_price) == (3.0, 296.0, 98.0)
    assert fill.slippage == pytest.approx(1.0 - 296.0 / 300.0)
    assert (fill.unfilled_size, fill.unfilled_notional) == (0.0, 0.0)
    assert BOOK.buy(size=20.0).unfilled_size == 10.0


def test_an_order_of_nothing_gets_nothing() -> None:
    fill = BOOK.buy(notional=0.0)
    assert (fill.filled_size, fill.vwap, fill.slippage) == (0.0, 0.0, 0.0)


def test_levels_may_come_in_any_order() -> None:
    mixed = OrderBook.from_levels([(98.0, 5.0), (99.0, 2.0)], [(102.0, 9.0), (101.0, 1.0)])
    assert mixed.sell(notional=400.0) == BOOK.sell(notional=400.0)
    assert mixed.mid == BOOK.mid == 100.0


@pytest.mark.parametrize(
    ("bids", "asks", "words"),
    [
        ([(101.0, 1.0)], [(101.0, 1.0)], "crossed"),
        ([], [(101.0, 1.0)], "bids had the shape"),
        ([(99.0, 1.0)], [(101.0, -1.0)], "asks hold"),
        ([(float("nan"), 1.0)], [(101.0, 1.0)], "bids hold"),
    ],
)
def test_a_book_that_cannot_be_is_refused(bids: Any, asks: Any, words: str) -> None:
    with pytest.raises(RuleError, match=words):
        OrderBook.from_levels(bids, asks)


@pytest.mark.parametrize("order", [{}, {"size": 1.0, "notional": 1.0}, {"size": -1.0}])
def test_an_order_is_of_one_size_or_of_one_notional(order: dict[str, float]) -> None:
    with pytest.raises(RuleError, match="order"):
        BOOK.sell(**order)
