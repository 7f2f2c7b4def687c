"""One cascade divided among workers: the bits of the engine alone, however it is divided."""

from __future__ import annotations

import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numba
import numpy as np
import polars as pl
import pytest

from stress.running import shocked
from stress.test_engine_against_reference import (
    MINUTE,
    SETTINGS,
    all_late,
    few_hands,
    no_funds,
    snapshot_of,
    with_profile,
    world_of,
)
from undertow.errors import MisalignedState, StateError, WorkerError
from undertow.fanout import Executor, Processes, Ray, Serial, Threads
from undertow.kernels import cascade, closers, rounds
from undertow.kernels.closing import BANDS
from undertow.rules.snapshot import Snapshot
from undertow.state.arrays import frozen
from undertow.stress.aftermath import Cascade
from undertow.stress.cascade import LEAK, run_cascade
from undertow.stress.options import Options, Responses
from undertow.stress.plan import Plan
from undertow.stress.scenario import load_scenario
from undertow.stress.setting import case_of
from undertow.stress.shards import (
    Keeper,
    Shards,
    _as_laid_out,
    _each,
    cuts,
    divided,
    part_of,
    run_sharded,
)
from undertow.stress.stressed import Stressed
from undertow.worlds import World

OWNERS = Responses(top_up=True, delever=True, unwind=True, convert=True, willing=0.7)
COLUMNS = (
    "path", "acted", "flows", "shocked", "final", "sold", "closed", "repaid", "bad", "unpaid",
    "short", "paid", "gain", "cut", "slipped", "insurance", "backstop", "remaining", "cash", "hit",
    "emptied",
)  # fmt: skip


def shut(stressed: Stressed) -> Stressed:
    """Every venue down for three rounds."""
    return stressed.put("closed_until_us", slice(None), 3 * MINUTE)


# (a world, or one with a venue by another profile; what is done to a fall by 30 %; options)
CASES: dict[str, tuple[tuple[str, ...], Callable[[Stressed], Stressed], Options]] = {
    **{
        name: (("2",), *SETTINGS[name])
        for name in ("plain", "broken oracles", "late options", "outages", "rates", "recovery",
                     "withdrawal", "losses pro rata", "everything")
    },
    "a hand-made book": (("tiny",), no_funds, Options(responses=OWNERS)),
    "winners pay": (("demo",), no_funds, Options()),
    "winners pay late": (("demo",), lambda s: all_late(no_funds(s)), Options()),
    "few liquidators": (("demo",), few_hands, Options(capacity=True, profitable=True)),
    "everybody waits": (("2",), lambda s: shut(few_hands(s)), Options(capacity=True)),
    "owners respond": (("demo",), no_funds, Options(responses=OWNERS)),
    "owners respond, and liquidators are few": (
        ("demo",), lambda s: few_hands(no_funds(s)), Options(capacity=True, responses=OWNERS),
    ),
    "auctions are late": (("demo", "aave-v3", "sky"), no_funds, Options(max_rounds=45)),
    "bands": (("demo", "morpho-blue", "crvusd"), few_hands, Options(capacity=True)),
    "portfolios": (("demo", "deribit", "deribit"), no_funds, Options()),
}  # fmt: skip
WORST = "owners respond, and liquidators are few"


def stressed_of(name: str) -> tuple[Plan, Stressed, Options]:
    world, change, options = CASES[name]
    snapshot = with_profile(*world) if len(world) == 3 else snapshot_of(*world)
    return Plan.of(snapshot), change(shocked(snapshot, 0.7)), options


def cheap() -> Snapshot:
    """The demo world when all that is dear has lost a tenth: many are due before any shock."""
    world, price = world_of("demo"), pl.col("price")
    lower = pl.when(price > 1.5).then(0.9 * price).otherwise(price).alias("price")
    tables = {**world.tables, "prices": world.tables["prices"].with_columns(lower)}
    return World(0, world.ts, MappingProxyType(tables), world.truth).snapshot()


def read_only(array: Any) -> Any:
    """A copy, as an array arrives on Ray."""
    return frozen(array.copy())


