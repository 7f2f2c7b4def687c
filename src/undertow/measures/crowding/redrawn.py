"""A book drawn anew: how often each owner comes, so that any sum over a book has its band.

Rows of `weight` are draws, columns are units: the largest owners one by one, each drawn as often as
a Poisson variable of mean 1 says; all others dealt out by chance into blocks, of which as many are
drawn as there are. A sum over blocks that are drawn with replacement varies as one over owners that
are drawn one by one does, at the cost of the blocks alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from undertow.econometrics.checks import within
from undertow.errors import EstimationError
from undertow.measures.crowding.crowd import Crowd
from undertow.state import CodeColumn, FloatColumn, FloatMatrix
from undertow.state.arrays import AnyColumn, frozen

FEW = 5  # owners, for a band
_ALONE, _BLOCKS = 512, 1_024


@dataclass(frozen=True, eq=False)
class Redrawn:
    """How often the owners of a book come in each draw."""

    unit: CodeColumn  # (accounts,)
    weight: FloatMatrix  # (draws, units)
    level: float

    @classmethod
    def of(cls, crowd: Crowd, size: FloatColumn, *, reps: int, seed: int, level: float) -> Redrawn:
        """Draw the owners of a book; `size` by account says which are the largest.

        Raises
        ------
        EstimationError
            When the level is no share, or the draws are too few.
        """
        within("level", level, 0.0, 1.0)
        if isinstance(reps, bool) or not isinstance(reps, int | np.integer) or reps < 19:
            raise EstimationError(f"reps was {reps!r}; a band needs at least 19 draws")
        rng = np.random.default_rng(seed)
        owners = len(crowd.snapshot.book.owners)
        if owners <= _ALONE + _BLOCKS:
            weight = rng.poisson(1.0, (reps, owners)).astype(np.float64)
            return cls(frozen(crowd.holder.astype(np.int32)), frozen(weight), level)
        held = np.bincount(crowd.holder, size, owners)
        block = rng.integers(_ALONE, _ALONE + _BLOCKS, owners, dtype=np.int32)
        block[np.argpartition(-held, _ALONE)[:_ALONE]] = np.arange(_ALONE, dtype=np.int32)
        weight = np.empty((reps, _ALONE + _BLOCKS))
        weight[:, :_ALONE] = rng.poisson(1.0, (reps, _ALONE))
        weight[:, _ALONE:] = rng.multinomial(_BLOCKS, np.full(_BLOCKS, 1.0 / _BLOCKS), size=reps)
        return cls(frozen(block[crowd.holder]), frozen(weight), level)

    @property
    def units(self) -> int:
        """What is drawn on its own: owners, and blocks of them."""
        return int(self.weight.shape[1])

    def sums(
        self, account: AnyColumn, cell: AnyColumn, value: FloatColumn, cells: int
    ) -> FloatMatrix:
        """(draws, cells) Sum of `value` by cell in each draw, each row with its account."""
        key = self.unit[account].astype(np.int64) * cells + cell
        by_unit = added(key, value, self.units * cells).reshape(self.units, cells)
        return np.asarray(self.weight @ by_unit)

    def band(self, drawn: FloatMatrix) -> tuple[FloatColumn, FloatColumn]:
        """Ends of the band of each column; NaN where most draws do not have the number."""
        tails = (0.5 * (1.0 - self.level), 0.5 * (1.0 + self.level))
        found = np.full((2, drawn.shape[1]), np.nan)
        seen = np.isfinite(drawn).sum(axis=0)
        whole = seen == len(drawn)
        if whole.any():
            found[:, whole] = np.quantile(drawn[:, whole], tails, axis=0)
        for k in np.flatnonzero((seen > len(drawn) // 2) & ~whole):
            column = drawn[:, k]
            found[:, k] = np.quantile(column[np.isfinite(column)], tails)
        return found[0], found[1]


def added(place: AnyColumn, value: FloatColumn, count: int) -> FloatColumn:
    """(count,) Values added up by the place that they belong to."""
    return np.bincount(place, value, count).astype(np.float64, copy=False)


def owners_in(crowd: Crowd, account: AnyColumn, cell: AnyColumn, cells: int) -> AnyColumn:
    """(cells,) How many owners have rows in each cell; accounts rise along the rows.

    Owners rise along accounts, so within a cell one is new where the row before is of another.
    """
    order = np.argsort(cell.astype(np.int16 if cells < 2**15 else np.int64), kind="stable")
    where, owner = cell[order], crowd.holder[account][order]
    new = np.ones(len(order), dtype=np.bool_)
    new[1:] = (where[1:] != where[:-1]) | (owner[1:] != owner[:-1])
    return np.bincount(where[new], minlength=cells)
