"""Which leverage moves with which, and how much of it prices explain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy.special import ndtr, ndtri

from undertow.econometrics.comovement import MeanCorrelation, mean_correlation_test
from undertow.econometrics.hac import correlation_band
from undertow.econometrics.pairwise import Method, pairwise_correlation
from undertow.measures.door import require_seed
from undertow.measures.study import Study
from undertow.measures.tandem.door import require_history
from undertow.measures.tandem.history import LEAST_ROWS, Layer, LeverageHistory
from undertow.measures.words import banded, chance, corrected, known, listed, many, percent, told

_READ = (
    "1 is perfectly together, 0 nothing in common. Read the layers from the top: what is there in "
    "the raw growth and gone beyond prices was prices; what is left was done by people who share "
    "collateral, venues or habits. A pair counts where its corrected p-value is small; the mean "
    "counts where its band does not hold 0 and its p-value is small."
)
_MISLEADS = (
    "Beyond prices is a lower bound where forced sales move the prices that move leverage. An "
    "answer to prices of a shape that was not fitted, or to a price that was not given, stays in. "
    "Series sampled at different moments look less alike than they are."
)


def matrix(
    history: LeverageHistory, *, seed: int = 0, level: float = 0.9, reps: int = 999
) -> Study:
    """Correlation of the growth of leverage between all nodes, in every layer that can be told.

    The mean over pairs has a band by stationary bootstrap and a p-value against series rebuilt
    from their own shocks with the sign of each drawn, which keeps loud times. Bands of pairs allow
    for fat tails and memory; their p-values are corrected over all pairs of a layer (Benjamini and
    Hochberg 1995).
    """
    require_history(history)
    require_seed(seed)
    used = history.usable()
    found = {layer: _layer(used, layer, seed, level, reps) for layer in used.layers}
    readings = []
    for layer in (Layer.OWN, *(each for each in found if each is not Layer.OWN)):
        mean = found[layer].mean
        readings.append(
            used.tell(
                "tandem.correlation",
                mean.value,
                f"mean correlation over all pairs of {used.called} of the {layer.words}",
                subject=layer.value,
                band=(mean.low, mean.high),
                level=level,
            )
        )
    return Study(
        name="tandem.matrix",
        title=f"How much {used.called} moves together",
        readings=tuple(readings),
        tables={
            "layers": pl.DataFrame([_row(each) for each in found.values()]),
            "pairs": pl.concat([each.pairs for each in found.values()]),
            "explained": pl.DataFrame(
                {"node": used.labels, "by_prices": used.purged.r2}, strict=False
            ).with_columns(pl.col("by_prices").fill_nan(None)),
        },
        says=tuple(_says(used, found, level)),
        how_to_read=f"{_READ} {used.pace}",
        misleads=_MISLEADS,
        left_out=history.left_out,
    )


@dataclass(frozen=True, slots=True)
class _Layer:
    """What one layer shows."""

    layer: Layer
    pairs: pl.DataFrame
    mean: MeanCorrelation

    @property
    def counts(self) -> bool:
        """Whether its mean is more than chance and noise."""
        return self.mean.p_value < 0.05 and self.mean.low > 0.0


def _layer(history: LeverageHistory, layer: Layer, seed: int, level: float, reps: int) -> _Layer:
    """Correlations of values and of ranks, and the mean with its test."""
    rng = np.random.default_rng([seed, 1, list(Layer).index(layer)])
    given = history.purged if layer is Layer.OWN else history.layer(layer)
    mean = mean_correlation_test(given, rng=rng, reps=reps, level=level)
    return _Layer(layer, _pairs(history, layer, level), mean)


def _pairs(history: LeverageHistory, layer: Layer, level: float) -> pl.DataFrame:
    """Every pair; bands and p-values hold under fat tails, clusters and memory."""
    growth, names = history.layer(layer), pl.Series(history.labels, dtype=pl.String)
    ranked = pairwise_correlation(growth, method=Method.SPEARMAN, least=LEAST_ROWS, level=level)
    i, j = np.triu_indices(len(names), 1)
    value, low, high = np.full((3, len(i)), np.nan)
    for k in np.flatnonzero(ranked.counts[i, j] >= LEAST_ROWS):
        found = correlation_band(growth[:, i[k]], growth[:, j[k]], level=level)
        value[k], low[k], high[k] = found.value, found.low, found.high
    # The band is symmetric on Fisher's scale, and so is the test.
    error = (np.arctanh(high) - np.arctanh(low)) / (2.0 * ndtri(0.5 + level / 2.0))
    p = np.where(error > 0.0, 2.0 * ndtr(-np.abs(np.arctanh(value)) / error), 0.0)
    p[np.isnan(value)] = np.nan
    return pl.DataFrame(
        {
            "a": names.gather(i),
            "b": names.gather(j),
            "layer": pl.Series([layer.value] * len(i), dtype=pl.String),
            "correlation": value,
            "low": low,
            "high": high,
            "p_value": p,
            "p_corrected": corrected(p),
            "spearman": ranked.values[i, j],
            "steps": ranked.counts[i, j],
        }
    ).with_columns(pl.col(pl.Float64).fill_nan(None))


def _row(found: _Layer) -> dict[str, object]:
    mean = found.mean
    return {
        "layer": found.layer.value,
        "mean_correlation": known(mean.value),
        "low": known(mean.low),
        "high": known(mean.high),
        "p_value": known(mean.p_value),
        "nodes": mean.series,
        "steps": mean.rows,
        "reason": mean.reason,
    }


def _says(history: LeverageHistory, layers: Mapping[Layer, _Layer], level: float) -> list[str]:
    own, raw = layers[Layer.OWN], layers[Layer.RAW]
    band = banded(own.mean.value, own.mean.low, own.mean.high)
    if own.mean.reason:
        blind = len(history.unpriced) > len(history.labels) - 2
        why = "; ".join(sorted(set(history.unpriced.values()))) if blind else own.mean.reason
        says = [f"Whether {history.called} moves together beyond prices cannot be told: {why}."]
        if not raw.mean.reason:
            says.append(f"As it is, the mean correlation is {told(raw.mean.value)}.")
        return says
    verdict = (
        f"{history.called.capitalize()} moves together beyond prices: mean correlation {band}, "
        f"{chance(own.mean.p_value)}."
        if own.counts
        else f"Beyond prices no co-movement of {history.called} was found: mean correlation "
        f"{band}, {chance(own.mean.p_value)}. That is no proof of independence: a mean "
        f"correlation up to {told(own.mean.high)} would agree with these "
        f"{history.steps(own.mean.rows)}."
    )
    says = [verdict]
    says.append(
        f"As it is, with prices in it, the mean correlation is {told(raw.mean.value)}; prices "
        f"explain {percent(float(np.nanmedian(np.maximum(history.purged.r2, 0.0))))} of the growth "
        "of a typical node out of sample."
    )
    sure = own.pairs.filter(pl.col("p_corrected") < 0.05).sort("correlation", descending=True)
    if sure.height:
        first = [f"{r['a']} with {r['b']} ({told(r['correlation'])})" for r in sure.to_dicts()]
        says.append(
            f"{many(sure.height, 'pair')} of {own.pairs.height} beyond chance: {listed(first, 3)}."
        )
    if Layer.HELD not in layers:
        says.append(
            "What prices did to untouched quantities cannot be told apart: that takes positions "
            "at every instant."
        )
    return says
