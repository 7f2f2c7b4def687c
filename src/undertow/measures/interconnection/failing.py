"""What a node costs everybody else: solves in which it fails, and one without it.

A number is `lost_usd` of the solver (what is lost for good by anybody but borrowers and traders)
less what the node lost of its own equity, and with the equity of accounts whose coins went with
the venue.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from undertow.errors import StateError
from undertow.fanout import Executor, Serial
from undertow.measures.interconnection.candidates import Candidate
from undertow.rules.margins import account_sums
from undertow.state import FloatColumn, FloatMatrix
from undertow.stress.contagion import Assumptions, Channels, Contagion, Ending, Solver
from undertow.stress.failures import Exploit
from undertow.stress.plan import Plan
from undertow.stress.scenario import Scenario
from undertow.stress.standins import stand_ins
from undertow.stress.stressed import Stressed


class Cost(NamedTuple):
    """What one failure costs; NaN where prices left all bounds, so that no number is left."""

    others: float  # USD, less what is lost without it
    own: float  # USD of the node's own equity
    settled: bool


@dataclass(eq=False)
class Bench:
    """A book on which one node after another fails."""

    plan: Plan
    scenario: Scenario
    channels: Channels
    assumed: Assumptions
    tolerance: float = 1e-6
    laid: Solver | None = None  # the book, where somebody settled it already

    @cached_property
    def solver(self) -> Solver:
        """The book, settled once."""
        return self.laid or Solver.of(self.plan)

    @cached_property
    def calm(self) -> Stressed:
        """No shock at all."""
        return Stressed.calm(self.plan.snapshot)

    @cached_property
    def before(self) -> dict[bool, Contagion]:
        """What comes of no failure, on a calm day and in the scenario."""
        return {
            stressed: self._solve(self.scenario if stressed else self.calm)
            for stressed in (False, True)
        }

    @cached_property
    def equity(self) -> dict[bool, FloatColumn]:
        """By account, before anybody fails."""
        return {key: _equity(done) for key, done in self.before.items()}

    def failed(self, who: Candidate, *, stressed: bool) -> Cost:
        """What the failure of a node costs, on a calm day or on top of the scenario."""
        assert who.failure is not None
        done = self._solve(self.scenario if stressed else self.calm, who)
        found, base = done.settlement, self.before[stressed]
        own = found.before[who.parties] - found.after[who.parties]
        was = base.settlement
        own -= was.before[who.parties] - was.after[who.parties]
        debtors = found.sheet.is_debtor[who.parties]
        mine = float(np.maximum(own[debtors], 0.0).sum())
        lost = done.headline()["lost_usd"] - base.headline()["lost_usd"]
        lost += self._taken(who, done, stressed)
        ended = done.ending is Ending.SETTLED and base.ending is Ending.SETTLED
        return Cost(float(lost) - mine, mine, ended)

    def lost(self) -> tuple[float, bool]:
        """What the scenario costs."""
        done = self.before[True]
        return float(done.headline()["lost_usd"]), done.ending is Ending.SETTLED

    def _taken(self, who: Candidate, done: Contagion, stressed: bool) -> float:
        """Equity that accounts lose with coins at a venue that has no pools of its own."""
        if who.kind != "venue" or not isinstance(who.failure, Exploit) or len(who.parties) > 1:
            return 0.0
        had = np.maximum(self.equity[stressed], 0.0)
        return float((had - np.minimum(np.maximum(_equity(done), 0.0), had)).sum())

    def _solve(self, scenario: Scenario | Stressed, who: Candidate | None = None) -> Contagion:
        failed = () if who is None or who.failure is None else (who.failure,)
        return self.solver.solve(
            scenario, channels=self.channels, assumed=self.assumed, failed=failed, check=False,
            trace=False, tolerance=self.tolerance,
        )  # fmt: skip


def _equity(done: Contagion) -> FloatColumn:
    return account_sums(done.start.snapshot).equity


class _Ask(NamedTuple):
    """One question to a bench."""

    who: Candidate
    stressed: bool


def failures(bench: Bench, found: Sequence[Candidate], *, stressed: bool) -> list[Cost | None]:
    """What each failure costs; None of who cannot fail."""
    some = [_Ask(each, stressed) for each in found if each.failure is not None]
    # One solver keeps what it laid out from one failure to the next, so it cannot serve threads.
    answers: Iterator[Cost] = iter([_failed(bench, each) for each in some])
    return [None if each.failure is None else next(answers) for each in found]


def _failed(bench: Bench, asked: _Ask) -> Cost:
    try:
        return bench.failed(asked.who, stressed=asked.stressed)
    except StateError:  # prices left all bounds: the cost has no number, and that is said
        return Cost(math.nan, math.nan, False)


def left_out(
    bench: Bench, plans: Sequence[Plan | None], executor: Executor | None
) -> list[float | None]:
    """What the scenario costs less what it costs without each node; None where nothing is taken."""
    whole, _ = bench.lost()
    some = [plan for plan in plans if plan is not None]
    answers = iter((executor or Serial()).map(_lost, some, shared=_without_plan(bench)))
    return [None if plan is None else whole - next(answers) for plan in plans]


class _Knobs(NamedTuple):
    """How a bench solves, whatever the book."""

    scenario: Scenario
    channels: Channels
    assumed: Assumptions
    tolerance: float


def _without_plan(bench: Bench) -> _Knobs:
    return _Knobs(bench.scenario, bench.channels, bench.assumed, bench.tolerance)


def _lost(knobs: _Knobs, plan: Plan) -> float:
    try:
        return Bench(plan, *knobs).lost()[0]
    except StateError:  # as above
        return math.nan


class _Redraw(NamedTuple):
    """Candidates that fail on a book whose owners were drawn anew."""

    bench: Bench
    who: tuple[Candidate, ...]


def redrawn(
    bench: Bench, who: Sequence[Candidate], draws: int, seed: int, executor: Executor | None
) -> FloatMatrix:
    """(draws, candidates) What each failure costs on calm books whose owners are drawn anew.

    Every owner comes as often as a Poisson variable of mean 1 says, with all that it has; pools
    and claims are as they were. Where prices leave all bounds (open interest of a redrawn book need
    not balance) the draw is NaN.
    """
    owners = len(bench.plan.snapshot.book.owners)
    seeds = np.random.SeedSequence([seed, 83]).spawn(draws)
    times = [np.random.default_rng(each).poisson(1.0, owners).astype(float) for each in seeds]
    shared = _Redraw(Bench(bench.plan, *_without_plan(bench)), tuple(who))
    rows = list((executor or Serial()).map(_on_redrawn, times, shared=shared))
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(who))


def _on_redrawn(shared: _Redraw, times: FloatColumn) -> list[float]:
    plan = shared.bench.plan
    scale = times[plan.snapshot.book.owner]
    drawn = stand_ins(plan, (scale > 0.0).astype(np.int64), scale)
    bench = Bench(drawn, *_without_plan(shared.bench))
    costs = [_failed(bench, _Ask(each, stressed=False)).others for each in shared.who]
    # a book on which some failure has no number ranks nobody, and is left out whole
    return costs if np.isfinite(costs).all() else [math.nan] * len(costs)
