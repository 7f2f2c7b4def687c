"""The cascade: one on a whole perp venue's worth of accounts, and many at once on a million.

The baseline follows the same scenarios one by one with everybody judged in round 0, and must close
the same accounts for the same money, to the bit. `compare_cascades` adds two that know nothing of
the engine's way to find whom to judge: a compiled kernel over sorted blocks, and sparse matrices.
"""

from __future__ import annotations

import functools
import os
import resource
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
from numba import njit

from bench.blocked import Blocked
from bench.harness import Benchmark, Result, seconds
from bench.sparse import Sparse
from bench.totals import Totals
from undertow.fanout import Executor, Serial, Threads
from undertow.kernels import accounts as account_kernel
from undertow.kernels import sweep as kernel
from undertow.state import FloatMatrix
from undertow.stress.cascade import Engine
from undertow.stress.draws import Gaussian, Given
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.setting import shocks_of
from undertow.stress.stressed import Stressed
from undertow.stress.sweep import LANES, Sweep, run_sweep
from undertow.worlds import bench_book

SEED, SIGMA, CORRELATION = 1, 0.12, 0.6
VENUE_ACCOUNTS, MANY_ACCOUNTS, SCENARIOS, ALONE = 437_723, 1_000_000, 512, 6
DRAWN, COMPARED, SINGLY = 2_048, 256, 64
GROWING, SCENARIO_COUNTS = (62_500, 250_000, 1_000_000), (32, 128, 512)
PARTS = 3  # early, middling and late to settle
CLOSE = 1e-6  # of the book, how near the sparse version must come


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
    many, each, _ = _steady(plan, draws.draw(SEED, 0, SCENARIOS), Threads(workers))
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


