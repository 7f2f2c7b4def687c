"""What an account is worth, what its venue asks of it, and the price or the fall that closes it.

An account is one margin group at one venue: the legs `offsets[a]:offsets[a + 1]`. Health is two
sums that are piecewise linear in prices, cover W and asked D; H = W - D, health factor W / D.

Columns of `Legs`, by leg (an account holds an instrument in one leg at most):

    inst    instrument code, which indexes `price`, `mark`, `exposure` and the rows of `Terms`
    qty     signed, long positive, debt negative; INVERSE: face in USD; OPTION: contracts
    entry   average entry price of LINEAR and INVERSE (INVERSE: above 0), 0 for the rest
    role    what the leg is to the account, one of the constants below
    weight  a number that the role gives its meaning

    role        adds to W                    adds to D                    weight means
    COLLATERAL  weight * cut(qty * p)                                     liquidation threshold
    DEBT                                     weight * |qty| * p           debt weight, plainly 1
    SUPPLY                                                                nothing
    CASH >= 0   weight * cut(qty * p)                                     collateral weight
    CASH < 0                                 |qty| * p                    nothing: borrowed
    LINEAR      qty * (p - entry)            weight * maintenance         1; 0 where a grid asks
    INVERSE     qty * (p / entry - 1)        weight * maintenance         1; 0 where a grid asks
    OPTION      qty * p                      short: weight * maintenance  1; 0 where a grid asks

`Terms` holds the brackets of instrument k in rows `start[k]:start[k + 1]`, smallest first, each
from `floor` (not in it) to the next one's floor (in it). Of a derivative, maintenance is
max_j(rate_j * N - amount_j) + closing_fee * N with N = |qty| * p; of an INVERSE one the brackets
are in coin, so in USD max_j(rate_j * |face| - amount_j * p) + closing_fee * |face|. Of what is
held, cut(v) is min_j(rate_j * v + amount_j), which is v where there are no brackets. So H is
concave along any straight path of prices, which is what the two solvers below live on. `basis`,
by instrument, says at which price maintenance is asked: TESTED, the price under test; ENTRY, the
entry price; CURRENT, the present mark. `max_leverage` is only looked up.

Every float is finite and every price positive: the caller has checked. Along a path a price may
pass through zero; lines are then extended, not floored, since a floor would not be concave. The
line kernels are inlined because a call that passes `Legs` and `Terms` costs more than its work.

References
----------
Binance, "How to calculate liquidation price of USD-M futures contracts" (brackets and their
maintenance amounts). Warmuz, Chaudhary and Pinna (2022), on health as a weighted sum.
"""

from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.kernels import njit

# what is held or owed comes before LINEAR, derivatives from there on: kernels compare by order
COLLATERAL, DEBT, SUPPLY, CASH, LINEAR, INVERSE, OPTION = range(7)
TESTED, ENTRY, CURRENT = range(3)
FOUND, NONE, BREACHED = range(3)


class Legs(NamedTuple):
    """What the accounts hold, one row a leg."""

    inst: NDArray[np.int32]
    qty: NDArray[np.float64]
    entry: NDArray[np.float64]
    role: NDArray[np.int8]
    weight: NDArray[np.float64]


class Terms(NamedTuple):
    """What the venue asks, by bracket row and by instrument."""

    start: NDArray[np.int64]  # (instruments + 1,)
    floor: NDArray[np.float64]  # (brackets,), as are the next three
    rate: NDArray[np.float64]
    amount: NDArray[np.float64]
    max_leverage: NDArray[np.float64]
    closing_fee: NDArray[np.float64]  # (instruments,)
    basis: NDArray[np.int8]  # (instruments,)


class Sums(NamedTuple):
    """The written columns, one row an account, all in the unit of the prices."""

    assets: NDArray[np.float64]  # held outright, marked, without haircuts
    debt: NDArray[np.float64]  # owed, marked, without debt weights
    equity: NDArray[np.float64]  # assets - debt + profit of derivatives + value of options
    cover: NDArray[np.float64]  # W
    asked: NDArray[np.float64]  # D
    notional: NDArray[np.float64]  # gross, of derivatives; OPTION: |qty| * option_notional


