"""Payments that fit each other on a graph of debts: from all that is owed down, or from nothing up.

Sweeps let each node pay at what the others pay by then. They begin in the order given, and go on
with the flow of debts and against it in turn, so that nobody's number matters. Once the same nodes
have been in default for some sweeps their payments are solved for at once, as they are linear.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, depth_first_order

from undertow.econometrics.checks import BoolColumn, FloatColumn
from undertow.econometrics.leontief import solved
from undertow.kernels import clearing as kernel

_STILL = 1e-13  # of what is owed: payments that change by less have settled
_ROUNDING = 1e-15  # changes that need not get smaller any more
_PATIENCE = 3  # sweeps with the same defaults, before their payments are solved for at once
_QUICK = 0.3  # changes that shrink to that with each sweep need no solving
_LONG = 30  # sweeps, before payments are solved for whoever is in default
_PLAIN = 24  # sweeps in the order given, before nodes are put in that of the flow
_MOST, _FEASIBLE = 3_000, 300  # sweeps; and those of payments that fit where nothing settles
_SLACK = 1e-12  # of what is owed, as in the kernel


@dataclass(frozen=True, eq=False)
class Order:
    """Rows of a graph of debts in the order given, and in one that goes with the flow or against.

    With the flow a node comes after those who owe to it, so that one sweep follows a chain of debts
    to its end, however its nodes are numbered.
    """

    start: NDArray[np.int64]
    debtor: NDArray[np.int64]
    value: FloatColumn

    @cached_property
    def creditor(self) -> NDArray[np.int64]:
        """By edge."""
        return np.repeat(np.arange(len(self.start) - 1), np.diff(self.start))

    @cached_property
    def onward(self) -> csr_array:
        """Who owes to whom, where there is a debt; the last node leads to all."""
        size, some = len(self.start) - 1, self.value > 0.0
        ends = np.concatenate([self.debtor[some], np.full(size, size)])
        into = np.concatenate([self.creditor[some], np.arange(size)])
        return csr_array((np.ones(len(ends)), (ends, into)), shape=(size + 1, size + 1))

    @cached_property
    def both(self) -> tuple[_Way, _Way]:
        """Against the flow is the flow turned round."""
        flow = _after_those_before(self.onward)
        return self._along(flow), self._along(flow[::-1].copy())

    def _along(self, node: NDArray[np.int64]) -> _Way:
        edges = csr_array(
            (np.arange(len(self.debtor)), self.debtor, self.start), shape=(len(node), len(node))
        )[node]
        rank = np.empty(len(node), dtype=np.int64)
        rank[node] = np.arange(len(node))
        return _Way(node, edges.indptr.astype(np.int64), rank[edges.indices], edges.data)


class _Way(NamedTuple):
    """The same graph with its nodes in another order."""

    node: NDArray[np.int64]
    start: NDArray[np.int64]
    debtor: NDArray[np.int64]
    edge: NDArray[np.int64]


def _after_those_before(onward: csr_array) -> NDArray[np.int64]:
    """Nodes but the last, each after those that lead to it, but where ways go round.

    The search goes deep first from the last node; who is left last comes first.
    """
    size = onward.shape[0] - 1
    found, parent = depth_first_order(onward, size)
    depth, below = [0] * (size + 1), [1] * (size + 1)
    order, above = found.tolist(), parent.tolist()
    for node in order[1:]:
        depth[node] = depth[above[node]] + 1
    for node in order[:0:-1]:
        below[above[node]] += below[node]
    left = np.arange(size + 1) - np.array(depth)[found] + np.array(below)[found]
    by_leaving = found[np.argsort(-left, kind="stable")]
    nodes: NDArray[np.int64] = by_leaving[by_leaving != size].astype(np.int64)
    return nodes


@dataclass(frozen=True, eq=False)
class Case:
    """Debts, what is there to pay them, and what default leaves of it."""

    order: Order
    share: FloatColumn  # by edge
    lost: FloatColumn  # by node: of what it pays, the part that no edge brings to another
    assets: FloatColumn
    owed: FloatColumn
    keep_assets: float
    keep_received: float

    def sweep(self, turn: int, paid: FloatColumn, short: BoolColumn, *, rising: bool) -> float:
        """Let all pay once, and say the largest change; writes `paid` and `short`."""
        kept = self.keep_assets, self.keep_received
        if turn <= _PLAIN:
            change: float = kernel.pay(
                self.order.start, self.order.debtor, self.share, self.assets, self.owed, *kept,
                rising, paid, short,
            )  # fmt: skip
            return change
        k = turn % 2
        way, (share, assets, owed) = self.order.both[k], self._turned[k]
        by_way, then = paid[way.node], short[way.node]
        change = kernel.pay(way.start, way.debtor, share, assets, owed, *kept, rising, by_way, then)
        paid[way.node], short[way.node] = by_way, then
        return change

    @cached_property
    def _turned(self) -> tuple[tuple[FloatColumn, ...], ...]:
        return tuple(
            (self.share[way.edge], self.assets[way.node], self.owed[way.node])
            for way in self.order.both
        )

    @cached_property
    def shares(self) -> csr_array:
        """Rows of creditors, columns of debtors."""
        size = len(self.owed)
        return csr_array((self.share, self.order.debtor, self.order.start), shape=(size, size))

    def reached(self, first: BoolColumn) -> BoolColumn:
        """By node: whether something can flow to it from those."""
        size = len(self.owed)
        onward = self.order.onward
        ways = onward[:size][:, :size].tocoo()
        ends = np.concatenate([ways.row, np.full(int(first.sum()), size)])
        into = np.concatenate([ways.col, np.flatnonzero(first)])
        graph = csr_array((np.ones(len(ends)), (ends, into)), shape=onward.shape)
        found: BoolColumn = np.zeros(size + 1, dtype=np.bool_)
        found[breadth_first_order(graph, size, return_predecessors=False)] = True
        return found[:size]

    def without_jumps(self, whole: BoolColumn) -> Case:
        """The same where `whole` pay all they owe, and others what they keep, default or not."""
        assets = np.where(whole, self.owed, self.keep_assets * self.assets)
        kept = self.keep_received
        lost = self.lost + (1.0 - kept) * (1.0 - self.lost)
        return Case(self.order, kept * self.share, lost, assets, self.owed, 1.0, 1.0)


class Paid(NamedTuple):
    """Payments, who is in default, and whether they fit each other."""

    paid: FloatColumn
    short: BoolColumn
    sweeps: int
    settled: bool


class _Pace:
    """How sweeps go on: whether they have come to rest, and when it is time to solve at once.

    That is when the same nodes have been in default for some sweeps and payments creep, or after
    many sweeps whoever is in default.
    """

    def __init__(self) -> None:
        self.count, self.change, self.solved, self.quick = -1, np.inf, False, False
        self.same, self.since, self.wait = 0, 0, _PATIENCE

    def at_rest(self, change: float, count: int) -> bool:
        """Whether payments stand; small changes say so only where they have not been creeping."""
        if count != self.count:
            self.count, self.same, self.wait, self.solved = count, 0, _PATIENCE, False
        still = change <= _STILL
        sure = self.solved or change <= max(0.5 * self.change, _ROUNDING) or not count
        self.quick, self.change = change <= _QUICK * self.change, change
        self.same, self.since, self.solved = self.same + 1, self.since + 1, self.solved and still
        return still and sure

    @property
    def due(self) -> bool:
        if self.solved or self.quick or not self.count:
            return False
        if self.wait == _PATIENCE and (self.change <= _STILL or self.since > _LONG):
            return True
        return self.same > self.wait

    def tried(self, *, found: bool) -> None:
        self.solved, self.same, self.since, self.wait = found, 0, 0, 2 * self.wait


def falling(case: Case, paid: FloatColumn) -> Paid:
    """The greatest payments that are no more than these, from which all can only fall."""
    short, pace = np.zeros(len(paid), dtype=np.bool_), _Pace()
    for sweeps in range(1, _MOST + 1):
        change = case.sweep(sweeps, paid, short, rising=False)
        if pace.at_rest(change, int(short.sum())):
            return Paid(paid, short, sweeps, True)
        if pace.due:
            pace.tried(found=_solve(case, paid, short))
    return Paid(paid, short, _MOST, False)


def rising(case: Case) -> Paid:
    """The least payments, from nothing up: who can pay all of it at what others pay by then does.

    Between those who cannot, payments are the least that fit without anybody else who can: a
    question without jumps, with one answer wherever something flows.
    """
    paid, short, pace = np.zeros(len(case.owed)), case.owed > 0.0, _Pace()
    for sweeps in range(1, _MOST + 1):
        change = case.sweep(sweeps, paid, short, rising=True)
        if pace.at_rest(change, int(short.sum())):
            return Paid(paid, short, sweeps, True)
        if pace.due:
            whole = (case.owed > 0.0) & ~short
            plain = case.without_jumps(whole)
            flows = case.reached((plain.assets > 0.0) | whole)
            among = falling(plain, np.where(flows, case.owed, 0.0))
            if among.settled:
                np.maximum(paid, among.paid, out=paid)
            pace.tried(found=among.settled)
    return Paid(paid, short, _MOST, False)


def within_means(case: Case, sweeps: int) -> Paid:
    """Payments that everybody can make out of what others pay, though all might pay more."""
    paid, short = np.zeros(len(case.owed)), case.owed > 0.0
    for more in range(1, _FEASIBLE + 1):
        if case.sweep(_PLAIN + more, paid, short, rising=True) <= _STILL:
            break
    return Paid(paid, case.owed * (1.0 - _SLACK) > paid, sweeps + more, False)


def _solve(case: Case, paid: FloatColumn, short: BoolColumn) -> bool:
    """Move payments down to where those in default settle, if nobody joins them; if it was done."""
    among = np.flatnonzero(short)
    mine = case.shares[among]
    base = case.keep_assets * case.assets[among] + case.keep_received * (
        mine @ np.where(short, 0.0, paid)
    )
    inner = mine[:, among]
    order = case.order
    on = np.bincount(order.debtor, case.share * ~short[order.creditor], len(paid))[among]
    inside = np.bincount(inner.indices, inner.data, len(among))
    kept = on + (1.0 - case.keep_received) * inside + case.lost[among]
    found = solved(case.keep_received * inner, base, kept, paid[among])
    if found is None:
        return False
    paid[among] = np.clip(found, 0.0, paid[among])
    return True
