"""What must hold of every cascade, whatever the book, the shock and the options."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stress.running import Run, book_value, plan_of, run_engine, shocked
from undertow.kernels import cascade, closers, owners, rounds
from undertow.kernels.closing import SLICES
from undertow.kernels.margin import DEBT, INVERSE, LINEAR
from undertow.rules.snapshot import Snapshot
from undertow.state.arrays import frozen
from undertow.stress.options import Deleveraging, Impact, Options, Responses
from undertow.stress.plan import Plan
from undertow.stress.setting import charged
from undertow.stress.stressed import ORACLE_MODES, Stressed
from undertow.worlds import World, bench_book, build_world, tiny_world

SEEDS = (3, 8, 21)
PERP, RESERVE = "hyperliquid:BTC/USDC:USDC", "aave-v3:BTC"
MINUTE = 60_000_000


@cache
def world_of(seed: int) -> World:
    """A world of a hundred and fifty accounts on ten venues."""
    return build_world(seed, accounts=150, assets=8, venues=10)


@cache
def snapshot_of(seed: int) -> Snapshot:
    """Its snapshot, built once."""
    return world_of(seed).snapshot()


@st.composite
def scenarios(draw: st.DrawFn, seeds: tuple[int, ...] = SEEDS) -> Stressed:
    """A shock of every factor on one of the worlds; some oracles broken, and rates."""
    snapshot = snapshot_of(draw(st.sampled_from(seeds)))
    common = draw(st.floats(-1.2, 0.9))
    spread = draw(st.floats(0.0, 0.3))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    stressed = shocked(snapshot, math.exp(common))
    moved = stressed.factor != 0.0
    stressed = stressed.added("factor", moved, spread * rng.standard_normal(int(moved.sum())))
    some = rng.random(len(stressed.basis)) < 0.3
    stressed = stressed.put("basis", some, draw(st.sampled_from([0.0, -0.05, 0.02])))
    funds, hands = draw(st.sampled_from([1.0, 0.1])), draw(st.sampled_from([1.0, 0.05]))
    stressed = stressed.put("fund_mult", slice(None), funds)
    stressed = stressed.put("capacity_mult", slice(None), hands)
    stressed = draw(st.sampled_from(DAMAGE))(stressed, rng.random(len(some)) < 0.4)
    hourly = draw(st.sampled_from([0.0, 0.0, 3e-4]))
    return stressed.put("rate_shock", slice(None), hourly).put("rate_hours", slice(None), 24.0)


def unharmed(stressed: Stressed, which: np.ndarray) -> Stressed:
    """Every oracle as it is."""
    return stressed


def late(stressed: Stressed, which: np.ndarray) -> Stressed:
    """Some oracles two rounds later than they are."""
    return stressed.put("oracle_lag_us", which, 2 * MINUTE)


def frozen_for_a_while(stressed: Stressed, which: np.ndarray) -> Stressed:
    """Some oracles stand still for four rounds."""
    stuck = stressed.put("oracle_mode", which, ORACLE_MODES.index("frozen"))
    return stuck.put("oracle_rounds", which, 4)


def wrong_for_good(stressed: Stressed, which: np.ndarray) -> Stressed:
    """Some oracles 10 % too low, to the end."""
    wrong = stressed.put("oracle_mode", which, ORACLE_MODES.index("mis_set"))
    return wrong.put("oracle_factor", which, 0.9)


DAMAGE = (unharmed, late, frozen_for_a_while, wrong_for_good)

responses_of = st.builds(
    Responses,
    top_up=st.booleans(),
    delever=st.booleans(),
    unwind=st.booleans(),
    convert=st.booleans(),
    buffer=st.sampled_from([1.0, 1.05, 1.3]),
    willing=st.sampled_from([0.5, 1.0]),
)
options_of = st.builds(
    Options,
    impact=st.sampled_from(list(Impact)),
    coupling=st.sampled_from([0.0, 0.5, 1.0]),
    recovery=st.sampled_from([0.0, 0.2]),
    withdrawal=st.sampled_from([0.0, 1.0]),
    oracles=st.booleans(),
    capacity=st.booleans(),
    profitable=st.booleans(),
    deleveraging=st.sampled_from(list(Deleveraging)),
    responses=st.one_of(st.just(Responses()), responses_of),
    max_rounds=st.just(40),
)


def numbers(run: Run) -> Iterator[np.ndarray]:
    """Every float that a run leaves."""
    yield from (run.path, run.ledger, run.qty, run.cash, run.insurance, run.backstop)
    yield from (run.receipt, run.pending, *run.totals.values())
    yield from (run.log[name] for name in ("qty", "price", "value", "repaid", "lost"))


def bits(run: Run) -> list[bytes]:
    """What may not differ by a bit, by account and instrument."""
    columns = (run.counts, run.path, run.qty, run.cash, run.insurance, run.backstop, run.receipt)
    return [np.ascontiguousarray(column).tobytes() for column in columns]


# ---- money and quantities


@settings(max_examples=40)
@given(stressed=scenarios(), options=options_of)
def test_in_every_round_what_some_lose_others_win(stressed: Stressed, options: Options) -> None:
    run = run_engine(stressed, options)
    assert np.abs(run.ledger.sum(axis=1)).max() <= 1e-9 * book_value(stressed.snapshot)
    assert (run.insurance >= 0.0).all()
    assert (run.backstop >= 0.0).all()


@settings(max_examples=40)
@given(stressed=scenarios(), options=options_of)
def test_no_number_is_missing_and_no_price_is_below_zero(
    stressed: Stressed, options: Options
) -> None:
    run = run_engine(stressed, options)
    assert all(np.isfinite(column).all() for column in numbers(run))
    assert (run.path > 0.0).all()


@settings(max_examples=40)
@given(stressed=scenarios(), options=options_of)
def test_what_accounts_lost_is_what_was_sold_matched_or_waits(
    stressed: Stressed, options: Options
) -> None:
    run = run_engine(stressed, options)
    lost, held = _lost(stressed, run)
    # of debts some is written off, and money need not be sold: neither is of this test
    plan = plan_of(stressed.snapshot)
    legs = plan.hold.legs
    owed = np.bincount(legs["inst"], legs["role"] == DEBT, len(held)) > 0
    others = ~owed & (plan.insts["money"] == 0)
    gap = np.abs(lost - run.totals["sold"] - run.pending)[others]
    assert (gap <= 1e-9 * held[others]).all()
    assert others.sum() > 20


@cache
def lending_book() -> Snapshot:
    """Seven hundred accounts on fourteen venues; forty things are borrowed on five of them."""
    return bench_book(2, accounts=700).snapshot()


@settings(max_examples=25)
@given(
    common=st.floats(-1.0, -0.4),
    seed=st.integers(0, 10_000),
    answers=st.one_of(st.just(Responses()), responses_of),
)
def test_what_is_owed_is_bought_back_or_written_off(
    common: float, seed: int, answers: Responses
) -> None:
    stressed = shocked(lending_book(), math.exp(common))
    moved = stressed.factor != 0.0
    apart = 0.4 * np.random.default_rng(seed).standard_normal(int(moved.sum()))
    stressed = stressed.added("factor", moved, apart)
    stressed = stressed.put("rate_shock", slice(None), 3e-4).put("rate_hours", slice(None), 24.0)
    options = Options(impact=Impact.NONE, oracles=False, responses=answers, max_rounds=200)
    run = run_engine(stressed, options)
    plan = plan_of(stressed.snapshot)
    legs, lends = plan.hold.legs, plan.closing["mechanism"][plan.insts["venue"]] != SLICES
    owed = np.bincount(legs["inst"], legs["role"] == DEBT, len(plan.insts)) > 0
    steady = owed & lends & (np.ptp(run.path, axis=0) == 0.0)  # what lost its backing moves
    lost, held = _lost(stressed, run)
    bad = run.totals["bad_usd"] / run.path[-1]
    gap = np.abs(lost - run.totals["sold"] - run.pending + bad)[steady]
    assert (gap <= 1e-9 * held[steady]).all()
    assert (steady & (run.totals["repaid_usd"] > 1.0)).sum() >= 5
    assert (steady & (run.totals["bad_usd"] > 1.0)).sum() >= 4


def _lost(stressed: Stressed, run: Run) -> tuple[np.ndarray, np.ndarray]:
    """By instrument, what accounts have less than they had, and what they had, gross."""
    legs = charged(plan_of(stressed.snapshot), stressed).legs
    count = len(stressed.universe.instruments)
    lost = np.bincount(legs["inst"], legs["qty"] - run.qty, count)
    return lost, np.bincount(legs["inst"], np.abs(legs["qty"]), count)


# ---- every flow has two ends


@dataclass(frozen=True, eq=False)
class Step:
    """What one round changed, from what stood before and after it and from who is in the log."""

    plan: Plan
    before: Run | None
    after: Run
    start: tuple[np.ndarray, ...]  # qty, cash, insurance and backstop before any round
    number: int

    @cached_property
    def seen(self) -> np.ndarray:
        """Prices at which everything of the round was booked."""
        return self.after.path[self.number]

    @cached_property
    def log(self) -> np.ndarray:
        """Who was closed, paid, or answered."""
        return self.after.log[self.after.log["round"] == self.number]

    @cached_property
    def row(self) -> np.ndarray:
        """What each party won."""
        return self.after.ledger[self.number]

    @cached_property
    def venue_of_leg(self) -> np.ndarray:
        """By leg."""
        return self.plan.snapshot.book.venue[self.plan.snapshot.book.leg_account]

    def flow(self, name: str) -> np.ndarray:
        """What the engine added to a total, by venue."""
        usd = self.after.totals[name] - (self.before.totals[name] if self.before else 0.0)
        return self.by_venue(self.plan.insts["venue"], usd)

    def by_venue(self, venue: np.ndarray, usd: np.ndarray) -> np.ndarray:
        """Sums of something by venue."""
        return np.bincount(venue, usd, len(self.plan.closing))

    def logged(self, column: str, *reasons: int) -> np.ndarray:
        """A column of the log, summed by venue over rows of some reasons."""
        rows = self.log[np.isin(self.log["reason"], reasons)]
        return self.by_venue(self.plan.hold.accounts["venue"][rows["account"]], rows[column])

    def held(self, end: bool) -> tuple[np.ndarray, np.ndarray]:
        """Quantities and money of accounts, before or after."""
        run = self.after if end else self.before
        return (run.qty, run.cash) if run else self.start[:2]

    def worth(self, end: bool) -> np.ndarray:
        """Equity of all accounts by venue at the prices of the round."""
        qty, cash = self.held(end)
        legs = self.plan.hold.legs
        price, role, entry = self.seen[legs["inst"]], legs["role"], legs["entry"]
        entered = np.where(entry > 0.0, entry, 1.0)
        usd = np.where(role == LINEAR, qty * (price - entry), qty * price)
        usd = np.where(role == INVERSE, qty * (price / entered - 1.0), usd)
        accounts = self.by_venue(self.plan.hold.accounts["venue"], cash)
        return accounts + self.by_venue(self.venue_of_leg, usd)

    def debts_gone(self) -> np.ndarray:
        """Value of debt that is no longer owed, by venue."""
        legs = self.plan.hold.legs
        gone = (self.held(True)[0] - self.held(False)[0]) * self.seen[legs["inst"]]
        return self.by_venue(self.venue_of_leg, np.where(legs["role"] == DEBT, gone, 0.0))

    def money_spent(self) -> np.ndarray:
        """Money of accounts that went, but for what owners brought in, by venue."""
        spent = self.held(False)[1] - self.held(True)[1]
        given = self.logged("qty", cascade.TOPPED_UP)
        return given + self.by_venue(self.plan.hold.accounts["venue"], spent)

    def bonuses(self) -> tuple[np.ndarray, np.ndarray]:
        """What was seized beyond what was repaid, by venue: the liquidator's and the protocol's."""
        rows = self.log[(self.log["reason"] == cascade.LIQUIDATED) & (self.log["repaid"] > 0.0)]
        legs, book = self.plan.hold.legs, self.plan.snapshot.book
        taken = {
            (int(a), int(k)): fee
            for a, k, fee, role in zip(
                book.leg_account, legs["inst"], legs["fee"], legs["role"], strict=True
            )
            if role == 0
        }
        fee = np.array([taken[int(row["account"]), int(row["inst"])] for row in rows])
        venue = self.plan.hold.accounts["venue"][rows["account"]]
        extra = rows["value"] - rows["repaid"]
        return self.by_venue(venue, extra * (1.0 - fee)), self.by_venue(venue, extra * fee)

    def sales(self) -> tuple[np.ndarray, np.ndarray]:
        """USD of what accounts have less, and of what came to market or waits; by instrument.

        Debt that was written off is bought by nobody, and a venue's money is sold to nobody.
        """
        legs, insts = self.plan.hold.legs, self.plan.insts
        lost = np.bincount(legs["inst"], self.held(False)[0] - self.held(True)[0], len(insts))
        perps = (self.plan.closing["mechanism"] == SLICES)[insts["venue"]]
        rows = self.log[self.log["reason"] == cascade.LIQUIDATED]
        bad = np.bincount(rows["other"] + 1, rows["lost"], len(insts) + 1)[1:]
        sold = self.after.totals["sold"] + self.after.pending
        if self.before:
            sold = sold - self.before.totals["sold"] - self.before.pending
        real = ~(perps & (insts["money"] != 0))
        return (lost * self.seen + bad) * real, sold * self.seen * real

    def slipped(self) -> float:
        """What sellers got less than the prices of the round."""
        before = self.before.totals["impact_usd"].sum() if self.before else 0.0
        return float(self.after.totals["impact_usd"].sum() - before)

    def paid_out(self) -> tuple[np.ndarray, np.ndarray]:
        """What insurance and backstop have less, by venue; fees of the round not counted."""
        before = self.before
        funds = before.insurance if before else self.start[2]
        backstop = before.backstop if before else self.start[3]
        return funds - self.after.insurance, backstop - self.after.backstop


def steps(stressed: Stressed, options: Options) -> Iterator[Step]:
    """The rounds of a cascade: each is what cutting off after it adds to the one before."""
    plan, funds = plan_of(stressed.snapshot), stressed.snapshot.funds
    hold = charged(plan, stressed)
    start = (hold.legs["qty"], hold.accounts["cash"], funds.insurance * stressed.fund_mult,
             funds.backstop * stressed.fund_mult)  # fmt: skip
    before, rounds_ = None, run_engine(stressed, options).rounds
    for number in range(rounds_):
        after = run_engine(stressed, replace(options, max_rounds=number + 1))
        assert len(after.log) < 4 * len(plan.hold.accounts) + 64  # nothing fell off the log
        yield Step(plan, before, after, start, number)
        before = after


@settings(max_examples=30)
@given(stressed=scenarios(), options=options_of)
def test_every_flow_of_a_round_ends_where_it_should(stressed: Stressed, options: Options) -> None:
    whole = 1e-9 * book_value(stressed.snapshot)
    for step in steps(stressed, replace(options, max_rounds=8)):
        for name, (one, other) in ends_of(step, options).items():
            assert np.abs(one - other).max() <= whole, (name, step.number)
        assert abs(step.row.sum()) <= whole


@pytest.mark.parametrize("deleveraging", [Deleveraging.PROFILE, Deleveraging.PRO_RATA])
def test_a_deep_fall_sends_something_along_every_flow(deleveraging: Deleveraging) -> None:
    answers = Responses(top_up=True, delever=True, unwind=True, convert=True, willing=0.5)
    options = Options(deleveraging=deleveraging, responses=answers, max_rounds=8)
    snapshot = snapshot_of(SEEDS[0])
    backed = replace(snapshot.funds, backstop=frozen(np.full(len(snapshot.funds.backstop), 500.0)))
    stressed = shocked(replace(snapshot, funds=backed), 0.4)
    stressed = stressed.put("fund_mult", slice(None), 0.1)
    moved: dict[str, float] = {}
    for step in steps(stressed, options):
        for name, (one, other) in ends_of(step, options).items():
            assert np.abs(one - other).max() <= 1e-9 * book_value(stressed.snapshot), name
            moved[name] = moved.get(name, 0.0) + float(np.abs(one).max())
    assert not [name for name, usd in moved.items() if usd < 1.0]


def ends_of(step: Step, options: Options) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each kind of flow, found twice: with who gave and with who took.

    By instrument, by venue, or in all. One side is worked out from holdings before and after the
    round, from funds and from the log; the other is a total of the engine or what a party won.
    """
    row, flow, logged = step.row, step.flow, step.logged
    perps = step.plan.closing["mechanism"] == SLICES
    liquidated = logged("lost", cascade.LIQUIDATED)
    short, bad = liquidated * perps, liquidated * ~perps
    given, paid = logged("qty", cascade.TOPPED_UP), logged("lost", cascade.DELEVERAGED)
    if options.deleveraging is Deleveraging.PRO_RATA:
        paid = flow("paid_usd")  # by all winners of a venue, and so by nobody in the log
    gain, cut = step.bonuses()
    change = step.worth(True) - step.worth(False)
    by_position = paid * (options.deleveraging is not Deleveraging.PRO_RATA)
    fees = (short + given - by_position - change) * perps  # what else went from margin groups
    fallen, backstop = step.paid_out()
    insurance = fallen + fees  # fees come in before anything is paid out
    by_owner = logged("repaid", cascade.BY_OWNER)
    payers = [rounds.COUNTERPARTY, rounds.VENUE, rounds.BACKSTOP]
    return {
        "sold": step.sales(),
        "closed": (logged("value", cascade.LIQUIDATED), flow("closed_usd")),
        "repaid, by debts": (step.debts_gone() - bad - by_owner, flow("repaid_usd")),
        "repaid, by payers": (
            (logged("repaid", cascade.LIQUIDATED) + step.money_spent()) * ~perps,
            flow("repaid_usd") * ~perps,
        ),
        "bad": (bad, flow("bad_usd")),
        "bad, by payers": (bad.sum(), (insurance * ~perps).sum() - row[rounds.SUPPLIER]),
        "short": (short, flow("short_usd")),
        "short, by payers": (short.sum(), (insurance * perps).sum() - row[payers].sum()),
        "short, by funds": (backstop.sum(), -row[rounds.BACKSTOP]),
        "gain": (gain, flow("gain_usd")),
        "gain, by takers": (gain.sum(), row[rounds.LIQUIDATOR]),
        "cut": (cut + fees, flow("cut_usd")),
        "cut, by takers": (cut.sum(), row[rounds.PROTOCOL]),
        "cut, by funds": (-fallen.sum(), row[rounds.INSURANCE]),
        "given": (given, flow("given_usd")),
        "given, by owners": (given.sum(), -row[rounds.OWNER]),
        "paid": (paid, flow("paid_usd")),
        "paid, by winners": (paid.sum(), -row[rounds.COUNTERPARTY]),
        "accounts": (change.sum() + by_position.sum(), row[rounds.ACCOUNT]),
        "impact": (step.slipped(), np.array([row[rounds.MARKET], -row[rounds.TAKER]])),
    }