def require_same(whole: Cascade, other: Cascade) -> None:
    """All bits alike; the engine's trace put into the order of rounds and accounts."""
    for name in COLUMNS:
        one, two = getattr(whole, name), getattr(other, name)
        assert one.dtype == two.dtype, name
        assert one.tobytes() == two.tobytes(), name
    assert (whole.outcome, whole.rounds, whole.notes) == (other.outcome, other.rounds, other.notes)
    assert whole.log is not None
    assert other.log is not None
    log = whole.log[np.lexsort((whole.log["account"], whole.log["round"]))]
    assert len(log) == len(other.log)
    for name in log.dtype.names:
        assert log[name].tobytes() == other.log[name].tobytes(), name
    rows = np.argsort(whole.touched["account"])
    for name in ("account", "cash", "ready", "state"):
        assert (whole.touched[name][rows] == other.touched[name]).all(), name
    assert (whole.settled is None) == (other.settled is None)
    if whole.settled is not None and other.settled is not None:
        require_same(whole.settled, other.settled)


@pytest.mark.parametrize("name", CASES)
def test_any_number_of_shards_gives_the_same_bits(name: str) -> None:
    plan, stressed, options = stressed_of(name)
    alone = run_cascade(plan, stressed, options, check=True)
    assert alone.acted.sum() >= (3 if name == "a hand-made book" else 100)
    for shards in (1, 3, 7):
        apart = run_sharded(plan, stressed, options, shards=shards, check=True)
        require_same(alone, apart)
        assert apart.worst_leak is not None
        assert apart.worst_leak < LEAK


def test_the_cases_reach_every_way_that_a_round_can_go() -> None:
    ran = {name: run_cascade(*stressed_of(name)) for name in CASES}
    reasons = set().union(*(found.log["reason"].tolist() for found in ran.values()))
    assert reasons == {
        cascade.LIQUIDATED, cascade.DELEVERAGED, cascade.CONVERTED, cascade.TOPPED_UP,
        cascade.UNWOUND, cascade.BY_OWNER,
    }  # fmt: skip
    taken = ran["winners pay"].log[ran["winners pay"].log["reason"] == cascade.DELEVERAGED]
    assert len(np.unique(taken["inst"])) > 3
    assert len(taken) > 20
    assert (ran["auctions are late"].plan.closing["delay_us"] > 0).any()
    assert (ran["bands"].plan.closing["mechanism"] == BANDS).any()


@pytest.mark.parametrize(
    "executor",
    [Threads(2), Threads(7), Processes(2)],
    ids=["threads", "a thread each", "processes"],
)
def test_any_executor_gives_the_same_bits(executor: Executor) -> None:
    with executor.crew(Keeper, range(executor.width())) as crew:
        for name in ("everything", WORST):
            plan, stressed, options = stressed_of(name)
            alone = run_cascade(plan, stressed, options, settle=False, check=True)
            for shards in (1, 3, 7):
                run = Shards(crew, shards)
                require_same(alone, run(plan, stressed, options, check=True, trace=True))


@pytest.mark.slow
@pytest.mark.ray
def test_ray_gives_the_same_bits() -> None:
    plan, stressed, options = stressed_of("a hand-made book")
    alone = run_cascade(plan, stressed, options, settle=False)  # first: it compiles for the workers
    with Ray("local", workers=2).crew(Keeper, range(2)) as crew:
        for shards in (1, 3, 7):
            run = Shards(crew, shards)
            require_same(alone, run(plan, stressed, options, check=False, trace=True))


def test_owners_may_have_a_shard_each_and_shards_may_be_empty() -> None:
    plan, stressed, options = stressed_of("a hand-made book")
    owners = len(plan.owner_start) - 1
    alone = run_cascade(plan, stressed, options, check=True)
    for shards in (owners, owners + 1, 3 * owners):
        ends = cuts(case_of(plan, stressed, options), shards)
        assert len(ends) == shards + 1
        assert (ends[0], ends[-1]) == (0, owners)
        assert (np.diff(ends) >= 0).all()
        require_same(alone, run_sharded(plan, stressed, options, shards=shards, check=True))
    assert (np.diff(ends) == 0).sum() >= 2 * owners


def test_a_book_of_nobody_is_quiet_in_shards_too() -> None:
    plan, stressed, options = stressed_of("plain")
    empty = part_of(case_of(plan, stressed, options), plan.holders, 0, 0)
    nobody = replace(
        plan, hold=empty.case.hold, holders=empty.holders, owner_start=empty.case.owner_start
    )
    with divided(3) as run:
        found = run(nobody, stressed, options, check=True, trace=True)
    assert found.acted.sum() == 0
    assert len(found.touched) == 0
    assert found.log is not None
    assert len(found.log) == 0


