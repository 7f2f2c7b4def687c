"""What things are made of in the end, where things stand on each other and perhaps in circles.

Row i of `shares` says what stands behind one unit of node i: the share of it that is claims on each
other node. Row i of `ends` says the share that is something of which nobody asks what it is made
of. What a row lacks of 1 stands on nothing that was told.

Value is followed from a node down to where it ends. Circles are taken out whole: nodes that can
reach each other are solved together, those they stand on before them. A circle with no way out
stands on nothing but itself: nothing of it ends anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, diags_array, eye_array
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from undertow.econometrics.checks import BoolColumn, FloatColumn, FloatMatrix, frozen
from undertow.econometrics.radius import radius
from undertow.errors import EstimationError

_DUST = 1e-12  # of a row: a share of less is rounding
_DENSE = 1_500  # nodes of one circle that are solved by a full matrix


@dataclass(frozen=True, eq=False)
class LookThrough:
    """Where the value of every node ends, and how much of it comes back on the way."""

    ends: FloatMatrix  # (nodes, ends) shares; with `untold` and `circular` a row sums to 1
    untold: FloatColumn  # share of which nobody told what it stands on, here or further down
    circular: FloatColumn  # share that ends in a circle without a way out
    returns: FloatColumn  # share of a node's value that leads back to the node itself
    circle: NDArray[np.int64]  # by node: which set of nodes it can reach and be reached from
    in_circle: BoolColumn
    depth: NDArray[np.int64]  # longest way down, a circle counted as one step

    @property
    def multiplier(self) -> FloatColumn:
        """1 / (1 - returns): how often one unit of what ends stands as a claim on the node."""
        out = 1.0 - self.returns
        endless = np.full(len(out), np.inf)
        found: FloatColumn = np.divide(1.0, out, out=endless, where=out > _DUST)
        return found


def look_through(shares: Any, ends: Any) -> LookThrough:
    """Follow the value of every node to where it ends.

    Raises
    ------
    EstimationError
        When shares are negative or not finite, a row is more than whole, or shapes differ.
    """
    p = csr_array(shares, dtype=np.float64, copy=True)
    ends = np.asarray(ends, dtype=np.float64)
    p.sum_duplicates()
    p.eliminate_zeros()
    nodes = p.shape[0]
    _require(p, ends)
    circles, label = connected_components(p, connection="strong")
    label = label.astype(np.int64)
    loops = p.diagonal() > 0.0
    in_circle = (np.bincount(label, minlength=circles)[label] > 1) | loops
    depth = _depths(p, label, circles)
    told = np.minimum(np.asarray(p.sum(axis=1)).ravel() + ends.sum(axis=1), 1.0)
    # Two more ends: what was not told, and what a circle without a way out keeps.
    whole = np.column_stack([ends, 1.0 - told, np.zeros(nodes)])
    whole[np.abs(whole) < _DUST] = 0.0
    found, returns = np.zeros_like(whole), np.zeros(nodes)
    for level in range(int(depth.max(initial=-1)) + 1):
        here = depth == level
        plain = np.flatnonzero(here & ~in_circle)
        found[plain] = whole[plain] + p[plain] @ found
        for circle in np.unique(label[here & in_circle]):
            rows = np.flatnonzero(label == circle)
            found[rows], returns[rows] = _solved(p, rows, whole, found)
    return LookThrough(
        ends=frozen(found[:, :-2].copy()), untold=frozen(found[:, -2].copy()),
        circular=frozen(found[:, -1].copy()), returns=frozen(returns), circle=frozen(label),
        in_circle=frozen(in_circle), depth=frozen(depth),
    )  # fmt: skip


def passing(shares: Any, through: Sequence[ArrayLike]) -> FloatMatrix:
    """(nodes, sets) Share of every node's value that leads through each set of nodes.

    A node of a set leads through it whole. Shares of several sets may add up to more than 1, since
    value may pass one after the other.

    Raises
    ------
    EstimationError
        As `look_through` does.
    """
    p = csr_array(shares, dtype=np.float64)
    nodes = p.shape[0]
    found = np.zeros((nodes, len(through)))
    for column, some in enumerate(through):
        here = np.zeros(nodes)
        here[np.asarray(some, dtype=np.int64)] = 1.0
        others = diags_array(1.0 - here)  # whoever arrives has arrived
        arrives = others @ (p @ here)
        found[:, column] = look_through(others @ p @ others, arrives[:, None]).ends[:, 0] + here
    return found


@dataclass(frozen=True, eq=False)
class Standing:
    """All claims that stand on what is there at the bottom."""

    claims: FloatColumn  # by node; infinite where reuse has no end
    radius: float  # spectral radius of reuse
    finite: bool


def claims_standing(reuse: Any, base: ArrayLike) -> Standing:
    """Claims c = (I - R)^-1 e that stand on the base e, with R[j, k] the claims on j that one unit
    of claims on k is made to carry.

    Where the radius is 1 or more, reuse has no end: every claim that it reaches is infinite.

    Raises
    ------
    EstimationError
        When reuse or base are negative or not finite, or their shapes differ.

    References
    ----------
    Singh (2011), "Velocity of pledged collateral", IMF WP/11/256; Luu et al. (2021), "Collateral
    unchained", Journal of Economic Dynamics and Control 123.
    """
    r = csr_array(reuse, dtype=np.float64)
    e = np.asarray(base, dtype=np.float64)
    if r.shape != (len(e), len(e)) or not np.isfinite(r.data).all() or (r.data < 0.0).any():
        raise EstimationError("reuse must be a square matrix of numbers from 0 up, a row a node")
    if not np.isfinite(e).all() or (e < 0.0).any():
        raise EstimationError("the base must be numbers from 0 up")
    if not len(e):
        return Standing(frozen(e.copy()), 0.0, finite=True)
    size = radius(r)
    if size < 1.0 - _DUST:
        found = splu((eye_array(len(e), format="csc") - r.tocsc()).tocsc()).solve(e)
        return Standing(frozen(_no_less(found)), size, finite=True)
    return Standing(frozen(_endless(r, e)), size, finite=False)


def _endless(r: Any, e: FloatColumn) -> FloatColumn:
    """Claims where some circle multiplies without end: infinite there and above, the rest solved.

    Claims flow along columns to rows, so whatever a divergent circle with base feeds has no end.
    """
    count, label = connected_components(r, connection="strong")
    endless = np.zeros(len(e), dtype=np.bool_)
    for circle in range(count):
        rows = np.flatnonzero(label == circle)
        endless[rows] = radius(r[rows][:, rows]) >= 1.0 - _DUST
    steps = csr_array((np.ones_like(r.data), r.indices, r.indptr), shape=r.shape)
    fed = _spread(steps, e > 0.0)
    infinite = _spread(steps, endless & fed)
    rest = np.flatnonzero(~infinite & fed)
    found = np.where(infinite, np.inf, 0.0)
    if len(rest):
        inner = eye_array(len(rest), format="csc") - r[rest][:, rest].tocsc()
        found[rest] = _no_less(splu(inner.tocsc()).solve(e[rest]))
    return found


def _no_less(claims: FloatColumn) -> FloatColumn:
    """Claims without the dust that solving leaves below nothing."""
    if claims.min(initial=0.0) < -1e-6 * max(float(np.abs(claims).max(initial=0.0)), 1e-300):
        raise EstimationError("claims that stand on the base came out below nothing: reuse has no "
                              "solution that makes sense")  # fmt: skip
    found: FloatColumn = np.maximum(claims, 0.0)
    return found


def _spread(steps: Any, seeds: BoolColumn) -> BoolColumn:
    reached = seeds.copy()
    while True:
        further = reached | ((steps @ reached.astype(np.float64)) > 0.0)
        if (further == reached).all():
            return reached
        reached = further


def _solved(
    p: Any, rows: NDArray[np.int64], whole: FloatMatrix, found: FloatMatrix
) -> tuple[FloatMatrix, FloatColumn]:
    """Where the value of one circle ends, and how much of each node's comes back to it."""
    mine = p[rows]
    inner = mine[:, rows]
    below = whole[rows] + mine @ found  # rows of the circle itself are still 0 there
    if float(below.sum()) <= _DUST * len(rows):
        kept = np.zeros_like(below)
        kept[:, -1] = 1.0
        return kept, np.ones(len(rows))
    if len(rows) <= _DENSE:
        visits = np.linalg.inv(np.eye(len(rows)) - inner.toarray())
        solved, own = visits @ below, np.diag(visits)
    else:
        factors = splu((eye_array(len(rows), format="csc") - inner.tocsc()).tocsc())
        solved = factors.solve(below)
        own = _diagonal(factors, len(rows))
    solved = np.maximum(solved, 0.0)
    # All of it ends somewhere; where next to nothing leaves the circle at a time, rounding of that
    # next to nothing is what makes it look more or less.
    ends = solved.sum(axis=1, keepdims=True)
    solved = np.divide(solved, ends, out=solved, where=ends > 0.0)
    return solved, np.clip(1.0 - 1.0 / np.maximum(own, 1.0), 0.0, 1.0)


