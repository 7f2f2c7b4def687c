"""A dependency map as a folder: nodes.parquet, edges.parquet, and manifest.json beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from undertow.errors import UnreadableFile
from undertow.store.checksum import file_hash
from undertow.store.files import readable
from undertow.store.graphs.form import (
    DAMAGED,
    EDGE_COLUMNS,
    FORMAT,
    NODE_COLUMNS,
    Plain,
    require_format,
)
from undertow.store.unpack import Source

MANIFEST = "manifest.json"


def write(plain: Plain, folder: Path) -> None:
    """Write a folder that is not there yet."""
    folder.mkdir()
    plain.nodes.write_parquet(folder / "nodes.parquet", statistics=False)
    plain.edges.write_parquet(folder / "edges.parquet", statistics=False)
    counts = {"nodes": plain.nodes.height, "edges": plain.edges.height}
    hashes = {name: file_hash(folder / name) for name in ("nodes.parquet", "edges.parquet")}
    told = json.dumps({**plain.head, **counts, "hashes": hashes}, indent=2)
    (folder / MANIFEST).write_text(told + "\n", encoding="utf-8")


def is_map(folder: Path) -> bool:
    """Whether a folder is a map of any version."""
    try:
        told = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return False
    prefix = FORMAT.partition("/")[0]
    return isinstance(told, dict) and str(told.get("format")).startswith(prefix)


def read(folder: Path, name: str) -> Plain:
    """Read a folder, and hold it to what its manifest says."""
    head = _manifest(folder, name)
    if head.get("digest") is not None and isinstance(hashes := head.get("hashes"), dict):
        _require_whole(folder, name, hashes)
    nodes = _table(folder, name, "nodes", NODE_COLUMNS)
    edges = _table(folder, name, "edges", EDGE_COLUMNS)
    for what, frame in (("nodes", nodes), ("edges", edges)):
        if head.get(what) != frame.height:
            raise UnreadableFile(
                f"has {frame.height} {what}, and its manifest says {head.get(what)}", source=name,
                hint="its files are not of one map; write it again",
            )  # fmt: skip
    return Plain(head, nodes, edges)


def _manifest(folder: Path, name: str) -> dict[str, Any]:
    try:
        told = json.loads((folder / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UnreadableFile(
            f"has no {MANIFEST}", source=name,
            hint="a map as Parquet is a folder that `undertow map build --out` made",
        ) from None  # fmt: skip
    except (ValueError, RecursionError) as error:
        raise UnreadableFile(
            f"{MANIFEST} is not JSON: {error}", source=name, hint=DAMAGED
        ) from error
    if not isinstance(told, dict) or told.get("format") is None:
        raise UnreadableFile(f"{MANIFEST} says no format", source=name, hint=DAMAGED)
    require_format(told["format"], name)
    return told


def _require_whole(folder: Path, name: str, hashes: dict[str, Any]) -> None:
    """Refuse files with other bytes than were written, before anything reads a table off them."""
    for each, told in hashes.items():
        path = folder / Path(each).name
        if path.is_file() and file_hash(path) != told:
            raise UnreadableFile(
                f"{path.name} was changed or damaged since it was written", source=name,
                hint=f"write it again; if the change is meant, take the digest out of {MANIFEST}",
            )  # fmt: skip


def _table(folder: Path, name: str, what: str, kinds: dict[str, Any]) -> pl.DataFrame:
    path = folder / f"{what}.parquet"
    if not path.exists():
        raise UnreadableFile(f"has no {path.name}", source=name, hint=DAMAGED)
    with readable(Source(path, f"{name}/{path.name}", what, "parquet")):
        frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    for column, kind in kinds.items():
        if frame.schema.get(column) != kind:
            raise UnreadableFile(
                f"{path.name} has {frame.schema.get(column)} as {column}, and {kind()} is needed",
                source=name, hint=DAMAGED,
            )  # fmt: skip
    return frame.select(list(kinds))
