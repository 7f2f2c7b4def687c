"""What claims on each other are worth before anybody has to pay: one fixed point, four marks.

Equity of a node is what it has outside, less all it owes, plus its claims on others at their marks;
a mark hangs on the debtor's equity. Losses are followed from nothing upwards, so that they end at
the greatest equities that fit and are nothing, to the last digit, where nothing that lost leads.
Linear marks are those of DebtRank, marks by payment those of clearing; what is likely by a horizon
lies between (Merton). These are valuation losses: nobody has paid less yet.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, eye_array
from scipy.sparse.csgraph import breadth_first_order
from scipy.sparse.linalg import bicgstab, splu
from scipy.special import ndtr

from undertow.econometrics.checks import FloatColumn, frozen
from undertow.econometrics.clearing import Debts
from undertow.errors import EstimationError

_STILL = 1e-14  # of a claim: marks that change by less stand
_MOST = 20_000  # steps
_PATIENCE = 4  # steps before marks on the move are solved for at once
_SMALL = 3_000  # marks that are solved for directly, or more where circles do not cross
_SLACK = 1e-12  # of a claim, by which a solved mark may miss its own line
_ROUNDING = 1e-13  # of a balance sheet: what rounding alone can make of its sums


@dataclass(frozen=True, eq=False)
class Standing:
    """By node, with all claims at face value: what marks are told before any of them falls."""

    equity: FloatColumn
    owed: FloatColumn
    assets: FloatColumn  # outside


Shares = Callable[[FloatColumn], FloatColumn]
"""Shares of claims on nodes that are lost, 0 to 1, given what the nodes' own claims lost."""

Mark = Callable[[Standing], Shares]


@dataclass(frozen=True, eq=False)
class Ramp:
    """Shares that rise in a straight line with losses, from nothing to all."""

    base: FloatColumn
    slope: FloatColumn

    def __call__(self, loss: FloatColumn) -> FloatColumn:
        """Shares lost at these losses."""
        return np.clip(self.base + self.slope * loss, 0.0, 1.0)


def beyond_rounding(difference: ArrayLike, size: ArrayLike) -> FloatColumn:
    """Differences of sums of such a size; nothing where rounding alone could have made them."""
    x = np.asarray(difference, dtype=np.float64)
    return np.where(np.abs(x) <= _ROUNDING * np.asarray(size), 0.0, x)


def linear(before: ArrayLike, own: ArrayLike | None = None) -> Mark:
    """A claim loses the share of equity that its debtor lost since `before`, as in DebtRank.

    Who had no equity before is marked at nothing. `own` is what each lost other than by its
    claims; unless given it is what equity at face value lacks of `before`, if more than rounding.
    """
    had = np.asarray(before, dtype=np.float64)

    def mark(nodes: Standing) -> Ramp:
        if own is not None:
            lost = np.asarray(own, dtype=np.float64)
        else:
            size = np.abs(had) + np.abs(nodes.equity) + np.abs(nodes.assets) + nodes.owed
            lost = beyond_rounding(had - nodes.equity, size)
        some = had > 0.0
        base = np.divide(lost, had, out=np.ones_like(nodes.owed), where=some)
        return Ramp(base, np.divide(1.0, had, out=np.zeros_like(nodes.owed), where=some))

    return mark


def by_payment() -> Mark:
    """A claim is worth what its debtor pays when all comes due now, as in clearing."""

    def mark(nodes: Standing) -> Ramp:
        some = nodes.owed > 0.0
        base = np.divide(-nodes.equity, nodes.owed, out=np.zeros_like(nodes.owed), where=some)
        return Ramp(base, np.divide(1.0, nodes.owed, out=np.zeros_like(nodes.owed), where=some))

    return mark


def by_recovery(recovery: float) -> Mark:
    """A claim is worth all of it, or a fixed share once its debtor has no equity."""
    _require_share("recovery", recovery)

    def mark(nodes: Standing) -> Shares:
        return lambda loss: np.where(nodes.equity > loss, 0.0, 1.0 - recovery)

    return mark


def ahead(volatility: float, recovery: float = 1.0) -> Mark:
    """What a claim is expected to pay at a horizon, while the debtor's outside assets wander.

    They follow a geometric walk without drift, of so much `volatility` over the horizon; in default
    `recovery` is the share of what is left that creditors get. Such a mark is below face value
    before anything is lost.

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

    def mark(nodes: Standing) -> Shares:
        assets, owed, owes = nodes.assets, nodes.owed, nodes.owed > 0.0

        def over(usd: FloatColumn) -> FloatColumn:
            return np.divide(usd, owed, out=np.zeros_like(owed), where=owes)

        def lost(loss: FloatColumn) -> FloatColumn:
            lacks = assets - (nodes.equity - loss)  # below that much assets it defaults
            fails, empties = (below(end, assets, 1.0) for end in (lacks, lacks - owed))
            worth = assets * (below(lacks, assets, -1.0) - below(lacks - owed, assets, -1.0))
            left = (1.0 - over(lacks)) * (fails - empties) + over(worth)
            return np.where(owes, np.clip(fails - recovery * left, 0.0, 1.0), 0.0)

        return lost

    return mark


def either(some: ArrayLike, one: Mark, other: Mark) -> Mark:
    """The `one` mark for claims on `some` nodes, and the `other` for the rest."""
    first = np.asarray(some, dtype=np.bool_)

    def mark(nodes: Standing) -> Shares:
        here, there = one(nodes), other(nodes)
        if isinstance(here, Ramp) and isinstance(there, Ramp):
            return Ramp(
                np.where(first, here.base, there.base), np.where(first, here.slope, there.slope)
            )
        return lambda loss: np.where(first, here(loss), there(loss))

    return mark


@dataclass(frozen=True, eq=False)
class Valued:
    """Equities at which every claim stands at its mark."""

    equity: FloatColumn
    mark: FloatColumn  # by node: of claims on it
    face: FloatColumn  # equity with all claims at face value
    loss: FloatColumn  # by node: what its claims lost in value
    steps: int
    settled: bool


def valued(debts: Debts, assets: ArrayLike, mark: Mark) -> Valued:
    """The greatest equities at which claims stand at their marks.

    Marks that are straight lines are solved for at once while they are on the move, so that circles
    which pass on nearly all of a loss come to rest; the mark `ahead` goes round step by step, and
    says so where it did not settle.

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
    owed, due = debts.owed, debts.due
    claims = csr_array((debts.value, debts.debtor, debts.start), shape=(len(debts), len(debts)))
    face = beyond_rounding(e - owed + due, np.abs(e) + owed + due)
    share, steps, settled = _least(claims, mark(Standing(face, owed, e)))
    loss = claims @ share
    return Valued(
        equity=frozen(face - loss), mark=frozen(1.0 - share), face=frozen(face), loss=frozen(loss),
        steps=steps, settled=settled,
    )  # fmt: skip