@njit(cache=True)
def bracket_at(k, notional, terms):
    """Row of the bracket of instrument `k` that holds `notional`; -1 where it has none.

    Intervals are (floor, next floor]; what lies under the first floor is in the first.
    """
    first = terms.start[k]
    row = -1
    for j in range(first, terms.start[k + 1]):
        if j == first or notional > terms.floor[j]:
            row = j
    return row


@njit(cache=True, inline="always")
def maintenance_line(k, size, inverse, base, step, t, terms):
    """Maintenance of `size` at the price base + step * t, as the line a + b * t that holds there.

    At t = inf it is the line that holds from some t on for ever. `size` is |qty|.
    """
    a, b = 0.0, 0.0
    first = terms.start[k]
    for j in range(first, terms.start[k + 1]):
        if inverse:
            x = terms.rate[j] * size - terms.amount[j] * base
            y = -terms.amount[j] * step
        else:
            x = terms.rate[j] * size * base - terms.amount[j]
            y = terms.rate[j] * size * step
        if t == inf:
            above = y > b or (y == b and x > a)
        else:
            above = x + y * t > a + b * t
        if j == first or above:
            a, b = x, y
    fee = terms.closing_fee[k] * size
    if inverse:
        return a + fee, b
    return a + fee * base, b + fee * step


@njit(cache=True, inline="always")
def cover_line(k, qty, base, step, t, terms):
    """What `qty` >= 0 of an asset counts for after haircuts, as the line a + b * t at `t`."""
    a, b = qty * base, qty * step
    value, slope = a, b
    first = terms.start[k]
    for j in range(first, terms.start[k + 1]):
        x = terms.rate[j] * value + terms.amount[j]
        y = terms.rate[j] * slope
        if t == inf:
            below = y < b or (y == b and x < a)
        else:
            below = x + y * t < a + b * t
        if j == first or below:
            a, b = x, y
    return a, b


@njit(cache=True, inline="always")
def leg_lines(i, legs, terms, base, step, t, mark):
    """Leg `i` on the price path base + step * t: intercept and slope of its cover and its asked.

    The lines are those that hold at `t`; `mark` is the present price, for basis CURRENT.
    """
    k = legs.inst[i]
    qty = legs.qty[i]
    role = legs.role[i]
    weight = legs.weight[i]
    size = abs(qty)
    if role == SUPPLY:
        return 0.0, 0.0, 0.0, 0.0
    if role == DEBT:
        return 0.0, 0.0, weight * size * base, weight * size * step
    if role == CASH and qty < 0.0:
        return 0.0, 0.0, size * base, size * step
    if role < LINEAR:
        a, b = cover_line(k, qty, base, step, t, terms)
        return weight * a, weight * b, 0.0, 0.0

    entry = legs.entry[i]
    inverse = role == INVERSE
    if inverse:
        a, b = qty * (base / entry - 1.0), qty * step / entry
    elif role == OPTION:
        a, b = qty * base, qty * step
        if qty >= 0.0:  # paid for in full: it can lose its value and no more
            return a, b, 0.0, 0.0
    else:
        a, b = qty * (base - entry), qty * step

    if terms.basis[k] == TESTED:
        x, y = maintenance_line(k, size, inverse, base, step, t, terms)
    elif terms.basis[k] == CURRENT:
        x, y = maintenance_line(k, size, inverse, mark, 0.0, 0.0, terms)
    else:
        x, y = maintenance_line(k, size, inverse, entry, 0.0, 0.0, terms)
        if inverse:  # a fixed amount of coin, and coin moves with the price
            x, y = x / entry * base, x / entry * step
    return a, b, weight * x, weight * y


@njit(cache=True)
def account_sums(lo, hi, offsets, legs, price, mark, option_notional, terms, out):
    """Judge the accounts `lo:hi` at `price`; writes the rows `lo:hi` of every column of `out`.

    `mark` is the present price, for basis CURRENT; pass `price` twice to judge the present.
    `option_notional` is what one contract of an OPTION counts for, say |delta| * underlying.
    """
    for a in range(lo, hi):
        assets, debt, profit, cover, asked, notional = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(offsets[a], offsets[a + 1]):
            k = legs.inst[i]
            p = price[k]
            w, _, d, _ = leg_lines(i, legs, terms, p, 0.0, 0.0, mark[k])
            cover += w
            asked += d
            role = legs.role[i]
            value = legs.qty[i] * p
            if role == DEBT or (role == CASH and value < 0.0):
                debt += abs(value)
            elif role < LINEAR:
                assets += value
            else:
                profit += w
                if role == LINEAR:
                    notional += abs(value)
                else:
                    notional += abs(legs.qty[i]) * (1.0 if role == INVERSE else option_notional[k])
        out.assets[a] = assets
        out.debt[a] = debt
        out.equity[a] = assets - debt + profit
        out.cover[a] = cover
        out.asked[a] = asked
        out.notional[a] = notional


