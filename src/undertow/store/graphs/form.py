"""What every file of a dependency map says of itself, and the columns of its rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import polars as pl

from undertow.errors import UnreadableFile

FORMAT = "undertow-map/1"
NODE_COLUMNS = {
    "node": pl.String, "kind": pl.String, "price_usd": pl.Float64, "par_usd": pl.Float64,
    "size": pl.Float64, "asset": pl.String,
}  # fmt: skip
EDGE_COLUMNS = {
    "source": pl.String, "target": pl.String, "kind": pl.String, "qty": pl.Float64,
    "asset": pl.String, "usd": pl.Float64, "evidence": pl.String, "origin": pl.String,
}  # fmt: skip
DAMAGED = "it is damaged or cut short; write it again"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Plain(NamedTuple):
    """A map as rows, and what the file says of itself: format, ts and digest, where it does."""

    head: Mapping[str, Any]
    nodes: pl.DataFrame
    edges: pl.DataFrame


def require_format(told: Any, name: str) -> None:
    """Refuse a file of another version or of another format.

    Raises
    ------
    UnreadableFile
        When it is neither of this version nor silent about it.
    """
    if told is None or told == FORMAT:
        return
    said = str(told)[:60]
    if re.fullmatch(r"undertow-map/.*", said):
        raise UnreadableFile(
            f"is of version {said.partition('/')[2]!r} of the format, and 1 is read",
            source=name,
            hint="read it with the undertow that wrote it, or write it again with this one",
        )
    raise UnreadableFile(
        f"is of format {said!r}, and {FORMAT} is read", source=name,
        hint="a map from elsewhere says no format at all",
    )  # fmt: skip


def iso(ts: int) -> str:
    """Microseconds as ISO-8601 with a Z."""
    return (_EPOCH + timedelta(microseconds=ts)).isoformat().replace("+00:00", "Z")


def micros(told: Any, name: str) -> int:
    """An instant as a file tells it, in microseconds; 0 where it tells none.

    Raises
    ------
    UnreadableFile
        When it is no instant.
    """
    if told is None:
        return 0
    try:
        found = _micros(told)
        iso(found)  # what no calendar has cannot be said either
    except (ValueError, OverflowError):
        raise UnreadableFile(
            f"its ts is {str(told)[:40]!r}, which is no instant", source=name,
            hint="write 2026-01-31T12:00:00Z",
        ) from None  # fmt: skip
    return found


def _micros(told: Any) -> int:
    if isinstance(told, int) and not isinstance(told, bool):
        return told
    when = datetime.fromisoformat(str(told))
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return (when - _EPOCH) // timedelta(microseconds=1)


def frame_of(columns: Mapping[str, Sequence[Any]], kinds: Mapping[str, Any]) -> pl.DataFrame:
    """Rows from columns of plain values that were checked already."""
    return pl.DataFrame(
        {name: pl.Series(name, columns[name], dtype=kind) for name, kind in kinds.items()}
    )
