"""Care of a lake: its history, its health, and the merging of small files.

Merging never takes away a version that a run names. Files that a merge replaced stay on disk for
as long as a run reads them; only those that none names are removed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from undertow.errors import DamagedLake, StoreError, UndertowError
from undertow.schema import TABLES
from undertow.store.checksum import checksum
from undertow.store.delta import RUN, Root, damage, data_files, first_line, properties, unwritable
from undertow.store.reading import scan
from undertow.store.runs import RUNS, Now, Standing, all_runs, conclude, reading, standing

_LINEAGE = ("source", "rows", "rejects", "code", "kind")


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What happened to a lake, newest first."""

    runs: pl.DataFrame  # run, committed, kind, versions, detail
    commits: pl.DataFrame  # table, version, committed, operation, run, and where it came from


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


def history(root: Root) -> History:
    """Every run and every commit, newest first, with where its rows came from."""
    commits: list[dict[str, Any]] = []
    runs = all_runs(root)
    for name in TABLES:
        handle = root.open(name)
        if handle is None:
            continue
        commits.extend(_commit_record(name, entry) for entry in _entries(name, handle))
    schema = {
        "table": pl.String(),
        "version": pl.Int64(),
        "committed": pl.Int64(),
        "operation": pl.String(),
        RUN: pl.String(),
        **dict.fromkeys(_LINEAGE, pl.String()),
    }
    frame = pl.DataFrame(commits, schema=schema, orient="row").with_columns(
        pl.from_epoch("committed", time_unit="ms").dt.replace_time_zone("UTC")
    )
    return History(runs, frame.sort("committed", "table", "version", descending=True))


def _entries(name: str, handle: DeltaTable) -> list[dict[str, Any]]:
    with damage(name):
        return handle.history()


def _commit_record(name: str, entry: Mapping[str, Any]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "table": name,
        "version": entry.get("version"),
        "committed": entry.get("timestamp"),
        "operation": entry.get("operation"),
        RUN: entry.get(RUN),
    }
    for key in _LINEAGE:
        value = entry.get(key)
        record[key] = None if value is None else str(value)
    return record


def compact(root: Root, *, now: Now) -> Standing:
    """Merge the small files of every table, and remove what no run names.

    What is read stays the same, at every run and every version that a run names.
    """
    before = standing(root)
    instant = reading(now)
    run = f"compact-{before.run}"[:60]
    touched, merged = {}, {}
    for name in (*before.versions, RUNS):
        handle = root.open(name)
        if handle is None:
            raise DamagedLake("named by a run, and gone", source=name)
        merged[name] = _merge_files(name, handle, run)
        if name != RUNS:
            touched[name] = handle.version()
    after = conclude(root, run, "compact", touched, now=instant, detail={"files_merged": merged})
    _remove_unnamed(root)
    return after


def _merge_files(name: str, handle: DeltaTable, run: str) -> int:
    try:
        metrics = handle.optimize.compact(commit_properties=properties({RUN: run}))
    except CommitFailedError:  # a writer was quicker; the next compaction will see these files
        return 0
    except (DeltaError, OSError) as error:
        raise unwritable(name, error) from error
    return int(metrics.get("numFilesRemoved", 0))


def _remove_unnamed(root: Root) -> None:
    """Remove files that a merge replaced and that no run can reach."""
    named = _named_versions(all_runs(root))
    for name, versions in named.items():
        handle = root.open(name)
        if handle is None or name == RUNS:
            continue
        try:
            handle.vacuum(
                retention_hours=0,
                dry_run=False,
                enforce_retention_duration=False,
                keep_versions=sorted(versions),
            )
        except CommitFailedError:
            continue
        except (DeltaError, OSError) as error:
            raise unwritable(name, error) from error


def _named_versions(runs: pl.DataFrame) -> dict[str, set[int]]:
    named: dict[str, set[int]] = {}
    for text in runs["versions"]:
        for name, version in json.loads(text).items():
            named.setdefault(name, set()).add(int(version))
    return named
