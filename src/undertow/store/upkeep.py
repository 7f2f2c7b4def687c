"""Care of a lake: its history, its health, and the merging of small files.

Merging never takes away a version that a run names. Files that a merge replaced stay on disk for
as long as a run reads them; only those that none names are removed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError

from undertow import __version__
from undertow.schema import TABLES
from undertow.store.checksum import content_hash
from undertow.store.delta import (
    KEEP_LOG,
    RUN,
    WRITER,
    Root,
    damage,
    properties,
    unwritable,
)
from undertow.store.runs import RUNS, Now, Standing, all_runs, conclude, standing

_LINEAGE = ("source", "rows", "rejects", "code", "kind")


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """What happened to a lake, newest first."""

    runs: pl.DataFrame  # run, committed, kind, versions, detail
    commits: pl.DataFrame  # table, version, committed, operation, run, and where it came from


def history(root: Root) -> History:
    """Every run and every commit, newest first, with where its rows came from."""
    commits: list[dict[str, Any]] = []
    runs = all_runs(root)
    for name in TABLES:
        handle = root.open(name)
        if handle is None:
            continue
        commits.extend(_commit_record(name, entry) for entry in commits_of(name, handle))
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


def commits_of(name: str, handle: DeltaTable) -> list[dict[str, Any]]:
    """Every commit of a table up to the version that `handle` stands at, as the log describes it.

    The library reads the log to its end, counts down from the handle's version all the same, and
    so tells a wrong version of every commit once another process has written in between.
    """
    with damage(name):
        entries = handle.history()
    newest = handle.version()
    newer = max(len(entries) - (newest + 1), 0)
    return [{**entry, "version": newest - i} for i, entry in enumerate(entries[newer:])]


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

    What is read stays the same, at every run and every version that a run names. A lake that has
    nothing to merge is left as it is.
    """
    before = standing(root)
    touched, merged = {}, {}
    for name in (*before.versions, RUNS):
        handle = root.at_least(name)
        merged[name] = _merge_files(name, handle)
        if name != RUNS:
            touched[name] = handle.version()
    fresh = {n: v for n, v in touched.items() if _merged_since(root, n, before.versions[n])}
    if not fresh:
        return before
    run = f"compact-{content_hash([before.run, json.dumps(touched, sort_keys=True)])}"
    after = conclude(root, run, "compact", fresh, now=now, detail={"files_merged": merged})
    _remove_unnamed(root)
    return after


def _merge_files(name: str, handle: DeltaTable) -> int:
    try:
        metrics = handle.optimize.compact(
            writer_properties=WRITER,
            commit_properties=properties({"kind": "compact", "code": __version__}),
            post_commithook_properties=KEEP_LOG,
        )
    except CommitFailedError:  # a writer was quicker; the next compaction will see these files
        return 0
    except (DeltaError, OSError) as error:
        raise unwritable(name, error) from error
    return int(metrics.get("numFilesRemoved", 0))


def _merged_since(root: Root, name: str, version: int) -> bool:
    return any(v > version for v in merges_in(commits_of(name, root.at_least(name))))


def merges_in(entries: list[dict[str, Any]]) -> list[int]:
    """The versions that merged files, oldest first; all other commits only add."""
    return sorted(int(e["version"]) for e in entries if e.get("operation") == "OPTIMIZE")


def last_named(named: set[int], merges: list[int]) -> list[int]:
    """The newest named version of each stretch between merges: it has all files of the others."""
    bounds = [0, *merges]
    ends = [*merges, None]
    stretches = [
        {v for v in named if v >= begin and (end is None or v < end)}
        for begin, end in zip(bounds, ends, strict=True)
    ]
    return [max(stretch) for stretch in stretches if stretch]


def _remove_unnamed(root: Root) -> None:
    """Remove files that a merge replaced and that no run can reach.

    A run that is not complete yet will name this version or a later one, never an earlier one: it
    takes up what the run before it names, and that is by now the merge.
    """
    for name, versions in named_versions(all_runs(root)).items():
        handle = root.at_least(name)
        keep = last_named(versions, merges_in(commits_of(name, handle)))
        try:
            for dry in (True, False):
                gone = handle.vacuum(
                    retention_hours=0,
                    dry_run=dry,
                    enforce_retention_duration=False,
                    keep_versions=keep,
                    post_commithook_properties=KEEP_LOG,
                )
                if not gone:
                    break
        except CommitFailedError:
            continue
        except (DeltaError, OSError) as error:
            raise unwritable(name, error) from error


def named_versions(runs: pl.DataFrame) -> dict[str, set[int]]:
    """Of each table, the versions that some run names."""
    named: dict[str, set[int]] = {}
    with damage(RUNS):
        for text in runs["versions"]:
            for name, version in json.loads(text).items():
                named.setdefault(str(name), set()).add(int(version))
    return named
