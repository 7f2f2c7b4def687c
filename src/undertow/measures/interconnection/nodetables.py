"""The tables of a study of systemic nodes: nodes, places with bands, definitions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from undertow.measures.crowding.ranks import rank_bands, rank_columns
from undertow.measures.interconnection.agreeing import placed
from undertow.measures.interconnection.candidates import Candidate
from undertow.measures.interconnection.claimsnet import ClaimsNet
from undertow.measures.interconnection.failing import (
    Cost,
)
from undertow.measures.interconnection.rankings import MARKS, RANKINGS
from undertow.state import FloatMatrix
from undertow.stress.scenario import Scenario


def places_of(
    labels: Sequence[str], names: Sequence[str], values: FloatMatrix,
    drawn: Mapping[str, FloatMatrix | None], level: float,
) -> pl.DataFrame:  # fmt: skip
    """One row a ranking and node: value, place, and the band of the place."""
    place, frames = placed(values), []
    why = {
        "failure": "owners redrawn, among the costliest", "passes": "owners redrawn",
        "centrality": "owners redrawn", **dict.fromkeys(MARKS, "missing links and claims drawn"),
    }  # fmt: skip
    for j, name in enumerate(names):
        some = np.flatnonzero(np.isfinite(values[:, j]))
        sample = drawn.get(name)
        low = high = np.full(len(some), np.nan)
        if sample is not None and len(some):
            told_of = np.isfinite(sample[:, some]).any(axis=0)
            if told_of.any():
                ends = rank_bands(sample[:, some[told_of]], level)
                low, high = low.copy(), high.copy()
                low[told_of], high[told_of] = ends
        frame = pl.DataFrame(
            {
                "ranking": pl.Series([name] * len(some), dtype=pl.String),
                "node": pl.Series([labels[n] for n in some.tolist()], dtype=pl.String),
                "value": np.abs(values[some, j]) if name == "delta_covar" else values[some, j],
            }
        )
        bands = rank_columns(place[some, j], low, high)
        frames.append(
            pl.concat([frame, bands], how="horizontal")
            .with_columns(
                drawn=pl.when(pl.col("rank_low").is_not_null()).then(pl.lit(why.get(name, "")))
            )
            .sort("rank", "node")
        )
    return pl.concat(frames)


def nodes_table(
    found: Sequence[Candidate], values: FloatMatrix, failed: Sequence[Cost | None], net: ClaimsNet
) -> pl.DataFrame:
    """One row a node, a column a ranking."""
    columns: dict[str, Any] = {
        "node": pl.Series([each.name for each in found], dtype=pl.String),
        "kind": pl.Series([each.kind for each in found], dtype=pl.String),
    }
    for j, (name, (unit, _)) in enumerate(RANKINGS.items()):
        columns[f"{name}_usd" if unit == "USD" else name] = values[:, j]
        if name == "failure":
            columns["own_usd"] = np.array(
                [np.nan if cost is None else cost.own for cost in failed], dtype=np.float64
            )
    frame = pl.DataFrame(columns).with_columns(
        pl.col(pl.Float64).fill_nan(None),
        settled=pl.Series([None if c is None else c.settled for c in failed], dtype=pl.Boolean),
        reason=pl.Series([each.reason or None for each in found], dtype=pl.String),
    )
    return frame.sort("failure_usd", "node", descending=[True, False], nulls_last=True)


def definitions(shock: Scenario) -> pl.DataFrame:
    """One row a ranking; those that stand on the scenario say which it was."""
    rows = []
    for name, (unit, words) in RANKINGS.items():
        said = words.replace("the scenario", shock.name)
        rows.append((name, unit, said, shock.name if said != words else None))
    columns = ("ranking", "unit", "definition", "scenario")
    return pl.DataFrame(rows, schema=dict.fromkeys(columns, pl.String), orient="row")
