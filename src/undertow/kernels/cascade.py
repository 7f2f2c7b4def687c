"""What a cascade reads and writes, who is called in a round, and where what moves is added up.

Everything that is added up over accounts goes to `Flows` in whole quanta (see `fixed`), by
instrument, so no order of accounts and no division of them among workers shows in the result.
Rows of `Flows.counts`, in USD at the seen price unless said otherwise:

    SOLD       quantity brought to market, negative where bought
    BANKRUPT   quantity, signed, closed of accounts that had less than nothing
    CLOSED     value of what was taken from accounts: collateral, or derivative notional
    REPAID     debt repaid
    BAD        debt written off
    SHORT      what bankrupt accounts of derivative venues lacked
    GAIN       what liquidators took over what they paid
    CUT        what venues and their funds took
    ACCOUNTS   what accounts gained, worked out from what they hold; only where `check` is on
    GIVEN      what owners brought in from outside
    PAID       what winners paid for others' losses

`Case` is what a scenario starts from and never writes, `State` what it changes.
"""

from math import inf, log1p
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from undertow.kernels import njit
from undertow.kernels.accounts import (
    EMPTIED,
    Grids,
    Holdings,
    Losses,
    Touched,
    account_health,
    left_of,
)
from undertow.kernels.closing import BANDS
from undertow.kernels.fixed import to_counts
from undertow.kernels.lent import lend
from undertow.kernels.margin import INVERSE, LINEAR
from undertow.kernels.prices import Moving, Places

SOLD, BANKRUPT, CLOSED, REPAID, BAD, SHORT, GAIN, CUT, ACCOUNTS, GIVEN, PAID = range(11)
KINDS = 11
LIQUIDATED, DELEVERAGED, CONVERTED, TOPPED_UP, UNWOUND, BY_OWNER = range(6)  # reasons in the log

# Whoever keeps a leveraged token at its leverage: what it trades, and how much of it.
KEEPER = np.dtype(
    [("inst", "i4"), ("strength", "f8")],  # units sold per relative fall of its price
    align=True,
)
# When a venue may close, and with whose money; rounds and USD.
VENUE = np.dtype(
    [
        ("opens", "i4"),  # round from which it closes at all
        ("cooldown", "i4"),
        ("delay", "i4"),
        ("capacity", "f8"),  # of liquidators in one round; inf where there is no limit
        ("per_demand", "f8"),  # quanta in a USD of what they would have to bring
    ],
    align=True,
)
NOTE = np.dtype(
    [
        ("round", "i4"),
        ("account", "i4"),
        ("inst", "i4"),  # what was taken, or -1
        ("other", "i4"),  # what was repaid, or -1
        ("reason", "i4"),
        ("health", "f8"),
        ("qty", "f8"),
        ("price", "f8"),
        ("value", "f8"),
        ("repaid", "f8"),
        ("lost", "f8"),
    ],
    align=True,
)


class Switches(NamedTuple):
    """What else may happen in a round; everything off is the plain cascade."""

    profitable: bool  # nobody liquidates at a loss
    check: bool  # keep the accounts' side of the ledger too
    buffer: float  # health that owners restore when called; 0.0 where they do nothing
    top_up: bool  # out of their free assets
    delever: bool  # by selling collateral themselves
    unwind: bool  # the other leg of a hedge, where one was closed
    convert: bool  # coins into money that is owed
    free: NDArray[np.float64]  # (owners,) USD that each could bring in; no rows: nothing
    willing: NDArray[np.float64]  # (owners,) share that each does of what it could; no rows: all
    recovery: float  # share of the displacement that is gone by the next round
    withdrawal: float  # share of depth that leaves per unit of relative fall
    thinnest: float  # share of depth that stays whatever happens


class Case(NamedTuple):
    """One scenario on one book; read-only."""

    hold: Holdings
    insts: NDArray[np.void]  # INSTRUMENT
    brackets: NDArray[np.void]  # BRACKET
    grids: Grids
    shock: NDArray[np.float64]  # (2, instruments) log moves: of the market, and without the peg
    vol: NDArray[np.float64]  # (instruments,) after the shock
    places: Places
    closing: NDArray[np.void]  # by venue, the columns of `closing.Closing`
    venues: NDArray[np.void]  # VENUE
    switches: Switches
    owner_start: NDArray[np.int64]  # (owners + 1,): accounts of an owner stand together
    keepers: NDArray[np.void]  # KEEPER


