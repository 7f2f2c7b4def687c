"""Market prices after a shock and after forced sales, and what each venue's oracle makes of them.

Rows of `insts` are INSTRUMENTs, of `now` NOWs (see `accounts`). A market price is
start * exp(shock) times the impact multiplier of every pool that carries it, each to the power of
its pull: the pool of its asset first, then those of what the asset follows, then, for a contract,
its own. `shock[0]` are the log moves of the market, `shock[1]` the same without the peg.

An oracle reads the market (MARKET), publishes it late and only past a deviation or a heartbeat
(LAGGED), multiplies the reference's market by a rate and is blind to the peg (EXCHANGE_RATE), never
moves (FROZEN), or is off by a factor (MIS_SET); the last two until a round.
"""

from math import exp, log, log1p
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.kernels import njit
from undertow.kernels.accounts import option_value
from undertow.kernels.impact import Pools, multiplier, proceeds
from undertow.kernels.lent import lend

MARKET, LAGGED, EXCHANGE_RATE, FROZEN, MIS_SET = range(5)
STILL = 1e-12  # a relative move that is none
_BUMP = 1e-4  # of a forward, for the delta of an option
FOR_EVER = 2**31 - 1

CARRIER = np.dtype([("pool", "i4"), ("pull", "f8")], align=True)


class Places(NamedTuple):
    """Where prices are made; read-only."""

    pools: Pools
    carriers: NDArray[np.void]  # CARRIER
    reference: NDArray[np.int32]  # (assets,) what an asset follows, or -1


class Moving(NamedTuple):
    """What prices stand on now, beside `now` itself; written by every round."""

    history: NDArray[np.float64]  # (longest lag + 1, instruments): market prices, round by round
    sold: NDArray[np.float64]  # (pools,) effective volume so far, positive where sold
    thin: NDArray[np.float64]  # (pools,) share of depth that is still there
    by_pool: NDArray[np.float64]  # (pools,) volume of this round
    logs: NDArray[np.float64]  # (pools,) log multiplier
    receipt: NDArray[np.float64]  # (assets,) what is left of a claim on a pool that lost
    pending: NDArray[np.int64]  # (longest delay + 1, instruments) sales that are still to come
    travelled: NDArray[np.float64]  # (assets + 1,) by root, sum over rounds of the largest log move
    farthest: NDArray[np.float64]  # (assets + 1,) the same of this round
    trail: NDArray[np.float64]  # (rounds + 1, instruments) the same by instrument, up to a round
    dirty: NDArray[np.int8]  # (pools + 1,): 1 where volumes changed; the last: all prices are new


@njit(cache=True, error_model="numpy")
def market_prices(insts, shock, places, now, moving):
    """Write market prices and forwards from the volumes sold so far."""
    places, moving = lend(places), lend(moving)
    pools = moving.sold.size
    fresh = moving.dirty[pools]
    for n in range(pools):
        if fresh or moving.dirty[n]:
            moving.logs[n] = log_multiplier(n, places.pools, moving)
    for k in range(insts.size):
        inst, here = insts[k], now[k]
        changed = fresh
        for c in range(inst.carrier, inst.carriers):
            changed |= moving.dirty[places.carriers[c].pool]
        if not changed:
            continue
        move = shock[0, k]
        for c in range(inst.carrier, inst.carriers):
            move += places.carriers[c].pull * moving.logs[places.carriers[c].pool]
        if inst.kind != 0:
            here.forward = inst.forward if move == 0.0 else inst.forward * exp(move)
            here.market = option_price(inst, here)
        else:
            here.market = inst.start if move == 0.0 else inst.start * exp(move)
            left = backed(inst.asset, places, moving)
            if left != 1.0:
                here.market *= left
    moving.dirty[:] = 0


@njit(cache=True, error_model="numpy")
def log_multiplier(n, pools, moving):
    """Log of what pool `n` makes of its price by now."""
    if moving.sold[n] == 0.0:
        return 0.0
    return log(multiplier(n, moving.sold[n], pools))


@njit(cache=True, error_model="numpy")
def backed(asset, places, moving):
    """Share of an asset's claims that is still backed, down through all that it follows."""
    share = 1.0
    while asset >= 0:
        share *= moving.receipt[asset]
        asset = places.reference[asset]
    return share


@njit(cache=True, error_model="numpy")
def option_price(inst, here):
    """The mark moved by as much as the model moves; an option is never worth less than nothing."""
    if here.forward == inst.forward and here.vol == inst.vol:
        return inst.start
    moved = option_value(inst, here.forward, here.vol) - option_value(inst, inst.forward, inst.vol)
    return max(inst.start + moved, 1e-12)


@njit(cache=True, error_model="numpy")
def oracle_prices(r, insts, shock, places, now, moving):
    """Write seen prices for round `r`; return 1 where a late oracle has yet to publish a move."""
    waiting = 0
    if moving.history.shape[0] > 1:
        row = r % moving.history.shape[0]
        for k in range(insts.size):
            moving.history[row, k] = now[k].market
    for k in range(insts.size):
        inst, here = insts[k], now[k]
        here.before = here.seen
        if inst.oracle == MARKET:
            here.seen = here.market
        elif inst.oracle == LAGGED:
            waiting |= publish(r, k, inst, here, moving)
            here.seen = here.published
        elif inst.oracle == EXCHANGE_RATE:
            move = shock[1, k]
            for c in range(inst.carrier + inst.tied, inst.carriers):
                move += places.carriers[c].pull * moving.logs[places.carriers[c].pool]
            here.seen = inst.start * exp(move) * backed(inst.asset, places, moving)
        elif r >= inst.until:
            here.seen = here.market
        else:
            here.seen = inst.start if inst.oracle == FROZEN else here.market * inst.factor
            if inst.until < FOR_EVER and abs(here.seen - here.market) > STILL * here.market:
                waiting = 1
    return waiting


