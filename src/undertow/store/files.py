"""A plain file as chunks of rows: CSV, TSV, NDJSON, Parquet and Arrow, each row with its number.

Values of text files stay text here, so that whoever casts them can name each that does not fit.
Rows that are no rows (a line of the wrong width, a line that is not JSON) come out as faults beside
the chunk. A file that cannot be read at all raises `UnreadableFile`, wherever in it that shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import polars as pl

from undertow.errors import SchemaError, UnreadableFile
from undertow.store.checksum import file_hash
from undertow.store.textscan import Scan, raw_record, scan_text
from undertow.store.unpack import Limits, Source

ROW = "__row"
TEXT_FORMATS = ("csv", "tsv", "ndjson")
_SEPARATORS = {"csv": ",", "tsv": "\t"}
_BOM = b"\xef\xbb\xbf"
_DAMAGED = "it is damaged or cut short; fetch or export it again"


@dataclass(frozen=True, slots=True)
class Fault:
    """A row that cannot be taken, as it came."""

    row: int
    column: str | None
    reason: str
    content: str


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Some rows of a file, numbered from 1 in the column `__row`, and the faults among them."""

    frame: pl.DataFrame
    faults: list[Fault]


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A file that looks whole so far: the hash of its content, and its rows, chunk by chunk."""

    digest: str
    chunks: Iterator[Chunk]


def open_file(source: Source, limits: Limits, *, rows: int, separator: str | None = None) -> Opened:
    """Look at the file's shape and size, and get ready to read `rows` rows at a time.

    Raises
    ------
    UnreadableFile
        When the file is not what its ending says, or is larger than the limits.
    """
    if source.format in _SEPARATORS:
        mark = separator or _SEPARATORS[source.format]
        scan = scan_text(source.path, source.name, limits, separator=mark)
        _check_header(source, scan, mark)
        return Opened(scan.digest, _csv_chunks(source, scan, mark, rows))
    if source.format == "ndjson":
        scan = scan_text(source.path, source.name, limits)
        return Opened(scan.digest, _ndjson_chunks(source, limits, rows))
    frame = _scan_binary(source)
    with readable(source):
        schema = frame.collect_schema()
        height = frame.select(pl.len()).collect().item()
    _check_schema(source, schema, height, limits)
    return Opened(file_hash(source.path), _binary_chunks(source, frame, schema, rows))


@contextmanager
def readable(source: Source) -> Iterator[None]:
    """Whatever a reader raises over a damaged file, in one line."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise _unreadable(source, error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _unreadable(source, error) from error


def _unreadable(source: Source, error: BaseException) -> UnreadableFile:
    if isinstance(error, PermissionError):
        return UnreadableFile(
            "may not be read", source=source.name, hint="give yourself permission to read the file"
        )
    lines = str(error).replace(str(source.path), source.name).strip().splitlines()
    what = lines[0][:200] if lines else type(error).__name__
    return UnreadableFile(
        f"not readable as {source.format}: {what}", source=source.name, hint=_DAMAGED
    )


