"""Forced closings of one round: who is due, what is closed of them, and where the money goes.

Everything that is added up over accounts goes to `Flows` in whole quanta (see `fixed`), by
instrument, so no order of accounts and no division of them among workers shows in the result.
Rows of `Flows.counts`, in USD at the seen price unless said otherwise:

    SOLD       quantity brought to market, negative where bought
    BANKRUPT   quantity, signed, closed of accounts that had less than nothing
    CLOSED     value of what was taken from accounts: collateral, or derivative notional
    REPAID     debt repaid
    BAD        debt written off
    SHORT      what bankrupt accounts of derivative venues lacked
    GAIN       what liquidators took over what they paid
    CUT        what venues and their funds took
    ACCOUNTS   what accounts gained, worked out from what they hold; only where `check` is on
    GIVEN      what owners brought in from outside
    PAID       what winners paid for others' losses

`Case` is what a scenario starts from and never writes, `State` what it changes.
"""

from math import exp, inf, log1p
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from undertow.kernels.accounts import (
    CALLED,
    EMPTIED,
    Grids,
    Holdings,
    Losses,
    Touched,
    account_health,
    left_of,
    touch,
)
from undertow.kernels.closing import (
    BANDS,
    NOTHING,
    PAIR,
    SLICES,
    band_range,
    band_share,
    close_pair,
    close_whole,
    closing_fee,
    protocol_cut,
    slice_share,
    takes_over,
)
from undertow.kernels.fixed import to_counts
from undertow.kernels.margin import CASH, COLLATERAL, DEBT, INVERSE, LINEAR, OPTION, SUPPLY
from undertow.kernels.prices import Moving, Places

SOLD, BANKRUPT, CLOSED, REPAID, BAD, SHORT, GAIN, CUT, ACCOUNTS, GIVEN, PAID = range(11)
KINDS = 11
LIQUIDATED, DELEVERAGED, CONVERTED, TOPPED_UP, UNWOUND, BY_OWNER = range(6)  # reasons in the log

# When a venue may close, and with whose money; rounds and USD.
VENUE = np.dtype(
    [
        ("opens", "i4"),  # round from which it closes at all
        ("cooldown", "i4"),
        ("delay", "i4"),
        ("capacity", "f8"),  # of liquidators in one round; inf where there is no limit
        ("per_demand", "f8"),  # quanta in a USD of what they would have to bring
    ],
    align=True,
)
NOTE = np.dtype(
    [
        ("round", "i4"),
        ("account", "i4"),
        ("inst", "i4"),  # what was taken, or -1
        ("other", "i4"),  # what was repaid, or -1
        ("reason", "i4"),
        ("health", "f8"),
        ("qty", "f8"),
        ("price", "f8"),
        ("value", "f8"),
        ("repaid", "f8"),
        ("lost", "f8"),
    ],
    align=True,
)


class Switches(NamedTuple):
    """What else may happen in a round; everything off is the plain cascade."""

    profitable: bool  # nobody liquidates at a loss
    check: bool  # keep the accounts' side of the ledger too
    buffer: float  # health that owners restore when called; 0.0 where they do nothing
    top_up: bool  # out of their free assets
    delever: bool  # by selling collateral themselves
    unwind: bool  # the other leg of a hedge, where one was closed
    convert: bool  # coins into money that is owed
    free: NDArray[np.float64]  # (owners,) USD that each could bring in; no rows: nothing
    willing: NDArray[np.float64]  # (owners,) share that each does of what it could; no rows: all
    recovery: float  # share of the displacement that is gone by the next round
    withdrawal: float  # share of depth that leaves per unit of relative fall
    thinnest: float  # share of depth that stays whatever happens


