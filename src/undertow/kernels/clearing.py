"""Payments on a sparse graph of debts, to the fixed point.

Row i lists who owes to node i (`debtor`) and which share of all that the debtor owes that is. What
a node can pay is what it has outside and what it receives; who cannot pay all it owes pays what is
left of both after the costs of default. The map is monotone: from everything owed downwards it ends
at the greatest payments, from nothing upwards at the least.
"""

import numpy as np

from undertow.kernels import njit

_SLACK = 1e-12  # of what is owed: who lacks less than that pays all


@njit(cache=True, error_model="numpy", nogil=True)
def pay(start, debtor, share, assets, owed, keep_assets, keep_received, rising, paid, short):
    """Let every node pay once, each at what the others pay by then; the largest relative change.

    In default a node keeps the shares `keep_assets` and `keep_received` of what it has. Writes
    `paid`, and in `short` who does not pay all.
    """
    largest = 0.0
    for i in range(owed.size):
        if owed[i] <= 0.0:
            continue
        received = 0.0
        for n in range(start[i], start[i + 1]):
            received += share[n] * paid[debtor[n]]
        short[i] = assets[i] + received < owed[i] * (1.0 - _SLACK)
        can = owed[i]
        if short[i]:
            can = keep_assets * assets[i] + keep_received * received
        can = max(can, paid[i]) if rising else min(can, paid[i])
        largest = max(largest, abs(can - paid[i]) / owed[i])
        paid[i] = can
    return largest


@njit(cache=True, error_model="numpy", nogil=True)
def receive(start, debtor, share, paid, received):
    """Write what every node receives."""
    for i in range(received.size):
        total = 0.0
        for n in range(start[i], start[i + 1]):
            total += share[n] * paid[debtor[n]]
        received[i] = total


@njit(cache=True, error_model="numpy", nogil=True)
def spread(start, debtor, weight, level, before, stress):
    """Add to `stress` of every node what its debtors' rise from `before` to `level` does to it.

    `weight` is exposure over buffer; stress may pass 1, where nothing is left.
    """
    for i in range(stress.size):
        more = 0.0
        for n in range(start[i], start[i + 1]):
            m = debtor[n]
            more += weight[n] * (level[m] - before[m])
        stress[i] += more


def by_creditor(
    debtor: np.ndarray, creditor: np.ndarray, value: np.ndarray, nodes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Edges as rows of creditors: where each row starts, its debtors, their values."""
    order = np.lexsort((debtor, creditor))
    start = np.searchsorted(creditor[order], np.arange(nodes + 1)).astype(np.int64)
    return start, np.ascontiguousarray(debtor[order]), np.ascontiguousarray(value[order])
