"""Hashes of content: of the rows in a data file, and of what a run is made of.

A checksum of rows does not depend on their order, on how they lie in memory or on the version of
any library: rows are put in the order of what names them, and each column's plain bytes are hashed.
Checksums of several files add up (modulo 2^64), so a run needs to remember one number per table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from undertow.schema import Kind, Table

WRAP = 1 << 64
_CHUNK = 1 << 20


def checksum(table: Table, rows: pl.DataFrame, *, ordered: bool = False) -> int:
    """A 64-bit number that changes with any stored value of `rows`.

    No two of the rows have the same key, instant and source; `ordered` rows stand in that order.
    """
    digest = hashlib.blake2b(digest_size=8)
    names = [n for n in (*table.key, "ts", "source") if n in table.column_names]
    if not ordered and rows.height > 1:
        rows = rows.sort(list(dict.fromkeys(names)), nulls_last=True)
    for column in table.columns:
        series = rows[column.name]
        digest.update(column.name.encode())
        digest.update(np.packbits(series.is_null().to_numpy()).tobytes())
        if column.kind is Kind.TEXT:
            digest.update(series.fill_null("").str.join("\x1f").item().encode())
        elif column.kind is Kind.FLOAT:
            digest.update(series.fill_null(0.0).to_numpy().astype("<f8").tobytes())
        elif column.kind is Kind.FLAG:
            digest.update(np.packbits(series.fill_null(value=False).to_numpy()).tobytes())
        else:
            digest.update(series.to_physical().fill_null(0).to_numpy().astype("<i8").tobytes())
    return int.from_bytes(digest.digest(), "big")


def pieces(table: Table, rows: pl.DataFrame) -> list[pl.DataFrame]:
    """`rows` as they will be split into files: one piece for each partition."""
    if not table.partitions:
        return [rows] if rows.height else []
    return rows.partition_by(list(table.partitions), maintain_order=True)


def content_hash(parts: Iterable[str | bytes]) -> str:
    """The name of a run: 32 hexadecimal digits that its content alone decides."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "big"))
        digest.update(data)
    return digest.hexdigest()


def file_hash(path: Path) -> str:
    """The hash of a file's bytes."""
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
