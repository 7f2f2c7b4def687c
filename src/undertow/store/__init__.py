"""The lake on disk: append-only tables, runs seen whole or not at all, reading as of a day.

The only part of undertow that knows Delta Lake, and the only one that opens a user's files.
"""

from __future__ import annotations

from undertow.store.ingest import FileReport, IngestReport, ingest_tables
from undertow.store.lake import Lake, Written, read_tables
from undertow.store.mapping import ColumnMap
from undertow.store.runs import Standing
from undertow.store.unpack import Limits

__all__ = [
    "ColumnMap",
    "FileReport",
    "IngestReport",
    "Lake",
    "Limits",
    "Standing",
    "Written",
    "ingest_tables",
    "read_tables",
]
