"""Runs: acts on the lake that are seen whole or not at all.

A run is complete when its row stands in the table `runs`, which is written last. Rows of `runs`
are committed one after the other, never side by side, so each has a place in one sequence and a
`committed` instant, in whole milliseconds, later than the one before. The versions that it names
hold all rows of every run up to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import polars as pl
from deltalake.exceptions import CommitFailedError, DeltaError

from undertow import __version__
from undertow.errors import NoLake, NoRun, StoreError
from undertow.schema import table as declared
from undertow.state.conform import empty, require
from undertow.store.checksum import checksum
from undertow.store.delta import (
    FORMAT,
    FORMAT_KEY,
    RUN,
    Root,
    commit,
    damage,
    data_files,
    pause,
    unwritable,
)

if TYPE_CHECKING:
    from deltalake import DeltaTable

RUNS, REJECTS = "runs", "rejects"
Now = int | Callable[[], int]  # an instant (UTC microseconds), or a clock that is asked at the end
_SEQUENCE = "undertow:sequence"
_TRIES = 200
_STEP = 1000  # instants in the log's statistics are cut to milliseconds


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """What was complete at an instant: the newest run, all runs up to it, the versions it names."""

    run: str
    committed: int
    kind: str
    versions: Mapping[str, int]
    order: Mapping[str, int]  # every complete run and its place in the sequence
    detail: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """What an answer says that it stood on."""
        return {"run": self.run, "committed": self.committed, "versions": dict(self.versions)}


def microseconds(instant: int | datetime) -> int:
    """`instant` as UTC microseconds; a datetime must say its zone."""
    if isinstance(instant, datetime):
        if instant.tzinfo is None:
            raise StoreError(
                f"the instant {instant} names no time zone",
                hint="give UTC microseconds or a datetime with tzinfo",
            )
        return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return int(instant)


def moment(instant: int | datetime) -> pl.Expr:
    """`instant` as a polars literal of the type that `ts` has."""
    return pl.lit(microseconds(instant), pl.Int64).cast(pl.Datetime("us", "UTC"))


def reading(now: Now) -> int:
    """The instant that `now` says."""
    return now() if callable(now) else int(now)


def registry(root: Root) -> DeltaTable:
    """The table `runs`, which makes a folder a lake.

    Raises
    ------
    NoLake
        When there is none, or when the folder is something else's.
    """
    handle = root.open(RUNS)
    if handle is None:
        raise NoLake(
            "there is no lake here",
            source=root.uri,
            hint="`undertow ingest` makes one, or give the right folder with --lake",
        )
    written = handle.metadata().configuration.get(FORMAT_KEY)
    if written is None:
        raise NoLake(
            "the folder holds Delta tables that undertow did not write",
            source=root.uri,
            hint="give an empty or new folder",
        )
    if written != FORMAT:
        raise NoLake(
            f"the lake has format {written}, and this undertow reads format {FORMAT}",
            source=root.uri,
            hint="use the undertow that wrote it, or ingest the files again into a new folder",
        )
    return handle


def completed(root: Root, *, as_of: int | datetime | None = None) -> pl.DataFrame:
    """Names and instants of all runs complete at `as_of`, oldest first."""
    return _completed(root, registry(root), as_of)[0]


def _completed(
    root: Root, handle: DeltaTable, as_of: int | datetime | None
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The runs (run, committed) and the files that hold them.

    A file of one row is told by the statistics in the log, which are exact because `committed` is
    in whole milliseconds: thousands of runs cost no thousands of reads.
    """
    files = data_files(root, RUNS, handle)
    if as_of is not None:
        files = files.filter(pl.col("min.committed") <= moment(as_of))
    lone = pl.col("rows") == 1
    told = files.filter(lone).select(
        pl.col("from_run").alias(RUN), pl.col("min.committed").alias("committed")
    )
    opened = _rows(files.filter(~lone)["uri"].to_list(), root, [RUN, "committed"])
    if as_of is not None:
        opened = opened.filter(pl.col("committed") <= moment(as_of))
    return pl.concat([told, opened]).sort("committed"), files


def _rows(uris: list[str], root: Root, columns: list[str] | None = None) -> pl.DataFrame:
    """Rows of some files of the table `runs`."""
    names = columns or list(declared(RUNS).column_names)
    if not uris:
        return empty(declared(RUNS)).select(names)
    with damage(RUNS):
        return (
            pl.scan_parquet(uris, storage_options=root.options, hive_partitioning=False, glob=False)
            .select(names)
            .collect()
        )


def all_runs(root: Root) -> pl.DataFrame:
    """Every complete run, newest first, as the table `runs` has it."""
    handle = registry(root)
    uris = data_files(root, RUNS, handle)["uri"].to_list()
    return _rows(uris, root).sort("committed", descending=True)


