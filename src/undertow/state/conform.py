"""A frame against its declared table: every value cast and checked, every fault named.

A fault is one value that cannot be taken: its row (the first is 1), its column and the reason. The
state refuses a frame with any fault; ingestion keeps the good rows and stores the faults.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from undertow.errors import SchemaError
from undertow.schema import Column, Kind, Table

DTYPES: dict[Kind, pl.DataType] = {
    Kind.TEXT: pl.String(),
    Kind.INT: pl.Int64(),
    Kind.FLOAT: pl.Float64(),
    Kind.FLAG: pl.Boolean(),
    Kind.TIME: pl.Datetime("us", "UTC"),
}
_TRUE, _FALSE = ("true", "t", "yes", "1"), ("false", "f", "no", "0")
_ROW, _REASON = "__row", "__reason"
_LONGEST_NAME = 512
_CALENDAR = (-62_135_596_800_000_000, 253_402_300_799_999_999)  # microseconds, years 1 to 9999
# A key that walks folders or hides control characters is never a name.
_UNSAFE_TEXT = r"(^|[/\\])\.\.([/\\]|$)|^[/\\~]|[\x00-\x1f\x7f]"
_ZONED = r"(?i)(z|[+-]\d\d:?\d\d)$"


@dataclass(frozen=True, slots=True, eq=False)
class Conformed:
    """The rows that fit, in the order they came, and the faults of those that do not."""

    rows: pl.DataFrame
    faults: pl.DataFrame  # row, column, reason


def empty(table: Table) -> pl.DataFrame:
    """`table` without rows."""
    return pl.DataFrame(schema={c.name: DTYPES[c.kind] for c in table.columns})


def conform(table: Table, frame: pl.DataFrame, *, keys: bool = True) -> Conformed:
    """Cast and check `frame` against `table`; rows that do not fit come back as faults.

    With `keys`, a row whose key stood before is a fault too. Column order, chunking and the width
    of integers and floats do not matter.

    Raises
    ------
    SchemaError
        When columns are missing or undeclared: then no row can be trusted.
    """
    _require_columns(table, frame)
    rows = frame.height
    columns, reasons = [], []
    for column in table.columns:
        if column.name not in frame.columns:
            columns.append(
                pl.repeat(None, rows, dtype=DTYPES[column.kind], eager=True).alias(column.name)
            )
            continue
        cast, reason = _checked(column, frame[column.name], is_key=_names_something(table, column))
        columns.append(cast)
        if reason is not None:
            reasons.append((column.name, reason))
    whole = pl.DataFrame(columns)
    faults = _faults(reasons)
    if keys and table.key:
        faults = pl.concat([faults, _repeated(table, whole, faults)])
    if faults.is_empty():
        return Conformed(whole, faults)
    bad = pl.Series(faults["row"].unique()) - 1
    keep = pl.repeat(value=True, n=rows, eager=True).scatter(bad, values=False)
    return Conformed(whole.filter(keep), faults.sort("row", "column"))


def require(table: Table, frame: pl.DataFrame, *, keys: bool = True) -> pl.DataFrame:
    """`frame` cast to `table`, all of it.

    Raises
    ------
    SchemaError
        At the first fault, saying how many there are.
    """
    conformed = conform(table, frame, keys=keys)
    if conformed.faults.height:
        row, column, reason = conformed.faults.row(0)
        more = conformed.faults.height - 1
        tail = f" (and {more} more)" if more else ""
        raise SchemaError(
            f"{reason}{tail}", source=table.name, row=row, column=column, hint=_look(table)
        )
    return conformed.rows


def _look(table: Table) -> str:
    return f"`undertow schema {table.name}` says what the table takes"


def _require_columns(table: Table, frame: pl.DataFrame) -> None:
    known = set(table.column_names)
    extra = [name for name in frame.columns if name not in known]
    missing = [c.name for c in table.columns if not c.null and c.name not in frame.columns]
    if extra:
        raise SchemaError(
            f"{table.name} has no column {extra[0]!r}",
            column=extra[0],
            hint=f"rename or drop it; {_look(table)}",
        )
    if missing:
        raise SchemaError(
            f"{table.name} needs the column {missing[0]!r}; there are {', '.join(frame.columns)}",
            column=missing[0],
            hint=f"rename a column or give a constant; {_look(table)}",
        )


def _names_something(table: Table, column: Column) -> bool:
    return column.kind is Kind.TEXT and (
        column.name in table.key or column.name in table.partitions
    )


def _checked(
    column: Column, series: pl.Series, *, is_key: bool
) -> tuple[pl.Series, pl.Series | None]:
    """The cast column, and per row the reason why it cannot be taken (None where all can)."""
    if isinstance(series.dtype, pl.Categorical | pl.Enum):
        series = series.cast(pl.String)  # what it says, not the code that stands for it
    cast, uncast = _CASTS[column.kind](series)
    cast = cast.alias(column.name)
    reason = pl.lit(None, pl.String)
    checks: list[tuple[pl.Expr, pl.Expr]] = []
    value = pl.col(column.name)
    if uncast is not None and uncast.any():
        checks.append(
            (pl.col(_ROW), pl.format(_EXPECTED[column.kind] + ", not {}", pl.col(_REASON)))
        )
    if not column.null and cast.null_count():
        checks.append((value.is_null(), pl.lit("empty, and a value is needed")))
    checks.extend(_range_checks(column, cast, value))
    if column.kind is Kind.TEXT:
        checks.extend(_text_checks(column, cast, value, is_key=is_key))
    if not checks:
        return cast, None
    for fault, words in reversed(checks):
        reason = pl.when(fault).then(words).otherwise(reason)
    frame = pl.DataFrame(
        [
            cast,
            (uncast if uncast is not None else pl.repeat(False, len(cast), eager=True)).alias(_ROW),
            _shown(series).alias(_REASON),
        ]
    )
    return cast, frame.select(reason.alias(_REASON)).to_series()


def _shown(series: pl.Series) -> pl.Series:
    """Values as an error message quotes them."""
    if series.dtype.is_nested():
        return pl.repeat(str(series.dtype), len(series), eager=True)
    if series.dtype.is_temporal():  # a moment outside the calendar has no text; show its number
        number = series.to_physical().cast(pl.String)
        inside = series.set(~_within_calendar(series), None).cast(pl.String)
        return ("'" + inside.fill_null(number) + "'").fill_null("nothing")
    text = series if series.dtype == pl.String else series.cast(pl.String, strict=False)
    return ("'" + text.str.slice(0, 60) + "'").fill_null("nothing")


def _within_calendar(series: pl.Series) -> pl.Series:
    """Which moments lie in the years 1 to 9999, which is as far as text and files can say them."""
    if not isinstance(series.dtype, pl.Datetime):
        return pl.repeat(value=True, n=len(series), eager=True)
    largest = 2**63 - 1
    low, high = (
        {"ms": bound // 1_000, "us": bound, "ns": bound * 1_000}[series.dtype.time_unit]
        for bound in _CALENDAR
    )
    inside = series.to_physical().is_between(max(low, -largest), min(high, largest))
    return inside.fill_null(value=True)


def _range_checks(column: Column, cast: pl.Series, value: pl.Expr) -> list[tuple[pl.Expr, pl.Expr]]:
    checks: list[tuple[pl.Expr, pl.Expr]] = []
    if column.kind is Kind.FLOAT and not cast.is_finite().all():
        checks.append((~value.is_finite(), pl.format("{} is not a finite number", value)))
    if column.kind is Kind.TIME and not cast.to_physical().is_between(*_CALENDAR).all():
        outside = ~value.to_physical().is_between(*_CALENDAR)
        checks.append((outside, pl.lit("not an instant of the years 1 to 9999")))
    unit = f" {column.unit}" if column.unit not in ("", "1") else ""
    low, high = column.low, column.high
    least, most = (cast.min(), cast.max()) if low is not None or high is not None else (None, None)
    if low is not None and isinstance(least, int | float):
        if column.open_low and least <= low:
            words = pl.format(f"{{}} is not above {low:g}{unit}", value)
            checks.append((value <= low, words))
        elif not column.open_low and least < low:
            words = pl.format(f"{{}} is below {low:g}{unit}", value)
            checks.append((value < low, words))
    if high is not None and isinstance(most, int | float) and most > high:
        checks.append((value > high, pl.format(f"{{}} is above {high:g}{unit}", value)))
    return checks


def _text_checks(
    column: Column, cast: pl.Series, value: pl.Expr, *, is_key: bool
) -> list[tuple[pl.Expr, pl.Expr]]:
    present = cast.drop_nulls().unique()
    if column.choices:
        unknown = present.filter(~present.is_in(list(column.choices)))
        if unknown.is_empty():
            return []
        words = pl.format(f"'{{}}' is none of {', '.join(column.choices)}", value.str.slice(0, 60))
        return [(value.is_in(unknown.implode()), words)]
    checks: list[tuple[pl.Expr, pl.Expr]] = []
    if not column.null and (present.str.strip_chars() == "").any():
        checks.append((value.str.strip_chars() == "", pl.lit("empty, and a name is needed")))
    if (present.str.len_bytes() > _LONGEST_NAME).any() and is_key:
        words = pl.lit(f"longer than {_LONGEST_NAME} bytes")
        checks.append((value.str.len_bytes() > _LONGEST_NAME, words))
    if is_key and present.str.contains(_UNSAFE_TEXT).any():
        words = pl.lit("a name may not hold control characters, '..' or start like a path")
        checks.append((value.str.contains(_UNSAFE_TEXT), words))
    return checks


def _as_text(series: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    if series.dtype == pl.String:
        return series, None
    if series.dtype.is_float() or series.dtype.is_nested():
        return pl.repeat(None, len(series), dtype=pl.String, eager=True), series.is_not_null()
    return series.cast(pl.String), None


def _as_int(series: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    if series.dtype == pl.Int64:
        return series, None
    if series.dtype == pl.Boolean or series.dtype.is_nested() or series.dtype.is_temporal():
        return pl.repeat(None, len(series), dtype=pl.Int64, eager=True), series.is_not_null()
    source = series.str.strip_chars() if series.dtype == pl.String else series
    cast = source.cast(pl.Int64, strict=False)
    if series.dtype.is_decimal():
        cast = pl.select(pl.when(series == cast.cast(series.dtype)).then(cast)).to_series()
    if series.dtype.is_float():  # only whole numbers that a float holds exactly
        exact = (series == cast.cast(pl.Float64)) & (series.abs() <= 2.0**53)
        cast = pl.select(pl.when(exact).then(cast)).to_series()
    return cast, cast.is_null() & series.is_not_null() & ~_blank(series)


def _as_float(series: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    if series.dtype == pl.Float64:
        return series, None
    if series.dtype == pl.Boolean or series.dtype.is_nested() or series.dtype.is_temporal():
        return pl.repeat(None, len(series), dtype=pl.Float64, eager=True), series.is_not_null()
    source = series.str.strip_chars() if series.dtype == pl.String else series
    cast = source.cast(pl.Float64, strict=False)
    return cast, cast.is_null() & series.is_not_null() & ~_blank(series)


def _as_flag(series: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    if series.dtype == pl.Boolean:
        return series, None
    words = series.cast(pl.String, strict=False).str.to_lowercase().str.strip_chars()
    cast = pl.select(
        pl.when(words.is_in(list(_TRUE))).then(True).when(words.is_in(list(_FALSE))).then(False)
    ).to_series()
    return cast, cast.is_null() & series.is_not_null() & ~_blank(series)


def _as_time(series: pl.Series) -> tuple[pl.Series, pl.Series | None]:
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is not None:
        inside = _within_calendar(series)
        known = series if inside.all() else series.set(~inside, None)
        return known.dt.convert_time_zone("UTC").dt.cast_time_unit("us"), ~inside
    if series.dtype == pl.String:  # an instant must say its zone: row by row, so zones may differ
        zoned = series.str.contains(_ZONED)
        text = pl.select(pl.when(zoned).then(series.str.replace(r"(?i)z$", "+00:00"))).to_series()
        text = text.str.replace(r"^(\d{4}-\d\d-\d\d) ", "${1}T")
        cast = text.str.to_datetime(time_unit="us", time_zone="UTC", strict=False, format="%+")
        return cast, cast.is_null() & series.is_not_null() & ~_blank(series)
    nothing = pl.repeat(None, len(series), dtype=DTYPES[Kind.TIME], eager=True)
    return nothing, series.is_not_null()


def instants(series: pl.Series, *, source: str) -> pl.Series:
    """A column of instants as UTC microseconds.

    Raises
    ------
    SchemaError
        At the first value that is no instant or names no time zone.
    """
    cast, wrong = _as_time(series)
    bad = cast.is_null() if wrong is None else cast.is_null() | wrong
    if bad.any():
        row = int(bad.arg_true()[0])
        raise SchemaError(
            f"{_EXPECTED[Kind.TIME]}, not {_shown(series)[row]}",
            source=source,
            row=row + 1,
            column=series.name,
        )
    return cast


def _blank(series: pl.Series) -> pl.Series:
    if series.dtype == pl.String:
        return series.str.strip_chars() == ""
    return pl.repeat(value=False, n=len(series), eager=True)


_CASTS = {
    Kind.TEXT: _as_text,
    Kind.INT: _as_int,
    Kind.FLOAT: _as_float,
    Kind.FLAG: _as_flag,
    Kind.TIME: _as_time,
}
_EXPECTED = {
    Kind.TEXT: "a name was expected",
    Kind.INT: "a whole number was expected",
    Kind.FLOAT: "a number was expected",
    Kind.FLAG: "true or false was expected",
    Kind.TIME: "an instant with its time zone was expected (2026-01-31T12:00:00Z)",
}


def _faults(reasons: list[tuple[str, pl.Series]]) -> pl.DataFrame:
    schema = {"row": pl.Int64, "column": pl.String, "reason": pl.String}
    found = [
        pl.DataFrame({"row": where + 1, "reason": reason.gather(where)})
        .with_columns(pl.lit(name).alias("column"))
        .select(pl.col("row").cast(pl.Int64), "column", "reason")
        for name, reason in reasons
        if len(where := reason.is_not_null().arg_true())
    ]
    return pl.concat(found) if found else pl.DataFrame(schema=schema)


def _repeated(table: Table, whole: pl.DataFrame, faults: pl.DataFrame) -> pl.DataFrame:
    """Faults of rows that repeat the key of an earlier row; faulty rows are not counted again."""
    key = [*table.key, *(["ts"] if table.dated and "ts" not in table.key else [])]
    if "source" in table.column_names and "source" not in key:
        key.append("source")
    numbered = whole.select(key).with_row_index("row", offset=1)
    if faults.height:
        numbered = numbered.join(faults.select(pl.col("row").cast(pl.UInt32)), on="row", how="anti")
    if not numbered.select(key).is_duplicated().any():
        return faults.clear()
    first = pl.col("row").min().over(key)
    return (
        numbered.with_columns(first=first)
        .filter(pl.col("row") != pl.col("first"))
        .select(
            pl.col("row").cast(pl.Int64),
            pl.lit(table.key[0]).alias("column"),
            pl.format(f"the key ({', '.join(key)}) stands already in row {{}}", "first").alias(
                "reason"
            ),
        )
    )
