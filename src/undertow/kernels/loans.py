"""Closing of loans against collateral: the largest pair, the whole account, or band by band.

What is seized and repaid is worked out by `closing`; here it is taken from the legs and booked.
"""

from undertow.kernels import njit
from undertow.kernels.accounts import CALLED, EMPTIED, left_of, touch
from undertow.kernels.cascade import (
    ACCOUNTS,
    BAD,
    CLOSED,
    CONVERTED,
    CUT,
    GAIN,
    LIQUIDATED,
    REPAID,
    add,
    bring_to_market,
    demand,
    note,
    worth,
)
from undertow.kernels.closing import (
    band_range,
    band_share,
    close_pair,
    close_whole,
    protocol_cut,
)
from undertow.kernels.impact import multiplier, proceeds
from undertow.kernels.margin import COLLATERAL, DEBT


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
    cut = protocol_cut(seized, bonus, hold.legs[held].fee, 0.0)
    if case.switches.profitable and not pays(v, k, other, repaid, seized - cut, case, state):
        return 0
    if dry:
        demand(repaid, v, a, case, state)
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
    cut *= scale
    bring_to_market(k, took, case.venues[v].delay, a, case, state)
    bring_to_market(other, paid, 0, a, case, state)
    add(CLOSED, k, seized, a, case, state)
    add(REPAID, other, repaid, a, case, state)
    add(GAIN, k, seized - repaid - cut, a, case, state)
    add(CUT, k, cut, a, case, state)
    health, price = cover / asked, now[k].seen
    note(r, a, k, other, LIQUIDATED, health, took, price, seized, repaid, 0.0, state.log)
    if case.switches.check:
        add(ACCOUNTS, k, worth(a, case, state) - before, a, case, state)
    if whole_held and bare(a, row, case, state):
        write_off(a, r, cover / asked, case, state)
    return 1


@njit(cache=True, error_model="numpy", inline="always")
def pays(v, k, other, repaid, kept, case, state):
    """Whether what a liquidator keeps fetches what it repays and the gas, sold into the market.

    `kept` of instrument `k` is sold alone, at today's price and depth of its pool.
    """
    now, moving, pools = state.now, state.moving, case.places.pools
    qty = kept / now[k].seen
    fetched = qty * now[k].market
    pool = case.insts[k].spot_pool
    if pool >= 0 and qty > 0.0:
        volume, start = qty * case.insts[k].spot_rate / moving.thin[pool], moving.sold[pool]
        gained = proceeds(pool, start + volume, pools) - proceeds(pool, start, pools)
        fetched *= gained / (volume * multiplier(pool, start, pools))
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
    """Book every debt of an account without collateral as lost to those who lent it; 1 if any.

    Where a venue writes nothing off, the debt stays where it is.
    """
    hold, now = case.hold, state.now
    if not case.closing[hold.accounts[a].venue].deficit:
        return 0
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
                bring_to_market(k, -paid * value / now[k].seen, 0, a, case, state)
                add(REPAID, k, paid * value, a, case, state)
                value *= 1.0 - paid
            add(BAD, k, value, a, case, state)
            note(r, a, -1, k, LIQUIDATED, health, 0.0, now[k].seen, 0.0, 0.0, value, state.log)
            lost, first = 1, k
    if case.switches.check and lost:
        add(ACCOUNTS, first, worth(a, case, state) - before, a, case, state)
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
    absorbed = case.closing[v].returns_surplus  # by the venue itself
    scale = scale if held > 0.0 and not absorbed else 1.0  # else there is no liquidator
    bonus, fee = (bonus / held, fee / held) if held > 0.0 else (0.0, 0.0)
    seized, repaid, penalty, bad, credit = close_whole(v, case.closing, held, left, bonus)
    cut = penalty
    if absorbed:
        cut = seized - repaid - credit
    elif seized > repaid + penalty + credit:
        cut += fee * (seized - repaid - penalty - credit)
    if case.switches.profitable and largest >= 0 and not absorbed:
        k, other = hold.legs[largest].inst, hold.legs[dearest].inst
        kept, paid = seized - (cut - penalty), repaid + penalty + credit
        if not pays(v, k, other, paid, kept, case, state):
            return 0
    if dry:
        if not absorbed:
            demand(repaid, v, a, case, state)
        return 1
    if scale <= 0.0:
        return 0
    before = worth(a, case, state) if case.switches.check else 0.0
    row = touch(a, hold, touched)
    touched.rows[row].state = CALLED if scale < 1.0 else EMPTIED
    touched.rows[row].ready = r + 1
    shift = touched.rows[row].first - lo
    seized, cut, credit = seized * scale, cut * scale, credit * scale
    repaid, bad, from_cash = repaid * scale, bad * scale, from_cash * scale
    for i in range(lo, hi):
        k = hold.legs[i].inst
        qty = touched.rest[i + shift]
        if hold.legs[i].role == COLLATERAL and qty > 0.0:
            share = seized / held
            took = qty if share >= 1.0 else qty * share
            touched.rest[i + shift] = qty - took
            bring_to_market(k, took, case.venues[v].delay, a, case, state)
            add(CLOSED, k, took * now[k].seen, a, case, state)
            add(CUT, k, cut * (qty * now[k].seen / held), a, case, state)
            part = qty * now[k].seen / held
            add(GAIN, k, (seized - repaid - credit - cut) * part, a, case, state)
        elif hold.legs[i].role == DEBT and qty < 0.0:
            part = -qty * now[k].seen / debt
            touched.rest[i + shift] = 0.0 if scale == 1.0 else qty * (1.0 - scale)
            bring_to_market(k, -(repaid + from_cash) * part / now[k].seen, 0, a, case, state)
            add(REPAID, k, (repaid + from_cash) * part, a, case, state)
            add(BAD, k, bad * part, a, case, state)
    touched.rows[row].cash += credit - from_cash
    k = hold.legs[largest].inst if largest >= 0 else -1
    other = hold.legs[dearest].inst
    price = now[k].seen if k >= 0 else 0.0
    qty = seized / price if k >= 0 else 0.0
    note(r, a, k, other, LIQUIDATED, cover / asked, qty, price, seized, repaid, bad, state.log)
    if case.switches.check:
        add(ACCOUNTS, other, worth(a, case, state) - before, a, case, state)
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
    bring_to_market(k, qty, 0, a, case, state)
    add(CLOSED, k, abs(qty) * now[k].seen, a, case, state)
    add(GAIN, k, loss, a, case, state)
    note(r, a, k, -1, CONVERTED, 0.0, qty, now[k].seen, qty * now[k].seen, 0.0, loss, state.log)
    if case.switches.check:
        add(ACCOUNTS, k, worth(a, case, state) - before, a, case, state)
    return 1
