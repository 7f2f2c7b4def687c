"""One account in one scenario: its health at the seen prices, and what is left of it.

Accounts, legs and instruments are rows of structured arrays, so that what is looked at together
lies together and a kernel takes a handful of arguments instead of a hundred. An account is the legs
`first` to `last` of `Holdings.legs`, as in `margin`. A scenario leaves most accounts as they are;
those that it touches get a row in `Touched`, with what remains of each leg and `cash`, profit and
loss realised so far in USD, which counts for its face value.

Portfolio margin groups (`grid` >= 0) are repriced. What one contract of instrument k loses at grid
point g is `loss[k, g]`, worked out at most once per price vector and shared by all groups.

`root` of an account is that of all it holds but money, or the number of assets where it holds
several: prices of one root travel together.

`times` of an account is how many like it stand there, itself counted: 1, but where a book is judged
by some of its accounts.

`spread` is how much H can move at most per unit of relative move in every price together; H over
spread is therefore a distance that needs no new look at the account until prices have moved so far.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.kernels import njit
from undertow.kernels.margin import CASH, COLLATERAL, DEBT, INVERSE, LINEAR, OPTION, SUPPLY
from undertow.kernels.options import black76

# An account that is touched: as it was, closed in part, all gone, or a winner who was made to pay.
KEPT, CALLED, EMPTIED, TAKEN = range(4)
_TESTED, _CURRENT = 0, 2

ACCOUNT = np.dtype(
    [("first", "i8"), ("last", "i8"), ("cash", "f8"), ("venue", "i4"), ("owner", "i4"),
     ("grid", "i4"), ("root", "i4"), ("times", "i8")],
    align=True,
)  # fmt: skip
LEG = np.dtype(
    [("inst", "i4"), ("role", "i1"), ("qty", "f8"), ("entry", "f8"), ("weight", "f8"),
     ("bonus", "f8"), ("fee", "f8")],
    align=True,
)  # fmt: skip
TOUCH = np.dtype(
    [
        ("first", "i8"),
        ("cash", "f8"),
        ("account", "i4"),
        ("ready", "i4"),
        ("place", "i4"),
        ("state", "i1"),
    ],
    align=True,
)
BRACKET = np.dtype([("rate", "f8"), ("amount", "f8")])
# What an instrument is and how it starts; written once a plan.
INSTRUMENT = np.dtype(
    [
        ("start", "f8"),  # USD, before any shock
        ("first", "i4"),  # its rows among the brackets, up to `last`
        ("last", "i4"),
        ("closing_fee", "f8"),
        ("steepest", "f8"),  # the largest rate and the largest amount of its brackets
        ("largest", "f8"),
        ("basis", "i1"),
        ("money", "i1"),  # nobody has to sell it
        ("inverse", "i1"),  # quantity is a face in USD
        ("kind", "i1"),  # CALL, PUT, 0 where it is no option
        ("asset", "i4"),
        ("root", "i4"),  # asset at the end of what it follows; -1 of money
        ("venue", "i4"),
        ("strike", "f8"),
        ("tau", "f8"),
        ("forward", "f8"),  # at the start, as is the volatility
        ("vol", "f8"),
        ("carrier", "i4"),  # its rows among the carriers, up to `carriers`
        ("carriers", "i4"),
        ("tied", "i1"),  # the first carrier is a peg's
        ("spot_pool", "i4"),  # where its asset is sold, or -1
        ("own_pool", "i4"),  # of the contract itself, or -1
        ("spot_rate", "f8"),  # units of the spot pool's asset in one unit
        ("coupling", "f8"),  # share of a sale of the contract that reaches the spot pool
        ("oracle", "i1"),
        ("deviation", "f8"),
        ("lag", "i4"),  # rounds, as is the next
        ("heartbeat", "i4"),
        ("factor", "f8"),  # of an oracle that is mis-set
        ("until", "i4"),  # round from which a frozen or mis-set oracle reads the market again
        ("per_qty", "f8"),  # quanta in a unit of quantity, and in a USD
        ("per_usd", "f8"),
        ("supplied", "f8"),  # base units in a reserve, 0 where unknown
    ],
    align=True,
)
# What an instrument is worth now; written every round.
NOW = np.dtype(
    [
        ("market", "f8"),
        ("seen", "f8"),
        ("before", "f8"),  # `seen` of the last round
        ("published", "f8"),
        ("forward", "f8"),
        ("forward_before", "f8"),
        ("vol", "f8"),
        ("published_at", "i4"),
    ],
    align=True,
)
POINT = np.dtype([("price_move", "f8"), ("vol_move", "f8"), ("counted", "f8")])
CHARGE = np.dtype([("vol_scale", "f8"), ("add_on", "f8"), ("minimum", "f8")])


class Holdings(NamedTuple):
    """What the accounts hold when a scenario begins; read-only."""

    accounts: NDArray[np.void]  # ACCOUNT
    legs: NDArray[np.void]  # LEG


class Grids(NamedTuple):
    """The scan points of every venue with portfolio margin, end to end, and what they add."""

    start: NDArray[np.int64]  # (grids + 1,)
    points: NDArray[np.void]  # POINT
    charges: NDArray[np.void]  # (grids, instruments) CHARGE
    options: NDArray[np.int32]  # instruments that are options and held


class Losses(NamedTuple):
    """What one contract of each option loses at every point; worked out when first asked for."""

    loss: NDArray[np.float64]  # (instruments, points of all grids)
    stamp: NDArray[np.int64]  # (2,): the price vector that `loss` is of, and the present one


class Touched(NamedTuple):
    """What a scenario changed so far; one row a touched account, in the order of touching."""

    slot: NDArray[np.int32]  # (accounts,): row below, -1, or -2 less the row of the watch list
    rows: NDArray[np.void]  # TOUCH
    rest: NDArray[np.float64]  # what is left of legs
    used: NDArray[np.int64]  # rows, legs


@njit(cache=True, error_model="numpy", inline="always")
def touch(a, hold, touched):
    """Row of account `a` in `touched`, with everything still there if it is new."""
    known = touched.slot[a]
    if known >= 0:
        return known
    n = touched.used[0]
    start = touched.used[1]
    account, row = hold.accounts[a], touched.rows[n]
    touched.slot[a] = n
    row.account = a
    row.first = start
    row.cash = account.cash
    row.ready = 0
    row.place = -2 - known  # -1 where it stands on no watch list that is known
    row.state = KEPT
    for i in range(account.first, account.last):
        touched.rest[start + i - account.first] = hold.legs[i].qty
    touched.used[0] = n + 1
    touched.used[1] = start + account.last - account.first
    return n


@njit(cache=True, error_model="numpy")
def forget(touched):
    """Bring `touched` back to an untouched book."""
    for n in range(touched.used[0]):
        touched.slot[touched.rows[n].account] = -1
    touched.used[0] = 0
    touched.used[1] = 0


@njit(cache=True, error_model="numpy", nogil=True)
def lacking(hold, qty, cash, price, lack):
    """Write what each account owes beyond what it has; 0 where it has enough.

    It has `qty` of each leg and `cash`, at `price` by instrument.
    """
    for a in range(hold.accounts.size):
        worth = cash[a]
        for i in range(hold.accounts[a].first, hold.accounts[a].last):
            leg = hold.legs[i]
            if leg.role == LINEAR:
                worth += qty[i] * (price[leg.inst] - leg.entry)
            elif leg.role == INVERSE:
                entry = leg.entry if leg.entry > 0.0 else 1.0
                worth += qty[i] * (price[leg.inst] / entry - 1.0)
            else:
                worth += qty[i] * price[leg.inst]
        lack[a] = max(-worth, 0.0)


@njit(cache=True, error_model="numpy", inline="always")
def left_of(i, first, n, hold, touched):
    """What is left of leg `i` of an account whose legs start at `first` and whose row is `n`."""
    if n < 0:
        return hold.legs[i].qty
    return touched.rest[touched.rows[n].first + i - first]


@njit(cache=True, error_model="numpy", inline="always")
def maintenance(inst, size, inverse, p, brackets):
    """What is asked of `size` >= 0 of a derivative at price `p`."""
    worst = 0.0
    for j in range(inst.first, inst.last):
        bracket = brackets[j]
        if inverse:
            x = bracket.rate * size - bracket.amount * p
        else:
            x = bracket.rate * size * p - bracket.amount
        if j == inst.first or x > worst:
            worst = x
    return worst + inst.closing_fee * size * (1.0 if inverse else p)


@njit(cache=True, error_model="numpy", inline="always")
def counted(inst, value, brackets):
    """What `value` >= 0 of an asset counts for after haircuts."""
    least = value
    for j in range(inst.first, inst.last):
        x = brackets[j].rate * value + brackets[j].amount
        if j == inst.first or x < least:
            least = x
    return least


@njit(cache=True, error_model="numpy", inline="always")
def leg_health(leg, qty, inst, p, brackets):
    """Cover, asked and spread of `qty` of one leg at price `p`.

    The spread of an option is that of its forward, which the caller adds.
    """
    role, weight = leg.role, leg.weight
    value = qty * p
    if role == COLLATERAL or (role == CASH and qty >= 0.0):
        w = weight * (value if inst.first == inst.last else counted(inst, value, brackets))
        return w, 0.0, weight * value
    if role == DEBT:
        return 0.0, weight * abs(value), weight * abs(value)
    if role == CASH:
        return 0.0, -value, -value
    if role == SUPPLY:
        return 0.0, 0.0, 0.0
    if role == OPTION:
        d = weight * maintenance(inst, -qty, False, p, brackets) if qty < 0.0 < weight else 0.0
        return value, d, d
    size = abs(qty)
    inverse = role == INVERSE
    w = qty * (p / leg.entry - 1.0) if inverse else qty * (p - leg.entry)
    reach = size * p / leg.entry if inverse else size * p
    if weight == 0.0:  # a grid asks
        return w, 0.0, reach
    if inst.basis == _TESTED:
        d = weight * maintenance(inst, size, inverse, p, brackets)
        steep = inst.largest * p if inverse else (inst.steepest + inst.closing_fee) * reach
        return w, d, reach + weight * steep
    if inst.basis == _CURRENT:
        return w, weight * maintenance(inst, size, inverse, inst.start, brackets), reach
    d = weight * maintenance(inst, size, inverse, leg.entry, brackets)
    if inverse:  # a fixed amount of coin, and coin moves with the price
        d *= p / leg.entry
        return w, d, reach + d
    return w, d, reach


@njit(cache=True, error_model="numpy", inline="always")
def account_health(a, hold, touched, now, insts, brackets, grids, losses):
    """Cover, asked and spread of account `a` at the seen prices."""
    account = hold.accounts[a]
    n = touched.slot[a]
    cash = account.cash if n < 0 else touched.rows[n].cash
    cover, asked, spread = max(cash, 0.0), max(-cash, 0.0), 0.0
    for i in range(account.first, account.last):
        leg = hold.legs[i]
        qty = left_of(i, account.first, n, hold, touched)
        w, d, s = leg_health(leg, qty, insts[leg.inst], now[leg.inst].seen, brackets)
        cover += w
        asked += d
        spread += s
        if leg.role == OPTION:
            spread += abs(qty) * now[leg.inst].forward
    if account.grid >= 0:
        more, reach = grid_requirement(a, n, hold, touched, now, insts, grids, losses)
        asked += more
        spread += reach
    return cover, asked, spread


@njit(cache=True, error_model="numpy")
def option_value(inst, forward, vol):
    """Black-76 value of one option at a forward and a volatility."""
    return black76(inst.kind, forward, inst.strike, vol, inst.tau, 1.0)


@njit(cache=True, error_model="numpy")
def grid_losses(now, insts, grids, loss):
    """What one contract of each option loses from now, at every point; writes `loss`."""
    for m in range(grids.options.size):
        k = grids.options[m]
        here, inst = now[k], insts[k]
        worth = option_value(inst, here.forward, here.vol)
        for grid in range(grids.start.size - 1):
            scale = grids.charges[grid, k].vol_scale
            for s in range(grids.start[grid], grids.start[grid + 1]):
                point = grids.points[s]
                vol = here.vol * max(1.0 + point.vol_move * scale, 0.0)
                forward = here.forward * (1.0 + point.price_move)
                loss[k, s] = worth - option_value(inst, forward, vol)


@njit(cache=True, error_model="numpy")
def grid_requirement(a, n, hold, touched, now, insts, grids, losses):
    """What the grid of account `a` asks, as `options.portfolio_requirement`, and its spread."""
    account = hold.accounts[a]
    grid, lo, hi = account.grid, account.first, account.last
    if losses.stamp[0] != losses.stamp[1]:
        grid_losses(now, insts, grids, losses.loss)
        losses.stamp[0] = losses.stamp[1]
    loss = losses.loss
    first, last = grids.start[grid], grids.start[grid + 1]
    asked, least, reach, furthest = 0.0, 0.0, 0.0, 0.0
    for s in range(first, last):
        furthest = max(furthest, abs(grids.points[s].price_move))
    for i in range(lo, hi):
        role, k = hold.legs[i].role, hold.legs[i].inst
        if role < LINEAR:
            continue
        if is_first(i, lo, hold, insts):
            asked += worst_loss(i, hi, lo, n, hold, touched, now, insts, grids, first, last, loss)
        qty = left_of(i, lo, n, hold, touched)
        if role == OPTION:
            notional = abs(qty) * now[k].forward
            charged = max(-qty, 0.0) * now[k].forward
        else:
            notional = abs(qty) if role == INVERSE else abs(qty) * now[k].seen
            charged = notional
        charge = grids.charges[grid, k]
        asked += charge.add_on * charged
        least += charge.minimum * charged
        # An option's value moves by no more than its forward, now and at the far end of the grid.
        reach += notional * (2.0 + furthest + charge.add_on + charge.minimum)
    return max(asked, least), reach


@njit(cache=True, error_model="numpy")
def is_first(i, lo, hold, insts):
    """Whether leg `i` is the first derivative leg on its underlying in the account."""
    asset = insts[hold.legs[i].inst].asset
    for j in range(lo, i):
        if hold.legs[j].role >= LINEAR and insts[hold.legs[j].inst].asset == asset:
            return False
    return True


@njit(cache=True, error_model="numpy")
def worst_loss(i, hi, lo, n, hold, touched, now, insts, grids, first, last, loss):
    """Largest counted loss over the grid of the legs from `i` on that share its underlying."""
    asset = insts[hold.legs[i].inst].asset
    exposure = 0.0
    for j in range(i, hi):
        leg = hold.legs[j]
        if insts[leg.inst].asset == asset:
            qty = left_of(j, lo, n, hold, touched)
            if leg.role == LINEAR:
                exposure += qty * now[leg.inst].seen
            elif leg.role == INVERSE:
                exposure += qty
    worst = 0.0
    for s in range(first, last):
        lost = -exposure * grids.points[s].price_move
        for j in range(i, hi):
            leg = hold.legs[j]
            if leg.role == OPTION and insts[leg.inst].asset == asset:
                lost += left_of(j, lo, n, hold, touched) * loss[leg.inst, s]
        worst = max(worst, grids.points[s].counted * lost)
    return worst
