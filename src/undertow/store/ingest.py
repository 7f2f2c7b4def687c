"""Tables from files into the lake: all checked before any is written, each file one run.

A file's run is named by its content, its mapping and its table, so the same file again adds
nothing, and one that was cut short goes on where it stopped. A row that cannot be taken goes to
`rejects` with the reason; a file that cannot be taken changes nothing, nor do its companions.

Of a file whose rows were refused the reasons may since have gone: given again, it is judged again.
Where that adds rows or refuses others, it is a further attempt, a run of its own, named by the
content and the number of the attempt; otherwise nothing is written.

What decides about rows (which names are known, which rows stand already) is the lake as it stood
when the run was first opened. That instant is recorded with the run, so that whoever takes the
run up again, now or beside, cuts the same batches out of the same file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from undertow import __version__
from undertow.errors import StoreError
from undertow.schema import TABLES
from undertow.schema import table as declared
from undertow.state.conform import empty
from undertow.store import runs
from undertow.store.checks import Names, Standings, no_faults
from undertow.store.checksum import checksum, content_hash, pieces
from undertow.store.consistency import row_faults
from undertow.store.delta import Root, append
from undertow.store.files import ROW
from undertow.store.lake import BATCH_ROWS, Lake, Progress, record_sums, stamped
from undertow.store.mapping import ColumnMap
from undertow.store.notes import notes_on, notes_on_views
from undertow.store.prepare import (
    Prepared,
    all_rejects,
    late_rejects,
    prepare,
    reject_rows,
    table_for,
)
from undertow.store.reading import identity, read_rows
from undertow.store.runs import REJECTS, Now, Standing
from undertow.store.unpack import Limits, sources

_SAMPLE = 20


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of one file."""

    file: str
    table: str
    run: str
    rows: int  # read
    added: int
    known: int  # stood already with the same values
    rejected: int
    filtered: int  # left out because the mapping says so
    sample: tuple[str, ...]  # the first rejects, one line each
    notes: tuple[str, ...] = ()  # what is odd, and was taken all the same

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "sample": list(self.sample),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class IngestReport:
    """What became of every file of one call."""

    files: tuple[FileReport, ...]
    dry_run: bool

    @property
    def exit_code(self) -> int:
        """0 where every row was taken, 4 where some were refused."""
        return 4 if any(each.rejected for each in self.files) else 0

    def as_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "dry_run": self.dry_run,
            "exit_code": self.exit_code,
            "files": [each.as_json() for each in self.files],
        }


def ingest_tables(
    lake: Lake,
    paths: Iterable[str | Path],
    *,
    now: Now,
    table: str | None = None,
    mapping: ColumnMap | str | Path | None = None,
    dry_run: bool = False,
    limits: Limits | None = None,
    progress: Progress | None = None,
    batch_rows: int = BATCH_ROWS,
) -> IngestReport:
    """Bring the files at `paths` into the lake, which is made if need be.

    A folder stands for the files in it. Which table a file is meant for is said by `table`, by the
    mapping, or by the file's name (`positions.parquet`). `now` becomes the instant at which the
    rows were known; a clock is asked when each run is complete. With `dry_run` everything is
    checked and reported, and nothing is written.

    Raises
    ------
    UnreadableFile
        When a file is damaged, too large or not what it claims to be.
    SchemaError
        When a file's columns are not those of its table.
    UnusableMapping
        When the mapping does not fit the files.
    """
    chosen = mapping if isinstance(mapping, ColumnMap) else ColumnMap()
    if isinstance(mapping, str | Path):
        chosen = ColumnMap.read(mapping)
    bounds = limits or Limits()
    with _scratch() as folder:
        found = sources(paths, bounds, folder / "plain")
        pairs = [(source, table_for(source, table, chosen)) for source in found]
        sizes = [source.path.stat().st_size for source in found]
        steps = _Steps(2 * sum(sizes), progress)
        waiting = []
        for place, (source, target) in enumerate(pairs):
            rows = folder / "rows" / str(place)
            made = prepare(
                source, target, chosen, folder=rows, limits=bounds, batch_rows=batch_rows
            )
            steps.walk(sizes[place])
            waiting.append((made, sizes[place]))
        order = list(TABLES)
        waiting.sort(key=lambda pair: order.index(pair[0].table.name))
        taker = _Rehearsal(lake, now) if dry_run else _Taker(lake, now)
        reports = []
        for made, size in waiting:
            reports.append(taker.take(made))
            steps.walk(size)
    return IngestReport(tuple(reports), dry_run)


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder for rows that wait; what the lake and the readers do not explain went wrong here."""
    try:
        with tempfile.TemporaryDirectory(prefix="undertow-", ignore_cleanup_errors=True) as name:
            yield Path(name)
    except OSError as error:
        raise StoreError(
            f"rows could not be set aside in the temporary folder: {error.strerror or error}",
            hint="free some space there and run the same command again",
        ) from error


class _Steps:
    """Progress, counted in bytes read and bytes written."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self.total, self.done, self.progress = total, 0, progress

    def walk(self, size: int) -> None:
        self.done += size
        if self.progress:
            self.progress(self.done, self.total)


