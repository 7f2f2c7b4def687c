"""What a book is forced to sell at given prices, and where prices and forced sales agree.

A shock and the volumes sold so far, by pool, make prices; at those prices venues close accounts,
each alone; what that brings to the pools is what prices must answer for. `Pressure` is this map,
from volumes to volumes. Its least fixed point is where forced selling can come to rest, and its
derivative there, `feedback`, is what a further fall brings about. Nothing here runs a cascade:
there are no rounds, no timers, no liquidators to wait for, and no owner who answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from undertow.fanout import Executor, Serial
from undertow.fanout.executor import Crew
from undertow.kernels import cascade, impact, pressure, prices, screening
from undertow.state import BoolColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.stress.lanes import Bounds
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.setting import case_of, shocks_of, state_of
from undertow.stress.stressed import Stressed

BANDWIDTH = 0.02  # of log price: thresholds are counted over as much of a further fall
MOST_TIMES = 2_000  # volumes to volumes, before a point counts as one that does not settle
_AHEAD = 0.04  # of price: how far beyond the present prices accounts are looked up at once


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


@dataclass(frozen=True, eq=False)
class Pressure:
    """The map from volumes sold to volumes forced, of one book under one scenario."""

    plan: Plan
    stressed: Stressed
    case: cascade.Case
    bounds: Bounds
    crew: Crew  # who holds which accounts

    @classmethod
    @contextmanager
    def of(
        cls,
        plan: Plan,
        stressed: Stressed | None = None,
        options: Options | None = None,
        *,
        executor: Executor | None = None,
    ) -> Iterator[Pressure]:
        """Lay a book out over the workers of `executor`; they are let go at the end."""
        stressed = stressed or Stressed.calm(plan.snapshot)
        plan = plan.unpacked()
        case = _without_waiting(case_of(plan, stressed, options or Options()))
        bounds = Bounds.of(plan, 1.0, hold=case.hold, vol=case.vol)
        executor = executor or Serial()
        parts = _parts(len(case.hold.accounts), executor.width())
        with executor.running(), executor.crew(_Part, parts, shared=(case, bounds)) as crew:
            yield cls(plan, stressed, case, bounds, crew)

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

    def rest(self, shock: FloatMatrix, start: FloatColumn | None = None) -> Rest:
        """Follow volumes from `start` until they stay: the least fixed point from below.

        It is the least one where prices only fall and whoever is closed is closed at any lower
        price too; `start` is then at most the answer. Sums are whole, so rest is exact.
        """
        volume = np.zeros(self.plan.carriers.pools) if start is None else start
        for times in range(MOST_TIMES):
            new = self.forced(shock, volume)
            if np.allclose(new, volume, rtol=1e-12, atol=0.0):
                return Rest(new, times, settled=True)
            volume = new
        return Rest(volume, MOST_TIMES, settled=False)

    def feedback(
        self, shock: FloatMatrix, volume: FloatColumn, bandwidth: float = BANDWIDTH
    ) -> Feedback:
        """What a further fall of each pool forces, and what that does to every pool.

        Thresholds are counted over the next `bandwidth` of a fall, so it is a secant. The impact of
        a pool is marginal, at the volume that it has taken.
        """
        base = self.counts(shock, volume)
        here = self.volume(base, shock, volume)
        moved = self.crew.call("differences", shock, volume, self.pull, self.deep, bandwidth)
        more = np.asarray(sum(moved[1:], moved[0]))
        steep = -self.slopes(volume)
        matrix = np.zeros((len(volume), len(volume)))
        for m in np.flatnonzero(self.deep):
            fallen = shock - bandwidth * self.pull[:, m]
            then = self.volume(base + more[m], fallen, volume)
            matrix[:, m] = steep * (then - here) / bandwidth
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


def _without_waiting(case: cascade.Case) -> cascade.Case:
    """The same scenario in the long run: late oracles have published, liquidators have time."""
    insts, venues = case.insts.copy(), case.venues.copy()
    insts["oracle"][insts["oracle"] == prices.LAGGED] = prices.MARKET
    insts["lag"] = 0
    venues["capacity"], venues["opens"] = np.inf, 0
    switches = case.switches._replace(
        profitable=False, check=False, top_up=False, delever=False, unwind=False
    )
    return case._replace(insts=insts, venues=venues, switches=switches)


def _parts(accounts: int, workers: int) -> list[tuple[int, int]]:
    """Accounts in as many stretches as there are workers; none of them empty unless all are."""
    cuts = np.linspace(0, accounts, max(min(workers, accounts), 1) + 1).astype(np.int64)
    return [(int(a), int(b)) for a, b in pairwise(cuts)]


class _Part:
    """The accounts of one worker, and those among them that prices nearby could call."""

    def __init__(self, shared: tuple[cascade.Case, Bounds], part: tuple[int, int]) -> None:
        self.case, bounds = shared
        self.first, last = part
        self.graded, self.underlyings = bounds.graded, bounds.assets
        groups = bounds.lines.groups
        mine = (groups["account"] >= self.first) & (groups["account"] < last)
        self.lines = bounds.lines._replace(
            first=bounds.lines.first[self.first : last + 1],
            level=bounds.lines.level[self.first : last],
            groups=groups[mine],
        )
        self.all = np.arange(self.first, last, dtype=np.int64)
        self.state = state_of(self.case)
        self.scale = np.ones(len(self.case.venues))
        self.low = self.high = np.zeros(0)
        self.near = self.all

    def counts(self, shock: FloatMatrix, volume: FloatColumn) -> KeyColumn:
        """What is forced here by instrument, in quanta."""
        pressure.set_prices(volume, shock, self.case, self.state)
        self._look(self._moves())
        return self._sold(self.near)

    def differences(
        self,
        shock: FloatMatrix,
        volume: FloatColumn,
        pull: FloatMatrix,
        deep: BoolColumn,
        bandwidth: float,
    ) -> Any:
        """(pools, instruments): what is forced beyond that when each pool alone falls further."""
        whole = bandwidth * np.abs(pull).sum(axis=1)
        pressure.set_prices(volume, shock, self.case, self.state)
        here = self._moves()
        pressure.set_prices(volume, shock - whole, self.case, self.state)
        self._look(here, self._moves())
        found = np.zeros((pull.shape[1], len(self.case.insts)), dtype=np.int64)
        for m, accounts in self._by_pool(pull[0] != 0.0, deep):
            pressure.set_prices(volume, shock - bandwidth * pull[:, m], self.case, self.state)
            found[m] = self._sold(accounts)
            pressure.set_prices(volume, shock, self.case, self.state)
            found[m] -= self._sold(accounts)
        return found

    def _sold(self, accounts: KeyColumn) -> KeyColumn:
        out = np.empty(len(self.case.insts), dtype=np.int64)
        pressure.forced(accounts, self.scale, self.case, self.state)
        pressure.all_sold(self.state, out)
        return out

    def _moves(self) -> FloatColumn:
        """Relative moves of what is seen; of options, of their forwards."""
        now, insts = self.state.now, self.case.insts
        option = insts["kind"] != 0
        moved = np.where(option, now["forward"] / insts["forward"], now["seen"] / insts["start"])
        return np.asarray(moved - 1.0)

    def _look(self, *moves: FloatColumn) -> None:
        """See to it that everybody whom these prices could call is looked at."""
        low, high = np.min(moves, axis=0), np.max(moves, axis=0)
        if len(self.low) and (low >= self.low).all() and (high <= self.high).all():
            return
        self.low, self.high = np.maximum(low - _AHEAD * (1.0 + low), -1.0), high + 0.25 * _AHEAD
        inside = (self.high < screening.MOST) & (self.low > screening.LEAST)
        if not inside.all():
            self.near = self.all  # beyond what the bounds hold for
            return
        assets = len(self.case.places.reference)
        gaps = np.zeros((2, assets, 1), dtype=np.int16)
        apart = np.zeros((assets, 1), dtype=np.float32)
        for asset in self.underlyings:
            k = self.graded[self.case.insts["asset"][self.graded] == asset]
            ends = np.array([self.low[k].min(), self.high[k].max()])
            node = (ends - screening.LEAST) * (screening.NODES - 1)
            gap = np.floor(node / (screening.MOST - screening.LEAST)).astype(np.int16)
            gaps[:, asset, 0] = np.clip(gap, 0, screening.NODES - 2)
            apart[asset] = np.float32(max(np.ptp(self.low[k]), np.ptp(self.high[k])) + 1e-6)
        listed = np.empty((1, len(self.all)), dtype=np.int32)
        found, plain = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.int64)
        screening.screen(
            self.lines, self.low[:, None].astype(np.float32) - np.float32(1e-6),
            self.high[:, None].astype(np.float32) + np.float32(1e-6),
            gaps[0], gaps[1], apart, listed, found, plain,
        )  # fmt: skip
        near = listed[0, : found[0]].astype(np.int64)
        near[: plain[0]] += self.first  # groups are listed by their own number
        self.near = near

    def _by_pool(self, carried: Any, deep: BoolColumn) -> Iterator[tuple[int, KeyColumn]]:
        """Of those near, who holds something that a pool carries, pool by pool."""
        held = self.case.hold.accounts[self.near]
        counts = held["last"] - held["first"]
        account = np.repeat(self.near, counts)
        leg = np.repeat(held["first"] - np.append(0, np.cumsum(counts)[:-1]), counts)
        inst = self.case.hold.legs["inst"][leg + np.arange(len(leg))]
        for m in np.flatnonzero(deep):
            mine = carried[m][inst]
            if mine.any():
                yield int(m), np.unique(account[mine])
