"""What an option is worth, and what a portfolio margin group must hold against its worst hour.

Instruments are the rows of `Chain`; `inst` of the legs (see `margin`) indexes them. A grid point
moves the price of every underlying by a share and every volatility by a share of itself, and
counts a share of the loss. A group of legs on one underlying asks for its worst point; groups do
not offset each other. Moves in volatility are scaled by expiry, since near ones move more.

Option values come from Black (1976) on each option's own forward; a loss is model against model,
so a mark that is off the model asks for nothing. Linear legs lose qty * p * move. INVERSE legs
lose face * move: what they gained so far is coin already, and coin is a cash leg. Legs that are
no derivatives are left out: the haircut of cash belongs to cover.

Every float is finite; forwards, strikes and prices are positive: the caller has checked.

References
----------
Black (1976), "The pricing of commodity contracts". Deribit, "Portfolio Margin" (grid, extended
table, vega powers, contingencies).
"""

from math import erfc, exp, log, sqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.kernels import njit
from undertow.kernels.margin import INVERSE, LINEAR, OPTION

CALL, PUT = 1, -1


class Chain(NamedTuple):
    """By instrument: which underlying it moves with, and its terms where it is an option."""

    asset: NDArray[np.int32]  # code of the underlying
    kind: NDArray[np.int8]  # CALL, PUT, 0 where it is no option
    forward: NDArray[np.float64]  # of the underlying, to this expiry
    strike: NDArray[np.float64]
    vol: NDArray[np.float64]  # a year
    tau: NDArray[np.float64]  # years to expiry
    discount: NDArray[np.float64]
    vol_scale: NDArray[np.float64]  # how far this expiry's volatility moves with the grid
    add_on: NDArray[np.float64]  # share of notional asked on top: LINEAR, INVERSE, short OPTION
    minimum: NDArray[np.float64]  # share of notional asked at least, same legs


class Grid(NamedTuple):
    """The points at which a portfolio is repriced."""

    price_move: NDArray[np.float64]  # share of the price, above -1
    vol_move: NDArray[np.float64]  # share of the volatility
    counted: NDArray[np.float64]  # share of the loss that is asked for


@njit(cache=True)
def normal_cdf(x):
    """Share of a standard normal below `x`, exact in both tails."""
    return 0.5 * erfc(-x / sqrt(2.0))


@njit(cache=True)
def black76(kind, forward, strike, vol, tau, discount):
    """Price of a European option on a forward; intrinsic where no time or volatility is left."""
    deviation = vol * sqrt(tau) if vol > 0.0 and tau > 0.0 else 0.0
    if deviation <= 0.0:
        return discount * max(kind * (forward - strike), 0.0)
    d1 = log(forward / strike) / deviation + 0.5 * deviation
    d2 = d1 - deviation
    return discount * kind * (forward * normal_cdf(kind * d1) - strike * normal_cdf(kind * d2))


@njit(cache=True)
def black76_delta(kind, forward, strike, vol, tau, discount):
    """Change of `black76` per unit of the forward; a half of the step where it has a corner."""
    deviation = vol * sqrt(tau) if vol > 0.0 and tau > 0.0 else 0.0
    if deviation <= 0.0:
        if forward == strike:
            return discount * kind * 0.5
        return discount * kind if kind * (forward - strike) > 0.0 else 0.0 * discount
    d1 = log(forward / strike) / deviation + 0.5 * deviation
    return discount * kind * normal_cdf(kind * d1)


@njit(cache=True)
def vol_scale(tau, reference, near_power, far_power):
    """(reference / tau) ** power: below 1 for expiries past the reference, above 1 before it.

    Both in years. An expiry within a day counts as a day, so the last hours stay finite.
    """
    ratio = reference / max(tau, 1.0 / 365.0)
    return exp((near_power if ratio > 1.0 else far_power) * log(ratio))


