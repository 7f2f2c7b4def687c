"""Dates at which more nodes delevered at once than chance allows."""

from __future__ import annotations

import numpy as np
import polars as pl
from scipy.special import gammaincinv

from undertow.econometrics.chance import CoincidenceNull
from undertow.econometrics.coincidence import Coincidences, coincidences
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.tandem.caveats import ONE_BASKET
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.history import Layer, LeverageHistory
from undertow.measures.words import chance, day, listed, many, percent

_READ = (
    "An event is a date at which so many nodes cut leverage at once, by so much, that in less than "
    "one of twenty histories without events any date would look like it. Its p-value is corrected "
    "for all dates. Members are the nodes that fell by more than they do one time in ten."
)
_KEEPS = {
    CoincidenceNull.COMMON: (
        "Falls are over how loud the time was, for the node and for all. Histories without events "
        "keep each node's own distribution, the correlation of every two nodes, and how often "
        "large moves are shared, which is read from the steps at which more rose than fell."
    ),
    CoincidenceNull.INDEPENDENT: (
        "Falls are over how loud the time was for the node. Histories without events keep how each "
        "node moves by itself, and nothing between nodes, so a time that was loud for all of them "
        "is an event."
    ),
}
_MISLEADS = (
    "Growth beyond prices is judged: an unwinding that prices drove in full is not in it. Nodes "
    "that share an ordinary correlation fall together now and then; with the common null an event "
    "is more than that, and a crash of two of ten nodes may hide in it. With it falls are over "
    "how loud the time was, so an unwinding of ten steps and more makes a loud time of itself and "
    "hides. Where nodes fall together as a rule more than they rise together, the worst of those "
    "falls are events."
    f" {ONE_BASKET}"
)


def unwinding(
    history: LeverageHistory,
    *,
    null: CoincidenceNull | str = CoincidenceNull.COMMON,
    window: int = 1,
    size: float = 0.05,
    reps: int = 999,
    seed: int = 0,
    level: float = 0.9,
) -> Study:
    """Synchronised unwinding: events, who took part, and p-values corrected over all dates.

    The `common` null keeps each node's own distribution, the correlation of all pairs, and large
    moves shared as often as on the way up, of falls over how loud the time was for all;
    `independent` shifts each node in time by itself, which leaves nothing shared, no loud time
    either. `size` is the chance of a single false date over all dates. `window` adds falls up over
    so many steps.
    """
    require_history(history)
    require_seed(seed)
    used = history.usable()
    found = coincidences(
        used.layer(Layer.OWN), rng=np.random.default_rng([seed, 7]), level=size, window=window,
        null=null, reps=reps,
    )  # fmt: skip
    years = (used.ts[-1] - used.ts[0]) / 31_557_600_000_000
    return Study(
        name="tandem.unwinding",
        title=f"When {used.called} was cut at once",
        readings=(
            used.tell(
                "tandem.unwindings",
                None if found.reason else float(len(found)),
                f"number of dates at which more nodes cut {used.called} at once than the "
                f"{found.null} null allows, at a chance of {percent(size)} of one false date; a "
                "count of what was found, with no band",
                unit="count",
            ),
            used.tell(
                "tandem.unwinding_rate",
                None if found.reason or years <= 0.0 else len(found) / years,
                "such dates a year of history; its band is that of the rate of a Poisson process "
                "that showed so many",
                unit="1/year",
                band=_rate(len(found), years, level),
                level=level,
            ),
        ),
        tables={
            "events": _events(used, found),
            "participants": _participants(used, found),
            "scores": pl.DataFrame(
                {
                    "ts": pl.Series(used.ts).cast(pl.Datetime("us", "UTC")),
                    "score": found.score,
                    "p_value": found.p_dates,
                    "p_corrected": found.p_corrected,
                }
            ).with_columns(pl.col(pl.Float64).fill_nan(None)),
        },
        says=tuple(_says(used, found, size)),
        how_to_read=f"{_READ} {_KEEPS[found.null]} {used.pace}",
        misleads=_MISLEADS,
        left_out={
            **history.left_out,
            **{n: r for n, r in zip(used.labels, found.reasons, strict=True) if r},
        },
    )


def _rate(count: int, years: float, level: float) -> tuple[float, float]:
    """Rates of a Poisson process under which so few, or so many, are no rarer than the level says.

    References
    ----------
    Garwood (1936), "Fiducial limits for the Poisson distribution", Biometrika 28.
    """
    tail = 0.5 - 0.5 * level
    low = float(gammaincinv(count, tail)) if count else 0.0
    high = float(gammaincinv(count + 1, 1.0 - tail))
    return (low / years, high / years) if years > 0.0 else (np.nan, np.nan)


def _names(history: LeverageHistory, found: Coincidences, event: int) -> list[str]:
    """Members of an event, the deepest fall first."""
    depth = np.where(found.members[event], found.depth[event], -np.inf)
    return [history.labels[j] for j in np.argsort(-depth) if found.members[event, j]]


def _events(history: LeverageHistory, found: Coincidences) -> pl.DataFrame:
    rows = [
        (
            *(int(history.ts[step[e]]) for step in (found.start, found.peak, found.end)),
            float(found.p_value[e]),
            ", ".join(_names(history, found, e)),
            int(found.members[e].sum()),
        )
        for e in range(len(found))
    ]
    schema = {
        "start": pl.Int64, "peak": pl.Int64, "end": pl.Int64, "p_value": pl.Float64,
        "nodes": pl.String, "count": pl.Int64,
    }  # fmt: skip
    return pl.DataFrame(rows, schema=schema, orient="row").with_columns(
        pl.col("start", "peak", "end").cast(pl.Datetime("us", "UTC"))
    )


def _participants(history: LeverageHistory, found: Coincidences) -> pl.DataFrame:
    rows = [
        (day(int(history.ts[found.peak[e]])), node, float(found.depth[e, j]),
         bool(found.members[e, j]))
        for e in range(len(found))
        for j, node in enumerate(history.labels)
        if not np.isnan(found.depth[e, j])
    ]  # fmt: skip
    schema = {"event": pl.String, "node": pl.String, "depth": pl.Float64, "member": pl.Boolean}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _says(history: LeverageHistory, found: Coincidences, size: float) -> list[str]:
    if found.reason:
        return [f"Synchronised unwinding cannot be told: {found.reason}."]
    if not len(found):
        words = (
            f"No date at which {history.called} was cut at once by more nodes than chance allows"
        )
        return [f"{words}, in {history.steps(len(history.ts))}."]
    says = [
        (
            f"{many(len(found), 'date')} at which {history.called} was cut at once by more nodes "
            f"than chance allows (a false one in {percent(size)} of histories)."
        )
    ]
    for e in np.argsort(found.p_value, kind="stable")[:3]:
        names = _names(history, found, int(e))
        says.append(
            f"{day(int(history.ts[found.peak[e]]))}: {listed(names, 4)} "
            f"({many(len(names), 'node')}, {chance(float(found.p_value[e]))})."
        )
    return says
