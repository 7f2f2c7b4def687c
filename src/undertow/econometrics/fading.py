"""Means, variances and correlations over time, with a past that fades instead of ending.

Rows of `x` are instants, oldest first, columns are series, NaN is a value that was not observed.
Weights halve every `half_life` rows, seen or not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from undertow.econometrics.checks import frozen, matrix, within
from undertow.econometrics.moments import (
    FEWEST,
    RollingMoments,
    RollingPairs,
    pairs_of,
    real_of,
    too_few,
)
from undertow.errors import EstimationError
from undertow.kernels import fading


def ewma_moments(x: Any, half_life: float, *, least: int = 2) -> RollingMoments:
    """Mean and variance of each series under weights that halve every `half_life` rows.

    Ages count rows, seen or not. The variance is free of bias for independent values: it is divided
    by W - W2 / W, W and W2 being the sums of weights and of their squares. Steps begin at row 0.
    """
    given = matrix("x", x, rows=1, missing=True)
    decay = _decay(half_life)
    count = np.empty(given.shape, dtype=np.int32)
    mean, variance = np.empty(given.shape), np.empty(given.shape)
    fading.fading_moments(given, decay, count, mean, variance)
    few = count < max(least, 2)
    mean[few] = variance[few] = np.nan
    status = too_few(few, least)
    return RollingMoments(0, frozen(mean), frozen(variance), frozen(count), status)


def ewma_correlation(
    x: Any, half_life: float, *, least: int | None = None, dtype: DTypeLike = np.float64
) -> RollingPairs:
    """Correlation of every pair under weights that halve every `half_life` rows.

    It answers sooner than a window of the same reach and forgets without a jump. About
    half_life / ln 2 * 2 rows count in effect: with few of them it is as noisy as a short window.
    Steps begin at the row that completes `least` rows (the half life, at least 3, unless said).
    """
    return _faded(x, half_life, least, dtype, norm=True)


def ewma_covariance(
    x: Any, half_life: float, *, least: int | None = None, dtype: DTypeLike = np.float64
) -> RollingPairs:
    """Covariance of every pair under weights that halve every `half_life` rows, free of bias."""
    return _faded(x, half_life, least, dtype, norm=False)


def _faded(
    x: Any, half_life: float, least: int | None, dtype: DTypeLike, *, norm: bool
) -> RollingPairs:
    given = matrix("x", x, columns=2, missing=True)
    decay = _decay(half_life)
    needed = max(FEWEST, int(np.ceil(half_life))) if least is None else least
    if not FEWEST <= needed <= len(given):
        raise EstimationError(f"least was {needed}; it may be {FEWEST} to {len(given)} rows")
    rows, n = given.shape
    pairs = n * (n - 1) // 2
    first = needed - 1
    out = np.empty((rows - first, pairs), dtype=real_of(dtype))
    missing = np.zeros(2, dtype=np.int64)
    early = np.empty((first, pairs))
    if np.isnan(given).any():
        state = np.zeros((pairs, 8))
        fading.fading_products(given, decay, needed, 0, state, int(norm), early, missing)
        missing[:] = 0
        fading.fading_products(given, decay, needed, first, state, int(norm), out, missing)
    else:
        series, both = np.zeros((3, n)), np.zeros(pairs)
        fading.fading_complete(given, decay, 0, series, both, int(norm), early)
        fading.fading_complete(given, decay, first, series, both, int(norm), out)
        missing[1] = np.isnan(out).sum()
    variance = None if norm else ewma_moments(given, half_life, least=needed).variance[first:]
    return pairs_of(first, n, out, variance, missing, needed)


def _decay(half_life: float) -> float:
    within("half_life", half_life, 0.0, np.inf)
    return float(0.5 ** (1.0 / half_life))
