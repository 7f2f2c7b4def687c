"""How much of a whole stands with few: shares of holders, and how sure the ranking of them is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from undertow.econometrics.checks import FloatColumn, frozen, within
from undertow.errors import EstimationError


@dataclass(frozen=True, eq=False)
class Concentration:
    """How a whole is divided among those who hold some of it."""

    holders: int  # with more than nothing
    total: float
    hhi: float  # sum of squared shares: 1 of one holder, 1 / n of n alike
    gini: float  # 0 of all alike, towards 1 of one who holds all
    top: FloatColumn  # share of the largest 1, 2, 3, ... together

    @property
    def effective(self) -> float:
        """How many holders alike would be as concentrated: 1 / hhi."""
        return 1.0 / self.hhi if self.hhi > 0.0 else 0.0

    def top_share(self, k: int) -> float:
        """Share of the k largest together."""
        if k < 1:
            raise EstimationError(f"k was {k}; it must be at least 1")
        return float(self.top[min(k, len(self.top)) - 1]) if len(self.top) else 0.0


def concentration(size: ArrayLike) -> Concentration:
    """Herfindahl-Hirschman index, Gini coefficient and top shares of what holders have.

    Gini is over those who have more than nothing: who has none holds nothing of the whole.

    Raises
    ------
    EstimationError
        When a size is negative or not finite.

    References
    ----------
    Hirschman (1964), "The paternity of an index"; Gini (1912), "Variabilita e mutabilita".
    """
    held = _sizes(size)
    count, total = len(held), float(held.sum())
    if count == 0:
        return Concentration(0, 0.0, 0.0, 0.0, frozen(np.zeros(0)))
    share = held / total
    rising = share[::-1]
    gini = float(2.0 * (np.arange(1, count + 1) @ rising) / count - (count + 1.0) / count)
    top = np.minimum(np.cumsum(share), 1.0)
    return Concentration(count, total, float(share @ share), max(gini, 0.0), frozen(top))


def _sizes(size: ArrayLike) -> FloatColumn:
    """Sizes above nothing, the largest first."""
    held = np.asarray(size, dtype=np.float64).ravel()
    if not np.isfinite(held).all() or (held < 0.0).any():
        raise EstimationError(
            "a size is negative or not finite", hint="give what each holds, 0 where nothing"
        )
    return np.sort(held[held > 0.0])[::-1]


@dataclass(frozen=True, eq=False)
class Ranking:
    """The largest of many, and how far each place would move had other members been seen."""

    index: FloatColumn  # into what was given, the largest first
    size: FloatColumn
    low: FloatColumn  # band of the size
    high: FloatColumn
    best: FloatColumn  # band of the rank, 1 is the largest
    worst: FloatColumn
    stays: FloatColumn  # share of draws in which it is among the k largest


def ranking(
    member: ArrayLike,
    size: ArrayLike,
    k: int = 10,
    *,
    reps: int = 199,
    level: float = 0.9,
    seed: int = 0,
) -> Ranking:
    """The k largest of groups, each the sum of its members, with bands from resampled members.

    `member` says to which group (0, 1, 2, ...) each member belongs. A draw gives every member a
    weight that is Poisson with mean 1: the bootstrap of a sum, whose cost does not grow with ties.

    Raises
    ------
    EstimationError
        When a size is negative or not finite, or nothing is asked for.

    References
    ----------
    Hall and Miller (2009), "Using the bootstrap to quantify the authority of an empirical
    ranking", Annals of Statistics 37.
    """
    group = np.asarray(member, dtype=np.int64).ravel()
    value = np.asarray(size, dtype=np.float64).ravel()
    if len(group) != len(value) or (group < 0).any():
        raise EstimationError("every member needs a group of 0 or more, and a size")
    if not np.isfinite(value).all() or (value < 0.0).any():
        raise EstimationError("a size is negative or not finite")
    if k < 1 or reps < 19:
        raise EstimationError(f"k was {k} and reps {reps}; at least 1 and 19 are needed")
    within("level", level, 0.0, 1.0)
    count = int(group.max(initial=-1)) + 1
    whole = np.bincount(group, value, count)
    order = np.argsort(-whole, kind="stable")[: min(k, int((whole > 0.0).sum()))]
    rng = np.random.default_rng(seed)
    drawn, rank = np.empty((2, reps, len(order)))
    for rep in range(reps):
        sums = np.bincount(group, value * rng.poisson(1.0, len(value)), count)
        drawn[rep] = sums[order]
        place = np.empty(count)
        place[np.argsort(-sums, kind="stable")] = np.arange(1, count + 1)
        rank[rep] = place[order]
    tails = (0.5 * (1.0 - level), 0.5 * (1.0 + level))
    low, high = np.quantile(drawn, tails, axis=0) if reps and len(order) else (order, order)
    best, worst = np.quantile(rank, tails, axis=0) if len(order) else (order, order)
    stays = (rank <= len(order)).mean(axis=0) if len(order) else order
    columns = (order, whole[order], low, high, np.floor(best), np.ceil(worst), stays)
    return Ranking(*(frozen(np.array(column, dtype=np.float64)) for column in columns))
