"""Who is called at once: venues in one window, owners on several venues, walls of thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from undertow.econometrics.checks import within
from undertow.errors import StateError
from undertow.fanout import Executor
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.fragility import lanes_for
from undertow.measures.crowding.ladders import MARKET, SIDES, Line
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.words import listed, many, percent, told
from undertow.rules.snapshot import Snapshot
from undertow.state import BoolColumn, FloatColumn, KeyColumn, Reading
from undertow.stress.atrisk import line_of
from undertow.stress.draws import assumed_draws
from undertow.stress.shock import require_within
from undertow.stress.sweep import Draws, Sweep, run_sweep
from undertow.stress.tails import Chance, probability_beyond

LEAST = 0.01  # of what is leveraged at a venue, for it to be calling
WITHIN = 0.02  # of price: thresholds that near to each other fire together
_FURTHEST, _STEP = 0.5, 0.002
_NEAREST = 5e-4  # a stretch that is narrower is none
_NO_BAND = "no band where every draw says the same"
_READ = (
    "Joint moves of a day are drawn, and each is followed to its end by the cascade. A venue calls "
    "in it where it closes at least {least} of what is leveraged there. `by_chance` is how often "
    "so many would call if each called as often as it does, on its own: venues that call together "
    "call many at once more often than that, and fewer at once more seldom. A row of `windows` is "
    "the stretch of a common move, {near} of price wide, in which most is called. Owners are "
    "counted in two ways. `owners_called_twice` are called at two venues or more in one drawn day, "
    "however far apart; owners of the table stand close together at two venues or more, within one "
    "such stretch, whatever is drawn."
)
_MISLEADS = (
    "Chances are those of the law that is drawn from; unless another is given, a t copula with "
    "assumed volatilities and correlations, and not of history. Bands are those of the number of "
    "draws alone. Owners are joined only where they are known, so both counts of them are "
    "lower bounds; nobody is guessed. A day is one window: within it venues may call hours apart."
)


def synchrony(
    book: Snapshot | Crowd | Any,
    *,
    draws: Draws | None = None,
    count: int = 100,
    days: float = 1.0,
    least: float = LEAST,
    near: float = WITHIN,
    seed: int = 0,
    level: float = 0.9,
    executor: Executor | None = None,
) -> Study:
    """Chance, size and expected number of venues that call in one window, and whom several call.

    `draws` are joint moves of factors over the window; unless given, they are assumed for `days`.

    Raises
    ------
    StateError
        When it is no book, or a size is out of range.
    EstimationError
        When the level is out of range.
    """
    crowd = Crowd.of(book).settled
    require_seed(seed)
    within("level", level, 0.0, 1.0)
    require_within("least", least, 0.0, 1.0, open_low=True)
    require_within("near", near, _NEAREST, _FURTHEST)
    require_within("count", count, 10, 10_000_000)
    if not Line(MARKET, None, "fall").moves_of(crowd).any():
        raise StateError("all that is held is money: nothing can move", hint="give another book")
    if draws is not None and not callable(getattr(draws, "draw", None)):
        raise StateError(
            f"draws was of type {type(draws).__name__}; it must be a law of joint moves",
            hint="undertow.stress has several; without one, moves are assumed",
        )
    law = assumed_draws(crowd.snapshot, days=days) if draws is None else draws
    run = run_sweep(
        crowd.plan, law, int(count), seed=seed, options=crowd.options, settled=False,
        executor=executor, bounds=crowd.bounds,
        lanes=lanes_for(int(count), executor),
    )  # fmt: skip
    calling = _calling(crowd, run, least)
    walls, owners = _static(crowd, near, executor)
    venues_called = _at_least(calling, level)
    return Study(
        name="crowding.synchrony",
        title="Who is called at once",
        readings=tuple(_readings(crowd, run, calling, walls, level, near, seed)),
        tables={
            "venues_called": venues_called,
            "venues": _venues(crowd, run, calling, level),
            "windows": walls,
            "owners": owners,
        },
        says=tuple(_says(crowd, run, calling, venues_called, walls, owners, near)),
        how_to_read=_READ.format(least=percent(least), near=percent(near)),
        misleads=_MISLEADS,
    )


def _calling(crowd: Crowd, run: Sweep, least: float) -> BoolColumn:
    """(draws, venues) Which venues call."""
    venues = len(crowd.snapshot.universe.venues)
    there = np.bincount(crowd.snapshot.book.venue, crowd.leveraged, venues)
    closed = run.by_venue[:, 0]  # BY_CLOSED
    found: BoolColumn = (closed >= least * there) & (closed > 0.0) & (there > 0.0)
    return found


def _leveraged_venues(crowd: Crowd) -> int:
    return int((np.bincount(crowd.snapshot.book.venue, crowd.leveraged) > 0.0).sum())


def _at_least(calling: BoolColumn, level: float) -> pl.DataFrame:
    """How often k venues or more call, and how often they would on their own."""
    number = calling.sum(axis=1)
    alone = _on_their_own(calling.mean(axis=0))
    rows = []
    for k in range(1, int((calling.any(axis=0)).sum()) + 1):
        seen = probability_beyond(number, k - 0.5, level=level)
        rows.append((k, seen.value, seen.low, seen.high, float(alone[k:].sum())))
    names = ("probability", "low", "high", "by_chance")
    return pl.DataFrame(rows, schema={"k": pl.Int64} | dict.fromkeys(names, pl.Float64),
                        orient="row")  # fmt: skip


def _on_their_own(chance: FloatColumn) -> FloatColumn:
    """Distribution of how many call when each does on its own."""
    found = np.ones(1)
    for p in chance:
        found = np.convolve(found, (1.0 - p, p))
    return found


def _venues(crowd: Crowd, run: Sweep, calling: BoolColumn, level: float) -> pl.DataFrame:
    rows = []
    for v, name in enumerate(crowd.snapshot.universe.venues):
        if not calling[:, v].any():
            continue
        seen = probability_beyond(calling[:, v].astype(np.float64), 0.5, level=level)
        others = calling.sum(axis=1) - calling[:, v]
        rows.append(
            (name, seen.value, seen.low, seen.high, float(others[calling[:, v]].mean()),
             float(run.by_venue[calling[:, v], 0, v].mean()))
        )  # fmt: skip
    names = ("probability", "low", "high", "others_calling", "closed_usd")
    frame = pl.DataFrame(rows, schema={"venue": pl.String} | dict.fromkeys(names, pl.Float64),
                         orient="row")  # fmt: skip
    return frame.sort("probability", "venue", descending=[True, False])


def _static(
    crowd: Crowd, near: float, executor: Executor | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Walls of thresholds along a common move, and owners who stand at two of them at once."""
    width = int(np.ceil(near / _STEP - 1e-9))
    points = int(_FURTHEST * width / near + 1e-9)
    distances = np.linspace(0.0, points * near / width, points + 1)
    walls, owners = [], []
    with crowd.at_risk(executor) as asked:
        for side in SIDES:
            sign = 1.0 if side == "fall" else -1.0
            moves = Line(MARKET, None, side).moves_of(crowd)
            first = asked.first_called(line_of(sign * moves, distances))
            walls.append(_wall(crowd, side, first, distances, width))
            owners.append(_owners(crowd, side, first, distances, width))
    names = ("start", "end", "called_usd", "share", "of_all")
    wall_rows = pl.DataFrame(
        [wall for wall in walls if wall is not None],
        schema={"side": pl.String} | dict.fromkeys(names, pl.Float64), orient="row",
    )  # fmt: skip
    return wall_rows, pl.concat(owners)