# ---- nothing but what is held decides


@settings(max_examples=12)
@given(stressed=scenarios(), options=options_of, seed=st.integers(0, 1_000))
def test_the_order_of_rows_in_tables_does_not_show(
    stressed: Stressed, options: Options, seed: int
) -> None:
    world = next(world_of(s) for s in SEEDS if snapshot_of(s) is stressed.snapshot)
    shuffled = {
        name: frame.sample(fraction=1.0, shuffle=True, seed=seed)
        for name, frame in world.present.items()
    }
    again = replace(stressed, snapshot=Snapshot.from_tables(shuffled, world.ts))
    assert bits(run_engine(again, options)) == bits(run_engine(stressed, options))


@settings(max_examples=20)
@given(stressed=scenarios(), options=options_of, seed=st.integers(0, 1_000))
def test_the_order_of_accounts_in_the_engine_does_not_show(
    stressed: Stressed, options: Options, seed: int
) -> None:
    moved, accounts, legs = reordered(stressed.snapshot, seed)
    assert (np.diff(accounts) != 1).sum() > 50
    first, second = (run_engine(s, options) for s in (stressed, replace(stressed, snapshot=moved)))
    assert (
        plan_of(moved).hold.legs["qty"].tolist()
        == plan_of(stressed.snapshot).hold.legs["qty"][legs].tolist()
    )
    there = replace(first, qty=first.qty[legs], cash=first.cash[accounts])
    assert bits(second) == bits(there)
    assert second.acted.tolist() == first.acted.tolist()
    assert second.status == [first.status[a] for a in accounts]


