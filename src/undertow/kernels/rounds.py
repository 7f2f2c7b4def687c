"""A cascade, round by round: prices, who is closed, who pays for what is missing, what is sold.

`Common` is what all accounts share in a scenario; a worker that holds a part of the accounts has a
`State` of its own and only its `Flows` travel. One round is `open_round`, then `close_round` on
every part, then `share_losses`, winners' positions where funds are empty, and `end_round`.

Parties of `Common.ledger`, by round, each what it gained in transfers at seen prices: their sum is
zero. ACCOUNT is filled where the check is on. SUPPLIER are those who lent, COUNTERPARTY the winners
who were made to pay, VENUE what nobody paid, OWNER what came from outside (a negative number),
MARKET what buyers gained and liquidators and venues lost by selling into falling prices.
"""

from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.kernels import njit
from undertow.kernels.accounts import KEPT, TAKEN, forget, left_of, touch
from undertow.kernels.cascade import (
    ACCOUNTS,
    BAD,
    BANKRUPT,
    CUT,
    DELEVERAGED,
    GAIN,
    GIVEN,
    PAID,
    SHORT,
    SOLD,
    add,
    judge,
    note,
    put_on_watch,
    watch_again,
    worth,
)
from undertow.kernels.closers import close_due
from undertow.kernels.closing import ADL_NONE, ADL_PRORATA, SLICES, adl_score
from undertow.kernels.contracts import leg_notional
from undertow.kernels.fixed import to_counts
from undertow.kernels.lent import lend
from undertow.kernels.margin import INVERSE
from undertow.kernels.owners import answer, gather, remember, unwind
from undertow.kernels.prices import largest_move, market_prices, oracle_prices, sell

SETTLED, ROUND_LIMIT = range(2)
(
    ACCOUNT, LIQUIDATOR, INSURANCE, BACKSTOP, PROTOCOL, SUPPLIER, COUNTERPARTY, VENUE, OWNER,
    TAKER, MARKET,
) = range(11)  # fmt: skip
PARTIES = 11
FADED = 1e-6  # relative move under which a recovering market counts as still


class Holders(NamedTuple):
    """Which legs hold an instrument: derivatives only, those of instrument k together."""

    start: NDArray[np.int64]  # (instruments + 1,)
    leg: NDArray[np.int64]
    account: NDArray[np.int32]
    side: NDArray[np.float64]  # 1.0 long or -1.0 short; a cascade closes legs, never turns them
    entry: NDArray[np.float64]


# What all accounts of a scenario share, by instrument and by venue.
SHARED = np.dtype(
    [
        ("slipped", "f8"),  # USD lost to the market over all rounds
        ("impact", "f8"),  # the same of this round
        ("unpaid", "f8"),  # USD of bad debt that suppliers bear, over all rounds
        ("gone", "f8"),  # the same in units of what they lent, each loss at its own price
        ("wanted", "f8"),  # quantity to take from winners this round
        ("loss", "f8"),  # USD that they are to pay on it
    ]
)
FUND = np.dtype(
    [
        ("insurance", "f8"),  # USD left
        ("backstop", "f8"),
        ("short", "f8"),  # USD that no fund paid this round
        ("bare", "f8"),  # USD of bad debt of this round, then the share that no fund paid
    ]
)
# A claim that stands in a reserve.
DEPOSIT = np.dtype([("reserve", "i4"), ("claim", "i4"), ("share", "f8")], align=True)


class Common(NamedTuple):
    """What all accounts of a scenario share, beside prices."""

    shared: NDArray[np.void]  # (instruments,) SHARED
    funds: NDArray[np.void]  # (venues,) FUND
    deposits: NDArray[np.void]  # DEPOSIT; read-only
    totals: NDArray[np.int64]  # (KINDS, instruments) over all rounds
    ledger: NDArray[np.float64]  # (rounds, PARTIES)
    path: NDArray[np.float64]  # (rounds, instruments) seen prices; no rows where not asked for
    acted: NDArray[np.int64]  # (rounds,) accounts that acted
    kept_at: NDArray[np.float64]  # (keepers,) market price at which each was at its leverage


@njit(cache=True, error_model="numpy")
def start_over(case, state, common, insurance, backstop):
    """Bring everything that a scenario writes back to its beginning, with everybody watched."""
    case, state, common = lend(case), lend(state), lend(common)
    begin(case, state, common, insurance, backstop)
    watch_all(case, state)