def _wall(
    crowd: Crowd, side: str, first: KeyColumn, distances: FloatColumn, width: int
) -> tuple[str, float, float, float, float, float] | None:
    """The stretch in which most is called, as a share of all that is called up to the end."""
    called = first < len(distances)
    by_point = np.bincount(first[called], crowd.leveraged[called], len(distances))
    total = float(by_point.sum())
    if total <= 0.0:
        return None
    sums = np.convolve(by_point, np.ones(width))[: len(by_point)]
    end = int(np.argmax(sums))
    start = max(end - width, 0)
    whole = float(crowd.leveraged.sum())
    return (side, float(distances[start]), float(distances[end]), float(sums[end]),
            float(sums[end]) / total, float(sums[end]) / whole)  # fmt: skip


def _owners(
    crowd: Crowd, side: str, first: KeyColumn, distances: FloatColumn, width: int
) -> pl.DataFrame:
    """Known owners of whom two venues or more call within one stretch, the largest first.

    An owner has the stretch in which most of it is called, of those in which two venues call.
    """
    book = crowd.snapshot.book
    rows = np.flatnonzero((first < len(distances)) & crowd.owned)
    venue = pl.Series(crowd.snapshot.universe.venues, dtype=pl.String).gather(book.venue[rows])
    frame = pl.DataFrame(
        {
            "owner": book.owners[book.owner[rows]], "venue": venue,
            "at": first[rows].astype(np.int64), "usd": crowd.leveraged[rows],
        }
    )  # fmt: skip
    several = frame.filter(pl.col("venue").n_unique().over("owner") > 1)
    stretches = (
        several.sort("owner", "at", maintain_order=True)
        .rolling("at", period=f"{width}i", group_by="owner")
        .agg(
            pl.col("venue").unique().sort().alias("venues"),
            pl.len().cast(pl.Int64).alias("accounts"),
            pl.col("usd").sum().alias("called_usd"),
            pl.col("at").min().alias("nearest"),
        )
        .rename({"at": "farthest"})
    )
    return (
        stretches.filter(pl.col("venues").list.len() > 1)
        .sort("called_usd", "owner", "farthest", descending=[True, False, False])
        .unique("owner", keep="first", maintain_order=True)
        .with_columns(pl.col("nearest", "farthest").cast(pl.Float64) * distances[1])
        .select(
            "owner", pl.lit(side).alias("side"), pl.col("venues").list.join(", "),
            "accounts", "called_usd", "nearest", "farthest",
        )
    )  # fmt: skip