def reordered(snapshot: Snapshot, seed: int) -> tuple[Snapshot, np.ndarray, np.ndarray]:
    """A snapshot whose owners stand in another order, with all their accounts and legs.

    With it, where each account and each leg stood before.
    """
    book, free = snapshot.book, snapshot.free
    order = np.random.default_rng(seed).permutation(len(book.owners))
    rank = np.argsort(order)
    accounts = np.argsort(rank[book.owner], kind="stable")
    legs = np.argsort(rank[book.owner[book.leg_account]], kind="stable")
    sizes = np.diff(book.offset)[accounts]
    by_account = {n: frozen(getattr(book, n)[accounts]) for n in ("account", "venue", "mode",
                                                                  "category")}  # fmt: skip
    by_leg = {n: frozen(getattr(book, n)[legs]) for n in ("inst", "kind", "qty", "entry",
                                                          "evidence")}  # fmt: skip
    moved = replace(
        book,
        **by_account,
        **by_leg,
        owner=frozen(rank[book.owner][accounts].astype(np.int32)),
        owners=frozen(book.owners[order]),
        offset=frozen(np.append(0, np.cumsum(sizes))),
    )
    rows = np.argsort(rank[free.owner], kind="stable")
    owned = replace(
        free,
        owner=frozen(rank[free.owner][rows].astype(np.int32)),
        asset=frozen(free.asset[rows]),
        qty=frozen(free.qty[rows]),
    )
    return replace(snapshot, book=moved, free=owned), accounts, legs


