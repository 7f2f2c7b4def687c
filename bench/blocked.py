"""A compiled kernel as people write it: accounts sorted by distance to liquidation, in blocks.

One scenario is followed at a time, without any knowledge of another. Accounts stand in memory in
the order in which they are read: by *group*, then by distance, `BLOCK` of them a block. A block is
judged, account by account, if prices have moved so far that its nearest account could be called;
other blocks are skipped. Once judged, a block has a fresh distance, that of its nearest account
then, and is left alone until prices have come so much further. Who was called is judged again in
the next round, and everybody touched so far after a round in which winners had to pay.

What makes it the strongest plain version is what a group is. Like an order book of liquidation
prices, it holds the accounts that one root asset endangers on one side: those that only a fall
hurts, those that only a rise hurts, and those that either may. An account on several roots stands
in a group of such accounts, and the largest move of any root counts for it. The first distance is
held against the move from the start of the scenario to now, not the way that prices took in
between. Money that is held or owed hardly moves, so it is kept out of that distance: an account
with cover W, asked D and `spread` (see `kernels.accounts`: what H = W - D can change per unit of
relative move, here of what is no money) is safe while

    move of its root + money ratio * largest move of money < (W - D) / spread

with the money ratio that part of the spread over this one, and the largest of its block. In the
engine's measure of distance the right side is log1p(H / spread); without logs the move needs none.
Judging every near block and every touched account in every round instead, as first versions do,
takes about twice as long in a mild scenario and three times in a severe one.

What closes an account, who pays for it and what sales do to prices are the engine's own functions:
the rules are not what is compared, finding whom to judge is. So are the summaries by owner. All
sums are whole counts, in which order does not show: the answers are those of `Engine.run`, to the
bit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from math import inf, log, log1p
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from bench.totals import Totals, require_plain
from undertow.kernels import accounts, cascade, rounds, sweep
from undertow.kernels.accounts import EMPTIED, account_health
from undertow.kernels.closers import close_due
from undertow.kernels.closing import BANDS
from undertow.kernels.lent import lend
from undertow.kernels.margin import CASH, COLLATERAL, DEBT, LINEAR, SUPPLY
from undertow.kernels.rounds import begin, deleverage, end_round, open_round, share_losses
from undertow.kernels.sweep import count_owners
from undertow.state.arrays import frozen
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.setting import case_of, common_of, shocks_of, state_of
from undertow.stress.stressed import Stressed

BLOCK = 16  # 8 to 64 take the same time within a tenth
FALLS, RISES, EITHER = range(3)  # what endangers an account
UNSEEN = -1.0
_ROUNDING = 1e-12  # of all that H is added up from
_MOSTLY_MONEY = 100.0  # times the rest: from there on money is like any other price


class Blocks(NamedTuple):
    """What is known of each block before any scenario; blocks of a group stand together."""

    first: NDArray[np.int64]  # its accounts, up to `last`
    last: NDArray[np.int64]
    group: NDArray[np.int64]
    least: NDArray[np.float64]  # distance of its nearest account
    money: NDArray[np.float64]  # its largest money ratio
    of: NDArray[np.int32]  # by account, the block that it is in


class Ways(NamedTuple):
    """How prices have moved in a scenario, and until when a block that was judged is safe."""

    moved: NDArray[np.float64]  # by group, since the start
    travelled: NDArray[np.float64]  # by group, in logs, round by round
    money: NDArray[np.float64]  # (1,) as `moved`
    last: NDArray[np.float64]  # (2, instruments) seen prices and forwards of the last round
    until: NDArray[np.float64]  # by block, as `travelled`; UNSEEN where it was never judged
    again: NDArray[np.int32]  # accounts to be judged in the next round, wherever they stand
    listed: NDArray[np.int64]  # by account, the last `turn` in which it was judged
    turn: NDArray[np.int64]  # (2,): rounds so far, of all scenarios; how many there are in `again`


@njit(cache=True, error_model="numpy")
def measure(case, state, health, size, spread):
    """Write H, W + D and the spread of every account at the seen prices."""
    hold, touched, now = case.hold, state.touched, state.now
    insts, brackets, grids, losses = case.insts, case.brackets, case.grids, state.losses
    for a in range(hold.accounts.size):
        w, d, reach = account_health(a, hold, touched, now, insts, brackets, grids, losses)
        health[a], size[a], spread[a] = w - d, w + d, reach


@njit(cache=True, error_model="numpy")
def set_out(case, ways):
    """Bring `ways` back to the start of a scenario."""
    ways.travelled[:] = 0.0
    ways.until[:] = UNSEEN
    ways.turn[1] = 0
    for k in range(case.insts.size):
        ways.last[0, k] = case.insts[k].start
        ways.last[1, k] = case.insts[k].forward


@njit(cache=True, error_model="numpy")
def go_on(case, state, ways):
    """Write how far the prices of each group have come: since the start, and all the way."""
    moved, last = ways.moved, ways.last
    moved[:] = 0.0
    step = np.zeros(moved.size)
    money, money_step = 0.0, 0.0
    for k in range(case.insts.size):
        inst, here = case.insts[k], state.now[k]
        at = 3 * inst.root
        move, way = here.seen / inst.start - 1.0, log(here.seen / last[0, k])
        if inst.kind != 0:  # what its forward did, or a mark that moved without it
            far = max(abs(here.forward - inst.forward), abs(here.seen - inst.start))
            mark = abs(here.seen - last[0, k]) / min(here.forward, last[1, k])
            move, way = far / inst.forward, max(abs(log(here.forward / last[1, k])), log1p(mark))
        if inst.root < 0:
            money, money_step = max(money, abs(move)), max(money_step, abs(way))
        elif inst.kind != 0:
            moved[at + EITHER] = max(moved[at + EITHER], move)
            step[at + EITHER] = max(step[at + EITHER], way)
        else:
            moved[at + FALLS] = max(moved[at + FALLS], -move)
            moved[at + RISES] = max(moved[at + RISES], move)
            moved[at + EITHER] = max(moved[at + EITHER], abs(move))
            step[at + FALLS] = max(step[at + FALLS], -way)
            step[at + RISES] = max(step[at + RISES], way)
            step[at + EITHER] = max(step[at + EITHER], abs(way))
        last[0, k], last[1, k] = here.seen, here.forward
    several = moved.size - 3
    for n in range(several):
        moved[several + n % 3] = max(moved[several + n % 3], moved[n])
        step[several + n % 3] = max(step[several + n % 3], step[n])
    for n in range(moved.size):
        ways.travelled[n] += max(step[n], money_step)
    ways.money[0] = money


@njit(cache=True, error_model="numpy")
def is_safe(b, blocks, ways):
    """Whether nobody in block `b` can be called at the present prices."""
    group = blocks.group[b]
    if ways.until[b] == UNSEEN:
        return ways.moved[group] + blocks.money[b] * ways.money[0] < blocks.least[b]
    return ways.travelled[group] < ways.until[b]


@njit(cache=True, error_model="numpy")
def near_ones(blocks, ways, touched, near):
    """Write to `near` who must be judged now: those in `again`, and all in blocks not safe."""
    ways.turn[0] += 1
    turn, count = ways.turn[0], 0
    for n in range(ways.turn[1]):
        a = ways.again[n]
        ways.listed[a] = turn
        if not is_gone(a, touched):
            near[count] = a
            count += 1
    for b in range(blocks.first.size):
        if is_safe(b, blocks, ways):
            continue
        ways.until[b] = inf
        for a in range(blocks.first[b], blocks.last[b]):
            if ways.listed[a] != turn and not is_gone(a, touched):
                near[count] = a
                count += 1
    return count


@njit(cache=True, error_model="numpy", inline="always")
def is_gone(a, touched):
    """Whether nothing is left of account `a`."""
    n = touched.slot[a]
    return n >= 0 and touched.rows[n].state == EMPTIED


@njit(cache=True, error_model="numpy")
def judge_near(near, blocks, ways, case, state):
    """Judge the first `near` accounts in `state.due`, and keep those that are called now.

    Writes until when the blocks are safe now. Returns how many are called.
    """
    hold, touched, now, due = case.hold, state.touched, state.now, state.due
    insts, brackets, grids, losses = case.insts, case.brackets, case.grids, state.losses
    found = 0
    for n in range(near):
        a = due[n]
        w, d, spread = account_health(a, hold, touched, now, insts, brackets, grids, losses)
        b = blocks.of[a]
        if w < d or case.closing[hold.accounts[a].venue].mechanism == BANDS:
            due[found] = a
            found += 1
        elif ways.until[b] == UNSEEN:  # a winner who had to pay, of a block never looked at
            ways.until[b] = 0.0
        elif spread > 0.0:
            far = log1p((w - d) / spread) * (1.0 - 1e-9)
            ways.until[b] = min(ways.until[b], ways.travelled[blocks.group[b]] + far)
    return found


@njit(cache=True, error_model="numpy")
def judge_again(found, everybody, ways, state):
    """Have the called ones judged in the next round too, or everybody who was touched."""
    touched, count = state.touched, 0
    for n in range(found):
        if not everybody or touched.slot[state.due[n]] < 0:
            ways.again[count] = state.due[n]
            count += 1
    if everybody:
        for n in range(touched.used[0]):
            ways.again[count] = touched.rows[n].account
            count += 1
    ways.turn[1] = count


@njit(cache=True, error_model="numpy", nogil=True)
def follow_blocked(
    case, state, common, holders, insurance, backstop, blocks, ways, scale, row, called_by
):
    """Follow one scenario to its end; writes `common` and `row`. Returns how often it judged."""
    case, state, common, holders = lend(case), lend(state), lend(common), lend(holders)
    blocks, ways = lend(blocks), lend(ways)
    begin(case, state, common, insurance, backstop)
    set_out(case, ways)
    state.watched[0] = 0
    scale[:] = 1.0
    judged = 0
    for r in range(common.acted.size):
        waiting, _ = open_round(r, case, state)
        go_on(case, state, ways)
        near = near_ones(blocks, ways, state.touched, state.due)
        found = judge_near(near, blocks, ways, case, state)
        judged += near
        acted, held_back = close_due(state.due[:found], r, scale, False, case, state)
        winners_pay = share_losses(r, case, state, common)
        if winners_pay:
            deleverage(r, case, state, common, holders)
        judge_again(found, winners_pay, ways, state)
        pending = end_round(r, case, state, common)
        row.rounds = r + 1
        if acted == 0 and held_back == 0 and pending == 0 and waiting == 0:
            break
    count_owners(row, case, state, called_by)
    return judged


@dataclass(eq=False)
class Blocked:
    """A plan in blocks, and memory to follow one scenario after another in."""

    plan: Plan  # as it was given
    blocks: Blocks
    judged: int  # accounts that the last scenario looked at, each time counted
    _case: Any
    _options: Options
    _state: Any
    _common: Any
    _holders: rounds.Holders
    _row: Any
    _ways: Ways
    _called_by: Any

    @classmethod
    def of(cls, plan: Plan, options: Options | None = None, *, block: int = BLOCK) -> Blocked:
        """Sort the accounts of a plan by what endangers them, and cut them into blocks."""
        options = options or Options()
        group, distance, money = _distances(plan, options)
        order = np.lexsort((distance, group))
        laid = _in_order(plan, order)
        blocks = _cut(group[order], distance[order], money[order], block)
        case = case_of(laid, Stressed.calm(plan.snapshot), options)
        return cls(
            plan=plan,
            blocks=blocks,
            judged=0,
            _case=case,
            _options=options,
            _state=state_of(case, most_rounds=options.max_rounds),
            _common=common_of(laid, options),
            _holders=laid.holders,
            _row=np.zeros(1, dtype=sweep.SUMMARY).view(np.recarray),
            _ways=_ways(plan, blocks),
            _called_by=np.zeros(
                (len(plan.owner_start) - 1, -(-len(plan.per_demand) // 64)), dtype=np.uint64
            ),
        )

    def run(self, stressed: Stressed, options: Options | None = None) -> Totals:
        """Follow one scenario, of factor moves alone, to its end.

        Raises
        ------
        ValueError
            When the scenario says more than moves, or other options were prepared for.
        """
        options = options or self._options
        require_plain(self.plan, stressed, options)
        if options != self._options:
            raise ValueError("options differ from those that the blocks were prepared with")
        return self.follow(np.stack(shocks_of(self.plan, stressed)))

    def follow(self, shock: NDArray[np.float64]) -> Totals:
        """Follow one scenario whose log moves are worked out: what is timed."""
        funds, common, row = self.plan.snapshot.funds, self._common, self._row[0]
        self.judged = follow_blocked(
            self._case._replace(shock=shock), self._state, common, self._holders, funds.insurance,
            funds.backstop, self.blocks, self._ways, np.ones(len(self.plan.closing)), row,
            self._called_by,
        )  # fmt: skip
        usd = common.totals / self._case.insts["per_usd"]
        return Totals(
            usd[cascade.CLOSED], usd[cascade.REPAID], usd[cascade.BAD],
            int(row.rounds), int(row.accounts), int(row.owners), int(row.called_twice),
            int(row.most_venues),
        )  # fmt: skip


def _distances(plan: Plan, options: Options) -> tuple[Any, Any, Any]:
    """By account: its group, its distance at the prices of the start, and its money ratio."""
    case = case_of(plan, Stressed.calm(plan.snapshot), options)
    state, common = state_of(case), common_of(plan, options)
    funds = plan.snapshot.funds
    begin(case, state, common, funds.insurance, funds.backstop)
    open_round(0, case, state)
    health, size, spread = (np.empty(len(plan.hold.accounts)) for _ in range(3))
    measure(case, state, health, size, spread)
    group, money = _groups(plan), _money_spread(plan)
    rest = spread - money + _ROUNDING * spread
    # groups of the grid are told as one number, and next to pure money no price may be left out
    whole = (plan.hold.accounts["grid"] >= 0) | (money > _MOSTLY_MONEY * rest)
    rest, money = np.where(whole, spread, rest), np.where(whole, spread, money)
    room = health - _ROUNDING * size
    distance = np.full(len(room), np.inf)
    distance[room < 0.0] = -np.inf
    np.divide(room * (1.0 - 1e-9), rest, out=distance, where=(rest > 0.0) & (room >= 0.0))
    distance[plan.closing["mechanism"][plan.hold.accounts["venue"]] == BANDS] = -np.inf
    return group, distance, np.divide(money, rest, out=np.zeros(len(room)), where=rest > 0.0)


def _leg_account(plan: Plan) -> Any:
    held = plan.hold.accounts
    return np.repeat(np.arange(len(held)), held["last"] - held["first"])


def _groups(plan: Plan) -> Any:
    """By account: three times its root, and whether a fall, a rise or either endangers it."""
    legs, insts = plan.hold.legs, plan.insts
    role, long = legs["role"], legs["qty"] >= 0.0
    inst = insts[legs["inst"]]
    steep = legs["weight"] * (inst["steepest"] + inst["closing_fee"])
    plain = (role <= CASH) | ((role == LINEAR) & (steep <= 1.0) & (legs["weight"] > 0.0))
    counts = (inst["root"] >= 0) & (role != SUPPLY)
    fall = counts & (long | ~plain)
    rise = counts & (~long | ~plain)
    account, number = _leg_account(plan), len(plan.hold.accounts)
    falls = np.bincount(account, fall, number) > 0
    rises = np.bincount(account, rise, number) > 0
    side = np.where(falls & rises, EITHER, np.where(rises, RISES, FALLS))
    return 3 * plan.hold.accounts["root"].astype(np.int64) + side


def _money_spread(plan: Plan) -> Any:
    """By account: the part of its spread that is that of money, in legs that are no contracts."""
    legs, insts = plan.hold.legs, plan.insts
    role = legs["role"]
    weight = np.where((role == CASH) & (legs["qty"] < 0.0), 1.0, legs["weight"])
    usd = weight * np.abs(legs["qty"]) * insts["start"][legs["inst"]]
    here = (insts["root"][legs["inst"]] < 0) & np.isin(role, (COLLATERAL, DEBT, CASH))
    return np.bincount(_leg_account(plan), np.where(here, usd, 0.0), len(plan.hold.accounts))


def _in_order(plan: Plan, order: Any) -> Plan:
    """The same plan with accounts, and their legs, where `order` puts them."""
    held = plan.hold.accounts
    sizes = (held["last"] - held["first"])[order]
    last = np.cumsum(sizes)
    legs = np.repeat(held["first"][order] - (last - sizes), sizes) + np.arange(last[-1])
    sorted_accounts = held[order]
    sorted_accounts["first"], sorted_accounts["last"] = last - sizes, last
    place_of_leg, place = np.empty(len(legs), dtype=np.int64), np.empty(len(order), dtype=np.int32)
    place_of_leg[legs], place[order] = np.arange(len(legs)), np.arange(len(order))
    return replace(
        plan,
        hold=accounts.Holdings(sorted_accounts, plan.hold.legs[legs]),
        holders=rounds.Holders(
            plan.holders.start,
            frozen(place_of_leg[plan.holders.leg]),
            frozen(place[plan.holders.account]),
            plan.holders.side,
            plan.holders.entry,
        ),
    )


def _cut(group: Any, distance: Any, money: Any, block: int) -> Blocks:
    """Blocks of at most `block` accounts of one group each."""
    heads = np.append(np.flatnonzero(np.diff(group, prepend=-1)), len(group))
    first = np.concatenate([np.arange(lo, hi, block) for lo, hi in pairwise(heads)])
    last = np.append(first[1:], len(group))
    return Blocks(
        first, last, group[first], distance[first], np.maximum.reduceat(money, first),
        np.repeat(np.arange(len(first), dtype=np.int32), last - first),
    )  # fmt: skip


def _ways(plan: Plan, blocks: Blocks) -> Ways:
    groups = 3 * (len(plan.snapshot.universe.assets) + 1)
    return Ways(
        np.zeros(groups), np.zeros(groups), np.zeros(1), np.zeros((2, len(plan.insts))),
        np.zeros(len(blocks.first)), np.zeros(len(blocks.of), dtype=np.int32),
        np.zeros(len(blocks.of), dtype=np.int64), np.zeros(2, dtype=np.int64),
    )  # fmt: skip
