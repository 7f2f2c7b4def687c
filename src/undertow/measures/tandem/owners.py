"""How far what a fall unwinds hangs on single owners: the book with its owners drawn anew.

Every owner counts 0, 1, 2, ... times (Poisson with mean 1), in what is closed and in what there is.
Prices and who is called stay as the cascade of the whole book had them. Owners of a large book are
put at random into parts, which are drawn instead: the spread is the same on average.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from undertow.econometrics.bootstrap import band
from undertow.fanout import Executor
from undertow.measures.tandem.falls import CHANNELS, Board, Run, run_all
from undertow.state import FloatColumn, FloatMatrix, KeyColumn

_PARTS = 200  # at most, of the owners
_REPS = 499
_LEAST = 5  # parts, below which nothing is drawn

Band = tuple[float, float]
NONE: Band = (np.nan, np.nan)


@dataclass(frozen=True, eq=False)
class Owned:
    """What every fall closed, node by node, and of which part of the owners.

    Cells are parts of the owners within a node, in the order of nodes.
    """

    run: Run  # of the whole book
    usd: FloatMatrix  # (shocked, channels, cells)
    held: FloatColumn  # (cells,) USD
    node: KeyColumn  # (cells,)
    part: KeyColumn  # (cells,)
    seed: int
    level: float

    @classmethod
    def of(cls, board: Board, executor: Executor, seed: int, level: float) -> Owned:
        """Let every asset fall, each alone."""
        part, parts = _divided(board, seed)
        at = board.node >= 0
        cells, place = np.unique(board.node[at] * parts + part[at], return_inverse=True)
        cell = np.full(len(board.node), -1, dtype=np.int64)
        cell[at] = place
        fine = replace(board, node=cell, names=("",) * len(cells), _engines=[])
        ran = run_all(fine, executor)
        node, part = cells // parts, cells % parts
        begins = np.searchsorted(node, np.arange(len(board.names)))
        whole = Run(board, ran.shocked, np.add.reduceat(ran.usd, begins, axis=2), ran.settled)
        return cls(whole, ran.usd, fine.held, node, part, seed, level)

    def spill(self, channel: int | None = None) -> Band:
        """Band of the mean share over pairs of two, in all or through one channel."""
        found = self._spills[:, -1 if channel is None else channel]
        return self._band(found) if self.run.spill(channel) else NONE

    def pairs(self) -> Iterator[tuple[str, str, float, Band]]:
        """Pairs of two with the largest shares, each with its band."""
        for first, second, share in self.run.top():
            i, j = self.run.shocked.index(first), self.run.nodes.index(second)
            here = self.node == j
            closed = self.usd[i].sum(axis=0)[here]
            weight = self._weights[:, self.part[here]]
            there = weight @ self.held[here]
            yield first, second, share, self._band(_over(weight @ closed, there))

    def _band(self, drawn: FloatColumn) -> Band:
        if len(np.unique(self.part)) < _LEAST:
            return NONE
        low, high = band(drawn, self.level)
        return float(low), float(high)

    @cached_property
    def _weights(self) -> FloatMatrix:
        """(draws, parts) How often each part counts."""
        rng = np.random.default_rng([self.seed, 52])
        return np.asarray(rng.poisson(1.0, (_REPS, int(self.part.max()) + 1)), dtype=np.float64)

    @cached_property
    def _spills(self) -> FloatMatrix:
        """(draws, channels + 1) Mean share through each channel, and through all of them."""
        off = self.run.off.astype(np.float64)
        apart = np.einsum("ip,icp->cp", off[:, self.node], self.usd)
        apart = np.vstack([apart, apart.sum(axis=0)])
        begins = np.searchsorted(self.node, np.arange(len(self.run.nodes)))
        drawn = np.full((_REPS, len(CHANNELS) + 1), np.nan)
        pairs = off.sum(axis=0)
        for rep, weights in enumerate(self._weights):
            weight = weights[self.part]
            there = np.add.reduceat(self.held * weight, begins)
            closed = np.add.reduceat(apart * weight, begins, axis=1)
            known = there > 0.0
            if pairs[known].sum():
                shares = closed[:, known] / there[known]
                drawn[rep] = shares.sum(axis=1) / pairs[known].sum()
        return drawn


def _over(closed: FloatColumn, held: FloatColumn) -> FloatColumn:
    return np.asarray(np.divide(closed, held, out=np.full(len(held), np.nan), where=held > 0.0))


def _divided(board: Board, seed: int) -> tuple[KeyColumn, int]:
    """(legs,) The part of each leg's owner, and how many parts there are."""
    book = board.plan.snapshot.book
    owner = book.owner[book.leg_account].astype(np.int64)
    owners = len(book.owners)
    parts = max(min(owners, _PARTS), 1)
    shuffled = np.random.default_rng([seed, 53]).permutation(owners) % parts
    return shuffled[owner], parts
