"""Many joint scenarios over a whole book: what each did, and how bad the bad ones are.

A scenario is a row of factor moves on top of a `Stressed` snapshot, which says everything else
(oracles, depth, outages). It gives the same bits in any batch, on any number of workers: its draw
depends on its index alone, and sums over accounts are whole counts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import polars as pl

from undertow.errors import StateError
from undertow.fanout import Executor, Serial
from undertow.kernels import cascade, sweep
from undertow.state import BoolColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.state.arrays import frozen
from undertow.stress.aftermath import amplification, lacking_at_start
from undertow.stress.cascade import settle
from undertow.stress.lanes import Bounds, boxes_of, room_of
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.setting import case_of, shocks_of
from undertow.stress.standins import require_passive
from undertow.stress.stressed import Stressed
from undertow.stress.tails import Tail, expected_shortfall, value_at_risk

LANES = 32
MOST_RISE = 16.0  # of what is held: sums have room for no more
MORE_ROOM = 4096.0  # times as much, for a scenario that needs it: a quantum is 1e-13 of the book
_CHUNK = 16_384  # scenarios that are drawn, and put in order of severity, at a time


class Draws(Protocol):
    """Anything that draws joint factor moves by scenario index."""

    def draw(self, seed: int, start: int, count: int) -> FloatMatrix:
        """Log moves (count, assets) of the scenarios from `start` on."""
        ...


@dataclass(frozen=True, eq=False)
class Sweep:
    """What many scenarios did to one book, a row each.

    Sums by venue and by asset are in USD: closed, repaid, bad debt, shortfall of bankrupt accounts
    and what winners paid. By venue alone: what accounts that still stand owe beyond what they have,
    more than at the start.
    """

    plan: Plan
    options: Options
    seed: int
    rows: Any  # SUMMARY by scenario
    by_venue: FloatMatrix  # (scenarios, SUMS, venues)
    by_asset: FloatMatrix  # (scenarios, SUMS, assets)
    settled: Any = None  # the cascade at zero shock that the book was settled with, or None

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"Sweep({len(self):,} scenarios on {self.plan.snapshot.book!r})"

    @cached_property
    def liquidated_usd(self) -> FloatColumn:
        """Value closed, by scenario."""
        return frozen(self.by_venue[:, sweep.BY_CLOSED].sum(axis=1))

    @cached_property
    def insolvency_usd(self) -> FloatColumn:
        """What accounts came to owe beyond what they had, closed or not, by scenario.

        Bad debt, shortfall, and what is under water in accounts that still stand, as in a cascade.
        """
        lost = self.by_venue[:, [sweep.BY_BAD, sweep.BY_SHORT, sweep.BY_LACKING]]
        return frozen(np.maximum(lost.sum(axis=(1, 2)), 0.0))

    @property
    def amplification(self) -> pl.Series:
        """Final move of the book's prices over their first; empty where nothing moved at first."""
        return amplification(self.rows["first_fall"], self.rows["final_fall"])

    def value_at_risk(
        self, q: float = 0.99, *, of: str = "insolvency", level: float = 0.95
    ) -> Tail:
        """Loss that is exceeded with probability 1 - q, with its sampling band."""
        return value_at_risk(self._losses(of), q=q, level=level)

    def expected_shortfall(
        self, q: float = 0.99, *, of: str = "insolvency", level: float = 0.95
    ) -> Tail:
        """Mean of the losses beyond that, with its sampling band."""
        return expected_shortfall(self._losses(of), q=q, level=level)

    def _losses(self, of: str) -> FloatColumn:
        if of not in ("insolvency", "liquidated"):
            raise StateError(f"of was {of!r}; it may be 'insolvency' or 'liquidated'")
        return self.insolvency_usd if of == "insolvency" else self.liquidated_usd

    def to_polars(self) -> pl.DataFrame:
        """One row a scenario."""
        columns = {name: self.rows[name] for name in sweep.SUMMARY.names or ()}
        outcome = np.where(self.rows["outcome"] == 0, "settled", "round limit")
        return pl.DataFrame(
            {
                "scenario": np.arange(len(self)),
                "liquidated_usd": self.liquidated_usd,
                "insolvency_usd": self.insolvency_usd,
                "amplification": self.amplification,
                **columns,
                "outcome": outcome,
            }
        )

    def venues(self) -> pl.DataFrame:
        """Means over scenarios by venue, the largest insolvency first."""
        return self._means(self.by_venue, "venue", self.plan.snapshot.universe.venues)

    def assets(self) -> pl.DataFrame:
        """Means over scenarios by asset, the largest insolvency first."""
        return self._means(self.by_asset, "asset", self.plan.snapshot.universe.assets)

    def _means(self, sums: FloatMatrix, what: str, names: tuple[str, ...]) -> pl.DataFrame:
        mean = sums.mean(axis=0)
        frame = pl.DataFrame(
            {
                what: names,
                "liquidated_usd": mean[sweep.BY_CLOSED],
                "repaid_usd": mean[sweep.BY_REPAID],
                "bad_debt_usd": mean[sweep.BY_BAD],
                "shortfall_usd": mean[sweep.BY_SHORT],
                "paid_by_winners_usd": mean[sweep.BY_PAID],
                "under_water_usd": mean[sweep.BY_LACKING],
            }
        )
        busy = frame.filter((pl.col("liquidated_usd") > 0.0) | (pl.col("under_water_usd") != 0.0))
        worst = pl.col("bad_debt_usd") + pl.col("shortfall_usd") + pl.col("under_water_usd")
        return busy.sort(
            worst, pl.col("liquidated_usd"), pl.col(what), descending=[True, True, False]
        )


