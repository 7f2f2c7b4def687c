"""Pushed oracles: costs against closed forms, gains by hand, and October 2022 in numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
import pytest

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.state import Oracles
from undertow.stress.manipulation import Attack, manipulation
from undertow.stress.options import Impact, Options
from undertow.worlds import World, tiny_world
from undertow.worlds.frames import from_tuples

BTC = "aave-v3:BTC"  # its market is the perp's book: an e-fold of 10 BTC at 40,000


@pytest.fixture(scope="module")
def tiny() -> Snapshot:
    return tiny_world().snapshot()


def _one(snapshot: Snapshot, factor: float, instrument: str = BTC, **knobs: Any) -> Attack:
    return manipulation(snapshot, instrument=instrument, factors=[factor], **knobs).attacks[0]


def test_a_push_within_a_block_costs_its_fees_and_nothing_else(tiny: Snapshot) -> None:
    # Exponential: to a price of 2 takes 10 log 2 BTC and the integral of it, 10 * (2 - 1) * 40,000.
    up = _one(tiny, 2.0, inflow=0.0, fee=0.01)
    assert up.push_usd == pytest.approx(400_000.0)
    assert up.hold_usd == 0.0
    assert up.fees_usd == pytest.approx(0.01 * 2.0 * 400_000.0)
    assert up.cost_usd == up.fees_usd
    assert up.pool == "BTC"


def test_what_arbitrage_takes_is_bought_dear_and_worth_the_old_price(tiny: Snapshot) -> None:
    # A round takes U from -d log 2 back to half of it: 10 * (2 - sqrt 2) units of money buy it back
    # and 10 * log(2) / 2 coins are left over, each worth what it was.
    up = _one(tiny, 2.0, inflow=0.5, fee=0.0, rounds=3)
    each = 40_000.0 * 10.0 * ((2.0 - math.sqrt(2.0)) - 0.5 * math.log(2.0))
    assert up.hold_usd == pytest.approx(3.0 * each)
    assert up.rounds == 3
    flat = _one(tiny, 2.0, inflow=1.0, fee=0.0)
    assert flat.hold_usd == pytest.approx(400_000.0 * (1.0 - math.log(2.0)))


def test_a_constant_product_pool_is_pushed_as_its_formula_says(tiny: Snapshot) -> None:
    # x = 2 d = 20 BTC in reserve against 800,000 USD: at 4 times the price 10 are left,
    # bought for another 800,000.
    swap = Options(impact=Impact.CONSTANT_PRODUCT)
    assert _one(tiny, 4.0, options=swap).push_usd == pytest.approx(800_000.0)
    down = _one(tiny, 0.25, options=swap)
    assert down.push_usd == pytest.approx(400_000.0)  # 20 BTC sold into it, at 20,000 on average


@pytest.mark.parametrize("model", [Impact.LINEAR, Impact.EXPONENTIAL, Impact.CONSTANT_PRODUCT])
def test_a_longer_hold_a_farther_push_and_more_arbitrage_cost_no_less(
    tiny: Snapshot, model: Impact
) -> None:
    options = Options(impact=model)
    factors = [1.01, 1.1, 1.5, 2.0, 5.0]
    ups = [_one(tiny, f, options=options).cost_usd for f in factors]
    assert ups == sorted(ups)
    for knob, values in (("rounds", [1, 2, 5]), ("inflow", [0.0, 0.3, 1.0]), ("fee", [0.0, 0.01])):
        costs = [_one(tiny, 1.5, options=options, **{knob: v}).cost_usd for v in values]
        assert costs == sorted(costs)
        assert costs[0] < costs[-1]


def test_a_floor_is_a_price_that_no_sale_reaches(tiny: Snapshot) -> None:
    low = _one(tiny, 0.04, options=Options(floor=0.05))
    assert math.isinf(low.cost_usd)
    assert "no volume takes the price to 0.04" in low.why
    assert not low.attackable
    assert _one(tiny, 0.06, options=Options(floor=0.05)).why == ""


def _with_oracle(snapshot: Snapshot, **columns: Any) -> Snapshot:
    row = from_tuples(
        "oracles", ("venue", "instrument", *columns), [("aave-v3", BTC, *columns.values())], ts=0
    )
    return replace(snapshot, oracles=Oracles.from_frames(snapshot.universe, row))


def test_a_late_oracle_has_to_be_waited_for(tiny: Snapshot) -> None:
    late = _with_oracle(tiny, mode="lagged", lag_us=300_000_000, deviation=0.05)
    here, there = _one(tiny, 1.5, rounds=2), _one(late, 1.5, rounds=2)
    assert (here.rounds, there.rounds) == (2, 7)  # five rounds of a minute later
    assert there.hold_usd == pytest.approx(3.5 * here.hold_usd)
    never = _one(late, 1.04)
    assert math.isinf(never.cost_usd)
    assert "no heartbeat" in never.why
    beats = _with_oracle(tiny, mode="lagged", lag_us=0, deviation=0.05, heartbeat_us=3_600_000_000)
    assert _one(beats, 1.04).rounds == 61


def test_what_no_market_moves_costs_without_end(tiny: Snapshot, wide: Snapshot) -> None:
    frozen = _one(_with_oracle(tiny, mode="frozen"), 2.0)
    assert math.isinf(frozen.cost_usd)
    assert frozen.why == "the oracle is frozen: no market moves it"
    unknown = _one(tiny, 2.0, instrument="aave-v3:ETH")
    assert "how deep" in unknown.why
    # staked ether, by its exchange rate: its own market is not asked
    row = from_tuples(
        "oracles", ("venue", "instrument", "mode"), [("aave-v3", "aave-v3:stETH", "exchange_rate")],
        ts=0,
    )  # fmt: skip
    blind = replace(wide, oracles=Oracles.from_frames(wide.universe, row))
    staked = _one(blind, 1.5, instrument="aave-v3:stETH")
    assert math.isinf(staked.cost_usd)
    assert "exchange rate" in staked.why
    table = manipulation(blind, instrument="aave-v3:stETH").to_polars()
    assert table["cost_usd"].null_count() == table.height
    assert not table["attackable"].any()
    # wrapped bitcoin at its rate moves with bitcoin, and with nothing else
    row = row.with_columns(instrument=pl.lit("aave-v3:WBTC"))
    tied = replace(wide, oracles=Oracles.from_frames(wide.universe, row))
    assert _one(tied, 1.5, instrument="aave-v3:WBTC").pool == "BTC"


def test_what_is_pushed_up_is_borrowed_against_by_hand(tiny: Snapshot) -> None:
    # At 3 times its price a bitcoin worth 40,000 carries a loan of 0.7 * 120,000. What is there to
    # borrow is 20,000 USDC, and 10 ETH: 40,000 in all, against 40,000 / 2.1 posted.
    up = _one(tiny, 3.0, inflow=0.0, fee=0.0)
    assert up.borrowable_usd == pytest.approx(40_000.0)
    assert up.stake_usd == pytest.approx(40_000.0 / 2.1)
    assert up.profit_usd == pytest.approx(40_000.0 - 40_000.0 / 2.1 + up.bonus_usd)
    assert up.attackable
    small = _one(tiny, 3.0, inflow=0.0, fee=0.0, stake_usd=1_000.0)
    assert (small.stake_usd, small.borrowable_usd) == pytest.approx((1_000.0, 2_100.0))
    # a loan of less than what it leaves behind is none
    assert _one(tiny, 1.4).borrowable_usd == 0.0


def test_what_is_pushed_down_is_borrowed_itself(tiny: Snapshot) -> None:
    # One bitcoin lies idle; at a quarter of its price it takes 10,000 / 0.75 of ETH to borrow.
    down = _one(tiny, 0.25, inflow=0.0, fee=0.0)
    assert down.borrowable_usd == pytest.approx(40_000.0)
    assert down.stake_usd == pytest.approx(10_000.0 / 0.75)


def test_accounts_that_were_sound_are_closed_at_the_wrong_price(tiny: Snapshot) -> None:
    # At BTC 24,000 (0.6) account 3 (1 BTC, 20,000 USDC, threshold 0.75) is under water by the book:
    # health 0.9, so all of the debt may be repaid, for 21,000 worth of bitcoin at 24,000. It is
    # worth 35,000 a little later.
    down = _one(tiny, 0.6)
    fee = 0.0  # no protocol fee in this world
    perp = 24_000.0  # account 2, long 1 BTC on the perp, carried by the same pool
    assert down.liquidatable_usd == pytest.approx(21_000.0 + perp)
    assert down.bonus_usd == pytest.approx(35_000.0 - 20_000.0 - fee)
    up = _one(tiny, 1.3)  # account 4, short 1 BTC, is closed; perps pay nobody a bonus
    assert up.liquidatable_usd == pytest.approx(52_000.0)
    assert up.bonus_usd == 0.0
    assert _one(tiny, 1.01).liquidatable_usd == 0.0


def test_the_table_adds_up_and_the_best_is_the_best(tiny: Snapshot) -> None:
    found = manipulation(tiny, instrument=BTC)
    table = found.to_polars()
    assert table.height == 11
    cost = table["hold_usd"] + table["fees_usd"]
    assert (table["cost_usd"] - cost).abs().max() == 0.0
    profit = table["borrowable_usd"] - table["stake_usd"] + table["bonus_usd"] - cost
    assert (table["profit_usd"] - profit).abs().max() < 1e-6
    assert (table["attackable"] == (profit > 0.0)).all()
    assert found.best.profit_usd == pytest.approx(profit.max())
    assert found.notes == ()


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({"factors": [1.0]}, "each must be above 0 and not 1"),
        ({"factors": []}, "factors is empty"),
        ({"factors": 2.0}, r"factors was 2\.0; it must be a list; as in \[0\.5, 2\.0\]"),
        ({"factors": "2"}, "factors was '2'"),
        ({"factors": ["2"]}, "factors held '2'; each must be above 0"),
        ({"instrument": "AAVE-V3:btc"}, r"did you mean aave-v3:BTC\?"),
        ({"rounds": 0}, "rounds was 0"),
        ({"inflow": 1.5}, "inflow was 1.5"),
        ({"fee": -0.1}, "fee was -0.1"),
        ({"stake_usd": math.nan}, "stake_usd was nan"),
        ({"instrument": "aave-v3:DOGE"}, "DOGE"),
    ],
)
def test_what_cannot_be_asked_is_refused(tiny: Snapshot, knobs: dict[str, Any], words: str) -> None:
    with pytest.raises(StateError, match=words):
        manipulation(tiny, **{"instrument": BTC, **knobs})


def test_a_world_is_no_snapshot(tiny: Snapshot) -> None:
    with pytest.raises(StateError, match="snapshot was of type World; it must be a Snapshot"):
        manipulation(tiny_world(), instrument=BTC)  # type: ignore[arg-type]
    assert manipulation(tiny, instrument=BTC, factors=np.array([0.5, 2.0])).attacks[1].factor == 2.0


# Mango Markets, 11 October 2022. CITED (Solidus Labs, "The Mango Markets exploit: an order book
# analysis", 18 October 2022): two accounts of 5 m USDC each; 483 m MNGO-PERP at 0.038 USD between
# them; MNGO bought for 1.44 m + 1 m + 1.6 m USD on three exchanges. CITED (CFTC complaint of
# 9 January 2023, by Davis Wright Tremaine): the oracle's price rose over 13 times within 30
# minutes, and over 110 m USD were withdrawn, most of what there was. APPROXIMATE: 116 m USD to
# borrow. ASSUMED: depth, such that 4.04 m USD make 13 times the price on an exponential curve.
PRICE, PERPS, SPENT, FACTOR, LENDABLE = 0.0382, 483e6, 4.04e6, 13.0, 116e6
MARGIN = 5e6 / (PERPS * PRICE)


def _mango() -> Snapshot:
    world = tiny_world()
    tables, since = dict(world.tables), world.tables["assets"]["ts"][0]
    at = world.tables["prices"]["ts"][0]
    perp, spot, usdc = "mango:MNGO-PERP", "ftx:MNGO/USD", "mango:USDC"
    depth = SPENT / (PRICE * (FACTOR - 1.0))

    def add(table: str, names: tuple[str, ...], rows: list[Any], ts: object, **rest: Any) -> None:
        frame = from_tuples(table, names, rows, ts=0, **rest).with_columns(
            pl.lit(ts).cast(tables[table]["ts"].dtype).alias("ts")
        )
        tables[table] = pl.concat([tables[table], frame.select(tables[table].columns)])

    add("assets", ("asset", "symbol", "kind"), [("MNGO", "MNGO", "other")], since)
    add("venues", ("venue", "kind"), [("mango", "perp"), ("ftx", "spot")], since)
    add(
        "instruments",
        ("instrument", "venue", "symbol", "kind", "asset", "quote", "settle"),
        [
            (perp, "mango", "MNGO-PERP", "perp", "MNGO", "USDC", "USDC"),
            (usdc, "mango", "USDC", "reserve", "USDC", None, None),
            (spot, "ftx", "MNGO/USD", "spot", "MNGO", "USD", None),
        ],
        since,
        inverse=False,
        contract_size=1.0,
    )
    prices = [(perp, "mark", PRICE), (spot, "spot", PRICE), (usdc, "oracle", 1.0)]
    add("prices", ("instrument", "kind", "price"), prices, at)
    sides = [(spot, side, depth) for side in ("bid", "ask")]
    add("depth", ("instrument", "side", "qty"), sides, at, band=1.0)
    terms = [("mango", perp, "initial_margin_rate", MARGIN)]
    add("risk_params", ("venue", "instrument", "name", "value"), terms, since)
    add("reserves", ("instrument", "supplied", "borrowed"), [(usdc, LENDABLE, 0.0)], at)
    return World(0, world.ts, MappingProxyType(tables), world.truth).snapshot()


def test_mango_markets_in_october_2022() -> None:
    snapshot, perp = _mango(), "mango:MNGO-PERP"
    # What was spent holds what arbitrage took, so none is taken on top.
    attack = _one(snapshot, FACTOR, instrument=perp, inflow=0.0, stake_usd=10e6)
    assert attack.pool == "MNGO"
    assert attack.push_usd == pytest.approx(SPENT)
    # The paper profit of the long is 12 times 18.5 m USD: it carries all there is to borrow.
    paper = PERPS * PRICE * (FACTOR - 1.0)
    assert paper == pytest.approx(221e6, rel=0.01)
    assert attack.borrowable_usd == LENDABLE
    assert attack.stake_usd == pytest.approx(10e6 * LENDABLE / paper)
    assert attack.attackable
    # Though nothing of the push were ever sold again: over 100 m, as was taken in fact.
    assert 100e6 < attack.profit_usd - attack.push_usd < 112e6
    # Half an hour against arbitrage that takes a twentieth a minute would not have saved it.
    assert _one(snapshot, FACTOR, instrument=perp, rounds=30, inflow=0.05).profit_usd > 90e6
    # Profit that does not count, or a price that may not run away, would have.
    capped = _one(snapshot, 1.05, instrument=perp, rounds=30, stake_usd=10e6)
    assert capped.borrowable_usd < 1e6
    assert not capped.attackable


def test_a_contract_that_nothing_is_said_of_lends_nothing() -> None:
    snapshot = _mango()
    rules = snapshot.rules
    rows = rules.params.rows.filter(pl.col("name") != "initial_margin_rate")
    bare = replace(snapshot, rules=replace(rules, params=replace(rules.params, rows=rows)))
    found = manipulation(bare, instrument="mango:MNGO-PERP", factors=[2.0])
    assert found.attacks[0].borrowable_usd == 0.0
    assert "how far mango:MNGO-PERP may be levered" in found.notes[0]


def test_a_pool_is_left_where_it_was_asked_to_go() -> None:
    from undertow.kernels import impact
    from undertow.stress.manipulation import _volume

    rng = np.random.default_rng(4)
    start, reach = np.array([0, 3, 6]), np.array([1.0, 2.0, 4.0, 1.0, 3.0, 4.0])
    ratio = np.array([0.99, 0.95, 0.9, 1.01, 1.05, 1.1])
    for model in range(1, 6):
        pools = impact.Pools(
            *(np.array([x]) for x in (np.int8(model), 7.0, 0.05, 0.03, 50.0, 0.01)),
            start, reach, ratio,
        )  # fmt: skip
        for factor in np.exp(rng.uniform(-1.5, 1.5, 12)):
            volume = _volume(pools, 0, factor)
            assert volume is not None
            at = impact.multiplier(0, volume, pools)
            assert (at >= factor) == (factor > 1.0) or at == factor
            just_short = impact.multiplier(0, volume * (1.0 - 1e-9), pools)
            assert (just_short < factor) if factor > 1.0 else (just_short > factor)
