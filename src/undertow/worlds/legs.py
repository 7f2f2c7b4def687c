"""Positions while they are being drawn: columns of legs, and how picks and shares are made."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl

from undertow import schema
from undertow.state import CodeColumn, FloatColumn, FloatMatrix, KeyColumn, SmallColumn, Universe
from undertow.state.arrays import AnyColumn
from undertow.worlds.frames import rows

_REDRAWS = 6
NOTHING = -1  # a pick that could not be made
_LOT_USD = 0.01


class Legs(NamedTuple):
    """Legs of any accounts, in any order; `entry` is NaN where the kind has none."""

    row: KeyColumn  # position of the account among all accounts
    inst: CodeColumn
    kind: SmallColumn
    qty: FloatColumn
    entry: FloatColumn


def together(parts: list[Legs]) -> Legs:
    """Several sets of legs as one, in the order they come."""
    return Legs(*(np.concatenate([part[k] for part in parts]) for k in range(5)))


def joined(parts: list[Legs]) -> Legs:
    """Several sets of legs as one, sorted by account, instrument and kind."""
    row, inst, kind, qty, entry = together(parts)
    kinds = len(schema.POSITION_KINDS)
    rank = (row * (int(inst.max(initial=0)) + 1) + inst) * kinds + kind
    order = np.argsort(rank, kind="stable")
    return Legs(row[order], inst[order], kind[order], qty[order], entry[order])


def flattened(
    accounts: KeyColumn,
    inst: AnyColumn,  # (accounts, width), NOTHING where there is no leg
    kind: AnyColumn,
    qty: FloatMatrix,
    entry: FloatMatrix | None = None,
) -> Legs:
    """Legs laid out in a matrix with a row an account, as columns; those of no quantity go."""
    kept = (inst != NOTHING) & (qty != 0.0)
    width = inst.shape[1]
    kinds = np.broadcast_to(kind, inst.shape)
    return Legs(
        np.repeat(accounts, width).reshape(inst.shape)[kept],
        inst[kept].astype(np.int32),
        kinds[kept].astype(np.int8),
        qty[kept],
        np.full(int(kept.sum()), np.nan) if entry is None else entry[kept],
    )


def position_rows(universe: Universe, legs: Legs, account: KeyColumn, ts: int) -> pl.DataFrame:
    """Legs as rows of the table `positions`; `account` gives the key of each account's row."""
    return rows(
        "positions",
        ts=ts,
        account=account[legs.row],
        instrument=universe.instrument_keys.gather(legs.inst),
        kind=pl.Series(schema.POSITION_KINDS).gather(legs.kind),
        qty=legs.qty,
        entry=legs.entry,
    )


def distinct_picks(rng: np.random.Generator, count: int, weights: list[FloatColumn]) -> AnyColumn:
    """(count, picks): one item a column by its weights, no item twice in a row.

    A pick that stands already is drawn again, then moved on to the next item of any weight, and is
    NOTHING where none is left.
    """
    picks = np.full((count, len(weights)), NOTHING, dtype=np.int64)
    for j, weight in enumerate(weights):
        possible = np.flatnonzero(weight > 0.0)
        edges = np.cumsum(weight[possible]) / weight[possible].sum()
        edges[-1] = 1.0
        place = np.searchsorted(edges, rng.random(count), side="right")
        for attempt in range(_REDRAWS + len(possible)):
            chosen = possible[place]
            clash = np.flatnonzero((picks[:, :j] == chosen[:, None]).any(axis=1))
            if not len(clash):
                break
            if attempt < _REDRAWS:
                place[clash] = np.searchsorted(edges, rng.random(len(clash)), side="right")
            else:
                place[clash] = (place[clash] + 1) % len(possible)
        picks[:, j] = possible[place]
        clash = np.flatnonzero((picks[:, :j] == picks[:, j : j + 1]).any(axis=1))
        picks[clash, j] = NOTHING
    return picks


def shares(rng: np.random.Generator, taken: AnyColumn, shape: float = 2.0) -> FloatMatrix:
    """Random shares that sum to 1 over the `taken` of each row, 0 elsewhere."""
    parts: FloatMatrix = (rng.standard_gamma(shape, taken.shape) + 0.05) * taken
    total = parts.sum(axis=1, keepdims=True)
    divided: FloatMatrix = np.divide(parts, total, out=np.zeros_like(parts), where=total > 0.0)
    return divided


def in_lots(qty: FloatColumn, price: FloatColumn) -> FloatColumn:
    """Quantities rounded to lots of about a cent, at least one.

    A lot is a power of two, so that sums of quantities are exact and longs equal shorts to the bit.
    """
    lot = 2.0 ** np.floor(np.log2(_LOT_USD / price))
    size = np.maximum(np.rint(np.abs(qty) / lot), 1.0) * lot
    rounded: FloatColumn = np.sign(qty) * size
    return rounded


def leg_counts(rng: np.random.Generator, count: int) -> KeyColumn:
    """Legs of an account that has several: 3 to 8, about 5 in the mean."""
    chance = np.array([0.18, 0.22, 0.20, 0.17, 0.13, 0.10])
    drawn: KeyColumn = 3 + np.searchsorted(np.cumsum(chance)[:-1], rng.random(count), side="right")
    return drawn