@dataclass(slots=True)
class _Tally:
    added: int = 0
    known: int = 0
    faults: list[pl.DataFrame] = field(default_factory=list)


def _judged(
    made: Prepared, frame: pl.DataFrame, names: Names, standings: Standings, tally: _Tally
) -> pl.DataFrame:
    """The rows of a batch that are to be added; what happens to the others is tallied."""
    rows = made.without_repetitions(frame)
    known, contradicting = standings.split(rows)
    gone = pl.concat([known, contradicting["row"]])
    rows = rows.filter(~pl.col(ROW).is_in(gone.implode()))
    nameless = names.faults(made.table, rows)
    rows = rows.filter(~pl.col(ROW).is_in(nameless["row"].implode()))
    senseless = row_faults(made.table, rows, names)
    rows = rows.filter(~pl.col(ROW).is_in(senseless["row"].implode()))
    tally.faults += [contradicting, nameless, senseless]
    tally.known += known.len()
    tally.added += rows.height
    return rows


def _refused(made: Prepared, tally: _Tally) -> None:
    """Add what was found in all batches to the rejects; a row's twins share what becomes of it."""
    faults = pl.concat([no_faults(), *tally.faults])
    refused = made.twins.join(faults, left_on="first", right_on="row", how="inner").drop("first")
    tally.known += made.twins.height - refused["row"].n_unique()
    late_rejects(made, pl.concat([faults, refused]))


def _attempt(root: Root, content: str) -> tuple[str, Standing | None]:
    """The name of the next attempt at a content, and the newest that is complete."""
    registry, run, last, number = runs.registry(root), content, None, 1
    while registry.transaction_version(run) is not None:
        last, number = run, number + 1
        run = content_hash([content, f"attempt {number}"])
    return run, None if last is None else runs.standing(root, run=last)


def _rejects_of(root: Root, run: str) -> pl.DataFrame:
    """What was refused by a complete run, in the order of the file."""
    columns = ["run_of", "row", "column", "reason"]
    found = read_rows(root, REJECTS, runs.standing(root), columns=columns, ordered=False)
    return found.filter(pl.col("run_of") == run).drop("run_of").sort("row")


def _changes_nothing(root: Root, made: Prepared, tally: _Tally, before: Standing | None) -> bool:
    """Whether a file that was taken before would bring the same again."""
    if before is None or tally.added:
        return False
    return all_rejects(made).select("row", "column", "reason").equals(_rejects_of(root, before.run))


def _report(made: Prepared, tally: _Tally, notes: list[str]) -> FileReport:
    rejects = all_rejects(made)
    return FileReport(
        file=made.source.name,
        table=made.table.name,
        run=made.run,
        rows=made.rows,
        added=tally.added,
        known=tally.known,
        rejected=rejects.height,
        filtered=made.filtered,
        sample=_sample(made, rejects),
        notes=tuple(notes),
    )


