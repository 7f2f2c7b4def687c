"""Whose leverage moves first: who is deleveraged on the days before the others are.

Growth of each pair of nodes is set side by side at lags either way, after each was made white by
its own past: two series that remember theirs are correlated at many lags for no reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import polars as pl

from undertow.econometrics.checks import FloatMatrix
from undertow.econometrics.leadlag import CrossCorrelation, cross_correlation
from undertow.errors import EstimationError
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.history import Layer, LeverageHistory
from undertow.measures.tandem.tail_layer import kept, seen
from undertow.measures.words import chance, corrected, many, told
from undertow.state import Reading

_SURE = 0.05
_COLUMNS = {
    "leader": pl.String,
    "follower": pl.String,
    "lag": pl.Int64,
    "layer": pl.String,
    "correlation": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "score": pl.Float64,
    "p_value": pl.Float64,
    "steps": pl.Int64,
    "reason": pl.String,
}


def leadlag(
    history: LeverageHistory, *, most: int = 10, seed: int = 0, level: float = 0.9
) -> Study:
    """Who leads whom, pair by pair, and how much of a leader each node is on the whole.

    Of a pair the leader is the one whose growth goes with that of the other `most` steps or fewer
    later, more than the other way round. Its p-value is from drawn signs, which keep how loud both
    were when.

    Raises
    ------
    StateError
        When fewer than two nodes can be used.
    EstimationError
        When `most` is no whole number from 1 up, or the level no share.

    References
    ----------
    Haugh (1976), J. Am. Stat. Assoc. 71; Bartlett (1955); Besag and Clifford (1991), Biometrika 78.
    """
    require_history(history)
    require_seed(seed)
    if int(most) != most or most < 1:
        raise EstimationError(f"most was {most}; it must be a whole number of steps from 1 up")
    usable = kept(history)
    left_out = dict(history.left_out)
    found = []
    for at, layer in enumerate((Layer.OWN, Layer.RAW)):
        names, x, reasons = seen(usable, layer)
        left_out |= {node: f"{layer.value}: {why}" for node, why in reasons.items()}
        if len(names) > 1:
            rng = np.random.default_rng([seed, 300 + at])
            found.append(_Leads.of(layer, names, x, most, level, rng))
    return Study(
        "tandem.leadlag",
        f"Whose {history.called} moves first?",
        tuple(reading for of in found for reading in _readings(usable, of, most)),
        {
            "leads": pl.concat([of.table for of in found]),
            "nodes": pl.concat([of.nodes for of in found]),
        },
        tuple(_says(usable, found, left_out, most)),
        "The correlation is that of the leader's growth with the follower's as many steps later; "
        "outside low and high it is more than unrelated series show at one lag. The score adds up "
        "squared correlations at which the leader comes first, less those at which it comes "
        "second; p_value is the chance of a score as far from 0 if each shock of one of them had "
        "its sign drawn, and p_corrected counts that all pairs were looked at. "
        f"{usable.pace}",
        "Two nodes that answer to a third, one of them later, lead and follow, and cause nothing. "
        "A node that is observed earlier within a step leads by the clock alone. Lags of leverage "
        "behind prices are in raw growth; beyond prices those that were fitted are out.",
        left_out,
    )


@dataclass(frozen=True, eq=False)
class _Leads:
    """All pairs of one layer."""

    layer: Layer
    names: tuple[str, ...]
    table: pl.DataFrame  # one row a pair, the surest first
    nodes: pl.DataFrame  # one row a node, the strongest leader first

    @classmethod
    def of(
        cls,
        layer: Layer,
        names: tuple[str, ...],
        x: FloatMatrix,
        most: int,
        level: float,
        rng: np.random.Generator,
    ) -> _Leads:
        rows = []
        for i, j in combinations(range(len(names)), 2):
            found = cross_correlation(x[:, i], x[:, j], rng=rng, most=most, level=level)
            rows.append(_row(names[i], names[j], layer, found, most))
        pairs = pl.DataFrame(rows, schema=_COLUMNS, orient="row")
        p = corrected(pairs["p_value"].fill_null(np.nan).to_numpy())
        pairs = pairs.with_columns(p_corrected=p).fill_nan(None)
        pairs = pairs.sort("p_value", "leader", "follower", nulls_last=True)
        return cls(layer, names, pairs, _net(layer, names, pairs))

    @property
    def sure(self) -> pl.DataFrame:
        """The pairs in which one leads by more than chance, all pairs counted."""
        return self.table.filter(pl.col("p_corrected") < _SURE)


def _row(a: str, b: str, layer: Layer, found: CrossCorrelation, most: int) -> tuple[object, ...]:
    """The pair, its leader first, at the lag at which the leader shows most."""
    if found.reason:
        nothing = (None,) * 5
        return a, b, None, layer.value, *nothing, found.rows, found.reason
    ahead = found.score >= 0.0
    side = slice(most + 1, None) if ahead else slice(most - 1, None, -1)  # lags 1 .. most
    values = found.correlation[side]
    at = int(np.argmax(np.abs(values)))
    pair = (a, b) if ahead else (b, a)
    return (
        *pair, at + 1, layer.value, float(values[at]), float(found.low[side][at]),
        float(found.high[side][at]), abs(found.score), found.p_value, found.rows, "",
    )  # fmt: skip


def _net(layer: Layer, names: tuple[str, ...], pairs: pl.DataFrame) -> pl.DataFrame:
    """Mean score of each node over its pairs: above 0 where it leads, below where it follows."""
    tested = pairs.filter(pl.col("score").is_not_null())
    sure = pl.col("p_corrected") < _SURE
    ways = [
        tested.select(node=side, net=sign * pl.col("score"), leads=sure & (side == "leader"),
                    follows=sure & (side == "follower"))
        for side, sign in (("leader", 1.0), ("follower", -1.0))
    ]  # fmt: skip
    sums = pl.concat(ways).group_by("node").agg(
        pl.col("net").mean(), pl.col("leads", "follows").sum()
    )  # fmt: skip
    every = pl.DataFrame({"node": names, "layer": [layer.value] * len(names)})
    joined = every.join(sums, on="node", how="left", maintain_order="left")
    return joined.sort("net", "node", descending=[True, False], nulls_last=True)


def _readings(history: LeverageHistory, of: _Leads, most: int) -> Iterator[Reading]:
    tested = of.table["p_corrected"].drop_nulls()
    yield history.tell(
        "lead_share", len(of.sure) / len(tested) if len(tested) else None,
        f"share of pairs of nodes in which growth of {history.called} of one comes before that of "
        f"the other by 1 to {most} steps, p below 0.05 after correction for all pairs "
        f"({of.layer.words})",
        subject=of.layer.value,
    )  # fmt: skip
    if of.layer is not Layer.OWN:
        return
    for node, net in of.nodes.select("node", "net").iter_rows():
        yield history.tell(
            "net_lead", net,
            f"squared correlations at which growth of {history.called} of the node comes 1 to "
            f"{most} steps before that of another node, less those at which it comes after, meant "
            f"over all other nodes; above 0 it leads ({of.layer.words})",
            subject=node,
        )  # fmt: skip


def _says(
    history: LeverageHistory, found: list[_Leads], left_out: Mapping[str, str], most: int
) -> Iterator[str]:
    if found[0].layer is not Layer.OWN:
        yield (
            f"Beyond prices nobody can be said to lead: fewer than two nodes have enough steps to "
            f"take prices out of {history.called}; what follows is of raw growth."
        )
    for of in found:
        yield _verdict(history, of, most)
    if left_out:
        yield f"{many(len(left_out), 'node')} left out of a layer, for the reasons given."


def _verdict(history: LeverageHistory, of: _Leads, most: int) -> str:
    tested = of.table["p_corrected"].drop_nulls()
    growth = f"growth of {history.called}, {of.layer.value}"
    if not len(tested):
        return f"In {growth}, nobody can be said to lead: {of.table['reason'][0]}."
    if not len(of.sure):
        p = of.table["p_corrected"].to_list()[0]
        return (
            f"In {growth}, no node leads another within {most} steps by more than chance: the "
            f"surest of {len(tested)} pairs has {chance(p)} after correction."
        )
    top = of.sure.row(0, named=True)
    first = of.nodes.row(0, named=True)
    return (
        f"In {growth}, one node leads the other in {len(of.sure)} of {len(tested)} pairs; the "
        f"surest is {top['leader']} before {top['follower']} by {many(top['lag'], 'step')} "
        f"(correlation {told(top['correlation'])}, "
        f"{chance(top['p_corrected'])} after correction). On the whole {first['node']} leads most, "
        f"{first['leads']} of the others beyond chance."
    )
