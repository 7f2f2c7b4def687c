"""Columns as rows of a declared table: constants spread out, what is absent left empty."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from undertow import schema
from undertow.state.conform import DTYPES, empty

SOURCE = "world"  # who says so, in every table that a world publishes
EVIDENCE = "modelled"


def rows(table: str, **columns: Any) -> pl.DataFrame:
    """Rows of `table` from columns and constants; times are microseconds.

    `source` and `evidence` are those of a world unless given; columns that may be empty are, where
    they are not named. NaN in a float column that may be empty means empty.
    """
    declared = schema.table(table)
    given = {"source": SOURCE, "evidence": EVIDENCE, **columns}
    lengths = [len(c) for c in columns.values() if isinstance(c, list | np.ndarray | pl.Series)]
    count = lengths[0] if lengths else 1
    built = []
    for column in declared.columns:
        value = given.get(column.name)
        dtype = DTYPES[column.kind]
        if isinstance(value, list | np.ndarray | pl.Series):
            series = pl.Series(value, dtype=None if len(value) else _stored(dtype))
        else:
            series = pl.repeat(value, count, dtype=_stored(dtype), eager=True)
        if column.null and series.dtype.is_float():
            series = series.fill_nan(None)
        built.append(series.cast(dtype).alias(column.name))
    return pl.DataFrame(built)


def from_tuples(table: str, names: tuple[str, ...], tuples: list[Any], **rest: Any) -> pl.DataFrame:
    """Rows of `table` from tuples in the order of `names`, and constants."""
    if not tuples:
        return empty(schema.table(table))
    columns = dict(zip(names, map(list, zip(*tuples, strict=True)), strict=True))
    return rows(table, **columns, **rest)


def _stored(dtype: pl.DataType) -> pl.DataType:
    """Instants are spread out as integers and cast."""
    return pl.Int64() if isinstance(dtype, pl.Datetime) else dtype
