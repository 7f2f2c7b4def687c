"""Who could owe whom, where totals are known and some links cannot be, or are known already.

Row i is what node i has on others, column j what node j owes. `Open` holds the totals of what
nobody knows: known links have been taken off, and stand among those that may not be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog
from scipy.sparse import coo_array

from undertow.econometrics.checks import BoolColumn, FloatColumn, FloatMatrix, frozen
from undertow.econometrics.missing_links import concentrated, fitted
from undertow.errors import EstimationError
from undertow.kernels import reconstruction as kernel

_NEAR = 1e-9
_TRIED = 50  # moves a link that may be, between two draws
_FEW, _SIXES = 4, 4  # nodes up to which moves go round six; such moves a node between two draws
_NONE = (
    "no network on the links that may be has these totals",
    "allow more links, or let one more node stand for the outside",
)


@dataclass(frozen=True, eq=False)
class Open:
    """Totals of links that nobody knows, and which of them there may be."""

    has: FloatColumn  # by node: on others
    owes: FloatColumn  # by node: to others
    allowed: Any  # (nodes, nodes) bool: row may have a claim on column

    @classmethod
    def of(cls, has: ArrayLike, owes: ArrayLike, allowed: ArrayLike | None = None) -> Open:
        """Totals, checked once; without `allowed` everybody may owe to everybody else.

        Raises
        ------
        EstimationError
            When totals are negative, do not agree, or no network on these links has them.
        """
        rows, columns = (np.array(x, dtype=np.float64) for x in (has, owes))
        if rows.shape != columns.shape or rows.ndim != 1:
            raise EstimationError("totals must be two numbers a node")
        for name, x in (("has", rows), ("owes", columns)):
            if not np.isfinite(x).all() or (x < 0.0).any():
                raise EstimationError(f"{name} is negative or not finite")
        whole, owed = float(rows.sum()), float(columns.sum())
        if abs(whole - owed) > _NEAR * max(whole, owed):
            raise EstimationError(
                f"all have {whole:g} and all owe {owed:g}; these must be the same",
                hint="let one more node stand for the outside",
            )
        size = len(rows)
        may = np.ones((size, size), dtype=np.bool_) if allowed is None else np.array(allowed, bool)
        if may.shape != (size, size):
            raise EstimationError(f"allowed was {may.shape}; it must be ({size}, {size})")
        np.fill_diagonal(may, False)
        found = cls(frozen(rows), frozen(columns * (whole / max(owed, 1e-300))), frozen(may))
        if whole > 0.0:
            corner(found)
        return found

    def __len__(self) -> int:
        return len(self.has)

    @property
    def whole(self) -> float:
        """All that is owed."""
        return float(self.has.sum())

    @property
    def free(self) -> bool:
        """Everybody may owe to everybody else."""
        return bool(self.allowed.sum() == len(self) * (len(self) - 1))


def spread_over(given: Open) -> FloatMatrix:
    """The network of maximum entropy on the links that may be; there is one, and only one.

    Links that totals force to nothing are not in it.

    Raises
    ------
    EstimationError
        When totals are missed by more than 1e-12 of the whole: what was found is no answer.
    """
    return fitted(given.has, given.owes, given.allowed)


def few_links(given: Open) -> FloatMatrix:
    """A network of few links: the largest meet where all may meet, else a corner of what fits.

    A corner has fewer links than there are totals. That there could not be fewer is not proved.

    References
    ----------
    Anand, Craig and von Peter (2015), Quantitative Finance 15, for networks of minimum density.
    """
    if given.free:
        return concentrated(given.has, given.owes)
    return corner(given)


def drawn_from(
    given: Open, count: int = 200, *, density: float = 0.3, seed: int = 0
) -> Iterator[FloatMatrix]:
    """Networks drawn given the totals, on the links that may be, each far from the one before.

    Before the totals were known a link was there with chance `density`, and then exponential. Moves
    go round four links, and where some may not be (or nodes are few) round six as well. Where most
    may not be, even these need not lead from every network to every other.

    Raises
    ------
    EstimationError
        When the density is no share or nothing is asked for.

    References
    ----------
    Gandy and Veraart (2017), Management Science 63.
    """
    if not 0.0 < density <= 1.0 or count < 1:
        raise EstimationError(f"density was {density} and count {count}; give a share, and some")
    here, rng = spread_over(given), np.random.default_rng(seed)
    pairs = int(given.allowed.sum())
    mean = given.whole / max(density * pairs, 1.0)  # of a link that is there
    gone = (1.0 - density) / density * mean
    for _ in range(count):
        corners = _rectangles(given.allowed, _TRIED * pairs, rng)
        kernel.wander(here, *corners, rng.random(len(corners[0])), gone)
        for _ in range(0 if given.free and len(given) > _FEW else _SIXES * len(given)):
            _round_six(here, given.allowed, rng, gone)
        yield here.copy()


def corner(given: Open, cost: ArrayLike | None = None) -> FloatMatrix:
    """The network of least cost, a corner of all that fit; by default large goes to large.

    Raises
    ------
    EstimationError
        When no network on these links has the totals.
    """
    whole = given.whole
    if whole <= 0.0:
        return np.zeros(given.allowed.shape)
    rows, columns = np.nonzero(given.allowed & (given.has[:, None] > 0.0) & (given.owes > 0.0))
    size, links = len(given), len(rows)
    if not links:
        raise EstimationError(_NONE[0], hint=_NONE[1])
    each = np.arange(links)
    ends = np.concatenate([rows, size + columns])
    sums = coo_array((np.ones(2 * links), (ends, np.tile(each, 2))), shape=(2 * size, links))
    want = np.concatenate([given.has, given.owes]) / whole
    price = -np.outer(given.has, given.owes) if cost is None else np.asarray(cost, dtype=np.float64)
    price = price / max(float(np.abs(price).max()), 1e-300)
    found = linprog(price[rows, columns], A_eq=sums.tocsr(), b_eq=want, method="highs-ds")
    if found.x is None:
        raise EstimationError(_NONE[0], hint=_NONE[1])
    kept = np.flatnonzero(found.x > 1e-12)
    exact, *_ = np.linalg.lstsq(sums.tocsc()[:, kept].toarray(), want, rcond=None)
    matrix = np.zeros(given.allowed.shape)
    matrix[rows[kept], columns[kept]] = np.maximum(exact, 0.0) * whole
    return matrix


def _rectangles(allowed: Any, wanted: int, rng: np.random.Generator) -> tuple[Any, ...]:
    """Corners of rectangles all of whose four links may be, about so many of them."""
    size = len(allowed)
    i, k, j, m = rng.integers(0, max(size, 1), (4, wanted))
    whole: BoolColumn = allowed[i, j] & allowed[k, m] & allowed[i, m] & allowed[k, j]
    if whole.all() or not size:
        return i, k, j, m
    found = [tuple(x[whole] for x in (i, k, j, m))]
    rows, columns = np.nonzero(allowed)
    have = int(whole.sum())
    for _ in range(8):  # of rectangles that begin at a link that may be, more are whole
        if have >= wanted or not len(rows):
            break
        one, other = rng.integers(0, len(rows), (2, wanted))
        ends = rows[one], rows[other], columns[one], columns[other]
        whole = allowed[ends[0], ends[3]] & allowed[ends[1], ends[2]]
        found.append(tuple(x[whole] for x in ends))
        have += int(whole.sum())
    return tuple(np.concatenate(each)[:wanted] for each in zip(*found, strict=True))


def _round_six(here: FloatMatrix, allowed: Any, rng: np.random.Generator, gone: float) -> None:
    """Move three links up and three down, as the kernel moves two and two; writes `here`."""
    if len(here) < 3:
        return
    i, k, n = rng.choice(len(here), 3, replace=False)
    j, m, o = rng.choice(len(here), 3, replace=False)
    one, other = ([i, k, n], [j, m, o]), ([i, k, n], [m, o, j])
    if not (allowed[one].all() and allowed[other].all()):
        return
    ups, downs = here[other], here[one]
    down, up = float(downs.min()), float(ups.min())
    if down + up <= 0.0 or (downs <= 0.0).sum() > 1 or (ups <= 0.0).sum() > 1:
        return  # two that are gone come back one by one, by other moves
    at = rng.random() * (down + up + 2.0 * gone)
    step = -down if at < gone else up if at < 2.0 * gone else at - 2.0 * gone - down
    here[one] += step
    here[other] -= step
    np.maximum(here, 0.0, out=here)
