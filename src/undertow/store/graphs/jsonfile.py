"""A dependency map as one JSON object: format, ts, digest, then nodes and edges, a row a line."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from undertow.errors import UnreadableFile
from undertow.store.graphs.form import (
    DAMAGED,
    EDGE_COLUMNS,
    NODE_COLUMNS,
    Plain,
    frame_of,
    require_format,
)

_ROWS = 50_000  # that are spelled at a time


def write(plain: Plain, path: Path) -> None:
    """Write a file, some rows at a time."""
    with path.open("wb") as out:
        head = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in plain.head.items())
        out.write(b"{" + head.encode())
        _write_rows(out, "nodes", plain.nodes)
        _write_rows(out, "edges", plain.edges.drop("ts"))
        out.write(b"}\n")


def _write_rows(out: BinaryIO, name: str, frame: pl.DataFrame) -> None:
    out.write(f',\n"{name}": ['.encode())
    for first in range(0, frame.height, _ROWS):
        lines = BytesIO()
        frame.slice(first, _ROWS).write_ndjson(lines)
        out.write(b",\n" if first else b"\n")
        out.write(lines.getvalue().rstrip(b"\n").replace(b"\n", b",\n"))
    out.write(b"]")


def read(path: Path, name: str) -> Plain:
    """Read a file, ours or one from elsewhere."""
    told = _object(path, name)
    require_format(told.get("format"), name)
    nodes = _rows(told, "nodes", name)
    edges = _rows(told, "edges", name)
    for row in nodes:
        if "node" not in row and "id" in row:
            row["node"] = row["id"]
    head = {key: told.get(key) for key in ("format", "ts", "digest")}
    return Plain(
        head, _frame(nodes, NODE_COLUMNS, "node", name), _frame(edges, EDGE_COLUMNS, "edge", name)
    )


def _object(path: Path, name: str) -> dict[str, Any]:
    try:
        told = json.loads(path.read_bytes().decode("utf-8-sig"), parse_constant=_no_number)
    except UnicodeDecodeError as error:
        raise UnreadableFile(
            f"is not UTF-8 at byte {error.start + 1}", source=name, hint="save it as UTF-8"
        ) from error
    except json.JSONDecodeError as error:
        raise UnreadableFile(
            f"is not JSON at line {error.lineno}: {error.msg}", source=name, hint=DAMAGED
        ) from error
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(
            f"is not usable as JSON: {error}", source=name, hint="mend it by hand"
        ) from error
    if not isinstance(told, dict):
        raise UnreadableFile(
            "is no JSON object", source=name, hint='a map is {"nodes": [...], "edges": [...]}'
        )
    return told


def _no_number(word: str) -> float:
    raise ValueError(f"{word} is no number of JSON; null says that there is none")


def _rows(told: dict[str, Any], what: str, name: str) -> list[dict[str, Any]]:
    rows = told.get(what)
    if not isinstance(rows, list):
        raise UnreadableFile(
            f"has no list of {what}", source=name, hint='a map is {"nodes": [...], "edges": [...]}'
        )
    for place, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UnreadableFile(
                f"{what[:-1]} {place} is no object", source=name, hint="each has a kind"
            )
    return rows


def _frame(rows: list[dict[str, Any]], kinds: dict[str, Any], what: str, name: str) -> pl.DataFrame:
    columns = {}
    for column, kind in kinds.items():
        values = [row.get(column) for row in rows]
        known = (str,) if kind == pl.String else (int, float)
        for place, value in enumerate(values, start=1):
            if value is not None and (not isinstance(value, known) or isinstance(value, bool)):
                word = "a text" if kind == pl.String else "a number"
                raise UnreadableFile(
                    f"{what} {place} has {json.dumps(value)[:40]} as {column}", source=name,
                    hint=f"{column} is {word} or null",
                )  # fmt: skip
        try:
            columns[column] = values if kind == pl.String else [
                None if value is None else float(value) for value in values]  # fmt: skip
        except OverflowError as error:
            raise UnreadableFile(
                f"a {column} is too large for a number", source=name, hint="mend it by hand"
            ) from error
    try:
        return frame_of(columns, kinds)
    except UnicodeEncodeError as error:
        raise UnreadableFile(
            f"a text of its {what}s is half a character: {error.object[:40]!a}", source=name,
            hint="mend it by hand",
        ) from error  # fmt: skip