def _least(claims: csr_array, shares: Shares) -> tuple[FloatColumn, int, bool]:
    """The least shares that fit each other, how many steps it took, and whether they settled."""
    share, wait, due = np.zeros(claims.shape[0]), _PATIENCE, _PATIENCE
    for steps in range(1, _MOST + 1):
        then = np.maximum(shares(claims @ share), share)
        still = bool((then - share).max(initial=0.0) <= _STILL)
        share = then
        if still:
            return share, steps, True
        if steps >= due and isinstance(shares, Ramp):
            solved = _solved(claims, shares, share)
            wait = 2 * wait if solved is share else 1
            share, due = solved, steps + wait
    return share, _MOST, False


def _solved(claims: csr_array, ramp: Ramp, share: FloatColumn) -> FloatColumn:
    """Shares on the move where their lines meet, or as far as the first of them that is all lost.

    Never above the least that fit: from shares that still rise, every point on the way to where
    lines meet still rises, and so does every point on the way from it, where circles grow and the
    lines meet behind.
    """
    return _along(claims, ramp, _along(claims, ramp, share, 1.0), -1.0)


def _along(claims: csr_array, ramp: Ramp, share: FloatColumn, sign: float) -> FloatColumn:
    """Shares moved to where their lines meet (1), or away from there where circles grow (-1)."""
    moving = _moving(claims, ramp, share)
    rises = np.maximum(ramp.base + ramp.slope * (claims @ share) - share, 0.0)
    if rises[moving].max(initial=0.0) <= _STILL:
        return share
    among = (ramp.slope[moving, None] * claims[moving][:, moving]).tocsr()
    way = _linear(among, rises[moving])
    while way is not None and not (some := sign * way > 0.0).all():
        if not some.any():
            return share
        if (some | (way == 0.0)).all():
            moving, way = moving[some], way[some]
            break
        moving, among = moving[some], among[some][:, some].tocsr()
        way = _linear(among, rises[moving])
    if way is None:
        return share
    room = (1.0 - share[moving]) / np.abs(way)
    far = min(float(room.min()), 1.0 if sign > 0.0 else np.inf)
    out = share.copy()
    out[moving] = np.where(room <= far, 1.0, share[moving] + far * np.abs(way))
    fits = ramp(claims @ out)[moving] >= out[moving] - _SLACK
    return out if fits.all() else share


def _moving(claims: csr_array, ramp: Ramp, share: FloatColumn) -> NDArray[np.int64]:
    """Nodes whose shares rise with any loss from here, and whom one can come to."""
    ready = (share < 1.0) & (ramp.slope > 0.0) & (ramp.base + ramp.slope * (claims @ share) >= 0.0)
    node, size = np.flatnonzero(ready), int(ready.sum())
    begun = np.flatnonzero(share[node] > 0.0)
    ways = claims[node][:, node].tocoo()
    ends = np.concatenate([ways.col, np.full(len(begun), size)])  # the last node leads to all begun
    into = np.concatenate([ways.row, begun])
    graph = csr_array((np.ones(len(ends)), (ends, into)), shape=(size + 1, size + 1))
    found = breadth_first_order(graph, size, return_predecessors=False)
    reached: NDArray[np.int64] = node[np.sort(found[found != size])]
    return reached


def _linear(slope: csr_array, rises: FloatColumn) -> FloatColumn | None:
    """The `z` with `z = rises + slope @ z`; nothing where none is to be found."""
    size = len(rises)
    if size <= _SMALL or slope.nnz <= 1.1 * size:
        for keep in (1.0, 1.0 - 1e-12):  # a circle that keeps all of itself, if but a little less
            try:
                found: FloatColumn = splu((eye_array(size) - keep * slope).tocsc()).solve(rises)
            except RuntimeError:
                continue
            if np.isfinite(found).all():
                return found
        return None
    with np.errstate(all="ignore"):
        found, failed = bicgstab(eye_array(size) - slope, rises, rtol=1e-13, maxiter=500)
    return None if failed or not np.isfinite(found).all() else found


def _require_share(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise EstimationError(f"{name} was {value}; it must be a share, 0 to 1")
