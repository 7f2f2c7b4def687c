"""The state and the lake: how long a million accounts take to build, to load and to judge."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from bench.harness import Benchmark, Result, seconds
from undertow.rules.margins import margins
from undertow.rules.snapshot import Snapshot
from undertow.state import Book, Universe
from undertow.state.book import FUTURE, PERP
from undertow.store import Lake
from undertow.store.lake import read_tables
from undertow.store.load import load_snapshot
from undertow.worlds import World, bench_book

SEED = 1
BOOK_TABLES = ("assets", "venues", "instruments", "accounts", "positions")


@functools.cache
def _world() -> World:
    return bench_book(seed=SEED)


@functools.cache
def _lake() -> Lake:
    lake = Lake.create(Path(_folder().name) / "lake")
    tables = {name: rows for name, rows in _world().tables.items() if rows.height}
    lake.write(tables, kind="world", now=1, detail={"seed": SEED})
    return lake


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="undertow-bench-")


def _size(book: Book) -> dict[str, int]:
    return {"accounts": book.accounts, "legs": len(book), "assets": len(book.universe.assets)}


def _load_book(lake: Lake) -> Book:
    tables = read_tables(lake, BOOK_TABLES, unordered=("accounts", "positions"))
    universe = Universe.from_frames(tables["assets"], tables["venues"], tables["instruments"])
    return Book.from_frames(universe, tables["accounts"], tables["positions"])


def world_build() -> Result:
    """A world of a million accounts, from nothing; beside it, writing the same rows to Parquet."""
    began = time.perf_counter()
    world = bench_book(seed=SEED)
    book = world.book()
    taken = time.perf_counter() - began
    began = time.perf_counter()
    for name, rows in world.tables.items():
        rows.write_parquet(Path(_folder().name) / f"world-{name}.parquet")
    written = time.perf_counter() - began
    return Result(
        "world_build",
        _size(book),
        {"seconds": taken},
        "<= 20 s",
        taken <= 20.0,
        {"parquet_write_seconds": written},
        {"to_writing_it": written / taken},
    )


def lake_to_book() -> Result:
    """The lake's own tables, warm files, to a validated Book; beside it, foreign frames.

    The foreign frames have text keys for accounts and rows in random order, and are read from
    Parquet files that undertow did not write. The baseline joins and sorts the lake's rows with
    polars and checks nothing.
    """
    lake = _lake()
    book = _load_book(lake)
    own = seconds(lambda: _load_book(lake), runs=5)
    folder = Path(_folder().name)
    _write_foreign(folder)
    foreign = seconds(lambda: _load_foreign(folder), runs=3)
    plain = seconds(lambda: _plain_load(lake), runs=3)
    return Result(
        "lake_to_book",
        _size(book),
        {
            "seconds": own,
            "foreign_seconds": foreign,
            "bytes_per_leg": book.bytes_per_leg,
        },
        "<= 2 s and <= 40 bytes per leg",
        own <= 2.0 and book.bytes_per_leg <= 40.0,
        {"polars_join_and_sort_seconds": plain},
        {"to_polars_join_and_sort": plain / own},
    )


def _plain_load(lake: Lake) -> pl.DataFrame:
    tables = read_tables(lake, BOOK_TABLES, unordered=("accounts", "positions"))
    codes = tables["instruments"].select("instrument").sort("instrument").with_row_index("inst")
    joined = tables["positions"].join(codes, on="instrument").join(
        tables["accounts"].select("account", "owner", "venue"), on="account"
    )  # fmt: skip
    return joined.sort("owner", "account", "inst", "kind")


def _write_foreign(folder: Path) -> None:
    """The same book as an outsider would hold it: accounts by name, rows in no order."""
    tables = _world().tables
    name = pl.format("0x{}", pl.col("account").hash(seed=3))
    for table in ("accounts", "positions"):
        shuffled = tables[table].sample(fraction=1, shuffle=True, seed=5)
        shuffled.with_columns(account=name).write_parquet(folder / f"{table}.parquet")


def _load_foreign(folder: Path) -> Book:
    accounts = pl.read_parquet(folder / "accounts.parquet")
    positions = pl.read_parquet(folder / "positions.parquet")
    keys = accounts.select("account").sort("account").with_row_index("key")
    keys = keys.with_columns(pl.col("key").cast(pl.Int64))
    replaced = [
        frame.join(keys, on="account").drop("account").rename({"key": "account"})
        for frame in (accounts, positions)
    ]
    world = _world().tables
    universe = Universe.from_frames(world["assets"], world["venues"], world["instruments"])
    return Book.from_frames(universe, *replaced)


def account_margins() -> Result:
    """Every account of the bench book judged: equity, maintenance, leverage, health, distances.

    The baseline is equity alone, by numpy over whole columns, and agrees to 1e-9.
    """
    snapshot = load_snapshot(_lake())
    judged = margins(snapshot)
    assert np.allclose(_numpy_equity(snapshot), judged.equity, rtol=1e-9, atol=1e-6)
    taken = seconds(lambda: margins(snapshot), runs=3, warm=0)
    plain = seconds(lambda: _numpy_equity(snapshot), runs=3)
    return Result(
        "account_margins",
        _size(snapshot.book),
        {"seconds": taken, "accounts_per_second": snapshot.book.accounts / taken},
        baseline={"numpy_equity_only_seconds": plain},
        ratio={"to_numpy_equity_only": plain / taken},
    )


def _numpy_equity(snapshot: Snapshot) -> np.ndarray:
    book, price = snapshot.book, snapshot.market.mark[snapshot.book.inst]
    straight = np.isin(book.kind, (PERP, FUTURE))
    inverse = straight & book.universe.inverse[book.inst]
    value = book.qty * price
    value -= np.where(straight, book.qty * book.entry, 0.0)
    faces = book.qty[inverse]
    value[inverse] = faces * (price[inverse] / book.entry[inverse] - 1.0)
    return np.bincount(book.leg_account, value, minlength=book.accounts)


def startup() -> Result:
    """`import undertow` and `undertow --help`, as whole processes, warm."""
    command = str(Path(sys.executable).parent / "undertow")
    imported = _process([sys.executable, "-c", "import undertow"])
    bare = _process([sys.executable, "-c", "pass"])
    helped = _process([command, "--help"])
    return Result(
        "startup",
        {"runs": 9},
        {"import_seconds": imported, "help_seconds": helped},
        "import <= 0.2 s, help <= 0.3 s",
        imported <= 0.2 and helped <= 0.3,
        {"bare_python_seconds": bare},
        {"help_over_bare_python": helped / bare},
    )


def _process(command: list[str]) -> float:
    return seconds(lambda: subprocess.run(command, check=True, capture_output=True), runs=9)


BENCHMARKS: dict[str, Benchmark] = {
    "startup": startup,
    "world_build": world_build,
    "lake_to_book": lake_to_book,
    "account_margins": account_margins,
}
