"""Joint scenarios: many draws of all factors at once, each from a stream of its own.

`draw(seed, start, count)` gives the scenarios `start` to `start + count`, one a row, as log moves
of factors. Scenario i has a stretch of 2**192 blocks of one counter-based generator to itself and
is worked out row by row: it is the same to the bit in every batch, on every worker, in any order.
Draws from the past are in `stress.resample`.

References
----------
Salmon, Moraes, Dror and Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3" (Philox).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.special import stdtr

from undertow.errors import StateError
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn, FloatMatrix
from undertow.state.arrays import frozen
from undertow.stress.assumed import DAYS, assumed_correlation, assumed_vols
from undertow.stress.correlation import Repaired, checked, lower_root, nearest_correlation

_BLOCK = 512  # rows worked on at a time: they stay in the cache


class Draws(Protocol):
    """Anything that gives scenarios by their index."""

    def draw(self, seed: int, start: int, count: int) -> FloatMatrix:
        """Scenarios `start` to `start + count`, (count, assets)."""
        ...


class Streams:
    """The random numbers of every scenario of a seed: one generator, wound to where each begins."""

    def __init__(self, seed: int) -> None:
        key = np.random.SeedSequence(seed).generate_state(2, np.uint64)
        self._bits = np.random.Philox(key=key)
        self._generator = np.random.Generator(self._bits)
        self._start: Any = self._bits.state

    def of(self, index: int) -> np.random.Generator:
        """The generator at the start of scenario `index`; good until the next call.

        Making a generator for each scenario takes ten times as long as winding one.
        """
        self._start["state"]["counter"][3] = index
        self._bits.state = self._start
        return self._generator


@dataclass(frozen=True, eq=False)
class Given:
    """Scenarios that somebody wrote down, taken in turn; past the last it starts over."""

    moves: FloatMatrix  # (scenarios, assets)

    @classmethod
    def of(cls, moves: Any) -> Given:
        """Check the matrix of log moves.

        Raises
        ------
        StateError
            When it is empty, no matrix, or holds what is not finite.
        """
        return cls(matrix("moves", moves, 1))

    def draw(self, seed: int, start: int, count: int) -> FloatMatrix:
        """Rows by index; the seed has no say."""
        require_batch(seed, start, count)
        return self.moves[np.arange(start, start + count) % len(self.moves)]


@dataclass(frozen=True, eq=False)
class Gaussian:
    """Normal log moves: the plainest, and too kind in the tails."""

    root: FloatMatrix  # lower root of the correlation
    scale: FloatColumn  # standard deviation of each factor over the horizon
    repaired: Repaired

    @classmethod
    def of(cls, scale: Any, correlation: Any) -> Gaussian:
        """From standard deviations over the horizon and correlations of factors.

        Raises
        ------
        StateError
            When sizes differ, or a number is impossible.
        """
        spread = _scale(scale)
        repaired = nearest_correlation(checked(correlation, len(spread)))
        return cls(lower_root(repaired.matrix), spread, repaired)

    def draw(self, seed: int, start: int, count: int) -> FloatMatrix:
        """Correlated normals."""
        normal = each_of(seed, start, count, len(self.scale), _normals)
        return _correlated(normal, self.root) * self.scale


@dataclass(frozen=True, eq=False)
class StudentCopula:
    """Factors that share their worst days: a t copula, with t or empirical marginals.

    With `history` each factor is drawn from its own past, rescaled to `scale`, joined by the
    copula; without, each is a t of the same degrees of freedom with that standard deviation.
    """

    root: FloatMatrix
    scale: FloatColumn  # standard deviation of each factor over the horizon
    dof: float
    repaired: Repaired
    past: FloatMatrix | None = None  # each column sorted, of standard deviation 1

    @classmethod
    def of(
        cls, scale: Any, correlation: Any, *, dof: float = 4.0, history: FloatMatrix | None = None
    ) -> StudentCopula:
        """From standard deviations over the horizon, correlations and degrees of freedom.

        Raises
        ------
        StateError
            When sizes differ, or a number is impossible; 2 degrees or fewer have no variance.
        """
        spread = _scale(scale)
        if not 2.0 < dof <= 1e6:
            raise StateError(
                f"dof was {dof}; it must be above 2, where a variance exists, and at most 1e6"
            )
        repaired = nearest_correlation(checked(correlation, len(spread)))
        past = None if history is None else _standard(matrix("history", history, 3, len(spread)))
        return cls(lower_root(repaired.matrix), spread, dof, repaired, past)

    def draw(self, seed: int, start: int, count: int) -> FloatMatrix:
        """Correlated t variates, put through the marginals."""
        size = len(self.scale)
        drawn = each_of(seed, start, count, size + 1, self._row)
        t = _correlated(drawn[:, :size], self.root) / np.sqrt(drawn[:, size:])
        if self.past is None:
            return t * (self.scale * math.sqrt((self.dof - 2.0) / self.dof))
        return _quantiles(self.past, stdtr(self.dof, t)) * self.scale

    def _row(self, rng: np.random.Generator, out: FloatColumn) -> None:
        """Normals, then one chi-square over its degrees that all factors share."""
        rng.standard_normal(out=out[:-1])
        out[-1] = rng.chisquare(self.dof) / self.dof


def assumed_draws(
    snapshot: Snapshot,
    *,
    days: float = 1.0,
    dof: float = 4.0,
    correlation: FloatMatrix | None = None,
) -> StudentCopula:
    """Draws for a snapshot without a history: a t copula on what `stress.assumed` says.

    Volatilities are implied ones where the market says any. `correlation` may be that of a
    `Stressed`.
    """
    if not 0.0 < days <= 3_650.0:
        raise StateError(f"days was {days}; it must be above 0 and at most 3650")
    if correlation is None:
        correlation = assumed_correlation(snapshot)
    scale = assumed_vols(snapshot) * math.sqrt(days / DAYS)
    return StudentCopula.of(scale, correlation, dof=dof)


def each_of(
    seed: int,
    start: int,
    count: int,
    width: int,
    row: Callable[[np.random.Generator, FloatColumn], None],
) -> FloatMatrix:
    """One row of random numbers a scenario, each from its own stream."""
    require_batch(seed, start, count)
    out, streams = np.empty((count, width)), Streams(seed)
    for i in range(count):
        row(streams.of(start + i), out[i])
    return out


def _normals(rng: np.random.Generator, out: FloatColumn) -> None:
    rng.standard_normal(out=out)


def _correlated(normal: FloatMatrix, root: FloatMatrix) -> FloatMatrix:
    """`normal @ root.T`, added up column by column.

    A matrix product would sum in an order that depends on how many rows there are.
    """
    out = np.zeros(normal.shape)
    for lo in range(0, len(normal), _BLOCK):
        rows = slice(lo, lo + _BLOCK)
        for k in range(len(root)):
            out[rows, k:] += normal[rows, k : k + 1] * root[k:, k]
    return out


def _quantiles(past: FloatMatrix, level: FloatMatrix) -> FloatMatrix:
    """Quantiles of sorted columns at `level`, straight lines between the observations."""
    at = level * (len(past) - 1)
    low = np.minimum(at.astype(np.int64), len(past) - 2)
    weight = at - low
    column = np.arange(past.shape[1])
    drawn: FloatMatrix = (1.0 - weight) * past[low, column] + weight * past[low + 1, column]
    return drawn


def _standard(history: FloatMatrix) -> FloatMatrix:
    """Each column sorted, of mean 0 and standard deviation 1; one that never moved stays at 0."""
    centred = history - history.mean(axis=0)
    spread = centred.std(axis=0)
    return frozen(np.sort(centred / np.where(spread > 0.0, spread, 1.0), axis=0))


def _scale(scale: Any) -> FloatColumn:
    spread = np.array(scale, dtype=np.float64)
    if spread.ndim != 1 or not spread.size:
        raise StateError("scale must be one standard deviation for each factor")
    if not np.isfinite(spread).all() or (spread < 0.0).any():
        raise StateError("scale holds a number that is no standard deviation")
    return frozen(spread)


def matrix(name: str, values: Any, least: int, width: int | None = None) -> FloatMatrix:
    """A read-only matrix of finite numbers, or an error that says what is wrong with it."""
    found = np.array(values, dtype=np.float64)
    wide = width or (found.shape[1] if found.ndim == 2 else 0)
    if found.ndim != 2 or len(found) < least or not wide or found.shape[1] != wide:
        shape = f"{width} columns" if width else "a column for each factor"
        raise StateError(
            f"{name} is {' x '.join(map(str, found.shape))}; it needs at least {least} rows and "
            f"{shape}"
        )
    if not np.isfinite(found).all():
        raise StateError(f"{name} holds a number that is not finite")
    return frozen(found)


def require_batch(seed: int, start: int, count: int) -> None:
    """Refuse a negative seed, start or count."""
    for name, value in (("seed", seed), ("start", start), ("count", count)):
        if value < 0:
            raise StateError(f"{name} was {value}; it must be 0 or more")