@settings(max_examples=12)
@given(stressed=scenarios(), options=options_of, seed=st.integers(0, 1_000))
def test_how_accounts_are_dealt_out_does_not_show(
    stressed: Stressed, options: Options, seed: int
) -> None:
    whole = run_engine(stressed, options)
    dealt = run_engine(stressed, options, kernels=_Dealt(seed))
    assert bits(dealt) == bits(whole)
    assert (dealt.rounds, dealt.settled) == (whole.rounds, whole.settled)


class _Dealt:
    """`rounds`, with accounts closed in four parts, and in any order."""

    start_over = staticmethod(rounds.start_over)

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def run_rounds(
        self, case: Any, state: Any, common: Any, holders: Any, scale: np.ndarray
    ) -> tuple[int, int]:
        for r in range(len(common.acted)):
            waiting, most = rounds.open_round(r, case, state)
            common.path[r] = state.now["seen"]
            found = cascade.judge(0, state.watched[0], r, case, state)
            due, switches = state.due[:found].copy(), case.switches
            moved = 0
            if (switches.top_up or switches.delever or switches.convert) and len(due):
                due.sort()
                moved += owners.answer(due, r, case, state)
            before = np.empty(state.touched.rest.size if switches.unwind else 0)
            known = owners.remember(before, state) if switches.unwind else 0
            parts = [part.copy() for part in np.array_split(self.rng.permutation(due), 4)]
            scale[:] = 1.0
            if rounds.limited(case) and len(due):
                for part in parts:
                    moved += closers.close_due(part, r, scale, True, case, state)[0]
                rounds.carry(case, state, scale)
            done = [closers.close_due(part, r, scale, False, case, state) for part in parts]
            if rounds.share_losses(r, case, state, common):
                rounds.deleverage(r, case, state, common, holders)
            if switches.unwind:
                moved += owners.unwind(r, known, before, case, state)
            pending = rounds.end_round(r, case, state, common)
            common.acted[r] = moved + sum(acted for acted, _ in done)
            quiet = not (common.acted[r] or waiting or sum(held for _, held in done) or pending)
            if quiet and (case.switches.recovery == 0.0 or most <= rounds.FADED):
                return r + 1, rounds.SETTLED
        return len(common.acted), rounds.ROUND_LIMIT


