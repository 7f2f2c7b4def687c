"""How far prices may move before a portfolio margin group no longer holds what its grid asks.

Health of such a group is not linear in prices: options are repriced at the moved forward (Black
1976, volatility held), and the grid asks its worst loss from there. `H(t)` is looked at on a ladder
of moves t, so the first crossing is found up to the ladder's spacing, then halved to the last bit.
Columns are those of `margin` and `options`.
"""

from math import inf
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from undertow.kernels.margin import BREACHED, FOUND, NONE, leg_lines
from undertow.kernels.options import Chain, black76, portfolio_requirement

_HALVINGS = 60


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
def portfolio_distance(first, last, legs, price, exposure, sign, ladder, terms, chain, moved, grid):
    """Smallest move on the way through `ladder` that brings H of one group to zero, and a status.

    NONE comes with inf where H stays positive on every step of the ladder.
    """
    low = 0.0
    arguments = (first, last, legs, price, exposure, terms, chain, moved, grid)
    if _health_at(low, sign, *arguments) < 0.0:
        return 0.0, BREACHED
    for step in range(ladder.size):
        high = ladder[step]
        if _health_at(high, sign, *arguments) < 0.0:
            for _ in range(_HALVINGS):
                middle = 0.5 * (low + high)
                if middle <= low or middle >= high:
                    break
                if _health_at(middle, sign, *arguments) < 0.0:
                    high = middle
                else:
                    low = middle
            return high, FOUND
        low = high
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
