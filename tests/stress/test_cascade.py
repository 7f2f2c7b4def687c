"""A scenario through a book: worked by hand on the tiny world, and to the last cent on the demo."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from undertow.errors import MisalignedState, NotSettled, StateError
from undertow.rules.coverage import Coverage
from undertow.rules.snapshot import Snapshot
from undertow.stress import (
    Cascade,
    Deleveraging,
    Engine,
    Impact,
    Options,
    Outcome,
    Plan,
    Responses,
    Scenario,
    Stressed,
    load_scenario,
    run_cascade,
    scenario_names,
    settle,
)
from undertow.stress.aftermath import amplification
from undertow.stress.cascade import LEAK
from undertow.stress.coverage import LOWER_BOUND, RESIDUAL, SCALED, covered_losses
from undertow.stress.damage import Counterfeit
from undertow.stress.outages import Fund
from undertow.stress.shock import Funding, Peg, Price, Rate, Shock, WithdrawalRun
from undertow.stress.stressed import ORACLE_MODES
from undertow.worlds import World, demo_world, tiny_world

STILL = Options(impact=Impact.NONE)  # prices stay where the shock put them


@pytest.fixture(scope="module")
def tiny() -> Snapshot:
    return tiny_world().snapshot()


@pytest.fixture(scope="module")
def demo() -> Plan:
    return Plan.of(demo_world().snapshot())


def ran(snapshot: Snapshot | Plan, *shocks: Shock, options: Options = STILL) -> Cascade:
    scenario = Scenario(name="a test", shocks=shocks)
    found = run_cascade(snapshot, scenario, options, check=True)
    assert found.worst_leak is not None
    assert found.worst_leak <= LEAK
    return found


def of(column: np.ndarray, cascade: Cascade, instrument: str) -> float:
    return float(column[cascade.plan.snapshot.universe.code("instrument", instrument)])


def changed(world: World, name: str, *rows: pl.Expr) -> Snapshot:
    tables = dict(world.tables)
    tables[name] = tables[name].with_columns(*rows)
    return Snapshot.from_tables(tables, world.ts)


def test_eth_down_40_percent_halves_the_loan_of_account_1(tiny: Snapshot) -> None:
    # 10 ETH at 1,200 count for 0.8: 9,600 against 10,000, health 0.96. Above 0.95 half the debt is
    # repaid, 5,000; seized with 5 % bonus are 5,250 USD, 4.375 ETH.
    found = ran(tiny, Price(asset="ETH", move=-0.4))
    assert found.outcome is Outcome.SETTLED
    assert found.rounds == 2  # one to sell, one to be quiet
    assert list(found.acted) == [1, 0]
    assert of(found.sold, found, "aave-v3:ETH") == pytest.approx(4.375)
    assert of(found.sold, found, "aave-v3:USDC") == pytest.approx(-5_000)
    assert found.closed.sum() == pytest.approx(5_250)
    assert found.repaid.sum() == pytest.approx(5_000)
    assert found.gain.sum() == pytest.approx(250)
    assert found.remaining[:2] == pytest.approx([5.625, -5_000])
    head = found.headline()
    assert head["accounts"] == head["owners"] == 1
    assert head["owners_called_twice"] == 0
    assert head["insolvency_usd"] == head["bad_debt_usd"] == 0.0
    assert head["amplification"] == pytest.approx(1.0)
    # held and owed but money: 20,000 of ETH and 120,000 of BTC
    assert head["first_fall"] == pytest.approx(0.4 * 20_000 / 140_000)


def test_btc_down_20_percent_bankrupts_the_long_and_the_short_pays(tiny: Snapshot) -> None:
    # Long 1 BTC from 40,000 with 5,000 of margin: at 32,000 it lacks 3,000. The fund has 1,000, so
    # two thirds of the contract are not sold but taken from the short, who bears 2,000 of his
    # profit of 5,333 on them and keeps the rest as money.
    found = ran(tiny, Price(asset="BTC", move=-0.2))
    perp = "hyperliquid:BTC/USDC:USDC"
    assert of(found.short, found, perp) == pytest.approx(3_000)
    assert of(found.paid, found, perp) == pytest.approx(2_000)
    assert of(found.sold, found, perp) == pytest.approx(1 / 3)
    venue = found.plan.snapshot.universe.code("venue", "hyperliquid")
    assert found.insurance[venue] == 0.0
    row = found.plan.snapshot.book.row_of(4)
    assert found.cash[row] == pytest.approx(8_000 * 2 / 3 - 2_000)
    told = found.by_venue().row(0, named=True)
    assert told["venue"] == "hyperliquid"
    assert told["funds_paid_usd"] == pytest.approx(1_000)
    assert told["winners_paid_usd"] == pytest.approx(2_000)
    assert told["uncovered_usd"] == 0.0
    assert (told["accounts"], told["emptied"]) == (1, 1)  # the winner was not called
    assert found.insolvency_usd == pytest.approx(3_000)


def test_a_fall_of_everything_calls_one_owner_on_two_venues_at_once(tiny: Snapshot) -> None:
    found = ran(tiny, Price(asset="market", move=-0.45))
    owners = found.by_owner()
    first = owners.filter(pl.col("owner") == 1).row(0, named=True)
    assert (first["accounts"], first["venues"], first["at_once"]) == (2, 2, 2)
    assert found.headline()["owners_called_twice"] == 1
    assert found.headline()["owners"] == owners.height == 2


def test_sales_move_prices_along_the_curve_and_the_seller_pays_for_it(tiny: Snapshot) -> None:
    # 10 BTC of depth carry spot, and 10 more the perp alone. At 32,000 the long goes, a third of it
    # in the market: half of that (coupling) in each pool. Then nobody else is due.
    options = Options(impact=Impact.EXPONENTIAL, floor=0.0, coupling=0.5)
    found = ran(tiny, Price(asset="BTC", move=-0.2), options=options)
    each = 1 / 3 / 2 / 10  # share of an e-fold
    pool = math.exp(-each)
    assert of(found.final, found, "aave-v3:BTC") == pytest.approx(32_000 * pool)
    assert of(found.final, found, "hyperliquid:BTC/USDC:USDC") == pytest.approx(32_000 * pool**2)
    average = ((1 - pool) / each) ** 2
    assert found.slipped.sum() == pytest.approx(32_000 / 3 * (1 - average))
    weighted = 1 - 0.8 * (40_000 * pool + 80_000 * pool**2) / 120_000
    assert found.final_fall == pytest.approx(weighted * 120_000 / 140_000)
    assert found.amplification == pytest.approx(weighted / 0.2)


def test_amplification_is_final_over_first_whichever_way_prices_went() -> None:
    first = [0.2, -0.2, 0.1, -0.1, 0.0, 0.0, 1e-12]
    final = [0.5, -0.5, -0.1, 0.2, 0.0, 0.3, 0.3]
    found = amplification(first, final)
    assert found.to_list() == pytest.approx([2.5, 2.5, -1.0, -2.0, None, None, None])
    assert amplification([], []).to_list() == []


def test_without_a_shock_a_healthy_book_does_nothing(tiny: Snapshot, demo: Plan) -> None:
    for book in (tiny, demo):
        found = ran(book, options=Options())
        assert (found.rounds, found.outcome) == (1, Outcome.SETTLED)
        assert not len(found.hit)
        assert not found.flows.any()
        assert found.amplification is None
        assert found.settled is None
        assert found.trace().height == found.by_owner().height == 0
        assert set(found.by_venue()["closed_usd"]) == {0.0}
    assert settle(demo).plan is demo


def test_what_is_due_anyway_is_settled_first_and_told_apart(tiny: Snapshot) -> None:
    # At 1,200 USD account 1 is due before anything happens; a fall of BTC adds its own losses.
    low = tiny_world()
    price = pl.when(pl.col("instrument") == "aave-v3:ETH").then(1_200.0).otherwise("price")
    book = changed(low, "prices", price.alias("price"))
    found = ran(book, Price(asset="BTC", move=-0.2))
    assert found.settled is not None
    assert found.settled.closed.sum() == pytest.approx(5_250)
    assert of(found.closed, found, "aave-v3:ETH") == 0.0
    assert found.closed.sum() == pytest.approx(32_000)
    assert found.plan.hold.legs["qty"][:2] == pytest.approx([5.625, -5_000])
    at_once = run_cascade(book, Scenario(name="x", shocks=(Price(asset="BTC", move=-0.2),)), STILL,
                          settle=False)  # fmt: skip
    assert at_once.settled is None
    assert at_once.closed.sum() == pytest.approx(32_000 + 5_250)
    again = settle(found.plan, STILL)
    assert again.plan is found.plan


def test_what_settling_cost_the_funds_is_gone_and_realised_money_stays() -> None:
    # At a mark of 33,000 the long lacks 2,000 before any shock. The fund pays its 1,000; half of
    # the contract is taken from the short, who keeps 3,500 of profit less the other 1,000.
    perp = pl.col("instrument") == "hyperliquid:BTC/USDC:USDC"
    book = changed(
        tiny_world(), "prices", pl.when(perp).then(33_000.0).otherwise("price").alias("price")
    )
    left, cost = settle(Plan.of(book), STILL)
    long, short = book.book.row_of(2), book.book.row_of(4)
    assert list(cost.hit) == list(cost.emptied) == [long]
    assert left.snapshot.funds.insurance.sum() == 0.0
    assert left.hold.accounts["cash"][short] == pytest.approx(2_500)
    assert left.hold.legs["qty"][book.book.offset[short]] == pytest.approx(-0.5)
    # applied to what is left, to the book as found, or to that book beforehand: the same
    scenario = Scenario(name="x", shocks=(Price(asset="BTC", move=1.0),))
    by_hand = run_cascade(left, scenario, STILL)
    found = run_cascade(book, scenario, STILL)
    early = run_cascade(book, scenario.apply(book), STILL)
    assert short in by_hand.hit  # 12,500 less half of 26,000 is nothing, and 825 are asked
    for other in (found, early):
        assert other.settled is not None
        assert np.array_equal(other.closed, by_hand.closed)
        assert np.array_equal(other.cash, by_hand.cash)


def test_a_scenario_that_changes_the_book_runs_on_what_settling_left() -> None:
    price = pl.when(pl.col("instrument") == "aave-v3:ETH").then(1_200.0).otherwise("price")
    book = changed(tiny_world(), "prices", price.alias("price"))
    shock = Counterfeit(asset="ETH", venue="aave-v3", qty=10.0, borrow="USDC", ltv=0.75)
    scenario = Scenario(name="x", shocks=(shock, Price(asset="ETH", move=-0.3)))
    first = run_cascade(book, scenario, STILL, check=True)
    second = run_cascade(book, scenario.apply(book), STILL, check=True)
    for found in (first, second):
        assert found.settled is not None
        assert found.settled.closed.sum() == pytest.approx(5_250)
        assert len(found.plan.snapshot.book.account) == 6
        assert 5 in found.hit  # the counterfeiter
    assert first.closed.sum() == pytest.approx(second.closed.sum())
    assert first.bad.sum() == pytest.approx(second.bad.sum())


@pytest.mark.parametrize("model", list(Impact), ids=lambda m: m.value)
def test_money_is_conserved_in_every_replay_under_every_impact(demo: Plan, model: Impact) -> None:
    busy = 0
    for name in scenario_names():
        scenario = load_scenario(name)
        options = replace(scenario.options, impact=model)
        found = run_cascade(demo, scenario, options, check=True)
        assert found.worst_leak is not None
        assert found.worst_leak <= LEAK, name
        busy += bool(len(found.hit))
        for column in (found.path, found.final, found.flows, found.slipped, found.cash):
            assert np.isfinite(column).all()
        assert (found.path > 0.0).all()
        head = found.headline()
        assert all(math.isfinite(v) for v in head.values() if isinstance(v, float))
    assert busy > 6


@pytest.mark.parametrize(
    "changed",
    [
        {"capacity": True},
        {"profitable": True},
        {"oracles": False},
        {"recovery": 0.3},
        {"withdrawal": 2.0},
        {"coupling": 0.0},
        {"deleveraging": Deleveraging.PRO_RATA},
        {"deleveraging": Deleveraging.NONE},
        {"responses": Responses(top_up=True)},
        {"responses": Responses(delever=True)},
        {"responses": Responses(unwind=True, convert=True)},
    ],
    ids=str,
)
def test_money_is_conserved_in_every_channel(demo: Plan, changed: dict[str, Any]) -> None:
    scenario = load_scenario("2024-08-05")
    plain = run_cascade(demo, scenario)
    found = run_cascade(demo, scenario, replace(scenario.options, **changed), check=True)
    assert found.worst_leak is not None
    assert found.worst_leak <= LEAK
    assert not np.array_equal(found.closed, plain.closed)


def test_the_trace_adds_up_to_the_totals(demo: Plan) -> None:
    found = run_cascade(demo, load_scenario("2025-10-10"))
    trace = found.trace()
    called = trace.filter(pl.col("reason") == "liquidated")
    assert called["value_usd"].sum() == pytest.approx(found.closed.sum())
    assert called["repaid_usd"].sum() == pytest.approx(found.repaid.sum())
    assert called["lost_usd"].sum() == pytest.approx(found.bad.sum() + found.short.sum())
    taken = trace.filter(pl.col("reason") == "deleveraged")
    by_position = found.by_venue().filter(pl.col("venue").is_in(taken["venue"].unique().implode()))
    assert taken["lost_usd"].sum() == pytest.approx(by_position["winners_paid_usd"].sum())
    assert set(called["account"]) == set(demo.snapshot.book.account[found.hit])
    owners = found.by_owner()
    assert owners["closed_usd"].sum() == pytest.approx(found.closed.sum())
    assert owners.height == found.headline()["owners"]
    assert (owners["at_once"] <= owners["venues"]).all()


def test_tables_add_up_and_every_shortfall_is_borne_by_somebody(demo: Plan) -> None:
    found = run_cascade(demo, load_scenario("2025-10-10"))
    venues, assets = found.by_venue(), found.by_asset()
    for frame in (venues, assets):
        assert frame["closed_usd"].sum() == pytest.approx(found.closed.sum())
        assert frame["slipped_usd"].sum() == pytest.approx(found.slipped.sum())
    lacked = venues["bad_debt_usd"] + venues["shortfall_usd"]
    bearers = ("funds_paid_usd", "suppliers_bear_usd", "winners_paid_usd", "uncovered_usd")
    borne = sum((venues[name] for name in bearers), start=0.0 * lacked)
    assert borne.to_list() == pytest.approx(lacked.to_list())
    assert venues["accounts"].sum() == len(found.hit)
    rounds = found.by_round()
    assert rounds["accounts"].to_list() == list(found.acted)
    assert rounds["slipped_usd"].sum() == pytest.approx(found.slipped.sum())
    assert found.ledger.height == found.rounds


def test_an_engine_runs_the_same_twice_and_after_others(demo: Plan) -> None:
    engine = Engine(demo)
    scenario = load_scenario("2024-08-05")
    stressed = scenario.apply(demo.snapshot)
    first = engine.run(stressed, scenario.options, check=True)
    engine.run(Stressed.calm(demo.snapshot), Options(max_rounds=3))
    again = engine.run(stressed, scenario.options, check=True)
    for name in ("path", "flows", "final", "sold", "slipped", "remaining", "cash", "log"):
        assert np.array_equal(getattr(first, name), getattr(again, name)), name
    short = engine.run(stressed, scenario.options, trace=False, path=False)
    assert np.array_equal(short.closed, first.closed)
    assert short.path.shape == (0, len(demo.insts))
    assert short.by_round()["seen_fall"].null_count() == short.rounds
    with pytest.raises(StateError, match="kept no trace"):
        short.trace()


def test_a_trace_that_is_longer_than_expected_is_kept_whole(
    demo: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_cascade(demo, load_scenario("2025-10-10")).trace()
    monkeypatch.setattr("undertow.stress.cascade.FIRST_LOG", 10)
    assert run_cascade(demo, load_scenario("2025-10-10")).trace().equals(whole)


def test_a_cascade_that_is_cut_short_says_so(demo: Plan) -> None:
    scenario = load_scenario("2025-10-10")
    found = run_cascade(demo, scenario, replace(scenario.options, max_rounds=2))
    assert found.outcome is Outcome.ROUND_LIMIT
    assert found.rounds == 2
    assert found.headline()["outcome"] == "round limit"
    with pytest.raises(NotSettled, match="still selling after 2 rounds"):
        found.require()
    whole = run_cascade(demo, scenario)
    assert whole.require() is whole


def test_an_empty_book_has_a_plain_empty_result() -> None:
    world = tiny_world()
    tables = dict(world.tables)
    tables["accounts"], tables["positions"] = (
        tables[name].head(0) for name in ("accounts", "positions")
    )
    found = run_cascade(Snapshot.from_tables(tables, world.ts), load_scenario("2025-10-10"),
                        check=True)  # fmt: skip
    assert found.worst_leak == 0.0
    assert found.headline()["liquidated_usd"] == found.headline()["first_fall"] == 0.0
    assert found.amplification is None
    tables_of = (found.by_venue(), found.by_asset(), found.by_owner(), found.trace())
    assert [frame.height for frame in tables_of] == [0, 0, 0, 0]
    assert Coverage.of(found.plan.snapshot).share == 0.0


def test_what_a_claim_lost_of_its_backing_is_a_fall_of_its_price(wide: Snapshot) -> None:
    universe = wide.universe
    half = Stressed.calm(wide).put("receipt", universe.code("asset", "stETH"), 0.5)
    found = run_cascade(wide, half, STILL)
    expected = half.snapshot.market.mark * 1.0
    for name, share in (("stETH", 0.5), ("wstETH", 0.5), ("ETH", 1.0)):
        k = universe.code("instrument", f"aave-v3:{name}")
        assert found.final[k] == pytest.approx(expected[k] * share)
    gone = Stressed.calm(wide).put("receipt", universe.code("asset", "stETH"), 0.0)
    assert (run_cascade(wide, gone, STILL).final > 0.0).all()


def test_a_rate_oracle_sees_lost_backing_but_not_a_broken_peg(wide_world: World) -> None:
    snapshot = wide_world.snapshot()
    universe = snapshot.universe
    k = universe.code("instrument", "aave-v3:stETH")
    rate = ORACLE_MODES.index("exchange_rate")
    calm = Stressed.calm(snapshot).put("oracle_mode", k, rate)
    peg = calm.put("factor", universe.code("asset", "stETH"), math.log(0.9))
    blind = Engine(Plan.of(peg.snapshot)).run(peg, STILL)
    assert blind.path[0, k] == pytest.approx(1_980.0)
    assert blind.final[k] == pytest.approx(0.9 * 1_980.0)
    lost = calm.put("receipt", universe.code("asset", "stETH"), 0.9)
    seen = Engine(Plan.of(lost.snapshot)).run(lost, STILL)
    assert seen.path[0, k] == pytest.approx(0.9 * 1_980.0)


def test_funds_that_are_gone_pay_nothing(tiny: Snapshot) -> None:
    fall = Price(asset="BTC", move=-0.2)
    found = ran(tiny, Fund(venue="hyperliquid", multiplier=0.25), fall)
    assert found.paid.sum() == pytest.approx(3_000 - 250)
    assert found.by_venue()["funds_paid_usd"].sum() == pytest.approx(250)


def test_rates_are_charged_before_the_first_round(tiny: Snapshot) -> None:
    # 1 % an hour for 70 hours on 10,000 USDC: 17,000 owed against 16,000 of cover
    charged = ran(tiny, Rate(per_hour=0.01, hours=70.0, instrument="aave-v3:USDC"))
    row = tiny.book.row_of(1)
    assert row in charged.hit
    assert charged.hold.legs["qty"][1] == pytest.approx(-17_000)
    assert tiny.book.qty[1] == -10_000  # the snapshot is as it was
    # 10 % of 40,000 from the long to the short: 5,000 of margin less 4,000 is what is asked, 1,000
    held = ran(tiny, Funding(per_hour=0.01, hours=9.9, venue="hyperliquid"))
    assert not len(held.hit)
    paid = ran(tiny, Funding(per_hour=0.01, hours=10.1, venue="hyperliquid"))
    assert list(paid.hit) == [tiny.book.row_of(2)]
    assert paid.hold.accounts["cash"].sum() == pytest.approx(0.0)
    assert any("rates were charged" in note for note in paid.notes)


def test_a_run_on_a_reserve_is_paid_out_of_what_is_not_lent(tiny: Snapshot) -> None:
    # 50,000 supplied, 30,000 lent: of 30,000 that want out, 20,000 can
    found = ran(tiny, WithdrawalRun(share=0.6, instrument="aave-v3:USDC"))
    row = found.reserves().row(0, named=True)
    assert row["withdrawn_usd"] == pytest.approx(20_000)
    assert row["locked_usd"] == pytest.approx(10_000)
    assert row["utilisation"] == pytest.approx(1.0)
    assert found.headline()["locked_usd"] == pytest.approx(10_000)
    assert any("locked" in note for note in found.notes)


def test_what_is_not_seen_is_told_three_ways(tiny: Snapshot) -> None:
    # The book holds all 30,000 that are lent, and half of an open interest of 80,000 USD.
    options = Options(impact=Impact.EXPONENTIAL, floor=0.0)
    found = ran(tiny, Price(asset="BTC", move=-0.2), options=options)
    alone = Coverage.of(found.plan.snapshot)
    assert alone.share == 1.0
    assert covered_losses(found, alone)["liquidated_usd"].n_unique() == 1
    seen = Coverage.of(found.plan.snapshot, {"hyperliquid:BTC/USDC:USDC": 80_000.0})
    assert seen.share == pytest.approx(70_000 / 110_000)
    rows = {row["unseen"]: row for row in covered_losses(found, seen).to_dicts()}
    assert rows[LOWER_BOUND]["shortfall_usd"] == pytest.approx(3_000)
    assert rows[SCALED]["shortfall_usd"] == pytest.approx(6_000)
    # 6,000 lacking against the same 1,000: five sixths are taken from winners, twice a sixth sold
    assert rows[RESIDUAL]["shortfall_usd"] == pytest.approx(6_000)
    own = 2 / 6 / 2 / 10
    mean = (40_000 + 2 * 80_000) / 120_000  # a spot pool serves both venues
    spot = 1 / 6 / 2 / (10 / mean)
    fall = 1 - 0.8 * (40_000 * math.exp(-spot) + 80_000 * math.exp(-spot - own)) / 120_000
    assert rows[RESIDUAL]["final_fall"] == pytest.approx(fall * 120_000 / 140_000)
    with pytest.raises(StateError, match="open interest"):
        Coverage.of(found.plan.snapshot, {"hyperliquid:BTC/USDC:USDC": 0.0})
    with pytest.raises(StateError, match="nowhere"):
        Coverage.of(found.plan.snapshot, {"nowhere": 1.0})


def test_what_cannot_be_run_is_refused_in_words(tiny: Snapshot, demo: Plan) -> None:
    with pytest.raises(StateError, match="no asset is called 'ETG'"):
        ran(tiny, Price(asset="ETG", move=-0.1))
    with pytest.raises(MisalignedState, match="different universes"):
        run_cascade(demo, Stressed.calm(tiny))
    wild = Stressed.calm(tiny).put("factor", tiny.universe.code("asset", "ETH"), -60.0)
    with pytest.raises(StateError, match=r"aave-v3:ETH would be multiplied by exp\(-60\)"):
        run_cascade(tiny, wild)
    dear = Stressed.calm(tiny).put("factor", tiny.universe.code("asset", "BTC"), math.log(100.0))
    with pytest.raises(StateError, match=r"left all bounds: hyperliquid:BTC.* rose 100 times"):
        run_cascade(tiny, dear, STILL)
    nothing = Stressed.calm(tiny).put("factor", 0, np.nan)
    with pytest.raises(StateError, match="not finite"):
        run_cascade(tiny, nothing)


def test_what_moves_no_price_for_want_of_depth_is_said(tiny: Snapshot) -> None:
    found = ran(tiny, Price(asset="ETH", move=-0.4), options=Options())
    assert "no depth is known of ETH: sales of it move no price" in found.notes
    assert not ran(tiny, Price(asset="ETH", move=-0.4)).notes


def test_options_come_from_the_scenario_unless_given(tiny: Snapshot) -> None:
    asked = Options(impact=Impact.LINEAR, responses=Responses(convert=True))
    scenario = Scenario(name="x", shocks=(Peg(asset="USDC", level=0.99),), options=asked)
    assert run_cascade(tiny, scenario).options is asked
    assert run_cascade(tiny, scenario, STILL).options is STILL


def test_what_is_no_snapshot_and_no_scenario_is_refused_by_name() -> None:
    world = tiny_world()
    with pytest.raises(StateError, match="snapshot was of type World; it must be a Snapshot"):
        run_cascade(world, load_scenario("2025-10-10"))  # type: ignore[arg-type]
    with pytest.raises(StateError, match=r"pass load_scenario\('2025-10-10'\)"):
        run_cascade(world.snapshot(), "2025-10-10")  # type: ignore[arg-type]