class Case(NamedTuple):
    """One scenario on one book; read-only."""

    hold: Holdings
    insts: NDArray[np.void]  # INSTRUMENT
    brackets: NDArray[np.void]  # BRACKET
    grids: Grids
    shock: NDArray[np.float64]  # (2, instruments) log moves: of the market, and without the peg
    vol: NDArray[np.float64]  # (instruments,) after the shock
    places: Places
    closing: NDArray[np.void]  # by venue, the columns of `closing.Closing`
    venues: NDArray[np.void]  # VENUE
    switches: Switches
    owner_start: NDArray[np.int64]  # (owners + 1,): accounts of an owner stand together


class Flows(NamedTuple):
    """What a round moved."""

    counts: NDArray[np.int64]  # (KINDS, instruments)
    later: NDArray[np.int64]  # (longest delay + 1, instruments): quantity sold that much later
    demand: NDArray[np.int64]  # (venues,) USD that liquidators would have to bring


class Log(NamedTuple):
    """Who was closed, in order; rows past the last are dropped and counted."""

    rows: NDArray[np.void]  # NOTE
    used: NDArray[np.int64]  # (1,)


class State(NamedTuple):
    """Everything that a scenario changes about accounts and prices."""

    now: NDArray[np.void]  # NOW
    moving: Moving
    losses: Losses
    touched: Touched
    flows: Flows
    watch: NDArray[np.int32]  # (twice the accounts,) those that a scenario could call
    root: NDArray[np.int32]  # of each
    watched: NDArray[np.int64]  # (1,) how many they are
    keys: NDArray[np.float64]  # how far prices must travel until a new look, as `watch`
    reach: NDArray[np.float64]  # how far its own prices must, from the round `looked`
    looked: NDArray[np.int32]  # or -1
    due: NDArray[np.int32]  # (accounts,)
    free: NDArray[np.float64]  # (owners,) USD that an owner could bring in
    log: Log


@njit(cache=True, error_model="numpy")
def health_of(a, case, state):
    """Cover, asked and spread of account `a` now."""
    return account_health(
        a, case.hold, state.touched, state.now, case.insts, case.brackets, case.grids, state.losses
    )


@njit(cache=True, error_model="numpy")
def judge(lo, hi, r, case, state):
    """Find who on rows `lo:hi` of the watch list is called now; writes `state.due` and the keys.

    An account is looked at again only when prices have travelled to its key, and then only if those
    of what it holds have moved so far that it could be called: `reach` from the round `looked`.
    An account that stands on the list twice is judged where it was touched first.
    """
    travelled, root = state.moving.travelled, state.root
    trigger = max(case.switches.buffer, 1.0)
    hold, touched, now = case.hold, state.touched, state.now
    insts, brackets, grids, losses = case.insts, case.brackets, case.grids, state.losses
    closing, watch, keys, due = case.closing, state.watch, state.keys, state.due
    reach, looked, trail, legs = state.reach, state.looked, state.moving.trail, hold.legs
    found = 0
    for j in range(lo, hi):
        so_far = travelled[root[j]]
        if keys[j] > so_far:
            continue
        a = watch[j]
        n = touched.slot[a]
        if n >= 0:
            row = touched.rows[n]
            if row.place < 0:  # touched since: what was found out before no longer holds
                row.place = j
                looked[j] = -1
            if row.state == EMPTIED or row.place != j:
                keys[j] = inf
                continue
        if looked[j] >= 0:
            far = 0.0
            for i in range(hold.accounts[a].first, hold.accounts[a].last):
                k = legs[i].inst
                far = max(far, trail[r, k] - trail[looked[j], k])
            if far < reach[j]:
                keys[j] = so_far + (reach[j] - far)
                continue
        cover, asked, spread = account_health(a, hold, touched, now, insts, brackets, grids, losses)
        room = cover - trigger * asked
        looked[j] = -1
        if room < 0.0 or closing[hold.accounts[a].venue].mechanism == BANDS:
            keys[j] = so_far
            due[found] = a
            found += 1
        elif spread <= 0.0:
            keys[j] = inf
        else:
            reach[j] = log1p(room / (spread * trigger)) * (1.0 - 1e-9)
            looked[j] = r
            keys[j] = so_far + max(reach[j], 1e-300)
    return found


