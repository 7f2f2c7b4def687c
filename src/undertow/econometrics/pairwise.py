"""Correlation of every pair of series, each over the rows that both showed, and what that costs.

Rows of `x` are instants, columns are series, NaN is a value that was not observed. Where values are
missing, each pair stands on rows of its own, and the matrix of all pairs need not be one that any
set of series could have: some portfolio may get a negative variance. `repaired_correlation` gives
one that is, and says how far it had to go.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from undertow.econometrics.checks import FloatMatrix, chosen, frozen, matrix, within
from undertow.errors import EstimationError
from undertow.kernels import ranks

_FEWEST = 4  # rows under which Fisher's band does not exist
_SLACK = 1e-10  # an eigenvalue above -_SLACK is rounding, not a fault


class Method(StrEnum):
    """What is correlated: values, or their ranks among the rows that both showed."""

    PEARSON = "pearson"
    SPEARMAN = "spearman"


class Band(StrEnum):
    """How the band of a correlation is made; both take rows for independent of each other."""

    FISHER = "fisher"  # for values near normal, and for ranks
    ASYMPTOTIC = "asymptotic"  # from the rows' own influence: holds with fat tails, many rows


@dataclass(frozen=True, slots=True, eq=False)
class CorrelationMatrix:
    """All pairwise correlations with their bands; NaN where `reasons` says why there is none."""

    method: Method
    band: Band
    level: float
    values: FloatMatrix  # (series, series), symmetric, 1 on the diagonal
    low: FloatMatrix  # (series, series)
    high: FloatMatrix
    counts: NDArray[np.int64]  # (series, series): rows that both showed
    least_eigenvalue: float  # of `values`; below 0 pairs contradict each other; NaN with gaps
    reasons: dict[tuple[int, int], str]  # by pair i < j

    @property
    def status(self) -> str:
        """How many pairs have no correlation; empty where all have one."""
        pairs = self.values.shape[0] * (self.values.shape[0] - 1) // 2
        return f"{len(self.reasons)} of {pairs} pairs have none" if self.reasons else ""


@dataclass(frozen=True, slots=True, eq=False)
class RepairedCorrelation:
    """A correlation matrix, and how far it is from the pairwise one that it replaces."""

    values: FloatMatrix  # (series, series)
    least_eigenvalue: float  # of the matrix that was given
    clipped: int  # eigenvalues that were raised
    distance: float  # Frobenius norm of the change; 0 where nothing had to be repaired
    largest_change: float  # of a single correlation


def pairwise_correlation(
    x: Any,
    *,
    method: Method = Method.PEARSON,
    band: Band = Band.FISHER,
    least: int = 10,
    level: float = 0.9,
) -> CorrelationMatrix:
    """Correlation of every pair of columns, with a band that holds the true one with `level`.

    Fisher's band is tanh(atanh(r) +- z / sqrt(n - 3)); ranks widen it by sqrt(1 + r^2 / 2). The
    asymptotic one is r +- z sqrt(mean(psi^2) / n), psi = ab - r (a^2 + b^2) / 2 for standardised
    values a and b, kept within +-1. Neither knows of serial dependence: with rows that resemble
    their neighbours the true band is wider. A pair needs `least` common rows.

    Raises
    ------
    EstimationError
        When x is no matrix of two columns or more, or an argument is out of range.

    References
    ----------
    Fisher (1921), "On the probable error of a coefficient of correlation deduced from a small
    sample". Bonett and Wright (2000), "Sample size requirements for estimating Pearson, Kendall
    and Spearman correlations". Steiger and Hakstian (1982), "The asymptotic distribution of
    elements of a correlation matrix".
    """
    given = matrix("x", x, columns=2, missing=True)
    within("level", level, 0.0, 1.0)
    method, band = chosen("method", Method, method), chosen("band", Band, band)
    if least < _FEWEST:
        raise EstimationError(f"least was {least}; a band needs at least {_FEWEST} rows")
    if method is Method.SPEARMAN and band is Band.ASYMPTOTIC:
        raise EstimationError("band was asymptotic; ranks have no such band", hint="take fisher")
    n = given.shape[1]
    values, spread = np.eye(n), np.zeros((n, n))
    counts = np.diag((~np.isnan(given)).sum(axis=0)).astype(np.int64)
    ranks.pair_table(given, method is Method.SPEARMAN, values, counts, spread)
    values[(counts < least) & ~np.eye(n, dtype=np.bool_)] = np.nan
    low, high = _band(values, counts, spread, method, band, level)
    some = np.isnan(values).any()
    least_eigenvalue = np.nan if some else float(np.linalg.eigvalsh(values)[0])
    return CorrelationMatrix(
        method,
        band,
        level,
        frozen(values),
        frozen(low),
        frozen(high),
        frozen(counts),
        least_eigenvalue,
        _reasons(values, counts, least),
    )


def repaired_correlation(correlation: Any, *, floor: float = 0.0) -> RepairedCorrelation:
    """Raise eigenvalues below `floor` to it and scale the diagonal back to 1.

    The result is a correlation matrix near the given one, not the nearest: that one takes Higham's
    projections, and is seldom more than a few percent nearer. A matrix that is one already comes
    back as it is. A `floor` above 0 also makes it invertible.

    Raises
    ------
    EstimationError
        When it is not symmetric with ones on the diagonal, or holds a number beyond +-1 or NaN.

    References
    ----------
    Rebonato and Jaeckel (2000), "The most general methodology to create a valid correlation
    matrix". Higham (2002), "Computing the nearest correlation matrix".
    """
    given = correlation_matrix("correlation", correlation)
    within("floor", floor, 0.0, 1.0, closed=True)
    eigenvalues, vectors = np.linalg.eigh(given)
    low = eigenvalues < (floor if floor > 0.0 else -_SLACK)
    if not low.any():
        return RepairedCorrelation(frozen(given.copy()), float(eigenvalues[0]), 0, 0.0, 0.0)
    whole = (vectors * np.maximum(eigenvalues, floor)) @ vectors.T
    size = np.sqrt(np.diag(whole))
    values = np.clip(whole / size[:, None] / size, -1.0, 1.0)
    values = 0.5 * (values + values.T)
    np.fill_diagonal(values, 1.0)
    change = values - given
    return RepairedCorrelation(
        frozen(values),
        float(eigenvalues[0]),
        int(low.sum()),
        float(np.linalg.norm(change)),
        float(np.abs(change).max()),
    )


def correlation_matrix(name: str, values: Any) -> FloatMatrix:
    """`values` as a symmetric matrix with ones on the diagonal and nothing beyond +-1; or raise."""
    given = matrix(name, values, rows=1)
    if given.shape[0] != given.shape[1]:
        raise EstimationError(
            f"{name} is {given.shape[0]} by {given.shape[1]}; it must be square",
            hint="give one row and one column a series",
        )
    if np.abs(given - given.T).max() > 1e-9:
        raise EstimationError(f"{name} is not symmetric", hint="give each pair one number")
    if np.abs(np.diag(given) - 1.0).max() > 1e-9:
        raise EstimationError(
            f"the diagonal of {name} is not 1", hint="divide rows and columns by its root"
        )
    if np.abs(given).max() > 1.0 + 1e-9:
        raise EstimationError(f"{name} holds a number beyond -1 and 1")
    return given


def _band(
    r: FloatMatrix,
    counts: NDArray[np.int64],
    spread: FloatMatrix,
    method: Method,
    band: Band,
    level: float,
) -> tuple[FloatMatrix, FloatMatrix]:
    z = float(ndtri(0.5 + 0.5 * level))
    n = np.maximum(counts, _FEWEST)
    if band is Band.ASYMPTOTIC:
        half = z * np.sqrt(spread / n)
        low, high = np.maximum(r - half, -1.0), np.minimum(r + half, 1.0)
    else:
        wider = np.sqrt(1.0 + 0.5 * r * r) if method is Method.SPEARMAN else 1.0
        half = z * wider / np.sqrt(n - 3)
        centre = np.arctanh(np.clip(r, -1.0 + 1e-16, 1.0 - 1e-16))
        low, high = np.tanh(centre - half), np.tanh(centre + half)
    for edge in (low, high):
        np.fill_diagonal(edge, 1.0)
    return low, high


def _reasons(
    values: FloatMatrix, counts: NDArray[np.int64], least: int
) -> dict[tuple[int, int], str]:
    reasons = {}
    for i, j in zip(*np.nonzero(np.triu(np.isnan(values), 1)), strict=True):
        few = counts[i, j] < least
        reasons[int(i), int(j)] = (
            f"seen together in {counts[i, j]} rows; {least} are needed"
            if few
            else "one of them stood still in the rows that both showed"
        )
    return reasons
