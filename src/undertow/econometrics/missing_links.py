"""Who could owe whom, where only totals are known: spread out, concentrated, and drawn.

Row i is what node i has on others, column j what node j owes; nobody owes to itself. The spread-out
network is that of maximum entropy, the concentrated one has as few links as matching the largest
finds, the drawn ones are draws given the totals. Contagion over the first is too even, over the
second too lumpy; neither is proved to be an end of what is possible.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from undertow.econometrics.checks import FloatColumn, FloatMatrix
from undertow.errors import EstimationError
from undertow.kernels import reconstruction as kernel

_STILL = 1e-13  # of the largest total
_MOST = 100_000  # rounds of fitting
_TRIED = 50  # moves an entry between two draws


def spread_out(has: ArrayLike, owes: ArrayLike) -> FloatMatrix:
    """The network of maximum entropy: every link as large as both totals ask, none with itself.

    Raises
    ------
    EstimationError
        When totals are negative, do not agree, or ask a node to owe to itself.

    References
    ----------
    Upper (2011), Journal of Financial Stability 7, for what it hides.
    """
    rows, columns = _totals(has, owes)
    found = np.outer(rows, columns)
    np.fill_diagonal(found, 0.0)
    scale = max(float(rows.max(initial=0.0)), 1e-300)
    for _ in range(_MOST):
        found *= _over(rows, found.sum(axis=1))[:, None]
        found *= _over(columns, found.sum(axis=0))
        if np.abs(found.sum(axis=1) - rows).max(initial=0.0) <= _STILL * scale:
            break
    return found


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
