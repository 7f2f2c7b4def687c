"""The accounts of one worker: who is near the edge, and what their venues would sell.

A part lives in a crew and answers with whole counts, so the answers of all parts add up to the same
bits however the accounts were divided.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from undertow.fanout import Executor, Serial
from undertow.fanout.executor import Crew
from undertow.kernels import atrisk, cascade, pressure, prices
from undertow.kernels.margin import OPTION
from undertow.state import AnyColumn, BoolColumn, FloatColumn, FloatMatrix, KeyColumn
from undertow.stress.lanes import Bounds
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.setting import case_of, state_of
from undertow.stress.stressed import Stressed

_STRETCH = 8  # points of a line that are looked at in one box
_AHEAD = 0.04  # of price: how far beyond the present prices accounts are looked up at once


@contextmanager
def laid_out(
    plan: Plan,
    stressed: Stressed,
    options: Options | None,
    executor: Executor | None,
    bounds: Bounds | None = None,
) -> Iterator[tuple[cascade.Case, Crew]]:
    """A book under a scenario, its accounts divided among the workers of `executor`.

    `bounds` are those of the plan at rest; where the scenario changed what is held or how volatile
    options are, others are drawn.
    """
    plan = plan.unpacked()
    case = _without_waiting(case_of(plan, stressed, options or Options()))
    at_rest = case.hold is plan.hold and np.array_equal(case.vol, plan.insts["vol"])
    if bounds is None or not at_rest:
        bounds = Bounds.of(plan, 1.0, hold=case.hold, vol=case.vol)
    executor = executor or Serial()
    parts = _stretches(len(case.hold.accounts), executor.width())
    with executor.running(), executor.crew(Part, parts, shared=(case, bounds)) as crew:
        yield case, crew


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


def _stretches(accounts: int, workers: int) -> list[tuple[int, int]]:
    """Accounts in as many stretches as there are workers; none of them empty unless all are."""
    cuts = np.linspace(0, accounts, max(min(workers, accounts), 1) + 1).astype(np.int64)
    return [(int(a), int(b)) for a, b in pairwise(cuts)]


class Part:
    """The accounts of one worker, and those among them that prices nearby could call."""

    def __init__(self, shared: tuple[cascade.Case, Bounds], part: tuple[int, int]) -> None:
        self.case, bounds = shared
        self.bounds = bounds.part(*part)
        self.all = np.arange(*part, dtype=np.int64)
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
        # What is pulled the other way, as a short token is, rises when its pool falls.
        falls, rises = np.maximum(pull, 0.0).sum(axis=1), np.minimum(pull, 0.0).sum(axis=1)
        moves = []
        for end in (shock, shock - bandwidth * falls, shock - bandwidth * rises):
            pressure.set_prices(volume, end, self.case, self.state)
            moves.append(self._moves())
        self._look(*moves)
        found = np.zeros((pull.shape[1], len(self.case.insts)), dtype=np.int64)
        grouped = self.case.hold.accounts["grid"][self.near] >= 0
        self._add_plain(self.near[~grouped], shock, volume, pull, deep, bandwidth, found)
        for m, accounts in self._by_pool(self.near[grouped], pull[0] != 0.0, deep):
            pressure.set_prices(volume, shock - bandwidth * pull[:, m], self.case, self.state)
            found[m] += self._sold(accounts)
            pressure.set_prices(volume, shock, self.case, self.state)
            found[m] -= self._sold(accounts)
        return found

    def _add_plain(
        self,
        accounts: KeyColumn,
        shock: FloatMatrix,
        volume: FloatColumn,
        pull: FloatMatrix,
        deep: BoolColumn,
        bandwidth: float,
        found: AnyColumn,
    ) -> None:
        """Differences of accounts that are judged leg by leg, each looked at once."""
        points = np.empty((pull.shape[1], len(self.case.insts)), dtype=self.state.now.dtype)
        rows = points.view(np.recarray)
        pressure.stand_after_falls(
            shock, volume, pull, deep, bandwidth, self.case, self.state, rows
        )
        pressure.set_prices(volume, shock, self.case, self.state)
        base = self.state.now.copy()
        nothing = np.empty(len(self.case.insts), dtype=np.int64)
        pressure.add_differences(
            accounts, self.scale, base, rows, deep, self.case, self.state, found
        )
        pressure.all_sold(self.state, nothing)

    def first_called(self, shocks: FloatMatrix) -> tuple[KeyColumn, KeyColumn]:
        """Accounts, and the first of `shocks` (points, 2, instruments) at which each is called.

        Their number where it never is, as for all accounts that are not among them. The moves of a
        line grow from point to point: a health that is concave is below what is asked from one
        point on. That of who holds options is not, nor is that of a portfolio group: they are asked
        point by point.
        """
        points = self._standing(shocks)
        moves = self._moves(points).T
        low, high = moves.min(axis=1)[:, None], moves.max(axis=1)[:, None]
        near = self._near(low, high)
        bent = self._bent[near]
        plain, groups = near[~bent], near[bent]
        first = np.empty(len(plain), dtype=np.int64)
        atrisk.first_called(plain, points, self.case, self.state, first)
        waiting = self._first_of(groups, shocks, moves)
        return np.concatenate([plain, groups]), np.concatenate([first, waiting])

    def _first_of(self, some: KeyColumn, shocks: FloatMatrix, moves: FloatMatrix) -> KeyColumn:
        """The first point at which each of some accounts is called, asked point by point.

        Of a stretch of points they are asked where they could be called in the box around it.
        """
        waiting = np.full(len(some), len(shocks), dtype=np.int64)
        nothing = np.zeros(len(self.state.moving.sold))
        rest = np.arange(len(some))
        for start in range(0, len(shocks), _STRETCH):
            box = moves[:, start : start + _STRETCH]
            low, high = box.min(axis=1)[:, None], box.max(axis=1)[:, None]
            rows = some[rest] - self.bounds.start
            near = self.bounds.could_be_called_of(rows, self.case.insts, low, high)
            asked = rest[np.isin(some[rest], near, assume_unique=True, kind="sort")]
            for g in range(start, min(start + _STRETCH, len(shocks))):
                if not len(asked):
                    break
                called = np.empty(len(asked), dtype=np.int8)
                pressure.set_prices(nothing, shocks[g], self.case, self.state)
                atrisk.called_at(some[asked], self.case, self.state, called)
                waiting[asked[called == 1]] = g
                asked = asked[called == 0]
            rest = np.flatnonzero(waiting == len(shocks))
        return waiting

    def called(self, shocks: FloatMatrix, group: KeyColumn, weight: AnyColumn) -> Any:
        """What whole weights (accounts, kinds) of those called at each point add up to by group.

        `shocks` are (points, 2, instruments); (points, groups, kinds), and how many were called.
        """
        nothing = np.zeros(len(self.state.moving.sold))
        many, groups = len(shocks), int(group.max(initial=-1)) + 1
        total = np.zeros((many, groups, weight.shape[1]), dtype=np.int64)
        count = np.zeros(many, dtype=np.int64)
        points = self._standing(shocks)
        moves = np.ascontiguousarray(self._moves(points).T)
        box = self.bounds.box(moves)
        atrisk.add_called(
            self.bounds.lines, self.bounds.start, *self._tops, points, box,
            group, weight, self.case, self.state, total, count,
        )  # fmt: skip
        if len(self.bounds.lines.groups):
            near = self.bounds.groups().could_be_called(self.case.insts, moves, moves)
            for g, shock in enumerate(shocks):
                pressure.set_prices(nothing, shock, self.case, self.state)
                count[g] += atrisk.add_groups_called(
                    near[g], group, weight, self.case, self.state, total[g]
                )
        return total, count

    def _near(self, low: FloatMatrix, high: FloatMatrix) -> KeyColumn:
        """Who could be called in a box: of holders of what moves, and of who is due anyhow."""
        moved = np.flatnonzero((low != 0.0) | (high != 0.0))
        if 2 * len(moved) <= len(low):
            held = [self.bounds.holders(int(k)) for k in moved]
            rows = np.sort(np.concatenate([*held, self._due]), kind="stable")  # runs: cheap
            rows = rows[np.append(True, rows[1:] != rows[:-1])[: len(rows)]]
            return self.bounds.could_be_called_of(rows, self.case.insts, low, high)
        (near,) = self.bounds.could_be_called(self.case.insts, low, high)
        return near

    @cached_property
    def _due(self) -> KeyColumn:
        """Rows of who may be closed while nothing moves."""
        still = np.zeros((len(self.case.insts), 1))
        (near,) = self.bounds.could_be_called(self.case.insts, still, still)
        called = np.empty(len(near), dtype=np.int8)
        nothing = np.zeros(len(self.state.moving.sold))
        pressure.set_prices(nothing, np.zeros_like(self.case.shock), self.case, self.state)
        atrisk.called_at(near, self.case, self.state, called)
        return np.asarray(near[called == 1] - self.bounds.start)

    @cached_property
    def _bent(self) -> BoolColumn:
        """(accounts,) Whose health along a line is not concave: groups, and holders of options."""
        hold = self.case.hold
        bent: BoolColumn = hold.accounts["grid"] >= 0
        legs = np.flatnonzero(hold.legs["role"] == OPTION)
        bent[np.searchsorted(hold.accounts["first"], legs, side="right") - 1] = True
        return bent

    @cached_property
    def _tops(self) -> tuple[FloatColumn, FloatColumn]:
        """Lines above health of this worker's accounts: level by account, slope by leg."""
        hold = self.case.hold
        level, slope = np.empty(len(hold.accounts)), np.empty(len(hold.legs))
        first, last = self.all[0], self.all[-1] + 1
        atrisk.draw_tops(first, last, hold, self.case.insts, self.case.brackets, level, slope)
        return level, slope

    def _sold(self, accounts: KeyColumn) -> KeyColumn:
        total = np.empty(len(self.case.insts), dtype=np.int64)
        pressure.forced(accounts, self.scale, self.case, self.state)
        pressure.all_sold(self.state, total)
        return total

    def _standing(self, shocks: FloatMatrix) -> AnyColumn:
        """(shocks, instruments) Where prices stand after each shock, while nothing is sold."""
        nothing = np.zeros(len(self.state.moving.sold))
        points = np.empty((len(shocks), len(self.case.insts)), dtype=self.state.now.dtype)
        points = points.view(np.recarray)
        pressure.stand_at(shocks, nothing, self.case, self.state, points)
        return points

    def _moves(self, now: AnyColumn | None = None) -> FloatColumn:
        """Relative moves of what is seen, by instrument last; of options, of their forwards."""
        now, insts = self.state.now if now is None else now, self.case.insts
        option = insts["kind"] != 0
        moved = np.where(option, now["forward"] / insts["forward"], now["seen"] / insts["start"])
        return np.asarray(moved - 1.0)

    def _look(self, *moves: FloatColumn) -> None:
        """See to it that everybody whom these prices could call is looked at."""
        low, high = np.min(moves, axis=0), np.max(moves, axis=0)
        if len(self.low) and (low >= self.low).all() and (high <= self.high).all():
            return
        self.low, self.high = np.maximum(low - _AHEAD * (1.0 + low), -1.0), high + 0.25 * _AHEAD
        (self.near,) = self.bounds.could_be_called(
            self.case.insts, self.low[:, None], self.high[:, None]
        )

    def _by_pool(
        self, accounts: KeyColumn, carried: AnyColumn, deep: BoolColumn
    ) -> Iterator[tuple[int, KeyColumn]]:
        """Of some accounts, who holds something that a pool carries, pool by pool."""
        held = self.case.hold.accounts[accounts]
        counts = held["last"] - held["first"]
        account = np.repeat(accounts, counts)
        leg = np.repeat(held["first"] - np.append(0, np.cumsum(counts)[:-1]), counts)
        inst = self.case.hold.legs["inst"][leg + np.arange(len(leg))]
        for m in np.flatnonzero(deep):
            mine = carried[m][inst]
            if mine.any():
                yield int(m), np.unique(account[mine])
