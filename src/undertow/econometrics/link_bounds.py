"""How far contagion can go at most, whoever owes whom: bounds from totals alone, each proved.

Equity of a node is fixed by totals, so what hangs on the network is only who bears what. The proofs
stand in docs/measures/interconnection.md, under missing links.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import linprog

from undertow.econometrics.checks import FloatColumn
from undertow.errors import EstimationError


def shortfall_bound(
    has: ArrayLike, owes: ArrayLike, assets: ArrayLike, outside: ArrayLike,
    allowed: ArrayLike | None = None, *, keep_assets: float = 1.0, keep_received: float = 1.0,
) -> float:  # fmt: skip
    """The most that all together fail to pay, over all networks with these totals.

    Node j fails to pay s_j. With costs of default it pays at least what is kept of its own assets.
    Without, s_j = max(0, l_j - E_j) with l_j the loss on its claims and E_j its equity: convex in
    l_j, so never above the chord from l_j = 0 to l_j = has_j. Losses on claims add up to what is
    not paid inside, and a node loses only to those who may owe to it. These are linear, and the
    programme's value is the bound.
    """
    h, w, e, b = (np.asarray(x, dtype=np.float64) for x in (has, owes, assets, outside))
    owed, size = w + b, len(h)
    simple = np.where(e < owed, owed - keep_assets * e, 0.0)
    plain = float(simple.sum())
    if size == 0 or plain == 0.0 or keep_assets < 1.0 or keep_received < 1.0:
        return plain
    equity = e + h - owed
    # s_j <= at_nothing + slope * l_j
    at_nothing = np.maximum(-equity, 0.0)
    at_most = np.maximum(h - equity, 0.0)
    slope = np.divide(at_most - at_nothing, h, out=np.zeros(size), where=h > 0.0)
    inside = np.divide(w, owed, out=np.zeros(size), where=owed > 0.0)
    may = np.eye(size) == 0.0 if allowed is None else np.asarray(allowed, dtype=np.bool_)
    eye, zero = np.eye(size), np.zeros((1, size))
    # columns: l (size), then s (size)
    rows = np.vstack(
        [
            np.hstack([-np.diag(slope), eye]),
            np.hstack([np.ones((1, size)), -inside[None, :]]),
            np.hstack([eye, -1.0 * may * inside]),
            np.hstack([zero, zero]),
        ]
    )
    limits = np.concatenate([at_nothing, [0.0], np.zeros(size), [0.0]])
    most = np.concatenate([h, np.minimum(owed, simple)])
    scale = max(float(most.max()), 1e-300)
    found = linprog(
        np.concatenate([np.zeros(size), -np.ones(size)]), A_ub=rows, b_ub=limits / scale,
        bounds=np.column_stack([np.zeros(2 * size), most / scale]), method="highs",
    )  # fmt: skip
    if found.x is None:
        raise EstimationError("the programme of the bound has no answer", hint=str(found.message))
    # the solver is right to 1e-7 of the scale; the word bound asks for the safe side of it
    return float(min(plain, -found.fun * scale * (1.0 + 1e-7) + 1e-7 * scale))


def stress_bound(has: ArrayLike, equity: ArrayLike, first: ArrayLike) -> float:
    """The most that DebtRank adds, corrected or in one hit.

    Nobody loses more than it has on others, nor more than the first stress left of its equity.
    """
    h, e, s = (np.asarray(x, dtype=np.float64) for x in (has, equity, first))
    return float(np.minimum(h, e * (1.0 - np.minimum(s, 1.0))).sum())


def radius_bound(has: ArrayLike, equity: ArrayLike) -> float:
    """The largest spectral radius of exposures over equity: the largest sum of a row."""
    h, e = (np.asarray(x, dtype=np.float64) for x in (has, equity))
    return float(np.divide(h, e, out=np.zeros_like(h), where=e > 0.0).max(initial=0.0))


def defaults_bound(owed: FloatColumn, assets: FloatColumn) -> int:
    """The most that default: whose own assets cover all it owes never does."""
    return int((assets < owed * (1.0 - 1e-12)).sum())
