"""Closing of derivatives, slice by slice, and what becomes of an account that has none left."""

from undertow.kernels import njit
from undertow.kernels.accounts import CALLED, EMPTIED, left_of, touch
from undertow.kernels.cascade import (
    ACCOUNTS,
    BANKRUPT,
    CLOSED,
    CUT,
    LIQUIDATED,
    SHORT,
    add,
    bring_to_market,
    demand,
    note,
    worth,
)
from undertow.kernels.closing import closing_fee, slice_share, takes_over
from undertow.kernels.fixed import to_counts
from undertow.kernels.margin import CASH, COLLATERAL, DEBT, INVERSE, LINEAR, OPTION, SUPPLY


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
        demand(share * gross, v, a, case, state)
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
        bring_to_market(k, closed, 0, a, case, state)
        add(CLOSED, k, notional * share, a, case, state)
        add(CUT, k, fee * (notional / gross), a, case, state)
        if short > 0.0:
            counts = to_counts(closed, case.insts[k].per_qty)
            state.flows.counts[BANKRUPT, k] += hold.accounts[a].times * counts
            add(SHORT, k, short * (notional / gross), a, case, state)
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
            add(CUT, k, rest, a, case, state)
            empty(a, row, 0.0, case, state)
    elif case.switches.convert:
        cover_from_coins(a, row, case, state)
    if case.switches.check:
        add(ACCOUNTS, k, worth(a, case, state) - before, a, case, state)
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
def largest_leg(a, case, state):
    """The leg of account `a` that was worth most as it began, at what prices are seen now."""
    hold = case.hold
    found, most = hold.accounts[a].first, -1.0
    for i in range(hold.accounts[a].first, hold.accounts[a].last):
        leg = hold.legs[i]
        value = leg_notional(leg.role, leg.qty, state.now[leg.inst])
        if value > most:
            found, most = i, value
    return found


@njit(cache=True, error_model="numpy")
def settle_bare(a, v, r, equity, case, state):
    """An account that has no contracts left but owes: what it lacks is the venue's; 1 if any.

    It is booked with the largest thing that the account began with.
    """
    if equity >= 0.0:
        row = touch(a, case.hold, state.touched)
        return cover_from_coins(a, row, case, state)
    hold = case.hold
    row = touch(a, hold, state.touched)
    state.touched.rows[row].state = CALLED
    k = hold.legs[largest_leg(a, case, state)].inst
    add(SHORT, k, -equity, a, case, state)
    note(r, a, k, -1, LIQUIDATED, 0.0, 0.0, state.now[k].seen, 0.0, 0.0, -equity, state.log)
    empty(a, row, 0.0, case, state)
    if case.switches.check:
        add(ACCOUNTS, k, worth(a, case, state) - equity, a, case, state)
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
                bring_to_market(k, touched.rest[i + shift], 0, a, case, state)
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
            bring_to_market(k, sold, 0, a, case, state)
    return 1
