"""What owners do in a round, beside what venues do to them: all of it off unless asked for.

An account is called when what counts for it is less than `buffer` times what is asked (1 where
owners restore nothing). Before anybody is closed, at the seen prices, called accounts sell coins
for the money that they owe (`convert`), get money from outside (`top_up`), and then sell what they
hold themselves (`delever`): lending accounts collateral for debt, margin groups a share of every
contract. After the closings, owners who lost one side of a hedge to a venue close the other side on
their other accounts (`unwind`). What owners sell is sold like all else in the round, without bonus
or fee, so their equity at seen prices stays as it was; it is not counted as closed or repaid.

Owners restore the buffer and a billionth more, so that rounding does not call them again, and leave
alone what lacks less than a ten-thousandth of it: sales move prices, and many who stand at the
buffer would else answer each other's last cents for dozens of rounds. Each does the share `willing`
of what it could, every round anew: 1 is always and all, 0 never, and a fitted hazard per round goes
in between. Coins are sold by the venue's own rule, willing or not. Nobody reaches a venue before it
opens, who has less than nothing in an account does not delever it, and collateral on a ladder of
bands is the ladder's.

Accounts of one owner stand together and are never divided among workers; what an owner has is
shared among its called accounts in proportion to what each needs.
"""

import numpy as np

from undertow.kernels import njit
from undertow.kernels.accounts import EMPTIED, left_of, leg_health, touch
from undertow.kernels.cascade import (
    ACCOUNTS,
    BY_OWNER,
    CONVERTED,
    GIVEN,
    TOPPED_UP,
    UNWOUND,
    add,
    bring_to_market,
    health_of,
    note,
    watch_again,
    worth,
)
from undertow.kernels.closing import BANDS, NOTHING, SLICES
from undertow.kernels.contracts import cover_from_coins, leg_notional, realised
from undertow.kernels.lent import lend
from undertow.kernels.margin import CASH, COLLATERAL, DEBT, INVERSE, LINEAR
from undertow.kernels.prices import base_quantity

_HAIR = 1e-9  # share by which owners go past the buffer
_TRIFLE = 1e-4  # of what is asked: who lacks less of the buffer lets it be


@njit(cache=True, error_model="numpy")
def gather(case, state):
    """Give every owner back what it could bring in; writes `state.free`."""
    case, state = lend(case), lend(state)
    if case.switches.top_up:
        for o in range(state.free.size):
            state.free[o] = case.switches.free[o] if o < case.switches.free.size else 0.0


@njit(cache=True, error_model="numpy")
def will(o, case):
    """Share that owner `o` does of what it could."""
    return case.switches.willing[o] if o < case.switches.willing.size else 1.0


@njit(cache=True, error_model="numpy")
def aim_of(case):
    """Health that owners bring a called account to."""
    return max(case.switches.buffer, 1.0) * (1.0 + _HAIR)


@njit(cache=True, error_model="numpy")
def reachable(a, r, case, state):
    """Whether anybody can do anything about account `a` in round `r`."""
    v, row = case.hold.accounts[a].venue, state.touched.slot[a]
    if case.closing[v].mechanism == NOTHING or r < case.venues[v].opens:
        return False
    return row < 0 or state.touched.rows[row].state != EMPTIED


@njit(cache=True, error_model="numpy")
def lacking(a, r, case, state):
    """USD that account `a` lacks of the buffer, and its health; 0.0 where it is not called."""
    if not reachable(a, r, case, state):
        return 0.0, 0.0
    cover, asked, _ = health_of(a, case, state)
    room = cover - max(case.switches.buffer, 1.0) * asked
    if room >= 0.0 or (room > -_TRIFLE * asked and cover >= asked):
        return 0.0, 0.0
    return aim_of(case) * asked - cover, cover / asked if asked > 0.0 else 0.0


@njit(cache=True, error_model="numpy")
def answer(due, r, case, state):
    """Let owners act on the accounts in `due`; returns on how many accounts they did.

    `due` is in the order of accounts.
    """
    case, state = lend(case), lend(state)
    switches = case.switches
    did = np.zeros(due.size, dtype=np.bool_)
    if switches.convert:
        for n in range(due.size):
            did[n] |= sell_coins(due[n], r, case, state)
    if switches.top_up:
        bring_in(due, r, did, case, state)
    if switches.delever:
        for n in range(due.size):
            did[n] |= delever(due[n], r, case, state)
    return did.sum()


