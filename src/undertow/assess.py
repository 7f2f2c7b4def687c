"""One instant, from lake to assessment: where what is known and what is made of it meet."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from undertow import __version__, schema
from undertow.errors import EstimationError, StateError
from undertow.fanout import Executor, Serial
from undertow.measures import FAMILIES, Ground, Measure, Study, chosen
from undertow.measures.crowding.flows import OwnerFlows, owner_flows
from undertow.measures.crowding.markets import HOUR_US, MarketPast
from undertow.measures.crowding.markets import TABLES as SERIES
from undertow.measures.interconnection.identities import Identities, link_levels, linked
from undertow.measures.tandem import LeverageHistory
from undertow.measures.words import common_fall, listed, many
from undertow.rules.leverage import Exposures, baskets, leverage_panel
from undertow.rules.snapshot import TABLES, Snapshot
from undertow.state import Panel, Reading
from undertow.store import Lake
from undertow.store.load import load_prices, load_series, load_snapshot, position_instants
from undertow.store.quality import table_quality
from undertow.store.reading import instants
from undertow.store.runs import Standing, all_runs
from undertow.stress import Scenario
from undertow.stress.written import price_panel

LEAST_INSTANTS = 61  # of positions, for a history of leverage to be made of them
MOST_EARLIER = 12  # books before the one that is looked at, for what is told over time
MOST_INSTANTS = 366  # of positions, that flows are made of
INVENTED = "An invented world: no number here says anything about a real market."
_BEYOND = 3  # of the data's own steps, which an instant may lie beyond the newest of it
_LONE_STEP = 86_400_000_000  # of data that stand at one instant, and have no step
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ALWAYS = datetime(9999, 12, 31, tzinfo=UTC)
_TITLES = {
    "crowding": "Crowding of leverage",
    "interconnection": "Interconnection of leverage",
}  # of what is measured alone
_HEADLINES = (
    *(
        "tandem.leverage",
        "tandem.correlation",
        "tandem.index",
        "tandem.common_factor",
        "tandem.connectedness",
    ),
    *("tandem.unwindings", "tandem.unwinding_share"),
    *("crowding.saturation", "crowding.at_risk_usd", "crowding.calling_together"),
    *("crowding.liquidated_share", "crowding.effective", "crowding.days_to_exit"),
    *("interconnection.claims_per_dollar", "interconnection.through_one_keeper"),
    *("interconnection.tokens_on_themselves", "interconnection.debt_in_loops"),
    *("interconnection.synchronised_calls", "interconnection.contagion_loss"),
)


@dataclass(frozen=True, eq=False)
class Assessment:
    """One instant, judged: what was found, on which data, by which code."""

    title: str
    ts: int  # the instant that is looked at
    as_of: int | None  # when the newest of what was used became known
    studies: tuple[Study, ...]
    quality: pl.DataFrame  # one row a table
    provenance: Mapping[str, Any]  # what it takes to make every number again
    notes: tuple[str, ...] = ()
    not_told: Mapping[str, str] = field(default_factory=dict)  # measure, and why it has no study
    ages_from: int | None = None  # when data were as old as `quality` says

    @property
    def untold(self) -> tuple[str, ...]:
        """What cannot be told and why, in a sentence a reason."""
        reasons: dict[str, list[str]] = {}
        for name, why in self.not_told.items():
            reasons.setdefault(why, []).append(name)
        return tuple(
            f"{names[0]} cannot be told: {why}"
            if len(names) == 1
            else f"{len(names)} measures cannot be told: {why}. "
            f"They are {listed(names, len(names))}."
            for why, names in reasons.items()
        )

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Every reading of every study."""
        return tuple(reading for study in self.studies for reading in study.readings)

    @property
    def headlines(self) -> tuple[Reading, ...]:
        """The readings for a first page: those that are known by name, one each."""
        first = {r.name: r for r in reversed(self.readings) if r.name in _HEADLINES}
        return tuple(first[name] for name in _HEADLINES if name in first)


