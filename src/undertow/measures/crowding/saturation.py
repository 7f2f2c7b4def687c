"""The undertow index: how near forced sales are to carrying themselves on, and who carries them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from undertow.econometrics.checks import within
from undertow.fanout import Executor
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.fragility import (
    DOUBT,
    FINE,
    MOST,
    depths,
    knee_of,
    require_most,
    swept,
)
from undertow.measures.crowding.ladders import MARKET, SIDES, Line
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.words import listed, percent, told
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatMatrix, Reading
from undertow.stress.pressure import BANDWIDTH
from undertow.stress.saturation import EXACT, Saturation, index_of, saturation_at
from undertow.stress.saturation import saturation as follow
from undertow.stress.shock import require_within

FURTHEST, STEP = 0.5, 0.02
_CHECKED = 8  # shocks around saturation that are simulated, to hold it against
_AROUND = 0.4  # of it, either way
_MOST = 5  # carriers that are named
_SAME = EXACT + FINE  # apart that is none: saturation is told to the one, a knee to the other
_READ = (
    "rho(s) is by how much the fall that forced sales bring about exceeds the fall that forced "
    "them, at the margin, once a shock of size s and all that followed from it have come to rest: "
    "the spectral radius of impact times forced quantity, read over a further fall of {bandwidth}. "
    "Below 1 forced sales die out; where it reaches 1 the book sells itself. `at` is the smallest "
    "shock at which that happens, from thresholds and depth alone; `knee` is where the simulated "
    "cascade jumps, to hold it against. Shares say what the leading eigenvalue would lose without "
    "each asset and venue. `swing` is the largest eigenvalue that is negative or complex: sales "
    "and purchases that answer each other."
)
_MISLEADS = (
    "It is of accounts as they stand: nobody tops up, no liquidator lacks money, and late oracles "
    "have published. Where single accounts move a price by 1 % and more, both it and the knee hang "
    "on those few, and may differ. In books of longs and shorts there may be several points of "
    "rest; the one that is reached from calm is followed. rho before saturation can be above 1 "
    "where a dense stretch is narrower than what is sold into it. Bands are markets half and twice "
    "as deep (at nine in ten), not sampling. A common move is judged by the book's prices, so an "
    "asset that is a small part of it may tip unseen there: ask for it alone."
)


@dataclass(frozen=True, eq=False)
class _Found:
    """One direction, followed to saturation or to the furthest shock."""

    name: str  # of the line and the side
    path: Saturation
    ends: tuple[float | None, float | None] | None  # in thinner and deeper markets, where asked
    knee: float | None  # of the simulated cascade; None where it was not simulated or has none

    @property
    def now(self) -> float:
        return float(self.path.path["rho"][0])

    @property
    def band(self) -> tuple[float | None, float | None]:
        """Ends of the band; an end past the furthest shock is none."""
        if self.ends is None:
            return None, None
        every = (self.path.at, *self.ends)
        known = [each for each in every if each is not None]
        return min(known, default=None), max(known) if len(known) == len(every) else None


def saturation(
    book: Snapshot | Crowd | Any,
    *,
    assets: int = 2,
    furthest: float = FURTHEST,
    step: float = STEP,
    bandwidth: float = BANDWIDTH,
    doubt: float = DOUBT,
    most: int | None = MOST,
    seed: int = 0,
    level: float = 0.9,
    executor: Executor | None = None,
    progress: Callable[[str], None] | None = None,
) -> Study:
    """The undertow index along common falls and rises, and falls of the largest assets alone.

    `assets` says how many assets are shocked alone, the largest exposures first, in steps twice as
    long. `doubt` is by how many times depth may be off in nine of ten cases, for the bands of the
    common moves. A book of more than `most` accounts is judged by as many that stand for all
    (`stress.standins`).

    Raises
    ------
    StateError
        When it is no book, or a size is out of range.
    EstimationError
        When the level is out of range.
    """
    require_seed(seed)
    require_within("assets", assets, 0)
    within("level", level, 0.0, 1.0)
    require_within("furthest", furthest, 0.0, 0.95, open_low=True)
    require_within("step", step, 0.0, furthest, open_low=True)
    require_within("bandwidth", bandwidth, 0.0, 0.5, open_low=True)
    require_within("doubt", doubt, 1.0, 1e3)
    require_most(most)
    crowd = Crowd.of(book).settled.stood_for(most)
    found: list[_Found] = []
    for line in _lines(crowd, assets) if _some_depth(crowd) else []:
        name = line.side if line.asset is None else f"{line.name} {line.side}"
        if progress is not None:
            progress(name)
        found.append(
            _followed(crowd, line, name, furthest, step, bandwidth, doubt, level, executor)
        )
    return Study(
        name="crowding.saturation",
        title="How near the book is to selling itself",
        readings=tuple(_readings(crowd, found, furthest, bandwidth, level)),
        tables=_tables(found),
        says=tuple(_says(crowd, found, furthest, bandwidth)),
        how_to_read=_READ.format(bandwidth=percent(bandwidth)),
        misleads=_MISLEADS,
    )


def _some_depth(crowd: Crowd) -> bool:
    """Whether anything is known of what sales do to any price."""
    return bool((crowd.plan.carriers.depth > 0.0).any())


def _lines(crowd: Crowd, assets: int) -> list[Line]:
    """Everything either way, then the largest assets alone, falling."""
    universe = crowd.snapshot.universe
    if not Line(MARKET, None, "fall").moves_of(crowd).any():
        return []
    at_stake = np.bincount(crowd.asset, np.abs(crowd.lean), len(universe.assets))
    at_stake[universe.root != np.arange(len(universe.assets))] = 0.0
    some = [int(k) for k in np.argsort(-at_stake, kind="stable")[:assets] if at_stake[k] > 0.0]
    return [Line(MARKET, None, side) for side in SIDES] + [
        Line(universe.assets[k], k, "fall") for k in some
    ]


def _followed(
    crowd: Crowd, line: Line, name: str, furthest: float, step: float, bandwidth: float,
    doubt: float, level: float, executor: Executor | None,
) -> _Found:  # fmt: skip
    direction = line.moves_of(crowd) * (1.0 if line.side == "fall" else -1.0)
    with crowd.pressure(executor) as pressure:
        path = follow(
            pressure, direction, furthest=furthest, bandwidth=bandwidth,
            step=step if line.asset is None else min(2.0 * step, furthest),
            watched=_watched(crowd, line),
        )  # fmt: skip
    ends = None
    if line.asset is None and doubt > 1.0:
        found = []
        for times in depths(doubt, level)[1:]:
            with crowd.with_depth(times).pressure(executor) as pressure:
                found.append(
                    saturation_at(
                        pressure,
                        direction,
                        furthest=furthest,
                        step=min(2.0 * step, furthest),
                        bandwidth=bandwidth,
                    )
                )
        ends = (found[0], found[1])
    knee = None
    if line.asset is None and path.at is not None:
        knee = _knee(crowd, line.side, path.at, furthest, executor)
    return _Found(name, path, ends, knee)


def _watched(crowd: Crowd, line: Line) -> FloatMatrix:
    """Indices of which one must break: the book's prices, and those of what is shocked alone."""
    book = index_of(crowd.plan)
    if line.asset is None:
        return book[None, :]
    moved = crowd.plan.pricing.moves(-line.moves_of(crowd)) != 0.0
    return np.stack([book, index_of(crowd.plan, moved)])