@njit(cache=True, error_model="numpy")
def sell_coins(a, r, case, state):
    """Sell coins of a called margin group for the money that it owes; whether any were."""
    if case.closing[case.hold.accounts[a].venue].mechanism != SLICES:
        return False
    short, health = lacking(a, r, case, state)
    if short <= 0.0:
        return False
    before = worth(a, case, state) if case.switches.check else 0.0
    row = touch(a, case.hold, state.touched)
    money = state.touched.rows[row].cash
    if cover_from_coins(a, row, case, state) == 0:
        return False
    usd = state.touched.rows[row].cash - money
    note(r, a, -1, -1, CONVERTED, health, usd, 1.0, usd, 0.0, 0.0, state.log)
    if case.switches.check:
        add(ACCOUNTS, first_inst(a, case), worth(a, case, state) - before, a, case, state)
    return usd > _TRIFLE * short


@njit(cache=True, error_model="numpy")
def first_inst(a, case):
    """Instrument under which money of account `a` is booked that belongs to none."""
    return case.hold.legs[case.hold.accounts[a].first].inst


@njit(cache=True, error_model="numpy")
def bring_in(due, r, did, case, state):
    """Top up called accounts out of their owners' free assets; writes `did` and `state.free`."""
    need, health = np.empty(due.size), np.empty(due.size)
    n = 0
    while n < due.size:
        o = case.hold.accounts[due[n]].owner
        m, total = n, 0.0
        while m < due.size and case.hold.accounts[due[m]].owner == o:
            short, health[m] = lacking(due[m], r, case, state)
            need[m] = money_for(short, money_of(due[m], case, state), aim_of(case))
            total += need[m]
            m += 1
        share = will(o, case) * min(state.free[o] / total, 1.0) if total > 0.0 else 0.0
        if share > 0.0:
            for j in range(n, m):
                if need[j] > 0.0:
                    top_up(due[j], need[j] * share, r, health[j], case, state)
                    did[j] = True
            state.free[o] = max(state.free[o] - total * share, 0.0)
        n = m


@njit(cache=True, error_model="numpy")
def money_of(a, case, state):
    """Money of account `a` that belongs to no leg; negative where it owes."""
    row = state.touched.slot[a]
    return case.hold.accounts[a].cash if row < 0 else state.touched.rows[row].cash


@njit(cache=True, error_model="numpy")
def money_for(short, money, aim):
    """USD that make up for `short`: those that pay back what is owed count `aim` times."""
    owed = max(-money, 0.0)
    return short / aim if short <= aim * owed else owed + (short - aim * owed)


@njit(cache=True, error_model="numpy")
def top_up(a, usd, r, health, case, state):
    """Put money from outside into account `a`."""
    row = touch(a, case.hold, state.touched)
    state.touched.rows[row].cash += usd
    k = first_inst(a, case)
    add(GIVEN, k, usd, a, case, state)
    note(r, a, -1, -1, TOPPED_UP, health, usd, 1.0, usd, 0.0, 0.0, state.log)
    if case.switches.check:
        add(ACCOUNTS, k, usd, a, case, state)


@njit(cache=True, error_model="numpy")
def delever(a, r, case, state):
    """Let the owner of a called account sell until it has the buffer; whether anything was."""
    owner, v = case.hold.accounts[a].owner, case.hold.accounts[a].venue
    short, health = lacking(a, r, case, state)
    part = will(owner, case)
    before = worth(a, case, state)
    if short <= 0.0 or part <= 0.0 or before < 0.0:
        return False
    share = contracts_to_close(a, short, case, state)
    if share > 0.0:
        close_contracts(a, share * part, r, health, case, state)
    elif case.closing[v].mechanism == BANDS or not repay_from_collateral(
        a, short, part, r, health, case, state
    ):
        return False
    if case.switches.check:
        add(ACCOUNTS, first_inst(a, case), worth(a, case, state) - before, a, case, state)
    return True


@njit(cache=True, error_model="numpy")
def contracts_to_close(a, short, case, state):
    """Share of every contract whose closing frees `short`; 0.0 where there are none.

    Maintenance falls at least in proportion to size, so the share is never too small.
    """
    hold = case.hold
    lo, row, money = hold.accounts[a].first, state.touched.slot[a], money_of(a, case, state)
    _, asked, _ = health_of(a, case, state)
    asked -= max(-money, 0.0)
    gross, profit = 0.0, 0.0
    for i in range(lo, hold.accounts[a].last):
        leg, k = hold.legs[i], hold.legs[i].inst
        qty, here = left_of(i, lo, row, hold, state.touched), state.now[k]
        if leg.role >= LINEAR:
            gross += leg_notional(leg.role, qty, here)
            profit += realised(leg.role, qty, here.seen, leg.entry)
        else:
            _, other, _ = leg_health(leg, qty, case.insts[k], here.seen, case.brackets)
            asked -= other
    if gross <= 0.0:
        return 0.0
    return share_to_close(short, max(asked, 0.0), money, profit, aim_of(case))


