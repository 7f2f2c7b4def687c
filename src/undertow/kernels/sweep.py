"""Many scenarios on one book, a lane each: screened together, then followed one by one.

What no scenario of a batch can call is never looked at: round 0 of all lanes is screened at once,
then the box from there to where prices may go, `AHEAD` times the first round's displacement
further. Where prices leave their box it is widened, and holders of what moved are screened again.
Everything else is `rounds`, with the same functions in the same order, so a lane gives the same
bits as a cascade of its own, whatever batch it stands in.
"""

from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.kernels import njit
from undertow.kernels.accounts import EMPTIED, TAKEN, Losses, Touched, left_of
from undertow.kernels.cascade import (
    BAD,
    CLOSED,
    PAID,
    REPAID,
    SHORT,
    Case,
    Flows,
    State,
    judge,
    put_on_watch,
)
from undertow.kernels.closers import close_due
from undertow.kernels.lent import lend
from undertow.kernels.margin import INVERSE, LINEAR
from undertow.kernels.prices import Moving
from undertow.kernels.rounds import (
    ROUND_LIMIT,
    SETTLED,
    Common,
    begin,
    close_round,
    deleverage,
    finish_round,
    limited,
    note_path,
    open_round,
    quiet,
    share_losses,
)
from undertow.kernels.screening import LEAST, MOST, NODES, bound, screen

AHEAD = 2.0  # how much further than the first displacement prices may go until a new screening
_PAD = 0.002  # width of a box where nothing moved
_STEP = 0.01  # by how much a box is widened at least
_BLOCK = 8192  # accounts whose legs fit in a core's own cache

# One row a scenario.
SUMMARY = np.dtype(
    [
        ("rounds", "i4"),
        ("outcome", "i4"),
        ("accounts", "i8"),  # that their venue closed, in part or whole
        ("winners", "i8"),  # whose positions were taken to pay for others, and nothing else
        ("owners", "i8"),
        ("called_twice", "i8"),  # owners called at two venues or more
        ("most_venues", "i8"),  # that called one owner
        ("looked_again", "i8"),  # how often prices left the box
        ("watched", "i8"),
        ("first_fall", "f8"),  # of market prices, weighted with what is held that is no money
        ("final_fall", "f8"),
        ("slipped", "f8"),  # USD lost by selling into falling prices
    ],
    align=True,
)
# Rows of the sums by venue and by asset.
BY_CLOSED, BY_REPAID, BY_BAD, BY_SHORT, BY_PAID = range(5)
BY_LACKING = 5  # what accounts that stand owe beyond what they have; by venue alone
SUMS = 6


class Room(NamedTuple):
    """Everything that `State` and `Common` hold, for each lane of a batch."""

    now: NDArray[np.void]
    history: NDArray[np.float64]
    pool: NDArray[np.float64]  # (lanes, 4, pools): sold, thin, by_pool, logs
    receipt: NDArray[np.float64]
    pending: NDArray[np.int64]
    travelled: NDArray[np.float64]
    farthest: NDArray[np.float64]
    trail: NDArray[np.float64]
    dirty: NDArray[np.int8]
    loss: NDArray[np.float64]
    stamp: NDArray[np.int64]
    slot: NDArray[np.int32]
    rows: NDArray[np.void]
    rest: NDArray[np.float64]
    used: NDArray[np.int64]
    counts: NDArray[np.int64]
    later: NDArray[np.int64]
    demand: NDArray[np.int64]
    watch: NDArray[np.int32]
    root: NDArray[np.int32]
    watched: NDArray[np.int64]
    keys: NDArray[np.float64]
    reach: NDArray[np.float64]
    looked: NDArray[np.int32]
    due: NDArray[np.int32]
    free: NDArray[np.float64]
    shared: NDArray[np.void]
    funds: NDArray[np.void]
    totals: NDArray[np.int64]
    ledger: NDArray[np.float64]
    path: NDArray[np.float64]
    acted: NDArray[np.int64]
    kept_at: NDArray[np.float64]


