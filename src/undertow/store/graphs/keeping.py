"""Writes a dependency map whole or not at all, and reads one against what it says of itself."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import polars as pl

from undertow.errors import StateError, StoreError, UnreadableFile
from undertow.measures.interconnection.mapping import DependencyMap, require_sound
from undertow.store.graphs import graphml, jsonfile, parquet
from undertow.store.graphs.form import FORMAT, Plain, iso, micros

FORMS = ("parquet", "json", "graphml")
_SUFFIXES = {".parquet": "parquet", "": "parquet", ".json": "json", ".graphml": "graphml",
             ".xml": "graphml"}  # fmt: skip
_CALLED = {"node": "name"}  # a column, as a user calls it


class _Form(NamedTuple):
    write: Callable[[Plain, Path], None]
    read: Callable[[Path, str], Plain]


_BY_NAME = {
    "parquet": _Form(parquet.write, parquet.read),
    "json": _Form(jsonfile.write, jsonfile.read),
    "graphml": _Form(graphml.write, graphml.read),
}


def form_of(path: Path, form: str | None = None) -> str:
    """The form in which a map is kept at a path: as it is said, else by its ending.

    Raises
    ------
    StateError
        When there is no such form.
    """
    found = form or _SUFFIXES.get(path.suffix.lower())
    if found is None and path.is_dir():
        found = "parquet"
    if found not in FORMS:
        raise StateError(
            f"{str(path)!r} ends in no form of a map" if form is None else f"no form {form!r}",
            hint="name a .graphml or .json file, or a folder (.parquet)",
        )
    return found


def write_map(
    dependencies: DependencyMap, path: Path, *, form: str | None = None, force: bool = False
) -> None:
    """Write a map whole or not at all; what is there is replaced only with `force`.

    Raises
    ------
    StateError
        When the form is unknown, or cannot hold a name or a number of the map.
    StoreError
        When something is there already: without `force`, or what is no map of this form.
    OSError
        When the system does not let it be written; then nothing changed.
    """
    form = form_of(path, form)
    require_room(path, form, force=force)
    plain = _plain(dependencies)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _BY_NAME[form].write(plain, part)
        _put(part, path)
    finally:
        _removed(part)


def require_room(path: Path, form: str, *, force: bool) -> None:
    """Refuse to write over what is there, unless it is a map and that was asked for.

    Raises
    ------
    StoreError
        When it is not, or was not.
    """
    if not path.exists() and not path.is_symlink():
        return
    folder = path.is_dir()
    if folder and not any(path.iterdir()) and form == "parquet":
        return
    if folder != (form == "parquet") or (folder and not parquet.is_map(path)):
        raise StoreError(
            f"{str(path)!r} is {'a folder' if folder else 'a file'}, and no map as {form}",
            hint="give another name; it is never replaced",
        )
    if not force:
        raise StoreError(f"{str(path)!r} is there already", hint="--force replaces it")


def read_map(path: Path, *, form: str | None = None) -> DependencyMap:
    """Read a map that `write_map` wrote, or one from elsewhere.

    Raises
    ------
    UnreadableFile
        When it is damaged, cut short, of another version, or says what no map can say.
    """
    form = form_of(path, form)
    if not path.exists():
        raise UnreadableFile("is not there", source=str(path), hint="check its name")
    name = path.name or str(path)
    try:
        return _restored(_BY_NAME[form].read(path, name), name)
    except OSError as error:
        raise UnreadableFile(
            f"could not be read: {error.strerror or error}", source=name, hint="check its name"
        ) from error


def _plain(m: DependencyMap) -> Plain:
    require_sound(m)  # what is written can be read
    nodes, edges = m.node_frame().drop("key"), m.edges()
    ts = iso(m.ts) if m.ts else None  # 0 where nobody said when
    return Plain({"format": FORMAT, "ts": ts, "digest": m.digest}, nodes, edges)


def _restored(plain: Plain, name: str) -> DependencyMap:
    """The map that plain rows make, checked against what they say of themselves."""
    own = plain.head.get("format") is not None
    nodes, edges = _named(plain, name, own)
    try:
        found = DependencyMap.from_frames(nodes, edges)
    except StateError as error:
        raise UnreadableFile(
            error.message, source=name, hint=error.hint or "mend the file, or write it again"
        ) from error
    found = replace(found, ts=micros(plain.head.get("ts"), name))
    told = plain.head.get("digest")
    if told is not None and told != found.digest:
        raise UnreadableFile(
            f"was changed or damaged since it was written: its hash is {found.digest}, and it "
            f"says {told}",
            source=name,
            hint="write it again; if the change is meant, take the digest out of it",
        )
    return found


def _named(plain: Plain, name: str, own: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows whose nodes are called kind:key, whatever they were called elsewhere."""
    nodes, edges = plain.nodes, plain.edges
    for what, frame, needed in (("node", nodes, ("node", "kind")),
                                ("edge", edges, ("source", "target", "kind"))):  # fmt: skip
        for column in needed:
            lost = frame[column].is_null().arg_true()
            if len(lost):
                raise UnreadableFile(
                    f"{what} {int(lost[0]) + 1} has no {_CALLED.get(column, column)}", source=name,
                    hint=f"every {what} needs {', '.join(_CALLED.get(n, n) for n in needed)}",
                )  # fmt: skip
    edges = edges.with_columns(
        pl.col("evidence").fill_null("observed"), pl.col("origin").fill_null("given")
    )
    if own:
        return nodes, edges
    if edges.height and edges["usd"].null_count() == edges.height:
        raise UnreadableFile(
            "no edge has a value", source=name, hint="give edges a number called usd"
        )
    prefix = pl.col("kind") + ":"
    whole = pl.when(pl.col("node").str.starts_with(prefix)).then("node").otherwise(
        prefix + pl.col("node")
    )  # fmt: skip
    called = nodes.select(raw="node", name=whole)
    twice = called.filter(pl.col("name").is_duplicated())
    if twice.height:
        raise UnreadableFile(
            f"the node {twice['name'][0]!r} stands twice", source=name, hint="name each once"
        )
    for end in ("source", "target"):
        edges = edges.join(
            called, left_on=end, right_on="raw", how="left", maintain_order="left"
        ).with_columns(pl.col("name").fill_null(pl.col(end)).alias(end)).drop("name")  # fmt: skip
    return nodes.with_columns(whole.alias("node")), edges


def _put(part: Path, path: Path) -> None:
    """Move a whole file or folder to its place."""
    if not part.is_dir():
        part.replace(path)
        return
    old = path.with_name(f".{path.name}.{os.getpid()}.old")
    if path.exists():
        path.rename(old)
    try:
        part.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    _removed(old)


def _removed(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
