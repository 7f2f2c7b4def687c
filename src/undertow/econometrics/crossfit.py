"""Each step predicted from other blocks of time: growth by what explains it, and how loud it is.

Rows are instants; a row that is not used is zero in all terms, and keeps its place in time. Sums of
products are made once over all rows; the fit for a block subtracts those of the rows it leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import nnls
from scipy.signal import lfilter

from undertow.econometrics.checks import BoolColumn, FloatColumn, FloatMatrix

Blocks = list[tuple[slice, slice]]

_OUTLIER = 16.0  # of the first guess of a variance: more would rule the second
_FLOOR = 0.05  # of the mean variance: no step may be scaled up beyond it
_PRIMES = np.array([2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0])


def blocks_of(rows: int, folds: int, gap: int) -> Iterator[tuple[slice, slice]]:
    """Each block of time, and the wider one that its fit leaves out."""
    edges = np.linspace(0, rows, folds + 1).astype(int)
    for start, end in pairwise(edges.tolist()):
        yield slice(start, end), slice(max(0, start - gap), min(rows, end + gap))


def late(x: FloatColumn, lag: int) -> FloatColumn:
    """A series as it was `lag` steps before; NaN where it was not yet."""
    return x if lag == 0 else np.concatenate([np.full(min(lag, len(x)), np.nan), x[:-lag]])


def recent_mean(x: FloatColumn, half_life: float) -> FloatColumn:
    """An exponentially weighted mean of what was seen so far; it starts at the mean of all."""
    seen = ~np.isnan(x)
    middle = float(x[seen].mean()) if seen.any() else 0.0
    keep = 2.0 ** (-1.0 / half_life)
    recent: FloatColumn
    recent, _ = lfilter([1.0 - keep], [1.0, -keep], np.where(seen, x, middle), zi=[keep * middle])
    return np.maximum(recent, 0.0)


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """The regression of one series: what it is fitted on, and in which blocks."""

    z: FloatMatrix  # (time, terms): standardised, ones first, zero where a row is not used
    loud: FloatMatrix  # (time, terms) of the variance
    seen: BoolColumn
    blocks: Blocks
    ridge: float
    half_life: float

    def run(self, y: FloatColumn) -> tuple[FloatColumn, FloatColumn, float]:
        """Residual, its scale, and R2 out of sample; fitted twice, quiet steps counting for more.

        The first fit tells which steps are loud, and the second weighs them accordingly.
        """
        even = self.seen.astype(np.float64)
        left, _ = self._cross_fit(y[:, None], even)
        first = self._scales(left[:, 0])
        left, base = self._cross_fit(y[:, None], even / first**2)
        spread = self._scales(left[:, 0])
        left, base = left[self.seen, 0], base[self.seen, 0]
        residual = np.zeros(len(y))
        residual[self.seen] = left
        return residual, spread, 1.0 - float(left @ left) / float(base @ base)

    def heard(self, sound: FloatMatrix, spread: FloatColumn) -> FloatMatrix:
        """What `sound`, as loud as the residual was, is once the purge has gone over it."""
        loud = np.where(self.seen, spread, 0.0)
        left, _ = self._cross_fit(sound * loud[:, None], self.seen / spread**2)
        return np.where(self.seen[:, None], left / spread[:, None], 0.0)

    def _cross_fit(self, y: FloatMatrix, weight: FloatColumn) -> tuple[FloatMatrix, FloatMatrix]:
        """Each column less its prediction from other blocks, and less their mean alone.

        Sums over all rows are made once; a fit subtracts those of the rows that it leaves out.
        """
        z, weighted = self.z, self.z * weight[:, None]
        whole, target = weighted.T @ z, weighted.T @ y
        left, base = np.empty_like(y), np.empty_like(y)
        for inside, out in self.blocks:
            gram = whole - weighted[out].T @ z[out]
            cross = target - weighted[out].T @ y[out]
            pull = np.full(len(gram), (self.ridge + 1e-12) * gram[0, 0])
            pull[0] = 0.0
            gram[np.diag_indices_from(gram)] += pull
            left[inside] = y[inside] - z[inside] @ np.linalg.solve(gram, cross)
            base[inside] = y[inside] - cross[0] / gram[0, 0]
        return left, base

    def _scales(self, residual: FloatColumn) -> FloatColumn:
        """Predicted standard deviation of each residual, from other blocks of time.

        The variance is linear in its terms with coefficients that are not negative; fitted by least
        squares twice, the second time weighted by the first (squares of a loud step are loud
        squared). 1 where a row is not used.
        """
        seen = self.seen
        square = np.where(seen, residual, np.nan) ** 2
        mean = float(square[seen].mean())
        own = late(recent_mean(square, self.half_life), 1) / mean
        terms = np.column_stack([np.ones(len(square)), self.loud, np.nan_to_num(own, nan=1.0)])
        terms = np.where(seen[:, None], terms, 0.0)
        level = np.where(seen, square, 0.0) / mean
        guess = _predicted(level, terms, seen.astype(np.float64), self.blocks)
        calm = np.minimum(level, _OUTLIER * guess)
        variance = mean * _predicted(calm, terms, seen / guess**2, self.blocks)
        return np.where(seen, np.sqrt(variance), 1.0)


class Echo:
    """How much of a tie between series outlives the purge: the noise of fits is not shared.

    Sounds that all series share go through the purge of each; their mean pairwise correlation
    afterwards, one for a perfect purge, is kept as a running sum.
    """

    def __init__(self) -> None:
        self.total: FloatMatrix | float = 0.0
        self.count = 0

    def add(self, left: FloatMatrix) -> None:
        """Count in what the purge of one more series left of the sounds."""
        self.total = self.total + left / np.sqrt((left**2).sum(axis=0))
        self.count += 1

    def kept(self) -> float:
        """Mean pairwise correlation of what is left; 1 of fewer than two series."""
        if self.count < 2:
            return 1.0
        ties = float(np.mean((np.asarray(self.total) ** 2).sum(axis=0)))
        return (ties - self.count) / (self.count * (self.count - 1))


def chirps(rows: int) -> FloatMatrix:
    """A few sounds that repeat neither themselves nor each other: white, and always the same."""
    step = np.arange(rows, dtype=np.float64)[:, None]
    sound: FloatMatrix = np.sqrt(2.0) * np.cos(np.pi * step * step * np.sqrt(_PRIMES))
    return sound


def standardised(x: FloatMatrix, seen: BoolColumn) -> FloatMatrix:
    """Ones, and columns less their mean over their standard deviation; a flat column becomes 0."""
    kept = x[seen]
    mean, spread = kept.mean(axis=0), kept.std(axis=0)
    flat = spread <= 1e-9 * np.abs(kept).max(axis=0, initial=0.0)
    z = np.where(flat, 0.0, (x - mean) / np.where(flat, 1.0, spread))
    return np.column_stack([seen.astype(np.float64), np.where(seen[:, None], z, 0.0)])


def _predicted(
    level: FloatColumn, terms: FloatMatrix, weight: FloatColumn, blocks: Blocks
) -> FloatColumn:
    weighted = terms * weight[:, None]
    whole, target = weighted.T @ terms, weighted.T @ level
    predicted = np.empty(len(level))
    for inside, out in blocks:
        gram = whole - weighted[out].T @ terms[out]
        cross = target - weighted[out].T @ level[out]
        predicted[inside] = terms[inside] @ _not_negative(gram, cross)
    return np.maximum(predicted, _FLOOR)


def _not_negative(gram: FloatMatrix, cross: FloatColumn) -> FloatColumn:
    """Least squares under coefficients >= 0, from sums of products alone."""
    size = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    scaled = gram / size / size[:, None]
    scaled[np.diag_indices_from(scaled)] += 1e-8
    root = np.linalg.cholesky(scaled)
    found, _ = nnls(root.T, np.linalg.solve(root, cross / size))
    coefficients: FloatColumn = found / size
    return coefficients
