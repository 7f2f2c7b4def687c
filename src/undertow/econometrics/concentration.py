"""How much of a whole stands with few: shares of holders, and how sure the ranking of them is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, within
from undertow.errors import EstimationError

KeyColumn = NDArray[np.int64]


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
class ConcentrationBands:
    """What other holders of the same kind would have made of a concentration: low and high ends."""

    level: float
    hhi: tuple[float, float]
    effective: tuple[float, float]
    gini: tuple[float, float]
    top: FloatMatrix  # (tops, 2)


_ALONE = 512  # of the largest holders, each drawn on its own
_LIKE = 512  # groups of holders next to each other in size, drawn together


def concentration_bands(
    size: ArrayLike,
    tops: tuple[int, ...] = (1, 5, 10),
    *,
    reps: int = 199,
    level: float = 0.9,
    seed: int = 0,
) -> ConcentrationBands:
    """Bands of a concentration, with holders drawn anew.

    A draw takes every holder as often as a Poisson variable of mean 1 says, and one that comes
    twice is two holders, so that sums of squares do not grow by the drawing. The largest are drawn
    one by one, the rest in groups of neighbours in size: how many of a group came, each with its
    mean. Where a few hold most of it, what others would have held cannot be told from those who
    were seen, and the band is too narrow.

    Raises
    ------
    EstimationError
        When a size is negative or not finite, or too few draws or no tops are asked for.

    References
    ----------
    Hanley and MacGibbon (2006), "Creating non-parametric bootstrap samples using Poisson
    frequencies", Computer Methods and Programs in Biomedicine 83.
    """
    within("level", level, 0.0, 1.0)
    if reps < 19 or not tops or min(tops) < 1:
        raise EstimationError(f"reps was {reps} and tops {tops}; at least 19 draws and a top of 1")
    held = _sizes(size)
    nothing = (0.0, 0.0)
    if not len(held):
        return ConcentrationBands(
            level, nothing, nothing, nothing, frozen(np.zeros((len(tops), 2)))
        )
    count, mean, square = _neighbours(held)
    drawn = np.random.default_rng(seed).poisson(count, (reps, len(count))).astype(np.float64)
    drawn = drawn[drawn.any(axis=1)]
    if not len(drawn):
        drawn = np.ones((1, len(count)))
    total = drawn @ mean
    hhi = (drawn @ square) / total**2
    gini = _grouped_gini(drawn, mean, total) - _grouped_gini(count[None], mean, held.sum())
    gini = np.clip(gini + concentration(held).gini, 0.0, 1.0)
    shares = [_top_of(drawn, mean, k) / total for k in tops]
    tails = (0.5 * (1.0 - level), 0.5 * (1.0 + level))

    def ends(values: FloatColumn) -> tuple[float, float]:
        low, high = np.quantile(values, tails)
        return float(low), float(high)

    top = np.array([ends(np.minimum(share, 1.0)) for share in shares])
    return ConcentrationBands(level, ends(hhi), ends(1.0 / hhi), ends(gini), frozen(top))


def _neighbours(held: FloatColumn) -> tuple[FloatColumn, FloatColumn, FloatColumn]:
    """How many, mean and mean square of the largest one by one, then of groups next in size."""
    alone = min(_ALONE, len(held))
    rest = len(held) - alone
    ends = np.linspace(alone, len(held), min(_LIKE, rest) + 1).astype(np.int64)
    start = np.concatenate([np.arange(alone), ends[:-1]]) if rest else np.arange(alone)
    count = np.diff(np.append(start, len(held))).astype(np.float64)
    mean, square = (np.add.reduceat(column, start) / count for column in (held, held * held))
    return count, mean, square


def _grouped_gini(drawn: FloatMatrix, mean: FloatColumn, total: FloatColumn) -> FloatColumn:
    """Gini coefficient where so many hold each mean; means fall."""
    many = drawn.sum(axis=1)
    # Twice the mean rank of a group, the largest first: what stands above it, twice, and itself.
    rank = 2.0 * np.cumsum(drawn, axis=1) - drawn + 1.0
    weighed = ((many[:, None] + 1.0 - 0.5 * rank) * drawn) @ mean
    gini: FloatColumn = 2.0 * weighed / (many * total) - (many + 1.0) / many
    return gini


def _top_of(drawn: FloatMatrix, mean: FloatColumn, k: int) -> FloatColumn:
    """Sum of the k largest where so many hold each mean; means fall."""
    left = np.clip(k - (np.cumsum(drawn, axis=1) - drawn), 0, drawn)
    top: FloatColumn = left @ mean
    return top


@dataclass(frozen=True, eq=False)
class Ranking:
    """The largest of many, and how far each place would move had other members been seen."""

    index: FloatColumn  # into what was given, the largest first
    size: FloatColumn
    low: FloatColumn  # band of the size
    high: FloatColumn
    best: FloatColumn  # band of the rank, 1 is the largest; infinite past the farthest rank
    worst: FloatColumn
    stays: FloatColumn  # share of draws in which it is among the k largest
    farthest: int  # ranks past this are not told apart


_CHANCE = 1e-9  # that any group left out of all draws would have had a place in one


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
    A rank is one more than the groups that drew more; past ten times k, or 100, ranks are not told
    apart, so that groups too small to come that far (but once in 1e9) need no draws. A group of
    one member is there or not, so its rank is no surer than that.

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
    whole = _added(group, value, int(group.max(initial=-1)) + 1)
    order = _largest(whole, k)
    far = max(10 * k, 100)
    if not len(order):
        return _ranking(*(np.zeros(0) for _ in range(7)), far=far)
    sums, place = _drawn(group, value, whole, far, reps, seed)
    mine = sums[:, place[order]]
    ahead = np.sort(sums, axis=1)
    rank = np.empty_like(mine)
    for row, (all_of_it, own) in enumerate(zip(ahead, mine, strict=True)):
        rank[row] = 1.0 + len(all_of_it) - np.searchsorted(all_of_it, own, side="right")
    rank[rank > far] = np.inf
    tails = (0.5 * (1.0 - level), 0.5 * (1.0 + level))
    low, high = np.quantile(mine, tails, axis=0)
    best = np.quantile(rank, tails[0], axis=0, method="lower")
    worst = np.quantile(rank, tails[1], axis=0, method="higher")
    stays = (rank <= len(order)).mean(axis=0)
    return _ranking(order, whole[order], low, high, best, worst, stays, far=far)


def _ranking(*columns: ArrayLike, far: int) -> Ranking:
    index, size, low, high, best, worst, stays = (
        frozen(np.array(column, dtype=np.float64)) for column in columns
    )
    return Ranking(index, size, low, high, best, worst, stays, far)


def _added(place: KeyColumn, value: FloatColumn, count: int) -> FloatColumn:
    return np.bincount(place, value, count).astype(np.float64, copy=False)


def _largest(whole: FloatColumn, k: int) -> KeyColumn:
    """Places of the k largest, the largest first, the earlier of two alike; none of nothing."""
    count = min(k, int((whole > 0.0).sum()))
    if count == 0:
        return np.zeros(0, dtype=np.int64)
    least = np.partition(whole, len(whole) - count)[len(whole) - count]
    near = np.flatnonzero(whole >= least)
    return near[np.argsort(-whole[near], kind="stable")[:count]]


def _drawn(
    group: KeyColumn, value: FloatColumn, whole: FloatColumn, far: int, reps: int, seed: int
) -> tuple[FloatMatrix, KeyColumn]:
    """Sums by draw of every group that may come to rank `far`, and the column of each group."""
    some = _largest(whole, far)
    floor = float(whole[some[-1]]) / 24.0
    while True:
        kept = whole > 0.0 if len(some) < far else whole >= floor
        place = np.cumsum(kept) - 1
        members = np.flatnonzero(kept[group])
        at, count = place[group[members]], int(kept.sum())
        rng = np.random.default_rng(seed)
        sums = np.empty((reps, count))
        for rep in range(reps):
            sums[rep] = np.bincount(at, value[members] * rng.poisson(1.0, len(members)), count)
        out = whole[(whole > 0.0) & ~kept]
        if not len(out):
            return sums, place
        least = np.partition(sums, count - far, axis=1)[:, count - far].min()
        # Chernoff: a sum of Poisson weights on members that add up to w reaches t with no more
        # than exp(-(r log r - r + 1)), r = t / w, whichever way w is divided.
        ratio = least / out.max()
        spare = ratio * np.log(ratio) - ratio + 1.0 if ratio > 1.0 else 0.0
        if len(out) * reps * np.exp(-spare) < _CHANCE:
            return sums, place
        floor *= 0.5
