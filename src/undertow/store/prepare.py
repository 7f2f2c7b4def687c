"""A file read, mapped, cast and checked, and set aside on disk: all that comes before writing.

What comes out is either a whole file, good rows and faults apart, or an error; so a call that names
ten files writes nothing while any of them is damaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from undertow.errors import SchemaError, UnreadableFile
from undertow.schema import TABLES, Kind, Table
from undertow.schema import table as declared
from undertow.state.conform import conform, empty
from undertow.store.checks import key_hashes, repetitions, suspects
from undertow.store.checksum import content_hash
from undertow.store.files import ROW, Chunk, Fault, open_file
from undertow.store.mapping import ColumnMap, closest
from undertow.store.recast import NO_NUMBER, recast
from undertow.store.runs import REJECTS, RUNS
from undertow.store.unpack import Limits, Source

_OWN = (RUNS, REJECTS)
_TWINS = {"row": pl.Int64, "first": pl.Int64}
_SCHEMA = {"row": pl.Int64, "column": pl.String, "reason": pl.String, "content": pl.String}


@dataclass(slots=True)
class Prepared:
    """A file whose good rows wait on disk in batches."""

    source: Source
    table: Table
    mapping: ColumnMap
    run: str
    limits: Limits
    batches: list[Path] = field(default_factory=list)
    rejects: list[pl.DataFrame] = field(default_factory=list)
    rows: int = 0
    filtered: int = 0
    repeated: pl.Series = field(default_factory=lambda: pl.Series([], dtype=pl.Int64))
    twins: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=_TWINS))

    def frames(self) -> Iterator[pl.DataFrame]:
        """The rows that are good by themselves, batch by batch, numbered in `__row`."""
        for path in self.batches:
            yield pl.read_ipc(path)

    def without_repetitions(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows of a batch whose key does not stand in an earlier row of the file."""
        return frame.filter(~pl.col(ROW).is_in(self.repeated.implode()))


def table_for(source: Source, table: str | None, mapping: ColumnMap) -> Table:
    """The table that the file is meant for: as told, by the mapping, or by its name."""
    name = table or mapping.table or source.stem
    if table and mapping.table and table != mapping.table:
        raise SchemaError(
            f"the mapping is for {mapping.table}, and {table} was asked for",
            source=mapping.name,
            hint="name one of the two",
        )
    if name in _OWN:
        raise SchemaError(
            f"{name} is written by undertow alone", source=source.name, hint="ingest other tables"
        )
    if name not in TABLES and table is None and mapping.table is None:
        raise SchemaError(
            f"no table is called {name!r}",
            source=source.name,
            hint=f"name the table with --table or in a mapping file; {closest(name, TABLES)}",
        )
    return declared(name)


def prepare(
    source: Source,
    table: Table,
    mapping: ColumnMap,
    *,
    folder: Path,
    limits: Limits,
    batch_rows: int,
) -> Prepared:
    """Read all of the file, and set its good rows aside in `folder`.

    Raises
    ------
    UnreadableFile
        When the file is damaged, or nearly nothing of it fits.
    SchemaError
        When its columns are not those of the table.
    """
    folder.mkdir(parents=True)
    opened = open_file(source, limits, rows=batch_rows, separator=mapping.text.separator)
    run = content_hash([opened.digest, mapping.bound(table).digest, table.name])
    made = Prepared(source, table, mapping, run, limits)
    hashes: list[pl.DataFrame] = []
    count = 0
    for chunk in opened.chunks:
        made.rows += chunk.frame.height + len(chunk.faults)
        good, faults, filtered = _sorted_out(made, chunk)
        made.filtered += filtered
        _reject(made, faults, chunk.frame, chunk.faults)
        count += faults["row"].n_unique() + len(chunk.faults)
        if count > limits.rejects:
            raise UnreadableFile(
                f"more than {limits.rejects} rows cannot be taken, the first because: "
                f"{made.rejects[0]['reason'][0]}",
                source=source.name,
                hint="a mapping file is needed, or another one",
            )
        if good.is_empty():
            continue
        hashes.append(key_hashes(table, good))
        path = folder / f"{len(made.batches)}.arrow"
        good.write_ipc(path)
        made.batches.append(path)
    _refuse_repetitions(made, suspects(hashes))
    return made


def _sorted_out(made: Prepared, chunk: Chunk) -> tuple[pl.DataFrame, pl.DataFrame, int]:
    """Good rows of a chunk, faults of the others, and how many the filters left out."""
    frame = chunk.frame
    if made.source.format == "ndjson":
        frame = _with_gaps(frame, made)
    taken = recast(made.table, made.mapping, frame, made.source.name)
    numbers = taken[ROW]
    conformed = conform(made.table, taken.drop(ROW), keys=False)
    faults = conformed.faults.with_columns(numbers.gather(conformed.faults["row"] - 1).alias("row"))
    faults = _explained(made, faults, taken)
    kept = numbers.filter(~numbers.is_in(faults["row"].unique().implode()))
    good = conformed.rows.with_columns(kept.alias(ROW))
    return good, faults, frame.height - taken.height