@njit(cache=True)
def add_option_losses(qty, k, chain, grid, log_move, losses):
    """Add to `losses`, by grid point, what `qty` of option `k` loses from where it is now.

    `log_move` is log(1 + price move). What does not change with the point stands before the loop:
    this is the innermost loop of portfolio margin.
    """
    kind, strike, discount = chain.kind[k], chain.strike[k], chain.discount[k]
    forward, tau, vol = chain.forward[k], chain.tau[k], chain.vol[k]
    now = black76(kind, forward, strike, vol, tau, discount)
    deviation = vol * sqrt(tau)
    moneyness = log(forward / strike)
    for s in range(losses.size):
        moved = forward * (1.0 + grid.price_move[s])
        spread = deviation * max(1.0 + grid.vol_move[s] * chain.vol_scale[k], 0.0)
        if spread > 0.0:
            d1 = (moneyness + log_move[s]) / spread + 0.5 * spread
            above = normal_cdf(kind * d1)
            below = normal_cdf(kind * (d1 - spread))
            then = discount * kind * (moved * above - strike * below)
        else:
            then = discount * max(kind * (moved - strike), 0.0)
        losses[s] += qty * (now - then)


@njit(cache=True)
def worst_loss(first, last, asset, legs, price, chain, grid):
    """Largest counted loss over the grid of the derivative legs `first:last` on one underlying."""
    points = grid.price_move.size
    losses = np.zeros(points)
    log_move = np.empty(points)
    for s in range(points):
        log_move[s] = log(1.0 + grid.price_move[s])
    exposure = 0.0  # of the straight legs: they lose this times the fall
    for i in range(first, last):
        k = legs.inst[i]
        if chain.asset[k] != asset:
            continue
        if legs.role[i] == OPTION:
            add_option_losses(legs.qty[i], k, chain, grid, log_move, losses)
        elif legs.role[i] == LINEAR:
            exposure += legs.qty[i] * price[k]
        elif legs.role[i] == INVERSE:
            exposure += legs.qty[i]
    worst = 0.0
    for s in range(points):
        worst = max(worst, grid.counted[s] * (losses[s] - exposure * grid.price_move[s]))
    return worst


@njit(cache=True)
def portfolio_requirement(first, last, legs, price, chain, grid):
    """What the legs `first:last`, one portfolio margin group, must hold.

    The worst loss of each underlying, summed, and the add-ons of each leg; never under the sum
    of the legs' minima.
    """
    asked, least = 0.0, 0.0
    for i in range(first, last):
        role = legs.role[i]
        if role < LINEAR:
            continue
        k = legs.inst[i]
        fresh = True
        for j in range(first, i):
            if legs.role[j] >= LINEAR and chain.asset[legs.inst[j]] == chain.asset[k]:
                fresh = False
                break
        if fresh:
            asked += worst_loss(i, last, chain.asset[k], legs, price, chain, grid)
        qty = legs.qty[i]
        if role == OPTION:
            notional = max(-qty, 0.0) * chain.forward[k]
        elif role == INVERSE:
            notional = abs(qty)
        else:
            notional = abs(qty) * price[k]
        asked += chain.add_on[k] * notional
        least += chain.minimum[k] * notional
    return max(asked, least)


@njit(cache=True)
def portfolio_requirements(lo, hi, offsets, legs, price, chain, grid, out):
    """`portfolio_requirement` of the accounts `lo:hi`; writes their rows of `out`."""
    for a in range(lo, hi):
        out[a] = portfolio_requirement(offsets[a], offsets[a + 1], legs, price, chain, grid)


@njit(cache=True)
def option_prices(kind, forward, strike, vol, tau, discount, out):
    """`black76` of every option (a column) in every scenario (a row of `forward` and `vol`).

    Writes `out`, which has the shape of `forward`.
    """
    for s in range(out.shape[0]):
        for k in range(out.shape[1]):
            out[s, k] = black76(kind[k], forward[s, k], strike[k], vol[s, k], tau[k], discount[k])
