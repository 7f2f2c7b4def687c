"""A snapshot and a scenario in, a cascade out.

`run_cascade` is what most callers want. A book as it was found is settled first: accounts that
their venues may close without any shock are closed at the prices of the day, and what that costs
is told apart, so that the losses of a scenario are what the scenario adds. Who runs many scenarios
on one book lays it out once (`Plan.of`) and keeps an `Engine`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from undertow.errors import MisalignedState, StateError
from undertow.kernels import accounts as account_kernel
from undertow.kernels import cascade as kernel
from undertow.kernels import impact, prices, rounds
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn, FloatColumn, FloatMatrix
from undertow.state.arrays import frozen
from undertow.state.book import DEBT
from undertow.stress.aftermath import Cascade, Outcome
from undertow.stress.options import Options, Responses
from undertow.stress.plan import Plan
from undertow.stress.scenario import Scenario, require_scenario
from undertow.stress.setting import case_of, common_of, idle_after, state_of
from undertow.stress.standins import require_whole
from undertow.stress.stressed import Stressed

__all__ = ["Cascade", "Engine", "Outcome", "Settled", "run_cascade", "settle"]

LEAK = 1e-9  # of the book: what rounding may come to in one round
_HIGHEST = 4.0  # times its value at the start, what whole counts surely hold of a book
_MOST_POSTED = 2.0**20  # times the book: a quantum is then some 1e-10 of what was there before
FIRST_LOG = 65_536  # rows; a longer trace is run again with room for all of it


class Settled(NamedTuple):
    """A book without what was due anyway."""

    plan: Plan  # what is left of it
    cascade: Cascade  # what it took


class Left(NamedTuple):
    """What a scenario did to accounts."""

    touched: AnyColumn  # TOUCH rows of those that something happened to
    rest: FloatColumn  # what is left of their legs
    log: AnyColumn | None  # NOTE rows; None where no trace was kept

    @classmethod
    def of(cls, state: kernel.State, *, trace: bool) -> Left:
        """Copies of what stands in `state` after the last round."""
        held, legs = (int(n) for n in state.touched.used)
        return cls(
            touched=state.touched.rows[:held].view(np.ndarray).copy(),
            rest=frozen(state.touched.rest[:legs].copy()),
            log=state.log.rows[: int(state.log.used[0])].view(np.ndarray).copy() if trace else None,
        )


class Runner(Protocol):
    """Whoever follows one scenario on a plan to its end."""

    def __call__(
        self, plan: Plan, stressed: Stressed, options: Options, *, check: bool, trace: bool
    ) -> Cascade:
        """What came of it."""


class Engine:
    """Runs one scenario after another on a plan, in the same memory."""

    def __init__(self, plan: Plan) -> None:
        require_whole(plan, "a cascade of its own")
        self.plan = plan
        self._state: kernel.State | None = None
        self._common: rounds.Common | None = None
        self._log_rows = FIRST_LOG

    def __repr__(self) -> str:
        return f"Engine({self.plan!r})"

    def run(
        self,
        stressed: Stressed,
        options: Options | None = None,
        *,
        check: bool = False,
        trace: bool = True,
        path: bool = True,
        weight: FloatColumn | None = None,
    ) -> Cascade:
        """Follow one scenario to its end.

        With `check` the accounts' side of the ledger is kept too, so that every round must sum to
        nothing. `weight` says for how many like it an account of each venue stands: sales meet a
        market, funds and liquidators that are so much smaller.

        Raises
        ------
        MisalignedState
            When the scenario speaks of another universe than the plan.
        StateError
            When a price would leave all bounds.
        """
        options = options or Options()
        require_same_names(self.plan, stressed)
        case = case_of(self.plan, stressed, options, check=check)
        funds, scale = self.plan.snapshot.funds, stressed.fund_mult
        if weight is not None:
            case, scale = _weighted(self.plan, case, weight), scale / weight
        while True:
            state, common = self._room(case, options, log_rows=self._log_rows if trace else 0)
            rounds.start_over(case, state, common, funds.insurance * scale, funds.backstop * scale)
            prices.market_prices(case.insts, case.shock, case.places, state.now, state.moving)
            shocked = state.now["market"].copy()
            done, status = rounds.run_rounds(
                case, state, common, self.plan.holders, np.ones(len(self.plan.closing))
            )
            used = int(state.log.used[0])
            if not trace or used <= len(state.log.rows):
                break
            self._log_rows = used
        ran = cascade_of(
            self.plan, stressed, options, case, common, Left.of(state, trace=trace),
            done=int(done), status=status, shocked=shocked, final=state.now["market"].copy(),
        )  # fmt: skip
        return ran if path else replace(ran, path=frozen(ran.path[:0].copy()))

    def _room(
        self, case: kernel.Case, options: Options, *, log_rows: int
    ) -> tuple[kernel.State, rounds.Common]:
        """Memory of the right shape: that of the last run, where it fits."""
        state, common = self._state, self._common
        past, ring = int(case.insts["lag"].max(initial=0)), int(case.venues["delay"].max(initial=0))
        fits = state is not None and (
            state.moving.history.shape[0] == past + 1
            and state.moving.pending.shape[0] == ring + 1
            and state.moving.trail.shape[0] == options.max_rounds + 1
        )
        if state is None or not fits:
            state = state_of(case, most_rounds=options.max_rounds, log_rows=log_rows)
        elif len(state.log.rows) != log_rows:
            rows = np.zeros(log_rows, dtype=kernel.NOTE).view(np.recarray)
            state = state._replace(log=state.log._replace(rows=rows))
        if common is None or len(common.acted) != options.max_rounds:
            common = common_of(self.plan, options, path=True)
        self._state, self._common = state, common
        return state, common


def run_cascade(
    snapshot: Snapshot | Plan,
    scenario: Scenario | Stressed,
    options: Options | None = None,
    *,
    settle: bool = True,
    check: bool = False,
    trace: bool = True,
) -> Cascade:
    """Apply a scenario to a snapshot and follow the forced sales through its book.

    `options` take the place of those of the scenario. A book still selling after the last round is
    a finding, not an error: it comes back with `Outcome.ROUND_LIMIT`. With `settle`, accounts that
    are due without any shock are closed first; see `Cascade.settled`.

    Raises
    ------
    StateError
        When the scenario speaks of what the snapshot does not have, or a price leaves all bounds.
    RuleError, MissingPrice
        When something is held that cannot be judged.
    """
    return follow(alone, snapshot, scenario, options, settle=settle, check=check, trace=trace)


def follow(
    run: Runner,
    snapshot: Snapshot | Plan,
    scenario: Scenario | Stressed,
    options: Options | None = None,
    *,
    settle: bool = True,
    check: bool = False,
    trace: bool = True,
) -> Cascade:
    """Let `run` follow a scenario on a snapshot, as `run_cascade` does."""
    if not isinstance(scenario, Stressed):
        require_scenario(scenario)
    plan = snapshot if isinstance(snapshot, Plan) else Plan.of(snapshot)
    if options is None:
        options = scenario.options if isinstance(scenario, Scenario) else Options()
    if isinstance(scenario, Stressed):
        require_same_names(plan, scenario)
    before: Cascade | None = None
    found, plan_before = plan.snapshot, plan
    if settle:
        plan, before = settle_book(plan, options, check=check, run=run)
    if isinstance(scenario, Scenario):
        stressed = scenario.apply(plan.snapshot)
    else:
        stressed = rebased(scenario, found, plan.snapshot)
    ran = run(plan_of(stressed, plan), stressed, options, check=check, trace=trace)
    quiet = before is None or plan is plan_before
    return replace(ran, settled=None if quiet else before)


def alone(plan: Plan, stressed: Stressed, options: Options, *, check: bool, trace: bool) -> Cascade:
    """Follow one scenario in this thread, with room for it alone."""
    return Engine(plan).run(stressed, options, check=check, trace=trace)


def settle(
    plan: Plan, options: Options | None = None, *, check: bool = False, run: Runner = alone
) -> Settled:
    """Close what is due at the prices of the day; a healthy book comes back as it is.

    Owners do not respond, and prices are back where they were when the scenario begins: the market
    had its time. Funds are left with what this cost them.
    """
    options = replace(options or Options(), responses=Responses())
    ran = run(plan, Stressed.calm(plan.snapshot), options, check=check, trace=True)
    if not len(ran.touched):
        return Settled(plan, ran)
    snapshot = plan.snapshot
    book = replace(snapshot.book, qty=frozen(ran.remaining))
    funds = replace(snapshot.funds, insurance=ran.insurance, backstop=ran.backstop)
    legs, held = plan.hold.legs.copy(), plan.hold.accounts.copy()
    legs["qty"], held["cash"] = ran.remaining, ran.cash
    left = replace(
        plan,
        snapshot=replace(snapshot, book=book, funds=funds),
        hold=account_kernel.Holdings(held, legs),
    )
    return Settled(left, ran)


settle_book = settle  # `follow` has a switch of the same name


def cascade_of(
    plan: Plan,
    stressed: Stressed,
    options: Options,
    case: kernel.Case,
    common: rounds.Common,
    left: Left,
    *,
    done: int,
    status: int,
    shocked: FloatColumn,
    final: FloatColumn,
) -> Cascade:
    """What came of a scenario, out of what the kernels wrote.

    Raises
    ------
    StateError
        When a price left all bounds.
    """
    _require_bounds(plan, common.path[:done])
    totals = _totals(case, common)
    return Cascade(
        plan=plan,
        stressed=stressed,
        options=options,
        outcome=(Outcome.SETTLED, Outcome.ROUND_LIMIT)[status],
        rounds=done,
        path=frozen(common.path[:done].copy()),
        acted=frozen(common.acted[:done].copy()),
        flows=frozen(common.ledger[:done].copy()),
        shocked=frozen(shocked),
        final=frozen(final),
        **totals,
        hold=case.hold,
        **left._asdict(),
        checked=case.switches.check,
        notes=(*stressed.notes, *notes_of(plan, stressed, case, totals["sold"])),
    )


def require_same_names(plan: Plan, stressed: Stressed) -> None:
    """Refuse a scenario of another universe.

    Raises
    ------
    MisalignedState
        When their names differ.
    """
    if stressed.universe != plan.snapshot.universe:
        raise MisalignedState(
            "the plan and the scenario speak of different universes",
            hint="apply the scenario to the snapshot that the plan was made of",
        )


def plan_of(stressed: Stressed, plan: Plan) -> Plan:
    """The plan, laid out anew where the scenario changed what is held or asked.

    Raises
    ------
    StateError
        When so much was posted that what is lost of the rest could not be told.
    """
    if stressed.snapshot is plan.snapshot:
        return plan
    _require_proportion(plan, stressed)
    changed = Plan.of(stressed.snapshot)
    cash = plan.hold.accounts["cash"]
    if cash.any():  # accounts that a scenario adds stand last
        held = changed.hold.accounts.copy()
        held["cash"][: len(cash)] = cash
        changed = replace(changed, hold=account_kernel.Holdings(held, changed.hold.legs))
    return changed


def _require_proportion(plan: Plan, stressed: Stressed) -> None:
    """Refuse a counterfeit in front of which the rest of the book is rounding."""
    book, start = stressed.snapshot.book, plan.insts["start"]
    price = np.where(plan.insts["inverse"] != 0, 1.0, start)
    with np.errstate(over="ignore"):
        after = float((np.abs(book.qty) * price[book.inst]).sum())
    before = float(plan.gross_usd.sum())
    if after <= _MOST_POSTED * max(before, 1.0):
        return
    raise StateError(
        f"what the scenario posts makes the book {after / max(before, 1.0):.3g} times as large; "
        f"at most {_MOST_POSTED:g} times can be told",
        hint="lower the qty or usd of the shock `counterfeit`",
    )


def rebased(stressed: Stressed, found: Snapshot, left: Snapshot) -> Stressed:
    """A scenario that was applied to a book as found, on what is left of that book.

    What the scenario did to quantities is done to what is left; nothing changes its sign.
    """
    if left is found:
        return stressed
    if stressed.snapshot is found:
        return replace(stressed, snapshot=left)
    book, count = stressed.snapshot.book, len(found.book)
    if len(book) < count or not np.array_equal(book.inst[:count], found.book.inst):
        raise MisalignedState(
            "the scenario was applied to another book",
            hint="apply it to the snapshot that is given with it",
        )
    qty = book.qty.copy()
    moved = left.book.qty + (qty[:count] - found.book.qty)
    changed = qty[:count] != found.book.qty
    same = np.where(book.kind[:count] == DEBT, np.minimum(moved, 0.0), np.maximum(moved, 0.0))
    qty[:count] = np.where(changed, same, left.book.qty)
    new = replace(stressed.snapshot, book=replace(book, qty=frozen(qty)), funds=left.funds)
    return replace(stressed, snapshot=new)


def _weighted(plan: Plan, case: kernel.Case, weight: FloatColumn) -> kernel.Case:
    """The case in a market that is smaller by what each account stands for.

    A pool that serves several venues is divided by the mean of their weights over what is held.
    """
    universe, pools = plan.snapshot.universe, case.places.pools
    held = plan.gross_usd
    by_inst = weight[universe.venue_of]
    assets = len(universe.assets)
    whole = np.bincount(universe.asset_of, weights=held, minlength=assets)
    mean = np.bincount(universe.asset_of, weights=held * by_inst, minlength=assets)
    smaller = np.ones(len(pools.depth))
    smaller[:assets] = np.divide(mean, whole, out=np.ones(assets), where=whole > 0.0)
    own = plan.carriers.own_pool >= 0
    smaller[plan.carriers.own_pool[own]] = by_inst[own]
    reach = pools.reach / np.repeat(smaller, pools.start[2::2] - pools.start[:-1:2])
    places = case.places._replace(
        pools=pools._replace(depth=pools.depth / smaller, daily=pools.daily / smaller, reach=reach)
    )
    venues, insts = case.venues.copy(), case.insts.copy()
    venues["capacity"] /= weight
    insts["supplied"] /= by_inst
    return case._replace(places=places, venues=venues, insts=insts)


def _require_bounds(plan: Plan, path: FloatMatrix) -> None:
    """Refuse what the sums of this book cannot hold; they would be wrong without a word."""
    rise = np.maximum(path.max(axis=0, initial=0.0) / plan.insts["start"], 1.0)
    if (plan.gross_usd * rise).sum() <= _HIGHEST * plan.gross_usd.sum():
        return
    k = int(np.argmax(plan.gross_usd * rise))
    raise StateError(
        f"prices left all bounds: {plan.snapshot.universe.instruments[k]} rose {rise[k]:.3g} times",
        hint="purchases in a market without depth have no end: give it more, raise `thinnest`, "
        "lower `withdrawal`, or use another impact",
    )


def _totals(case: kernel.Case, common: rounds.Common) -> dict[str, Any]:
    """What `Cascade` holds by instrument and by venue, out of whole quanta."""
    usd = common.totals / case.insts["per_usd"]
    kinds = {
        "closed": kernel.CLOSED,
        "repaid": kernel.REPAID,
        "bad": kernel.BAD,
        "short": kernel.SHORT,
        "paid": kernel.PAID,
        "gain": kernel.GAIN,
        "cut": kernel.CUT,
    }
    columns = {name: usd[kind] for name, kind in kinds.items()}
    columns["sold"] = common.totals[kernel.SOLD] / case.insts["per_qty"]
    columns["unpaid"] = common.shared["unpaid"].copy()
    columns["slipped"] = common.shared["slipped"].copy()
    columns["insurance"] = common.funds["insurance"].copy()
    columns["backstop"] = common.funds["backstop"].copy()
    return {name: frozen(np.ascontiguousarray(column)) for name, column in columns.items()}


def notes_of(
    plan: Plan, stressed: Stressed, case: kernel.Case, sold: FloatColumn
) -> tuple[str, ...]:
    """What a reader should know that no table says."""
    said = []
    locked = float((idle_after(plan, stressed)[1] * plan.insts["start"]).sum())
    if locked > 0.0:
        said.append(f"{locked:,.0f} USD of deposits that wanted out were locked: they are lent")
    if (stressed.rate_shock * stressed.rate_hours).any():
        said.append("rates were charged on debts and perps before the first round")
    unmoved = _unmoved(plan, case, sold)
    if unmoved:
        said.append(f"no depth is known of {', '.join(unmoved)}: sales of it move no price")
    return tuple(said)


def _unmoved(plan: Plan, case: kernel.Case, sold: FloatColumn) -> list[str]:
    """Assets that were sold where no market takes note; money is not sold."""
    pools, insts, universe = case.places.pools, plan.insts, plan.snapshot.universe
    if (pools.model == impact.NONE).all():
        return []
    works = np.array(
        [impact.working_model(n, pools) != impact.NONE for n in range(len(pools.model))] + [False]
    )
    moves = works[insts["spot_pool"]] | works[insts["own_pool"]]  # -1 is the last: none
    left = (sold != 0.0) & ~moves & (insts["money"] == 0)
    return [universe.assets[k] for k in np.unique(universe.asset_of[left])]
