"""One scenario on a plan, in the kernels' words: prices, pools, timing, and room to work in.

What a claim lost of its backing, and what was taken out of reserves before the first round, are
done to the start of a scenario: a receipt factor is a move of the market and of what rate oracles
see; a rate that was charged for some hours is on the debts and in the money of accounts.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from undertow.errors import StateError
from undertow.kernels import accounts, cascade, impact, prices, rounds
from undertow.kernels.closing import ADL_NONE, ADL_PRORATA
from undertow.kernels.margin import DEBT, INVERSE, LINEAR
from undertow.state import AnyColumn, BoolColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.state.arrays import frozen
from undertow.state.universe import NONE
from undertow.stress.options import Deleveraging, Impact, Options
from undertow.stress.owners import fitted_will
from undertow.stress.plan import Plan, records
from undertow.stress.stressed import AS_GIVEN, Stressed

FURTHEST = 50.0  # log move beyond which a price is no number to reckon with
MOST_CHARGED = 1_024.0  # times the book, with what rates add to what is owed and paid
_NOTHING_LEFT = 1e-6  # share of a claim that stays where nothing backs it, as in the kernels


def in_rounds(span_us: AnyColumn, round_us: int) -> AnyColumn:
    """Whole rounds that a span takes, rounded up."""
    return np.minimum(-(-np.asarray(span_us, dtype=np.int64) // round_us), prices.FOR_EVER).astype(
        np.int32
    )


def case_of(
    plan: Plan, stressed: Stressed, options: Options, *, check: bool = False, room: float = 1.0
) -> cascade.Case:
    """One scenario, read-only; sums of USD have `room` times as much room as they need at rest."""
    carriers = plan.carriers
    shock, anchor = shocks_of(plan, stressed)
    hold = charged(plan, stressed)
    grown = growth(plan, stressed, hold)
    grown = grown._replace(usd=grown.usd * room)
    return cascade.Case(
        hold=hold,
        insts=instruments_of(plan, stressed, options, grown),
        brackets=plan.brackets,
        grids=plan.grids,
        shock=np.stack([shock, anchor]),
        vol=np.maximum(plan.insts["vol"] * stressed.vol_mult + stressed.vol_shift, 0.0),
        places=prices.Places(
            pools=pools_of(plan, stressed.depth_mult, options),
            carriers=records(prices.CARRIER, pool=carriers.pool, pull=carriers.pull),
            reference=frozen(plan.snapshot.universe.reference.copy()),
        ),
        closing=_closing(plan, options),
        venues=_venues(plan, stressed, options, grown),
        switches=_switches(plan, options, check),
        owner_start=plan.owner_start,
        keepers=plan.keepers,
    )


def shocks_of(
    plan: Plan, stressed: Stressed, factor: FloatMatrix | None = None
) -> tuple[FloatMatrix, FloatMatrix]:
    """Log moves of every instrument's market, and what a rate oracle sees of them.

    With `factor`, (..., assets), of as many scenarios as it has rows, each with these moves instead
    of those of `stressed`.

    Raises
    ------
    StateError
        When a price would move by so much that nothing is left to reckon with.
    """
    universe, pricing = plan.snapshot.universe, plan.pricing
    factor = stressed.factor if factor is None else factor
    shock = pricing.moves(factor, stressed.basis)
    tied = universe.reference[universe.asset_of] != NONE
    anchor = np.where(tied, pricing.anchors(factor), shock)
    if (stressed.receipt != 1.0).any():
        left = np.log(np.maximum(pricing.receipts(stressed.receipt), _NOTHING_LEFT))
        lost = np.where(plan.insts["kind"] == 0, left[universe.asset_of], 0.0)
        shock, anchor = shock + lost, anchor + lost
    wild = np.argwhere(np.abs(shock) > FURTHEST)
    if len(wild):
        at = tuple(wild[0])
        raise StateError(
            f"the price of {universe.instruments[at[-1]]} would be multiplied by "
            f"exp({shock[at]:.3g})",
            hint=f"a log move may be {-FURTHEST:g} to {FURTHEST:g}",
        )
    return shock, anchor


def charged(plan: Plan, stressed: Stressed) -> accounts.Holdings:
    """What accounts hold after the rates of a scenario were charged for their hours.

    Interest is added to what is owed; funding, on the value before the shock, goes from the money
    of longs to that of shorts.
    """
    rate = stressed.rate_shock * stressed.rate_hours
    if not rate.any():
        return plan.hold
    legs, held = plan.hold.legs.copy(), plan.hold.accounts.copy()
    inst, role = legs["inst"], legs["role"]
    legs["qty"][role == DEBT] *= np.maximum(1.0 + rate[inst[role == DEBT]], 0.0)
    price = np.where(role == LINEAR, plan.insts["start"][inst], 1.0)
    straight = (role == LINEAR) | (role == INVERSE)
    paid = np.where(straight, legs["qty"] * price * rate[inst], 0.0)
    held["cash"] -= np.bincount(plan.snapshot.book.leg_account, weights=paid, minlength=len(held))
    return accounts.Holdings(held, legs)


def idle_after(plan: Plan, stressed: Stressed) -> tuple[FloatColumn, FloatColumn]:
    """By reserve, what a run took out, and what it wanted but could not have: both in base units.

    What is lent out, or lies with others, cannot be withdrawn; the rest of the wish is locked.
    """
    liquidity = plan.snapshot.liquidity
    wanted = stressed.withdrawn * liquidity.supplied
    there = liquidity.supplied - liquidity.borrowed - stressed.stuck
    paid = np.minimum(wanted, np.maximum(there, 0.0))
    return paid, wanted - paid


def _closing(plan: Plan, options: Options) -> AnyColumn:
    """The venues' closing rules, with the way of deleveraging that was asked for."""
    if options.deleveraging is Deleveraging.PROFILE:
        return plan.closing
    code = ADL_PRORATA if options.deleveraging is Deleveraging.PRO_RATA else ADL_NONE
    rows = plan.closing.copy()
    rows["adl"] = np.where(rows["adl"] == ADL_NONE, ADL_NONE, code)
    return rows


