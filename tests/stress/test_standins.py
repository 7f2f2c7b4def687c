"""Accounts that stand for others: a book of triplets against one of each three."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from crowds import crowd
from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.stress import Options, Plan, Responses
from undertow.stress.cascade import Engine
from undertow.stress.draws import Given
from undertow.stress.pressure import Pressure
from undertow.stress.saturation import saturation_at
from undertow.stress.standins import is_whole, stand_ins, stood_for
from undertow.stress.sweep import Sweep, run_sweep
from undertow.worlds import bench_book, demo_world


def copied(snapshot: Snapshot, copies: int) -> Snapshot:
    """The same book with every owner so many times, copies of an owner one after the other."""
    book = snapshot.book
    account = np.repeat(np.arange(book.accounts), copies)
    copy = np.tile(np.arange(copies), book.accounts)
    order = np.lexsort((account, copy, book.owner[account]))
    account, copy = account[order], copy[order]
    count = np.diff(book.offset)[account]
    offset = np.append(0, np.cumsum(count))
    leg = np.repeat(book.offset[account] - offset[:-1], count) + np.arange(offset[-1])
    found = replace(
        book,
        # other names, so that no number of a single account is asked of one copy alone
        account=book.account.max() + 1 + np.arange(len(account)),
        owner=(book.owner[account] * copies + copy).astype(book.owner.dtype),
        owners=np.arange(len(book.owners) * copies, dtype=book.owners.dtype),
        offset=offset,
        **{name: getattr(book, name)[account] for name in ("venue", "mode", "category")},
        **{name: getattr(book, name)[leg] for name in ("inst", "kind", "qty", "entry", "evidence")},
    )
    return replace(snapshot, book=found)


def one_of_each(plan: Plan, copies: int) -> Plan:
    """The first copy of every account stands for all of them."""
    first = plan.hold.accounts["owner"] % copies == 0
    return stand_ins(plan, np.where(first, copies, 0))


@pytest.fixture(scope="module")
def triplets() -> Plan:
    return Plan.of(copied(bench_book(seed=3, accounts=1_000).snapshot(), 3))


def swept(plan: Plan) -> Sweep:
    universe = plan.snapshot.universe
    moved = (universe.root == np.arange(len(universe.assets))) & ~universe.stable
    sizes = np.array([-0.05, -0.2, -0.4, 0.3])
    return run_sweep(plan, Given.of(np.outer(np.log1p(sizes), moved)), 4, settled=False)


def test_one_of_three_that_stands_for_them_gives_the_bits_of_all_three(triplets: Plan) -> None:
    whole, some = swept(triplets), swept(one_of_each(triplets, 3))
    assert whole.rows["accounts"].min() > 50
    assert whole.rows["winners"].max() > 0  # positions are taken from winners too
    for name in ("rounds", "accounts", "winners", "owners", "called_twice", "final_fall"):
        assert (whole.rows[name] == some.rows[name]).all(), name
    assert len(one_of_each(triplets, 3).hold.accounts) == len(triplets.hold.accounts) // 3
    sold = slice(0, 5)
    assert (whole.by_venue[:, sold] == some.by_venue[:, sold]).all()
    assert (whole.by_asset == some.by_asset).all()
    assert whole.by_venue == pytest.approx(some.by_venue, rel=1e-9, abs=1e-3)


def test_pressure_counts_stand_ins_as_often_as_they_stand_there(triplets: Plan) -> None:
    with Pressure.of(triplets) as whole, Pressure.of(one_of_each(triplets, 3)) as some:
        universe = triplets.snapshot.universe
        down = (universe.root == np.arange(len(universe.assets))) & ~universe.stable
        shock = whole.shock(np.log1p(-0.2 * down))
        nothing = np.zeros(triplets.carriers.pools)
        assert whole.counts(shock, nothing).any()
        assert (whole.counts(shock, nothing) == some.counts(shock, nothing)).all()
        every, few = whole.feedback(shock, nothing), some.feedback(shock, nothing)
        assert (every.matrix == few.matrix).all()
        assert every.matrix.any()


def usd_of(plan: Plan) -> np.ndarray:
    """(accounts,) Gross USD of each."""
    legs, accounts = plan.hold.legs, plan.hold.accounts
    price = np.where(plan.insts["inverse"] != 0, 1.0, plan.insts["start"])[legs["inst"]]
    account = np.repeat(np.arange(len(accounts)), accounts["last"] - accounts["first"])
    return np.bincount(account, np.abs(legs["qty"]) * price, len(accounts))


def test_the_largest_stand_for_themselves_and_the_others_for_as_many_usd(triplets: Plan) -> None:
    few, size = stood_for(triplets, 600), usd_of(triplets)
    times, usd = few.hold.accounts["times"], usd_of(few)
    assert times.sum() == (size > 0.0).sum()
    assert (times * usd).sum() == pytest.approx(size.sum(), rel=1e-9)
    assert 500 <= len(times) <= 650
    largest = set(triplets.snapshot.book.account[np.argsort(-size)[:50]].tolist())
    alone = set(few.snapshot.book.account[times == 1].tolist())
    assert largest <= alone
    assert (times * usd)[times > 1].max() <= 2.0 * np.median((times * usd)[times > 1])
    assert not is_whole(few)
    assert (few.gross_usd == triplets.gross_usd).all()
    assert stood_for(triplets, len(size)) is triplets


def test_who_stands_in_keeps_legs_owners_and_rank_among_winners(triplets: Plan) -> None:
    few = stood_for(triplets, 600)
    book, whole = few.snapshot.book, triplets.snapshot.book
    assert (few.hold.legs["qty"] == book.qty).all()
    row = {int(key): n for n, key in enumerate(whole.account)}
    for a, key in enumerate(book.account[:50]):
        here, there = slice(*book.offset[a : a + 2]), slice(*whole.offset[row[key] : row[key] + 2])
        assert (book.inst[here] == whole.inst[there]).all()
        mine, its = few.hold.legs[here], triplets.hold.legs[there]
        assert np.ptp(mine["qty"] / its["qty"]) < 1e-12  # larger or smaller, as a whole
        assert (mine["weight"] == its["weight"]).all()
        assert whole.owner[row[key]] == book.owner[a] == few.hold.accounts["owner"][a]
    for o in (0, 7, len(book.owners) - 1):
        mine = few.hold.accounts["owner"][few.owner_start[o] : few.owner_start[o + 1]]
        assert (mine == o).all()
    assert few.owner_start[-1] == len(book.account)
    for k in range(len(few.insts)):
        stretch = slice(few.holders.start[k], few.holders.start[k + 1])
        assert (few.hold.legs["inst"][few.holders.leg[stretch]] == k).all()
        assert (book.leg_account[few.holders.leg[stretch]] == few.holders.account[stretch]).all()


def test_saturation_by_some_is_near_that_by_all() -> None:
    rng = np.random.default_rng(4)
    for _ in range(3):
        fall = np.clip(rng.lognormal(np.log(0.15), 0.4, 6_000), 0.01, 0.9)
        plan = Plan.of(crowd(fall, rng.pareto(1.5, 6_000) + 1.0, share=0.7))
        found = []
        for each in (plan, stood_for(plan, 600)):
            with Pressure.of(each) as pressure:
                found.append(saturation_at(pressure, np.array([1.0, 0.0, 0.0]), step=0.05))
        assert found[0] is not None
        assert found[1] == pytest.approx(found[0], rel=0.03)


def test_owners_do_not_act_where_accounts_stand_for_others() -> None:
    plan = stood_for(Plan.of(demo_world().snapshot()), 100)
    moves = Given.of(np.zeros((1, len(plan.snapshot.universe.assets))))
    with pytest.raises(StateError, match="stand for others"):
        run_sweep(plan, moves, 1, settled=False, options=Options(responses=Responses(top_up=True)))
    with pytest.raises(StateError, match="stand for others"):
        Engine(plan)
