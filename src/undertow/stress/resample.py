"""Joint scenarios from the past: drawn again as they were, or at the volatility of today."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from undertow.errors import StateError
from undertow.state import FloatColumn, FloatMatrix, KeyColumn
from undertow.state.arrays import frozen
from undertow.stress.draws import each_of, matrix
from undertow.stress.history import FactorHistory


@dataclass(frozen=True, eq=False)
class Historical:
    """What happened, drawn again: whole rows of past moves, so that what moved together still does.

    A scenario adds up `horizon` steps, drawn in runs of `block` that follow each other in time (the
    past is closed to a ring): short memory, such as volatile spells, survives within a run.

    References
    ----------
    Politis and Romano (1992), "A circular block-resampling procedure for stationary data".
    """

    moves: FloatMatrix  # (steps, assets)
    horizon: int
    block: int

    @classmethod
    def of(cls, history: FactorHistory | Any, *, horizon: int = 1, block: int = 1) -> Historical:
        """From past moves of factors.

        Raises
        ------
        StateError
            When there are fewer than three rows, or horizon or block are impossible.
        """
        moves = history.moves if isinstance(history, FactorHistory) else history
        past = matrix("history", moves, 3)
        _require_span("horizon", horizon, 100_000)
        _require_span("block", block, len(past))
        return cls(past, horizon, block)

    def draw(self, seed: int, start: int, count: int) -> FloatMatrix:
        """Sums of resampled rows."""
        steps = _resampled(seed, start, count, len(self.moves), self.horizon, self.block)
        total = np.zeros((count, self.moves.shape[1]))
        for step in range(self.horizon):
            total += self.moves[steps[:, step]]
        return total


@dataclass(frozen=True, eq=False)
class FilteredHistorical:
    """The past at today's volatility: old shocks over the volatility of their day, times today's.

    Volatility is an exponentially weighted mean of squares with weight `decay` on the day before;
    along the horizon it goes on with the shocks that are drawn.

    References
    ----------
    Barone-Adesi, Giannopoulos and Vosper (1999), "VaR without correlations for portfolios of
    derivative securities". RiskMetrics (1996) for the weight of 0.94 at daily steps.
    """

    shocks: FloatMatrix  # (steps, assets), of standard deviation 1
    variance: FloatColumn  # of the next step
    decay: float
    horizon: int
    block: int

    @classmethod
    def of(
        cls,
        history: FactorHistory | Any,
        *,
        decay: float = 0.94,
        horizon: int = 1,
        block: int = 1,
        burn_in: int = 20,
    ) -> FilteredHistorical:
        """From past moves of factors; the first `burn_in` only start the filter.

        Raises
        ------
        StateError
            When there are too few rows, or a number is impossible.
        """
        moves = history.moves if isinstance(history, FactorHistory) else history
        past = matrix("history", moves, burn_in + 3)
        if not 0.0 < decay < 1.0:
            raise StateError(f"decay was {decay}; it must lie between 0 and 1")
        _require_span("burn_in", burn_in, len(past))
        _require_span("horizon", horizon, 100_000)
        _require_span("block", block, len(past) - burn_in)
        variance = (past[:burn_in] ** 2).mean(axis=0)
        shocks = np.zeros((len(past) - burn_in, past.shape[1]))
        for t in range(burn_in, len(past)):
            moved = variance > 0.0
            np.divide(past[t], np.sqrt(variance), out=shocks[t - burn_in], where=moved)
            variance = decay * variance + (1.0 - decay) * past[t] ** 2
        spread = shocks.std(axis=0)
        shocks /= np.where(spread > 0.0, spread, 1.0)
        return cls(frozen(shocks), frozen(variance), decay, horizon, block)

    def draw(self, seed: int, start: int, count: int) -> FloatMatrix:
        """Sums of resampled shocks, each at the volatility that the path has reached."""
        steps = _resampled(seed, start, count, len(self.shocks), self.horizon, self.block)
        total = np.zeros((count, len(self.variance)))
        variance = np.broadcast_to(self.variance, total.shape).copy()
        for step in range(self.horizon):
            move = np.sqrt(variance) * self.shocks[steps[:, step]]
            total += move
            variance = self.decay * variance + (1.0 - self.decay) * move * move
        return total


def _resampled(seed: int, start: int, count: int, past: int, horizon: int, block: int) -> KeyColumn:
    """Rows of the past for each scenario and step: heads of runs are drawn, the rest follows."""
    runs = -(-horizon // block)

    def heads(rng: np.random.Generator, out: FloatColumn) -> None:
        out[:] = rng.integers(0, past, runs)

    drawn = each_of(seed, start, count, runs, heads).astype(np.int64)
    steps = (drawn[:, :, None] + np.arange(block)) % past
    return steps.reshape(count, runs * block)[:, :horizon]


def _require_span(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise StateError(f"{name} was {value}; it must be 1 to {most}")