@njit(cache=True, error_model="numpy", inline="always")
def put_on_watch(j, a, case, state):
    """Write account `a` on row `j` of the watch list, to be judged at once."""
    state.watch[j] = a
    state.root[j] = case.hold.accounts[a].root
    state.keys[j] = -inf
    state.looked[j] = -1


@njit(cache=True, error_model="numpy", inline="always")
def watch_again(a, fresh, case, state):
    """See to it that account `a` is judged in the next round; `fresh` says it was not touched."""
    row = state.touched.rows[state.touched.slot[a]]
    if fresh:
        j = state.watched[0]
        put_on_watch(j, a, case, state)
        state.watched[0] = j + 1
    elif row.place >= 0:
        state.keys[row.place] = -inf
        state.looked[row.place] = -1


@njit(cache=True, error_model="numpy", inline="always")
def add(kind, k, value, case, state):
    """Add USD to a kind of flow of instrument `k`."""
    state.flows.counts[kind, k] += to_counts(value, case.insts[k].per_usd)


@njit(cache=True, error_model="numpy", inline="always")
def bring_to_market(k, qty, delay, case, state):
    """Add a quantity to what is sold of instrument `k`, now or `delay` rounds later."""
    counts = to_counts(qty, case.insts[k].per_qty)
    if delay == 0:
        state.flows.counts[SOLD, k] += counts
    else:
        state.flows.later[delay, k] += counts


@njit(cache=True, error_model="numpy", inline="always")
def note(r, a, taken, other, reason, health, qty, price, value, repaid, lost, log):
    """Add one closing to the log."""
    n = log.used[0]
    log.used[0] = n + 1
    if n < log.rows.size:
        row = log.rows[n]
        row.round, row.account, row.inst, row.other, row.reason = r, a, taken, other, reason
        row.health, row.qty, row.price = health, qty, price
        row.value, row.repaid, row.lost = value, repaid, lost


@njit(cache=True, error_model="numpy")
def close_due(due, r, scale, dry, case, state):
    """Close the accounts in `due` at the seen prices.

    `scale` is the share of every closing that the venue's liquidators can carry; with `dry` only
    `flows.demand` is written. Returns how many acted, and how many are breached but must wait.
    """
    acted, waiting = 0, 0
    for n in range(due.size):
        a = due[n]
        v = case.hold.accounts[a].venue
        mechanism = case.closing[v].mechanism
        if mechanism == NOTHING:
            continue
        row = state.touched.slot[a]
        if row >= 0 and state.touched.rows[row].state == EMPTIED:
            continue
        if r < case.venues[v].opens or (row >= 0 and r < state.touched.rows[row].ready):
            cover, asked, _ = health_of(a, case, state)
            waiting += cover < asked
            continue
        moved = 0
        if mechanism == BANDS:  # before liquidators are counted; the second time nothing moves
            moved = convert_bands(a, v, r, case, state)
        cover, asked, _ = health_of(a, case, state)
        if cover < asked:
            if dry:
                moved = 0
            if mechanism == SLICES:
                moved += close_slices(a, v, r, cover, asked, scale[v], dry, case, state)
            elif mechanism == PAIR:
                moved += close_largest_pair(a, v, r, cover, asked, scale[v], dry, case, state)
            else:
                moved += close_all(a, v, r, cover, asked, scale[v], dry, case, state)
        acted += moved > 0 and not (dry and cover < asked)
    return acted, waiting