@pytest.mark.parametrize("seed", SEEDS)
@settings(max_examples=12)
@given(data=st.data(), options=options_of)
def test_names_do_not_matter(seed: int, data: st.DataObject, options: Options) -> None:
    was, now, names = renamed(seed)
    stressed = data.draw(scenarios((seed,)))
    inst, asset, venue = (
        np.array([now.universe.code(kind, names[kind][name]) for name in listed])
        for kind, listed in (
            ("instrument", was.universe.instruments),
            ("asset", was.universe.assets),
            ("venue", was.universe.venues),
        )
    )
    assert all((np.diff(codes) != 1).sum() > len(codes) / 2 for codes in (inst, asset, venue))
    first = run_engine(stressed, options)
    second = run_engine(moved_to(stressed, now, asset, inst, venue), options)
    assert (first.rounds, first.acted.tolist()) == (second.rounds, second.acted.tolist())
    np.testing.assert_allclose(second.path[:, inst], first.path, rtol=1e-9)
    whole = book_value(was)
    for name, column in first.totals.items():
        usd = first.path[0] if name == "sold" else 1.0
        gap = second.totals[name][inst] - column
        if name == "given_usd":  # booked with whatever an account holds first
            gap = np.bincount(was.universe.venue_of, gap)
        assert (np.abs(gap) * usd).max() <= 1e-9 * whole, name
    left, there = (
        np.bincount(of.book.inst, run.qty, len(inst)) for of, run in ((was, first), (now, second))
    )
    gross = np.bincount(was.book.inst, np.abs(was.book.qty), len(inst))
    assert (np.abs(there[inst] - left) <= 1e-9 * gross).all()
    cash = [np.bincount(of.book.venue, run.cash, len(venue))
            for of, run in ((was, first), (now, second))]  # fmt: skip
    assert np.abs(cash[1][venue] - cash[0]).max() <= 1e-9 * whole
    assert np.abs(second.insurance[venue] - first.insurance).max() <= 1e-9 * whole
    assert np.abs(second.ledger - first.ledger).max() <= 1e-9 * whole


