"""How hard to penalise: chosen from the data, without letting a block of time see itself.

Folds are runs of consecutive rows. Their sums are taken out of (or added to) the sums of the
others, so a fold costs a solve and no second look at the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

import numpy as np

from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, matrix, within
from undertow.econometrics.equations import (
    ElasticNet,
    Solved,
    Sums,
    comparable,
    refuse_short,
    side_by_side,
    solve_sums,
)
from undertow.errors import EstimationError

_NEAR = 1e-5  # a choice needs no more digits of the weights
_STRONGEST_RIDGE = 10.0  # in correlations; ridge has no penalty that leaves nothing


class Rule(StrEnum):
    """How penalties are judged.

    `blocked`: each run of rows is forecast from all others, less `lags` rows on either side.
    `forward`: each run is forecast from what came before it (rolling origin).
    `bayes`: the Bayesian criterion on all rows, a weight that is not zero being one parameter.
    """

    BLOCKED = "blocked"
    FORWARD = "forward"
    BAYES = "bayes"


@dataclass(frozen=True, slots=True, eq=False)
class PenaltyChoice:
    """Which penalty forecasts best, and how all others did.

    `errors` are squared one-step errors over each series' variance (1: no better than the mean),
    or values of the Bayesian criterion a row. A choice at the first of the grid says that the
    past tells nothing; at the last, that the grid should go deeper.
    """

    grid: FloatColumn  # (penalties,), falling
    errors: FloatMatrix  # (penalties, N)
    penalty: FloatColumn  # (N,): one for all, unless asked for each
    mix: float
    rule: Rule

    @property
    def estimator(self) -> ElasticNet:
        """The estimator with the chosen penalty."""
        return ElasticNet(self.penalty, self.mix)


def choose_penalty(
    x: Any,
    lags: int = 1,
    *,
    mix: float = 0.5,
    rule: Rule = Rule.BLOCKED,
    folds: int = 5,
    penalties: int = 25,
    deepest: float = 0.01,
    each: bool = False,
) -> PenaltyChoice:
    """The penalty of an elastic net (`mix` 0: ridge) whose forecasts of held-back rows are best.

    One penalty for all equations, by their mean error, or one for `each`, out of `penalties`
    between the one that leaves no weight and `deepest` of it (ridge: of 10 correlations). In a
    rolling analysis choose once, on a sample that comes before what is judged, and keep it.

    Raises
    ------
    EstimationError
        When a value is missing, a column is constant, or a fold would be left with too few rows.

    References
    ----------
    Bergmeir and Benitez 2012 (blocked folds); Nicholson, Matteson and Bien 2017 (rolling origin
    for large autoregressions).
    """
    within("mix", mix, 0.0, 1.0, closed=True)
    within("deepest", deepest, 0.0, 1.0)
    given = matrix("x", x)
    refuse_short("x", len(given), given.shape[1], lags, ElasticNet(0.0, mix))
    if penalties < 2:
        raise EstimationError(f"penalties was {penalties}; a choice needs at least 2")
    like, _, _ = comparable(given)
    rows = side_by_side(like, lags)
    everything = Sums.of(rows)
    series = given.shape[1]
    grid = _grid(everything, series, mix, np.geomspace(1.0, deepest, penalties))
    if rule is Rule.BAYES:
        errors = _criteria(everything, series, grid, mix)
    else:
        parts = _folds(rows, lags, folds, rule)
        errors = np.mean([_errors(*part, series, grid, mix) for part in parts], axis=0)
    by_mean = grid[np.argmin(errors.mean(axis=1))]
    penalty = grid[np.argmin(errors, axis=0)] if each else np.full(series, by_mean)
    return PenaltyChoice(frozen(grid), frozen(errors), frozen(penalty), mix, rule)


def _grid(sums: Sums, series: int, mix: float, parts: FloatColumn) -> FloatColumn:
    _, spread = sums.covariance()
    own = np.diag(spread)
    if (own <= 0.0).any():
        column = int(np.argmin(own)) % series
        raise EstimationError(
            f"x at column {column} is constant", hint="leave it out; see `screen`"
        )
    scale = np.sqrt(own)
    size = len(own) - series
    like = spread[size:, :size] / scale[size:, None] / scale[:size]
    top = float(np.abs(like).max()) / mix if mix > 0.0 else _STRONGEST_RIDGE
    grid: FloatColumn = top * parts
    return grid


def _folds(rows: FloatMatrix, lags: int, folds: int, rule: Rule) -> Iterator[tuple[Sums, Sums]]:
    """Sums to fit and sums to judge, for each fold."""
    forward = rule is Rule.FORWARD
    bounds = np.linspace(0, len(rows), folds + 1 + forward).astype(np.int64)
    if folds < 2 or np.diff(bounds).min() < 2 * lags + 4:
        raise EstimationError(
            f"folds was {folds}; with {len(rows)} rows and {lags} lags it may be 2 to "
            f"{len(rows) // (2 * lags + 4) - forward}"
        )
    everything = Sums.of(rows)
    for first, last in list(pairwise(bounds))[int(forward) :]:
        judged = Sums.of(rows[first:last])
        if forward:
            yield Sums.of(rows[:first]), judged
        else:
            yield everything - Sums.of(rows[max(first - lags, 0) : last + lags]), judged


def _errors(fitted: Sums, judged: Sums, series: int, grid: FloatColumn, mix: float) -> FloatMatrix:
    """Mean squared error of each series over the judged rows, for each penalty."""
    mean = fitted.total / fitted.count
    drift = np.outer(judged.total, mean)
    about = judged.cross - drift - drift.T + judged.count * np.outer(mean, mean)
    errors = np.empty((len(grid), series))
    for place, solved in enumerate(_path(fitted, series, grid, mix)):
        told = np.hstack([-solved.stacked, np.eye(series)])
        errors[place] = np.einsum("ij,ij->i", told @ about, told) / judged.count
    return errors


def _criteria(sums: Sums, series: int, grid: FloatColumn, mix: float) -> FloatMatrix:
    """log(variance left) + log(rows) * (weights that are not zero) / rows, for each penalty."""
    price = np.log(sums.count) / sums.count
    return np.array(
        [
            np.log(np.diag(solved.covariance)) + price * np.count_nonzero(solved.weights, axis=1)
            for solved in _path(sums, series, grid, mix)
        ]
    )


def _path(sums: Sums, series: int, grid: FloatColumn, mix: float) -> Iterator[Solved]:
    """Fits from the strongest penalty to the weakest, each starting where the last one ended."""
    start = None
    for penalty in grid:
        solved = solve_sums(sums, series, ElasticNet(float(penalty), mix, _NEAR), start)
        if solved.reason:
            raise EstimationError(
                f"no fit with penalty {penalty:.3g}: {solved.reason}",
                hint="leave that column out, or take fewer folds",
            )
        start = solved.weights
        yield solved
