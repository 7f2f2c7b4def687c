"""One layer of growth, and what is found in its tails, table by table.

Growth is negative where a node delevers: the lower tail is common deleveraging.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

from undertow.econometrics.bootstrap import Draws, block_lengths, stationary_bootstrap
from undertow.econometrics.checks import BoolColumn, FloatColumn, FloatMatrix
from undertow.econometrics.contagion import forbes_rigobon
from undertow.econometrics.copula import CopulaBand, TCopula, copula_band, fit_t_copula
from undertow.econometrics.exceedances import symmetry_test
from undertow.econometrics.tails import Coexceedances, coexceedances, tail_dependence
from undertow.measures.tandem.extremes import (
    THRESHOLDS,
    above_diagonal,
    exceedance,
    exceedance_shape,
    rest,
    standardised,
    stress_shift,
    tail_shares,
    worst,
)
from undertow.measures.tandem.history import Layer, LeverageHistory
from undertow.measures.words import corrected, many

_LEAST_TIMES = 4  # steps in calm times, and in stressed ones, for a test between them
ALL_PAIRS = 12  # nodes up to which every pair is told
REST = "all other nodes"

Band = tuple[float, float]


def kept(history: LeverageHistory) -> LeverageHistory:
    """The history without nodes that cannot be used; itself where all can, to spare a purge."""
    return history.usable() if history.left_out or len(history.labels) < 2 else history


def seen(
    history: LeverageHistory, layer: Layer
) -> tuple[tuple[str, ...], FloatMatrix, Mapping[str, str]]:
    """The nodes of a layer, their growth in it, and why others are not in it."""
    reasons = history.purged.reasons if layer is Layer.OWN else ("",) * len(history.labels)
    out = {node: why for node, why in zip(history.labels, reasons, strict=True) if why}
    names = tuple(node for node in history.labels if node not in out)
    keep = [history.labels.index(node) for node in names]
    return names, np.ascontiguousarray(history.layer(layer)[:, keep]), out


@dataclass(frozen=True, eq=False)
class Tails:
    """One layer of growth, and what is found in its tails."""

    layer: Layer
    names: tuple[str, ...]
    x: FloatMatrix  # (steps, nodes)
    plain: FloatMatrix  # (steps, nodes) the same, not scaled by its volatility
    loud: BoolColumn
    quiet: BoolColumn
    share: float
    reps: int
    level: float
    rngs: list[np.random.Generator]

    @cached_property
    def shape(self) -> Draws:
        """Exceedance correlations, mean over pairs, by threshold: falls, rises, normal law."""
        return stationary_bootstrap(exceedance_shape, self.x, rng=self.rngs[0], reps=self.reps)

    @cached_property
    def joint(self) -> Draws:
        """Mean tail dependence over pairs: of falls, of rises; see `tail_steps`."""

        def both(x: FloatMatrix) -> FloatColumn:
            sides = (tail_shares(side, self.share) for side in (x, -x))
            return np.array([above_diagonal(side).mean() for side in sides])

        run = block_lengths(worst(self.x, self.share)).joint()
        return stationary_bootstrap(both, self.x, rng=self.rngs[1], reps=self.reps, block=run)

    @property
    def tail_steps(self) -> int:
        """Worst steps of the node that was seen least; fewer than 5 say nothing."""
        return int(self.share * (~np.isnan(self.x)).sum(axis=0).min() + 1e-9)

    @cached_property
    def counts(self) -> Coexceedances:
        """How many nodes are among their own worst at once, against nodes without any tie."""
        return coexceedances(self.x, self.share, rng=self.rngs[2], reps=self.reps, level=self.level)

    @cached_property
    def shift(self) -> Draws:
        """Stressed correlation, adjusted for larger shocks, less the calm one; mean over nodes."""
        rows = np.column_stack([self.plain, rest(self.plain), self.loud, self.quiet])
        run = len(rows) ** (1.0 / 3.0)
        return stationary_bootstrap(stress_shift, rows, rng=self.rngs[3], reps=self.reps, block=run)

    @cached_property
    def pairs(self) -> pl.DataFrame:
        """Tail dependence of pairs, by rank and by t copula, the strongest first."""
        return _dependence_table(self)

    @cached_property
    def contagion(self) -> pl.DataFrame:
        """Each node with the mean of all others as source, calm against stressed."""
        return _contagion_table(self)

    @cached_property
    def copula(self) -> tuple[TCopula, CopulaBand] | None:
        """One t copula for all nodes: not of raw growth, whose loud times look like its tails.

        Nor of many nodes, of which one number says little.
        """
        if self.layer is not Layer.OWN or len(self.names) > ALL_PAIRS:
            return None
        few = max(self.reps // 8, 19)  # a draw costs as much as a hundred of the others
        band = copula_band(self.x, rng=self.rngs[5], reps=few, level=self.level)
        return fit_t_copula(self.x, level=self.level), band

    def apart(self, other: str) -> tuple[float, Band]:
        """Falls less rises, or less the normal law, meant over thresholds, and its band."""
        draws = np.vstack([self.shape.estimate, self.shape.draws])
        falls, rises, normal = np.split(draws, 3, axis=1)
        gap = falls - (rises if other == "rises" else normal)
        told = gap[:, ~np.isnan(gap[0])]
        if not told.size:
            return np.nan, (np.nan, np.nan)
        mean = told.mean(axis=1)
        return float(mean[0]), _middle(mean[1:], self.level)


def _middle(draws: FloatColumn, level: float) -> Band:
    known = draws[np.isfinite(draws)]
    if 2 * len(known) < len(draws):
        return np.nan, np.nan
    low, high = np.quantile(known, [0.5 - level / 2.0, 0.5 + level / 2.0])
    return float(low), float(high)


def exceedance_table(of: Tails) -> pl.DataFrame:
    """Exceedance correlation by side and threshold, mean over pairs, beside the normal law's."""
    falls, rises, normal = np.split(of.shape.estimate, 3)
    ends = [np.split(end, 3) for end in of.shape.band(of.level)]
    z = standardised(of.x)
    parts = []
    for at, (side, sign, told) in enumerate((("lower", -1.0, falls), ("upper", 1.0, rises))):
        columns = {
            "side": [side] * len(told),
            "threshold": THRESHOLDS,
            "layer": [of.layer.value] * len(told),
            "correlation": told,
            "low": ends[0][at],
            "high": ends[1][at],
            "normal": normal,
            "count": [exceedance(sign * z, cut)[1].mean() for cut in THRESHOLDS],
        }
        parts.append(pl.DataFrame(columns))
    return pl.concat(parts).fill_nan(None)