def _switches(plan: Plan, options: Options, check: bool) -> cascade.Switches:
    responses, snapshot = options.responses, plan.snapshot
    active = responses.top_up or responses.delever
    owners = len(plan.owner_start) - 1 if active or responses.unwind else 0
    free = snapshot.free.usd_by_owner(snapshot.market) if responses.top_up else np.empty(0)
    willing = np.full(owners, responses.willing)
    if responses.fitted is not None:
        willing = fitted_will(plan.owners_known, responses, free, options.round_us)
    return cascade.Switches(
        profitable=options.profitable,
        check=check,
        buffer=responses.buffer if active else 0.0,
        top_up=responses.top_up,
        delever=responses.delever,
        unwind=responses.unwind,
        convert=responses.convert,
        free=np.array(free),
        willing=willing,
        recovery=options.recovery,
        withdrawal=options.withdrawal,
        thinnest=options.thinnest,
    )


def _venues(plan: Plan, stressed: Stressed, options: Options, grown: Growth) -> AnyColumn:
    funds = plan.snapshot.funds
    capacity = np.where(
        np.isinf(funds.liquidator_capacity) & (stressed.capacity_mult > 0.0),
        np.inf,
        np.nan_to_num(funds.liquidator_capacity, posinf=0.0) * stressed.capacity_mult,
    )
    return records(
        cascade.VENUE,
        opens=in_rounds(stressed.closed_until_us, options.round_us),
        cooldown=in_rounds(plan.closing["cooldown_us"], options.round_us),
        delay=in_rounds(plan.closing["delay_us"], options.round_us),
        capacity=capacity if options.capacity else np.full(len(capacity), np.inf),
        per_demand=plan.per_demand / grown.usd,
    )


def instruments_of(plan: Plan, stressed: Stressed, options: Options, grown: Growth) -> AnyColumn:
    """Instruments with their oracles as one scenario has them."""
    oracles = plan.snapshot.oracles
    lag = oracles.lag_us + stressed.oracle_lag_us
    mode = oracles.mode if options.oracles else np.zeros_like(oracles.mode)
    mode = np.where((mode == prices.MARKET) & (stressed.oracle_lag_us > 0), prices.LAGGED, mode)
    mode = np.where(stressed.oracle_mode == AS_GIVEN, mode, stressed.oracle_mode)
    rated = carriers_tied(plan)
    mode = np.where((mode == prices.EXCHANGE_RATE) & ~rated, prices.MARKET, mode)
    until = np.where(stressed.oracle_rounds > 0, stressed.oracle_rounds, prices.FOR_EVER)
    rows = plan.insts.copy()
    rows["coupling"] = options.coupling
    rows["per_usd"] /= grown.usd
    rows["per_qty"] /= grown.qty
    rows["oracle"] = mode
    rows["deviation"] = oracles.deviation
    rows["lag"] = in_rounds(lag, options.round_us)
    rows["heartbeat"] = in_rounds(oracles.heartbeat_us, options.round_us)
    rows["factor"] = stressed.oracle_factor
    rows["until"] = np.minimum(until, prices.FOR_EVER)
    rows["supplied"] = plan.insts["supplied"] - idle_after(plan, stressed)[0]
    return rows