def _readings(
    crowd: Crowd, run: Sweep, calling: BoolColumn, walls: pl.DataFrame, level: float, near: float,
    seed: int,
) -> list[Reading]:  # fmt: skip
    number = calling.sum(axis=1).astype(np.float64)
    size = run.liquidated_usd
    mean, band = _mean_band(number, level, seed)
    found = [
        crowd.reading(
            "crowding.venues_calling", mean, "count",
            f"expected number of venues that call in one window; {_NO_BAND}", band=band,
            level=level, modelled=True,
        )
    ]  # fmt: skip
    for k in range(2, min(_leveraged_venues(crowd), 3) + 1):
        chance = probability_beyond(number, k - 0.5, level=level)
        found.append(
            crowd.reading(
                "crowding.calling_together", chance.value, "1",
                f"chance that {k} venues or more call in one window",
                subject=f"{k} or more", band=(chance.low, chance.high), level=level, modelled=True,
            )
        )  # fmt: skip
    together = size[number >= 2.0]
    if len(together) > 1:
        mean, band = _mean_band(together, level, seed)
        found.append(
            crowd.reading(
                "crowding.called_together_usd", mean, "usd",
                "mean value closed in windows in which two venues or more call",
                band=band, level=level, modelled=True,
            )
        )  # fmt: skip
    twice = run.rows["called_twice"].astype(np.float64)
    mean, band = _mean_band(twice, level, seed)
    found.append(
        crowd.reading(
            "crowding.owners_called_twice", mean, "count",
            "expected number of known owners called at two venues or more in one drawn window, "
            f"however far apart in price; {_NO_BAND}",
            band=band, level=level, modelled=True,
        )
    )  # fmt: skip
    for side, share in walls.select("side", "share").iter_rows():
        found.append(
            crowd.reading(
                "crowding.within", share, "1",
                f"share of all that a common {side} of up to {percent(_FURTHEST)} calls whose "
                f"thresholds lie within {percent(near)} of price of each other, where that is "
                "most; it has no band: it is the largest of many sums of what is there",
                subject=side,
            )
        )  # fmt: skip
    return found