@njit(cache=True, error_model="numpy", inline="always")
def worth(a, case, state):
    """Equity of account `a` at the seen prices, without haircuts or thresholds."""
    hold, touched, now = case.hold, state.touched, state.now
    row = touched.slot[a]
    lo = hold.accounts[a].first
    total = hold.accounts[a].cash if row < 0 else touched.rows[row].cash
    for i in range(lo, hold.accounts[a].last):
        k, role = hold.legs[i].inst, hold.legs[i].role
        qty = left_of(i, lo, row, hold, touched)
        if role == LINEAR:
            total += qty * (now[k].seen - hold.legs[i].entry)
        elif role == INVERSE:
            total += qty * (now[k].seen / hold.legs[i].entry - 1.0)
        else:  # a debt is a negative quantity
            total += qty * now[k].seen
    return total


@njit(cache=True, error_model="numpy", inline="always")
def close_largest_pair(a, v, r, cover, asked, scale, dry, case, state):
    """Repay the largest debt against the largest collateral; 1 where anything was."""
    hold, touched, now = case.hold, state.touched, state.now
    lo, hi = hold.accounts[a].first, hold.accounts[a].last
    row = touched.slot[a]
    held, owed, all_debt = -1, -1, 0.0
    held_value, owed_value = 0.0, 0.0
    for i in range(lo, hi):
        value = left_of(i, lo, row, hold, touched) * now[hold.legs[i].inst].seen
        if hold.legs[i].role == COLLATERAL and value > held_value:
            held, held_value = i, value
        elif hold.legs[i].role == DEBT:
            all_debt -= value
            if -value > owed_value:
                owed, owed_value = i, -value
    if owed < 0:
        return 0
    if held < 0:
        return 0 if dry else write_off(a, r, cover / asked, case, state)
    repaid, seized, bonus = close_pair(
        v, case.closing, cover, asked, all_debt, held_value, owed_value,
        hold.legs[held].weight, hold.legs[held].bonus, hold.legs[owed].weight,
    )  # fmt: skip
    if repaid <= 0.0:
        return 0
    k, other = hold.legs[held].inst, hold.legs[owed].inst
    if case.switches.profitable and not pays(v, k, other, repaid, seized, case, state):
        return 0
    if dry:
        state.flows.demand[v] += to_counts(repaid, case.venues[v].per_demand)
        return 1
    if scale <= 0.0:
        return 0
    before = worth(a, case, state) if case.switches.check else 0.0
    row = touch(a, hold, touched)
    touched.rows[row].state = CALLED
    touched.rows[row].ready = r + 1
    shift = touched.rows[row].first - lo
    whole_held, whole_debt = seized >= held_value and scale == 1.0, repaid >= owed_value
    repaid, seized = repaid * scale, seized * scale
    took = touched.rest[held + shift] if whole_held else seized / now[k].seen
    paid = touched.rest[owed + shift] if whole_debt and scale == 1.0 else -repaid / now[other].seen
    touched.rest[held + shift] = 0.0 if whole_held else touched.rest[held + shift] - took
    touched.rest[owed + shift] -= paid
    cut = protocol_cut(seized, bonus, hold.legs[held].fee, 0.0)
    bring_to_market(k, took, case.venues[v].delay, case, state)
    bring_to_market(other, paid, 0, case, state)
    add(CLOSED, k, seized, case, state)
    add(REPAID, other, repaid, case, state)
    add(GAIN, k, seized - repaid - cut, case, state)
    add(CUT, k, cut, case, state)
    health, price = cover / asked, now[k].seen
    note(r, a, k, other, LIQUIDATED, health, took, price, seized, repaid, 0.0, state.log)
    if case.switches.check:
        add(ACCOUNTS, k, worth(a, case, state) - before, case, state)
    if whole_held and bare(a, row, case, state):
        write_off(a, r, cover / asked, case, state)
    return 1


@njit(cache=True, error_model="numpy", inline="always")
def pays(v, k, other, repaid, seized, case, state):
    """Whether what is seized fetches what is repaid and the gas, at market prices and depth."""
    now = state.now
    qty = seized / now[k].seen
    fetched = qty * now[k].market
    pool = case.insts[k].spot_pool
    if pool >= 0 and case.places.pools.depth[pool] > 0.0:
        fetched *= exp(-0.5 * qty * case.insts[k].spot_rate / case.places.pools.depth[pool])
    cost = repaid / now[other].seen * now[other].market
    return fetched >= cost + case.closing[v].gas_usd