@njit(cache=True, error_model="numpy")
def begin(case, state, common, insurance, backstop):
    """Bring everything that a scenario writes back to its beginning, but for the watch list."""
    moving = state.moving
    moving.sold[:] = 0.0
    moving.thin[:] = 1.0
    moving.receipt[:] = 1.0
    moving.pending[:] = 0
    moving.travelled[:] = 0.0
    moving.dirty[:] = 1
    for k in range(case.insts.size):
        inst, here = case.insts[k], state.now[k]
        here.seen = inst.start
        here.before = inst.start
        here.published = inst.start
        here.published_at = 0
        here.forward = inst.forward
        here.forward_before = inst.forward
        here.vol = case.vol[k]
        common.shared[k].slipped = 0.0
        common.shared[k].unpaid = 0.0
        common.shared[k].gone = 0.0
    for v in range(common.funds.size):
        common.funds[v].insurance = insurance[v]
        common.funds[v].backstop = backstop[v]
    forget(state.touched)
    gather(case, state)
    state.log.used[0] = 0
    state.flows.counts[:] = 0
    state.flows.later[:] = 0
    state.flows.demand[:] = 0
    common.totals[:] = 0
    common.ledger[:] = 0.0
    common.acted[:] = 0
    for n in range(case.keepers.size):
        common.kept_at[n] = case.insts[case.keepers[n].inst].start


@njit(cache=True, error_model="numpy")
def watch_all(case, state):
    """Put every account on the watch list, to be judged at once."""
    case, state = lend(case), lend(state)
    for a in range(state.touched.slot.size):
        put_on_watch(a, a, case, state)
    state.watched[0] = state.touched.slot.size


@njit(cache=True, error_model="numpy")
def open_round(r, case, state):
    """Prices of round `r`, in the market and as seen; (oracles still to come, largest move)."""
    case, state = lend(case), lend(state)
    now, moving = state.now, state.moving
    market_prices(case.insts, case.shock, case.places, now, moving)
    waiting = oracle_prices(r, case.insts, case.shock, case.places, now, moving)
    most = largest_move(r, case.insts, now, moving)
    state.losses.stamp[1] += 1
    return waiting, most


@njit(cache=True, error_model="numpy")
def carry(case, state, scale):
    """Share of every closing that each venue's liquidators can carry; writes `scale`."""
    case, state = lend(case), lend(state)
    for v in range(scale.size):
        demand = state.flows.demand[v] / case.venues[v].per_demand
        scale[v] = min(1.0, case.venues[v].capacity / demand) if demand > 0.0 else 1.0


@njit(cache=True, error_model="numpy")
def limited(case):
    """Whether any venue's liquidators have a limit."""
    case = lend(case)
    least = inf
    for v in range(case.venues.size):
        least = min(least, case.venues[v].capacity)
    return least < inf


@njit(cache=True, error_model="numpy")
def share_losses(r, case, state, common):
    """Let funds pay what bankrupt accounts and borrowers lack; returns whether winners must too.

    Fees of the round reach a fund before it pays. Writes what winners are asked for, what nobody
    paid, and what the funds paid to the ledger.
    """
    case, state, common = lend(case), lend(state), lend(common)
    counts, row = state.flows.counts, common.ledger[r]
    for v in range(common.funds.size):
        common.funds[v].short = 0.0
        common.funds[v].bare = 0.0
    for k in range(case.insts.size):
        inst = case.insts[k]
        fund = common.funds[inst.venue]
        common.shared[k].wanted = 0.0
        common.shared[k].loss = 0.0
        fund.short += counts[SHORT, k] / inst.per_usd
        fund.bare += counts[BAD, k] / inst.per_usd
        if case.closing[inst.venue].mechanism == SLICES:
            fund.insurance += counts[CUT, k] / inst.per_usd
    anybody = False
    for v in range(common.funds.size):
        fund = common.funds[v]
        lost, short = fund.bare, fund.short
        if lost > 0.0:
            paid = min(lost, fund.insurance)
            fund.insurance -= paid
            row[INSURANCE] -= paid
            fund.bare = 1.0 - paid / lost
        if short <= 0.0:
            continue
        paid = min(short, fund.insurance)
        more = min(short - paid, fund.backstop)
        fund.insurance -= paid
        fund.backstop -= more
        row[INSURANCE] -= paid
        row[BACKSTOP] -= more
        fund.short = short - paid - more
        if fund.short > 0.0 and case.closing[v].adl != ADL_NONE:
            anybody = ask_winners(v, fund.short / short, case, state, common) or anybody
    return anybody


