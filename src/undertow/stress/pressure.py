"""What a book is forced to sell at given prices, and where prices and forced sales agree.

A shock and the volumes sold so far, by pool, make prices; at those prices venues close accounts,
each alone; what that brings to the pools is what prices must answer for. `Pressure` is this map,
from volumes to volumes. Its least fixed point is where forced selling can come to rest, and its
derivative there, `feedback`, is what a further fall brings about. Nothing here runs a cascade:
there are no rounds, no timers, no liquidators to wait for, and no owner who answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from undertow.fanout import Executor
from undertow.fanout.executor import Crew
from undertow.kernels import cascade, impact, pressure
from undertow.state import BoolColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.stress.lanes import Bounds
from undertow.stress.options import Options
from undertow.stress.parts import laid_out
from undertow.stress.plan import Plan
from undertow.stress.setting import shocks_of, state_of
from undertow.stress.stressed import Stressed

BANDWIDTH = 0.02  # of log price: thresholds are counted over as much of a further fall
STILL = 1e-5  # of log prices: a smaller move is none
_SHORT = 0.8  # of the way that even steps would still go
_ROUND = 2  # times that the same volumes may come back: they go round in circles then
MOST_TIMES = 2_000  # volumes to volumes, before a point counts as one that does not settle


class Rest(NamedTuple):
    """Where volumes came to rest."""

    volume: FloatColumn  # by pool
    times: int  # volumes to volumes
    settled: bool  # False where they kept swinging


class Feedback(NamedTuple):
    """What a further fall brings about, at one point."""

    matrix: FloatMatrix  # (n, m): fall of pool n, in logs, per fall of pool m
    sold: FloatMatrix  # (m, instruments): quanta forced per fall of pool m
    steep: FloatColumn  # by pool: fall per unit sold, at the margin


def _further(then: FloatColumn, here: FloatColumn) -> bool:
    """Whether volumes went on the way they went, all of them."""
    slack = 1e-9 * np.abs(here)
    return bool((then >= here - slack).all())


@dataclass(frozen=True, eq=False)
class Pressure:
    """The map from volumes sold to volumes forced, of one book under one scenario."""

    plan: Plan
    stressed: Stressed
    case: cascade.Case
    crew: Crew  # who holds which accounts

    @classmethod
    @contextmanager
    def of(
        cls,
        plan: Plan,
        stressed: Stressed | None = None,
        options: Options | None = None,
        *,
        bounds: Bounds | None = None,
        executor: Executor | None = None,
    ) -> Iterator[Pressure]:
        """Lay a book out over the workers of `executor`; they are let go at the end.

        `bounds` are those of the plan, where they were drawn already.
        """
        stressed = stressed or Stressed.calm(plan.snapshot)
        with laid_out(plan, stressed, options, executor, bounds) as (case, crew):
            yield cls(plan, stressed, case, crew)

    def shock(self, factor: FloatColumn) -> FloatMatrix:
        """Log moves of instruments, as markets and as rate oracles see them, after factor moves."""
        moved = self.stressed.put("factor", slice(None), self.stressed.factor + factor)
        return np.stack(shocks_of(self.plan, moved))

    def prices(self, shock: FloatMatrix, volume: FloatColumn) -> FloatColumn:
        """Market prices of instruments after a shock and the volumes sold since."""
        pressure.set_prices(volume, shock, self.case, self._state)
        return np.array(self._state.now["market"])

    def counts(self, shock: FloatMatrix, volume: FloatColumn) -> KeyColumn:
        """What is forced by instrument, in quanta; positive where sold."""
        parts = self.crew.call("counts", shock, volume)
        return np.asarray(sum(parts[1:], parts[0]))

    def volume(self, counts: KeyColumn, shock: FloatMatrix, volume: FloatColumn) -> FloatColumn:
        """What `counts` bring to each pool, at the prices after `volume`."""
        pressure.set_prices(volume, shock, self.case, self._state)
        out = np.empty(self.plan.carriers.pools)
        pressure.brought_to_pools(counts.copy(), self.case, self._state, out)
        return out

    def forced(self, shock: FloatMatrix, volume: FloatColumn) -> FloatColumn:
        """Volumes by pool that are forced at the prices after `volume`."""
        return self.volume(self.counts(shock, volume), shock, volume)

    def rest(
        self,
        shock: FloatMatrix,
        start: FloatColumn | None = None,
        enough: Callable[[FloatColumn], bool] | None = None,
    ) -> Rest:
        """Follow volumes from `start` until prices stay: the least fixed point from below.

        With `enough`, until prices are such that it says so: then they have not settled.

        It is the least one where prices only fall and whoever is closed is closed at any lower
        price too; `start` is then at most the answer. Steps that shrink evenly are lengthened, but
        only to where still more is forced than was sold, which is below the answer too.
        """
        here = np.zeros(self.plan.carriers.pools) if start is None else start
        seen = self.prices(shock, here)
        before, ahead, back = None, False, (here, seen)
        met: Counter[bytes] = Counter()
        for times in range(MOST_TIMES):
            then = self.forced(shock, here)
            moved = self.prices(shock, then)
            met[then.tobytes()] += 1
            if met[then.tobytes()] > _ROUND:
                return Rest(then, times, settled=False)
            if ahead and not _further(then, here):
                (here, seen), ahead, before = back, False, None
                continue
            back = (then, moved)
            step = np.log(moved / seen)
            if np.abs(step).max(initial=0.0) <= STILL:
                return Rest(then, times, settled=True)
            if enough is not None and enough(moved):
                return Rest(then, times, settled=False)
            shrink = 0.0 if before is None else float(before @ step) / float(before @ before)
            ahead = 0.0 < shrink < 1.0
            if ahead:
                here = then + _SHORT * shrink / (1.0 - shrink) * (then - here)
                seen, before = self.prices(shock, here), None
            else:
                here, seen, before = then, moved, step
        return Rest(here, MOST_TIMES, settled=False)

    def feedback(
        self, shock: FloatMatrix, volume: FloatColumn, bandwidth: float = BANDWIDTH
    ) -> Feedback:
        """What a further fall of each pool forces, and what that does to every pool.

        Thresholds are counted over the next `bandwidth` of a fall, so it is a secant; below 0, of a
        rise. The impact of a pool is marginal, at the volume that it has taken.
        """
        base = self.counts(shock, volume)
        here = self.volume(base, shock, volume)
        moved = self.crew.call("differences", shock, volume, self.pull, self.deep, bandwidth)
        more = np.asarray(sum(moved[1:], moved[0]))
        steep = -self.slopes(volume)
        then = np.repeat(here[None, :], len(volume), axis=0)
        pressure.bring_after_falls(
            base + more, shock, volume, self.pull, self.deep, bandwidth, self.case, self._state,
            then,
        )  # fmt: skip
        matrix = steep[:, None] * (then - here).T / bandwidth
        return Feedback(matrix, more / bandwidth, steep)

    def slopes(self, volume: FloatColumn) -> FloatColumn:
        """Marginal impact of every pool: log price per unit sold, never above 0."""
        pools = self.case.places.pools
        return np.array([impact.slope(k, sold, pools) for k, sold in enumerate(volume)])

    @cached_property
    def deep(self) -> BoolColumn:
        """Pools whose price answers sales at all."""
        pools = self.case.places.pools
        return np.array([impact.working_model(k, pools) != impact.NONE
                         for k in range(len(pools.depth))])  # fmt: skip

    @cached_property
    def pull(self) -> FloatMatrix:
        """(2, pools, instruments): log move of a price, and of its rate, per log move of a pool."""
        carriers, insts = self.plan.carriers, self.case.insts
        pull = np.zeros((2, carriers.pools, len(insts)))
        owner = np.repeat(np.arange(len(insts)), np.diff(carriers.start))
        np.add.at(pull[0], (carriers.pool, owner), carriers.pull)
        first = np.arange(len(owner)) == carriers.start[owner]
        rest = ~(first & (insts["tied"][owner] != 0))
        np.add.at(pull[1], (carriers.pool[rest], owner[rest]), carriers.pull[rest])
        return pull

    @cached_property
    def _state(self) -> cascade.State:
        """Room to set prices in; it closes nobody."""
        return state_of(self.case)