@njit(cache=True, error_model="numpy", inline="always")
def bare(a, row, case, state):
    """Whether no collateral is left in account `a`."""
    hold = case.hold
    lo = hold.accounts[a].first
    for i in range(lo, hold.accounts[a].last):
        if hold.legs[i].role == COLLATERAL and left_of(i, lo, row, hold, state.touched) > 0.0:
            return False
    return True


@njit(cache=True, error_model="numpy")
def write_off(a, r, health, case, state):
    """Book every debt of an account without collateral as lost to those who lent it; 1 if any."""
    hold, now = case.hold, state.now
    before = worth(a, case, state) if case.switches.check else 0.0
    row = touch(a, hold, state.touched)
    state.touched.rows[row].state = EMPTIED
    lo = hold.accounts[a].first
    shift = state.touched.rows[row].first - lo
    lost, first = 0, -1
    money, owed = max(state.touched.rows[row].cash, 0.0), 0.0
    for i in range(lo, hold.accounts[a].last):
        if hold.legs[i].role == DEBT:
            owed -= state.touched.rest[i + shift] * now[hold.legs[i].inst].seen
    paid = min(money, owed) / owed if owed > 0.0 else 0.0
    state.touched.rows[row].cash -= paid * owed
    for i in range(lo, hold.accounts[a].last):
        k = hold.legs[i].inst
        if hold.legs[i].role == DEBT and state.touched.rest[i + shift] < 0.0:
            value = -state.touched.rest[i + shift] * now[k].seen
            state.touched.rest[i + shift] = 0.0
            if paid > 0.0:
                bring_to_market(k, -paid * value / now[k].seen, 0, case, state)
                add(REPAID, k, paid * value, case, state)
                value *= 1.0 - paid
            add(BAD, k, value, case, state)
            note(r, a, -1, k, LIQUIDATED, health, 0.0, now[k].seen, 0.0, 0.0, value, state.log)
            lost, first = 1, k
    if case.switches.check and lost:
        add(ACCOUNTS, first, worth(a, case, state) - before, case, state)
    return lost


