"""How sure a number is that was computed from one stretch of history: resampled in blocks.

Rows are instants, oldest first; columns are series. Rows are drawn whole, so what happens at the
same instant stays together, missing values too; runs of rows are drawn together, so what follows
from yesterday mostly stays with it. `block_shifts` does the opposite: it keeps each series' own
history and breaks what they share.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, matrix, within
from undertow.errors import EstimationError

Statistic = Callable[[FloatMatrix], "ArrayLike"]
IndexColumn = NDArray[np.int64]

_LEAST_DRAWS = 0.5  # share of draws that must have given a number before a band is drawn


def stationary_indices(rows: int, block: float, rng: np.random.Generator) -> IndexColumn:
    """Row numbers of one stationary-bootstrap resample: runs of random length, `block` on average.

    Each run starts anywhere and wraps round at the end, so the resample is stationary.

    References
    ----------
    Politis and Romano (1994), "The stationary bootstrap", J. Am. Stat. Assoc. 89.
    """
    _check_block(rows, block)
    places = np.arange(rows)
    begins = rng.random(rows) < 1.0 / block
    begins[0] = True
    anchor = np.maximum.accumulate(np.where(begins, places, 0))
    starts = rng.integers(rows, size=rows)
    return np.asarray((starts[anchor] + places - anchor) % rows, dtype=np.int64)


def circular_indices(rows: int, block: float, rng: np.random.Generator) -> IndexColumn:
    """Row numbers of one circular-block resample: runs of `block` rows, rounded up to whole ones.

    References
    ----------
    Politis and Romano (1992), "A circular block-resampling procedure for stationary data".
    """
    _check_block(rows, block)
    length = min(math.ceil(block), rows)
    starts = rng.integers(rows, size=-(-rows // length))
    runs = (starts[:, None] + np.arange(length)) % rows
    return np.asarray(runs.ravel()[:rows], dtype=np.int64)


def block_shifts(x: ArrayLike, rng: np.random.Generator) -> FloatMatrix:
    """`x` with each column rotated by its own random number of rows.

    Every series keeps its values, gaps and serial dependence (but for one seam); what the series
    do at the same instant is broken. Statistics of many such matrices are what chance alone
    would show: a null for co-movement.
    """
    values = matrix("x", x, missing=True)
    rows, columns = values.shape
    places = (np.arange(rows)[:, None] + rng.integers(rows, size=columns)) % rows
    return np.take_along_axis(values, places, axis=0)


def band(draws: ArrayLike, level: float = 0.9, *, around: ArrayLike | None = None) -> Band:
    """Low and high end of the middle `level` of draws, by column: (low, high).

    Rows are draws; draws of one number give arrays without a dimension. `around` the estimate,
    the percentiles are reflected (the basic interval: 2 estimate - percentile). Draws that gave
    NaN are left out; where fewer than half gave a number, both ends are NaN, as no band can be
    drawn: look at the status of the `Draws`.

    References
    ----------
    Davison and Hinkley (1997), "Bootstrap methods and their application", chapter 5.
    """
    within("level", level, 0.0, 1.0)
    values = np.asarray(draws, dtype=np.float64)
    if values.ndim not in (1, 2) or values.shape[0] < 2:
        raise EstimationError(
            f"draws has shape {values.shape}", hint="give two draws or more, as rows"
        )
    ends = _quantiles(values, (0.5 - level / 2.0, 0.5 + level / 2.0))
    if around is None:
        return ends[0], ends[1]
    twice = 2.0 * np.asarray(around, dtype=np.float64)
    return np.asarray(twice - ends[1]), np.asarray(twice - ends[0])


Band = tuple[NDArray[np.float64], NDArray[np.float64]]


def _quantiles(values: NDArray[np.float64], shares: tuple[float, float]) -> FloatMatrix:
    columns = values[:, None] if values.ndim == 1 else values
    ends = np.full((2, columns.shape[1]), np.nan)
    enough = np.isfinite(columns).mean(axis=0) >= _LEAST_DRAWS
    for j in np.flatnonzero(enough):
        column = columns[:, j]
        ends[:, j] = np.quantile(column[np.isfinite(column)], shares)
    return ends[:, 0] if values.ndim == 1 else ends


@dataclass(frozen=True, slots=True, eq=False)
class Blocks:
    """How long runs must be for the error of each series' mean to come out right."""

    stationary: FloatColumn  # (series,): mean length; NaN where a reason stands
    circular: FloatColumn  # (series,): fixed length; NaN where a reason stands
    reasons: tuple[str, ...]  # (series,): empty where there is a length

    def joint(self, *, circular: bool = False) -> float:
        """One length for all: the mean over the series that have one; 1 where none has."""
        lengths = self.circular if circular else self.stationary
        known = lengths[~np.isnan(lengths)]
        return float(max(known.mean(), 1.0)) if known.size else 1.0