def _sample(made: Prepared, rejects: pl.DataFrame) -> tuple[str, ...]:
    """The first rejects, one line each: where, what was wrong, what to do next."""
    lines = []
    for row, column, reason in rejects.head(_SAMPLE).select("row", "column", "reason").iter_rows():
        where = f"{made.source.name}, row {row}" + (f", column {column}" if column else "")
        look = f"`undertow schema {made.table.name}` says what the table takes"
        line = f"{where}: {reason}" + ("" if ";" in reason else f"; {look}")
        lines.append(" ".join(line.split()))
    return tuple(lines)


class _Rehearsal:
    """Takes files for show: the lake stays as it is, or stays absent."""

    def __init__(self, lake: Lake, now: Now) -> None:
        self.now = now
        self.root, self.there = lake.root, lake.exists()
        self.stands = runs.newest(lake.root) if self.there else None
        self.names = Names(lake.root, self.stands)
        self.before: dict[str, list[pl.DataFrame]] = {}

    def take(self, made: Prepared) -> FileReport:
        """What would become of the file."""
        run, before = _attempt(self.root, made.run) if self.there else (made.run, None)
        made = replace(made, run=run, rejects=list(made.rejects))
        table = made.table
        standings = _standings(self.root, made, self.stands)
        earlier = self.before.setdefault(table.name, [])
        held = [standings.rows] if standings.rows.height else []
        together = pl.concat([*held, *earlier]) if held or earlier else standings.rows
        standings = Standings(table, together)
        stood = list(earlier)
        self.names.begin(table, map(made.without_repetitions, made.frames()))
        tally = _Tally()
        for frame in made.frames():
            fresh = _judged(made, frame, self.names, standings, tally).drop(ROW)
            earlier.append(fresh)
            self.names.add(table, fresh)
        _refused(made, tally)
        if before is not None and _changes_nothing(self.root, made, tally, before):
            made.run = before.run
        notes = notes_on(made, runs.reading(self.now))
        if tally.added:
            notes += notes_on_views(made, self.root, self.stands, stood)
        return _report(made, tally, notes)


def _standings(root: Root, made: Prepared, stands: Standing | None) -> Standings:
    return Standings.around(root, made.table, stands, [frame["ts"] for frame in made.frames()])


