"""One instant, from lake to assessment: where what is known and what is made of it meet."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from undertow import __version__
from undertow.errors import EstimationError, StateError
from undertow.measures import Ground, Measure, Study, chosen
from undertow.measures.tandem import LeverageHistory
from undertow.rules.leverage import Exposures, baskets, leverage_panel
from undertow.rules.snapshot import Snapshot
from undertow.state import Panel, Reading
from undertow.store import Lake
from undertow.store.load import load_prices, load_snapshot
from undertow.store.quality import table_quality
from undertow.store.runs import microseconds
from undertow.stress.written import price_panel

LEAST_INSTANTS = 61  # of positions, for a history of leverage to be made of them
_HEADLINES = (
    *("tandem.correlation", "tandem.index", "tandem.common_factor", "tandem.connectedness"),
    *("tandem.unwindings", "tandem.unwinding_share"),
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
    only: Sequence[str] = ("tandem",),
    seed: int = 0,
    level: float = 0.9,
    notes: Sequence[str] = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> Assessment:
    """Measure what the lake shows of one instant and of the time before it.

    A measure that this data cannot answer is no error: it stands in `not_told` with its reason.

    Raises
    ------
    StoreError
        When the lake has nothing by then.
    StateError
        When a measure or a division is unknown.
    """
    measures = chosen(only)
    stands = lake.standing(as_of=as_of)
    snapshot = load_snapshot(lake, as_of=as_of, at=at)
    ground, missing = _ground(lake, snapshot, by, as_of, seed, level)
    studies, not_told, took = [], {}, {}
    for place, measure in enumerate(measures):
        if progress is not None:
            progress(place, len(measures), measure.name)
        began = time.monotonic()
        study, why = _tried(measure, ground, missing)
        took[measure.name] = round(time.monotonic() - began, 3)
        if study is None:
            not_told[measure.name] = why
        else:
            studies.append(study)
    if progress is not None:
        progress(len(measures), len(measures), "")
    said = [*notes, *(f"{name} cannot be told: {why}" for name, why in not_told.items())]
    return Assessment(
        title=f"Leverage by {by}",
        ts=snapshot.ts,
        as_of=stands.committed,
        studies=tuple(studies),
        quality=table_quality(lake, now=now, as_of=as_of).filter(pl.col("rows") > 0),
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
        },
        notes=tuple(said),
        not_told=not_told,
    )


def _tried(measure: Measure, ground: Ground, missing: str) -> tuple[Study | None, str]:
    if "history" in measure.needs and ground.history is None:
        return None, missing
    try:
        return measure.function(ground), ""
    except (StateError, EstimationError) as error:
        return None, str(error)


def _ground(
    lake: Lake, snapshot: Snapshot, by: str, as_of: int | None, seed: int, level: float
) -> tuple[Ground, str]:
    """What measures stand on, and why there is no history, where there is none."""
    try:
        history = leverage_history(lake, snapshot, by=by, as_of=as_of)
    except StateError as error:
        return Ground(by, snapshot, None, seed, level), str(error)
    return Ground(by, snapshot, history, seed, level), ""


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
    level, revaluation, coverage = _published(lake, snapshot, by, as_of), None, None
    if level is None:
        made = leverage_panel(_snapshots(lake, snapshot, by, as_of), by)
        level, revaluation = made.value, made.revaluation
        last = made.coverage.values[-1]
        coverage = None if np.isnan(last).any() else float(last.mean())
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
        level, prices, baskets=known, revaluation=revaluation, coverage=coverage
    )


def _published(lake: Lake, snapshot: Snapshot, by: str, as_of: int | None) -> Panel | None:
    """Leverage as it was published, up to the snapshot."""
    name = f"leverage.{by}"
    rows = lake.read("readings", as_of=as_of, columns=["ts", "name", "subject", "value"])
    rows = rows.filter(
        (pl.col("name") == name)
        & pl.col("value").is_not_null()
        & (pl.col("ts").dt.epoch("us") <= snapshot.ts)
    )
    if rows.is_empty():
        return None
    return Panel.from_frame(name, "1", rows, series="subject", value="value")


def _snapshots(lake: Lake, snapshot: Snapshot, by: str, as_of: int | None) -> list[Snapshot]:
    """The book at every instant that has positions, each as it was known then."""
    ts = lake.read("positions", as_of=as_of, columns=["ts"], ordered=False)["ts"].unique().sort()
    instants = [t for t in map(microseconds, ts) if t <= snapshot.ts]
    if len(instants) < LEAST_INSTANTS:
        raise StateError(
            f"there are no readings of leverage.{by}, and positions at {len(instants)} instants",
            hint=f"a history takes readings, or positions at {LEAST_INSTANTS} instants or more",
        )
    return [load_snapshot(lake, as_of=as_of, at=t) for t in instants]
