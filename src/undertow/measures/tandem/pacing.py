"""Prices at the pace of leverage: a price that is carried on makes returns that never were.

Instants are rows, assets columns. Between two prices a carried one makes returns of 0 and, at its
end, one of many steps, so growth would keep what prices did to it in the steps between.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from undertow.errors import StateError
from undertow.measures.words import listed, span
from undertow.state import BoolColumn, FloatColumn, FloatMatrix, KeyColumn, Panel

_APART = 1.1  # steps between prices at the median, above which most of them are carried
_ENOUGH = 120  # steps to be left of a history that is thinned: a purge takes them
_DUE = 1.5  # gaps at the median, after which the next price is no longer waited for


class Paced(NamedTuple):
    """The instants to use of a history, and the nodes whose prices are too far apart for them."""

    rows: KeyColumn  # places among the instants of the level
    slow: dict[str, str]  # nodes, and why
    apart: BoolColumn  # (assets,): whether its prices are too far apart
    said: str


def paced(ts: KeyColumn, prices: Panel, nodes: tuple[str, ...], weights: FloatMatrix) -> Paced:
    """Instants at which every asset held has a new price, or all of them where those are too few.

    Thins to the slowest pace that leaves enough steps; nodes that are slower still are named.
    """
    step = float(np.median(np.diff(ts)))
    stamps = _stamps(prices)
    gaps = np.array([_gap(each, ts) for each in stamps])
    held = weights != 0.0
    own = np.where(held, gaps, 0.0).max(axis=1)  # of each node, the pace of its slowest asset
    rows, pace, thinned = np.arange(len(ts)), _APART * step, False
    for slowest in sorted({each for each in own.tolist() if each > pace}, reverse=True):
        kept = own <= slowest
        assets = np.flatnonzero(held[kept].any(axis=0)).tolist()
        some = _renewed(ts, [stamps[j] for j in assets], gaps[assets])
        if kept.sum() >= min(2, len(nodes)) and len(some) > _ENOUGH:
            rows, pace, thinned = some, slowest, True
            break
    used = span(pace if thinned else step)
    slow = {
        node: f"prices come every {span(each)}, too seldom for steps of {used}"
        for node, each in zip(nodes, own.tolist(), strict=True)
        if each > pace
    }
    said = []
    if thinned:
        said.append(
            f"Prices come every {used} and levels every {span(step)}: only instants with new "
            "prices count."
        )
    if slow:
        said.append(
            f"Prices of what {listed(sorted(slow))} hold come too seldom for that, so nothing is "
            "told of them beyond prices."
        )
    return Paced(rows, slow, gaps > pace, " ".join(said))


def _stamps(prices: Panel) -> list[KeyColumn]:
    """The instants at which each asset has a price."""
    return [prices.ts[~np.isnan(column)] for column in prices.values.T]


def _gap(stamps: KeyColumn, ts: KeyColumn) -> float:
    """Time between prices at the median, over the time of the history; 0 where it has none."""
    inside = stamps[(stamps >= ts[0]) & (stamps <= ts[-1])]
    return float(np.median(np.diff(inside))) if len(inside) > 1 else 0.0


def _renewed(ts: KeyColumn, stamps: list[KeyColumn], gaps: FloatColumn) -> KeyColumn:
    """Rows at which every asset has a new price since the row before, but those in a hole."""
    known = np.column_stack([np.searchsorted(each, ts, side="right") for each in stamps])
    newest = np.column_stack(
        [each[np.maximum(known[:, j] - 1, 0)] for j, each in enumerate(stamps)]
    )
    due = (known > 0) & (ts[:, None] - newest < _DUE * gaps)
    kept, last = [], np.zeros(len(stamps), dtype=known.dtype)
    for row in range(len(ts)):
        new = known[row] > last
        if new.any() and not (due[row] & ~new).any():
            kept.append(row)
            last = known[row]
    return np.array(kept, dtype=np.int64)


def log_returns(prices: Panel, ts: KeyColumn, stale_us: float) -> FloatMatrix:
    """Log returns between instants, of the newest price known at each; NaN where that is stale.

    Of a price that goes stale only the first instant counts: what it was carried over before would
    be returns of 0 without the one that ends them.
    """
    if not prices.labels or not len(prices):
        raise StateError("there is no price", source=prices.name)
    known = np.full((len(ts), len(prices.labels)), np.nan)
    for j in range(len(prices.labels)):
        some = np.flatnonzero(~np.isnan(prices.values[:, j]))
        if not some.size:
            continue
        at = np.searchsorted(prices.ts[some], ts, side="right") - 1
        row = some[np.maximum(at, 0)]
        fresh = (at >= 0) & (ts - prices.ts[row] <= stale_us)
        carried = np.diff(at, prepend=-1) == 0
        fresh &= ~(carried & np.isin(at, at[~fresh]))
        known[fresh, j] = prices.values[row[fresh], j]
    if (known <= 0.0).any():
        column = int(np.nonzero(known <= 0.0)[1][0])
        raise StateError(
            "a price is not positive", source=prices.name, column=prices.labels[column]
        )
    return np.diff(np.log(known), axis=0)
