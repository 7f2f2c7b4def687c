"""The joint map: who is called when the market and one thing more move together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.errors import StateError
from undertow.fanout import Executor
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.ladders import MARKET, Line
from undertow.measures.crowding.redrawn import Redrawn
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.words import percent, told
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn, FloatMatrix, Reading
from undertow.state.universe import NONE
from undertow.stress.atrisk import AtRisk
from undertow.stress.shock import require_within

FURTHEST, ACROSS, UP = 0.4, 20, 10
PEG_FURTHEST = 0.2
_KINDS = len(schema.EVIDENCE)
_READ = (
    "A cell is what venues would call if all that is no money fell by the first share and one "
    "asset, or what a receipt is worth in what it stands for, by the second on top, were nothing "
    "sold. Along an edge one of the two moves alone. What only both together call is the joint "
    "part: it stands on no ladder of a single price."
)
_MISLEADS = (
    "Nothing is sold and no price answers (crowding.fragility follows that). Oracles that read an "
    "exchange rate do not see a peg slip, so it calls nobody there. Which pairs move together is "
    "not said: any two can. Bands draw owners anew."
)


@dataclass(frozen=True, eq=False)
class _Face:
    """One surface: the market against a factor."""

    name: str
    asset: int
    furthest: float

    def points(self, crowd: Crowd, market: FloatColumn, share: FloatColumn) -> FloatMatrix:
        """(market x other, assets) Log moves of factors, the other running fastest."""
        whole = Line(MARKET, None, "fall").moves_of(crowd)
        one = np.zeros(len(whole))
        one[self.asset] = 1.0
        a, b = (each.ravel() for each in np.meshgrid(market, share, indexing="ij"))
        moves: FloatMatrix = np.outer(np.log1p(-a), whole) + np.outer(np.log1p(-b), one)
        return moves


def surface(
    book: Snapshot | Crowd | Any,
    *,
    assets: tuple[str, ...] | None = None,
    furthest: float = FURTHEST,
    seed: int = 0,
    level: float = 0.9,
    reps: int = 199,
    executor: Executor | None = None,
) -> Study:
    """What joint falls of the market and of one factor call, over a grid of both.

    `assets` says which factors are set against the market; unless given, the asset that most is at
    stake in, and the receipt of which most is held.

    Raises
    ------
    StateError
        When it is no book, an asset is unknown or is money, or the furthest fall is out of range.
    EstimationError
        When the level is out of range or the draws are too few.
    """
    crowd = Crowd.of(book)
    require_seed(seed)
    require_within("furthest", furthest, 0.0, 0.95, open_low=True)
    faces = _faces(crowd, assets, furthest)
    drawn = Redrawn.of(crowd, crowd.leveraged, reps=reps, seed=seed, level=level)
    frames, by_venue, readings, says = [], [], [], []
    with crowd.at_risk(executor) as asked:
        for face in faces:
            market = np.linspace(0.0, furthest, ACROSS)
            share = np.linspace(0.0, face.furthest, UP)
            points = face.points(crowd, market, share)
            group = crowd.snapshot.book.venue.astype(np.int64) * _KINDS + crowd.evidence_of
            found = asked.called(points, group, np.stack([crowd.debt, crowd.notional], axis=1))
            frame = _rows(crowd, face, market, share, found.total)
            frames.append(frame.drop("venue").group_by(
                "surface", "market", "other", "evidence", maintain_order=True
            ).sum())  # fmt: skip
            by_venue.append(frame.filter(pl.col("debt_usd") + pl.col("notional_usd") > 0.0))
            joint = _Joint.of(asked, crowd, face, furthest, drawn)
            readings.append(joint.reading(crowd, face, furthest, drawn.level))
            says.append(joint.sentence(crowd, face, furthest))
    whole = max(float(crowd.leveraged.sum()), 1e-300)
    empty = {"surface": pl.String, "market": pl.Float64, "other": pl.Float64,
             "evidence": pl.String, "debt_usd": pl.Float64, "notional_usd": pl.Float64}  # fmt: skip
    table = pl.concat(frames) if frames else pl.DataFrame(schema=empty)
    table = table.with_columns(share=(pl.col("debt_usd") + pl.col("notional_usd")) / whole)
    venues = pl.concat(by_venue) if by_venue else pl.DataFrame(schema={**empty, "venue": pl.String})
    return Study(
        name="crowding.surface",
        title="What is called when two things move at once",
        readings=tuple(readings),
        tables={"surface": table, "venues": venues},
        says=tuple(says) or ("Nothing that anybody leans on moves, so nobody can be called.",),
        how_to_read=_READ,
        misleads=_MISLEADS,
    )


def _faces(crowd: Crowd, names: tuple[str, ...] | None, furthest: float) -> list[_Face]:
    universe = crowd.snapshot.universe
    at_stake = np.bincount(crowd.asset, np.abs(crowd.lean), len(universe.assets))
    tied = universe.reference != NONE
    if names is None:
        own, pegs = (np.where(tied == is_tied, at_stake, 0.0) for is_tied in (False, True))
        chosen = [int(np.argmax(s)) for s in (own, pegs) if s.max(initial=0.0) > 0.0]
    else:
        chosen = [universe.code("asset", name) for name in names]
        for k in chosen:
            if universe.stable[universe.root[k]]:
                raise StateError(
                    f"{universe.assets[k]} is money, or stands for it",
                    hint="set an asset that falls against the market, or a receipt of one",
                )
    return [
        _Face(f"the peg of {universe.assets[k]}", k, min(PEG_FURTHEST, furthest)) if tied[k]
        else _Face(f"{universe.assets[k]} beyond it", k, furthest)
        for k in chosen
    ]  # fmt: skip


def _rows(
    crowd: Crowd, face: _Face, market: FloatColumn, share: FloatColumn, total: FloatMatrix
) -> pl.DataFrame:
    """Points by venue and by how they are known; those without anything called stay, at 0."""
    universe = crowd.snapshot.universe
    points, groups = total.shape[:2]
    group = crowd.snapshot.book.venue.astype(np.int64) * _KINDS + crowd.evidence_of
    present = np.unique(group[np.diff(crowd.snapshot.book.offset) > 0])
    present = present[present < groups]
    a, b = (each.ravel() for each in np.meshgrid(market, share, indexing="ij"))
    point, group = np.repeat(np.arange(points), len(present)), np.tile(present, points)
    return pl.DataFrame(
        {
            "surface": [f"market and {face.name}"] * len(point),
            "market": a[point],
            "other": b[point],
            "venue": pl.Series(universe.venues, dtype=pl.String).gather(group // _KINDS),
            "evidence": pl.Series(schema.EVIDENCE, dtype=pl.String).gather(group % _KINDS),
            "debt_usd": total[point, group, 0],
            "notional_usd": total[point, group, 1],
        }
    )


@dataclass(frozen=True, eq=False)
class _Joint:
    """At half of the way out both ways: what is called by both, and by each alone."""

    both: float
    only: float  # called by both together and by neither alone
    band: tuple[float, float]

    @classmethod
    def of(
        cls, asked: AtRisk, crowd: Crowd, face: _Face, furthest: float, drawn: Redrawn
    ) -> _Joint:
        market, share = np.array([0.0, 0.5 * furthest]), np.array([0.0, 0.5 * face.furthest])
        points = face.points(crowd, market, share)  # none, other, market, both
        other, alone, both = (asked.first_called(points[k : k + 1]) == 0 for k in (1, 2, 3))
        new = np.flatnonzero(both & ~other & ~alone)
        size = crowd.leveraged
        low, high = drawn.band(drawn.sums(new, np.zeros(len(new), dtype=np.int64), size[new], 1))
        value = float(size[new].sum())
        return cls(
            float(size[both].sum()), value, (min(float(low[0]), value), max(float(high[0]), value))
        )

    def reading(self, crowd: Crowd, face: _Face, furthest: float, level: float) -> Reading:
        return crowd.reading(
            "crowding.joint_usd", self.only, "usd",
            f"debt and gross notional called when the market falls by {percent(0.5 * furthest)} "
            f"and {face.name} by {percent(0.5 * face.furthest)} at once, of accounts that "
            "neither calls alone",
            subject=face.name, band=self.band, level=level,
        )  # fmt: skip

    def sentence(self, crowd: Crowd, face: _Face, furthest: float) -> str:
        whole = max(float(crowd.leveraged.sum()), 1e-300)
        first, second = percent(0.5 * furthest), percent(0.5 * face.furthest)
        start = (
            f"A market fall of {first} with {face.name} down {second} calls "
            f"{percent(self.both / whole)} of all that is leveraged"
        )
        if self.only > 0.0:
            return f"{start}; {told(self.only, 3)} USD of it is called by neither alone."
        return f"{start}, nothing of it beyond what the two call apart."
