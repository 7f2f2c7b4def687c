"""How stress travels over exposures before anybody defaults: DebtRank, and what only defaults do.

Stress of a node is the share of its equity (its buffer) that is gone, 0 to 1. A holder of a claim
on a stressed node marks the claim down, and is stressed itself. These are valuation losses: nobody
has paid less yet, so they are never to be added to losses that were realised.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array

from undertow.econometrics.checks import BoolColumn, FloatColumn, frozen
from undertow.econometrics.radius import radius
from undertow.errors import EstimationError
from undertow.kernels import clearing as kernel

_STILL = 1e-14
_MOST = 100_000  # steps


class Spread(StrEnum):
    """What a node passes on."""

    CONTINUOUS = "continuous"  # every rise of its stress, as it comes
    ONCE = "once"  # the first rise alone, so that cycles count once
    DEFAULT = "default"  # nothing until its equity is gone, then all of it


@dataclass(frozen=True, eq=False)
class Exposures:
    """Who holds claims on whom, over the equity of the holder."""

    start: NDArray[np.int64]
    debtor: NDArray[np.int64]
    weight: FloatColumn
    buffer: FloatColumn

    @classmethod
    def of(
        cls,
        holder: ArrayLike,
        debtor: ArrayLike,
        value: ArrayLike,
        buffer: ArrayLike,
        *,
        cap: bool = False,
    ) -> Exposures:
        """Exposures from edges; several between the same two add up.

        With `cap` no claims on one debtor weigh more than all of their holder's equity, as in
        DebtRank of 2012; without it a claim of twice the equity takes all of that when half of
        the debtor's is gone.

        Raises
        ------
        EstimationError
            When an edge ends at no node or where it began, a value is negative, or a holder has no
            equity.
        """
        b = np.array(buffer, dtype=np.float64)
        i, m = (np.asarray(end, dtype=np.int64) for end in (holder, debtor))
        x = np.asarray(value, dtype=np.float64)
        if not i.shape == m.shape == x.shape or x.ndim != 1 or b.ndim != 1:
            raise EstimationError("holders, debtors and values differ in length")
        for name, end in (("holder", i), ("debtor", m)):
            if len(end) and not (end.min() >= 0 and end.max() < len(b)):
                raise EstimationError(f"a {name} is none of the {len(b)} nodes")
        if (i == m).any():
            raise EstimationError(f"node {int(i[i == m][0])} holds a claim on itself")
        if not np.isfinite(x).all() or (x < 0.0).any():
            raise EstimationError("an exposure is negative or not finite")
        if not np.isfinite(b).all() or (b <= 0.0).any():
            raise EstimationError(
                f"node {int(np.argmin(b))} has no equity",
                hint="leave it out and shock those who hold claims on it: it has failed already",
            )
        start, sorted_debtor, sorted_value = kernel.by_creditor(m, i, x, len(b))
        holders = np.repeat(np.arange(len(b)), np.diff(start))
        weight = sorted_value / b[holders]
        if cap:
            start, sorted_debtor, weight = _capped(start, sorted_debtor, weight, len(b))
        return cls(*map(frozen, (start, sorted_debtor, weight, b)))

    def __len__(self) -> int:
        return len(self.buffer)

    @property
    def matrix(self) -> csr_array:
        """(holders, debtors): exposure over the holder's equity."""
        return csr_array((self.weight, self.debtor, self.start), shape=(len(self), len(self)))

    @property
    def radius(self) -> float:
        """Spectral radius; above 1 small stress grows until nothing is left of whole cycles."""
        return radius(self.matrix)


@dataclass(frozen=True, eq=False)
class Stress:
    """Where stress came to rest."""

    first: FloatColumn  # by node
    final: FloatColumn  # as marked down, which may pass 1: then nothing is left
    steps: int
    settled: bool

    @property
    def level(self) -> FloatColumn:
        """By node, the share of its equity that is gone."""
        return np.minimum(self.final, 1.0)

    @property
    def defaulted(self) -> BoolColumn:
        """Nodes whose equity is gone."""
        gone: BoolColumn = self.final >= 1.0
        return gone

    def rank(self, weight: ArrayLike) -> float:
        """DebtRank: the stress that came on top of the first, weighted; weights sum to 1 here."""
        w = np.asarray(weight, dtype=np.float64)
        return float(w @ (self.level - np.minimum(self.first, 1.0)) / w.sum())


def stress(
    exposures: Exposures,
    first: ArrayLike,
    spread: Spread = Spread.CONTINUOUS,
    *,
    early: float = 1.0,
) -> Stress:
    """Follow stress from its first level over all exposures.

    `early` is the share of its stress that a node passes on while it has equity left; once that is
    gone it passes on all. At 1 stress is linear, at 0 only defaults travel, between them do both.

    Raises
    ------
    EstimationError
        When the first level is none of 0 to 1, or `early` is no share or asked of another spread
        than the continuous one.

    References
    ----------
    Battiston et al. (2012), Scientific Reports 2; Bardoscia et al. (2015), PLoS ONE 10.
    """
    h = np.array(first, dtype=np.float64)
    if h.shape != (len(exposures),) or not ((h >= 0.0) & (h <= 1.0)).all():
        raise EstimationError(f"first must be {len(exposures)} shares, 0 to 1")
    if not 0.0 <= early <= 1.0:
        raise EstimationError(f"early was {early}; it must be a share, 0 to 1")
    if early != 1.0 and spread is not Spread.CONTINUOUS:
        raise EstimationError(f"early was {early}; only continuous stress can be passed on in part")
    begun = h.copy()
    passed = np.zeros_like(h)  # what each has passed on so far
    for steps in range(_MOST):
        ready = _to_pass(h, passed, spread, early)
        if np.abs(ready - passed).max(initial=0.0) <= _STILL:
            return Stress(frozen(begun), frozen(h), steps, settled=True)
        kernel.spread(exposures.start, exposures.debtor, exposures.weight, ready, passed, h)
        passed = ready
    return Stress(frozen(begun), frozen(h), _MOST, settled=False)


def _to_pass(h: FloatColumn, passed: FloatColumn, spread: Spread, early: float) -> FloatColumn:
    """How much of its stress each node has passed on after this step."""
    level = np.minimum(h, 1.0)
    if spread is Spread.DEFAULT:
        return np.where(level >= 1.0, 1.0, 0.0)
    if spread is Spread.ONCE:
        return np.where(passed > 0.0, passed, level)
    return np.where(level < 1.0, early * level, level)


def _capped(
    start: NDArray[np.int64], debtor: NDArray[np.int64], weight: FloatColumn, nodes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatColumn]:
    """All claims of a holder on one debtor as one, of a weight of at most 1."""
    whole = csr_array((weight, debtor, start), shape=(nodes, nodes))
    whole.sum_duplicates()
    first, ends = whole.indptr.astype(np.int64), whole.indices.astype(np.int64)
    return first, ends, np.minimum(whole.data, 1.0)