class Flows(NamedTuple):
    """What a round moved."""

    counts: NDArray[np.int64]  # (KINDS, instruments)
    later: NDArray[np.int64]  # (longest delay + 1, instruments): quantity sold that much later
    demand: NDArray[np.int64]  # (venues,) USD that liquidators would have to bring


class Log(NamedTuple):
    """Who was closed, in order; rows past the last are dropped and counted."""

    rows: NDArray[np.void]  # NOTE
    used: NDArray[np.int64]  # (1,)


class State(NamedTuple):
    """Everything that a scenario changes about accounts and prices."""

    now: NDArray[np.void]  # NOW
    moving: Moving
    losses: Losses
    touched: Touched
    flows: Flows
    watch: NDArray[np.int32]  # (twice the accounts,) those that a scenario could call
    root: NDArray[np.int32]  # of each
    watched: NDArray[np.int64]  # (1,) how many they are
    keys: NDArray[np.float64]  # how far prices must travel until a new look, as `watch`
    reach: NDArray[np.float64]  # how far its own prices must, from the round `looked`
    looked: NDArray[np.int32]  # or -1
    due: NDArray[np.int32]  # (accounts,)
    free: NDArray[np.float64]  # (owners,) USD that an owner could bring in
    log: Log


@njit(cache=True, error_model="numpy")
def health_of(a, case, state):
    """Cover, asked and spread of account `a` now."""
    case, state = lend(case), lend(state)
    return account_health(
        a, case.hold, state.touched, state.now, case.insts, case.brackets, case.grids, state.losses
    )


@njit(cache=True, error_model="numpy")
def judge(lo, hi, r, case, state):
    """Find who on rows `lo:hi` of the watch list is called now; writes `state.due` and the keys.

    An account is looked at again only when prices have travelled to its key, and then only if those
    of what it holds have moved so far that it could be called: `reach` from the round `looked`.
    An account that stands on the list twice is judged where it was touched first.
    """
    case, state = lend(case), lend(state)
    travelled, root = state.moving.travelled, state.root
    trigger = max(case.switches.buffer, 1.0)
    hold, touched, now = case.hold, state.touched, state.now
    insts, brackets, grids, losses = case.insts, case.brackets, case.grids, state.losses
    closing, watch, keys, due = case.closing, state.watch, state.keys, state.due
    reach, looked, trail, legs = state.reach, state.looked, state.moving.trail, hold.legs
    found = 0
    for j in range(lo, hi):
        so_far = travelled[root[j]]
        if keys[j] > so_far:
            continue
        a = watch[j]
        n = touched.slot[a]
        if n >= 0:
            row = touched.rows[n]
            if row.place < 0:  # touched since: what was found out before no longer holds
                row.place = j
                looked[j] = -1
            if row.state == EMPTIED or row.place != j:
                keys[j] = inf
                continue
        if looked[j] >= 0:
            far = 0.0
            for i in range(hold.accounts[a].first, hold.accounts[a].last):
                k = legs[i].inst
                far = max(far, trail[r, k] - trail[looked[j], k])
            if far < reach[j]:
                keys[j] = so_far + (reach[j] - far)
                continue
        cover, asked, spread = account_health(a, hold, touched, now, insts, brackets, grids, losses)
        room = cover - trigger * asked
        if room < 0.0 or closing[hold.accounts[a].venue].mechanism == BANDS:
            looked[j] = -1
            keys[j] = so_far
            due[found] = a
            found += 1
            if n < 0:
                touched.slot[a] = -2 - j
        else:
            next_look(j, r, so_far, room, spread, trigger, state)
    return found


