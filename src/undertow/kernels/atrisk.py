"""Who would be called at which prices, while nobody sells anything.

Prices are given as rows of NOWs, worked out once for all accounts: row g is one point, of a line of
ever larger moves or of a surface. Along a line health is concave, so an account that is called
stays called, and the first point is found by halving.

On a surface most of those who could be called are called by far: a straight line that is nowhere
below health (`draw_tops`) says so without asking the rules.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.kernels import njit
from undertow.kernels.accounts import account_health, maintenance
from undertow.kernels.lent import lend
from undertow.kernels.margin import CASH, COLLATERAL, DEBT, INVERSE, OPTION, SUPPLY


class Box(NamedTuple):
    """Relative moves of what is seen, at many points."""

    move: NDArray[np.float64]  # (instruments, points)
    low: NDArray[np.float32]  # the same, a little lower
    high: NDArray[np.float32]  # and a little higher
    lowest: NDArray[np.float32]  # (instruments,) over all points
    highest: NDArray[np.float32]
    holds: NDArray[np.bool_]  # (points,) whether the lines below health hold so far out


_TESTED, _CURRENT = 0, 2  # at which price maintenance is asked
_ROUNDING = 1e-9  # of all that is added up


@njit(cache=True, error_model="numpy", nogil=True)
def first_called(accounts, points, case, state, first):
    """Write the first row of `points` at which each of `accounts` is called, or how many there are.

    Of plain accounts; what a portfolio grid asks is worked out point by point, by `called_at`.
    """
    case, state = lend(case), lend(state)
    hold, touched = case.hold, state.touched
    insts, brackets, grids, losses = case.insts, case.brackets, case.grids, state.losses
    last = points.shape[0]
    for n in range(accounts.size):
        a = accounts[n]
        low, high = 0, last  # called at `high` and beyond, never before `low`
        while low < high:
            middle = (low + high) // 2
            cover, asked, _ = account_health(
                a, hold, touched, points[middle], insts, brackets, grids, losses
            )
            if cover < asked:
                high = middle
            else:
                low = middle + 1
        first[n] = high


@njit(cache=True, error_model="numpy", nogil=True)
def called_at(accounts, case, state, called):
    """Write 1 for each of `accounts` that is called at the seen prices of `state`."""
    case, state = lend(case), lend(state)
    for n in range(accounts.size):
        cover, asked, _ = account_health(
            accounts[n], case.hold, state.touched, state.now, case.insts, case.brackets,
            case.grids, state.losses,
        )  # fmt: skip
        called[n] = 1 if cover < asked else 0


@njit(cache=True, error_model="numpy")
def leg_top(leg, inst, brackets):
    """Level and slope, in relative moves of the price, of a line nowhere below a leg's health.

    What a bracket asks is the most that any bracket would, what a haircut leaves the least: the one
    that rules now is a bound wherever the price goes.
    """
    p, qty, weight, role = inst.start, leg.qty, leg.weight, leg.role
    value = qty * p
    if role == COLLATERAL or (role == CASH and qty >= 0.0):
        rate, amount, least = 1.0, 0.0, np.inf
        for j in range(inst.first, inst.last):
            counted = brackets[j].rate * value + brackets[j].amount
            if counted < least:
                rate, amount, least = brackets[j].rate, brackets[j].amount, counted
        return weight * (rate * value + amount), weight * rate * value
    if role == DEBT:
        owed = -weight * abs(value)
        return owed, owed
    if role == CASH:
        return value, value
    if role == SUPPLY:
        return 0.0, 0.0
    size, inverse = abs(qty), role == INVERSE
    if inverse:
        level, slope = qty * (p / leg.entry - 1.0), qty * p / leg.entry
    else:
        level, slope = qty * (p - leg.entry), value
    if weight == 0.0:
        return level, slope
    if inst.basis == _CURRENT:
        return level - weight * maintenance(inst, size, inverse, p, brackets), slope
    if inst.basis != _TESTED:
        asked = weight * maintenance(inst, size, inverse, leg.entry, brackets)
        if inverse:
            return level - asked / leg.entry * p, slope - asked / leg.entry * p
        return level - asked, slope
    rate, amount, most = 0.0, 0.0, -np.inf
    for j in range(inst.first, inst.last):
        r, c = brackets[j].rate, brackets[j].amount
        asked = r * size - c * p if inverse else r * size * p - c
        if asked > most:
            rate, amount, most = r, c, asked
    if inverse:
        fixed, moving = (rate + inst.closing_fee) * size, -amount * p
    else:
        fixed, moving = -amount, (rate + inst.closing_fee) * size * p
    return level - weight * (fixed + moving), slope - weight * moving


@njit(cache=True, error_model="numpy", nogil=True)
def draw_tops(first, last, hold, insts, brackets, level, slope):
    """Write lines nowhere below health: level by account from `first` up to `last`, slope by leg.

    The level is infinite where there is no such line.
    """
    for a in range(first, last):
        account = hold.accounts[a]
        total, size = account.cash, abs(account.cash)
        for i in range(account.first, account.last):
            leg = hold.legs[i]
            slope[i] = 0.0
            if leg.role == OPTION or account.grid >= 0:
                total = np.inf
                continue
            x, y = leg_top(leg, insts[leg.inst], brackets)
            slope[i] = y
            total += x
            size += abs(x) + 3.0 * abs(y)
        level[a] = total + _ROUNDING * size


@njit(cache=True, error_model="numpy", nogil=True)
def add_called(lines, start, level, slope, points, box, group, weight, case, state, total, count):
    """Add the weights (accounts, kinds) of plain accounts called at each point to `total` by group.

    `lines` bound health from below, for the accounts from `start` on, `level` and `slope` from
    above (`draw_tops`); between the two the rules are asked. `total` is (points, groups, kinds),
    `count` how many were called at each point.
    """
    case, state = lend(case), lend(state)
    hold, insts, losses = case.hold, case.insts, state.losses
    legs, many = hold.legs, points.shape[0]
    top, bottom = np.empty(many), np.empty(many, dtype=np.float32)
    all_hold = box.holds.all()
    for n in range(lines.level.size):
        if lines.level[n] == np.inf:
            continue
        a, first, last = start + n, lines.first[n], lines.first[n + 1]
        worst = lines.level[n]
        for i in range(first, last):
            c, k = lines.slope[i], lines.inst[i]
            worst += c * box.lowest[k] if c > 0.0 else c * box.highest[k]
        if worst >= 0.0 and all_hold:
            continue
        top[:], bottom[:] = level[a], lines.level[n]
        for i in range(first, last):
            c, d, k = lines.slope[i], slope[i], legs[i].inst
            near = box.low if c > 0.0 else box.high
            for g in range(many):
                top[g] += d * box.move[k, g]
                bottom[g] += c * near[k, g]
        for g in range(many):
            if bottom[g] >= 0.0 and box.holds[g]:
                continue
            if top[g] >= 0.0:
                cover, asked, _ = account_health(
                    a, hold, state.touched, points[g], insts, case.brackets, case.grids, losses
                )
                if cover >= asked:
                    continue
            count[g] += 1
            for kind in range(weight.shape[1]):
                total[g, group[a], kind] += weight[a, kind]


@njit(cache=True, error_model="numpy", nogil=True)
def add_groups_called(accounts, group, weight, case, state, total):
    """Add the weights of those of `accounts`, in any order, called at the seen prices of `state`.

    Returns how many they are.
    """
    case, state = lend(case), lend(state)
    count = 0
    for n in range(accounts.size):
        a = accounts[n]
        cover, asked, _ = account_health(
            a, case.hold, state.touched, state.now, case.insts, case.brackets, case.grids,
            state.losses,
        )  # fmt: skip
        if cover < asked:
            count += 1
            for kind in range(weight.shape[1]):
                total[group[a], kind] += weight[a, kind]
    return count
