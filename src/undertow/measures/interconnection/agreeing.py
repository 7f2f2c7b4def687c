"""Whether rankings of the same nodes agree, and which nodes they put furthest apart.

Columns are rankings, rows are nodes; the larger a value the higher its place, NaN has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import kendalltau, spearmanr

from undertow.measures.crowding.ranks import ranks
from undertow.measures.words import known
from undertow.state import FloatColumn, FloatMatrix

LEAST = 3  # nodes that two rankings share, to be compared
_DUST = 1e-9  # of the largest: values that differ by less are alike


def placed(values: FloatMatrix) -> FloatMatrix:
    """(nodes, rankings) Places, 1 of the largest, those alike sharing one; NaN where no value."""
    rounded = _rounded(values)
    found = ranks(rounded.T).T
    found[np.isnan(values)] = np.nan
    return found


def agreement(names: Sequence[str], values: FloatMatrix, top: int) -> pl.DataFrame:
    """One row a pair of rankings: tau-b, rho, and how many of the first `top` they share.

    Empty where fewer than three nodes stand in both, or one has them all alike; what they share of
    the first is empty where no more than those stand in both.

    References
    ----------
    Kendall (1945), "The treatment of ties in ranking problems", Biometrika 33.
    """
    rounded, rows = _rounded(values), []
    for i in range(len(names)):
        for j in range(i + 1, len(names)):
            both = np.isfinite(values[:, i]) & np.isfinite(values[:, j])
            one, other = rounded[both, i], rounded[both, j]
            flat = len(one) < LEAST or np.ptp(one) == 0.0 or np.ptp(other) == 0.0
            tau = None if flat else known(float(kendalltau(one, other).statistic))
            rho = None if flat else known(float(spearmanr(one, other).statistic))
            few = flat or len(one) <= top
            shared = None if few else len(_first(one, top) & _first(other, top)) / top
            rows.append((names[i], names[j], int(both.sum()), tau, rho, shared))
    schema: dict[str, Any] = {"ranking": pl.String, "other": pl.String, "nodes": pl.Int64}
    schema |= dict.fromkeys(("kendall", "spearman", "top_shared"), pl.Float64)
    return pl.DataFrame(rows, schema=schema, orient="row")


def spread(nodes: Sequence[str], names: Sequence[str], values: FloatMatrix) -> pl.DataFrame:
    """One row a node: where rankings put it at best and at worst, as shares of those ranked.

    0 is the first place of all, 1 the last. `apart` is the distance between the two.
    """
    place = placed(values)
    count = np.isfinite(place).sum(axis=0)
    share = (place - 1.0) / np.maximum(count - 1.0, 1.0)
    rows = []
    for node, row in zip(nodes, share, strict=True):
        seen = np.flatnonzero(np.isfinite(row))
        if not len(seen):
            continue
        first, last = seen[np.argmin(row[seen])], seen[np.argmax(row[seen])]
        rows.append((node, len(seen), float(row[first]), names[first], float(row[last]),
                     names[last], float(row[last] - row[first])))  # fmt: skip
    schema: dict[str, Any] = {
        "node": pl.String, "rankings": pl.Int64, "highest": pl.Float64, "highest_by": pl.String,
        "lowest": pl.Float64, "lowest_by": pl.String, "apart": pl.Float64,
    }  # fmt: skip
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return frame.sort("apart", "node", descending=[True, False])


def _first(values: FloatColumn, size: int) -> set[int]:
    return set(np.argsort(-values, kind="stable")[:size].tolist())


def _rounded(values: FloatMatrix) -> FloatMatrix:
    """Values to nine digits of the largest of their column, so that dust makes no order."""
    largest = np.nanmax(np.abs(values), axis=0, initial=0.0, where=np.isfinite(values))
    unit = np.where(largest > 0.0, largest * _DUST, 1.0)
    found: FloatMatrix = np.round(values / unit) * unit
    return found