def moved_to(
    stressed: Stressed, snapshot: Snapshot, asset: np.ndarray, inst: np.ndarray, venue: np.ndarray
) -> Stressed:
    """The same scenario on a snapshot that has other codes: those given, for the old ones."""
    there = Stressed.calm(snapshot)
    codes = dict.fromkeys(("factor", "receipt"), asset)
    codes |= dict.fromkeys(("closed_until_us", "capacity_mult", "fund_mult"), venue)
    for column in (field.name for field in fields(Stressed)):
        if isinstance(getattr(stressed, column), np.ndarray):
            there = there.put(column, codes.get(column, inst), getattr(stressed, column))
    return there


@cache
def renamed(seed: int) -> tuple[Snapshot, Snapshot, dict[str, dict[str, str]]]:
    """A world's snapshot, that of the world under other names, and the new name of each old."""
    world, rng = world_of(seed), np.random.default_rng(seed)
    tables = dict(world.present)

    def dealt(letter: str, listed: list[Any]) -> dict[Any, str]:
        order = rng.permutation(len(listed)).tolist()
        return {name: f"{letter}{n:05}" for name, n in zip(listed, order, strict=True)}

    names = {
        kind: dealt(kind[0], tables[f"{kind}s"][kind].unique().sort().to_list())
        for kind in ("asset", "venue", "instrument")
    }
    names["asset"]["USD"] = "USD"
    keys = {kind: _dealt_keys(tables, kind, rng) for kind in ("account", "owner")}
    by_column = {
        **dict.fromkeys(("asset", "reference", "quote", "settle"), names["asset"]),
        **dict.fromkeys(("instrument", "feed"), names["instrument"]),
        "venue": names["venue"],
    }
    for table, frame in tables.items():
        changes = [
            pl.col(column).replace(new)
            for column, new in by_column.items()
            if column in frame.columns and frame[column].dtype == pl.String
        ]
        changes += [
            pl.col(column).replace_strict(new, return_dtype=frame[column].dtype)
            for column, new in keys.items()
            if column in frame.columns and frame[column].dtype.is_integer()
        ]
        for side in ("debtor", "creditor"):
            if side in frame.columns:
                kind, who = pl.col(f"{side}_kind").cast(pl.String), pl.col(side)
                owned = {str(old): str(new) for old, new in keys["owner"].items()}
                changes.append(
                    pl.when(kind == "asset").then(who.replace(names["asset"]))
                    .when(kind == "venue").then(who.replace(names["venue"]))
                    .when(kind == "owner").then(who.replace(owned))
                    .otherwise(who).alias(side)
                )  # fmt: skip
        tables[table] = frame.with_columns(changes)
    return snapshot_of(seed), Snapshot.from_tables(tables, world.ts), names


def _dealt_keys(
    tables: dict[str, pl.DataFrame], kind: str, rng: np.random.Generator
) -> dict[int | None, int | None]:
    """Every integer key of accounts, or of owners, and another one for it."""
    known = {
        key
        for frame in tables.values()
        if kind in frame.columns and frame[kind].dtype.is_integer()
        for key in frame[kind].drop_nulls().to_list()
    }
    new = (1 + rng.permutation(len(known))).tolist()
    return {**dict(zip(sorted(known), new, strict=True)), None: None}


# ---- rest


@pytest.mark.parametrize("impact", list(Impact))
@pytest.mark.parametrize("seed", SEEDS)
def test_where_all_are_healthy_nothing_happens(seed: int, impact: Impact) -> None:
    world = world_of(seed)
    run = run_engine(Stressed.calm(snapshot_of(seed)), Options(impact=Impact.NONE))
    keys = snapshot_of(seed).book.account
    sick = {int(keys[a]) for a, s in enumerate(run.status) if s != "untouched"}
    tables = dict(world.present)
    for name in ("accounts", "positions"):
        tables[name] = tables[name].filter(~pl.col("account").is_in(list(sick)))
    healthy = Snapshot.from_tables(tables, world.ts)
    run = run_engine(Stressed.calm(healthy), Options(impact=impact))
    assert (run.rounds, run.settled) == (1, True)
    assert set(run.status) == {"untouched"}
    assert not run.counts.any()
    assert run.path[0].tolist() == plan_of(healthy).insts["start"].tolist()
    assert len(healthy.book) > 200


def made(*, accounts: list[Any], legs: list[Any], **changes: Any) -> Snapshot:
    """The tiny world with other accounts in it: (key, venue), and (key, instrument, kind, qty,
    entry).
    """
    world = tiny_world()
    columns = dict(world.present)
    holder, held = columns["accounts"], columns["positions"]
    rows = [
        {**holder.row(0, named=True), "account": key, "venue": venue, "owner": None,
         "label": f"0x{key}"}
        for key, venue in accounts
    ]  # fmt: skip
    positions = [
        {**held.row(0, named=True), "account": key, "instrument": inst, "kind": kind, "qty": qty,
         "entry": entry}
        for key, inst, kind, qty, entry in legs
    ]  # fmt: skip
    columns["accounts"] = pl.DataFrame(rows, schema=holder.schema)
    columns["positions"] = pl.DataFrame(positions, schema=held.schema)
    columns["free_assets"] = columns["free_assets"].clear()
    columns["claims"] = columns["claims"].filter(pl.col("debtor_kind").cast(pl.String) != "owner")
    columns["claims"] = columns["claims"].filter(pl.col("creditor_kind").cast(pl.String) != "owner")
    for name, change in changes.items():
        columns[name] = change(columns[name])
    return Snapshot.from_tables(columns, world.ts)


