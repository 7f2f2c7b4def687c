"""What everybody can pay when everybody owes everybody: clearing with and without default costs.

A node has assets outside, owes to other nodes and outside, and pays all it owes if it can. If it
cannot, it pays what is left after the costs of default, to all creditors pro rata. Payments are the
greatest that fit (nobody defaults who need not) or the least (who defaults together with others is
not saved by believing in them).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from undertow.econometrics.checks import BoolColumn, FloatColumn, frozen
from undertow.econometrics.payments import Case, Order, Paid, falling, rising, within_means
from undertow.errors import EstimationError
from undertow.kernels import clearing as kernel


@dataclass(frozen=True, eq=False)
class Debts:
    """Who owes whom: edges as rows of creditors, and what each node owes in all."""

    start: NDArray[np.int64]
    debtor: NDArray[np.int64]
    value: FloatColumn
    inside: FloatColumn  # by node: owed to other nodes
    outside: FloatColumn  # by node: owed to nobody here

    @classmethod
    def of(
        cls,
        debtor: ArrayLike,
        creditor: ArrayLike,
        value: ArrayLike,
        nodes: int,
        outside: ArrayLike | None = None,
    ) -> Debts:
        """Debts from edges; several between the same two add up.

        Raises
        ------
        EstimationError
            When an edge ends at no node or where it began, or a debt is negative or not finite.
        """
        m, i = (np.asarray(end, dtype=np.int64) for end in (debtor, creditor))
        x = np.asarray(value, dtype=np.float64)
        if not m.shape == i.shape == x.shape or x.ndim != 1:
            raise EstimationError("debtors, creditors and values differ in length")
        for name, end in (("debtor", m), ("creditor", i)):
            if len(end) and not (end.min() >= 0 and end.max() < nodes):
                raise EstimationError(f"a {name} is none of the {nodes} nodes")
        if (m == i).any():
            raise EstimationError(
                f"node {int(m[m == i][0])} owes to itself",
                hint="leave out what a node owes to itself: it can always pay that",
            )
        if not np.isfinite(x).all() or (x < 0.0).any():
            raise EstimationError("a debt is negative or not finite")
        owed = _column("outside", np.zeros(nodes) if outside is None else outside, nodes)
        if (owed < 0.0).any():
            raise EstimationError("a debt to the outside is negative")
        start, sorted_debtor, sorted_value = kernel.by_creditor(m, i, x, nodes)
        inside = np.bincount(m, x, nodes).astype(np.float64)
        return cls(*map(frozen, (start, sorted_debtor, sorted_value, inside, owed)))

    def __len__(self) -> int:
        return len(self.inside)

    @property
    def owed(self) -> FloatColumn:
        """By node: all that it owes."""
        return self.inside + self.outside

    @property
    def share(self) -> FloatColumn:
        """By edge: its share of all that the debtor owes."""
        owed = self.owed[self.debtor]
        return np.divide(self.value, owed, out=np.zeros_like(self.value), where=owed > 0.0)

    @property
    def due(self) -> FloatColumn:
        """By node: what others owe to it."""
        row = np.repeat(np.arange(len(self)), np.diff(self.start))
        return np.bincount(row, self.value, len(self)).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Clearing:
    """What nodes pay, receive and are left with."""

    paid: FloatColumn  # of all that each owes
    owed: FloatColumn
    received: FloatColumn  # from other nodes
    outside: FloatColumn  # paid to the outside
    equity: FloatColumn  # what is left to owners; never below 0
    cost: FloatColumn  # what default itself used up
    defaulted: BoolColumn
    sweeps: int
    settled: bool  # where not, nobody pays more than it has, but some might pay more than said

    @property
    def shortfall(self) -> FloatColumn:
        """By node: what it owes and does not pay."""
        return self.owed - self.paid


def clearing(
    debts: Debts,
    assets: ArrayLike,
    *,
    keep_assets: float = 1.0,
    keep_received: float = 1.0,
    least: bool = False,
) -> Clearing:
    """Payments at which everybody pays all it owes, or all it has left.

    Who defaults keeps the shares `keep_assets` of what it has outside and `keep_received` of what
    it receives, to pay with; what is lost of them is the cost of default. With both at 1 there is
    one answer wherever everybody in debt can be reached by some asset; below 1 there may be
    several: the greatest unless the `least` is asked for.

    Where nothing settles, `settled` is False, and payments are some that everybody can make.

    Raises
    ------
    EstimationError
        When assets are negative (owe them to the outside instead), or a share is none.

    References
    ----------
    Eisenberg and Noe (2001), Management Science 47; Rogers and Veraart (2013), Management Science
    59.
    """
    e = _column("assets", assets, len(debts))
    if (e < 0.0).any():
        raise EstimationError(
            f"assets of node {int(np.argmin(e))} are {e.min():g}, below nothing",
            hint="what is owed beyond them belongs to what it owes to the outside",
        )
    for name, kept in (("keep_assets", keep_assets), ("keep_received", keep_received)):
        if not 0.0 <= kept <= 1.0:
            raise EstimationError(f"{name} was {kept}; it must be a share, 0 to 1")
    lost = np.divide(debts.outside, debts.owed, out=np.zeros_like(e), where=debts.owed > 0.0)
    order = Order(debts.start, debts.debtor, debts.value)
    case = Case(order, debts.share, lost, e, debts.owed, keep_assets, keep_received)
    reached = case.reached(e > 0.0) if least else np.ones(len(e), dtype=np.bool_)
    if least and min(keep_assets, keep_received) < 1.0:
        found = rising(case)
    else:  # without costs nothing but what no asset reaches can be less than the greatest
        found = falling(case, np.where(reached, case.owed, 0.0))
    return _cleared(debts, case, found if found.settled else within_means(case, found.sweeps))


def failing(debts: Debts, assets: ArrayLike, recovery: float) -> BoolColumn:
    """Who fails when claims on those who failed are worth a fixed share, round by round.

    A node fails once it loses more than its equity at face value; `recovery` is the share of a
    failed node's debts that others still get.

    Raises
    ------
    EstimationError
        When the recovery is no share.

    References
    ----------
    Furfine (2003), Journal of Money, Credit and Banking 35.
    """
    if not 0.0 <= recovery <= 1.0:
        raise EstimationError(f"recovery was {recovery}; it must be a share, 0 to 1")
    equity = _column("assets", assets, len(debts)) + debts.due - debts.owed
    claims = csr_array((debts.value, debts.debtor, debts.start), shape=(len(debts), len(debts)))
    failed: BoolColumn = equity < 0.0
    while True:
        then: BoolColumn = failed | (equity < (1.0 - recovery) * (claims @ failed.astype(float)))
        if (then == failed).all():
            return frozen(failed)
        failed = then


def _cleared(debts: Debts, case: Case, found: Paid) -> Clearing:
    paid, short, assets, owed = found.paid, found.short, case.assets, case.owed
    received = np.empty(len(debts))
    kernel.receive(debts.start, debts.debtor, case.share, paid, received)
    lost = (1.0 - case.keep_assets) * assets + (1.0 - case.keep_received) * received
    cost = np.where(short, lost, 0.0)
    outside = np.divide(paid * debts.outside, owed, out=np.zeros_like(paid), where=owed > 0.0)
    equity = np.maximum(assets + received - paid - cost, 0.0)
    return Clearing(
        paid=frozen(paid), owed=frozen(owed), received=frozen(received), outside=frozen(outside),
        equity=frozen(equity), cost=frozen(cost), defaulted=frozen(short.copy()),
        sweeps=found.sweeps, settled=found.settled,
    )  # fmt: skip


def _column(name: str, values: ArrayLike, size: int) -> FloatColumn:
    x = np.array(values, dtype=np.float64)
    if x.shape != (size,) or not np.isfinite(x).all():
        raise EstimationError(f"{name} must be {size} finite numbers, one a node")
    return x