class Growth(NamedTuple):
    """By how much coarser quanta must be than those of the book as it was, in powers of two."""

    usd: float
    qty: FloatColumn  # by instrument


def growth(plan: Plan, stressed: Stressed, hold: accounts.Holdings) -> Growth:
    """What sums need where prices are shocked, or debts and money charged, beyond measure.

    They have room for prices sixteen times as high, and for twice of what is held and owed, so an
    ordinary shock changes nothing.

    Raises
    ------
    StateError
        When rates make so much of the book that what is lost of the rest could not be told.
    """
    rise = shocks_of(plan, stressed)[0].max(initial=0.0)
    rise += np.log(stressed.oracle_factor.max(initial=1.0))
    usd = 2.0 ** max(np.ceil(rise / np.log(2.0)) - 4.0, 0.0)
    if hold is plan.hold:
        return Growth(float(usd), np.ones(len(plan.insts)))
    legs, before = hold.legs, plan.hold.legs
    price = np.where(plan.insts["inverse"] != 0, 1.0, plan.insts["start"])[legs["inst"]]
    owed = np.abs(legs["qty"])
    moved = np.abs(hold.accounts["cash"] - plan.hold.accounts["cash"]).sum()
    larger = _times(float((owed * price).sum() + moved), float(plan.gross_usd.sum()))
    if larger > MOST_CHARGED:
        k = int(np.argmax(np.abs(stressed.rate_shock * stressed.rate_hours)))
        raise StateError(
            f"rates charged for their hours make the book {larger:,.3g} times as large; the most "
            f"is {stressed.rate_shock[k]:g} an hour for {stressed.rate_hours[k]:g} hours on "
            f"{plan.snapshot.universe.instruments[k]}",
            hint=f"at most {MOST_CHARGED:g} times can be told: lower per_hour or hours of the "
            "shocks `rate` and `funding`; per_hour is a fraction, 0.0001 for a basis point",
        )
    count = len(plan.insts)
    after = np.bincount(legs["inst"], weights=owed, minlength=count)
    whole = np.bincount(before["inst"], weights=np.abs(before["qty"]), minlength=count)
    return Growth(float(usd * _coarser(larger)), _coarser(_times(after, whole)))


def _times(after: Any, before: Any) -> Any:
    """`after` over `before`; 1 where there was nothing, and so is nothing."""
    return np.divide(after, before, out=np.ones(np.shape(before)), where=np.asarray(before) > 0.0)


def _coarser(times: Any) -> Any:
    """A power of two for sums of so many times what they were; 1 up to twice."""
    doubled = np.ceil(np.log2(np.maximum(times, 1.0))).astype(np.int64)
    return np.ldexp(1.0, np.maximum(doubled - 1, 0))


def carriers_tied(plan: Plan) -> BoolColumn:
    """Instruments that a rate may price: spot-like, on an asset that follows another."""
    rated: BoolColumn = (plan.insts["tied"] != 0) & (plan.insts["kind"] == 0)
    return rated


def pools_of(plan: Plan, depth_mult: FloatColumn, options: Options) -> impact.Pools:
    """The impact curve of every pool under one choice of model."""
    carriers, universe = plan.carriers, plan.snapshot.universe
    count, assets = carriers.pools, len(universe.assets)
    thinned = np.ones(count)
    own = carriers.own_pool >= 0
    thinned[carriers.own_pool[own]] = depth_mult[own]
    spot = np.ones(assets)
    np.minimum.at(spot, universe.asset_of, depth_mult)
    thinned[:assets] = spot
    model = np.full(count, options.impact.code, dtype=np.int8)
    start, reach, ratio = _ladders(plan, thinned) if options.impact is Impact.LADDER else (
        np.zeros(2 * count + 1, dtype=np.int64), np.empty(0), np.empty(0)
    )  # fmt: skip
    return impact.Pools(
        model=model,
        depth=carriers.depth * thinned,
        floor=np.full(count, options.floor),
        scale=options.root * carriers.vol,
        daily=carriers.daily * thinned,
        clip=np.full(count, options.clip),
        start=start,
        reach=reach,
        ratio=ratio,
    )


