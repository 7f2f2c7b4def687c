"""Closing of who is due in a round, each account by the rules of its venue."""

from undertow.kernels import njit
from undertow.kernels.accounts import EMPTIED
from undertow.kernels.cascade import health_of, look_again
from undertow.kernels.closing import BANDS, NOTHING, PAIR, SLICES
from undertow.kernels.contracts import close_slices
from undertow.kernels.lent import lend
from undertow.kernels.loans import close_all, close_largest_pair, convert_bands


@njit(cache=True, error_model="numpy")
def close_due(due, r, scale, dry, case, state):
    """Close the accounts in `due` at the seen prices.

    `scale` is the share of every closing that the venue's liquidators can carry; with `dry` only
    `flows.demand` is written. Returns how many acted, and how many are breached but must wait.
    """
    case, state = lend(case), lend(state)
    acted, waiting = 0, 0
    for n in range(due.size):
        a = due[n]
        moved, waits = close(a, r, scale, dry, case, state)
        acted += moved
        waiting += waits
        if moved and not dry:
            look_again(a, r, case, state)
        if state.touched.slot[a] < -1:
            state.touched.slot[a] = -1
    return acted, waiting


@njit(cache=True, error_model="numpy")
def close(a, r, scale, dry, case, state):
    """Close account `a` as far as its venue does so now; whether it acted, and whether it waits."""
    v = case.hold.accounts[a].venue
    mechanism = case.closing[v].mechanism
    row = state.touched.slot[a]
    if mechanism == NOTHING or (row >= 0 and state.touched.rows[row].state == EMPTIED):
        return False, False
    if r < case.venues[v].opens or (row >= 0 and r < state.touched.rows[row].ready):
        cover, asked, _ = health_of(a, case, state)
        return False, cover < asked
    moved = 0
    if mechanism == BANDS:  # before liquidators are counted; the second time nothing moves
        moved = convert_bands(a, v, r, case, state)
    cover, asked, _ = health_of(a, case, state)
    if cover >= asked:
        return moved > 0, False
    if mechanism == SLICES:
        more = close_slices(a, v, r, cover, asked, scale[v], dry, case, state)
    elif mechanism == PAIR:
        more = close_largest_pair(a, v, r, cover, asked, scale[v], dry, case, state)
    else:
        more = close_all(a, v, r, cover, asked, scale[v], dry, case, state)
    return (moved > 0 or more > 0) and not dry, False
