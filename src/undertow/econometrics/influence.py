"""What each row of a history moves a number by, and how sure a weighted mean of that is.

Rows are instants, oldest first; columns are series, none missing. A number that is read off a
correlation matrix moves, with every row, by a little (its influence); over rows these add up like
any series with memory. So a number that weighs rows unevenly, the newest more than the older, has
an error too, which no bootstrap of whole histories could say.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from undertow.econometrics.checks import FloatColumn, FloatMatrix, frozen, matrix, series
from undertow.econometrics.hac import bartlett_sum
from undertow.errors import EstimationError


def mean_correlation_moves(x: Any) -> FloatColumn:
    """By how much each row moves the mean correlation over all pairs; about 0.

    In units of its own deviations a row z moves the correlation r of a pair by z1 z2 - r (z1^2 +
    z2^2) / 2; this is the mean over pairs.
    """
    z = _standardised(x)
    n = z.shape[1]
    with_others = (z.T @ z / len(z)).sum(axis=0) - 1.0
    square = z * z
    moved = z.sum(axis=1) ** 2 - square.sum(axis=1) - square @ with_others
    return frozen(np.asarray(moved / (n * n - n)))


def absorbed_moves(x: Any, top: int) -> FloatColumn:
    """By how much each row moves the share that the `top` strongest directions take; about 0.

    An eigenvalue of a correlation matrix with vector v moves by (v'z)^2 - l sum(v_i^2 z_i^2): what
    a row has in that direction, less what it adds to the deviations that z is measured in.
    """
    z = _standardised(x)
    n = z.shape[1]
    if not 1 <= top <= n:
        raise EstimationError(f"top was {top}; it must lie in 1..{n}")
    values, vectors = np.linalg.eigh(z.T @ z / len(z))
    values, vectors = values[-top:], vectors[:, -top:]
    moved = (z @ vectors) ** 2 - (z * z) @ (vectors * vectors) * values
    return frozen(np.asarray(moved.sum(axis=1) / n))


def weighted_error(moves: Any, weights: Any) -> float:
    """Standard error of the sum of `weights` times `moves`, which have mean 0 and may remember.

    Bartlett weights up to 1.5 cube roots of as many rows as even weights would need to be as sure.
    """
    given, weight = series("moves", moves, rows=1), series("weights", weights, rows=1)
    if len(given) != len(weight):
        raise EstimationError(f"moves are {len(given)}, weights {len(weight)}; give one for each")
    square = float(weight @ weight)
    if square <= 0.0:
        return 0.0
    rows = float(np.abs(weight).sum()) ** 2 / square
    variance = float(bartlett_sum((weight * given)[:, None], int(1.5 * rows ** (1.0 / 3.0)))[0, 0])
    return math.sqrt(max(variance, 0.0))


def _standardised(x: Any) -> FloatMatrix:
    given = matrix("x", x, columns=2)
    z: FloatMatrix = given - given.mean(axis=0)
    size = np.sqrt(np.mean(z * z, axis=0))
    if (size == 0.0).any():
        raise EstimationError(f"column {int(np.argmin(size))} of x stood still")
    z /= size
    return z