@njit(cache=True, error_model="numpy")
def share_to_close(short, asked, money, profit, aim):
    """Share of contracts that ask for `asked` whose closing makes up for `short`, at most 1.

    Closing turns their `profit` into money. While money is owed it is asked for `aim` times, so
    profit that pays it back helps, and loss that adds to it hurts, by aim - 1 beyond what is freed.
    """
    owing, clear = aim * asked + (aim - 1.0) * profit, aim * asked
    rate, after = (owing, clear) if money < 0.0 else (clear, owing)
    turn = 1.0  # share at which money changes its sign
    if money < 0.0 < profit or profit < 0.0 <= money:
        turn = min(-money / profit, 1.0)
    if rate > 0.0 and short <= rate * turn:
        return short / rate
    if turn < 1.0 and after > 0.0:
        return min(turn + (short - rate * turn) / after, 1.0)
    return 1.0


@njit(cache=True, error_model="numpy")
def close_contracts(a, share, r, health, case, state):
    """Close a share of every contract of account `a`."""
    hold = case.hold
    row = touch(a, hold, state.touched)
    lo = hold.accounts[a].first
    main, largest, qty, value = -1, -1.0, 0.0, 0.0
    for i in range(lo, hold.accounts[a].last):
        if hold.legs[i].role >= LINEAR:
            closed, notional = close_leg(i, lo, row, share, case, state)
            value += notional
            if notional > largest:
                main, largest, qty = hold.legs[i].inst, notional, closed
    note(
        r, a, main, -1, BY_OWNER, health, qty, state.now[main].seen, value, 0.0, 0.0, state.log
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def close_leg(i, lo, row, share, case, state):
    """Close a share of one contract at the seen price; (quantity, notional) of what was."""
    leg, touched = case.hold.legs[i], state.touched
    at, here = touched.rows[row].first + i - lo, state.now[leg.inst]
    closed = touched.rest[at] if share >= 1.0 else touched.rest[at] * share
    touched.rest[at] = 0.0 if share >= 1.0 else touched.rest[at] - closed
    touched.rows[row].cash += realised(leg.role, closed, here.seen, leg.entry)
    bring_to_market(leg.inst, closed, 0, touched.rows[row].account, case, state)
    return closed, leg_notional(leg.role, closed, here)


@njit(cache=True, error_model="numpy")
def repay_from_collateral(a, short, part, r, health, case, state):
    """Sell collateral and repay debt with it, pro rata over legs, until `short` is made up for.

    USD sold for debt lower what counts by the collateral's average threshold, and what is asked by
    the debt's average weight. `part` of it is done; returns whether anything was.
    """
    hold, touched = case.hold, state.touched
    lo, hi = hold.accounts[a].first, hold.accounts[a].last
    held, owed, counts, asked = 0.0, 0.0, 0.0, 0.0
    main, other, most, worst = -1, -1, 0.0, 0.0
    for i in range(lo, hi):
        leg, k = hold.legs[i], hold.legs[i].inst
        qty, seen = left_of(i, lo, touched.slot[a], hold, touched), state.now[k].seen
        if leg.role not in (COLLATERAL, DEBT):
            continue
        value = qty * seen
        w, d, _ = leg_health(leg, qty, case.insts[k], seen, case.brackets)
        counts += w
        asked += d
        held += max(value, 0.0)
        owed += max(-value, 0.0)
        if value > most:
            main, most = k, value
        elif -value > worst:
            other, worst = k, -value
    if held <= 0.0 or owed <= 0.0:
        return False
    freed = aim_of(case) * asked / owed - counts / held
    usd = min(held, owed)
    if freed > 0.0:
        usd = min(short / freed, usd)
    usd *= part
    row = touch(a, hold, touched)
    for i in range(lo, hi):
        role, at = hold.legs[i].role, touched.rows[row].first + i - lo
        if role in (COLLATERAL, DEBT):
            share = usd / (held if role == COLLATERAL else owed)
            moved = touched.rest[at] if share >= 1.0 else touched.rest[at] * share
            touched.rest[at] = 0.0 if share >= 1.0 else touched.rest[at] - moved
            bring_to_market(hold.legs[i].inst, moved, 0, a, case, state)
    price = state.now[main].seen
    note(r, a, main, other, BY_OWNER, health, usd / price, price, usd, usd, 0.0, state.log)
    return True


@njit(cache=True, error_model="numpy")
def remember(before, state):
    """Keep what is left of every leg, to know later what a round took; writes `before`.

    Returns how many accounts had been touched.
    """
    state = lend(state)
    for i in range(state.touched.used[1]):
        before[i] = state.touched.rest[i]
    return state.touched.used[0]


@njit(cache=True, error_model="numpy")
def lost_leg(i, lo, row, known, before, case, state):
    """Base units, signed, that were taken since `remember` from one leg of a touched account."""
    leg, at = case.hold.legs[i], state.touched.rows[row].first + i - lo
    inst = case.insts[leg.inst]
    exposed = leg.role == COLLATERAL or leg.role >= LINEAR or (leg.role == CASH and not inst.money)
    was = before[at] if row < known else leg.qty
    gone = was - state.touched.rest[at]
    if not exposed or gone * was <= 0.0:
        return 0.0
    return base_quantity(inst, state.now[leg.inst], gone)


@njit(cache=True, error_model="numpy")
def lost_of(a, asset, known, before, case, state):
    """Base units of an asset that were taken from account `a` since `remember`, net."""
    hold, row = case.hold, state.touched.slot[a]
    lost = 0.0
    if row >= 0:
        lo = hold.accounts[a].first
        for i in range(lo, hold.accounts[a].last):
            if case.insts[hold.legs[i].inst].asset == asset:
                lost += lost_leg(i, lo, row, known, before, case, state)
    return lost


@njit(cache=True, error_model="numpy")
def unwind(r, known, before, case, state):
    """Let owners close the other side of what was taken from them since `remember`.

    Returns on how many accounts they did.
    """
    case, state = lend(case), lend(state)
    hold, touched, assets = case.hold, state.touched, case.places.reference.size
    hit, found = np.empty(touched.used[1], dtype=np.int64), 0
    for row in range(touched.used[0]):
        a = touched.rows[row].account
        o, lo = hold.accounts[a].owner, hold.accounts[a].first
        if case.owner_start[o + 1] - case.owner_start[o] < 2:
            continue
        for i in range(lo, hold.accounts[a].last):
            if lost_leg(i, lo, row, known, before, case, state) != 0.0:
                hit[found] = np.int64(o) * assets + case.insts[hold.legs[i].inst].asset
                found += 1
    acted = 0
    for key in np.unique(hit[:found]):
        acted += unwind_asset(key // assets, key % assets, r, known, before, case, state)
    return acted


@njit(cache=True, error_model="numpy")
def unwind_asset(o, asset, r, known, before, case, state):
    """Close what owner `o` has against what it lost of an asset, as much as it lost, pro rata."""
    first, last = case.owner_start[o], case.owner_start[o + 1]
    lost, open_ = 0.0, 0.0
    for a in range(first, last):
        lost += lost_of(a, asset, known, before, case, state)
    opposes = np.zeros(last - first, dtype=np.bool_)
    for a in range(first, last):
        # where the same side was taken, the rest of the account is left to its venue
        if lost_of(a, asset, known, before, case, state) * lost <= 0.0:
            against = open_against(a, lost, asset, r, case, state)
            opposes[a - first] = against > 0.0
            open_ += against
    if open_ <= 0.0:
        return 0
    share = will(o, case) * min(abs(lost) / open_, 1.0)
    if share <= 0.0:
        return 0
    for a in range(first, last):
        if opposes[a - first]:
            close_against(a, lost, asset, share, r, case, state)
    return opposes.sum()


@njit(cache=True, error_model="numpy")
def against_leg(i, lo, row, lost, asset, case, state):
    """Base units of one leg that stand against `lost` of an asset; straight contracts alone."""
    leg, k = case.hold.legs[i], case.hold.legs[i].inst
    if case.insts[k].asset != asset or leg.role not in (LINEAR, INVERSE):
        return 0.0
    qty = left_of(i, lo, row, case.hold, state.touched)
    return abs(base_quantity(case.insts[k], state.now[k], qty)) if qty * lost < 0.0 else 0.0


@njit(cache=True, error_model="numpy")
def open_against(a, lost, asset, r, case, state):
    """Base units that account `a` holds against `lost` of an asset, where it can be reached."""
    lo, row, open_ = case.hold.accounts[a].first, state.touched.slot[a], 0.0
    if lost != 0.0 and reachable(a, r, case, state):
        for i in range(lo, case.hold.accounts[a].last):
            open_ += against_leg(i, lo, row, lost, asset, case, state)
    return open_


@njit(cache=True, error_model="numpy")
def close_against(a, lost, asset, share, r, case, state):
    """Close a share of what account `a` holds against `lost` of an asset."""
    hold = case.hold
    before = worth(a, case, state) if case.switches.check else 0.0
    fresh = state.touched.slot[a] < 0
    row = touch(a, hold, state.touched)
    lo = hold.accounts[a].first
    for i in range(lo, hold.accounts[a].last):
        if against_leg(i, lo, row, lost, asset, case, state) > 0.0:
            k = hold.legs[i].inst
            qty, value = close_leg(i, lo, row, share, case, state)
            price = state.now[k].seen
            note(r, a, k, -1, UNWOUND, 0.0, qty, price, value, 0.0, 0.0, state.log)
    watch_again(a, fresh, case, state)
    if case.switches.check:
        add(ACCOUNTS, first_inst(a, case), worth(a, case, state) - before, a, case, state)
