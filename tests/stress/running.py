"""One cascade through the compiled engine, and how far it is from the slow one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from stress.reference import PARTIES, ReferenceResult, run_reference
from undertow.kernels import accounts, cascade, rounds
from undertow.rules.snapshot import Snapshot
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.setting import case_of, common_of, state_of
from undertow.stress.stressed import Stressed

TOTALS = {
    "sold": cascade.SOLD,
    "closed_usd": cascade.CLOSED,
    "repaid_usd": cascade.REPAID,
    "bad_usd": cascade.BAD,
    "short_usd": cascade.SHORT,
    "gain_usd": cascade.GAIN,
    "cut_usd": cascade.CUT,
    "paid_usd": cascade.PAID,
    "given_usd": cascade.GIVEN,
}
_STATES = ("touched", "touched", "emptied", "touched")


@dataclass(frozen=True, eq=False)
class Run:
    """What a cascade left: columns by leg, account, instrument or venue, as in the reference."""

    rounds: int
    settled: bool
    path: np.ndarray  # (rounds, instruments) prices seen
    acted: np.ndarray
    counts: np.ndarray  # totals in quanta, to the bit
    totals: dict[str, np.ndarray]
    ledger: np.ndarray  # (rounds, parties)
    qty: np.ndarray
    cash: np.ndarray
    status: list[str]
    insurance: np.ndarray
    backstop: np.ndarray
    receipt: np.ndarray
    pending: np.ndarray  # quantity sold, but not yet in the market
    log: np.ndarray

    def won(self, party: int) -> np.ndarray:
        """What one party gained, by round."""
        return self.ledger[:, party]


@lru_cache(maxsize=32)
def plan_of(snapshot: Snapshot) -> Plan:
    """The plan of a snapshot, laid out once."""
    return Plan.of(snapshot)


def run_engine(
    stressed: Stressed, options: Options, *, check: bool = True, kernels: Any = rounds
) -> Run:
    """Follow a shock to its end; `kernels` may be a twin of `rounds`."""
    plan = plan_of(stressed.snapshot)
    funds, mult = stressed.snapshot.funds, stressed.fund_mult
    case = case_of(plan, stressed, options, check=check)
    rows = 4 * len(plan.hold.accounts) + 64
    state = state_of(case, most_rounds=options.max_rounds, log_rows=rows)
    common = common_of(plan, options, path=True)
    insurance, backstop = funds.insurance * mult, funds.backstop * mult
    kernels.start_over(case, state, common, insurance, backstop)
    scale = np.ones(len(plan.closing))
    count, outcome = kernels.run_rounds(case, state, common, plan.holders, scale)
    assert (state.touched.slot >= -1).all()  # no mark of the watch list is left behind
    quanta = {name: case.insts["per_qty" if name == "sold" else "per_usd"] for name in TOTALS}
    return Run(
        rounds=count,
        settled=outcome == rounds.SETTLED,
        path=common.path[:count].copy(),
        acted=common.acted[:count].copy(),
        counts=common.totals.copy(),
        totals={
            **{name: common.totals[row] / quanta[name] for name, row in TOTALS.items()},
            "impact_usd": common.shared["slipped"].copy(),
        },
        ledger=common.ledger[:count].copy(),
        insurance=common.funds["insurance"].copy(),
        backstop=common.funds["backstop"].copy(),
        receipt=state.moving.receipt.copy(),
        pending=state.moving.pending.sum(axis=0) / case.insts["per_qty"],
        log=state.log.rows[: min(int(state.log.used[0]), len(state.log.rows))].copy(),
        **_left(case.hold, state),
    )


def _left(hold: accounts.Holdings, state: cascade.State) -> dict[str, Any]:
    """What every account holds at the end."""
    qty, cash = hold.legs["qty"].copy(), hold.accounts["cash"].copy()
    status = ["untouched"] * len(cash)
    for row in state.touched.rows[: state.touched.used[0]]:
        first, last = (int(hold.accounts[row["account"]][name]) for name in ("first", "last"))
        begin = int(row["first"])
        qty[first:last] = state.touched.rest[begin : begin + last - first]
        cash[row["account"]] = row["cash"]
        status[row["account"]] = _STATES[row["state"]]
    return {"qty": qty, "cash": cash, "status": status}


def book_value(snapshot: Snapshot) -> float:
    """USD held and owed, gross."""
    book, universe = snapshot.book, snapshot.universe
    price = np.where(universe.inverse, 1.0, snapshot.market.mark)[book.inst]
    return math.fsum(np.abs(book.qty) * price)


_PARTIES = {
    "accounts": rounds.ACCOUNT,
    "liquidators": rounds.LIQUIDATOR,
    "insurance": rounds.INSURANCE,
    "backstop": rounds.BACKSTOP,
    "protocol": rounds.PROTOCOL,
    "suppliers": rounds.SUPPLIER,
    "counterparties": rounds.COUNTERPARTY,
    "venue": rounds.VENUE,
}
EDGE = 1e-12  # of what is asked: nearer to its threshold an account may fall on either side


@dataclass(frozen=True, eq=False)
class Compared:
    """The fast and the slow cascade of one scenario, and by how much they differ."""

    run: Run
    reference: ReferenceResult
    edge: np.ndarray  # accounts too near their threshold to be compared
    differences: dict[str, float]  # shares of the book's value; of prices, relative

    @property
    def worst(self) -> float:
        """The largest difference of all."""
        return max(self.differences.values())


def compare(stressed: Stressed, options: Options) -> Compared:
    """Follow a shock twice."""
    snapshot = stressed.snapshot
    run, slow = run_engine(stressed, options), run_reference(snapshot, stressed, options)
    edge = (slow.nearest < EDGE) | slow.on_edge
    book, universe, whole = snapshot.book, snapshot.universe, book_value(snapshot)
    price = np.where(universe.inverse | (snapshot.market.mark <= 0.0), 1.0, snapshot.market.mark)
    both = min(run.rounds, slow.rounds)
    path = np.array(slow.path[:both])
    ledger = np.array([[row[party] for party in PARTIES] for row in slow.ledger[:both]])
    held = (np.abs(run.qty - slow.qty) * price[book.inst])[~edge[book.leg_account]]
    gaps = {
        "path": np.abs(run.path[:both] - path) / np.maximum(path, 1e-6),
        "qty": held / whole,
        "cash": np.abs(run.cash - slow.cash)[~edge] / whole,
        "ledger": np.abs(run.ledger[:both, list(_PARTIES.values())] - ledger) / whole,
        "insurance": np.abs(run.insurance - slow.insurance) / whole,
        "backstop": np.abs(run.backstop - slow.backstop) / whole,
        "receipt": np.abs(run.receipt * stressed.receipt - slow.receipt),
    }
    for name, found in run.totals.items():
        weight = price if name == "sold" else 1.0
        gaps[name] = np.abs(found - slow.totals[name]) * weight / whole
    return Compared(run, slow, edge, {k: float(np.max(v, initial=0.0)) for k, v in gaps.items()})


def shocked(snapshot: Snapshot, factor: float) -> Stressed:
    """All assets but money, and what follows it, at `factor` of their price."""
    universe = snapshot.universe
    moved = (universe.reference < 0) & np.array([a != "USD" for a in universe.assets])
    return Stressed.calm(snapshot).put("factor", moved, math.log(factor))
