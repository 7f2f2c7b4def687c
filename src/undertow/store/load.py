"""Lake to state: the tables as they held, built into a Snapshot."""

from __future__ import annotations

from undertow.errors import StateError
from undertow.rules.snapshot import TABLES, Snapshot
from undertow.store.lake import Lake, read_tables


def load_snapshot(lake: Lake, *, as_of: int | None = None, at: int | None = None) -> Snapshot:
    """What held at `at`, as the lake knew it at `as_of`, with the rules that judge it.

    Without `at`, each source's newest view; the snapshot is then dated by its newest price.

    Raises
    ------
    NoRun
        When nothing was complete by then.
    StateError
        When the lake lacks what a snapshot cannot do without, or its tables contradict each other.
    """
    # The book puts accounts and legs in order itself, whatever order they come in.
    tables = read_tables(
        lake, tuple(TABLES), as_of=as_of, at=at, unordered=("accounts", "positions")
    )
    for name, needed in TABLES.items():
        if needed and tables[name].is_empty():
            raise StateError(
                "there are no rows of it",
                source=name,
                hint=f"a snapshot needs {', '.join(n for n, must in TABLES.items() if must)}",
            )
    newest = tables["prices"]["ts"].to_physical().max()
    assert isinstance(newest, int)
    return Snapshot.from_tables(tables, newest if at is None else at)