@njit(cache=True, error_model="numpy", inline="always")
def next_look(j, r, so_far, room, spread, trigger, state):
    """Write how far prices may travel from round `r` until row `j` of the list must be judged."""
    state.looked[j] = -1
    state.keys[j] = inf
    if spread > 0.0:
        reach = log1p(room / (spread * trigger)) * (1.0 - 1e-9)
        state.reach[j] = reach
        state.looked[j] = r
        state.keys[j] = so_far + max(reach, 1e-300)


@njit(cache=True, error_model="numpy")
def look_again(a, r, case, state):
    """Judge account `a` right after it was closed in part, while what it holds is at hand.

    Most are safe by then, and the next rounds pass over them.
    """
    row = state.touched.rows[state.touched.slot[a]]
    j = row.place
    if j < 0 or case.closing[case.hold.accounts[a].venue].mechanism == BANDS:
        return
    if row.state == EMPTIED:
        state.keys[j] = inf
        return
    trigger = max(case.switches.buffer, 1.0)
    cover, asked, spread = health_of(a, case, state)
    room = cover - trigger * asked
    if room >= 0.0:
        next_look(j, r, state.moving.travelled[state.root[j]], room, spread, trigger, state)


@njit(cache=True, error_model="numpy", inline="always")
def put_on_watch(j, a, case, state):
    """Write account `a` on row `j` of the watch list, to be judged at once."""
    state.watch[j] = a
    state.root[j] = case.hold.accounts[a].root
    state.keys[j] = -inf
    state.looked[j] = -1


@njit(cache=True, error_model="numpy", inline="always")
def watch_again(a, fresh, case, state):
    """See to it that account `a` is judged in the next round; `fresh` says it was not touched."""
    row = state.touched.rows[state.touched.slot[a]]
    if fresh:
        j = state.watched[0]
        put_on_watch(j, a, case, state)
        state.watched[0] = j + 1
    elif row.place >= 0:
        state.keys[row.place] = -inf
        state.looked[row.place] = -1


@njit(cache=True, error_model="numpy", inline="always")
def add(kind, k, value, a, case, state):
    """Add USD of account `a` to a kind of flow of instrument `k`."""
    times = case.hold.accounts[a].times
    state.flows.counts[kind, k] += times * to_counts(value, case.insts[k].per_usd)


@njit(cache=True, error_model="numpy", inline="always")
def bring_to_market(k, qty, delay, a, case, state):
    """Add a quantity of account `a` to what is sold of instrument `k`, in `delay` rounds."""
    counts = case.hold.accounts[a].times * to_counts(qty, case.insts[k].per_qty)
    if delay == 0:
        state.flows.counts[SOLD, k] += counts
    else:
        state.flows.later[delay, k] += counts


@njit(cache=True, error_model="numpy", inline="always")
def demand(usd, v, a, case, state):
    """Add USD that liquidators of venue `v` would have to bring to close account `a`."""
    counts = to_counts(usd, case.venues[v].per_demand)
    state.flows.demand[v] += case.hold.accounts[a].times * counts


@njit(cache=True, error_model="numpy", inline="always")
def note(r, a, taken, other, reason, health, qty, price, value, repaid, lost, log):
    """Add one closing to the log."""
    n = log.used[0]
    log.used[0] = n + 1
    if n < log.rows.size:
        row = log.rows[n]
        row.round, row.account, row.inst, row.other, row.reason = r, a, taken, other, reason
        row.health, row.qty, row.price = health, qty, price
        row.value, row.repaid, row.lost = value, repaid, lost


@njit(cache=True, error_model="numpy", inline="always")
def worth(a, case, state):
    """Equity of account `a` at the seen prices, without haircuts or thresholds."""
    hold, touched, now = case.hold, state.touched, state.now
    row = touched.slot[a]
    lo = hold.accounts[a].first
    total = hold.accounts[a].cash if row < 0 else touched.rows[row].cash
    for i in range(lo, hold.accounts[a].last):
        k, role = hold.legs[i].inst, hold.legs[i].role
        qty = left_of(i, lo, row, hold, touched)
        if role == LINEAR:
            total += qty * (now[k].seen - hold.legs[i].entry)
        elif role == INVERSE:
            total += qty * (now[k].seen / hold.legs[i].entry - 1.0)
        else:  # a debt is a negative quantity
            total += qty * now[k].seen
    return total