@njit(cache=True, error_model="numpy")
def close_all(a, v, r, cover, asked, scale, dry, case, state):
    """Close all debt against all collateral, pro rata over the legs; 1 where anything was."""
    hold, touched, now = case.hold, state.touched, state.now
    lo, hi = hold.accounts[a].first, hold.accounts[a].last
    row = touched.slot[a]
    held, debt, bonus, fee = 0.0, 0.0, 0.0, 0.0
    largest, dearest = -1, -1
    most, worst = 0.0, 0.0
    for i in range(lo, hi):
        value = left_of(i, lo, row, hold, touched) * now[hold.legs[i].inst].seen
        if hold.legs[i].role == COLLATERAL:
            held += value
            bonus += value * hold.legs[i].bonus
            fee += value * hold.legs[i].fee
            if value > most:
                largest, most = i, value
        elif hold.legs[i].role == DEBT:
            debt -= value
            if -value > worst:
                dearest, worst = i, -value
    money = hold.accounts[a].cash if row < 0 else touched.rows[row].cash
    if debt <= 0.0:
        return 0
    from_cash = min(max(money, 0.0), debt)
    left = debt - from_cash
    if held <= 0.0 and from_cash <= 0.0:
        return 0 if dry else write_off(a, r, cover / asked, case, state)
    scale = scale if held > 0.0 else 1.0  # an account that pays by itself needs no liquidator
    bonus, fee = (bonus / held, fee / held) if held > 0.0 else (0.0, 0.0)
    seized, repaid, penalty, bad, credit = close_whole(v, case.closing, held, left, bonus)
    if case.switches.profitable and largest >= 0:
        k, other = hold.legs[largest].inst, hold.legs[dearest].inst
        if not pays(v, k, other, repaid + penalty, seized, case, state):
            return 0
    if dry:
        state.flows.demand[v] += to_counts(repaid, case.venues[v].per_demand)
        return 1
    if scale <= 0.0:
        return 0
    before = worth(a, case, state) if case.switches.check else 0.0
    row = touch(a, hold, touched)
    touched.rows[row].state = CALLED if scale < 1.0 else EMPTIED
    touched.rows[row].ready = r + 1
    shift = touched.rows[row].first - lo
    seized, penalty, credit = seized * scale, penalty * scale, credit * scale
    repaid, bad, from_cash = repaid * scale, bad * scale, from_cash * scale
    cut = penalty
    if seized > repaid + penalty + credit:
        cut += fee * (seized - repaid - penalty - credit)
    for i in range(lo, hi):
        k = hold.legs[i].inst
        qty = touched.rest[i + shift]
        if hold.legs[i].role == COLLATERAL and qty > 0.0:
            share = seized / held
            took = qty if share >= 1.0 else qty * share
            touched.rest[i + shift] = qty - took
            bring_to_market(k, took, case.venues[v].delay, case, state)
            add(CLOSED, k, took * now[k].seen, case, state)
            add(CUT, k, cut * (qty * now[k].seen / held), case, state)
            part = qty * now[k].seen / held
            add(GAIN, k, (seized - repaid - credit - cut) * part, case, state)
        elif hold.legs[i].role == DEBT and qty < 0.0:
            part = -qty * now[k].seen / debt
            touched.rest[i + shift] = 0.0 if scale == 1.0 else qty * (1.0 - scale)
            bring_to_market(k, -(repaid + from_cash) * part / now[k].seen, 0, case, state)
            add(REPAID, k, (repaid + from_cash) * part, case, state)
            add(BAD, k, bad * part, case, state)
    touched.rows[row].cash += credit - from_cash
    k = hold.legs[largest].inst if largest >= 0 else -1
    other = hold.legs[dearest].inst
    price = now[k].seen if k >= 0 else 0.0
    qty = seized / price if k >= 0 else 0.0
    note(r, a, k, other, LIQUIDATED, cover / asked, qty, price, seized, repaid, bad, state.log)
    if case.switches.check:
        add(ACCOUNTS, other, worth(a, case, state) - before, case, state)
    return 1


@njit(cache=True, error_model="numpy")
def convert_bands(a, v, r, case, state):
    """Sell or buy back collateral along the ladder of prices; 1 where it moved."""
    hold, touched, now = case.hold, state.touched, state.now
    lo, hi = hold.accounts[a].first, hold.accounts[a].last
    owed, held = 0.0, -1
    for i in range(lo, hi):
        if hold.legs[i].role == DEBT:
            owed -= hold.legs[i].qty * case.insts[hold.legs[i].inst].start
        elif hold.legs[i].role == COLLATERAL and held < 0 and hold.legs[i].qty > 0.0:
            held = i
    if held < 0 or owed <= 0.0:
        return 0
    k = hold.legs[held].inst
    whole = hold.legs[held].qty
    top, bottom = band_range(
        owed, whole, case.closing[v].bands_amplification, case.closing[v].bands_count,
        case.closing[v].loan_discount,
    )  # fmt: skip
    # Where the ladder stood before the scenario is taken as unsold: only moves from there count.
    already = band_share(case.insts[k].start, top, bottom)
    wanted = max(band_share(now[k].seen, top, bottom) - already, 0.0) / (1.0 - min(already, 0.999))
    row = touched.slot[a]
    if row >= 0 and touched.rows[row].state == CALLED:  # the ladder is gone where part was seized
        return 0
    sold = 1.0 - left_of(held, lo, row, hold, touched) / whole
    qty = (min(wanted, 1.0) - sold) * whole
    if abs(qty) <= 1e-12 * whole:
        return 0
    before = worth(a, case, state) if case.switches.check else 0.0
    row = touch(a, hold, touched)
    at = touched.rows[row].first + held - lo
    touched.rest[at] = 0.0 if wanted >= 1.0 else touched.rest[at] - qty
    loss = case.closing[v].bands_loss * abs(qty) * now[k].seen
    touched.rows[row].cash += qty * now[k].seen - loss
    bring_to_market(k, qty, 0, case, state)
    add(CLOSED, k, abs(qty) * now[k].seen, case, state)
    add(GAIN, k, loss, case, state)
    note(r, a, k, -1, CONVERTED, 0.0, qty, now[k].seen, qty * now[k].seen, 0.0, loss, state.log)
    if case.switches.check:
        add(ACCOUNTS, k, worth(a, case, state) - before, case, state)
    return 1


