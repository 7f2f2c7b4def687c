"""What defaults do to buffers near and far: impacts, and walks of any number of steps over them.

The impact of a node on another is the share of the other's buffer that its default takes. Walks
over impacts are added up, those of k steps over k! (the matrix exponential), so that near ones
count most and circles never grow without end. Nothing defaults here and no loss is followed: it is
a view of the network, as a centrality is; DebtRank says what a default costs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import expm
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen
from undertow.errors import EstimationError

_DENSE = 3_000  # nodes whose whole matrix is handed out
_CIRCLE = 1_500  # nodes that all reach each other, of which ways back are still told apart
_LAST = 1e-18  # of a sum: terms below do not change it
_MOST = 100_000  # terms
_ROOM = 20_000_000  # numbers that are held at once


@dataclass(frozen=True, eq=False)
class Diffusion:
    """What goes over a node: communicability that is gone once it passes on nothing."""

    start: FloatColumn  # of walks that begin at the node
    intermediate: FloatColumn  # of walks that begin elsewhere

    @property
    def total(self) -> FloatColumn:
        """Both."""
        return self.start + self.intermediate


@dataclass(frozen=True, eq=False)
class Impacts:
    """The share of each other's buffer that a default takes.

    References
    ----------
    Estrada and Hatano (2008), Physical Review E 77. Silva, Souza and Tabak (2015), "Monitoring
    vulnerability and impact diffusion in financial networks", Banco Central do Brasil 392.
    """

    matrix: csr_array  # (whose default, whose buffer)

    @classmethod
    def of(
        cls, exposures: ArrayLike | Any, buffer: ArrayLike, *, cap: bool = True,
        binary: bool = False,
    ) -> Impacts:  # fmt: skip
        """Impacts from a matrix, full or sparse, of what each (row) has claims on each (column).

        With `cap` a default takes at most all of a buffer, and all of a buffer of 0 where there is
        a claim. With `binary` impacts count 1 where all is taken and nothing elsewhere.

        Raises
        ------
        EstimationError
            When exposures are no square matrix with a buffer each, something is negative or not
            finite, a node has a claim on itself, or a buffer of 0 meets a claim without a cap.
        """
        b = np.asarray(buffer, dtype=np.float64)
        claims = csr_array(exposures, dtype=np.float64, copy=True)
        if b.ndim != 1 or claims.shape != (len(b), len(b)):
            raise EstimationError(
                f"exposures are {' by '.join(map(str, claims.shape))} and buffers {b.shape}; "
                "give a row, a column and a buffer a node"
            )
        claims.sum_duplicates()
        if not np.isfinite(claims.data).all() or (claims.data < 0.0).any():
            raise EstimationError("an exposure is negative or not finite")
        if not np.isfinite(b).all() or (b < 0.0).any():
            raise EstimationError("a buffer is negative or not finite")
        claims.eliminate_zeros()
        if claims.diagonal().any():
            node = int(np.flatnonzero(claims.diagonal())[0])
            raise EstimationError(f"node {node} holds a claim on itself")
        with np.errstate(divide="ignore", over="ignore"):
            share = claims.data / np.repeat(b, np.diff(claims.indptr))
        if binary:
            share = np.where(share >= 1.0, 1.0, 0.0)
        elif cap:
            share = np.minimum(share, 1.0)
        elif not np.isfinite(share).all():
            raise EstimationError(
                "a node with claims has no buffer, so that an impact on it has no size",
                hint="let impacts be capped at all of a buffer",
            )
        matrix = csr_array((share, claims.indices, claims.indptr), shape=claims.shape).T.tocsr()
        matrix.eliminate_zeros()
        frozen(matrix.data)
        return cls(matrix)

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def criticality(self, weight: ArrayLike | None = None) -> FloatColumn:
        """By node: buffers that its default takes at once, each counting 1 or its `weight`."""
        return np.asarray(self.matrix @ self._weight(weight), dtype=np.float64)

    @property
    def communicability(self) -> FloatMatrix:
        """(whose default, whose buffer): walks over impacts; 0 from a node to itself.

        Raises
        ------
        EstimationError
            When there are more nodes than a full matrix has room for; sums of its rows and
            columns, as in susceptibility and diffusion, can still be had.
        """
        if len(self) > _DENSE:
            raise EstimationError(
                f"{len(self):,} nodes; a matrix of all pairs is made for {_DENSE:,} at most",
                hint="ask for susceptibility or diffusion, which need no such matrix",
            )
        whole = np.array(expm(self.matrix.toarray())) if len(self) else np.zeros((0, 0))
        np.fill_diagonal(whole, 0.0)
        return _finite(np.maximum(whole, 0.0))

    @property
    def susceptibility(self) -> FloatColumn:
        """By node: walks that end there over impacts that do; 0 where there are none.

        Above 1 a node is open to defaults of others than its own debtors.
        """
        ones = np.ones(len(self))
        back = self.matrix.T.tocsr()
        direct = np.asarray(back @ ones, dtype=np.float64)
        near_and_far = np.maximum(_walks(back, ones) - self._returns, 0.0)
        return np.divide(near_and_far, direct, out=np.zeros(len(self)), where=direct > 0.0)

    @property
    def fluidity(self) -> float:
        """Mean susceptibility; 0 without nodes."""
        return float(self.susceptibility.mean()) if len(self) else 0.0

    def diffusion(
        self, nodes: ArrayLike | None = None, weight: ArrayLike | None = None
    ) -> Diffusion:
        """What goes over each of the `nodes` (all unless given), over its own impacts.

        With a `weight` buffers count by that, and nothing is divided.
        """
        some = np.arange(len(self)) if nodes is None else np.asarray(nodes, dtype=np.int64)
        start, whole = np.zeros(len(some)), np.zeros(len(some))
        for place, lost in self._lost([np.array([node]) for node in some], self._weight(weight)):
            start[place], whole[place] = lost[some[place]], lost.sum()
        if weight is None:
            direct = self.criticality()[some]
            for each in (start, whole):
                np.divide(each, direct, out=each, where=direct > 0.0)
        return Diffusion(frozen(start), frozen(np.maximum(whole - start, 0.0)))

    def part(self, sets: Sequence[ArrayLike], weight: ArrayLike | None = None) -> FloatColumn:
        """By set of nodes: the share of all walks, by weight of where they end, that pass over it.

        Those count that the nodes of the set pass on, whether they begin there or not.
        """
        w, members = self._weight(weight), [np.asarray(each, dtype=np.int64) for each in sets]
        whole = float((_walks(self.matrix, w) - w * self._returns).sum())
        found = np.zeros(len(members))
        if whole > 0.0:
            for place, lost in self._lost(members, w):
                found[place] = lost.sum() / whole
        return np.minimum(found, 1.0)

    def _lost(
        self, sets: Sequence[NDArray[np.int64]], weight: FloatColumn
    ) -> Iterator[tuple[int, FloatColumn]]:
        """Place of each set, and walks that each node loses where the set passes on nothing."""
        many = max(1, _ROOM // max(len(self), 1))
        for first in range(0, len(sets), many):
            some = sets[first : first + many]
            over = _walks_over(self.matrix, weight, some)
            for column, members in enumerate(some):
                back = self._returns_over(members)
                yield first + column, np.maximum(over[:, column] - weight * back, 0.0)

    @property
    def circle(self) -> int:
        """Nodes of the largest circle: of those that all reach each other; 1 without any."""
        return int(np.bincount(self._label).max(initial=0))

    @cached_property
    def _label(self) -> NDArray[np.int32]:
        """By node, its circle."""
        _, label = connected_components(self.matrix, directed=True, connection="strong")
        return frozen(label)

    @cached_property
    def _circles(self) -> dict[int, NDArray[np.int64]]:
        """Who is in each circle of several."""
        if self.circle > _CIRCLE:
            raise EstimationError(
                f"a circle of {self.circle:,} nodes; ways back are told apart in circles of "
                f"{_CIRCLE:,} at most",
                hint="leave out impacts that take next to nothing",
            )
        several = np.flatnonzero(np.bincount(self._label) > 1)
        return {int(c): np.flatnonzero(self._label == c) for c in several}

    @cached_property
    def _returns(self) -> FloatColumn:
        """By node: walks that end where they began."""
        found = np.zeros(len(self))
        for nodes in self._circles.values():
            found[nodes] = _ways_back(self.matrix[nodes][:, nodes].toarray())
        return frozen(found)

    def _returns_over(self, members: NDArray[np.int64]) -> FloatColumn:
        """By node: such walks that these members pass on."""
        found = np.zeros(len(self))
        for circle in np.unique(self._label[members]).tolist():
            if circle in self._circles:
                nodes = self._circles[circle]
                block = self.matrix[nodes][:, nodes].toarray()
                block[np.isin(nodes, members)] = 0.0
                found[nodes] = self._returns[nodes] - _ways_back(block)
        return found

    def _weight(self, weight: ArrayLike | None) -> FloatColumn:
        w = np.ones(len(self)) if weight is None else np.asarray(weight, dtype=np.float64)
        if w.shape != (len(self),) or not np.isfinite(w).all() or (w < 0.0).any():
            raise EstimationError(f"weight must be {len(self)} finite numbers, none below 0")
        return w


def _walks(matrix: csr_array, weight: FloatColumn) -> FloatColumn:
    """By node: walks of one step and more, by the weight of where they end."""
    term, found = weight, np.zeros(len(weight))
    for k in range(1, _MOST):
        term = (matrix @ term) / k
        found += term
        if (term <= _LAST * found).all():
            break
    return _finite(found)


def _walks_over(
    matrix: csr_array, weight: FloatColumn, sets: Sequence[NDArray[np.int64]]
) -> FloatMatrix:
    """(nodes, sets): of those walks, the ones that members of a set pass on.

    All terms are sums of what is not negative, so nothing is lost to differences.
    """
    column = np.repeat(np.arange(len(sets)), [len(each) for each in sets])
    row = np.concatenate([*sets, np.zeros(0, dtype=np.int64)])
    term, whole = weight, np.zeros(len(weight))
    over = np.zeros((len(weight), len(sets)))
    found = np.zeros_like(over)
    for k in range(1, _MOST):
        term, over = (matrix @ term) / k, (matrix @ over) / k
        over[row, column] = term[row]  # whatever a member passes on
        whole += term
        found += over
        if (term <= _LAST * whole).all() and (over <= _LAST * found).all():
            break
    return _finite(found)


def _ways_back(block: FloatMatrix) -> FloatColumn:
    return _finite(np.maximum(np.diagonal(expm(block)) - 1.0, 0.0))


def _finite(found: FloatMatrix) -> FloatMatrix:
    if not np.isfinite(found).all():
        raise EstimationError(
            "walks over impacts are beyond all numbers: too many impacts, or too large",
            hint="let impacts be capped at all of a buffer",
        )
    return found