def _knee(
    crowd: Crowd, side: str, at: float, furthest: float, executor: Executor | None
) -> float | None:
    """The knee of the simulated cascade near a shock; None where it has none there."""
    sizes = np.linspace(at * (1.0 - _AROUND), min(at * (1.0 + _AROUND), furthest), _CHECKED)
    return knee_of(crowd, side, sizes, swept(crowd, side, sizes, executor), executor)


def _tables(found: list[_Found]) -> dict[str, pl.DataFrame]:
    rows = [
        (f.name, f.path.at, *(f.ends or (None, None)), f.path.strongest, f.now, f.path.jump,
         f.path.furthest, f.knee, *f.band)
        for f in found
    ]  # fmt: skip
    names = ("at", "at_thin", "at_deep", "strongest", "now", "jump", "furthest", "knee",
             "at_low", "at_high")  # fmt: skip
    directions = pl.DataFrame(
        rows, schema={"direction": pl.String} | dict.fromkeys(names, pl.Float64), orient="row"
    )

    def gathered(what: str) -> pl.DataFrame:
        frames = [
            getattr(f.path, what).select(pl.lit(f.name).alias("direction"), pl.all()) for f in found
        ]
        return pl.concat(frames) if frames else pl.DataFrame({"direction": []})

    return {"directions": directions, "path": gathered("path"), "assets": gathered("assets"),
            "venues": gathered("venues")}  # fmt: skip


