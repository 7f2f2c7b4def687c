"""The lake: all tables in one place, appended to and never changed, read as they were known.

`<root>/<table>/` holds one Delta table for each declared table. What is written is written as a
*run*, which readers see whole or not at all. A lake is a value: it holds an address, no connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl

from undertow import __version__
from undertow.errors import NoLake, SchemaError, StoreError
from undertow.schema import AsOf, Table
from undertow.schema import table as declared
from undertow.state.conform import require
from undertow.store import reading, runs, upkeep
from undertow.store.checksum import WRAP, checksum, content_hash, pieces
from undertow.store.delta import RUN, Root, append
from undertow.store.runs import RUNS, Now, Standing
from undertow.store.upkeep import History
from undertow.store.verify import Inspection, verify

BATCH_ROWS = 500_000
_LONGEST_RUN = 60  # the log's statistics cut longer names

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Written:
    """What one run brought."""

    run: str
    added: Mapping[str, int]  # rows by table; what was there already is not counted
    standing: Standing


@dataclass(frozen=True, slots=True)
class Lake:
    """All tables of one house, at one address."""

    root: Root

    @classmethod
    def at(cls, uri: str | Path, *, storage_options: Mapping[str, str] | None = None) -> Lake:
        """The lake at `uri`, whether or not there is one yet; touches nothing."""
        text = os.fspath(uri)
        if text.startswith("file://"):
            text = unquote(urlsplit(text).path)
        if not text:
            raise NoLake("the address of the lake is empty", hint="give a folder with --lake")
        return cls(Root(text, dict(storage_options) if storage_options else None))

    @classmethod
    def open(cls, uri: str | Path, *, storage_options: Mapping[str, str] | None = None) -> Lake:
        """The lake at `uri`.

        Raises
        ------
        NoLake
            When there is none, or when the folder is something else's.
        """
        lake = cls.at(uri, storage_options=storage_options)
        runs.registry(lake.root)
        return lake

    @classmethod
    def create(cls, uri: str | Path, *, storage_options: Mapping[str, str] | None = None) -> Lake:
        """The lake at `uri`, made if need be; a folder that holds other things is refused."""
        lake = cls.at(uri, storage_options=storage_options)
        lake.make()
        return lake

    @property
    def uri(self) -> str:
        """Where it lies."""
        return self.root.uri

    def make(self) -> None:
        """Make the lake unless it is there."""
        folder = self.root.folder
        if folder is not None and not (folder / RUNS).exists() and folder.exists():
            if not folder.is_dir():
                raise StoreError("is a file, not a folder", source=self.uri, hint="give a folder")
            strange = sorted(p.name for p in folder.iterdir() if not (p / "_delta_log").is_dir())
            if strange:
                raise StoreError(
                    f"the folder is not a lake and holds other things ({strange[0]!r})",
                    source=self.uri,
                    hint="give an empty or new folder",
                )
        self.root.ensure(RUNS)
        runs.registry(self.root)

    def exists(self) -> bool:
        """Whether there is a lake at the address; a foreign folder is an error, not a no."""
        return self.root.open(RUNS) is not None and bool(runs.registry(self.root))

    def standing(self, *, as_of: int | datetime | None = None, run: str | None = None) -> Standing:
        """The newest run complete at `as_of` (or the run called `run`), and what it stands on.

        Raises
        ------
        NoRun
            When nothing was complete by then.
        """
        return runs.standing(self.root, as_of=as_of, run=run)

    def read(
        self,
        table: str,
        *,
        as_of: int | datetime | None = None,
        at: int | datetime | None = None,
        run: str | None = None,
        version: int | None = None,
        columns: Sequence[str] | None = None,
        ordered: bool = True,
    ) -> pl.DataFrame:
        """Rows of `table` that held at `at`, as they were known at `as_of`.

        `as_of` bounds what was known (the newest run committed by then), `at` what held, by the
        table's own rule (`schema.AsOf`); without them there is no bound. `run` knows what that run
        knew; `version` reads one version of the table instead of the one that the run names.
        `run`, the run that brought a row, may be among `columns`.

        Rows come in the order of the table's key, whatever the files look like. Not `ordered`,
        they come as they lie, which saves most of the time on millions of positions and is right
        where the reader puts them in order anyway.

        Raises
        ------
        NoRun
            When no run was complete by `as_of`.
        DamagedLake
            When files and log disagree.
        """
        stands = self.standing(as_of=as_of, run=run)
        return reading.read_rows(
            self.root, table, stands, at=at, version=version, columns=columns, ordered=ordered
        )

    def write(
        self,
        tables: Mapping[str, pl.DataFrame],
        *,
        kind: str,
        now: Now,
        detail: Mapping[str, Any] | None = None,
        run: str | None = None,
        batch_rows: int = BATCH_ROWS,
        progress: Progress | None = None,
    ) -> Written:
        """Write frames of several tables as one run; the same content again adds nothing.

        The run is named by its content unless `run` names it. A write that was cut short is taken
        up where it stopped when it is repeated.

        Raises
        ------
        SchemaError
            At the first row that does not fit its table; then nothing is written.
        StoreError
            When the disk refuses.
        """
        checked = {name: in_order(declared(name), frame) for name, frame in tables.items()}
        sums = {name: _sums(declared(name), frame, batch_rows) for name, frame in checked.items()}
        words = [f"{name}:{each['rows']}:{each['checksum']}" for name, each in sums.items()]
        run = _run_name(run or content_hash([kind, *sorted(words)]))
        self.make()
        if runs.is_complete(self.root, run):
            return Written(run, dict.fromkeys(checked, 0), self.standing(run=run))
        total = sum(frame.height for frame in checked.values())
        touched, done = {}, 0
        for name in sorted(checked):
            for batch, rows in enumerate(checked[name].iter_slices(batch_rows)):
                lineage = {"kind": kind, "code": __version__, "rows": rows.height}
                touched[name] = append(
                    self.root, name, stamped(rows, run), run=run, batch=batch, lineage=lineage
                )
                done += rows.height
                if progress:
                    progress(done, total)
        record = {"code": __version__, **(detail or {}), "tables": sums}
        after = runs.conclude(self.root, run, kind, touched, now=now, detail=record)
        return Written(run, {n: f.height for n, f in checked.items()}, after)

    def merge(
        self,
        table: str,
        rows: pl.DataFrame,
        *,
        now: Now,
        kind: str = "ingest",
        detail: Mapping[str, Any] | None = None,
    ) -> Written:
        """Append those of `rows` that differ from what holds now.

        A row whose key holds already with the same values, `ts` apart, adds nothing. Of a table
        that is read by snapshot, a source's rows are added all together as soon as one differs,
        because a snapshot is a whole view.
        """
        kept = require(declared(table), rows)
        stands = runs.newest(self.root) if self.exists() else None
        if stands is not None:
            held = reading.read_rows(self.root, table, stands, ordered=False)
            kept = _differing(declared(table), kept, held)
            if kept.is_empty():
                return Written(stands.run, {table: 0}, stands)
        return self.write({table: kept}, kind=kind, now=now, detail=detail)

    def history(self) -> History:
        """Every run and every commit, newest first, with where its rows came from."""
        runs.registry(self.root)
        return upkeep.history(self.root)

    def verify(self) -> Inspection:
        """Compare every file that is needed with the log that names it."""
        return verify(self.root)

    def compact(self, *, now: Now) -> Standing:
        """Merge small files; every run and every version that a run names reads as before."""
        runs.registry(self.root)
        return upkeep.compact(self.root, now=now)


def read_tables(
    lake: Lake,
    names: Iterable[str],
    *,
    as_of: int | datetime | None = None,
    at: int | datetime | None = None,
    run: str | None = None,
    standing: Standing | None = None,
    unordered: Iterable[str] = (),
) -> dict[str, pl.DataFrame]:
    """Several tables that stand on one and the same run; those `unordered` as they lie on disk."""
    stands, loose = standing or lake.standing(as_of=as_of, run=run), set(unordered)
    return {
        name: reading.read_rows(lake.root, name, stands, at=at, ordered=name not in loose)
        for name in names
    }


def in_order(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """`rows` checked against `table` and put in the order of what names them."""
    return require(table, rows).sort(reading.identity(table), nulls_last=True)


def stamped(rows: pl.DataFrame, run: str) -> pl.DataFrame:
    """`rows` with the column that names their run."""
    return rows.with_columns(pl.lit(run, pl.String).alias(RUN))


def _sums(table: Table, rows: pl.DataFrame, size: int) -> dict[str, Any]:
    parts = [part for batch in rows.iter_slices(size) for part in pieces(table, batch)]
    return record_sums(rows.height, [checksum(table, part, ordered=True) for part in parts])


def record_sums(rows: int, sums: Sequence[int]) -> dict[str, Any]:
    """What a run remembers of one table: rows, files, and the sum of the files' checksums."""
    return {"rows": rows, "files": len(sums), "checksum": str(sum(sums) % WRAP)}


def _run_name(run: str) -> str:
    if not 0 < len(run.encode()) <= _LONGEST_RUN or not run.isprintable():
        raise SchemaError(
            f"a run cannot be called {run[:80]!r}",
            column=RUN,
            hint=f"use 1 to {_LONGEST_RUN} bytes of plain text",
        )
    return run


def _differing(table: Table, rows: pl.DataFrame, held: pl.DataFrame) -> pl.DataFrame:
    """Rows of `rows` that say something that `held` does not."""
    same = [n for n in table.column_names if n != "ts" or table.as_of is AsOf.LOG]
    if table.as_of is not AsOf.SNAPSHOT:
        return rows.join(held, on=same, how="anti", nulls_equal=True, maintain_order="left")
    fresh = []
    for (source,), view in rows.partition_by("source", as_dict=True, maintain_order=True).items():
        before = held.filter(pl.col("source") == source).select(same)
        now = view.select(same)
        new = now.join(before, on=same, how="anti", nulls_equal=True).height
        if new or before.height != now.height:
            fresh.append(view)
    return pl.concat(fresh) if fresh else rows.clear()
