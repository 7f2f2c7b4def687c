"""The lake on disk: append-only tables, runs seen whole or not at all, reading as of a day.

The only part of undertow that knows Delta Lake, and the only one that opens a user's files.
"""

from __future__ import annotations

from undertow.store.lake import Lake, Written
from undertow.store.runs import Standing

__all__ = ["Lake", "Standing", "Written"]
