"""Do series move together, how much, and could independent ones have looked like it?

Rows are instants, columns are series of what is left of growth once prices are out (see `purging`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import atanh, ceil, nan, tanh

import numpy as np
from scipy.special import ndtri

from undertow.econometrics.bootstrap import stationary_indices
from undertow.econometrics.chance import redirected
from undertow.econometrics.checks import (
    BoolColumn,
    FloatColumn,
    FloatMatrix,
    matrix,
    screen,
    within,
)
from undertow.econometrics.purging import Purged
from undertow.errors import EstimationError

_LEAST = 10  # values seen of a series, and rows with two series seen
_CHUNK = 500_000  # doubles held at once


@dataclass(frozen=True, slots=True, eq=False)
class MeanCorrelation:
    """Mean correlation over all pairs of series, with its band and the chance of it by accident.

    NaN throughout where `reason` says why there is none.
    """

    value: float
    low: float
    high: float
    level: float
    p_value: float  # one-sided: of as much co-movement if the series were independent
    series: int
    rows: int
    block: float  # expected length of a resampled block, in steps
    reason: str = ""
    left_out: tuple[
        str, ...
    ] = ()  # (columns given,): why a series was left out; empty if it was not


def mean_correlation_test(
    residual: FloatMatrix | Purged,
    *,
    rng: np.random.Generator,
    reps: int = 999,
    block: float | None = None,
    level: float = 0.9,
) -> MeanCorrelation:
    """Do residuals move together, how much, and could independent series have looked like it?

    A series that is constant, too short or repeats an earlier one is left out, with its reason.
    The value is the mean correlation over pairs of series, each pair weighted by the steps that
    both were seen. The band is from a stationary bootstrap of whole rows. The p-value compares the
    value with those of the same series, rebuilt by their own autoregressions from their own shocks
    with the sign of each drawn: that keeps each series' memory, and how loud all were when. It asks
    that shocks are as likely up as down by the same amount.

    Parameters
    ----------
    residual : Purged or (time, series)
        What a purge left, of which `scaled` is taken and value and band divided by `kept`; or any
        matrix, taken as it is.
    rng : numpy.random.Generator
        Draws resamples and signs.
    reps : int
        Resamples, and panels of drawn signs.
    level : float
        Of the band.
    block : float, optional
        Expected length of a resampled block in steps; the cube root of the rows unless given.

    References
    ----------
    Politis and Romano (1994), the stationary bootstrap. Liu (1988), "Bootstrap procedures under
    some non-i.i.d. models", on signs at random.
    """
    given, kept, spent = residual, 1.0, 0
    if isinstance(residual, Purged):
        given, kept, spent = residual.scaled, residual.kept, residual.coefficients
    x = matrix("residual", given, missing=True)
    if reps < 19:
        raise EstimationError(f"reps was {reps}; at least 19 are needed", hint="999 is usual")
    within("level", level, 0.0, 1.0)
    if block is not None:
        within("block", block, 1.0, len(x), closed=True)
    verdict = screen(x, least=_LEAST, gaps=1.0, late=1.0, name="residual")
    x = x[:, verdict.keep]
    seen = ~np.isnan(x)
    used = np.flatnonzero(seen.sum(axis=1) >= 2)
    length = max(1.0, float(ceil(max(len(used), 1) ** (1 / 3)))) if block is None else float(block)
    if x.shape[1] < 2 or len(used) < _LEAST:
        reason = f"{x.shape[1]} series that move, {len(used)} rows with two or more of them seen"
        why = "".join(f"; column {j}: {each}" for j, each in verdict.dropped().items())
        return MeanCorrelation(
            nan, nan, nan, level, nan, x.shape[1], len(used), length,
            f"too little: {reason}{why}", verdict.reasons,
        )  # fmt: skip
    rows = slice(used[0], used[-1] + 1)
    gappy, seen = x[rows], seen[rows]
    x = np.nan_to_num(gappy)
    whole = np.ones((1, len(x)))
    value = float(_pooled(whole, x, seen)[0]) / kept
    resampled = [_pooled(weights, x, seen) for weights in _drawn(rng, reps, len(x), length)]
    low, high = _band(
        value * kept, np.concatenate(resampled), len(used), spent + 2.0 * length, level
    )
    own = _mean_of_pairs(gappy)
    chance = np.array([_mean_of_pairs(made) for made in redirected(gappy, rng, reps)])
    beyond = int((chance >= own - 1e-12).sum())
    return MeanCorrelation(
        value, low / kept, high / kept, level, (1 + beyond) / (1 + reps), x.shape[1],
        len(used), length, left_out=verdict.reasons,
    )  # fmt: skip


def _band(
    value: float, draws: FloatColumn, rows: int, spent: float, level: float
) -> tuple[float, float]:
    """Band on Fisher's scale by the spread of the draws, which is smoother than their quantiles.

    Wider by the rows that are spent: on the coefficients of a purge, and on centring the blocks (a
    mean over blocks of b rows varies too little about the mean of all, by b / rows; random lengths
    make it twice that).
    """
    inside = 1.0 - 1e-12
    spread = float(np.arctanh(np.clip(draws, -inside, inside)).std(ddof=1))
    reach = float(ndtri(0.5 + 0.5 * level)) * spread * (rows / max(rows - spent, 1)) ** 0.5
    middle = atanh(min(max(value, -inside), inside))
    return tanh(middle - reach), tanh(middle + reach)


def _pooled(weights: FloatMatrix, x: FloatMatrix, seen: BoolColumn) -> FloatColumn:
    """Mean pairwise correlation under each row of `weights` (resamples, time).

    With z standardised, sum over pairs of z_i z_j = [(sum_i z_i)^2 - sum_i z_i^2] / 2 at each step.
    """
    mask = seen.astype(np.float64)
    count = np.maximum(weights @ mask, 1.0)
    mean = (weights @ x) / count
    variance = (weights @ (x * x)) / count - mean**2
    unit = 1.0 / np.sqrt(np.maximum(variance, 1e-300))
    total = unit @ x.T - (mean * unit) @ mask.T
    both = mask.sum(axis=1)
    pairs = weights @ (both * (both - 1.0))
    value: FloatColumn = ((weights * total**2).sum(axis=1) - count.sum(axis=1)) / pairs
    return value


def _mean_of_pairs(x: FloatMatrix) -> float:
    """Mean correlation over pairs, each series standardised over all that was seen of it."""
    seen = ~np.isnan(x)
    z, count = np.nan_to_num(x), seen.sum(axis=0)
    mean = z.sum(axis=0) / count
    unit = 1.0 / np.sqrt(np.maximum(np.einsum("ij,ij->j", z, z) / count - mean**2, 1e-300))
    total, both = z @ unit - seen @ (mean * unit), seen.sum(axis=1)
    pairs = float(both @ (both - 1))
    return (float(total @ total) - float(count.sum())) / max(pairs, 1.0)


def _drawn(rng: np.random.Generator, reps: int, rows: int, block: float) -> Iterator[FloatMatrix]:
    """How often each row is drawn in each resample, some resamples at a time."""
    chunk = max(1, _CHUNK // rows)
    for first in range(0, reps, chunk):
        yield np.stack(
            [
                np.bincount(stationary_indices(rows, block, rng), minlength=rows)
                for _ in range(min(chunk, reps - first))
            ]
        ).astype(np.float64)