def run_sweep(
    plan: Plan,
    draws: Draws,
    count: int,
    *,
    seed: int = 0,
    stressed: Stressed | None = None,
    options: Options | None = None,
    settled: bool = True,
    executor: Executor | None = None,
    bounds: Bounds | None = None,
    lanes: int = LANES,
    progress: Callable[[int, int | None], None] | None = None,
) -> Sweep:
    """Draw `count` joint scenarios and follow each to its end.

    The book is first settled at zero shock, unless told otherwise. Factor moves are added to those
    of `stressed`. Scenarios of like severity are followed side by side, since they call the same
    accounts; results stand in the order of the draws. One whose prices rise beyond what sums have
    room for is followed once more, alone, with more of it. `bounds` are those of the plan, where
    they were drawn already.

    Raises
    ------
    StateError
        When nothing is asked for, when `stressed` is of another snapshot than the plan, or when
        prices rose so far that sums have no room for them.
    """
    if count < 1 or lanes < 1:
        raise StateError(f"count was {count} and lanes {lanes}; both must be at least 1")
    options = options or Options()
    require_passive(plan, options)
    quiet = settle(plan, options) if settled else None
    base = quiet.plan if quiet else plan
    start = stressed or Stressed.calm(plan.snapshot)
    if start.snapshot is not plan.snapshot and start.snapshot is not base.snapshot:
        raise StateError(
            "stressed is of another snapshot than the plan",
            hint="start from Stressed.calm(plan.snapshot)",
        )
    job = _Job(base, start, options, lanes, bounds=bounds if base is plan else None)
    executor = executor or Serial()
    rows = np.zeros(count, dtype=sweep.SUMMARY)
    venues, assets = len(base.per_demand), len(base.snapshot.universe.assets)
    by_venue = np.zeros((count, sweep.SUMS, venues))
    by_asset = np.zeros((count, sweep.SUMS, assets))
    weight = np.bincount(base.snapshot.universe.asset_of, weights=_weight(base), minlength=assets)
    done = 0
    places: deque[KeyColumn] = deque()

    def tasks() -> Iterator[FloatMatrix]:
        for first in range(0, count, _CHUNK):
            moves = draws.draw(seed, first, min(_CHUNK, count - first)) + start.factor
            order = np.argsort(base.pricing.asset_moves(moves) @ weight, kind="stable")
            for part in np.array_split(order, -(-len(order) // lanes)):
                places.append(first + part)
                yield moves[part]

    for answer in executor.map(_followed, tasks(), shared=job):
        at = places.popleft()
        rows[at], by_venue[at], by_asset[at] = answer
        done += len(at)
        if progress is not None:
            progress(done, count)
    wide = replace(job, lanes=1, room=MORE_ROOM)
    for s in np.flatnonzero(_risen(base, rows) > MOST_RISE).tolist():
        answer = _followed(wide, draws.draw(seed, s, 1) + start.factor)
        rows[s], by_venue[s], by_asset[s] = (part[0] for part in answer)
    _require_room(base, rows)
    by_venue[:, sweep.BY_LACKING] -= lacking_at_start(base)
    return Sweep(
        base, options, seed, rows, frozen(by_venue), frozen(by_asset), quiet and quiet.cascade
    )


@dataclass(eq=False)
class _Job:
    """What every worker needs; its memory is laid out when it first works, and kept."""

    plan: Plan
    stressed: Stressed
    options: Options
    lanes: int
    room: float = 1.0
    bounds: Bounds | None = None  # of the plan at rest

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != "_kits"}

    @cached_property
    def _kits(self) -> list[_Kit]:
        return []

    def kit(self) -> _Kit:
        """Memory that nobody works in at the moment."""
        try:
            return self._kits.pop()
        except IndexError:
            return _Kit.of(self)

    def give_back(self, kit: _Kit) -> None:
        """Keep memory for the next task."""
        self._kits.append(kit)


@dataclass(eq=False)
class _Kit:
    """The case, its bounds, and room for the lanes of one worker."""

    plan: Plan
    case: cascade.Case
    bounds: Bounds
    room: sweep.Room
    boxes: sweep.Boxes
    weight: FloatColumn

    @classmethod
    def of(cls, job: _Job) -> _Kit:
        plan, options = job.plan.unpacked(), job.options
        case = case_of(plan, job.stressed, options, room=job.room)
        trigger = max(case.switches.buffer, 1.0)
        bounds = job.bounds
        at_rest = case.hold is plan.hold and np.array_equal(case.vol, plan.insts["vol"])
        if bounds is None or trigger > 1.0 or not at_rest:
            bounds = Bounds.of(plan, trigger, hold=case.hold, vol=case.vol)
        return cls(
            plan,
            case,
            bounds,
            room_of(plan, case, job.lanes, options.max_rounds),
            boxes_of(plan, bounds, job.lanes),
            _weight(plan),
        )


def _weight(plan: Plan) -> FloatColumn:
    """What an instrument counts in the price index: its share of all held that is no money."""
    gross = plan.gross_usd * _priced(plan)
    return gross / max(float(gross.sum()), 1e-300)


def _priced(plan: Plan) -> BoolColumn:
    """Instruments that are in the index: neither money nor options."""
    priced: BoolColumn = (plan.insts["kind"] == 0) & (plan.insts["money"] == 0)
    return priced


def _risen(plan: Plan, rows: Any) -> FloatColumn:
    """How many times as much as before what is held would be worth, by scenario."""
    gross = plan.gross_usd
    share = float(gross[_priced(plan)].sum()) / max(float(gross.sum()), 1e-300)
    return np.asarray(1.0 - share * np.minimum(rows["first_fall"], rows["final_fall"]))


def _require_room(plan: Plan, rows: Any) -> None:
    """Refuse sums of scenarios in which prices rose out of all proportion."""
    most = MOST_RISE * MORE_ROOM
    wild = np.flatnonzero(_risen(plan, rows) > most)
    if len(wild):
        raise StateError(
            f"in scenario {wild[0]} what is held would be worth more than {most:,.0f} times as "
            "much as before",
            hint="check the volatilities and the horizon of the draws",
        )


def _followed(job: _Job, moves: FloatMatrix) -> tuple[Any, FloatMatrix, FloatMatrix]:
    """Follow scenarios side by side, given their factor moves."""
    many, kit = len(moves), job.kit()
    plan, stressed = kit.plan, job.stressed
    shocks = np.stack([np.stack(shocks_of(plan, stressed.put("factor", slice(None), row)))
                       for row in moves])  # fmt: skip
    venues, assets = len(plan.per_demand), len(plan.snapshot.universe.assets)
    tally = sweep.Tally(
        np.zeros(many, dtype=sweep.SUMMARY).view(np.recarray),
        np.zeros((many, sweep.SUMS, venues)),
        np.zeros((many, sweep.SUMS, assets)),
        kit.weight,
        np.zeros((len(plan.owner_start) - 1, -(-venues // 64)), dtype=np.uint64),
    )
    log = cascade.Log(np.zeros(0, dtype=cascade.NOTE).view(np.recarray), np.zeros(1, np.int64))
    funds = plan.snapshot.funds
    sweep.sweep_batch(
        0, many, kit.case, shocks, funds.insurance * stressed.fund_mult,
        funds.backstop * stressed.fund_mult, kit.bounds.lines, plan.holders, plan.deposits,
        kit.room, kit.boxes, log, np.ones(venues), tally,
    )  # fmt: skip
    job.give_back(kit)
    return np.asarray(tally.summary), tally.by_venue, tally.by_asset