def test_shards_are_whole_owners_and_about_alike() -> None:
    plan, stressed, options = stressed_of("winners pay")
    case = case_of(plan, stressed, options)
    ends = cuts(case, 7)
    parts = [part_of(case, plan.holders, *end) for end in pairwise(ends)]
    legs = np.array([len(part.case.hold.legs) for part in parts])
    most = np.bincount(plan.snapshot.book.owner[plan.snapshot.book.leg_account]).max()
    assert legs.sum() == len(plan.hold.legs)
    assert (abs(legs - legs.mean()) <= most + 1).all()
    for part in parts:
        held, holders = part.case.hold.accounts, part.holders
        assert held["owner"].min() == 0
        assert held["first"][0] == 0
        assert held["last"][-1] == len(part.case.hold.legs)
        inst = np.repeat(np.arange(len(plan.insts)), np.diff(holders.start))
        assert (part.case.hold.legs["inst"][holders.leg] == inst).all()
        account = np.searchsorted(held["last"], holders.leg, side="right")
        assert (account == holders.account).all()


def test_kernels_meet_the_types_that_they_were_compiled_for() -> None:
    plan, stressed, options = stressed_of(WORST)
    case = case_of(plan, stressed, options)
    part = part_of(case, plan.holders, 3, 90)
    for came in (part, pickle.loads(pickle.dumps(part)), _each(part, read_only)):
        laid_out: Any = _as_laid_out(came)
        assert numba.typeof(laid_out.case) == numba.typeof(case)
        assert numba.typeof(laid_out.holders) == numba.typeof(plan.holders)
    kernels = (cascade.judge, closers.close_due, rounds.winners, rounds.take_from_winners)
    run_sharded(plan, stressed, options, shards=2, trace=False)
    known = [set(kernel.signatures) for kernel in kernels]
    run_sharded(plan, stressed, options, shards=3, executor=Threads(2), trace=False)
    assert known == [set(kernel.signatures) for kernel in kernels]


def test_a_packaged_replay_runs_in_shards_after_settling() -> None:
    scenario, snapshot = load_scenario("2020-03-12"), cheap()
    alone = run_cascade(snapshot, scenario)
    assert alone.settled is not None
    assert min(len(alone.hit), len(alone.settled.hit)) > 100
    require_same(alone, run_sharded(snapshot, scenario, shards=3, executor=Threads(2)))


def test_a_long_trace_is_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, stressed, options = stressed_of("winners pay")
    alone = run_cascade(plan, stressed, options)
    monkeypatch.setattr("undertow.stress.shards.FIRST_LOG", 5)
    require_same(alone, run_sharded(plan, stressed, options, shards=3))


def test_without_a_trace_nothing_else_changes() -> None:
    plan, stressed, options = stressed_of("winners pay")
    found = run_sharded(plan, stressed, options, shards=3, trace=False)
    alone = run_cascade(plan, stressed, options, trace=False)
    assert found.log is None
    assert all((getattr(found, name) == getattr(alone, name)).all() for name in COLUMNS)


class Mortal(Keeper):
    """Shards whose worker is killed in the second round, where it is the second worker."""

    def __init__(self, shared: None, number: int) -> None:
        super().__init__(shared, number)
        self._doomed = number == 1

    def ask(self, method: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
        if self._doomed and method == "judge" and arguments[0][0] == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().ask(method, arguments)


def test_a_worker_that_dies_ends_the_cascade_with_an_error() -> None:
    plan, stressed, options = stressed_of("a hand-made book")
    with (
        Processes(2).crew(Mortal, range(2)) as crew,
        pytest.raises(WorkerError, match=r"member 1 .*died \(killed by SIGKILL\)"),
    ):
        Shards(crew, 3)(plan, stressed, options, check=False, trace=False)


def test_what_cannot_be_is_refused() -> None:
    plan, stressed, options = stressed_of("a hand-made book")
    with pytest.raises(StateError, match="shards was 0"):
        run_sharded(plan, stressed, options, shards=0)
    with pytest.raises(MisalignedState):
        run_sharded(Plan.of(snapshot_of("demo")), stressed, options, shards=2)
    with divided(3, Serial()) as run:
        assert repr(run) == "Shards(3 on 1 workers)"