def standing(
    root: Root, *, as_of: int | datetime | None = None, run: str | None = None
) -> Standing:
    """The newest run complete at or before `as_of`, or the run called `run`.

    Raises
    ------
    NoRun
        When there is none.
    """
    found = newest(root, as_of=as_of) if run is None else _named(root, run)
    if found is None:
        raise _no_run(root, as_of)
    return found


def _no_run(root: Root, as_of: int | datetime | None) -> NoRun:
    if as_of is None:
        return NoRun(
            "the lake holds no complete run yet", source=root.uri, hint="ingest tables first"
        )
    instants = [microseconds(as_of), *completed(root)["committed"].head(1).to_physical()]
    when, *first = pl.Series(instants).cast(pl.Datetime("us", "UTC")).dt.to_string("iso").to_list()
    known = f"the first was committed at {first[0]}" if first else "there is none yet"
    return NoRun(
        f"no run was complete at {when}",
        source=root.uri,
        hint=f"{known}; ask for a later as-of, or leave it out for the newest",
    )


def _named(root: Root, run: str) -> Standing:
    mine = all_runs(root).filter(pl.col(RUN) == run)
    if mine.is_empty():
        raise NoRun(
            f"no complete run is called {run!r}",
            source=root.uri,
            hint="`undertow lake history` lists the runs that there are",
        )
    found = newest(root, as_of=mine["committed"][0])
    if found is None or found.run != run:
        raise NoRun(f"the run {run!r} has no place of its own in the sequence", source=root.uri)
    return found


def newest(root: Root, *, as_of: int | datetime | None = None) -> Standing | None:
    """The newest run complete at `as_of` and all before it, or None before the first."""
    return _newest(root, registry(root), as_of)


def _newest(root: Root, handle: DeltaTable, as_of: int | datetime | None) -> Standing | None:
    runs, files = _completed(root, handle, as_of)
    if runs.is_empty():
        return None
    last = runs.row(-1, named=True)[RUN]
    holds = (pl.col("from_run") <= last) & (pl.col("to_run") >= last)
    rows = _rows(files.filter(holds)["uri"].to_list(), root).filter(pl.col(RUN) == last)
    with damage(RUNS):
        row = rows.row(0, named=True)
        versions = {str(n): int(v) for n, v in json.loads(row["versions"]).items()}
        return Standing(
            run=row[RUN],
            committed=microseconds(row["committed"]),
            kind=row["kind"],
            versions=versions,
            order={name: place for place, name in enumerate(runs[RUN])},
            detail=dict(json.loads(row["detail"])),
        )


def is_complete(root: Root, run: str) -> bool:
    """Whether `run` is complete; asks the log alone."""
    return registry(root).transaction_version(run) is not None


def conclude(
    root: Root,
    run: str,
    kind: str,
    touched: Mapping[str, int],
    *,
    now: Now,
    detail: Mapping[str, Any],
) -> Standing:
    """Make `run` visible: one row in `runs`, naming the versions of all tables.

    Safe to repeat: a run that is complete stays as it is.
    """
    for attempt in range(_TRIES):
        handle = registry(root)
        before = _newest(root, handle, None)
        if handle.transaction_version(run) is not None:
            return standing(root, run=run)
        place = handle.transaction_version(_SEQUENCE)
        versions = dict(before.versions) if before else {}
        for name, version in touched.items():
            versions[name] = max(version, versions.get(name, -1))
        committed = reading(now) // _STEP * _STEP
        if before:
            committed = max(committed, before.committed + _STEP)
        row = _row(run, committed, kind, versions, detail)
        marks = {run: 0, _SEQUENCE: 0 if place is None else place + 1}
        try:
            total = str(checksum(declared(RUNS), row))
            lineage = {RUN: run, "kind": kind, "code": __version__, "checksum": total}
            commit(handle, row, marks, lineage)
            order = dict(before.order) if before else {}
            order[run] = len(order)
            return Standing(run, committed, kind, versions, order, detail)
        except CommitFailedError:
            pause(min(attempt, 4))
        except (DeltaError, OSError) as error:
            raise unwritable(RUNS, error) from error
    raise StoreError(
        f"other writers were quicker {_TRIES} times in a row",
        source=RUNS,
        hint="run the same command again; it goes on where it was",
    )


def _row(
    run: str, committed: int, kind: str, versions: Mapping[str, int], detail: Mapping[str, Any]
) -> pl.DataFrame:
    table = declared(RUNS)
    row = pl.DataFrame(
        {
            RUN: [run],
            "committed": [committed],
            "kind": [kind],
            "versions": [json.dumps(dict(sorted(versions.items())))],
            "detail": [json.dumps(dict(detail), sort_keys=True, default=str)],
        }
    ).with_columns(pl.col("committed").cast(pl.Datetime("us", "UTC")))
    return require(table, row)
