"""How good the data is: for each table rows, age, gaps, sources, and the share that was refused."""

from __future__ import annotations

from datetime import datetime

import polars as pl

from undertow.schema import TABLES, AsOf, Table
from undertow.store.lake import Lake
from undertow.store.reading import rows_between
from undertow.store.runs import REJECTS, RUNS, Standing, moment

_SCHEMA: dict[str, pl.DataType] = {
    "table": pl.String(),
    "rows": pl.Int64(),
    "newest": pl.Datetime("us", "UTC"),
    "age_us": pl.Int64(),
    "sources": pl.Int64(),
    "largest_gap_us": pl.Int64(),
    "gap_in": pl.String(),
    "rejects": pl.Int64(),
    "reject_share": pl.Float64(),
}
# Parts of a key that tell one event from the next, not one series from another.
_EVENTS = ("ts", "source_id", "inputs_hash")


def table_quality(
    lake: Lake, *, now: int | datetime, as_of: int | datetime | None = None
) -> pl.DataFrame:
    """Each table's rows, newest instant and its age, largest gap, sources and rejects.

    All rows of complete runs are counted, not only those that hold. `age_us` is from the newest
    `ts` to `now`. `largest_gap_us` is the longest silence inside one series, and `gap_in` names the
    series: one instrument and price kind, one feed of liquidations, one source of snapshots. It is
    null for tables that only change when something is renamed. `reject_share` is the share of all
    rows offered that was refused.

    Raises
    ------
    NoRun
        When no run was complete by `as_of`.
    """
    stands = lake.standing(as_of=as_of)
    rejects = rows_between(lake.root, REJECTS, stands)
    refused = dict(rejects.group_by("table").len().iter_rows())
    lines = [
        _line(lake, table, stands, now, refused.get(name, 0))
        for name, table in TABLES.items()
        if name not in (RUNS, REJECTS)
    ]
    return pl.DataFrame(lines, schema=_SCHEMA, orient="row")


def _line(
    lake: Lake, table: Table, stands: Standing, now: int | datetime, refused: int
) -> tuple[object, ...]:
    rows = rows_between(lake.root, table.name, stands)
    newest = rows["ts"].max()
    age = None
    if newest is not None:
        age = pl.select((moment(now) - pl.lit(newest)).dt.total_microseconds()).item()
    sources = rows["source"].n_unique() if "source" in rows.columns else None
    gap, where = _largest_gap(table, rows)
    offered = rows.height + refused
    share = refused / offered if offered else None
    return (table.name, rows.height, newest, age, sources, gap, where, refused, share)


def _largest_gap(table: Table, rows: pl.DataFrame) -> tuple[int | None, str | None]:
    """The longest silence inside a series, and the name of the series."""
    if "source" not in table.column_names and table.as_of is AsOf.LATEST:
        return None, None
    series = [name for name in table.key if name not in _EVENTS]
    if table.as_of is AsOf.SNAPSHOT:
        series = ["source"]
    instants = rows.select(*series, "ts").unique().sort(*series, "ts", nulls_last=True)
    gaps = instants.with_columns(
        pl.col("ts").diff().over(series).dt.total_microseconds().alias("gap")
    ).drop_nulls("gap")
    if gaps.is_empty():
        return None, None
    worst = gaps.sort("gap", *series, descending=[True, *[False] * len(series)]).row(0, named=True)
    return worst["gap"], " ".join(str(worst[name]) for name in series)