@njit(cache=True, error_model="numpy")
def ask_winners(v, part, case, state, common):
    """Ask winners of venue `v` for `part` of what is missing; returns whether by position.

    Pro rata to profit nobody's position changes, so it is booked at once.
    """
    counts = state.flows.counts
    by_position = False
    for k in range(case.insts.size):
        inst = case.insts[k]
        if inst.venue != v or counts[SHORT, k] == 0:
            continue
        loss = counts[SHORT, k] / inst.per_usd * part
        if case.closing[v].adl == ADL_PRORATA:
            counts[PAID, k] += to_counts(loss, inst.per_usd)
        elif counts[BANKRUPT, k] != 0:
            common.shared[k].wanted = counts[BANKRUPT, k] / inst.per_qty * part
            common.shared[k].loss = loss
            by_position = True
    return by_position


@njit(cache=True, error_model="numpy")
def gain_of(leg, qty, here):
    """Profit of `qty` of a straight derivative leg at the seen price."""
    if leg.role == INVERSE:
        return qty * (here.seen / leg.entry - 1.0)
    return qty * (here.seen - leg.entry)


@njit(cache=True, error_model="numpy")
def winners(k, side, case, state, holders, holder, score, counts):
    """Those who hold the other side of `side` in instrument `k` at a profit; their number.

    Writes a row each: its row of `holders`, its rank, its quantity in quanta.
    """
    case, state, holders = lend(case), lend(state), lend(holders)
    hold, here = case.hold, state.now[k]
    found = 0
    for n in range(holders.start[k], holders.start[k + 1]):
        if holders.side[n] == side or holders.side[n] * (here.seen - holders.entry[n]) <= 0.0:
            continue
        a, leg = holders.account[n], hold.legs[holders.leg[n]]
        first, row = hold.accounts[a].first, state.touched.slot[a]
        qty = left_of(holders.leg[n], first, row, hold, state.touched)
        gained = gain_of(leg, qty, here)
        if qty * side >= 0.0 or gained <= 0.0:
            continue
        entered = abs(qty) if leg.role == INVERSE else abs(qty) * leg.entry
        holder[found] = n
        score[found] = adl_score(
            gained, entered, leg_notional(leg.role, qty, here), worth(a, case, state)
        )
        counts[found] = hold.accounts[a].times * to_counts(abs(qty), case.insts[k].per_qty)
        found += 1
    return found


@njit(cache=True, error_model="numpy")
def cut_off(score, counts, wanted):
    """Rank down to which `wanted` quanta are taken whole, and the share at that rank itself.

    Returns (rank, share, quanta taken); equal ranks share alike.
    """
    order = np.argsort(-score)
    taken = np.int64(0)
    n = 0
    while n < order.size:
        rank = score[order[n]]
        group = np.int64(0)
        m = n
        while m < order.size and score[order[m]] == rank:
            group += counts[order[m]]
            m += 1
        if taken + group >= wanted:
            share = (wanted - taken) / group if group > 0 else 0.0
            return rank, share, wanted
        taken += group
        n = m
    return -inf, 1.0, taken


@njit(cache=True, error_model="numpy")
def take_from_winners(r, k, rank, share, per_unit, holder, score, case, state, holders):
    """Close winners above `rank` whole and those at it by `share`; they bear the loss per unit.

    Nobody pays more than the profit on what is closed. Writes PAID and what is left of them.
    """
    case, state, holders = lend(case), lend(state), lend(holders)
    hold, touched, here = case.hold, state.touched, state.now[k]
    for n in range(holder.size):
        part = share if score[n] == rank else 1.0
        if score[n] < rank or part <= 0.0:
            continue
        a, leg = holders.account[holder[n]], hold.legs[holders.leg[holder[n]]]
        before = worth(a, case, state) if case.switches.check else 0.0
        fresh = touched.slot[a] < 0
        row = touched.rows[touch(a, hold, touched)]
        at = row.first + holders.leg[holder[n]] - hold.accounts[a].first
        closed = touched.rest[at] if part >= 1.0 else touched.rest[at] * part
        touched.rest[at] = 0.0 if part >= 1.0 else touched.rest[at] - closed
        gained = gain_of(leg, closed, here)
        pays = min(per_unit * abs(closed), gained)
        row.cash += gained - pays
        if row.state == KEPT:
            row.state = TAKEN
        watch_again(a, fresh, case, state)
        add(PAID, k, pays, a, case, state)
        value = leg_notional(leg.role, closed, here)
        note(r, a, k, -1, DELEVERAGED, 0.0, closed, here.seen, value, 0.0, pays, state.log)
        if case.switches.check:
            # what a winner pays is booked as PAID; anything else would be a leak
            add(ACCOUNTS, k, worth(a, case, state) - before + pays, a, case, state)