@njit(cache=True, error_model="numpy")
def close_slices(a, v, r, cover, asked, scale, dry, case, state):
    """Close a share of every derivative of a margin group; 1 where anything was."""
    hold, touched, now = case.hold, state.touched, state.now
    lo, hi = hold.accounts[a].first, hold.accounts[a].last
    row = touched.slot[a]
    money = hold.accounts[a].cash if row < 0 else touched.rows[row].cash
    owed = max(-money, 0.0)
    gross = 0.0
    for i in range(lo, hi):
        k, role = hold.legs[i].inst, hold.legs[i].role
        qty = left_of(i, lo, row, hold, touched)
        if (role == CASH and qty < 0.0) or role == DEBT:
            owed -= qty * now[k].seen
        elif role >= LINEAR:
            gross += leg_notional(role, qty, now[k])
    equity = worth(a, case, state)
    if gross <= 0.0:
        return 0 if dry else settle_bare(a, v, r, equity, case, state)
    counted = min(cover - owed, equity)
    share = slice_share(v, case.closing, counted, asked - owed, gross)
    if dry:
        state.flows.demand[v] += to_counts(share * gross, case.venues[v].per_demand)
        return 1
    share *= scale
    if share <= 0.0:
        return 0
    before = equity
    backed = case.closing[v].backstop_below > 0.0
    taken = backed and takes_over(v, case.closing, counted, asked - owed)
    row = touch(a, hold, touched)
    touched.rows[row].state = CALLED
    touched.rows[row].ready = r + max(case.venues[v].cooldown, 1)
    shift = touched.rows[row].first - lo
    whole = share >= 1.0
    fee = closing_fee(v, case.closing, gross * share, equity)
    short = max(-equity, 0.0) if whole else 0.0
    main, largest = -1, 0.0
    for i in range(lo, hi):
        role = hold.legs[i].role
        if role < LINEAR:
            continue
        k = hold.legs[i].inst
        qty = touched.rest[i + shift]
        notional = leg_notional(role, qty, now[k])
        if notional > largest:
            main, largest = i, notional
        closed = qty if whole else qty * share
        touched.rest[i + shift] = 0.0 if whole else qty - closed
        touched.rows[row].cash += realised(role, closed, now[k].seen, hold.legs[i].entry)
        bring_to_market(k, closed, 0, case, state)
        add(CLOSED, k, notional * share, case, state)
        add(CUT, k, fee * (notional / gross), case, state)
        if short > 0.0:
            state.flows.counts[BANKRUPT, k] += to_counts(closed, case.insts[k].per_qty)
            add(SHORT, k, short * (notional / gross), case, state)
    touched.rows[row].cash -= fee
    k = hold.legs[main].inst
    health, price = cover / asked, now[k].seen
    note(r, a, k, -1, LIQUIDATED, health, share, price, gross * share, 0.0, short, state.log)
    if whole:
        rest = equity - fee
        if short > 0.0 or rest <= 0.0:
            empty(a, row, 0.0, case, state)
        elif case.closing[v].keeps_rest and not taken:
            cover_from_coins(a, row, case, state)
        else:
            add(CUT, k, rest, case, state)
            empty(a, row, 0.0, case, state)
    elif case.switches.convert:
        cover_from_coins(a, row, case, state)
    if case.switches.check:
        add(ACCOUNTS, k, worth(a, case, state) - before, case, state)
    return 1


