"""Worlds with one thing changed, and a slow way to look through them."""

from __future__ import annotations

import numpy as np
import polars as pl

from undertow.rules.snapshot import Snapshot
from undertow.worlds import demo_world


def demo_tables():
    """Tables of the demo world, to be changed."""
    world = demo_world()
    return dict(world.tables), world


def with_rows(table, **columns):
    """The table with more rows; what is not given is empty."""
    more = pl.DataFrame(columns)
    for name, kind in table.schema.items():
        if name not in more.columns:
            more = more.with_columns(pl.lit(None, dtype=kind).alias(name))
    return pl.concat([table, more.select(pl.col(n).cast(k) for n, k in table.schema.items())])


def claimed(tables, rows):
    """The tables with further claims: debtor kind, debtor, creditor kind, creditor, asset, kind,
    quantity."""
    names = ("debtor_kind", "debtor", "creditor_kind", "creditor", "asset", "kind", "qty")
    columns = dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))
    table = tables["claims"]
    size = len(rows)
    ts = [table["ts"][0]] * size
    return tables | {
        "claims": with_rows(
            table, **columns, ts=ts, source=["world"] * size, evidence=["observed"] * size,
            seniority=[0] * size,
        )
    }  # fmt: skip


def snapshot_of(tables):
    """The snapshot at the instant of the positions."""
    ts = int(tables["positions"]["ts"].dt.epoch("us").max())
    return Snapshot.from_tables(tables, ts)


def with_every_account(backing):
    """Ends of tokens and places with accounts kept as nodes: nothing is taken out beforehand."""
    accounts, size = backing.accounts, len(backing)
    tokens = int(backing.is_token.sum())
    places = accounts.lent.shape[0]
    count = accounts.lent.shape[1]
    lent, posted = accounts.lent.toarray(), accounts.posted.toarray()
    usd = np.zeros((size + count, size + count))
    usd[:size, :size] = backing.usd.toarray()
    at = slice(tokens, tokens + places)
    basket = np.asarray(accounts.basket.toarray())
    usd[at, at] -= lent @ basket
    usd[at, size:] += lent
    shares = np.zeros_like(usd)
    whole = np.where(backing.whole > 0.0, backing.whole, 1.0)
    shares[:size] = usd[:size] / whole[:, None]
    # What an account owes stands on what it posted, or on as much of it as there is.
    most = np.where(posted.sum(axis=1) >= lent.sum(axis=0), posted.sum(axis=1), lent.sum(axis=0))
    shares[size:, at] = posted / np.where(most > 0.0, most, 1.0)[:, None]
    ends = np.zeros((size + count, backing.ends_usd.shape[1]))
    ends[:size] = backing.ends_usd / whole[:, None]
    shares[np.abs(shares) < 1e-15] = 0.0
    return np.linalg.solve(np.eye(size + count) - shares, ends)[:size]