@njit(cache=True, error_model="numpy")
def deleverage(r, case, state, common, holders):
    """Close winners against what bankrupt accounts left, where one worker holds everybody.

    All are ranked before anybody pays: who pays in one instrument keeps the rank in the next, so
    it does not matter which comes first.
    """
    case, state, common = lend(case), lend(state), lend(common)
    holders = lend(holders)
    size = 0
    for k in range(case.insts.size):
        if common.shared[k].wanted != 0.0:
            size += holders.start[k + 1] - holders.start[k]
    holder, score = np.empty(size, dtype=np.int64), np.empty(size)
    counts = np.empty(size, dtype=np.int64)
    ends = np.zeros(case.insts.size + 1, dtype=np.int64)
    for k in range(case.insts.size):
        ends[k + 1] = ends[k]
        if common.shared[k].wanted != 0.0:
            first, side = ends[k], (1.0 if common.shared[k].wanted > 0.0 else -1.0)
            ends[k + 1] += winners(
                k, side, case, state, holders, holder[first:], score[first:], counts[first:]
            )
    for k in range(case.insts.size):
        first, end, wanted = ends[k], ends[k + 1], common.shared[k].wanted
        if first == end:
            continue
        per_qty = case.insts[k].per_qty
        rank, share, taken = cut_off(
            score[first:end], counts[first:end], to_counts(abs(wanted), per_qty)
        )
        if taken > 0:
            per_unit = common.shared[k].loss / (taken / per_qty)
            take_from_winners(
                r, k, rank, share, per_unit, holder[first:end], score[first:end], case, state,
                holders,
            )  # fmt: skip
            state.flows.counts[SOLD, k] -= taken if wanted > 0.0 else -taken


@njit(cache=True, error_model="numpy")
def end_round(r, case, state, common):
    """Sell what was taken, book everything, and let markets recover; returns if sales pend."""
    case, state, common = lend(case), lend(state), lend(common)
    moving, flows, counts = state.moving, state.flows, state.flows.counts
    pending = ripen(r, moving, flows) | keep_leverage(case, state, common)
    impact = np.empty(case.insts.size)
    sell(counts[SOLD], case.insts, case.places, state.now, moving, impact)
    for k in range(case.insts.size):
        common.shared[k].impact = impact[k]
        common.shared[k].slipped += impact[k]
    book(r, case, state, common)
    receipts(case, state, common)
    recover(case, state)
    common.totals[:] += counts
    counts[:] = 0
    flows.later[:] = 0
    flows.demand[:] = 0
    return pending


@njit(cache=True, error_model="numpy")
def keep_leverage(case, state, common):
    """Let leveraged tokens trade to be at their leverage again; 1 where any did.

    Whether long or short, they sell after a fall and buy after a rise.
    """
    traded = 0
    for n in range(case.keepers.size):
        keeper = case.keepers[n]
        price = state.now[keeper.inst].market
        move = price / common.kept_at[n] - 1.0
        if abs(move) > FADED:
            sold = -keeper.strength * move
            state.flows.counts[SOLD, keeper.inst] += to_counts(
                sold, case.insts[keeper.inst].per_qty
            )
            common.kept_at[n] = price
            traded = 1
    return traded


@njit(cache=True, error_model="numpy")
def ripen(r, moving, flows):
    """Add sales whose delay is over to those of round `r`; 1 where others are still to come."""
    ring, count = moving.pending.shape
    if ring == 1:
        return 0
    pending = 0
    for d in range(1, ring):
        for k in range(count):
            moving.pending[(r + d) % ring, k] += flows.later[d, k]
            if moving.pending[(r + d) % ring, k] != 0:
                pending = 1
    for k in range(count):
        flows.counts[SOLD, k] += moving.pending[r % ring, k]
        moving.pending[r % ring, k] = 0
    return pending


@njit(cache=True, error_model="numpy")
def book(r, case, state, common):
    """Write the round's row of the ledger."""
    counts, row = state.flows.counts, common.ledger[r]
    for k in range(case.insts.size):
        inst, shared = case.insts[k], common.shared[k]
        usd = inst.per_usd
        derivative = case.closing[inst.venue].mechanism == SLICES
        unpaid = counts[BAD, k] / usd * common.funds[inst.venue].bare
        shared.unpaid += unpaid
        shared.gone += unpaid / state.now[k].seen
        row[ACCOUNT] += counts[ACCOUNTS, k] / usd
        row[LIQUIDATOR] += counts[GAIN, k] / usd
        row[INSURANCE if derivative else PROTOCOL] += counts[CUT, k] / usd
        row[SUPPLIER] -= unpaid
        row[COUNTERPARTY] -= counts[PAID, k] / usd
        row[VENUE] += counts[PAID, k] / usd
        row[OWNER] -= counts[GIVEN, k] / usd
        row[TAKER] -= shared.impact
        row[MARKET] += shared.impact
    for v in range(common.funds.size):
        row[VENUE] -= common.funds[v].short