def _ladders(plan: Plan, thinned: FloatColumn) -> tuple[KeyColumn, FloatColumn, FloatColumn]:
    """Each pool's ladder: that of its deepest book, stretched to the depth of the whole pool."""
    carriers, liquidity = plan.carriers, plan.snapshot.liquidity
    depth = plan.snapshot.market.depth
    start, reach, ratio = [0], [], []
    for pool, k in enumerate(carriers.ladder):
        for sold in (True, False):
            if k >= 0:
                steps, prices_at = liquidity.ladders.levels(int(k), sold=sold)
                stretch = carriers.depth[pool] / depth[k] if depth[k] > 0.0 else 1.0
                reach.append(steps * stretch * thinned[pool])
                ratio.append(prices_at)
            start.append(start[-1] + (len(reach[-1]) if k >= 0 else 0))
    empty = [np.empty(0)]
    return (
        np.array(start, dtype=np.int64),
        np.concatenate(reach + empty),
        np.concatenate(ratio + empty),
    )


def state_of(case: cascade.Case, *, most_rounds: int = 64, log_rows: int = 0) -> cascade.State:
    """Room for one scenario after another on what the accounts of a case hold."""
    held, count = len(case.hold.accounts), len(case.insts)
    ring = int(case.venues["delay"].max(initial=0)) + 1
    past = int(case.insts["lag"].max(initial=0)) + 1
    pools, assets = len(case.places.pools.depth), len(case.places.reference)
    return cascade.State(
        now=np.zeros(count, dtype=accounts.NOW).view(np.recarray),
        moving=prices.Moving(
            history=np.zeros((past, count)),
            sold=np.zeros(pools),
            thin=np.ones(pools),
            by_pool=np.zeros(pools),
            logs=np.zeros(pools),
            receipt=np.ones(assets),
            pending=np.zeros((ring, count), dtype=np.int64),
            travelled=np.zeros(assets + 1),
            farthest=np.zeros(assets + 1),
            trail=np.zeros((most_rounds + 1, count)),
            dirty=np.ones(pools + 1, dtype=np.int8),
        ),
        losses=accounts.Losses(
            np.zeros((count, int(case.grids.start[-1]))), np.zeros(2, dtype=np.int64)
        ),
        touched=accounts.Touched(
            slot=np.full(held, -1, dtype=np.int32),
            rows=np.zeros(held, dtype=accounts.TOUCH).view(np.recarray),
            rest=np.zeros(len(case.hold.legs)),
            used=np.zeros(2, dtype=np.int64),
        ),
        flows=cascade.Flows(
            counts=np.zeros((cascade.KINDS, count), dtype=np.int64),
            later=np.zeros((ring, count), dtype=np.int64),
            demand=np.zeros(len(case.venues), dtype=np.int64),
        ),
        watch=np.zeros(2 * held, dtype=np.int32),
        root=np.zeros(2 * held, dtype=np.int32),
        watched=np.zeros(1, dtype=np.int64),
        keys=np.zeros(2 * held),
        reach=np.zeros(2 * held),
        looked=np.zeros(2 * held, dtype=np.int32),
        due=np.zeros(held, dtype=np.int32),
        free=np.zeros(len(case.owner_start) - 1),
        log=cascade.Log(
            np.zeros(log_rows, dtype=cascade.NOTE).view(np.recarray),
            np.zeros(1, dtype=np.int64),
        ),
    )


def common_of(plan: Plan, options: Options, *, path: bool = False) -> rounds.Common:
    """Room for what all accounts of a scenario share."""
    count, limit = len(plan.insts), options.max_rounds
    return rounds.Common(
        shared=np.zeros(count, dtype=rounds.SHARED).view(np.recarray),
        funds=np.zeros(len(plan.per_demand), dtype=rounds.FUND).view(np.recarray),
        deposits=plan.deposits,
        totals=np.zeros((cascade.KINDS, count), dtype=np.int64),
        ledger=np.zeros((limit, rounds.PARTIES)),
        path=np.zeros((limit if path else 0, count)),
        acted=np.zeros(limit, dtype=np.int64),
        kept_at=np.zeros(len(plan.keepers)),
    )
