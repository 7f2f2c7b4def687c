"""A mapping applied: the columns of a file become the columns of a table, value for value.

A value that cannot be understood is left as it came, so that the check that follows names it with
its row; nothing turns into a gap by being misread.
"""

from __future__ import annotations

import polars as pl

from undertow.errors import SchemaError, UnusableMapping
from undertow.schema import Column, Kind, Table, integer_key
from undertow.store.files import ROW
from undertow.store.mapping import EPOCHS, ColumnMap, Part, TextRules, Unit, When, closest

NO_NUMBER = "\ue000"  # before a text that reads as a number and, by the mapping, is none
_PLAIN_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)\s*$"
_ZONED = r"(?i)(z|[+-]\d\d:?\d\d)\s*$"
_NAIVE_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
)
_ISO = "%Y-%m-%dT%H:%M:%S%.6fZ"
_UTC = pl.Datetime("us", "UTC")


def recast(table: Table, mapping: ColumnMap, frame: pl.DataFrame, file: str) -> pl.DataFrame:
    """`frame` with the columns of `table`, and `__row`; rows that filters leave out are gone.

    Raises
    ------
    UnusableMapping
        When the mapping names a column that the file does not have.
    SchemaError
        When the file has a column that nothing says what to do with, or lacks one that is needed.
    """
    sources = [name for name in frame.columns if name != ROW]
    _require_sources(mapping, sources, file)
    for name, kept in mapping.filters.items():
        frame = frame.filter(pl.col(name).cast(pl.String).is_in(list(kept)))
    made = {target: _derived(frame, parts) for target, parts in mapping.keys.items()}
    taken = _pairing(table, mapping, sources, file)
    columns = [frame[ROW]]
    for column in table.columns:
        if column.name in made:
            columns.append(made[column.name].alias(column.name))
        elif column.name in taken:
            series = _gaps(frame[taken[column.name]], mapping.text)
            columns.append(_value(table, mapping, column, series).alias(column.name))
        elif column.name in mapping.constants:
            columns.append(_constant(mapping.constants[column.name], frame.height, column.name))
    return pl.DataFrame(columns)


def _require_sources(mapping: ColumnMap, sources: list[str], file: str) -> None:
    parts = [p.column for key in mapping.keys.values() for p in key if p.column is not None]
    for name in (*mapping.columns.values(), *mapping.filters, *parts):
        if name not in sources:
            raise UnusableMapping(
                f"the mapping reads column {name!r}, and {file} has none of that name",
                source=mapping.name or None,
                column=name,
                hint=closest(name, sources),
            )


def _pairing(table: Table, mapping: ColumnMap, sources: list[str], file: str) -> dict[str, str]:
    """Which source column each target is read from."""
    taken = dict(mapping.columns)
    used = {*taken.values(), *mapping.drop, *mapping.filters}
    used |= {p.column for key in mapping.keys.values() for p in key if p.column is not None}
    decided = {*taken, *mapping.constants, *mapping.keys}
    for name in sources:
        if name in table.column_names and name not in decided and name not in mapping.drop:
            taken[name] = name
        elif name not in used and not mapping.ignore_others:
            clash = name in mapping.constants
            near = closest(name, table.column_names)
            raise SchemaError(
                "the mapping gives a constant for it too"
                if clash
                else f"{table.name} has no such column",
                source=file,
                column=name,
                hint=f"{near}{'' if near.endswith('?') else ';'} rename it, drop it, or map it",
            )
    for column in table.columns:
        if not column.null and column.name not in {*taken, *mapping.constants, *mapping.keys}:
            raise SchemaError(
                f"{table.name} needs this column, and the file has {', '.join(sources)}",
                source=file,
                column=column.name,
                hint="add it, or give it as a constant in a mapping file",
            )
    return taken


