"""Lake to state: the tables as they held, built into a Snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from undertow.errors import StateError
from undertow.rules.snapshot import TABLES, Snapshot
from undertow.state.liquidity import STALE_VOLUME_US
from undertow.store.delta import RUN
from undertow.store.lake import Lake, read_tables
from undertow.store.reading import instants, rows_between
from undertow.store.runs import microseconds

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


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
    stands = lake.standing(as_of=as_of)
    present = [name for name in TABLES if name != "volumes"]
    tables = read_tables(
        lake, present, at=held, standing=stands, unordered=("accounts", "positions")
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
    ts = newest if held is None else held
    # What traded is a log without end, of which a snapshot asks for the last days.
    first, last = (_EPOCH + timedelta(microseconds=t) for t in (ts - STALE_VOLUME_US, ts))
    traded = rows_between(lake.root, "volumes", stands, first, last)
    tables["volumes"] = traded.drop(RUN)
    return Snapshot.from_tables(tables, ts)


def load_prices(
    lake: Lake | str | Path, last: int, *, days: float = 365.0, as_of: int | datetime | None = None
) -> pl.DataFrame:
    """Every price of the `days` up to `last` that the lake knew at `as_of`: the table's own rows.

    Raises
    ------
    NoRun
        When nothing was complete by then.
    """
    lake = lake if isinstance(lake, Lake) else Lake.open(lake)
    first = last - int(days * 86_400_000_000)
    span = (_EPOCH + timedelta(microseconds=t) for t in (first, last))
    return rows_between(lake.root, "prices", lake.standing(as_of=as_of), *span).drop(RUN)


def load_series(
    lake: Lake | str | Path,
    tables: Sequence[str],
    last: int,
    *,
    days: float = 365.0,
    as_of: int | datetime | None = None,
) -> dict[str, pl.DataFrame]:
    """Every row of some tables in the `days` up to `last` that the lake knew at `as_of`.

    Raises
    ------
    NoRun
        When nothing was complete by then.
    """
    lake = lake if isinstance(lake, Lake) else Lake.open(lake)
    first = last - int(days * 86_400_000_000)
    span = [_EPOCH + timedelta(microseconds=t) for t in (first, last)]
    stands = lake.standing(as_of=as_of)
    return {name: rows_between(lake.root, name, stands, *span).drop(RUN) for name in tables}


def position_instants(
    lake: Lake | str | Path, last: int, *, as_of: int | datetime | None = None
) -> list[int]:
    """Every instant up to `last` at which the lake, as it was at `as_of`, has positions.

    Raises
    ------
    NoRun
        When nothing was complete by then.
    """
    lake = lake if isinstance(lake, Lake) else Lake.open(lake)
    until = _EPOCH + timedelta(microseconds=last)
    stands = lake.standing(as_of=as_of)
    return [microseconds(ts) for ts in instants(lake.root, "positions", stands, until)]
