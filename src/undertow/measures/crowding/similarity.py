"""Who stands in the same place: alike collateral, alike exposure, and trades at the same time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.econometrics.bootstrap import band
from undertow.econometrics.checks import within
from undertow.econometrics.firesales import cosine, overlap
from undertow.econometrics.herds import Herds, herds
from undertow.errors import StateError
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.flows import OwnerFlows
from undertow.measures.crowding.places import Places
from undertow.measures.crowding.redrawn import Redrawn
from undertow.measures.crowding.strategies import (
    FEW,
    Holdings,
    Strategies,
    VenueHoldings,
    bucket_names,
    called,
    measures_of,
    owners_collateral,
)
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.words import banded, chance, known, listed, many, percent, span, told
from undertow.rules.snapshot import Snapshot
from undertow.state import AnyColumn, FloatColumn, FloatMatrix, Reading
from undertow.state.arrays import digest
from undertow.state.book import UNKNOWN_OWNER

_PAIRS = 100  # of owners, in the table
_EVEN = 1e-9  # of gross: less net exposure than this has no direction
_DRAWS = 199
_LEAST = 19  # draws in which both of a pair come, for its rank to have a band
_STANDS = 0.75  # mean Jaccard overlap from which a cluster is there
_NONE = (
    f"; none where fewer than {FEW} leveraged owners have a direction, or where no clusters can be "
    "told apart"
)
_LARGEST = f"share of leveraged USD whose owners stand in the largest cluster of directions{_NONE}"
_EFFECTIVE = (
    "how many clusters alike would be as concentrated: 1 over the sum of squared shares of "
    f"leveraged USD of owners in a cluster{_NONE}"
)
_ENTROPY = f"the same by entropy: exp of minus the sum of share times its log{_NONE}"
_STABLE = (
    "mean Jaccard overlap of clusters with those of resampled owners, by leveraged USD; none of "
    "fewer than two clusters, of which one is found again whatever it is"
)
_OF_CLUSTERS = (
    ("crowding.largest_place", _LARGEST),
    ("crowding.effective_strategies", _EFFECTIVE),
    ("crowding.strategies_by_entropy", _ENTROPY),
)
_READ = (
    "Closeness is the cosine of two exposures: 1 is the same mix on the same side, 0 nothing in "
    "common, -1 the opposite. Exposure is by what an asset follows all the way down, money apart; "
    "collateral is what is held outright, money too. A cluster is a direction that many take, "
    "found among the most leveraged owners; every other goes where it is nearest, or nowhere "
    "where it points along none. Where directions make no clusters, all are one place if most of "
    "what they hold goes one way, and else no places can be told apart. Stability is how much of a "
    "cluster is found again among other owners of the same kind: below 0.5 it is not there; one "
    "alone has none. The effective number of strategies is how many alike would be as "
    "concentrated. The rank of a pair is by overlap; its band is over draws of owners in which "
    "both come. A herd is owners whose purchases and sales agree within a few steps beyond what "
    "prices make them do."
)
_MISLEADS = (
    "Who stands in one place need not run at one time: distances say when. A hedge elsewhere that "
    "was not seen makes a neutral owner look like a gambler. A continuum of mixes is cut into "
    "clusters all the same. Answering the same price is one reason, not a "
    "herd, and is taken out; so is whatever of a herd moved the price, so herds are a lower bound. "
    "Overlap supposes that everybody sells everything at once and that prices answer in a straight "
    "line, which has no end: where more is sold than the depth, it is more than what is held, and "
    "`overlap_to_first` (overlap over gross exposure of the first) is above 1. It is no share."
)


@dataclass(frozen=True, eq=False)
class _Owners:
    """The largest owners side by side."""

    name: list[str]
    account: AnyColumn  # the first of each
    usd: FloatColumn  # leveraged
    net: FloatMatrix
    collateral: FloatMatrix
    alike: FloatMatrix  # cosine of net exposure
    backed: FloatMatrix  # cosine of collateral


def similarity(
    book: Crowd | Snapshot,
    flows: OwnerFlows | None = None,
    *,
    top: int = 200,
    window: int = 2,
    seed: int = 0,
    level: float = 0.9,
    reps: int = 49,
    sure: float = 0.05,
) -> Study:
    """How alike owners, venues and protocols are, how few strategies there are, and who herds.

    `top` owners with most leveraged USD are set side by side. `reps` resamples give the bands of
    clusters and their stability. With `flows`, trades within `window` steps are looked at; the
    chance that any herd is found where there is none is `sure`.

    Raises
    ------
    StateError
        When `top` is below 2, or the flows are none.
    EstimationError
        When a level is out of range.

    References
    ----------
    Cont and Schaanning (2019), "Monitoring indirect contagion". Dhillon and Modha (2001), Hennig
    (2007): see `econometrics.clusters`. Lakonishok, Shleifer and Vishny (1992), on herds.
    """
    crowd = Crowd.of(book)
    require_seed(seed)
    within("level", level, 0.0, 1.0)
    if top < 2 or reps < 19:
        raise StateError(f"top was {top} and reps {reps}; at least 2 and 19 are needed")
    if flows is not None and not isinstance(flows, OwnerFlows):
        raise StateError(
            f"flows were of type {type(flows).__name__}; they must be OwnerFlows",
            hint="owner_flows makes them of books at many instants",
        )
    streams = np.random.default_rng(seed).spawn(3)
    holdings = Holdings.of(crowd)
    found = Strategies.of(holdings, streams[0], reps=reps)
    depth = _depth(crowd)
    owners = _owners(crowd, holdings, top)
    drawn = Redrawn.of(crowd, crowd.leveraged, reps=_DRAWS, seed=seed, level=level)
    herded = (
        None if flows is None
        else herds(flows.flow, flows.returns, rng=streams[1], window=window, level=sure, reps=99)
    )  # fmt: skip
    venues, protocols, left_out = _venues(crowd, depth)
    tables = {
        "clusters": _clusters(crowd, found),
        "places": _places(found),
        "venues": venues,
        "protocols": protocols,
        "pairs": _pairs(owners, depth, drawn),
        "herds": _herd_table(flows, herded),
        "herders": _herders(flows, herded),
    }
    readings = [
        *_of_clusters(crowd, found, level),
        *_of_owners(crowd, owners, depth, streams[2], level),
        *_of_venues(crowd, tables),
        *_of_herds(crowd, flows, herded),
    ]
    return Study(
        name="crowding.similarity",
        title="Who stands in the same place",
        readings=tuple(readings),
        tables=tables,
        says=tuple(_says(crowd, found, owners, readings, tables, flows, herded)),
        how_to_read=_READ,
        misleads=_MISLEADS,
        left_out=left_out,
    )


# ---------------------------------------------------------------- side by side


def _depth(crowd: Crowd) -> FloatColumn:
    """By asset, USD that move its price by one e-fold; 0 where nobody knows."""
    return np.nan_to_num(Places.of(crowd.snapshot).depth_usd)


def _owners(crowd: Crowd, holdings: Holdings, top: int) -> _Owners:
    rows = holdings.order[:top]
    book = crowd.snapshot.book
    first = np.searchsorted(book.owner, rows)
    names = [
        f"account {book.account[account]}" if key == UNKNOWN_OWNER else str(key)
        for key, account in zip(book.owners[rows].tolist(), first, strict=True)
    ]
    net, collateral = holdings.dense(rows), owners_collateral(crowd, rows)
    if not len(rows):
        blank = np.zeros((0, 0))
        return _Owners([], first, np.empty(0), net, collateral, blank, blank)
    return _Owners(
        names, first, holdings.leveraged[rows], net, collateral, cosine(net), cosine(collateral)
    )


def _mean_pair(alike: FloatMatrix, weight: FloatColumn) -> float:
    """Mean over pairs of two different members, by the product of their weights."""
    pairs = weight.sum() ** 2 - float(weight @ weight)
    if pairs <= 0.0:
        return np.nan
    mean = float((weight @ alike @ weight - (weight * weight) @ np.diag(alike)) / pairs)
    return min(max(mean, -1.0), 1.0)  # sums leave the mean of ones a hair above it


def _overlapped(held: FloatMatrix, depth: FloatColumn) -> FloatMatrix:
    """What each would lose were the other sold whole, in USD, over assets whose depth is known."""
    deep = depth > 0.0
    if not deep.any() or not len(held):
        return np.full((len(held), len(held)), np.nan)
    return np.asarray(overlap(held[:, deep], depth[deep]))


def _venues(crowd: Crowd, depth: FloatColumn) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, str]]:
    """Pairs of venues, pairs of those that lend, and assets whose depth nobody knows."""
    universe, held = crowd.snapshot.universe, VenueHoldings.of(crowd)
    size = held.gross.sum(axis=1)
    some = np.flatnonzero(size + held.collateral.sum(axis=1) > 0.0)
    lends = universe.venue_kind == schema.VENUE_KINDS.index("lending")
    total = held.gross.sum(axis=0)
    left_out = {
        universe.assets[k]: "no depth is known, so it is in no overlap"
        for k in np.flatnonzero((total > 0.0) & (depth <= 0.0)).tolist()
    }
    types = {
        "first": pl.String, "second": pl.String, "first_usd": pl.Float64, "second_usd": pl.Float64,
        "collateral": pl.Float64, "gross": pl.Float64, "net": pl.Float64, "overlap_usd": pl.Float64,
        "overlap_to_first": pl.Float64, "lend": pl.Boolean,
    }  # fmt: skip
    rows = []
    if len(some):
        alike = [cosine(part[some]) for part in (held.collateral, held.gross, held.net)]
        leaned = np.abs(held.net[some]).sum(axis=1) > _EVEN * size[some]
        backs = held.collateral[some].sum(axis=1) > 0.0
        common = _overlapped(held.gross[some], depth)
        for i in range(len(some)):
            for j in range(i + 1, len(some)):
                a, b = int(some[i]), int(some[j])
                usd = known(common[i, j])
                rows.append((
                    universe.venues[a], universe.venues[b], float(size[a]), float(size[b]),
                    float(alike[0][i, j]) if backs[i] and backs[j] else None,
                    float(alike[1][i, j]) if size[a] > 0.0 and size[b] > 0.0 else None,
                    float(alike[2][i, j]) if leaned[i] and leaned[j] else None,
                    usd, usd / float(size[a]) if usd is not None and size[a] > 0.0 else None,
                    bool(lends[a] and lends[b]),
                ))  # fmt: skip
    frame = pl.DataFrame(rows, schema=types, orient="row")
    frame = frame.sort("overlap_usd", "first", "second", descending=[True, False, False],
                       nulls_last=True)  # fmt: skip
    return frame.drop("lend"), frame.filter("lend").drop("lend"), left_out


def _pairs(owners: _Owners, depth: FloatColumn, drawn: Redrawn) -> pl.DataFrame:
    """The pairs of owners who would cost each other most."""
    types = {
        "first": pl.String, "second": pl.String, "first_usd": pl.Float64, "second_usd": pl.Float64,
        "exposure": pl.Float64, "collateral": pl.Float64, "overlap_usd": pl.Float64,
        "rank": pl.Int64, "rank_low": pl.Int64, "rank_high": pl.Int64,
    }  # fmt: skip
    if len(owners.name) < 2:
        return pl.DataFrame(schema=types)
    i, j = np.triu_indices(len(owners.name), 1)
    common = _overlapped(owners.net, depth)[i, j]
    kept = np.argsort(-np.nan_to_num(common), kind="stable")[:_PAIRS]
    places = _places_of(common, i, j, kept, owners, drawn)
    rows = [
        (owners.name[i[k]], owners.name[j[k]], float(owners.usd[i[k]]), float(owners.usd[j[k]]),
         float(owners.alike[i[k], j[k]]), float(owners.backed[i[k], j[k]]),
         known(common[k]), *place)
        for k, place in zip(kept, places, strict=True)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=types, orient="row")


def _places_of(
    common: FloatColumn,
    i: AnyColumn,
    j: AnyColumn,
    kept: AnyColumn,
    owners: _Owners,
    drawn: Redrawn,
) -> list[tuple[int | None, int | None, int | None]]:
    """Rank of each pair that is kept, and its band over draws in which both of it come.

    An owner that comes twice is two, each with its own overlaps, so a pair weighs as often as both.
    """
    if np.isnan(common).any():
        return [(None, None, None)] * len(kept)
    best = _ranks_among(common, common[kept])
    if len(owners.name) < FEW:
        return [(int(rank), None, None) for rank in best]
    weight = drawn.weight[:, drawn.unit[owners.account]]
    found = np.full((len(weight), len(kept)), np.nan)
    for rep, often in enumerate(weight):
        pairs = often[i] * often[j]
        come = pairs > 0.0
        value = np.where(come, pairs * common, -np.inf)
        found[rep, come[kept]] = _ranks_among(value, value[kept][come[kept]])
    tails = (0.5 * (1.0 - drawn.level), 0.5 * (1.0 + drawn.level))
    places: list[tuple[int | None, int | None, int | None]] = []
    for rank, column in zip(best, found.T, strict=True):
        told_of = column[np.isfinite(column)]
        low = high = None
        if len(told_of) >= _LEAST:
            low = int(min(np.quantile(told_of, tails[0], method="lower"), rank))
            high = int(max(np.quantile(told_of, tails[1], method="higher"), rank))
        places.append((int(rank), low, high))
    return places


def _ranks_among(values: FloatColumn, some: FloatColumn) -> FloatColumn:
    """The place of some values among all: one more than those above."""
    above = len(values) - np.sort(values).searchsorted(some, side="right")
    return np.asarray(above + 1.0)


# ---------------------------------------------------------------- clusters and herds, as tables


def _clusters(crowd: Crowd, found: Strategies | None) -> pl.DataFrame:
    """One row a cluster, the one with most leveraged USD first; who is in none last."""
    types = {
        "cluster": pl.Int64, "strategy": pl.String, "owners": pl.Int64, "leveraged_usd": pl.Float64,
        "share": pl.Float64, "stability": pl.Float64, "there": pl.Boolean,
    }  # fmt: skip
    if found is None:
        return pl.DataFrame(schema=types)
    whole = float(found.by_cluster.sum()) + found.beside
    names, alone = crowd.snapshot.universe.assets, len(found.centre) == 1
    rows: list[tuple[Any, ...]] = []
    for k, usd in enumerate(found.by_cluster.tolist()):
        stable = float(found.jaccard[k])
        rows.append((k + 1, called(found.centre[k], names), int((found.label == k).sum()), usd,
                     usd / whole, known(stable), alone or stable >= _STANDS))  # fmt: skip
    count = int((found.label < 0).sum())
    if count:
        rows.append((None, "in no cluster", count, found.beside, found.beside / whole, None, None))
    return pl.DataFrame(rows, schema=types, orient="row")


def _places(found: Strategies | None) -> pl.DataFrame:
    """One row a cluster and a bucket of leverage: who stands at the same edge of the same place."""
    types = {"cluster": pl.Int64, "leverage": pl.String, "owners": pl.Int64,
             "leveraged_usd": pl.Float64, "share": pl.Float64}  # fmt: skip
    if found is None:
        return pl.DataFrame(schema=types)
    names, whole = bucket_names(), float(found.by_cluster.sum()) + found.beside
    there = found.label >= 0
    key = found.label[there] * len(names) + found.bucket[there]
    size = len(found.centre) * len(names)
    usd = np.bincount(key, found.usd[there], minlength=size)
    count = np.bincount(key, minlength=size)
    rows = [
        (k // len(names) + 1, names[k % len(names)], int(count[k]), float(usd[k]),
         float(usd[k]) / whole)
        for k in np.flatnonzero(count).tolist()
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=types, orient="row")


def _herd_table(flows: OwnerFlows | None, found: Herds | None) -> pl.DataFrame:
    """One row a herd."""
    types = {
        "herd": pl.Int64, "owners": pl.Int64, "leveraged_usd": pl.Float64, "share": pl.Float64,
        "correlation": pl.Float64, "p_value": pl.Float64, "leader": pl.String,
        "lead_us": pl.Float64,
    }  # fmt: skip
    if flows is None or found is None:
        return pl.DataFrame(schema=types)
    step = float(np.median(np.diff(flows.ts))) if len(flows.ts) > 1 else np.nan
    whole, rows = float(flows.leveraged.sum()), []
    for k in range(found.count):
        who = np.flatnonzero(found.herd == k)
        inside = np.ix_(who, who)
        apart = ~np.eye(len(who), dtype=np.bool_)
        tied = apart & (found.p_value[inside] <= found.level)
        lead = np.where(apart, found.lag[inside], 0).sum(axis=1) / (len(who) - 1)
        usd = float(flows.leveraged[who].sum())
        rows.append((
            k + 1, len(who), usd, usd / whole if whole > 0.0 else None,
            float(found.correlation[inside][tied].mean()), float(found.p_value[inside][tied].min()),
            _called(int(flows.owners[who[np.argmax(lead)]])), known(float(lead.max()) * step),
        ))  # fmt: skip
    return pl.DataFrame(rows, schema=types, orient="row")


def _herders(flows: OwnerFlows | None, found: Herds | None) -> pl.DataFrame:
    """One row an owner whose flow is known."""
    types = {"owner": pl.String, "leveraged_usd": pl.Float64, "herd": pl.Int64,
             "explained_by_prices": pl.Float64, "why_not": pl.String}  # fmt: skip
    if flows is None or found is None:
        return pl.DataFrame(schema=types)
    rows = [
        (_called(int(key)), float(usd), int(herd) + 1 if herd >= 0 else None,
         known(float(share)), why)
        for key, usd, herd, share, why in zip(flows.owners, flows.leveraged, found.herd,
                                              found.explained, found.reasons, strict=True)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=types, orient="row")


def _called(key: int) -> str:
    return str(key) if key >= 0 else f"account {-2 - key}"


# ---------------------------------------------------------------- readings


def _of_clusters(crowd: Crowd, found: Strategies | None, level: float) -> list[Reading]:
    stable = np.nan
    if found is None or not len(found.centre):
        made = [crowd.reading(name, None, "1", words) for name, words in _OF_CLUSTERS]
    else:
        values = measures_of(found.by_cluster, found.beside)
        low, high = band(found.shares, level)
        made = [
            crowd.reading(name, value, "1", words, level=level,
                          band=(min(float(a), value), max(float(b), value)))
            for (name, words), value, a, b in zip(_OF_CLUSTERS, values, low, high, strict=True)
        ]  # fmt: skip
        stable = float(found.by_cluster @ found.jaccard / found.by_cluster.sum())
    return [*made, crowd.reading("crowding.cluster_stability", stable, "1", _STABLE)]


def _of_owners(
    crowd: Crowd, owners: _Owners, depth: FloatColumn, rng: np.random.Generator, level: float
) -> list[Reading]:
    """How alike the largest owners are, with bands from owners drawn anew."""
    size = len(owners.name)
    words = (
        f"mean cosine of {{}} over pairs of the {size} owners with most leveraged USD, by the "
        "product of it; none of fewer than two"
    )
    weights = owners.usd * rng.poisson(1.0, (_DRAWS, size))
    found = []
    for name, what, alike in (
        ("crowding.owner_similarity", "net exposure", owners.alike),
        ("crowding.collateral_similarity", "collateral", owners.backed),
    ):
        value = _mean_pair(alike, owners.usd) if size > 1 else np.nan
        ends = None
        if size >= FEW:
            low, high = band(np.array([_mean_pair(alike, each) for each in weights]), level)
            ends = (min(float(low), value), max(float(high), value))
        found.append(crowd.reading(name, value, "1", words.format(what), band=ends, level=level))
    common, gross = _overlapped(owners.net, depth), float(np.abs(owners.net).sum())
    whole = float(common.sum() - np.trace(common)) / gross if size > 1 and gross > 0.0 else np.nan
    found.append(
        crowd.reading("crowding.overlap", whole, "1",
                      f"what the {size} owners would lose to each other over their gross exposure "
                      "were all of it sold at once, prices answering in a straight line: twice "
                      "the sum over pairs of H H / D; no share, so it may be above 1; none where "
                      "no depth is known",
                      modelled=True)
    )  # fmt: skip
    return found


def _of_venues(crowd: Crowd, tables: dict[str, pl.DataFrame]) -> list[Reading]:
    found = []
    for what in ("venues", "protocols"):
        for column in ("collateral", "gross"):
            frame = tables[what].drop_nulls(column)
            weight = (frame["first_usd"] * frame["second_usd"]).to_numpy()
            value = np.nan
            if weight.sum() > 0.0:
                value = float(weight @ frame[column].to_numpy() / weight.sum())
            words = "collateral" if column == "collateral" else "gross exposure"
            found.append(
                crowd.reading(f"crowding.{what[:-1]}_similarity", value, "1",
                              f"mean cosine of {words} over pairs of {what}, by the product of "
                              "their gross exposure; none of fewer than two", subject=words)
            )  # fmt: skip
    return found


def _of_herds(crowd: Crowd, flows: OwnerFlows | None, found: Herds | None) -> list[Reading]:
    share, tie = np.nan, np.nan
    if flows is not None and found is not None and not found.reason:
        whole = float(flows.leveraged.sum())
        share = float(flows.leveraged[found.herd >= 0].sum()) / whole if whole > 0.0 else np.nan
        tie = _mean_of_pairs(found, found.beyond)
    made = [
        crowd.reading("crowding.herd_share", share, "1",
                      "share of the leveraged USD of owners whose flow is known that belongs to a "
                      "herd; none where no flow is known", modelled=True),
        crowd.reading("crowding.flow_correlation", tie, "1",
                      "mean correlation over pairs of the signs of flow at the same step, beyond "
                      "what prices explain", modelled=True),
    ]  # fmt: skip
    if flows is None:
        return made
    stood_on = digest(crowd.snapshot.digest, flows.digest)
    window = int(flows.ts[-1] - flows.ts[0]) if len(flows.ts) > 1 else None
    return [replace(each, inputs_hash=stood_on, window_us=window) for each in made]


def _mean_of_pairs(found: Herds, value: FloatMatrix) -> float:
    used = np.flatnonzero([not why for why in found.reasons])
    part = value[np.ix_(used, used)]
    count = len(used) * (len(used) - 1)
    return float(part.sum() - np.trace(part)) / count if count else np.nan


# ---------------------------------------------------------------- words


def _says(
    crowd: Crowd,
    found: Strategies | None,
    owners: _Owners,
    readings: list[Reading],
    tables: dict[str, pl.DataFrame],
    flows: OwnerFlows | None,
    herded: Herds | None,
) -> list[str]:
    by_name = {r.name: r for r in reversed(readings)}
    says = _of_places(crowd, found, by_name, tables)
    alike, backed = by_name["crowding.owner_similarity"], by_name["crowding.collateral_similarity"]
    if alike.value is not None and backed.value is not None:
        says.append(
            f"Any two of the {len(owners.name)} largest owners are {told(alike.value)} alike in "
            f"exposure and {told(backed.value)} in collateral."
        )
    venues = tables["venues"].drop_nulls("gross").sort("gross", "first", descending=[True, False])
    if venues.height:
        row = venues.row(0, named=True)
        says.append(
            f"{row['first']} and {row['second']} are the most alike of venues "
            f"({told(row['gross'])} in gross exposure)."
        )
    says += _of_trades(tables, flows, herded)
    return says


def _of_places(
    crowd: Crowd,
    found: Strategies | None,
    by_name: dict[str, Reading],
    tables: dict[str, pl.DataFrame],
) -> list[str]:
    if found is None:
        count = int((crowd.leveraged > 0.0).sum())
        words = (
            f"Whether leverage stands in one place cannot be told: of {many(count, 'account')} "
            f"with leverage, fewer than {FEW} owners lean any way."
        )
        return [words]
    why = (
        f"{found.clusters.why} (mean cosine {told(found.clusters.tight)} with the direction of all)"
    )
    if not len(found.centre):
        return [f"No places can be told apart, and owners have little in common: {why}."]
    share, several = (by_name[f"crowding.{n}"] for n in ("largest_place", "effective_strategies"))
    row = tables["clusters"].row(0, named=True)

    def shown(reading: Reading) -> str:
        if reading.value is None or reading.low is None or reading.high is None:
            return told(reading.value)
        return banded(reading.value, reading.low, reading.high)

    if len(found.centre) == 1:
        words = f"There is one place: {row['strategy']}, with {percent(share.value)} of leveraged"
        return [f"{words} USD; {why}."]
    words = (
        f"{percent(share.value)} ({percent(share.low)} to {percent(share.high)}) of leveraged USD "
        f"stands in one place, {row['strategy']}; there are {shown(several)} strategies in effect, "
        f"of {len(found.centre)} that were found."
    )
    says = [words]
    weak = tables["clusters"].filter(pl.col("stability") < 0.5)["strategy"].to_list()
    if weak:
        says.append(
            f"Not found again among other owners of the same kind, and so not to be relied on: "
            f"{listed(weak)}."
        )
    edge = tables["places"].sort("leveraged_usd", descending=True).row(0, named=True)
    says.append(
        f"The fullest place at one leverage is cluster {edge['cluster']} at {edge['leverage']}: "
        f"{many(edge['owners'], 'owner')}, {percent(edge['share'])} of leveraged USD."
    )
    return says


def _of_trades(
    tables: dict[str, pl.DataFrame], flows: OwnerFlows | None, found: Herds | None
) -> list[str]:
    if flows is None or found is None:
        return ["Whether owners trade together cannot be told: it takes books at many instants."]
    if found.reason:
        return [f"Whether owners trade together cannot be told: {found.reason}."]
    raw, beyond = _mean_of_pairs(found, found.raw), _mean_of_pairs(found, found.beyond)
    prices = (
        f"Signs of flow correlate by {told(raw)} between owners, by {told(beyond)} once answers to "
        "prices are taken out."
    )
    if not found.count:
        return ["No owners trade together beyond what prices make them do.", prices]
    row = tables["herds"].row(0, named=True)
    led = ""
    if row["lead_us"] is not None and row["lead_us"] > 0.0:
        led = f", led by {row['leader']} by {span(row['lead_us'])} on average"
    words = (
        f"{many(found.count, 'herd')} of owners trade together beyond prices; the largest has "
        f"{many(row['owners'], 'owner')} with {percent(row['share'])} of leveraged USD "
        f"({chance(row['p_value'])}){led}."
    )
    return [words, prices]
