"""Clusters of directions: rows that point the same way, whatever their length.

Rows of `x` are members, columns what they are exposed to, with a sign. Closeness is the cosine: 1
of the same direction, 0 of nothing in common, -1 of opposites. A row of nothing has no direction
and no cluster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from undertow.econometrics.checks import BoolColumn, FloatColumn, FloatMatrix, frozen, matrix
from undertow.errors import EstimationError

LabelColumn = NDArray[np.int64]
TIGHT = 0.95  # mean cosine with the common direction above which all stand in one place
STRUCTURE = 0.25  # silhouette below which there is none to speak of (Kaufman and Rousseeuw)
COMMON = 0.75  # mean cosine below which none stands for all: two at right angles have 0.71
_PASSES = 60


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Who points which way."""

    label: LabelColumn  # (members,): the cluster of each, the largest first; -1 of none
    centre: FloatMatrix  # (clusters, columns): unit directions; no rows where none is told apart
    tight: float  # mean cosine with the common direction of all
    tried: FloatColumn  # silhouette with 2, 3, ... clusters; empty where none was tried
    why: str  # how the number of clusters was arrived at

    def __len__(self) -> int:
        return len(self.centre)


@dataclass(frozen=True, slots=True, eq=False)
class Stability:
    """What other members of the same kind would have made of the clusters."""

    jaccard: FloatColumn  # (clusters,): mean overlap with the nearest cluster of a resample
    rand: float  # mean adjusted Rand index of resampled clusters against these; NaN of fewer than 2
    centres: tuple[FloatMatrix, ...]  # of every resample


def directions(x: ArrayLike) -> FloatMatrix:
    """Rows brought to length 1; those of nothing stay nothing."""
    values = np.asarray(x, dtype=np.float64)
    size = np.sqrt((values * values).sum(axis=1))
    out = np.zeros_like(values)
    np.divide(values, size[:, None], out=out, where=size[:, None] > 0.0)
    return out


def cluster_directions(
    x: ArrayLike, *, rng: np.random.Generator, most: int = 12, starts: int = 4
) -> Clusters:
    """Spherical k-means, every member one voice, with as many clusters as the silhouette likes.

    All are one cluster where their mean cosine with the common direction is `TIGHT` or more and
    none points away from it. Where no number of clusters from 2 to `most` has a mean silhouette of
    `STRUCTURE`, they are one if that mean is `COMMON` or more; else none can be told apart, and
    there is no cluster. A continuum (every mix of two coins) is cut into clusters all the same,
    and stably: its ends are told apart.

    Raises
    ------
    EstimationError
        When no row has a direction, or a value is missing.

    References
    ----------
    Dhillon and Modha (2001), "Concept decompositions for large sparse text data", Machine Learning
    42. Rousseeuw (1987), "Silhouettes", J. Comput. Appl. Math. 20. Kaufman and Rousseeuw (1990).
    """
    unit = directions(matrix("x", x, rows=1))
    there = (unit != 0.0).any(axis=1)
    if not there.any():
        raise EstimationError("no row has a direction", hint="leave out those that hold nothing")
    rows = unit[there]
    common = rows.sum(axis=0)
    tight = float(np.sqrt(common @ common)) / len(rows)
    label = np.full(len(unit), -1, dtype=np.int64)
    highest = min(most, len(np.unique(rows.round(9), axis=0)), len(rows) - 1)
    if (tight >= TIGHT and (rows @ common > 0.0).all()) or highest < 2:
        why = "all point one way" if tight >= TIGHT else "there are too few to tell apart"
        return _at_most_one(label, there, common, tight, np.empty(0), why)
    apart = 1.0 - rows @ rows.T
    found = [_best(rows, k, starts, rng) for k in range(2, highest + 1)]
    tried = np.array([_silhouette(apart, each[0], len(each[1])) for each in found])
    if tried.max() < STRUCTURE:
        why = f"no number of clusters has a silhouette of {STRUCTURE}"
        return _at_most_one(label, there, common, tight, tried, why)
    best, centre = found[int(np.argmax(tried))]
    order = np.argsort(-np.bincount(best, minlength=len(centre)), kind="stable")
    label[there] = np.argsort(order)[best]
    why = f"of 2 to {highest} clusters, {len(centre)} have the best silhouette"
    return Clusters(frozen(label), frozen(centre[order]), tight, frozen(tried), why)


def _at_most_one(
    label: LabelColumn,
    there: BoolColumn,
    common: FloatColumn,
    tight: float,
    tried: FloatColumn,
    why: str,
) -> Clusters:
    """One cluster of all that have a direction, where it is common to them; else none."""
    one = tight >= COMMON
    label[there] = 0 if one else -1
    centre = _unit(common)[None, :] if one else np.zeros((0, len(common)))
    return Clusters(frozen(label), frozen(centre), min(tight, 1.0), frozen(tried), why)


def assigned(x: FloatMatrix, centre: FloatMatrix) -> LabelColumn:
    """The nearest centre of each row by cosine; -1 of rows that point along none."""
    if not len(centre):
        return np.full(x.shape[0], -1, dtype=np.int64)
    near = np.asarray(x @ centre.T)
    label: LabelColumn = near.argmax(axis=1).astype(np.int64)
    label[near.max(axis=1) <= 0.0] = -1
    return label


