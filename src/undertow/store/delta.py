"""One Delta table on disk for each declared table: where it lies, how it opens, how it grows.

Every commit is an append that carries a transaction: the run that brought it and the number of
the batch. A writer looks for its own transaction and appends through the same handle; where
another process was quicker with the same transaction, Delta refuses the commit, the writer looks
again, finds the batch in place and goes on. So a batch lands once, whoever writes it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import polars as pl
from deltalake import (
    CommitProperties,
    DeltaTable,
    Field,
    PostCommitHookProperties,
    Schema,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import PrimitiveType

from undertow.errors import DamagedLake, StoreError, UndertowError
from undertow.schema import Kind, Table
from undertow.schema import table as declared
from undertow.state.conform import DTYPES

FORMAT = "1"
FORMAT_KEY = "undertow.format"
RUN = "run"
_KINDS = {
    Kind.TEXT: "string",
    Kind.INT: "long",
    Kind.FLOAT: "double",
    Kind.FLAG: "boolean",
    Kind.TIME: "timestamp",
}
# Every version stays readable: a run names versions, and a run may be asked for years later.
_FOREVER = {
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": "20",
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.deletedFileRetentionDuration": "interval 36500 days",
}
_TRIES = 60
_BROKEN = (DeltaError, OSError, pl.exceptions.PolarsError)
KEEP_LOG = PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False)
WRITER = WriterProperties(compression="ZSTD", compression_level=1)


def stored_schema(table: Table) -> dict[str, pl.DataType]:
    """Columns and types of `table` as it lies on disk, with the run that brought each row."""
    return {c.name: DTYPES[c.kind] for c in table.columns} | {RUN: pl.String()}


@dataclass(frozen=True, slots=True)
class Root:
    """Where a lake lies: a local folder or the address of an object store."""

    uri: str
    storage_options: Mapping[str, str] | None = field(default=None, repr=False)

    @property
    def folder(self) -> Path | None:
        """The local folder, or None for an object store."""
        if re.match(r"^[a-zA-Z][a-zA-Z0-9+.-]+://", self.uri):
            return None
        return Path(self.uri)

    @property
    def options(self) -> dict[str, str] | None:
        """What the object store asks for, as a fresh dictionary."""
        return dict(self.storage_options) if self.storage_options else None

    def table_uri(self, name: str) -> str:
        """Where the table called `name` lies."""
        return f"{self.uri.rstrip('/')}/{name}"

    def open(self, name: str, version: int | None = None) -> DeltaTable | None:
        """The table called `name`, or None where nothing was ever written to it."""
        with damage(name):
            try:
                return DeltaTable(
                    self.table_uri(name), version=version, storage_options=self.options
                )
            except TableNotFoundError:
                return None
            except OSError as error:
                if self.folder is not None:
                    raise
                raise StoreError(
                    f"the object store does not answer as it should: {in_short(error)}",
                    source=self.uri,
                    hint="check the address, the region and the keys",
                ) from error

    def at_version(self, name: str, version: int) -> DeltaTable:
        """The table called `name` at a version that a run names."""
        handle = self.open(name, version)
        if handle is None:
            raise _gone(name)
        return handle

    def at_least(self, name: str) -> DeltaTable:
        """The newest version of a table that a run names, which therefore exists."""
        handle = self.open(name)
        if handle is None:
            raise _gone(name)
        return handle

    def ensure(self, name: str) -> DeltaTable:
        """The table called `name`, made if need be; two processes may try at once."""
        handle = self.open(name)
        if handle is not None:
            return handle
        table = declared(name)
        fields = [
            Field(c.name, PrimitiveType(_KINDS[c.kind]), nullable=True) for c in table.columns
        ]
        if RUN not in table.column_names:
            fields.append(Field(RUN, PrimitiveType("string"), nullable=True))
        try:
            return DeltaTable.create(
                self.table_uri(name),
                Schema(fields),
                mode="error",
                partition_by=list(table.partitions),
                name=name,
                configuration={**_FOREVER, FORMAT_KEY: FORMAT},
                storage_options=self.options,
                raise_if_key_not_exists=False,
            )
        except (DeltaError, OSError) as error:
            handle = self.open(name)  # another process may have made it in the meantime
            if handle is None:
                raise unwritable(name, error) from error
            return handle


@contextmanager
def damage(name: str) -> Iterator[None]:
    """Whatever goes wrong inside while a table is read is damage to the lake, in one line."""
    try:
        yield
    except (TableNotFoundError, UndertowError):
        raise
    except (*_BROKEN, ValueError, TypeError, LookupError) as error:
        raise _damaged(name, error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _damaged(name, error) from error


def _gone(name: str) -> DamagedLake:
    return DamagedLake(
        "the table is named by a run, and it is gone",
        source=name,
        hint="restore the folder from a copy",
    )


def _damaged(name: str, error: BaseException) -> DamagedLake:
    return DamagedLake(
        f"its files and its log disagree: {in_short(error)}",
        source=name,
        hint="`undertow lake verify` lists what is broken; restore those files from a copy",
    )


def unwritable(name: str, error: BaseException) -> StoreError:
    """The error of a table that could not be written; what stood before still stands."""
    return StoreError(
        f"could not be written: {in_short(error)}",
        source=name,
        hint="check space and permissions and run the same command again; it goes on where it was",
    )


def in_short(error: BaseException) -> str:
    """An error's message on one line, short enough for a terminal and without its colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    return " ".join(plain.split())[:300] or type(error).__name__