def with_profile(venue: str, profile: str) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """One venue closes by the rules of another."""
    named = pl.when(pl.col("venue") == venue).then(pl.lit(profile)).otherwise(pl.col("profile"))
    return lambda venues: venues.with_columns(named.alias("profile"))


def test_an_empty_book_is_quiet() -> None:
    run = run_engine(shocked(made(accounts=[], legs=[]), 0.5), Options())
    assert (run.rounds, run.settled, run.acted.tolist()) == (1, True, [0])
    assert not run.counts.any()


def test_a_book_of_one_account_is_closed() -> None:
    legs = [(1, RESERVE, "collateral", 1.0, None), (1, "aave-v3:USDC", "debt", -20_000.0, None)]
    snapshot = made(accounts=[(1, "aave-v3")], legs=legs)
    run = run_engine(shocked(snapshot, 0.6), Options())
    assert run.acted.tolist() == [1, 0]
    assert 0.0 < run.qty[snapshot.book.inst == snapshot.universe.code("instrument", RESERVE)] < 1.0


@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("impact", list(Impact))
def test_where_everybody_is_bankrupt_everything_is_booked(factor: float, impact: Impact) -> None:
    legs = []
    for key in range(1, 6):
        legs += [(key, RESERVE, "collateral", 1.0, None), (key, "aave-v3:USDC", "debt", -2e4, None)]
        legs += [(key + 5, RESERVE, "debt", -1.0, None)]
        legs += [(key + 5, "aave-v3:USDC", "collateral", 8e4, None)]
    for key in range(11, 16):
        side = 1.0 if factor < 1.0 else -1.0
        legs += [(key, PERP, "perp", side, 4e4), (key, "hyperliquid:USDC", "cash", 5e3, None)]
    venues = [(key, "aave-v3" if key < 11 else "hyperliquid") for key in range(1, 16)]
    snapshot = made(accounts=venues, legs=legs)
    run = run_engine(shocked(snapshot, factor), Options(impact=impact))
    assert run.settled
    assert all(np.isfinite(column).all() for column in numbers(run))
    price = 4e4 * factor
    whole = 5 * max(price, 4e4)
    assert np.abs(run.ledger.sum(axis=1)).max() <= 1e-9 * whole
    lost = 5 * (abs(price - 4e4) - 5e3)
    assert run.totals["short_usd"].sum() == pytest.approx(lost)
    owed = 5 * (2e4 - price / 1.05) if factor < 1.0 else 5 * (price - 8e4 / 1.05)
    assert run.totals["bad_usd"].sum() == pytest.approx(owed)
    assert run.won(rounds.VENUE).sum() + run.won(rounds.INSURANCE).sum() == pytest.approx(-lost)


def test_a_cascade_that_is_cut_off_is_an_outcome() -> None:
    stressed = shocked(snapshot_of(SEEDS[0]), 0.7)
    whole = run_engine(stressed, Options(max_rounds=200))
    assert whole.settled
    for limit in range(1, whole.rounds):
        cut = run_engine(stressed, Options(max_rounds=limit))
        assert not cut.settled
        assert cut.rounds == limit
        assert cut.acted.tolist() == whole.acted[:limit].tolist()


# ---- ties


def test_equal_borrowers_share_what_liquidators_can_carry() -> None:
    legs = []
    for key in (1, 2, 3):
        legs += [(key, RESERVE, "collateral", 1.0, None), (key, "aave-v3:USDC", "debt", -2e4, None)]
    snapshot = made(accounts=[(1, "aave-v3"), (2, "aave-v3"), (3, "aave-v3")], legs=legs)
    stressed = shocked(snapshot, 0.6).put("capacity_mult", slice(None), 0.1)
    run = run_engine(stressed, Options(capacity=True, max_rounds=1))
    held = run.qty[snapshot.book.inst == snapshot.universe.code("instrument", RESERVE)]
    assert run.totals["repaid_usd"].sum() == pytest.approx(10_000.0)
    assert held[0] == held[1] == held[2]
    assert 0.0 < held[0] < 1.0


def test_equal_winners_are_deleveraged_alike() -> None:
    legs = [(1, PERP, "perp", 1.0, 4e4), (1, "hyperliquid:USDC", "cash", 5e3, None)]
    for key in (2, 3, 4):
        legs += [(key, PERP, "perp", -0.5, 4e4), (key, "hyperliquid:USDC", "cash", 1e4, None)]
    legs += [(5, PERP, "perp", -0.25, 3.9e4), (5, "hyperliquid:USDC", "cash", 1e5, None)]
    snapshot = made(accounts=[(key, "hyperliquid") for key in range(1, 6)], legs=legs)
    stressed = shocked(snapshot, 0.7).put("fund_mult", slice(None), 0.0)
    run = run_engine(stressed, Options(impact=Impact.NONE))
    left = run.qty[snapshot.book.inst == snapshot.universe.code("instrument", PERP)]
    # 1 BTC without cover is taken from three who rank alike and hold 1.5; the fourth ranks lower
    assert left[1] == left[2] == left[3] == pytest.approx(-0.5 / 3)
    assert left[4] == -0.25
    assert run.totals["sold"].sum() == pytest.approx(0.0, abs=1e-9)
    assert run.cash[1] == run.cash[2] == run.cash[3]