def _even(frames: Iterator[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """The same rows in frames of exactly `rows`, so that batches fall where they fell last time."""
    pending: pl.DataFrame | None = None
    for frame in frames:
        pending = frame if pending is None else pl.concat([pending, frame])
        while pending.height >= rows:
            yield pending.head(rows)
            pending = pending.slice(rows)
    if pending is not None and pending.height:
        yield pending


def _check_header(source: Source, scan: Scan, separator: str) -> None:
    names = scan.header
    if not names or names == [""]:
        raise UnreadableFile(
            "the first line is no header", source=source.name, hint="name the columns in line 1"
        )
    for place, name in enumerate(names):
        if not name.strip():
            raise SchemaError(
                f"column {place + 1} has no name", source=source.name, hint="name it in line 1"
            )
        if names.index(name) != place:
            raise SchemaError(
                "two columns have this name",
                source=source.name,
                column=name,
                hint="rename or remove one of them",
            )
    other = next((m for m in ";\t|," if m != separator and m in names[0]), None)
    if len(names) == 1 and other:
        raise SchemaError(
            f"there is one column, and its name holds {other!r}",
            source=source.name,
            column=names[0],
            hint=f"say what separates fields in a mapping file: [text] separator = {other!r}",
        )


def _csv_chunks(source: Source, scan: Scan, separator: str, rows: int) -> Iterator[Chunk]:
    schema = dict.fromkeys(scan.header, pl.String())
    number = 0
    yield Chunk(pl.DataFrame(schema={ROW: pl.Int64(), **schema}), [])
    if scan.records <= 1:
        return
    with readable(source):
        lines = pl.scan_csv(
            source.path,
            separator=separator,
            schema=schema,
            infer_schema=False,
            truncate_ragged_lines=True,
            glob=False,
        )
        for frame in _even(iter(lines.collect_batches(chunk_size=rows, lazy=True)), rows):
            numbered = frame.with_row_index(ROW, offset=number + 1).cast({ROW: pl.Int64})
            skip = [r for r in scan.blank if number < r <= number + frame.height]
            bad = [r for r in scan.uneven if number < r <= number + frame.height]
            number += frame.height
            if skip or bad:
                numbered = numbered.filter(~pl.col(ROW).is_in(skip + bad))
            yield Chunk(numbered, [_uneven(source, scan, r) for r in bad])
    if number != scan.records - 1:
        raise UnreadableFile(
            f"has {scan.records - 1} rows by its line ends and {number} by its quotes",
            source=source.name,
            hint="a quote stands inside a field that is not quoted; double it",
        )


def _uneven(source: Source, scan: Scan, row: int) -> Fault:
    fields, begin, end = scan.uneven[row]
    reason = f"{fields} fields, and the header has {len(scan.header)}"
    return Fault(row, None, reason, raw_record(source.path, begin, end))


def _ndjson_chunks(source: Source, limits: Limits, rows: int) -> Iterator[Chunk]:
    kept: list[dict[str, str | None]] = []
    faults: list[Fault] = []
    names: dict[str, None] = {ROW: None}
    taken, number = 0, 0
    for number, line in _lines(source):
        row = _parsed(line)
        if isinstance(row, Fault):
            faults.append(Fault(number, row.column, row.reason, line))
            if len(faults) > limits.rejects:
                raise UnreadableFile(
                    f"more than {limits.rejects} lines are not JSON objects",
                    source=source.name,
                    hint="one JSON object per line is needed",
                )
            continue
        row[ROW] = str(number)
        names.update(dict.fromkeys(row))
        kept.append(row)
        taken += 1
        if len(kept) == rows:
            _check_width(source, names, limits)
            yield Chunk(_json_frame(kept, names), faults)
            kept, faults = [], []
    if not taken:
        raise UnreadableFile(
            "no line of it is a JSON object",
            source=source.name,
            row=number or None,
            hint='each line is one row, like {"ts": "2026-01-31T12:00:00Z", "price": 1.5}',
        )
    _check_width(source, names, limits)
    yield Chunk(_json_frame(kept, names), faults)


def _check_width(source: Source, names: dict[str, None], limits: Limits) -> None:
    if len(names) - 1 > limits.columns:
        raise UnreadableFile(
            f"has {len(names) - 1} columns, and {limits.columns} are taken",
            source=source.name,
            hint="drop columns",
        )


def _lines(source: Source) -> Iterator[tuple[int, str]]:
    """Numbered lines that are not blank; a file that is an array, or is cut short, is refused."""
    with source.path.open("rb") as stream:
        for number, raw in enumerate(stream, start=1):
            line = raw.removeprefix(_BOM) if number == 1 else raw
            text = line.decode().strip()
            if number == 1 and text.startswith("["):
                raise UnreadableFile(
                    "is one JSON array, not one object per line",
                    source=source.name,
                    hint="`jq -c '.[]'` turns it into lines",
                )
            if not raw.endswith(b"\n") and text and isinstance(_parsed(text), Fault):
                raise UnreadableFile(
                    "the last line is cut short", source=source.name, row=number, hint=_DAMAGED
                )
            if text:
                yield number, text


def _parsed(line: str) -> dict[str, str | None] | Fault:
    try:
        row = json.loads(
            line,
            parse_float=str,
            parse_int=str,
            parse_constant=str,
            object_pairs_hook=_pairs,
        )
    except (ValueError, RecursionError) as error:
        return Fault(0, None, f"not JSON: {error}", line)
    if not isinstance(row, dict):
        return Fault(0, None, "not a JSON object", line)
    for name, value in row.items():
        if isinstance(value, bool):
            row[name] = "true" if value else "false"
        elif isinstance(value, dict | list):
            kind = "an object" if isinstance(value, dict) else "a list"
            return Fault(0, name, f"one value was expected, not {kind}", line)
        elif isinstance(value, str) and "\ud800" <= max(value, default="") <= "\udfff":
            return Fault(0, name, "half a character (a lone surrogate)", line)
    return row


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return row


def _json_frame(rows: list[dict[str, str | None]], names: dict[str, None]) -> pl.DataFrame:
    frame = pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String()), orient="row")
    return frame.with_columns(pl.col(ROW).cast(pl.Int64))


