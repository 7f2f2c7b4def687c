"""Any table that a user may hold, as a polars frame: Arrow-capable object, pandas, dict or path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from undertow.errors import SchemaError, UnreadableFile

if TYPE_CHECKING:
    from collections.abc import Callable

_READERS: dict[str, Callable[[Path], pl.DataFrame]] = {
    ".parquet": pl.read_parquet,
    # Cells stay text: whoever declares a column says what it is, so that `007` is not made 7.
    ".csv": lambda path: pl.read_csv(path, infer_schema=False),
    ".ndjson": lambda path: pl.read_ndjson(path, infer_schema_length=None),
    ".jsonl": lambda path: pl.read_ndjson(path, infer_schema_length=None),
    ".arrow": pl.read_ipc,
    ".feather": pl.read_ipc,
}


def as_frame(table: Any) -> pl.DataFrame:
    """`table` as one polars frame, whatever it was.

    Takes a polars frame or lazy frame, anything with `__arrow_c_stream__` (pyarrow, pandas 3,
    DuckDB relations, arro3), a mapping of columns, or the path of a Parquet, CSV, NDJSON or
    Arrow file.

    Raises
    ------
    SchemaError
        When it is none of these.
    UnreadableFile
        When the file is missing, damaged or of another format.
    """
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if isinstance(table, str | Path):
        return _read(Path(table))
    try:
        if isinstance(table, Mapping) or hasattr(table, "__arrow_c_stream__"):
            return pl.DataFrame(table)
        if hasattr(table, "to_dict") and hasattr(table, "columns"):  # pandas before 3
            return pl.DataFrame({str(name): list(table[name]) for name in table.columns})
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        raise SchemaError(
            f"the {type(table).__name__} cannot be read as a table: {str(error).splitlines()[0]}",
            hint="give columns of one length, each of one type",
        ) from error
    raise SchemaError(
        f"a table was expected, not {type(table).__name__}",
        hint="pass a polars or pandas frame, an Arrow stream, a dict of columns or a path",
    )


def _read(path: Path) -> pl.DataFrame:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UnreadableFile(
            f"the ending {path.suffix!r} is not known",
            source=path.name,
            hint=f"use one of {', '.join(_READERS)}",
        )
    try:
        return reader(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UnreadableFile(
            f"not readable as {path.suffix[1:]}: {first}",
            source=path.name,
            hint="check that the file is whole and that its ending says what it is",
        ) from error
