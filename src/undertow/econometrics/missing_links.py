"""Who could owe whom, where only totals are known: spread out, concentrated, and drawn.

Row i is what node i has on others, column j what node j owes; nobody owes to itself. The spread-out
network is that of maximum entropy, the concentrated one has as few links as matching the largest
finds, the drawn ones are draws given the totals. Contagion over the first is too even, over the
second too lumpy; neither is proved to be an end of what is possible.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from undertow.econometrics.checks import FloatColumn, FloatMatrix
from undertow.errors import EstimationError
from undertow.kernels import reconstruction as kernel

_STILL = 1e-13  # of the largest total
_MOST = 300  # rounds of fitting
_STEPS, _HALVINGS = 200, 30  # where that creeps
_FURTHEST = 20.0  # by which a step may scale, as a logarithm
_RESTS = 1e-6  # a step that small is the last
_NOTHING = 1e-13  # of the smaller of its totals: a link of less is none
_MISSED = 1e-12  # of the whole
_TRIED = 50  # moves an entry between two draws


def spread_out(has: ArrayLike, owes: ArrayLike) -> FloatMatrix:
    """The network of maximum entropy: every link as large as both totals ask, none with itself.

    Links that totals force to nothing are not in it.

    Raises
    ------
    EstimationError
        When totals are negative, do not agree, or ask a node to owe to itself, or are missed by
        more than 1e-12 of the whole.

    References
    ----------
    Upper (2011), Journal of Financial Stability 7, for what it hides.
    """
    rows, columns = _totals(has, owes)
    return fitted(rows, columns, ~np.eye(len(rows), dtype=np.bool_))


def fitted(rows: FloatColumn, columns: FloatColumn, allowed: Any) -> FloatMatrix:
    """The network of maximum entropy with these totals on the links that may be.

    There is one, and only one, wherever any network fits. Rows and columns are scaled in turn, or
    by Newton steps where that creeps, as totals force some links to nothing or nearly. A link of
    less than 1e-13 of the smaller of its totals is none.

    Raises
    ------
    EstimationError
        When totals are missed by more than 1e-12 of the whole: what was found is no answer.
    """
    whole = float(rows.sum())
    found: FloatMatrix = np.outer(rows, columns) * allowed
    if whole <= 0.0:
        return found
    found /= whole
    for _ in range(_MOST):
        found *= _over(rows, found.sum(axis=1))[:, None]
        found *= _over(columns, found.sum(axis=0))
        if np.abs(found.sum(axis=1) - rows).max(initial=0.0) <= _STILL * whole:
            return found
    found = _climbed(found, rows, columns)
    missed = np.abs(found.sum(axis=1) - rows).max()
    if not max(missed, np.abs(found.sum(axis=0) - columns).max()) <= _MISSED * whole:
        raise EstimationError(
            f"totals of the network of maximum entropy were missed by {missed / whole:.1g} of the "
            "whole",
            hint="totals may all but forbid each other, or a last digit of them may be lost",
        )
    return found


def _climbed(found: FloatMatrix, rows: FloatColumn, columns: FloatColumn) -> FloatMatrix:
    """Newton steps for the logarithms that rows are scaled with, columns made to fit each time.

    How much a row changes with the scale of another is what both have in the same columns. Where
    totals force a link to nothing each step leaves about a third of it, until it is dropped.
    """
    least = _NOTHING * np.minimum(rows[:, None], columns)
    x, best, nearest = found, found, np.inf
    part = _over(np.ones_like(columns), columns)
    for _ in range(_STEPS):
        missed = rows - x.sum(axis=1)
        if float(np.abs(missed).max()) < nearest:
            best, nearest = x, float(np.abs(missed).max())
        both = (x * part) @ x.T
        np.fill_diagonal(both, 0.0)
        own = both.sum(axis=1)
        even = np.sqrt(_over(np.ones_like(own), own))
        bend = np.diag(np.where(own > 0.0, 1.0, 0.0)) - both * even[:, None] * even
        step = even * np.linalg.lstsq(bend, even * missed, rcond=1e-15)[0]
        rests = np.abs(missed).max() <= _STILL * rows.sum() and np.abs(step).max() <= _RESTS
        if rests:  # a small miss alone does not say so: links may still be on their way to nothing
            return x
        step *= min(1.0, _FURTHEST / max(float(np.abs(step).max()), 1e-300))
        for _ in range(_HALVINGS):
            then = x * np.exp(step)[:, None]
            rise = columns @ np.log(np.maximum(then.sum(axis=0) * part, 1e-300)) - rows @ step
            if rise <= 1e-15 * float(rows.sum()):
                break
            step = 0.5 * step
        x = np.where(then > least, then, 0.0)
        x = x * _over(columns, x.sum(axis=0))
    return best


def concentrated(has: ArrayLike, owes: ArrayLike) -> FloatMatrix:
    """A network of few links: who has or owes most meets the largest on the other side.

    About two links a node; that there could not be fewer is not proved.

    Raises
    ------
    EstimationError
        As `spread_out` does.

    References
    ----------
    Anand, Craig and von Peter (2015), Quantitative Finance 15, for networks of minimum density.
    """
    rows, columns = _totals(has, owes)
    left, due = rows.copy(), columns.copy()
    found = np.zeros((len(rows), len(rows)))
    scale = max(float(rows.sum()), 1e-300)
    while left.max(initial=0.0) > 1e-12 * scale:
        i, j, usd = _next_link(left, due)
        found[i, j] += usd
        left[i] -= usd
        due[j] -= usd
    return found


def drawn(
    has: ArrayLike, owes: ArrayLike, count: int = 200, *, density: float = 0.3, seed: int = 0
) -> Iterator[FloatMatrix]:
    """Networks drawn given the totals, each of `count` far from the one before.

    Before the totals were known a link was there with chance `density`, and then exponential.

    Raises
    ------
    EstimationError
        As `spread_out` does, or when the density is no share or nothing is asked for.

    References
    ----------
    Gandy and Veraart (2017), Management Science 63.
    """
    if not 0.0 < density <= 1.0 or count < 1:
        raise EstimationError(f"density was {density} and count {count}; give a share, and some")
    rows, columns = _totals(has, owes)
    here, nodes = spread_out(rows, columns), len(rows)
    links = max(density * nodes * (nodes - 1), 1.0)
    mean = float(rows.sum()) / links  # of a link that is there
    gone = (1.0 - density) / density * mean
    rng = np.random.default_rng(seed)
    moves = _TRIED * nodes * max(nodes - 1, 1)
    for _ in range(count):
        corners = rng.integers(0, max(nodes, 1), (4, moves))
        kernel.wander(here, *corners, rng.random(moves), gone)
        yield here.copy()


def _next_link(left: FloatColumn, due: FloatColumn) -> tuple[int, int, float]:
    """Who has, who owes, and how much, so that nobody is left with itself.

    The node with least room, as it has and owes most, goes first; it takes the largest on the other
    side, and no more than leaves the next node room.
    """
    both, whole = left + due, float(left.sum())
    k = int(np.argmax(both))
    has = left[k] >= due[k]
    side = np.where(np.arange(len(left)) == k, -1.0, due if has else left)
    for other in (int(np.argmax(side)), int(np.argmax(np.where(side > 0.0, both, -1.0)))):
        i, j = (k, other) if has else (other, k)
        rest = np.delete(both, [k, other]).max(initial=0.0)
        usd = min(float(left[i]), float(due[j]), whole - rest)
        if usd > 1e-12 * whole:
            break
    return i, j, min(float(left[i]), float(due[j])) if usd <= 1e-12 * whole else usd


def _over(total: FloatColumn, here: FloatColumn) -> FloatColumn:
    return np.divide(total, here, out=np.zeros_like(total), where=here > 0.0)


def _totals(has: ArrayLike, owes: ArrayLike) -> tuple[FloatColumn, FloatColumn]:
    rows, columns = (np.array(x, dtype=np.float64) for x in (has, owes))
    if rows.shape != columns.shape or rows.ndim != 1:
        raise EstimationError("totals must be two numbers a node")
    for name, x in (("has", rows), ("owes", columns)):
        if not np.isfinite(x).all() or (x < 0.0).any():
            raise EstimationError(f"{name} is negative or not finite")
    whole = float(rows.sum())
    if abs(whole - float(columns.sum())) > 1e-9 * max(whole, 1e-300):
        raise EstimationError(
            f"all have {whole:g} and all owe {float(columns.sum()):g}; these must be the same",
            hint="let one more node stand for the outside",
        )
    if len(rows) and (rows + columns).max() > whole * (1.0 + 1e-12):
        k = int(np.argmax(rows + columns))
        raise EstimationError(f"node {k} has and owes more than all others: it would owe to itself")
    return rows, columns * (whole / max(float(columns.sum()), 1e-300))
