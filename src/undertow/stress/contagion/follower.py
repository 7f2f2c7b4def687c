"""The cascade engine, as contagion runs it: many times on one book, with dearer debts.

A pass differs from the last in a few columns of its scenario. What borrowers pay on top is the one
that reaches every account, and to lay all accounts out anew for it would take longer than the
cascade: here debts are charged in place, to the same bits.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from undertow.kernels.accounts import Holdings
from undertow.kernels.margin import DEBT
from undertow.state import FloatColumn
from undertow.state.arrays import frozen
from undertow.stress.aftermath import Cascade
from undertow.stress.cascade import Engine
from undertow.stress.options import Options
from undertow.stress.plan import Plan
from undertow.stress.stressed import Stressed

_FAR = 2.0  # times what was owed; beyond, sums need more room and the engine makes it


class Follower(Engine):
    """An engine that also says what it took off reserves and the tokens that deposit there."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._book = plan
        self._charged: Holdings | None = None

    @property
    def gone(self) -> FloatColumn:
        """[I] Units of each reserve that its suppliers lost in the last run."""
        if self._common is None:
            return np.zeros(len(self.plan.insts))
        return np.array(self._common.shared["gone"])

    @property
    def receipt(self) -> FloatColumn:
        """[A] Share of each token that reserves still back, after the last run."""
        if self._state is None:
            return np.ones(len(self.plan.snapshot.universe.assets))
        return self._state.moving.receipt.copy()

    def forget(self) -> None:
        """Let the last result keep what accounts hold in it; the next run makes its own."""
        self._charged = None

    def follow(
        self, laid: Stressed, start: Stressed, options: Options, *, check: bool, trace: bool
    ) -> Cascade:
        """Run `laid`, which is `start` with what channels did; see `Engine.run`.

        What accounts hold in the cascade is overwritten by the next run, unless `forget` comes
        between.
        """
        cost = laid.rate_shock * laid.rate_hours
        scenarios = (start.rate_shock * start.rate_hours).any()
        if scenarios or not cost.any() or cost.max() > _FAR - 1.0:
            return self.run(laid, options, check=check, trace=trace)
        quiet = replace(
            laid, rate_shock=frozen(np.zeros_like(cost)), rate_hours=frozen(np.zeros_like(cost))
        )
        self.plan = self._book.like(hold=self._dearer(cost))
        try:
            ran = self.run(quiet, options, check=check, trace=trace)
        finally:
            self.plan = self._book
        said = "rates were charged on debts before the first round"
        return replace(ran, plan=self._book, stressed=laid, notes=(*ran.notes, said))

    def _dearer(self, cost: FloatColumn) -> Holdings:
        """What accounts hold when every debt has grown by the cost of its instrument."""
        legs = self._book.hold.legs
        if self._charged is None:
            self._charged = Holdings(self._book.hold.accounts, legs.copy())
            self._debts = np.flatnonzero(legs["role"] == DEBT)
            self._of_debts = legs["inst"][self._debts]
            self._owed = legs["qty"][self._debts]
        self._charged.legs["qty"][self._debts] = self._owed * (1.0 + cost)[self._of_debts]
        return self._charged