def assess(
    lake: Lake,
    *,
    now: int,
    as_of: int | None = None,
    at: int | None = None,
    by: str = "asset",
    only: Sequence[str] = FAMILIES,
    seed: int = 0,
    level: float = 0.9,
    notes: Sequence[str] = (),
    identities: Any = None,
    sure: float = 0.0,
    fall: float | None = None,
    scenario: Scenario | None = None,
    executor: Executor | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Assessment:
    """Measure what the lake shows of one instant and of the time before it.

    A measure that this data cannot answer is no error: it stands in `not_told` with its reason.
    Data are as old as they were at `at`; without it, as they are `now`. Owners are joined who are
    one by a table of `identities` (see `measures.interconnection.identities`), by rows that are at
    least so `sure`. Measures that start from a shock start from a common `fall` or a `scenario`,
    where one is given, instead of their own.

    Raises
    ------
    StoreError
        When the lake has nothing by then.
    StateError
        When a measure or a division is unknown, `at` lies outside the time of the data, or the book
        has nothing of what the scenario changes.
    """
    measures = chosen(only)
    stands = lake.standing(as_of=as_of)
    if at is not None:
        _refuse_outside(lake, stands, at)
    snapshot = load_snapshot(lake, as_of=as_of, at=at)
    levels = None
    if identities is not None:
        given = Identities.of(snapshot.book, identities)
        levels = link_levels(snapshot, given)  # of owners as tables have them, before any is joined
        snapshot, joined = _linked(snapshot, given, sure)
        notes = (*notes, joined)
    if scenario is not None:
        scenario.apply(snapshot)  # what it names and the book lacks is misuse, not a missing answer
    ground, missing = _ground(lake, snapshot, measures, by, as_of)
    ground = replace(ground, seed=seed, level=level, executor=executor or Serial(), fall=fall,
                     scenario=scenario)  # fmt: skip
    studies, not_told, took = [], {}, {}
    for place, measure in enumerate(measures):
        if progress is not None:
            progress(place, len(measures), measure.name)
        began = time.monotonic()
        study, why = _tried(measure, ground, missing)
        took[measure.name] = round(time.monotonic() - began, 3)
        if study is not None and levels is not None and measure.name == "interconnection.map":
            study = replace(study, tables={**study.tables, "links": levels})
        if study is None:
            not_told[measure.name] = why
        else:
            studies.append(study)
    if progress is not None:
        progress(len(measures), len(measures), "")
    found = Assessment(
        title=_title(measures, by, fall, scenario),
        ts=snapshot.ts,
        as_of=stands.committed,
        studies=tuple(studies),
        quality=_quality(lake, stands, now, as_of, at),
        provenance={
            "lake": lake.uri,
            "run": stands.run,
            "tables": dict(stands.versions),
            "inputs_hash": snapshot.digest,
            "history_hash": ground.history.digest if ground.history else "none",
            "undertow": __version__,
            "seed": seed,
            "level": level,
            "by": by,
            **_shock(fall, scenario),
        },
        ages_from=now if at is None else at,
        not_told=not_told,
    )
    said = (*_warnings(lake, stands), *notes, *found.untold)
    return replace(found, notes=tuple(dict.fromkeys(said)))


def _linked(snapshot: Snapshot, given: Identities, sure: float) -> tuple[Snapshot, str]:
    """The book with owners joined, and a note of how many and on whose word."""
    found = linked(snapshot, given, sure=sure)
    fewer = len(snapshot.book.owners) - len(found.book.owners)
    named = given.sources(sure)
    word = f" by {listed(named)}" if named else ""
    return found, (
        f"{many(fewer, 'owner was', 'owners were')} joined with others, as identities{word} say "
        f"that are at least {sure:g} sure; owners that nobody named stay apart"
    )


def _title(
    measures: Sequence[Measure], by: str, fall: float | None, scenario: Scenario | None
) -> str:
    """What all of these measures are of, and after which shock if they all start from it."""
    families = {measure.family for measure in measures}
    title = _TITLES.get(*families) if len(families) == 1 else None
    title = title or f"Leverage by {by}"
    if scenario is None and fall is None:
        return title
    if not all(measure.starts_from_a_shock for measure in measures):
        return title
    return f"{title} after {_spoken(fall, scenario)}"


def _spoken(fall: float | None, scenario: Scenario | None) -> str:
    """A shock as a sentence has it."""
    if scenario is not None:
        return scenario.name
    return common_fall(fall or 0.0)


def _shock(fall: float | None, scenario: Scenario | None) -> dict[str, Any]:
    """A shock as a program reads it; nothing where each measure has its own."""
    if scenario is not None:
        return {"scenario": scenario.name}
    return {} if fall is None else {"fall": fall}


def iso(ts: int) -> str:
    """Microseconds as ISO-8601 with a Z."""
    return (_EPOCH + timedelta(microseconds=ts)).isoformat().replace("+00:00", "Z")


def _warnings(lake: Lake, stands: Standing) -> list[str]:
    """What must be known of a lake before any number from it: that its data are invented."""
    runs = all_runs(lake.root).filter(
        (pl.col("kind") == "world") & pl.col("run").is_in(list(stands.order))
    )
    if runs.is_empty():
        return []
    told = [json.loads(detail) for detail in runs["detail"]]
    worlds = sorted({f"{each.get('world')}, seed {each.get('seed')}" for each in told})
    return [f"{INVENTED} ({'; '.join(worlds)})"]


def _refuse_outside(lake: Lake, stands: Standing, at: int) -> None:
    """Refuse an instant before there is a book, or one of which the data cannot know."""
    first, newest, step = 0, 0, _LONE_STEP
    for name in (table for table, needed in TABLES.items() if needed):
        known = instants(lake.root, name, stands, _ALWAYS).to_physical()
        if not len(known):
            return  # that there are no rows at all is said where they are loaded
        first = max(first, int(known[0]))
        if name in ("prices", "positions"):
            newest = max(newest, int(known[-1]))
            apart = known.tail(LEAST_INSTANTS).diff().drop_nulls().median()
            step = min(step, int(apart)) if isinstance(apart, float) else step
    if first <= at <= newest + _BEYOND * step:
        return
    there = f"there is a whole book from {iso(first)} on, " if at < first else ""
    raise StateError(
        f"the instant that is looked at was {iso(at)}, and {there}the newest price or "
        f"position is of {iso(newest)}",
        hint="leave the instant out for the newest"
        + ("" if at < first else ", or bring newer data first"),
    )


def _quality(
    lake: Lake, stands: Standing, now: int, as_of: int | None, at: int | None
) -> pl.DataFrame:
    """Rows, age and gaps of every table that has any; with `at`, as it stood then."""
    seen = at if at is not None else now
    quality = table_quality(lake, now=seen, as_of=as_of).filter(pl.col("rows") > 0)
    if at is None:
        return quality
    moment = _EPOCH + timedelta(microseconds=at)
    newest = [
        last if last is None or last <= moment
        else instants(lake.root, name, stands, moment).last()
        for name, last in quality.select("table", "newest").iter_rows()
    ]  # fmt: skip
    column = pl.Series("newest", newest, dtype=pl.Datetime("us", "UTC"))
    age = (pl.lit(moment) - column).dt.total_microseconds()
    return quality.with_columns(column, age_us=age)


def _tried(measure: Measure, ground: Ground, missing: str) -> tuple[Study | None, str]:
    if "history" in measure.needs and ground.history is None:
        return None, missing
    try:
        return measure.function(ground), ""
    except (StateError, EstimationError, np.linalg.LinAlgError) as error:
        return None, str(error)


def _ground(
    lake: Lake, snapshot: Snapshot, measures: Sequence[Measure], by: str, as_of: int | None
) -> tuple[Ground, str]:
    """What these measures stand on, and why there is no history, where there is none."""
    wanted = {part for measure in measures for part in measure.takes}
    ground, missing = Ground(by, snapshot), ""
    if "markets" in wanted:
        ground = replace(ground, markets=market_past(lake, snapshot, as_of=as_of))
    if "flows" in wanted:
        ground = replace(ground, flows=_flows(lake, snapshot, as_of))
    if any(measure.looks_back for measure in measures):
        known = position_instants(lake, snapshot.ts, as_of=as_of)[-MOST_EARLIER - 1 : -1]
        books = tuple(load_snapshot(lake, as_of=as_of, at=t) for t in known)
        ground = replace(ground, earlier=books)
    if "history" in wanted or any("history" in measure.needs for measure in measures):
        try:
            history = leverage_history(lake, snapshot, by=by, as_of=as_of)
            ground = replace(ground, history=history)
        except StateError as error:
            missing = str(error)
    return ground, missing


def _flows(lake: Lake, snapshot: Snapshot, as_of: int | None) -> OwnerFlows | None:
    """Who traded what up to a snapshot; None where positions are known at too few instants."""
    known = position_instants(lake, snapshot.ts, as_of=as_of)[-MOST_INSTANTS:]
    if len(known) < LEAST_INSTANTS:
        return None
    return owner_flows(load_snapshot(lake, as_of=as_of, at=t) for t in known)


def leverage_history(
    lake: Lake, snapshot: Snapshot, *, by: str = "asset", as_of: int | None = None
) -> LeverageHistory:
    """Leverage of nodes up to a snapshot, as the lake knows it, beside the prices of the time.

    Readings that were published (`leverage.asset` and the like) come first. Where there are none it
    is made of the positions at every instant that has some, each from what was known then. Nodes
    answer to the basket that they hold at the snapshot.

    Raises
    ------
    StateError
        When there are neither readings nor positions at enough instants, or no prices.
    """
    seen = Exposures.of(snapshot)
    held = baskets(seen, by)
    published = _published(lake, snapshot, by, as_of)
    if published is not None:
        level, revaluation, (evidence, coverage) = published[0], None, published[1:]
    else:
        made = leverage_panel(_snapshots(lake, snapshot, by, as_of), by)
        level, revaluation = made.value, made.revaluation
        coverage = _least(pl.Series(made.coverage.values[-1]))
        evidence = _weakest(schema.EVIDENCE[code] for code in np.unique(snapshot.book.evidence))
    days = (snapshot.ts - int(level.ts[0])) / 86_400_000_000 + 1.0
    prices = price_panel(
        load_prices(lake, snapshot.ts, days=days, as_of=as_of), snapshot.universe,
        step_us=max(int(np.median(np.diff(level.ts))), 1),
    )  # fmt: skip
    priced = set(prices.labels)
    level = level.select([n for n in level.labels if held.get(n, {n: 1.0}).keys() & priced])
    known = {
        n: {a: v for a, v in held[n].items() if a in priced} for n in level.labels if n in held
    }
    return LeverageHistory.of(
        level, prices, baskets=known, evidence=evidence, revaluation=revaluation,
        coverage=coverage,
    )  # fmt: skip


def market_past(
    lake: Lake,
    snapshot: Snapshot,
    *,
    as_of: int | None = None,
    days: float = 365.0,
    step_us: int = HOUR_US,
) -> MarketPast:
    """What markets showed in the `days` up to a snapshot, as the lake knows it; maybe nothing.

    Raises
    ------
    StoreError
        When the lake has nothing by then.
    """
    tables = load_series(lake, SERIES, snapshot.ts, days=days, as_of=as_of)
    return MarketPast.from_frames(snapshot.universe, snapshot.ts, tables, step_us=step_us)


def _published(
    lake: Lake, snapshot: Snapshot, by: str, as_of: int | None
) -> tuple[Panel, str, float | None] | None:
    """Leverage as it was published up to the snapshot, its weakest evidence, its least coverage."""
    name = f"leverage.{by}"
    columns = ["ts", "name", "subject", "value", "evidence", "coverage"]
    rows = lake.read("readings", as_of=as_of, columns=columns)
    rows = rows.filter(
        (pl.col("name") == name)
        & pl.col("value").is_not_null()
        & (pl.col("ts").dt.epoch("us") <= snapshot.ts)
    )
    if rows.is_empty():
        return None
    panel = Panel.from_frame(name, "1", rows, series="subject", value="value")
    newest = rows.filter(pl.col("ts") == pl.col("ts").max())
    return panel, _weakest(rows["evidence"].unique()), _least(newest["coverage"])


def _weakest(evidence: Iterable[str]) -> str:
    """What a number stands on that is made of all of these: the least of it."""
    return max(evidence, key=schema.EVIDENCE.index)


def _least(coverage: pl.Series) -> float | None:
    """The least share that was seen of any node; None where one of them does not say."""
    known = coverage.cast(pl.Float64).fill_nan(None)
    return None if known.null_count() else min(known.to_list(), default=None)


def _snapshots(lake: Lake, snapshot: Snapshot, by: str, as_of: int | None) -> list[Snapshot]:
    """The book at every instant that has positions, each as it was known then."""
    known = position_instants(lake, snapshot.ts, as_of=as_of)
    if len(known) < LEAST_INSTANTS:
        others = _divisions(lake, snapshot, as_of)
        there = f"there are readings by {listed(others)} (--by {others[0]}); " if others else ""
        raise StateError(
            f"there are no readings of leverage.{by}, and positions at "
            f"{many(len(known), 'instant')}",
            hint=f"{there}a history takes readings, or positions at {LEAST_INSTANTS} instants or "
            "more (docs/report.md says how to bring them)",
        )
    return [load_snapshot(lake, as_of=as_of, at=t) for t in known]


def _divisions(lake: Lake, snapshot: Snapshot, as_of: int | None) -> list[str]:
    """The divisions of which readings of leverage were published up to the snapshot."""
    rows = lake.read("readings", as_of=as_of, columns=["ts", "name"], ordered=False)
    rows = rows.filter(
        pl.col("name").str.starts_with("leverage.") & (pl.col("ts").dt.epoch("us") <= snapshot.ts)
    )
    return sorted(name.removeprefix("leverage.") for name in rows["name"].unique())