def _derived(frame: pl.DataFrame, parts: tuple[Part, ...]) -> pl.Series:
    """The integer keys of the names in `parts`; a name that is missing gives no key."""
    labels = pl.DataFrame(
        [
            (
                frame[p.column].cast(pl.String)
                if p.column is not None
                else pl.repeat(p.constant, frame.height, dtype=pl.String, eager=True)
            ).alias(str(place))
            for place, p in enumerate(parts)
        ]
    )
    label = str(len(parts) - 2) if len(parts) > 1 else "0"
    labels = labels.with_columns(pl.col(label).str.strip_chars().str.to_lowercase())
    blank = pl.any_horizontal(pl.all().is_null() | (pl.all().str.strip_chars() == ""))
    unique = labels.unique(maintain_order=True).filter(~blank)
    keys = [integer_key(*names) for names in unique.iter_rows()]
    unique = unique.with_columns(pl.Series("key", keys, dtype=pl.Int64))
    return labels.join(unique, on=labels.columns, how="left", maintain_order="left")["key"]


def _gaps(series: pl.Series, rules: TextRules) -> pl.Series:
    """Gaps as gaps: an empty text, and what the mapping says is one."""
    if series.dtype != pl.String:
        return series
    return series.set(series.is_in(["", *rules.nulls]), None)


def _constant(value: object, rows: int, name: str) -> pl.Series:
    return pl.Series([value], strict=False).new_from_index(0, rows).alias(name)


def _value(table: Table, mapping: ColumnMap, column: Column, series: pl.Series) -> pl.Series:
    number = column.kind in (Kind.FLOAT, Kind.INT)
    if number and series.dtype == pl.String:
        series = _dotted(series, mapping.text)
    if column.name in mapping.units:
        series = _scaled(series, mapping.unit(table, column.name), column.kind)
    if column.name in mapping.times:
        series = _instant(series, mapping.times[column.name])
    return series


def _dotted(series: pl.Series, rules: TextRules) -> pl.Series:
    """Numbers spelled with a point and nothing else."""
    if rules.decimal == "." and not rules.thousands:
        return series
    text = pl.Series.to_frame(series.alias("x")).lazy()
    bare = pl.col("x").str.strip_chars()
    if rules.thousands:
        group, point = _escaped(rules.thousands), _escaped(rules.decimal)
        grouped = rf"^[+-]?\d{{1,3}}({group}\d{{3}})*({point}\d+)?$"
        joined = bare.str.replace_all(rules.thousands, "", literal=True)
        bare = pl.when(bare.str.contains(grouped)).then(joined).otherwise(bare)
    if rules.decimal == ",":  # a point is then no decimal point: leave it, and it will be refused
        swapped = bare.str.replace(",", ".", literal=True)
        bare = (
            pl.when(~bare.str.contains(".", literal=True)).then(swapped).otherwise(NO_NUMBER + bare)
        )
    return text.select(bare).collect().to_series()


def _escaped(mark: str) -> str:
    return "\\" + mark if mark in ".'" else mark


def _scaled(series: pl.Series, unit: Unit, kind: Kind) -> pl.Series:
    """Numbers in the table's unit; a power of ten is applied to the digits of a text, exactly."""
    x = pl.col("x")
    frame = series.alias("x").to_frame()
    if series.dtype == pl.String:
        bare = x.str.strip_chars()
        shifted = pl.when(x.str.contains(_PLAIN_NUMBER)).then(bare + f"e{unit.power}")
        value = bare.cast(pl.Float64, strict=False)
        number = pl.coalesce(shifted.cast(pl.Float64, strict=False), _powered(value, unit.power))
        kept = _factored(number, unit)
        words = kept.cast(pl.String)
        if kind is Kind.INT:
            exact = (kept == kept.round(0)) & (kept.abs() < 2.0**63)
            words = pl.when(exact).then(kept.cast(pl.Int64, strict=False).cast(pl.String))
            words = words.otherwise(kept.cast(pl.String))
        elif unit.times == unit.over:
            words = pl.coalesce(shifted, words)
        known = value.is_not_null() & value.is_finite()
        return frame.select(pl.when(known).then(words).otherwise(x)).to_series()
    if not series.dtype.is_numeric():
        return series  # the check that follows says that a number was expected
    number = _powered(x.cast(pl.Float64), unit.power)
    return frame.select(_factored(number, unit)).to_series()


