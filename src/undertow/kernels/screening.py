"""Which accounts could be called at all, for many scenarios at once, on the safe side.

Health H is at least a straight line in relative moves of prices, m = p / start - 1, as long as no
move is above `MOST`, and none of a coin-margined contract or a portfolio under `LEAST`:

    H(m) >= level + sum over legs of slope * m

H is W - trigger * D, the trigger plainly 1. The line is exact where rules are linear; maintenance,
which is convex, is replaced by its chord over that range, and so are haircuts. Portfolio margin
groups have, for each underlying, what H is at the nodes of a ladder of moves; between two nodes it
is no less than the lesser end less what the spread of the group allows over half the gap. An
account that this bound keeps above zero cannot be called anywhere in the box of moves asked about,
so nobody has to look at it. Floats are single: a margin for their rounding is taken off every
level.

References
----------
The bound is a chord of a convex function (Jensen); the rest is bookkeeping.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.kernels import njit
from undertow.kernels.accounts import (
    counted,
    maintenance,
    option_value,
)
from undertow.kernels.margin import CASH, COLLATERAL, DEBT, INVERSE, LINEAR, OPTION, SUPPLY

LEAST, MOST = -0.7, 1.5  # moves within which lines and ladders hold
NODES = 129
_ROUNDING = 4e-6  # of all that is added up, in single precision

GROUP = np.dtype(
    [("account", "i4"), ("first", "i4"), ("last", "i4"), ("cash", "f4")], align=True
)  # rows of the ladders first:last
RUNG = np.dtype([("asset", "i4"), ("gross", "f4")], align=True)


class Lines(NamedTuple):
    """The lower bounds of all accounts; portfolio groups stand in `groups` and have level inf."""

    first: NDArray[np.int64]  # (accounts + 1,)
    level: NDArray[np.float32]  # by account; inf of groups
    slope: NDArray[np.float32]  # by leg
    inst: NDArray[np.int32]  # by leg
    groups: NDArray[np.void]  # GROUP
    rungs: NDArray[np.void]  # RUNG: one underlying of a group
    ladder: NDArray[np.float32]  # (rungs, 2, NODES - 1): least health over each gap
    held_from: NDArray[np.int64]  # (instruments + 1,): who holds an instrument, in `holder`
    holder: NDArray[np.int32]


@njit(cache=True, error_model="numpy", inline="always")
def chord(start, at_start, at_most):
    """Level at no move, and slope, of the line through the moves `start` and MOST."""
    slope = (at_most - at_start) / (MOST - start)
    return at_start - slope * start, slope


@njit(cache=True, error_model="numpy")
def leg_line(leg, inst, brackets, trigger):
    """Level and slope in m of a line that is nowhere above what a leg adds to W - trigger * D."""
    p, qty, weight, role = inst.start, leg.qty, leg.weight, leg.role
    value = qty * p
    if role == DEBT:
        owed = -trigger * weight * abs(value)
        return owed, owed
    if role == CASH and qty < 0.0:
        return trigger * value, trigger * value
    if role in (COLLATERAL, CASH):
        if inst.first == inst.last:
            return weight * value, weight * value
        return chord(-1.0, 0.0, weight * counted(inst, value * (1.0 + MOST), brackets))
    if role == SUPPLY:
        return 0.0, 0.0
    if role == OPTION:  # long: worth something, but by a curve; nothing is on the safe side
        return 0.0, 0.0
    size = abs(qty)
    inverse = role == INVERSE
    if inverse:
        level, slope = qty * (p / leg.entry - 1.0), qty * p / leg.entry
    else:
        level, slope = qty * (p - leg.entry), value
    if weight == 0.0:
        return level, slope
    if inst.basis == 0:
        start = LEAST if inverse else -1.0
        low = maintenance(inst, size, inverse, p * (1.0 + start), brackets)
        high = maintenance(inst, size, inverse, p * (1.0 + MOST), brackets)
        a, b = chord(start, low, high)
    elif inst.basis == 2:
        a, b = maintenance(inst, size, inverse, p, brackets), 0.0
    else:
        a, b = maintenance(inst, size, inverse, leg.entry, brackets), 0.0
        if inverse:
            a, b = a / leg.entry * p, a / leg.entry * p
    return level - trigger * weight * a, slope - trigger * weight * b


@njit(cache=True, error_model="numpy")
def draw_lines(hold, insts, brackets, trigger, level, slope):
    """Write level and slopes of every account, portfolio groups by what they hold in money."""
    for a in range(hold.accounts.size):
        account = hold.accounts[a]
        total = account.cash if account.cash >= 0.0 else trigger * account.cash
        size = abs(total)
        for i in range(account.first, account.last):
            leg = hold.legs[i]
            grid = account.grid >= 0 and leg.role >= LINEAR
            x, y = (0.0, 0.0) if grid else leg_line(leg, insts[leg.inst], brackets, trigger)
            slope[i] = y
            total += x
            size += abs(x) + 3.0 * abs(y)
        level[a] = total - _ROUNDING * size


@njit(cache=True, error_model="numpy")
def group_health(a, i, move, trigger, hold, insts, grids, moved, option):
    """What the legs of group `a` on the underlying of leg `i` add to H at a move: by both rules.

    `option[k]` is the model value at the move of every option, `moved[k, s]` what it loses from
    there at a grid point. Returns profit less the worst loss and add-ons, and less the minima.
    """
    account = hold.accounts[a]
    grid = account.grid
    asset = insts[hold.legs[i].inst].asset
    profit, charged, least, exposure = 0.0, 0.0, 0.0, 0.0
    for j in range(i, account.last):
        leg = hold.legs[j]
        inst = insts[leg.inst]
        if leg.role < LINEAR or inst.asset != asset:
            continue
        charge = grids.charges[grid, leg.inst]
        p = inst.start * (1.0 + move)
        if leg.role == OPTION:
            profit += leg.qty * option[leg.inst]
            notional = max(-leg.qty, 0.0) * inst.forward * (1.0 + move)
        elif leg.role == INVERSE:
            profit += leg.qty * (p / leg.entry - 1.0)
            exposure += leg.qty
            notional = abs(leg.qty)
        else:
            profit += leg.qty * (p - leg.entry)
            exposure += leg.qty * p
            notional = abs(leg.qty) * p
        charged += charge.add_on * notional
        least += charge.minimum * notional
    worst = 0.0
    for s in range(grids.start[grid], grids.start[grid + 1]):
        lost = -exposure * grids.points[s].price_move
        for j in range(i, account.last):
            leg = hold.legs[j]
            if leg.role == OPTION and insts[leg.inst].asset == asset:
                lost += leg.qty * moved[leg.inst, s]
        worst = max(worst, grids.points[s].counted * lost)
    return profit - trigger * (worst + charged), profit - trigger * least


@njit(cache=True, error_model="numpy")
def option_tables(move, insts, grids, moved, option):
    """Write what every option is worth after `move`, and what it loses from there by grid point."""
    for n in range(grids.options.size):
        k = grids.options[n]
        inst = insts[k]
        forward = inst.forward * (1.0 + move)
        now = option_value(inst, forward, inst.vol)
        option[k] = max(inst.start + now - option_value(inst, inst.forward, inst.vol), 1e-12)
        for grid in range(grids.start.size - 1):
            for s in range(grids.start[grid], grids.start[grid + 1]):
                point = grids.points[s]
                vol = inst.vol * max(1.0 + point.vol_move * grids.charges[grid, k].vol_scale, 0.0)
                then = option_value(inst, forward * (1.0 + point.price_move), vol)
                moved[k, s] = now - then


@njit(cache=True, error_model="numpy")
def node(m):
    """The m-th of the moves at which portfolio groups are worked out."""
    return LEAST + (MOST - LEAST) * m / (NODES - 1)


@njit(cache=True, error_model="numpy")
def draw_ladders(groups, rungs, first_leg, trigger, hold, insts, grids, ladder):
    """Write the least health of every rung over every gap between two nodes.

    `rungs.gross` gets how much a group's health can change per unit of move beside a common one.
    """
    count = insts.size
    points = grids.points.size
    moved, option = np.zeros((count, max(points, 1))), np.zeros(count)
    ends = np.empty((rungs.size, 2, NODES))
    for m in range(NODES):
        option_tables(node(m), insts, grids, moved, option)
        for g in range(groups.size):
            for n in range(groups[g].first, groups[g].last):
                ends[n, 0, m], ends[n, 1, m] = group_health(
                    groups[g].account, first_leg[n], node(m), trigger, hold, insts, grids, moved,
                    option,
                )  # fmt: skip
    for g in range(groups.size):
        account = hold.accounts[groups[g].account]
        furthest = 0.0
        for s in range(grids.start[account.grid], grids.start[account.grid + 1]):
            furthest = max(furthest, abs(grids.points[s].price_move))
        for n in range(groups[g].first, groups[g].last):
            gross = 0.0
            for j in range(first_leg[n], account.last):
                leg = hold.legs[j]
                inst = insts[leg.inst]
                if leg.role >= LINEAR and inst.asset == rungs[n].asset:
                    at = inst.forward if leg.role == OPTION else inst.start
                    size = abs(leg.qty) if leg.role == INVERSE else abs(leg.qty) * at
                    charge = grids.charges[account.grid, leg.inst]
                    gross += size * (3.0 + furthest + charge.add_on + charge.minimum)
            gross *= trigger
            rungs[n].gross = gross * (1.0 + 1e-5)
            half = 0.5 * gross * (MOST - LEAST) / (NODES - 1)
            for b in range(2):
                for m in range(NODES - 1):
                    low = min(ends[n, b, m], ends[n, b, m + 1]) - half
                    ladder[n, b, m] = low - _ROUNDING * (abs(low) + gross)


@njit(cache=True, error_model="numpy", nogil=True)
def screen(lines, low, high, gap_low, gap_high, apart, listed, found, plain):
    """List every account that could be called somewhere in its scenario's box of moves.

    `low` and `high` are moves (instruments, scenarios); `gap_low` and `gap_high` the gaps of the
    ladders that the moves of an asset fall in, `apart` by how much its instruments differ. Adds to
    `listed` (scenarios, accounts) and counts in `found`; the first `plain` of them are in the order
    of the book, portfolio groups follow. Who is safe in the worst of all boxes needs no lane.
    """
    lanes = low.shape[1]
    health = np.empty(lanes, dtype=np.float32)
    sign = health.view(np.int32)
    lowest, highest = np.empty(low.shape[0], np.float32), np.empty(low.shape[0], np.float32)
    for k in range(low.shape[0]):
        lowest[k], highest[k] = low[k].min(), high[k].max()
    for a in range(lines.level.size):
        level = lines.level[a]
        if level == np.inf:
            continue
        worst = level
        for i in range(lines.first[a], lines.first[a + 1]):
            c, k = lines.slope[i], lines.inst[i]
            worst += c * lowest[k] if c > 0.0 else c * highest[k]
        if worst >= 0.0:
            continue
        for s in range(lanes):
            health[s] = level
        for i in range(lines.first[a], lines.first[a + 1]):
            c, k = lines.slope[i], lines.inst[i]
            if c > 0.0:
                for s in range(lanes):
                    health[s] += c * low[k, s]
            elif c < 0.0:
                for s in range(lanes):
                    health[s] += c * high[k, s]
        negative = np.int32(0)
        for s in range(lanes):
            negative |= sign[s]
        if negative < 0:
            for s in range(lanes):
                if health[s] < 0.0:
                    listed[s, found[s]] = a
                    found[s] += 1
    plain[:] = found
    screen_groups(lines, low, high, gap_low, gap_high, apart, listed, found)


@njit(cache=True, error_model="numpy", nogil=True)
def screen_groups(lines, low, high, gap_low, gap_high, apart, listed, found):
    """The same of portfolio groups alone: `group_bound`, all scenarios side by side."""
    lanes = low.shape[1]
    first, second = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    for g in range(lines.groups.size):
        group = lines.groups[g]
        first[:] = group.cash
        for i in range(lines.first[group.account], lines.first[group.account + 1]):
            c, k = lines.slope[i], lines.inst[i]
            near = low if c > 0.0 else high
            if c != 0.0:
                for s in range(lanes):
                    first[s] += c * near[k, s]
        second[:] = first
        for n in range(group.first, group.last):
            rung = lines.rungs[n]
            for s in range(lanes):
                least, other = np.float32(np.inf), np.float32(np.inf)
                for m in range(gap_low[rung.asset, s], gap_high[rung.asset, s] + 1):
                    least = min(least, lines.ladder[n, 0, m])
                    other = min(other, lines.ladder[n, 1, m])
                off = rung.gross * apart[rung.asset, s]
                first[s] += least - off
                second[s] += other - off
        for s in range(lanes):
            if min(first[s], second[s]) < 0.0:
                listed[s, found[s]] = group.account
                found[s] += 1


@njit(cache=True, error_model="numpy", nogil=True)
def screen_some(rows, lines, low, high, gap_low, gap_high, apart, listed):
    """List those of `rows` that could be called somewhere in one box; returns how many."""
    count = 0
    for n in range(rows.size):
        if bound(rows[n], 0, lines, low, high, gap_low, gap_high, apart) < 0.0:
            listed[count] = rows[n]
            count += 1
    return count


@njit(cache=True, error_model="numpy")
def group_bound(group, s, lines, low, high, gap_low, gap_high, apart):
    """What health of a portfolio group is at least, anywhere in the box of scenario `s`."""
    a = group.account
    cash = group.cash
    for i in range(lines.first[a], lines.first[a + 1]):
        c, k = lines.slope[i], lines.inst[i]
        cash += c * low[k, s] if c > 0.0 else c * high[k, s]
    first, second = cash, cash
    for n in range(group.first, group.last):
        rung = lines.rungs[n]
        least, other = np.float32(np.inf), np.float32(np.inf)
        for m in range(gap_low[rung.asset, s], gap_high[rung.asset, s] + 1):
            least = min(least, lines.ladder[n, 0, m])
            other = min(other, lines.ladder[n, 1, m])
        off = rung.gross * apart[rung.asset, s]
        first += least - off
        second += other - off
    return min(first, second)


@njit(cache=True, error_model="numpy")
def bound(a, s, lines, low, high, gap_low, gap_high, apart):
    """What health of account `a` is at least, anywhere in the box of scenario `s`."""
    level = lines.level[a]
    if level == np.inf:
        n = np.searchsorted(lines.groups.account, a)
        return group_bound(lines.groups[n], s, lines, low, high, gap_low, gap_high, apart)
    for i in range(lines.first[a], lines.first[a + 1]):
        c, k = lines.slope[i], lines.inst[i]
        level += c * low[k, s] if c > 0.0 else c * high[k, s]
    return level