class Boxes(NamedTuple):
    """Where the prices of each lane may be, and who could be called there."""

    low: NDArray[np.float32]  # (instruments, lanes) relative moves
    high: NDArray[np.float32]
    gap_low: NDArray[np.int16]  # (assets, lanes) gaps of the ladders
    gap_high: NDArray[np.int16]
    apart: NDArray[np.float32]  # (assets, lanes)
    listed: NDArray[np.int32]  # (lanes, accounts)
    found: NDArray[np.int64]  # (lanes,)
    plain: NDArray[np.int64]  # (lanes,) how many of them are no portfolio groups
    member: NDArray[np.uint8]  # (lanes, accounts): on the watch list already
    start: NDArray[np.float64]  # (lanes, instruments) moves of round 0
    graded: NDArray[np.int32]  # instruments of venues that margin portfolios
    assets: NDArray[np.int32]  # their underlyings
    of_grid: NDArray[np.uint8]  # (instruments,) whether it is graded


class Tally(NamedTuple):
    """What is kept of every scenario, and scratch to count owners with."""

    summary: NDArray[np.void]  # (scenarios,) SUMMARY
    by_venue: NDArray[np.float64]  # (scenarios, SUMS, venues)
    by_asset: NDArray[np.float64]
    weight: NDArray[np.float64]  # (instruments,) of the price index
    called_by: NDArray[np.uint64]  # (owners, words) venues, a bit each; all 0 between scenarios


