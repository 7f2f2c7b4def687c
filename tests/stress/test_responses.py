"""What owners do in a cascade, on books small enough to work out by hand, and on a whole market."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import polars as pl
import pytest

from undertow.errors import StateError
from undertow.kernels import accounts, cascade, rounds
from undertow.rules.snapshot import Snapshot
from undertow.stress.options import Deleveraging, Impact, Options, Responses
from undertow.stress.plan import Plan
from undertow.stress.setting import case_of, common_of, state_of
from undertow.stress.stressed import Stressed
from undertow.worlds import World, tiny_world

_PERP = "hyperliquid:BTC/USDC:USDC"
_START = {"ETH": 2_000.0, "BTC": 40_000.0}
_ALL = Responses(top_up=True, delever=True, unwind=True, convert=True)


@dataclass(frozen=True)
class Outcome:
    """A cascade that has run, with all that it wrote."""

    plan: Plan
    case: cascade.Case
    state: cascade.State
    common: rounds.Common
    rounds: int
    outcome: int

    def total(self, kind: int) -> Any:
        """USD of a kind of flow, by instrument; quantity where SOLD."""
        per = self.plan.insts.per_qty if kind == cascade.SOLD else self.plan.insts.per_usd
        return self.common.totals[kind] / per

    def sold(self, instrument: str) -> float:
        """Quantity of an instrument that was sold, net."""
        k = self.plan.snapshot.universe.code("instrument", instrument)
        return float(self.total(cascade.SOLD)[k])

    def notes(self, reason: int) -> Any:
        """Rows of the log with a reason."""
        rows = self.state.log.rows[: self.state.log.used[0]]
        return rows[rows.reason == reason]

    def health(self, a: int) -> float:
        """Cover over asked at the end."""
        cover, asked, _ = cascade.health_of(a, self.case, self.state)
        return float(cover / asked)

    def left(self, a: int) -> list[float]:
        """What is left of each leg of an account."""
        hold, row = self.plan.hold, self.state.touched.slot[a]
        first, last = hold.accounts[a].first, hold.accounts[a].last
        return [
            float(accounts.left_of(i, first, row, hold, self.state.touched))
            for i in range(first, last)
        ]

    def money(self, a: int) -> float:
        """Money of an account that belongs to no leg."""
        return float(self.state.touched.rows[self.state.touched.slot[a]].cash)

    @property
    def bits(self) -> list[bytes]:
        """What prices, flows and the ledger were, to the last bit."""
        common = self.common
        return [common.totals.tobytes(), common.ledger.tobytes(), common.path.tobytes()]

    @property
    def leak(self) -> float:
        """Largest sum of a round of the ledger, as a share of the book."""
        hold, insts = self.plan.hold, self.plan.insts
        gross = np.abs(hold.legs.qty * insts.start[hold.legs.inst]).sum()
        return float(np.abs(self.common.ledger.sum(axis=1)).max() / gross)


def follow(
    snapshot: Snapshot,
    stressed: Stressed,
    responses: Responses,
    *,
    cash: float = 0.0,
    coins: float = 0.0,
    willing: Any = None,
    **options: Any,
) -> Outcome:
    """Run one cascade; the rest changes account 2 of the tiny world.

    `cash` is its realised money, `coins` the share that its USDC counts for, where it is no money.
    """
    plan, chosen = Plan.of(snapshot), Options(responses=responses, **options)
    case = case_of(plan, stressed, chosen, check=True)
    case.hold.accounts["cash"][1] += cash
    if coins:
        leg = case.hold.accounts["first"][1] + 1
        case.hold.legs["weight"][leg] = coins
        case.insts["money"][case.hold.legs["inst"][leg]] = 0
    if willing is not None:
        case = case._replace(switches=case.switches._replace(willing=willing))
    state = state_of(case, log_rows=10_000)
    common = common_of(plan, chosen, path=True)
    funds, scale = snapshot.funds, np.ones(len(snapshot.universe.venues))
    for _ in range(2):  # the second time stands on what the first left behind
        rounds.start_over(case, state, common, funds.insurance, funds.backstop)
        count, outcome = rounds.run_rounds(case, state, common, plan.holders, scale)
    return Outcome(plan, case, state, common, count, outcome)


def at(snapshot: Snapshot, **prices: float) -> Stressed:
    """The snapshot with BTC and ETH at other prices."""
    stressed, universe = Stressed.calm(snapshot), snapshot.universe
    for asset, price in prices.items():
        move = np.log(price / _START[asset])
        stressed = stressed.put("factor", universe.code("asset", asset), move)
    return stressed


def still(responses: Responses, snapshot: Snapshot | None = None, **words: Any) -> Outcome:
    """A cascade on the tiny world, or another, in which sales move no price unless told to."""
    snapshot = snapshot or tiny_world().snapshot()
    prices = {asset: words.pop(asset) for asset in _START if asset in words}
    words.setdefault("impact", Impact.NONE)
    return follow(snapshot, at(snapshot, **prices), responses, **words)


def changed(**frames: pl.DataFrame) -> Snapshot:
    """The tiny world with some tables exchanged."""
    world = tiny_world()
    tables = MappingProxyType({**world.tables, **frames})
    return World(0, world.ts, tables, world.truth).snapshot()


def backed(owner: int = 3) -> Snapshot:
    """The tiny world with 50,000 USDC behind the long BTC, and the short one in other hands."""
    positions, held = (tiny_world().tables[name] for name in ("positions", "accounts"))
    money = (pl.col("account") == 2) & (pl.col("kind") == "cash")
    return changed(
        positions=positions.with_columns(
            qty=pl.when(money).then(50_000.0).otherwise(pl.col("qty"))
        ),
        accounts=held.with_columns(
            owner=pl.when(pl.col("account") == 4)
            .then(owner)
            .otherwise(pl.col("owner"))
            .cast(held["owner"].dtype)
        ),
    )


def test_a_called_owner_brings_in_what_the_buffer_lacks_and_is_not_closed() -> None:
    # 5,000 USDC less a loss of 5,000; 2.5 % of 35,000 is asked: 1.05 * 875 = 918.75
    done = still(Responses(top_up=True), BTC=35_000.0)
    assert done.state.free[0] == pytest.approx(2_000.0 - 918.75, rel=1e-8)
    assert done.money(1) == pytest.approx(918.75, rel=1e-8)
    assert done.health(1) == pytest.approx(1.05, rel=1e-8)
    assert done.total(cascade.GIVEN).sum() == pytest.approx(918.75, rel=1e-8)
    assert done.total(cascade.CLOSED).sum() == 0.0
    (note,) = done.notes(cascade.TOPPED_UP)
    assert (note.account, note.value) == (1, pytest.approx(918.75, rel=1e-8))
    assert (done.rounds, done.outcome) == (2, rounds.SETTLED)
    assert list(done.common.acted[:2]) == [1, 0]
    assert done.leak < 1e-9


def test_without_the_switch_the_same_account_is_closed() -> None:
    done = still(Responses(), BTC=35_000.0)
    assert done.total(cascade.CLOSED).sum() == pytest.approx(35_000.0)
    assert done.total(cascade.GIVEN).sum() == 0.0


def test_accounts_of_one_owner_share_what_there_is_by_what_each_needs() -> None:
    # needs: 1.05 * 10,000 - 0.8 * 10,000 = 2,500 and 918.75, and 2,000 are there
    done = still(Responses(top_up=True), BTC=35_000.0, ETH=1_000.0)
    first, second = done.notes(cascade.TOPPED_UP)
    assert (first.account, second.account) == (0, 1)
    assert first.value == pytest.approx(2_000.0 * 2_500.0 / 3_418.75, rel=1e-8)
    assert second.value == pytest.approx(2_000.0 * 918.75 / 3_418.75, rel=1e-8)
    assert done.state.free[0] == 0.0
    assert set(done.notes(cascade.LIQUIDATED).account) == {0, 1}  # it was not enough
    assert done.leak < 1e-9


@pytest.mark.parametrize(
    ("price", "need"),
    [
        # 1,900 are asked and 1,000 count: all of it goes to what is owed
        (36_000.0, (1.05 * 1_900.0 - 1_000.0) / 1.05),
        # 1,887.5 and 500: the 1,000 that are owed, and 1.05 * 887.5 - 500 on top
        (35_500.0, 1_000.0 + 1.05 * 887.5 - 500.0),
    ],
)
def test_owed_money_is_paid_back_first_and_asks_for_less(price: float, need: float) -> None:
    done = still(Responses(top_up=True), BTC=price, cash=-1_000.0)
    assert done.total(cascade.GIVEN).sum() == pytest.approx(need, rel=1e-8)
    assert done.health(1) == pytest.approx(1.05, rel=1e-8)


def test_a_borrower_sells_collateral_for_debt_until_the_buffer_is_there() -> None:
    # (1.05 * 10,000 - 9,600) / (1.05 - 0.8) = 3,600: 3 of 10 ETH at 1,200
    done = still(Responses(delever=True), ETH=1_200.0)
    assert done.left(0) == pytest.approx([7.0, -6_400.0], rel=1e-7)
    assert done.health(0) == pytest.approx(1.05, rel=1e-8)
    assert done.sold("aave-v3:ETH") == pytest.approx(3.0, rel=1e-7)
    assert done.sold("aave-v3:USDC") == pytest.approx(-3_600.0, rel=1e-7)
    for kind in (cascade.CLOSED, cascade.REPAID, cascade.GAIN, cascade.BAD, cascade.GIVEN):
        assert done.total(kind).sum() == 0.0
    (note,) = done.notes(cascade.BY_OWNER)
    assert (note.qty, note.repaid) == pytest.approx((3.0, 3_600.0), rel=1e-7)
    assert done.state.touched.rows[done.state.touched.slot[0]].state == accounts.KEPT
    assert done.leak < 1e-9


def test_a_trader_closes_the_share_of_a_position_that_frees_enough() -> None:
    # 5,000 - 4,200 count, 895 are asked. Closing x turns a loss of 4,200 x into owed money:
    # 5,000 - 4,200 (1 - x) = 1.05 * (895 (1 - x) + 4,200 x)
    share = (1.05 * 895.0 - 800.0) / (1.05 * 895.0 - 0.05 * 4_200.0)
    done = still(Responses(delever=True), BTC=35_800.0)
    assert done.left(1)[0] == pytest.approx(1.0 - share, rel=1e-7)
    assert done.money(1) == pytest.approx(-4_200.0 * share, rel=1e-7)
    assert done.health(1) == pytest.approx(1.05, rel=1e-8)
    assert done.sold(_PERP) == pytest.approx(share, rel=1e-7)
    assert done.total(cascade.CLOSED).sum() == 0.0
    assert done.leak < 1e-9


def test_who_has_less_than_nothing_leaves_the_account_to_its_venue() -> None:
    done = still(Responses(delever=True), BTC=30_000.0)
    assert len(done.notes(cascade.LIQUIDATED)) == 1
    assert 1 not in done.notes(cascade.BY_OWNER).account


def test_an_owner_tops_up_first_and_delevers_for_the_rest() -> None:
    done = still(Responses(top_up=True, delever=True), ETH=1_000.0)
    # 2,000 of the 2,500 that are lacking; 500 / (1.05 - 0.8) = 2,000: 2 ETH at 1,000
    assert done.money(0) == pytest.approx(2_000.0)
    assert done.left(0) == pytest.approx([8.0, -8_000.0], rel=1e-7)
    assert len(done.notes(cascade.LIQUIDATED)) == 0


def test_an_owner_who_lost_hedged_collateral_buys_the_short_back() -> None:
    # Owner 2: 1 BTC against 20,000 USDC, short 1 BTC. At 26,000 half the debt is repaid for
    # 10,500 USD of BTC. The long of account 2 is backed well enough not to be called.
    snapshot = backed(owner=2)
    assert list(snapshot.book.owner) == [0, 0, 1, 1, 2]
    done = still(Responses(unwind=True), snapshot, BTC=26_000.0)
    lost = 10_500.0 / 26_000.0
    assert done.left(2)[0] == pytest.approx(1.0 - lost)
    assert done.left(3)[0] == pytest.approx(-1.0 + lost)
    assert done.money(3) == pytest.approx(lost * 14_000.0)
    assert done.sold(_PERP) == pytest.approx(-lost)
    (note,) = done.notes(cascade.UNWOUND)
    assert (note.account, note["round"]) == (3, 0)
    assert done.total(cascade.CLOSED).sum() == pytest.approx(10_500.0)
    assert done.leak < 1e-9
    alone = still(Responses(unwind=True), backed(), BTC=26_000.0)
    assert len(alone.notes(cascade.UNWOUND)) == 0
    assert alone.sold(_PERP) == 0.0


def test_an_owner_whose_winner_was_deleveraged_closes_the_other_side() -> None:
    # Account 2 is bankrupt: 9,000 are short, 1,000 insured, so 8/9 of its BTC are taken from the
    # only short. Its owner is long 0.5 BTC elsewhere, and well backed.
    world = tiny_world()
    positions = world.tables["positions"]
    perp = pl.col("instrument") == _PERP
    more = positions.filter(pl.col("account") == 2).with_columns(
        account=pl.lit(6).cast(positions["account"].dtype),
        qty=pl.when(perp).then(0.5).otherwise(90_000.0),
    )
    held = world.tables["accounts"]
    sixth = held.filter(pl.col("account") == 4).with_columns(
        account=pl.lit(6).cast(held["account"].dtype), label=pl.lit("0xe5")
    )
    snapshot = changed(positions=pl.concat([positions, more]), accounts=pl.concat([held, sixth]))
    done = still(Responses(unwind=True), snapshot, BTC=26_000.0)
    (taken,) = done.notes(cascade.DELEVERAGED)
    assert -taken.qty == pytest.approx(8.0 / 9.0)
    (note,) = done.notes(cascade.UNWOUND)
    assert note.qty == pytest.approx(0.5)  # all there was, of 8/9 that were lost
    assert note.account == list(snapshot.book.account).index(6)
    # the long of the bankrupt, less what the winner gave, and the half that was unwound
    assert done.sold(_PERP) == pytest.approx(1.0 - 8.0 / 9.0 + 0.5)
    assert done.leak < 1e-9


def test_coins_are_sold_for_owed_money_before_anybody_is_closed() -> None:
    # 5,000 of a coin count for 4,500, less a loss of 2,500; 937.5 and the 1,100 owed are asked.
    # With 1,100 of it sold 1,010 count, and that is enough.
    words: dict[str, Any] = {"BTC": 37_500.0, "cash": -1_100.0, "coins": 0.9}
    done = still(Responses(convert=True), **words)
    assert done.sold("hyperliquid:USDC") == pytest.approx(1_100.0)
    assert done.money(1) == pytest.approx(0.0, abs=1e-9)
    assert done.health(1) == pytest.approx(1_010.0 / 937.5)
    assert [n.value for n in done.notes(cascade.CONVERTED)] == pytest.approx([1_100.0])
    assert len(done.notes(cascade.LIQUIDATED)) == 0
    assert done.leak < 1e-9
    assert len(still(Responses(), **words).notes(cascade.LIQUIDATED)) == 1


def test_nobody_acts_at_a_venue_before_it_opens() -> None:
    snapshot = tiny_world().snapshot()
    venue = snapshot.universe.code("venue", "hyperliquid")
    shut = at(snapshot, BTC=35_000.0).put("closed_until_us", venue, 180_000_000)
    done = follow(snapshot, shut, Responses(top_up=True), impact=Impact.NONE)
    (note,) = done.notes(cascade.TOPPED_UP)
    assert note["round"] == 3


@pytest.mark.parametrize("fall", [0.6, 0.8, 0.9])
def test_the_unwilling_change_nothing(market_world: World, fall: float) -> None:
    snapshot = market_world.snapshot()
    stressed = fallen(snapshot, fall)
    answers = Responses(top_up=True, delever=True, unwind=True, willing=0.0)
    off, idle = (follow(snapshot, stressed, r) for r in (Responses(), answers))
    assert off.bits == idle.bits
    assert off.rounds == idle.rounds
    assert off.total(cascade.CLOSED).sum() > 0.0  # there was something to answer


def test_the_half_willing_do_half_each_round_and_come_to_an_end() -> None:
    done = still(Responses(top_up=True, willing=0.5), ETH=1_220.0)
    notes = done.notes(cascade.TOPPED_UP)
    need = 10_500.0 - 9_760.0  # half of it is more than the 240 that make health 1
    assert [n.value for n in notes[:3]] == pytest.approx([need / 2, need / 4, need / 8], rel=1e-6)
    assert done.outcome == rounds.SETTLED
    assert 0.0 < need - notes.value.sum() < 1e-4 * 10_000.0
    assert len(done.notes(cascade.LIQUIDATED)) == 0


def test_willingness_is_each_owners_own() -> None:
    willing = np.array([0.0, 1.0, 1.0, 1.0])
    words = {"BTC": 26_500.0, "ETH": 1_200.0, "deleveraging": Deleveraging.NONE}
    done = still(Responses(delever=True), willing=willing, **words)
    assert set(done.notes(cascade.BY_OWNER).account) == {2}
    assert set(done.notes(cascade.LIQUIDATED).account) == {0, 1}


def fallen(snapshot: Snapshot, left: float) -> Stressed:
    """All that is no money at a share of its price."""
    universe = snapshot.universe
    free = (universe.reference < 0) & ~universe.stable
    return Stressed.calm(snapshot).put("factor", free, np.log(left))


@pytest.mark.parametrize("fall", [0.6, 0.75, 0.9])
@pytest.mark.parametrize("capacity", [False, True])
def test_nothing_is_lost_between_the_parties(
    market_world: World, fall: float, capacity: bool
) -> None:
    snapshot = market_world.snapshot()
    done = follow(snapshot, fallen(snapshot, fall), _ALL, capacity=capacity)
    assert done.leak < 1e-9
    assert done.total(cascade.GIVEN).sum() == pytest.approx(-done.common.ledger[:, 8].sum())
    given = done.case.switches.free - done.state.free
    assert given.sum() == pytest.approx(done.total(cascade.GIVEN).sum(), rel=1e-9)
    assert (done.state.free >= 0.0).all()
    reasons = set(done.state.log.rows[: done.state.log.used[0]].reason)
    assert {cascade.TOPPED_UP, cascade.BY_OWNER, cascade.LIQUIDATED} <= reasons


def test_the_order_of_an_owners_accounts_does_not_show() -> None:
    world = tiny_world()
    swap = pl.col("account").replace({1: 2, 2: 1})
    swapped = changed(**{t: world.tables[t].with_columns(swap) for t in ("accounts", "positions")})
    assert list(swapped.book.venue[:2]) == list(world.snapshot().book.venue[1::-1])
    words: dict[str, Any] = {"BTC": 33_000.0, "ETH": 1_000.0}
    one, two = still(_ALL, **words), still(_ALL, swapped, **words)
    assert one.bits == two.bits
    assert len(one.notes(cascade.TOPPED_UP)) == 2


def test_a_willingness_that_is_no_share_is_refused() -> None:
    with pytest.raises(StateError, match=r"willing was 1\.5; it may be 0 to 1"):
        Options(responses=Responses(willing=1.5))


def digests() -> list[str]:
    """Every flow, price and note of some cascades in which owners do all they can."""
    words: list[dict[str, Any]] = [
        {"BTC": 35_000.0, "ETH": 1_000.0},
        {"BTC": 35_800.0, "ETH": 1_200.0, "responses": Responses(delever=True)},
        {"BTC": 25_000.0, "ETH": 900.0, "impact": Impact.EXPONENTIAL},
        {"BTC": 37_500.0, "cash": -1_100.0, "coins": 0.9},
        {"BTC": 26_000.0, "snapshot": backed(owner=2)},
    ]
    done = [still(w.pop("responses", _ALL), **w) for w in words]
    return [
        hashlib.sha256(b"".join([*d.bits, d.state.free.tobytes(), d.state.log.rows.tobytes()]))
        .hexdigest()
        for d in done
    ]  # fmt: skip


def test_compiled_owners_do_what_plain_python_does_to_the_bit() -> None:
    words = "from test_responses import digests\nprint(digests())"
    folders = [os.path.dirname(__file__), *sys.path]  # noqa: PTH120
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-c", words], capture_output=True, text=True, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == repr(digests())
