"""Rows of a table that may be absent, and which of several rows for one thing is believed."""

from __future__ import annotations

from typing import Any

import polars as pl

from undertow import schema
from undertow.state.conform import empty, require
from undertow.state.intake import as_frame


def given_rows(name: str, frame: Any = None) -> pl.DataFrame:
    """The rows of the table called `name`, checked; none where there is no table.

    Raises
    ------
    SchemaError
        When the table does not fit its declared columns.
    """
    table = schema.table(name)
    return require(table, empty(table) if frame is None else as_frame(frame))


def believed(rows: pl.DataFrame, *thing: str) -> pl.DataFrame:
    """Of each `thing`, the rows of one source at one instant: the newest, or the last by name."""
    order = [name for name in ("ts", "source") if name in rows.columns]
    newest = rows.select(*thing, *order).sort(*thing, *order)
    newest = newest.unique(thing, keep="last", maintain_order=True)
    return rows.join(newest, on=[*thing, *order], how="semi", nulls_equal=True).sort(*thing)
