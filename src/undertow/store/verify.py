"""The health of a lake: every file that is needed, against the log that names it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from undertow.errors import DamagedLake, UndertowError
from undertow.schema import TABLES
from undertow.store.checksum import WRAP, checksum
from undertow.store.delta import RUN, Root, damage, data_files
from undertow.store.reading import scan
from undertow.store.runs import RUNS, all_runs
from undertow.store.upkeep import commits_of, last_named, merges_in, named_versions


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that an inspection found, and what to do about it."""

    kind: str  # damage: something is broken; incomplete: a run stopped half-way
    table: str
    what: str
    hint: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.table}: {self.what}; {self.hint}"


@dataclass(frozen=True, slots=True)
class Inspection:
    """What `verify` looked at and found; empty findings mean that all is well."""

    rows: Mapping[str, int]  # rows stored, by table
    files: int
    runs: int
    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is damaged; a run that stopped half-way is no damage."""
        return all(finding.kind != "damage" for finding in self.findings)


def verify(root: Root) -> Inspection:
    """Read every file that a run or a table's newest version needs, and compare it with the log.

    Checks that each file exists, has its size, opens, holds the rows that the log counts, and that
    the stored values of each run still add up to its checksum.
    """
    try:
        runs = all_runs(root)
        named = named_versions(runs)
    except DamagedLake as error:
        hint = error.hint or ""
        return Inspection({}, 0, 0, (Finding("damage", RUNS, error.message, hint),))
    rows: dict[str, int] = {}
    findings: list[Finding] = []
    stopped: dict[str, set[str]] = {}
    looked_at = 0
    for name in TABLES:
        look = _Look(root, name, named.get(name, set()), runs)
        try:
            with damage(name):
                look.whole()
        except UndertowError as error:
            look.report(error.message)
        rows[name] = look.rows
        looked_at += look.files
        findings.extend(look.findings)
        for run in look.unknown:
            stopped.setdefault(run, set()).add(name)
    for run, names in sorted(stopped.items()):
        what = f"run {run} stopped half-way; its rows are not seen"
        hint = "ingest the same files again: it goes on where it was"
        findings.append(Finding("incomplete", ", ".join(sorted(names)), what, hint))
    return Inspection(
        {n: count for n, count in rows.items() if count}, looked_at, runs.height, tuple(findings)
    )


class _Look:
    """The inspection of one table."""

    def __init__(self, root: Root, name: str, named: set[int], runs: pl.DataFrame) -> None:
        self.root, self.name, self.named = root, name, named
        self.table = TABLES[name]
        self.when = "ts" if self.table.dated else "committed"
        self.runs = runs
        self.expected: dict[str, dict[str, Any] | None] = {}
        self.findings: list[Finding] = []
        self.unknown: set[str] = set()
        self.rows = self.files = 0
        self.listed: Counter[str] = Counter()
        self.sums: dict[str, list[int]] = {}

    def report(self, what: str) -> None:
        """Note damage."""
        hint = "restore the file from a copy, or ingest the sources again into a new lake"
        self.findings.append(Finding("damage", self.name, what, hint))

    def whole(self) -> None:
        """Inspect the log, every file that is needed, and the sums of every run."""
        with damage(RUNS):
            for run, detail in self.runs.select(RUN, "detail").iter_rows():
                self.expected[run] = json.loads(detail).get("tables", {}).get(self.name)
        handle = self.root.open(self.name)
        if handle is None:
            if self.named:
                self.report("the table is gone, and runs name it")
            return
        entries = commits_of(self.name, handle)
        versions = sorted(int(e["version"]) for e in entries)
        gaps = sorted(set(range(handle.version() + 1)) - set(versions))
        if gaps:
            self.report(f"the log has lost version {gaps[0]}")
        if self.named and max(self.named) > handle.version():
            self.report(f"version {max(self.named)} is named by a run, and the log ends before it")
        merges = merges_in(entries)
        made = self._made_by_merges(merges)
        files: dict[str, dict[str, Any]] = {}
        for version in {*last_named(self.named, merges), handle.version()}:
            found = self._files(version)
            files |= {row["uri"]: row for row in found}
            if version == handle.version():
                self.rows = sum(row["rows"] or 0 for row in found)
        for row in files.values():
            self._file(row, merged=row["uri"] in made)
        self._sums(whole=not merges)
        if self.name == RUNS:
            self._registry(entries)
        known = set(self.expected)
        opened = {str(e[RUN]) for e in entries if e.get(RUN)}
        self.unknown |= (opened - known) if self.name != RUNS else set()

    def _files(self, version: int) -> list[dict[str, Any]]:
        handle = self.root.at_version(self.name, version)
        wanted = [
            "uri",
            "size",
            "rows",
            "from_run",
            "to_run",
            f"min.{self.when}",
            f"max.{self.when}",
        ]
        frame = data_files(self.root, self.name, handle)
        parts = [c for c in frame.columns if c.startswith("partition.")]
        return frame.select(wanted + parts).to_dicts()

    def _made_by_merges(self, merges: list[int]) -> set[str]:
        made: set[str] = set()
        for version in merges:
            after = {row["uri"] for row in self._files(version)}
            made |= after - {row["uri"] for row in self._files(version - 1)}
        return made

    def _file(self, row: dict[str, Any], *, merged: bool) -> None:
        self.files += 1
        uri, run = row["uri"], row["from_run"]
        lone = not merged and run is not None and run == row["to_run"]
        if lone:
            self.listed[run] += 1
        short = uri.rsplit("/", 1)[-1]
        if self.root.folder is not None:
            path = Path(uri)
            if not path.is_file():
                self.report(f"the file {short} is gone")
                return
            if path.stat().st_size != row["size"]:
                size = path.stat().st_size
                self.report(f"the file {short} has {size} bytes, and the log says {row['size']}")
                return
        try:
            with damage(self.name):
                columns = dict.fromkeys((*self.table.column_names, RUN))
                rows = scan(self.root, self.table, pl.DataFrame([row]), list(columns))
                frame = rows.collect()
                self._skipping(short, rows, frame[self.when])
        except DamagedLake as error:
            self.report(f"the file {short} does not open: {error.message}")
            return
        if frame.height != row["rows"]:
            self.report(f"the file {short} holds {frame.height} rows, the log says {row['rows']}")
        for bound, value in (("min", frame[self.when].min()), ("max", frame[self.when].max())):
            told = row[f"{bound}.{self.when}"]
            if value is not None and (told is None or not _alike(value, told)):
                self.report(f"the log tells of another {bound} of {self.when} in the file {short}")
        if (frame[RUN].min(), frame[RUN].max()) != (run, row["to_run"]):
            self.report(f"the log tells of other runs in the file {short}")
        if lone:
            self.sums.setdefault(run, []).append(checksum(self.table, frame))

    def _skipping(self, short: str, rows: pl.LazyFrame, when: pl.Series) -> None:
        """Readers skip what a file's own statistics rule out: its first and last must be found."""
        for value in {when.min(), when.max()} - {None}:
            found = rows.filter(pl.col(self.when) == value).select(pl.len()).collect().item()
            if found != (when == value).sum():
                self.report(f"the file {short} hides rows behind wrong statistics")
                return

    def _registry(self, entries: list[dict[str, Any]]) -> None:
        """Each row of `runs` has its checksum in the commit that wrote it."""
        written = {e[RUN]: e["checksum"] for e in entries if RUN in e and "checksum" in e}
        for number, run in enumerate(self.runs[RUN]):
            if str(checksum(self.table, self.runs[number])) != str(written.get(run)):
                self.report(f"the row of run {run} is not the one that was written")

    def _sums(self, *, whole: bool) -> None:
        """Compare what the files of each run add up to; merged files stand for none of them."""
        for run, record in self.expected.items():
            found = self.sums.get(run, [])
            if record is None or self.name == RUNS:
                continue
            listed = self.listed[run]
            if record["files"] != listed:
                if whole:
                    self.report(f"run {run} wrote {record['files']} files, the log has {listed}")
            elif len(found) == listed and sum(found) % WRAP != int(record["checksum"]):
                self.report(f"values of run {run} are not those that were written")


def _alike(value: Any, told: Any) -> bool:
    """Whether an instant is the one that the log tells, which cuts to milliseconds."""
    return bool(abs((value - told).total_seconds()) < 0.001)
