"""Many scenarios at once: the same bits as one by one, in any batch and on any worker."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
import pytest

from undertow.errors import StateError
from undertow.fanout import Processes, Ray, Serial, Threads
from undertow.kernels import sweep as kernel
from undertow.stress import sweep as sweep_module
from undertow.stress.cascade import Cascade, Engine, run_cascade
from undertow.stress.damage import Counterfeit
from undertow.stress.draws import Given, assumed_draws
from undertow.stress.ground import ground_of
from undertow.stress.options import Deleveraging, End, Options, Responses
from undertow.stress.outages import Fund, OracleLag, Outage
from undertow.stress.plan import Plan
from undertow.stress.scenario import Scenario, load_scenario
from undertow.stress.shock import Correlation, Depth, Peg, Price
from undertow.stress.stressed import Stressed
from undertow.stress.sweep import Sweep, run_sweep
from undertow.worlds import bench_book, demo_world, tiny_world

COUNT, SEED = 24, 5


@cache
def plan_of(name: str) -> Plan:
    world = demo_world() if name == "demo" else bench_book(seed=3, accounts=4_000)
    return Plan.of(world.snapshot())


def swept(name: str, **knobs: object) -> Sweep:
    plan = plan_of(name)
    draws = assumed_draws(plan.snapshot, days=20.0)
    return run_sweep(plan, draws, COUNT, seed=SEED, settled=False, **knobs)  # type: ignore[arg-type]


def sums_of(alone: Cascade) -> Any:
    """By kind of sum and venue, what a cascade of its own came to: in the order of a sweep."""
    venue = alone.plan.snapshot.universe.venue_of
    sums = np.zeros((kernel.SUMS, len(alone.plan.closing)))
    columns = (alone.closed, alone.repaid, alone.bad, alone.short, alone.paid)
    for kind, column in enumerate(columns):
        for k, v in enumerate(venue):
            sums[kind, v] += column[k]
    return sums


def require_the_bits_of_cascades(
    plan: Plan, stressed: Stressed, options: Options, *, days: float = 20.0, count: int = COUNT
) -> Sweep:
    """Sweep, and run every third scenario on its own as well; all sums must be the same."""
    draws = assumed_draws(plan.snapshot, days=days)
    many = run_sweep(
        plan, draws, count, seed=SEED, stressed=stressed, options=options, settled=False
    )
    engine, moves = Engine(plan), draws.draw(SEED, 0, count) + stressed.factor
    for n in range(0, count, 3):
        alone = engine.run(stressed.put("factor", slice(None), moves[n]), options, trace=False)
        counted = slice(0, kernel.BY_LACKING)
        assert (sums_of(alone)[counted] == many.by_venue[n, counted]).all()
        near = 1e-9 * alone.book_usd
        assert many.by_venue[n, kernel.BY_LACKING] == pytest.approx(alone.under_water, abs=near)
        assert many.insolvency_usd[n] == pytest.approx(alone.insolvency_usd, abs=near)
        assert alone.rounds == many.rows["rounds"][n]
        assert (alone.outcome.value == "settled") == (many.rows["outcome"][n] == 0)
    return many


def same(one: Sweep, other: Sweep) -> bool:
    rows = [name for name in kernel.SUMMARY.names or () if name not in ("watched", "looked_again")]
    return (
        all((one.rows[name] == other.rows[name]).all() for name in rows)
        and (one.by_venue == other.by_venue).all()
        and (one.by_asset == other.by_asset).all()
    )


@pytest.mark.parametrize("name", ["demo", "bench"])
def test_a_lane_gives_the_bits_of_a_cascade_of_its_own(name: str) -> None:
    many, plan = swept(name), plan_of(name)
    engine, calm = Engine(plan), Stressed.calm(plan.snapshot)
    moves = assumed_draws(plan.snapshot, days=20.0).draw(SEED, 0, COUNT)
    hit = 0
    for n in range(0, COUNT, 3):
        alone = engine.run(calm.put("factor", slice(None), moves[n]), Options(), trace=False)
        closed = np.zeros(len(plan.closing))
        for k, venue in enumerate(plan.snapshot.universe.venue_of):
            closed[venue] += alone.closed[k]
        assert (closed == many.by_venue[n, kernel.BY_CLOSED]).all()
        assert alone.rounds == many.rows["rounds"][n]
        assert len(alone.hit) == many.rows["accounts"][n]
        head = alone.headline()
        assert head["owners_called_twice"] == many.rows["called_twice"][n]
        assert many.rows["final_fall"][n] == pytest.approx(head["final_fall"], rel=1e-9)
        hit += len(alone.hit)
    assert hit > 100


@pytest.mark.parametrize("name", ["demo", "bench"])
@pytest.mark.parametrize(
    "options",
    [
        Options(responses=Responses(top_up=True)),
        Options(responses=Responses(delever=True, convert=True)),
        Options(responses=Responses(unwind=True)),
        Options(responses=Responses(top_up=True, delever=True, fitted=End.HIGH), max_rounds=20),
        Options(capacity=True),
        Options(
            capacity=True, profitable=True, recovery=0.1, withdrawal=0.5,
            responses=Responses(top_up=True, delever=True, unwind=True, convert=True, willing=0.6),
        ),
    ],
    ids=["top up", "delever and convert", "unwind", "as fitted", "limited liquidators",
         "everything"],
)  # fmt: skip
def test_owners_who_respond_and_liquidators_with_a_limit_give_the_bits_of_cascades(
    name: str, options: Options
) -> None:
    plan = plan_of(name)
    many = require_the_bits_of_cascades(plan, Stressed.calm(plan.snapshot), options)
    assert many.liquidated_usd.sum() > 0.0
    if options.responses != Responses():
        assert (many.by_venue != swept(name).by_venue).any()


SHOCKS = (
    Price(asset="ETH", move=-0.1),
    Peg(asset="wstETH", level=0.97),
    Depth(multiplier=0.5),
    OracleLag(hours=0.1, venue="aave-v3"),
    Outage(hours=0.05, venue="okx"),
    Fund(multiplier=0.5, venue="hyperliquid"),
    Correlation(weight=0.5, target=0.9),
    Counterfeit(asset="wstETH", venue="aave-v3", usd=200_000.0, borrow="USDC"),
)


@pytest.mark.parametrize("happens", [Scenario(name="much at once", shocks=SHOCKS),
                                     load_scenario("2020-03-12"), load_scenario("2026-03-10-capo")],
                         ids=lambda each: each.name)  # fmt: skip
def test_draws_on_top_of_a_scenario_give_the_bits_of_cascades(happens: Scenario) -> None:
    plan = plan_of("demo")
    ground = ground_of(plan, happens)
    many = require_the_bits_of_cascades(
        ground.plan, ground.stressed, happens.options, days=2.0, count=12
    )
    assert many.liquidated_usd.min() > 0.0


def due_before() -> Plan:
    """The tiny world at 1,200 USD a coin, where one account is due before anything happens."""
    world = tiny_world()
    low = pl.when(pl.col("instrument") == "aave-v3:ETH").then(1_200.0).otherwise("price")
    tables = dict(world.tables)
    tables["prices"] = tables["prices"].with_columns(low.alias("price"))
    return Plan.of(replace(world, tables=MappingProxyType(tables)).snapshot())


@pytest.mark.parametrize("name", ["demo", "due before"])
def test_a_draw_of_nothing_on_top_of_a_scenario_is_the_scenario(name: str) -> None:
    fraud = Counterfeit(asset="ETH", venue="aave-v3", usd=20_000.0, borrow="USDC")
    happens = Scenario(name="x", shocks=(fraud, Price(asset="market", move=-0.3)))
    plan = due_before() if name == "due before" else plan_of(name)
    alone, ground = run_cascade(plan, happens, trace=False), ground_of(plan, happens)
    if name == "demo":
        assert ground.settled is alone.settled is None
    else:
        assert ground.settled is not None
        assert alone.settled is not None
        assert (ground.settled.closed == alone.settled.closed).all()
    assert ground.stressed.digest == alone.stressed.digest
    assert len(ground.plan.hold.accounts) == len(plan.hold.accounts) + 1  # the counterfeiter's
    still = Given.of(np.zeros((1, len(plan.snapshot.universe.assets))))
    many = run_sweep(ground.plan, still, 1, stressed=ground.stressed, settled=False)
    counted = slice(0, kernel.BY_LACKING)
    assert (many.by_venue[0, counted] == sums_of(alone)[counted]).all()
    assert many.liquidated_usd[0] > 0.0


@pytest.mark.parametrize("lanes", [1, 5, 32])
def test_any_batch_gives_the_same_bits(lanes: int) -> None:
    assert same(swept("bench", lanes=lanes), swept("bench"))


@pytest.mark.parametrize("executor", [Serial(), Threads(2), Threads(4), Processes(2)])
def test_any_executor_gives_the_same_bits(executor: object) -> None:
    assert same(swept("bench", executor=executor, lanes=2), swept("bench"))


@pytest.mark.slow
@pytest.mark.ray
def test_ray_gives_the_same_bits() -> None:
    alone = swept("demo")  # first: what it compiles is there for the workers
    assert same(swept("demo", executor=Ray("local", workers=2), lanes=2), alone)


def test_deleveraging_reaches_winners_that_no_screen_listed() -> None:
    by_rank = swept("demo")
    nobody = swept("demo", options=Options(deleveraging=Deleveraging.NONE))
    assert by_rank.by_venue[:, kernel.BY_PAID].sum() > 0.0
    assert nobody.by_venue[:, kernel.BY_PAID].sum() == 0.0
    assert (by_rank.rows["accounts"] >= nobody.rows["accounts"]).any()


def test_the_tail_is_that_of_the_scenarios() -> None:
    many = swept("bench")
    tail = many.expected_shortfall(0.75)
    worst = np.sort(many.insolvency_usd)[-6:]
    assert tail.value == pytest.approx(worst.mean())
    assert tail.low <= tail.value <= tail.high
    assert many.to_polars().height == COUNT
    assert many.venues()["liquidated_usd"].sum() == pytest.approx(many.liquidated_usd.mean())
    with pytest.raises(StateError, match="liquidated"):
        many.value_at_risk(of="profit")


def test_nothing_asked_for_is_an_error() -> None:
    with pytest.raises(StateError, match="count"):
        run_sweep(plan_of("demo"), assumed_draws(plan_of("demo").snapshot), 0)


def test_one_scenario_beyond_the_room_of_sums_neither_ends_the_sweep_nor_touches_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of("demo")
    rows = np.array(assumed_draws(plan.snapshot, days=20.0).draw(SEED, 0, 12))
    rows[5, ~plan.snapshot.universe.stable] = np.log(40.0)
    many = run_sweep(plan, Given.of(rows), 12, settled=False)
    others = run_sweep(plan, Given.of(np.delete(rows, 5, axis=0)), 11, settled=False)
    assert (np.delete(many.by_venue, 5, axis=0) == others.by_venue).all()
    assert (np.delete(many.rows, 5) == others.rows).all()
    assert -many.rows["final_fall"][5] > 16.0
    assert many.liquidated_usd[5] > plan.gross_usd.sum()  # at prices forty times as high
    for lanes in (1, 5):
        again = run_sweep(plan, Given.of(rows), 12, settled=False, lanes=lanes)
        assert (again.by_venue == many.by_venue).all()
    monkeypatch.setattr(sweep_module, "MORE_ROOM", 65_536.0)
    wider = run_sweep(plan, Given.of(rows), 12, settled=False)
    near = 1e-9 * 40.0 * float(plan.gross_usd.sum())
    np.testing.assert_allclose(wider.by_venue[5], many.by_venue[5], rtol=0.0, atol=near)


def test_prices_that_rise_beyond_any_room_are_refused() -> None:
    plan = plan_of("demo")
    rows = np.zeros((1, len(plan.snapshot.universe.assets)))
    rows[0, ~plan.snapshot.universe.stable] = 12.5
    with pytest.raises(StateError, match=r"in scenario 0 .*more than 65,536 times"):
        run_sweep(plan, Given.of(rows), 1, settled=False)
