"""What the cascade closes, beside how uncertain one node's growth makes another's.

By assets, closing in j after a fall of i stands against what i gives to j; by other nodes, how
alike they unwind stands against what the two give each other. Pairs that share a node are not
independent, so p-values come from relabelling nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import atanh, nan, sqrt, tanh

import numpy as np
import polars as pl
from scipy.special import stdtrit
from scipy.stats import kendalltau, rankdata

from undertow.econometrics.connectedness import Connectedness, connectedness
from undertow.econometrics.equations import LEAST_SQUARES, ElasticNet, Estimator
from undertow.econometrics.penalties import choose_penalty
from undertow.measures.tandem.falls import Run, gathered
from undertow.measures.tandem.history import Layer, LeverageHistory
from undertow.measures.words import many
from undertow.state import FloatMatrix, KeyColumn

_MANY = 15  # series above which connectedness is regularised
_SAME = atanh(1.0 - 1e-9)  # of a rank correlation on Fisher's scale: one order, or its opposite
_ROWS_EACH = 5  # rows a coefficient, under which it is too


@dataclass(frozen=True, eq=False)
class Agreement:
    """The matrix beside estimated connectedness, over the nodes that both know."""

    called: str
    nodes: tuple[str, ...]
    compared: pl.DataFrame
    spearman: float = nan
    spearman_p: float = nan
    kendall: float = nan
    kendall_p: float = nan
    total: float = nan  # connectedness
    low: float = nan  # band of spearman
    high: float = nan
    left_out: dict[str, str] = field(default_factory=dict)
    reason: str = ""

    @classmethod
    def of(
        cls, run: Run, history: LeverageHistory, seed: int, reps: int, level: float = 0.9
    ) -> Agreement:
        """Estimate connectedness and hold the falls of `run` against it."""
        used, left_out = _both(run, history)
        blank = pl.DataFrame(
            schema={"shocked": pl.String, "node": pl.String, "share": pl.Float64,
                    "connectedness": pl.Float64}
        )  # fmt: skip
        if len(used) < 4:
            reason = f"only {many(len(used), 'node')} in both; four are needed"
            return cls(history.called, used, blank, left_out=left_out, reason=reason)
        found = _connected(history.select(used))
        left_out |= {n: why for n, why in zip(used, found.left_out, strict=True) if why}
        kept = tuple(node for node in used if node not in left_out)
        if found.status or len(kept) < 4:
            reason = found.status or f"only {many(len(kept), 'node')} in both; four are needed"
            return cls(history.called, kept, blank, left_out=left_out, reason=reason)
        at = [used.index(node) for node in kept]
        given = found.table[np.ix_(at, at)].T  # [i, j] from i to j, as the shock goes
        closed = _directed(run, kept)
        if run.board.by != "asset":
            given = 0.5 * (given + given.T)
        i, j = np.nonzero(~np.eye(len(kept), dtype=np.bool_))
        compared = pl.DataFrame(
            {
                "shocked": gathered(kept, i),
                "node": gathered(kept, j),
                "share": closed[i, j],
                "connectedness": given[i, j],
            }
        )
        if np.ptp(closed[i, j]) == 0.0:
            reason = "every pair unwinds alike, so there is no order to agree with"
            return cls(history.called, kept, compared, total=found.total, left_out=left_out,
                       reason=reason)  # fmt: skip
        rng = np.random.default_rng([seed, 51])
        values = agreed(closed, given, rng, reps)
        ends = agreed_band(closed, given, level)
        return cls(history.called, kept, compared, *values, found.total, *ends, left_out)

    def table(self) -> pl.DataFrame:
        """A row a statistic."""
        return pl.DataFrame(
            {
                "statistic": ["spearman", "kendall"],
                "value": [self.spearman, self.kendall],
                "low": [self.low, nan],
                "high": [self.high, nan],
                "p_value": [self.spearman_p, self.kendall_p],
                "nodes": [len(self.nodes)] * 2,
                "reason": [self.reason] * 2,
            }
        ).with_columns(pl.col(pl.Float64).fill_nan(None))


def _both(run: Run, history: LeverageHistory) -> tuple[tuple[str, ...], dict[str, str]]:
    """Nodes with a history that can be used, which the matrix knows too."""
    known = set(run.nodes) & (set(run.shocked) if run.board.by == "asset" else set(run.nodes))
    left_out = {
        f"history of {node}": why for node, why in history.left_out.items() if node in known
    }
    used = [n for n in history.labels if n in known and n not in history.left_out]
    if len(used) < 2:
        return tuple(used), left_out
    purged = history.select(used).purged
    reasons = dict(zip(used, purged.reasons, strict=True))
    left_out |= {f"history of {node}": why for node, why in reasons.items() if why}
    return tuple(node for node in used if not reasons[node]), left_out


def _connected(history: LeverageHistory) -> Connectedness:
    """Connectedness of growth beyond prices, from the first step that all nodes show."""
    growth = history.layer(Layer.OWN)
    whole = np.flatnonzero(~np.isnan(growth).any(axis=1))
    rows = growth[whole[0] :] if len(whole) else growth
    count = growth.shape[1]
    estimator: Estimator = LEAST_SQUARES
    full = not np.isnan(rows).any()
    if full and (count > _MANY or len(rows) < _ROWS_EACH * (count + 1)):
        estimator = ElasticNet(choose_penalty(rows).penalty)
    return connectedness(rows, estimator=estimator)


def _directed(run: Run, kept: tuple[str, ...]) -> FloatMatrix:
    """[i, j] What a fall of i closes in j; of nodes that are no assets, how alike they unwind."""
    columns = [run.nodes.index(node) for node in kept]
    share = run.share[:, columns]
    if run.board.by == "asset":
        return np.asarray(share[[run.shocked.index(node) for node in kept]])
    size = np.sqrt((share * share).sum(axis=0))
    unit = np.divide(share, size, out=np.zeros_like(share), where=size > 0.0)
    alike: FloatMatrix = np.einsum("ki,kj->ij", unit, unit)
    return alike


def agreed(
    closed: FloatMatrix, given: FloatMatrix, rng: np.random.Generator, reps: int
) -> tuple[float, float, float, float]:
    """Spearman's and Kendall's correlation over pairs, each with its p-value by relabelling."""
    count = len(closed)
    off = ~np.eye(count, dtype=np.bool_)
    first, second = np.zeros(closed.shape), np.zeros(closed.shape)
    first[off], second[off] = rankdata(closed[off]), rankdata(given[off])

    def both(order: KeyColumn) -> tuple[float, float]:
        a, b = first[off], second[np.ix_(order, order)][off]
        return float(np.corrcoef(a, b)[0, 1]), float(kendalltau(a, b).statistic)

    found = both(np.arange(count))
    drawn = np.array([both(rng.permutation(count)) for _ in range(reps)])
    beyond = (np.abs(drawn) >= np.abs(found) - 1e-12).sum(axis=0)
    p = (1 + beyond) / (1 + reps)
    return found[0], float(p[0]), found[1], float(p[1])


def agreed_band(closed: FloatMatrix, given: FloatMatrix, level: float) -> tuple[float, float]:
    """Band of Spearman's correlation over pairs, were other nodes of the kind seen.

    Pairs share nodes, so nodes are what is left out, one at a time (jackknife), on Fisher's scale,
    with as many degrees of freedom as nodes less one. NaN where an order is lost with a node, and
    where orders are the same or opposite: no node that is left out then changes anything, which
    says nothing of other nodes.

    References
    ----------
    Snijders and Borgatti (1999), "Non-parametric standard errors and tests for network statistics",
    Connections 22.
    """
    count = len(closed)
    off = ~np.eye(count, dtype=np.bool_)

    def on_scale(kept: KeyColumn) -> float:
        at, pairs = np.ix_(kept, kept), off[: len(kept), : len(kept)]
        a, b = rankdata(closed[at][pairs]), rankdata(given[at][pairs])
        if np.ptp(a) == 0.0 or np.ptp(b) == 0.0:
            return nan
        return atanh(float(np.clip(np.corrcoef(a, b)[0, 1], -1.0 + 1e-12, 1.0 - 1e-12)))

    every = np.arange(count)
    whole = on_scale(every)
    if abs(whole) >= _SAME:
        return nan, nan
    left = np.array([on_scale(np.delete(every, k)) for k in every])
    error = sqrt((count - 1) / count * float(((left - left.mean()) ** 2).sum()))
    reach = float(stdtrit(count - 1, 0.5 + 0.5 * level)) * error
    return tanh(whole - reach), tanh(whole + reach)
