"""Lake to state: the tables as they held, built into a Snapshot."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from undertow.errors import StateError
from undertow.rules.snapshot import TABLES, Snapshot
from undertow.store.lake import Lake, read_tables
from undertow.store.runs import microseconds


def load_snapshot(
    lake: Lake | str | Path,
    *,
    as_of: int | datetime | None = None,
    at: int | datetime | None = None,
) -> Snapshot:
    """What held at `at`, as the lake (or the one at that path) knew it at `as_of`, with its rules.

    Without `at`, each source's newest view; the snapshot is then dated by its newest price.

    Raises
    ------
    NoRun
        When nothing was complete by then.
    StateError
        When the lake lacks what a snapshot cannot do without, or its tables contradict each other.
    """
    lake = lake if isinstance(lake, Lake) else Lake.open(lake)
    held = None if at is None else microseconds(at)
    # The book puts accounts and legs in order itself, whatever order they come in.
    tables = read_tables(
        lake, tuple(TABLES), as_of=as_of, at=held, unordered=("accounts", "positions")
    )
    for name, needed in TABLES.items():
        if needed and tables[name].is_empty():
            raise StateError(
                "there are no rows of it" + ("" if held is None else " at that instant"),
                source=name,
                hint=f"a snapshot needs {', '.join(n for n, must in TABLES.items() if must)}",
            )
    newest = tables["prices"]["ts"].to_physical().max()
    assert isinstance(newest, int)
    return Snapshot.from_tables(tables, newest if held is None else held)
