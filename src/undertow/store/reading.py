"""Rows of a table as they held: which files, which runs, and the table's own meaning of as of.

Two times are kept apart. Knowledge: only rows of runs that were complete, at the versions that the
newest of them names. Event: the `ts` of a row, read by the table's `AsOf`. The same row that two
runs brought counts once; where they disagree, the newer run is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from undertow.errors import SchemaError
from undertow.schema import AsOf, Table
from undertow.schema import table as declared
from undertow.state.conform import empty
from undertow.store.delta import RUN, Root, damage, data_files, stored_schema
from undertow.store.runs import RUNS, Standing, all_runs, moment

_ORDER = "__order"
_MILLISECOND = pl.duration(milliseconds=1)


def identity(table: Table) -> list[str]:
    """The columns that say which row a row is: its key, its instant and who says so."""
    columns = list(table.key)
    columns += [name for name in ("ts", "source") if name in table.column_names]
    return list(dict.fromkeys(columns))


def read_rows(
    root: Root,
    name: str,
    stands: Standing,
    *,
    at: int | datetime | None = None,
    version: int | None = None,
    columns: Sequence[str] | None = None,
    ordered: bool = True,
) -> pl.DataFrame:
    """The rows of the table called `name` that hold at `at`, known as `stands` knows them."""
    table = declared(name)
    wanted = _wanted(table, columns)
    if name == RUNS:
        known = all_runs(root).filter(pl.col(RUN).is_in(list(stands.order)))
        known = known if at is None else known.filter(pl.col("committed") <= moment(at))
        return known.sort("committed").select(wanted)
    files, mixed = trusted_files(root, name, stands, version=version)
    if at is not None and files.height:
        files = files.filter(pl.col("min.ts").is_null() | (pl.col("min.ts") <= moment(at)))
    if table.as_of is AsOf.SNAPSHOT and not mixed:
        files = _newest_files(files, at)
    if files.is_empty():
        return _nothing(table).select(wanted)
    several = mixed or files["from_run"].n_unique() > 1
    needed = set(wanted) | (set(identity(table)) if several or ordered else set())
    needed |= {"ts", "source"} if table.as_of is AsOf.SNAPSHOT else {"ts"}
    needed |= set(identity(table)) if table.as_of is AsOf.LATEST else set()
    needed |= {RUN} if several else set()
    rows = scan(root, table, files, [n for n in (*table.column_names, RUN) if n in needed])
    if at is not None:
        rows = rows.filter(pl.col("ts") <= moment(at))
    if mixed:
        rows = rows.filter(pl.col(RUN).is_in(list(stands.order)))
    with damage(name):
        frame = (_newest_rows(rows) if table.as_of is AsOf.SNAPSHOT else rows).collect()
    return _hold(table, frame, stands, several=several, ordered=ordered).select(wanted)


def rows_between(
    root: Root,
    name: str,
    stands: Standing,
    first: datetime | None = None,
    last: datetime | None = None,
) -> pl.DataFrame:
    """Every row of complete runs whose `ts` lies from `first` to `last`; copies once."""
    table = declared(name)
    files, mixed = trusted_files(root, name, stands)
    span = pl.lit(value=True)
    if first is not None and last is not None and files.height:
        span = pl.col("ts").is_between(first, last)
        outside = (pl.col("min.ts") > last) | (pl.col("max.ts") + _MILLISECOND < first)
        files = files.filter(~outside.fill_null(value=False))
    if files.is_empty():
        return _nothing(table)
    rows = scan(root, table, files, [*table.column_names, RUN]).filter(span)
    with damage(name):
        frame = rows.filter(pl.col(RUN).is_in(list(stands.order))).collect()
    if mixed or files["from_run"].n_unique() > 1:
        frame = _believed(frame, identity(table), stands)
    return frame


def instants(root: Root, name: str, stands: Standing, last: datetime) -> pl.Series:
    """Every `ts` up to `last` at which complete runs have a row, in order."""
    files, _ = trusted_files(root, name, stands)
    if files.is_empty():
        return pl.Series("ts", [], pl.Datetime("us", "UTC"))
    rows = scan(root, declared(name), files, ["ts", RUN])
    rows = rows.filter(pl.col(RUN).is_in(list(stands.order)) & (pl.col("ts") <= last))
    with damage(name):
        return rows.select(pl.col("ts").unique().sort()).collect()["ts"]


def _believed(rows: pl.DataFrame, same: list[str], stands: Standing) -> pl.DataFrame:
    """Of rows that agree in `same`, the one that the newest run brought; in the order of `same`."""
    place = pl.DataFrame({RUN: list(stands.order), _ORDER: list(stands.order.values())})
    rows = rows.join(place, on=RUN, how="left", maintain_order="left")
    rest = [name for name in ("ts", "source") if name in rows.columns and name not in same]
    rows = rows.sort(*same, _ORDER, *rest, nulls_last=True)
    return rows.unique(same, keep="last", maintain_order=True).drop(_ORDER)


def _wanted(table: Table, columns: Sequence[str] | None) -> list[str]:
    if columns is None:
        return list(table.column_names)
    known = [*table.column_names, RUN]
    for name in columns:
        if name not in known:
            raise SchemaError(
                f"{table.name} has no column {name!r}",
                column=name,
                hint=f"choose from: {', '.join(known)}",
            )
    return list(columns)


def _nothing(table: Table) -> pl.DataFrame:
    return empty(table).with_columns(pl.lit(None, pl.String).alias(RUN))


def trusted_files(
    root: Root, name: str, stands: Standing, *, version: int | None = None
) -> tuple[pl.DataFrame, bool]:
    """The files that may hold rows of complete runs, and whether rows of others are among them.

    A file of one run is taken or left whole, by the log alone. Only a file that compaction made of
    several runs, one of them not complete at the time, calls for a look at each row.
    """
    at_version = stands.versions.get(name) if version is None else version
    if at_version is None:
        return pl.DataFrame({"uri": [], "min.ts": []}), False
    files = data_files(root, name, root.at_version(name, at_version))
    alone = pl.col("from_run") == pl.col("to_run")
    known = pl.col("from_run").is_in(list(stands.order))
    files = files.filter(~alone.fill_null(value=False) | known)
    return files, not files.select(alone.fill_null(value=False).all()).item()


def _newest_files(files: pl.DataFrame, at: int | datetime | None) -> pl.DataFrame:
    """Of each source, the files that can hold its newest instant; needs no row to be doubted."""
    if files.is_empty() or "partition.source" not in files.columns:
        return files
    newest = pl.col("max.ts")
    if at is not None:  # a file that reaches past the bound says only when it begins
        newest = (
            pl.when(newest + _MILLISECOND <= moment(at)).then(newest).otherwise(pl.col("min.ts"))
        )
    bound = newest.max().over("partition.source")
    return files.filter((pl.col("max.ts") + _MILLISECOND >= bound).fill_null(value=True))


def scan(root: Root, table: Table, files: pl.DataFrame, columns: Sequence[str]) -> pl.LazyFrame:
    """The rows of `files`; partition columns come from the log, as the files leave them out."""
    schema = {n: t for n, t in stored_schema(table).items() if n not in table.partitions}
    parts = [f"partition.{name}" for name in table.partitions]
    groups = files.partition_by(parts, maintain_order=True) if parts else [files]
    frames = []
    for group in groups:
        frame = pl.scan_parquet(
            group["uri"].to_list(),
            schema=schema,
            missing_columns="insert",
            storage_options=root.options,
            hive_partitioning=False,
            glob=False,
        )
        for name in table.partitions:
            value = pl.lit(group[f"partition.{name}"][0], pl.String)
            frame = frame.with_columns(value.alias(name))
        frames.append(frame.select(columns))
    return pl.concat(frames)


def _newest_rows(rows: pl.LazyFrame) -> pl.LazyFrame:
    """Of each source, the rows of its newest instant, found before the wide columns are read."""
    newest = rows.group_by("source").agg(pl.col("ts").max()).collect()
    holds = [(pl.col("source") == s) & (pl.col("ts") == t) for s, t in newest.iter_rows()]
    return rows.filter(pl.any_horizontal(holds)) if holds else rows


def _hold(
    table: Table, rows: pl.DataFrame, stands: Standing, *, several: bool, ordered: bool
) -> pl.DataFrame:
    """Of `rows`, those that hold by the table's meaning of as of, in the order of their key."""
    if table.as_of is AsOf.LATEST:
        rows = rows.filter(pl.col("ts") == pl.col("ts").max().over(list(table.key)))
    same = list(table.key) if table.as_of is AsOf.LATEST else identity(table)
    order = same + [name for name in identity(table) if name not in same]
    if several:
        return _believed(rows, same, stands)
    if table.as_of is AsOf.LATEST:  # one run, two sources at one instant
        rows = rows.sort(*order, nulls_last=True).unique(same, keep="last", maintain_order=True)
    elif ordered:
        alike = {n for n in ("ts", "source") if n in order and rows[n].n_unique() <= 1}
        rows = rows.sort([n for n in order if n not in alike], nulls_last=True)
    return rows