def stability(
    x: ArrayLike, found: Clusters, *, rng: np.random.Generator, reps: int = 49
) -> Stability:
    """Cluster resampled members again, as many clusters, and see which are found again.

    A mean Jaccard overlap of 0.75 or more is a cluster that is there, of 0.5 or less one that is
    not (Hennig). A single cluster is found again whatever it is, so it has no overlap (NaN).

    References
    ----------
    Hennig (2007), "Cluster-wise assessment of cluster stability", Comput. Stat. Data Anal. 52.
    Hubert and Arabie (1985), "Comparing partitions", J. Classification 2.
    """
    unit = directions(matrix("x", x, rows=1))
    there = np.flatnonzero(found.label >= 0)
    rows, old, k = unit[there], found.label[there], len(found)
    if k == 0:
        return Stability(np.empty(0), np.nan, ())
    draws = (rows[rng.integers(len(rows), size=len(rows))] for _ in range(reps))
    if k == 1:
        single = tuple(_unit(drawn.sum(axis=0))[None, :] for drawn in draws)
        return Stability(frozen(np.full(1, np.nan)), np.nan, single)
    overlap, rand, centres = np.zeros((reps, k)), np.ones(reps), []
    for rep, drawn in enumerate(draws):
        centre = _best(drawn, k, 2, rng)[1]
        centres.append(centre)
        new = (rows @ centre.T).argmax(axis=1)
        both = contingency(old, new, k, len(centre)).astype(np.float64)
        union = both.sum(axis=1)[:, None] + both.sum(axis=0)[None, :] - both
        overlap[rep] = (both / union).max(axis=1)
        rand[rep] = adjusted_rand(old, new)
    return Stability(frozen(overlap.mean(axis=0)), float(rand.mean()), tuple(centres))


def adjusted_rand(first: ArrayLike, second: ArrayLike) -> float:
    """Agreement of two partitions beyond chance: 1 of the same, about 0 of unrelated ones."""
    one, other = (np.unique(np.asarray(p), return_inverse=True)[1] for p in (first, second))
    both = contingency(one, other, int(one.max()) + 1, int(other.max()) + 1).astype(np.float64)

    def pairs(count: FloatMatrix) -> float:
        return float((count * (count - 1.0)).sum() / 2.0)

    rows, columns, size = pairs(both.sum(axis=1)), pairs(both.sum(axis=0)), len(one)
    expected = rows * columns / max(size * (size - 1.0) / 2.0, 1.0)
    most = 0.5 * (rows + columns)
    return 1.0 if most == expected else (pairs(both) - expected) / (most - expected)


def contingency(
    first: LabelColumn, second: LabelColumn, rows: int, columns: int
) -> NDArray[np.int64]:
    """How many members are in each pair of clusters."""
    counts = np.bincount(first * columns + second, minlength=rows * columns)
    return np.asarray(counts.reshape(rows, columns), dtype=np.int64)


def _unit(vector: FloatColumn) -> FloatColumn:
    size = float(np.sqrt(vector @ vector))
    return np.asarray(vector / size) if size > 0.0 else vector


def _best(
    rows: FloatMatrix, k: int, starts: int, rng: np.random.Generator
) -> tuple[LabelColumn, FloatMatrix]:
    """The best of several runs of k-means; clusters that stay empty are dropped."""
    kept: tuple[LabelColumn, FloatMatrix] | None = None
    most = -np.inf
    for _ in range(starts):
        label, centre, score = _kmeans(rows, k, rng)
        if score > most + 1e-12:
            kept, most = (label, centre), score
    assert kept is not None
    return kept


def _kmeans(
    rows: FloatMatrix, k: int, rng: np.random.Generator
) -> tuple[LabelColumn, FloatMatrix, float]:
    centre = _spread_out(rows, k, rng)
    label = np.full(len(rows), -1, dtype=np.int64)
    for _ in range(_PASSES):
        near = rows @ centre.T
        new = near.argmax(axis=1)
        if (new == label).all():
            break
        label = new.astype(np.int64)
        sums = np.eye(len(centre))[:, label] @ rows
        size = np.sqrt((sums * sums).sum(axis=1))
        lost = size <= 1e-12
        sums[lost] = rows[np.argsort(near.max(axis=1), kind="stable")[: int(lost.sum())]]
        size[lost] = 1.0
        centre = sums / size[:, None]
    used, label = np.unique(label, return_inverse=True)
    centre = centre[used]
    score = float((rows * centre[label]).sum())
    return label.astype(np.int64), centre, score


def _spread_out(rows: FloatMatrix, k: int, rng: np.random.Generator) -> FloatMatrix:
    """First centres, each likelier the farther it is from those chosen (k-means++)."""
    chosen = [int(rng.integers(len(rows)))]
    far = 1.0 - rows @ rows[chosen[0]]
    for _ in range(1, k):
        weight = np.maximum(far, 0.0)
        total = weight.sum()
        p = weight / total if total > 0.0 else None
        chosen.append(int(rng.choice(len(rows), p=p)))
        far = np.minimum(far, 1.0 - rows @ rows[chosen[-1]])
    return rows[chosen].copy()


def _silhouette(apart: FloatMatrix, label: LabelColumn, k: int) -> float:
    """Mean over members of (b - a) / max(a, b): own cluster against the nearest other one."""
    if k < 2:
        return 0.0
    member = np.eye(k)[label]
    size = member.sum(axis=0)
    sums = apart @ member
    own = sums[np.arange(len(label)), label] / np.maximum(size[label] - 1.0, 1.0)
    mean = sums / size
    mean[np.arange(len(label)), label] = np.inf
    other = mean.min(axis=1)
    widest = np.maximum(own, other)
    score = np.divide(other - own, widest, out=np.zeros_like(own), where=widest > 1e-12)
    return float(np.where(size[label] > 1.0, score, 0.0).mean())
