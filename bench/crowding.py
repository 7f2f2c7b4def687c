"""Crowding on a million accounts: a surface of joint moves, and the whole family."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np

from bench.foundation import SEED
from bench.harness import Benchmark, Result, seconds
from undertow.fanout import Threads
from undertow.fanout.machine import usable_cpus
from undertow.measures import Ground, Study, chosen
from undertow.measures.crowding import Crowd, fragility, saturation
from undertow.measures.crowding.fragility import MOST
from undertow.rules.snapshot import Snapshot
from undertow.stress.stressed import Stressed
from undertow.worlds import bench_book

THIN = (1.0, 0.4)  # times the book's depth: it saturates in both
POINTS = (20, 10)  # market falls, by falls of one asset beyond them


def at_risk_surface() -> Result:
    """Debt and notional called at 200 joint moves; beside it, asking the rules of everybody."""
    crowd = Crowd.of(bench_book(seed=SEED).snapshot())
    points, group, weight = _surface(crowd)
    workers = usable_cpus()
    with crowd.at_risk(Threads(workers)) as book:
        taken = seconds(lambda: book.called(points, group, weight))
        found = book.called(points, group, weight)
    few = points[:: len(points) // 10]
    plain = seconds(lambda: _plain(crowd, few, weight), runs=1, warm=1) * len(points) / len(few)
    told = _plain(crowd, few, weight)
    apart = np.abs(found.total.sum(axis=1)[:: len(points) // 10] - told)
    error = float(apart.max() / told.max())
    return Result(
        "at_risk_surface",
        {"accounts": crowd.snapshot.book.accounts, "points": len(points), "workers": workers},
        {"seconds": taken, "largest_error": error, "most_called": float(found.accounts.max())},
        "<= 3 s, the same sums",
        taken <= 3.0 and error <= 1e-9,
        {"rules_of_everybody_seconds": plain},
        {"to_rules_of_everybody": plain / taken},
    )


def _surface(crowd: Crowd) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    universe = crowd.snapshot.universe
    roots = (universe.root == np.arange(len(universe.assets))) & ~universe.stable
    one = np.zeros(len(roots))
    one[np.flatnonzero(roots)[0]] = 1.0
    market, share = np.meshgrid(*(np.linspace(0.0, 0.4, n) for n in POINTS), indexing="ij")
    points = np.outer(np.log1p(-market.ravel()), roots) + np.outer(np.log1p(-share.ravel()), one)
    group = crowd.snapshot.book.venue.astype(np.int64)
    return points, group, np.stack([crowd.debt, crowd.notional], axis=1)


def _plain(crowd: Crowd, points: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """The same by asking the compiled rules of every account at every point, one by one."""
    from undertow.kernels import atrisk, pressure
    from undertow.stress.options import Options
    from undertow.stress.setting import case_of, shocks_of, state_of

    plan, calm = crowd.plan.unpacked(), Stressed.calm(crowd.snapshot)
    case = case_of(plan, calm, Options())
    state, everybody = state_of(case), np.arange(crowd.snapshot.book.accounts)
    called = np.empty(len(everybody), dtype=np.int8)
    sums = []
    for row in points:
        shock = np.stack(shocks_of(plan, calm, row))
        pressure.set_prices(np.zeros(plan.carriers.pools), shock, case, state)
        atrisk.called_at(everybody, case, state, called)
        sums.append(weight[called == 1].sum(axis=0))
    return np.array(sums)


def crowding_family() -> Result:
    """Every measure of the family once, on one book; the layout of the book is in it."""
    snapshot = bench_book(seed=SEED).snapshot()
    workers = usable_cpus()
    _whole(snapshot, workers)  # compiles
    took = _whole(snapshot, workers)
    total = sum(took.values())
    return Result(
        "crowding_family",
        {"accounts": snapshot.book.accounts, "workers": workers},
        {"seconds": total, **{f"{k}_seconds": v for k, v in took.items()}},
        "<= 15 s",
        total <= 15.0,
    )


def stand_ins() -> Result:
    """Fragility and saturation by some accounts that stand for all, against every account."""
    executor = Threads(usable_cpus())
    book = Crowd.of(bench_book(seed=SEED).snapshot()).settled
    shares, ratio, apart, broke = 0.0, [], 0.0, 0
    for times in THIN:
        crowd = book.with_depth(times)
        curve = partial(fragility, crowd, doubt=1.0, executor=executor)
        index = partial(saturation, crowd, doubt=1.0, assets=0, furthest=0.3, executor=executor)
        for ask in (curve, index):
            ask()  # compiles, and lays the book out
            some, quick = _timed(ask)
            every, slow = _timed(partial(ask, most=None))
            ratio.append(slow / quick)
            if ask is curve:
                columns = ("liquidated_share", "insolvency_share", "final_fall")
                told = [study.tables["curve"].select(columns).to_numpy() for study in (some, every)]
                shares = max(shares, float(np.abs(told[0] - told[1]).max()))
            else:
                at = [study.tables["directions"]["at"] for study in (some, every)]
                broke += at[1].drop_nulls().len()
                apart = max(apart, float((at[0] / at[1] - 1.0).abs().max() or 0.0))
    return Result(
        "stand_ins",
        {"accounts": book.snapshot.book.accounts, "most": MOST},
        {
            "largest_error_of_a_share": shares,
            "largest_error_of_saturation": apart,
            "directions_that_saturate": float(broke),
        },
        "shares within 0.01, saturation of two directions or more within 2 %",
        shares <= 0.01 and apart <= 0.02 and broke >= 2,
        {},
        {"fragility": ratio[0], "saturation": ratio[1]},
    )


def _timed(run: Callable[[], Study]) -> tuple[Study, float]:
    began = time.perf_counter()
    return run(), time.perf_counter() - began


def _whole(snapshot: Snapshot, workers: int) -> dict[str, float]:
    ground = Ground("asset", snapshot, executor=Threads(workers))
    took = {}
    for measure in chosen(["crowding"]):
        began = time.perf_counter()
        measure.function(ground)
        took[measure.name.partition(".")[2]] = time.perf_counter() - began
    return took


BENCHMARKS: dict[str, Benchmark] = {
    "at_risk_surface": at_risk_surface,
    "crowding_family": crowding_family,
    "stand_ins": stand_ins,
}
