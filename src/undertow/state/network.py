"""A sparse weighted graph over named nodes, stored by row.

Row `i` of the three arrays lists the edges out of node `i`: their targets and weights stand in
`start[i]:start[i + 1]`, sorted by target. Which way an edge points is said by whoever builds it.
Nodes go by name, because owners, bridges and custodians stand beside assets and venues.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from undertow.errors import StateError
from undertow.state.arrays import AnyColumn, CodeColumn, FloatColumn, KeyColumn, digest, frozen


@dataclass(frozen=True, eq=False)
class Network:
    """Nodes and weighted directed edges; parallel edges are added up when it is built."""

    name: str
    unit: str
    nodes: tuple[str, ...]
    start: KeyColumn  # (nodes + 1,)
    target: CodeColumn
    weight: FloatColumn

    @classmethod
    def from_edges(
        cls, name: str, unit: str, nodes: Any, source: Any, target: Any, weight: Any
    ) -> Network:
        """Build from edge columns, in any order; the sum of parallel edges is exact in order.

        Raises
        ------
        StateError
            When an end is no node, lengths differ, a name repeats or a weight is not finite.
        """
        names = tuple(str(node) for node in nodes)
        ends = np.asarray(source, dtype=np.int64), np.asarray(target, dtype=np.int64)
        value = np.array(weight, dtype=np.float64)
        if len(set(names)) != len(names):
            raise StateError("a node stands twice", source=name)
        if not len(ends[0]) == len(ends[1]) == len(value):
            raise StateError("edge columns differ in length", source=name)
        for end in ends:
            if len(end) and (end.min() < 0 or end.max() >= len(names)):
                raise StateError("an edge ends at no node", source=name)
        if not np.isfinite(value).all():
            raise StateError("a weight is not finite", source=name)
        order = np.lexsort((value, ends[1], ends[0]))  # by weight last: same sum in any input order
        place = ends[0][order] * max(len(names), 1) + ends[1][order]
        unique, first = np.unique(place, return_index=True)
        total = np.add.reduceat(value[order], first) if len(first) else value
        start = np.zeros(len(names) + 1, dtype=np.int64)
        np.cumsum(np.bincount(unique // max(len(names), 1), minlength=len(names)), out=start[1:])
        columns = (start, (unique % max(len(names), 1)).astype(np.int32), total)
        return cls(name, unit, names, *(frozen(column) for column in columns))

    def __len__(self) -> int:
        """Number of edges."""
        return len(self.weight)

    def __repr__(self) -> str:
        return f"Network({self.name}, {len(self.nodes):,} nodes, {len(self):,} edges)"

    @cached_property
    def digest(self) -> str:
        """A hash of nodes, edges and weights."""
        words = "\x00".join((self.name, self.unit, *self.nodes))
        return digest(words, self.start, self.target, self.weight)

    @property
    def source(self) -> AnyColumn:
        """Of every edge, the node it leaves."""
        return np.repeat(np.arange(len(self.nodes), dtype=np.int32), np.diff(self.start))

    def to_polars(self) -> pl.DataFrame:
        """One row per edge: source, target, weight."""
        names = pl.Series(self.nodes, dtype=pl.String)
        return pl.DataFrame(
            {
                "source": names.gather(self.source),
                "target": names.gather(self.target),
                "weight": self.weight,
            }
        )
