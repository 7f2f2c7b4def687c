"""What owners, venues and protocols are exposed to, and who points the same way.

Exposure is by what an asset follows all the way down (stETH is ETH): net is bought less sold and
owed, gross both added up; money is in neither. Collateral is what is held outright, money too.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from undertow import schema
from undertow.econometrics.clusters import (
    Clusters,
    LabelColumn,
    Stability,
    assigned,
    cluster_directions,
    stability,
)
from undertow.measures.crowding.crowd import Crowd
from undertow.state import FloatColumn, FloatMatrix, KeyColumn
from undertow.state.arrays import frozen
from undertow.state.book import CASH, COLLATERAL, SUPPLY

BUCKETS = (2.0, 5.0, 10.0, 20.0)  # of leverage, at which one ends and the next begins
FEW = 10  # leveraged owners with a direction, for clusters to be looked for
_FITTED = 500  # owners, the most leveraged, that clusters are made of
_OTHERS = 3_000  # of the rest, drawn by leveraged USD, for bands
_CHUNK = 200_000
_SHOWN = 0.3  # of a centre, to be named


@dataclass(frozen=True, eq=False)
class Holdings:
    """What owners of a book are exposed to."""

    net: Any  # (owners, assets) sparse, USD
    leveraged: FloatColumn  # (owners,) USD
    leverage: FloatColumn  # (owners,) assets held outright and gross notional over equity
    order: KeyColumn  # owners that are leveraged, the most first

    @classmethod
    def of(cls, crowd: Crowd) -> Holdings:
        """Add the legs of a book up by owner and asset."""
        book, universe = crowd.snapshot.book, crowd.snapshot.universe
        size = len(book.owners)
        root = universe.root[crowd.asset].astype(np.int32)
        # legs stand by account and accounts by owner, so that rows are runs of legs; an asset may
        # stand in a row more than once, which products and dense rows add up
        begins = np.searchsorted(book.owner, np.arange(size + 1))
        shape = (size, len(universe.assets))
        net = csr_array((crowd.lean, root, book.offset[begins]), shape=shape)

        def added(column: FloatColumn) -> FloatColumn:
            return np.bincount(book.owner, column, minlength=size).astype(np.float64)

        leveraged = added(crowd.leveraged)
        held = added(crowd.exposures.added(crowd.exposures.outright) + crowd.notional)
        equity = added(crowd.exposures.equity)
        leverage = np.full(size, np.inf)
        np.divide(held, equity, out=leverage, where=equity > 0.0)
        some = np.flatnonzero(leveraged > 0.0)
        order = some[np.argsort(-leveraged[some], kind="stable")]
        return cls(net, frozen(leveraged), frozen(leverage), frozen(order))

    def dense(self, owners: KeyColumn) -> FloatMatrix:
        """Net exposure of some owners."""
        return np.asarray(self.net[owners].toarray())


@dataclass(frozen=True, eq=False)
class Strategies:
    """Clusters of all leveraged owners by the direction of what they are exposed to."""

    clusters: Clusters  # of the most leveraged
    stable: Stability
    owner: KeyColumn  # leveraged owners, the most first
    label: LabelColumn  # cluster of each, the one with most USD first; -1 of none
    bucket: NDArray[np.int64]  # of leverage
    usd: FloatColumn  # leveraged USD of each
    centre: FloatMatrix  # no rows where no clusters can be told apart
    jaccard: FloatColumn  # NaN of a single cluster
    fitted: int  # how many of them clusters were made of
    shares: FloatMatrix  # (draws, 3) share of the largest, 1 / HHI, exp of entropy

    @classmethod
    def of(
        cls, holdings: Holdings, rng: np.random.Generator, *, reps: int = 49, most: int = 12
    ) -> Strategies | None:
        """Cluster the most leveraged owners, and put every other where it is nearest.

        Who points along no cluster is in none. None where fewer than ten leveraged owners have a
        direction.
        """
        order = holdings.order
        fitted = holdings.dense(order[:_FITTED])
        if int((fitted != 0.0).any(axis=1).sum()) < FEW:
            return None
        found = cluster_directions(fitted, rng=rng, most=most)
        stable = stability(fitted, found, rng=rng, reps=reps)
        label = _nearest(holdings, found.centre)[order]
        usd = holdings.leveraged[order]
        by_usd = np.bincount(label[label >= 0], usd[label >= 0], minlength=len(found))
        rank = np.argsort(-by_usd, kind="stable")
        place = np.append(np.argsort(rank), -1)
        return cls(
            clusters=found,
            stable=stable,
            owner=order,
            label=place[label],
            bucket=np.searchsorted(BUCKETS, holdings.leverage[order], side="right"),
            usd=usd,
            centre=found.centre[rank],
            jaccard=stable.jaccard[rank],
            fitted=len(fitted),
            shares=_drawn(holdings, fitted, stable, rng),
        )

    @property
    def beside(self) -> float:
        """Leveraged USD in no cluster."""
        return float(self.usd[self.label < 0].sum())

    @property
    def by_cluster(self) -> FloatColumn:
        """(clusters,) Leveraged USD in each."""
        there = self.label >= 0
        return np.bincount(self.label[there], self.usd[there], minlength=len(self.centre)).astype(
            np.float64
        )


def _nearest(holdings: Holdings, centre: FloatMatrix) -> LabelColumn:
    """The nearest centre of every owner, so many at a time."""
    rows = range(0, holdings.net.shape[0], _CHUNK)
    return np.concatenate([assigned(holdings.net[k : k + _CHUNK], centre) for k in rows])


def measures_of(by_cluster: FloatColumn, beside: float) -> tuple[float, float, float]:
    """Share of the largest in all, effective number by squares and by entropy.

    `beside` is what stands in no cluster.
    """
    total = float(by_cluster.sum())
    if total <= 0.0:
        return np.nan, np.nan, np.nan
    share = by_cluster[by_cluster > 0.0] / total
    entropy = -float(share @ np.log(share))
    # Sums in another order leave a share of all a hair off 1, and a count below it.
    largest = min(float(by_cluster.max()) / (total + beside), 1.0)
    return largest, max(1.0 / float(share @ share), 1.0), max(float(np.exp(entropy)), 1.0)


def _drawn(
    holdings: Holdings, fitted: FloatMatrix, stable: Stability, rng: np.random.Generator
) -> FloatMatrix:
    """The measures of every resample: other owners of the same kind, clustered anew.

    Beyond those that clusters are made of, a sample stands for the rest, drawn by leveraged USD so
    that each of it counts alike.
    """
    order = holdings.order
    usd, rows = holdings.leveraged[order[: len(fitted)]], fitted
    rest = order[len(fitted) :]
    if len(rest):
        size = holdings.leveraged[rest]
        some = min(_OTHERS, len(rest))
        picked = rest[np.searchsorted(np.cumsum(size) / size.sum(), rng.random(some))]
        rows = np.vstack([fitted, holdings.dense(picked)])
        usd = np.concatenate([usd, np.full(some, size.sum() / some)])
    out = np.empty((len(stable.centres), 3))
    for rep, centre in enumerate(stable.centres):
        label = assigned(rows, centre)
        weight = usd * rng.poisson(1.0, len(usd))
        there = label >= 0
        by_cluster = np.bincount(label[there], weight[there], minlength=len(centre))
        out[rep] = measures_of(by_cluster.astype(np.float64), float(weight[~there].sum()))
    return out


def called(centre: FloatColumn, assets: tuple[str, ...]) -> str:
    """A direction in words: long ETH and BTC, short SOL."""
    order = np.argsort(-np.abs(centre), kind="stable")
    named = [k for k in order if abs(centre[k]) >= _SHOWN] or list(order[:1])
    parts = []
    for word, way in (("long", 1.0), ("short", -1.0)):
        names = [assets[k] for k in named if centre[k] * way > 0.0]
        if names:
            parts.append(f"{word} {' and '.join(names)}")
    mixed = float(np.sum(centre[named] ** 2)) < 0.5
    return ", ".join(parts) + (" among others" if mixed else "")


def bucket_names() -> list[str]:
    """The buckets of leverage in words."""
    ends = [f"{end:g}" for end in BUCKETS]
    between = [f"{a} to {b}" for a, b in pairwise(ends)]
    return [f"below {ends[0]}", *between, f"{ends[-1]} or more"]


@dataclass(frozen=True, eq=False)
class VenueHoldings:
    """What stands at each venue, by asset, in USD."""

    net: FloatMatrix  # (venues, assets)
    gross: FloatMatrix
    collateral: FloatMatrix

    @classmethod
    def of(cls, crowd: Crowd) -> VenueHoldings:
        """Add the legs of a book up by venue and asset."""
        book, universe = crowd.snapshot.book, crowd.snapshot.universe
        shape = (len(universe.venues), len(universe.assets))
        # an instrument is of one venue and one asset: legs are added up by it first
        at = universe.venue_of.astype(np.int64) * shape[1]
        root = at + universe.root[universe.asset_of]

        def added(key: KeyColumn, column: FloatColumn) -> FloatMatrix:
            by_inst = np.bincount(book.inst, column, minlength=len(key))
            total = np.bincount(key, by_inst, minlength=shape[0] * shape[1])
            return np.asarray(total.reshape(shape), dtype=np.float64)

        return cls(
            added(root, crowd.lean),
            added(root, np.abs(crowd.lean)),
            added(at + _backing(crowd), _outright(crowd, slice(None))),
        )


def _outright(crowd: Crowd, legs: Any) -> FloatColumn:
    """USD of some legs that is held outright: deposits, collateral and cash."""
    book = crowd.snapshot.book
    counts = np.zeros(len(schema.POSITION_KINDS))
    counts[[COLLATERAL, SUPPLY, CASH]] = 1.0
    usd = np.maximum(book.qty[legs], 0.0) * crowd.snapshot.market.mark[book.inst[legs]]
    held: FloatColumn = usd * counts[book.kind[legs]]
    return held


def _backing(crowd: Crowd) -> KeyColumn:
    """By instrument: what it is as collateral: money is itself, the rest what it follows."""
    universe = crowd.snapshot.universe
    hangs = np.where(universe.stable, np.arange(len(universe.assets)), universe.root)
    return hangs[universe.asset_of].astype(np.int64)


def owners_collateral(crowd: Crowd, owners: KeyColumn) -> FloatMatrix:
    """(owners, assets) USD of collateral of some owners."""
    book, size = crowd.snapshot.book, len(crowd.snapshot.universe.assets)
    row = np.full(len(book.owners), -1, dtype=np.int64)
    row[owners] = np.arange(len(owners))
    leg_row = row[book.owner][book.leg_account]
    legs = np.flatnonzero(leg_row >= 0)
    held, place = _outright(crowd, legs), _backing(crowd)[book.inst[legs]]
    total = np.bincount(leg_row[legs] * size + place, held, minlength=len(owners) * size)
    return np.asarray(total.reshape(len(owners), size), dtype=np.float64)