def block_lengths(x: ArrayLike) -> Blocks:
    """The automatic block length of each series, by the spectral rule of Politis and White.

    With R(k) the autocovariances, tapered by a flat-top window up to M lags,
    G = sum |k| R(k) and S = sum R(k): stationary (G^2/S^2 T)^(1/3), circular (3/2 as much under
    the root), at most min(3 sqrt T, T/3). M is twice the first lag from which five in a row are
    insignificant, as in the authors' own program (one lag more than the paper's words). The rule
    is made for means: for a correlation, give it the products of the standardised series.
    Missing values count as the mean, in their places.

    References
    ----------
    Politis and White (2004), Econometric Reviews 23; corrected by Patton, Politis and White
    (2009), Econometric Reviews 28.
    """
    values = matrix("x", x, missing=True)
    found = [_length(values[:, j]) for j in range(values.shape[1])]
    return Blocks(
        frozen(np.array([length for length, _, _ in found])),
        frozen(np.array([length for _, length, _ in found])),
        tuple(reason for _, _, reason in found),
    )


def correlation_block(x: ArrayLike) -> float:
    """Mean length of a run for statistics of correlations: that for products of all pairs.

    Correlations are means of products, and products remember less than what they are made of; where
    series are loud together for a while they remember far more.
    """
    values = matrix("x", x, missing=True)
    seen = ~np.isnan(values)
    middle = np.where(seen, values, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    centred = values - middle  # the rule does not ask how large a product is
    first, second = np.triu_indices(values.shape[1], 1)
    return block_lengths(centred[:, first] * centred[:, second]).joint() if len(first) else 1.0


def _length(x: FloatColumn) -> tuple[float, float, str]:
    seen = ~np.isnan(x)
    count = int(seen.sum())
    if count < 8:
        return math.nan, math.nan, f"too short: {count} values, 8 are needed"
    if np.ptp(x[seen]) <= 1e-12 * np.abs(x[seen]).max():
        return math.nan, math.nan, "constant"
    centred = np.where(seen, x - x[seen].mean(), 0.0)
    most = min(math.ceil(math.sqrt(count)) + 5, len(x) - 1)
    covs = np.array([centred[k:] @ centred[: len(x) - k] for k in range(most + 1)]) / count
    lags = _last_lag(np.abs(covs / covs[0]), 2.0 * math.sqrt(math.log10(count) / count))
    k = np.arange(1, lags + 1)
    window = np.minimum(1.0, 2.0 * (1.0 - k / lags))
    slope = 2.0 * float(window * k @ covs[1 : lags + 1])
    level = covs[0] + 2.0 * float(window @ covs[1 : lags + 1])
    bound = math.ceil(min(3.0 * math.sqrt(count), count / 3.0))
    if level <= 0.0:  # the flat-top window can do that: the series reverts faster than it can say
        return 1.0, 1.0, ""
    ratio = (slope / level) ** 2 * count
    return min(ratio ** (1 / 3), bound), min((1.5 * ratio) ** (1 / 3), bound), ""


def _last_lag(sizes: FloatColumn, bound: float) -> int:
    """Twice the first lag from which five autocorrelations in a row are below the bound."""
    most = len(sizes) - 1
    for lag in range(1, most - 4):
        if (sizes[lag : lag + 5] < bound).all():
            return min(2 * lag, most)
    return most


@dataclass(frozen=True, slots=True, eq=False)
class Draws:
    """What a statistic was on the data, and on many resamples of them."""

    estimate: NDArray[np.float64]  # () or (statistics,)
    draws: NDArray[np.float64]  # (reps,) or (reps, statistics); NaN where it gave no number
    block: float  # (mean) run length that was used
    status: str  # empty when every draw gave a number

    def band(self, level: float = 0.9, *, basic: bool = False) -> Band:
        """The middle `level` of the draws, or, `basic`, reflected around the estimate."""
        return band(self.draws, level, around=self.estimate if basic else None)

    def error(self) -> NDArray[np.float64]:
        """Standard error: the spread of the draws, over those that gave a number."""
        known = np.ma.masked_invalid(self.draws)
        return np.asarray(known.std(axis=0, ddof=1).filled(np.nan) if known.ndim > 1
                          else known.std(ddof=1), dtype=np.float64)  # fmt: skip


def stationary_bootstrap(
    statistic: Statistic,
    x: ArrayLike,
    *,
    rng: np.random.Generator,
    reps: int = 999,
    block: float | None = None,
) -> Draws:
    """A statistic of the rows of `x`, with its error under dependence over time.

    `statistic` takes a (time, series) matrix and returns a number or a column of them; it sees
    resamples with rows repeated, and NaN where `x` has it. `block` is the mean run length: with
    None the mean over the columns of `block_lengths`, which is right for means; for correlations
    give `correlation_block`. Bands are a few points too narrow when
    memory is long for the sample; `docs/methods/dynamic-correlation.md` has the coverage.

    References
    ----------
    Politis and Romano (1994).
    """
    return _bootstrap(statistic, x, rng, reps, block, stationary_indices, circular=False)


def circular_bootstrap(
    statistic: Statistic,
    x: ArrayLike,
    *,
    rng: np.random.Generator,
    reps: int = 999,
    block: float | None = None,
) -> Draws:
    """As `stationary_bootstrap`, with runs of one fixed length (Politis and Romano 1992)."""
    return _bootstrap(statistic, x, rng, reps, block, circular_indices, circular=True)


def _bootstrap(
    statistic: Statistic,
    x: ArrayLike,
    rng: np.random.Generator,
    reps: int,
    block: float | None,
    indices: Callable[[int, float, np.random.Generator], IndexColumn],
    *,
    circular: bool,
) -> Draws:
    values = matrix("x", np.asarray(x)[:, None] if np.ndim(x) == 1 else x, missing=True)
    if reps < 2:
        raise EstimationError(f"reps was {reps}; at least 2 are needed", hint="999 is usual")
    length = block_lengths(values).joint(circular=circular) if block is None else float(block)
    estimate = np.asarray(statistic(values), dtype=np.float64)
    if estimate.ndim > 1:
        raise EstimationError(
            f"statistic gave {estimate.ndim} dimensions", hint="let it return a number or a column"
        )
    draws = np.empty((reps, *estimate.shape))
    for r in range(reps):
        draws[r] = statistic(values[indices(len(values), length, rng)])
    draws[~np.isfinite(draws)] = np.nan
    return Draws(frozen(estimate), frozen(draws), length, _status(estimate, draws))


def _status(estimate: NDArray[np.float64], draws: NDArray[np.float64]) -> str:
    if not np.isfinite(estimate).all():
        return "the statistic gives no number on the data themselves"
    lost = int(np.isnan(draws).reshape(len(draws), -1).any(axis=1).sum())
    return f"{lost} of {len(draws)} draws gave no number" if lost else ""


def _check_block(rows: int, block: Any) -> None:
    if rows < 1:
        raise EstimationError(f"rows was {rows}; at least one is needed")
    if not 1.0 <= block < math.inf:
        raise EstimationError(
            f"block was {block}; it must be 1 or more", hint="see `block_lengths`"
        )