# ---- deeper


@lru_cache(maxsize=8)
def long_only(seed: int) -> Snapshot:
    """Troves and perp longs, all of them closed whole, on one asset with an impact curve."""
    rng = np.random.default_rng(seed)
    accounts, legs = [], []
    for key in range(1, 41):
        held, ratio = rng.uniform(0.1, 2.0), rng.uniform(1.15, 2.5)
        accounts.append((key, "aave-v3"))
        legs += [(key, RESERVE, "collateral", held, None),
                 (key, "aave-v3:USDC", "debt", -held * 4e4 * 0.75 / ratio, None)]  # fmt: skip
    for key in range(41, 81):
        size, leverage = rng.uniform(0.05, 1.0), rng.uniform(1.5, 15.0)
        accounts.append((key, "hyperliquid"))
        legs += [(key, PERP, "perp", size, 4e4),
                 (key, "hyperliquid:USDC", "cash", size * 4e4 / leverage, None)]  # fmt: skip

    def both(venues: pl.DataFrame) -> pl.DataFrame:
        return with_profile("hyperliquid", "generic-perp")(
            with_profile("aave-v3", "liquity-v1")(venues)
        )

    return made(accounts=accounts, legs=legs, venues=both)


def closed(snapshot: Snapshot, run: Run) -> set[int]:
    """Accounts that hold nothing any more of what they had at risk."""
    btc = np.isin(snapshot.book.inst, [snapshot.universe.code("instrument", n)
                                       for n in (PERP, RESERVE)])  # fmt: skip
    return set(snapshot.book.leg_account[btc & (run.qty == 0.0)].tolist())


@settings(max_examples=60)
@given(
    seed=st.integers(0, 5),
    fall=st.floats(0.01, 0.7),
    more=st.floats(1e-4, 0.2),
    impact=st.sampled_from([m for m in Impact if m is not Impact.LADDER]),
)
def test_of_longs_that_close_whole_a_deeper_fall_closes_more(
    seed: int, fall: float, more: float, impact: Impact
) -> None:
    snapshot = long_only(seed)
    options = Options(impact=impact, max_rounds=200)
    runs = [run_engine(shocked(snapshot, 1.0 - f), options) for f in (fall, fall + more)]
    shallow, deep = runs
    assert shallow.settled
    assert deep.settled
    assert closed(snapshot, shallow) <= closed(snapshot, deep)
    for name in (PERP, RESERVE):
        k = snapshot.universe.code("instrument", name)
        assert shallow.totals["sold"][k] <= deep.totals["sold"][k]
        assert deep.path[-1][k] < shallow.path[-1][k]


COUNTED = {  # (venue, profile): what closes in part, and so may end better after a deeper fall
    "aave-v3, half of the debt at a time": ("aave-v3", "aave-v3"),
    "aave-v4, up to a target health": ("aave-v3", "aave-v4"),
    "morpho-blue, one pair whole": ("aave-v3", "generic-lending"),
    "liquity-v1, whole": ("aave-v3", "liquity-v1"),
}


VENUES = {name.split(",")[0] for name in COUNTED}
DOCUMENT = Path(__file__).parents[2] / "docs" / "methods" / "invariants.md"


def violations(venue: str, profile: str, *, pairs: int, seed: int = 0) -> tuple[int, int]:
    """Of random pairs of falls: in how many the deeper one spared somebody, or ended higher."""
    world = build_world(4, accounts=600, assets=12, venues=10)
    venues = with_profile(venue, profile)(world.present["venues"])
    snapshot = Snapshot.from_tables({**world.present, "venues": venues}, world.ts)
    here = snapshot.book.venue == snapshot.universe.code("venue", venue)
    rng = np.random.default_rng(seed)
    options = Options(deleveraging=Deleveraging.NONE)
    spared = higher = 0
    for _ in range(pairs):
        fall = rng.uniform(0.03, 0.5)
        falls = (fall, fall + rng.uniform(0.002, 0.05))
        shallow, deep = (run_engine(shocked(snapshot, 1.0 - f), options) for f in falls)
        closed_in = [here & (np.array(run.status) != "untouched") for run in (shallow, deep)]
        spared += bool((closed_in[0] & ~closed_in[1]).any())
        fell = shallow.path[0] < 0.999 * plan_of(snapshot).insts["start"]
        higher += bool((deep.path[-1] > shallow.path[-1] * (1.0 + 1e-9))[fell].any())
    return spared, higher


@pytest.mark.slow
def test_the_counted_violations_are_those_in_the_documentation() -> None:
    found = [
        f"| {name} | {spared} | {higher} |"
        for name, (spared, higher) in (
            (name, violations(*terms, pairs=200)) for name, terms in COUNTED.items()
        )
    ]
    table = [line for line in DOCUMENT.read_text().splitlines() if line.split(",")[0][2:] in VENUES]
    assert table == found
