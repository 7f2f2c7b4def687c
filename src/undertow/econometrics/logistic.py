"""The chance of what happens or does not, from a few columns: logistic regression, held back.

Rows are instants, columns what was known at them. Columns are standardised by the mean and the
deviation of the rows of the fit, and coefficients are drawn towards 0 by a ridge, so that few
events, or columns that part them perfectly, still give a finite answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from undertow.econometrics.checks import FloatColumn, frozen, matrix
from undertow.errors import EstimationError

_ROUNDS, _HALVINGS, _STILL = 50, 30, 1e-8
_SMALL = 0.5  # Newton's step from so near needs no guard: the likelihood is all but a parabola


@dataclass(frozen=True, slots=True, eq=False)
class LogisticFit:
    """log odds = intercept + coefficients @ (x - middle) / spread."""

    intercept: float
    coefficients: FloatColumn  # (columns,), of the standardised columns
    middle: FloatColumn
    spread: FloatColumn
    rounds: int
    status: str  # empty where it settled

    def chance(self, x: ArrayLike) -> FloatColumn:
        """The chance of each row; NaN where a column is missing."""
        values = matrix("x", x, rows=0, columns=len(self.middle), missing=True)
        odds = self.intercept + (values - self.middle) / self.spread @ self.coefficients
        return np.asarray(special.expit(odds), dtype=np.float64)


def logistic(x: ArrayLike, happened: ArrayLike, *, ridge: float = 1.0) -> LogisticFit:
    """The likeliest coefficients, less ridge/2 times the sum of their squares.

    Newton's steps (iteratively reweighted least squares), halved until the likelihood rises. The
    intercept is not held back. A ridge of 1 is a standard normal prior on the log odds ratio of
    one deviation. A column without spread gets the coefficient 0.

    References
    ----------
    Le Cessie and van Houwelingen (1992), Applied Statistics 41.
    """
    values = matrix("x", x)
    y = np.asarray(happened, dtype=np.float64)
    if y.shape != (len(values),) or not np.isin(y, (0.0, 1.0)).all():
        raise EstimationError(
            f"happened of shape {y.shape} is not a truth or a falsehood for each of "
            f"{len(values)} rows"
        )
    if not ridge > 0.0:
        raise EstimationError(f"ridge was {ridge}; it must be positive", hint="1 is usual")
    middle, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 0.0, spread, 1.0)
    design = np.column_stack([np.ones(len(y)), (values - middle) / spread])
    held = np.r_[0.0, np.full(values.shape[1], ridge)]
    beta = np.zeros(design.shape[1])
    share = float(y.mean())
    if not 0.0 < share < 1.0:
        words = "it never happened" if share == 0.0 else "it happened in every row"
        beta[0] = np.copysign(np.inf, share - 0.5)
        return LogisticFit(float(beta[0]), frozen(beta[1:]), middle, spread, 0, words)
    beta[0] = special.logit(share)
    beta, rounds, settled = _climb(design, y, held, beta)
    words = "" if settled else f"did not settle in {_ROUNDS} rounds"
    return LogisticFit(float(beta[0]), frozen(beta[1:].copy()), frozen(middle), frozen(spread),
                       rounds, words)  # fmt: skip


def _climb(
    design: FloatColumn, y: FloatColumn, held: FloatColumn, beta: FloatColumn
) -> tuple[FloatColumn, int, bool]:
    for turn in range(_ROUNDS):
        chance = special.expit(design @ beta)
        slope = design.T @ (y - chance) - held * beta
        bend = (design * (chance * (1.0 - chance))[:, None]).T @ design + np.diag(held)
        step = np.linalg.solve(bend, slope)
        size = float(np.abs(step).max())
        if size > _SMALL:
            step = _shortened(design, y, held, beta, step)
        beta = beta + step
        if size < _STILL:
            return beta, turn + 1, True
    return beta, _ROUNDS, False


def _shortened(
    design: FloatColumn, y: FloatColumn, held: FloatColumn, beta: FloatColumn, step: FloatColumn
) -> FloatColumn:
    """The step, halved until the likelihood rises."""
    height = _height(design, y, held, beta)
    for _ in range(_HALVINGS):
        if _height(design, y, held, beta + step) >= height:
            break
        step = 0.5 * step
    return step


def _height(design: FloatColumn, y: FloatColumn, held: FloatColumn, beta: FloatColumn) -> float:
    odds = design @ beta
    return float(y @ odds - np.logaddexp(0.0, odds).sum() - 0.5 * (held * beta) @ beta)