def _dependence_table(of: Tails) -> pl.DataFrame:
    rows = []
    for i, j in _told_pairs(of):
        a, b = of.x[:, i], of.x[:, j]
        rank = tail_dependence(a, b, of.share, rng=of.rngs[4], reps=of.reps, level=of.level)
        fit = fit_t_copula(np.column_stack([a, b]), level=of.level)
        mirror = symmetry_test(a, b, THRESHOLDS[:3])
        rows.append(
            {
                "a": of.names[i],
                "b": of.names[j],
                "layer": of.layer.value,
                "lower": rank.lower,
                "low": rank.lower_band[0],
                "high": rank.lower_band[1],
                "copula": float(fit.tail[0, 1]),
                "degrees": fit.degrees if np.isfinite(fit.degrees) else None,
                "upper": rank.upper,
                "normal": rank.normal,
                "count": rank.lower_count,
                "tail_steps": rank.tail_rows,
                "symmetry_p": mirror.p,
                "reason": "; ".join(sorted({rank.reason, fit.reason, mirror.reason} - {""})),
            }
        )
    kinds: dict[str, Any] = dict.fromkeys(rows[0], pl.Float64)
    kinds |= dict.fromkeys(("a", "b", "layer", "reason"), pl.String)
    kinds |= dict.fromkeys(("count", "tail_steps"), pl.Int64)
    table = pl.DataFrame(rows, schema=kinds).fill_nan(None)
    return table.sort("lower", descending=True, nulls_last=True, maintain_order=True)


def _told_pairs(of: Tails) -> Iterator[tuple[int, int]]:
    """Every pair, or of many nodes those whose worst steps coincide most."""
    pairs = list(combinations(range(len(of.names)), 2))
    if len(of.names) > ALL_PAIRS:
        together = above_diagonal(tail_shares(of.x, of.share))
        pairs = [pairs[k] for k in np.argsort(-together, kind="stable")[:ALL_PAIRS]]
    yield from pairs


def count_table(of: Tails) -> pl.DataFrame:
    """Steps with so many nodes or more in their own lower tail, and as many as chance has."""
    found = of.counts
    nodes = np.arange(1, len(found.at_least))
    columns = {
        "nodes": nodes,
        "layer": [of.layer.value] * len(nodes),
        "steps": found.at_least[1:],
        "expected": found.expected[1:],
        "low": found.low[1:],
        "high": found.high[1:],
        "p_value": found.p[1:],
    }
    return pl.DataFrame(columns).fill_nan(None)


def _contagion_table(of: Tails) -> pl.DataFrame:
    others, rows = rest(of.plain), []
    for j, name in enumerate(of.names):
        source, target = others[:, j], of.plain[:, j]
        test = forbes_rigobon(source[of.quiet], target[of.quiet], source[of.loud], target[of.loud])
        few = [
            f"{many(count, 'step')} in {times} times; {_LEAST_TIMES} are needed"
            for count, times in ((test.n_calm, "calm"), (test.n_crisis, "stressed"))
            if count < _LEAST_TIMES
        ]
        rows.append(
            {
                "a": REST,
                "b": name,
                "layer": of.layer.value,
                "calm": test.rho_calm,
                "crisis": test.rho_crisis,
                "adjusted": test.rho_adjusted,
                "statistic": test.z_adjusted,
                "p_value": test.p_adjusted,
                "calm_steps": test.n_calm,
                "crisis_steps": test.n_crisis,
                "delta": test.delta,
                "reason": "; ".join(few) or test.reason,
            }
        )
    table = pl.DataFrame(rows)
    return table.with_columns(p_corrected=corrected(table["p_value"].to_numpy())).fill_nan(None)
