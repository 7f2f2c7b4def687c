"""How much leverage is wanted: rates, basis, open interest and reserves, each in its own past."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import isnan
from typing import Any

import numpy as np
import polars as pl

from undertow.econometrics.checks import within
from undertow.econometrics.standing import LEAST, Standing, ranks_at, standing
from undertow.errors import MisalignedState, StateError
from undertow.measures.crowding.appetite import (
    BASIS,
    COMPONENTS,
    EVERYTHING,
    FUNDING,
    UTILISATION,
    Appetite,
    appetites,
)
from undertow.measures.crowding.crowd import Crowd
from undertow.measures.crowding.markets import DAY_US, MarketPast
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.words import banded, day, known, listed, many, percent, span, told
from undertow.rules.interest import RateCurve
from undertow.rules.snapshot import Snapshot
from undertow.state import FloatColumn, Reading
from undertow.state.arrays import digest
from undertow.state.book import FUTURE, PERP

STATES = ("quiet", "usual", "hot", "stretched")
CUTOFFS = (0.2, 0.8, 0.95)  # of the composite: where one state ends and the next begins
_TOP = 12  # assets with a reading of their own
_POINTS = 90  # instants of the table of the past
_WHOLE = "all"
_FORMULA = (
    "mean over components (funding, basis, open interest, long/short, utilisation, moods) that are "
    "known of the share of their own past below the value of now; none where none can be told"
)
_FUNDING = (
    "what longs pay shorts over a year at the rates of now, mean over contracts by open interest"
)
_READ = (
    "A rank is the share of its own past that a component stands above: 0.9 is above nine tenths "
    "of it. The composite is the mean of the ranks that are known, open interest (level and weekly "
    f"change) and moods counting once each; below {CUTOFFS[0]:g} it is quiet, from {CUTOFFS[1]:g} "
    f"hot, from {CUTOFFS[2]:g} stretched. Funding and basis are means by open interest at prices "
    "of now, so a price that moves is no demand; open interest that comes into view is no growth. "
    "The utilisation of a coin is demand to borrow it, that of money to borrow against something. "
    "Bands are of pasts drawn anew in runs as long as the series remember."
)
_MISLEADS = (
    "None of it is leverage: every contract has two sides, and open interest of hedgers counts as "
    "much as that of gamblers. A rank forgets size: a calm past makes a small rate look large. A "
    "mean of ranks is no chance of anything: ranks that disagree meet in the middle, so stretched "
    "takes components that agree. A past that only grew puts the level of open interest on top "
    "whatever it does. Published long/short ratios of a venue count accounts, not money."
)


@dataclass(frozen=True, eq=False)
class _Place:
    """Where one node stands."""

    node: Appetite
    found: Standing

    @property
    def state(self) -> str | None:
        """The state that the composite is in; None where it cannot be told."""
        if isnan(self.found.whole):
            return None
        return STATES[int(np.searchsorted(CUTOFFS, self.found.whole, side="right"))]

    @property
    def sure(self) -> bool:
        """Whether all of the band is in one state."""
        ends = np.searchsorted(CUTOFFS, [self.found.whole_low, self.found.whole_high], "right")
        return bool(ends[0] == ends[1])

    @property
    def missing(self) -> list[str]:
        """The components of the list that have no rank."""
        reasons = self.found.reasons
        return [name for name, why in zip(COMPONENTS, reasons, strict=False) if why]


def demand(
    book: Crowd | Snapshot,
    past: MarketPast | None = None,
    *,
    window_us: int | None = None,
    change_us: int = 7 * DAY_US,
    least: int = LEAST,
    seed: int = 0,
    level: float = 0.9,
    reps: int = 199,
) -> Study:
    """How much leverage is wanted now, against its own past, of everything and by asset.

    `window_us` is how much of the past counts, all of it unless given; `least` how many values it
    must hold, those that repeat the one before counted once. Without a past there are no ranks:
    what the book itself shows of now (basis, utilisation, accounts on either side) is told then.

    Raises
    ------
    StateError
        When a span is no length of time, or the past is none of markets, or of other names.
    EstimationError
        When the level is out of range or the window is shorter than what it must hold.
    """
    crowd = Crowd.of(book)
    require_seed(seed)
    within("level", level, 0.0, 1.0)
    _require(past, window_us, change_us)
    snapshot = crowd.snapshot
    if past is not None and past.universe != snapshot.universe:
        raise MisalignedState(
            "the book and the past of markets speak of different universes",
            hint="make the past of the same snapshot: assess.market_past",
        )
    seen = None if past is None else past.until(snapshot.ts)
    places: list[_Place] = []
    window = None
    if seen is not None and not seen.empty and seen.step_us:
        window = None if window_us is None else max(window_us // seen.step_us, 1)
        rng = np.random.default_rng(seed)
        places = [
            _Place(each, standing(each.values, rng=rng, groups=each.groups, window=window,
                                  least=least, level=level, reps=reps))
            for each in appetites(seen, snapshot.market.mark, change_us)
        ]  # fmt: skip
    reserves, now = _reserves(crowd), _now(crowd)
    return Study(
        name="crowding.demand",
        title="How much leverage is wanted, against its own past",
        readings=tuple(_readings(crowd, seen, places, reserves, window_us, level)),
        tables={
            "nodes": _nodes(places),
            "components": _components(places),
            "past": _past(seen, places, window, least),
            "reserves": reserves,
            "now": now,
        },
        says=tuple(_says(crowd, seen, places, reserves, now, window_us)),
        how_to_read=_READ,
        misleads=_MISLEADS,
        left_out=_left_out(places),
    )


def _require(past: Any, window_us: int | None, change_us: int) -> None:
    if past is not None and not isinstance(past, MarketPast):
        raise StateError(
            f"past was of type {type(past).__name__}; it must be a MarketPast",
            hint="assess.market_past reads one from a lake",
        )
    for name, value in (("window_us", window_us), ("change_us", change_us)):
        if value is not None and value < 1:
            raise StateError(f"{name} was {value}; it must be a length of time")


# ---------------------------------------------------------------- tables


def _called(node: Appetite) -> str:
    return node.node or _WHOLE


def _nodes(places: list[_Place]) -> pl.DataFrame:
    """One row a node: its composite, its state, what it rests on."""
    types = {
        "node": pl.String, "state": pl.String, "sure": pl.Boolean, "rank": pl.Float64,
        "low": pl.Float64, "high": pl.Float64, "known": pl.Int64, "missing": pl.String,
        "funding": pl.Float64, "basis": pl.Float64, "utilisation": pl.Float64,
        "open_interest_usd": pl.Float64,
    }  # fmt: skip
    rows = []
    for each in places:
        now = each.node.values[-1]
        found = each.found
        rows.append((
            _called(each.node), each.state, each.sure if each.state else None,
            known(found.whole), known(found.whole_low), known(found.whole_high),
            sum(not why for why in found.reasons), ", ".join(each.missing),
            known(now[FUNDING]), known(now[BASIS]), known(now[UTILISATION]),
            each.node.interest_usd,
        ))  # fmt: skip
    return pl.DataFrame(rows, schema=types, orient="row")


def _components(places: list[_Place]) -> pl.DataFrame:
    """One row a node and component: its value, its rank, or why there is none."""
    types = {
        "node": pl.String, "component": pl.String, "value": pl.Float64, "rank": pl.Float64,
        "low": pl.Float64, "high": pl.Float64, "seen": pl.Int64, "why_not": pl.String,
    }  # fmt: skip
    rows = []
    for each in places:
        found = each.found
        for k, name in enumerate(each.node.names):
            rows.append((
                _called(each.node), name, known(each.node.values[-1, k]), known(found.rank[k]),
                known(found.low[k]), known(found.high[k]), int(found.seen[k]), found.reasons[k],
            ))  # fmt: skip
    return pl.DataFrame(rows, schema=types, orient="row")


def _past(
    seen: MarketPast | None, places: list[_Place], window: int | None, least: int
) -> pl.DataFrame:
    """The composite of the largest nodes at instants of the past, each from what was known then."""
    when = pl.Datetime("us", "UTC")
    types = {"ts": when, "node": pl.String(), "rank": pl.Float64(), "known": pl.Int64()}
    if seen is None or not places:
        return pl.DataFrame(schema=types)
    rows = np.unique(np.linspace(0, len(seen.instants) - 1, _POINTS).astype(np.int64))
    parts = []
    for each in places[: _TOP + 1]:
        ranks = ranks_at(each.node.values, rows.tolist(), window=window, least=least)
        parts.append(
            pl.DataFrame(
                {
                    "ts": pl.Series(seen.instants[rows]).cast(when),
                    "node": _called(each.node),
                    "rank": [known(_mean(row, each.node.groups)) for row in ranks],
                    "known": (~np.isnan(ranks)).sum(axis=1),
                },
                schema=types,
            )
        )
    return pl.concat(parts).drop_nulls("rank")


def _mean(ranks: FloatColumn, groups: tuple[int, ...]) -> float:
    """The composite of one row of ranks."""
    by_group: dict[int, list[float]] = {}
    for rank, group in zip(ranks.tolist(), groups, strict=True):
        if not isnan(rank):
            by_group.setdefault(group, []).append(rank)
    means = [sum(part) / len(part) for part in by_group.values()]
    return sum(means) / len(means) if means else np.nan


def _reserves(crowd: Crowd) -> pl.DataFrame:
    """One row a reserve: how much of it is lent, and how far that is from where rates leap."""
    snapshot = crowd.snapshot
    universe, pool = snapshot.universe, snapshot.liquidity
    at = np.flatnonzero(pool.supplied > 0.0)
    used = np.abs(pool.borrowed[at]) / pool.supplied[at]
    given = {
        name: snapshot.rules.params.by_instrument(name, np.nan)[at]
        for name in ("optimal_utilisation", "base_rate", "slope1", "slope2")
    }
    kink = given["optimal_utilisation"]
    columns = list(given.values())
    rates = [
        RateCurve(base, s1, s2, k).borrow_rate(min(float(u), 1.0))
        if not np.isnan([k, base, s1, s2]).any() and k > 0.0
        else np.nan
        for u, k, base, s1, s2 in zip(used, *columns, strict=True)
    ]
    names = pl.Series(universe.instruments, dtype=pl.String)
    return pl.DataFrame(
        {
            "reserve": names.gather(at),
            "asset": pl.Series(universe.assets, dtype=pl.String).gather(universe.asset_of[at]),
            "supplied_usd": pool.supplied[at] * snapshot.market.mark[at],
            "utilisation": used,
            "kink": kink,
            "to_kink": kink - used,  # negative: rates have leapt
            "borrow_rate": np.array(rates, dtype=np.float64),
        }
    ).fill_nan(None).sort("supplied_usd", "reserve", descending=[True, False])  # fmt: skip


def _now(crowd: Crowd) -> pl.DataFrame:
    """One row an asset: what the book itself shows, with no past to hold it to."""
    snapshot, book = crowd.snapshot, crowd.snapshot.book
    universe, market = snapshot.universe, snapshot.market
    legs = np.isin(book.kind, (PERP, FUTURE)) & (book.qty != 0.0)
    face = np.where(universe.inverse, 1.0, market.mark)
    usd = np.abs(book.qty) * face[book.inst]
    size = len(universe.assets)

    def added(where: Any, weight: Any = None) -> FloatColumn:
        part = None if weight is None else weight[where]
        return np.bincount(crowd.asset[where], part, minlength=size).astype(np.float64)

    long, short = legs & (book.qty > 0.0), legs & (book.qty < 0.0)
    both = (market.mark > 0.0) & (market.index > 0.0)
    basis = np.zeros(len(both))
    basis[both] = np.log(market.mark[both] / market.index[both])
    gross = added(legs, usd)
    mean = np.divide(
        added(legs, usd * basis[book.inst]), gross, out=np.full(size, np.nan), where=gross > 0.0
    )
    frame = pl.DataFrame(
        {
            "asset": pl.Series(universe.assets, dtype=pl.String),
            "long_usd": added(long, usd),
            "short_usd": added(short, usd),
            "longs": added(long).astype(np.int64),
            "shorts": added(short).astype(np.int64),
            "basis": mean,
        }
    )
    held = frame.filter(pl.col("longs") + pl.col("shorts") > 0).fill_nan(None)
    return held.sort(pl.col("long_usd") + pl.col("short_usd"), "asset", descending=[True, False])


def _left_out(places: list[_Place]) -> dict[str, str]:
    """Assets of which no rank can be told, and why."""
    found = {}
    for each in places:
        if each.state is None and each.node.node != EVERYTHING:
            reasons = dict.fromkeys(why for why in each.found.reasons if why != "not known")
            found[each.node.node] = "; ".join(reasons) or "not known"
    return found


# ---------------------------------------------------------------- readings


def _teller(crowd: Crowd, seen: MarketPast | None, window_us: int | None) -> Callable[..., Reading]:
    """How to make a reading of markets: it rests on the past too, and on no share of the book."""
    snapshot = crowd.snapshot
    stood_on = snapshot.digest if seen is None else digest(snapshot.digest, seen.digest)
    length = None
    if seen is not None and len(seen.instants) > 1:
        length = int(seen.instants[-1] - seen.instants[0])
        length = length if window_us is None else min(length, window_us)

    def tell(name: str, value: float | None, unit: str, definition: str, **more: Any) -> Reading:
        made = crowd.reading(name, value, unit, definition, **more)
        return replace(made, inputs_hash=stood_on, window_us=length, coverage=None)

    return tell


def _readings(
    crowd: Crowd,
    seen: MarketPast | None,
    places: list[_Place],
    reserves: pl.DataFrame,
    window_us: int | None,
    level: float,
) -> list[Reading]:
    tell = _teller(crowd, seen, window_us)
    told_of = [each for each in places if each.state or not each.node.node][: _TOP + 1]
    found = []
    for each in told_of:
        ends = (each.found.whole_low, each.found.whole_high)
        found.append(tell("crowding.demand", each.found.whole, "1", _FORMULA,
                          subject=each.node.node, band=ends, level=level))  # fmt: skip
    if not places:
        found.append(tell("crowding.demand", None, "1", _FORMULA))
    for whole in places[:1]:
        for k, name in enumerate(whole.node.names):
            ends = (float(whole.found.low[k]), float(whole.found.high[k]))
            found.append(tell("crowding.demand_component", float(whole.found.rank[k]), "1",
                              "share of its own past that the component of everything stands "
                              "above", subject=name, band=ends, level=level))  # fmt: skip
    found += [
        tell("crowding.funding", float(each.node.values[-1, FUNDING]), "1/year", _FUNDING,
             subject=each.node.node)
        for each in told_of
    ]  # fmt: skip
    spoken = reserves.drop_nulls("kink")
    whole_usd = float(spoken["supplied_usd"].sum())
    past_usd = float(spoken.filter(pl.col("to_kink") <= 0.0)["supplied_usd"].sum())
    found.append(
        crowd.reading("crowding.past_kink", past_usd / whole_usd if whole_usd > 0.0 else None, "1",
                      "share of what is supplied that lies in reserves lent out beyond the kink of "
                      "their rates, of reserves whose kink is known")
    )  # fmt: skip
    return found


# ---------------------------------------------------------------- words


def _says(
    crowd: Crowd,
    seen: MarketPast | None,
    places: list[_Place],
    reserves: pl.DataFrame,
    now: pl.DataFrame,
    window_us: int | None,
) -> list[str]:
    says = [_verdict(seen, places)]
    if places and seen is not None:
        reach = "all of it" if window_us is None else f"the last {span(window_us)}"
        says.append(
            f"The past is {many(len(seen.instants), 'step')} of {span(seen.step_us)} from "
            f"{day(int(seen.instants[0]))} on; {reach} counts."
        )
    hot = [each for each in places[1:] if each.state in STATES[2:]]
    hot.sort(key=lambda each: -each.found.whole)
    if hot:
        named = [f"{p.node.node} ({p.state}, {told(p.found.whole)})" for p in hot]
        says.append(f"Above their usual stand {listed(named)}.")
    elif any(each.state for each in places[1:]):
        says.append("No asset is wanted more than usual.")
    if not places:
        says += _of_now(now)
    spoken = reserves.drop_nulls("kink")
    beyond = spoken.filter(pl.col("to_kink") <= 0.0)
    if beyond.height:
        names = [f"{r} ({percent(u)})" for r, u in beyond.select("reserve", "utilisation").rows()]
        says.append(f"Lent out beyond the kink of their rates: {listed(names)}.")
    elif spoken.height:
        near = spoken.sort("to_kink").row(0, named=True)
        says.append(
            f"No reserve is lent out beyond the kink of its rates; {near['reserve']} is nearest, "
            f"{percent(near['to_kink'])} of it away."
        )
    elif reserves.height:
        top = reserves.sort("utilisation", descending=True).row(0, named=True)
        says.append(
            f"Where rates leap is not known of any reserve; {top['reserve']} is lent out most "
            f"({percent(top['utilisation'])})."
        )
    return says


def _verdict(seen: MarketPast | None, places: list[_Place]) -> str:
    if not places:
        why = "there is no past of markets" if seen is None else "nothing of it was seen"
        if seen is not None and not seen.empty:
            why = "all that was seen is of one instant"
        return f"Whether leverage is wanted more than usual cannot be told: {why}."
    whole = places[0]
    if whole.state is None:
        reasons = zip(COMPONENTS, whole.found.reasons, strict=False)
        parts = [f"{name}: {why}" for name, why in reasons]
        return f"Whether leverage is wanted more than usual cannot be told ({'; '.join(parts)})."
    ranked = sorted(
        ((r, n) for r, n in zip(whole.found.rank.tolist(), whole.node.names, strict=True)
         if not isnan(r)), reverse=True,
    )  # fmt: skip
    parts = [f"{name} ({told(rank)})" for rank, name in ranked]
    verdict = (
        f"Demand for leverage is {whole.state}: "
        "what shows it stands above "
        f"{banded(whole.found.whole, whole.found.whole_low, whole.found.whole_high)} of its own "
        f"past on average: {listed(parts, 8)}"
    )
    missing = f"; {listed(whole.missing)} cannot be told" if whole.missing else ""
    doubt = "" if whole.sure else "; the band reaches into the next state"
    return f"{verdict}{missing}{doubt}."


def _of_now(now: pl.DataFrame) -> list[str]:
    """What the book shows where there is no past."""
    if not now.height:
        return ["The book holds no perps and no futures."]
    top = now.row(0, named=True)
    sides = f"{many(top['longs'], 'account')} long and {many(top['shorts'], 'account')} short"
    basis = "" if top["basis"] is None else f", at a basis of {percent(top['basis'])}"
    return [f"Of now alone: {top['asset']} is held most, by {sides}{basis}."]