def _factored(value: pl.Expr, unit: Unit) -> pl.Expr:
    if unit.over > unit.times:
        return value / (unit.over / unit.times)
    return value * (unit.times / unit.over)


def _powered(value: pl.Expr, power: int) -> pl.Expr:
    return value * 10.0**power if power > 0 else value / 10.0**-power


def _instant(series: pl.Series, when: When) -> pl.Series:
    frame = series.alias("x").to_frame()
    if when.unit is not None:
        if series.dtype != pl.String and not series.dtype.is_numeric():
            return series
        return frame.select(_epoch(pl.col("x"), series.dtype, when.unit)).to_series()
    zone = when.zone or "UTC"
    if series.dtype == pl.String:
        return frame.select(_spelled(pl.col("x"), when, zone)).to_series()
    if isinstance(series.dtype, pl.Datetime) and series.dtype.time_zone is None:
        local = _located(pl.col("x"), zone)
        missing = frame.select(local.is_null() & pl.col("x").is_not_null()).to_series().any()
        return series.cast(pl.String) if missing else frame.select(local).to_series()
    return series


def _epoch(x: pl.Expr, dtype: pl.DataType, unit: str) -> pl.Expr:
    """An epoch as text in ISO form; what is no number stays as it was."""
    number = x.str.strip_chars() if dtype == pl.String else x
    whole = number.cast(pl.Int64, strict=False)
    whole = pl.when(whole.cast(pl.Float64) == number.cast(pl.Float64, strict=False)).then(whole)
    broken = number.cast(pl.Float64, strict=False)
    if unit == "ns":
        micros = whole // 1000
        rounded = broken / 1000
    else:
        micros = whole * EPOCHS[unit]
        rounded = broken * EPOCHS[unit]
    year_9999 = 253_402_300_800_000_000
    inside = rounded.abs() < year_9999
    near = rounded.round(0).cast(pl.Int64, strict=False)
    exact = pl.when(inside & micros.is_not_null()).then(micros).when(inside).then(near)
    text = exact.cast(_UTC).dt.strftime(_ISO)
    return pl.coalesce(text, x.cast(pl.String, strict=False))


def _spelled(x: pl.Expr, when: When, zone: str) -> pl.Expr:
    """Text in a format, or in ISO form without a zone, as text in ISO form with one."""
    bare = x.str.strip_chars()
    if when.format is not None and "%z" in when.format:
        utc = bare.str.to_datetime(when.format, time_unit="us", time_zone="UTC", strict=False)
        return pl.coalesce(utc.dt.strftime(_ISO), x)
    formats = (when.format,) if when.format is not None else _NAIVE_FORMATS
    naive = pl.coalesce([_parsed(bare, each) for each in formats])
    text = _located(naive, zone).dt.strftime(_ISO)
    if when.format is None:
        text = pl.when(~bare.str.contains(_ZONED)).then(text)
    return pl.coalesce(text, x)


def _parsed(x: pl.Expr, spelling: str) -> pl.Expr:
    if any(mark in spelling for mark in ("%H", "%I", "%T", "%X", "%R", "%s")):
        return x.str.to_datetime(spelling, time_unit="us", strict=False)
    return x.str.to_date(spelling, strict=False).cast(pl.Datetime("us"))


def _located(naive: pl.Expr, zone: str) -> pl.Expr:
    """A wall clock's time in UTC; an hour that a clock change skips or repeats is no instant."""
    there = naive.dt.cast_time_unit("us").dt.replace_time_zone(
        zone, ambiguous="null", non_existent="null"
    )
    return there.dt.convert_time_zone("UTC")
