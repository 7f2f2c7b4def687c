"""Who would be called at which prices, while nobody sells anything: ladders and surfaces.

A *line* is a row of ever larger moves of some factors; every account has a first point on it at
which its venue may close it. A *surface* is any set of points of factor moves. Both take the rules
as they are: nothing is sold, no price answers, late oracles have published.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from undertow.errors import StateError
from undertow.fanout import Executor
from undertow.fanout.executor import Crew
from undertow.kernels.fixed import quanta_per_unit
from undertow.state import FloatColumn, FloatMatrix, KeyColumn
from undertow.stress.lanes import Bounds
from undertow.stress.options import Options
from undertow.stress.parts import laid_out
from undertow.stress.plan import Plan
from undertow.stress.setting import shocks_of
from undertow.stress.stressed import Stressed


class Called(NamedTuple):
    """What is at risk at each point of a surface."""

    total: FloatMatrix  # (points, groups, kinds)
    accounts: KeyColumn  # (points,)


@dataclass(frozen=True, eq=False)
class AtRisk:
    """A book laid out over workers, to be asked who is called where."""

    plan: Plan
    stressed: Stressed
    crew: Crew

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
    ) -> Iterator[AtRisk]:
        """Lay a book out over the workers of `executor`; they are let go at the end.

        `bounds` are those of the plan, where they were drawn already.
        """
        stressed = stressed or Stressed.calm(plan.snapshot)
        with laid_out(plan, stressed, options, executor, bounds) as (_, crew):
            yield cls(plan, stressed, crew)

    def first_called(self, factors: FloatMatrix) -> KeyColumn:
        """By account, the first of the points (points, assets) at which it is called.

        The number of points where it never is. The moves of a line only grow.
        """
        shocks = self._shocks(factors)
        found = np.full(len(self.plan.hold.accounts), len(shocks), dtype=np.int64)
        for accounts, first in self.crew.call("first_called", shocks):
            found[accounts] = first
        return found

    def called(self, factors: FloatMatrix, group: KeyColumn, weight: FloatMatrix) -> Called:
        """What `weight` (accounts, kinds) of those called at each point adds up to by group.

        Raises
        ------
        StateError
            When a weight is negative or not finite.
        """
        if not np.isfinite(weight).all() or (weight < 0.0).any():
            raise StateError("a weight is negative or not finite")
        per_unit = np.array([quanta_per_unit(float(w.sum())) for w in weight.T])
        counts = np.rint(weight * per_unit).astype(np.int64)
        parts = self.crew.call("called", self._shocks(factors), group, counts)
        total = sum(part[0] for part in parts)
        return Called(np.asarray(total / per_unit), np.asarray(sum(part[1] for part in parts)))

    def _shocks(self, factors: FloatMatrix) -> FloatMatrix:
        moves = self.stressed.factor + np.atleast_2d(factors)
        return np.stack(shocks_of(self.plan, self.stressed, moves), axis=1)


def line_of(direction: FloatColumn, falls: FloatColumn) -> FloatMatrix:
    """Factor moves (points, assets) of relative falls along a direction; below 0 they are rises."""
    return np.log1p(-np.outer(falls, direction))