def _diagonal(factors: Any, size: int) -> FloatColumn:
    """Diagonal of the inverse, some columns at a time."""
    own, step = np.empty(size), 256
    for first in range(0, size, step):
        columns = np.arange(first, min(first + step, size))
        unit = np.zeros((size, len(columns)))
        unit[columns, np.arange(len(columns))] = 1.0
        own[columns] = factors.solve(unit)[columns, np.arange(len(columns))]
    return own


def _depths(p: Any, label: NDArray[np.int64], circles: int) -> NDArray[np.int64]:
    """By node: the longest way down over circles, 0 for what stands on no other node."""
    rows = np.repeat(np.arange(p.shape[0]), np.diff(p.indptr))
    upper, lower = label[rows], label[p.indices]
    apart = upper != lower
    edges = np.unique(np.stack([upper[apart], lower[apart]]), axis=1)
    depth = np.zeros(circles, dtype=np.int64)
    for _ in range(circles):
        further = depth.copy()
        np.maximum.at(further, edges[0], depth[edges[1]] + 1)
        if (further == depth).all():
            break
        depth = further
    return depth[label]


def _require(p: Any, ends: FloatMatrix) -> None:
    nodes = p.shape[0]
    if p.shape != (nodes, nodes) or ends.ndim != 2 or len(ends) != nodes:
        raise EstimationError(
            f"shares are {p.shape[0]} by {p.shape[1]} and ends {ends.shape}; give a square matrix "
            "and a row of ends a node"
        )
    for name, values in (("shares", p.data), ("ends", ends)):
        if not np.isfinite(values).all() or (values < 0.0).any():
            raise EstimationError(f"{name} are negative or not finite")
    total = np.asarray(p.sum(axis=1)).ravel() + ends.sum(axis=1)
    over = np.flatnonzero(total > 1.0 + 1e-9)
    if len(over):
        raise EstimationError(
            f"node {over[0]} is made of {total[over[0]]:.6g} of itself; shares of a row sum to at "
            "most 1"
        )
