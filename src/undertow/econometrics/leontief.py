"""What comes in where everybody passes on a part of all that comes in: z = base + passed z.

`passed[i, j]` is the part of what comes in at j that goes on to i. Nodes through which only a few
ways lead (rings, chains, trees) are taken out, many at once, and their ways put together, until
nothing is left or a core in which everybody is tied to many. A small core is solved as it is. In a
large one what is put in is soon spread over all of it, so that steps come to rest; where they do
not, the core is long and thin, and is solved from one end to the other.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array, diags_array
from scipy.sparse.csgraph import reverse_cuthill_mckee
from scipy.sparse.linalg import LinearOperator, bicgstab, splu

from undertow.econometrics.checks import BoolColumn, FloatColumn

_WAYS = 16  # ways through a node that is taken out
_FEWEST = 0.05  # of the nodes that a round takes out: with fewer, the rest is a core
_SMALL, _MIDDLE = 500, 3_000  # nodes of a core that is solved as it is: at first, and at last
_ROOM = 6e7  # numbers that solving a core in order may ask for
_STEPS = 300  # in a large core
_CLOSE = 1e-14  # of all that is put in
_TINY = 1e-14  # of a node's own: what keeps less cannot be taken out


class _Out(NamedTuple):
    """Nodes that were taken out, what is left, and what the one gets from the other."""

    node: NDArray[np.int64]
    rest: NDArray[np.int64]
    got: csr_array  # (node, rest)
    base: FloatColumn
    own: FloatColumn


def solved(
    passed: csr_array,
    base: FloatColumn,
    kept: FloatColumn | None = None,
    near: FloatColumn | None = None,
) -> FloatColumn | None:
    """The `z` with `z = base + passed @ z`; nothing where there is none, or none to be found.

    `kept` is what each node does not pass on, 1 less the sum of its column. Where it is given it
    need not be found as a difference, so that circles which pass on all but a last digit of what
    they get are solved to nearly every digit. Steps begin from what is `near`.
    """
    if not len(base):
        return base.copy()
    ways = _apart(csr_array(passed))
    here = 1.0 - np.asarray(passed.sum(axis=0)).ravel() if kept is None else kept.copy()
    left, guess = base.copy(), np.zeros_like(base) if near is None else near
    stack: list[_Out] = []
    while len(left):
        own = here + _sums(ways)
        out = _few_ways(ways, own)
        if out.sum() <= _FEWEST * len(left):
            break
        node, rest = np.flatnonzero(out), np.flatnonzero(~out)
        by_column = ways.tocsc()
        put, among = by_column[:, node].tocsr()[rest], by_column[:, rest].tocsr()
        got = among[node]
        part = 1.0 / own[node]
        stack.append(_Out(node, rest, got, left[node], own[node]))
        left, guess = left[rest] + put @ (left[node] * part), guess[rest]
        here = here[rest] + (here[node] * part) @ got
        ways = _apart(csr_array(among[rest] + (put @ diags_array(part)) @ got))
    z = _core(ways, here, left, guess) if len(left) else left
    if z is None:
        return None
    for each in reversed(stack):
        whole = np.empty(len(each.node) + len(each.rest))
        whole[each.rest] = z
        whole[each.node] = (each.base + each.got @ z) / each.own
        z = whole
    return z if np.isfinite(z).all() else None


def _apart(ways: csr_array) -> csr_array:
    """Ways between two nodes: what leads straight back is in what the others and `kept` add to."""
    ways.sum_duplicates()
    rows = np.repeat(np.arange(ways.shape[0]), np.diff(ways.indptr))
    on = (rows != ways.indices) & (ways.data != 0.0)
    if on.all():
        return ways
    start = np.concatenate([[0], np.cumsum(np.bincount(rows[on], minlength=ways.shape[0]))])
    return csr_array((ways.data[on], ways.indices[on], start), shape=ways.shape)


def _sums(ways: csr_array) -> FloatColumn:
    """By column."""
    return np.bincount(ways.indices, ways.data, ways.shape[1]).astype(np.float64)


def _few_ways(ways: csr_array, own: FloatColumn) -> BoolColumn:
    """Nodes through which few ways lead, no two of them next to each other."""
    size = len(own)
    through = np.diff(ways.indptr) * np.bincount(ways.indices, minlength=size)
    few: BoolColumn = (through <= _WAYS) & (own > _TINY)
    if few.sum() <= _FEWEST * size:
        return few
    turn = np.where(few, through + np.random.default_rng(size).random(size), np.inf)
    first = np.full(size, np.inf)  # of the neighbours
    rows = np.repeat(np.arange(size), np.diff(ways.indptr))
    np.minimum.at(first, rows, turn[ways.indices])
    np.minimum.at(first, ways.indices, turn[rows])
    return turn < first


def _core(
    ways: csr_array, kept: FloatColumn, base: FloatColumn, near: FloatColumn
) -> FloatColumn | None:
    own = kept + _sums(ways)
    system = csc_array(diags_array(own, format="csc") - ways)
    if len(base) <= _SMALL:
        return _at_once(system, base)
    found = _stepwise(csr_array(system), own, base, near)
    if found is None:
        found = _along(system, base)
    return _at_once(system, base) if found is None and len(base) <= _MIDDLE else found


def _at_once(system: csc_array, base: FloatColumn, **how: Any) -> FloatColumn | None:
    try:
        found: FloatColumn = splu(system, **how).solve(base)
    except RuntimeError:  # singular: a circle keeps all of itself
        return None
    return found


def _stepwise(
    system: csr_array, own: FloatColumn, base: FloatColumn, near: FloatColumn
) -> FloatColumn | None:
    """Quick where all are tied to many others, so that nothing is far from anything."""
    if not (np.abs(own) > _TINY).all():
        return None
    part = 1.0 / own
    step = LinearOperator(system.shape, lambda z: system @ (part * z), dtype=np.float64)
    with np.errstate(all="ignore"):  # what breaks down is told by what it leaves
        found, _ = bicgstab(step, base, own * near, rtol=_CLOSE, atol=0.0, maxiter=_STEPS)
        found = part * found
        missed = np.abs(base - system @ found).sum()
        most = 1e2 * _CLOSE * np.abs(base).sum() + 1e-15 * np.abs(own * found).sum()
    return found if np.isfinite(found).all() and missed <= most else None


def _along(system: csc_array, base: FloatColumn) -> FloatColumn | None:
    """One after the other in an order in which neighbours are near, if that asks for little room.

    A core on which steps creep is long: crowds in a row, or a plane.
    """
    order = reverse_cuthill_mckee(csr_array(system), symmetric_mode=False)
    turned = csc_array(system[order][:, order])
    column = np.repeat(np.arange(len(base)), np.diff(turned.indptr))
    left, up = np.arange(len(base)), np.arange(len(base))
    np.minimum.at(left, turned.indices, column)
    np.minimum.at(up, column, turned.indices)
    if float((2 * np.arange(len(base)) - left - up).sum()) > _ROOM:
        return None
    found = _at_once(turned, base[order], permc_spec="NATURAL", diag_pivot_thresh=0.0)
    if found is None:
        return None
    z = np.empty_like(found)
    z[order] = found
    return z
