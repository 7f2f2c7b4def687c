"""How far prices may move before a portfolio margin group no longer holds what its grid asks.

Health of such a group is not linear in prices: options are repriced at the moved forward (Black
1976, volatility held), and the grid asks its worst loss from there. The search walks up a ladder of
moves t in steps that a bound on the slope of H(t) allows, then closes in upon the crossing.
Columns are those of `margin` and `options`.
"""

from math import inf
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.kernels import njit
from undertow.kernels.margin import BREACHED, FOUND, INVERSE, NONE, OPTION, leg_lines
from undertow.kernels.options import Chain, black76, portfolio_requirement

_TRIES = 100
_STRIDE = 1 / 64  # the shortest step, as a share of the rung that it is on
_CLOSE = 1e-14  # how near the two ends come, as a share of the move


class Moved(NamedTuple):
    """Scratch for prices after a move: `chain` is the present chain with `forward` in place."""

    price: NDArray[np.float64]
    forward: NDArray[np.float64]
    chain: Chain


@njit(cache=True)
def _model(k, forward, chain):
    return black76(
        chain.kind[k], forward, chain.strike[k], chain.vol[k], chain.tau[k], chain.discount[k]
    )


@njit(cache=True)
def portfolio_health(first, last, legs, price, mark, terms, chain, grid):
    """H of the legs `first:last` at `price`, with `chain` at the same prices."""
    level = 0.0
    for i in range(first, last):
        k = legs.inst[i]
        w, _, d, _ = leg_lines(i, legs, terms, price[k], 0.0, 0.0, mark[k])
        level += w - d
    return level - portfolio_requirement(first, last, legs, price, chain, grid)


@njit(cache=True)
def _health_at(t, sign, first, last, legs, price, exposure, terms, chain, moved, grid):
    """H of one group after the common move `t`; `moved` is scratch, and only its rows are used."""
    for i in range(first, last):
        k = legs.inst[i]
        factor = 1.0 + sign * exposure[k] * t
        moved.forward[k] = chain.forward[k] * factor
        if chain.kind[k] == 0:
            moved.price[k] = price[k] * factor
        else:
            now = _model(k, chain.forward[k], chain)
            then = _model(k, moved.forward[k], chain)
            moved.price[k] = max(price[k] + then - now, 0.0)
    return portfolio_health(first, last, legs, moved.price, price, terms, moved.chain, grid)


@njit(cache=True)
def slope_bound(first, last, legs, price, exposure, chain, grid):
    """More than H of one group can change per unit of the common move.

    An option changes by its forward's change at most (|delta| <= 1), so a loss at a grid point by
    2 + move of it; a straight leg by its own change, and its loss by that times the move.
    """
    bent, straight = 0.0, 0.0
    for s in range(grid.price_move.size):
        move = grid.price_move[s]
        bent = max(bent, grid.counted[s] * (2.0 + move))
        straight = max(straight, grid.counted[s] * abs(move))
    total = 0.0
    for i in range(first, last):
        k = legs.inst[i]
        size = abs(legs.qty[i]) * exposure[k]
        asked = chain.add_on[k] + chain.minimum[k]
        if legs.role[i] == OPTION:
            total += size * chain.forward[k] * (1.0 + bent + asked)
        elif legs.role[i] == INVERSE:
            total += size * (price[k] / legs.entry[i] + straight)
        else:
            total += size * price[k] * max(legs.weight[i], 1.0) * (1.0 + straight + asked)
    return total


@njit(cache=True)
def portfolio_distance(first, last, legs, price, exposure, sign, ladder, terms, chain, moved, grid):
    """Smallest move on the way through `ladder` that brings H of one group to zero, and a status.

    From where H is positive the search steps as far as H cannot have come down to zero, which
    `slope_bound` says, but never less than `_STRIDE` of a rung: a dip that is
    narrower than that may be stepped over. NONE comes with inf where H stays positive to the end.
    Within the step where it turns, false position with the stale end's weight halved (Illinois)
    closes in from both sides; what comes back is the breached end.
    """
    arguments = (first, last, legs, price, exposure, terms, chain, moved, grid)
    low = 0.0
    above = _health_at(low, sign, *arguments)
    if above < 0.0:
        return 0.0, BREACHED
    bound = slope_bound(first, last, legs, price, exposure, chain, grid)
    step = 0
    while step < ladder.size:
        # Nothing can go wrong nearer than this: H changes by `bound` per unit of move at most.
        safe = low + above / bound if bound > 0.0 else inf
        while step < ladder.size and ladder[step] <= safe:
            step += 1
        if step == ladder.size:
            break
        rung = ladder[step] - (ladder[step - 1] if step > 0 else 0.0)
        high = min(ladder[step], max(safe, low + _STRIDE * rung))
        below = _health_at(high, sign, *arguments)
        if below >= 0.0:
            low, above = high, below
            continue
        stale = 0
        for _ in range(_TRIES):
            if high - low <= _CLOSE * high:
                break
            middle = high - below * (high - low) / (below - above)
            if middle <= low or middle >= high:
                middle = 0.5 * (low + high)
            level = _health_at(middle, sign, *arguments)
            if level < 0.0:
                high, below = middle, level
                above = 0.5 * above if stale == 1 else above
                stale = 1
            else:
                low, above = middle, level
                below = 0.5 * below if stale == -1 else below
                stale = -1
        return high, FOUND
    return inf, NONE


@njit(cache=True)
def portfolio_distances(
    groups, offsets, legs, price, exposure, sign, ladder, terms, chain, moved, grid, value, status
):
    """`portfolio_distance` of the accounts `groups`; writes their rows of `value` and `status`."""
    for g in range(groups.size):
        a = groups[g]
        value[a], status[a] = portfolio_distance(
            offsets[a],
            offsets[a + 1],
            legs,
            price,
            exposure,
            sign,
            ladder,
            terms,
            chain,
            moved,
            grid,
        )
