"""The way out: by hand, against kernels, at the critical leverage, and where nothing is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from crowds import MAINTENANCE, PRICE, TS, crowd
from measures.crowding.owned import borrower, holder, in_two_orders, peopled, traded, under_water
from undertow.errors import EstimationError, StateError
from undertow.measures.crowding import Crowd
from undertow.measures.crowding.wayout import critical_leverage, way_out
from undertow.rules.snapshot import Snapshot
from undertow.state.universe import NONE
from undertow.stress.options import Impact, Options
from undertow.worlds.frames import from_tuples


def test_by_hand() -> None:
    usd, fall = np.array([1_000.0, 3_000.0]), np.array([0.5, 0.2])
    found = way_out(traded(crowd(fall, usd, share=0.5), daily=50.0, vol=0.6), participation=0.2)
    debt = float((0.8 * usd * (1.0 - fall)).sum())
    row = found.tables["assets"].row(0, named=True)
    assert (row["asset"], row["side"], row["outcome"]) == ("C0", "long", "told")
    assert row["stands_usd"] == pytest.approx(4_000.0)
    assert row["closes_usd"] == pytest.approx(debt)  # selling one asset to pay all back
    assert row["days"] == pytest.approx(debt / PRICE / (0.2 * 50.0))
    depth = 4_000.0 / PRICE / 0.5
    price = 0.05 + 0.95 * math.exp(-debt / PRICE / (0.95 * depth))
    assert row["impact"] == pytest.approx(math.log(price))
    root = 0.6 / math.sqrt(365.0) * math.sqrt(4_000.0 / PRICE / 50.0)
    assert row["critical_leverage"] == pytest.approx(1.5 / root)
    assert found.headline is not None
    assert found.headline.value == pytest.approx(row["days"])
    assert found.headline.evidence == "modelled"


def test_the_share_above_critical_leverage_is_of_what_closes() -> None:
    fall, usd = np.array([0.02, 0.5, 0.5]), np.array([2_000.0, 1_000.0, 1_000.0])
    book = crowd(fall, usd, share=0.5, long=np.array([True, True, False]))
    vol = 1.5 / 10.0 * math.sqrt(365.0)  # critical at 10 where Q = V
    row = way_out(traded(book, daily=30.0, vol=vol)).tables["assets"].filter(side="long")
    assert row["critical_leverage"].item() == pytest.approx(10.0)
    assert row["above"].item() == pytest.approx(2.0 / 3.0)
    inverse = 2_000.0 * (0.02 + MAINTENANCE * 0.98) + 1_000.0 * (0.5 + MAINTENANCE * 0.5)
    assert row["leverage"].item() == pytest.approx(3_000.0 / inverse)


def test_at_the_critical_leverage_a_position_that_is_sold_in_slices_ends_with_nothing() -> None:
    size, slices = 0.3, 200_000
    leverage = float(critical_leverage(size))
    share = (np.arange(slices) + 0.5) / slices
    # each slice fetches the price that the slices before it have made
    fetched = float((1.0 - size * np.sqrt(share)).mean())
    assert fetched - (1.0 - 1.0 / leverage) == pytest.approx(0.0, abs=1e-6)
    at = np.linspace(0.0, 1.0, 1_001)
    left = 1.0 / leverage - size * np.sqrt(at) + size * at**1.5 / 3.0
    assert np.argmin(left) == 1_000


def test_it_is_what_loops_over_legs_give() -> None:
    book = peopled()
    seen = Crowd.of(book)
    found, carriers = way_out(seen, reps=19), seen.plan.carriers
    held = dict.fromkeys(range(book.book.accounts), 0.0)
    for leg, a in enumerate(book.book.leg_account.tolist()):
        held[a] += float(seen.exposures.outright[leg])
    sums: dict[tuple[str, str], float] = {}
    for leg, a in enumerate(book.book.leg_account.tolist()):
        lean = float(seen.lean[leg])
        if lean == 0.0 or seen.leveraged[a] <= 0.0:
            continue
        part = 1.0
        if book.book.kind[leg] < 4 and lean > 0.0:
            part = min(float(seen.debt[a]) / held[a], 1.0) if held[a] > 0.0 else 0.0
        k = int(book.book.inst[leg])
        place = int(carriers.spot_pool[k])
        place = int(seen.asset[leg]) if place == NONE else place
        key = (book.universe.assets[place], "long" if lean > 0.0 else "short")
        sums[key] = sums.get(key, 0.0) + part * abs(lean)
    table = found.tables["assets"]
    assert table.height == sum(value > 0.0 for value in sums.values())
    for row in table.iter_rows(named=True):
        assert row["closes_usd"] == pytest.approx(sums[row["asset"], row["side"]])
        if row["closes_low"] is not None:
            assert row["days_low"] == pytest.approx(
                row["days"] * row["closes_low"] / row["closes_usd"]
            )
    owners = found.tables["owners"]
    assert owners["closes_usd"].is_sorted(descending=True)
    assert owners["rank"].to_list() == list(range(1, owners.height + 1))
    assert (owners["rank_low"] <= owners["rank"]).all()
    # past ten times as many as are told, ranks are not told apart
    assert (owners["rank_high"].fill_null(1_000) >= owners["rank"]).all()
    assert owners["stays"].is_between(0.0, 1.0).all()
    assert (owners["closes_usd"] <= table["closes_usd"].sum()).all()


def test_the_deeper_the_market_the_less_it_moves_by_any_model() -> None:
    fall, usd = np.full(6, 0.2), np.full(6, 1_000.0)
    books = [
        Crowd.of(traded(crowd(fall, usd, share=share), daily=20.0 / share, vol=0.5))
        for share in (0.5, 0.1)
    ]
    for model in (Impact.LINEAR, Impact.EXPONENTIAL, Impact.CONSTANT_PRODUCT, Impact.SQUARE_ROOT):
        moves = [
            way_out(book, options=Options(impact=model), reps=19).tables["assets"]["impact"].item()
            for book in books
        ]
        assert moves[0] < moves[1] < 0.0


def margined(debt: float) -> Snapshot:
    """A perp of 1,000 USD, with 100,000 USD of the same coin as margin and so much money owed."""
    tables: dict[str, Any] = {}

    def put(table: str, columns: str, rows: list[tuple[object, ...]]) -> None:
        tables[table] = from_tuples(table, tuple(columns.split()), rows, ts=TS)

    put("assets", "asset symbol kind reference rate sector",
        [("C0", "C0", "native", None, None, "coin"),
         ("USDC", "USDC", "stable", "USD", 1.0, "stable"),
         ("USD", "USD", "fiat", None, None, "fiat")])  # fmt: skip
    put("venues", "venue kind profile", [("v", "perp", "generic-perp"), ("x", "spot", None)])
    put("instruments", "instrument venue symbol kind asset inverse contract_size",
        [("x:C0", "x", "C0", "spot", "C0", False, 1.0),
         ("v:C0", "v", "C0", "perp", "C0", False, 1.0),
         ("v:coin", "v", "coin", "cash", "C0", False, 1.0),
         ("v:USDC", "v", "USDC", "cash", "USDC", False, 1.0)])  # fmt: skip
    put("prices", "instrument kind price",
        [("x:C0", "spot", PRICE), ("v:C0", "mark", PRICE), ("v:coin", "spot", PRICE),
         ("v:USDC", "spot", 1.0)])  # fmt: skip
    put("accounts", "account venue label margin_group mode owner",
        [(0, "v", "a", "main", "cross", 0)])  # fmt: skip
    owed = [(0, "v:USDC", "cash", -debt, None)] if debt else []
    put("positions", "account instrument kind qty entry",
        [(0, "v:C0", "perp", 10.0, PRICE), (0, "v:coin", "cash", 1_000.0, None),
         *owed])  # fmt: skip
    put("risk_params", "venue instrument name value",
        [("v", "v:C0", "maintenance_margin_rate", MAINTENANCE)])  # fmt: skip
    put("depth", "instrument band side qty",
        [("x:C0", 1.0, side, 1_000.0) for side in ("bid", "ask")])  # fmt: skip
    return traded(Snapshot.from_tables(tables, TS), daily=1_000.0, vol=0.8)


@pytest.mark.parametrize(("debt", "closes"), [(0.0, 1_000.0), (0.01, 1_000.01), (500.0, 1_500.0)])
def test_margin_is_sold_to_pay_debt_and_for_nothing_else(debt: float, closes: float) -> None:
    row = way_out(margined(debt), participation=0.1).tables["assets"].row(0, named=True)
    assert row["closes_usd"] == pytest.approx(closes)
    assert row["days"] == pytest.approx(closes / PRICE / (0.1 * 1_000.0))
    # what could not be closed is all that stands there, whether or not it is sold
    assert row["stands_usd"] == pytest.approx(101_000.0)
    root = 0.8 / math.sqrt(365.0) * math.sqrt(1_010.0 / 1_000.0)
    assert row["root_impact"] == pytest.approx(root)


def test_volume_of_contracts_counts_whether_or_not_their_depth_is_known() -> None:
    book = traded(crowd([0.3], [1_000.0], share=0.5, long=np.array([True])), daily=10.0, vol=0.5)
    volume = book.liquidity.daily.copy()
    volume[book.universe.code("instrument", "v:C0")] = 990.0
    busy = replace(book, liquidity=replace(book.liquidity, daily=volume))
    deep = book.market.depth.copy()
    deep[book.universe.code("instrument", "v:C0")] = 5.0
    known = replace(busy, market=replace(busy.market, depth=deep))
    days = [way_out(b).tables["assets"]["days"].item() for b in (book, busy, known)]
    assert days == pytest.approx([10.0 / 1.0, 10.0 / 100.0, 10.0 / 100.0])


def test_an_owner_alone_at_the_top_is_there_in_two_of_three_draws() -> None:
    usd = np.array([1e6, 1_000.0, 900.0, 800.0, 700.0, 600.0])
    found = way_out(crowd(np.full(6, 0.3), usd, share=0.5, long=np.ones(6, dtype=bool)), top=3)
    first = found.tables["owners"].row(0, named=True)
    assert (first["owner"], first["rank"], first["rank_low"]) == ("owner 0", 1, 1)
    assert first["rank_high"] > 1
    assert first["stays"] == pytest.approx(1.0 - math.exp(-1.0), abs=0.15)


def test_shorts_buy_and_move_the_price_up() -> None:
    book = crowd([0.2, 0.3], [1_000.0, 500.0], share=0.5, long=np.array([False, False]))
    found = way_out(traded(book, daily=10.0, vol=0.5))
    row = found.tables["assets"].row(0, named=True)
    assert (row["side"], found.tables["assets"].height) == ("short", 1)
    assert row["impact"] > 0.0
    assert row["closes_usd"] == pytest.approx(1_500.0)
    assert row["days"] == pytest.approx(15.0 / 1.0)


def test_the_band_of_the_position_is_that_of_days() -> None:
    rng = np.random.default_rng(0)
    usd = rng.gamma(2.0, 500.0, 200)
    book = traded(crowd(np.full(200, 0.3), usd, share=0.5), daily=100.0, vol=0.5)
    reading = way_out(book).reading("crowding.days_to_exit", "C0 long")
    assert reading.low is not None
    assert reading.high is not None
    assert reading.value is not None
    spread = 2.0 * 1.645 * math.sqrt(float((usd**2).sum())) / float(usd.sum())
    assert (reading.high - reading.low) / reading.value == pytest.approx(spread, rel=0.25)


def test_what_is_not_known_is_said_and_never_zero() -> None:
    book = crowd([0.3, 0.2], [1_000.0, 500.0], share=0.5)
    found = way_out(book)
    row = found.tables["assets"].row(0, named=True)
    assert row["outcome"] == "no volume, no volatility"
    assert (row["days"], row["critical_leverage"], row["above"]) == (None, None, None)
    assert row["impact"] < 0.0
    assert any("no daily volume" in sentence for sentence in found.says)
    assert found.headline is not None
    assert found.headline.value is None
    shallow = crowd([0.3], [0.0], share=0.5, held=np.array([[1.0]]))
    assert way_out(shallow).says[0].startswith("Nobody owes")
    deaf = traded(book, daily=10.0, vol=0.5)
    market = deaf.market
    without = Snapshot(**{
        name: getattr(deaf, name) for name in deaf.__dataclass_fields__ if name != "market"
    }, market=type(market)(**{
        name: np.zeros_like(market.depth) if name == "depth" else getattr(market, name)
        for name in market.__dataclass_fields__
    }))  # fmt: skip
    row = way_out(without).tables["assets"].row(0, named=True)
    assert (row["outcome"], row["impact"]) == ("no depth", None)
    assert row["days"] is not None


def test_degenerate_books_are_told() -> None:
    nobody = way_out(holder())
    assert nobody.tables["assets"].height == 0
    assert "nothing to close" in nobody.says[0]
    bankrupt = way_out(traded(under_water(), daily=10.0, vol=0.5))
    row = bankrupt.tables["assets"].row(0, named=True)
    assert row["closes_usd"] == pytest.approx(1_000.0)  # all it holds, which is less than it owes
    assert (row["leverage"], row["above"]) == (None, 1.0)
    assert any("without equity" in sentence for sentence in bankrupt.says)
    assert bankrupt.tables["owners"]["leverage"].item() is None


def test_rows_in_any_order_make_the_same() -> None:
    found, again = (way_out(book, reps=19).as_json() for book in in_two_orders())
    assert found == again


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"participation": 0.0}, StateError, "participation"),
        ({"participation": 1.5}, StateError, "participation"),
        ({"top": 0}, StateError, "top"),
        ({"level": 2.0}, EstimationError, "level"),
    ],
)
def test_what_cannot_be_is_refused(
    given: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        way_out(borrower(), **given)  # type: ignore[arg-type]
    assert way_out(borrower()).tables["curve"].is_empty()  # of no critical leverage
