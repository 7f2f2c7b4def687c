"""What goes round: claims that lead back to whoever they are on, and could be cancelled.

Rows and columns are nodes; an entry is USD of a row's assets that is a claim on the column. What
goes round a node is the most that flows from it back to itself while no claim carries more than it
is. Where circles meet, one dollar of a claim is part of one of them at most.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow

from undertow.state import AnyColumn, FloatColumn

_WHOLE = 2**30  # what a flow is counted in: scipy's flows are whole 32-bit numbers
_DUST = 1e-8  # of the claims on a node: what goes round of less is rounding


class Round(NamedTuple):
    """What goes round when circles are cancelled one after the other."""

    once: FloatColumn  # by node: USD that goes round it, and went round none before it
    cancelled: FloatColumn  # by node: USD of claims on it that were part of any circle
    left: Any  # (nodes, nodes) claims without them


def round_trip(usd: Any, mine: AnyColumn, whole: float) -> float:
    """The most that flows from some nodes round to any of them; `whole` is USD of claims on them.

    What they owe each other stays between them.
    """
    found = _flow(usd, mine, whole)
    return 0.0 if found is None else float(found.flow_value) / _WHOLE * whole


def counted_once(usd: Any, order: Iterable[int], whole: FloatColumn) -> Round:
    """What goes round each node in turn, over claims of which no dollar went round before."""
    left = csr_array(usd, copy=True)
    size = left.shape[0]
    once, cancelled = np.zeros(size), np.zeros(size)
    for node in order:
        found = _flow(left, np.array([node]), float(whole[node]))
        if found is None or found.flow_value <= _DUST * _WHOLE:
            continue
        flow = found.flow.tocoo()
        used = flow.data > 0
        back = np.where(flow.col == size + 1, node, flow.col)[used]
        start = np.where(flow.row == size, node, flow.row)[used]
        carried = csr_array((flow.data[used] / _WHOLE * whole[node], (start, back)), left.shape)
        once[node] = float(found.flow_value) / _WHOLE * whole[node]
        cancelled += np.asarray(carried.sum(axis=0)).ravel()
        left = csr_array(left - carried)
        left.data = np.maximum(left.data, 0.0)
    return Round(once, cancelled, left)


def _flow(usd: Any, mine: AnyColumn, whole: float) -> Any:
    """The largest flow from nodes to themselves, in parts of `whole`; none where there is no way.

    Together they are cut in two: what leaves them begins at a node after all others, and what
    comes back ends at the one after that.
    """
    size, edges = usd.shape[0], usd.tocoo()
    leaves, comes = np.isin(edges.row, mine), np.isin(edges.col, mine)
    here = (edges.data > 0.0) & ~(leaves & comes & (edges.row != edges.col))
    if whole <= 0.0 or not (here & leaves).any() or not (here & comes).any():
        return None
    ends = np.where(leaves, size, edges.row)[here], np.where(comes, size + 1, edges.col)[here]
    counts = np.rint(np.minimum(edges.data[here] / whole, 1.0) * _WHOLE).astype(np.int64)
    graph = csr_array((counts, ends), shape=(size + 2, size + 2))
    graph.sum_duplicates()
    graph.data = np.minimum(graph.data, _WHOLE).astype(np.int32)
    return maximum_flow(graph, size, size + 1)
