"""What pairs of nodes share, against how much they move together: regression over pairs.

`excess` is a symmetric (nodes, nodes) matrix, such as correlations of what prices leave of leverage
growth; each driver is another: collateral, venues or owners that the two have in common. Pairs that
share a node are not independent, so ordinary p-values are worthless; these come from relabelling
nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations, permutations
from math import factorial, nan

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from undertow.econometrics.checks import BoolColumn, FloatColumn, FloatMatrix, frozen, within
from undertow.errors import EstimationError

Cube = NDArray[np.float64]  # (drivers, nodes, nodes)

_FLAT = 1e-10  # of a driver's size: what others leave of it, if it is only rounding
_MOST_DRIVERS = 12  # 4,096 regressions for the shares
_EXACT = 6  # nodes: up to here all 720 relabellings are taken
_SPREAD = 1e-12


class Permutation(StrEnum):
    """What is relabelled, so that a driver's own part means nothing while all else stays."""

    DRIVER = "driver"  # what the other drivers leave of it (double semi-partialing)
    RESIDUAL = "residual"  # what the other drivers leave of the excess (Freedman and Lane)


@dataclass(frozen=True, slots=True, eq=False)
class Dyads:
    """How much of the tie between two nodes each thing that they share explains.

    Arrays by driver hold NaN for a driver that `reasons` says is of no use, and all of them do,
    with `r2` and `left_over`, where `reason` says why nothing could be fitted.
    """

    coefficient: FloatColumn  # (drivers,): correlation per unit of the driver
    low: FloatColumn  # (drivers,): band that allows for pairs that share a node
    high: FloatColumn  # (drivers,)
    p_value: FloatColumn  # (drivers,): two-sided, by relabelling nodes
    share: FloatColumn  # (drivers,): of the variance over pairs; they add up to r2
    intercept: float  # tie of two nodes that share nothing
    r2: float
    left_over: float  # 1 - r2
    fitted: FloatMatrix  # (nodes, nodes): NaN on the diagonal and where not seen
    residual: FloatMatrix  # (nodes, nodes), likewise
    pairs: int
    level: float
    reasons: tuple[str, ...]  # (drivers,): empty where the driver was used
    reason: str = ""


