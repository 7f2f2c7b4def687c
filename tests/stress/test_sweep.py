"""Many scenarios at once: the same bits as one by one, in any batch and on any worker."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from undertow.errors import StateError
from undertow.fanout import Processes, Ray, Serial, Threads
from undertow.kernels import sweep as kernel
from undertow.stress.cascade import Engine
from undertow.stress.draws import assumed_draws
from undertow.stress.options import Deleveraging, Options
from undertow.stress.plan import Plan
from undertow.stress.stressed import Stressed
from undertow.stress.sweep import Sweep, run_sweep
from undertow.worlds import bench_book, demo_world

COUNT, SEED = 24, 5


@cache
def plan_of(name: str) -> Plan:
    world = demo_world() if name == "demo" else bench_book(seed=3, accounts=4_000)
    return Plan.of(world.snapshot())


def swept(name: str, **knobs: object) -> Sweep:
    plan = plan_of(name)
    draws = assumed_draws(plan.snapshot, days=20.0)
    return run_sweep(plan, draws, COUNT, seed=SEED, settled=False, **knobs)  # type: ignore[arg-type]


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
        assert (alone.touched["state"] != 0).sum() == many.rows["accounts"][n]
        hit += len(alone.hit)
    assert hit > 100


@pytest.mark.parametrize("lanes", [1, 5, 32])
def test_any_batch_gives_the_same_bits(lanes: int) -> None:
    assert same(swept("bench", lanes=lanes), swept("bench"))


@pytest.mark.parametrize("executor", [Serial(), Threads(2), Threads(4), Processes(2)])
def test_any_executor_gives_the_same_bits(executor: object) -> None:
    assert same(swept("bench", executor=executor, lanes=2), swept("bench"))


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
