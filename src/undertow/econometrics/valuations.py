"""What claims on each other are worth before anybody has to pay: one fixed point, four marks.

Equity of a node is what it has outside, less all it owes, plus its claims on others at their marks;
a mark hangs on the debtor's equity. From face value downwards the marks end at the greatest
equities that fit. Linear marks are those of DebtRank, marks by payment those of clearing; what is
likely by a horizon lies between (Merton). These are valuation losses: nobody has paid less yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_array
from scipy.special import ndtr

from undertow.econometrics.checks import FloatColumn, frozen
from undertow.econometrics.clearing import Debts
from undertow.errors import EstimationError

_STILL = 1e-14
_MOST = 20_000  # steps

Mark = Callable[[FloatColumn, FloatColumn, FloatColumn], FloatColumn]
"""Marks, 0 to 1, of claims on nodes: of their equity, all they owe, what they have outside."""


def linear(before: ArrayLike) -> Mark:
    """A claim loses the share of equity that its debtor lost since `before`, as in DebtRank.

    Who had no equity before is marked at nothing.
    """
    had = np.asarray(before, dtype=np.float64)

    def mark(equity: FloatColumn, owed: FloatColumn, assets: FloatColumn) -> FloatColumn:
        left = np.divide(equity, had, out=np.zeros_like(equity), where=had > 0.0)
        return np.clip(left, 0.0, 1.0)

    return mark


def by_payment() -> Mark:
    """A claim is worth what its debtor pays when all comes due now, as in clearing."""

    def mark(equity: FloatColumn, owed: FloatColumn, assets: FloatColumn) -> FloatColumn:
        paid = np.divide(equity + owed, owed, out=np.ones_like(owed), where=owed > 0.0)
        return np.clip(paid, 0.0, 1.0)

    return mark


def by_recovery(recovery: float) -> Mark:
    """A claim is worth all of it, or a fixed share once its debtor has no equity."""
    _require_share("recovery", recovery)

    def mark(equity: FloatColumn, owed: FloatColumn, assets: FloatColumn) -> FloatColumn:
        return np.where(equity > 0.0, 1.0, recovery)

    return mark


def ahead(volatility: float, recovery: float = 1.0) -> Mark:
    """What a claim is expected to pay at a horizon, while the debtor's outside assets wander.

    They follow a geometric walk without drift, of so much `volatility` over the horizon; in default
    `recovery` is the share of what is left that creditors get.

    Raises
    ------
    EstimationError
        When the volatility is not above 0 or the recovery is no share.
    """
    _require_share("recovery", recovery)
    if not (np.isfinite(volatility) and volatility > 0.0):
        raise EstimationError(f"volatility was {volatility}; it must be above 0")

    def below(level: FloatColumn, assets: FloatColumn, drift: float) -> FloatColumn:
        """Chance of assets below a level; with `drift` -1 as assets themselves would weigh it."""
        there = (level > 0.0) & (assets > 0.0)
        far = np.log(np.divide(level, assets, out=np.ones_like(level), where=there))
        chance = ndtr((far + 0.5 * drift * volatility**2) / volatility)
        return np.where(there, chance, np.where(level > 0.0, 1.0, 0.0))

    def mark(equity: FloatColumn, owed: FloatColumn, assets: FloatColumn) -> FloatColumn:
        ends = assets - equity, assets - equity - owed  # default, and nothing left at all
        fails, empties = (below(end, assets, 1.0) for end in ends)
        worth = assets * (below(ends[0], assets, -1.0) - below(ends[1], assets, -1.0))
        whole = np.maximum(owed, 1e-300)
        left = (1.0 + (equity - assets) / whole) * (fails - empties) + worth / whole
        found = np.clip(1.0 - fails + recovery * left, 0.0, 1.0)
        return np.where(owed > 0.0, found, 1.0)

    return mark


@dataclass(frozen=True, eq=False)
class Valued:
    """Equities at which every claim stands at its mark."""

    equity: FloatColumn
    mark: FloatColumn  # by node: of claims on it
    face: FloatColumn  # equity with all claims at face value
    steps: int
    settled: bool

    @property
    def loss(self) -> FloatColumn:
        """By node: what its claims lost in value."""
        return self.face - self.equity


def valued(debts: Debts, assets: ArrayLike, mark: Mark) -> Valued:
    """The greatest equities at which claims stand at their marks.

    Raises
    ------
    EstimationError
        When assets are not one finite number a node.

    References
    ----------
    Barucca et al. (2020), "Network valuation in financial systems", Mathematical Finance 30.
    """
    e = np.array(assets, dtype=np.float64)
    if e.shape != (len(debts),) or not np.isfinite(e).all():
        raise EstimationError(f"assets must be {len(debts)} finite numbers, one a node")
    owed = debts.owed
    claims = csr_array((debts.value, debts.debtor, debts.start), shape=(len(debts), len(debts)))
    base = e - owed
    face = base + claims @ np.ones(len(debts))
    equity, size = face.copy(), np.maximum(np.abs(face), np.maximum(owed, 1.0))
    steps, change = 0, np.inf
    while change > _STILL and steps < _MOST:
        then = np.minimum(base + claims @ mark(equity, owed, e), equity)
        change = float((np.abs(then - equity) / size).max(initial=0.0))
        equity, steps = then, steps + 1
    return Valued(
        equity=frozen(equity), mark=frozen(mark(equity, owed, e)), face=frozen(face), steps=steps,
        settled=change <= _STILL,
    )  # fmt: skip


def _require_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise EstimationError(f"{name} was {value}; it must be a share, 0 to 1")