def pause(attempt: int) -> None:
    """Wait a little longer after each lost race."""
    time.sleep(0.005 * 2 ** min(attempt, 6))


def append(
    root: Root,
    name: str,
    rows: pl.DataFrame,
    *,
    run: str,
    batch: int,
    lineage: Mapping[str, Any],
    marks: Mapping[str, int] | None = None,
) -> int:
    """Append batch number `batch` of `run` unless it is there; the version that holds it.

    `marks` are further transactions that are recorded with it, and that no other commit may
    touch between the look and the append.

    Raises
    ------
    StoreError
        When the disk refuses, or when other writers were quicker every time.
    """
    for attempt in range(_TRIES):
        handle = root.ensure(name)
        done = handle.transaction_version(run)
        if done is not None and done >= batch:
            return handle.version()
        try:
            return commit(handle, rows, {run: batch, **(marks or {})}, {RUN: run, **lineage})
        except CommitFailedError:
            pause(attempt)
        except (DeltaError, OSError) as error:
            raise unwritable(name, error) from error
    raise StoreError(
        f"other writers were quicker {_TRIES} times in a row",
        source=name,
        hint="run the same command again; it goes on where it was",
    )


def commit(
    handle: DeltaTable,
    rows: pl.DataFrame,
    transactions: Mapping[str, int],
    lineage: Mapping[str, Any],
) -> int:
    """Append `rows` through `handle` in one commit; the new version."""
    known = {f.name for f in handle.schema().fields}
    write_deltalake(
        handle,
        rows,
        mode="append",
        schema_mode=None if known.issuperset(rows.columns) else "merge",
        writer_properties=WRITER,
        target_file_size=1 << 31,
        commit_properties=properties(lineage, transactions),
        post_commithook_properties=KEEP_LOG,
    )
    return handle.version()


def properties(
    lineage: Mapping[str, Any], transactions: Mapping[str, int] | None = None
) -> CommitProperties:
    """What a commit says about itself: lineage, and the transactions that make it unique."""
    marks = [Transaction(name, version) for name, version in (transactions or {}).items()]
    return CommitProperties(custom_metadata=dict(lineage), app_transactions=marks)


def data_files(root: Root, name: str, handle: DeltaTable) -> pl.DataFrame:
    """The data files of a table at a version, with the statistics that its log keeps.

    Columns: `uri`, `size`, `rows`, `from_run`, `to_run`, one `min.…` and `max.…` for each column,
    and `partition.…`. Instants in `max.…` are cut to milliseconds.
    """
    with damage(name):
        return _data_files(root.table_uri(name), declared(name), handle)


def _data_files(base: str, table: Table, handle: DeltaTable) -> pl.DataFrame:
    found = pl.DataFrame(handle.get_add_actions(flatten=True))
    paths = [unquote(path) for path in found["path"]]
    nothing = pl.lit(None)
    wanted = [
        pl.Series("uri", [f"{base}/{path}" for path in paths], dtype=pl.String),
        pl.col("size_bytes").cast(pl.Int64).alias("size"),
        pl.col("num_records").cast(pl.Int64).alias("rows"),
    ]
    for bound, label in (("min", "from_run"), ("max", "to_run")):
        have = f"{bound}.{RUN}" in found.columns
        wanted.append((pl.col(f"{bound}.{RUN}") if have else nothing).cast(pl.String).alias(label))
    for column in table.columns:
        dtype = DTYPES[column.kind]
        for bound in ("min", "max"):
            key = f"{bound}.{column.name}"
            have = key in found.columns and column.kind is not Kind.FLAG
            wanted.append((pl.col(key) if have else nothing).cast(dtype, strict=False).alias(key))
    wanted += [pl.col(f"partition.{p}").cast(pl.String) for p in table.partitions]
    first = f"min.{table.key[0]}" if table.key[0] not in table.partitions else "uri"
    return found.select(wanted).sort(first, "uri", nulls_last=True)