@njit(cache=True, error_model="numpy")
def receipts(case, state, common):
    """Mark down the claims on reserves that lost, by the share of the supply that is gone."""
    receipt = state.moving.receipt
    if common.deposits.size == 0:
        return
    for n in range(common.deposits.size):
        receipt[common.deposits[n].claim] = 1.0
    state.moving.dirty[state.moving.sold.size] = 1
    for n in range(common.deposits.size):
        deposit = common.deposits[n]
        k = deposit.reserve
        if common.shared[k].gone > 0.0 and case.insts[k].supplied > 0.0:
            lost = common.shared[k].gone / case.insts[k].supplied
            receipt[deposit.claim] -= deposit.share * min(lost, 1.0)
    for n in range(common.deposits.size):
        claim = common.deposits[n].claim
        receipt[claim] = max(receipt[claim], 1e-6)


@njit(cache=True, error_model="numpy")
def recover(case, state):
    """Let displacement fade and depth withdraw, by pool, where the scenario says so."""
    moving, switches = state.moving, case.switches
    if switches.recovery > 0.0:
        moving.sold[:] *= 1.0 - switches.recovery
        moving.dirty[:] = 1
    if switches.withdrawal > 0.0:
        for k in range(case.insts.size):
            inst = case.insts[k]
            n = inst.own_pool if inst.own_pool >= 0 else inst.spot_pool
            if n >= 0 and inst.kind == 0:  # an option falls for other reasons too
                fall = max(1.0 - state.now[k].market / inst.start, 0.0)
                thin = max(1.0 - switches.withdrawal * fall, switches.thinnest)
                moving.thin[n] = min(moving.thin[n], thin)


@njit(cache=True, error_model="numpy")
def close_round(r, found, capped, case, state, common, holders, scale):
    """Close the first `found` of those due and settle the round; whether more must follow."""
    due, switches = state.due[:found], case.switches
    answering = switches.top_up or switches.delever or switches.convert
    if answering:
        due.sort()  # owners share what they have among accounts that stand together
    answered = answer(due, r, case, state) if answering and found > 0 else 0
    before = np.empty(state.touched.rest.size if switches.unwind else 0)
    known = remember(before, state) if switches.unwind else 0
    scale[:] = 1.0
    moved = 0
    if capped and found > 0:
        moved, _ = close_due(due, r, scale, True, case, state)
        carry(case, state, scale)
    acted, held_back = close_due(due, r, scale, False, case, state)
    acted += moved
    if share_losses(r, case, state, common):
        deleverage(r, case, state, common, holders)
    if switches.unwind:
        answered += unwind(r, known, before, case, state)
    return finish_round(r, acted + answered, held_back, case, state, common)


@njit(cache=True, error_model="numpy")
def finish_round(r, acted, held_back, case, state, common):
    """Sell and book what a round moved; whether more must follow."""
    pending = end_round(r, case, state, common)
    common.acted[r] = acted
    return acted > 0 or held_back > 0 or pending > 0


@njit(cache=True, error_model="numpy")
def quiet(busy, waiting, most, case):
    """Whether a round left nothing to wait for."""
    return not busy and waiting == 0 and (case.switches.recovery == 0.0 or most <= FADED)


@njit(cache=True, error_model="numpy")
def note_path(r, state, common):
    """Keep the seen prices of round `r`, where they are asked for."""
    if r < common.path.shape[0]:
        for k in range(state.now.size):
            common.path[r, k] = state.now[k].seen


@njit(cache=True, error_model="numpy")
def run_rounds(case, state, common, holders, scale):
    """Follow one scenario to its end; returns (rounds, outcome). Accounts all stand in `state`."""
    case, state, common = lend(case), lend(state), lend(common)
    holders = lend(holders)
    capped = limited(case)
    for r in range(common.acted.size):
        waiting, most = open_round(r, case, state)
        note_path(r, state, common)
        found = judge(0, state.watched[0], r, case, state)
        busy = close_round(r, found, capped, case, state, common, holders, scale)
        if quiet(busy, waiting, most, case):
            return r + 1, SETTLED
    return common.acted.size, ROUND_LIMIT