@njit(cache=True)
def liquidation_price(i, legs, price, terms, cover, asked):
    """Price of leg `i`'s instrument, all others held, at which the account's H is zero.

    `cover` and `asked` are the whole account's, leg `i` included, at `price`. Returns the price
    and FOUND, or 0.0 and NONE where no positive price does it. An account that is already under
    has one too: the price at which it would be whole again.

    H is concave in one price, so Newton started beyond the root comes down on it from one side
    and lands exactly, one bracket a step at most: a long leg starts at zero, a short one at the
    line that holds at infinity.
    """
    k = legs.inst[i]
    w, _, d, _ = leg_lines(i, legs, terms, price[k], 0.0, 0.0, price[k])
    rest = (cover - w) - (asked - d)
    role = legs.role[i]
    long = legs.qty[i] > 0.0 and role != DEBT
    p = 0.0 if long else inf
    for _ in range(terms.start[k + 1] - terms.start[k] + 4):
        wa, wb, da, db = leg_lines(i, legs, terms, 0.0, 1.0, p, price[k])
        level = rest + wa - da
        slope = wb - db
        if (long and slope <= 0.0) or (not long and slope >= 0.0):
            return 0.0, NONE
        root = -level / slope
        if root <= 0.0:
            return 0.0, NONE
        if (long and root <= p) or (not long and root >= p):
            break
        p = root
    return p, FOUND


@njit(cache=True)
def health_line(first, last, legs, price, exposure, sign, t, terms):
    """H of the legs `first:last` with every price at P * (1 + sign * exposure * t), as a + b * t.

    The line is the one that holds at `t`; a + b * t is H itself.
    """
    level, slope = 0.0, 0.0
    for i in range(first, last):
        k = legs.inst[i]
        step = price[k] * (sign * exposure[k])
        wa, wb, da, db = leg_lines(i, legs, terms, price[k], step, t, price[k])
        level += wa - da
        slope += wb - db
    return level, slope


@njit(cache=True)
def account_distance(first, last, legs, price, exposure, sign, terms):
    """Smallest common move that brings H of the legs `first:last` to zero, and a status.

    `sign` is -1.0 for a fall, within (0, 1], or 1.0 for a rise, without bound. NONE comes with
    inf, BREACHED (H is under zero as it stands) with 0.0.
    """
    level, slope = health_line(first, last, legs, price, exposure, sign, 0.0, terms)
    if level < 0.0:
        return 0.0, BREACHED
    t = 1.0 if sign < 0.0 else inf
    level, slope = health_line(first, last, legs, price, exposure, sign, t, terms)
    if sign < 0.0:
        if level + slope >= 0.0:  # H is concave: whole at both ends is whole between them
            return inf, NONE
    elif slope >= 0.0:
        return inf, NONE
    limit = 4
    for i in range(first, last):
        limit += terms.start[legs.inst[i] + 1] - terms.start[legs.inst[i]]
    for _ in range(limit):
        if slope >= 0.0:  # only rounding at the very edge gets here
            return 0.0, FOUND
        root = -level / slope
        if root <= 0.0:
            return 0.0, FOUND
        if root >= t:
            break
        t = root
        level, slope = health_line(first, last, legs, price, exposure, sign, t, terms)
    return t, FOUND


@njit(cache=True)
def distances(lo, hi, offsets, legs, price, exposure, sign, terms, value, status):
    """`account_distance` of the accounts `lo:hi`; writes their rows of `value` and `status`."""
    for a in range(lo, hi):
        value[a], status[a] = account_distance(
            offsets[a], offsets[a + 1], legs, price, exposure, sign, terms
        )