def _mean_band(
    values: FloatColumn, level: float, seed: int
) -> tuple[float, tuple[float, float] | None]:
    """Mean, and the percentile band of the means of samples drawn anew; none of equal values."""
    if np.ptp(values) == 0.0:
        return float(values[0]), None
    rng = np.random.default_rng(seed)
    weight = rng.multinomial(len(values), np.full(len(values), 1.0 / len(values)), size=499)
    drawn = weight @ values / len(values)
    low, high = np.quantile(drawn, (0.5 * (1.0 - level), 0.5 * (1.0 + level)))
    return float(values.mean()), (float(low), float(high))


def _says(
    crowd: Crowd, run: Sweep, calling: BoolColumn, venues_called: pl.DataFrame,
    walls: pl.DataFrame, owners: pl.DataFrame, near: float,
) -> list[str]:  # fmt: skip
    if float(crowd.leveraged.sum()) <= 0.0:
        return [f"{crowd.nobody}: no venue can call."]
    number = calling.sum(axis=1)
    if _leveraged_venues(crowd) < 2:
        words = (
            f"In {percent(float((number > 0).mean()))} of {len(run):,} drawn windows the one venue "
            "with leverage calls; no other could call with it."
        )
        says = [words]
    else:
        two: Chance = probability_beyond(number.astype(np.float64), 1.5)
        words = (
            f"In {percent(two.value)} of {len(run):,} drawn windows two venues or more call at "
            f"once ({told(float(number.mean()))} venues on average)."
        )
        says = [words, *_against_chance(venues_called)]
    says.extend(
        f"Of all that a common {wall['side']} calls, {percent(wall['share'])} stands between "
        f"{percent(wall['start'])} and {percent(wall['end'])}: {told(wall['called_usd'], 3)} USD."
        for wall in walls.iter_rows(named=True)
    )
    if owners.height:
        top = owners.sort("called_usd", descending=True).head(3)
        names = [
            f"owner {owner} ({told(usd, 3)} USD at {venues})"
            for owner, usd, venues in top.select("owner", "called_usd", "venues").iter_rows()
        ]
        stands = many(owners["owner"].n_unique(), "known owner stands", "known owners stand")
        says.append(
            f"{stands} close together at two venues or more, within {percent(near)} of price, "
            f"whatever is drawn; the largest: {listed(names)}."
        )
    else:
        says.append(f"No known owner stands at two venues within {percent(near)} of price.")
    if _leveraged_venues(crowd) > 1:
        drawn = float(run.rows["called_twice"].mean())
        says.append(
            f"On average {told(drawn)} known owners are called at two venues or more in one drawn "
            "window, however far apart."
        )
    return says


def _against_chance(venues_called: pl.DataFrame) -> list[str]:
    """Every number of venues that call together more often, or more seldom, than by chance."""
    often = venues_called.filter(pl.col("by_chance") < pl.col("low"))
    seldom = venues_called.filter(pl.col("by_chance") > pl.col("high"))

    def shown(rows: pl.DataFrame) -> str:
        return listed(
            f"{row['k']} or more call in {percent(row['probability'])} (each on its own, they "
            f"would in {percent(row['by_chance'])})"
            for row in rows.iter_rows(named=True)
        )

    says = []
    if often.height:
        says.append(f"More often than by chance: {shown(often)}; the same moves call them.")
    if seldom.height:
        says.append(f"More seldom than by chance: {shown(seldom)}.")
    if not says and venues_called.height:
        says.append("That so many call is as frequent as by chance, as far as the bands can tell.")
    return says