def _explained(made: Prepared, faults: pl.DataFrame, taken: pl.DataFrame) -> pl.DataFrame:
    """The same faults, with what to declare where a bare number was given for an instant."""
    reason = pl.col("reason").str.replace_all(NO_NUMBER, "", literal=True)
    for column in made.table.columns:
        if column.kind is not Kind.TIME or column.name not in taken.columns:
            continue
        dtype = taken[column.name].dtype
        if column.name in made.mapping.times or not (dtype == pl.String or dtype.is_numeric()):
            continue
        here = pl.col("column") == column.name
        for unit, digits in (("s", 10), ("ms", 13), ("us", 16), ("ns", 19)):
            epoch = pl.col("reason").str.contains(rf"not '\d{{{digits}}}(\.\d+)?'$")
            hint = f'; declare [time] {column.name} = {{ unit = "{unit}" }} in a mapping file'
            reason = (
                pl.when(here & epoch).then(pl.concat_str(reason, pl.lit(hint))).otherwise(reason)
            )
    return faults.with_columns(reason.alias("reason"))


def _with_gaps(frame: pl.DataFrame, made: Prepared) -> pl.DataFrame:
    """An object may leave a name out: then the row lacks the value, and not the file the column."""
    if not made.batches and not made.rejects:
        return frame
    wanted = {c.name: made.mapping.columns.get(c.name, c.name) for c in made.table.columns}
    given = {*made.mapping.constants, *made.mapping.keys}
    absent = [s for t, s in wanted.items() if t not in given and s not in frame.columns]
    return frame.with_columns(pl.lit(None, pl.String).alias(name) for name in absent)


def _refuse_repetitions(made: Prepared, rows: pl.Series) -> None:
    if rows.is_empty():
        return
    doubtful = [f.filter(pl.col(ROW).is_in(rows.implode())) for f in made.frames()]
    twins, faults = repetitions(made.table, pl.concat(doubtful))
    made.twins = twins.cast(_TWINS)  # type: ignore[arg-type]
    made.repeated = pl.concat([made.twins["row"], faults["row"].cast(pl.Int64)])
    late_rejects(made, faults)


def late_rejects(made: Prepared, faults: pl.DataFrame) -> None:
    """Refuse rows that were good by themselves; they are read from the file again, as they came."""
    if faults.is_empty():
        return
    rows = faults["row"].unique()
    again = open_file(made.source, made.limits, rows=1 << 16, separator=made.mapping.text.separator)
    for chunk in again.chunks:
        part = chunk.frame.filter(pl.col(ROW).is_in(rows.implode()))
        if part.height:
            mine = faults.filter(pl.col("row").is_in(part[ROW].implode()))
            _reject(made, mine, part, [])


def _reject(
    made: Prepared, faults: pl.DataFrame, frame: pl.DataFrame, unread: Iterable[Fault]
) -> None:
    """Note faults with the rows as they came; the faults of one row become one reject."""
    if faults.height:
        bad = faults.group_by("row", maintain_order=True).agg(
            pl.col("column").first(),
            pl.when(pl.len() == 1)
            .then(pl.col("reason").first())
            .otherwise(pl.format("{}: {}", "column", "reason").str.join("; "))
            .alias("reason"),
        )
        as_came = _content(frame.filter(pl.col(ROW).is_in(bad["row"].implode())))
        joined = bad.join(as_came, left_on="row", right_on=ROW, how="left", maintain_order="left")
        made.rejects.append(joined.select(list(_SCHEMA)).cast(dict(_SCHEMA)))  # type: ignore[arg-type]
    rows = [(f.row, f.column, f.reason, f.content) for f in unread]
    if rows:
        made.rejects.append(pl.DataFrame(rows, schema=_SCHEMA, orient="row"))


def _content(frame: pl.DataFrame) -> pl.DataFrame:
    """Row numbers, and each row as JSON; numbers that JSON cannot spell are spelled as text."""
    odd = [n for n, t in frame.schema.items() if t.is_float() and not frame[n].is_finite().all()]
    spelled = frame.with_columns(pl.col(odd).cast(pl.String)) if odd else frame
    names = [name for name in frame.columns if name != ROW]
    if not names:
        return frame.select(ROW, pl.lit("{}").alias("content"))
    return spelled.select(ROW, pl.struct(names).struct.json_encode().alias("content"))


def all_rejects(made: Prepared) -> pl.DataFrame:
    """Every row of the file that was refused: row, column, reason, content."""
    if not made.rejects:
        return pl.DataFrame(schema=_SCHEMA)
    return pl.concat(made.rejects).sort("row")


def reject_rows(made: Prepared, now: int) -> pl.DataFrame:
    """The refused rows as the table `rejects` keeps them."""
    table = declared(REJECTS)
    found = all_rejects(made)
    if found.is_empty():
        return empty(table)
    return found.with_columns(
        pl.lit(now).cast(pl.Datetime("us", "UTC")).alias("ts"),
        pl.lit(made.run).alias("run_of"),
        pl.lit(made.table.name).alias("table"),
        pl.lit(made.source.name).alias("file"),
    ).select(table.column_names)