@njit(cache=True, error_model="numpy")
def state_at(s, room, log):
    """Lane `s` of `room` as a `State`."""
    pool = room.pool[s]
    moving = Moving(
        room.history[s], pool[0], pool[1], pool[2], pool[3], room.receipt[s], room.pending[s],
        room.travelled[s], room.farthest[s], room.trail[s], room.dirty[s],
    )  # fmt: skip
    touched = Touched(room.slot[s], room.rows[s], room.rest[s], room.used[s])
    return State(
        room.now[s], moving, Losses(room.loss[s], room.stamp[s]), touched,
        Flows(room.counts[s], room.later[s], room.demand[s]), room.watch[s], room.root[s],
        room.watched[s], room.keys[s], room.reach[s], room.looked[s], room.due[s], room.free[s],
        log,
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def common_at(s, room, deposits):
    """Lane `s` of `room` as a `Common`."""
    return Common(
        room.shared[s], room.funds[s], deposits, room.totals[s], room.ledger[s], room.path[s],
        room.acted[s], room.kept_at[s],
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def case_at(shock, case):
    """`case` with another shock."""
    return Case(
        case.hold, case.insts, case.brackets, case.grids, shock, case.vol, case.places,
        case.closing, case.venues, case.switches, case.owner_start, case.keepers,
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def draw_box(s, ahead, market, case, state, boxes):
    """Write the box of lane `s`: from present prices on, `ahead` times their way since round 0.

    Prices are those of the `market`, or as seen.
    """
    for n in range(boxes.assets.size):
        boxes.gap_low[boxes.assets[n], s], boxes.gap_high[boxes.assets[n], s] = NODES, 0
    for k in range(case.insts.size):
        move = move_of(k, market, case, state)
        pad = _PAD if ahead > 0.0 else 0.0
        further = move + ahead * (move - boxes.start[s, k])
        low, high = max(min(move, further) - pad, -1.0), max(move, further) + pad
        boxes.low[k, s] = np.float32(low - 1e-6)
        boxes.high[k, s] = np.float32(high + 1e-6)
    for n in range(boxes.graded.size):
        k = boxes.graded[n]
        spread_out(case.insts[k].asset, s, boxes.low[k, s], boxes.high[k, s], boxes)


@njit(cache=True, error_model="numpy")
def spread_out(asset, s, low, high, boxes):
    """Widen the gaps of an asset to hold the moves `low` to `high` of one of its instruments."""
    scale = (NODES - 1) / (MOST - LEAST)
    first = min(max(int(np.floor((low - LEAST) * scale)), 0), NODES - 2)
    last = min(max(int(np.floor((high - LEAST) * scale)), 0), NODES - 2)
    boxes.gap_low[asset, s] = min(boxes.gap_low[asset, s], first)
    boxes.gap_high[asset, s] = max(boxes.gap_high[asset, s], last)


@njit(cache=True, error_model="numpy")
def move_of(k, market, case, state):
    """Relative move of instrument `k` since the start; of an option, that of its forward."""
    inst, here = case.insts[k], state.now[k]
    if inst.kind == 0:
        return (here.market if market else here.seen) / inst.start - 1.0
    return here.forward / inst.forward - 1.0


@njit(cache=True, error_model="numpy")
def width(asset, s, first, market, case, state, boxes):
    """By how much moves of an asset's instruments at portfolio venues differ; round 0 or now."""
    least, most = inf, -inf
    for n in range(boxes.graded.size):
        k = boxes.graded[n]
        if case.insts[k].asset == asset:
            move = boxes.start[s, k] if first else move_of(k, market, case, state)
            least, most = min(least, move), max(most, move)
    return max(most - least, 0.0)


@njit(cache=True, error_model="numpy")
def measure_apart(s, ahead, market, case, state, boxes):
    """Write by how much instruments of one asset may come to differ in lane `s`."""
    pad = _PAD if ahead > 0.0 else 1e-6
    for n in range(boxes.assets.size):
        asset = boxes.assets[n]
        now = width(asset, s, False, market, case, state, boxes)
        then = width(asset, s, True, market, case, state, boxes)
        boxes.apart[asset, s] = np.float32(now + ahead * abs(now - then) + pad)


@njit(cache=True, error_model="numpy")
def enlist(s, a, case, state, boxes):
    """Put account `a` on the watch list of lane `s`, unless it is on it."""
    if boxes.member[s, a] == 0:
        boxes.member[s, a] = 1
        j = state.watched[0]
        put_on_watch(j, a, case, state)
        state.watched[0] = j + 1


@njit(cache=True, error_model="numpy")
def watch_listed(s, case, state, lines, boxes):
    """Watch who was listed for lane `s`, and all who hold something whose box no line covers."""
    for n in range(boxes.found[s]):
        enlist(s, boxes.listed[s, n], case, state, boxes)
    for k in range(case.insts.size):
        if not covered(k, s, case, boxes):
            watch_holders(k, s, True, case, state, lines, boxes)


@njit(cache=True, error_model="numpy")
def covered(k, s, case, boxes):
    """Whether lines and ladders hold all over the box of instrument `k`."""
    if boxes.high[k, s] >= MOST:
        return False
    return boxes.low[k, s] > LEAST or (case.insts[k].inverse == 0 and boxes.of_grid[k] == 0)


@njit(cache=True, error_model="numpy")
def watch_holders(k, s, everybody, case, state, lines, boxes):
    """Watch all holders of instrument `k`, or those that could be called in the box."""
    for n in range(lines.held_from[k], lines.held_from[k + 1]):
        a = lines.holder[n]
        if boxes.member[s, a] == 0 and (
            everybody
            or bound(a, s, lines, boxes.low, boxes.high, boxes.gap_low, boxes.gap_high, boxes.apart)
            < 0.0
        ):
            enlist(s, a, case, state, boxes)


@njit(cache=True, error_model="numpy")
def keep_in(s, case, state, lines, boxes):
    """Widen the box of lane `s` wherever prices have left it, and watch who can be called there.

    Only holders of what moved need a look. Returns how many instruments had left.
    """
    left = 0
    for k in range(case.insts.size):
        move = move_of(k, False, case, state)
        if boxes.low[k, s] <= move <= boxes.high[k, s]:
            continue
        left += 1
        further = 0.5 * abs(move - boxes.start[s, k]) + _STEP
        if move < boxes.low[k, s]:
            boxes.low[k, s] = np.float32(max(move - further, -1.0))
        else:
            boxes.high[k, s] = np.float32(move + further)
        if boxes.of_grid[k] == 1:
            spread_out(case.insts[k].asset, s, boxes.low[k, s], boxes.high[k, s], boxes)
        watch_holders(k, s, not covered(k, s, case, boxes), case, state, lines, boxes)
    for n in range(boxes.assets.size):
        asset = boxes.assets[n]
        now = width(asset, s, False, False, case, state, boxes)
        if now > boxes.apart[asset, s]:
            boxes.apart[asset, s] = np.float32(1.5 * now + _STEP)
            left += 1
            for m in range(boxes.graded.size):
                if case.insts[boxes.graded[m]].asset == asset:
                    watch_holders(boxes.graded[m], s, False, case, state, lines, boxes)
    return left


@njit(cache=True, error_model="numpy")
def index_fall(case, state, weight):
    """Fall of market prices since the start, weighted."""
    fall = 0.0
    for k in range(case.insts.size):
        fall += weight[k] * (1.0 - state.now[k].market / case.insts[k].start)
    return fall


@njit(cache=True, error_model="numpy", nogil=True)
def sweep_batch(
    lo, hi, case, shocks, insurance, backstop, lines, holders, deposits, room, boxes, log, scale,
    tally,
):  # fmt: skip
    """Follow the scenarios `lo:hi` of `shocks`, each in a lane of its own; writes `tally`.

    `lines` are bounds of all accounts; `holders` as in `rounds`. `tally` rows are scenarios.
    """
    lines, holders, boxes, tally = lend(lines), lend(holders), lend(boxes), lend(tally)
    lanes = hi - lo
    capped = limited(case)
    boxes.found[:] = 0
    done = np.zeros(lanes, dtype=np.uint8)
    waiting, most = np.zeros(lanes, dtype=np.int64), np.zeros(lanes)
    for s in range(lanes):
        here = lend(case_at(shocks[lo + s], case))
        state, common = lend(state_at(s, room, log)), lend(common_at(s, room, deposits))
        begin(here, state, common, insurance, backstop)
        state.watched[0] = 0
        waiting[s], most[s] = open_round(0, here, state)
        tally.summary[lo + s].first_fall = index_fall(here, state, tally.weight)
        for k in range(case.insts.size):
            boxes.start[s, k] = move_of(k, False, here, state)
        draw_box(s, 0.0, False, here, state, boxes)
        measure_apart(s, 0.0, False, here, state, boxes)
    screen_lanes(lines, boxes)
    switches = case.switches
    plain = not (
        capped or switches.top_up or switches.delever or switches.unwind or switches.convert
    )
    acted, held_back = np.zeros(lanes, dtype=np.int64), np.zeros(lanes, dtype=np.int64)
    if plain:
        first_round(lo, lanes, acted, held_back, scale, case, shocks, room, boxes, log)
    for s in range(lanes):
        here = lend(case_at(shocks[lo + s], case))
        state, common = lend(state_at(s, room, log)), lend(common_at(s, room, deposits))
        note_path(0, state, common)
        if plain:
            end_first_round(s, acted, held_back, scale, here, state, lines, boxes)
            if share_losses(0, here, state, common):
                deleverage(0, here, state, common, holders)
            busy = finish_round(0, acted[s], held_back[s], here, state, common)
        else:
            watch_listed(s, here, state, lines, boxes)
            found = judge(0, state.watched[0], 0, here, state)
            busy = close_round(0, found, capped, here, state, common, holders, scale)
        row = tally.summary[lo + s]
        row.rounds, row.outcome = 1, ROUND_LIMIT
        if quiet(busy, waiting[s], most[s], here):
            row.outcome, done[s] = SETTLED, 1
        elif common.acted.size == 1:
            done[s] = 1
        else:
            waiting[s], most[s] = open_round(1, here, state)
            draw_box(s, AHEAD, False, here, state, boxes)
            measure_apart(s, AHEAD, False, here, state, boxes)
    boxes.found[:] = 0
    screen_lanes(lines, boxes)
    for s in range(lanes):
        here = lend(case_at(shocks[lo + s], case))
        state, common = lend(state_at(s, room, log)), lend(common_at(s, room, deposits))
        if done[s] == 0:
            watch_listed(s, here, state, lines, boxes)
            follow(
                lo + s, s, waiting[s], most[s], capped, here, state, common, holders, lines, boxes,
                scale, tally,
            )  # fmt: skip
        sum_up(lo + s, here, state, common, tally)
        for j in range(state.watched[0]):
            boxes.member[s, state.watch[j]] = 0
        draw_box(s, 0.0, True, here, state, boxes)
        measure_apart(s, 0.0, True, here, state, boxes)
    boxes.found[:] = 0
    screen_lanes(lines, boxes)
    for s in range(lanes):
        here = lend(case_at(shocks[lo + s], case))
        state = lend(state_at(s, room, log))
        add_lacking(s, tally.by_venue[lo + s], here, state, lines, boxes)


@njit(cache=True, error_model="numpy")
def first_round(lo, lanes, acted, held_back, scale, case, shocks, room, boxes, log):
    """Closings of round 0, block by block of accounts and in each lane by lane.

    What the accounts of a block hold is then read from memory once for all lanes. The order does
    not matter to the sums, which are whole counts. Portfolio groups are left to the end.
    """
    accounts = case.hold.accounts.size
    cursor = np.zeros(lanes, dtype=np.int64)
    scale[:] = 1.0
    for start in range(0, accounts, _BLOCK):
        for s in range(lanes):
            if cursor[s] == boxes.plain[s] or boxes.listed[s, cursor[s]] >= start + _BLOCK:
                continue
            here = lend(case_at(shocks[lo + s], case))
            state = lend(state_at(s, room, log))
            first = state.watched[0]
            while cursor[s] < boxes.plain[s] and boxes.listed[s, cursor[s]] < start + _BLOCK:
                enlist(s, boxes.listed[s, cursor[s]], here, state, boxes)
                cursor[s] += 1
            found = judge(first, state.watched[0], 0, here, state)
            more, wait = close_due(state.due[:found], 0, scale, False, here, state)
            acted[s] += more
            held_back[s] += wait


@njit(cache=True, error_model="numpy")
def end_first_round(s, acted, held_back, scale, case, state, lines, boxes):
    """Closings of round 0 of those that `first_round` left: groups, and whom no line covers."""
    first = state.watched[0]
    watch_listed(s, case, state, lines, boxes)
    found = judge(first, state.watched[0], 0, case, state)
    more, wait = close_due(state.due[:found], 0, scale, False, case, state)
    acted[s] += more
    held_back[s] += wait


@njit(cache=True, error_model="numpy")
def screen_lanes(lines, boxes):
    """Screen all lanes; those that no scenario uses are screened in vain."""
    screen(
        lines, boxes.low, boxes.high, boxes.gap_low, boxes.gap_high, boxes.apart, boxes.listed,
        boxes.found, boxes.plain,
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def follow(n, s, waiting, most, capped, case, state, common, holders, lines, boxes, scale, tally):
    """Rounds from 1 on of one lane, whose prices of round 1 stand already."""
    row = tally.summary[n]
    for r in range(1, common.acted.size):
        if r > 1:
            waiting, most = open_round(r, case, state)
        row.looked_again += keep_in(s, case, state, lines, boxes)
        note_path(r, state, common)
        found = judge(0, state.watched[0], r, case, state)
        busy = close_round(r, found, capped, case, state, common, holders, scale)
        row.rounds = r + 1
        if quiet(busy, waiting, most, case):
            row.outcome = SETTLED
            return


@njit(cache=True, error_model="numpy")
def sum_up(n, case, state, common, tally):
    """Write what is kept of scenario `n`."""
    row = tally.summary[n]
    row.final_fall = index_fall(case, state, tally.weight)
    row.watched = state.watched[0]
    slipped = 0.0
    for k in range(case.insts.size):
        inst = case.insts[k]
        slipped += common.shared[k].slipped
        for b in range(BY_LACKING):
            kind = CLOSED if b == 0 else REPAID if b == 1 else BAD if b == 2 else SHORT
            if b == BY_PAID:
                kind = PAID
            value = common.totals[kind, k] / inst.per_usd
            tally.by_venue[n, b, inst.venue] += value
            tally.by_asset[n, b, inst.asset] += value
    row.slipped = slipped
    count_owners(row, case, state, tally.called_by)


@njit(cache=True, error_model="numpy")
def add_lacking(s, by_venue, case, state, lines, boxes):
    """Add up what accounts that stand owe beyond what they have, at market prices.

    Who was not touched is looked at only where the bound on health, which is no more than what an
    account is worth, does not clear it.
    """
    touched = state.touched
    for n in range(touched.used[0]):
        if touched.rows[n].state != EMPTIED:
            add_lack(touched.rows[n].account, by_venue, case, state)
    for n in range(boxes.found[s]):
        if touched.slot[boxes.listed[s, n]] < 0:
            boxes.member[s, boxes.listed[s, n]] = 1
            add_lack(boxes.listed[s, n], by_venue, case, state)
    for k in range(case.insts.size):
        if not covered(k, s, case, boxes):
            for n in range(lines.held_from[k], lines.held_from[k + 1]):
                a = lines.holder[n]
                if touched.slot[a] < 0 and boxes.member[s, a] == 0:
                    boxes.member[s, a] = 1
                    add_lack(a, by_venue, case, state)
    for k in range(case.insts.size):
        if not covered(k, s, case, boxes):
            for n in range(lines.held_from[k], lines.held_from[k + 1]):
                boxes.member[s, lines.holder[n]] = 0
    for n in range(boxes.found[s]):
        boxes.member[s, boxes.listed[s, n]] = 0


@njit(cache=True, error_model="numpy", inline="always")
def add_lack(a, by_venue, case, state):
    """Add what account `a` owes beyond what it has, at market prices."""
    hold, touched, now = case.hold, state.touched, state.now
    row = touched.slot[a]
    lo = hold.accounts[a].first
    worth = hold.accounts[a].cash if row < 0 else touched.rows[row].cash
    for i in range(lo, hold.accounts[a].last):
        leg, price = hold.legs[i], now[hold.legs[i].inst].market
        qty = left_of(i, lo, row, hold, touched)
        if leg.role == LINEAR:
            worth += qty * (price - leg.entry)
        elif leg.role == INVERSE:
            worth += qty * (price / leg.entry - 1.0)
        else:
            worth += qty * price
    if worth < 0.0:
        by_venue[BY_LACKING, hold.accounts[a].venue] -= hold.accounts[a].times * worth


@njit(cache=True, error_model="numpy")
def count_owners(row, case, state, called_by):
    """Count accounts and owners that venues closed, and venues that called one owner.

    Winners who were made to pay were not called. An account that stands for others stands for as
    many owners.
    """
    touched = state.touched
    row.accounts, row.winners, row.owners, row.called_twice, row.most_venues = 0, 0, 0, 0, 0
    for n in range(touched.used[0]):
        times = case.hold.accounts[touched.rows[n].account].times
        row.winners += times * (touched.rows[n].state == TAKEN)
        if touched.rows[n].ready > 0 or touched.rows[n].state == EMPTIED:
            account = case.hold.accounts[touched.rows[n].account]
            word, bit = account.venue // 64, np.uint64(1) << np.uint64(account.venue % 64)
            row.accounts += times
            if called_by[account.owner, word] & bit == 0:
                before = venues_in(account.owner, called_by)
                called_by[account.owner, word] |= bit
                row.owners += times * (before == 0)
                row.called_twice += times * (before == 1)
                row.most_venues = max(row.most_venues, before + 1)
    for n in range(touched.used[0]):
        called_by[case.hold.accounts[touched.rows[n].account].owner, :] = np.uint64(0)


@njit(cache=True, error_model="numpy", inline="always")
def venues_in(owner, called_by):
    """How many venues called an owner."""
    found = 0
    for word in range(called_by.shape[1]):
        bits = called_by[owner, word]
        while bits != np.uint64(0):
            bits &= bits - np.uint64(1)
            found += 1
    return found
