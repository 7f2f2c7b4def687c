"""What venues would sell at given prices, each account alone, while no sale moves any price.

The closings are those of a cascade, one account after the other until its venue asks for no more,
so a threshold is here exactly where a cascade has it; what is missing is the market's answer. Late
oracles are taken to have published, and nobody waits. Sums are whole counts, so no order of
accounts and no division of them shows in the result.
"""

import numpy as np

from undertow.kernels import njit
from undertow.kernels.accounts import EMPTIED, forget
from undertow.kernels.cascade import SOLD, health_of
from undertow.kernels.closers import close
from undertow.kernels.closing import BANDS
from undertow.kernels.fixed import to_counts
from undertow.kernels.lent import lend
from undertow.kernels.prices import market_prices, oracle_prices, sell

_TIMES = 200  # closings of one account: slices of a fifth leave nothing long before


@njit(cache=True, error_model="numpy", nogil=True)
def set_prices(volume, shock, case, state):
    """Bring prices to where a shock and the volumes sold so far, by pool, put them."""
    case, state = lend(case), lend(state)
    moving, now = state.moving, state.now
    for k in range(now.size):
        inst, here = case.insts[k], now[k]
        here.seen = inst.start
        here.published = inst.start
        here.forward = inst.forward
        here.vol = case.vol[k]
    moving.sold[:] = volume
    moving.dirty[:] = 1
    market_prices(case.insts, shock, case.places, now, moving)
    oracle_prices(0, case.insts, shock, case.places, now, moving)
    state.losses.stamp[1] += 1


@njit(cache=True, error_model="numpy", nogil=True)
def stand_at(shocks, volume, case, state, points):
    """Write to `points` (shocks, instruments) where prices stand after each of `shocks`."""
    case, state = lend(case), lend(state)
    for g in range(shocks.shape[0]):
        set_prices(volume, shocks[g], case, state)
        for k in range(state.now.size):
            points[g, k] = state.now[k]


@njit(cache=True, error_model="numpy", nogil=True)
def stand_after_falls(shock, volume, pull, deep, bandwidth, case, state, points):
    """Write to `points` (pools, instruments) where prices stand once each pool fell further."""
    case, state = lend(case), lend(state)
    now, fallen = state.now, np.empty_like(shock)
    for m in range(deep.size):
        if deep[m]:
            fallen[:] = shock - bandwidth * pull[:, m]
            set_prices(volume, fallen, case, state)
            for k in range(now.size):
                points[m, k] = now[k]


@njit(cache=True, error_model="numpy", nogil=True)
def bring_after_falls(counts, shock, volume, pull, deep, bandwidth, case, state, out):
    """Write volumes `out` (pools, pools) of what each pool's further fall forces, at its prices.

    `counts` (pools, instruments) are written to.
    """
    case, state = lend(case), lend(state)
    fallen = np.empty_like(shock)
    for m in range(deep.size):
        if deep[m]:
            fallen[:] = shock - bandwidth * pull[:, m]
            set_prices(volume, fallen, case, state)
            brought_to_pools(counts[m], case, state, out[m])


@njit(cache=True, error_model="numpy", nogil=True)
def forced(accounts, scale, case, state):
    """Close each of `accounts` at the seen prices until its venue asks for no more.

    Adds to `state.flows`; returns how many were closed at all.
    """
    case, state = lend(case), lend(state)
    count = 0
    for n in range(accounts.size):
        count += closed_alone(accounts[n], scale, case, state)
        forget(state.touched)
    return count


@njit(cache=True, error_model="numpy")
def closed_alone(a, scale, case, state):
    """Close one account; 1 where there was anything to close."""
    cover, asked, _ = health_of(a, case, state)
    if cover >= asked and case.closing[case.hold.accounts[a].venue].mechanism != BANDS:
        return 0
    acted, r = 0, 0
    for _ in range(_TIMES):
        moved, _ = close(a, r, scale, False, case, state)
        if not moved:
            break
        acted = 1
        row = state.touched.rows[state.touched.slot[a]]
        if row.state == EMPTIED:
            break
        r = max(row.ready, r + 1)
    return acted


@njit(cache=True, error_model="numpy", nogil=True)
def add_differences(accounts, scale, base, points, deep, case, state, found):
    """Add to `found` (pools, instruments) what accounts sell beyond now when a pool falls on.

    Of plain accounts, each looked at once: alone at the prices of `base`, where `state` stands, and
    alone at `points[m]` for every deep pool m that carries a price of what it holds.
    """
    case, state = lend(case), lend(state)
    hold, insts, now = case.hold, case.insts, state.now
    carriers = case.places.carriers
    done = np.full(deep.size, -1, dtype=np.int64)
    before = np.zeros(now.size, dtype=np.int64)
    for n in range(accounts.size):
        a = accounts[n]
        first, last = hold.accounts[a].first, hold.accounts[a].last
        closed_alone(a, scale, case, state)
        forget(state.touched)
        for i in range(first, last):
            k = hold.legs[i].inst
            before[k] += taken(k, state)
        for i in range(first, last):
            inst = insts[hold.legs[i].inst]
            for c in range(inst.carrier, inst.carriers):
                m = carriers[c].pool
                if not deep[m] or done[m] == n:
                    continue
                done[m] = n
                for j in range(first, last):
                    k = hold.legs[j].inst
                    now[k] = points[m, k]
                    found[m, k] -= before[k] if first_of(k, first, j, hold) else 0
                closed_alone(a, scale, case, state)
                forget(state.touched)
                for j in range(first, last):
                    k = hold.legs[j].inst
                    found[m, k] += taken(k, state)
        for i in range(first, last):
            k = hold.legs[i].inst
            now[k] = base[k]
            before[k] = 0


@njit(cache=True, error_model="numpy", inline="always")
def taken(k, state):
    """What `state.flows` bring to market of instrument `k`, now and later; it is taken out."""
    flows = state.flows
    total = flows.counts[SOLD, k]
    flows.counts[SOLD, k] = 0
    for d in range(flows.later.shape[0]):
        total += flows.later[d, k]
        flows.later[d, k] = 0
    return total


@njit(cache=True, error_model="numpy", inline="always")
def first_of(k, first, j, hold):
    """Whether leg `j` is the first, from `first` on, of instrument `k`."""
    for i in range(first, j):  # noqa: SIM110 - kernels have no generators
        if hold.legs[i].inst == k:
            return False
    return True


@njit(cache=True, error_model="numpy", nogil=True)
def brought_to_pools(counts, case, state, volume):
    """Write the volume by pool that `counts`, by instrument, bring to market at present prices.

    What leveraged tokens trade to be at their leverage again is added to `counts`.
    """
    case, state = lend(case), lend(state)
    moving = state.moving
    for n in range(case.keepers.size):
        keeper = case.keepers[n]
        inst = case.insts[keeper.inst]
        fall = 1.0 - state.now[keeper.inst].market / inst.start
        counts[keeper.inst] += to_counts(keeper.strength * fall, inst.per_qty)
    moving.sold[:] = 0.0
    sell(counts, case.insts, case.places, state.now, moving, np.empty(state.now.size))
    volume[:] = moving.sold


@njit(cache=True, error_model="numpy", nogil=True)
def all_sold(state, counts):
    """Write what `state.flows` bring to market by instrument, now and later; empties them."""
    flows = state.flows
    counts[:] = flows.counts[SOLD]
    for d in range(flows.later.shape[0]):
        counts += flows.later[d]
    flows.counts[:] = 0
    flows.later[:] = 0
