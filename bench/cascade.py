"""The cascade: one on a whole perp venue's worth of accounts, and many at once on a million.

The baseline follows the same scenarios one by one with everybody judged in round 0, and must close
the same accounts for the same money, to the bit.
"""

from __future__ import annotations

import functools
import os
import resource
import time

import numpy as np

from bench.harness import Benchmark, Result, seconds
from undertow.fanout import Threads
from undertow.kernels import sweep as kernel
from undertow.stress.cascade import Engine
from undertow.stress.draws import Gaussian
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.stressed import Stressed
from undertow.stress.sweep import run_sweep
from undertow.worlds import bench_book

SEED, SIGMA, CORRELATION = 1, 0.12, 0.6
VENUE_ACCOUNTS, MANY_ACCOUNTS, SCENARIOS, ALONE = 437_723, 1_000_000, 128, 6


@functools.cache
def _plan(accounts: int) -> tuple[Plan, float]:
    snapshot = bench_book(seed=SEED, accounts=accounts).snapshot()
    began = time.perf_counter()
    return Plan.of(snapshot), time.perf_counter() - began


def _draws(plan: Plan) -> Gaussian:
    """Every asset that follows nothing moves by about 12 %, correlated 0.6; money stands still."""
    universe = plan.snapshot.universe
    moves = (universe.reference < 0) & ~universe.stable
    sigma = np.where(moves, SIGMA, 0.0)
    correlation = np.full((len(sigma), len(sigma)), CORRELATION)
    np.fill_diagonal(correlation, 1.0)
    return Gaussian.of(sigma, correlation)


def one_cascade() -> Result:
    """One cascade to its end on 437,723 accounts, a draw of 12 %; preparation apart."""
    plan, prepared = _plan(VENUE_ACCOUNTS)
    engine, calm = Engine(plan), Stressed.calm(plan.snapshot)
    moves = _draws(plan).draw(SEED, 0, 16)
    typical = moves[np.argsort(moves.mean(axis=1))[len(moves) // 2]]
    stressed = calm.put("factor", slice(None), typical)
    found = engine.run(stressed, Options(), trace=False, path=False)
    taken = seconds(lambda: engine.run(stressed, Options(), trace=False, path=False))
    return Result(
        "one_cascade",
        {"accounts": VENUE_ACCOUNTS, "rounds": found.rounds, "closed": len(found.hit)},
        {"seconds": taken, "prepare_seconds": prepared},
        goal="50 ms, preparation apart",
        holds=taken <= 0.05,
    )


def many_cascades() -> Result:
    """Joint scenarios on a million accounts, screened together; beside it, one by one."""
    plan, prepared = _plan(MANY_ACCOUNTS)
    draws, workers = _draws(plan), os.cpu_count() or 1
    run_sweep(plan, draws, 2, seed=SEED, settled=False)  # compiles
    began = time.perf_counter()
    many = run_sweep(plan, draws, SCENARIOS, seed=SEED, settled=False, executor=Threads(workers))
    each = (time.perf_counter() - began) / SCENARIOS
    engine, calm = Engine(plan), Stressed.calm(plan.snapshot)
    alone = []
    for n in np.linspace(0, SCENARIOS - 1, ALONE).astype(int):
        stressed = calm.put("factor", slice(None), draws.draw(SEED, int(n), 1)[0])
        began = time.perf_counter()
        found = engine.run(stressed, Options(), trace=False, path=False)
        alone.append(time.perf_counter() - began)
        closed = np.zeros(len(plan.closing))
        for k, venue in enumerate(plan.snapshot.universe.venue_of):
            closed[venue] += found.closed[k]
        if not (closed == many.by_venue[n, kernel.BY_CLOSED]).all():
            raise AssertionError(f"scenario {n} closed something else alone than among many")
    single = float(np.mean(alone))
    return Result(
        "many_cascades",
        {"accounts": MANY_ACCOUNTS, "scenarios": SCENARIOS, "workers": workers},
        {
            "seconds_a_scenario": each,
            "seconds_for_10000": each * 10_000,
            "prepare_seconds": prepared,
            "accounts_closed_mean": float(many.rows["accounts"].mean()),
            "rounds_mean": float(many.rows["rounds"].mean()),
            "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        },
        goal="10,000 scenarios in 10 s and 4 GiB",
        holds=each * 10_000 <= 10.0,
        baseline={"seconds_a_scenario": single},
        ratio={"one_by_one": single / each},
    )


BENCHMARKS: dict[str, Benchmark] = {"one_cascade": one_cascade, "many_cascades": many_cascades}