@njit(cache=True, error_model="numpy", inline="always")
def leg_notional(role, qty, here):
    """Gross notional of one derivative leg, in USD."""
    if role == INVERSE:
        return abs(qty)
    return abs(qty) * (here.forward if role == OPTION else here.seen)


@njit(cache=True, error_model="numpy", inline="always")
def realised(role, qty, price, entry):
    """What closing `qty` of a derivative leg brings in money."""
    if role == LINEAR:
        return qty * (price - entry)
    if role == INVERSE:
        return qty * (price / entry - 1.0)
    return qty * price


@njit(cache=True, error_model="numpy")
def settle_bare(a, v, r, equity, case, state):
    """An account that has no contracts left but owes: what it lacks is the venue's; 1 if any."""
    if equity >= 0.0:
        row = touch(a, case.hold, state.touched)
        return cover_from_coins(a, row, case, state)
    hold = case.hold
    row = touch(a, hold, state.touched)
    state.touched.rows[row].state = CALLED
    k = hold.legs[hold.accounts[a].first].inst
    add(SHORT, k, -equity, case, state)
    note(r, a, k, -1, LIQUIDATED, 0.0, 0.0, state.now[k].seen, 0.0, 0.0, -equity, state.log)
    empty(a, row, 0.0, case, state)
    if case.switches.check:
        add(ACCOUNTS, k, worth(a, case, state) - equity, case, state)
    return 1


@njit(cache=True, error_model="numpy")
def empty(a, row, left, case, state):
    """Take everything out of an account but `left` in money; its coins are sold."""
    hold, touched = case.hold, state.touched
    lo = hold.accounts[a].first
    shift = touched.rows[row].first - lo
    for i in range(lo, hold.accounts[a].last):
        k = hold.legs[i].inst
        if touched.rest[i + shift] != 0.0 and hold.legs[i].role != SUPPLY:
            if not case.insts[k].money:
                bring_to_market(k, touched.rest[i + shift], 0, case, state)
            touched.rest[i + shift] = 0.0
    touched.rows[row].cash = left
    touched.rows[row].state = EMPTIED


@njit(cache=True, error_model="numpy")
def cover_from_coins(a, row, case, state):
    """Sell coins pro rata to pay what the account owes in money; 1 where any were sold."""
    hold, touched, now = case.hold, state.touched, state.now
    lo, hi = hold.accounts[a].first, hold.accounts[a].last
    shift = touched.rows[row].first - lo
    owed, coins = -touched.rows[row].cash, 0.0
    for i in range(lo, hi):
        value = touched.rest[i + shift] * now[hold.legs[i].inst].seen
        if hold.legs[i].role == CASH and (case.insts[hold.legs[i].inst].money or value < 0.0):
            owed -= value
        elif hold.legs[i].role == CASH or hold.legs[i].role == COLLATERAL:
            coins += value
    if owed <= 0.0 or coins <= 0.0:
        return 0
    share = min(owed / coins, 1.0)
    for i in range(lo, hi):
        k = hold.legs[i].inst
        qty = touched.rest[i + shift]
        coin = hold.legs[i].role == CASH and not case.insts[k].money
        if (coin or hold.legs[i].role == COLLATERAL) and qty > 0.0:
            sold = qty if share >= 1.0 else qty * share
            touched.rest[i + shift] = qty - sold
            touched.rows[row].cash += sold * now[k].seen
            bring_to_market(k, sold, 0, case, state)
    return 1