def _readings(
    crowd: Crowd, found: list[_Found], furthest: float, bandwidth: float, level: float
) -> list[Reading]:
    if found:
        return [r for f in found
                for r in _told(crowd, f.name, f, furthest, bandwidth, level)]  # fmt: skip
    return [r for side in SIDES for r in _told(crowd, side, None, furthest, bandwidth, level)]


def _told(
    crowd: Crowd, name: str, f: _Found | None, furthest: float, bandwidth: float, level: float
) -> Iterator[Reading]:
    """The numbers of one direction; none where nothing was followed."""
    low, high = (None, None) if f is None else f.band
    yield crowd.reading(
        "crowding.saturation", None if f is None else f.path.at, "1",
        f"smallest {name} at which forced sales carry themselves on: the least point of "
        f"rest breaks off by {percent(bandwidth)} or more of the book's prices or, of one "
        f"asset alone, of its own; none up to {percent(furthest)}, nor without depth. "
        "The band is of markets thinner and deeper; none where one of them has no such "
        "shock, nor for assets alone",
        subject=name, band=None if low is None or high is None else (low, high), level=level,
        modelled=True,
    )  # fmt: skip
    yield crowd.reading(
        "crowding.rho", None if f is None else f.now, "1",
        "spectral radius of impact times forced quantities at today's prices, over a "
        f"further {name} of {percent(bandwidth)}: fall made by sales per fall that "
        "forces them; it has no band: depth and thresholds are taken as known",
        subject=name, modelled=True,
    )  # fmt: skip
    yield crowd.reading(
        "crowding.rho_strongest", None if f is None else f.path.strongest, "1",
        f"largest rho of the shocks looked at, up to a {name} of "
        f"{percent(furthest if f is None else f.path.furthest)}; "
        "it has no band: depth and thresholds are taken as known",
        subject=name, modelled=True,
    )  # fmt: skip


def _says(crowd: Crowd, found: list[_Found], furthest: float, bandwidth: float) -> list[str]:
    if float(crowd.leveraged.sum()) <= 0.0:
        return [f"{crowd.nobody}: nothing can sell itself."]
    if not _some_depth(crowd):
        return ["Whether the book could sell itself cannot be told: no depth is known of anything."]
    if not found:
        return ["All that is held is money: nothing can sell itself."]
    says = []
    for f in found:
        if f.path.at is None:
            says.append(
                f"Along a {_spelled(f.name)} nothing sells itself up to {percent(furthest)}; rho "
                f"is {told(f.now)} today and {told(f.path.strongest)} at most."
            )
            continue
        whose = "prices" if f.name in SIDES else "its own prices, or the book's,"
        jump = f", and {whose} go {percent(abs(f.path.jump or 0.0))} further"
        next_ = f": already the next {percent(bandwidth)} would" if f.now >= 1.0 else ""
        says.append(
            f"A {_spelled(f.name)} of {percent(f.path.at)} is enough for forced sales to carry "
            f"themselves on{jump}; rho is {told(f.now)} today{next_}."
        )
        if f.knee is not None:
            near = abs(f.path.at - f.knee) <= _SAME
            apart = f"{percent(abs(f.path.at / f.knee - 1.0))} from it"
            says.append(
                f"The simulated cascade jumps at {percent(f.knee)}, "
                f"{'which is as near as either is told' if near else apart}."
            )
        elif f.name in SIDES:
            says.append(
                f"The simulated cascade has no jump within {percent(_AROUND)} of it: hold the two "
                "apart where few large accounts stand near."
            )
    first = found[0].path
    carriers = [f"{n} ({percent(s)})" for n, s in first.assets.head(_MOST).iter_rows() if s > 0.01]
    venues = [f"{n} ({percent(s)})" for n, s in first.venues.head(_MOST).iter_rows() if s > 0.01]
    if carriers:
        says.append(f"In a fall the feedback runs through {listed(carriers)}, at {listed(venues)}.")
    return says


def _spelled(name: str) -> str:
    return f"common {name}" if name in SIDES else f"lone {name}"