def attribute(
    excess: ArrayLike,
    drivers: ArrayLike,
    *,
    rng: np.random.Generator,
    reps: int = 1999,
    level: float = 0.9,
    permutation: Permutation | str = Permutation.DRIVER,
) -> Dyads:
    """Which of the things that nodes share explains that they move together, and what is left.

    excess_ij = intercept + sum_m coefficient_m * driver_m,ij + residual_ij over all pairs i < j.

    The p-value of a driver asks if the nodes of its own part, what the other drivers do not say of
    it, could be relabelled at random with a t-value as large. It holds where another, correlated
    driver is the true one, and where pairs depend on each other because they share a node. `share`
    is the mean gain in R2 over all orders of adding drivers (Shapley, here of Lindeman, Merenda and
    Gold), so drivers that say the same divide it. NaN off the diagonal is a pair not seen.

    When it misleads: correlations estimated from few steps are noisy, which leaves coefficients
    as they are but widens bands and pushes shares to `left_over`. The band allows for pairs that
    share a node, not for all correlations coming from one stretch of history: large ones among many
    nodes need a bootstrap of that history. Errors in a driver (holdings seen
    in part) pull its coefficient to 0 and hand what it explained to drivers like it. Fewer than
    about eight nodes can hardly reach a small p-value. A driver that is only a trait of nodes (a
    large node ties to all) is none of pairs.

    Raises
    ------
    EstimationError
        When a matrix is no symmetric one of the same nodes, or an option is impossible.

    References
    ----------
    Dekker, Krackhardt and Snijders (2007), Psychometrika 72 (double semi-partialing). Freedman and
    Lane (1983). Krackhardt (1988), quadratic assignment. Fafchamps and Gubert (2007), J.
    Development Economics 83, and Aronow, Samii and Assenova (2015), Political Analysis 23 (errors
    of pairs that share a node). Lindeman, Merenda and Gold (1980).
    """
    y, cube = _matrices(excess, drivers)
    permutation = Permutation(permutation)
    within("level", level, 0.0, 1.0)
    if reps < 19:
        raise EstimationError(f"reps was {reps}; at least 19 are needed", hint="1999 is usual")
    if len(cube) > _MOST_DRIVERS:
        raise EstimationError(
            f"drivers are {len(cube)}; {_MOST_DRIVERS} at most", hint="add alike ones up"
        )
    seen = ~(np.isnan(y) | np.isnan(cube).any(axis=0))
    np.fill_diagonal(seen, False)
    pairs = _Pairs.of(seen)
    reasons = _judged(cube, pairs)
    use = np.array([not reason for reason in reasons], dtype=np.bool_)
    reason = _refused(y, pairs, int(use.sum()))
    if reason:
        return _none(y, len(cube), pairs.count, level, reasons, reason)
    target, x = pairs.flat(y), pairs.flat(cube[use])
    beta, residual, r2 = _regressed(target, x)
    low, high = _band(target, x, pairs, level)
    p = [_p_value(k, y, cube[use], pairs, permutation, reps, rng) for k in range(int(use.sum()))]
    fitted = np.full(y.shape, np.nan)
    fitted[pairs.i, pairs.j] = fitted[pairs.j, pairs.i] = target - residual
    return Dyads(
        coefficient=_spread(use, beta[1:]),
        low=_spread(use, low[1:]),
        high=_spread(use, high[1:]),
        p_value=_spread(use, p),
        share=_spread(use, _shares(target, x)),
        intercept=float(beta[0]),
        r2=r2,
        left_over=1.0 - r2,
        fitted=frozen(fitted),
        residual=frozen(np.where(np.isnan(fitted), np.nan, y - fitted)),
        pairs=pairs.count,
        level=level,
        reasons=reasons,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """The pairs that were seen, i < j."""

    i: NDArray[np.int64]
    j: NDArray[np.int64]
    nodes: int

    @classmethod
    def of(cls, seen: NDArray[np.bool_]) -> _Pairs:
        i, j = np.nonzero(np.triu(seen, 1))
        return cls(i, j, len(seen))

    @property
    def count(self) -> int:
        return len(self.i)

    def flat(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values of the pairs: (..., nodes, nodes) in, (..., pairs) out."""
        return np.asarray(matrix[..., self.i, self.j])

    def ends(self) -> FloatMatrix:
        """1 where a node is one of a pair's two: (pairs, nodes)."""
        out = np.zeros((self.count, self.nodes))
        out[np.arange(self.count), self.i] = out[np.arange(self.count), self.j] = 1.0
        return out

    def square(self, flat: FloatColumn) -> FloatMatrix:
        """A symmetric matrix of the pairs, 0 where a pair was not seen."""
        out = np.zeros((self.nodes, self.nodes))
        out[self.i, self.j] = out[self.j, self.i] = flat
        return out


# ---------------------------------------------------------------- what came in


def _matrices(excess: ArrayLike, drivers: ArrayLike) -> tuple[FloatMatrix, Cube]:
    y = np.asarray(excess, dtype=np.float64)
    cube = np.asarray(drivers, dtype=np.float64)
    cube = cube[None] if cube.ndim == 2 else cube
    if y.ndim != 2 or y.shape[0] != y.shape[1]:
        raise EstimationError(f"excess is {y.shape}", hint="give (nodes, nodes)")
    if cube.ndim != 3 or cube.shape[1:] != y.shape or not len(cube):
        raise EstimationError(
            f"drivers are {cube.shape}; excess is {y.shape}", hint="give (drivers, nodes, nodes)"
        )
    for name, each in (("excess", y), *((f"driver {m}", one) for m, one in enumerate(cube))):
        off = ~np.eye(len(each), dtype=np.bool_)
        if np.isinf(each[off]).any():
            raise EstimationError(f"{name} holds an infinite value")
        if not np.allclose(each[off], each.T[off], rtol=1e-9, atol=1e-12, equal_nan=True):
            raise EstimationError(f"{name} is not symmetric", hint="give (m + m.T) / 2")
    return y, cube


def _judged(cube: Cube, pairs: _Pairs) -> tuple[str, ...]:
    """Why each driver is of no use, or nothing; of two that say the same, the first is used."""
    reasons: list[str] = []
    kept: list[FloatColumn] = [np.ones(pairs.count)]
    for driver in cube:
        flat = pairs.flat(driver)
        size = float(np.sqrt(((flat - flat.mean()) ** 2).sum())) if pairs.count else 0.0
        left = _left(flat, np.stack(kept)) if pairs.count else flat
        if size <= _FLAT * max(float(np.abs(flat).max(initial=0.0)), 1e-300) * len(flat) ** 0.5:
            reasons.append("the same for all pairs")
        elif float(np.sqrt(left @ left)) <= _FLAT * 1e3 * size:
            reasons.append("a combination of the drivers before it")
        else:
            reasons.append("")
            kept.append(flat)
    return tuple(reasons)


def _refused(y: FloatMatrix, pairs: _Pairs, drivers: int) -> str:
    least = drivers + 3
    if not drivers:
        return "no driver is of use"
    if pairs.nodes < 4 or pairs.count < least:
        return f"too few: {pairs.count} pairs of {pairs.nodes} nodes; {least} pairs of 4 are needed"
    flat = pairs.flat(y)
    return "excess is the same for all pairs" if float(np.ptp(flat)) <= _SPREAD else ""


def _none(
    y: FloatMatrix, drivers: int, pairs: int, level: float, reasons: tuple[str, ...], reason: str
) -> Dyads:
    column, square = frozen(np.full(drivers, np.nan)), frozen(np.full(y.shape, np.nan))
    return Dyads(
        coefficient=column, low=column, high=column, p_value=column, share=column,
        intercept=nan, r2=nan, left_over=nan, fitted=square, residual=square,
        pairs=pairs, level=level, reasons=reasons, reason=reason,
    )  # fmt: skip


def _spread(use: BoolColumn, values: ArrayLike) -> FloatColumn:
    out = np.full(len(use), np.nan)
    out[use] = values
    return frozen(out)


# ---------------------------------------------------------------- regression


def _left(y: FloatColumn, basis: FloatMatrix) -> FloatColumn:
    """What the rows of `basis` leave of y."""
    q, _ = np.linalg.qr(basis.T)
    left: FloatColumn = y - q @ (q.T @ y)
    return left


def _regressed(y: FloatColumn, x: FloatMatrix) -> tuple[FloatColumn, FloatColumn, float]:
    """Coefficients (constant first), residual and R2 of y on the rows of x."""
    design = np.column_stack([np.ones(len(y)), *x])
    beta = np.linalg.lstsq(design, y, rcond=None)[0]
    residual = y - design @ beta
    centred = y - y.mean()
    return beta, residual, 1.0 - float(residual @ residual) / float(centred @ centred)


def _band(
    y: FloatColumn, x: FloatMatrix, pairs: _Pairs, level: float
) -> tuple[FloatColumn, FloatColumn]:
    """Band that allows for pairs that share a node, with as many degrees as there are nodes.

    Variance B (sum_n g_n g_n' - sum_d s_d s_d') B with s_d the score of a pair, g_n the sum of
    those of node n, B the inverse of sums of products; times N / (N - 1) and P / (P - K), as a
    leave-out of nodes or pairs has it. Never below what independent pairs have.
    """
    beta, residual, _ = _regressed(y, x)
    design = np.column_stack([np.ones(len(y)), *x])
    bread = np.linalg.inv(design.T @ design)
    score = design * residual[:, None]
    of_node, apart = pairs.ends().T @ score, score.T @ score
    small = pairs.nodes / (pairs.nodes - 1) * pairs.count / max(pairs.count - design.shape[1], 1)
    tied = np.diag(bread @ (of_node.T @ of_node - apart) @ bread)
    alone = np.diag(bread @ apart @ bread)
    deviation = np.sqrt(small * np.maximum(tied, alone))
    free = max(pairs.nodes - design.shape[1], 1)
    width = float(stdtrit(free, 0.5 + 0.5 * level)) * deviation
    return beta - width, beta + width


def _p_value(
    k: int,
    y: FloatMatrix,
    cube: Cube,
    pairs: _Pairs,
    permutation: Permutation,
    reps: int,
    rng: np.random.Generator,
) -> float:
    """Share of relabellings with a t-value as far from 0 as the one that was found."""
    target, x = pairs.flat(y), pairs.flat(cube)
    others = np.column_stack([np.ones(pairs.count), *np.delete(x, k, axis=0)])
    q, _ = np.linalg.qr(others)
    own = x[k] - q @ (q.T @ x[k])
    rest = target - q @ (q.T @ target)
    told, fixed = (own, rest) if permutation is Permutation.DRIVER else (rest, own)
    moved = pairs.square(told)
    found = abs(float(_t_values(told[None], q, fixed, pairs)[0]))
    beyond = count = 0
    for labels in _relabelled(pairs.nodes, reps, rng):
        drawn = moved[labels[:, pairs.i], labels[:, pairs.j]]
        beyond += int((np.abs(_t_values(drawn, q, fixed, pairs)) >= found * (1.0 - 1e-10)).sum())
        count += len(labels)
    exact = pairs.nodes <= _EXACT
    return beyond / count if exact else (1 + beyond) / (1 + count)


def _t_values(drawn: FloatMatrix, q: FloatMatrix, fixed: FloatColumn, pairs: _Pairs) -> FloatColumn:
    """T of each row of `drawn` against `fixed`, both less what the other drivers say of them.

    Its error allows for pairs that share a node: products of scores of two pairs count as soon
    as they have a node in common, sum_n (sum of scores of n)^2 less those of each pair itself.
    """
    left = drawn - (drawn @ q) @ q.T
    size = np.maximum((left**2).sum(axis=1), 1e-300)
    slope = (left @ fixed) / size
    score = left * (fixed - slope[:, None] * left)
    of_node = score @ pairs.ends()
    own = (score**2).sum(axis=1)
    variance = np.maximum((of_node**2).sum(axis=1) - own, 0.25 * own)
    return np.asarray(slope * size / np.sqrt(np.maximum(variance, 1e-300)))


def _relabelled(nodes: int, reps: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Relabellings, some at a time: at random, or all of them where they are few."""
    if nodes <= _EXACT:
        yield np.array(list(permutations(range(nodes))), dtype=np.int64)
        return
    chunk = max(1, 2_000_000 // nodes**2)
    for first in range(0, reps, chunk):
        base = np.tile(np.arange(nodes), (min(chunk, reps - first), 1))
        yield rng.permuted(base, axis=1)


def _shares(y: FloatColumn, x: FloatMatrix) -> FloatColumn:
    """Mean gain in R2 of each driver over all orders of adding them; they add up to R2."""
    drivers = len(x)
    gained = {
        chosen: _regressed(y, x[list(chosen)])[2] if chosen else 0.0
        for size in range(drivers + 1)
        for chosen in combinations(range(drivers), size)
    }
    share = np.zeros(drivers)
    for chosen, r2 in gained.items():
        weight = factorial(len(chosen)) * factorial(max(drivers - len(chosen) - 1, 0))
        for k in set(range(drivers)) - set(chosen):
            share[k] += weight * (gained[tuple(sorted((*chosen, k)))] - r2)
    return np.asarray(share / factorial(drivers))