def _scan_binary(source: Source) -> pl.LazyFrame:
    size = source.path.stat().st_size
    with readable(source), source.path.open("rb") as stream:
        head = stream.read(6)
        stream.seek(max(size - 6, 0))
        tail = stream.read()
    if source.format == "parquet":
        if head[:4] != b"PAR1":
            raise UnreadableFile(
                "is not Parquet, whatever its ending says",
                source=source.name,
                hint="give it the ending that says what it is",
            )
        if tail[-4:] != b"PAR1":
            raise UnreadableFile("is cut short", source=source.name, hint=_DAMAGED)
        return pl.scan_parquet(source.path, glob=False, hive_partitioning=False)
    if head[:4] == b"\xff\xff\xff\xff":
        with readable(source):
            return pl.read_ipc_stream(source.path).lazy()
    if head != b"ARROW1":
        raise UnreadableFile(
            "is not Arrow, whatever its ending says (Feather of version 1 is not read)",
            source=source.name,
            hint="write it again as Arrow IPC or Parquet",
        )
    if tail != b"ARROW1":
        raise UnreadableFile("is cut short", source=source.name, hint=_DAMAGED)
    with readable(source):
        return pl.scan_ipc(source.path, glob=False, hive_partitioning=False)


def _check_schema(source: Source, schema: pl.Schema, height: int, limits: Limits) -> None:
    if len(schema) > limits.columns or height > limits.rows:
        raise UnreadableFile(
            f"has {len(schema)} columns and {height} rows; "
            f"{limits.columns} and {limits.rows} are taken",
            source=source.name,
            hint="split the file",
        )
    for name, dtype in schema.items():
        if dtype.is_nested() or dtype in (pl.Binary, pl.Object, pl.Duration, pl.Time):
            raise SchemaError(
                f"holds {dtype}, and one value to a row is needed",
                source=source.name,
                column=name,
                hint="flatten or drop the column",
            )


def _binary_chunks(
    source: Source, frame: pl.LazyFrame, schema: pl.Schema, rows: int
) -> Iterator[Chunk]:
    words = [n for n, t in schema.items() if isinstance(t, pl.Categorical | pl.Enum)]
    number = 0
    yield Chunk(pl.DataFrame(schema={ROW: pl.Int64(), **schema}).with_columns(_words(words)), [])
    with readable(source):
        for part in _even(iter(frame.collect_batches(chunk_size=rows, lazy=True)), rows):
            numbered = part.with_row_index(ROW, offset=number + 1).cast({ROW: pl.Int64})
            number += part.height
            yield Chunk(numbered.with_columns(_words(words)), [])


def _words(names: list[str]) -> list[pl.Expr]:
    return [pl.col(name).cast(pl.String) for name in names]