@njit(cache=True, error_model="numpy")
def publish(r, k, inst, here, moving):
    """Let a late oracle publish what it hears in round `r`; 1 while a move is still on its way.

    What lies within the deviation is not waited for: the heartbeat brings it after the cascade.
    """
    depth = moving.history.shape[0]
    late = here.market
    if inst.lag > 0:
        late = inst.start if r < inst.lag else moving.history[(r - inst.lag) % depth, k]
    beats = inst.heartbeat > 0 and r - here.published_at >= inst.heartbeat
    if beats or abs(late - here.published) > inst.deviation * here.published:
        here.published = late
        here.published_at = r
    for back in range(min(inst.lag, r + 1)):
        made = moving.history[(r - back) % depth, k]
        if abs(made - here.published) > inst.deviation * here.published:
            return 1
    return 0


@njit(cache=True, error_model="numpy")
def largest_move(r, insts, now, moving):
    """Largest log move of any seen price or forward since the last round.

    Adds to `travelled`, root by root: what is money counts for every root. Option prices are left
    out: what they do follows from their forwards.
    """
    roots = moving.travelled.size - 1
    moving.farthest[:] = 0.0
    money = 0.0
    for k in range(insts.size):
        here = now[k]
        if insts[k].kind != 0:
            last, then = here.forward, here.forward_before
            here.forward_before = here.forward
        else:
            last, then = here.seen, here.before
        far = abs(log(last / then)) if last != then else 0.0
        if insts[k].kind != 0:  # a late or mended mark moves without its forward
            far = max(far, log1p(abs(here.seen - here.before) / min(last, then)))
        moving.trail[r, k] = far if r == 0 else moving.trail[r - 1, k] + far
        root = insts[k].root
        if root < 0:
            money = max(money, far)
        else:
            moving.farthest[root] = max(moving.farthest[root], far)
    most = money
    for root in range(roots):
        most = max(most, moving.farthest[root])
        moving.travelled[root] += max(moving.farthest[root], money)
    moving.travelled[roots] += most
    return most


@njit(cache=True, error_model="numpy")
def sell(counts, insts, places, now, moving, impact):
    """Take what was sold this round to its pools; writes `impact`, USD by instrument.

    `counts` are signed quantities in quanta, positive where sold. Whoever took them paid the seen
    price; `impact` is what the market paid less. All sales of a round meet one pool price.
    """
    moving.by_pool[:] = 0.0
    for k in range(insts.size):
        impact[k] = 0.0
        if counts[k] != 0:
            inst = insts[k]
            base = base_quantity(inst, now[k], counts[k] / inst.per_qty)
            share = inst.coupling if inst.own_pool >= 0 else 1.0
            if inst.spot_pool >= 0:
                moving.by_pool[inst.spot_pool] += share * base * inst.spot_rate
            if inst.own_pool >= 0:
                moving.by_pool[inst.own_pool] += (1.0 - share) * base
    for k in range(insts.size):
        if counts[k] == 0:
            continue
        inst, here = insts[k], now[k]
        qty = counts[k] / inst.per_qty
        paid = received(inst, places, moving)
        if inst.kind != 0:  # the hedge is what meets the market, not the option
            impact[k] = base_quantity(inst, here, qty) * here.forward * (1.0 - paid)
        elif inst.inverse == 1:
            impact[k] = qty * (1.0 - paid * here.market / here.seen)
        else:
            impact[k] = qty * (here.seen - paid * here.market)
    for n in range(moving.by_pool.size):
        if moving.by_pool[n] != 0.0:
            moving.sold[n] += moving.by_pool[n] / moving.thin[n]
            moving.dirty[n] = 1


@njit(cache=True, error_model="numpy")
def base_quantity(inst, here, qty):
    """Base units of the asset that selling `qty` of an instrument brings to market."""
    if inst.kind != 0:
        bump = _BUMP * here.forward
        up = option_value(inst, here.forward + bump, here.vol)
        return qty * (up - option_value(inst, here.forward - bump, here.vol)) / (2.0 * bump)
    if inst.inverse == 1:
        return qty / here.seen
    return qty


@njit(cache=True, error_model="numpy")
def received(inst, places, moving):
    """Average over a round's sale of the carriers' multipliers, as a share of the present one."""
    share = 1.0
    for c in range(inst.carrier, inst.carriers):
        n, pull = places.carriers[c].pool, places.carriers[c].pull
        volume = moving.by_pool[n] / moving.thin[n]
        if volume != 0.0:
            start = moving.sold[n]
            gained = proceeds(n, start + volume, places.pools) - proceeds(n, start, places.pools)
            average = gained / (volume * multiplier(n, start, places.pools))
            share *= average if pull == 1.0 else average**pull
    return share