def stratified(plan: Plan, drawn: int, kept: int) -> FloatMatrix:
    """Factor moves of `kept` out of `drawn` scenarios, evenly spread over the mean move."""
    moves = _draws(plan).draw(SEED, 0, drawn)
    step = drawn // kept
    return moves[np.argsort(moves.mean(axis=1))][step // 2 :: step]


def _spent(plan: Plan, moves: FloatMatrix, executor: Executor) -> tuple[Sweep, float]:
    """A sweep over given moves, and the seconds that it took."""
    began = time.perf_counter()
    many = run_sweep(plan, Given.of(moves), len(moves), seed=SEED, settled=False, executor=executor)
    return many, time.perf_counter() - began


def _steady(plan: Plan, moves: FloatMatrix, executor: Executor) -> tuple[Sweep, float, float]:
    """A sweep, its seconds a scenario once memory is laid out, and the seconds until then.

    A quarter of the scenarios, just as mixed, is followed first: what more of them cost is the
    pace, and what is left of the first is preparation.
    """
    some = moves[::4]
    _spent(plan, some[:2], executor)  # whatever happens but once in a process
    _, short = _spent(plan, some, executor)
    many, long = _spent(plan, moves, executor)
    each = (long - short) / (len(moves) - len(some))
    return many, each, max(short - each * len(some), 0.0)


def _best(work: Callable[..., object], *given: object) -> float:
    """Least seconds of two runs: what else a shared machine did only ever adds."""
    taken = []
    for _ in range(2):
        began = time.perf_counter()
        work(*given)
        taken.append(time.perf_counter() - began)
    return min(taken)


def _require_same(found: Totals, many: Sweep, n: int, who: str, within: float) -> None:
    """Refuse to compare the time of what does not give the same answer."""
    universe, row = many.plan.snapshot.universe, many.rows[n]
    counts = tuple(int(row[k]) for k in ("rounds", "accounts", "owners", "called_twice"))
    if found.counts != (*counts, int(row["most_venues"])):
        raise AssertionError(f"scenario {n} closed {found.counts} in {who}, {counts} in the sweep")
    for kind, column in (
        (kernel.BY_CLOSED, found.closed), (kernel.BY_REPAID, found.repaid),
        (kernel.BY_BAD, found.bad),
    ):  # fmt: skip
        for sums, codes in (
            (many.by_venue, universe.venue_of), (many.by_asset, universe.asset_of),
        ):  # fmt: skip
            apart = np.abs(np.bincount(codes, column, sums.shape[2]) - sums[n, kind]).max()
            if not apart <= within:
                raise AssertionError(f"scenario {n} is {apart:,.2f} USD apart in {who}")


def compare_cascades() -> Result:
    """Many at once on a million accounts, beside three ways to follow the same scenarios singly."""
    plan, _ = _plan(MANY_ACCOUNTS)
    moves, workers = stratified(plan, DRAWN, COMPARED), os.cpu_count() or 1
    run_sweep(plan, Given.of(moves), 2, seed=SEED, settled=False)  # compiles
    many, each, prepared = _steady(plan, moves, Serial())
    _, together, _ = _steady(plan, moves, Threads(workers))
    singly, preparing = _followed_singly(plan, moves, many)
    mean = {who: float(np.mean(taken)) for who, taken in singly.items()}
    return Result(
        "cascade_baselines",
        {
            "accounts": MANY_ACCOUNTS,
            "scenarios": COMPARED,
            "workers": workers,
            **{f"{who}_scenarios": len(taken) for who, taken in singly.items()},
        },
        {
            "seconds_a_scenario": each,
            "seconds_on_all_cores": together,
            "prepare_seconds": prepared,
            "accounts_closed_mean": float(many.rows["accounts"].mean()),
            "rounds_mean": float(many.rows["rounds"].mean()),
        },
        goal="5 times as fast as the blocked kernel",
        holds=mean["blocked"] >= 5.0 * each,
        baseline={
            **{f"{who}_seconds_a_scenario": taken for who, taken in mean.items()},
            **{f"{who}_prepare_seconds": taken for who, taken in preparing.items()},
        },
        ratio={**{who: taken / each for who, taken in mean.items()}, "all_cores": each / together},
    )


def _followed_singly(
    plan: Plan, moves: FloatMatrix, many: Sweep
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds of each scenario, and of preparation, by who follows it; all must agree."""
    calm, book, engine = (
        Stressed.calm(plan.snapshot), float(plan.gross_usd.sum()), Engine(plan),
    )  # fmt: skip
    began = time.perf_counter()
    blocked = Blocked.of(plan)
    between = time.perf_counter()
    sparse = Sparse.of(plan)
    preparing = {"blocked": between - began, "sparse": time.perf_counter() - between}
    taken: dict[str, list[float]] = {"one_by_one": [], "blocked": [], "sparse": []}
    for turn in range(SINGLY):
        n = turn * (len(moves) // SINGLY)  # as mixed as all of them
        stressed = calm.put("factor", slice(None), moves[n])
        shock = np.stack(shocks_of(plan, stressed))
        _require_same(blocked.follow(shock), many, n, "blocks", 0.0)
        taken["blocked"].append(_best(blocked.follow, shock))
        began = time.perf_counter()
        found = sparse.follow(shock)
        taken["sparse"].append(time.perf_counter() - began)
        _require_same(found, many, n, "matrices", CLOSE * book)
        alone = functools.partial(engine.run, stressed, Options(), trace=False, path=False)
        taken["one_by_one"].append(_best(alone))
    return taken, preparing


@njit(cache=True, nogil=True)
def _added(column):
    """Sum of a column: reads it once."""
    total = 0
    for i in range(column.size):
        total += column[i]
    return total


@njit(cache=True, nogil=True)
def _copied(source, target):
    """Copy a column: reads it once, and writes as much."""
    for i in range(source.size):
        target[i] = source[i]


def _bandwidth() -> tuple[float, float]:
    """Bytes a second that one core reads, and that it copies (read and written)."""
    column = np.ones(2**25, dtype=np.int64)
    target = np.zeros_like(column)
    return (
        column.nbytes / seconds(lambda: _added(column), runs=5),
        2 * column.nbytes / seconds(lambda: _copied(column, target), runs=5),
    )


def _least_bytes(plan: Plan, closed: float) -> float:
    """Bytes that a scenario cannot do without: its share of two looks at every line, and closings.

    A line is 4 bytes an account and 8 a leg, read once for all lanes of a batch. Who is closed is
    read once, and its row and what is left of its legs are written.
    """
    held, legs = len(plan.hold.accounts), len(plan.hold.legs)
    looks = 2 * (4 * held + 8 * legs) / LANES
    row = account_kernel.ACCOUNT.itemsize + account_kernel.TOUCH.itemsize
    leg = account_kernel.LEG.itemsize + 8
    return looks + closed * (row + leg * legs / held)


def cascade_growth() -> Result:
    """How the cost of a scenario grows: with accounts, with scenarios, with rounds; as tables too.

    The tables go to standard error, in Markdown.
    """
    figures: dict[str, float] = {}
    by_size = ["| accounts | legs | ms a scenario | closed | rounds |", "|---|---|---|---|---|"]
    for size in GROWING:
        plan, _ = _plan(size)
        kept = min(DRAWN, COMPARED * (MANY_ACCOUNTS // size))  # small books need more for a time
        moves = stratified(plan, DRAWN, kept)
        many, each, prepared = _steady(plan, moves, Serial())
        closed, taken = (float(many.rows[k].mean()) for k in ("accounts", "rounds"))
        legs = len(plan.hold.legs)
        by_size.append(f"| {size:,} | {legs:,} | {1e3 * each:.1f} | {closed:,.0f} | {taken:.1f} |")
        figures[f"seconds_a_scenario_{size}_accounts"] = each
    read, copied = _bandwidth()
    least = _least_bytes(plan, closed)
    by_count = ["| scenarios | s | of it prepared | ms each |", "|---|---|---|---|"]
    for count in SCENARIO_COUNTS:
        _, whole = _spent(plan, stratified(plan, DRAWN, count), Serial())
        by_count.append(f"| {count} | {whole:.1f} | {prepared:.1f} | {1e3 * whole / count:.1f} |")
        figures[f"seconds_{count}_scenarios"] = whole
    by_rounds = _split_by_rounds(plan, figures)
    figures |= {
        "prepare_seconds": prepared,
        "read_gb_a_second": read / 1e9,
        "copy_gb_a_second": copied / 1e9,
        "least_mb_a_scenario": least / 1e6,
        "bound_seconds": least / read,
        "share_of_bound": least / read / each,
    }
    bound = (
        f"A scenario must read or write {least / 1e6:.2f} MB at least: {1e3 * least / read:.2f} ms "
        f"at the {read / 1e9:.1f} GB/s that one core reads ({copied / 1e9:.1f} GB/s copied); it "
        f"takes {each * read / least:,.0f} times as long."
    )
    print("\n\n".join(["\n".join(t) for t in (by_size, by_count, by_rounds)] + [bound]),
          file=sys.stderr, flush=True)  # fmt: skip
    return Result(
        "cascade_growth",
        {"accounts": MANY_ACCOUNTS, "scenarios": COMPARED},
        figures,
        ratio={
            f"cost_at_{large}_over_{small}": figures[f"seconds_a_scenario_{large}_accounts"]
            / figures[f"seconds_a_scenario_{small}_accounts"]
            for small, large in pairwise(GROWING)
        },
    )


def _split_by_rounds(plan: Plan, figures: dict[str, float]) -> list[str]:
    """What scenarios cost that settle early or late: in order of their rounds, part by part."""
    moves = stratified(plan, DRAWN, COMPARED)
    many, _ = _spent(plan, moves, Serial())
    order = np.argsort(many.rows["rounds"], kind="stable")
    table = ["| rounds | ms a scenario | closed |", "|---|---|---|"]
    for n, here in enumerate(np.array_split(order, PARTS)):
        _, each, _ = _steady(plan, moves[here], Serial())
        rounds, closed = many.rows["rounds"][here], many.rows["accounts"][here].mean()
        table.append(f"| {rounds.min()} to {rounds.max()} | {1e3 * each:.1f} | {closed:,.0f} |")
        figures[f"seconds_a_scenario_part_{n + 1}_by_rounds"] = each
    return table


BENCHMARKS: dict[str, Benchmark] = {
    "one_cascade": one_cascade,
    "many_cascades": many_cascades,
    "cascade_baselines": compare_cascades,
    "cascade_growth": cascade_growth,
}