class _Taker:
    """Takes files into the lake, one run each."""

    def __init__(self, lake: Lake, now: Now) -> None:
        self.lake, self.now = lake, now
        lake.make()

    def take(self, made: Prepared) -> FileReport:
        """Write the file's rows and rejects, then its run; what stands already is left alone."""
        root = self.lake.root
        run, before = _attempt(root, made.run)
        if before is not None and not before.detail["rejected"]:
            return self._again(made, before)
        if before is not None and not self._is_open(run):
            found = self._unchanged(made, before)
            if found is not None:
                return found
        report, current = self._write(replace(made, run=run, rejects=list(made.rejects)))
        if current or not report.rejected:
            return report
        # It was opened on an older lake, by whose names it was judged: judge it by today's too.
        more = self.take(made)
        return replace(
            more,
            added=report.added + more.added,
            known=max(more.known - report.added, 0),
            notes=tuple(dict.fromkeys([*report.notes, *more.notes])),
        )

    def _unchanged(self, made: Prepared, before: Standing) -> FileReport | None:
        """The report of a file that would bring nothing that its last attempt did not bring."""
        root, trial = self.lake.root, replace(made, run=before.run, rejects=list(made.rejects))
        stands, tally = runs.newest(root), _Tally()
        names, standings = Names(root, stands), _standings(root, made, stands)
        names.begin(made.table, map(made.without_repetitions, made.frames()))
        for frame in trial.frames():
            _judged(trial, frame, names, standings, tally)
        _refused(trial, tally)
        if not _changes_nothing(root, trial, tally, before):
            return None
        return _report(trial, tally, notes_on(made, runs.reading(self.now)))

    def _write(self, made: Prepared) -> tuple[FileReport, bool]:
        """Write one attempt, and say whether it was judged by the lake as it stands now."""
        root, run = self.lake.root, made.run
        stands, opened, current = self._basis(made)
        names, standings = Names(root, stands), _standings(root, made, stands)
        names.begin(made.table, map(made.without_repetitions, made.frames()))
        tally, sums, touched = _Tally(), list[int](), dict[str, int]()
        for batch, frame in enumerate(made.frames()):
            fresh = _judged(made, frame, names, standings, tally).drop(ROW)
            fresh = fresh.sort(identity(made.table), nulls_last=True)
            sums += [checksum(made.table, p, ordered=True) for p in pieces(made.table, fresh)]
            if fresh.height:
                touched[made.table.name] = self._append(made, made.table.name, fresh, batch)
        _refused(made, tally)
        rejects = reject_rows(made, opened)
        reject_sums = []
        for batch, part in enumerate(rejects.iter_slices(BATCH_ROWS), start=1):
            reject_sums.append(checksum(declared(REJECTS), part))
            touched[REJECTS] = self._append(made, REJECTS, part, batch)
        tables = {made.table.name: record_sums(tally.added, sums)}
        if reject_sums:
            tables[REJECTS] = record_sums(rejects.height, reject_sums)
        detail = {
            "file": made.source.name,
            "table": made.table.name,
            "mapping": made.mapping.name or None,
            "rows": made.rows,
            "known": tally.known,
            "filtered": made.filtered,
            "rejected": rejects.height,
            "code": __version__,
            "tables": tables,
        }
        runs.conclude(root, run, "ingest", touched, now=self.now, detail=detail)
        notes = notes_on(made, runs.reading(self.now))
        if tally.added:
            notes += notes_on_views(made, root, stands, [])
        return _report(made, tally, notes), current

    def _is_open(self, run: str) -> bool:
        handle = self.lake.root.open(REJECTS)
        return handle is not None and handle.transaction_version(f"{run}:basis") is not None

    def _basis(self, made: Prepared) -> tuple[Standing | None, int, bool]:
        """Open the run, or find it open: the lake as it stood then, the instant, if it is now."""
        root, run = self.lake.root, made.run
        before = runs.newest(root)
        marks = {
            f"{run}:basis": before.committed if before else -1,
            f"{run}:opened": runs.reading(self.now),
        }
        nothing = stamped(empty(declared(REJECTS)), run)
        append(
            root, REJECTS, nothing, run=run, batch=0, lineage=self._lineage(made, 0), marks=marks
        )
        handle = root.at_least(REJECTS)
        basis = handle.transaction_version(f"{run}:basis")
        opened = handle.transaction_version(f"{run}:opened") or 0
        stands = runs.standing(root, as_of=basis) if basis is not None and basis >= 0 else None
        return stands, opened, basis == marks[f"{run}:basis"]

    def _append(self, made: Prepared, name: str, rows: pl.DataFrame, batch: int) -> int:
        return append(
            self.lake.root,
            name,
            stamped(rows, made.run),
            run=made.run,
            batch=batch,
            lineage=self._lineage(made, rows.height),
        )

    def _lineage(self, made: Prepared, rows: int) -> dict[str, Any]:
        rejects = sum(each.height for each in made.rejects)
        return {
            "kind": "ingest",
            "source": made.source.name,
            "code": __version__,
            "rows": rows,
            "rejects": rejects,
        }

    def _again(self, made: Prepared, before: Standing) -> FileReport:
        """The report of a file that was taken before, and whole: all that it brought is known."""
        detail = before.detail
        return FileReport(
            file=made.source.name,
            table=made.table.name,
            run=before.run,
            rows=int(detail["rows"]),
            added=0,
            known=int(detail["rows"]) - int(detail["filtered"]),
            rejected=0,
            filtered=int(detail["filtered"]),
            sample=(),
            notes=tuple(notes_on(made, runs.reading(self.now))),
        )
