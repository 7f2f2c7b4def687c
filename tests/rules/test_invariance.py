"""What is held decides what comes out: not order, threads or names."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

from undertow.rules.margins import Margins, margins
from undertow.rules.snapshot import TABLES, Snapshot
from undertow.state.arrays import digest
from undertow.worlds import World, build_world

_COLUMNS = ("assets", "debt", "equity", "cover", "asked", "notional", "leverage", "fall", "rise")
_NAMING = {
    "asset": ("assets", "instruments", "claims", "implied_vols", "free_assets", "pools"),
    "venue": (
        "venues", "instruments", "accounts", "risk_params", "implied_vols", "oracles",
        "venue_funds", "pools",
    ),
    "instrument": (
        "instruments", "positions", "prices", "depth", "risk_params", "margin_brackets", "oracles",
        "volumes", "reserves",
    ),
}  # fmt: skip
_ALSO = {  # columns of other names that hold the same keys
    "asset": (
        ("assets", "reference"), ("instruments", "quote"), ("instruments", "settle"),
        ("pools", "quote"),
    ),
    "venue": (),
    "instrument": (("oracles", "feed"),),
}  # fmt: skip


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(5, accounts=1_500, assets=12, venues=10)


@pytest.fixture(scope="module")
def judged(world: World) -> Margins:
    return margins(world.snapshot())


def _bits(found: Margins) -> str:
    return digest(found.snapshot.digest, *(getattr(found, name) for name in _COLUMNS))


def test_same_bits_for_any_row_order_and_chunking(world: World, judged: Margins) -> None:
    for seed in range(3):
        tables = {
            name: pl.concat(
                rows.sample(fraction=1, shuffle=True, seed=seed).iter_slices(97), rechunk=False
            )
            if (rows := world.tables[name]).height
            else rows
            for name in TABLES
        }
        assert _bits(margins(Snapshot.from_tables(tables, world.ts))) == _bits(judged)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_same_bits_for_any_number_of_threads(judged: Margins, threads: str) -> None:
    words = (
        "from undertow.rules.margins import margins\n"
        "from undertow.state.arrays import digest\n"
        "from undertow.worlds import build_world\n"
        "found = margins(build_world(5, accounts=1_500, assets=12, venues=10).snapshot())\n"
        f"print(digest(found.snapshot.digest, *(getattr(found, n) for n in {_COLUMNS!r})))"
    )
    environment = {**os.environ, "POLARS_MAX_THREADS": threads, "NUMBA_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, "-c", words], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == _bits(judged)


def test_other_names_change_no_number_beyond_rounding(world: World, judged: Margins) -> None:
    """Names turned round, so that every order that hangs on them turns round too."""
    tables = {name: world.tables[name] for name in TABLES}
    for column, where in _NAMING.items():
        keys = sorted(tables[where[0]][column])
        renamed = {key: f"{len(keys) - place:05d}" for place, key in enumerate(keys)}
        for name in where:
            tables[name] = tables[name].with_columns(pl.col(column).replace(renamed))
        for name, also in _ALSO[column]:
            tables[name] = tables[name].with_columns(pl.col(also).replace(renamed))
        if column != "instrument":
            for side in ("debtor", "creditor"):
                of_kind = pl.col(f"{side}_kind") == column
                tables["claims"] = tables["claims"].with_columns(
                    pl.when(of_kind).then(pl.col(side).replace(renamed)).otherwise(side).alias(side)
                )
    largest = world.tables["accounts"]["account"].max()
    for name in ("accounts", "positions", "risk_params"):
        tables[name] = tables[name].with_columns(account=largest - pl.col("account"))
    again = margins(Snapshot.from_tables(tables, world.ts))
    mine = np.argsort(judged.snapshot.book.account)
    theirs = np.argsort(largest - again.snapshot.book.account)
    for name in _COLUMNS:
        one, two = getattr(judged, name)[mine], getattr(again, name)[theirs]
        both = np.isfinite(one)
        assert (both == np.isfinite(two)).all(), name
        assert two[both] == pytest.approx(one[both], rel=1e-9, abs=1e-9), name
